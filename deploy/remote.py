"""A remote program's end of the operator link: press the e-stop, re-arm it, watch the robot, or command it.

with Remote("tcp://robot:5600", load_pair(Path("alice.key"))) as robot:
    robot.press("a person on the way")
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray
from zmq.utils.monitor import recv_monitor_message

import robonav
from deploy import transport, wire
from deploy.keys import Pair
from deploy.timing import now_ns
from robonav.errors import LinkError, explain

AGAIN_NS = 50_000_000  # between two tries of what must get through
HELLO_NS = 1_000_000_000
_MONITORED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CONNECTED
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH


class Remote:
    """A link to a robot's governor. Nothing that cannot leave now is kept to be delivered later.

    Args:
        address: where ``robonav run --listen`` listens.
        pair: of a file of ``robonav keys new``; none for an ipc address.
    """

    def __init__(self, address: str, pair: Pair | None = None) -> None:
        if address.startswith("tcp://") and pair is None:
            raise LinkError(explain(address, "a key", "none", "give the file of 'robonav keys new' with --key"))
        self.address = address
        self.state: wire.RobotStateMsg | None = None
        self._sequence = 0
        self._episode = 0
        self._answers: dict[int, wire.AnswerMsg] = {}
        self._refused_text = ""
        self._hello_ns: int | None = None
        self._name = "" if pair is None else pair.name
        self._link = transport.Link()
        keys = () if pair is None else (pair.public, pair.secret, pair.robot)
        try:
            self._socket = self._link.connect_operator(address, *keys)
            self._monitor = self._socket.get_monitor_socket(_MONITORED)
        except LinkError:
            self._link.close()
            raise
        self._handshake = "nobody answers there"

    def __enter__(self) -> Remote:
        """Ready to be used."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the link."""
        self.close()

    def close(self) -> None:
        """Closes the link; nothing is delivered after."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._link.close()

    def connect(self, timeout_s: float = 2.0) -> wire.RobotStateMsg:
        """Waits until the robot has said who we are to it.

        Raises:
            LinkError: nobody there, the key is not allowed, or another version.
        """
        deadline = now_ns() + int(timeout_s * 1e9)
        self._hello_ns = None
        while now_ns() < deadline:
            self.poll(AGAIN_NS)
            if self.state is not None:
                return self.state
        raise LinkError(self._why(timeout_s))

    def poll(self, wait_ns: int = 0) -> None:
        """Takes in what came within the time, and says hello when it is due."""
        now = now_ns()
        due = self._hello_ns is None or now - self._hello_ns >= (HELLO_NS if self.state else AGAIN_NS)
        if due and self._send(wire.HelloMsg, version=robonav.__version__, name=self._name) is not None:
            self._hello_ns = now
        transport.wait([self._socket, self._monitor], wait_ns)
        self._watch_handshake()
        for frame in transport.received(self._socket):
            self._hear(wire.decode(frame))

    def press(self, text: str = "", timeout_s: float = 2.0) -> None:
        """Presses the e-stop, again and again until the robot says that it is latched.

        Raises:
            LinkError: it did not say so in time.
        """
        self._insist(wire.EStopMsg, timeout_s, action="press", text=text)

    def rearm(self, timeout_s: float = 2.0) -> None:
        """Re-arms the e-stop; the robot must stand.

        Raises:
            LinkError: refused, with the reason, or no answer.
        """
        self.connect(timeout_s)
        self._insist(wire.EStopMsg, timeout_s, action="rearm")

    def hold(self) -> bool:
        """Says once that a hand is at the e-stop; repeat it a few times a second. False when there is no link now."""
        return self._send(wire.EStopMsg, action="hold") is not None

    def lease(self, action: str = "take", timeout_s: float = 2.0) -> None:
        """Takes (or renews) or releases the commander's lease.

        Raises:
            LinkError: refused, with the reason, or no answer.
        """
        self.connect(timeout_s)
        self._insist(wire.LeaseMsg, timeout_s, action=action)

    def command(self, velocity: NDArray[Any]) -> int | None:
        """Asks for a (3,) velocity; returns its number, or None when there is no link now."""
        vx, vy, yaw_rate = (float(x) for x in np.asarray(velocity, dtype=np.float64))
        return self._send(wire.CommandMsg, observation=0, vx_mps=vx, vy_mps=vy, yaw_rate_radps=yaw_rate)

    def next_number(self) -> int:
        """A number for a message that the caller makes himself and sends with `send_frame`."""
        self._sequence += 1
        return self._sequence - 1

    def send_frame(self, frame: bytes) -> bool:
        """Sends bytes as they are, for drills; False when there is no link now."""
        return transport.try_send(self._socket, frame)

    def answers(self) -> dict[int, wire.AnswerMsg]:
        """What came of our messages since the last call, by their numbers."""
        found, self._answers = self._answers, {}
        return found

    def _insist(self, kind: type[wire.Message], timeout_s: float, **fields: Any) -> None:
        deadline = now_ns() + int(timeout_s * 1e9)
        tries: set[int | None] = set()
        while now_ns() < deadline:
            tries.add(self._send(kind, **fields))
            until = now_ns() + AGAIN_NS
            while now_ns() < until:
                self.poll(max(0, until - now_ns()))
                for answer in (a for to, a in self.answers().items() if to in tries):
                    if answer.accepted:
                        return
                    raise LinkError(f"{self.address}: {answer.reason}")
        raise LinkError(self._why(timeout_s))

    def _send(self, kind: type[wire.Message], **fields: Any) -> int | None:
        number = self._sequence
        message = kind(sequence=number, stamp_ns=now_ns(), episode=self._episode, **fields)
        if not transport.try_send(self._socket, wire.encode(message)):
            return None
        self._sequence += 1
        return number

    def _hear(self, message: Any) -> None:
        if isinstance(message, wire.RobotStateMsg):
            if self.state is None or message.episode != self._episode:
                self._sequence = max(self._sequence, message.heard + 1)
            self.state, self._episode = message, message.episode
        elif isinstance(message, wire.AnswerMsg):
            self._answers[message.to] = message
            self._refused_text = "" if message.accepted else message.reason

    def _watch_handshake(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_CONNECTED:
                self._handshake = "it does not prove to be that robot, or does not know this key"
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._handshake = "no answer"
            elif event == _FAILED:
                self._handshake = "this key is not allowed, or was revoked"

    def _why(self, timeout_s: float) -> str:
        if self._refused_text:
            return f"{self.address}: {self._refused_text}"
        return f"{self.address}: {self._handshake} (waited {timeout_s:g} s); check the address, 'robonav keys list'"
