"""Learning from recorded episodes alone: replay is filled once, then world model, actor and critic learn from it.

Actor and critic act in dreams only, which is the training of World Models (Ha and Schmidhuber, 2018) on DreamerV3's
losses; nothing is simulated. An episode is a mapping of (n, ...) arrays: the policy's inputs, and beside the
observation of a step the reward and ending that came with it and the action taken after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robonav.config import to_mapping
from robonav.errors import ShapeError, explain
from robonav.files import write_json_atomic
from robonav.learning.checkpoint import NOT_KNOWN, Checkpoint, randomisation_of
from robonav.learning.config import CollectConfig, EvaluationConfig, KickstartConfig, TrainConfig
from robonav.learning.curriculum import CurriculumConfig
from robonav.learning.replay import OPTIONAL, Replay, kept_replay, step_shapes
from robonav.learning.replay_store import LAYOUT_FILE
from robonav.learning.run_guard import interruption, sole_trainer
from robonav.learning.runlog import RunLog
from robonav.learning.streams import Arrays
from robonav.learning.trainer import REPLAY_FOLDER, Trainer, require_free
from robonav.mapping.sight import SHIPPED
from robonav.types import RobotSpec


def offline_config(config: TrainConfig, steps: int) -> TrainConfig:
    """A run's configuration without what simulates: one stream, which holds all `steps`."""
    return replace(
        config,
        collect=CollectConfig(workers=0, envs=1, greedy_envs=0, prefill=0, sight=config.collect.sight),
        kickstart=KickstartConfig(),
        curriculum=CurriculumConfig(),
        evaluation=EvaluationConfig(),
        replay_steps=max(config.length, steps),
    )


def joined(episodes: Sequence[Arrays], spec: RobotSpec) -> Arrays:
    """(1, n, ...) arrays of episodes that follow each other in one stream.

    Raises:
        ShapeError: an episode lacks an array, or has one of another layout; one line.
    """
    shapes = {name: shape for name, shape in step_shapes(spec).items() if name not in OPTIONAL}
    for number, episode in enumerate(episodes):
        n = len(episode.get("first", ()))
        for name, shape in shapes.items():
            where = f"episode {number}: {name} for robot '{spec.name}'"
            if name not in episode:
                raise ShapeError(explain(where, (n, *shape), "nothing", "choose another --robot"))
            if episode[name].shape != (n, *shape):
                raise ShapeError(explain(where, (n, *shape), episode[name].shape, "choose another --robot"))
    names = [*shapes, *(name for name in OPTIONAL if all(name in episode for episode in episodes))]
    return {name: np.concatenate([episode[name] for episode in episodes])[None] for name in names}


def fill(replay: Replay, episodes: Sequence[Arrays], spec: RobotSpec) -> int:
    """Puts episodes into a replay of one stream; their steps in all.

    Raises:
        ShapeError: see `joined`.
    """
    chunk = joined(episodes, spec)
    replay.add(chunk)
    return int(chunk["first"].size)


def replay_folder(path: Path) -> Path | None:
    """Where a run, or a folder itself, keeps a replay on disk; None if it keeps none."""
    return next((place for place in (path, path / REPLAY_FOLDER) if (place / LAYOUT_FILE).is_file()), None)


def train_offline(
    config: TrainConfig,
    spec: RobotSpec,
    episodes: Sequence[Arrays],
    folder: Path,
    resume: bool = False,
    begin_with: Checkpoint | None = None,
) -> Trainer:
    """Trains on recorded episodes to the budget; leaves what `trainer.train` leaves in `folder`.

    Raises:
        ShapeError: the episodes are of another layout, or hold fewer steps than a sequence.
        CheckpointError: `folder` holds a run already and `resume` is off, or one that does not fit.
        RobonavError: the disk is full; the last checkpoint stands.
    """
    steps = sum(len(episode["first"]) for episode in episodes)
    if steps < config.length:
        do = "record more, or lower --length"
        raise ShapeError(explain("recorded steps", f"at least {config.length}, a sequence", steps, do))
    config = offline_config(config, steps)

    def made() -> Trainer:
        trainer = Trainer(config, spec, folder)
        trainer.scenes, trainer.randomisation = (), NOT_KNOWN
        if not resume:
            trainer.replay.clear()
            trainer.counters.env_steps = fill(trainer.replay, episodes, spec)
        return trainer

    return _train(config, made, folder, resume, begin_with)


