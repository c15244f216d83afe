"""``robonav walk``: films a robot that walks through a scene on its own legs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from robonav.cli.args import UsageError, parse
from robonav.errors import explain

DESCRIPTION = "Lets a robot walk through a scene on its own legs, simulated in PyBullet, and films it."
EXAMPLES = [
    "robonav walk --out walk.webp",
    "robonav walk ramps --robot aliengo --seed 3 --seconds 8 --out aliengo.gif",
    "robonav walk offices --robot my_robot.toml",
]
SECONDS_MAX = 120.0


@dataclass(frozen=True)
class WalkArgs:
    """Arguments of ``robonav walk``."""

    scene: tyro.conf.Positional[str] = "rooms"
    """Scene: a preset, a scene .toml, a ROS map .yaml, an SDF .world, or a BARN grid .npy."""
    robot: str = "a1"
    """Robot whose legs are described: a preset, or a .toml."""
    policy: str = "astar"
    """Who drives: a baseline, a bundle, a run folder or a checkpoint."""
    seed: int = 0
    """Number of the scene."""
    seconds: float = 6.0
    """Length of the film, at most; it ends with the walk."""
    skip: float = 0.0
    """Seconds of the walk that are not filmed."""
    width: int = 360
    """Pixels; the height is three quarters of it."""
    out: Path = Path("walk.webp")
    """File to write: .webp or .gif."""


def main(argv: list[str]) -> int:
    """Walks, writes the film, and returns the exit status."""
    args = parse(WalkArgs, argv, "robonav walk", DESCRIPTION, EXAMPLES)
    if not 0 < args.seconds <= SECONDS_MAX:
        raise UsageError(explain("--seconds", f"above 0, at most {SECONDS_MAX:g}", args.seconds))
    if args.skip < 0:
        raise UsageError(explain("--skip", "0 or more", args.skip))
    if not 32 <= args.width <= 1920:
        raise UsageError(explain("--width", "32 to 1920", args.width))
    if args.seed < 0:
        raise UsageError(explain("--seed", "at least 0", args.seed))
    import sim
    from policies.registry import make_policy
    from robonav.config import load_robot
    from sim.walk_film import FORMATS, film_walk, save_film

    if args.out.suffix.lower() not in FORMATS:
        raise UsageError(explain("--out", f"a film ({', '.join(FORMATS)})", f"'{args.out}'"))
    spec = load_robot(args.robot)
    scene = sim.load_scene(args.scene, spec).scene(args.seed)
    size = (args.width, args.width * 3 // 4)
    film = film_walk(scene, spec, make_policy(args.policy, spec), args.seconds, args.skip, size, seed=args.seed)
    save_film(args.out, film)
    print(f"{spec.name} in {scene.name}, {film.outcome} after {film.time_s:.1f} s and {film.path_m:.1f} m: {args.out}")
    return 0
