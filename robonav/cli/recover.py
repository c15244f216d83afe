"""``robonav recover``: saves what is whole of a damaged log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from robonav.cli.args import parse


@dataclass(frozen=True)
class RecoverArgs:
    """Arguments of recover."""

    source: tyro.conf.Positional[Path]
    """The truncated or damaged log."""
    target: tyro.conf.Positional[Path]
    """Where the whole one is written."""
    json: bool = False
    """Print what was saved and lost as JSON."""


def main(argv: Sequence[str]) -> int:
    """Writes the target and says how much was saved."""
    description = "Writes what is whole of a truncated or damaged MCAP log to a new file that every MCAP tool opens."
    examples = ["robonav recover a.mcap whole.mcap", "robonav recover a.mcap whole.mcap --json"]
    args = parse(RecoverArgs, argv, "robonav recover", description, examples)
    from deploy.log_reader import recover

    found = recover(args.source, args.target)
    if args.json:
        print(json.dumps({"source": str(args.source), "target": str(args.target), **asdict(found)}, indent=2))
        return 0
    print(f"{args.target}: {found.messages} messages saved")
    print(f"{args.source} was {found.damage}" if found.damage else f"{args.source} was whole")
    if found.lost:
        print(f"{'topic':<20} {'saved':>8} {'lost':>8}")
        for topic in sorted({*found.topics, *found.lost}):
            print(f"{topic:<20} {found.topics.get(topic, 0):>8} {found.lost.get(topic, 0):>8}")
    return 0
