"""Messages between the processes: msgspec structs, array-like and tagged, as msgpack. One message, one frame.

Every message starts with its tag; those of a stream carry the protocol's version in `protocol`, a sequence number
that grows by one a message of that sender, the sender's monotonic `stamp_ns`, and the `episode`. Decoding refuses NaN,
Inf and values out of range.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

import msgspec
import numpy as np
from numpy.typing import NDArray

from robonav.errors import WireError, explain
from robonav.types import Decision, Observation, VelocityCommand

PROTOCOL = 1
TEXT_MAX = 200  # of what people write
MAX_ELEMENTS = 1 << 22  # of one array; larger than any sensor here, small enough to refuse nonsense

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Protocol = Annotated[int, msgspec.Meta(ge=PROTOCOL, le=PROTOCOL)]
SpeedMps = Annotated[float, msgspec.Meta(ge=-10.0, le=10.0)]
YawRateRadps = Annotated[float, msgspec.Meta(ge=-20.0, le=20.0)]
LifeMs = Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)]
Finite = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
Number = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]


class Array(msgspec.Struct, frozen=True, array_like=True):
    """A float32 array, row-major, little-endian."""

    shape: tuple[Count, ...]
    data: bytes


class Message(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What every message of a stream starts with."""

    protocol: Protocol = PROTOCOL
    sequence: Count
    stamp_ns: Count
    episode: Count


class ObservationMsg(Message, frozen=True, array_like=True, kw_only=True, tag="obs"):
    """An `Observation`; `stamp_ns` is the observation's."""

    pose_odom_base: Array
    twist_base: Array
    tilt_rad: Array
    goal_odom_m: Array
    last_command: Array
    scan_m: Array | None
    depth_m: Array | None


class CommandMsg(Message, frozen=True, array_like=True, kw_only=True, tag="cmd"):
    """A velocity that the navigator wants, from the observation with number `observation`."""

    observation: Count
    vx_mps: SpeedMps
    vy_mps: SpeedMps
    yaw_rate_radps: YawRateRadps
    session: Count = 0  # of the process: 0 for the first, one more for each that was started in its place
    observed_ns: Count = 0  # stamp of the observation; 0 of a sender on another machine, whose clock is not the robot's


class GovernedMsg(Message, frozen=True, array_like=True, kw_only=True, tag="gov"):
    """What the governor lets through, and why it differs from what was asked; lives `life_ms` from its receipt."""

    vx_mps: SpeedMps
    vy_mps: SpeedMps
    yaw_rate_radps: YawRateRadps
    life_ms: LifeMs
    asked: Count  # sequence of the command that it comes from
    reasons: tuple[str, ...]
    holder: str = ""  # name of the commander who holds the lease
    estop: str = ""  # who pressed the e-stop and why; empty when it is not latched
    session: Count = 0  # of the governor's process
    observed_ns: Count = 0  # stamp of the observation that the navigator's command came from; 0 where there is none
    govern_ms: Number = 0.0  # working time of the cycle
    link_ms: Number = 0.0  # that the newest command was on its way
    age_ms: Number = 0.0  # of that observation when the cycle ended; 0 where there is none


class AppliedMsg(Message, frozen=True, array_like=True, kw_only=True, tag="applied"):
    """What the driver applied, from governed command number `governed`."""

    governed: Count
    vx_mps: SpeedMps
    vy_mps: SpeedMps
    yaw_rate_radps: YawRateRadps
    act_ms: Number = 0.0  # that the driver took
    link_ms: Number = 0.0  # that the governed command was on its way
    age_ms: Number = 0.0  # of the observation that it came from, when it was applied; 0 where there is none


class DecisionMsg(Message, frozen=True, array_like=True, kw_only=True, tag="decision"):
    """A tick of the navigator: from which observation (by its sequence), what was decided, and the time it took."""

    observation: Count
    reset: bool
    seed: Count
    vx_mps: SpeedMps
    vy_mps: SpeedMps
    yaw_rate_radps: YawRateRadps
    value: Finite
    why: str
    route_odom_m: Array | None
    age_ms: Number  # of the observation when the decision began
    total_ms: Number
    details: dict[str, Finite]


