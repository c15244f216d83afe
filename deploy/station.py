"""What the processes of a run share: their order, their sockets to the supervisor and the recorder, how they end.

A process listens to the supervisor's word and stops when it says so, when it falls silent, or when the parent dies.
SIGINT is left to the supervisor (a terminal sends it to all); SIGTERM asks to stop.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy import transport, wire
from deploy.config import DeployConfig
from deploy.timing import now_ns
from deploy.topics import RECORDER, find_topic
from robonav.errors import LinkError, RobonavError, explain
from robonav.types import RobotSpec

BEAT_PERIOD_NS = 200_000_000
STAGES_MAX = 1000  # of one beat
SESSION_NUMBERS = 1 << 24  # messages of one stream in a session: days of them
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Order:
    """All that a process of a run needs to know; it travels as JSON."""

    folder: str  # of the sockets
    supervisor_pid: int
    episode: int
    seed: int
    robot: RobotSpec
    config: DeployConfig
    bundle: str
    driver: str  # "module:factory"
    log: str
    driver_kwargs: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)  # of the log
    session: int = 0  # of this process: how often its role was restarted before
    fences: dict[str, int] = field(default_factory=dict)  # by role, the first session that may be heard

    @property
    def first(self) -> int:
        """Number of the session's first message: above all that the sessions before it can have sent."""
        return self.session * SESSION_NUMBERS


class Station:
    """A process's place in a run. Use as a context manager; leaving closes the sockets."""

    def __init__(self, role: str, order: Order) -> None:
        self.role = role
        self.order = order
        self.link = transport.Link()
        self.counts: dict[str, int] = {"dropped": 0}
        self._control = self.open("control")
        self._status = self.open("status")
        self._record = None if role == RECORDER else self.open("record")
        self._said = "wait"
        self.silent = False  # whether the supervisor's word is older than its life
        self._fences = dict(order.fences)
        self._terminated = False
        self._heard_ns = now_ns()
        self._heard_once = False
        self._stages: list[tuple[str, float, float]] = []
        self._beat_ns = 0
        self._sequences = {"status": 0, "record": 0}
        self._live_with_parent()

    def __enter__(self) -> Station:
        """Ready to be used."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the sockets; what is under way to the recorder has a second to leave."""
        self.link.close()

    def open(self, name: str) -> Any:
        """Opens the process's socket of one of `deploy.topics`.

        Raises:
            LinkError: there is no such topic, or the process is no end of it.
        """
        return open_topic(self.link, self.order.folder, name, self.role)

    def word(self) -> str:
        """The supervisor's newest word: "wait", "run", "hold" or "stop".

        A "run" that was not repeated in its life is a "hold"; a long silence, or its end, is "stop" for good.
        """
        now = now_ns()
        for frame in transport.received(self._control):
            message = wire.decode_as(wire.ControlMsg, frame)
            self._said = message.state if self._said != "stop" else "stop"
            for role, session in message.fences.items():
                self._fences[role] = max(session, self._fences.get(role, 0))
            self._heard_ns, self._heard_once = now, True
        if self._terminated or self._alone(now):
            self._said = "stop"
        self.silent = now - self._heard_ns > self.order.config.supervisor.word_life_s * 1e9
        return "hold" if self.silent and self._said == "run" else self._said

    def fenced(self, role: str, session: int) -> bool:
        """Whether a role's message is of a process that was replaced since; it must not be heard."""
        return session < self._fences.get(role, 0)

    def orphaned(self) -> bool:
        """Whether the supervisor is silent or gone, or SIGTERM came; for the recorder, which outlives "stop"."""
        self.word()
        return self._terminated or self._alone(now_ns())

    def _alone(self, now: int) -> bool:
        config = self.order.config.supervisor
        # Before its first word the supervisor may still be busy with starting the others.
        patience_s = config.control_timeout_s if self._heard_once else config.start_timeout_s
        silent = now - self._heard_ns > patience_s * 1e9
        return silent or self.parentless()

    def parentless(self) -> bool:
        """Whether the supervisor's process is gone."""
        return os.getppid() != self.order.supervisor_pid

    @property
    def terminated(self) -> bool:
        """Whether SIGTERM came."""
        return self._terminated

    @property
    def control(self) -> Any:
        """The socket of the supervisor's word, to wait on."""
        return self._control

    def heard_nothing_yet(self) -> None:
        """Restarts the watch over the supervisor, after a long start of this process."""
        self._heard_ns = now_ns()

    def send_status(self, kind: type[wire.Message], **fields: Any) -> wire.Message:
        """Sends a message to the supervisor and returns it."""
        message = kind(sequence=self._sequences["status"], stamp_ns=now_ns(), episode=self.order.episode, **fields)
        self._sequences["status"] += 1
        if not transport.try_send(self._status, wire.encode(message)):
            self.counts["dropped"] += 1
        return message

    def stage(self, name: str, work_ms: float, age_ms: float) -> None:
        """Notes one run of a stage of the control loop for the next beat; what finds no room is left out.

        Args:
            name: of `deploy.timing.STAGES`, or LINK.
            work_ms: that it took.
            age_ms: of the observation, when the stage ended.
        """
        if len(self._stages) < STAGES_MAX:
            self._stages.append((name, max(0.0, work_ms), max(0.0, age_ms)))

    def beat(self, state: str, last_ms: float = 0.0, *, always: bool = False) -> None:
        """Says that this process lives, at most each BEAT_PERIOD_NS unless `always`."""
        now = now_ns()
        if always or now - self._beat_ns >= BEAT_PERIOD_NS:
            self._beat_ns = now
            self.send_status(
                wire.HeartbeatMsg,
                role=self.role,
                state=state,
                last_ms=last_ms,
                counts=dict(self.counts),
                session=self.order.session,
                stages=tuple(self._stages),
            )
            self._stages.clear()

    def record(self, *messages: Any) -> None:
        """Sends messages of one moment to the recorder, without waiting; what finds no room is counted."""
        if self._record is None:
            return
        frame = wire.encode(wire.RecordMsg(self.role, self._sequences["record"], now_ns(), messages))
        self._sequences["record"] += 1
        if not transport.try_send(self._record, frame):
            self.counts["dropped"] += 1

    def event(self, kind: str, text: str) -> None:
        """A line for the log."""
        self.record(wire.EventMsg(sequence=0, stamp_ns=now_ns(), episode=self.order.episode, kind=kind, text=text))

    def _live_with_parent(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_terminate)
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def _on_terminate(self, *_: object) -> None:
        self._terminated = True


