"""From a command to what the robot is made to follow: late, scaled, and slipping."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.randomisation import ActuationDraw

Velocity = tuple[float, float, float]
_SALT = 0x61637475
_SOON_S = 1e-9


class Mobile(Protocol):
    """What it moves: any world."""

    def advance(self, command: Any, duration_s: float) -> bool:
        """Follows a velocity for a while; True once there is contact."""


class Actuation:
    """One episode's way from command to motion."""

    def __init__(self, draw: ActuationDraw, seed: int) -> None:
        self._draw = draw
        self._rng = np.random.default_rng([seed, _SALT])
        self._now_s = 0.0
        self._target: Velocity = (0.0, 0.0, 0.0)
        self._coming: deque[tuple[float, Velocity]] = deque()  # when it takes effect, and what it asks for

    def drop(self) -> None:
        """Forgets what is under way: from now on the robot is to stand, until the next command takes effect."""
        self._coming.clear()
        self._target = (0.0, 0.0, 0.0)

    def advance(self, world: Mobile, command: Velocity | NDArray[Any], duration_s: float) -> bool:
        """Moves the world on under a command that is given now; True once there is contact."""
        d = self._draw
        if d == _PERFECT:
            return world.advance(command, duration_s)
        vx, vy, yaw_rate = (float(v) * gain for v, gain in zip(command, d.gain, strict=True))
        if d.slip:
            kept = 1.0 - d.slip * float(self._rng.random())
            vx, vy, yaw_rate = vx * kept, vy * kept, yaw_rate * kept
        self._coming.append((self._now_s + d.delay_s, (vx, vy, yaw_rate)))
        end_s = self._now_s + duration_s
        while self._coming and self._coming[0][0] < end_s - _SOON_S:
            begin_s, target = self._coming.popleft()
            if begin_s > self._now_s + _SOON_S:
                if world.advance(self._target, begin_s - self._now_s):
                    return True
                self._now_s = begin_s
            self._target = target
        touched = world.advance(self._target, end_s - self._now_s)
        self._now_s = end_s
        return touched


_PERFECT = ActuationDraw()
