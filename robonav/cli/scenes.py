"""``robonav scenes``: lists the scenes there are, draws them, exports them as ROS maps, and checks them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robonav.cli.args import UsageError, parse
from robonav.config import config_dir, load_robot
from robonav.errors import explain
from robonav.files import require_writable, write_json_atomic

EXAMPLES = [
    "robonav scenes list",
    "robonav scenes render --out scenes.png",
    "robonav scenes render rooms --seeds 12 --out rooms.png",
    "robonav scenes render my_map.yaml --out map.png",
    "robonav scenes export offices --seed 7 --out office-7.yaml",
    "robonav scenes check --n 10000 --json scenes.json",
    "robonav scenes check my_scene.toml --n 200",
]
FORMATS = (".png", ".jpg", ".svg", ".pdf")
SEEDS_MAX = 100  # panels that a page can still show
PAGE_SEEDS, SHEET_SEEDS = 8, 4


@dataclass(frozen=True)
class ScenesArgs:
    """Arguments of ``robonav scenes``."""

    action: tyro.conf.Positional[Literal["list", "render", "export", "check"]]
    """What to do: list the presets, render from above (without a name, a sheet of all presets), export a ROS map, or
    check that each scene has a route for the robot's footprint and free ends (without a name, all presets, and all
    kinds with knobs drawn at random)."""
    name: tyro.conf.Positional[str] = ""
    """Scene: a preset, a scene .toml, a ROS map .yaml, an SDF .world, or a BARN grid .npy."""
    seeds: int | None = None
    """render: how many scenes of a preset, by the numbers that follow --first-seed; 8, on the sheet 4."""
    first_seed: int = 0
    """render, check: number of the first scene."""
    seed: int = 0
    """export: number of the scene."""
    resolution: float = 0.05
    """export: metres a cell."""
    n: int = 1000
    """check: how many scenes, the presets and kinds in turn."""
    json: Path | None = None
    """check: file for the figures."""
    robot: str = "a1"
    """Robot that must fit through: a preset, or a .toml."""
    out: Path | None = None
    """Image to write (scenes.png), or for export the map's .yaml (map.yaml), with its .pgm beside it."""


def main(argv: list[str]) -> int:
    """Lists, draws, exports or checks, and returns the exit status: 1 if a check found something."""
    about = (
        "Lists the scene presets, draws scenes from above, exports one as a ROS map, or checks them by the thousand."
    )
    args = parse(ScenesArgs, argv, "robonav scenes", about, EXAMPLES)
    if args.action == "list":
        return _list()
    if args.action == "export":
        return _export(args)
    if args.first_seed < 0:
        raise UsageError(explain("--first-seed", "at least 0", args.first_seed))
    if args.action == "check":
        return _check(args)
    seeds = args.seeds if args.seeds is not None else (PAGE_SEEDS if args.name else SHEET_SEEDS)
    if not 1 <= seeds <= SEEDS_MAX:
        raise UsageError(explain("--seeds", f"1 to {SEEDS_MAX}", seeds))
    out = args.out or Path("scenes.png")
    if out.suffix.lower() not in FORMATS:
        raise UsageError(explain("--out", f"an image ({', '.join(FORMATS)})", f"'{out}'"))
    numbers = range(args.first_seed, args.first_seed + seeds)
    return _render(args.name, args.robot, numbers, out) if args.name else _sheet(args.robot, numbers, out)


def _presets() -> list[Path]:
    return sorted((config_dir() / "scenes").glob("*.toml"), key=lambda path: path.stem)


def _list() -> int:
    """One line a preset: its name, and the comment at the head of its file."""
    width = max(len(path.stem) for path in _presets())
    for path in _presets():
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        print(f"{path.stem:<{width}} {first.lstrip('# ') if first.startswith('#') else ''}".rstrip())
    return 0


def _render(name: str, robot: str, numbers: range, out: Path) -> int:
    import sim
    from sim.render import save_scenes

    spec = load_robot(robot)
    source = sim.load_scene(name, spec)
    scenes = [source.scene(number) for number in numbers]
    if all(scene is scenes[0] for scene in scenes):  # a fixed task, whatever the number
        scenes = scenes[:1]
    save_scenes(out, scenes, spec=spec)
    print(f"{name}, {len(scenes)} drawn: {out}")
    return 0


def _sheet(robot: str, numbers: range, out: Path) -> int:
    """A row a preset, its first scenes beside each other."""
    from tqdm import tqdm

    import sim
    from sim.render import save_sheet

    spec, families = load_robot(robot), []
    for path in tqdm(_presets(), desc="presets", disable=None):
        source = sim.load_scene(path.stem, spec)
        scenes = [source.scene(number) for number in numbers]
        families.append((path.stem, scenes[:1] if all(s is scenes[0] for s in scenes) else scenes))
    save_sheet(out, families, spec)
    print(f"{len(families)} presets, {sum(len(scenes) for _, scenes in families)} scenes drawn: {out}")
    return 0


def _export(args: ScenesArgs) -> int:
    import sim
    from sim.export_map import export_map

    if not args.name:
        raise UsageError("scenes export: the scene's name is missing; see 'robonav scenes list'")
    if args.seed < 0:
        raise UsageError(explain("--seed", "at least 0", args.seed))
    out = args.out or Path("map.yaml")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(explain("--out", "a map's name that ends in .yaml", f"'{out}'"))
    scene = sim.load_scene(args.name, args.robot).scene(args.seed)
    export_map(scene, out, args.resolution)
    start, goal = ", ".join(f"{v:.2f}" for v in scene.start), ", ".join(f"{v:.2f}" for v in scene.goal)
    left_out = f"; left out: {len(scene.movers)} movers" if scene.movers else ""
    print(f"{scene.name}, start ({start}), goal ({goal}): {out} and {out.with_suffix('.pgm').name}{left_out}")
    return 0


def _check(args: ScenesArgs) -> int:
    """Figures of the checks; the first failures go to stderr."""
    if args.n < 1:
        raise UsageError(explain("--n", "at least 1", args.n))
    from tqdm import tqdm

    from sim.scene_audit import audit, families

    require_writable(args.json)

    spec = load_robot(args.robot)
    names = [args.name] if args.name else [path.stem for path in _presets()]
    sources, unfit = families(names, spec, drawn=not args.name)
    with tqdm(total=args.n, desc="scenes", disable=None) as bar:
        figures = audit(sources, spec, args.n, args.first_seed, bar.update)
    figures["unfit"] = {**unfit, **figures["unfit"]}
    if args.json is not None:
        write_json_atomic(args.json, figures)
    for line in (*(f"left out: {reason}" for reason in figures["unfit"].values()), *figures["failed"]):
        print(line, file=sys.stderr)
    by = "exact geometry and PyBullet" if figures["pybullet"] else "exact geometry (PyBullet is not installed)"
    print(
        f"{figures['scenes']} scenes for {spec.name} checked by {by} in {figures['took_s']:.0f} s: "
        f"{figures['failures']} failures, {figures['crashes']} crashes, {figures['refused']} refused; "
        f"failure rate at most {figures['failure_rate_upper_95']:.2g} (95 %)"
    )
    return 1 if figures["failures"] or not figures["scenes"] else 0
