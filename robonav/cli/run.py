"""``robonav run``: drives a robot to its goal with a bundle, and logs it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robonav.cli.args import UsageError, parse
from robonav.cli.run_view import end_line, live_page, status_line, timing_table
from robonav.config import find_config, load_config, load_robot
from robonav.errors import explain

if TYPE_CHECKING:
    from deploy.config import DeployConfig
    from deploy.report import RunReport

SEED_MAX = 2**63 - 1  # of the wire
PORT_MAX = 2**16 - 1
LEGGED_START_S = 300.0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class RunArgs:
    """Arguments of run."""

    bundle: Path | None = None
    """Folder of the bundle, or a name under policies/pretrained; the shipped one, quick, if not given."""
    driver: str = "sim"
    """sim (simulator), point (a disc in an empty room), null (stands still), log (a log once more), go2 (Unitree Go2 in
    sport mode), or module:factory of your own."""
    driver_options: tuple[str, ...] = ()
    """The driver's own options, KEY=VALUE: path=a.mcap for log; goal_m=[3,0] interface=eth0 for go2."""
    robot: str = "a1"
    """Preset under configs/robots, or a .toml file."""
    scene: str = "office"
    """For the simulator: a preset, a ROS map .yaml, a BARN grid .npy, or a scene .toml."""
    seed: int = 0
    """Number of the scene, and of the policy's random numbers; 0 or more."""
    fidelity: Literal["kinematic", "legged", "analytic"] = "kinematic"
    """For the simulator: a robot that follows velocities with its lag, or one that walks on its legs."""
    sensors: str = "perfect"
    """For the simulator: how good its sensors are, a preset under configs/sensors or a .toml file."""
    randomisation: str = "off"
    """For the simulator: a preset under configs/randomisation or a .toml file; what is drawn stands in the log."""
    log: Path = Path("run.mcap")
    """Where the log is written; an older one is replaced."""
    timeout_s: float | None = None
    """After which the run ends; the config's or the scene's, whichever is longer, if not given."""
    planner: Literal["actor", "mppi", "geometry"] | None = None
    """Who decides: the bundle's actor alone, the planner with the bundle's dreams (exported with --planner), or the
    planner without dreams; the config's if not given."""
    config: str = "default"
    """Preset under configs/deploy, or a .toml file: governor, times, log."""
    view: bool = False
    """Serve a page that shows the robot while it drives; its address is printed. It can only look."""
    view_host: str = "127.0.0.1"
    """Address for --view; on any other than loopback the page wants the key that is printed with it."""
    view_port: int = 0
    """Port for --view; a free one if 0."""
    listen: str = ""
    """Where operators connect (e-stop, observers, remote commanders): tcp://ADDRESS:PORT, with keys of 'robonav keys',
    or ipc://PATH; the config's if not given, and its default is nowhere."""
    topics: bool = False
    """Print the streams between the processes (sender, receivers, rate, queue, log, lifetime) and start nothing."""
    json: bool = False
    """Print the report, or the topics, as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 if the robot arrived and the log is whole, 130 after Ctrl-C, else 1."""
    description = "Drives a robot to its goal: driver, governor, navigator and recorder as processes over ZeroMQ."
    examples = [
        "robonav run --driver sim --scene office --log a.mcap",
        "robonav run --scene crowd-office --view",
        "robonav run --bundle policies/pretrained/quick --driver point --json",
        "robonav run --scene crowd-office --planner geometry",
        "robonav run --driver sim --robot a1 --fidelity legged",
        "robonav run --listen tcp://0.0.0.0:5600",
        "robonav run --topics",
    ]
    args = parse(RunArgs, argv, "robonav run", description, examples)
    if args.topics:
        return _topics(args)
    if not 0 <= args.seed <= SEED_MAX:
        raise UsageError(explain("--seed", f"a whole number from 0 to {SEED_MAX}", args.seed))
    if not 0 <= args.view_port <= PORT_MAX:
        raise UsageError(explain("--view-port", f"a port from 0 to {PORT_MAX}", args.view_port))
    from deploy.bundle import find_bundle
    from deploy.drivers import find_driver, parse_options
    from deploy.report import INTERRUPTED
    from deploy.supervisor import run

    driver = find_driver(args.driver)
    kwargs: dict[str, Any] = {"robot": args.robot} | parse_options(args.driver_options)
    bundle = find_bundle(args.bundle)
    config = _config(args, driver.in_scene)
    labels = {"robot_preset": args.robot, "driver_name": args.driver}
    if driver.in_scene:
        kwargs |= {"scene": args.scene, "seed": args.seed}
        labels["scene"] = args.scene
        if args.fidelity != "kinematic":
            kwargs["fidelity"] = labels["fidelity"] = args.fidelity
        labels |= _randomised(args, kwargs)
    with _page(args):
        report = run(
            bundle,
            driver.factory,
            args.log,
            robot=load_robot(args.robot),
            driver_kwargs=kwargs,
            config=config,
            seed=args.seed,
            labels=labels,
            on_status=status_line(sys.stderr),
        )
        end_line(sys.stderr)
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print(_text(report))
    if report.log_error:
        print(f"robonav: warning: {report.log_error}", file=sys.stderr)
    if report.outcome == INTERRUPTED:
        return EXIT_INTERRUPTED
    return 0 if report.success else EXIT_FAILED


