"""Sensors of the simulated robot: planar lidar, depth camera, IMU, odometry, contact.

`SensorSuite` reads all of them at a tick. How good they are, when they measure and when the robot hears of it is data
(`sim.sensor_config`); with the defaults every reading is perfect and of this very instant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.types import DepthSpec, Float, LidarSpec, Observation, RobotSpec
from sim import egl
from sim.bullet import STATIC_GROUP
from sim.sensor_config import Between, SensorConfig
from sim.sensor_errors import Odometry, depth_with_errors, scan_with_errors, tilt_with_errors
from sim.sensor_failures import Failure, draw_failure, without_sector
from sim.sensor_timing import Channel
from sim.world import World

if TYPE_CHECKING:
    from sim.rays import CompiledRays

DEPTH_NEAR_M = 0.05
BEAMS_MAX = 16383  # rayTestBatch of PyBullet 3.2.7 refuses more than 16384, for which it returns nothing at all
SENSORS = ("lidar", "depth", "imu", "odometry", "contact")
T = TypeVar("T")
_SALT = 0x73656E73  # keeps the sensors' streams of random numbers apart from the scene's
_LEVEL = (0.0, 0.0)


class Lidar:
    """Beams of a planar lidar: compiled where numba is installed and the base is level, else PyBullet's ray test.

    The robot is no static body, so the ray test's collision filter leaves it out. A world with a `scan` of its own
    answers for itself.
    """

    def __init__(self, spec: LidarSpec, robot: RobotSpec | None = None, analytic: bool = False) -> None:
        """Prepares the directions of the beams; without `robot`, PyBullet casts them, unless the world does itself.

        Raises:
            ConfigError: no beams, or more than PyBullet casts at once.
        """
        _check_lidar(spec, None if analytic else BEAMS_MAX)
        self.spec = spec
        self._rays: CompiledRays | None = None
        if robot is not None and not analytic and find_spec("numba") is not None:
            from sim.rays import CompiledRays

            self._rays = CompiledRays(robot)
        self._angles_rad = spec.angles_rad
        self._from = np.zeros((spec.beams, 3))
        self._to = np.zeros((spec.beams, 3))

    def scan(self, world: World) -> Float:
        """(beams,) ranges in metres from the mount; the range's limit where nothing is hit."""
        spec = self.spec
        own = getattr(world, "scan", None)
        if own is not None:
            return np.asarray(own(spec))
        roll, pitch = _tilt(world)
        if self._rays is not None and not (roll or pitch):
            return self._rays.scan(world, spec)
        x, y, yaw = world.pose_world
        x, y = x + spec.mount_x_m * math.cos(yaw), y + spec.mount_x_m * math.sin(yaw)
        z = world.base_height_m + spec.mount_z_m
        self._from[:] = x, y, z
        if roll or pitch:
            turn = _rotation(roll, pitch, yaw)
            flat = np.stack([np.cos(self._angles_rad), np.sin(self._angles_rad)])
            self._to[:] = self._from + spec.range_m * (turn[:, :2] @ flat).T
        else:
            angles = self._angles_rad + yaw
            self._to[:, 0] = x + spec.range_m * np.cos(angles)
            self._to[:, 1] = y + spec.range_m * np.sin(angles)
            self._to[:, 2] = z
        hits = world.bullet.rayTestBatch(
            self._from, self._to, numThreads=1, collisionFilterMask=STATIC_GROUP, physicsClientId=world.client
        )
        return np.array([hit[2] for hit in hits], np.float32) * np.float32(spec.range_m)


