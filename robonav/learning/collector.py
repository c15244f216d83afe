"""Collection in worker processes, in lockstep with the learner so that a run is a function of its seed.

While the learner makes the updates of iteration i, the workers gather chunk i with the weights from the end of
iteration i - 1. The chunk joins replay when the updates are done, so what is learnt never depends on who was faster.
At a checkpoint the workers abandon their episodes; the resumed run, which has to start fresh ones, then continues
exactly as the uninterrupted one.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robonav.errors import RobonavError
from robonav.imagination.agent import Agent, AgentConfig
from robonav.learning.config import CollectConfig, KickstartConfig
from robonav.learning.curriculum import Choice, CurriculumConfig, choose
from robonav.learning.experts import ExpertFactory, Experts
from robonav.learning.streams import Arrays, Coming, StreamsFactory
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

SEEDS_PER_STREAM = 1_000_000
_SALT = 0x7363656E  # keeps the draw of the scene's preset apart from the scene's own
SMOOTHING = 0.9  # of the random commands that fill replay at first


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How an episode of collection ended."""

    outcome: str
    greedy: bool
    reward: float
    steps: int
    level: int = 0  # of the curriculum
    scene: str = ""  # preset
    expert: bool = False  # whether the expert drove


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is told once."""

    index: int
    seed: int
    collect: CollectConfig
    agent: AgentConfig
    spec: RobotSpec
    episodes: tuple[int, ...]  # episodes started so far, a stream
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    kickstart: KickstartConfig = field(default_factory=KickstartConfig)
    expert: ExpertFactory | None = None


class Collector:
    """The streams of one worker, stepped together; also usable without a process."""

    def __init__(self, config: WorkerConfig, factory: StreamsFactory) -> None:
        self.config = config
        c = config.collect
        self.streams = factory(config.index, c.envs)
        self.experts = None
        if config.kickstart.streams and config.expert is not None:
            self.experts = Experts(config.kickstart, config.expert, self.streams, c.envs)
        with torch.random.fork_rng(devices=[]):  # in one process with the learner, its random state stays as it is
            self.agent = Agent(config.agent, config.spec).eval().requires_grad_(False)
        self.greedy = np.arange(c.envs) >= c.envs - c.greedy_envs
        self.episodes = list(config.episodes)
        self.names = tuple(policy_input_shapes(config.spec))
        self.restart()

    def restart(self) -> None:
        """Abandons all episodes; the next step of every stream starts a new one."""
        n = self.config.collect.envs
        self.fresh = True
        self.now: Arrays = {"reward": np.zeros(n, np.float32), "first": np.ones(n, np.float32)}
        self.now |= {"terminal": np.zeros(n, np.float32), "event": np.zeros(n, np.uint8)}
        self.ended = np.zeros(n, np.bool_)
        self.totals = np.zeros((n, 2))
        self.level = 0  # the curriculum's current one
        self.choices = [Choice(0, "", "")] * n  # of the episodes under way
        self.state = self.agent.initial_state(n)
        self.last_action = np.zeros((n, ACTION_SIZE), np.float32)

    def _begin(self, i: int) -> None:
        """Announces the next episode of stream i."""
        config = self.config
        stream = config.index * config.collect.envs + i
        seed = (config.seed % 500 + 1) * SEEDS_PER_STREAM + stream * 10_000 + self.episodes[i] % 10_000
        self.episodes[i] += 1
        curriculum = config.curriculum
        if curriculum:
            self.choices[i] = choose(curriculum, self.level, seed)
        else:
            scenes = config.collect.scenes
            self.choices[i] = Choice(0, scenes[int(np.random.default_rng([seed, _SALT]).integers(len(scenes)))], "")
        self.streams.begin(i, Coming(seed, self.choices[i].scene, self.choices[i].randomisation))
        if self.experts is not None:
            self.experts.begin(i, seed)

    def _advance(self, action: NDArray[np.float32], results: list[EpisodeResult]) -> None:
        """One step of all streams; those whose last observation was recorded start their next episode."""
        for i in np.flatnonzero(self.ended).tolist():
            self._begin(i)
        moved = self.streams.step(action)
        self.totals[moved.first] = 0
        self.totals[~moved.first] += np.stack([moved.reward, np.ones_like(moved.reward)], -1)[~moved.first]
        self.ended = moved.terminated | moved.truncated
        for i in np.flatnonzero(self.ended).tolist():
            total, steps = self.totals[i].tolist()
            level, scene, _ = self.choices[i]
            outcome = str(moved.outcomes[i])
            expert = self.experts is not None and bool(self.experts.drives[i])
            results.append(EpisodeResult(outcome, bool(self.greedy[i]), total, int(steps), level, scene, expert))
        self.now = {
            "reward": moved.reward,
            "first": moved.first.astype(np.float32),
            "terminal": moved.terminated.astype(np.float32),
            "event": moved.events,
        }

    def collect(
        self, iteration: int, steps: int, weights: Mapping[str, Tensor] | None, level: int = 0
    ) -> tuple[Arrays, list[EpisodeResult], list[int]]:
        """Gathers (envs, steps, ...) arrays.

        Args:
            iteration: seeds exploration.
            steps: of each environment.
            weights: of the agent; None for smooth random commands.
            level: of the curriculum, for episodes that begin now.

        Returns:
            The chunk, the episodes that ended, and the episodes started so far a stream.
        """
        n, self.level = self.config.collect.envs, level
        key = [self.config.seed, iteration, self.config.index]
        rng = np.random.default_rng(key)
        torch.manual_seed(int(rng.integers(2**31)))
        if weights is not None:
            self.agent.load_state_dict(dict(weights))
        if self.fresh:
            for i in range(n):
                self._begin(i)
            self.streams.restart()
            self.fresh = False
        noise = torch.tensor(1.0 - self.greedy, dtype=torch.float32)
        rows: list[Arrays] = []
        results: list[EpisodeResult] = []
        for _ in range(steps):
            inputs = {name: values.copy() for name, values in self.streams.observations().items() if name in self.names}
            first = self.now["first"]
            if weights is None:
                action = mean = self._random_action(rng)
            else:
                action, mean = self._policy_action(inputs, first, noise)
            labels, labelled = np.zeros_like(action), np.zeros(n, np.float32)
            if self.experts is not None:
                labels, labelled = self.experts.actions(n, mean)
                action = np.where(self.experts.drives[:, None], labels, action)
            self.last_action = action
            rows.append({**inputs, **self.now, "action": action, "label": labels, "labelled": labelled})
            self._advance(action, results)
        chunk = {k: np.stack([row[k] for row in rows], axis=1) for k in rows[0]}
        return chunk, results, self.episodes

    def _random_action(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Slowly varying commands that mostly go forward, so that the first worlds are not seen from one spot."""
        push = rng.normal(size=self.last_action.shape) + np.array([0.25, 0.0, 0.0])
        action = SMOOTHING * self.last_action + np.sqrt(1 - SMOOTHING**2) * push
        return np.clip(action, -1, 1).astype(np.float32)

    @torch.no_grad()
    def _policy_action(
        self, inputs: Arrays, first: NDArray[np.float32], noise: Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the agent does, exploring, and what it would do without noise."""
        tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
        previous = torch.from_numpy(self.last_action)
        step = self.agent.step(self.state, tensors, previous, torch.from_numpy(first), noise)
        self.state = step.state
        return step.action.numpy(), step.mean.numpy()

    def close(self) -> None:
        """Closes the streams."""
        self.streams.close()


def _work(connection: Connection, config: WorkerConfig, factory: StreamsFactory) -> None:
    """A worker's life: answers requests until it is told to stop or the learner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the run decides when it ends
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    collector: Collector | None = None
    try:
        collector = Collector(config, factory)
        while (request := connection.recv()) is not None:
            if request == "restart":
                collector.restart()
                continue
            iteration, steps, weights, level = request
            tensors = None if weights is None else {k: torch.from_numpy(v) for k, v in weights.items()}
            connection.send(collector.collect(iteration, steps, tensors, level))
    except (EOFError, BrokenPipeError):
        pass  # the learner is gone: nothing is left to do
    except RobonavError as error:
        connection.send(error)
    except Exception as error:  # noqa: BLE001 (whatever it was, the learner has to hear of it)
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        connection.send(RobonavError(f"collector {config.index} failed: {what}"))
    finally:
        if collector is not None:
            collector.close()


class CollectorPool:
    """Worker processes; `request` starts a chunk in all of them, `receive` waits for it."""

    def __init__(self, configs: list[WorkerConfig], factory: StreamsFactory) -> None:
        context = mp.get_context("spawn")
        self.connections: list[Connection] = []
        self.processes = []
        for config in configs:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, config, factory), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)

    def request(self, iteration: int, steps: int, weights: Mapping[str, Tensor] | None, level: int = 0) -> None:
        """Asks every worker for a chunk; returns at once."""
        arrays = None if weights is None else {k: v.numpy() for k, v in weights.items()}
        for index in range(len(self.connections)):
            self._send(index, (iteration, steps, arrays, level))

    def _send(self, index: int, request: Any) -> None:
        """Sends to a worker; the last words of one that is gone become the error."""
        connection = self.connections[index]
        try:
            connection.send(request)
        except OSError:
            self._answer(index)
            raise self._death(index) from None

    def _answer(self, index: int) -> Any:
        """The next answer of a worker, or its error."""
        try:
            answer = self.connections[index].recv()
        except (EOFError, OSError):
            raise self._death(index) from None
        if isinstance(answer, RobonavError):
            raise answer
        return answer

    def _death(self, index: int) -> RobonavError:
        self.processes[index].join(timeout=10)  # its pipe is closed: it is ending
        return RobonavError(
            f"collector {index} died (exit code {self.processes[index].exitcode}); continue with --resume"
        )

    def receive(self) -> tuple[Arrays, list[EpisodeResult], list[int]]:
        """The chunk of all streams, the ended episodes, and the episodes started so far, in the order of the streams.

        Raises:
            RobonavError: a worker failed or died.
        """
        answers = [self._answer(index) for index in range(len(self.connections))]
        chunk = {k: np.concatenate([a[0][k] for a in answers]) for k in answers[0][0]}
        results = [result for a in answers for result in a[1]]
        return chunk, results, [count for a in answers for count in a[2]]

    def restart(self) -> None:
        """Makes every worker abandon its episodes."""
        for index in range(len(self.connections)):
            self._send(index, "restart")

    def close(self) -> None:
        """Ends the workers."""
        for connection in self.connections:
            try:
                connection.send(None)
            except OSError:
                continue  # that worker is gone already
        for process in self.processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()


class InProcessPool:
    """The same interface without processes, for tests and debugging."""

    def __init__(self, configs: list[WorkerConfig], factory: StreamsFactory) -> None:
        self.collectors = [Collector(config, factory) for config in configs]
        self._pending: list[tuple[Arrays, list[EpisodeResult], list[int]]] = []

    def request(self, iteration: int, steps: int, weights: Mapping[str, Tensor] | None, level: int = 0) -> None:
        """Gathers a chunk now, keeping the learner's random state as it is."""
        rng = torch.get_rng_state()
        self._pending = [c.collect(iteration, steps, weights, level) for c in self.collectors]
        torch.set_rng_state(rng)

    def receive(self) -> tuple[Arrays, list[EpisodeResult], list[int]]:
        """See `CollectorPool.receive`."""
        answers = self._pending
        chunk = {k: np.concatenate([a[0][k] for a in answers]) for k in answers[0][0]}
        return chunk, [r for a in answers for r in a[1]], [count for a in answers for count in a[2]]

    def restart(self) -> None:
        """See `CollectorPool.restart`."""
        for collector in self.collectors:
            collector.restart()

    def close(self) -> None:
        """Closes the environments."""
        for collector in self.collectors:
            collector.close()
