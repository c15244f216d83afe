"""``robonav replay``: infers a log's decisions again and draws the episode."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from robonav.cli.args import parse


@dataclass(frozen=True)
class ReplayArgs:
    """Arguments of replay."""

    log: tyro.conf.Positional[Path]
    """The MCAP log of a run."""
    bundle: Path | None = None
    """Folder of the bundle, or a name under policies/pretrained; the one that the log names if not given."""
    picture: Path | None = None
    """Where the picture of the episode goes; beside the log, as .png, if not given."""
    no_picture: bool = False
    """Draw nothing."""
    json: bool = False
    """Print the findings as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 if every logged decision was inferred again without a difference, else 1."""
    description = (
        "Infers every decision of a log again from its observations, reports the first that differs, draws the episode."
    )
    examples = ["robonav replay a.mcap", "robonav replay a.mcap --bundle policies/pretrained/quick --picture a.png"]
    args = parse(ReplayArgs, argv, "robonav replay", description, examples)
    from deploy.replay import replay

    found = replay(args.log, args.bundle)
    report = found.report
    picture = None
    if not args.no_picture:
        from deploy.picture import draw

        picture = args.picture or args.log.with_suffix(".png")
        draw(found, picture)
    if args.json:
        print(json.dumps({**report.to_json(), "picture": None if picture is None else str(picture)}, indent=2))
        return 0 if report.identical else 1
    for warning in (*([report.damage] if report.damage else []), *report.warnings):
        print(f"robonav: warning: {args.log}: {warning}", file=sys.stderr)
    print(f"run       {report.outcome}, {report.ticks} decisions")
    if report.difference is not None:
        d = report.difference
        print(f"replay    differs first at tick {d.tick}: {d.field} was {d.logged}, is {d.replayed}")
    elif report.ticks == 0:
        print("replay    the log holds no decision, so nothing can be compared")
    elif report.identical:
        print(f"replay    {report.replayed} of {report.ticks} decisions identical, bit for bit; no tick differs")
    else:
        print(f"replay    {report.replayed} of {report.ticks} decisions could be replayed, none of them differs")
    if picture is not None:
        print(f"picture   {picture}")
    return 0 if report.identical else 1