class DepthCamera:
    """Depth along the optical axis by PyBullet's renderer. The floor is added in closed form: it is flat."""

    def __init__(self, spec: DepthSpec, base_height_m: float, egl: bool = False) -> None:
        """Prepares the projection (`fov_rad` is horizontal) and the floor as the camera sees it on a level base.

        With `egl`, images come from the plug-in of `sim.egl`, which the world must have loaded before its scene.

        Raises:
            ConfigError: no pixels, or a field of view or range that cannot be.
        """
        _check_depth(spec)
        self.spec = spec
        self.renderer = "egl" if egl else "software"
        self.height_m = base_height_m + spec.mount_z_m
        self._far_m = spec.range_m + 0.5
        self._tan_x = tan_x = math.tan(spec.fov_rad / 2)
        self._tan_y = tan_y = tan_x * spec.height / spec.width
        near, far = DEPTH_NEAR_M, self._far_m
        # OpenGL's perspective matrix, column by column. TinyRenderer samples a pixel at its lower left corner; the two
        # offsets in the third column move the samples to the centres. A GPU samples there anyway.
        to_centre = (0.0, 0.0) if egl else (1 / spec.width, 1 / spec.height)
        self._projection = (
            *(1 / tan_x, 0.0, 0.0, 0.0),
            *(0.0, 1 / tan_y, 0.0, 0.0),
            *(*to_centre, -(far + near) / (far - near), -1.0),
            *(0.0, 0.0, -2 * far * near / (far - near), 0.0),
        )
        self.mount_error(0.0, 0.0, 0.0)

    def mount_error(self, roll_rad: float, pitch_rad: float, yaw_rad: float) -> None:
        """Turns the camera against where its mount ought to look: about its axis, nose down, to the left."""
        self._turn = (roll_rad, self.spec.mount_pitch_rad + pitch_rad, self.spec.mount_yaw_rad + yaw_rad)
        self._level_floor_m = self._floor_m(_rotation(*self._turn), self.height_m)

    def image(self, world: World) -> Float:
        """(height, width) depth in metres, at most the range."""
        spec, p = self.spec, world.bullet
        x, y, yaw = world.pose_world
        c, s = math.cos(yaw), math.sin(yaw)
        roll, pitch = _tilt(world)
        camera = _rotation(self._turn[0] + roll, self._turn[1] + pitch, self._turn[2] + yaw)
        z = world.base_height_m + spec.mount_z_m
        eye = (x + spec.mount_x_m * c - spec.mount_y_m * s, y + spec.mount_x_m * s + spec.mount_y_m * c, z)
        ahead, up = camera[:, 0].tolist(), camera[:, 2].tolist()
        view = p.computeViewMatrix(eye, (eye[0] + ahead[0], eye[1] + ahead[1], eye[2] + ahead[2]), up)
        image = p.getCameraImage(
            spec.width,
            spec.height,
            view,
            self._projection,
            renderer=p.ER_TINY_RENDERER if self.renderer == "software" else p.ER_BULLET_HARDWARE_OPENGL,
            flags=p.ER_NO_SEGMENTATION_MASK,
            physicsClientId=world.client,
        )
        buffer = np.asarray(image[3], np.float64).reshape(spec.height, spec.width)
        near, far = DEPTH_NEAR_M, self._far_m
        depth = far * near / (far - (far - near) * buffer)
        same = not (roll or pitch) and z == self.height_m
        floor = self._level_floor_m if same else self._floor_m(camera, z)
        return np.minimum(depth, floor).astype(np.float32)

    def _floor_m(self, camera: NDArray[np.float64], height_m: float) -> NDArray[np.float64]:
        """(height, width) depth of a flat floor; `camera` has the columns ahead, left, up in the world."""
        spec = self.spec
        right = -(1 - 2 * (np.arange(spec.width) + 0.5) / spec.width) * self._tan_x
        up = (1 - 2 * (np.arange(spec.height) + 0.5) / spec.height) * self._tan_y
        ahead_z, left_z, up_z = camera[2].tolist()
        down = -(ahead_z - right[None, :] * left_z + up[:, None] * up_z)  # fall of each pixel's ray a metre of depth
        floor = np.where(down > 0, height_m / np.maximum(down, 1e-9), np.inf)
        return np.minimum(floor, spec.range_m)


