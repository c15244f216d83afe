"""Trains the network of `robonav.mapping.sight`: which beams hit something that moves, and with which velocity.

The loss is the binary cross-entropy of moving, and for beams that do a Huber loss of the velocity. Half of the batches
are mirrored left to right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from robonav.files import atomic_path
from robonav.learning.sight_data import HELD_OUT, Samples, SightConfig
from robonav.mapping.sight import CHANNELS, LAYERS, NEIGHBOURS, RANGE_DECAY_M, TRACKED
from robonav.types import LidarSpec

OUTPUTS = 3  # velocity away from the lidar, to the left of that, logit
NEAR = float(np.exp(-3.0 / RANGE_DECAY_M))  # of the range's channel: beams within 3 m are counted in what is reported


class SightNet(nn.Module):
    """Circular convolutions over the beams."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (CHANNELS, width, width, width, OUTPUTS)
        for (name, taps, apart), before, after in zip(LAYERS, sizes[:-1], sizes[1:], strict=True):
            setattr(self, name, nn.Conv1d(before, after, taps, dilation=apart))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, B) -> (N, 3, B)."""
        for i, (name, taps, apart) in enumerate(LAYERS):
            around = taps // 2 * apart
            x = getattr(self, name)(F.pad(x, (around, around), mode="circular") if around else x)
            x = x if i == len(LAYERS) - 1 else F.silu(x)
        return x


class Report(NamedTuple):
    """On held-out episodes, beams within 3 m; beside it what the tracker's filter says of the same beams."""

    recall: float  # share of the beams on movers that are said to move
    false: float  # share of the beams on what stands that are said to move
    error_mps: float  # mean error of the velocity of beams on movers
    filter_recall: float
    filter_false: float
    filter_error_mps: float


def train_sight(
    data: Samples, config: SightConfig, tell: Callable[[int, float], None] = lambda step, loss: None
) -> tuple[SightNet, Report]:
    """A network trained on samples, and what it says of those that it did not see.

    Args:
        data: of at least `HELD_OUT` episodes.
        config: how.
        tell: is told the step and the mean loss from time to time.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    net = SightNet(config.width)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=1e-3)
    learnt = np.flatnonzero(data.episode % HELD_OUT != HELD_OUT - 1)
    losses, told_s = [], time.monotonic()
    for step in range(config.steps):
        rows = rng.choice(learnt, config.batch)
        batch = _batch(data, rows)
        loss = _loss(net, _mirrored(batch) if step % 2 else batch, config)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / 100) * (1.0 - step / config.steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if time.monotonic() - told_s > 10.0 or step == config.steps - 1:
            tell(step + 1, float(np.mean(losses[-300:])))
            told_s = time.monotonic()
    return net, report(net, data)


def save_sight(path: Path, net: nn.Module, lidar: LidarSpec) -> None:
    """Writes what `robonav.mapping.sight.MotionSight.load` reads.

    Raises:
        RobonavError: it cannot be written.
    """
    weights: Mapping[str, Tensor] = net.state_dict()
    arrays: dict[str, Any] = {name: tensor.numpy().astype(np.float32) for name, tensor in weights.items()}
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays, beams=np.int64(lidar.beams), fov_rad=np.float64(lidar.fov_rad))


@torch.no_grad()
def report(net: nn.Module, data: Samples) -> Report:
    """How the held-out episodes come out."""
    rows = np.flatnonzero(data.episode % HELD_OUT == HELD_OUT - 1)
    parts = np.array_split(rows, max(1, len(rows) // 512))
    answers = np.concatenate([net(_batch(data, part).channels).numpy() for part in parts])
    x, truth = data.channels[rows].astype(np.float32), data.velocity_mps[rows]
    near, moves = (x[:, 0] > NEAR) & data.told[rows], data.moves[rows]
    theirs = x[:, TRACKED + 3] > 0.5
    figures = []
    for on, velocity in ((answers[:, 2] > 0, answers[:, :2]), (theirs, x[:, TRACKED : TRACKED + 2])):
        off = np.hypot(*(velocity * on[:, None] - truth).transpose(1, 0, 2))
        moving, still = near & moves, near & ~moves
        figures += [_mean(on[moving]), _mean(on[still]), _mean(off[moving])]
    return Report(*figures)


def _mean(values: NDArray[Any]) -> float:
    """NaN of none."""
    return float(values.mean()) if values.size else float("nan")


class _Batch(NamedTuple):
    channels: Tensor
    velocity: Tensor
    moves: Tensor
    told: Tensor


def _batch(data: Samples, rows: NDArray[np.int64]) -> _Batch:
    parts = (data.channels, data.velocity_mps, data.moves, data.told)
    return _Batch(*(torch.from_numpy(part[rows].astype(np.float32)) for part in parts))


def _loss(net: SightNet, batch: _Batch, config: SightConfig) -> Tensor:
    out = net(batch.channels)
    off = F.smooth_l1_loss(out[:, :2], batch.velocity, reduction="none", beta=config.huber_mps).sum(1)
    unsure = F.binary_cross_entropy_with_logits(out[:, 2], batch.moves, reduction="none")
    return ((config.velocity_weight * off * batch.moves + unsure) * batch.told).sum() / batch.told.sum()


def _mirrored(batch: _Batch) -> _Batch:
    """The same with left and right exchanged: beams in turn, neighbours exchanged, velocities to the left negative."""
    flipped = _Batch(*(part.flip(-1) for part in batch))
    channels, velocity = flipped.channels.clone(), flipped.velocity.clone()
    beside = slice(2, 2 + len(NEIGHBOURS))
    channels[:, beside] = channels[:, beside].flip(1)
    channels[:, TRACKED + 1] *= -1
    velocity[:, 1] *= -1
    return flipped._replace(channels=channels, velocity=velocity)
