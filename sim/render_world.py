"""Pictures of an episode with the robot's meshes, in a PyBullet world of their own.

The meshes cost 17 ms an image whatever its size, so they stay out of the world that the depth camera sees.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec, Scene
from sim.bullet import import_pybullet
from sim.robot import Posture, load_standing, standing_height_m
from sim.terrain import add_terrain
from sim.world import add_obstacles

if TYPE_CHECKING:
    from sim.mover_bodies import MoverBodies

WALL_RGBA = (0.75, 0.72, 0.68, 1.0)
GOAL_RGBA = (0.15, 0.7, 0.25, 1.0)
TERRAIN_RGBA = (0.85, 0.78, 0.62, 1.0)
LINE_RGBA = (0.7, 0.74, 0.78, 1.0)
CLEAR_OF_WALLS_M = 1.1  # height of a camera that no wall takes in
LINES_MAX = 30  # on the floor, along each axis


class RenderWorld:
    """A scene, its goal, its movers and the standing robot, seen from behind or from above."""

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
        self._movers: MoverBodies | None = None

    def frame(
        self,
        scene: Scene,
        pose_world: tuple[float, float, float],
        view: str = "chase",
        movers: NDArray[Any] | None = None,
        posture: Posture | None = None,
    ) -> NDArray[np.uint8]:
        """(height, width, 3) picture with the robot at a pose; `view` is "chase", "close" or "top".

        `movers` are records of `sim.movers.STATE`; without them the movers stand where they start. With a `posture`
        the robot walks in the picture, without one it stands upright.
        """
        if scene is not self._scene:
            self._load(scene)
        if self._movers is not None and movers is not None:
            self._movers.place(movers)
        x, y, yaw = pose_world
        upright = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
        (posture or Posture((x, y, self._height_m), upright, {})).take(self._p, self._client, self._robot)
        width, height = self._size
        if view == "top":
            camera, projection = self._top(scene)
        elif view == "close":
            camera, projection = self._close((x, y, yaw), posture)
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
            lightAmbientCoeff=0.65,
            lightDiffuseCoeff=0.35,
            lightSpecularCoeff=0.02,
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

    def _close(self, pose_world: tuple[float, float, float], posture: Posture | None) -> tuple[Any, Any]:
        """From behind, a little to the left, and above the walls, near enough to see the legs."""
        x, y, yaw = pose_world
        c, s, h = math.cos(yaw - 0.5), math.sin(yaw - 0.5), self._height_m
        floor = 0.0 if posture is None else posture.position_m[2] - h
        above = max(2.6 * h, CLEAR_OF_WALLS_M)
        ahead = 1.2 * h
        eye = (x - 3.8 * h * c, y - 3.8 * h * s, floor + above)
        target = (x + ahead * math.cos(yaw), y + ahead * math.sin(yaw), floor + 0.7 * h)
        width, height = self._size
        camera = self._p.computeViewMatrix(eye, target, (0, 0, 1))
        return camera, self._p.computeProjectionMatrixFOV(58.0, width / height, 0.05, 40.0)

    def _floor_lines(self, scene: Scene) -> list[int]:
        """Lines on the floor, a metre apart or more, by which motion is seen."""
        x_min, y_min, x_max, y_max = scene.bounds_m
        middle, half = ((x_min + x_max) / 2, (y_min + y_max) / 2), ((x_max - x_min) / 2, (y_max - y_min) / 2)
        bodies = []
        for axis in (0, 1):
            extents = [half[0], half[1], 0.002]
            extents[axis] = 0.008
            line = self._p.createVisualShape(
                self._p.GEOM_BOX, halfExtents=extents, rgbaColor=LINE_RGBA, physicsClientId=self._client
            )
            apart = max(1.0, 2 * half[axis] / LINES_MAX)
            for k in range(math.floor(2 * half[axis] / apart) + 1):
                place = [*middle, -0.008]
                place[axis] += k * apart - half[axis]
                bodies.append(
                    int(self._p.createMultiBody(0.0, -1, line, basePosition=place, physicsClientId=self._client))
                )
        return bodies

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
        self._bodies += [int(goal), int(floor), *add_terrain(self._p, self._client, scene, TERRAIN_RGBA)]
        self._bodies += self._floor_lines(scene)
        self._movers = None
        if scene.movers:
            from sim.mover_bodies import MoverBodies

            self._movers = MoverBodies(self._p, self._client, scene, colours=True)
            self._bodies += self._movers.ids
        self._scene = scene
