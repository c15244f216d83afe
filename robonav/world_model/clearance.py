"""How near the footprint comes to anything, foretold from features: a dense question in place of a rare one.

Collisions are one tick in a hundred, and a head that learns from them alone ranks what it has not seen badly. The
distance from the footprint to the nearest beam's end is there at every tick, and a collision is its end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.types import LidarSpec
from robonav.world_model.nets import mlp

EDGES_M = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
"""Between the classes of distances; the first ones are as good as a touch."""
TOUCH_CLASSES = 2
_NEAREST_M, _NOTHING_M = 0.05, 9.0  # shorter ranges are no readings
COLLISION_REWARD = -0.5  # an end with less reward than this is a collision


class ClearanceHead(nn.Module):
    """Classes of the footprint's distance to what the lidar sees, from features."""

    cos: Tensor
    sin: Tensor
    edges: Tensor

    def __init__(self, inputs: int, hidden: int, lidar: LidarSpec) -> None:
        super().__init__()
        self.net = mlp(inputs, hidden, len(EDGES_M) + 1)
        self.mount_x_m = lidar.mount_x_m
        angles = torch.as_tensor(lidar.angles_rad, dtype=torch.float32)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer("edges", torch.tensor(EDGES_M), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) -> logits (..., classes)."""
        logits: Tensor = self.net(features)
        return logits

    def touch(self, features: Tensor) -> Tensor:
        """(..., F) -> chance (...) that the footprint is within 5 cm of something."""
        return torch.softmax(self(features), dim=-1)[..., :TOUCH_CLASSES].sum(-1)

    def clearance_m(self, scan_m: Tensor, robot: Tensor) -> Tensor:
        """(...) distance from the footprint to the nearest beam's end, negative within it.

        Args:
            scan_m: (..., beams) ranges.
            robot: (..., 9) of `RobotSpec.dynamics`, whose first two are length and width.
        """
        scan_m = torch.where(scan_m > _NEAREST_M, scan_m, torch.full_like(scan_m, _NOTHING_M))
        ahead = (self.mount_x_m + scan_m * self.cos).abs() - robot[..., :1] / 2
        beside = (scan_m * self.sin).abs() - robot[..., 1:2] / 2
        outside = torch.hypot(ahead.clamp(min=0), beside.clamp(min=0))
        return (outside + torch.maximum(ahead, beside).clamp(max=0)).amin(-1)

    def loss(self, features: Tensor, inputs: dict[str, Tensor], reward: Tensor, terminal: Tensor) -> Tensor:
        """Cross-entropy (B, T); 0 where there is no scan. A collision counts as distance 0, whatever the scan says."""
        collided = (terminal > 0) & (reward < COLLISION_REWARD)
        clearance = torch.where(collided, torch.zeros_like(reward), self.clearance_m(inputs["scan_m"], inputs["robot"]))
        known = collided | (inputs["present"][..., 0] > 0)
        wanted = torch.bucketize(clearance, self.edges)
        return F.cross_entropy(self(features).movedim(-1, 1), wanted, reduction="none") * known
