"""How the velocity may change: within the robot's box of speeds, by acceleration and jerk. Pure, numpy only.

Towards a target the acceleration grows and shrinks by the jerk limit. A stop is not held up by it: it ramps at its own
rate from the first cycle on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deploy.config import GovernorLimits

ACCELERATION = "acceleration"
JERK = "jerk"
MAX_STEP_S = 0.1  # a governor that was delayed does not make up for it by accelerating more at once; by braking it does

ROUNDING = 1e-12  # m/s or rad/s
PARTS = (slice(0, 2), slice(2, 3))  # the plane's velocity and the yaw rate have limits of their own

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Motion:
    """(3,) velocity and acceleration of what was let through last; vx, vy, yaw rate in the base frame."""

    velocity: Vector = field(default_factory=lambda: np.zeros(3))
    acceleration: Vector = field(default_factory=lambda: np.zeros(3))


def within_speed(velocity: Vector, limits: GovernorLimits) -> Vector:
    """(3,) velocity, clamped to the robot's box."""
    low = np.array([limits.vx_min_mps, -limits.vy_max_mps, -limits.yaw_rate_max_radps])
    high = np.array([limits.vx_max_mps, limits.vy_max_mps, limits.yaw_rate_max_radps])
    return np.clip(velocity, low, high)


def brake(motion: Motion, target: Vector, since_s: float, limits: GovernorLimits) -> Motion:
    """Towards a stop, or to slower before an obstacle: at the stop's own rate, from the first cycle on."""
    rates = (limits.config.stop_mps2, limits.config.stop_yaw_radps2)
    return Motion(_ramp_both(motion, target, max(0.0, since_s), rates)[0])


def drive(motion: Motion, target: Vector, since_s: float, limits: GovernorLimits) -> tuple[Motion, tuple[str, ...]]:
    """Towards a target that was asked for, with the limits that held it back. Standstill is approached without jerk."""
    step_s = min(since_s, MAX_STEP_S)
    if step_s <= 0:
        return motion, ()
    rates = (limits.acceleration_mps2, limits.yaw_acceleration_radps2)
    if not target.any():
        velocity, reasons = _ramp_both(motion, target, step_s, rates)
        return Motion(velocity, (velocity - motion.velocity) / step_s), reasons
    jerks = (limits.config.jerk_mps3, limits.config.yaw_jerk_radps3)
    velocity, reasons = motion.velocity.copy(), ()
    for i, part in enumerate(PARTS):
        own = Motion(motion.velocity[part], motion.acceleration[part])
        velocity[part], why = _approach(own, target[part], step_s, rates[i], jerks[i])
        reasons += tuple(reason for reason in why if reason not in reasons)
    velocity = within_speed(velocity, limits)
    return Motion(velocity, (velocity - motion.velocity) / step_s), reasons


def _ramp_both(
    motion: Motion, target: Vector, step_s: float, rates: tuple[float, float]
) -> tuple[Vector, tuple[str, ...]]:
    velocity, short = motion.velocity.copy(), False
    for i, part in enumerate(PARTS):
        velocity[part], held = _ramp(motion.velocity[part], target[part], rates[i] * step_s)
        short = short or held
    return velocity, (ACCELERATION,) if short else ()


def _ramp(velocity: Vector, target: Vector, reach: float) -> tuple[Vector, bool]:
    """The target, or as far towards it as `reach`, and whether it lies farther."""
    change = target - velocity
    distance = float(np.linalg.norm(change))
    if distance <= reach + ROUNDING:
        return target.copy(), False
    return velocity + change * (reach / distance), True


def _approach(motion: Motion, target: Vector, step_s: float, rate: float, jerk: float) -> tuple[Vector, list[str]]:
    """The velocity after one step towards the target by acceleration and jerk, and the limits that it met.

    A target that is reached ends the acceleration. Before it, the acceleration is at most the one from which constant
    jerk still comes to rest there: a^2 / (2 j) + a dt / 2 = distance, in steps of dt.
    """
    velocity = motion.velocity
    if np.array_equal(velocity, target):
        return target.copy(), []
    ramped, short = _ramp(velocity, target, rate * step_s)
    reasons = [ACCELERATION] if short else []
    change, before = ramped - velocity, motion.acceleration * step_s
    half = jerk * step_s / 2
    landing = np.sqrt(half**2 + 2 * jerk * float(np.linalg.norm(target - velocity))) - half
    wanted, _ = _ramp(np.zeros_like(change), change, float(landing) * step_s)
    jerked, _ = _ramp(before, wanted, jerk * step_s**2)
    if float(np.linalg.norm(jerked - change)) <= ROUNDING:
        return ramped, reasons
    return velocity + jerked, [*reasons, JERK]
