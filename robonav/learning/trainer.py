"""The training loop: collect, learn, dream, act (Dyna), as explicit state and one function an update."""

from __future__ import annotations

import copy
import csv
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from robonav.config import package_versions, source_revision, to_mapping
from robonav.errors import CheckpointError, RobonavError
from robonav.files import write_json_atomic, write_text_atomic
from robonav.imagination.agent import Agent
from robonav.imagination.behavior import dream
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
from robonav.learning.collector import CollectorPool, EnvFactory, EpisodeResult, WorkerConfig
from robonav.learning.config import TrainConfig
from robonav.learning.curriculum import CurriculumState, Result, after
from robonav.learning.replay import Arrays, Replay
from robonav.planning.situation import SituationConfig
from robonav.ssm.state import map_state
from robonav.types import RobotSpec
from robonav.world_model.encoders import with_patches
from robonav.world_model.model import Sequence

WINDOW = 100  # episodes over which success is averaged


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
    curriculum: CurriculumState = field(default_factory=CurriculumState)

    def mapping(self) -> dict[str, Any]:
        """JSON-able."""
        windows = {"sampled": list(self.sampled), "greedy": list(self.greedy)}
        return {**vars(self), **windows, "curriculum": self.curriculum.mapping()}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Counters:
        """Inverse of `mapping`."""
        windows = {k: deque(data[k], maxlen=WINDOW) for k in ("sampled", "greedy")}
        return cls(**{**data, **windows, "curriculum": CurriculumState.of(data.get("curriculum", {}))})


class Trainer:
    """Holds weights, optimisers, replay and random state of a run; `update` makes one update."""

    def __init__(self, config: TrainConfig, spec: RobotSpec) -> None:
        self.config, self.spec = config, spec
        self.revision = source_revision()
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.agent = Agent(config.agent, spec)
        self.average = copy.deepcopy(self.agent).requires_grad_(False)
        self.model_optimizer = self._adamw(self.agent.model.parameters(), config.optimizer.model_lr)
        self.behavior_optimizer = self._adamw(self.agent.behavior.trained_parameters(), config.optimizer.behavior_lr)
        self.replay = Replay(spec, config.streams, max(config.length, config.replay_steps // config.streams))
        self.counters = Counters(episodes=[0] * config.streams)

    def _adamw(self, parameters: Iterator[torch.nn.Parameter], rate: float) -> torch.optim.AdamW:
        decay = self.config.optimizer.weight_decay
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, betas=(0.9, 0.99), fused=True)

    # -- one update ----------------------------------------------------------------------------------------------

    def update(self) -> dict[str, float]:
        """World model on a replayed batch, then actor and critic on dreams that start in it. Returns scalars."""
        c = self.config
        arrays = self.replay.sample(self.rng, c.batch, c.length)
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        batch = with_patches(batch, torch.float32)
        reward, terminal, first = batch["reward"], batch["terminal"], batch["first"]
        dream_at = torch.from_numpy(self.rng.integers(c.length, size=(c.batch, c.agent.behavior.dreams)))

        model = self.agent.model
        sequence = model.observe(batch, batch["action"], first, dream_at)
        losses = model.loss(batch, sequence, reward, terminal, first)
        model_loss = sum(losses.values(), torch.zeros(()))
        self._apply(self.model_optimizer, model_loss, "world model")

        behaved = {}
        if self.counters.updates >= c.behavior_start:
            behaved = self._update_behavior(sequence, dream_at, reward, terminal, first)
        self._follow_average()
        self.counters.updates += 1
        scalars = {**losses, "model": model_loss, **behaved}
        return {name: float(value.detach()) for name, value in scalars.items()}

    def _update_behavior(
        self, sequence: Sequence, dream_at: Tensor, reward: Tensor, terminal: Tensor, first: Tensor
    ) -> dict[str, Tensor]:
        """Actor and critic on dreams that start at `dream_at` (B, K), and the critic on the replayed sequences."""
        model, behavior = self.agent.model, self.agent.behavior
        rows = torch.arange(dream_at.shape[0])[:, None]
        latent = sequence.latent.detach()[rows, dream_at].flatten(0, 1)
        state = sequence.dream_states
        detached = map_state(Tensor.detach, state)
        dreamt = dream(model, behavior.actor, detached, latent, self.config.agent.behavior.horizon)
        losses = behavior.losses(model, dreamt)
        losses["replay_value"] = behavior.replay_value_loss(sequence.features.detach(), reward, terminal, first)
        total = losses["actor"] + losses["critic"] + losses["replay_value"]
        self._apply(self.behavior_optimizer, total, "behaviour")
        behavior.update_slow_critic()
        return losses

    def _apply(self, optimizer: torch.optim.Optimizer, loss: Tensor, what: str) -> None:
        """One step of an optimiser, with warm-up and a clipped gradient."""
        if not torch.isfinite(loss):
            raise RobonavError(
                f"{what}: the loss is {float(loss.detach())} at update {self.counters.updates}; lower the rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        o = self.config.optimizer
        is_model = optimizer is self.model_optimizer
        rate, begin = (o.model_lr, 0) if is_model else (o.behavior_lr, self.config.behavior_start)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.counters.updates - begin + 1) / max(o.warmup, 1))
            torch.nn.utils.clip_grad_norm_(group["params"], o.clip)
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
        info = {
            "updates": c.updates,
            "env_steps": c.env_steps,
            "minutes": round(c.elapsed_s / 60, 2),
            "seed": self.config.seed,
            "success_greedy": _mean(c.greedy),
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
        for module, prefix in ((self.agent, "agent."), (self.average, "average.")):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, own, str(path))
        load_optimizer(self.model_optimizer, tensors, "model_optimizer")
        load_optimizer(self.behavior_optimizer, tensors, "behavior_optimizer")
        self.replay.restore({k: v.numpy() for k, v in tensors.items() if k.startswith("replay.")})
        self.counters = Counters.of(metadata["counters"])
        self.rng.bit_generator.state = metadata["numpy_rng"]
        torch.set_rng_state(tensors["rng"])


