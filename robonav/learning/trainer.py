"""The training loop: collect, learn, dream, act (Dyna), as explicit state and one function an update."""

from __future__ import annotations

import copy
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robonav.config import package_versions, source_revision, to_mapping
from robonav.errors import CheckpointError, RobonavError
from robonav.files import write_json_atomic
from robonav.imagination.agent import Agent
from robonav.imagination.imitation import imitation_loss
from robonav.imagination.starts import dream_starts
from robonav.learning.augment import lose_sensors
from robonav.learning.checkpoint import (
    RESUME_FILE,
    WEIGHTS_FILE,
    load_optimizer,
    load_tensors,
    load_weights,
    optimizer_tensors,
    save_agent,
    save_tensors,
)
from robonav.learning.collector import CollectorPool, EpisodeResult, WorkerConfig
from robonav.learning.config import TrainConfig
from robonav.learning.curriculum import CurriculumState, Result, after
from robonav.learning.experts import ExpertFactory
from robonav.learning.replay import Replay
from robonav.learning.replay_events import COLLISION, NEAR_MISS
from robonav.learning.runlog import RunLog, mean
from robonav.learning.streams import Arrays, StreamsFactory
from robonav.planning.situation import SituationConfig
from robonav.ssm.state import map_state
from robonav.types import RobotSpec
from robonav.world_model.encoders import with_patches
from robonav.world_model.model import Sequence, WorldModel

WINDOW = 100  # episodes over which success is averaged
ROLLBACKS_MAX = 5
REPLAY_FOLDER = "replay"


class Pool(Protocol):
    """What the trainer needs of a collector pool."""

    def request(self, iteration: int, steps: int, weights: Any, level: int = 0) -> None: ...  # noqa: D102
    def receive(self) -> tuple[Arrays, list[EpisodeResult], list[int]]: ...  # noqa: D102
    def restart(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass
class Counters:
    """Progress that belongs to the checkpoint."""

    iteration: int = 0
    updates: int = 0
    env_steps: int = 0
    elapsed_s: float = 0.0
    episodes: list[int] = field(default_factory=list)  # started so far, a stream
    sampled: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))  # success of exploring episodes
    greedy: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))  # success of the actor's mean
    by_scene: dict[str, deque[float]] = field(default_factory=dict)  # success of the agent's episodes, a preset
    rollbacks: int = 0
    curriculum: CurriculumState = field(default_factory=CurriculumState)

    def count(self, results: Iterable[EpisodeResult]) -> None:
        """Takes in episodes that the agent played."""
        for result in results:
            won = float(result.outcome == "success")
            (self.greedy if result.greedy else self.sampled).append(won)
            self.by_scene.setdefault(result.scene, deque(maxlen=WINDOW)).append(won)

    def mapping(self) -> dict[str, Any]:
        """JSON-able."""
        windows = {"sampled": list(self.sampled), "greedy": list(self.greedy)}
        by_scene = {scene: list(window) for scene, window in self.by_scene.items()}
        return {**vars(self), **windows, "by_scene": by_scene, "curriculum": self.curriculum.mapping()}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Counters:
        """Inverse of `mapping`."""
        windows = {k: deque(data[k], maxlen=WINDOW) for k in ("sampled", "greedy")}
        by_scene = {scene: deque(values, maxlen=WINDOW) for scene, values in data.get("by_scene", {}).items()}
        curriculum = CurriculumState.of(data.get("curriculum", {}))
        return cls(**{**data, **windows, "by_scene": by_scene, "curriculum": curriculum})


class NotFiniteError(RobonavError):
    """A loss or a gradient is NaN or infinite; nothing was changed by that step."""


