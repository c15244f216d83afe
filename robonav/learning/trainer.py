"""The training loop: collect, learn, dream, act (Dyna), as explicit state and one function an update."""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from robonav.config import package_versions, source_revision, to_mapping
from robonav.errors import CheckpointError, RobonavError
from robonav.files import write_json_atomic
from robonav.imagination.starts import dream_starts
from robonav.learning.augment import lose_sensors
from robonav.learning.checkpoint import (
    BEST_FILE,
    RESUME_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    load_metadata,
    load_tensors,
    randomisation_of,
    save_agent,
    save_tensors,
)
from robonav.learning.collector import CollectorPool, EpisodeResult, InProcessPool, WorkerConfig
from robonav.learning.config import TrainConfig
from robonav.learning.counters import Counters
from robonav.learning.curriculum import Result, after
from robonav.learning.development import Development, Evaluator
from robonav.learning.device import device_of, random_state, set_random_state
from robonav.learning.experts import ExpertFactory
from robonav.learning.learner import Learner, NotFiniteError
from robonav.learning.ranks import ALONE, Ranks, joined_ranks
from robonav.learning.replay import Replay
from robonav.learning.replay_events import COLLISION, NEAR_MISS
from robonav.learning.run_guard import Interruption, interruption, sole_trainer
from robonav.learning.runlog import RunLog, mean
from robonav.learning.streams import Arrays, StreamsFactory
from robonav.planning.situation import SituationConfig
from robonav.types import RobotSpec

