"""What ``robonav bench train`` measures: an update split by part, collection, memory, and the sequential control.

Both models learn from the same replay in turns, so that a machine that slows down for a while slows both. The ratio is
that of a round's two times; seconds of the process (CPU) hardly depend on what else runs, those of the clock do.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median, stdev
from typing import Any

import numpy as np
import torch

from robonav.errors import RobonavError, explain
from robonav.learning.collector import InProcessPool
from robonav.learning.config import TrainConfig
from robonav.learning.learner import PARTS
from robonav.learning.streams import Arrays, StreamsFactory
from robonav.learning.trainer import Trainer, worker_configs
from robonav.types import RobotSpec

Figures = dict[str, Any]
Report = Callable[[str], None]
WARM_UP = 2  # updates that are not counted
STUDENT_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # two-sided 95 %, 1 to 9 degrees of freedom


class PartClock:
    """Seconds of the clock and of the process a part, summed over updates."""

    def __init__(self) -> None:
        self.wall = dict.fromkeys(PARTS, 0.0)
        self.cpu = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Counts what happens inside for a part."""
        wall, cpu = _now()
        yield
        wall_end, cpu_end = _now()
        self.wall[part] += wall_end - wall
        self.cpu[part] += cpu_end - cpu


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def measure_training(
    config: TrainConfig,
    spec: RobotSpec,
    factory: StreamsFactory,
    updates: int = 8,
    rounds: int = 5,
    replay_steps: int = 1_000_000,
    report: Report = lambda _: None,
) -> Figures:
    """Measures a preset's update, its collection and its memory on this machine.

    Args:
        config: of the run; its replay is put on disk, with `replay_steps` steps.
        spec: robot whose sensors the agent has.
        factory: makes the streams of experience.
        updates: of each model in each round.
        rounds: in which the models take turns.
        replay_steps: that replay holds; they are made of collected ones, again and again.
        report: is told what is going on.

    Returns:
        ``parallel`` and ``sequential`` with parameters, seconds and cpu_seconds an update (median over the rounds, and
        by part); ``ratio`` of sequential to parallel with its 95 % interval, by clock and by CPU, of the update and of
        the parts that differ; ``collect`` with steps/s of one worker; ``memory_mb`` with RSS, its anonymous part and
        that of files, of learner and worlds in one process; and how it was measured.

    Raises:
        RobonavError: the disk is full, or a scene or robot does not exist.
    """
    config = replace(config, replay_on_disk=True, replay_steps=replay_steps, behavior_start=0)
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="robonav-bench-") as folder:
        trainer = Trainer(config, spec, Path(folder))
        report("collection")
        chunks, collect = _collect(trainer, factory)
        report(f"replay of {replay_steps} steps on disk")
        _fill(trainer, chunks)
        del chunks
        trainers = {"parallel": trainer}
        times: dict[str, list[Figures]] = {"parallel": [], "sequential": []}
        report("parallel posterior")
        _round(trainer, WARM_UP + updates)
        memory = _memory()
        control = replace(config.agent, model=replace(config.agent.model, posterior="sequential"))
        trainers["sequential"] = Trainer(replace(config, agent=control, replay_on_disk=False, replay_steps=1), spec)
        trainers["sequential"].replay = trainer.replay
        _round(trainers["sequential"], WARM_UP)
        for turn in range(rounds):
            report(f"round {turn + 1} of {rounds}")
            for name in sorted(times, reverse=turn % 2 == 1):
                times[name].append(_round(trainers[name], updates))
    figures: Figures = {name: _summary(trainers[name], told) for name, told in times.items()}
    figures["ratio"] = {unit: _ratio(times, unit) for unit in ("seconds", "cpu_seconds")}
    figures |= {"collect": collect, "memory_mb": memory, "updates": updates, "rounds": rounds}
    batch = {"batch": config.batch, "length": config.length, "threads": config.threads}
    how = {"device": config.device, "precision": config.precision, "compile": config.compile}
    return figures | {"replay_steps": replay_steps, **batch, **how, "torch": torch.__version__}


