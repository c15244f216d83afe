"""When a process that was lost may be started again: exponential back-off, and a limit of restarts in a time.

As systemd's StartLimitBurst and StartLimitIntervalSec: pure, with the time as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.config import SupervisorConfig

RESTARTED = ("governor", "navigator", "recorder")  # the driver never: nobody else can tell that the robot stands
HOLDING = ("governor", "navigator")  # the robot stands while one of these is replaced


def backoff_ns(starts_ns: Sequence[int], now_ns: int, config: SupervisorConfig) -> int | None:
    """How long to wait before the next restart of a process; None when it has had all that it may have.

    Args:
        starts_ns: when it was restarted before, on the clock of `now_ns`.
        now_ns: when it was lost.
        config: burst, interval, back-off.
    """
    recent = sum(now_ns - start < config.restart_interval_s * 1e9 for start in starts_ns)
    if recent >= config.restart_burst:
        return None
    wait_s = min(config.restart_backoff_s * 2.0**recent, config.restart_backoff_max_s)
    return int(wait_s * 1e9)


def limit_words(config: SupervisorConfig) -> str:
    """Why it is not restarted once more."""
    if not config.restart_burst:
        return "restarts are off (supervisor.restart_burst)"
    return f"restarted {config.restart_burst} times within {config.restart_interval_s:g} s"


def part_path(log: str, part: int) -> str:
    """Where the log goes on after the recorder was restarted: a.mcap, a.part1.mcap, a.part2.mcap.

    A new file, since what the old one holds must not be put at risk by writing after its broken end.
    """
    if not part:
        return log
    stem, dot, suffix = log.rpartition(".")
    return f"{stem}.part{part}.{suffix}" if dot and "/" not in suffix else f"{log}.part{part}"


def log_parts(log: str, last: int) -> tuple[str, ...]:
    """The files that a run's log consists of."""
    parts = (part_path(log, part) for part in range(last + 1))
    return tuple(path for path in parts if Path(path).exists())
