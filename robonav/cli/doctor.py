"""``robonav doctor``: checks this computer before a robot drives, and says what to do about each finding."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robonav.cli.args import UsageError, parse
from robonav.config import find_config, load_config
from robonav.errors import explain

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
    pace_s: float = 2.0
    """How long the 20 Hz loop is timed."""
    json: bool = False
    """Print as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when nothing is wrong, 1 when something is (warnings included)."""
    description = "Checks versions, onnxruntime, clocks and timing, keys, port, disk and bundle on this computer."
    examples = ["robonav doctor", "robonav doctor --listen tcp://0.0.0.0:5600 --json"]
    args = parse(DoctorArgs, argv, "robonav doctor", description, examples)
    if not 0 < args.pace_s <= 600:
        raise UsageError(explain("--pace-s", "more than 0, at most 600", args.pace_s))
    from deploy.config import DeployConfig
    from deploy.doctor import Patient, examine

    config = load_config(DeployConfig, find_config("deploy", args.config))
    if args.listen:
        config = dataclasses.replace(config, operator=dataclasses.replace(config.operator, listen=args.listen))
    findings = list(examine(Patient(config, args.bundle, args.log, args.gpu, args.pace_s)))
    healthy = all(finding.level == "ok" for finding in findings)
    if args.json:
        print(json.dumps({"ok": healthy, "findings": [dataclasses.asdict(f) for f in findings]}, indent=2))
    else:
        for f in findings:
            print(f"{MARKS[f.level]}  {f.what:<12} {f.found}" + (f"\n{'':9}{'':13}do: {f.do}" if f.do else ""))
    return 0 if healthy else EXIT_FOUND
