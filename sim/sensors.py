"""Sensors of the simulated robot: planar lidar, depth camera, odometry."""

from __future__ import annotations

import math

import numpy as np

from robonav.geometry import wrap_angle
from robonav.types import DepthSpec, Float, LidarSpec, Observation
from sim.bullet import STATIC_GROUP
from sim.world import World

DEPTH_NEAR_M = 0.05


class Lidar:
    """Beams by PyBullet's ray test. The robot is no static body, so the collision filter leaves it out."""

    def __init__(self, spec: LidarSpec) -> None:
        """Prepares the directions of the beams."""
        self.spec = spec
        self._angles_rad = spec.angles_rad
        self._from = np.zeros((spec.beams, 3))
        self._to = np.zeros((spec.beams, 3))

    def scan(self, world: World) -> Float:
        """(beams,) ranges in metres from the mount; the range's limit where nothing is hit."""
        spec = self.spec
        x, y, yaw = world.pose_world
        x, y = x + spec.mount_x_m * math.cos(yaw), y + spec.mount_x_m * math.sin(yaw)
        z = world.base_height_m + spec.mount_z_m
        angles = self._angles_rad + yaw
        self._from[:] = x, y, z
        self._to[:, 0] = x + spec.range_m * np.cos(angles)
        self._to[:, 1] = y + spec.range_m * np.sin(angles)
        self._to[:, 2] = z
        hits = world.bullet.rayTestBatch(
            self._from, self._to, numThreads=1, collisionFilterMask=STATIC_GROUP, physicsClientId=world.client
        )
        return np.array([hit[2] for hit in hits], np.float32) * np.float32(spec.range_m)


class DepthCamera:
    """Depth along the optical axis by PyBullet's software renderer. The floor is added in closed form: it is flat."""

    def __init__(self, spec: DepthSpec, base_height_m: float) -> None:
        """Prepares the projection (`fov_rad` is horizontal) and the floor as the level camera sees it."""
        self.spec = spec
        self.height_m = base_height_m + spec.mount_z_m
        self._far_m = spec.range_m + 0.5
        tan_x = math.tan(spec.fov_rad / 2)
        tan_y = tan_x * spec.height / spec.width
        near, far = DEPTH_NEAR_M, self._far_m
        # OpenGL's perspective matrix, column by column. TinyRenderer samples a pixel at its lower left corner; the two
        # offsets in the third column move the samples to the centres.
        self._projection = (
            *(1 / tan_x, 0.0, 0.0, 0.0),
            *(0.0, 1 / tan_y, 0.0, 0.0),
            *(1 / spec.width, 1 / spec.height, -(far + near) / (far - near), -1.0),
            *(0.0, 0.0, -2 * far * near / (far - near), 0.0),
        )
        down = -(1 - 2 * (np.arange(spec.height) + 0.5) / spec.height) * tan_y  # slope of each row below the horizon
        floor = np.where(down > 0, self.height_m / np.maximum(down, 1e-9), np.inf)
        self._floor_m = np.minimum(floor, spec.range_m)[:, None]  # (height, 1)

    def image(self, world: World) -> Float:
        """(height, width) depth in metres, at most the range."""
        spec, p = self.spec, world.bullet
        x, y, yaw = world.pose_world
        c, s = math.cos(yaw), math.sin(yaw)
        eye = (x + spec.mount_x_m * c, y + spec.mount_x_m * s, self.height_m)
        view = p.computeViewMatrix(eye, (eye[0] + c, eye[1] + s, eye[2]), (0.0, 0.0, 1.0))
        image = p.getCameraImage(
            spec.width,
            spec.height,
            view,
            self._projection,
            renderer=p.ER_TINY_RENDERER,
            flags=p.ER_NO_SEGMENTATION_MASK,
            physicsClientId=world.client,
        )
        buffer = np.asarray(image[3], np.float64).reshape(spec.height, spec.width)
        near, far = DEPTH_NEAR_M, self._far_m
        depth = far * near / (far - (far - near) * buffer)
        return np.minimum(depth, self._floor_m).astype(np.float32)


class SensorSuite:
    """All sensors of a robot, read at one instant. Odometry starts at the scene's start and does not drift."""

    def __init__(self, world: World, depth: bool) -> None:
        """Sensors of the world's robot; the depth camera is rendered only if asked for."""
        self._world = world
        self._lidar = Lidar(world.spec.lidar)
        self._depth = DepthCamera(world.spec.depth, world.base_height_m) if depth else None

    def read(self, stamp_ns: int, last_command: tuple[float, float, float]) -> Observation:
        """The observation at this instant; every array is fresh."""
        world = self._world
        if world.scene is None:
            raise RuntimeError("SensorSuite.read before World.load")
        x0, y0, yaw0 = world.scene.start
        c, s = math.cos(yaw0), math.sin(yaw0)

        def to_odom(x: float, y: float) -> tuple[float, float]:
            dx, dy = x - x0, y - y0
            return c * dx + s * dy, c * dy - s * dx

        yaw = float(wrap_angle(world.yaw_rad - yaw0))
        return Observation(
            stamp_ns=stamp_ns,
            pose_odom_base=np.array((*to_odom(world.x_m, world.y_m), yaw), np.float32),
            twist_base=np.array(world.velocity, np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.array(to_odom(*world.scene.goal), np.float32),
            last_command=np.array(last_command, np.float32),
            scan_m=self._lidar.scan(world),
            depth_m=self._depth.image(world) if self._depth else None,
        )
