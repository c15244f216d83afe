"""What the motion sight learns from: scans, what the tracker said of them, and what each beam really hit.

Shape letters: N ticks, one episode after the other, B beams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.mapping.sight import LAGS, Tracked, along_beams, channels
from robonav.types import LidarSpec

Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]
HELD_OUT = 10  # every so many-th episode is for the report
_ROWS = 4096  # ticks whose channels are made at once


@dataclass(frozen=True, slots=True)
class SightConfig:
    """How the sight is trained."""

    width: int = 32
    """Channels of the hidden layers."""
    steps: int = 16_000
    """Batches."""
    batch: int = 64
    """Scans a batch."""
    lr: float = 3e-3
    """Learning rate at the start; falls linearly to 0."""
    velocity_weight: float = 3.0
    """Of the velocity's loss."""
    huber_mps: float = 0.2
    """Error from which on the velocity's loss grows linearly."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"width": 1, "steps": 1, "batch": 1, "velocity_weight": 0, "seed": 0})
        if self.lr <= 0 or self.huber_mps <= 0:
            raise ConfigError(explain("lr, huber_mps", "above 0", (self.lr, self.huber_mps)))


class SightData(NamedTuple):
    """Ticks of many episodes."""

    episode: NDArray[np.int64]  # (N,)
    scan_m: Singles  # (N, B) 0 where a beam hit nothing
    pose: Doubles  # (N, 3) of the base in odom
    tracked: Singles  # (N, 7, B) rows of `Tracked`
    velocity_mps: Singles  # (N, B, 2) of what each beam hit, on average over the next ticks, in odom
    moves: NDArray[np.bool_]  # (N, B) whether that moves now
    told: NDArray[np.bool_]  # (N, B) whether it is known what the beam hit

    @classmethod
    def joined(cls, parts: Sequence[SightData]) -> SightData:
        """One after the other."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Samples(NamedTuple):
    """What the network reads and should say."""

    channels: NDArray[np.float16]  # (N, C, B)
    velocity_mps: Singles  # (N, 2, B) away from the lidar, and to the left of that
    moves: NDArray[np.bool_]  # (N, B)
    told: NDArray[np.bool_]  # (N, B)
    episode: NDArray[np.int64]  # (N,)


def samples(data: SightData, lidar: LidarSpec) -> Samples:
    """The samples of all ticks; scans before an episode's first one were not there."""
    n = len(data.episode)
    begins = np.flatnonzero(np.concatenate([[True], np.diff(data.episode) != 0]))
    age = np.arange(n) - np.repeat(begins, np.diff(np.append(begins, n)))
    seen = [_channels(data, lidar, rows, age) for rows in np.array_split(np.arange(n), max(1, n // _ROWS))]
    along = along_beams(data.velocity_mps, data.pose[:, 2:] + lidar.angles_rad)
    velocity = np.stack(along, axis=1).astype(np.float32)
    return Samples(np.concatenate(seen), velocity, data.moves, data.told, data.episode)


def _channels(
    data: SightData, lidar: LidarSpec, rows: NDArray[np.int64], age: NDArray[np.int64]
) -> NDArray[np.float16]:
    earlier = []
    for lag in LAGS:
        then = np.maximum(rows - lag, 0)
        there = (age[rows] >= lag)[:, None]
        earlier.append((np.where(there, data.scan_m[then], 0.0).astype(np.float64), data.pose[then]))
    told = Tracked.of_rows(data.tracked[rows].astype(np.float64))
    seen = channels(lidar, data.scan_m[rows].astype(np.float64), data.pose[rows], earlier, told)
    return seen.astype(np.float16)
