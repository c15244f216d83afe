"""A machine that stood still proves nothing: tests of real time are made again when a witness saw it stand.

The witness is a small process with a thread on each core, which sleeps for 10 ms again and again and writes down where
that took much longer: there the machine was paused, or the core was somebody else's. A test marked ``realtime`` that
fails is made again, at most `TRIES` times, only if that happened while it ran. On a machine that kept the time its
first failure stands, and a product that is too late is too late each time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from _pytest.runner import runtestprotocol

T = TypeVar("T")
TRIES = 4
STALL_S = 0.05
"""Of a core; a thread of a control loop that waits this long may miss its bound."""
LONG_S = 0.3
"""Of a core; a run during which it stood still for so long is none to look at."""

PROGRAM = """
import os, sys, threading, time

def watch(cpu):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})  # of this thread
    while True:
        began = time.monotonic()
        time.sleep(0.01)
        stall = time.monotonic() - began - 0.01
        if stall > float(sys.argv[1]):
            os.write(1, b"%f %f\\n" % (began, stall))

cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
for cpu in cpus:
    threading.Thread(target=watch, args=(cpu,), daemon=True).start()
sys.stdin.read()  # until the tests end, however they end
"""


class Witness:
    """Of the cores' stalls, from its first look on."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="robonav-witness-")
        self._said = Path(self._folder.name) / "stalls"

    def look(self) -> None:
        """Starts the process, if none runs."""
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-S", "-c", PROGRAM, str(STALL_S)]
            with self._said.open("ab") as said:
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said)

    def longest_s(self, since_s: float) -> float:
        """The longest stall that ended after a moment of `time.monotonic`; 0 if there was none."""
        time.sleep(0.1)  # what stalls now is written down when it is over
        rows = [line.split() for line in self._said.read_text().splitlines()]
        return max((float(stall) for began, stall in rows if float(began) + float(stall) > since_s), default=0.0)

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.communicate()
        self._folder.cleanup()

    def undisturbed(self, work: Callable[[], T]) -> T:
        """What `work` returns, made again where the machine stood still for long: for fixtures that tests share."""
        self.look()
        for _ in range(1, TRIES):
            began_s = time.monotonic()
            try:
                result = work()
            except Exception:
                if not self.longest_s(began_s):
                    raise
            else:
                if self.longest_s(began_s) < LONG_S:
                    return result
        return work()


WITNESS = pytest.StashKey[Witness]()


def pytest_configure(config: pytest.Config) -> None:
    witness = config.stash[WITNESS] = Witness()
    config.add_cleanup(witness.close)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("realtime") is None:
        return None
    witness = item.config.stash[WITNESS]
    witness.look()
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for tried in range(1, TRIES + 1):
        began_s = time.monotonic()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if tried == TRIES or not any(report.failed for report in reports):
            break
        if not (stall_s := witness.longest_s(began_s)):
            break
        item.warn(pytest.PytestWarning(f"made again: the machine stood still for {stall_s:.2f} s"))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
