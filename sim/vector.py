"""Environments in worker processes, several in each, with observations in shared memory.

Environment i draws its episodes from its own stream: with ``reset(seed=s)`` its episode 0 has the seed s + i, and its
episode k the k-th whole number below 2**31 of ``numpy.random.default_rng(s + i)``, as Gymnasium's own vector
environments do it. An episode depends on nothing but its seed and its actions, so neither the number of workers nor
their speed matters. While a worker waits, it makes the scenes that its environments need next.
"""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, create_shared_memory, read_from_shared_memory
from numpy.typing import NDArray

import sim
from robonav.errors import ConfigError, RobonavError, ShapeError, explain
from sim.fidelity import check_fidelity
from sim.vector_worker import run_worker

Arrays = dict[str, NDArray[Any]]
Step = tuple[Arrays, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


def make_vec(
    num_envs: int,
    workers: int | None = None,
    autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    scene: str | Sequence[str] = "rooms",
    copy: bool = True,
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """A vector environment of ``robonav/Navigate-v0``; `options` as `sim.env.NavigateEnv`.

    With ``fidelity="analytic"`` it is a `sim.analytic.env.AnalyticVectorEnv`, which steps all of them in one call and
    takes its `pool` and `ahead` as well; where workers are asked for, or pictures, which it lacks, the same worlds are
    stepped one by one. The episodes are the same either way.

    Args:
        num_envs: how many environments.
        workers: processes that step them; 0 steps them in this one, None takes one a core.
        autoreset_mode: "next_step", "same_step" or "disabled", as Gymnasium has them.
        scene: a scene, or several that are dealt out to the environments in turn.
        copy: observations are copies, and not arrays that the next step overwrites.

    Raises:
        RobonavError: a number that cannot be, an unknown mode, or what the environment itself refuses.
    """
    mode = autoreset_of(autoreset_mode)
    if num_envs < 1:
        raise ShapeError(explain("num_envs", "1 or more", num_envs))
    if workers is not None and workers < 0:
        raise ShapeError(explain("workers", "0 or more", workers))
    scenes = [scene] if isinstance(scene, str) else list(scene)
    if not scenes:
        raise ConfigError(explain("scene", "a scene, or several", "none"))
    if options.get("fidelity") == "analytic" and workers is None and options.get("render_mode") is None:
        from sim.analytic.env import AnalyticVectorEnv

        check_fidelity("analytic", bool(options.pop("depth", False)))
        options = {name: value for name, value in options.items() if name not in ("fidelity", "view", "render_mode")}
        return AnalyticVectorEnv(num_envs, scenes, autoreset_mode=mode, copy=copy, **options)
    factories = [partial(sim.make_env, scenes[i % len(scenes)], **options) for i in range(num_envs)]
    if workers == 0:
        return SyncVectorEnv(factories, copy=copy, autoreset_mode=mode)
    return WorkerVectorEnv(factories, workers, mode, copy)


def autoreset_of(mode: str | AutoresetMode) -> AutoresetMode:
    """Gymnasium's mode by its name, in whatever case.

    Raises:
        ConfigError: there is no such mode.
    """
    if isinstance(mode, AutoresetMode):
        return mode
    names = {each.name.lower().replace("_", ""): each for each in AutoresetMode}
    key = mode.lower().replace("_", "").replace("-", "")
    if key not in names:
        raise ConfigError(explain("autoreset_mode", "'next_step', 'same_step' or 'disabled'", f"'{mode}'"))
    return names[key]


class WorkerVectorEnv(VectorEnv[Arrays, NDArray[np.float32], NDArray[Any]]):
    """Several environments a process; the same episodes as Gymnasium's `SyncVectorEnv` gives."""

    def __init__(
        self,
        factories: Sequence[Callable[[], gymnasium.Env[Any, Any]]],
        workers: int | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
    ) -> None:
        """Starts the workers, which make the environments; factories must be picklable.

        Raises:
            RobonavError: an environment cannot be made.
        """
        super().__init__()
        self.num_envs = len(factories)
        self.autoreset_mode = autoreset_mode
        self._copy = copy
        self._waiting = ""
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        count = min(workers or len(os.sched_getaffinity(0)), self.num_envs)
        parts = np.array_split(np.arange(self.num_envs), count)
        self._shares = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        with closing(factories[0]()) as probe:  # workers inherit the shared memory, so its size comes first
            self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
            self.metadata = {**probe.metadata, "autoreset_mode": autoreset_mode}
            self.render_mode = probe.render_mode
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        context = mp.get_context("spawn")  # threads and PyBullet's clients do not survive a fork
        space: Any = self.single_observation_space
        shared = create_shared_memory(space, self.num_envs, cast("Any", context))
        self._views = cast("Arrays", read_from_shared_memory(space, shared, self.num_envs))
        try:
            for share in self._shares:
                ours, theirs = context.Pipe()
                work = (theirs, factories[share], share, shared, self.num_envs, autoreset_mode)
                process = context.Process(target=run_worker, args=work, daemon=True)
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
            spaces = (self.single_observation_space, self.single_action_space)
            if any(each != spaces for answer in self._answers() for each in answer):
                raise ConfigError("vector environment: all environments must have the same spaces")
        except BaseException:
            self.close(terminate=True)
            raise

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Starts an episode in every environment, or in those of ``options["reset_mask"]`` (num_envs,) bool.

        Raises:
            ShapeError: seeds or a mask of another length.
            RobonavError: a worker failed.
        """
        n = self.num_envs
        seeds = [seed + i for i in range(n)] if isinstance(seed, int) else [None] * n if seed is None else list(seed)
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(n, np.bool_)))
        if len(seeds) != n or mask.shape != (n,) or mask.dtype != np.bool_ or not mask.any():
            got = f"{len(seeds)} seeds, a {mask.dtype} mask {mask.shape}"
            raise ShapeError(explain("seed, reset_mask", f"{n} seeds, and {n} bools with one true", got))
        self._ask([("reset", seeds[s], mask[s].tolist(), options) for s in self._shares])
        infos: dict[str, Any] = {}
        for share, part in zip(self._shares, self._answers(), strict=True):
            _put(infos, part, share, n)
        return self._observations(), infos

    def step(self, actions: NDArray[np.float32]) -> Step:
        """Applies actions (num_envs, 3) for one control period; see `step_async`."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Sends the actions and returns at once.

        Raises:
            ShapeError: actions of another shape.
            RobonavError: a step is under way already.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ShapeError(explain("actions", self.action_space.shape, actions.shape))
        self._ask([("step", actions[share]) for share in self._shares])

    def step_wait(self) -> Step:
        """The observations, rewards, and ends of the step under way.

        Raises:
            RobonavError: a worker failed, or no step is under way.
        """
        if self._waiting != "step":
            raise RobonavError("vector environment: no step is under way; call step_async() first")
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        infos: dict[str, Any] = {}
        for share, answer in zip(self._shares, self._answers(), strict=True):
            rewards[share], terminated[share], truncated[share] = answer[:3]
            _put(infos, answer[3], share, self.num_envs)
        return self._observations(), rewards, terminated, truncated, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What each environment's method, or attribute, of that name gives."""
        self._ask([("call", name, args, kwargs)] * len(self._pipes))
        return tuple(value for answer in self._answers() for value in answer)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute: a list has one value for each environment, anything else is for all of them.

        Raises:
            ShapeError: a list of another length.
        """
        each = values if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ShapeError(explain("values", f"{self.num_envs}, or one for all", len(each)))
        self._ask([("set", name, each[share]) for share in self._shares])
        self._answers()

    def render(self) -> tuple[Any, ...] | None:
        """A picture of each environment."""
        return self.call("render")

    def close_extras(self, terminate: bool = False, **_: Any) -> None:
        """Ends the workers."""
        for pipe in self._pipes:
            try:
                pipe.send(("close",))
            except OSError:
                continue  # that worker is gone already
        for process in self._processes:
            process.join(timeout=0 if terminate else 5)
            if process.is_alive():
                process.terminate()
        for pipe in self._pipes:
            pipe.close()

    def __del__(self) -> None:
        if not self.closed and getattr(self, "_pipes", None):
            self.close(terminate=True)

    def _observations(self) -> Arrays:
        return {name: array.copy() for name, array in self._views.items()} if self._copy else dict(self._views)

    def _ask(self, requests: Sequence[tuple[Any, ...]]) -> None:
        """Sends each worker its request."""
        if self.closed:
            raise RobonavError("vector environment: it is closed; make another one")
        if self._waiting:
            raise RobonavError(f"vector environment: '{self._waiting}' is under way; wait for it first")
        for index, (pipe, request) in enumerate(zip(self._pipes, requests, strict=True)):
            try:
                pipe.send(request)
            except OSError:
                self._answer(index)  # its last words, if it had any
        self._waiting = str(requests[0][0])

    def _answers(self) -> list[Any]:
        """The workers' answers, in their order."""
        answers = [self._answer(index) for index in range(len(self._pipes))]
        self._waiting = ""
        return answers

    def _answer(self, index: int) -> Any:
        try:
            answer = self._pipes[index].recv()
        except (EOFError, OSError):
            self._processes[index].join(timeout=10)  # its pipe is closed: it is ending
            code = self._processes[index].exitcode
            raise RobonavError(f"vector environment: worker {index} died (exit code {code}); make a new one") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _put(infos: dict[str, Any], part: dict[str, Any], share: slice, count: int) -> None:
    """Writes the infos of one worker's share into those of all `count` environments."""
    for key, value in part.items():
        if isinstance(value, dict):
            _put(infos.setdefault(key, {}), value, share, count)
            continue
        if key not in infos:
            shape = (count, *value.shape[1:])
            infos[key] = np.full(shape, None, object) if value.dtype == object else np.zeros(shape, value.dtype)
        infos[key][share] = value
