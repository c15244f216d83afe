"""What ``robonav run`` shows while the robot drives: the live page, and a line in the terminal."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robonav.errors import LinkError

if TYPE_CHECKING:
    from deploy.report import Timing
    from deploy.wire import StatusMsg

LINE_EVERY_S = 0.2


@contextlib.contextmanager
def live_page(log: Path, host: str, port: int) -> Iterator[str]:
    """Serves the page of a log that is being written, in a process of its own; yields its URL.

    Raises:
        LinkError: the address cannot be had.
    """
    command = [sys.executable, "-m", "deploy.viewer.live", str(log.resolve()), "--host", host, "--port", str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        try:
            url = server.stdout.readline().strip()
            if not url.startswith("http"):
                raise LinkError(url.removeprefix("error: ") or "view: the page's server did not start")
            yield url
        finally:
            server.stdin.close()  # it then serves the end of the log and leaves
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20.0)
            server.kill()


def status_line(stream: Any) -> Callable[[StatusMsg], None] | None:
    """Writes how the robot is, again and again in one line; None where nobody looks at a terminal."""
    if not stream.isatty():
        return None
    began, last = time.monotonic(), 0.0

    def show(status: StatusMsg) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            return
        last = now
        x, y = status.position_odom_m
        words = (
            f"{now - began:6.1f} s   x {x:6.2f}  y {y:6.2f} m   {status.speed_mps:4.2f} m/s   late {status.late_ticks}"
        )
        stream.write(f"\r\x1b[K{words}")
        stream.flush()

    return show


def timing_table(timing: Timing) -> str:
    """Stages of the control loop: their work, the observation's age when they ended, and how often that was too old."""
    head = f"{'stage':<8}{'work p50':>9}{'p99':>8}{'max':>8}   {'age p50':>8}{'p99':>8}{'max':>8} ms{'misses':>9}"
    rows = [
        f"{name:<8}{s.work_ms.p50:>9.2f}{s.work_ms.p99:>8.2f}{s.work_ms.max:>8.2f}   "
        f"{s.age_ms.p50:>8.2f}{s.age_ms.p99:>8.2f}{s.age_ms.max:>8.2f}   {s.misses:>9}"
        for name, s in timing.stages.items()
    ]
    loop = (
        f"loop    {timing.rate_hz:.2f} Hz, mean period {timing.period_error_pct:+.2f} %, "
        f"{timing.missed_pct:.2f} % of the ticks missed, work of a tick p99 {timing.tick_ms.p99:.1f} ms"
    )
    return "\n".join([head, *rows, loop])


def end_line(stream: Any) -> None:
    """Takes the line away."""
    if stream.isatty():
        stream.write("\r\x1b[K")
        stream.flush()
