"""One encoder and one decoder a modality. Inputs are in physical units; normalisation happens here, so it is exported.

A modality that is absent contributes a learned constant, and its reconstruction is not asked for. The same holds for a
beam without a reading (0 m). What the beams hit and where that moves are channels of one ring, so that the network
which the sectors share sees both at the same place.
Shape letters: B batch (any leading shape), F features, S sectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.types import (
    LOCAL_MAP_CHANNELS,
    MODALITIES,
    ROBOT_SIZE,
    WAYPOINT_LOOKAHEADS_M,
    RobotSpec,
    policy_input_shapes,
)
from robonav.world_model.nets import mlp, symlog

Inputs = dict[str, Tensor]
NEAR_M = 0.7  # scale of "near" in the lidar's second channel and in its loss
FLOW_M = 2.0  # how far things count as close in the loss of their motion
SCAN_FLOOR_M = 0.1
MAP_POOL = 4
MOTION_SIZE = 3  # numbers of `motion_vector` a sector


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes of encoders and decoders."""

    sectors: int = 16
    """Lidar sectors that share one network; must divide the number of beams."""
    sector_width: int = 24
    """Features a sector."""
    vector_width: int = 48
    """Features of goal and body state."""
    map_width: int = 96
    """Features of the local map."""
    hidden: int = 192
    """Hidden width of the joint layer and of the decoders."""
    flow: bool = False
    """Whether the beams' velocities are read, and beams without a reading told apart."""
    motion: bool = False
    """Whether the nearest moving thing of each sector is read, and decoded, by itself: among all beams it is lost."""
    robot: bool = False
    """Whether the robot's size and limits are read, so that one policy can serve several robots."""
    modalities: tuple[str, ...] = MODALITIES
    """What is read; the others are left out of the network."""

    def __post_init__(self) -> None:
        """Checks ranges and names.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, dict.fromkeys(("sectors", "sector_width", "vector_width", "map_width", "hidden"), 1))
        if not self.modalities or tuple(m for m in MODALITIES if m in self.modalities) != tuple(self.modalities):
            got = ", ".join(self.modalities) or "none"
            raise ConfigError(explain("encoder.modalities", f"some of {', '.join(MODALITIES)}, in that order", got))
        if self.motion and not self.flow:
            raise ConfigError(explain("encoder.motion", "encoder.flow with it", "no flow"))
        if "goal" not in self.modalities:
            raise ConfigError(explain("encoder.modalities", "'goal' among them", ", ".join(self.modalities)))

    def input_names(self, spec: RobotSpec) -> tuple[str, ...]:
        """The arrays of `PolicyInput` that are read, in its order."""
        of = {
            "scan": {"scan_m"} | ({"flow_mps"} if self.flow else set()),
            "local_map": {"local_map"},
            "goal": {"goal_base_m", "waypoints_base_m"},
            "body": {"twist_base", "tilt_rad", "last_command"} | ({"robot"} if self.robot else set()),
        }
        read = {"present"}.union(*(of[m] for m in self.modalities))
        return tuple(name for name in policy_input_shapes(spec) if name in read)


def log_range(scan_m: Tensor) -> Tensor:
    """Range in metres to log range."""
    return torch.log(scan_m.clamp(min=SCAN_FLOOR_M))


def scan_channels(inputs: Inputs, range_m: float) -> Tensor:
    """(B, 5, beams): log range, nearness, whether there is a reading, and the velocity of what was hit."""
    scan = inputs["scan_m"]
    seen = (scan > 0).to(scan.dtype)
    log = log_range(torch.where(scan > 0, scan, range_m))
    flow = inputs["flow_mps"].transpose(-1, -2)
    return torch.cat([torch.stack([log, torch.exp(-scan / NEAR_M) * seen, seen], dim=-2), flow], dim=-2)


def motion_vector(inputs: Inputs, sectors: int) -> Tensor:
    """(B, 3 S): closeness exp(-d / 2 m) of each sector's nearest moving thing, and its velocity times that; or 0."""
    scan = inputs["scan_m"].unflatten(-1, (sectors, -1))  # (B, S, beams a sector)
    flow = inputs["flow_mps"].unflatten(-2, (sectors, -1))
    moving = flow.square().sum(-1) > 0
    closeness = torch.exp(-scan / FLOW_M) * moving
    nearest = closeness.argmax(-1, keepdim=True)
    most = closeness.gather(-1, nearest)  # (B, S, 1)
    velocity = flow.gather(-2, nearest[..., None].expand(*nearest.shape, 2)).squeeze(-2)
    return torch.cat([most, most * velocity], dim=-1).flatten(-2)


