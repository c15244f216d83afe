"""A queue in front of a log: whoever has a message puts it there and goes on; a thread writes.

A disk that stalls fills the queue, never the sender's time. What finds no room is dropped, counted by kind, and told in
the log as soon as there is room again.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Any

from deploy import wire
from deploy.log_writer import LogWriter
from deploy.timing import now_ns

POLL_S = 0.05
LOST_EVENT = "lost"


class LogQueue:
    """Use as a context manager; leaving writes what waits, and leaves the log open.

    Args:
        writer: of the log, used by the thread alone from now on.
        limit_bytes: what may wait.
        episode: of the events about drops.
    """

    def __init__(self, writer: LogWriter, limit_bytes: int, episode: int = 0) -> None:
        self._writer, self._limit, self._episode = writer, limit_bytes, episode
        self._items: deque[tuple[Any, int]] = deque()
        self._waiting = 0  # bytes
        self._drops: Counter[str] = Counter()  # since they were last told
        self._closing = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._failure: Exception | None = None
        self.dropped = 0

    def __enter__(self) -> LogQueue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()

    def put(self, message: Any, size: int) -> bool:
        """Takes a message of about `size` bytes for the log without waiting; False when it was dropped."""
        with self._change:
            if self._waiting + size > self._limit:
                self._drops[type(message).__name__.removesuffix("Msg")] += 1
                self.dropped += 1
                return False
            self._items.append((message, size))
            self._waiting += size
            self._change.notify()
        return True

    def check(self) -> None:
        """Raises what ended the thread: LogError when the log could not be written."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while self._write_waiting():
                self._writer.flush_if_due()
        except Exception as error:  # noqa: BLE001  a thread's error has to reach the process: `check` raises it
            self._failure = error

    def _write_waiting(self) -> bool:
        """Writes what waits, at first waiting for it a while; False when all is written and no more will come."""
        with self._change:
            if not self._items and not self._closing:
                self._change.wait(POLL_S)
            items, drops, last = self._items, self._drops, self._closing
            self._items, self._drops = deque(), Counter()
        for message, size in items:
            self._writer.write(message)
            with self._change:
                self._waiting -= size
        if drops:
            text = f"{drops.total()} messages found no room in the recorder's queue: {_listed(drops)}"
            self._writer.write(lost_event(self._episode, text))
        return not last


def lost_event(episode: int, text: str) -> wire.EventMsg:
    """The log's line about what it misses."""
    return event(episode, LOST_EVENT, text)


def event(episode: int, kind: str, text: str) -> wire.EventMsg:
    """A line of the recorder's own."""
    return wire.EventMsg(sequence=0, stamp_ns=now_ns(), episode=episode, kind=kind, text=text)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
