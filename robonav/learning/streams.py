"""Streams of experience: worlds that are stepped together, whatever simulates them.

A world whose episode ended starts the next one, which was announced with `begin`, at the following `step`: that step
takes no action there and its observation is the new episode's first one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from robonav.learning.replay_events import BLOCKED_ROUTE, COLLISION, NEAR_MISS, SUCCESS
from robonav.types import Observation, RobotSpec

Arrays = dict[str, NDArray[Any]]
NEAR_MISS_M = 0.1


class Coming(NamedTuple):
    """The next episode of a world."""

    seed: int
    scene: str = ""  # preset; "" leaves it to the world
    randomisation: str = ""


class Moved(NamedTuple):
    """What a step brought, a world."""

    reward: NDArray[np.float32]  # (n,) 0 where an episode begins
    first: NDArray[np.bool_]  # (n,) whether an episode begins
    terminated: NDArray[np.bool_]  # (n,)
    truncated: NDArray[np.bool_]  # (n,)
    events: NDArray[np.uint8]  # (n,) bits
    outcomes: Sequence[str | None]  # (n,) of episodes that ended


class Streams(Protocol):
    """n worlds."""

    def begin(self, world: int, coming: Coming) -> None:
        """Announces the next episode of a world."""

    def restart(self) -> None:
        """Starts the announced episodes of all worlds now."""

    def observations(self) -> Arrays:
        """`PolicyInput` arrays (n, ...), valid until the next step."""

    def observation(self, world: int) -> Observation:
        """What a classical policy reads in a world."""

    def robot(self, world: int) -> RobotSpec:
        """The robot of a world."""

    def step(self, actions: NDArray[np.float32]) -> Moved:
        """Applies actions (n, 3) for one control period."""

    def close(self) -> None:
        """Frees what the worlds hold."""


class WindowActions(NamedTuple):
    """What the window would do in n worlds."""

    actions: NDArray[np.float32]  # (n, 3) normalised
    known: NDArray[np.bool_]  # (n,) where there is one
    regret_m: NDArray[np.float32]  # (n,) metres of progress by which the action asked about is worse


@runtime_checkable
class WindowStreams(Protocol):
    """Worlds that know, all at once and compiled, what the local planner's window of commands would choose in each."""

    def window_actions(
        self, count: int, asked: NDArray[np.floating] | None = None, sideways: bool = False, slack_m: float = 0.0
    ) -> WindowActions:
        """For the observations of now, in the first `count` worlds.

        Args:
            count: of worlds.
            asked: (n, 3) actions whose regret is asked for.
            sideways: whether the window has commands askew.
            slack_m: with `asked`, the answer is the nearest to that among those dearer than the best by this at most.
        """


StreamsFactory = Callable[[int, int], Streams]
"""Makes the streams of a worker from its index and their number; must be picklable."""


def events_of(outcome: str | None, clearance_m: float, blocked: bool) -> int:
    """Bits of what makes a step rare."""
    near = NEAR_MISS if clearance_m < NEAR_MISS_M else 0
    return near | (BLOCKED_ROUTE if blocked else 0) | {"collision": COLLISION, "success": SUCCESS}.get(outcome or "", 0)


class GymStreams:
    """Gymnasium environments, one a world, in this process; resets take the options "preset" and "randomisation"."""

    def __init__(self, envs: Sequence[gym.Env[Any, Any]]) -> None:
        self.envs = list(envs)
        self._coming = [Coming(0)] * len(self.envs)
        self._now: list[dict[str, Any]] = [{} for _ in self.envs]
        self._ended = np.ones(len(self.envs), np.bool_)

    def begin(self, world: int, coming: Coming) -> None:
        """See `Streams.begin`."""
        self._coming[world] = coming

    def restart(self) -> None:
        """See `Streams.restart`."""
        for world in range(len(self.envs)):
            self._reset(world)

    def observations(self) -> Arrays:
        """See `Streams.observations`."""
        return {name: np.stack([now[name] for now in self._now]) for name in self._now[0]}

    def observation(self, world: int) -> Observation:
        """See `Streams.observation`."""
        observation: Observation = self.envs[world].unwrapped.observation()  # type: ignore[attr-defined]
        return observation

    def robot(self, world: int) -> RobotSpec:
        """See `Streams.robot`."""
        robot: RobotSpec = self.envs[world].unwrapped.robot  # type: ignore[attr-defined]
        return robot

    def step(self, actions: NDArray[np.float32]) -> Moved:
        """See `Streams.step`."""
        n = len(self.envs)
        reward, first = np.zeros(n, np.float32), self._ended.copy()
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        events, outcomes = np.zeros(n, np.uint8), [None] * n
        for i, env in enumerate(self.envs):
            if first[i]:
                self._reset(i)
                continue
            self._now[i], reward[i], terminated[i], truncated[i], info = env.step(actions[i])
            outcomes[i] = info.get("outcome")
            events[i] = events_of(outcomes[i], float(info.get("clearance_m", np.inf)), False)
        self._ended = terminated | truncated
        return Moved(reward, first, terminated, truncated, events, outcomes)

    def close(self) -> None:
        """See `Streams.close`."""
        for env in self.envs:
            env.close()

    def _reset(self, world: int) -> None:
        seed, scene, randomisation = self._coming[world]
        options = {"preset": scene, "randomisation": randomisation}
        options = {name: value for name, value in options.items() if value}
        self._now[world], _ = self.envs[world].reset(seed=seed, options=options or None)
        self._ended[world] = False
