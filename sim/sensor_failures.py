"""One sensor that is lost in mid-run: what is drawn for an episode, and what is left of its readings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from robonav.types import Float, LidarSpec
from sim.sensor_config import FailureConfig, Lost


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails in an episode, and from when to when. Times are seconds since the episode began."""

    sensor: Lost
    begin_s: float
    end_s: float  # infinite where it does not come back
    sector_rad: tuple[float, float] = (0.0, 0.0)  # bearing of the lost sector's middle, and its width

    def lost(self, sensor: Lost, now_ns: int) -> bool:
        """Whether this is what fails, and at this time."""
        return sensor == self.sensor and self.begin_s <= now_ns / 1e9 < self.end_s

    def record(self) -> dict[str, Any]:
        """Plain numbers for the episode's record; the end is None where it does not come back."""
        end_s = self.end_s if math.isfinite(self.end_s) else None
        out: dict[str, Any] = {"lost_sensor": self.sensor, "lost_from_s": self.begin_s, "lost_to_s": end_s}
        return out | ({"lost_sector_rad": list(self.sector_rad)} if self.sensor == "lidar-sector" else {})


def draw_failure(config: FailureConfig, rng: np.random.Generator) -> Failure | None:
    """The failure of an episode; None where nothing can be lost. Always as many draws, whatever is lost."""
    if not config.sensors:
        return None
    sensor = config.sensors[int(rng.integers(len(config.sensors)))]
    begin_s, duration_s = float(rng.uniform(*config.fails_at_s)), float(rng.uniform(*config.fails_for_s))
    stays, bearing, width = (
        rng.random() < config.to_the_end,
        rng.uniform(-np.pi, np.pi),
        rng.uniform(*config.sector_rad),
    )
    end_s = math.inf if stays else begin_s + duration_s
    return Failure(sensor, begin_s, end_s, (float(bearing), float(width)))


def without_sector(scan_m: Float, spec: LidarSpec, failure: Failure) -> Float:
    """(beams,) the scan whose beams in the lost sector are 0, as a beam without a reading is."""
    bearing, width = failure.sector_rad
    off = np.abs(np.angle(np.exp(1j * (spec.angles_rad - bearing))))
    return np.where(off <= width / 2, np.float32(0.0), scan_m).astype(np.float32)
