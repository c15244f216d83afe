"""Ports for tests."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """A TCP port of this machine that nobody listens on, below those that systems hand out to connections meanwhile."""
    for port in random.SystemRandom().sample(range(15_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
