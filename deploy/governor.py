"""The governor's core: a pure function from what was asked and seen to what the robot may do, with reasons.

It trusts neither a commander nor its clock: ages are taken from its own receive times, sequence numbers must grow,
and the robot's limits are applied here. Whatever is missing, old or wrong ends in a ramp to standstill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.authority import Authority, Request, lapse, rule, watch_link
from deploy.config import GovernorConfig, GovernorLimits
from deploy.corridor import Scan, is_clear, safe_velocity
from deploy.motion import Motion, brake, drive, within_speed
from deploy.sensors import BLIND_SCAN, Picture, Watch, frozen, watch, went_blind
from deploy.wire import CommandMsg

ESTOP = "e-stop"
NO_LINK = "no e-stop link"
NO_COMMAND = "no command"
EXPIRED = "expired"
NO_OBSERVATION = "no observation"
STALE = "stale observation"
FROZEN = "frozen sensor"
TILT = "tilt"
OLD_OBSERVATION = "refused: old observation"
SPEED = "speed"
SLOWED = "slowed: obstacle"
STOPPED = "stopped: obstacle"

ROUNDING = 1e-6  # a policy at its limit exceeds it by the rounding of float32


@dataclass(frozen=True, slots=True)
class Seen:
    """What the governor uses of an observation: hits in the base frame, twist, tilt, and when it came."""

    points_base_m: NDArray[np.float64]  # (n, 2)
    tilt_rad: float
    received_ns: int
    stamp_ns: int = 0  # the sensors' own; an observation whose stamp does not grow is no news
    twist_base: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    pictures: Mapping[str, Picture] = field(default_factory=dict)  # by sensor


@dataclass(frozen=True, slots=True)
class GovernorInputs:
    """What came since the last call."""

    requests: tuple[Request, ...] = ()
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class GovernorState:
    """What the governor remembers."""

    authority: Authority
    asked: CommandMsg | None = None  # the last command that was accepted, of whoever holds the lease
    asked_ns: int = 0  # when it came, less the time that it was late
    seen: Seen | None = None
    watches: Mapping[str, Watch] = field(default_factory=dict)  # whether a sensor's picture changes, by sensor
    motion: Motion = field(default_factory=Motion)  # that was let through last
    governed_ns: int | None = None

    @classmethod
    def start(cls, episode: int, estop_link_s: float = 0.0) -> GovernorState:
        """Before anything came; `estop_link_s` as in `Authority.link_s`."""
        return cls(Authority(episode, link_s=estop_link_s))


class Governed(NamedTuple):
    """One cycle's outcome."""

    state: GovernorState
    velocity: NDArray[np.float64]  # (3,) that may be driven now
    reasons: tuple[str, ...]  # why it differs from what was asked, and what was refused; empty when neither
    answers: tuple[str, ...]  # to each request: why it was refused, or "" when it was not
    notes: tuple[str, ...]  # changes of lease and e-stop, for people


def govern(state: GovernorState, inputs: GovernorInputs, now_ns: int, limits: GovernorLimits) -> Governed:
    """One cycle.

    Args:
        state: from the last cycle.
        inputs: what came since.
        now_ns: the robot's monotonic clock.
        limits: of the robot and the run.
    """
    state, old = _see(state, inputs.seen, limits.config)
    state, answers, notes = _hear(state, inputs.requests, now_ns, limits.config)
    refused = tuple(dict.fromkeys((*old, *filter(None, answers))))
    since_s = limits.config.period_s if state.governed_ns is None else (now_ns - state.governed_ns) * 1e-9
    motion, why = _move(state, since_s, now_ns, limits)
    state = replace(state, motion=motion, governed_ns=now_ns)
    return Governed(state, motion.velocity, (*refused, *why), answers, notes)


def stands(state: GovernorState, now_ns: int, config: GovernorConfig) -> bool:
    """Whether nothing is let through and fresh sensors say that the robot stands."""
    seen = state.seen
    if seen is None or _is_old(seen, now_ns, config) or state.motion.velocity.any():
        return False
    return bool(np.abs(seen.twist_base).max() <= config.standing_mps)


