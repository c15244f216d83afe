"""``robonav scenes``: lists the scenes there are, and draws them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robonav.cli.args import UsageError, parse
from robonav.config import config_dir
from robonav.errors import explain

EXAMPLES = [
    "robonav scenes list",
    "robonav scenes render rooms --seeds 12 --out rooms.png",
    "robonav scenes render my_map.yaml --out map.png",
]
FORMATS = (".png", ".svg", ".pdf")
SEEDS_MAX = 100  # panels that a page can still show


@dataclass(frozen=True)
class ScenesArgs:
    """Arguments of ``robonav scenes``."""

    action: tyro.conf.Positional[Literal["list", "render"]]
    """What to do: list the presets, or render one from above."""
    name: tyro.conf.Positional[str] = ""
    """Scene to render: a preset, a scene .toml, a ROS map .yaml, or a BARN grid .npy."""
    seeds: int = 8
    """How many scenes of the preset, by the numbers that follow --first-seed."""
    first_seed: int = 0
    """Number of the first scene."""
    robot: str = "a1"
    """Robot that must fit through: a preset, or a .toml."""
    out: Path = Path("scenes.png")
    """Image to write."""


def main(argv: list[str]) -> int:
    """Lists or draws, and returns the exit status."""
    args = parse(ScenesArgs, argv, "robonav scenes", "Lists the scene presets, or draws scenes from above.", EXAMPLES)
    if args.action == "list":
        return _list()
    if not args.name:
        raise UsageError("scenes render: the scene's name is missing; see 'robonav scenes list'")
    if not 1 <= args.seeds <= SEEDS_MAX:
        raise UsageError(explain("--seeds", f"1 to {SEEDS_MAX}", args.seeds))
    if args.out.suffix.lower() not in FORMATS:
        raise UsageError(explain("--out", f"an image ({', '.join(FORMATS)})", f"'{args.out}'"))
    if args.first_seed < 0:
        raise UsageError(explain("--first-seed", "at least 0", args.first_seed))
    return _render(args)


def _list() -> int:
    """One line a preset: its name, and the comment at the head of its file."""
    for path in sorted((config_dir() / "scenes").glob("*.toml")):
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        print(f"{path.stem:<12} {first.lstrip('# ') if first.startswith('#') else ''}".rstrip())
    return 0


def _render(args: ScenesArgs) -> int:
    import sim
    from sim.render import save_scenes

    source = sim.load_scene(args.name, args.robot)
    scenes = [source.scene(args.first_seed + i) for i in range(args.seeds)]
    if all(scene is scenes[0] for scene in scenes):  # a fixed task, whatever the number
        scenes = scenes[:1]
    save_scenes(args.out, scenes)
    print(f"{args.name}, {len(scenes)} drawn: {args.out}")
    return 0
