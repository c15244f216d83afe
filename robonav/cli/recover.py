"""``robonav recover``: saves what is whole of a damaged log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def main(argv: Sequence[str]) -> int:
    """Writes the target and says how much was saved."""
    description = "Writes what is whole of a truncated or damaged MCAP log to a new file that every MCAP tool opens."
    args = parse(RecoverArgs, argv, "robonav recover", description, ["robonav recover a.mcap whole.mcap"])
    from deploy.log_reader import recover

    count, damage = recover(args.source, args.target)
    print(f"{args.target}: {count} messages" + (f"; {args.source} was {damage}" if damage else "; the log was whole"))
    return 0
