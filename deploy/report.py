"""What a run says about itself: metadata at its start, a report at its end."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import robonav
from deploy.config import DeployConfig
from deploy.log_file import LogFile
from deploy.resources import ResourceReport
from deploy.timing import Latency, StageReport
from deploy.watch import Watch
from policies.bundle import Bundle
from robonav.config import to_mapping
from robonav.types import RobotSpec

SUCCESS, COLLISION, TIMEOUT, INTERRUPTED = "success", "collision", "timeout", "interrupted"


@dataclass(frozen=True, slots=True)
class Timing:
    """How the control loop kept its time."""

    rate_hz: float  # of the robot's ticks, as they came
    period_error_pct: float  # of their mean period against the robot's
    missed_pct: float  # of the deadlines: no tick began, or its command did not reach the robot before the next one
    tick_ms: Latency  # the driver's work of a tick
    stages: dict[str, StageReport]  # sense, map, route, infer, plan, govern, act; and link, between processes


def timing(watch: Watch, skipped: int, dt_s: float) -> Timing | None:
    """From what was heard.

    Args:
        watch: after the run.
        skipped: deadlines of the robot at which no tick began.
        dt_s: the robot's period.
    """
    if watch.first_ns is None or watch.last_ns is None or watch.seen < 2:
        return None
    period_s = (watch.last_ns - watch.first_ns) * 1e-9 / (watch.seen - 1)
    due = watch.seen + skipped
    # The last tick's command is under way when the run ends.
    missed = max(0, due - 1 - watch.stages.in_time("act"))
    return Timing(
        rate_hz=round(1 / period_s, 3),
        period_error_pct=round(100 * (period_s / dt_s - 1), 3),
        missed_pct=round(100 * missed / due, 3),
        tick_ms=watch.tick_ms.summary(),
        stages=watch.stages.report(),
    )


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run came to. `outcome`: success, collision, timeout, interrupted, or "ROLE lost"."""

    outcome: str
    detail: str
    time_s: float  # from the first tick to the end
    ticks: int  # of the robot
    decisions: int
    decisions_per_s: float
    decision_ms: Latency
    lateness_ms: Latency  # of the robot's ticks after their deadlines
    late_ticks: int
    skipped_ticks: int
    stopped: bool  # the driver confirmed a standstill
    final_speed_mps: float
    reasons: dict[str, int]  # of the governor, counted over its cycles
    records_lost: int
    log: str
    log_error: str = ""
    timing: Timing | None = None  # None for a run that never drove
    resources: dict[str, ResourceReport] = field(default_factory=dict)  # by process
    restarts: dict[str, int] = field(default_factory=dict)  # by process; those that were not restarted are left out
    losses: tuple[str, ...] = ()  # each process that was lost, and how
    log_parts: tuple[str, ...] = ()  # files of the log, more than one when the recorder was restarted

    @property
    def success(self) -> bool:
        """Arrived, and the log is whole."""
        return self.outcome == SUCCESS and not self.log_error

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return asdict(self)


def check_log_path(log: str | Path) -> None:
    """Raises LogError before anything is started when the log cannot be written there, or another run writes it."""
    LogFile(log).give_up()


def run_metadata(
    bundle: Bundle, robot: RobotSpec, driver: str, config: DeployConfig, seed: int, labels: Mapping[str, str]
) -> dict[str, str]:
    """What a log says about its run before it starts; all values are strings, structures as JSON."""
    versions = {"robonav": robonav.__version__, "python": platform.python_version()}
    for package in ("onnxruntime", "numpy", "pyzmq", "mcap", "protobuf", "tcod"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "bundle": str(bundle.folder.resolve()),
        "bundle_name": bundle.contract.name,
        "bundle_sha256": bundle.sha256,
        "robot": json.dumps(to_mapping(robot)),
        "driver": driver,
        "planner": config.planner,
        "config": json.dumps(to_mapping(config)),
        "seed": str(seed),
        "versions": json.dumps(versions),
        **{key: str(value) for key, value in labels.items()},
    }
