"""Drivers without a robot: one that stands still, and a kinematic disc in an empty room. For tests and dry runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.drivers.limits import permitted
from deploy.timing import Clock, now_ns
from robonav.config import load_robot
from robonav.errors import LinkError, RobonavError
from robonav.geometry import wrap_angle
from robonav.types import LidarSpec, Observation, RobotSpec, VelocityCommand

STEP_NS = 20_000_000
CATCH_UP_MAX_NS = 2_000_000_000  # a process that was suspended for longer finds the robot where it left it


class PointDriver:
    """A robot that follows velocities with the robot's lag in an empty square room, with an exact lidar.

    Args:
        robot: preset's name or path.
        goal_m: (x, y) in odom; the start is (0, 0, 0) in the room's middle.
        room_m: the room's side.
        speed_scale: 0 makes a robot that stands still.
        fail_after_s: reading fails after this many seconds, to see what the rest does; 0 is never.
        clock: for tests.
    """

    def __init__(
        self,
        robot: str = "a1",
        goal_m: tuple[float, float] = (2.0, 0.5),
        room_m: float = 10.0,
        speed_scale: float = 1.0,
        fail_after_s: float = 0.0,
        clock: Clock = now_ns,
    ) -> None:
        self.spec: RobotSpec = load_robot(robot)
        self._goal = np.asarray(goal_m, np.float32)
        self._room_m = float(room_m)
        self._scale = float(speed_scale)
        self._fail_after_s = float(fail_after_s)
        self._clock = clock
        self._pose = np.zeros(3)
        self._twist = np.zeros(3)
        self._target = np.zeros(3)
        self._valid_until_ns = 0
        self._started_ns = self._moved_ns = clock()
        self._connected = self._armed = False

    def connect(self) -> None:
        """Puts the robot at rest where it is; again while connected, it does nothing."""
        if not self._connected:
            self._moved_ns = self._clock()
        self._connected = True

    def arm(self) -> None:
        """Time begins; commands before this have no effect."""
        self._check_connected()
        self._started_ns = self._moved_ns = self._clock()
        self._armed = True

    def read(self) -> Observation:
        """Moves the robot to now and observes it.

        Raises:
            LinkError: not connected.
            RobonavError: `fail_after_s` are over.
        """
        self._check_connected()
        now = self._clock()
        if self._fail_after_s and (now - self._started_ns) * 1e-9 > self._fail_after_s:
            raise RobonavError("point robot: the sensor failed, as it was told to")
        self._move(now)
        return Observation(
            stamp_ns=now,
            pose_odom_base=self._pose.astype(np.float32),
            twist_base=self._twist.astype(np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=self._goal.copy(),
            last_command=(self._target if now < self._valid_until_ns else np.zeros(3)).astype(np.float32),
            scan_m=room_scan(self._pose, self._room_m, self.spec.lidar),
        )

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """Takes a velocity within the robot's limits and returns it; standstill if unarmed, late or not finite.

        Raises:
            LinkError: not connected.
        """
        self._check_connected()
        now = self._clock()
        self._move(now)
        applied = permitted(self.spec, command, now, self._armed) * self._scale
        self._target, self._valid_until_ns = applied, command.valid_until_ns
        return VelocityCommand.of(applied, command.valid_until_ns)

    def stop(self, level: str = "soft") -> None:
        """Ramps to standstill by the lag, or stands at once."""
        self._move(self._clock())
        self._target = np.zeros(3)
        if level == "hard":
            self._twist = np.zeros(3)

    def disconnect(self) -> None:
        """Stops; safe to call again."""
        self.stop("hard")
        self._connected = self._armed = False

    def _check_connected(self) -> None:
        if not self._connected:
            raise LinkError("point robot: not connected; call connect() first")

    def _move(self, now: int) -> None:
        if now - self._moved_ns > CATCH_UP_MAX_NS:
            self._moved_ns = now - CATCH_UP_MAX_NS
        while self._moved_ns < now:
            target = self._target if self._moved_ns < self._valid_until_ns else np.zeros(3)
            step_ns = min(now - self._moved_ns, STEP_NS)
            self._moved_ns += step_ns
            step_s = step_ns * 1e-9
            self._twist += (target - self._twist) * (1 - np.exp(-step_s / self.spec.lag_s))
            c, s = np.cos(self._pose[2]), np.sin(self._pose[2])
            vx, vy, yaw_rate = self._twist
            self._pose += step_s * np.array([c * vx - s * vy, s * vx + c * vy, yaw_rate])
        self._pose[2] = wrap_angle(self._pose[2])


class NullDriver(PointDriver):
    """A robot that never moves; everything else runs as with a real one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "speed_scale": 0.0})


def room_scan(pose: NDArray[np.float64], room_m: float, lidar: LidarSpec) -> NDArray[np.float32]:
    """(beams,) ranges to the walls of a square room round the origin, capped at the lidar's range."""
    angles = pose[2] + lidar.angles_rad
    direction = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    origin = pose[:2] + lidar.mount_x_m * np.array([np.cos(pose[2]), np.sin(pose[2])])
    parallel = np.abs(direction) < 1e-12
    distance = (np.sign(direction) * room_m / 2 - origin) / np.where(parallel, 1.0, direction)
    distance = np.where(parallel | (distance <= 0), np.inf, distance)
    return np.minimum(distance.min(axis=1), lidar.range_m).astype(np.float32)