class ScanEncoder(nn.Module):
    """Circular lidar encoder: each sector, with half a sector of overlap to both sides, through one shared network."""

    def __init__(self, config: EncoderConfig, spec: RobotSpec) -> None:
        super().__init__()
        beams = spec.lidar.beams
        if beams % config.sectors or beams // config.sectors % 2:
            got = f"{beams} beams over {config.sectors} sectors"
            raise ConfigError(explain("encoder.sectors", "an even whole number of beams a sector", got))
        self.size, self.flow, self.range_m = beams // config.sectors, config.flow, spec.lidar.range_m
        self.net = mlp((5 if self.flow else 2) * 2 * self.size, config.sector_width, config.sector_width)
        self.width, self.sectors = config.sectors * config.sector_width, config.sectors
        self.motion = None
        if config.motion:
            self.motion = mlp(MOTION_SIZE * config.sectors, config.vector_width, config.vector_width)
            self.width += config.vector_width

    def forward(self, inputs: Inputs) -> Tensor:
        """scan_m (B, beams), and flow_mps (B, beams, 2) where it is read -> (B, F)."""
        if self.flow:
            channels = scan_channels(inputs, self.range_m)
        else:
            scan = inputs["scan_m"]
            channels = torch.stack([log_range(scan), torch.exp(-scan / NEAR_M)], dim=-2)  # (B, 2, beams)
        half = self.size // 2
        ring = torch.cat([channels[..., -half:], channels, channels[..., :half]], dim=-1)
        windows = ring.unfold(-1, 2 * self.size, self.size)  # (B, channels, S, 2 size)
        out: Tensor = self.net(windows.transpose(-2, -3).flatten(-2)).flatten(-2)
        if self.motion is None:
            return out
        return torch.cat([out, self.motion(motion_vector(inputs, self.sectors))], dim=-1)


class ScanDecoder(nn.Module):
    """Mirror of `ScanEncoder`: features to log range and velocity, sector by sector with one shared network."""

    def __init__(self, config: EncoderConfig, beams: int, features: int) -> None:
        super().__init__()
        self.sectors, self.width, self.size = config.sectors, config.sector_width, beams // config.sectors
        self.channels = 3 if config.flow else 1
        self.spread = nn.Linear(features, config.sectors * config.sector_width)
        self.net = mlp(config.sector_width, 2 * config.sector_width, self.channels * self.size)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> log range (B, beams), or (B, beams, 3) log range and velocity where that is read."""
        sectors = F.silu(self.spread(features)).unflatten(-1, (self.sectors, self.width))
        out: Tensor = self.net(sectors)
        return out.flatten(-2) if self.channels == 1 else out.unflatten(-1, (self.size, self.channels)).flatten(-3, -2)


def with_patches(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Adds ``map_patches``: local_map (B, 3, C, C) as patches of 4 x 4 cells in 0..255, (B, rows, columns, 3, 16).

    Encoder and decoder both read them, and at 7 million cells a batch the conversion is worth doing once.
    """
    if "map_patches" in inputs:
        return inputs
    image = inputs["local_map"]
    side = image.shape[-1] // MAP_POOL
    patches = image.unflatten(-1, (side, MAP_POOL)).unflatten(-3, (side, MAP_POOL))  # (B, 3, rows, 4, columns, 4)
    n = image.dim() - 3
    patches = patches.permute(*range(n), n + 1, n + 3, n, n + 2, n + 4).flatten(-2).to(dtype)
    return {**inputs, "map_patches": patches}


