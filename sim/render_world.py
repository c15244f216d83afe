"""Pictures of an episode with the robot's meshes, in a PyBullet world of their own.

The meshes cost 17 ms an image whatever its size, so they stay out of the world that the depth camera sees.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec, Scene
from sim.bullet import import_pybullet
from sim.robot import load_standing, standing_height_m
from sim.world import add_obstacles

WALL_RGBA = (0.75, 0.72, 0.68, 1.0)
GOAL_RGBA = (0.15, 0.7, 0.25, 1.0)


class RenderWorld:
    """A scene, its goal and the standing robot, seen from behind or from above."""

    def __init__(self, spec: RobotSpec, width: int = 480, height: int = 360) -> None:
        """Connects a client and loads the robot with its meshes.

        Raises:
            SceneError: the robot's URDF is missing.
        """
        self._p = import_pybullet()
        self._size = (width, height)
        self._height_m = standing_height_m(spec)
        self._client: int = self._p.connect(self._p.DIRECT)
        self._robot = load_standing(self._p, self._client, spec)
        self._bodies: list[int] = []
        self._scene: Scene | None = None

    def frame(self, scene: Scene, pose_world: tuple[float, float, float], view: str = "chase") -> NDArray[np.uint8]:
        """(height, width, 3) picture with the robot at a pose; `view` is "chase" or "top"."""
        if scene is not self._scene:
            self._load(scene)
        x, y, yaw = pose_world
        self._p.resetBasePositionAndOrientation(
            self._robot,
            (x, y, self._height_m),
            (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)),
            physicsClientId=self._client,
        )
        width, height = self._size
        if view == "top":
            camera, projection = self._top(scene)
        else:
            c, s = math.cos(yaw), math.sin(yaw)
            eye, target = (x - 2.0 * c, y - 2.0 * s, 2.2), (x + 1.0 * c, y + 1.0 * s, 0.2)
            camera = self._p.computeViewMatrix(eye, target, (0, 0, 1))
            projection = self._p.computeProjectionMatrixFOV(60.0, width / height, 0.05, 40.0)
        image = self._p.getCameraImage(
            width,
            height,
            camera,
            projection,
            shadow=0,
            lightDirection=(2, 1, 4),
            renderer=self._p.ER_TINY_RENDERER,
            flags=self._p.ER_NO_SEGMENTATION_MASK,
            physicsClientId=self._client,
        )
        pixels = np.asarray(image[2], np.uint8).reshape(height, width, 4)
        return np.ascontiguousarray(pixels[..., :3])

    def close(self) -> None:
        """Disconnects; safe to call again."""
        if self._client >= 0:
            self._p.disconnect(physicsClientId=self._client)
            self._client = -1

    def _top(self, scene: Scene) -> tuple[Any, Any]:
        x_min, y_min, x_max, y_max = scene.bounds_m
        centre = ((x_min + x_max) / 2, (y_min + y_max) / 2)
        width, height = self._size
        half = max((y_max - y_min) / 2, (x_max - x_min) / 2 * height / width) * 1.05
        up = 30.0
        camera = self._p.computeViewMatrix((*centre, up), (*centre, 0), (0, 1, 0))
        fov = 2 * math.degrees(math.atan(half / (up - scene.height_m)))
        return camera, self._p.computeProjectionMatrixFOV(fov, width / height, 1.0, 40.0)

    def _load(self, scene: Scene) -> None:
        for body in self._bodies:
            self._p.removeBody(body, physicsClientId=self._client)
        self._bodies = add_obstacles(self._p, self._client, scene, WALL_RGBA)
        disc = self._p.createVisualShape(
            self._p.GEOM_CYLINDER,
            radius=scene.goal_radius_m,
            length=0.02,
            rgbaColor=GOAL_RGBA,
            physicsClientId=self._client,
        )
        goal = self._p.createMultiBody(0.0, -1, disc, basePosition=(*scene.goal, 0.01), physicsClientId=self._client)
        x_min, y_min, x_max, y_max = scene.bounds_m
        slab = self._p.createVisualShape(
            self._p.GEOM_BOX,
            halfExtents=[(x_max - x_min) / 2, (y_max - y_min) / 2, 0.01],
            rgbaColor=(0.93, 0.94, 0.95, 1.0),
            physicsClientId=self._client,
        )
        centre = ((x_min + x_max) / 2, (y_min + y_max) / 2, -0.02)
        floor = self._p.createMultiBody(0.0, -1, slab, basePosition=centre, physicsClientId=self._client)
        self._bodies += [int(goal), int(floor)]
        self._scene = scene
