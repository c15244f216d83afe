"""Telling systemd how a service is: ready, alive (for WatchdogSec=), stopping. Nothing at all where it does not ask.

The protocol of sd_notify(3): lines of NAME=VALUE in one datagram to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Speaks for this process.

    Args:
        environment: where the variables stand; a child must not be given them (`without_notify`).
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._period_ns = _watchdog_ns(environment) // 2  # as sd_watchdog_enabled(3) advises
        self._spoke_ns: int | None = None

    def ready(self, text: str) -> None:
        """The service has started."""
        self._send(f"READY=1\nSTATUS={text}")

    def alive(self, now_ns: int) -> None:
        """Feeds the watchdog, when it is due."""
        if self._period_ns and (self._spoke_ns is None or now_ns - self._spoke_ns >= self._period_ns):
            self._spoke_ns = now_ns
            self._send("WATCHDOG=1")

    def says(self, text: str) -> None:
        """A line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def stopping(self, text: str) -> None:
        """The service is about to end."""
        self._send(f"STOPPING=1\nSTATUS={text}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # systemd that is gone, or slow, must not hold up the robot's loop.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)


def without_notify(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a child: it must not speak for the service."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}


def _watchdog_ns(environment: Mapping[str, str]) -> int:
    try:
        period_us, pid = int(environment["WATCHDOG_USEC"]), int(environment.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return 0
    return max(0, period_us) * 1000 if pid == os.getpid() else 0