class MapEncoder(nn.Module):
    """Patches of 4 x 4 cells, then blocks of 2 x 2 patches, then one linear layer: strided convolutions as products."""

    def __init__(self, config: EncoderConfig, cells: int) -> None:
        super().__init__()
        if cells % (2 * MAP_POOL):
            raise ConfigError(explain("local_map.cells", f"a multiple of {2 * MAP_POOL}", cells))
        self.side = cells // (2 * MAP_POOL)
        self.patch = nn.Linear(len(LOCAL_MAP_CHANNELS) * MAP_POOL**2, 16)
        self.block = nn.Linear(4 * 16, 32)
        self.out = nn.Linear(32 * self.side**2, config.map_width)
        self.width = config.map_width

    def forward(self, inputs: Inputs) -> Tensor:
        """local_map (B, 3, C, C) in 0..255 -> (B, F)."""
        cells = with_patches(inputs, self.out.weight.dtype)["map_patches"].flatten(-2)
        patches = F.silu(F.linear(cells, self.patch.weight / 255, self.patch.bias))  # (B, rows, columns, 16)
        n = patches.dim() - 3
        blocks = patches.unflatten(-2, (self.side, 2)).unflatten(-4, (self.side, 2))  # (B, s, 2, s, 2, 16)
        blocks = blocks.permute(*range(n), n, n + 2, n + 1, n + 3, n + 4).flatten(-3)
        return F.silu(self.out(F.silu(self.block(blocks)).flatten(-3)))


def goal_vector(inputs: Inputs) -> Tensor:
    """(B, 10): the goal's symlog distance, nearness (arrival is decided near it) and direction; the waypoints."""
    goal = inputs["goal_base_m"]
    distance = torch.sqrt(goal.square().sum(-1, keepdim=True) + 1e-6)
    nearness = torch.exp(-distance / NEAR_M)
    waypoints = inputs["waypoints_base_m"].flatten(-2)
    return torch.cat([symlog(distance), nearness, goal / distance, waypoints], dim=-1)


def body_vector(inputs: Inputs, robot: bool) -> Tensor:
    """(B, 8) twist, tilt, last applied command; and (B, 17) with the robot's size and limits."""
    parts = [inputs["twist_base"], inputs["tilt_rad"], inputs["last_command"]]
    return torch.cat([*parts, inputs["robot"]] if robot else parts, dim=-1)


GOAL_SIZE = 4 + 2 * len(WAYPOINT_LOOKAHEADS_M)
BODY_SIZE = 8


