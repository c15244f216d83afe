"""What every driver does with a command before its robot gets it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec, VelocityCommand

STILL: NDArray[np.float64] = np.zeros(3)
STILL.setflags(write=False)


def permitted(spec: RobotSpec, command: VelocityCommand, now_ns: int, armed: bool) -> NDArray[np.float64]:
    """(3,) velocity of a command within the robot's limits; standstill if unarmed, out of date, or not finite."""
    if not armed or command.valid_until_ns <= now_ns or not np.isfinite(command.velocity).all():
        return STILL.copy()
    low = (spec.vx_min_mps, -spec.vy_max_mps, -spec.yaw_rate_max_radps)
    high = (spec.vx_max_mps, spec.vy_max_mps, spec.yaw_rate_max_radps)
    return np.clip(np.asarray(command.velocity, np.float64), low, high)
