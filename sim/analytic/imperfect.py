"""Errors of sensors and randomisation in a batch of worlds: world by world the very code of `sim.sensors`.

So an episode in a batch is, bit for bit, that of a `sim.env.NavigateEnv` with the same seed. It costs some 0.2 ms a
world and step; batches without errors leave it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from robonav.types import LidarSpec, Scene
from sim.actuation import Actuation
from sim.analytic.batch import AnalyticBatch, State
from sim.randomisation import CAMERA_KNOBS, LEG_KNOBS, RandomisationConfig, draw
from sim.sensor_config import SensorConfig
from sim.sensors import SensorSuite
from sim.world import World

Velocity = tuple[float, float, float]


class _View:
    """One world of a batch, as far as sensors look at it. Commands are taken down for later."""

    def __init__(self, worlds: AnalyticBatch, clean_m: NDArray[np.float32], b: int) -> None:
        self.spec, self.base_height_m = worlds.spec, worlds.base_height_m
        self.asked: list[tuple[Velocity, float]] = []
        self._worlds, self._clean_m, self._b = worlds, clean_m, b

    def advance(self, command: Any, duration_s: float) -> bool:
        """Only notes what is asked for."""
        self.asked.append((command, duration_s))
        return False

    def scan(self, spec: LidarSpec) -> NDArray[np.float32]:
        """(beams,) ranges, which were cast for the whole batch."""
        return self._clean_m[self._b].copy()

    @property
    def scene(self) -> Scene | None:
        return self._worlds.scenes[self._b]

    @property
    def x_m(self) -> float:
        return float(self._worlds.state.pose[self._b, 0])

    @property
    def y_m(self) -> float:
        return float(self._worlds.state.pose[self._b, 1])

    @property
    def yaw_rad(self) -> float:
        return float(self._worlds.state.pose[self._b, 2])

    @property
    def velocity(self) -> Velocity:
        vx, vy, yaw_rate = self._worlds.state.velocity[self._b].tolist()
        return vx, vy, yaw_rate

    @property
    def collided(self) -> bool:
        return bool(self._worlds.state.collided[self._b])


class Imperfect:
    """Sensors and actuation of B worlds."""

    def __init__(self, worlds: AnalyticBatch, sensors: SensorConfig, randomisation: RandomisationConfig) -> None:
        """Nothing drawn yet."""
        self._worlds, self._config = worlds, sensors
        self._randomisation = [randomisation] * worlds.batch
        self.clean_m = np.zeros((worlds.batch, worlds.spec.lidar.beams), np.float32)  # scans as cast
        self._views = [_View(worlds, self.clean_m, b) for b in range(worlds.batch)]
        self._suites = [SensorSuite(cast("World", view), depth=False, config=sensors) for view in self._views]
        self._actuations: list[Actuation | None] = [None] * worlds.batch
        self.mapped = np.zeros(worlds.batch, np.bool_)  # a scan arrived in this episode

    def randomise(self, b: int, randomisation: RandomisationConfig) -> None:
        """From the next episode of world b on."""
        self._randomisation[b] = randomisation

    def start(self, b: int, number: int) -> dict[str, Any]:
        """Begins episode `number` in world b, before its scene is put there; returns what was drawn."""
        drawn = draw(self._randomisation[b], self._config, number)
        lag_s = drawn.actuation.lag_s
        self._worlds.lag_s[b] = self._worlds.spec.lag_s if lag_s is None else lag_s
        self._actuations[b] = Actuation(drawn.actuation, number)
        self._suites[b].start(number, drawn.sensors)
        self.mapped[b] = False
        failure = self._suites[b].failure
        lost = {} if failure is None else failure.record()
        return lost | {name: value for name, value in drawn.record.items() if name not in CAMERA_KNOBS | LEG_KNOBS}

    def step(self, commands: NDArray[np.float64], active: NDArray[np.bool_]) -> State:
        """`AnalyticBatch.step` under commands (B, 3) that come late, scaled, and slip."""
        worlds, dt_s = self._worlds, self._worlds.spec.dt_s
        for b in np.flatnonzero(active).tolist():
            actuation, view = self._actuations[b], self._views[b]
            view.asked.clear()
            if actuation is not None:
                actuation.advance(view, tuple(commands[b].tolist()), dt_s)
        for k in range(max((len(view.asked) for view in self._views), default=0)):
            targets, durations = np.zeros_like(commands), np.zeros(worlds.batch)
            for b, view in enumerate(self._views):
                if active[b] and k < len(view.asked):
                    targets[b], durations[b] = view.asked[k]
            worlds.step(targets, durations > 0, durations)
        return worlds.state

    def read(
        self,
        worlds: NDArray[np.int64],
        steps: NDArray[np.int64],
        commands: NDArray[np.float32],
        out: dict[str, NDArray[Any]],
        has_scan: NDArray[np.float32],
    ) -> None:
        """Writes what the robots of these worlds measure; `has_scan` (B,) says in which of them a scan arrived."""
        dt_s = self._worlds.spec.dt_s
        for b in worlds.tolist():
            last: Sequence[float] = commands[b].tolist()
            seen = self._suites[b].read(round(int(steps[b]) * dt_s * 1e9), (last[0], last[1], last[2]))
            out["pose_odom_base"][b], out["twist_base"][b] = seen.pose_odom_base, seen.twist_base
            out["goal_odom_m"][b], out["tilt_rad"][b] = seen.goal_odom_m, seen.tilt_rad
            out["scan_m"][b] = 0.0 if seen.scan_m is None else seen.scan_m
            has_scan[b] = seen.scan_m is not None
            if seen.contact is not None:
                out["contact"][b] = seen.contact
        self.mapped[worlds] |= has_scan[worlds] > 0
