"""Streams of experience for learning: PyBullet's environments, or batches of analytic worlds, dealt out over robots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.config import load_robot
from robonav.errors import ConfigError, explain
from robonav.learning.config import CollectConfig
from robonav.learning.streams import Arrays, Coming, GymStreams, Moved, Streams, WindowActions, events_of
from robonav.types import ACTION_SIZE, Observation, RobotSpec, policy_input_shapes


@dataclass(frozen=True)
class StreamsOf:
    """Makes a worker's streams as a configuration says; picklable."""

    collect: CollectConfig
    robot: str  # of streams for which no other is named
    presets: tuple[str, ...]  # of scenes that may be asked for

    def __call__(self, index: int, count: int) -> Streams:
        """The streams of worker `index`.

        Raises:
            RobonavError: an unknown robot or preset, or robots whose sensors differ.
        """
        groups = groups_of(self.collect, self.robot, count)
        if self.collect.simulator == "analytic":
            return AnalyticStreams(groups, self.collect, self.presets, count)
        from sim.env import NavigateEnv

        made: dict[int, NavigateEnv] = {}
        for (robot, imperfect), worlds in groups.items():
            for world in worlds:
                made[world] = NavigateEnv(self.presets[0], robot, **environment_of(self.collect, imperfect))
        return GymStreams([made[world] for world in range(count)])


def groups_of(collect: CollectConfig, robot: str, count: int) -> dict[tuple[str, bool], list[int]]:
    """Worlds by robot and whether their sensors err.

    Raises:
        ConfigError: the robots' sensors differ.
    """
    robots = collect.robots or (robot,)
    shapes = {name: policy_input_shapes(load_robot(name)) for name in robots}
    for name, shape in shapes.items():
        if shape != shapes[robots[0]]:
            raise ConfigError(explain("collect.robots", f"sensors as those of '{robots[0]}'", f"others of '{name}'"))
    groups: dict[tuple[str, bool], list[int]] = {}
    for world in range(count):
        # spread evenly, over the worlds of one robot and over the robots of one turn
        turn = world // len(robots) + world % len(robots)
        imperfect = int((turn + 1) * collect.imperfect) > int(turn * collect.imperfect)
        groups.setdefault((robots[world % len(robots)], imperfect), []).append(world)
    return groups


def environment_of(collect: CollectConfig, imperfect: bool) -> dict[str, Any]:
    """Arguments of an environment: who says what moves, and its errors."""
    errors = {"sensors": collect.sensors, "randomisation": collect.randomisation} if imperfect else {}
    return {"sight": collect.sight, **errors}


class AnalyticStreams:
    """Batches of analytic worlds, one for each robot with or without errors, seen as one."""

    def __init__(
        self, groups: dict[tuple[str, bool], list[int]], collect: CollectConfig, presets: tuple[str, ...], count: int
    ) -> None:
        from sim.analytic.env import AnalyticVectorEnv  # needs numba

        self._worlds = [np.array(worlds) for worlds in groups.values()]
        self._envs = [
            AnalyticVectorEnv(
                len(worlds),
                scene=presets,
                robot=robot,
                pool=collect.pool,
                copy=False,
                **environment_of(collect, imperfect),
            )
            for (robot, imperfect), worlds in groups.items()
        ]
        self._place = {
            world: (g, i) for g, worlds in enumerate(self._worlds) for i, world in enumerate(worlds.tolist())
        }
        self._count = count
        self._out: Arrays = {}
        self._restarting = np.ones(count, np.bool_)

    def begin(self, world: int, coming: Coming) -> None:
        """See `Streams.begin`."""
        group, i = self._place[world]
        self._envs[group].announce(i, coming.seed, coming.scene, coming.randomisation)

    def restart(self) -> None:
        """See `Streams.restart`."""
        for worlds, env in zip(self._worlds, self._envs, strict=True):
            self._take(worlds, env.reset()[0])
        self._restarting[:] = False

    def observations(self) -> Arrays:
        """See `Streams.observations`."""
        return self._out

    def observation(self, world: int) -> Observation:
        """See `Streams.observation`."""
        group, i = self._place[world]
        return self._envs[group].observation(i)

    def robot(self, world: int) -> RobotSpec:
        """See `Streams.robot`."""
        return self._envs[self._place[world][0]].robot

    def step(self, actions: NDArray[np.float32]) -> Moved:
        """See `Streams.step`."""
        n = self._count
        reward, first = np.zeros(n, np.float32), self._restarting.copy()
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        events, outcomes = np.zeros(n, np.uint8), [None] * n
        for worlds, env in zip(self._worlds, self._envs, strict=True):
            observation, rewards, over, cut, infos = env.step(actions[worlds])
            self._take(worlds, observation)
            reward[worlds], terminated[worlds], truncated[worlds] = rewards, over, cut
            told = infos.get("outcome")
            for i, world in enumerate(worlds.tolist()):
                outcomes[world] = told[i] if told is not None and infos["_outcome"][i] else None
                if not first[world]:
                    events[world] = events_of(outcomes[world], float(infos["clearance_m"][i]), env.blocked(i))
        self._restarting = terminated | truncated
        return Moved(reward, first, terminated, truncated, events, outcomes)

    def window_actions(
        self, count: int, asked: NDArray[np.floating] | None = None, sideways: bool = False, slack_m: float = 0.0
    ) -> WindowActions:
        """See `robonav.learning.streams.WindowStreams`."""
        n = self._count
        out = WindowActions(np.zeros((n, ACTION_SIZE), np.float32), np.zeros(n, np.bool_), np.zeros(n, np.float32))
        for worlds, env in zip(self._worlds, self._envs, strict=True):
            commands = None if asked is None else env.robot.action_to_velocity(asked[worlds])
            chosen = env.window_commands(worlds < count, commands, sideways, slack_m)
            out.actions[worlds] = env.robot.velocity_to_action(chosen.commands)
            out.known[worlds], out.regret_m[worlds] = chosen.known, chosen.regret_m
        return out

    def close(self) -> None:
        """See `Streams.close`."""
        for env in self._envs:
            env.close()

    def _take(self, worlds: NDArray[np.int64], observation: Arrays) -> None:
        for name, values in observation.items():
            if name not in self._out:
                self._out[name] = np.zeros((self._count, *values.shape[1:]), values.dtype)
            self._out[name][worlds] = values
