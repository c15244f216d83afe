"""How fast the batch simulator is on one core of this machine, and where its time goes."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec
from sim.analytic.env import AnalyticVectorEnv
from sim.clocks import shares_of

BATCH = 256
POOL = 256
WARM_STEPS = 20
PARTS_STEPS = 20


def measure_analytic(
    scene: str = "rooms",
    robot: str | RobotSpec = "a1",
    seconds: float = 5.0,
    seed: int = 0,
    batch: int = BATCH,
    pool: int = POOL,
) -> dict[str, Any]:
    """Steps a batch with steered random actions for `seconds`; episodes that end begin anew in a scene of the pool.

    Returns:
        steps_per_s (steps of a world a second with lidar, map, crop, route, reward, and resets), cpu_per_s (the same
        a second of processor time), lidar_per_s (without map, crop and route), scene_ms (making one scene of the pool
        ready, which none of these holds), compile_s (until the first step of one world; little once numba's cache is
        there), and `share`: of the time of a step, what motion and contact, lidar, map and route, crop and waypoints,
        and the rest (rewards, resets, infos) take.
    """
    cv2.setNumThreads(1)  # as in sim.bench
    rng = np.random.default_rng(seed)
    begin = time.perf_counter()
    first = AnalyticVectorEnv(1, scene, robot)
    first.reset(seed=seed)
    first.step(_actions(rng, 1))
    compile_s = time.perf_counter() - begin
    env = AnalyticVectorEnv(batch, scene, robot, pool=pool, copy=False)
    sensors = AnalyticVectorEnv(batch, scene, robot, pool=pool, copy=False, policy_input=False)
    try:
        begin = time.perf_counter()
        env.pools[0].fill()
        scene_s = (time.perf_counter() - begin) / max(pool, 1)
        sensors.pools[0].take_over(env.pools[0])
        env.reset(seed=seed)
        sensors.reset(seed=seed)
        all_per_s, cpu_per_s = _rate(env, rng, seconds * 0.8)
        lidar_per_s, _ = _rate(sensors, rng, seconds * 0.2)
        share = _share(env, rng)
    finally:
        env.close()
        sensors.close()
    return {
        "steps_per_s": all_per_s,
        "cpu_per_s": cpu_per_s,
        "lidar_per_s": lidar_per_s,
        "batch": batch,
        "scene_ms": 1e3 * scene_s,
        "compile_s": compile_s,
        "share": share,
    }


def _actions(rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
    """As in `sim.bench`: ahead, with turns."""
    return rng.uniform([0.2, -0.3, -1.0], [1.0, 0.3, 1.0], (batch, 3)).astype(np.float32)


def _rate(env: AnalyticVectorEnv, rng: np.random.Generator, seconds: float) -> tuple[float, float]:
    """Steps of a world a second of the clock, and of the processor."""
    for _ in range(WARM_STEPS):  # episodes come apart, and maps grow
        env.step(_actions(rng, env.num_envs))
    steps, begin, begin_cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds or not steps:
        env.step(_actions(rng, env.num_envs))
        steps += env.num_envs
    return steps / (time.perf_counter() - begin), steps / (time.process_time() - begin_cpu)


def _share(env: AnalyticVectorEnv, rng: np.random.Generator) -> dict[str, float]:
    """What the parts of a step take, as shares of the whole, by clocks round the calls."""
    parts: dict[str, tuple[Any, str]] = {"motion": (env.worlds, "step"), "lidar": (env.worlds, "scan")}
    if env.tracker is not None:
        parts |= {"map_and_route": (env.tracker, "update"), "crop_and_waypoints": (env.tracker, "policy_input")}

    def run() -> None:
        for _ in range(PARTS_STEPS):
            env.step(_actions(rng, env.num_envs))

    return shares_of(parts, run)