class SensorSuite:
    """All sensors of a robot. Odometry starts at the scene's start."""

    def __init__(self, world: World, depth: bool, config: SensorConfig | None = None, compiled: bool = True) -> None:
        """Sensors of the world's robot; the depth camera is rendered only if asked for.

        Without `compiled`, PyBullet casts the beams: slower, but there is no compiler to wait for at the first scan.

        Depth comes by EGL where that works and the world is still empty; see `sim.egl`.

        Raises:
            ConfigError: more beams than PyBullet casts at once, or a sensor without beams or pixels.
            MissingDependencyError: the config asks for EGL, and it does not work here.
        """
        self._world = world
        self.lidar = Lidar(world.spec.lidar, world.spec if compiled else None, analytic=hasattr(world, "scan"))
        self.camera: DepthCamera | None = None
        if depth:
            by_egl = world.scene is None and egl.wanted((config or SensorConfig()).depth.renderer)
            if by_egl:
                egl.load(world.bullet, world.client)
            self.camera = DepthCamera(world.spec.depth, world.base_height_m, by_egl)
        self.start(0, config)

    @property
    def renderer(self) -> str | None:
        """Of the depth camera: "software" or "egl"; None without a camera."""
        return None if self.camera is None else self.camera.renderer

    def start(self, seed: int, config: SensorConfig | None = None) -> None:
        """Begins an episode: its errors are a function of the seed, and a sensor's own of its config alone."""
        self.config = c = config or SensorConfig()
        self._begin_ns: int | None = None
        perfect = SensorConfig()
        # Two streams a sensor: one of its errors, one that says which frames get lost. Perfect ones need neither.
        self._rng = {
            name: np.random.default_rng([seed, _SALT, k])
            for k, name in enumerate(SENSORS)
            if name == "odometry" or getattr(c, name) != getattr(perfect, name)
        }
        self._odometry = Odometry(c.odometry, self._rng["odometry"])
        self._channels: dict[str, Channel[Any]] = {}
        for k, name in enumerate(SENSORS):
            timing = getattr(c, name)
            if timing == getattr(perfect, name):
                continue
            between: Between = getattr(timing, "between", "hold")
            stream = np.random.default_rng([seed, _SALT, len(SENSORS) + k])
            channel: Channel[Any] = Channel(
                stream, self._world.spec.dt_s, timing.rate_hz, timing.latency_s, timing.dropped, between
            )
            if not channel.immediate:
                self._channels[name] = channel
        # what is lost, drawn from a stream of its own, so that nothing else differs from an episode without a failure
        self.failure: Failure | None = draw_failure(c.failure, np.random.default_rng([seed, _SALT, 2 * len(SENSORS)]))
        if self.camera is not None:
            self.camera.mount_error(c.depth.roll_rad, c.depth.pitch_rad, c.depth.yaw_rad)

    def read(self, stamp_ns: int, last_command: tuple[float, float, float]) -> Observation:
        """The observation at this instant; every array is fresh."""
        world, c = self._world, self.config
        if world.scene is None:
            raise RuntimeError("SensorSuite.read before World.load")
        if self._begin_ns is None:
            self._begin_ns = stamp_ns
        now_ns = stamp_ns - self._begin_ns
        x0, y0, yaw0 = world.scene.start
        cos, sin = math.cos(yaw0), math.sin(yaw0)

        def to_odom(x: float, y: float) -> tuple[float, float]:
            dx, dy = x - x0, y - y0
            return cos * dx + sin * dy, cos * dy - sin * dx

        def moved() -> tuple[Float, Float]:
            true = (*to_odom(world.x_m, world.y_m), world.yaw_rad - yaw0)
            return self._odometry.pose(now_ns, true), self._odometry.twist(world.velocity)

        odometry = self._through("odometry", now_ns, moved)
        if odometry is None:
            raise RuntimeError("odometry is held between its readings, so there is always one")
        tilt = None if c.imu.missing else self._through("imu", now_ns, self._tilt)
        twist, scan = odometry[1], None if c.lidar.missing else self._through("lidar", now_ns, self._scan)
        if self.failure is not None:
            tilt = None if self.failure.lost("imu", now_ns) else tilt
            twist = np.zeros_like(twist) if self.failure.lost("twist", now_ns) else twist
            scan = None if self.failure.lost("lidar", now_ns) else scan
            if scan is not None and self.failure.lost("lidar-sector", now_ns):
                scan = without_sector(scan, self.lidar.spec, self.failure)
        return Observation(
            stamp_ns=stamp_ns,
            pose_odom_base=odometry[0].copy(),
            twist_base=twist.copy(),
            tilt_rad=np.zeros(2, np.float32) if tilt is None else tilt.copy(),
            goal_odom_m=np.array(to_odom(*world.scene.goal), np.float32),
            last_command=np.array(last_command, np.float32),
            scan_m=_copied(scan),
            depth_m=None if c.depth.missing else _copied(self._through("depth", now_ns, self._depth)),
            contact=None if c.contact.missing else _copied(self._through("contact", now_ns, self._contact)),
        )

    def _through(self, name: str, now_ns: int, measure: Callable[[], T]) -> T | None:
        """A sensor's newest reading at this tick, by way of its channel where it has one."""
        channel = self._channels.get(name)
        if channel is None:
            return measure()
        if channel.due(now_ns):
            channel.send(now_ns, measure())
        return channel.receive(now_ns)

    def _scan(self) -> Float:
        scan, errors = self.lidar.scan(self._world), self.config.lidar
        if not (errors.noise_m or errors.noise_share or errors.dropout):
            return scan
        return scan_with_errors(scan, self.lidar.spec.range_m, errors, self._rng["lidar"])

    def _depth(self) -> Float | None:
        if self.camera is None:
            return None
        image, errors = self.camera.image(self._world), self.config.depth
        if not (errors.noise_per_m or errors.holes or errors.edges):
            return image
        return depth_with_errors(image, self.camera.spec.range_m, errors, self._rng["depth"])

    def _tilt(self) -> Float:
        imu = self.config.imu
        if not (imu.noise_rad or any(imu.bias_rad)):
            return np.array(_tilt(self._world), np.float32)
        return tilt_with_errors(_tilt(self._world), imu.noise_rad, imu.bias_rad, self._rng["imu"])

    def _contact(self) -> Float:
        """(5,) the body, then the feet; a robot whose legs are not simulated stands on all four."""
        feet = getattr(self._world, "feet_down", (True,) * 4)
        return np.array([self._world.collided, *feet], np.float32)


