"""What the governor would have let through under other limits, or of other commands: it is run again over a log.

A log does not say when the governor received something; an observation counts from its stamp and a command from its
own. Both sides of the comparison are governed again in the same way, and `agreement` says how close that comes to what
was logged under the logged limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import wire
from deploy.authority import NAVIGATOR, Request
from deploy.config import DeployConfig, GovernorConfig, GovernorLimits
from deploy.governor import GovernorInputs, GovernorState, govern
from deploy.log_reader import Log
from deploy.log_run import robot_of
from deploy.sight import seen_in
from robonav.config import from_mapping
from robonav.errors import LogError, RobonavError, explain
from robonav.types import RobotSpec, VelocityCommand

SAME_MPS = 0.02  # a governed velocity this close to the logged one agrees with it


@dataclass(frozen=True, slots=True)
class Regoverned:
    """Seconds by reason, distance let through, and the first cycle that differs."""

    reasons_logged_s: dict[str, float]
    reasons_s: dict[str, float]
    distance_logged_m: float
    distance_m: float
    first_s: float | None  # from the first governed command; None where no cycle differs
    largest_mps: float
    agreement: float  # share of cycles in which governing again under the logged limits gives what was logged


def logged_limits(log: Log) -> GovernorConfig:
    """The governor's settings of a run.

    Raises:
        LogError: the log does not name them, or not as this version knows them.
    """
    try:
        settings = json.loads(log.run["config"])["governor"]
        return from_mapping(GovernorConfig, settings, f"{log.path}: config: governor")
    except (KeyError, TypeError, ValueError, RobonavError) as error:
        reason = " ".join(str(error).split())[:120]
        raise LogError(explain(f"{log.path}: config", "the governor's settings", reason)) from None


def changed_limits(before: GovernorConfig, changes: Mapping[str, float]) -> GovernorConfig:
    """Settings with some of them changed.

    Raises:
        ConfigError: an unknown name, or a value out of range.
    """
    values = {name: getattr(before, name) for name in GovernorConfig.__dataclass_fields__}
    changed = from_mapping(GovernorConfig, {**values, **changes}, "--governor")
    DeployConfig(governor=changed)  # checks the ranges
    return changed


def regovern(log: Log, limits: GovernorConfig, commands: Mapping[int, NDArray[Any]]) -> Regoverned:
    """Governs a log's commands again.

    Args:
        log: whose observations and cycles it is about.
        limits: other limits.
        commands: (3,) velocity by tick that is asked for instead; ticks without one ask for what was logged.
    """
    spec = robot_of(log)
    cycles = log.of(wire.GovernedMsg)
    before = _governed(log, spec, logged_limits(log), {})
    after = _governed(log, spec, limits, commands)
    logged = np.array([wire.velocity_of(m) for m in cycles]).reshape(-1, 3)
    times = np.array([m.stamp_ns for m in cycles], np.float64) * 1e-9
    apart = np.hypot(*(after.velocity - before.velocity)[:, :2].T)
    differs = np.flatnonzero(apart > SAME_MPS)
    agrees = np.abs(before.velocity - logged).max(axis=1, initial=0.0) <= SAME_MPS
    return Regoverned(
        reasons_logged_s=_seconds(before.reasons, times),
        reasons_s=_seconds(after.reasons, times),
        distance_logged_m=_distance_m(before.velocity, times),
        distance_m=_distance_m(after.velocity, times),
        first_s=float(times[differs[0]] - times[0]) if len(differs) else None,
        largest_mps=float(apart.max(initial=0.0)),
        agreement=float(agrees.mean()) if len(agrees) else 1.0,
    )


@dataclass(frozen=True, slots=True)
class _Cycles:
    velocity: NDArray[np.float64]  # (n, 3)
    reasons: list[tuple[str, ...]]


def _governed(log: Log, spec: RobotSpec, config: GovernorConfig, commands: Mapping[int, NDArray[Any]]) -> _Cycles:
    """Each logged cycle again, with what had come by then."""
    limits = GovernorLimits.of(spec, config)
    observations = sorted(log.of(wire.ObservationMsg), key=lambda m: m.stamp_ns)
    decisions = sorted(log.of(wire.DecisionMsg), key=lambda m: m.stamp_ns)
    state = GovernorState.start(decisions[0].episode if decisions else 0)
    seen_to = asked_to = 0
    velocities, reasons = [], []
    for cycle in log.of(wire.GovernedMsg):
        seen, requests = None, []
        while seen_to < len(observations) and observations[seen_to].stamp_ns <= cycle.stamp_ns:
            message = observations[seen_to]
            seen = seen_in(wire.unpack_observation(message), spec, config, message.stamp_ns)[0] or seen
            seen_to += 1
        while asked_to < len(decisions) and decisions[asked_to].stamp_ns <= cycle.stamp_ns:
            requests.append(Request(NAVIGATOR, _command(decisions[asked_to], commands)))
            asked_to += 1
        governed = govern(state, GovernorInputs(tuple(requests), seen), cycle.stamp_ns, limits)
        state = governed.state
        velocities.append(governed.velocity)
        reasons.append(governed.reasons)
    return _Cycles(np.array(velocities).reshape(-1, 3), reasons)


def _command(message: wire.DecisionMsg, commands: Mapping[int, NDArray[Any]]) -> wire.CommandMsg:
    velocity = commands.get(message.sequence, wire.velocity_of(message))
    return wire.CommandMsg(
        sequence=message.sequence,
        stamp_ns=message.stamp_ns,
        episode=message.episode,
        observation=message.observation,
        **wire.velocity_fields(VelocityCommand.of(velocity, 0)),
    )


def _steps_s(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """How long each cycle's command held."""
    return np.append(np.diff(times), 0.0) if len(times) else np.zeros(0)


def _seconds(reasons: list[tuple[str, ...]], times: NDArray[np.float64]) -> dict[str, float]:
    found: dict[str, float] = {}
    for step_s, names in zip(_steps_s(times).tolist(), reasons, strict=True):
        for name in names:
            found[name] = found.get(name, 0.0) + step_s
    return {name: round(seconds, 3) for name, seconds in sorted(found.items())}


def _distance_m(velocity: NDArray[np.float64], times: NDArray[np.float64]) -> float:
    return round(float((np.hypot(velocity[:, 0], velocity[:, 1]) * _steps_s(times)).sum()), 4)