def observed(
    points_base_m: NDArray[np.float64],
    twist_base: NDArray[Any],
    tilt_rad: NDArray[Any],
    received_ns: int,
    stamp_ns: int = 0,
    pictures: Mapping[str, Picture] | None = None,
) -> Seen:
    """`Seen` from an observation's points, (3,) twist and (2,) roll and pitch; NaN in them counts as tilted."""
    twist = np.array(twist_base, np.float64)
    usable = np.isfinite(twist).all() and np.isfinite(tilt_rad).all()
    tilted_rad = float(np.abs(tilt_rad).max()) if usable else math.inf
    return Seen(points_base_m, tilted_rad, received_ns, stamp_ns, twist, pictures or {})


def _see(state: GovernorState, seen: Seen | None, config: GovernorConfig) -> tuple[GovernorState, tuple[str, ...]]:
    """Takes an observation in, unless the sensors repeat themselves or a lidar goes blind."""
    if seen is None:
        return state, ()
    if state.seen is not None and seen.stamp_ns <= state.seen.stamp_ns:
        return state, (OLD_OBSERVATION,)
    if went_blind(state.watches, seen.pictures):
        return state, (BLIND_SCAN,)
    moves = max(np.abs(seen.twist_base).max(), np.abs(state.motion.velocity).max()) > config.standing_mps
    watches = watch(state.watches, seen.pictures, seen.received_ns, bool(moves))
    return replace(state, seen=seen, watches=watches), ()


def _hear(
    state: GovernorState, requests: tuple[Request, ...], now_ns: int, config: GovernorConfig
) -> tuple[GovernorState, tuple[str, ...], tuple[str, ...]]:
    """Takes the requests in, in order: the state, an answer to each, and what changed."""
    standing = stands(state, now_ns, config)
    answers, notes = [], []
    for look in (watch_link, lapse):
        ruling = look(state.authority, now_ns)
        notes.append(ruling.note)
        state = replace(state, authority=ruling.authority)
    for request in requests:
        ruling = rule(state.authority, request, now_ns, config, standing)
        state = replace(state, authority=ruling.authority)
        answers.append(ruling.refusal)
        notes.append(ruling.note)
        if isinstance(request.message, CommandMsg) and not ruling.refusal:
            state = replace(state, asked=request.message, asked_ns=now_ns - ruling.delay_ns)
        elif ruling.note:  # whoever holds the lease now, or re-armed, has to ask anew
            state = replace(state, asked=None)
    return state, tuple(answers), tuple(filter(None, notes))


def _is_old(seen: Seen, now_ns: int, config: GovernorConfig) -> bool:
    return now_ns - seen.received_ns > config.observation_life_s * 1e9


def _why_stop(state: GovernorState, now_ns: int, config: GovernorConfig) -> str:
    """Why the robot must stand, or ""."""
    seen = state.seen
    if state.authority.estop:
        return ESTOP
    if state.authority.link_s and state.authority.hand_ns is None:
        return NO_LINK
    if state.asked is None:
        return NO_COMMAND
    if now_ns - state.asked_ns > config.command_life_s * 1e9:
        return EXPIRED
    if seen is None:
        return NO_OBSERVATION
    if _is_old(seen, now_ns, config):
        return STALE
    if frozen(state.watches, now_ns, config.observation_life_s):
        return FROZEN
    return "" if seen.tilt_rad <= config.tilt_max_rad else TILT


def _move(state: GovernorState, since_s: float, now_ns: int, limits: GovernorLimits) -> tuple[Motion, tuple[str, ...]]:
    """The motion of this cycle: a stop's ramp, or what was asked within all limits; and what held it back."""
    why = _why_stop(state, now_ns, limits.config)
    if why or state.asked is None or state.seen is None:  # without one of the two there is a reason
        return brake(state.motion, np.zeros(3), since_s, limits), (why,)
    asked = np.array([state.asked.vx_mps, state.asked.vy_mps, state.asked.yaw_rate_radps])
    target = within_speed(asked, limits)
    reasons = (SPEED,) if np.abs(target - asked).max() > ROUNDING else ()
    age_s = max(0.0, (now_ns - state.seen.received_ns) * 1e-9)
    scan = Scan(state.seen.points_base_m, state.seen.twist_base, age_s)
    safe = safe_velocity(target, scan, limits)
    if not np.array_equal(safe, target):
        return brake(state.motion, safe, since_s, limits), (*reasons, SLOWED if safe.any() else STOPPED)
    motion, held = drive(state.motion, target, since_s, limits)
    if held and not is_clear(motion.velocity, scan, limits):
        # What lies between the last velocity and the target is not clear, though the target is: quicker, then.
        return brake(state.motion, target, since_s, limits), (*reasons, SLOWED)
    return motion, (*reasons, *held)
