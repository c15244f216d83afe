"""The thin process round `deploy.governor`: it governs when something is asked, and at its own period when not."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from deploy import transport, wire
from deploy.authority import NAVIGATOR, Request
from deploy.config import GovernorConfig, GovernorLimits, OperatorConfig
from deploy.endpoint import MALFORMED, Endpoint, RobotState
from deploy.governor import NO_COMMAND, Governed, GovernorInputs, GovernorState, Seen, govern, stands
from deploy.latch import Latch
from deploy.sensors import BAD_OBSERVATION
from deploy.sight import seen_in
from deploy.station import Station
from deploy.timing import LINK, Deadlines, now_ns
from robonav.errors import LinkError, ShapeError, WireError, explain
from robonav.types import RobotSpec

PRIORITY = -10
START_LATCHED = "latched at the start"
HELD = "refused: hold"
SESSION = "refused: session"


def run_governor(station: Station) -> None:
    """Governs until told to stop; the driver's own expiry then stops the robot.

    Raises:
        LinkError: the operators' address or keys cannot be used.
    """
    # It works for a fraction of a millisecond, but must do so in time on a machine that is busy.
    with contextlib.suppress(OSError):  # only a privileged user may
        os.nice(PRIORITY)
    _Loop(station).run()


class _Loop:
    def __init__(self, station: Station) -> None:
        order = station.order
        self.station = station
        self.robot = order.robot
        self.config = order.config.governor
        self.limits = GovernorLimits.of(order.robot, self.config)
        self.observations = station.open("observations")
        self.commands = station.open("commands")
        self.governed = station.open("governed")
        operator = order.config.operator
        self.endpoint = Endpoint(station.link, operator, order.episode) if operator.listen else None
        # Without operators nobody can press the e-stop, and nobody could re-arm it.
        self.latch = Latch(order.folder, order.session > 0) if operator.listen else None
        self.state = GovernorState.start(order.episode, _link_s(operator))
        if self.latch is not None:
            authority = self.latch.start(self.state.authority)
            if operator.start_latched and not order.session:
                authority = replace(authority, estop=START_LATCHED)
                self.latch.keep(authority)
            self.state = replace(self.state, authority=authority)
        self.seen: Seen | None = None  # since the last cycle
        self.sequence = order.first
        self.held = False
        self.link_ms = 0.0  # that the navigator's last command was on its way
        self.governed_of_ns = 0  # stamp of the newest observation that led to a command

    def run(self) -> None:
        """Until "stop"."""
        station = self.station
        station.heard_nothing_yet()
        station.beat("ready", always=True)
        deadlines = Deadlines(int(self.config.period_s * 1e9), now_ns())
        if self.state.authority.estop:
            station.event("authority", f"e-stop latched: {self.state.authority.estop}")
        while (word := station.word()) != "stop":
            self.held = word == "hold"
            transport.wait(self.sockets(), deadlines.remaining_ns(now_ns()))
            frames = transport.received(self.observations)
            self.seen, unseen = see(frames, self.robot, self.config, self.state, self.seen)
            requests, unheard = self.hear()
            refused = (*unseen, *unheard)
            due = deadlines.remaining_ns(now_ns()) == 0
            if due:
                deadlines.begin(now_ns())
            if due or requests or refused:
                self.cycle(requests, refused)
        station.beat("done", always=True)

    def sockets(self) -> list[Any]:
        """To wait on."""
        listening = self.endpoint is not None and self.endpoint.socket is not None
        return [self.commands, self.observations, *([self.endpoint.socket] if listening and self.endpoint else [])]

    def hear(self) -> tuple[list[Request], tuple[str, ...]]:
        """All requests, and why others were refused before the core saw them."""
        requests, refused = [], []
        for frame in transport.received(self.commands):
            try:
                command = wire.decode_as(wire.CommandMsg, frame)
            except WireError:
                refused.append(MALFORMED)
                continue
            if self.station.fenced("navigator", command.session):
                refused.append(SESSION)
            else:
                self.link_ms = max(0.0, (now_ns() - command.stamp_ns) * 1e-6)
                requests.append(Request(NAVIGATOR, command))
        if self.endpoint is not None:
            for name in self.endpoint.watch_keys(now_ns()):
                self.station.event("keys", f"key of {name} revoked: cut off")
            requests += self.endpoint.receive(now_ns())
            refused += list(self.endpoint.refused)
            self.endpoint.refused.clear()
        if self.held:
            requests, held = self.hold(requests)
            refused += held
        return requests, tuple(refused)

    def hold(self, requests: list[Request]) -> tuple[list[Request], list[str]]:
        """Takes out all commands while a process is being replaced, so that the robot is asked to stand."""
        commands = [r for r in requests if isinstance(r.message, wire.CommandMsg)]
        for request in commands:
            if self.endpoint is not None and request.peer is not NAVIGATOR:
                self.endpoint.answer(request, HELD)
        others = [r for r in requests if not isinstance(r.message, wire.CommandMsg)]
        return others, [HELD] if commands else []

    def cycle(self, requests: list[Request], refused: tuple[str, ...]) -> None:
        """Governs once, sends what may be driven, answers, and logs."""
        started = time.perf_counter()
        governed = govern(self.state, GovernorInputs(tuple(requests), self.seen), now_ns(), self.limits)
        self.state, self.seen = governed.state, None
        if self.latch is not None:
            self.latch.keep(self.state.authority)
        message = self.timed(pack(governed, refused, self.sequence, self.limits, self.station.order.session), started)
        self.sequence += 1
        transport.try_send(self.governed, wire.encode(message))
        for note in governed.notes:
            self.station.event("authority", note)
        if self.endpoint is not None:
            self.answer(self.endpoint, requests, governed, message)
        idle = message.reasons == (NO_COMMAND,) and not governed.state.authority.tracks
        if not idle:
            _count(self.station, message.reasons)
            self.station.record(message)
        self.station.beat("ready" if idle else "running", (time.perf_counter() - started) * 1e3)

    def timed(self, message: wire.GovernedMsg, started: float) -> wire.GovernedMsg:
        """A cycle's message with its times, which are noted for the first cycle of each of the navigator's commands."""
        asked, holder = self.state.asked, self.state.authority.holder
        govern_ms = (time.perf_counter() - started) * 1e3
        if asked is None or holder is not NAVIGATOR or not asked.observed_ns:
            return msgspec.structs.replace(message, govern_ms=govern_ms)
        age_ms = max(0.0, (message.stamp_ns - asked.observed_ns) * 1e-6)
        if asked.observed_ns > self.governed_of_ns:
            self.governed_of_ns = asked.observed_ns
            self.station.stage("govern", govern_ms, age_ms)
            self.station.stage(LINK, self.link_ms, age_ms)
        times = {"govern_ms": govern_ms, "link_ms": self.link_ms, "age_ms": age_ms, "observed_ns": asked.observed_ns}
        return msgspec.structs.replace(message, **times)

    def answer(
        self, endpoint: Endpoint, requests: list[Request], governed: Governed, message: wire.GovernedMsg
    ) -> None:
        """Tells remote programs what came of their requests, and how the robot is."""
        authority = governed.state.authority
        endpoint.heard = {key: track.sequence for key, track in authority.tracks.items()}
        for request, refusal in zip(requests, governed.answers, strict=True):
            if request.peer is not NAVIGATOR:
                endpoint.answer(request, refusal)
        now = now_ns()
        standing = stands(governed.state, now, self.config)
        state = RobotState(self.robot.name, message.holder, message.estop, governed.velocity, standing, message.reasons)
        endpoint.tell(state, now)


def pack(
    governed: Governed, refused: tuple[str, ...], sequence: int, limits: GovernorLimits, session: int = 0
) -> wire.GovernedMsg:
    """A cycle's outcome for the driver and the log.

    A moving command lives as long as what it was asked by, and a tick; so the robot obeys none that is older, wherever
    on the way it was held up.
    """
    state, velocity, now = governed.state, governed.velocity, now_ns()
    life_s = limits.config.command_life_s
    if velocity.any():
        left_s = life_s - (now - state.asked_ns) * 1e-9 if state.asked is not None else 0.0
        life_s = min(life_s, max(0.0, left_s) + limits.tick_s)
    holder = state.authority.holder
    return wire.GovernedMsg(
        sequence=sequence,
        stamp_ns=now,
        episode=state.authority.episode,
        vx_mps=float(velocity[0]),
        vy_mps=float(velocity[1]),
        yaw_rate_radps=float(velocity[2]),
        life_ms=life_s * 1e3,
        asked=0 if state.asked is None else state.asked.sequence,
        reasons=(*governed.reasons, *refused),
        holder="" if holder is None else holder.name,
        estop=state.authority.estop,
        session=session,
    )


def see(
    frames: Iterable[bytes], robot: RobotSpec, config: GovernorConfig, state: GovernorState, before: Seen | None
) -> tuple[Seen | None, tuple[str, ...]]:
    """The newest observation as the governor uses it, and why others were refused; what is refused goes stale."""
    seen, refused = before, []
    for frame in frames:
        try:
            message = wire.decode_as(wire.ObservationMsg, frame)
            if message.episode != state.authority.episode:
                continue
            observation = wire.unpack_observation(message)
            observation.check(robot)
        except (WireError, ShapeError):
            refused.append(BAD_OBSERVATION)
            continue
        found, why = seen_in(observation, robot, config, now_ns())
        seen = found or seen
        if why:
            refused.append(why)
    return seen, tuple(refused)


def _link_s(operator: OperatorConfig) -> float:
    """For how long the e-stop's link may be silent; 0 where none is required.

    Raises:
        LinkError: one is required, but nobody can connect.
    """
    if operator.estop_link == "optional":
        return 0.0
    if not operator.listen:
        do = "give --listen, or set operator.listen"
        raise LinkError(explain("operator.estop_link = required", "an address to listen on", "none", do))
    return operator.estop_link_s


def _count(station: Station, reasons: tuple[str, ...]) -> None:
    for reason in reasons:
        station.counts[reason] = station.counts.get(reason, 0) + 1
