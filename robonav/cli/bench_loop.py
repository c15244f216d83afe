"""``robonav bench loop``: the control loop as it drives, with all its processes and a simulated robot beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robonav.cli.args import UsageError, parse
from robonav.cli.figures import finish
from robonav.config import find_config, load_config, load_robot
from robonav.errors import ConfigError, explain

if TYPE_CHECKING:
    from deploy.report import RunReport

SUMMARY = "Runs the control loop with a simulated robot: rate, missed ticks, latency of each stage, memory, files."
EXAMPLES = [
    "robonav bench loop --json loop.json",
    "robonav bench loop --rate 20 --seconds 600 --nice -5 --json loop.json",
    "robonav bench loop --driver point --planner geometry",
]
FACTORIES = {"sim": "sim.driver:make_driver", "point": "deploy.drivers:PointDriver"}
PATROL = "robonav.cli.patrol:make_patrol"
AUTOGROUP = Path("/proc/self/autogroup")
PERIOD_PCT, MISSED_PCT = 3.0, 0.5  # what the loop promises
GROWTH_MB_PER_MIN = 1.0  # memory counts as flat below it


@dataclass(frozen=True)
class LoopBenchArgs:
    """Arguments of ``robonav bench loop``."""

    seconds: float = 60.0
    """That the robot drives."""
    rate: float = 20.0
    """Of the robot in Hz; a copy of the bundle is made for it where the bundle has another (needs robonav[onnx])."""
    bundle: Path | None = None
    """Folder of the bundle, or a name under policies/pretrained; the shipped one, quick, if not given."""
    robot: str = "a1"
    """Preset under configs/robots, or a .toml file."""
    driver: Literal["sim", "point"] = "sim"
    """sim (PyBullet), or point (a disc in an empty room, which costs next to nothing)."""
    scene: str = "office"
    """For the simulator; the robot walks from start to goal and back."""
    planner: Literal["actor", "mppi", "geometry"] = "actor"
    """Who decides, as in robonav run."""
    config: str = "default"
    """Preset under configs/deploy, or a .toml file."""
    nice: int = 0
    """Priority of all processes, -20 to 19; below 0 only where the system permits it, and the figures say so."""
    log: Path | None = None
    """Where the log is kept; nowhere if not given. It is written all the same."""
    json: Path | None = None
    """File for the figures; they are printed as well."""


def loop(argv: list[str]) -> int:
    """Measures, prints the figures as JSON; exit status 1 when the run did not last as long as it was to."""
    args = parse(LoopBenchArgs, argv, "robonav bench loop", SUMMARY, EXAMPLES)
    for flag, value in (("--rate", args.rate), ("--seconds", args.seconds)):
        if value <= 0:
            raise UsageError(explain(flag, "a number above 0", value))
    if not -20 <= args.nice <= 19:
        raise UsageError(explain("--nice", "-20 to 19", args.nice))
    with tempfile.TemporaryDirectory(prefix="robonav-bench-") as folder:
        report = measure(args, Path(folder))
    found = figures(args, report)
    finish(found, args.json)
    return 0 if report.outcome == "timeout" else 1


def measure(args: LoopBenchArgs, folder: Path) -> RunReport:
    """Drives for the time.

    Raises:
        UsageError: another rate than the bundle's, for its planner.
        RobonavError: the run could not start.
    """
    from deploy.bundle import find_bundle
    from deploy.config import DeployConfig
    from deploy.supervisor import run

    robot = robot_at(args.robot, args.rate, folder)
    own = find_bundle(args.bundle)
    bundle = bundle_at(own, args.rate, folder)
    if args.planner == "mppi" and bundle != own:
        raise UsageError(explain("--rate", "the bundle's own with --planner mppi", f"{args.rate:g}", "leave it out"))
    config = load_config(DeployConfig, find_config("deploy", args.config))
    config = dataclasses.replace(config, time_limit_s=args.seconds, planner=args.planner)
    kwargs: dict[str, Any] = {"factory": FACTORIES[args.driver], "robot": str(robot)}
    if args.driver == "sim":
        kwargs |= {"scene": args.scene, "seed": 0}
    log = args.log or folder / "loop.mcap"
    with priority(args.nice):
        return run(bundle, PATROL, log, robot=load_robot(str(robot)), driver_kwargs=kwargs, config=config)


def robot_at(name: str, rate_hz: float, folder: Path) -> Path:
    """A robot's file with another rate.

    Raises:
        ConfigError: no such robot, or a file that does not name its rate.
    """
    text, found = re.subn(r"(?m)^rate_hz\s*=.*$", f"rate_hz = {rate_hz!r}", find_config("robots", name).read_text())
    if not found:
        raise ConfigError(explain(f"robot '{name}'", "a line rate_hz = ...", "none", "add it"))
    path = folder / "robot.toml"
    path.write_text(text)
    return path


def bundle_at(folder: Path, rate_hz: float, target: Path) -> Path:
    """The bundle, or a copy whose contract has another rate, without its planner, whose graph is of one rate.

    The copy decides no better than before: only time is measured.

    Raises:
        BundleError: it is damaged.
        MissingDependencyError: another rate, and onnx is not installed.
    """
    from deploy.bundle import write_bundle
    from deploy.recording import load_parity
    from policies.bundle import CARD, GRAPH, load_bundle

    bundle = load_bundle(folder)
    contract = bundle.contract
    if contract.robot.rate_hz == rate_hz:
        return folder
    contract = dataclasses.replace(
        contract, rate_hz=rate_hz, robot=dataclasses.replace(contract.robot, rate_hz=rate_hz)
    )
    copy = write_bundle(
        target / bundle.contract.name,
        (folder / GRAPH).read_bytes(),
        contract,
        load_parity(bundle),
        (folder / CARD).read_text(),
    )
    return copy.folder


@contextlib.contextmanager
def priority(nice: int) -> Iterator[None]:
    """Runs at another priority, where that is permitted; back to its own after.

    Linux shares the cores among sessions first where autogroups are on, so the session's own is set as well.
    """
    before = os.nice(0)
    group = _group_nice()
    try:
        os.nice(nice - before)
        _set_group_nice(nice if group is not None else None)
    except OSError:
        print(f"robonav: warning: nice {nice}: not permitted; measured at {os.nice(0)}", file=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _set_group_nice(group)
            os.nice(before - os.nice(0))


def _group_nice() -> int | None:
    """Of the session's autogroup; None where there are none."""
    try:
        return int(AUTOGROUP.read_text().rsplit(maxsplit=1)[1])
    except (OSError, IndexError, ValueError):
        return None


