"""How fast the simulator is on this machine: steps of the environment a second, on one core."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np

import sim


def measure(
    scene: str = "rooms", robot: str = "a1", seconds: float = 5.0, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Runs the environment with steered random actions for `seconds` in each configuration.

    Returns for "sensors" (lidar only), "local_map" (lidar and mapping, what a policy trains on) and "depth" (the same
    with the camera): steps_per_s (without resets), total_per_s (with them), cpu_per_s (steps a second of processor
    time, resets included: what one core does when nothing else runs on it), reset_ms, step_ms_p50 and step_ms_p99.
    """
    cv2.setNumThreads(1)  # a figure for one core; the maps are too small for more anyway
    kinds: dict[str, dict[str, Any]] = {
        "sensors": {"policy_input": False},
        "local_map": {},
        "depth": {"depth": True},
    }
    return {name: _measure_one(scene, robot, seconds, seed, options) for name, options in kinds.items()}


def _measure_one(scene: str, robot: str, seconds: float, seed: int, options: dict[str, Any]) -> dict[str, float]:
    env = sim.make_env(scene, robot, **options)
    rng = np.random.default_rng(seed)
    step_s: list[float] = []
    reset_s: list[float] = []
    try:
        env.reset(seed=seed)  # warm: libraries load on the first use
        begin, begin_cpu = time.perf_counter(), time.process_time()
        over = True
        while time.perf_counter() - begin < seconds or not step_s:
            before = time.perf_counter()
            if over:
                env.reset()
                reset_s.append(time.perf_counter() - before)
                over = False
                continue
            action = rng.uniform([0.2, -0.3, -1.0], [1.0, 0.3, 1.0]).astype(np.float32)
            _, _, terminated, truncated, _ = env.step(action)
            step_s.append(time.perf_counter() - before)
            over = terminated or truncated
        total, total_cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    finally:
        env.close()
    return {
        "steps_per_s": len(step_s) / sum(step_s),
        "total_per_s": len(step_s) / total,
        "cpu_per_s": len(step_s) / total_cpu,
        "reset_ms": 1e3 * float(np.mean(reset_s)),
        "step_ms_p50": 1e3 * float(np.percentile(step_s, 50)),
        "step_ms_p99": 1e3 * float(np.percentile(step_s, 99)),
    }
