"""A worker process of `sim.vector`: makes its environments, and does what it is asked until it is told to stop."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import gymnasium
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import read_from_shared_memory
from numpy.typing import NDArray

from robonav.errors import RobonavError

Env = gymnasium.Env[Any, Any]
PATIENCE_S = 0.0003  # a wait that is longer means that another worker is busy with a reset, or a learner learns


def run_worker(
    pipe: Any, factories: Sequence[Callable[[], Env]], place: slice, shared: Any, count: int, mode: AutoresetMode
) -> None:
    """The worker's life. The first message that it sends are the spaces of its environments.

    Args:
        pipe: to whoever asks.
        factories: of its environments.
        place: of their observations in the shared memory.
        shared: memory of `gymnasium.vector.utils.create_shared_memory`.
        count: of all environments that share it.
        mode: what happens when an episode is over.
    """
    cv2.setNumThreads(1)
    worker: Worker | None = None
    try:
        envs = [factory() for factory in factories]
        views: Any = read_from_shared_memory(envs[0].observation_space, shared, count)
        worker = Worker(envs, {name: array[place] for name, array in views.items()}, mode)
        pipe.send([(env.observation_space, env.action_space) for env in worker.envs])
        while True:
            while worker.may_prepare and not pipe.poll(PATIENCE_S):
                worker.prepare()
            verb, *arguments = pipe.recv()
            if verb == "close":
                break
            pipe.send(getattr(worker, verb)(*arguments))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        pass  # whoever asked is gone: nothing is left to do
    except (RobonavError, ResetNeeded) as error:
        pipe.send(error)
    except Exception as error:  # noqa: BLE001 (whatever it was, the other side has to hear of it)
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        pipe.send(RobonavError(f"vector environment: a worker failed: {what}"))
    finally:
        if worker is not None:
            worker.close()


class _Infos(VectorEnv[Any, Any, Any]):
    """Gymnasium's own way to make one info of several."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs

    def add(self, infos: dict[str, Any], info: dict[str, Any], k: int) -> dict[str, Any]:
        """The infos with that of environment k."""
        return self._add_info(infos, info, k)


class Worker:
    """Environments that step one after the other. The public verbs are the messages that it understands."""

    def __init__(self, envs: list[Env], views: dict[str, NDArray[Any]], mode: AutoresetMode) -> None:
        """`views` are the arrays (len(envs), ...) that the observations go into."""
        self.envs = envs
        self._views, self._mode = views, mode
        self._infos = _Infos(len(envs))
        self._over = [False] * len(envs)
        self._unprepared: list[int] = []

    def reset(self, seeds: Sequence[int | None], mask: Sequence[bool], options: dict[str, Any]) -> dict[str, Any]:
        """Starts an episode in each environment of the mask; returns their infos as one."""
        infos: dict[str, Any] = {}
        for k, env in enumerate(self.envs):
            if mask[k]:
                observation, info = env.reset(seed=seeds[k], options=options or None)
                self._began(k, observation)
                infos = self._infos.add(infos, info, k)
        return infos

    def step(self, actions: Any) -> tuple[list[float], list[bool], list[bool], dict[str, Any]]:
        """Steps each environment: rewards, ends, and the infos as one."""
        rewards, terminations, truncations = [], [], []
        infos: dict[str, Any] = {}
        for k, env in enumerate(self.envs):
            if self._over[k] and self._mode == AutoresetMode.NEXT_STEP:
                observation, info = env.reset()
                self._began(k, observation)
                gained, terminated, truncated = 0.0, False, False
            else:
                observation, reward, terminated, truncated, info = env.step(actions[k])
                gained = float(reward)
                self._over[k] = terminated or truncated
                if self._over[k] and self._mode == AutoresetMode.SAME_STEP:
                    infos = self._infos.add(infos, {"final_obs": observation, "final_info": info}, k)
                    observation, info = env.reset()
                    self._began(k, observation)
                else:
                    self._write(k, observation)
            rewards.append(gained)
            terminations.append(terminated)
            truncations.append(truncated)
            infos = self._infos.add(infos, info, k)
        return rewards, terminations, truncations, infos

    def call(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Calls a method of each environment, or reads an attribute."""
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return [value(*args, **kwargs) if callable(value) else value for value in found]

    def set(self, name: str, values: Sequence[Any]) -> None:
        """Sets an attribute of each environment."""
        for env, value in zip(self.envs, values, strict=True):
            env.set_wrapper_attr(name, value)

    @property
    def may_prepare(self) -> bool:
        """Whether there is something to do while nobody asks for anything."""
        return bool(self._unprepared)

    def prepare(self) -> None:
        """Makes the next scene of one environment."""
        self.envs[self._unprepared.pop()].get_wrapper_attr("prepare")()

    def close(self) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()

    def _began(self, k: int, observation: Any) -> None:
        self._over[k] = False
        self._write(k, observation)
        resets_itself = self._mode != AutoresetMode.DISABLED
        if resets_itself and k not in self._unprepared and self.envs[k].has_wrapper_attr("prepare"):
            self._unprepared.append(k)

    def _write(self, k: int, observation: Any) -> None:
        for name, view in self._views.items():
            view[k] = observation[name]
