"""The governor's core: a pure function from what was asked and seen to what the robot may do, with reasons.

It trusts neither the navigator nor its clock: ages are taken from its own receive times, sequence numbers must grow,
and the robot's limits are applied here. Whatever is missing, old or wrong ends in a ramp to standstill.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.config import GovernorLimits
from deploy.corridor import Scan, safe_velocity
from deploy.wire import CommandMsg

NO_COMMAND = "no command"
EXPIRED = "expired"
NO_OBSERVATION = "no observation"
STALE = "stale observation"
TILT = "tilt"
NOT_FINITE = "refused: not finite"
WRONG_EPISODE = "refused: episode"
OLD_SEQUENCE = "refused: sequence"
SPEED = "speed"
ACCELERATION = "acceleration"
SLOWED = "slowed: obstacle"
STOPPED = "stopped: obstacle"

MAX_STEP_S = 0.1  # a governor that was delayed does not make up for it by accelerating more at once; by braking it does


@dataclass(frozen=True, slots=True)
class Seen:
    """What the governor uses of an observation: hits in the base frame, twist, tilt, and when it came."""

    points_base_m: NDArray[np.float64]  # (n, 2)
    tilt_rad: float
    received_ns: int
    twist_base: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


@dataclass(frozen=True, slots=True)
class GovernorInputs:
    """What came since the last call; None where nothing did."""

    command: CommandMsg | None = None
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class GovernorState:
    """What the governor remembers."""

    episode: int
    sequence: int = -1  # of the last command that was accepted
    asked: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    asked_ns: int | None = None  # when it came
    seen: Seen | None = None
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # that was let through last
    velocity_ns: int | None = None


def govern(
    state: GovernorState, inputs: GovernorInputs, now_ns: int, limits: GovernorLimits
) -> tuple[GovernorState, NDArray[np.float64], tuple[str, ...]]:
    """One cycle.

    Args:
        state: from the last cycle.
        inputs: what came since.
        now_ns: the robot's monotonic clock.
        limits: of the robot and the run.

    Returns:
        The next state, the (3,) velocity that may be driven now, and why it differs from what was asked (empty when
        it does not).
    """
    reasons: list[str] = []
    state = _accept(state, inputs, now_ns, reasons)
    target = _wanted(state, now_ns, limits, reasons)
    stopping = bool(reasons) and not target.any()
    target = _within_speed(target, limits, reasons)
    if state.seen is not None and target.any():
        age_s = max(0.0, (now_ns - state.seen.received_ns) * 1e-9)
        safe = safe_velocity(target, Scan(state.seen.points_base_m, state.seen.twist_base, age_s), limits)
        if not np.array_equal(safe, target):
            reasons.append(SLOWED if safe.any() else STOPPED)
            stopping = True
        target = safe
    velocity = _within_acceleration(state, target, now_ns, limits, stopping, reasons)
    return replace(state, velocity=velocity, velocity_ns=now_ns), velocity, tuple(reasons)


def _accept(state: GovernorState, inputs: GovernorInputs, now_ns: int, reasons: list[str]) -> GovernorState:
    if inputs.seen is not None:
        state = replace(state, seen=inputs.seen)
    command = inputs.command
    if command is None:
        return state
    asked = np.array([command.vx_mps, command.vy_mps, command.yaw_rate_radps])
    if not np.isfinite(asked).all():
        reasons.append(NOT_FINITE)
    elif command.episode != state.episode:
        reasons.append(WRONG_EPISODE)
    elif command.sequence <= state.sequence:
        reasons.append(OLD_SEQUENCE)
    else:
        state = replace(state, sequence=command.sequence, asked=asked, asked_ns=now_ns)
    return state


def _wanted(state: GovernorState, now_ns: int, limits: GovernorLimits, reasons: list[str]) -> NDArray[np.float64]:
    """What was asked, or zero with the reason why not."""
    config, seen = limits.config, state.seen
    stop = None
    if state.asked_ns is None:
        stop = NO_COMMAND
    elif now_ns - state.asked_ns > config.command_life_s * 1e9:
        stop = EXPIRED
    elif seen is None:
        stop = NO_OBSERVATION
    elif now_ns - seen.received_ns > config.observation_life_s * 1e9:
        stop = STALE
    elif not seen.tilt_rad <= config.tilt_max_rad:
        stop = TILT
    if stop is None:
        return state.asked
    reasons.append(stop)
    return np.zeros(3)


def _within_speed(target: NDArray[np.float64], limits: GovernorLimits, reasons: list[str]) -> NDArray[np.float64]:
    low = np.array([limits.vx_min_mps, -limits.vy_max_mps, -limits.yaw_rate_max_radps])
    high = np.array([limits.vx_max_mps, limits.vy_max_mps, limits.yaw_rate_max_radps])
    clamped = np.clip(target, low, high)
    # Not a reason: a policy at its limit exceeds it by the rounding of float32.
    if np.abs(clamped - target).max() > 1e-6:
        reasons.append(SPEED)
    return clamped


def _within_acceleration(
    state: GovernorState,
    target: NDArray[np.float64],
    now_ns: int,
    limits: GovernorLimits,
    stopping: bool,
    reasons: list[str],
) -> NDArray[np.float64]:
    """The step from the last velocity towards the target that acceleration (or braking, for a stop) allows."""
    config = limits.config
    since_s = config.period_s if state.velocity_ns is None else (now_ns - state.velocity_ns) * 1e-9
    step_s = float(np.clip(since_s, 0.0, np.inf if stopping else MAX_STEP_S))
    linear = config.braking_mps2 if stopping else limits.acceleration_mps2
    angular = config.yaw_braking_radps2 if stopping else limits.yaw_acceleration_radps2
    change = target - state.velocity
    speed_change, yaw_change = float(np.hypot(change[0], change[1])), abs(float(change[2]))
    limited = change.copy()
    if speed_change > linear * step_s:
        limited[:2] *= linear * step_s / speed_change
    if yaw_change > angular * step_s:
        limited[2] *= angular * step_s / yaw_change
    if np.array_equal(limited, change):
        return target.copy()
    if not stopping:
        reasons.append(ACCELERATION)
    return state.velocity + limited


def observed(
    points_base_m: NDArray[np.float64], twist_base: NDArray[Any], tilt_rad: NDArray[Any], received_ns: int
) -> Seen:
    """`Seen` from an observation's points, (3,) twist and (2,) roll and pitch; NaN in them counts as tilted."""
    twist, tilt = np.asarray(twist_base, dtype=np.float64), np.asarray(tilt_rad, dtype=np.float64)
    usable = bool(np.isfinite(twist).all() and np.isfinite(tilt).all())
    return Seen(points_base_m, float(np.abs(tilt).max()) if usable else float("inf"), received_ns, twist)
