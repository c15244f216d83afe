"""The page of a robot that is still driving, read from its growing log: ``python -m deploy.viewer.live LOG``.

A process of its own, at low priority, that only reads: nothing that happens here reaches the robot. It listens on
loopback; on any other address it wants the key that it prints. It ends when its standard input is closed.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from deploy.log_reader import read_log
from deploy.recorder import REPORT_METADATA
from deploy.viewer.beliefs import OwnTracker
from deploy.viewer.content import block_of
from deploy.viewer.episode import Episode, episode_of, observations_of
from deploy.viewer.extras import Extras
from deploy.viewer.page import page
from robonav.errors import LinkError, LogError, explain

LOOPBACK = ("127.0.0.1", "::1", "localhost")
LEAST_S = 1.0  # between two readings of the log
SHARE = 0.2  # of a core that reading may take
MOST_S = 5.0  # between two readings, however long they take
LOOKED_S = 5.0  # a page that asked within this time is still open
LAST_S = 15.0  # at most, after the run, for open pages to fetch its end
ABSENT = dict.fromkeys(("reward", "uncertainty", "error"), "Not while the robot drives: replay the log for it.")


class LiveLog:
    """A growing log as packed blocks. Observations that were mapped once are not mapped again.

    Args:
        path: of the log; one that was written before `since_s` (Unix time) belongs to an older run.
        since_s: see above.
    """

    def __init__(self, path: Path, since_s: float = 0.0) -> None:
        self.path = path
        self.over = False
        self.ticks = 0
        self._since_s = since_s
        self._block: bytes | None = None
        self._next_s = 0.0
        self._lock = threading.Lock()
        self._tracker: OwnTracker | None = None
        self._mapped = 0
        self._start_ns = -1

    def block(self, have: int) -> bytes | None:
        """The log so far, None where it holds no more than `have` observations, or nothing yet."""
        with self._lock:
            if time.monotonic() >= self._next_s and not self.over:
                started = time.thread_time()
                with contextlib.suppress(LogError, OSError):  # not there yet, or in the middle of its first record
                    self._read()
                took_s = time.thread_time() - started
                self._next_s = time.monotonic() + min(max(LEAST_S, took_s / SHARE), MOST_S)
            return self._block if self.ticks > have or self.over else None

    def hurry(self) -> None:
        """Lets the next asking read at once: the run is over."""
        with self._lock:
            self._next_s = 0.0

    def _read(self) -> None:
        if self.path.stat().st_mtime < self._since_s:
            return
        log = read_log(self.path)
        episode = episode_of(log)
        self.over = REPORT_METADATA in log.metadata
        if len(episode.sensed.t_s) == self.ticks and not self.over:
            return
        tracker = self._tracker_of(episode)
        observations = observations_of(log)
        for t_s, observation in zip(episode.sensed.t_s[self._mapped :], observations[self._mapped :], strict=True):
            tracker.add(float(t_s), observation)
        self._mapped = len(observations)
        self._block = block_of(episode, tracker.beliefs, Extras(absent=ABSENT), running=not self.over)
        self.ticks = len(observations)

    def _tracker_of(self, episode: Episode) -> OwnTracker:
        """The one so far, or a new one when another run began or time was found to begin earlier."""
        if self._tracker is None or episode.start_ns != self._start_ns or len(episode.sensed.t_s) < self._mapped:
            self._tracker, self._mapped, self._start_ns = OwnTracker(episode.robot), 0, episode.start_ns
        return self._tracker


class LiveServer(ThreadingHTTPServer):
    """Serves the page and the log so far; reads only.

    Args:
        log: what is served.
        host: address to listen on.
        port: 0 takes a free one.

    Raises:
        LinkError: the address cannot be had.
    """

    daemon_threads = True

    def __init__(self, log: LiveLog, host: str = "127.0.0.1", port: int = 0) -> None:
        self.log = log
        self.loopback = host in LOOPBACK
        self.key = "" if self.loopback else secrets.token_urlsafe(16)
        self.asked_s = -1e9  # when a page was last answered about the log
        self.answering = 0  # pages just now
        self.told = False  # a page that the run is over
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LinkError(
                explain(f"view: {host}:{port}", "an address to listen on", reason, "choose another")
            ) from None

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """While a page is answered."""
        self.answering += 1  # two threads may miscount; that costs a page its last second at most
        try:
            yield
        finally:
            self.asked_s = time.monotonic()
            self.answering -= 1

    def is_wanted(self) -> bool:
        """Whether a page is open that does not know of the end yet."""
        return not self.told and (self.answering > 0 or time.monotonic() < self.asked_s + LOOKED_S)

    @property
    def url(self) -> str:
        """Where the page is, with the key where one is needed."""
        host, port = str(self.server_address[0]), self.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/" + (f"?key={quote(self.key)}" if self.key else "")


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    protocol_version = "HTTP/1.1"
    timeout = 10.0

    def do_GET(self) -> None:
        """The page at ``/``, the log at ``/log``."""
        asked = urlsplit(self.path)
        query = parse_qs(asked.query)
        if not self._may(query.get("key", [""])[0]):
            return self._answer(403, b"the key that robonav run printed is needed\n", "text/plain")
        if asked.path == "/":
            live = "/log" + (f"?key={quote(self.server.key)}" if self.server.key else "")
            return self._answer(200, page(self.server.log.path.name, [], live).encode(), "text/html; charset=utf-8")
        if asked.path != "/log":
            return self._answer(404, b"no such page\n", "text/plain")
        have = query.get("have", ["0"])[0]
        with self.server.counted():
            block = self.server.log.block(int(have) if have.isdecimal() and len(have) < 12 else 0)
            if block is None:
                return self._answer(204, b"", "application/octet-stream")
            self._answer(200, block, "application/octet-stream")
            self.server.told = self.server.told or self.server.log.over

    def _may(self, key: str) -> bool:
        """On loopback, whoever asks for loopback: a page of somebody else that a browser was lured to may not."""
        if not self.server.loopback:
            return hmac.compare_digest(key.encode(), self.server.key.encode())
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return host in LOOPBACK

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        log = self.server.log
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-State", "over" if log.over else "running")
        self.send_header("X-Ticks", str(log.ticks))
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the terminal belongs to the run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until standard input is closed and open pages know the end. The first line printed is the page's URL."""
    parser = argparse.ArgumentParser(description="Serves the page of a growing log.")
    parser.add_argument("log", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's; it closes our input when it is over
    with contextlib.suppress(OSError):
        os.nice(10)
    try:
        server = LiveServer(LiveLog(args.log, time.time()), args.host, args.port)
    except LinkError as error:
        print(f"error: {error}", flush=True)
        return 2
    print(server.url, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.log.hurry()
    deadline = time.monotonic() + LAST_S
    while server.is_wanted() and time.monotonic() < deadline:
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