ROLLBACKS_MAX = 5
REPLAY_FOLDER = "replay"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Pool(Protocol):
    """What the trainer needs of a collector pool."""

    def request(self, iteration: int, steps: int, weights: Any, level: int = 0) -> None: ...  # noqa: D102
    def receive(self) -> tuple[Arrays, list[EpisodeResult], list[int]]: ...  # noqa: D102
    def restart(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Trainer:
    """Holds the learner, replay and random state of a run; `update` makes one update."""

    def __init__(
        self,
        config: TrainConfig,
        spec: RobotSpec,
        folder: Path | None = None,
        ranks: Ranks = ALONE,
        replay: Replay | None = None,
    ) -> None:
        """Everything anew; a replay on disk lies in `folder`, if none is given."""
        self.config, self.spec, self.ranks = config, spec, ranks
        self.revision = source_revision()
        self.learner = Learner(config, spec, ranks)
        self.agent, self.average = self.learner.agent, self.learner.average
        self.rng = np.random.default_rng([config.seed, ranks.rank] if ranks.rank else config.seed)
        if ranks.rank:
            torch.manual_seed(int(self.rng.integers(2**31)))
        self.replay = own_replay(config, spec, folder, ranks) if replay is None else replay
        self.counters = Counters(episodes=[0] * config.streams)
        self.last_batch: Arrays = {}
        self.interruption = Interruption()
        """Whether a signal asked the run to end before its budget was spent."""
        self.scenes: Sequence[str] = config.collect.scenes
        """What the steps are from, for the checkpoint's record."""
        self.randomisation = randomisation_of(to_mapping(config.collect))
        """The preset under which they were gathered, or some of them."""
        self.began_with: dict[str, Any] = {}
        """Budget of the run whose weights this one began with, if not with new ones."""

    def update(self) -> dict[str, float]:
        """World model on a replayed batch, then actor and critic on dreams that start in it. Returns scalars.

        Raises:
            NotFiniteError: a loss or a gradient is.
        """
        c = self.config
        with self.learner.clock("sampling"):
            arrays = self.replay.sample(self.rng, c.batch, c.length, with_events=True)
            events = arrays.pop("event")
            if c.sensor_loss.share:
                lose_sensors(arrays, self.rng, c.sensor_loss)
            self.last_batch = arrays
            b, went_wrong = c.agent.behavior, events & (NEAR_MISS | COLLISION)
            endings = (arrays["reward"], arrays["terminal"], arrays["first"])
            dream_at = dream_starts(self.rng, *endings, went_wrong, b.dreams, b.rare_share)
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        scalars = self.learner.update(batch, torch.from_numpy(dream_at), self.counters.updates)
        self.counters.updates += 1
        return scalars

    def safe_update(self, folder: Path) -> dict[str, float]:
        """`update`; where a loss is not finite, the batch is kept and the weights go back to the last checkpoint.

        Raises:
            NotFiniteError: there is no checkpoint yet, or it happened too often.
        """
        while True:
            try:
                return self.update()
            except NotFiniteError as error:
                self._roll_back(folder, error)

    def _roll_back(self, folder: Path, error: NotFiniteError) -> None:
        self.counters.rollbacks += 1
        if self.counters.rollbacks > ROLLBACKS_MAX or not (folder / RESUME_FILE).exists():
            raise error
        which = f"{self.counters.updates}_{self.counters.rollbacks}"
        which += f"_{self.ranks.rank}" if self.ranks.rank else ""
        kept = folder / f"not_finite_{which}.safetensors"
        save_tensors(kept, {k: torch.from_numpy(v) for k, v in self.last_batch.items()}, {"error": str(error)})
        self.learner.restore(load_tensors(folder / RESUME_FILE)[0], str(folder / RESUME_FILE))
        warnings.warn(f"{error}; back to the last checkpoint's weights, the batch is in {kept}", stacklevel=3)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def begin_with(self, checkpoint: Checkpoint) -> None:
        """Takes over trained weights, before the first update; everything else begins anew.

        Raises:
            CheckpointError: they are of another model.
        """
        self.learner.begin_with(checkpoint.agent)
        kept = ("updates", "env_steps", "minutes", "seed", "began_with")
        self.began_with = {key: checkpoint.info[key] for key in kept if checkpoint.info.get(key)}

    def save(self, folder: Path) -> None:
        """Writes the averaged weights and the training state, each whole or not at all.

        With several ranks the others' own state is there before rank 0's, which refers to it, and the state before
        that is removed afterwards: a kill at any moment leaves one checkpoint of all.
        """
        c, ranks = self.counters, self.ranks
        self.replay.commit()
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in self.replay.state().items()}
        tensors |= random_state(self.learner.device)
        metadata = {
            "config": to_mapping(self.config),
            "counters": c.mapping(),
            "numpy_rng": self.rng.bit_generator.state,
            "began_with": self.began_with,
        }
        if not ranks.leads:
            own = _rank_file(folder, ranks.rank, c.updates)
            save_tensors(own, tensors, metadata)
        ranks.barrier()
        if ranks.leads:
            save_tensors(folder / RESUME_FILE, {**self.learner.state(), **tensors}, metadata)
            self._save_weights(folder)
        ranks.barrier()
        if not ranks.leads:
            for old in set(folder.glob(f"rank_{ranks.rank}_*.safetensors")) - {own}:
                old.unlink()

    def _save_weights(self, folder: Path) -> None:
        c = self.counters
        info = {
            "updates": c.updates,
            "env_steps": c.env_steps,
            "minutes": round(c.elapsed_s / 60, 2),
            "seed": self.config.seed,
            "began_with": self.began_with,
            "success_greedy": mean(c.greedy),
            "scenes": list(self.scenes),
            "randomisation": self.randomisation,
            "situation": to_mapping(SituationConfig(sight=self.config.collect.sight)),
            "versions": package_versions(),
            "revision": self.revision,
        }
        save_agent(folder / WEIGHTS_FILE, self.average.state_dict(), self.config.agent, self.spec, info)

    def restore(self, folder: Path) -> None:
        """Continues where `save` left off, and writes the averaged weights if it was killed before it had.

        Raises:
            CheckpointError: nothing to resume, damaged, or trained with another configuration.
        """
        path = folder / RESUME_FILE
        tensors, metadata = load_tensors(path)
        _check_same_config(metadata.get("config", {}), to_mapping(self.config), str(path))
        self.learner.restore(tensors, str(path))
        if not self.ranks.leads:
            updates = int(metadata["counters"]["updates"])
            tensors, metadata = load_tensors(_rank_file(folder, self.ranks.rank, updates))
        self.replay.restore({k: v.numpy() for k, v in tensors.items() if k.startswith("replay.")})
        self.counters = Counters.of(metadata["counters"])
        self.began_with = metadata.get("began_with", {})
        self.rng.bit_generator.state = metadata["numpy_rng"]
        set_random_state(tensors, self.learner.device)
        if self.ranks.leads and _updates_of(folder / WEIGHTS_FILE) != self.counters.updates:
            self._save_weights(folder)