def _topics(args: RunArgs) -> int:
    """Prints the table of topics with the figures of this config and robot."""
    from deploy.config import DeployConfig
    from deploy.topics import rows, text_table

    config = load_config(DeployConfig, find_config("deploy", args.config))
    table = rows(config, load_robot(args.robot))
    print(json.dumps([dataclasses.asdict(row) for row in table], indent=2) if args.json else text_table(table))
    return 0


@contextlib.contextmanager
def _page(args: RunArgs) -> Iterator[None]:
    """The live page, if it is wanted."""
    if not args.view:
        yield
        return
    with live_page(args.log, args.view_host, args.view_port) as url:
        print(f"robonav: view: {url}", file=sys.stderr, flush=True)
        yield


def _randomised(args: RunArgs, kwargs: dict[str, Any]) -> dict[str, str]:
    """Adds sensors and randomisation to the driver's arguments where they differ from nothing; words for the log."""
    from sim.randomisation import draw, effective, load_randomisation
    from sim.sensor_config import SensorConfig, load_sensors

    config, sensors = load_randomisation(args.randomisation), load_sensors(args.sensors)
    words: dict[str, str] = {}
    if sensors != SensorConfig():
        kwargs["sensors"] = words["sensors"] = args.sensors
    if not config.is_off:
        kwargs["randomisation"] = args.randomisation
        record = effective(draw(config, sensors, args.seed).record, depth=False, legs=args.fidelity == "legged")
        words["randomisation"] = json.dumps(record)
    return words


def _config(args: RunArgs, in_scene: bool) -> DeployConfig:
    """The preset with this run's time limit; a scene that says how long its task may take is given that time."""
    from deploy.config import DeployConfig

    config = load_config(DeployConfig, find_config("deploy", args.config))
    if args.planner is not None:
        config = dataclasses.replace(config, planner=args.planner)
    if args.listen:
        config = dataclasses.replace(config, operator=dataclasses.replace(config.operator, listen=args.listen))
    if args.fidelity == "legged":  # on a fresh machine the gait is compiled first
        supervisor = config.supervisor
        start_s = max(supervisor.start_timeout_s, LEGGED_START_S)
        config = dataclasses.replace(config, supervisor=dataclasses.replace(supervisor, start_timeout_s=start_s))
    limit_s = args.timeout_s
    if limit_s is None and in_scene:
        import sim  # the scene alone: PyBullet stays in the driver's process

        limit_s = max(config.time_limit_s, sim.load_scene(args.scene, args.robot).scene(args.seed).time_limit_s)
    return config if limit_s is None else dataclasses.replace(config, time_limit_s=limit_s)


def _text(report: RunReport) -> str:
    decision, lateness = report.decision_ms, report.lateness_ms
    outcome = f"{report.outcome} ({report.detail})" if report.detail else report.outcome
    standing = (
        "standing" if report.stopped else f"standstill NOT confirmed, last speed {report.final_speed_mps:.2f} m/s"
    )
    reasons = ", ".join(f"{key} {count}" for key, count in report.reasons.items()) or "none"
    restarts = ", ".join(f"{role} {count}" for role, count in report.restarts.items()) or "none"
    lines = [
        f"outcome   {outcome}",
        f"time      {report.time_s:.1f} s, {report.ticks} ticks, robot {standing}",
        f"decisions {report.decisions_per_s:.1f}/s, p50 {decision.p50:.1f} ms, p99 {decision.p99:.1f} ms, "
        f"max {decision.max:.1f} ms",
        f"ticks     late by p50 {lateness.p50:.1f} ms, p99 {lateness.p99:.1f} ms; {report.late_ticks} late, "
        f"{report.skipped_ticks} skipped",
        f"governor  {reasons}",
        f"restarts  {restarts}",
        *(f"lost      {loss}" for loss in report.losses),
        f"log       {', '.join(report.log_parts) or report.log} ({report.records_lost} records lost)",
    ]
    if report.timing is not None:
        lines += ["", timing_table(report.timing)]
    return "\n".join(lines)
