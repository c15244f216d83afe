"""``robonav bench train``: where an update's time goes, collection, memory, and the sequential control beside it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robonav.cli.args import UsageError, parse
from robonav.cli.figures import finish
from robonav.errors import explain

SUMMARY = "Measures an update of training by part, collection and memory, beside a sequential control."
EXAMPLES = ["robonav bench train --json train.json", "robonav bench train --preset quick --updates 4 --rounds 3"]


@dataclass(frozen=True)
class TrainBenchArgs:
    """Arguments of ``robonav bench train``."""

    preset: str = "general"
    """Preset in configs/train, or a .toml file."""
    updates: int = 8
    """Of each model in each round."""
    rounds: int = 5
    """In which the two models take turns; figures are medians, the ratio has an interval over the rounds."""
    replay_steps: int = 1_000_000
    """Steps that the replay on disk holds: 2 GB in the folder for temporary files for a million."""
    threads: int | None = None
    """Threads of the learner; the preset's if not given."""
    compile: bool = False
    """Compiles encoder and loss first; on a GPU scan and dream as well."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of matrix products; the preset's if not given."""
    json: Path | None = None
    """File for the figures; they are printed as well."""


def train(argv: list[str]) -> int:
    """Measures, prints the figures as JSON, and returns the exit status."""
    args = parse(TrainBenchArgs, argv, "robonav bench train", SUMMARY, EXAMPLES)
    counts = {"--updates": args.updates, "--rounds": args.rounds, "--replay-steps": args.replay_steps}
    for flag, value in {**counts, "--threads": args.threads}.items():
        if value is not None and value < 1:
            raise UsageError(explain(flag, "at least 1", value))
    from dataclasses import replace

    from robonav.config import find_config, load_config, load_robot
    from robonav.learning.bench import measure_training
    from robonav.learning.config import TrainConfig
    from sim.streams import StreamsOf

    config = load_config(TrainConfig, find_config("train", args.preset))
    config = replace(config, compile=args.compile or config.compile, threads=args.threads or config.threads)
    config = replace(config, precision=args.precision or config.precision)
    if args.replay_steps < config.streams * config.length:
        want = f"at least {config.streams * config.length}, a sequence in each of the preset's streams"
        raise UsageError(explain("--replay-steps", want, args.replay_steps))
    levels = config.curriculum.presets
    scenes = tuple(dict.fromkeys([scene for scene, _ in levels] or config.collect.scenes))
    figures = measure_training(
        config,
        load_robot(config.robot),
        StreamsOf(config.collect, config.robot, scenes),
        args.updates,
        args.rounds,
        args.replay_steps,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    figures = {"preset": args.preset, **figures}
    return finish(figures, args.json)
