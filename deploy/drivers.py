"""Drivers without a robot: one that stands still, and a kinematic disc in an empty room. For tests and dry runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.timing import Clock, now_ns
from robonav.config import load_robot
from robonav.errors import RobonavError
from robonav.geometry import wrap_angle
from robonav.types import LidarSpec, Observation, RobotSpec, VelocityCommand


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
        self._applied = np.zeros(3)
        self._valid_until_ns = 0
        self._started_ns = self._moved_ns = clock()

    def connect(self) -> None:
        """Nothing to open."""

    def arm(self) -> None:
        """Time begins."""
        self._started_ns = self._moved_ns = self._clock()

    def read(self) -> Observation:
        """Moves the robot to now and observes it."""
        now = self._clock()
        if self._fail_after_s and (now - self._started_ns) * 1e-9 > self._fail_after_s:
            raise RobonavError("point robot: the sensor failed, as it was told to")
        self._move(now)
        return Observation(
            stamp_ns=now,
            pose_odom_base=self._pose.astype(np.float32),
            twist_base=self._twist.astype(np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=self._goal,
            last_command=self._applied.astype(np.float32),
            scan_m=room_scan(self._pose, self._room_m, self.spec.lidar),
        )

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """Takes a velocity, within the robot's limits."""
        self._move(self._clock())
        applied = self.spec.action_to_velocity(self.spec.velocity_to_action(command.velocity)) * self._scale
        self._target, self._applied, self._valid_until_ns = applied, applied, command.valid_until_ns
        return VelocityCommand.of(applied, command.valid_until_ns)

    def stop(self, level: str = "soft") -> None:
        """Ramps to standstill by the lag, or stands at once."""
        self._target, self._applied = np.zeros(3), np.zeros(3)
        if level == "hard":
            self._twist = np.zeros(3)

    def disconnect(self) -> None:
        """Stops."""
        self.stop("hard")

    def _move(self, now: int) -> None:
        remaining_s = max(0.0, (now - self._moved_ns) * 1e-9)
        self._moved_ns = now
        target = self._target if now <= self._valid_until_ns else np.zeros(3)
        while remaining_s > 1e-9:
            step_s = min(remaining_s, 0.02)
            remaining_s -= step_s
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
