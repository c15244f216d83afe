"""The kinematic world's lag, fitted so that it goes where the robot goes on its legs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from robonav.types import RobotSpec, Scene
from sim.urdf import Array
from sim.walker import CONTROL_S, Walker
from sim.world import World

TICK_S = 0.1
HEADING_M = 1.0  # an error of 1 rad counts as much as one of a metre
LAGS_S = tuple(round(0.02 * n, 2) for n in range(1, 31))
Sequence3 = Sequence[tuple[float, float, float]]  # a command a tick


def step_responses(spec: RobotSpec) -> list[Sequence3]:
    """Commands of 5 s in which each axis, and all together, start, change and stop."""
    fast, back, side, turn = spec.vx_max_mps, spec.vx_min_mps, spec.vy_max_mps, spec.yaw_rate_max_radps
    plans = [
        [(fast, 0.0, 0.0, 1.5), (0.3 * fast, 0.0, 0.0, 1.0), (0.8 * fast, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.5)],
        [(0.5 * fast, side, 0.0, 1.5), (back, -side, 0.0, 1.5), (0.0, 0.0, 0.0, 2.0)],
        [(0.4 * fast, 0.0, turn, 1.5), (0.6 * fast, 0.0, -turn, 1.5), (0.4 * fast, 0.0, 0.5 * turn, 2.0)],
    ]
    return [_ticks(plan) for plan in plans]


def validation_sequences(spec: RobotSpec, count: int = 12, seconds: float = 5.0, seed: int = 0) -> list[Sequence3]:
    """Random commands within the robot's limits, each held for half a second to a second and a half."""
    rng = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        plan: list[tuple[float, float, float, float]] = []
        while sum(part[3] for part in plan) < seconds:
            vx, vy, yaw_rate = spec.action_to_velocity(rng.uniform([-0.3, -0.7, -0.7], [0.9, 0.7, 0.7])).tolist()
            plan.append((vx, vy, yaw_rate, float(rng.uniform(0.5, 1.5))))
        plans.append(_ticks(plan)[: round(seconds / TICK_S)])
    return plans


def walked(walker: Walker, commands: Sequence3) -> Array:
    """(ticks, 3) poses of the walking robot after each command, from a stand at the origin; short if it falls."""
    walker.reset(0.0, 0.0, 0.0)
    poses, owed_s = [], 0.0
    for command in commands:
        owed_s += TICK_S
        while owed_s > CONTROL_S / 2:
            walker.step(np.array(command))
            owed_s -= CONTROL_S
        if walker.fallen:
            break
        poses.append((*walker.position_m[:2], walker.yaw_rad))
    return np.array(poses).reshape(-1, 3)


def driven(world: World, commands: Sequence3, lag_s: float) -> Array:
    """(ticks, 3) poses of the kinematic robot after each command, from a stand at the origin."""
    world.lag_s = lag_s
    world.velocity = (0.0, 0.0, 0.0)
    world.place(0.0, 0.0, 0.0)
    poses = []
    for command in commands:
        world.advance(command, TICK_S)
        poses.append(world.pose_world)
    return np.array(poses).reshape(-1, 3)


def fit_lag_s(spec: RobotSpec, walker: Walker) -> float:
    """The lag with which the kinematic robot stays nearest to the walking one over `step_responses`."""
    sequences = step_responses(spec)
    truths = [walked(walker, commands) for commands in sequences]
    world = World(spec)
    try:
        world.load(_nowhere())
        errors = []
        for lag_s in LAGS_S:
            total = 0.0
            for commands, truth in zip(sequences, truths, strict=True):
                difference = driven(world, commands, lag_s)[: len(truth)] - truth
                total += float(np.sum(difference**2 * [1.0, 1.0, HEADING_M**2]))
            errors.append(total)
    finally:
        world.close()
    return LAGS_S[int(np.argmin(errors))]


def trajectory_errors_m(spec: RobotSpec, walker: Walker, lag_s: float, count: int = 12) -> list[float]:
    """Metres between the kinematic and the walking robot at the end, after 5 s, of each of `count`
    `validation_sequences`; infinite where it fell.
    """
    world = World(dataclasses.replace(spec, lag_s=lag_s))
    try:
        world.load(_nowhere())
        errors = []
        for commands in validation_sequences(spec, count):
            truth, model = walked(walker, commands), driven(world, commands, lag_s)
            fell = len(truth) < len(model)
            errors.append(math.inf if fell else float(math.dist(model[-1, :2], truth[-1, :2])))
    finally:
        world.close()
    return errors


def _ticks(plan: Sequence[tuple[float, float, float, float]]) -> Sequence3:
    return [(vx, vy, yaw_rate) for vx, vy, yaw_rate, seconds in plan for _ in range(round(seconds / TICK_S))]


def _nowhere() -> Scene:
    return Scene("nowhere", (-50.0, -50.0, 50.0, 50.0), (0.0, 0.0, 0.0), (40.0, 40.0))