class StatusMsg(Message, frozen=True, array_like=True, kw_only=True, tag="status"):
    """The robot, as its driver sees it, once a tick."""

    arrived: bool
    collided: bool
    speed_mps: Number
    position_odom_m: tuple[Finite, Finite]
    late_ticks: Count
    lateness_ms: Finite
    stopped: bool  # the driver has stopped the robot for good
    held: bool = False  # the driver refuses commands while a process is being restarted
    standing: bool = False  # no part of the measured twist is above the robot's standstill
    sense_ms: Number = 0.0  # that reading the robot took


class HeartbeatMsg(Message, frozen=True, array_like=True, kw_only=True, tag="beat"):
    """A process is alive. `counts` are its own totals (reasons, drops), `last_ms` its last cycle's working time."""

    role: str
    state: str  # "ready", "running" or "done"
    last_ms: Number
    counts: dict[str, Count]
    session: Count = 0
    stages: tuple[tuple[str, Number, Number], ...] = ()  # since the last: stage, its milliseconds, age at its end in ms


class ControlMsg(Message, frozen=True, array_like=True, kw_only=True, tag="control"):
    """The supervisor's word, repeated: "wait", "run", "hold" (the robot stands while a process is restarted) or "stop".

    `fences`: by role, the first session that may still be heard; what an earlier one sent is refused.
    """

    state: str
    fences: dict[str, Count] = msgspec.field(default_factory=dict)


class EventMsg(Message, frozen=True, array_like=True, kw_only=True, tag="event"):
    """Something worth a line in the log; `kind` is one word, `text` is for people or JSON."""

    kind: str
    text: str


class EStopMsg(Message, frozen=True, array_like=True, kw_only=True, tag="estop"):
    """Press (anyone, at any time: neither number nor episode is checked) or re-arm the e-stop; `text` says why.

    "hold" says that a hand is at it, and is repeated as long as that is so.
    """

    action: Literal["press", "rearm", "hold"]
    text: Text = ""


class LeaseMsg(Message, frozen=True, array_like=True, kw_only=True, tag="lease"):
    """Take (or renew) or release the commander's lease."""

    action: Literal["take", "release"]


class HelloMsg(Message, frozen=True, array_like=True, kw_only=True, tag="hello"):
    """A remote program is there and wants to be told the robot's state; repeated as long as it does."""

    version: Text  # of robonav
    name: Text = ""


class AnswerMsg(Message, frozen=True, array_like=True, kw_only=True, tag="answer"):
    """What came of message number `to` of a remote program: accepted, or refused for the reason."""

    to: Count
    accepted: bool
    reason: Text = ""


class RobotStateMsg(Message, frozen=True, array_like=True, kw_only=True, tag="robot"):
    """The robot's state for a remote program, and who that program is to the robot."""

    version: Text  # of robonav
    name: Text  # of the key that asked
    role: Text
    heard: int  # number of the last message that was heard from this key; -1 for none
    robot: Text
    holder: Text  # name of the commander who holds the lease
    estop: str  # who pressed the e-stop and why; empty when it is not latched
    vx_mps: SpeedMps  # let through last
    vy_mps: SpeedMps
    yaw_rate_radps: YawRateRadps
    standing: bool
    reasons: tuple[str, ...]


Any_ = Union[  # noqa: UP007  msgspec reads it at run time, on Python 3.10 as well
    ObservationMsg,
    CommandMsg,
    GovernedMsg,
    AppliedMsg,
    DecisionMsg,
    StatusMsg,
    HeartbeatMsg,
    ControlMsg,
    EventMsg,
    EStopMsg,
    LeaseMsg,
    HelloMsg,
    AnswerMsg,
    RobotStateMsg,
]


class RecordMsg(msgspec.Struct, frozen=True, array_like=True, tag="record"):
    """What a process sends to the recorder: messages of one moment, numbered by `sequence` per `source`."""

    source: str
    sequence: Count
    sent_ns: Count
    messages: tuple[Any_, ...]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Union[Any_, RecordMsg])  # noqa: UP007


def encode(message: Any) -> bytes:
    """A message as one frame."""
    return _ENCODER.encode(message)


def decode(frame: bytes) -> Any:
    """A frame as a message.

    Raises:
        WireError: it is none of ours, of another protocol version, or has a value out of range.
    """
    try:
        return _DECODER.decode(frame)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        other = _other_protocol(frame)
        if other is not None:
            do = "install the same version of robonav on both sides"
            raise WireError(explain("link", f"protocol {PROTOCOL}", f"protocol {other}", do)) from None
        raise WireError(f"no message of protocol {PROTOCOL}: {str(error)[:160]}") from None


