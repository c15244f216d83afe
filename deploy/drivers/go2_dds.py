"""The DDS link to a Unitree Go2: requests out, states and other topics in. Needs cyclonedds (extra `go2`).

Quality of service is DDS's default, as in unitree_sdk2_python `unitree_sdk2py/core/channel.py`: reliable writers,
best-effort readers, the latest sample kept. One thread receives and stamps what came with this computer's monotonic
clock: the robot's own stamps are of another clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cyclonedds.core import DDSException, InstanceState, Listener, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.internal import InvalidSample
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from deploy.drivers import go2_idl as idl
from deploy.drivers.go2_messages import NAMES, REQUEST_TOPIC, RESPONSE_TOPIC, SportState
from deploy.timing import now_ns
from robonav.errors import LinkError, explain

WAIT_MS = 50  # at most this long the thread does not look whether the link was closed
POLL_S = 0.005

Receive = Callable[[Any, int], None]  # a sample and when it came


def loopback_config() -> str:
    """CycloneDDS configuration for processes of one machine, without multicast."""
    return _config('<NetworkInterface name="lo" multicast="false"/>', '<Peers><Peer address="127.0.0.1"/></Peers>')


def interface_config(name: str) -> str:
    """CycloneDDS configuration for one network interface; "lo" is this machine alone."""
    if name == "lo":
        return loopback_config()
    return _config(f'<NetworkInterface name="{name}" priority="default" multicast="default"/>', "")


def _config(interface: str, peers: str) -> str:
    multicast = "<AllowMulticast>false</AllowMulticast>" if peers else ""
    return (
        f"<CycloneDDS><Domain><General><Interfaces>{interface}</Interfaces>{multicast}</General>"
        f"<Discovery><ParticipantIndex>auto</ParticipantIndex>{peers}</Discovery></Domain></CycloneDDS>"
    )


def sport_state(sample: idl.SportModeState, received_ns: int) -> SportState:
    """What is read of a state."""
    roll, pitch, yaw = (float(v) for v in sample.imu_state.rpy)
    x, y, _ = (float(v) for v in sample.position)
    vx, vy, _ = (float(v) for v in sample.velocity)
    return SportState(
        received_ns=received_ns,
        position_odom_m=(x, y),
        yaw_rad=yaw,
        tilt_rad=(roll, pitch),
        velocity_mps=(vx, vy),
        yaw_rate_radps=float(sample.yaw_speed),
        body_height_m=float(sample.body_height),
        mode=int(sample.mode),
        error_code=int(sample.error_code),
    )


class Go2Link:
    """Requests to sport mode, their answers, and topics to hear."""

    def __init__(self, domain: int = 0, interface: str = "") -> None:
        """Joins the robot's DDS domain.

        Args:
            domain: the robot's is 0.
            interface: network interface that the robot is on; CYCLONEDDS_URI's or cyclonedds' own choice if empty.

        Raises:
            LinkError: there is no such interface, or DDS cannot be started.
        """
        try:
            self._domain = Domain(domain, interface_config(interface)) if interface else None
            self._participant = DomainParticipant(domain)
        except DDSException as error:
            where = f"Go2: DDS on interface '{interface}'" if interface else "Go2: DDS"
            do = "name the interface of the robot's network ('ip address' lists them) with interface=NAME"
            raise LinkError(explain(where, "to be started", str(error).splitlines()[0], do)) from None
        self._hearers = 0
        topic = Topic(self._participant, REQUEST_TOPIC, idl.Request)
        self._writer = DataWriter(self._participant, topic, listener=Listener(on_publication_matched=self._matched))
        self._readers: list[tuple[DataReader[Any], ReadCondition, Receive]] = []
        self._answers: dict[int, int] = {}
        self._closing = threading.Event()
        self._waitset = WaitSet(self._participant)
        self._thread: threading.Thread | None = None
        self._last_id = 0
        self._sending = threading.Lock()
        self.hear(RESPONSE_TOPIC, idl.Response, self._answer)

    def hear(self, topic: str, kind: Any, receive: Receive) -> None:
        """Has `receive` called, by the link's thread, with the newest sample of a topic; before `start` only."""
        reader: DataReader[Any] = DataReader(self._participant, Topic(self._participant, topic, kind))
        condition = ReadCondition(reader, SampleState.Any | ViewState.Any | InstanceState.Any)
        self._waitset.attach(condition)
        self._readers.append((reader, condition, receive))

    def start(self) -> None:
        """Begins to receive."""
        self._thread = threading.Thread(target=self._receive, name="go2-dds", daemon=True)
        self._thread.start()

    @property
    def heard(self) -> bool:
        """Somebody hears the requests."""
        return self._hearers > 0

    def send(self, api_id: int, parameter: str = "{}", reply: bool = False) -> int:
        """Sends a request and returns its identity; the robot answers only if asked to."""
        with self._sending:
            self._last_id = identity = max(now_ns(), self._last_id + 1)
            header = idl.RequestHeader(
                idl.RequestIdentity(identity, api_id), idl.RequestLease(0), idl.RequestPolicy(0, not reply)
            )
            try:
                self._writer.write(idl.Request(header, parameter, []))
            except DDSException as error:
                raise LinkError(f"Go2: {NAMES[api_id]} could not be sent: {error}") from None
        return identity

    def call(self, api_id: int, timeout_s: float, parameter: str = "{}") -> None:
        """Sends a request and waits until the robot has accepted it.

        Raises:
            LinkError: no answer in time, or a refusal.
        """
        identity = self.send(api_id, parameter, reply=True)
        deadline_s = time.monotonic() + timeout_s
        while identity not in self._answers:
            if time.monotonic() > deadline_s:
                do = "check that sport mode is on and that nothing else commands the robot"
                raise LinkError(explain(f"Go2: {NAMES[api_id]}", f"an answer within {timeout_s:g} s", "none", do))
            time.sleep(POLL_S)
        code = self._answers.pop(identity)
        if code != 0:
            raise LinkError(
                explain(f"Go2: {NAMES[api_id]}", "code 0", code, "see the codes of Unitree's sport service")
            )

    def flush(self, timeout_s: float = 0.2) -> bool:
        """Waits until what was sent has arrived; False when it has not."""
        try:
            return bool(self._writer.wait_for_acks(duration(seconds=timeout_s)))
        except DDSException:
            return False

    def close(self) -> None:
        """Leaves the domain; safe to call again."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._readers.clear()
        for name in ("_writer", "_waitset", "_participant", "_domain"):
            if hasattr(self, name):
                delattr(self, name)

    def _receive(self) -> None:
        while not self._closing.is_set():
            try:
                self._waitset.wait(duration(milliseconds=WAIT_MS))
                for reader, _, receive in self._readers:
                    samples = [s for s in reader.take(16) if not isinstance(s, InvalidSample)]
                    came_ns = now_ns()
                    for sample in samples:
                        receive(sample, came_ns)
            except DDSException:
                time.sleep(POLL_S)  # a damaged sample is none

    def _matched(self, _: Any, status: Any) -> None:
        self._hearers = int(status.current_count)

    def _answer(self, sample: idl.Response, _: int) -> None:
        self._answers[sample.header.identity.id] = sample.header.status.code
        while len(self._answers) > 64:
            self._answers.pop(next(iter(self._answers)))
