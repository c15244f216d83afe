"""One encoder and one decoder a modality. Inputs are in physical units; normalisation happens here, so it is exported.

A modality that is absent contributes a learned constant, and its reconstruction is not asked for.
Shape letters: B batch (any leading shape), F features, S sectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.types import LOCAL_MAP_CHANNELS, MODALITIES, WAYPOINT_LOOKAHEADS_M, RobotSpec
from robonav.world_model.nets import mlp, symlog

Inputs = dict[str, Tensor]
NEAR_M = 0.7  # scale of "near" in the lidar's second channel and in its loss
SCAN_FLOOR_M = 0.1
MAP_POOL = 4


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

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, dict.fromkeys(("sectors", "sector_width", "vector_width", "map_width", "hidden"), 1))


def log_range(scan_m: Tensor) -> Tensor:
    """Range in metres to log range."""
    return torch.log(scan_m.clamp(min=SCAN_FLOOR_M))


class ScanEncoder(nn.Module):
    """Circular lidar encoder: each sector, with half a sector of overlap to both sides, through one shared network."""

    def __init__(self, config: EncoderConfig, beams: int) -> None:
        super().__init__()
        if beams % config.sectors or beams // config.sectors % 2:
            got = f"{beams} beams over {config.sectors} sectors"
            raise ConfigError(explain("encoder.sectors", "an even whole number of beams a sector", got))
        self.size = beams // config.sectors
        self.net = mlp(2 * 2 * self.size, config.sector_width, config.sector_width)
        self.width = config.sectors * config.sector_width

    def forward(self, inputs: Inputs) -> Tensor:
        """scan_m (B, beams) -> (B, F)."""
        scan = inputs["scan_m"]
        channels = torch.stack([log_range(scan), torch.exp(-scan / NEAR_M)], dim=-2)  # (B, 2, beams)
        half = self.size // 2
        ring = torch.cat([channels[..., -half:], channels, channels[..., :half]], dim=-1)
        windows = ring.unfold(-1, 2 * self.size, self.size)  # (B, 2, S, 2 size)
        out: Tensor = self.net(windows.transpose(-2, -3).flatten(-2)).flatten(-2)
        return out


class ScanDecoder(nn.Module):
    """Mirror of `ScanEncoder`: features to log range, sector by sector with one shared network."""

    def __init__(self, config: EncoderConfig, beams: int, features: int) -> None:
        super().__init__()
        self.sectors, self.width = config.sectors, config.sector_width
        self.spread = nn.Linear(features, config.sectors * config.sector_width)
        self.net = mlp(config.sector_width, 2 * config.sector_width, beams // config.sectors)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> log range (B, beams)."""
        sectors = F.silu(self.spread(features)).unflatten(-1, (self.sectors, self.width))
        out: Tensor = self.net(sectors).flatten(-2)
        return out


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


def body_vector(inputs: Inputs) -> Tensor:
    """(B, 8): twist, tilt, last applied command."""
    return torch.cat([inputs["twist_base"], inputs["tilt_rad"], inputs["last_command"]], dim=-1)


GOAL_SIZE = 4 + 2 * len(WAYPOINT_LOOKAHEADS_M)
BODY_SIZE = 8


class ObservationEncoder(nn.Module):
    """All modalities to one vector (B, hidden); an absent one is replaced by a learned constant."""

    def __init__(self, config: EncoderConfig, spec: RobotSpec) -> None:
        super().__init__()
        self.scan = ScanEncoder(config, spec.lidar.beams)
        self.local_map = MapEncoder(config, spec.local_map.cells)
        self.goal = mlp(GOAL_SIZE, config.vector_width, config.vector_width)
        self.body = mlp(BODY_SIZE, config.vector_width, config.vector_width)
        widths = (self.scan.width, self.local_map.width, config.vector_width, config.vector_width)
        self.absent = nn.ParameterList(nn.Parameter(torch.zeros(w)) for w in widths)
        self.joint = nn.Sequential(
            nn.Linear(sum(widths), config.hidden, bias=False), nn.RMSNorm(config.hidden), nn.SiLU()
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """`PolicyInput` arrays with leading shape B -> (B, hidden)."""
        encoded = (
            self.scan(inputs),
            self.local_map(inputs),
            self.goal(goal_vector(inputs)),
            self.body(body_vector(inputs)),
        )
        present = inputs["present"]
        parts = []
        for i, (features, absent) in enumerate(zip(encoded, self.absent, strict=True)):
            here = present[..., i : i + 1]
            parts.append(here * features + (1 - here) * absent)
        out: Tensor = self.joint(torch.cat(parts, dim=-1))
        return out


class ObservationDecoder(nn.Module):
    """Reconstructs every modality from the features, and scores the reconstruction."""

    def __init__(self, config: EncoderConfig, spec: RobotSpec, features: int) -> None:
        super().__init__()
        self.scan = ScanDecoder(config, spec.lidar.beams, features)
        self.pooled = spec.local_map.cells // MAP_POOL
        self.local_map = mlp(features, config.hidden, len(LOCAL_MAP_CHANNELS) * self.pooled**2)
        self.goal = mlp(features, config.vector_width, GOAL_SIZE)
        self.body = mlp(features, config.vector_width, BODY_SIZE)

    def scan_m(self, features: Tensor) -> Tensor:
        """Decoded ranges (B, beams) in metres."""
        return torch.exp(self.scan(features))

    def losses(self, features: Tensor, inputs: Inputs) -> dict[str, Tensor]:
        """Loss (B,) a modality, summed over its entries; 0 where it is absent.

        Lidar: squared error of log range, weighted 3 (1 + 3 exp(-d / 0.7 m)), since near beams decide collisions.
        Map: cross-entropy on cells pooled by 4. Vectors: squared error.
        """
        scan = inputs["scan_m"]
        weight = 3 * (1 + 3 * torch.exp(-scan / NEAR_M))
        scan_loss = (weight * (self.scan(features) - log_range(scan)).square()).sum(-1)

        pooled = with_patches(inputs, features.dtype)["map_patches"].mean(-1).flatten(-3) / 255
        logits = self.local_map(features)
        map_loss = F.binary_cross_entropy_with_logits(logits, pooled, reduction="none").sum(-1)

        goal_loss = (self.goal(features) - goal_vector(inputs)).square().sum(-1)
        body_loss = (self.body(features) - body_vector(inputs)).square().sum(-1)
        losses = (scan_loss, map_loss, goal_loss, body_loss)
        return {
            name: inputs["present"][..., i] * loss
            for i, (name, loss) in enumerate(zip(MODALITIES, losses, strict=True))
        }
