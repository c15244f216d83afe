"""Memory and open files of a run's processes, read from /proc by the supervisor: they must not grow."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PERIOD_S = 1.0  # between two looks
SETTLE_S = 10.0  # after which a process has loaded all that it needs; what comes later is growth
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ResourceReport:
    """A process over a run: at the start (once it has settled), at the end, at most, and the straight line through."""

    rss_start_mb: float
    rss_end_mb: float
    rss_max_mb: float
    rss_mb_per_min: float
    fds_start: int
    fds_end: int
    fds_max: int
    cpu_pct: float  # of one core, from start to end
    seconds: float  # from start to end


class Usage(NamedTuple):
    """A process at one moment."""

    rss_mb: float
    fds: int
    cpu_s: float  # in user and kernel, since it began


def usage(pid: int) -> Usage | None:
    """Memory, open files and processor time of a process; None where it is gone or there is no /proc."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        ticks = sum(map(int, (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        fds = len(os.listdir(folder / "fd"))  # noqa: PTH208  only their number is wanted
        return Usage(pages * _PAGE_MB, fds, ticks / _TICKS_PER_S)
    except (OSError, IndexError, ValueError):
        return None


@dataclass
class _Track:
    """Running sums, so that a long run needs no more memory than a short one."""

    pid: int
    began_s: float
    first: tuple[float, Usage] | None = None
    last: tuple[float, Usage] = (0.0, Usage(0.0, 0, 0.0))
    most_mb: float = 0.0
    most_fds: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)  # n, t, m, tt, tm

    def add(self, at_s: float, now: Usage) -> None:
        mb, fds = now.rss_mb, now.fds
        self.last = (at_s, now)
        if self.first is None or at_s - self.began_s < SETTLE_S:
            self.first = self.last
            self.most_mb, self.most_fds, self.sums = mb, fds, [0.0] * 5
        t = at_s - self.first[0]
        self.most_mb, self.most_fds = max(self.most_mb, mb), max(self.most_fds, fds)
        self.sums = [s + v for s, v in zip(self.sums, (1.0, t, mb, t * t, t * mb), strict=True)]

    def report(self) -> ResourceReport | None:
        if self.first is None:
            return None
        n, t, m, tt, tm = self.sums
        spread = n * tt - t * t
        slope = (n * tm - t * m) / spread if spread > 0 else 0.0
        (at, before), (end, after) = self.first, self.last
        busy_s = after.cpu_s - before.cpu_s
        return ResourceReport(
            rss_start_mb=round(before.rss_mb, 2),
            rss_end_mb=round(after.rss_mb, 2),
            rss_max_mb=round(self.most_mb, 2),
            rss_mb_per_min=round(60 * slope, 3),
            fds_start=before.fds,
            fds_end=after.fds,
            fds_max=self.most_fds,
            cpu_pct=round(100 * busy_s / (end - at), 1) if end > at else 0.0,
            seconds=round(end - at, 1),
        )


class Resources:
    """Looks at processes when it is due. A restarted process is followed anew from its start."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._looked_s = float("-inf")

    def look(self, pids: dict[str, int], now_s: float) -> None:
        """Reads /proc, at most each PERIOD_S.

        Args:
            pids: by role.
            now_s: on any clock that does not jump.
        """
        if now_s - self._looked_s < PERIOD_S:
            return
        self._looked_s = now_s
        for role, pid in pids.items():
            found = usage(pid)
            if found is None:
                continue
            if role not in self._tracks or self._tracks[role].pid != pid:
                self._tracks[role] = _Track(pid, now_s)
            self._tracks[role].add(now_s, found)

    def report(self) -> dict[str, ResourceReport]:
        """By role."""
        found = {role: track.report() for role, track in self._tracks.items()}
        return {role: report for role, report in found.items() if report is not None}