def _set_group_nice(nice: int | None) -> None:
    if nice is not None:
        AUTOGROUP.write_text(str(nice))


def figures(args: LoopBenchArgs, report: RunReport) -> dict[str, Any]:
    """What was measured, on what, and whether it is what the loop promises."""
    timing = report.timing
    found: dict[str, Any] = {"outcome": report.outcome, "seconds": report.time_s, "target_hz": args.rate}
    if timing is None:
        return found | {"detail": report.detail}
    link = timing.stages.get("link")
    grown = {role: use.rss_mb_per_min for role, use in report.resources.items()}
    opened = {role: use.fds_end - use.fds_start for role, use in report.resources.items()}
    plain = dataclasses.asdict(timing)
    return found | {
        "detail": report.detail,
        "losses": report.losses,
        "rate_hz": timing.rate_hz,
        "period_error_pct": timing.period_error_pct,
        "missed_pct": timing.missed_pct,
        "tick_ms": plain["tick_ms"],
        "decision_ms": dataclasses.asdict(report.decision_ms),
        "link_ms": None if link is None else dataclasses.asdict(link.work_ms),
        "lateness_ms": dataclasses.asdict(report.lateness_ms),
        "stages": plain["stages"],
        "ticks": report.ticks,
        "decisions": report.decisions,
        "late_ticks": report.late_ticks,
        "skipped_ticks": report.skipped_ticks,
        "records_lost": report.records_lost,
        "restarts": report.restarts,
        "resources": {role: dataclasses.asdict(use) for role, use in report.resources.items()},
        "within": {
            "period": abs(timing.period_error_pct) <= PERIOD_PCT,
            "missed": timing.missed_pct < MISSED_PCT,
            "memory_flat": all(slope < GROWTH_MB_PER_MIN for slope in grown.values()),
            "files_flat": all(more <= 0 for more in opened.values()),
        },
        "setup": {
            "driver": args.driver,
            "scene": args.scene if args.driver == "sim" else "",
            "robot": args.robot,
            "planner": args.planner,
            "bundle": str(args.bundle or "quick"),
            "nice": args.nice,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load_average": [round(value, 2) for value in os.getloadavg()],
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }
