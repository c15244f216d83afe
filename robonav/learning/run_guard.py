"""Keeps a second trainer out of a run folder, and ends a run at a signal with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from robonav.errors import CheckpointError

LOCK_FILE = "run.lock"


@contextlib.contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in `folder`; the operating system forgets a lock whose process was killed.

    Raises:
        CheckpointError: another process does; one line with its number.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX system: nothing is locked there
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            do = f"wait for it, end it with 'kill {who}', or choose another --out"
            raise CheckpointError(f"{folder}: process {who} trains in this folder already; {do}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class Interruption:
    """Which signal asked the run to end, if one did."""

    def __init__(self) -> None:
        self.number = 0

    @property
    def wanted(self) -> bool:
        """Whether one did."""
        return self.number > 0

    @property
    def name(self) -> str:
        """Of the signal."""
        return signal.Signals(self.number).name if self.wanted else "none"

    @property
    def status(self) -> int:
        """Exit status that tells of it: 128 and its number, as shells have it; 0 without one."""
        return 128 + self.number if self.wanted else 0

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt  # asked twice: now
        self.number = number


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
    """Inside, the first SIGINT or SIGTERM is noted, and the second one raises KeyboardInterrupt.

    A signal that is ignored already, as SIGINT is in a job that a shell put into the background, stays ignored. Only
    the main thread hears signals: in another one nothing is noted.
    """
    noted = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, noted._note)
    try:
        yield noted
    finally:
        for number in heard:
            signal.signal(number, before[number])
