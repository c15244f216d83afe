"""Logs of simulated episodes, in the format of a run's: what replays, recovers and shows a run does so for them too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deploy import wire
from deploy.config import RecorderConfig
from deploy.log_writer import REPORT_METADATA, LogWriter
from deploy.report import COLLISION, SUCCESS
from robonav.types import Decision, Observation

EPISODE = 1


def write_episode(
    path: Path,
    ticks: Sequence[tuple[Observation, Decision | None]],
    outcome: str,
    metadata: Mapping[str, str],
    seed: int,
    decision_ms: Sequence[float],
) -> None:
    """Writes an episode's log.

    Args:
        path: of the log.
        ticks: observation and decision of each tick; the last one, at the end of the episode, has no decision.
        outcome: of the episode.
        metadata: of the run, with the robot.
        seed: of the policy's reset.
        decision_ms: that each decision took.

    Raises:
        LogError: the file cannot be written.
    """
    writer = LogWriter(path, RecorderConfig(), metadata, simulated=True)
    for number, (observation, decision) in enumerate(ticks):
        writer.write(wire.pack_observation(observation, number, EPISODE))
        if decision is not None:
            writer.write(_decision(decision, number, observation.stamp_ns, seed, float(decision_ms[number])))
        writer.write(_status(observation, number, outcome if decision is None else ""))
    writer.write_metadata(REPORT_METADATA, {"report": json.dumps({"outcome": outcome}), "lost": "0"})
    writer.close()


def _decision(decision: Decision, number: int, stamp_ns: int, seed: int, total_ms: float) -> wire.DecisionMsg:
    at = {"sequence": number, "stamp_ns": stamp_ns, "episode": EPISODE, "observation": number}
    return wire.pack_decision(decision, **at, reset=number == 0, seed=seed, age_ms=0.0, total_ms=total_ms)


def _status(observation: Observation, number: int, outcome: str) -> wire.StatusMsg:
    x, y = (float(v) for v in observation.pose_odom_base[:2])
    return wire.StatusMsg(
        sequence=number,
        stamp_ns=observation.stamp_ns,
        episode=EPISODE,
        arrived=outcome == SUCCESS,
        collided=outcome == COLLISION,
        speed_mps=float(np.hypot(*observation.twist_base[:2])),
        position_odom_m=(x, y),
        late_ticks=0,
        lateness_ms=0.0,
        stopped=False,
    )
