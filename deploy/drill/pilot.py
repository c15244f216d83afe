"""A remote commander of the drill: takes the robot over, drives it, and remembers what it sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import wire
from deploy.drill.session import Session, wait_until
from deploy.keys import Pair
from deploy.remote import Remote
from deploy.timing import now_ns
from robonav.errors import LinkError

PERIOD_S = 0.05
AHEAD = np.array([0.4, 0.0, 0.3])
STILL = np.zeros(3)
AWAY = np.array([-0.123, 0.0, 0.0])  # nobody else asks for it, so that it is seen on the tape


class Pilot:
    """Use as a context manager; leaving gives the lease back.

    Args:
        session: whose robot is driven.
        pair: the key, listed or not.
        port: of a cable to the robot; the robot's own if 0.
        clock_ns: by which the pilot's clock is off.
    """

    def __init__(self, session: Session, pair: Pair, port: int = 0, clock_ns: Callable[[], int] = lambda: 0) -> None:
        self.session = session
        self.remote = Remote(f"tcp://127.0.0.1:{port}" if port else session.address, pair)
        self.answers: list[wire.AnswerMsg] = []
        self.sent: dict[int, int] = {}  # number to when it left
        self.frames: list[bytes] = []
        self._clock_ns = clock_ns
        self._kept_ns = 0

    def __enter__(self) -> Pilot:
        """Not connected yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the lease back, if it is still ours, and closes."""
        try:
            if self.remote.state is not None and self.session.alive():
                self.remote.lease("release", 1.0)
        except LinkError:
            pass  # it was another's, or the link is gone: that is what was tried
        self.remote.close()

    def take_over(self) -> None:
        """E-stop, lease, re-arm: the way to take a robot from its navigator."""
        remote = self.remote
        remote.connect(5.0)
        remote.press("drill")
        self.poll_until(lambda: remote.state is not None and remote.state.standing and remote.state.estop, 5.0)
        self.poll_until(lambda: remote.state is not None and not remote.state.holder, 5.0)
        remote.lease("take")
        remote.rearm()

    def poll_until(self, done: Callable[[], object], timeout_s: float) -> None:
        """Takes in what comes until something is so.

        Raises:
            LinkError: it did not become so.
        """

        def poll() -> object:
            self.poll()
            return done()

        if not wait_until(poll, timeout_s):
            raise LinkError(f"{self.remote.address}: the drill's pilot waited for {timeout_s:g} s in vain")

    def poll(self) -> None:
        """Takes in what came."""
        self.remote.poll()
        self.answers += self.remote.answers().values()

    def drive(self, seconds: float, velocity: NDArray[Any] = AHEAD) -> None:
        """Commands for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.command(velocity)
            self.poll()
            time.sleep(PERIOD_S)

    def command(self, velocity: NDArray[Any]) -> None:
        """One command; it is lost when there is no link."""
        vx, vy, yaw_rate = (float(x) for x in velocity)
        now, number = now_ns(), self.remote.next_number()
        message = wire.CommandMsg(
            sequence=number,
            stamp_ns=now + self._clock_ns(),
            episode=1,
            observation=0,
            vx_mps=vx,
            vy_mps=vy,
            yaw_rate_radps=yaw_rate,
        )
        frame = wire.encode(message)
        if self.remote.send_frame(frame):
            self.sent[number] = now
            self.frames.append(frame)

    def keep_still(self) -> None:
        """Asks for a standstill when it is due, so that the lease stays ours."""
        now = now_ns()
        if now - self._kept_ns >= PERIOD_S * 1e9:
            self._kept_ns = now
            self.command(STILL)
            self.poll()

    @property
    def accepted(self) -> int:
        """Commands of ours that the robot has accepted."""
        return sum(answer.accepted and answer.to in self.sent for answer in self.answers)

    def refusals(self) -> set[str]:
        """Why others were refused."""
        return {answer.reason for answer in self.answers if not answer.accepted}