class ObservationEncoder(nn.Module):
    """All modalities to one vector (B, hidden); an absent one is replaced by a learned constant."""

    def __init__(self, config: EncoderConfig, spec: RobotSpec) -> None:
        super().__init__()
        self.modalities, self.robot = config.modalities, config.robot
        widths = []
        if "scan" in self.modalities:
            self.scan = ScanEncoder(config, spec)
            widths.append(self.scan.width)
        if "local_map" in self.modalities:
            self.local_map = MapEncoder(config, spec.local_map.cells)
            widths.append(self.local_map.width)
        self.goal = mlp(GOAL_SIZE, config.vector_width, config.vector_width)
        widths.append(config.vector_width)
        if "body" in self.modalities:
            self.body = mlp(BODY_SIZE + ROBOT_SIZE * config.robot, config.vector_width, config.vector_width)
            widths.append(config.vector_width)
        self.absent = nn.ParameterList(nn.Parameter(torch.zeros(w)) for w in widths)
        self.joint = nn.Sequential(
            nn.Linear(sum(widths), config.hidden, bias=False), nn.RMSNorm(config.hidden), nn.SiLU()
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """`PolicyInput` arrays with leading shape B -> (B, hidden)."""
        present = inputs["present"]
        parts = []
        for name, absent in zip(self.modalities, self.absent, strict=True):
            i = MODALITIES.index(name)
            here = present[..., i : i + 1]
            parts.append(here * self._encoded(name, inputs) + (1 - here) * absent)
        out: Tensor = self.joint(torch.cat(parts, dim=-1))
        return out

    def _encoded(self, name: str, inputs: Inputs) -> Tensor:
        """(B, F) of one modality."""
        read = {
            "scan": lambda: self.scan(inputs),
            "local_map": lambda: self.local_map(inputs),
            "goal": lambda: self.goal(goal_vector(inputs)),
            "body": lambda: self.body(body_vector(inputs, self.robot)),
        }
        out: Tensor = read[name]()
        return out


class ObservationDecoder(nn.Module):
    """Reconstructs every modality from the features, and scores the reconstruction."""

    def __init__(self, config: EncoderConfig, spec: RobotSpec, features: int) -> None:
        super().__init__()
        self.modalities, self.robot, self.flow = config.modalities, config.robot, config.flow
        if "scan" in self.modalities:
            self.scan = ScanDecoder(config, spec.lidar.beams, features)
        self.motion = None
        if config.motion and "scan" in self.modalities:
            self.sectors = config.sectors
            self.motion = mlp(features, config.vector_width, MOTION_SIZE * config.sectors)
        if "local_map" in self.modalities:
            self.pooled = spec.local_map.cells // MAP_POOL
            self.local_map = mlp(features, config.hidden, len(LOCAL_MAP_CHANNELS) * self.pooled**2)
        self.goal = mlp(features, config.vector_width, GOAL_SIZE)
        if "body" in self.modalities:
            self.body = mlp(features, config.vector_width, BODY_SIZE + ROBOT_SIZE * config.robot)

    def scan_m(self, features: Tensor) -> Tensor:
        """Decoded ranges (B, beams) in metres."""
        decoded = self.scan(features)
        return torch.exp(decoded[..., 0] if self.flow else decoded)

    def flow_mps(self, features: Tensor) -> Tensor:
        """Decoded velocities (B, beams, 2) of what the beams hit; only where they are read."""
        decoded: Tensor = self.scan(features)
        return decoded[..., 1:]

    def losses(self, features: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        """Loss (B,) a modality, summed over its entries; 0 where it is absent or not read.

        Lidar: squared error of log range, weighted 3 (1 + 3 exp(-d / 0.7 m)), since near beams decide collisions, and
        of the velocity of what was hit, weighted 1 + 2 exp(-d / 2 m). Map: cross-entropy on cells pooled by 4.
        Vectors: squared error.
        """
        losses = dict.fromkeys(MODALITIES, features.new_zeros(features.shape[:-1]))
        if self.motion is not None:
            error = (self.motion(features) - motion_vector(inputs, self.sectors)).square().sum(-1)
            losses["motion"] = inputs["present"][..., MODALITIES.index("scan")] * error
        for name in self.modalities:
            loss = getattr(self, f"_{name}_loss")(features, inputs)
            losses[name] = inputs["present"][..., MODALITIES.index(name)] * loss
        return losses

    def _scan_loss(self, features: Tensor, inputs: Inputs) -> Tensor:
        scan, decoded = inputs["scan_m"], self.scan(features)
        weight = 3 * (1 + 3 * torch.exp(-scan / NEAR_M))
        if not self.flow:
            return (weight * (decoded - log_range(scan)).square()).sum(-1)
        seen = (scan > 0).to(scan.dtype)
        ranges = weight * (decoded[..., 0] - log_range(scan)).square()
        motion = (1 + 2 * torch.exp(-scan / FLOW_M)) * (decoded[..., 1:] - inputs["flow_mps"]).square().sum(-1)
        return (seen * (ranges + motion)).sum(-1)

    def _local_map_loss(self, features: Tensor, inputs: Inputs) -> Tensor:
        pooled = with_patches(inputs, features.dtype)["map_patches"].mean(-1).flatten(-3) / 255
        logits = self.local_map(features)
        return F.binary_cross_entropy_with_logits(logits, pooled, reduction="none").sum(-1)

    def _goal_loss(self, features: Tensor, inputs: Inputs) -> Tensor:
        return (self.goal(features) - goal_vector(inputs)).square().sum(-1)

    def _body_loss(self, features: Tensor, inputs: Inputs) -> Tensor:
        return (self.body(features) - body_vector(inputs, self.robot)).square().sum(-1)
