"""Starts a Go2's stand-in on a free DDS domain, hears what it is asked, and changes it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("go2_stand_in.py")


def free_domain() -> int:
    """A DDS domain of whose ports nobody on this machine uses the first few (RTPS 2.3, 9.6.1.1)."""
    for domain in random.sample(range(60, 200), 100):
        try:
            for port in range(7400 + 250 * domain, 7400 + 250 * domain + 16):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("", port))
        except OSError:
            continue
        return domain
    raise AssertionError("no free DDS domain")


class Peer:
    """A stand-in that runs."""

    def __init__(self, process: subprocess.Popen[str], domain: int) -> None:
        self.process, self.domain = process, domain
        self.requests: list[dict[str, Any]] = []
        threading.Thread(target=self._hear, daemon=True).start()

    def change(self, **what: object) -> None:
        """Changes the stand-in; see its module."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def said(self, api: int, since: int = 0) -> list[dict[str, Any]]:
        """The requests of a kind, from the n-th request on."""
        return [request for request in self.requests[since:] if request["api"] == api]

    def wait(self, api: int, since: int = 0, seconds: float = 30.0) -> dict[str, Any]:
        """The first request of a kind, from the n-th request on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.said(api, since):
                return found[0]
            time.sleep(0.005)
        raise AssertionError(f"no request {api} within {seconds} s; got {self.requests[since:]}")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _hear(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.requests.append(json.loads(line))


@contextmanager
def stand_in(*options: str) -> Iterator[Peer]:
    """A stand-in; it ends with the block."""
    domain = free_domain()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(domain), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield Peer(process, domain)
    finally:
        process.kill()
        process.wait()
