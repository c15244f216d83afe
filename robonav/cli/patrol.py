"""A driver that is never done: any driver's robot walks to its goal and back, for as long as one looks.

Imported in the driver's process, by ``robonav bench loop``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.types import Driver, Observation, RobotSpec, VelocityCommand

TURN_M = 0.8  # from an end, at which it turns round


class Patrol:
    """Hands everything on to a driver, but the goal: at one end it is the other.

    Args:
        inner: the robot.
    """

    def __init__(self, inner: Driver) -> None:
        self.inner = inner
        self.spec: RobotSpec = inner.spec
        self.arrived = False  # never
        self.collided = False  # what the robot touched does not end a measurement
        self._ends: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._heading = 1  # which end it walks to

    def connect(self) -> None:
        """As the driver."""
        self.inner.connect()

    def arm(self) -> None:
        """As the driver."""
        self.inner.arm()

    def read(self) -> Observation:
        """The driver's observation, with the end that it walks to as the goal."""
        seen = self.inner.read()
        here = np.asarray(seen.pose_odom_base[:2], np.float32)
        if self._ends is None:
            self._ends = (here.copy(), np.array(seen.goal_odom_m, np.float32))
        if float(np.linalg.norm(here - self._ends[self._heading])) < TURN_M:
            self._heading = 1 - self._heading
        return replace(seen, goal_odom_m=self._ends[self._heading])

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """As the driver."""
        return self.inner.command(command)

    def stop(self, level: str = "soft") -> None:
        """As the driver."""
        self.inner.stop(level)

    def disconnect(self) -> None:
        """As the driver."""
        self.inner.disconnect()


def make_patrol(factory: str, **kwargs: Any) -> Patrol:
    """A patrol of the driver that ``module:function`` makes.

    Raises:
        RobonavError: as that driver.
    """
    from deploy.driver_process import make_driver

    return Patrol(make_driver(factory, kwargs))