def _collect(trainer: Trainer, factory: StreamsFactory) -> tuple[Arrays, Figures]:
    """A sequence of every stream, and what that took once worlds and code were there."""
    config = trainer.config
    pool = InProcessPool(worker_configs(config, trainer.spec, trainer.counters.episodes)[:1], factory)
    try:
        pool.request(0, config.collect.steps, trainer.learner.weights())
        pool.receive()
        turns = math.ceil(config.length / config.collect.steps)
        wall, cpu = _now()
        chunks = []
        for turn in range(turns):
            pool.request(1 + turn, config.collect.steps, trainer.learner.weights())
            chunks.append(pool.receive()[0])
        wall_end, cpu_end = _now()
    finally:
        pool.close()
    chunk = {name: np.concatenate([c[name] for c in chunks], axis=1) for name in chunks[0]}
    steps = int(chunk["first"].size)
    rates = {"steps_per_s": steps / (wall_end - wall), "steps_per_cpu_s": steps / max(cpu_end - cpu, 1e-9)}
    return chunk, {"steps": steps, "worlds": config.collect.envs, **rates}


def _fill(trainer: Trainer, chunk: Arrays) -> None:
    """Adds the chunk until replay is full; it holds the streams of one worker, which stand for the others' as well."""
    replay, copies = trainer.replay, trainer.config.streams // chunk["first"].shape[0]
    chunk = {name: np.concatenate([values] * copies) for name, values in chunk.items()}
    while replay.written < replay.capacity:
        replay.add(chunk)
    replay.commit()


def _round(trainer: Trainer, updates: int) -> Figures:
    """Seconds an update of some updates, by clock and by CPU, in all and by part."""
    clock = PartClock()
    trainer.learner.clock = clock
    wall, cpu = _now()
    for _ in range(updates):
        trainer.update()
    wall_end, cpu_end = _now()
    return {
        "seconds": (wall_end - wall) / updates,
        "cpu_seconds": (cpu_end - cpu) / updates,
        "parts": {part: clock.wall[part] / updates for part in PARTS},
        "cpu_parts": {part: clock.cpu[part] / updates for part in PARTS},
    }


def _summary(trainer: Trainer, rounds: list[Figures]) -> Figures:
    """Medians over the rounds."""
    model = trainer.agent.model
    figures: Figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": median(r["seconds"] for r in rounds),
        "cpu_seconds": median(r["cpu_seconds"] for r in rounds),
    }
    for parts in ("parts", "cpu_parts"):
        figures[parts] = {part: median(r[parts][part] for r in rounds) for part in PARTS}
    return figures


def _ratio(times: dict[str, list[Figures]], unit: str) -> Figures:
    """Geometric mean of the rounds' ratios with its 95 % interval, of the update and of the parts that differ."""
    parts = "parts" if unit == "seconds" else "cpu_parts"
    pairs = list(zip(times["sequential"], times["parallel"], strict=True))
    return {
        "update": mean_ratio([a[unit] / b[unit] for a, b in pairs]),
        "encode and scan": mean_ratio([a[parts]["encode and scan"] / b[parts]["encode and scan"] for a, b in pairs]),
        "backward": mean_ratio([a[parts]["backward"] / b[parts]["backward"] for a, b in pairs]),
        "dream": mean_ratio([a[parts]["dream"] / b[parts]["dream"] for a, b in pairs]),
    }


def mean_ratio(ratios: list[float]) -> Figures:
    """Geometric mean and its 95 % interval by Student's t; a single ratio has none.

    >>> mean_ratio([2.0, 2.0, 2.0])
    {'mean': 2.0, 'low': 2.0, 'high': 2.0}
    """
    logs = [math.log(r) for r in ratios]
    middle = sum(logs) / len(logs)
    if len(logs) < 2:
        return {"mean": math.exp(middle), "low": None, "high": None}
    t = STUDENT_T[len(logs) - 2] if len(logs) - 2 < len(STUDENT_T) else 1.96 + 2.4 / (len(logs) - 1)
    half = t * stdev(logs) / math.sqrt(len(logs))
    rounded = {"mean": middle, "low": middle - half, "high": middle + half}
    return {name: round(math.exp(value), 6) for name, value in rounded.items()}


def _memory() -> Figures:
    """Memory of this process in MB: all of it, what only it has, and the pages of files, which the system may drop."""
    names = {"VmRSS": "rss", "RssAnon": "anonymous", "RssFile": "files", "VmHWM": "peak_rss"}
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        raise RobonavError(explain("bench train: memory", "/proc/self/status, as on Linux", "none")) from None
    rows = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: round(int(rows[key].split()[0]) / 1024, 1) for key, name in names.items()}
