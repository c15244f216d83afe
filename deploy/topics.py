"""The streams between a run's processes, as data: who sends what to whom, how often, and how long it is worth anything.

`Station.open` opens a process's sockets from this table, so that no socket is there that it does not name; the
command line and docs/deployment.md print it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deploy import wire
from deploy.config import DeployConfig
from deploy.transport import LARGE_BYTES, OPERATOR_QUEUE, RECORD_QUEUE, SMALL_BYTES
from robonav.errors import LinkError, explain, nearest
from robonav.types import RobotSpec

DRIVER, GOVERNOR, NAVIGATOR, RECORDER, SUPERVISOR = "driver", "governor", "navigator", "recorder", "supervisor"
REMOTE = "operators"  # programs of people, on this machine or another
WORKERS = (DRIVER, GOVERNOR, NAVIGATOR, RECORDER)

Kind = Literal["latest", "command", "record", "operator"]
Rate = Literal["robot", "governor", "control", "beat", "sum", "operator"]
Life = Literal["observation", "command", "control", "heartbeat", "logged"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A stream: one socket at each end, one message a frame."""

    name: str
    """Of the stream, and of its socket's file in the run's folder."""
    kind: Kind
    """latest: the newest only; command: never kept for later; record: a bounded queue; operator: both ways, by key."""
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    binds: str
    """The process that is the socket's one end; the others connect to it and do so again when it was restarted."""
    messages: tuple[type[Any], ...]
    rate: Rate
    """Whose period it follows; `Resolved.rate` has the words."""
    queue: int
    """Messages that wait at a sender; what does not fit is refused to it and counted, never waited for."""
    max_bytes: int
    """Of a message; a longer one ends its sender's connection."""
    life: Life
    """After which a message is worth nothing, and what is then done; `Resolved.life` has the words."""
    logged: tuple[str, ...] = ()
    """Channels of the log that hold what was sent, or what it came to."""


TOPICS: tuple[Topic, ...] = (
    Topic(
        name="observations",
        kind="latest",
        senders=(DRIVER,),
        receivers=(NAVIGATOR, GOVERNOR),
        binds=DRIVER,
        messages=(wire.ObservationMsg,),
        rate="robot",
        queue=2,
        max_bytes=LARGE_BYTES,
        life="observation",
        logged=("/observation",),
    ),
    Topic(
        name="commands",
        kind="command",
        senders=(NAVIGATOR,),
        receivers=(GOVERNOR,),
        binds=GOVERNOR,
        messages=(wire.CommandMsg,),
        rate="robot",
        queue=1,
        max_bytes=SMALL_BYTES,
        life="command",
        logged=("/decision",),
    ),
    Topic(
        name="governed",
        kind="command",
        senders=(GOVERNOR,),
        receivers=(DRIVER,),
        binds=DRIVER,
        messages=(wire.GovernedMsg,),
        rate="governor",
        queue=1,
        max_bytes=SMALL_BYTES,
        life="command",
        logged=("/command_governed", "/applied"),
    ),
    Topic(
        name="control",
        kind="latest",
        senders=(SUPERVISOR,),
        receivers=WORKERS,
        binds=SUPERVISOR,
        messages=(wire.ControlMsg,),
        rate="control",
        queue=2,
        max_bytes=LARGE_BYTES,
        life="control",
    ),
    Topic(
        name="status",
        kind="record",
        senders=WORKERS,
        receivers=(SUPERVISOR,),
        binds=SUPERVISOR,
        messages=(wire.HeartbeatMsg, wire.StatusMsg),
        rate="beat",
        queue=RECORD_QUEUE,
        max_bytes=LARGE_BYTES,
        life="heartbeat",
        logged=("/status",),
    ),
    Topic(
        name="record",
        kind="record",
        senders=(DRIVER, GOVERNOR, NAVIGATOR, SUPERVISOR),
        receivers=(RECORDER,),
        binds=RECORDER,
        messages=(wire.RecordMsg,),
        rate="sum",
        queue=RECORD_QUEUE,
        max_bytes=LARGE_BYTES,
        life="logged",
        logged=("/event", "/belief", "/rollouts"),
    ),
    Topic(
        name="operators",
        kind="operator",
        senders=(REMOTE, GOVERNOR),
        receivers=(GOVERNOR, REMOTE),
        binds=GOVERNOR,
        messages=(
            wire.CommandMsg,
            wire.EStopMsg,
            wire.LeaseMsg,
            wire.HelloMsg,
            wire.AnswerMsg,
            wire.RobotStateMsg,
        ),
        rate="operator",
        queue=OPERATOR_QUEUE,
        max_bytes=SMALL_BYTES,
        life="command",
        logged=("/event",),
    ),
)
BY_NAME = {topic.name: topic for topic in TOPICS}


