"""``robonav bench log``: what recording costs the control loop, how large logs grow, and what a kill takes."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from robonav.cli.args import UsageError, parse
from robonav.cli.figures import finish
from robonav.errors import explain

SUMMARY = "Measures the recorder: milliseconds in the control loop, megabytes, seconds lost when it is killed."
EXAMPLES = ["robonav bench log --json log.json", "robonav bench log --rate-hz 50 --seconds 10 --minutes 1"]


@dataclass(frozen=True)
class LogBenchArgs:
    """Arguments of ``robonav bench log``."""

    robot: str = "a1"
    """Preset under configs/robots, or a .toml file; its lidar and depth camera are recorded."""
    rate_hz: float = 20.0
    """Of the control loop."""
    seconds: float = 60.0
    """That the control loop runs."""
    minutes: float = 10.0
    """Of the log whose size is measured."""
    folder: Path | None = None
    """For the logs; a temporary one if not given."""
    json: Path | None = None
    """File for the figures; they are printed as well."""


def log(argv: list[str]) -> int:
    """Measures, prints the figures as JSON, and returns the exit status."""
    args = parse(LogBenchArgs, argv, "robonav bench log", SUMMARY, EXAMPLES)
    for flag, value in (("--rate-hz", args.rate_hz), ("--seconds", args.seconds), ("--minutes", args.minutes)):
        if value <= 0:
            raise UsageError(explain(flag, "a number above 0", value))
    from deploy.log_bench import measure_log
    from robonav.config import load_robot

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures = measure_log(load_robot(args.robot), Path(folder), args.rate_hz, args.seconds, args.minutes, say)
    return finish(figures, args.json)
