"""``robonav sb3``: trains an opponent of Stable-Baselines3 on the agent's observations."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from policies.sb3_config import Sb3Config
from robonav.cli.args import UsageError, parse
from robonav.config import load_robot
from robonav.errors import explain

SUMMARY = "Trains PPO or SAC of Stable-Baselines3 on the agent's observations, as an opponent."
EXAMPLES = [
    "robonav sb3 --out runs/ppo --algorithm ppo --steps 1000000",
    "robonav sb3 --out runs/sac --algorithm sac --scenes rooms dense --envs 16",
    "robonav bench nav --suite rooms --policies runs/ppo,runs/sac,astar",
]


@dataclass(frozen=True)
class Sb3Args:
    """Arguments of ``robonav sb3``."""

    out: Path
    """Folder of the run; bench nav and evaluate take it as a policy."""
    scenes: tuple[str, ...] = ("rooms",)
    """Scene presets, dealt out to the environments in turn."""
    envs: int = 16
    """Environments."""
    simulator: Literal["analytic", "kinematic"] = "analytic"
    """The compiled batch of worlds, or PyBullet in worker processes, which is many times slower."""
    robot: str = "a1"
    """A preset of configs/robots, or the path of a .toml file."""
    sensors: str | None = None
    """Errors of the sensors: a preset of configs/sensors."""
    randomisation: str | None = None
    """A preset of configs/randomisation."""
    config: Annotated[Sb3Config, tyro.conf.arg(name="")] = field(default_factory=Sb3Config)
    """Algorithm, sizes and dials."""


def main(argv: list[str]) -> int:
    """Trains, and prints where the actor is; 0 on success.

    Raises:
        RobonavError: bad arguments, scenes or robot; all are told before training starts.
    """
    args = parse(Sb3Args, argv, "robonav sb3", SUMMARY, EXAMPLES)
    if args.envs < 1:
        raise UsageError(explain("--envs", "at least 1", args.envs))
    from policies.sb3 import train
    from sim import make_vec

    spec = load_robot(args.robot)
    env = make_vec(
        args.envs,
        scene=args.scenes,
        robot=spec,
        fidelity=args.simulator,
        autoreset_mode="same_step",
        sensors=args.sensors,
        randomisation=args.randomisation,
    )
    file = train(env, args.config, spec, args.out, lambda line: print(line, file=sys.stderr, flush=True))
    print(f"trained {args.config.steps} steps; actor: {file}")
    return 0
