"""The driver of the drill's robot, with sensors that can be made to fail.

It drives round the middle of an empty room for ever: its goal is a carrot ahead on a circle.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from deploy.drill.shared import BODY_FILE, BODY_SOCKET, STATE, SWITCH, SWITCH_FILE, shared
from deploy.drivers import room_scan
from deploy.timing import now_ns
from robonav.config import load_robot
from robonav.types import Observation, RobotSpec, VelocityCommand

Sensor = Literal["well", "frozen", "frozen all", "absent", "hung", "nan", "negative", "random", "blind"]
SENSORS: tuple[str, ...] = get_args(Sensor)
ROOM_M, CIRCLE_M, AHEAD_RAD = 12.0, 2.5, 1.0


class DrillDriver:
    """A `robonav.types.Driver` of the body in `folder`; what it sees is broken as the switch there says."""

    arrived = False  # it goes on for ever
    collided = False

    def __init__(self, folder: str, robot: str = "a1", seed: int = 0) -> None:
        self.spec: RobotSpec = load_robot(robot)
        self._folder = Path(folder)
        self._rng = np.random.default_rng(seed)
        self._last: Observation | None = None

    def connect(self) -> None:
        """Finds the body."""
        self._body = shared(self._folder, BODY_FILE, STATE)
        self._switch = shared(self._folder, SWITCH_FILE, SWITCH)
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._link.setblocking(False)
        self._link.connect(str(self._folder / BODY_SOCKET))

    def arm(self) -> None:
        """The body is always ready."""

    def read(self) -> Observation:
        """What the sensors say, or what is left of it."""
        fault = SENSORS[int(self._switch["sensor"][0])]
        if fault == "well":
            self._last = self._observe()
            return self._last
        if not self._switch["began_ns"][0]:
            self._switch["began_ns"][0] = now_ns()
        while fault == "hung" and SENSORS[int(self._switch["sensor"][0])] == "hung":
            time.sleep(0.01)
        return self._broken(self._observe(), fault)

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """Takes a velocity, within the robot's limits."""
        applied = self.spec.action_to_velocity(self.spec.velocity_to_action(command.velocity))
        self._send(applied)
        return VelocityCommand.of(applied, command.valid_until_ns)

    def stop(self, level: str = "soft") -> None:
        """Both levels are a command to stand."""
        self._send(np.zeros(3))

    def disconnect(self) -> None:
        """Stops."""
        with contextlib.suppress(OSError, AttributeError):
            self.stop("hard")

    def _send(self, velocity: Any) -> None:
        with contextlib.suppress(OSError):  # the body is gone: there is nothing left to stop
            self._link.send(np.asarray(velocity, "<f8").tobytes())

    def _observe(self) -> Observation:
        pose, twist, applied = (np.array(self._body[name][0]) for name in ("pose", "twist", "applied"))
        angle = np.arctan2(pose[1], pose[0]) + AHEAD_RAD
        return Observation(
            stamp_ns=now_ns(),
            pose_odom_base=pose.astype(np.float32),
            twist_base=twist.astype(np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.array([np.cos(angle), np.sin(angle)], np.float32) * np.float32(CIRCLE_M),
            last_command=applied.astype(np.float32),
            scan_m=room_scan(pose, ROOM_M, self.spec.lidar),
        )

    def _broken(self, whole: Observation, fault: str) -> Observation:
        last, beams, range_m = self._last or whole, self.spec.lidar.beams, self.spec.lidar.range_m
        if fault == "frozen all":
            return replace(last, stamp_ns=whole.stamp_ns)
        scans: dict[str, Any] = {
            "frozen": last.scan_m,
            "absent": None,
            "nan": np.full(beams, np.nan, np.float32),
            "negative": np.full(beams, -1.0, np.float32),
            "random": self._rng.uniform(0.0, range_m, beams).astype(np.float32),
            "blind": np.full(beams, range_m, np.float32),
        }
        return replace(whole, scan_m=scans.get(fault, whole.scan_m))


def make_driver(folder: str, robot: str = "a1", seed: int = 0) -> DrillDriver:
    """The factory that a run's driver process calls."""
    return DrillDriver(folder, robot, seed)
