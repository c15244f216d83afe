"""The thin process round `deploy.governor`: it governs when a command comes, and at its own period when none does."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import Any

from deploy import transport, wire
from deploy.config import GovernorLimits
from deploy.corridor import scan_points
from deploy.governor import GovernorInputs, GovernorState, Seen, govern, observed
from deploy.station import Station
from deploy.timing import Deadlines, now_ns
from robonav.errors import WireError
from robonav.types import RobotSpec

MALFORMED = "refused: malformed"
PRIORITY = -10


def run_governor(station: Station) -> None:
    """Governs until told to stop; the driver's own expiry then stops the robot."""
    order = station.order
    config = order.config.governor
    limits = GovernorLimits.of(order.robot, config)
    observations = station.link.subscribe_latest(station.address("observations"))
    commands = station.link.receive_commands(station.address("commands"))
    governed = station.link.send_commands(station.address("governed"))
    state = GovernorState(order.episode)
    sequence = 0
    # It works for a fraction of a millisecond, but must do so in time on a machine that is busy.
    with contextlib.suppress(OSError):  # only a privileged user may
        os.nice(PRIORITY)
    station.heard_nothing_yet()
    station.beat("ready", always=True)
    deadlines = Deadlines(int(config.period_s * 1e9), now_ns())
    while station.word() != "stop":
        transport.wait([commands, observations], deadlines.remaining_ns(now_ns()))
        seen = _see(observations, order.robot, order.episode)
        command, malformed = _hear(commands)
        due = deadlines.remaining_ns(now_ns()) == 0
        if due:
            deadlines.begin(now_ns())
        elif command is None and not malformed:
            if seen is not None:  # kept for the next cycle, which is at most a period away
                state = replace(state, seen=seen)
            continue
        started = time.perf_counter()
        state, velocity, reasons = govern(state, GovernorInputs(command, seen), now_ns(), limits)
        if malformed:
            reasons = (*reasons, MALFORMED)
        message = wire.GovernedMsg(
            sequence=sequence,
            stamp_ns=now_ns(),
            episode=order.episode,
            vx_mps=float(velocity[0]),
            vy_mps=float(velocity[1]),
            yaw_rate_radps=float(velocity[2]),
            life_ms=config.command_life_s * 1e3,
            asked=max(0, state.sequence),
            reasons=reasons,
        )
        sequence += 1
        transport.try_send(governed, wire.encode(message))
        if state.sequence >= 0:
            _count(station, reasons)
            station.record(message)
        station.beat("ready" if state.sequence < 0 else "running", (time.perf_counter() - started) * 1e3)
    station.beat("done", always=True)


def _see(observations: Any, robot: RobotSpec, episode: int) -> Seen | None:
    """The newest observation as the governor uses it; one that cannot be read is as good as none, and goes stale."""
    seen = None
    for frame in transport.received(observations):
        try:
            message = wire.decode_as(wire.ObservationMsg, frame)
            if message.episode != episode or message.scan_m is None:
                continue
            scan_m = wire.unpack_array(message.scan_m, "scan_m")
            tilt_rad = wire.unpack_array(message.tilt_rad, "tilt_rad")
            twist_base = wire.unpack_array(message.twist_base, "twist_base")
        except WireError:
            continue
        if scan_m.shape == (robot.lidar.beams,) and tilt_rad.shape == (2,) and twist_base.shape == (3,):
            seen = observed(scan_points(scan_m, robot.lidar), twist_base, tilt_rad, now_ns())
    return seen


def _hear(commands: Any) -> tuple[wire.CommandMsg | None, bool]:
    """The newest command, and whether bytes came that are none."""
    command, malformed = None, False
    for frame in transport.received(commands):
        try:
            command = wire.decode_as(wire.CommandMsg, frame)
        except WireError:
            malformed = True
    return command, malformed


def _count(station: Station, reasons: tuple[str, ...]) -> None:
    for reason in reasons:
        station.counts[reason] = station.counts.get(reason, 0) + 1
