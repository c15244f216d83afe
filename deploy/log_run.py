"""What a log says of its run: robot, outcome, and the stamp that its seconds count from."""

from __future__ import annotations

import json

from deploy import wire
from deploy.log_reader import Log
from deploy.log_writer import REPORT_METADATA
from deploy.report import COLLISION, SUCCESS
from robonav.config import from_mapping
from robonav.errors import LogError, RobonavError, explain
from robonav.types import RobotSpec

UNKNOWN = "unknown: the log ends before the report"


def robot_of(log: Log) -> RobotSpec:
    """The robot that a log was made with.

    Raises:
        LogError: none is named, or none of this version.
    """
    try:
        return from_mapping(RobotSpec, json.loads(log.run["robot"]), "robot")
    except (KeyError, ValueError, RobonavError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        where = f"{log.path}: metadata 'robot'"
        raise LogError(explain(where, "a robot of this version", reason, "record it again")) from None


def outcome_of(log: Log) -> str:
    """The run's outcome by its report, or by the driver's last word where the log ends before that."""
    try:
        return str(json.loads(log.metadata.get(REPORT_METADATA, {})["report"])["outcome"])
    except (KeyError, TypeError, ValueError):
        last = log.of(wire.StatusMsg)[-1:]
        return COLLISION if last and last[0].collided else SUCCESS if last and last[0].arrived else UNKNOWN


def start_ns_of(log: Log) -> int:
    """The stamp that a log's seconds count from; 0 for an empty one."""
    return min(stamps_ns(log), default=0)


def stamps_ns(log: Log) -> list[int]:
    """The stamps of what was sensed, decided, let through and stated."""
    streams = (wire.ObservationMsg, wire.DecisionMsg, wire.GovernedMsg, wire.StatusMsg)
    return [m.stamp_ns for kind in streams for m in log.of(kind)]
