"""``robonav run``: drives a robot to its goal with a bundle, and logs it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robonav.cli.args import parse
from robonav.config import find_config, load_config, load_robot
from robonav.errors import LinkError, nearest

if TYPE_CHECKING:
    from deploy.report import RunReport

# A driver by name: "module:factory" and whether it takes the scene. Imported in the driver's process only.
DRIVERS = {
    "sim": ("sim.driver:make_driver", True),
    "point": ("deploy.drivers:PointDriver", False),
    "null": ("deploy.drivers:NullDriver", False),
}
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class RunArgs:
    """Arguments of run."""

    bundle: Path
    """Folder of the bundle."""
    driver: str = "sim"
    """sim (PyBullet), point (a disc in an empty room), null (stands still), or module:factory of your own."""
    robot: str = "a1"
    """Preset under configs/robots, or a .toml file."""
    scene: str = "office"
    """For the simulator: a preset, a ROS map .yaml, a BARN grid .npy, or a scene .toml."""
    seed: int = 0
    """Number of the scene, and of the policy's random numbers."""
    log: Path = Path("run.mcap")
    """Where the log is written; an older one is replaced."""
    timeout_s: float | None = None
    """After which the run ends; the config's if not given."""
    config: str = "default"
    """Preset under configs/deploy, or a .toml file: governor, times, log."""
    json: bool = False
    """Print the report as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 if the robot arrived and the log is whole, 130 after Ctrl-C, else 1."""
    description = "Drives a robot to its goal: driver, governor, navigator and recorder as processes over ZeroMQ."
    examples = [
        "robonav run --bundle policies/pretrained/rooms --driver sim --scene office --log a.mcap",
        "robonav run --bundle policies/pretrained/rooms --driver point --json",
    ]
    args = parse(RunArgs, argv, "robonav run", description, examples)
    factory, in_scene = _driver(args.driver)
    from deploy.config import DeployConfig
    from deploy.report import INTERRUPTED
    from deploy.supervisor import run

    config = load_config(DeployConfig, find_config("deploy", args.config))
    if args.timeout_s is not None:
        config = dataclasses.replace(config, time_limit_s=args.timeout_s)
    kwargs: dict[str, Any] = {"robot": args.robot}
    labels = {"robot_preset": args.robot, "driver_name": args.driver}
    if in_scene:
        kwargs |= {"scene": args.scene, "seed": args.seed}
        labels["scene"] = args.scene
    report = run(
        args.bundle,
        factory,
        args.log,
        robot=load_robot(args.robot),
        driver_kwargs=kwargs,
        config=config,
        seed=args.seed,
        labels=labels,
    )
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print(_text(report))
    if report.log_error:
        print(f"robonav: warning: {report.log_error}", file=sys.stderr)
    if report.outcome == INTERRUPTED:
        return EXIT_INTERRUPTED
    return 0 if report.success else EXIT_FAILED


def _driver(name: str) -> tuple[str, bool]:
    if ":" in name:
        return name, False
    if name not in DRIVERS:
        raise LinkError(f"unknown driver '{name}'; {nearest(name, DRIVERS)}, or module:factory")
    return DRIVERS[name]


def _text(report: RunReport) -> str:
    decision, lateness = report.decision_ms, report.lateness_ms
    outcome = f"{report.outcome} ({report.detail})" if report.detail else report.outcome
    standing = (
        "standing" if report.stopped else f"standstill NOT confirmed, last speed {report.final_speed_mps:.2f} m/s"
    )
    reasons = ", ".join(f"{key} {count}" for key, count in report.reasons.items()) or "none"
    lines = [
        f"outcome   {outcome}",
        f"time      {report.time_s:.1f} s, {report.ticks} ticks, robot {standing}",
        f"decisions {report.decisions_per_s:.1f}/s, p50 {decision.p50:.1f} ms, p99 {decision.p99:.1f} ms, "
        f"max {decision.max:.1f} ms",
        f"ticks     late by p50 {lateness.p50:.1f} ms, p99 {lateness.p99:.1f} ms; {report.late_ticks} late, "
        f"{report.skipped_ticks} skipped",
        f"governor  {reasons}",
        f"log       {report.log} ({report.records_lost} records lost)",
    ]
    return "\n".join(lines)
