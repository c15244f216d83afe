"""Evaluation on fixed development scenes while a run goes on, in a process that the loop never waits for.

Checkpoints of one run differ a lot in success (0.81 and 0.68 an hour apart were seen), so the weights to keep are
chosen by a measurement. The process loads the newest checkpoint when it is asked, drives all development episodes at
once with the actor's mean, and keeps the best averaged weights so far as ``best.safetensors``.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from robonav.errors import RobonavError
from robonav.imagination.agent import Agent
from robonav.learning.checkpoint import (
    BEST_FILE,
    WEIGHTS_FILE,
    load_metadata,
    load_tensors,
    rebuild_agent,
    save_tensors,
)
from robonav.learning.config import EvaluationConfig
from robonav.learning.streams import Coming, Streams, StreamsFactory
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

NICENESS = 10  # the learner and its collectors come first


@dataclass(frozen=True, slots=True)
class Score:
    """Success on the development scenes."""

    updates: int
    success: float
    episodes: int
    by_scene: dict[str, tuple[float, int]]  # success and episodes, a preset
    best: bool  # whether no weights before it were better


@torch.no_grad()
def play(agent: Agent, spec: RobotSpec, streams: Streams, comings: Sequence[Coming]) -> list[str]:
    """Outcomes of one episode a world, all driven at once by the actor's mean and the most likely latents."""
    n = len(comings)
    for world, coming in enumerate(comings):
        streams.begin(world, coming)
    streams.restart()
    outcomes: list[str | None] = [None] * n
    state, first = agent.initial_state(n), torch.ones(n)
    action = np.zeros((n, ACTION_SIZE), np.float32)
    while None in outcomes:
        seen = streams.observations()
        inputs = {name: torch.from_numpy(np.array(seen[name])) for name in policy_input_shapes(spec)}
        step = agent.step(state, inputs, torch.from_numpy(action), first)
        state, action = step.state, step.action.numpy()
        moved = streams.step(action)
        first = torch.from_numpy(moved.first.astype(np.float32))
        for world in np.flatnonzero(moved.terminated | moved.truncated).tolist():
            if outcomes[world] is None:
                outcomes[world] = str(moved.outcomes[world])
            streams.begin(world, comings[world])  # its further episodes are not looked at
    return [str(outcome) for outcome in outcomes]


class Development:
    """Measures the newest checkpoint of a run's folder, and keeps the best one."""

    def __init__(self, config: EvaluationConfig, scenes: Sequence[str], folder: Path, factory: StreamsFactory) -> None:
        self.folder, self.scenes = folder, tuple(dict.fromkeys(scenes))
        self.comings = [Coming(seed, self.scenes[i % len(self.scenes)]) for i, seed in enumerate(config.seeds)]
        self.factory = factory
        self._streams: Streams | None = None

    def measure(self) -> Score:
        """Evaluates ``checkpoint.safetensors``; writes ``best.safetensors`` if nothing before it was better.

        Raises:
            RobonavError: no checkpoint, or the disk is full.
        """
        file = self.folder / WEIGHTS_FILE
        tensors, metadata = load_tensors(file)
        loaded = rebuild_agent(tensors, metadata, file)
        if self._streams is None:
            self._streams = self.factory(0, len(self.comings))
        outcomes = play(loaded.agent, loaded.spec, self._streams, self.comings)
        won: dict[str, list[bool]] = {scene: [] for scene in self.scenes}
        for coming, outcome in zip(self.comings, outcomes, strict=True):
            won[coming.scene].append(outcome == "success")
        by_scene = {scene: (sum(w) / len(w), len(w)) for scene, w in won.items() if w}
        success = sum(map(sum, won.values())) / len(outcomes)
        best = success >= self._best()
        if best:
            development = {"success": success, "episodes": len(outcomes), "by_scene": by_scene}
            info = {**metadata.get("info", {}), "development": development}
            save_tensors(self.folder / BEST_FILE, tensors, {**metadata, "info": info})
        return Score(int(loaded.info.get("updates", 0)), success, len(outcomes), by_scene, best)

    def _best(self) -> float:
        """Success of the weights kept so far on as many episodes."""
        path = self.folder / BEST_FILE
        if not path.exists():
            return 0.0
        kept: dict[str, Any] = load_metadata(path).get("info", {}).get("development", {})
        return float(kept.get("success", 0.0)) if kept.get("episodes") == len(self.comings) else 0.0

    def close(self) -> None:
        """Closes the worlds."""
        if self._streams is not None:
            self._streams.close()


def _work(connection: Connection, development: Development) -> None:
    """The process's life: measures when asked, until it is told to stop or the run is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the run decides when it ends
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(NICENESS)
    try:
        while connection.recv() is not None:
            try:
                connection.send(development.measure())
            except RobonavError as error:
                connection.send(error)
    except (EOFError, BrokenPipeError):
        pass  # the run is gone
    finally:
        development.close()


class Evaluator:
    """The process. Whatever happens to it, the run goes on: it is warned about once and not asked again."""

    def __init__(self, development: Development, every: int, updates: int) -> None:
        context = mp.get_context("spawn")
        self.every, self.asked_at = every, updates
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, development), daemon=True)
        self._process.start()
        theirs.close()
        self._busy, self._lost = False, False

    def checkpoint(self, updates: int, last: bool = False) -> None:
        """A checkpoint was written: it is measured if one is due or it is the last, and none is being measured."""
        due = updates > self.asked_at if last else updates // self.every > self.asked_at // self.every
        if due and not self._busy and not self._lost:
            self.asked_at = updates
            try:
                self._connection.send("measure")
                self._busy = True
            except OSError:
                self._lose("the process is gone")

    def scores(self, wait: bool = False) -> list[Score]:
        """What was measured since the last call; with `wait`, what is being measured as well."""
        found: list[Score] = []
        while self._busy and (wait or self._connection.poll()):
            try:
                answer = self._connection.recv()
            except (EOFError, OSError):
                self._lose("the process is gone")
                break
            self._busy = False
            if isinstance(answer, Score):
                found.append(answer)
            else:
                self._lose(str(answer))
        return found

    def last_scores(self, updates: int) -> list[Score]:
        """Waits for what is being measured, and for the run's last checkpoint."""
        found = self.scores(wait=True)
        self.checkpoint(updates, last=True)
        return found + self.scores(wait=True)

    def _lose(self, why: str) -> None:
        self._busy, self._lost = False, True
        warnings.warn(f"evaluation ended ({why}); the run goes on without it", stacklevel=3)

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join(timeout=1)
        if self._process.is_alive():
            self._process.terminate()  # in the middle of an evaluation
