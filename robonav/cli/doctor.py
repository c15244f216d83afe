"""``robonav doctor``: checks this computer before a robot drives, and says what to do about each finding.

With ``--drill`` it breaks a run on a simulated robot in many ways, and measures whether that stops as it must.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robonav.cli.args import UsageError, parse
from robonav.config import find_config, load_config
from robonav.errors import explain

if TYPE_CHECKING:
    from deploy.config import DeployConfig
    from deploy.drill.runner import Result

EXIT_FOUND = 1
MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


@dataclass(frozen=True)
class DoctorArgs:
    """Arguments of doctor."""

    bundle: Path | None = None
    """That will be driven; the shipped one if not given."""
    config: str = "default"
    """Preset under configs/deploy, or a .toml file."""
    listen: str = ""
    """Where operators will connect; the config's if not given."""
    log: Path = Path("run.mcap")
    """Where the log will be written."""
    gpu: bool = False
    """onnxruntime is meant to use a GPU: finding none is an error."""
    reach: tuple[str, ...] = ()
    """HOST:PORT or HOST of lidars in the network, the robot and others that have to answer."""
    pace_s: float = 2.0
    """How long the 20 Hz loop is timed."""
    drill: bool = False
    """Try faults on real processes and a simulated robot (some minutes): each must stop it in time, or must not."""
    only: tuple[str, ...] = ()
    """--drill: these faults alone, by name; 'robonav doctor --drill --only ?' names them all."""
    robot: str = "a1"
    """--drill: preset of the robot that is simulated; the bundle must fit it."""
    json: bool = False
    """Print as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when nothing is wrong, 1 when something is (warnings included)."""
    description = (
        "Checks versions, onnxruntime, clocks and timing, keys, port, disk and bundle on this computer; with --drill, "
        "whether a run is stopped by every fault."
    )
    examples = [
        "robonav doctor",
        "robonav doctor --listen tcp://0.0.0.0:5600 --json",
        "robonav doctor --gpu --reach 192.168.123.161",
        "robonav doctor --drill",
        'robonav doctor --drill --only "navigator killed" "sensor frozen" --json',
    ]
    args = parse(DoctorArgs, argv, "robonav doctor", description, examples)
    if not 0 < args.pace_s <= 600:
        raise UsageError(explain("--pace-s", "more than 0, at most 600", args.pace_s))
    if (args.only or args.robot != "a1") and not args.drill:
        raise UsageError(explain("--only, --robot", "with --drill", "without it"))
    from deploy.config import DeployConfig

    config = load_config(DeployConfig, find_config("deploy", args.config))
    if args.listen:
        config = dataclasses.replace(config, operator=dataclasses.replace(config.operator, listen=args.listen))
    return _drill(args, config) if args.drill else _examine(args, config)


def _examine(args: DoctorArgs, config: DeployConfig) -> int:
    from deploy.doctor import Patient, examine

    findings = list(examine(Patient(config, args.bundle, args.log, args.gpu, args.pace_s, args.reach)))
    healthy = all(finding.level == "ok" for finding in findings)
    if args.json:
        print(json.dumps({"ok": healthy, "findings": [dataclasses.asdict(f) for f in findings]}, indent=2))
    else:
        for f in findings:
            print(f"{MARKS[f.level]}  {f.what:<12} {f.found}" + (f"\n{'':9}{'':13}do: {f.do}" if f.do else ""))
    return 0 if healthy else EXIT_FOUND


def _drill(args: DoctorArgs, config: DeployConfig) -> int:
    from deploy.drill.runner import choose, drill

    if args.only == ("?",):
        for fault in choose(()):
            print(f"{fault.name:<32} {fault.requires:<10} {fault.about}")
        return 0
    if not sys.platform.startswith("linux"):
        raise UsageError(explain("--drill", "Linux, whose /proc shows the processes", sys.platform))
    faults = choose(args.only)
    if not args.json:
        print(f"{'fault':<32} {'must':<13} {'measured':>10} {'at most':>9}")
    results = []
    for result in drill(faults, args.bundle, args.robot, config, _tell):
        results.append(result)
        if not args.json:
            print(_row(result), flush=True)
    passed = all(result.passed for result in results)
    if args.json:
        print(json.dumps({"ok": passed, "faults": [dataclasses.asdict(result) for result in results]}, indent=2))
    else:
        tried = [result for result in results if not result.skipped]
        print(f"{sum(r.passed for r in tried)} of {len(tried)} as it must be")
    return 0 if passed else EXIT_FOUND


def _tell(name: str) -> None:
    """What is tried now, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{name} ...\r", end="", file=sys.stderr, flush=True)


def _row(result: Result) -> str:
    mark = "left out" if result.skipped else "ok" if result.passed else "FAILED"
    measured = "-" if result.measured_ms is None else f"{result.measured_ms:.0f} ms"
    row = f"{result.fault:<32} {result.requires:<13} {measured:>10} {result.bound_ms:>6.0f} ms  {mark}"
    return f"{row}: {result.said}" if result.said else row
