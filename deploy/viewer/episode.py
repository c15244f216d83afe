"""A log as plain arrays: the one place of the viewer that knows messages. What a log does not hold is None or empty.

Times are seconds from the log's first stamp. Shape letters: N observations, D decisions, G governed commands, S status
messages, B beams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy import wire
from deploy.log_reader import Log
from deploy.log_run import outcome_of, robot_of, stamps_ns, start_ns_of
from robonav.types import Observation, RobotSpec

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


class Sensed(NamedTuple):
    """What the navigator saw."""

    t_s: Floats  # (N,)
    sequence: NDArray[np.int64]  # (N,)
    pose_odom: Singles  # (N, 3) x m, y m, yaw rad
    twist: Singles  # (N, 3)
    goal_odom_m: Singles  # (N, 2)
    scan_m: Singles | None  # (N, B), NaN where an observation has none; None where no observation has one
    depth_m: Singles | None  # (n, height, width)
    depth_t_s: Floats  # (n,) of the observations that have one


class Decided(NamedTuple):
    """What the navigator decided."""

    t_s: Floats  # (D,)
    sequence: NDArray[np.int64]  # (D,)
    of: NDArray[np.int64]  # (D,) index of its observation, -1 where that is lost
    command: Floats  # (D, 3)
    value: Floats  # (D,)
    why: tuple[str, ...]
    total_ms: Floats  # (D,)
    age_ms: Floats  # (D,)
    details: dict[str, Floats]  # (D,) each, NaN where a decision has none
    routes: tuple[tuple[float, Singles], ...]  # (time, (n, 2)) where the route changed


class Governed(NamedTuple):
    """What the governor let through."""

    t_s: Floats  # (G,)
    velocity: Floats  # (G, 3)
    reasons: tuple[tuple[str, ...], ...]


class Stated(NamedTuple):
    """What the driver said of the robot."""

    t_s: Floats  # (S,)
    lateness_ms: Floats  # (S,)
    late_ticks: NDArray[np.int64]  # (S,) so far
    speed_mps: Floats  # (S,)
    arrived: NDArray[np.bool_]  # (S,)
    collided: NDArray[np.bool_]  # (S,)


class Note(NamedTuple):
    """A line of the log."""

    t_s: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Episode:
    """A log in arrays."""

    name: str
    run: dict[str, str]
    outcome: str
    damage: str
    robot: RobotSpec
    start_ns: int
    duration_s: float
    sensed: Sensed
    decided: Decided
    governed: Governed
    stated: Stated
    notes: tuple[Note, ...]


def episode_of(log: Log) -> Episode:
    """The arrays of a log.

    Raises:
        LogError: it names no run, or no robot that this version knows.
    """
    stamps = stamps_ns(log)
    start_ns, end_ns = min(stamps, default=0), max(stamps, default=0)
    sensed = _sensed(log.of(wire.ObservationMsg), start_ns)
    return Episode(
        name=Path(log.path).name,
        run=dict(log.run),
        outcome=outcome_of(log),
        damage=log.damage,
        robot=robot_of(log),
        start_ns=start_ns,
        duration_s=(end_ns - start_ns) * 1e-9,
        sensed=sensed,
        decided=_decided(log.of(wire.DecisionMsg), start_ns, sensed.sequence),
        governed=_governed(log.of(wire.GovernedMsg), start_ns),
        stated=_stated(log.of(wire.StatusMsg), start_ns),
        notes=_notes(log.of(wire.EventMsg), start_ns),
    )


def logged_rollouts(log: Log) -> tuple[Floats, Singles, Singles] | None:
    """Times (R,), imagined paths (R, K, H, 2) in odom and values (R, K), where the log holds them in one size."""
    start_ns = start_ns_of(log)
    # By name: not every log, and not every version, has them.
    found = [e.message for e in log.entries if type(e.message).__name__ == "RolloutsMsg"]
    unpacked = [(wire.unpack_array(m.paths_odom_m, "paths"), wire.unpack_array(m.values, "values")) for m in found]
    fits = unpacked and all(p.shape == unpacked[0][0].shape and v.shape == p.shape[:1] for p, v in unpacked)
    if not fits or unpacked[0][0].ndim != 3:
        return None
    return _seconds(found, start_ns), np.stack([p for p, _ in unpacked]), np.stack([v for _, v in unpacked])


def observations_of(log: Log) -> list[Observation]:
    """All observations, in order."""
    return [wire.unpack_observation(m) for m in log.of(wire.ObservationMsg)]


def _seconds(messages: Sequence[Any], start_ns: int) -> Floats:
    return np.array([m.stamp_ns - start_ns for m in messages], np.float64) * 1e-9


def _stacked(rows: Sequence[Any], width: int) -> Singles:
    return np.stack(rows).astype(np.float32) if rows else np.zeros((0, width), np.float32)


def _sensed(messages: Sequence[Any], start_ns: int) -> Sensed:
    seen = [wire.unpack_observation(m) for m in messages]
    t_s = _seconds(messages, start_ns)
    scan_m = None
    beams = next((len(o.scan_m) for o in seen if o.scan_m is not None), 0)
    if beams:
        none = np.full(beams, np.nan, np.float32)
        scan_m = np.stack([o.scan_m if o.scan_m is not None and len(o.scan_m) == beams else none for o in seen])
    with_depth = [i for i, o in enumerate(seen) if o.depth_m is not None]
    depth_m = np.stack([np.asarray(seen[i].depth_m) for i in with_depth]) if with_depth else None
    return Sensed(
        t_s=t_s,
        sequence=np.array([m.sequence for m in messages], np.int64),
        pose_odom=_stacked([o.pose_odom_base for o in seen], 3),
        twist=_stacked([o.twist_base for o in seen], 3),
        goal_odom_m=_stacked([o.goal_odom_m for o in seen], 2),
        scan_m=scan_m,
        depth_m=depth_m,
        depth_t_s=t_s[with_depth],
    )


def _decided(messages: Sequence[Any], start_ns: int, observed: NDArray[np.int64]) -> Decided:
    place = {int(sequence): i for i, sequence in enumerate(observed)}
    names = sorted({name for m in messages for name in m.details})
    t_s = _seconds(messages, start_ns)
    return Decided(
        t_s=t_s,
        sequence=np.array([m.sequence for m in messages], np.int64),
        of=np.array([place.get(m.observation, -1) for m in messages], np.int64),
        command=_velocities(messages),
        value=np.array([m.value for m in messages], np.float64),
        why=tuple(m.why for m in messages),
        total_ms=np.array([m.total_ms for m in messages], np.float64),
        age_ms=np.array([m.age_ms for m in messages], np.float64),
        details={name: np.array([m.details.get(name, np.nan) for m in messages], np.float64) for name in names},
        routes=_routes(messages, t_s),
    )


def _routes(messages: Sequence[Any], t_s: Floats) -> tuple[tuple[float, Singles], ...]:
    """Those that differ from the one before; an empty one where the route was lost."""
    found: list[tuple[float, Singles]] = []
    before: Any = None
    for t, message in zip(t_s.tolist(), messages, strict=True):
        packed = message.route_odom_m
        if packed == before:
            continue
        before = packed
        points = np.zeros((0, 2), np.float32) if packed is None else wire.unpack_array(packed, "route")
        found.append((t, points))
    return tuple(found)


def _velocities(messages: Sequence[Any]) -> Floats:
    return np.array([wire.velocity_of(m) for m in messages], np.float64).reshape(-1, 3)


def _governed(messages: Sequence[Any], start_ns: int) -> Governed:
    return Governed(_seconds(messages, start_ns), _velocities(messages), tuple(tuple(m.reasons) for m in messages))


def _stated(messages: Sequence[Any], start_ns: int) -> Stated:
    return Stated(
        t_s=_seconds(messages, start_ns),
        lateness_ms=np.array([m.lateness_ms for m in messages], np.float64),
        late_ticks=np.array([m.late_ticks for m in messages], np.int64),
        speed_mps=np.array([m.speed_mps for m in messages], np.float64),
        arrived=np.array([m.arrived for m in messages], np.bool_),
        collided=np.array([m.collided for m in messages], np.bool_),
    )


def _notes(messages: Sequence[Any], start_ns: int) -> tuple[Note, ...]:
    hidden = ("driver", "report")  # not for people
    return tuple(
        Note(max(0.0, (m.stamp_ns - start_ns) * 1e-9), m.kind, m.text) for m in messages if m.kind not in hidden
    )