def require_free(folder: Path, resume: bool) -> None:
    """Raises CheckpointError where a new run would begin in a folder that holds one."""
    if not resume and (folder / RESUME_FILE).exists():
        raise CheckpointError(f"{folder}: holds a run already; add --resume to continue it or choose another --out")


def own_replay(config: TrainConfig, spec: RobotSpec, folder: Path | None, ranks: Ranks = ALONE) -> Replay:
    """The replay of a run: in memory, or on disk in its folder."""
    capacity = max(config.length, config.replay_steps // config.streams)
    place = f"{REPLAY_FOLDER}_{ranks.rank}" if ranks.rank else REPLAY_FOLDER
    on_disk = folder / place if folder is not None and config.replay_on_disk else None
    return Replay(spec, config.streams, capacity, on_disk, config.replay, config.replay_slack)


def _updates_of(weights: Path) -> int:
    """Updates after which a file of weights was written; -1 where there is none."""
    return int(load_metadata(weights)["info"]["updates"]) if weights.exists() else -1


def _rank_file(folder: Path, rank: int, updates: int) -> Path:
    return folder / f"rank_{rank}_{updates}.safetensors"


# Files of a run that was killed while it wrote: our own, and those in which safetensors writes before it renames.
LEFT_BEHIND = (".resume-*", ".checkpoint-*", ".best-*", ".tmp??????")
# What may differ when a run is resumed: the budget, and how it is computed and watched.
FREE_KEYS = {"updates", "max_minutes", "threads", "checkpoint_every", "evaluation", "device", "precision", "compile"}


def _check_same_config(saved: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    saved = _filled(saved, to_mapping(TrainConfig()))
    for key in sorted(set(saved) | set(wanted) - FREE_KEYS):
        if key not in FREE_KEYS and saved.get(key) != wanted.get(key):
            raise CheckpointError(
                f"{where}: trained with another config ('{key}' differs); resume with the same preset and overrides"
            )


def _filled(saved: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of what it lacks: a run from before there was a key had its default."""
    both = {**default, **saved}
    for key, value in default.items():
        if isinstance(value, dict) and isinstance(both[key], dict):
            both[key] = _filled(both[key], value)
    return both


def worker_configs(
    config: TrainConfig,
    spec: RobotSpec,
    episodes: list[int],
    expert: ExpertFactory | None = None,
    rank: int = 0,
) -> list[WorkerConfig]:
    """One a worker, each with its share of the streams; numbered on from rank to rank, since numbers seed scenes."""
    n, c, workers = config.collect.envs, config, max(config.collect.workers, 1)
    return [
        WorkerConfig(
            *(rank * workers + i, c.seed, c.collect, c.agent, spec, tuple(episodes[i * n : (i + 1) * n])),
            *(c.curriculum, c.kickstart, expert),
        )
        for i in range(workers)
    ]


PoolFactory = Callable[[list[WorkerConfig], StreamsFactory], Pool]


def train(
    config: TrainConfig,
    spec: RobotSpec,
    factory: StreamsFactory,
    folder: Path,
    resume: bool = False,
    pool_factory: PoolFactory | None = None,
    expert: ExpertFactory | None = None,
    evaluation: StreamsFactory | None = None,
    begin_with: Checkpoint | None = None,
) -> Trainer:
    """Runs training to its budget and leaves config, checkpoints, ``progress.csv`` and TensorBoard events in `folder`.

    Args:
        config: of the run.
        spec: robot whose sensors the agent has.
        factory: makes the streams of experience.
        folder: of the run.
        resume: continues the run in `folder`.
        pool_factory: by default processes, or none for collect.workers = 0.
        expert: makes the expert of the kickstart.
        evaluation: makes the worlds of the development scenes; by default as `factory` does.
        begin_with: trained weights to begin with instead of new ones; a resumed run has them already.

    SIGINT or SIGTERM ends it with a checkpoint after the iteration at work, from which `resume` goes on.

    Raises:
        CheckpointError: `folder` holds a run already and `resume` is off, or one that does not fit, or another process
            trains in it.
        RobonavError: a collector failed, or the disk is full; the last checkpoint stands.
    """
    torch.set_num_threads(config.threads)
    if pool_factory is None:
        pool_factory = CollectorPool if config.collect.workers else InProcessPool
    with ExitStack() as stack:
        stack.enter_context(_full_disk(folder))
        ranks = stack.enter_context(joined_ranks(device_of(config.device).type == "cuda"))
        if ranks.leads:
            stack.enter_context(sole_trainer(folder))
        noted = stack.enter_context(interruption())
        require_free(folder, resume)
        ranks.barrier()
        trainer = Trainer(config, spec, folder, ranks)
        trainer.interruption = noted
        if resume:
            trainer.restore(folder)
        else:
            trainer.replay.clear()
            if begin_with is not None:
                trainer.begin_with(begin_with)
        if ranks.leads:
            for left in [path for pattern in LEFT_BEHIND for path in folder.glob(pattern)]:
                left.unlink()  # half-written by a run that was killed
            write_json_atomic(folder / "config.json", to_mapping(config))
        configs = worker_configs(config, spec, trainer.counters.episodes, expert, ranks.rank)
        pool = pool_factory(configs, factory)
        try:
            with (
                RunLog(folder, config, trainer.counters) if ranks.leads else nullcontext() as log,
                _evaluator(trainer, folder, evaluation or factory, resume) as evaluator,
            ):
                _loop(trainer, pool, folder, log, evaluator)
        finally:
            pool.close()
    return trainer


def _loop(trainer: Trainer, pool: Pool, folder: Path, log: RunLog | None, evaluator: Evaluator | None) -> None:
    config, counters = trainer.config, trainer.counters
    begin = time.monotonic() - counters.elapsed_s
    last = counters.updates >= config.updates
    while not last:
        learning = counters.env_steps >= config.collect.prefill and trainer.replay.can_sample(config.length)
        acting = counters.updates >= config.behavior_start
        weights = trainer.learner.weights() if acting else None
        pool.request(counters.iteration, config.collect.steps, weights, counters.curriculum.level)
        scalars = [trainer.safe_update(folder) for _ in range(config.updates_per_iteration)] if learning else []
        chunk, results, counters.episodes = pool.receive()
        trainer.replay.add(chunk)
        counters.iteration += 1
        counters.env_steps += chunk["first"].size
        counters.count(result for result in results if acting and not result.expert)
        if config.curriculum and acting:
            ended = [Result(r.level, r.outcome == "success", r.greedy) for r in results]
            counters.curriculum = after(config.curriculum, counters.curriculum, ended)
        counters.elapsed_s = time.monotonic() - begin
        out_of_time = 0 < config.max_minutes * 60 <= counters.elapsed_s
        last = trainer.ranks.agree(out_of_time or trainer.interruption.wanted) or counters.updates >= config.updates
        if log is not None:
            log.iteration(counters, scalars, last)
        if scalars and (last or counters.updates % config.checkpoint_every == 0):
            pool.restart()
            trainer.save(folder)
            if evaluator is not None:
                evaluator.checkpoint(counters.updates)
        if log is not None and evaluator is not None:
            log.scores(evaluator.scores())
    if log is not None and evaluator is not None and not trainer.interruption.wanted:
        log.scores(evaluator.last_scores(counters.updates))


@contextmanager
def _evaluator(trainer: Trainer, folder: Path, factory: StreamsFactory, resume: bool) -> Iterator[Evaluator | None]:
    """The process that measures checkpoints, where the config wants one; a new run forgets an older one's best."""
    config = trainer.config
    if trainer.ranks.leads and not resume:
        (folder / BEST_FILE).unlink(missing_ok=True)
    if not config.evaluation.every or not trainer.ranks.leads:
        yield None
        return
    scenes = [scene for scene, _ in config.curriculum.presets] or config.collect.scenes
    development = Development(config.evaluation, scenes, folder, factory)
    evaluator = Evaluator(development, config.evaluation.every, trainer.counters.updates)
    try:
        yield evaluator
    finally:
        evaluator.close()


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Tells a disk that is full in one line, wherever it was met."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise RobonavError(
            f"{folder}: cannot write ({error.strerror}); free some space, the last checkpoint goes on with --resume"
        ) from error
