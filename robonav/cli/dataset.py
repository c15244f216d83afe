"""``robonav dataset``: recorded episodes as a Minari dataset, for others to learn from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from robonav.cli.args import parse
from robonav.config import load_robot

EXAMPLES = [
    "robonav dataset logs/ --out datasets --name robonav/office-v0",
    "robonav train --offline datasets/robonav/office-v0",
]


@dataclass(frozen=True)
class DatasetArgs:
    """Arguments of dataset."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Logs, folders of logs, or Minari datasets, whose episodes become one dataset."""
    out: Path = Path("datasets")
    """Folder of datasets."""
    name: str = "robonav/recorded-v0"
    """The dataset's name in Minari's form, NAMESPACE/NAME-vN."""
    robot: str = "a1"
    """Robot whose sensors the logs are of: a preset of configs/robots, or a .toml file."""


def main(argv: Sequence[str]) -> int:
    """Writes the dataset and says where."""
    description = "Writes recorded episodes as a Minari dataset: what a policy reads, actions, rewards, endings."
    args = parse(DatasetArgs, argv, "robonav dataset", description, EXAMPLES)
    from robonav.cli.recorded import load_episodes
    from robonav.learning.minari_data import export_minari

    spec = load_robot(args.robot)
    episodes = load_episodes(args.sources, spec, lambda line: print(f"robonav: warning: {line}", file=sys.stderr))
    folder = export_minari(episodes, spec, args.out, args.name)
    print(f"{folder}: {len(episodes)} episodes, {sum(len(e['first']) - 1 for e in episodes)} transitions")
    return 0
