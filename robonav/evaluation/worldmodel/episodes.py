"""Fresh episodes in memory: what was observed, done and rewarded tick by tick, and what was really so.

At tick t the observation o_t came with the reward r_t; a_t was done after it. The last tick's action was never done.
An episode is a function of its plan alone, whatever the number of worlds that are stepped together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from robonav.learning.streams import Arrays, Coming, Streams
from robonav.types import ACTION_SIZE, Float, policy_input_shapes

MOVER_SIZE = 5  # x, y, vx, vy in the world, radius; radius 0 marks empty places
_SALT = 0x776D6F64  # keeps the drivers' draws apart from the scenes' own


class Truth(NamedTuple):
    """What is so, whatever the sensors say; leading (n,) worlds of a tick, or (T,) ticks of an episode."""

    pose_world: Float  # (., 3)
    velocity: Float  # (., 3) vx, vy in base, yaw rate
    scan_m: Float  # (., beams) as a perfect lidar sees it
    movers: Float  # (., M, 5) MOVER_SIZE


class TrueStreams(Streams, Protocol):
    """Worlds that tell what is so."""

    def truth(self) -> Truth:
        """Of now, in all worlds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An episode to come."""

    seed: int
    scene: str
    driver: str
    randomisation: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """An episode of T ticks."""

    plan: Plan
    outcome: str
    inputs: Arrays  # `PolicyInput` arrays (T, ...)
    reward: Float  # (T,) 0 at the first tick
    action: Float  # (T, 3)
    truth: Truth  # (T, ...)

    @property
    def ticks(self) -> int:
        """T."""
        return len(self.reward)

    @property
    def collided(self) -> bool:
        """Whether the last tick is a collision."""
        return self.outcome == "collision"


class Driver(Protocol):
    """Drives any of the worlds."""

    def begin(self, world: int, rng: np.random.Generator) -> None:
        """A new episode begins there with the next observation; all chance comes from `rng`."""

    def actions(self, streams: Streams, inputs: Arrays, driven: NDArray[np.bool_]) -> Float:
        """(n, 3) normalised actions; only those of `driven` (n,) worlds are looked at."""


def plan_episodes(
    seeds: Sequence[int], scenes: Sequence[str], drivers: Sequence[str], randomisation: str
) -> list[Plan]:
    """One episode a seed and scene; drivers take turns."""
    numbered = enumerate((seed, scene) for scene in scenes for seed in seeds)
    return [Plan(seed, scene, drivers[i % len(drivers)], randomisation) for i, (seed, scene) in numbered]


def gather(
    streams: TrueStreams,
    worlds: int,
    plans: Sequence[Plan],
    drivers: Mapping[str, Driver],
    done: Callable[[], object] = lambda: None,
) -> list[Recorded]:
    """Runs the planned episodes to their ends, and returns them in order; `done` is called after each."""
    names = tuple(policy_input_shapes(streams.robot(0)))
    running: list[int | None] = [None] * worlds  # index of the plan in each world
    ticks: list[list[dict[str, Any]]] = [[] for _ in range(worlds)]
    recorded: dict[int, Recorded] = {}
    waiting = list(range(len(plans)))[::-1]

    def begin(world: int) -> None:
        running[world] = waiting.pop() if waiting else None
        plan = plans[running[world] or 0]  # a world without work drives the first episode again
        streams.begin(world, Coming(plan.seed, plan.scene, plan.randomisation))
        for driver in drivers.values():
            driver.begin(world, np.random.default_rng([plan.seed, _SALT]))

    for world in range(worlds):
        begin(world)
    streams.restart()
    reward, ended, outcomes = np.zeros(worlds, np.float32), np.zeros(worlds, np.bool_), [""] * worlds
    while True:
        inputs = {name: array.copy() for name, array in streams.observations().items() if name in names}
        truth = streams.truth()
        actions = np.zeros((worlds, ACTION_SIZE), np.float32)
        for name, driver in drivers.items():
            driven = np.array([plans[i or 0].driver == name for i in running])
            if driven.any():
                actions[driven] = driver.actions(streams, inputs, driven)[driven]
        for world, index in enumerate(running):
            if index is not None:
                now = {name: array[world] for name, array in inputs.items()}
                ticks[world].append(
                    {"inputs": now, "reward": reward[world], "action": actions[world]}
                    | {"truth": Truth(*(array[world].copy() for array in truth))}
                )
            if ended[world]:
                if index is not None:
                    recorded[index] = _recorded(plans[index], outcomes[world], ticks[world])
                    done()
                ticks[world] = []
                begin(world)
        if all(index is None for index in running):
            return [recorded[i] for i in range(len(plans))]
        moved = streams.step(actions)
        reward, ended = moved.reward, moved.terminated | moved.truncated
        outcomes = [str(outcome) for outcome in moved.outcomes]


def _recorded(plan: Plan, outcome: str, ticks: Sequence[Mapping[str, Any]]) -> Recorded:
    count = max(len(tick["truth"].movers) for tick in ticks)
    movers = np.zeros((len(ticks), count, MOVER_SIZE), np.float32)
    for t, tick in enumerate(ticks):
        movers[t, : len(tick["truth"].movers)] = tick["truth"].movers
    pose, velocity, scan = (np.stack([tick["truth"][k] for tick in ticks]).astype(np.float32) for k in range(3))
    return Recorded(
        plan=plan,
        outcome=outcome,
        inputs={name: np.stack([tick["inputs"][name] for tick in ticks]) for name in ticks[0]["inputs"]},
        reward=np.array([tick["reward"] for tick in ticks], np.float32),
        action=np.stack([tick["action"] for tick in ticks]),
        truth=Truth(pose, velocity, scan, movers),
    )
