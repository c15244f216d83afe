"""The monotonic clock, loops on absolute deadlines, and latency summaries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], int]


def now_ns() -> int:
    """CLOCK_MONOTONIC of this machine in nanoseconds; the only clock that ages are taken from."""
    return time.monotonic_ns()


class Deadlines:
    """Absolute deadlines ``start + k * period``: a late tick does not shift those after it.

    Args:
        period_ns: of the loop.
        start_ns: first deadline.
        late_after_ns: a tick that starts later than this after its deadline is counted in `late`.
    """

    def __init__(self, period_ns: int, start_ns: int, late_after_ns: int | None = None) -> None:
        self.period_ns = period_ns
        self.next_ns = start_ns
        self.late = 0
        self.skipped = 0
        self._late_after_ns = period_ns // 4 if late_after_ns is None else late_after_ns

    def remaining_ns(self, now: int) -> int:
        """Nanoseconds to the next deadline, 0 when it has passed."""
        return max(0, self.next_ns - now)

    def begin(self, now: int) -> int:
        """Starts the due tick and returns its lateness in ns. Deadlines that have passed whole are skipped, counted."""
        lateness = now - self.next_ns
        if lateness > self._late_after_ns:
            self.late += 1
        self.next_ns += self.period_ns
        if self.next_ns <= now:
            missed = (now - self.next_ns) // self.period_ns + 1
            self.skipped += missed
            self.next_ns += missed * self.period_ns
        return lateness


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds: median, 99th percentile, maximum, and how many were measured."""

    p50: float
    p99: float
    max: float
    count: int


def summarise(milliseconds: Sequence[float]) -> Latency:
    """Summary of measured durations; zeros when there are none."""
    if not len(milliseconds):
        return Latency(0.0, 0.0, 0.0, 0)
    p50, p99 = np.percentile(np.asarray(milliseconds, dtype=np.float64), [50, 99])
    return Latency(round(float(p50), 3), round(float(p99), 3), round(float(max(milliseconds)), 3), len(milliseconds))
