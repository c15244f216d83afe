"""From a sensor to the robot: measured at the sensor's own rate, delayed, and now and then lost."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import numpy as np

from sim.sensor_config import Between

T = TypeVar("T")


class Channel(Generic[T]):
    """A ring buffer of readings under way. Times are nanoseconds since the episode began.

    A sensor is asked at the robot's ticks alone, so its rate and its latency are rounded to them: a reading counts as
    measured at the tick that follows, and arrives at the tick that is closest to its time. What was measured
    first is there from the start, since the robot stood still before.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        tick_s: float,
        rate_hz: float = 0.0,
        latency_s: float = 0.0,
        dropped: float = 0.0,
        between: Between = "hold",
    ) -> None:
        self._rng = rng
        self._period_ns = round(1e9 / rate_hz) if rate_hz > 0 else 0
        # Within half a tick counts as arrived; a little more, so that halves go the same way on every machine.
        late_s = latency_s - tick_s / 2
        self._late_ns = round(late_s * 1e9) + 1000 if late_s > -1e-9 else 0
        self._dropped = dropped
        self._holds = between == "hold"
        self._under_way: deque[tuple[int, T]] = deque()
        self._measured_ns: int | None = None
        self._first: T | None = None
        self._arrived: T | None = None

    @property
    def immediate(self) -> bool:
        """Whether each reading arrives at the tick of its measurement, so that this channel can be left out."""
        return not (self._period_ns or self._late_ns or self._dropped)

    def due(self, now_ns: int) -> bool:
        """Whether the sensor measures at this tick; a frame that gets lost is not due. Ask once a tick."""
        if self._measured_ns is None:
            self._measured_ns = now_ns
            return True
        if self._period_ns and now_ns // self._period_ns == self._measured_ns // self._period_ns:
            return False
        self._measured_ns = now_ns
        return not (self._dropped and self._rng.random() < self._dropped)

    def send(self, now_ns: int, reading: T) -> None:
        """A reading of this tick sets out."""
        if self._first is None:
            self._first = reading
        self._under_way.append((now_ns, reading))

    def receive(self, now_ns: int) -> T | None:
        """What the robot has at this tick: the newest reading that arrived, or None."""
        fresh = False
        while self._under_way and self._under_way[0][0] <= now_ns - self._late_ns:
            self._arrived = self._under_way.popleft()[1]
            fresh = True
        if self._arrived is None:
            return self._first
        return self._arrived if fresh or self._holds else None