class Trainer:
    """Holds weights, optimisers, replay and random state of a run; `update` makes one update."""

    def __init__(self, config: TrainConfig, spec: RobotSpec, folder: Path | None = None) -> None:
        """Everything anew; a replay on disk lies in `folder`."""
        self.config, self.spec = config, spec
        self.revision = source_revision()
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.agent = Agent(config.agent, spec)
        self.average = copy.deepcopy(self.agent).requires_grad_(False)
        self.model_optimizer = self._adamw(_groups(self.agent.model), config.optimizer.model_lr)
        behaviour = [{"params": list(self.agent.behavior.trained_parameters())}]
        self.behavior_optimizer = self._adamw(behaviour, config.optimizer.behavior_lr)
        capacity = max(config.length, config.replay_steps // config.streams)
        on_disk = folder / REPLAY_FOLDER if folder is not None and config.replay_on_disk else None
        self.replay = Replay(spec, config.streams, capacity, on_disk, config.replay, config.replay_slack)
        self.counters = Counters(episodes=[0] * config.streams)

    def _adamw(self, groups: list[dict[str, Any]], rate: float) -> torch.optim.AdamW:
        decay = self.config.optimizer.weight_decay
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, betas=(0.9, 0.99), fused=True)

    # -- one update ----------------------------------------------------------------------------------------------

    def safe_update(self, folder: Path) -> dict[str, float]:
        """`update`; where a loss is not finite, the batch is kept and the weights go back to the last checkpoint.

        Raises:
            NotFiniteError: there is no checkpoint yet, or it happened too often.
        """
        self.last_batch: Arrays = {}
        try:
            return self.update()
        except NotFiniteError as error:
            self.counters.rollbacks += 1
            if self.counters.rollbacks > ROLLBACKS_MAX or not (folder / RESUME_FILE).exists():
                raise NotFiniteError(f"{error}; lower the learning rates") from None
            kept = folder / f"not_finite_{self.counters.updates}.safetensors"
            save_tensors(kept, {k: torch.from_numpy(v) for k, v in self.last_batch.items()}, {"error": str(error)})
            self._load_learnt(folder / RESUME_FILE)
            warnings.warn(f"{error}; back to the last checkpoint's weights, the batch is in {kept}", stacklevel=2)
            return self.safe_update(folder)

    def update(self) -> dict[str, float]:
        """World model on a replayed batch, then actor and critic on dreams that start in it. Returns scalars."""
        c = self.config
        arrays = self.replay.sample(self.rng, c.batch, c.length, with_events=True)
        events = arrays.pop("event")
        if c.sensor_loss.share:
            lose_sensors(arrays, self.rng, c.sensor_loss)
        self.last_batch = arrays
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        batch = with_patches(batch, torch.float32)
        reward, terminal, first = batch["reward"], batch["terminal"], batch["first"]
        b, went_wrong = c.agent.behavior, events & (NEAR_MISS | COLLISION)
        endings = (arrays["reward"], arrays["terminal"], arrays["first"])
        dream_at = torch.from_numpy(dream_starts(self.rng, *endings, went_wrong, b.dreams, b.rare_share))

        model = self.agent.model
        sequence = model.observe(batch, batch["action"], first, dream_at)
        losses = model.loss(batch, sequence, reward, terminal, first)
        model_loss = sum(losses.values(), torch.zeros(()))
        self._apply(self.model_optimizer, model_loss, "world model")

        behaved = {}
        if self.counters.updates >= c.behavior_start:
            behaved = self._update_behavior(sequence, dream_at, batch)
        self._follow_average()
        self.counters.updates += 1
        scalars = {**losses, "model": model_loss, **behaved}
        return {name: float(value.detach()) for name, value in scalars.items()}

    def _update_behavior(self, sequence: Sequence, dream_at: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Actor and critic on dreams that start at `dream_at` (B, K), and both on the replayed sequences."""
        model, behavior = self.agent.model, self.agent.behavior
        rows = torch.arange(dream_at.shape[0])[:, None]
        latent = sequence.latent.detach()[rows, dream_at].flatten(0, 1)
        state = sequence.dream_states
        detached = map_state(Tensor.detach, state)
        dreamt = behavior.dream(model, detached, latent)
        losses = behavior.losses(model, dreamt)
        features = sequence.features.detach()
        losses["replay_value"] = behavior.replay_value_loss(
            features, batch["reward"], batch["terminal"], batch["first"]
        )
        total = losses["actor"] + losses["critic"] + losses["replay_value"]
        if self.config.kickstart.streams:
            weight = self.config.kickstart.weight_at(self.counters.updates - self.config.behavior_start)
            losses["expert"] = imitation_loss(behavior.actor, features, batch["label"], batch["labelled"])
            total = total + weight * losses["expert"]
        self._apply(self.behavior_optimizer, total, "behaviour")
        behavior.update_slow_critic()
        return losses

    def _apply(self, optimizer: torch.optim.Optimizer, loss: Tensor, what: str) -> None:
        """One step of an optimiser, with warm-up and a clipped gradient."""
        if not torch.isfinite(loss):
            raise NotFiniteError(f"{what}: the loss is {float(loss.detach())} at update {self.counters.updates}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        o = self.config.optimizer
        is_model = optimizer is self.model_optimizer
        rate, begin = (o.model_lr, 0) if is_model else (o.behavior_lr, self.config.behavior_start)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.counters.updates - begin + 1) / max(o.warmup, 1))
            norm = torch.nn.utils.clip_grad_norm_(group["params"], o.clip)
            if not torch.isfinite(norm):
                raise NotFiniteError(f"{what}: the gradient's norm is {float(norm)} at update {self.counters.updates}")
        optimizer.step()

    @torch.no_grad()
    def _follow_average(self) -> None:
        """Running average of the weights; follows quickly at first."""
        decay = min(self.config.optimizer.average, 1 - 1 / (self.counters.updates + 1))
        ours, live = self.average.state_dict(), self.agent.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(live[name], 1 - decay)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Writes the averaged weights and the training state, each whole or not at all."""
        c = self.counters
        self.replay.commit()
        info = {
            "updates": c.updates,
            "env_steps": c.env_steps,
            "minutes": round(c.elapsed_s / 60, 2),
            "seed": self.config.seed,
            "success_greedy": mean(c.greedy),
            "scenes": list(self.config.collect.scenes),
            "situation": to_mapping(SituationConfig()),
            "versions": package_versions(),
            "revision": self.revision,
        }
        tensors: dict[str, Tensor] = {f"agent.{k}": v for k, v in self.agent.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= optimizer_tensors(self.model_optimizer, "model_optimizer")
        tensors |= optimizer_tensors(self.behavior_optimizer, "behavior_optimizer")
        tensors |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in self.replay.state().items()}
        tensors["rng"] = torch.get_rng_state()
        metadata = {
            "config": to_mapping(self.config),
            "counters": c.mapping(),
            "numpy_rng": self.rng.bit_generator.state,
        }
        save_tensors(folder / RESUME_FILE, tensors, metadata)
        save_agent(folder / WEIGHTS_FILE, self.average.state_dict(), self.config.agent, self.spec, info)

    def restore(self, folder: Path) -> None:
        """Continues where `save` left off.

        Raises:
            CheckpointError: nothing to resume, damaged, or trained with another configuration.
        """
        path = folder / RESUME_FILE
        tensors, metadata = load_tensors(path)
        _check_same_config(metadata.get("config", {}), to_mapping(self.config), str(path))
        self._load_learnt(path, tensors)
        self.replay.restore({k: v.numpy() for k, v in tensors.items() if k.startswith("replay.")})
        self.counters = Counters.of(metadata["counters"])
        self.rng.bit_generator.state = metadata["numpy_rng"]
        torch.set_rng_state(tensors["rng"])

    def _load_learnt(self, path: Path, tensors: dict[str, Tensor] | None = None) -> None:
        """Weights and optimisers of a checkpoint."""
        tensors = load_tensors(path)[0] if tensors is None else tensors
        for module, prefix in ((self.agent, "agent."), (self.average, "average.")):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, own, str(path))
        load_optimizer(self.model_optimizer, tensors, "model_optimizer")
        load_optimizer(self.behavior_optimizer, tensors, "behavior_optimizer")


