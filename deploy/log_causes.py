"""Why runs failed, from their logs alone: each is put down to one cause by what its last seconds hold.

Tried in this order: a process was lost; the robot was late (a tenth of its ticks); it collided, with what moves or with
what stands; its route was blocked; the governor held it back; it was stuck; or time simply ran out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy import wire
from deploy.log_reader import Log, read_log
from deploy.log_run import outcome_of, robot_of
from deploy.report import COLLISION, SUCCESS
from robonav.errors import LogError, explain
from robonav.planning.situation import SituationTracker

LATE, LOST, MOVER, STANDING = "late", "process lost", "collision with a mover", "collision with what stands"
BLOCKED, GOVERNOR, STUCK, TIMEOUT = "route blocked", "governor", "stuck", "time ran out"
WINDOW_S = 3.0  # of the end that is looked at
LATE_SHARE = 0.1  # of the ticks
MAJORITY = 0.5
STUCK_M = 0.3  # in the window
MOVING_MPS = 0.25
TRACKED_S = 4.0  # before a collision, through which movers are tracked


@dataclass(frozen=True, slots=True)
class Finding:
    """A log with its outcome and cause; `detail` is for people."""

    log: str
    outcome: str
    cause: str
    detail: str
    time_s: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Logs of one cause."""

    cause: str
    findings: tuple[Finding, ...]


def summarise(folder: str | Path) -> tuple[list[Cluster], list[str]]:
    """The failures in a folder of logs by cause, the largest first, and a line about each log that cannot be judged.

    Raises:
        LogError: the folder holds no log.
    """
    paths = sorted(Path(folder).rglob("*.mcap"))
    if not paths:
        raise LogError(explain(str(folder), "a folder with logs (*.mcap)", "none", "check the path"))
    found: dict[str, list[Finding]] = {}
    refused = []
    for path in paths:
        try:
            finding = cause_of(read_log(path))
        except LogError as error:
            refused.append(str(error))
            continue
        if finding.outcome != SUCCESS:
            found.setdefault(finding.cause, []).append(finding)
    clusters = [Cluster(cause, tuple(findings)) for cause, findings in found.items()]
    return sorted(clusters, key=lambda c: (-len(c.findings), c.cause)), refused


def cause_of(log: Log) -> Finding:
    """Why the run ended as it did; cause "" for a success.

    Raises:
        LogError: the log names no robot, or holds no observation.
    """
    observations = log.of(wire.ObservationMsg)
    if not observations:
        raise LogError(explain(str(log.path), "observations", "none", "recover the log, or leave it out"))
    outcome = outcome_of(log)
    time_s = (observations[-1].stamp_ns - observations[0].stamp_ns) * 1e-9
    cause, detail = ("", "") if outcome == SUCCESS else _cause(log, outcome)
    return Finding(str(log.path), outcome, cause, detail, round(time_s, 2))


def _cause(log: Log, outcome: str) -> tuple[str, str]:
    if outcome.endswith("lost"):
        return LOST, outcome
    statuses = log.of(wire.StatusMsg)
    late = statuses[-1].late_ticks / len(statuses) if statuses else 0.0
    if late > LATE_SHARE:
        return LATE, f"{late:.0%} of the ticks were late"
    if outcome == COLLISION:
        speed_mps = _speed_of_the_nearest(log)
        return (MOVER if speed_mps > MOVING_MPS else STANDING), f"what was nearest moved at {speed_mps:.1f} m/s"
    for cause, share in ((BLOCKED, _share_without_route(log)), (GOVERNOR, _share_held_back(log))):
        if share > MAJORITY:
            return cause, f"{share:.0%} of the last {WINDOW_S:g} s" + _reasons(log, cause)
    moved_m = _moved_m(log)
    if moved_m < STUCK_M:
        return STUCK, f"moved {moved_m:.2f} m in the last {WINDOW_S:g} s"
    return TIMEOUT, f"moved {moved_m:.2f} m in the last {WINDOW_S:g} s"


def _last(log: Log, kind: type[wire.Message], window_s: float = WINDOW_S) -> list[wire.Message]:
    """Messages of a type within the last seconds of observation."""
    end_ns = log.of(wire.ObservationMsg)[-1].stamp_ns
    return [m for m in log.of(kind) if m.stamp_ns >= end_ns - window_s * 1e9]


def _share_without_route(log: Log) -> float:
    decisions = _last(log, wire.DecisionMsg)
    without = sum(m.route_odom_m is None for m in decisions)  # type: ignore[attr-defined]
    return without / len(decisions) if decisions else 0.0


def _share_held_back(log: Log) -> float:
    """Of the governor's cycles, those that let through less than a tenth of what was asked."""
    asked = {m.sequence: float(np.abs(wire.velocity_of(m)).max()) for m in log.of(wire.DecisionMsg)}
    cycles = [m for m in _last(log, wire.GovernedMsg) if isinstance(m, wire.GovernedMsg)]
    held = [float(np.abs(wire.velocity_of(m)).max()) < 0.1 * asked.get(m.asked, 0.0) for m in cycles]
    return sum(held) / len(held) if held else 0.0


def _reasons(log: Log, cause: str) -> str:
    if cause != GOVERNOR:
        return ""
    cycles = [m for m in _last(log, wire.GovernedMsg) if isinstance(m, wire.GovernedMsg)]
    common = Counter(reason for m in cycles for reason in m.reasons).most_common(2)
    return ": " + ", ".join(reason for reason, _ in common)


def _moved_m(log: Log) -> float:
    poses = [m.pose_odom_base for m in _last(log, wire.ObservationMsg)]  # type: ignore[attr-defined]
    places = np.array([wire.unpack_array(pose, "pose_odom_base")[:2] for pose in poses])
    return float(np.linalg.norm(places.max(axis=0) - places.min(axis=0)))


def _speed_of_the_nearest(log: Log) -> float:
    """m/s of what the shortest beam of the last scan hit, by the tracker that the policy has."""
    robot = robot_of(log)
    tracker = SituationTracker(robot)
    situation, nearest_mps = tracker.reset(), 0.0
    for message in _last(log, wire.ObservationMsg, TRACKED_S):
        observation = wire.unpack_observation(message)  # type: ignore[arg-type]
        situation = tracker.update(situation, observation)
        if observation.scan_m is None:
            continue
        flow_mps = tracker.policy_input(situation, observation).flow_mps
        near = np.argsort(observation.scan_m)[:3]
        nearest_mps = float(np.linalg.norm(flow_mps[near], axis=1).max())
    return nearest_mps