def _other_protocol(frame: bytes) -> int | None:
    """The protocol's version of a message that starts as all of ours do, if it is another."""
    try:
        start = msgspec.msgpack.decode(frame)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
    if not isinstance(start, list) or len(start) < 2 or not isinstance(start[0], str):
        return None
    protocol = start[1]
    known = not isinstance(protocol, int) or isinstance(protocol, bool) or protocol == PROTOCOL
    return None if known else protocol


def decode_as(kind: type[Any], frame: bytes) -> Any:
    """A frame as a message of the type `kind`; WireError for any other."""
    message = decode(frame)
    if not isinstance(message, kind):
        raise WireError(f"expected a {kind.__name__}, got a {type(message).__name__}")
    return message


def pack_array(values: Any) -> Array:
    """An array for the wire."""
    array = np.ascontiguousarray(values, dtype="<f4")
    return Array(array.shape, array.tobytes())


def unpack_array(array: Array, name: str) -> NDArray[np.float32]:
    """An array from the wire, its own memory.

    Raises:
        WireError: the bytes do not fill the shape.
    """
    count = 1
    for size in array.shape:
        count *= size
        if count > MAX_ELEMENTS:
            raise WireError(f"{name}: shape {array.shape} is too large")
    if len(array.data) != 4 * count:
        raise WireError(f"{name}: expected {4 * count} bytes for shape {array.shape}, got {len(array.data)}")
    return np.frombuffer(array.data, dtype="<f4").reshape(array.shape).astype(np.float32)


def pack_observation(observation: Observation, sequence: int, episode: int) -> ObservationMsg:
    """An observation for the wire."""
    o = observation
    return ObservationMsg(
        sequence=sequence,
        stamp_ns=o.stamp_ns,
        episode=episode,
        pose_odom_base=pack_array(o.pose_odom_base),
        twist_base=pack_array(o.twist_base),
        tilt_rad=pack_array(o.tilt_rad),
        goal_odom_m=pack_array(o.goal_odom_m),
        last_command=pack_array(o.last_command),
        scan_m=None if o.scan_m is None else pack_array(o.scan_m),
        depth_m=None if o.depth_m is None else pack_array(o.depth_m),
    )


def unpack_observation(message: ObservationMsg) -> Observation:
    """The observation of a message. Its shapes are checked by `Observation.check`, not here."""
    m = message
    return Observation(
        stamp_ns=m.stamp_ns,
        pose_odom_base=unpack_array(m.pose_odom_base, "pose_odom_base"),
        twist_base=unpack_array(m.twist_base, "twist_base"),
        tilt_rad=unpack_array(m.tilt_rad, "tilt_rad"),
        goal_odom_m=unpack_array(m.goal_odom_m, "goal_odom_m"),
        last_command=unpack_array(m.last_command, "last_command"),
        scan_m=None if m.scan_m is None else unpack_array(m.scan_m, "scan_m"),
        depth_m=None if m.depth_m is None else unpack_array(m.depth_m, "depth_m"),
    )


def pack_decision(
    decision: Decision,
    *,
    sequence: int,
    stamp_ns: int,
    episode: int,
    observation: int,
    reset: bool,
    seed: int,
    age_ms: float,
    total_ms: float,
) -> DecisionMsg:
    """A decision for the recorder."""
    command = decision.command
    route = decision.route_odom_m
    return DecisionMsg(
        sequence=sequence,
        stamp_ns=stamp_ns,
        episode=episode,
        observation=observation,
        reset=reset,
        seed=seed,
        vx_mps=command.vx_mps,
        vy_mps=command.vy_mps,
        yaw_rate_radps=command.yaw_rate_radps,
        value=decision.value,
        why=decision.why,
        route_odom_m=None if route is None else pack_array(route),
        age_ms=max(0.0, age_ms),
        total_ms=total_ms,
        details=decision.details,
    )


def velocity_of(message: CommandMsg | GovernedMsg | AppliedMsg | DecisionMsg) -> NDArray[np.float64]:
    """(3,) vx, vy, yaw rate of a message that has them."""
    return np.array([message.vx_mps, message.vy_mps, message.yaw_rate_radps])


def velocity_fields(command: VelocityCommand) -> dict[str, Any]:
    """The fields of a message that carry a velocity."""
    return {"vx_mps": command.vx_mps, "vy_mps": command.vy_mps, "yaw_rate_radps": command.yaw_rate_radps}