def find_topic(name: str) -> Topic:
    """A topic by name.

    Raises:
        LinkError: there is none.
    """
    if name not in BY_NAME:
        raise LinkError(explain("topic", "a name of deploy.topics", f"'{name}'", nearest(name, BY_NAME)))
    return BY_NAME[name]


@dataclass(frozen=True, slots=True)
class Row:
    """A topic in words, with a run's own figures."""

    topic: str
    sender: str
    receivers: str
    rate: str
    queue: str
    logged: str
    lifetime: str
    messages: str

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(cls.__dataclass_fields__)

    def cells(self) -> tuple[str, ...]:
        """In the order of `heads`."""
        return tuple(getattr(self, name) for name in self.heads())


def rows(config: DeployConfig, robot: RobotSpec) -> list[Row]:
    """The table for a run's settings and robot."""
    return [_row(topic, config, robot) for topic in TOPICS]


def _row(topic: Topic, config: DeployConfig, robot: RobotSpec) -> Row:
    waits = {
        "latest": "newest only",
        "command": f"{topic.queue}, none while the link is down",
        "record": f"{topic.queue}",
        "operator": f"{topic.queue} to, 1 from each program",
    }
    return Row(
        topic=topic.name,
        sender=", ".join(topic.senders),
        receivers=", ".join(topic.receivers),
        rate=_rate(topic, config, robot),
        queue=waits[topic.kind],
        logged=" ".join(topic.logged) or "no",
        lifetime=_life(topic, config),
        messages=", ".join(kind.__name__.removesuffix("Msg") for kind in topic.messages),
    )


def _rate(topic: Topic, config: DeployConfig, robot: RobotSpec) -> str:
    operator = config.operator
    return {
        "robot": f"{robot.rate_hz:g} Hz",
        "governor": f"{1 / config.governor.period_s:g} Hz, and at each command",
        "control": f"{1 / config.supervisor.control_period_s:g} Hz, and at each change",
        "beat": f"5 Hz, or {robot.rate_hz:g} Hz with each tick",
        "sum": "with each tick and event",
        "operator": f"at most {operator.rate_hz:g} Hz from a key, {operator.state_hz:g} Hz to it",
    }[topic.rate]


def _life(topic: Topic, config: DeployConfig) -> str:
    governor, supervisor = config.governor, config.supervisor
    return {
        "observation": f"{governor.observation_life_s:g} s, then the robot stops",
        "command": f"{governor.command_life_s:g} s, then the robot stops",
        "control": f"{supervisor.word_life_s:g} s, then the robot is held; {supervisor.control_timeout_s:g} s: ended",
        "heartbeat": f"{supervisor.heartbeat_timeout_s:g} s, then its sender is lost",
        "logged": "until it is written",
    }[topic.life]


def text_table(table: Sequence[Row]) -> str:
    """For a terminal: columns as wide as their widest cell."""
    lines = [Row.heads(), *(row.cells() for row in table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(Row.heads()))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown_table(table: Sequence[Row]) -> str:
    """For a document."""
    lines = [" | ".join(Row.heads()), "|".join("---" for _ in Row.heads())]
    lines = [f"| {lines[0]} |", f"|{lines[1]}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in table)])