def _check_lidar(spec: LidarSpec, most: int | None) -> None:
    least = 1 if spec.fov_rad >= 2 * math.pi - 1e-6 else 2  # one at either end of an arc
    if spec.beams < least:
        raise ConfigError(explain("lidar.beams", f"{least} or more", spec.beams))
    if most is not None and spec.beams > most:
        do = "take fewer, or fidelity 'analytic'"
        raise ConfigError(explain("lidar.beams", f"at most {most}, PyBullet's ray batch", spec.beams, do))
    if not (spec.range_m > 0 and spec.fov_rad > 0):
        raise ConfigError(explain("lidar", "a range and a field of view above 0", f"{spec.range_m}, {spec.fov_rad}"))


def _check_depth(spec: DepthSpec) -> None:
    if spec.width < 1 or spec.height < 1:
        raise ConfigError(explain("depth", "1 pixel or more each way", f"{spec.width} x {spec.height}"))
    if not 0 < spec.fov_rad < math.pi:
        raise ConfigError(explain("depth.fov_rad", "above 0 and below pi", spec.fov_rad))
    if not spec.range_m > DEPTH_NEAR_M:
        raise ConfigError(explain("depth.range_m", f"above {DEPTH_NEAR_M}", spec.range_m))


def _copied(reading: Float | None) -> Float | None:
    """A copy: a reading that is held goes out several times."""
    return None if reading is None else reading.copy()


def _tilt(world: Any) -> tuple[float, float]:
    """Roll and pitch of the base; worlds without legs have none."""
    return getattr(world, "tilt_rad", _LEVEL)


def _rotation(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """(3, 3) rotation whose columns are ahead, left and up of a body with these angles, in the world."""
    cr, sr, cp, sp, cy, sy = *(f(a) for a in (roll, pitch) for f in (math.cos, math.sin)), math.cos(yaw), math.sin(yaw)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