def train_on_replay(
    config: TrainConfig,
    spec: RobotSpec,
    source: Path,
    folder: Path,
    resume: bool = False,
    begin_with: Checkpoint | None = None,
) -> Trainer:
    """Trains on what another run keeps on disk, its experts' labels included; the files of that run are only read.

    So models can be compared that saw the same: `general` and its controls, say. A run that still trains overwrites
    the oldest of these steps meanwhile; copy its folder first.

    Args:
        config: of the new run; what it says of collecting is left out.
        spec: robot whose sensors the steps are of.
        source: folder with the replay, see `replay_folder`.
        folder: of the new run.
        resume: continues the run in `folder`.
        begin_with: trained weights to begin with instead of new ones.

    Raises:
        CheckpointError: the replay is of other sensors, or damaged; `folder` holds a run already and `resume` is off.
        ShapeError: it holds fewer steps than a sequence.
        RobonavError: the disk is full; the last checkpoint stands.
    """
    replay = kept_replay(source, spec, config.replay)
    if not replay.can_sample(config.length):
        raise ShapeError(explain(f"{source}: steps of a stream", f"at least {config.length}", replay.held))
    recorded = _collected(source)
    config = replace(offline_config(config, len(replay)), kickstart=config.kickstart, replay_on_disk=False)
    config = replace(config, collect=replace(config.collect, sight=SHIPPED if recorded.get("sight") == SHIPPED else ""))

    def made() -> Trainer:
        trainer = Trainer(config, spec, folder, replay=replay)
        trainer.counters.env_steps = len(replay)
        trainer.scenes = [str(name) for name in recorded.get("scenes", ())]
        trainer.randomisation = randomisation_of(recorded)
        return trainer

    return _train(config, made, folder, resume, begin_with)


def _collected(source: Path) -> dict[str, Any]:
    """How the run with this replay gathered it, as far as its folder tells."""
    try:
        return dict(json.loads((source.parent / "config.json").read_text())["collect"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _train(
    config: TrainConfig, made: Callable[[], Trainer], folder: Path, resume: bool, begin_with: Checkpoint | None
) -> Trainer:
    """A trainer whose replay is there, trained to the budget."""
    torch.set_num_threads(config.threads)
    with sole_trainer(folder), interruption() as noted:
        require_free(folder, resume)
        trainer = made()
        trainer.interruption = noted
        if resume:
            trainer.restore(folder)
        elif begin_with is not None:
            trainer.begin_with(begin_with)
        write_json_atomic(folder / "config.json", to_mapping(config))
        with RunLog(folder, config, trainer.counters) as log:
            _loop(trainer, folder, log)
    return trainer


def _loop(trainer: Trainer, folder: Path, log: RunLog) -> None:
    config, counters = trainer.config, trainer.counters
    begin = time.monotonic() - counters.elapsed_s
    last = counters.updates >= config.updates
    while not last:
        scalars = [trainer.safe_update(folder) for _ in range(config.updates_per_iteration)]
        counters.iteration += 1
        counters.elapsed_s = time.monotonic() - begin
        out_of_time = 0 < config.max_minutes * 60 <= counters.elapsed_s
        last = counters.updates >= config.updates or out_of_time or trainer.interruption.wanted
        log.iteration(counters, scalars, last)
        if last or counters.updates % config.checkpoint_every == 0:
            trainer.save(folder)