def open_topic(link: transport.Link, folder: str | Path, name: str, role: str) -> Any:
    """A process's socket of a topic, with the topic's settings.

    Raises:
        LinkError: there is no such topic, or the process is no end of it.
    """
    topic = find_topic(name)
    if role not in topic.senders + topic.receivers:
        ends = ", ".join(topic.senders + topic.receivers)
        raise LinkError(explain(f"topic '{name}'", f"one of {ends}", role, "name it in deploy.topics"))
    sends, address = role in topic.senders, transport.ipc_address(folder, name)
    if topic.kind == "latest":
        return link.publish_latest(address, topic.queue) if sends else link.subscribe_latest(address, topic.max_bytes)
    if topic.kind == "command":
        return link.send_commands(address) if sends else link.receive_commands(address, topic.max_bytes)
    if topic.kind == "record":
        if sends:
            return link.send_records(address, queue=topic.queue)
        return link.receive_records(address, topic.queue, topic.max_bytes)
    raise LinkError(explain(f"topic '{name}'", "a stream between processes", topic.kind, "use deploy.endpoint"))


def error_file(folder: str | Path, role: str) -> Path:
    """Where a process leaves its last words for the supervisor."""
    return Path(folder) / f"{role}.error"


def leave_error(order: Order, role: str, error: BaseException) -> None:
    """Writes the error's one line (and, for an unexpected one, where it came from) for the supervisor."""
    known = isinstance(error, RobonavError)
    line = str(error) if known else f"{type(error).__name__}: {error}"
    text = line if known else line.splitlines()[0] + "\n" + "".join(traceback.format_exception(error))
    try:
        error_file(order.folder, role).write_text(text)
    except OSError:
        print(f"robonav: error: {role}: {line}", file=sys.stderr)