BUDGET_KEYS = {"updates", "max_minutes", "threads", "checkpoint_every"}  # may differ when a run is resumed


def _check_same_config(saved: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    saved = {**to_mapping(TrainConfig()), **saved}  # a run from before there was a key had its default
    for key in sorted(set(saved) | set(wanted) - BUDGET_KEYS):
        if key not in BUDGET_KEYS and saved.get(key) != wanted.get(key):
            raise CheckpointError(
                f"{where}: trained with another config ('{key}' differs); resume with the same preset and overrides"
            )


def _mean(values: deque[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0


def worker_configs(config: TrainConfig, spec: RobotSpec, episodes: list[int]) -> list[WorkerConfig]:
    """One a worker, each with its share of the streams."""
    n, c = config.collect.envs, config
    return [
        WorkerConfig(i, c.seed, c.collect, c.agent, spec, tuple(episodes[i * n : (i + 1) * n]), c.curriculum)
        for i in range(config.collect.workers)
    ]


PoolFactory = Callable[[list[WorkerConfig], EnvFactory], Pool]


def train(
    config: TrainConfig,
    spec: RobotSpec,
    env_factory: EnvFactory,
    folder: Path,
    resume: bool = False,
    pool_factory: PoolFactory = CollectorPool,
) -> Trainer:
    """Runs training to its budget and leaves config, checkpoints, ``progress.csv`` and TensorBoard events in `folder`.

    Raises:
        CheckpointError: `folder` holds a run already and `resume` is off, or one that does not fit.
    """
    torch.set_num_threads(config.threads)
    trainer = Trainer(config, spec)
    if resume:
        trainer.restore(folder)
    elif (folder / RESUME_FILE).exists():
        raise CheckpointError(f"{folder}: holds a run already; add --resume to continue it or choose another --out")
    write_json_atomic(folder / "config.json", to_mapping(config))
    pool = pool_factory(worker_configs(config, spec, trainer.counters.episodes), env_factory)
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
        scalars = [trainer.update() for _ in range(config.updates_per_iteration)] if learning else []
        chunk, results, counters.episodes = pool.receive()
        trainer.replay.add(chunk)
        counters.iteration += 1
        counters.env_steps += chunk["first"].size
        for result in results if acting else []:
            (counters.greedy if result.greedy else counters.sampled).append(float(result.outcome == "success"))
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


ROW_EVERY = 30  # updates between rows of progress.csv
COLUMNS = (
    *("model", "scan", "map", "goal", "body", "dynamics", "representation", "reward", "continue"),
    *("actor", "critic", "replay_value", "entropy", "return"),
)


class RunLog:
    """Progress bar, ``progress.csv`` and TensorBoard."""

    def __init__(self, folder: Path, config: TrainConfig, counters: Counters) -> None:
        self.folder, self.config, self.start = folder, config, replace(counters)
        self.path = folder / "progress.csv"

    def __enter__(self) -> RunLog:
        self.writer = SummaryWriter(str(self.folder / "tensorboard"))
        self.bar = tqdm(total=self.config.updates, initial=self.start.updates, unit="upd", smoothing=0.05)
        self.rows: deque[dict[str, float]] = deque(maxlen=20)
        self.begin, self.begin_steps = time.monotonic(), self.start.env_steps
        self._keep_rows_until(self.start.updates)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        self.writer.close()

    def iteration(self, counters: Counters, scalars: list[dict[str, float]], last: bool) -> None:
        """Shows and writes one iteration; the `last` of a run always gets its row."""
        rate = (counters.env_steps - self.begin_steps) / max(time.monotonic() - self.begin, 1e-6)
        shown = {"greedy": _mean(counters.greedy), "sampled": _mean(counters.sampled), "steps/s": int(rate)}
        if self.config.curriculum:
            shown["level"] = counters.curriculum.level
            self.writer.add_scalar("run/level", counters.curriculum.level, counters.env_steps)
        if scalars:
            row = {k: sum(s[k] for s in scalars) / len(scalars) for k in scalars[0]}
            self.rows.append(row)
            shown |= {name: round(row[name], 3) for name in ("model", "return") if name in row}
            for name, value in row.items():
                self.writer.add_scalar(f"loss/{name}", value, counters.updates)
        for name in ("greedy", "sampled", "steps/s"):
            self.writer.add_scalar(f"run/{name}", shown[name], counters.env_steps)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(counters.updates - self.bar.n)
        due = counters.updates // ROW_EVERY > (counters.updates - len(scalars)) // ROW_EVERY
        if scalars and (due or last):
            self._write_row(counters, shown)

    def _keep_rows_until(self, updates: int) -> None:
        """Drops rows after the checkpoint that this run starts from, which a killed run left."""
        if not self.path.exists():
            return
        with self.path.open(newline="") as stream:
            head, *rows = list(csv.reader(stream))
        kept = [row for row in rows if row and float(row[0]) <= updates]
        write_text_atomic(self.path, "".join(",".join(row) + "\r\n" for row in ([head, *kept] if updates else [])))

    def _write_row(self, counters: Counters, shown: dict[str, Any]) -> None:
        means = {k: sum(r.get(k, 0.0) for r in self.rows) / len(self.rows) for k in COLUMNS}
        row = {
            "updates": counters.updates,
            "env_steps": counters.env_steps,
            "minutes": round(counters.elapsed_s / 60, 3),
            "success_greedy": shown["greedy"],
            "success_sampled": shown["sampled"],
            **{k: float(f"{v:.5g}") for k, v in means.items() if math.isfinite(v)},
            **({"level": shown["level"]} if "level" in shown else {}),
        }
        new = not self.path.exists() or self.path.stat().st_size == 0
        with self.path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
