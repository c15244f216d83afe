"""How fast the simulator is on this machine, in each fidelity and with all cores, and where its time goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import sim
from robonav.errors import ConfigError, explain, nearest
from robonav.types import RobotSpec
from sim.clocks import shares_of

KINDS: dict[str, dict[str, Any]] = {  # what one environment is made with
    "lidar": {},
    "lidar_depth": {"depth": True},
    "legged": {"fidelity": "legged"},
}
PARTS = ("analytic", *KINDS, "vector")
VECTOR_ENVS = 64
WARM_STEPS = 20
_LOW, _HIGH = (0.2, -0.3, -1.0), (1.0, 0.3, 1.0)  # of actions: ahead, with turns
Figures = dict[str, Any]


def measure(
    parts: Sequence[str] = PARTS,
    scene: str = "rooms",
    robot: str | RobotSpec = "a1",
    seconds: float = 2.0,
    rounds: int = 5,
    workers: int | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> Figures:
    """Steps environments with steered random actions; episodes that end begin anew in another scene.

    The parts take turns, round by round, so that what else the machine does falls on all of them. All have lidar,
    local map and route; "lidar", "lidar_depth" (camera of the robot's size) and "legged" are single environments,
    "analytic" is a batch, all on one core; "vector" is `VECTOR_ENVS` environments of "lidar" in worker processes.

    Args:
        parts: of `PARTS`.
        scene: preset.
        robot: name or data.
        seconds: of each part in each round.
        rounds: how many.
        workers: of "vector"; one a core if nothing is said.
        seed: of scenes and actions.
        report: told of each part when it is done.

    Returns:
        ``steps_per_s`` by part, medians over the rounds, resets included, and ``interval``, the slowest and the fastest
        round; ``cpu_per_s``, steps a second of processor time, for parts on one core; ``without_resets_per_s``,
        ``reset_ms``, ``step_ms_p50`` and ``step_ms_p99`` of the single environments; ``realtime``: simulated seconds a
        second of "legged", as ``median``, ``interval`` and ``peak``; ``vector``: the ``ratio`` to the same environments
        stepped one by one in this process, measured in turn, with ``ratio_interval``, ``one_process``, ``workers``,
        ``num_envs`` and ``cores``; ``share``: what the parts of a step take; ``analytic``: see
        `sim.analytic.bench.measure_analytic`.

    Raises:
        ConfigError: an unknown part, or a number that cannot be.
        MissingDependencyError: what a part needs is not installed.
    """
    for name in parts:
        if name not in PARTS:
            raise ConfigError(explain("parts", "parts of the benchmark", f"'{name}'", nearest(name, PARTS)))
    for name, value in {"seconds": seconds, "rounds": rounds, "workers": 1 if workers is None else workers}.items():
        if not value > 0:
            raise ConfigError(explain(name, "a number above 0", value))
    cv2.setNumThreads(1)  # a figure for one core; the maps are too small for more anyway
    measured: dict[str, list[Figures]] = {name: [] for name in PARTS if name in parts}
    singles = {name: _Single(name, scene, robot, seed) for name in KINDS if name in parts}
    pair = _Pair(scene, robot, workers, seed) if "vector" in parts else None
    try:
        for turn in range(rounds):
            for name, found in measured.items():
                if name == "analytic":
                    found.append(_analytic(scene, robot, seconds, seed))
                elif pair is not None and name == "vector":
                    found.append(pair.measure(seconds))
                else:
                    found.append(singles[name].measure(seconds))
                report(f"round {turn + 1} of {rounds}: {name} {found[-1]['steps_per_s']:.0f} steps/s")
        shares = {name: single.share() for name, single in singles.items()}
    finally:
        for single in singles.values():
            single.close()
        if pair is not None:
            pair.close()
    return _summary(measured, shares, 1.0 if not singles else next(iter(singles.values())).dt_s, seconds)


def _summary(measured: dict[str, list[Figures]], shares: dict[str, Any], dt_s: float, seconds: float) -> Figures:
    """The figures of all rounds as `measure` returns them."""

    def over(key: str) -> Figures:
        return {name: _median(found, key) for name, found in measured.items() if any(key in each for each in found)}

    figures: Figures = {
        "steps_per_s": over("steps_per_s"),
        "interval": {name: _interval(found, "steps_per_s") for name, found in measured.items()},
        "rounds": len(next(iter(measured.values()))) if measured else 0,
        "seconds": seconds,
    }
    for key in ("cpu_per_s", "without_resets_per_s", "reset_ms", "step_ms_p50", "step_ms_p99"):
        figures[key] = over(key)
    if "legged" in measured:
        low, high = _interval(measured["legged"], "steps_per_s")
        middle = figures["steps_per_s"]["legged"]
        figures["realtime"] = {"median": middle * dt_s, "interval": [low * dt_s, high * dt_s], "peak": high * dt_s}
    if "vector" in measured:
        found = measured["vector"]
        figures["vector"] = {key: found[0][key] for key in ("workers", "num_envs", "cores")} | {
            "one_process": _median(found, "one_process"),
            "ratio": _median(found, "ratio"),
            "ratio_interval": _interval(found, "ratio"),
        }
    if "analytic" in measured:
        last = measured["analytic"][-1]
        shares = {"analytic": last["share"], **shares}
        figures["analytic"] = {key: last[key] for key in ("batch", "lidar_per_s", "scene_ms")}
        figures["analytic"]["compile_s"] = measured["analytic"][0]["compile_s"]
    return figures | {"share": shares}


class _Single:
    """One environment."""

    def __init__(self, name: str, scene: str, robot: str | RobotSpec, seed: int) -> None:
        self._env = sim.make_env(scene, robot, **KINDS[name])
        self._rng = np.random.default_rng(seed)
        self.dt_s = self._env.robot.dt_s
        self._env.reset(seed=seed)
        self._over = False
        for _ in range(WARM_STEPS):  # libraries load and compile on the first use
            self._go(None, None)

    def measure(self, seconds: float) -> Figures:
        step_s: list[float] = []
        reset_s: list[float] = []
        begin, begin_cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < seconds or not step_s:
            self._go(step_s, reset_s)
        total_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
        figures = {
            "steps_per_s": len(step_s) / total_s,
            "cpu_per_s": len(step_s) / cpu_s,
            "without_resets_per_s": len(step_s) / sum(step_s),
            "step_ms_p50": 1e3 * float(np.percentile(step_s, 50)),
            "step_ms_p99": 1e3 * float(np.percentile(step_s, 99)),
        }
        return figures | ({"reset_ms": 1e3 * float(np.mean(reset_s))} if reset_s else {})

    def share(self, steps: int = 200) -> dict[str, float]:
        """What takes the time of steps and resets, by clocks round the calls."""
        env = self._env
        parts: dict[str, tuple[Any, str]] = {
            "scene_and_field": (env, "_make_ready"),
            "load": (env._world, "load"),
            "motion_and_contact": (env._world, "advance"),
            "lidar": (env._sensors.lidar, "scan"),
            "depth": (env._sensors.camera, "image"),
            "map_and_route": (env._inputs, "arrays"),
        }
        there = {name: place for name, place in parts.items() if place[0] is not None}

        def run() -> None:
            for _ in range(steps):
                self._go(None, None)

        return shares_of(there, run)

    def close(self) -> None:
        self._env.close()

    def _go(self, step_s: list[float] | None, reset_s: list[float] | None) -> None:
        """A step, or a reset where the episode is over; adds the time that it took."""
        begin = time.perf_counter()
        taken = reset_s if self._over else step_s
        if self._over:
            self._env.reset()
            self._over = False
        else:
            *_, terminated, truncated, _ = self._env.step(_actions(self._rng, ()))
            self._over = terminated or truncated
        if taken is not None:
            taken.append(time.perf_counter() - begin)


class _Pair:
    """The same environments in worker processes and in this one."""

    def __init__(self, scene: str, robot: str | RobotSpec, workers: int | None, seed: int) -> None:
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = min(workers or self._cores, VECTOR_ENVS)
        self._rng = np.random.default_rng(seed)
        self._many = sim.make_vec(VECTOR_ENVS, self._workers, scene=scene, robot=robot)
        self._one = sim.make_vec(VECTOR_ENVS, 0, scene=scene, robot=robot)
        for env in (self._many, self._one):
            env.reset(seed=seed)
            self._rate(env, 0.0)

    def measure(self, seconds: float) -> Figures:
        one, many = self._rate(self._one, seconds), self._rate(self._many, seconds)
        counts = {"workers": self._workers, "num_envs": VECTOR_ENVS, "cores": self._cores}
        return {"steps_per_s": many, "one_process": one, "ratio": many / one, **counts}

    def close(self) -> None:
        self._many.close()
        self._one.close()

    def _rate(self, env: Any, seconds: float) -> float:
        for _ in range(WARM_STEPS):
            env.step(_actions(self._rng, (VECTOR_ENVS,)))
        steps, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds or not steps:
            env.step(_actions(self._rng, (VECTOR_ENVS,)))
            steps += VECTOR_ENVS
        return steps / (time.perf_counter() - begin)


def _analytic(scene: str, robot: str | RobotSpec, seconds: float, seed: int) -> Figures:
    from sim.analytic.bench import measure_analytic

    return measure_analytic(scene, robot, seconds, seed)


def _actions(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.uniform(_LOW, _HIGH, (*shape, 3)).astype(np.float32)


def _median(found: Sequence[Figures], key: str) -> float:
    return float(np.median([figures[key] for figures in found if key in figures]))


def _interval(found: Sequence[Figures], key: str) -> list[float]:
    values = [figures[key] for figures in found]
    return [float(min(values)), float(max(values))]
