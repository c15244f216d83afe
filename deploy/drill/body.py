"""The drill's robot: a body in a process of its own, which goes on as it was told last until its own hold ends.

So it is with hardware: what kills or freezes the driver does not stop the legs. All that drives it is on the tape.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

import numpy as np

from deploy.drill.shared import BODY_FILE, BODY_SOCKET, STATE, TapeWriter, shared
from deploy.timing import now_ns
from robonav.geometry import wrap_angle

STEP_NS = 10_000_000
HOLD_NS = 250_000_000  # from a command's receipt; of a Go2 it is 1 s


class Body:
    """Follows velocities with a lag, as a point on a plane."""

    def __init__(self, folder: Path, lag_s: float) -> None:
        self.tape = TapeWriter(folder)
        self.state = shared(folder, BODY_FILE, STATE, create=True)
        self.pose, self.twist, self.applied = np.zeros(3), np.zeros(3), np.zeros(3)
        self.lag_s = lag_s
        self.moved_ns = now_ns()
        self.until_ns = 0

    def command(self, velocity: np.ndarray) -> None:
        """A command has come."""
        self.move()
        self.applied, self.until_ns = velocity, self.moved_ns + HOLD_NS
        self.tape.write(self.moved_ns, velocity)

    def move(self) -> None:
        """Moves to now."""
        now = now_ns()
        if self.applied.any() and now > self.until_ns:
            self.applied = np.zeros(3)
            self.tape.write(now, self.applied)
        step_s = min((now - self.moved_ns) * 1e-9, 0.1)
        self.moved_ns = now
        self.twist += (self.applied - self.twist) * (1 - np.exp(-step_s / self.lag_s))
        c, s = np.cos(self.pose[2]), np.sin(self.pose[2])
        vx, vy, yaw_rate = self.twist
        self.pose += step_s * np.array([c * vx - s * vy, s * vx + c * vy, yaw_rate])
        self.pose[2] = wrap_angle(self.pose[2])
        for name, value in (("pose", self.pose), ("twist", self.twist), ("applied", self.applied)):
            self.state[name][0] = value
        self.state["stamp_ns"][0] = now


def main(folder: str, lag_s: str) -> None:
    """Lives until its parent is gone."""
    parent = os.getppid()
    with contextlib.suppress(OSError):  # the robot's clockwork is no program of this computer
        os.nice(-10)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(Path(folder) / BODY_SOCKET))
        body = Body(Path(folder), float(lag_s))
        while os.getppid() == parent:
            if select.select([link], [], [], STEP_NS * 1e-9)[0]:
                body.command(np.frombuffer(link.recv(64), "<f8", 3).copy())
            else:
                body.move()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(*sys.argv[1:])
