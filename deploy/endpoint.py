"""The governor's end of the operator link: who is there, what they ask, and what they are told.

Over TCP the link itself has checked the key of each connection, and says it with each message; here its role and
rate are looked up. A key that is revoked is cut off: its messages are no longer heard, and all connections are made
anew, which it can no more.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zmq

import robonav
from deploy import keys, transport, wire
from deploy.authority import Peer, Request
from deploy.config import OperatorConfig
from deploy.timing import now_ns
from robonav.errors import LinkError, WireError, explain

FRAMES_MAX = 64  # of one look; the rest waits, so that a flood delays no cycle
WATCHERS_MAX = 32
REASON_MAX = wire.TEXT_MAX

MALFORMED = "refused: malformed"
RATE = "refused: rate"
KEY = "refused: key"
KIND = "refused: kind"


@dataclass
class RateBound:
    """A bucket of messages that fills with time; a second's worth at most. One a key."""

    rate_hz: float
    left: float = field(init=False)
    at_ns: int | None = None

    def __post_init__(self) -> None:
        """Starts full."""
        self.left = self.rate_hz

    def take(self, now: int) -> bool:
        """Whether one more message may pass now."""
        since_s = 0.0 if self.at_ns is None else (now - self.at_ns) * 1e-9
        self.at_ns = now
        self.left = min(self.rate_hz, self.left + since_s * self.rate_hz)
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class RobotState(NamedTuple):
    """What remote programs are told."""

    robot: str
    holder: str
    estop: str
    velocity: Any  # (3,)
    standing: bool
    reasons: tuple[str, ...]


class Endpoint:
    """Listens where the config says. Reads and writes never wait.

    Raises:
        LinkError: no keys, an address that cannot be used.
    """

    def __init__(self, link: transport.Link, config: OperatorConfig, episode: int) -> None:
        if not config.listen.startswith(("tcp://", "ipc://")):
            raise LinkError(explain("operator.listen", "tcp://ADDRESS:PORT or ipc://PATH", f"'{config.listen}'"))
        self.refused: Counter[str] = Counter()  # since the last look, by reason
        self.heard: dict[str, int] = {}  # last number by key, as the governor keeps it
        self._link = link
        self._config = config
        self._episode = episode
        self._folder = keys.keys_folder(config.keys)
        self._local = config.listen.startswith("ipc://")
        self._secret = "" if self._local else keys.robot_pair(self._folder).secret
        self._allowed = {} if self._local else keys.allowed(self._folder)
        self._rates: dict[str, RateBound] = {}
        self._watchers: dict[bytes, tuple[Peer, int]] = {}  # session to who, and until when
        self._sequence = 0
        self._looked_ns = self._told_ns = 0
        if not self._local:
            link.admit(lambda public: public in keys.allowed(self._folder))
        self.socket: zmq.Socket[bytes] | None = self._open()

    def watch_keys(self, now: int) -> list[str]:
        """Looks at the keys when it is due; returns whom it cut off."""
        gone: list[str] = []
        if not self._local and now - self._looked_ns >= self._config.revoke_s * 1e9:
            self._looked_ns = now
            before, self._allowed = self._allowed, keys.allowed(self._folder)
            changed = [e for public, e in before.items() if self._allowed.get(public) != e]
            gone = [entry.name for entry in changed]
            if changed and self.socket is not None:
                self._link.drop(self.socket)
                self.socket = None
                self._watchers.clear()
        if self.socket is None:
            with contextlib.suppress(LinkError):  # the address is still being freed; again at the next cycle
                self.socket = self._open()
        return gone

    def receive(self, now: int) -> list[Request]:
        """What came, of whom it is allowed; the rest is counted and answered."""
        found: list[Request] = []
        for _ in range(FRAMES_MAX):
            parts = self._next()
            if parts is None:
                break
            peer = self._peer(parts)
            if peer is None or len(parts) != 2:
                self.refused[KEY if peer is None else MALFORMED] += 1
                continue
            request = self._read(peer, parts[1].bytes, now)
            if request is not None:
                found.append(request)
        return found

    def answer(self, request: Request, refusal: str) -> None:
        """Says what came of a request."""
        self._tell(request.peer, wire.AnswerMsg, to=request.message.sequence, accepted=not refusal, reason=refusal)

    def tell(self, state: RobotState, now: int) -> None:
        """Sends the robot's state to all who are there, when it is due."""
        if now - self._told_ns < 1e9 / self._config.state_hz:
            return
        self._told_ns = now
        self._watchers = {s: (peer, until) for s, (peer, until) in self._watchers.items() if until > now}
        for peer, _ in self._watchers.values():
            vx, vy, yaw_rate = (float(x) for x in state.velocity)
            self._tell(
                peer,
                wire.RobotStateMsg,
                version=robonav.__version__,
                name=peer.name,
                role=peer.role,
                heard=self.heard.get(peer.key, -1),
                robot=state.robot,
                holder=state.holder,
                estop=state.estop,
                vx_mps=vx,
                vy_mps=vy,
                yaw_rate_radps=yaw_rate,
                standing=state.standing,
                reasons=state.reasons,
            )

    def _open(self) -> zmq.Socket[bytes]:
        return self._link.serve_operators(self._config.listen, self._secret)

    def _next(self) -> list[Any] | None:
        if self.socket is None:
            return None
        try:
            return self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None

    def _peer(self, parts: list[Any]) -> Peer | None:
        """Who sent it, by the key that the link has checked; None for a key that is allowed no more."""
        session = parts[0].bytes
        if self._local:
            return Peer("ipc", "local operator", "commander", session)
        try:
            entry = self._allowed.get(parts[-1].get("User-Id"))
        except zmq.ZMQError:
            entry = None
        return None if entry is None else Peer(entry.public, entry.name, entry.role, session)

    def _read(self, peer: Peer, frame: bytes, now: int) -> Request | None:
        """A request, or None for what is refused. What comes too fast is not answered: answers would pile up."""
        message, wrong = None, ""
        try:
            message = wire.decode(frame)
        except WireError as error:
            wrong = str(error)
        pressed = isinstance(message, wire.EStopMsg) and message.action == "press"
        rate = self._rates.setdefault(peer.key, RateBound(self._config.rate_hz))
        if not rate.take(now) and not pressed:
            self.refused[RATE] += 1
            return None
        if message is None:
            self._refuse(peer, MALFORMED, wrong)
            return None
        if isinstance(message, wire.HelloMsg):
            if len(self._watchers) < WATCHERS_MAX or peer.session in self._watchers:
                self._watchers[peer.session] = (peer, now + int(self._config.hello_life_s * 1e9))
                self._told_ns = 0
            return None
        if not isinstance(message, (wire.CommandMsg, wire.EStopMsg, wire.LeaseMsg)):
            self._refuse(peer, KIND, KIND, message)
            return None
        return Request(peer, message)

    def _refuse(self, peer: Peer, reason: str, said: str, message: Any = None) -> None:
        self.refused[reason] += 1
        to = getattr(message, "sequence", 0)
        self._tell(peer, wire.AnswerMsg, to=to, accepted=False, reason=said[:REASON_MAX])

    def _tell(self, peer: Peer, kind: type[wire.Message], **fields: Any) -> None:
        """Sends to one session; what it has no room for, or to one that is gone, is lost."""
        if self.socket is None:
            return
        message = kind(sequence=self._sequence, stamp_ns=now_ns(), episode=self._episode, **fields)
        self._sequence += 1
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send_multipart([peer.session, wire.encode(message)], zmq.DONTWAIT)
