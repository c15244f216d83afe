"""Movers of one scene as kinematic bodies in a PyBullet client, for any world that has a robot in it.

They have no mass, so lidar beams, the depth camera and distance queries see them as they see the walls.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robonav.types import Mover, RobotSpec, Scene
from sim.mover_kernels import advance_world
from sim.movers import Records, initial_state, movers_of, static_shapes_of

COLOURS = {
    "pedestrian": (0.85, 0.35, 0.15, 1.0),
    "door": (0.55, 0.4, 0.25, 1.0),
    "robot": (0.2, 0.35, 0.6, 1.0),
}


class MoverBodies:
    """Bodies and state of a scene's movers. `advance` moves the state, `place` the bodies."""

    def __init__(self, bullet: Any, client: int, scene: Scene, colours: bool = False) -> None:
        """Creates a body for each mover at its start; with `colours` for pictures. `ids` are PyBullet's numbers."""
        self._p, self._client = bullet, client
        movers, shapes = movers_of([scene]), static_shapes_of([scene])
        self.table, self._ways_m = movers.table[0], movers.ways_m[0]
        self._solids = (shapes.boxes[0], shapes.cylinders[0], shapes.bounds_m[0])
        self._robot = np.zeros(8)
        self.state: Records = initial_state(movers)[0]  # (M,) of sim.movers.STATE
        self._half_z_m = [m.height_m / 2 for m in scene.movers]
        self.ids = [self._body(m, self.table[i], colours) for i, m in enumerate(scene.movers)]
        self.place()

    def advance(
        self,
        pose_world: tuple[float, float, float],
        velocity_base: tuple[float, float, float],
        spec: RobotSpec,
        dt_s: float,
    ) -> float:
        """Moves the state on in the presence of a robot; returns metres that no point of any mover exceeded."""
        c, s = math.cos(pose_world[2]), math.sin(pose_world[2])
        vx, vy, yaw_rate = velocity_base
        half_l, half_w = spec.length_m / 2, spec.width_m / 2
        # As sim.movers.robots_of, for one robot.
        self._robot[:] = (*pose_world, c * vx - s * vy, s * vx + c * vy, yaw_rate, half_l, half_w)
        moved: float = advance_world(self.table, self._ways_m, self.state, *self._solids, self._robot, float(dt_s))
        return moved

    def place(self, state: Records | None = None) -> None:
        """Puts the bodies where the state says, or where another one does."""
        now = self.state if state is None else state
        for body, x, y, yaw, z in zip(
            self.ids, now["x"].tolist(), now["y"].tolist(), now["yaw"].tolist(), self._half_z_m, strict=True
        ):
            turn = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
            self._p.resetBasePositionAndOrientation(body, (x, y, z), turn, physicsClientId=self._client)

    def _body(self, mover: Mover, record: Any, colours: bool) -> int:
        if mover.box_m is None:
            shape = self._p.createCollisionShape(
                self._p.GEOM_CYLINDER, radius=mover.radius_m, height=mover.height_m, physicsClientId=self._client
            )
        else:
            half = [float(record["half_length_m"]), float(record["half_width_m"]), mover.height_m / 2]
            shape = self._p.createCollisionShape(self._p.GEOM_BOX, halfExtents=half, physicsClientId=self._client)
        body = int(self._p.createMultiBody(0.0, shape, physicsClientId=self._client))
        if colours:
            self._p.changeVisualShape(body, -1, rgbaColor=COLOURS[mover.kind], physicsClientId=self._client)
        return body
