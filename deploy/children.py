"""A run's processes as the supervisor holds them: started, looked at, ended, and asked for their last words."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from deploy.station import Order, error_file
from deploy.systemd import without_notify
from deploy.timing import now_ns
from robonav.config import to_mapping
from robonav.errors import LogError, RobonavError


class Children:
    """Processes by role; `order` is what each is told, less what is its own.

    Args:
        order: of the run.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str, session: int = 0, fences: dict[str, int] | None = None, log: str = "") -> None:
        """Starts a role's process; the one before it must have ended.

        Args:
            role: of `deploy.processes.ROLES`.
            session: how often it was restarted before.
            fences: by role, the first session that may be heard.
            log: that a recorder writes; the order's if "".
        """
        order = replace(self._order, session=session, fences=dict(fences or {}), log=log or self._order.log)
        if session:
            order = replace(order, metadata={**order.metadata, "session": str(session), "first_log": self._order.log})
        error_file(order.folder, role).unlink(missing_ok=True)
        # -P would hide a source checkout; the parent's path is handed on so that a child finds what it found.
        path = os.pathsep.join(p for p in sys.path if p)
        child = subprocess.Popen(
            [sys.executable, "-m", "deploy.processes", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**without_notify(os.environ), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        self._processes[role] = child
        with contextlib.suppress(BrokenPipeError):
            assert child.stdin is not None
            child.stdin.write(json.dumps(to_mapping(order)).encode())
            child.stdin.close()

    def status(self, role: str) -> int | None:
        """Exit status of a process that has ended, None of one that lives."""
        return self._processes[role].poll()

    def pids(self) -> dict[str, int]:
        """Process ids by role."""
        return {role: child.pid for role, child in self._processes.items()}

    def running(self, roles: Sequence[str]) -> list[str]:
        """Those that were started and live."""
        return [r for r in roles if r in self._processes and self._processes[r].poll() is None]

    def terminate(self, role: str) -> None:
        """Asks it to end; a stopped process is woken for that."""
        self._processes[role].terminate()
        self._processes[role].send_signal(signal.SIGCONT)

    def kill(self, role: str) -> None:
        """Ends it at once, stopped or not."""
        self._processes[role].kill()

    def end(
        self,
        roles: Sequence[str],
        ask: Callable[[], None],
        wait: Callable[[], None],
        each_s: float,
        forced: Callable[[str], None],
    ) -> None:
        """Ends processes: by word, then by SIGTERM, then by SIGKILL, with a time for each.

        Args:
            roles: that are to end.
            ask: says the word.
            wait: lets a little time pass.
            each_s: for each of the three ways.
            forced: told each role for which the word was not enough.
        """
        for way in ("word", "terminate", "kill"):
            running = self.running(roles)
            if not running:
                break
            if way == "word":
                ask()
            for role in running:
                if way == "terminate":
                    forced(role)
                    self.terminate(role)
                elif way == "kill":
                    self.kill(role)
            deadline = now_ns() + int(each_s * 1e9)
            while now_ns() < deadline and self.running(running):
                wait()
        for role in roles:
            if role in self._processes:
                self._processes[role].wait()

    def last_words(self, role: str) -> RobonavError:
        """The error that a process left, or how it ended."""
        code = self.status(role)
        with contextlib.suppress(OSError, IndexError):  # no file, or an empty one: its disk was full too
            line = error_file(self._order.folder, role).read_text().splitlines()[0]
            return LogError(line) if role == "recorder" else RobonavError(line)
        how = (
            f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with status {code}"
        )
        return RobonavError(f"{role}: {how}")
