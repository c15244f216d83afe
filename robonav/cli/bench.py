"""``robonav bench``: what is measured on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robonav.cli.args import parse
from robonav.files import write_json_atomic


@dataclass(frozen=True)
class BenchArgs:
    """Arguments of ``robonav bench``."""

    what: tyro.conf.Positional[Literal["sim"]]
    """What to measure: sim is the environment's steps a second on one core."""
    json: Path | None = None
    """File for the figures; they are printed as well."""


def main(argv: list[str]) -> int:
    """Measures, prints the figures as JSON, and returns the exit status."""
    args = parse(
        BenchArgs,
        argv,
        "robonav bench",
        "Measures speed on this machine; close other programs first.",
        ["robonav bench sim", "robonav bench sim --json bench.json"],
    )
    from sim.bench import measure

    figures = measure()
    print(json.dumps(figures, indent=2))
    if args.json is not None:
        write_json_atomic(args.json, figures)
    return 0
