"""The monotonic clock, loops on absolute deadlines, and latency summaries."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

STAGES = ("sense", "map", "route", "infer", "plan", "govern", "act")  # of the control loop, in their order
NAVIGATOR_STAGES = ("map", "route", "infer", "plan")
LINK = "link"  # between two processes: commands on their way

_LEAST_MS, _GROWTH = 1e-3, math.log(1.01)
_BUCKETS = 2 + int(math.log(1e6 / _LEAST_MS) / _GROWTH)

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


class Histogram:
    """Durations in buckets that grow by 1 %, from 1 us to 1000 s: any number of them in the same memory.

    The median and the 99th percentile are right to 0.5 %; count, sum and maximum are exact.
    """

    def __init__(self) -> None:
        self._buckets = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.total_ms = 0.0
        self.max_ms = 0.0

    def add(self, milliseconds: float) -> None:
        """Takes one in; what is below 1 us, or late on the other side, counts as 0."""
        clear = max(0.0, milliseconds)
        index = 0 if clear <= _LEAST_MS else 1 + int(math.log(clear / _LEAST_MS) / _GROWTH)
        self._buckets[min(index, _BUCKETS - 1)] += 1
        self.count += 1
        self.total_ms += clear
        self.max_ms = max(self.max_ms, clear)

    def percentile(self, percent: float) -> float:
        """The smallest bucket's middle that so many per cent are not above; 0 when there are none."""
        if not self.count:
            return 0.0
        rank = max(1, math.ceil(self.count * percent / 100))
        index = int(np.searchsorted(np.cumsum(self._buckets), rank))
        return 0.0 if index == 0 else min(self.max_ms, _LEAST_MS * math.exp((index - 0.5) * _GROWTH))

    def summary(self) -> Latency:
        """As `summarise` of all that were taken in."""
        return Latency(round(self.percentile(50), 3), round(self.percentile(99), 3), round(self.max_ms, 3), self.count)


@dataclass(frozen=True, slots=True)
class StageReport:
    """A stage of the control loop over a run."""

    work_ms: Latency
    age_ms: Latency  # of the observation when the stage ended
    misses: int  # times that the next observation was due before this stage had ended


class Stages:
    """Collects what the processes say of their stages.

    Args:
        period_s: of the robot.
    """

    def __init__(self, period_s: float) -> None:
        self._period_ms = period_s * 1e3
        self._work: dict[str, Histogram] = defaultdict(Histogram)
        self._age: dict[str, Histogram] = defaultdict(Histogram)
        self._misses: Counter[str] = Counter()

    def add(self, name: str, work_ms: float, age_ms: float) -> None:
        """One run of a stage."""
        self._work[name].add(work_ms)
        self._age[name].add(age_ms)
        self._misses[name] += age_ms > self._period_ms

    def report(self) -> dict[str, StageReport]:
        """By stage, in the loop's order; those that never ran are left out."""
        return {
            name: StageReport(self._work[name].summary(), self._age[name].summary(), self._misses[name])
            for name in (*STAGES, LINK)
            if name in self._work
        }

    def in_time(self, name: str) -> int:
        """How often a stage ended before the next observation was due."""
        return self._work[name].count - self._misses[name] if name in self._work else 0
