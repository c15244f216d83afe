"""``robonav train``: a world model and its actor, from nothing, in simulation."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from robonav.cli.args import parse
from robonav.cli.trained import trained
from robonav.config import find_config, load_config, load_robot, to_mapping
from robonav.errors import CheckpointError, ConfigError, explain
from robonav.learning.config import TrainConfig
from robonav.types import RobotSpec

if TYPE_CHECKING:
    from robonav.learning.checkpoint import Checkpoint
    from robonav.learning.trainer import Trainer

DESCRIPTION = "Trains a navigator in simulation; writes config, checkpoints, progress.csv and TensorBoard events."
EXAMPLES = [
    "robonav train --preset quick --out runs/quick",
    "robonav train --preset quick --out runs/quick --resume --updates 4000 --max-minutes 0",
    "robonav train --preset quick --out runs/wide --agent.model.backbone.d-model 256 --seed 1",
    "robonav train --preset quick --out runs/offline --offline logs/ --updates 3000",
    "robonav train --preset general-people --init runs/general --out runs/people",
    "robonav train --preset general-people --agent.model.clearance --init general --out runs/mine",
    "robonav train --preset general-gru --out runs/gru --offline runs/general --updates 3000",
    "tensorboard --logdir runs",
]


@dataclass(frozen=True)
class TrainArgs:
    """Arguments of ``robonav train``."""

    preset: str = "quick"
    """Preset in configs/train, or a .toml file."""
    out: Path = Path("runs/quick")
    """Folder of the run."""
    resume: bool = False
    """Continue the run in that folder, exactly where its last checkpoint left off."""
    init: Path | None = None
    """Begin with the averaged weights of this run folder, checkpoint or bundle instead of new ones. A bundle may be one
    that is shipped, by its name."""
    offline: tuple[Path, ...] | None = None
    """Logs, folders of logs, or Minari datasets: learn from these alone, and simulate nothing. Or one run that keeps
    its replay on disk."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    """Every value of the preset can be overridden."""


def main(argv: list[str]) -> int:
    """Entry point; 0 on success."""
    preset = _preset(argv)
    config = load_config(TrainConfig, find_config("train", preset))
    args = parse(
        TrainArgs, argv, "robonav train", DESCRIPTION, EXAMPLES, default=TrainArgs(preset=preset, config=config)
    )
    spec = load_robot(args.config.robot)
    begin_with = _initial(args)
    if args.offline is not None:
        return _train_offline(args, args.offline, spec, begin_with)

    from policies.registry import make_policy
    from robonav.learning.trainer import train
    from sim.streams import StreamsOf

    presets = _known_scenes(args.config)
    streams = StreamsOf(args.config.collect, args.config.robot, presets)
    compiled = replace(streams, collect=replace(args.config.collect, simulator="analytic"))
    trainer = train(
        *(args.config, spec, streams, args.out, args.resume),
        expert=make_policy,
        evaluation=compiled,
        begin_with=begin_with,
    )
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        return 0
    if status := _ended_early(args, trainer):
        return status
    c = trainer.counters
    if not c.updates:
        print(f"no update in {c.elapsed_s / 60:.1f} min and {c.env_steps} steps: nothing was learnt; give it more time")
        return 0
    _draw(args.out)
    success = f"{sum(c.greedy) / len(c.greedy):.2f}" if c.greedy else "no episode yet"
    print(
        f"trained {c.updates} updates on {c.env_steps} steps in {c.elapsed_s / 60:.1f} min; "
        f"success of the last {len(c.greedy)} greedy episodes: {success}; checkpoint: {args.out}/checkpoint.safetensors"
    )
    return 0


def _ended_early(args: TrainArgs, trainer: Trainer) -> int:
    """The exit status that tells of the signal that ended the run, after a word about how to go on; 0 without one."""
    asked, updates = trainer.interruption, trainer.counters.updates
    if asked.wanted:
        do = f"--resume --out {args.out} goes on" if updates else "nothing was learnt yet"
        print(f"robonav: ended by {asked.name} after {updates} updates; {do}", file=sys.stderr)
    return asked.status


def _initial(args: TrainArgs) -> Checkpoint | None:
    """The weights to begin with."""
    if args.init is None or args.resume:  # a resumed run has them already
        return None
    found = trained(args.init)
    has, wanted = to_mapping(found.agent.config), to_mapping(args.config.agent)
    if wanted["model"]["clearance"]:  # this head alone may be added
        has["model"]["clearance"] = True
    if has["model"] != wanted["model"]:
        key = next(key for key in wanted["model"] if has["model"].get(key) != wanted["model"][key])
        want, got = wanted["model"][key], has["model"].get(key)
        do = "use a preset with the model that it was trained with"
        raise CheckpointError(explain(f"--init {args.init}: agent.model.{key}", want, got, do))
    return found


def _train_offline(args: TrainArgs, sources: tuple[Path, ...], spec: RobotSpec, begin_with: Checkpoint | None) -> int:
    from robonav.cli.recorded import load_episodes
    from robonav.learning.offline import replay_folder, train_offline, train_on_replay
    from robonav.planning.situation import SituationConfig

    if not sources:
        raise ConfigError(explain("--offline", "one run's replay, or recorded episodes", "no path"))
    kept = [place for path in sources if (place := replay_folder(path)) is not None]
    if kept and len(sources) > 1:
        raise ConfigError(explain("--offline", "one run's replay, or recorded episodes", f"{len(sources)} paths"))
    if kept:
        trainer = train_on_replay(args.config, spec, kept[0], args.out, args.resume, begin_with)
        return _said_offline(args, trainer, f"steps of {kept[0]}")
    situation = SituationConfig(sight=args.config.collect.sight)
    episodes = load_episodes(sources, spec, _warn, situation)
    trainer = train_offline(args.config, spec, episodes, args.out, args.resume, begin_with)
    return _said_offline(args, trainer, f"recorded steps of {len(episodes)} episodes")


def _warn(line: str) -> None:
    print(f"robonav: warning: {line}", file=sys.stderr)


def _said_offline(args: TrainArgs, trainer: Trainer, what: str) -> int:
    if status := _ended_early(args, trainer):
        return status
    _draw(args.out)
    c = trainer.counters
    print(
        f"trained {c.updates} updates on {c.env_steps} {what} in {c.elapsed_s / 60:.1f} min; "
        f"checkpoint: {args.out}/checkpoint.safetensors"
    )
    return 0


def _known_scenes(config: TrainConfig) -> tuple[str, ...]:
    """The scene presets of a run; an unknown one, or another preset, is told before anything starts."""
    import sim
    from sim.randomisation import load_randomisation
    from sim.sensor_config import load_sensors

    collect, levels = config.collect, config.curriculum.presets
    scenes = dict.fromkeys([scene for scene, _ in levels] or collect.scenes)
    for scene in scenes:
        sim.load_scene(scene)
    for randomisation in dict.fromkeys([*(name for _, name in levels), collect.randomisation]):
        load_randomisation(randomisation)
    load_sensors(collect.sensors)
    for robot in collect.robots:
        load_robot(robot)
    return tuple(scenes)


def _draw(run: Path) -> None:
    """Draws ``curve.png``, where the extra for pictures is installed."""
    from importlib.util import find_spec

    from robonav.learning.curve import draw_curve

    if find_spec("matplotlib") is not None:
        draw_curve(run, run / "curve.png")


def _preset(argv: list[str]) -> str:
    """The preset's name, wanted before the other flags can be read over it; of several the last, as of any flag."""
    found = TrainArgs.preset
    for i, word in enumerate(argv):
        if word.startswith("--preset="):
            found = word.removeprefix("--preset=")
        elif word == "--preset" and i + 1 < len(argv):
            found = argv[i + 1]
    return found