def _groups(model: WorldModel) -> list[dict[str, Any]]:
    """Parameters whose gradients are clipped together: the further prior heads must not scale the others' step."""
    heads = [] if model.prior_heads is None else list(model.prior_heads.parameters())
    apart = {id(p) for p in heads}
    rest = [p for p in model.parameters() if id(p) not in apart]
    return [{"params": group} for group in (rest, heads) if group]


BUDGET_KEYS = {"updates", "max_minutes", "threads", "checkpoint_every"}  # may differ when a run is resumed


def _check_same_config(saved: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    saved = {**to_mapping(TrainConfig()), **saved}  # a run from before there was a key had its default
    for key in sorted(set(saved) | set(wanted) - BUDGET_KEYS):
        if key not in BUDGET_KEYS and saved.get(key) != wanted.get(key):
            raise CheckpointError(
                f"{where}: trained with another config ('{key}' differs); resume with the same preset and overrides"
            )


def worker_configs(
    config: TrainConfig, spec: RobotSpec, episodes: list[int], expert: ExpertFactory | None = None
) -> list[WorkerConfig]:
    """One a worker, each with its share of the streams."""
    n, c = config.collect.envs, config
    return [
        WorkerConfig(
            i, c.seed, c.collect, c.agent, spec, tuple(episodes[i * n : (i + 1) * n]), c.curriculum, c.kickstart, expert
        )
        for i in range(config.collect.workers)
    ]


PoolFactory = Callable[[list[WorkerConfig], StreamsFactory], Pool]


def train(
    config: TrainConfig,
    spec: RobotSpec,
    factory: StreamsFactory,
    folder: Path,
    resume: bool = False,
    pool_factory: PoolFactory = CollectorPool,
    expert: ExpertFactory | None = None,
) -> Trainer:
    """Runs training to its budget and leaves config, checkpoints, ``progress.csv`` and TensorBoard events in `folder`.

    Raises:
        CheckpointError: `folder` holds a run already and `resume` is off, or one that does not fit.
    """
    torch.set_num_threads(config.threads)
    if not resume and (folder / RESUME_FILE).exists():
        raise CheckpointError(f"{folder}: holds a run already; add --resume to continue it or choose another --out")
    trainer = Trainer(config, spec, folder)
    if resume:
        trainer.restore(folder)
    else:
        trainer.replay.clear()
    write_json_atomic(folder / "config.json", to_mapping(config))
    pool = pool_factory(worker_configs(config, spec, trainer.counters.episodes, expert), factory)
    try:
        with RunLog(folder, config, trainer.counters) as log:
            _loop(trainer, pool, folder, log)
    finally:
        pool.close()
    return trainer


def _loop(trainer: Trainer, pool: Pool, folder: Path, log: RunLog) -> None:
    config, counters = trainer.config, trainer.counters
    begin = time.monotonic() - counters.elapsed_s
    while counters.updates < config.updates:
        learning = counters.env_steps >= config.collect.prefill and trainer.replay.can_sample(config.length)
        acting = counters.updates >= config.behavior_start
        weights = {k: v.detach().clone() for k, v in trainer.agent.state_dict().items()} if acting else None
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
        last = out_of_time or counters.updates >= config.updates
        log.iteration(counters, scalars, last)
        if scalars and (last or counters.updates % config.checkpoint_every == 0):
            pool.restart()
            trainer.save(folder)
        if out_of_time:
            break
