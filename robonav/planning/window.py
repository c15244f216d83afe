"""The dynamic window (Fox, Burgard and Thrun 1997): constant commands that the robot can reach within a step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec


def reachable_commands(
    spec: RobotSpec, twist_base: NDArray[np.floating], samples: tuple[int, int, int]
) -> NDArray[np.float32]:
    """(N, 3) commands in m/s and rad/s on a grid of `samples` vx, vy and yaw rates, with standstill.

    An axis with one sample stands still: with (7, 1, 9) the robot never goes sideways.
    """
    reach = np.array([spec.acceleration_max_mps2, spec.acceleration_max_mps2, spec.yaw_acceleration_max_radps2])
    reach = reach * max(spec.lag_s + spec.dt_s, 2 * spec.dt_s)
    low = np.array([spec.vx_min_mps, -spec.vy_max_mps, -spec.yaw_rate_max_radps])
    high = np.array([spec.vx_max_mps, spec.vy_max_mps, spec.yaw_rate_max_radps])
    low, high = (
        np.maximum(low, np.minimum(twist_base - reach, high)),
        np.minimum(high, np.maximum(twist_base + reach, low)),
    )
    spread = [np.linspace(a, b, n) if n > 1 else np.zeros(1) for a, b, n in zip(low, high, samples, strict=True)]
    axes = [np.unique(np.append(values, 0.0)) for values in spread]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return grid.astype(np.float32)
