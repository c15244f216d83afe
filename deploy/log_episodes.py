"""Logs as episodes to learn from: what a policy would have read at each tick, what was done, and what came of it.

The policy's inputs are made again from the logged observations, as a replay makes them. The action of a tick is the
command that the next observation says was applied, so that it is the robot's own whatever the governor changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import wire
from deploy.log_reader import Log
from deploy.log_run import robot_of
from deploy.points import clearance_m
from deploy.report import COLLISION, SUCCESS
from robonav.errors import LogError, explain
from robonav.planning.routes import progress_on_route
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import ACTION_SIZE, Observation, RobotSpec, policy_input_shapes

Steps = dict[str, NDArray[Any]]  # (n, ...) arrays of an episode, as the replay holds them
Judge = Callable[[float, float, str | None], tuple[float, int]]
"""Reward and event bits of a tick from its progress in metres, its clearance in metres, and the outcome if it ended."""


def episodes_of(log: Log, spec: RobotSpec, judge: Judge, situation: SituationConfig | None = None) -> list[Steps]:
    """The episodes of a log: one, or several where observations are missing between them.

    Args:
        log: of a run.
        spec: robot that is trained for; its sensors must be the log's.
        judge: gives rewards and events.
        situation: makes what a policy reads.

    Raises:
        LogError: the log is of a robot with other sensors or another rate; one line.
    """
    robot = robot_of(log)
    _check_layout(log, robot, spec)
    observations = log.of(wire.ObservationMsg)
    outcome, end_ns = _end(log)
    if end_ns is not None:
        observations = [m for m in observations if m.stamp_ns <= end_ns] or observations
    found = []
    for part in _runs(observations):
        last = part[-1] is observations[-1]
        seen = [wire.unpack_observation(m) for m in part]
        found.append(_steps(seen, robot, judge, outcome if last else None, situation))
    return found


def _check_layout(log: Log, robot: RobotSpec, spec: RobotSpec) -> None:
    theirs: dict[str, Any] = {**policy_input_shapes(robot), "rate_hz": robot.rate_hz}
    wanted: dict[str, Any] = {**policy_input_shapes(spec), "rate_hz": spec.rate_hz}
    for name, want in wanted.items():
        if theirs[name] != want:
            where = f"{log.path}: {name} of robot '{robot.name}'"
            raise LogError(explain(where, f"{want} as of robot '{spec.name}'", theirs[name], "choose another --robot"))


def _end(log: Log) -> tuple[str | None, int | None]:
    """How the episode ended by the driver's word, and the stamp of that; None for one that was broken off."""
    for status in log.of(wire.StatusMsg):
        if status.collided or status.arrived:
            return (COLLISION if status.collided else SUCCESS), status.stamp_ns
    return None, None


def _runs(observations: Sequence[wire.ObservationMsg]) -> list[list[wire.ObservationMsg]]:
    """Observations that follow each other without a gap; those that stand alone hold no step."""
    runs: list[list[wire.ObservationMsg]] = []
    for message in observations:
        follows = runs and (message.episode, message.sequence) == (runs[-1][-1].episode, runs[-1][-1].sequence + 1)
        if follows:
            runs[-1].append(message)
        else:
            runs.append([message])
    return [run for run in runs if len(run) > 1]


def _steps(
    observations: Sequence[Observation],
    robot: RobotSpec,
    judge: Judge,
    outcome: str | None,
    config: SituationConfig | None,
) -> Steps:
    tracker = SituationTracker(robot, config)
    situation, rows = tracker.reset(), []
    for i, observation in enumerate(observations):
        before, situation = situation, tracker.update(situation, observation)
        row: Steps = dict(tracker.policy_input(situation, observation).arrays())
        ended = outcome if i == len(observations) - 1 else None
        reward, event = (0.0, 0) if i == 0 else _judged(judge, before, observations[i - 1], observation, robot, ended)
        applied = observations[i + 1].last_command if i + 1 < len(observations) else np.zeros(ACTION_SIZE)
        row["action"] = robot.velocity_to_action(applied).astype(np.float32)
        scalars = {"reward": reward, "first": float(i == 0), "terminal": float(ended is not None)}
        row |= {name: np.asarray(value, np.float32) for name, value in scalars.items()}
        row["event"] = np.asarray(event, np.uint8)
        rows.append(row)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _judged(
    judge: Judge, before: Situation, last: Observation, now: Observation, robot: RobotSpec, outcome: str | None
) -> tuple[float, int]:
    """Reward and event of the tick from `last` to `now`; progress is made on the route that was there before it."""
    if before.route_odom_m is None:
        away_m = [float(np.linalg.norm(last.goal_odom_m - o.pose_odom_base[:2])) for o in (last, now)]
        progress_m = away_m[0] - away_m[1]
    else:
        along_m = progress_on_route(before.route_odom_m, now.pose_odom_base, before.progress_m)
        progress_m = along_m - before.progress_m
    nearest_m = np.nan if now.scan_m is None else float(clearance_m(now.scan_m[None], robot)[0])
    return judge(progress_m, robot.lidar.range_m if np.isnan(nearest_m) else nearest_m, outcome)
