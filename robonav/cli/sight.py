"""``robonav sight``: trains the network with which the local planner sees who moves."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from robonav.cli.args import parse
from robonav.errors import ConfigError, explain
from robonav.files import require_writable
from robonav.learning.sight_data import HELD_OUT, SightConfig, SightData, samples

SUMMARY = """Drives through scenes, keeps what each beam really hit, and learns to see in the scans who moves, and how
fast. A planner takes the file by its dial `sight`."""
EXAMPLES = (
    "robonav sight --out sight.npz",
    "robonav sight --out quick.npz --episodes 100 --train.steps 1500",
)
SCENES = (
    *("crowd-dense",) * 6,
    *("crowd-few",) * 2,
    *("crowd-office", "rooms", "dense", "clutter", "maze", "offices", "warehouse", "doors-moving", "corridors"),
)
ROBOTS = ("a1", "go1", "a1", "aliengo")
FIRST_SEED = 500_000_000  # of the episodes; evaluation's seeds lie above all others
CHUNK = 8  # episodes that a worker drives before it hands them in


@dataclass(frozen=True)
class SightArgs:
    """Arguments."""

    out: Path
    """File for the weights (.npz)."""
    episodes: int = 900
    """Episodes to drive; half of them with the errors of real sensors."""
    ahead: int = 1
    """Ticks over which the velocity that is learnt is averaged: it foresees so far who stops or turns."""
    driver: str = "geometry"
    """Who drives: a baseline."""
    scenes: tuple[str, ...] = SCENES
    """Scene presets, drawn evenly."""
    robots: tuple[str, ...] = ROBOTS
    """Robots, in turn; their lidars have to be the same."""
    ticks: int = 250
    """At most, an episode."""
    workers: int | None = None
    """Worker processes; by default one for each core."""
    train: SightConfig = field(default_factory=SightConfig)


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    args = parse(SightArgs, argv, "robonav sight", SUMMARY, EXAMPLES)
    if args.episodes < HELD_OUT:
        raise ConfigError(explain("--episodes", f"at least {HELD_OUT}, one of which is held out", args.episodes))
    if args.ahead < 1 or args.ticks < 1:
        raise ConfigError(explain("--ahead, --ticks", "at least 1", (args.ahead, args.ticks)))
    if args.workers is not None and args.workers < 1:
        raise ConfigError(explain("--workers", "at least 1", args.workers))
    for flag, names in (("--robots", args.robots), ("--scenes", args.scenes)):
        if not names:
            raise ConfigError(explain(flag, "at least one preset", "none"))
    from policies.baselines import load_baseline
    from robonav.config import load_robot
    from robonav.learning.sight import save_sight, train_sight
    from sim.scenes import load_scene

    lidars = [load_robot(name).lidar for name in args.robots]
    lidar = lidars[0]
    if any(replace(other, mount_z_m=lidar.mount_z_m) != lidar for other in lidars):
        raise ConfigError(explain("--robots", "robots with one lidar", "different ones"))
    load_baseline(args.driver)
    for scene in sorted(set(args.scenes)):
        load_scene(scene, args.robots[0])
    require_writable(args.out)
    data = SightData.joined(_driven(args))
    print(f"{len(data.episode)} ticks of {args.episodes} episodes, {data.moves.mean():.3f} of the beams on what moves")
    net, found = train_sight(samples(data, lidar), args.train, lambda n, loss: print(f"{n} steps, loss {loss:.4f}"))
    save_sight(args.out, net, lidar)
    print("beams within 3 m, held-out episodes:   the sight   the tracker alone")
    print(f"of those on movers, said to move          {found.recall:.4f}      {found.filter_recall:.4f}")
    print(f"of the others, said to move               {found.false:.5f}     {found.filter_false:.5f}")
    print(f"error of velocity on movers, m/s          {found.error_mps:.3f}       {found.filter_error_mps:.3f}")
    print(f"weights: {args.out}")
    return 0


def _driven(args: SightArgs) -> list[SightData]:
    """The episodes, driven by all workers."""
    from tqdm import tqdm

    from robonav.evaluation.runner import usable_cores

    parts = [range(i, min(i + CHUNK, args.episodes)) for i in range(0, args.episodes, CHUNK)]
    workers = max(1, min(args.workers or usable_cores(), len(parts)))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        driven = pool.map(partial(_drive, args), parts)
        return list(tqdm(driven, total=len(parts), unit="part", disable=None, leave=False))


def _drive(args: SightArgs, numbers: range) -> SightData:
    """The episodes of these numbers."""
    import numpy as np

    from policies.registry import make_policy
    from sim.env import NavigateEnv
    from sim.labelled_scans import labelled_episode

    made = []
    envs: dict[tuple[str, bool], Any] = {}
    for number in numbers:
        rng = np.random.default_rng([args.train.seed, number])
        scene, robot = str(rng.choice(args.scenes)), args.robots[number % len(args.robots)]
        erring = bool(number // len(args.robots) % 2)
        if (robot, erring) not in envs:
            errors: dict[str, Any] = {"sensors": "real", "randomisation": "sim2real"} if erring else {}
            envs[robot, erring] = NavigateEnv(scene, robot, latency_s=0.015, **errors)
        env = envs[robot, erring]
        seed = FIRST_SEED + args.train.seed * 1_000_000 + number
        policy = make_policy(args.driver, env.robot)
        made.append(labelled_episode(env, policy, scene, seed, args.ticks, number, args.ahead))
    for env in envs.values():
        env.close()
    return SightData.joined(made)
