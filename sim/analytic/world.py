"""One analytic world behind the interface of `sim.world.World`, without PyBullet and what only that can do.

It has `load`, `place`, `advance`, pose, velocity, path, clearance, contact, lag and the movers' state, and scans for
itself, which `sim.sensors.Lidar` makes use of; `sim.fidelity.make_world` gives it to `sim.env.NavigateEnv`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.types import LidarSpec, RobotSpec, Scene
from sim.analytic.batch import AnalyticBatch
from sim.world import WorldConfig

Velocity = tuple[float, float, float]


class AnalyticWorld:
    """A batch of one world."""

    def __init__(self, spec: RobotSpec, config: WorldConfig | None = None) -> None:
        """An empty world.

        Raises:
            ShapeError: a config that asks for the robot's links.
        """
        self.spec = spec
        self.config = config or WorldConfig()
        self.scene: Scene | None = None
        self._batch = AnalyticBatch(spec, 1, self.config)
        self.base_height_m = self._batch.base_height_m

    def load(self, scene: Scene) -> None:
        """Puts the obstacles of a scene into the world and the robot at its start, at rest."""
        self.scene = scene
        self._batch.reset([0], [scene])

    def place(self, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Sets the robot's pose in the world frame and looks for contact there."""
        self._batch.state.pose[0] = x_m, y_m, yaw_rad
        self._batch.measure([0])

    @property
    def x_m(self) -> float:
        """Place of the base in the world."""
        return float(self._batch.state.pose[0, 0])

    @property
    def y_m(self) -> float:
        """Place of the base in the world."""
        return float(self._batch.state.pose[0, 1])

    @property
    def yaw_rad(self) -> float:
        """Heading of the base in the world, not wrapped."""
        return float(self._batch.state.pose[0, 2])

    @property
    def pose_world(self) -> tuple[float, float, float]:
        """(x, y, yaw) of the base in the world frame; yaw is not wrapped."""
        x, y, yaw = self._batch.state.pose[0].tolist()
        return x, y, yaw

    @property
    def velocity(self) -> Velocity:
        """(vx, vy, yaw rate), in base."""
        vx, vy, yaw_rate = self._batch.state.velocity[0].tolist()
        return vx, vy, yaw_rate

    @velocity.setter
    def velocity(self, value: Velocity) -> None:
        self._batch.state.velocity[0] = value

    @property
    def path_m(self) -> float:
        """Length of the way driven so far."""
        return float(self._batch.state.path_m[0])

    @property
    def collided(self) -> bool:
        """True once the robot has touched something."""
        return bool(self._batch.state.collided[0])

    @property
    def clearance_m(self) -> float:
        """Distance from the footprint to the nearest shape, at most `clearance_range_m`, 0 in contact."""
        return float(self._batch.state.clearance_m[0])

    @property
    def mover_state(self) -> NDArray[Any] | None:
        """Records of `sim.movers.STATE`, where the scene has movers."""
        movers = self._batch.mover_state
        return None if movers is None or self.scene is None else movers[0, : len(self.scene.movers)]

    @property
    def lag_s(self) -> float:
        """Of the first-order response; the robot's own unless it is set."""
        return float(self._batch.lag_s[0])

    @lag_s.setter
    def lag_s(self, value: float) -> None:
        self._batch.lag_s[0] = value

    def advance(self, command: Velocity | NDArray[Any], duration_s: float) -> bool:
        """Follows a velocity command (vx, vy, yaw rate in the base frame) for a while; True once there is contact."""
        self._batch.step(np.array([command], np.float64), duration_s=duration_s)
        return self.collided

    def scan(self, spec: LidarSpec) -> NDArray[np.float32]:
        """(beams,) ranges in metres from the mount; the range's limit where nothing is hit."""
        return self._batch.scan(spec)[0]

    def close(self) -> None:
        """Nothing to let go of; here since other worlds have it."""
