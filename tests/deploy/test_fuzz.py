"""A governor's real process under a million messages of nonsense: no command over a limit comes out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import rig
import zmq

from deploy import keys, transport, wire
from deploy.config import DeployConfig, GovernorLimits, OperatorConfig
from deploy.timing import now_ns

pytestmark = pytest.mark.xdist_group("operators")
NUMBERS = [
    0,
    1,
    -1,
    0.3,
    -0.3,
    9.9,
    10.1,
    1e9,
    -1e9,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    2**63,
    2**64 - 1,
]
WORDS = ["press", "rearm", "take", "release", "", "x" * 300, None, True, [], {}, b"\xff"]
TAGS = ["cmd", "cmd", "cmd", "estop", "lease", "hello", "gov", "obs", "control", "record", "no such"]


def fuzzed(rng: random.Random, sequence: int) -> bytes:
    """A third random bytes, a third valid commands with damaged bytes, a third well-formed with wild fields."""
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(rng.randrange(60))
    velocity = [rng.choice(NUMBERS) if rng.random() < 0.2 else rng.uniform(-2, 2) for _ in range(3)]
    stamp = now_ns() if rng.random() < 0.9 else rng.choice([0, 2**62, now_ns() + 10**12])
    episode = 1 if rng.random() < 0.9 else rng.randrange(4)
    fields = ["cmd", 1, sequence, stamp, episode, 0, *velocity]
    if kind == 2 and rng.random() < 0.5:
        fields = [rng.choice(TAGS), *fields[1:5], *(rng.choice(NUMBERS + WORDS) for _ in range(rng.randrange(6)))]
    frame = bytearray(msgspec.msgpack.encode(fields))
    if kind == 1:
        for _ in range(rng.randrange(4)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame)


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[rig.Rig]:
    """One that an authorised commander may flood without bound."""
    keys.new_key(tmp_path / "keys", "mallory", "commander")
    address = f"tcp://127.0.0.1:{rig.free_port()}"
    operator = OperatorConfig(listen=address, keys=str(tmp_path / "keys"), rate_hz=1e9)
    with rig.governor(operator) as robot:
        robot.address, robot.pair = address, keys.load_pair(tmp_path / "keys" / "mallory.key")
        yield robot


@pytest.fixture
def flood(robot: rig.Rig) -> Iterator[zmq.Socket[bytes]]:
    """A link with room for a thousand messages, which ours do not have."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.curve_publickey, socket.curve_secretkey = robot.pair.public.encode(), robot.pair.secret.encode()
    socket.curve_serverkey = robot.pair.robot.encode()
    socket.connect(robot.address)
    yield socket
    context.destroy(0)


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_no_fuzzed_message_makes_a_command_that_is_not_finite_or_over_a_limit(
    robot: rig.Rig, flood: zmq.Socket[bytes], count: int
) -> None:
    rng = random.Random(count)
    limits = GovernorLimits.of(rig.ROBOT, DeployConfig().governor)
    low = np.array([limits.vx_min_mps, -limits.vy_max_mps, -limits.yaw_rate_max_radps])
    high = np.array([limits.vx_max_mps, limits.vy_max_mps, limits.yaw_rate_max_radps])
    out = driven = bad = sent = local = 0
    reasons: set[str] = set()
    while sent < count:
        for _ in range(200):  # as fast as the link takes them
            if not transport.try_send(flood, fuzzed(rng, sent + local)):
                break
            sent += 1
        local += robot.send_raw(fuzzed(rng, sent + local))
        if robot.governed and robot.governed[-1].estop and robot.governed[-1].vx_mps == 0.0:
            # Nonsense presses it now and then; re-armed, there is more to see.
            rearm = wire.EStopMsg(sequence=sent + local, stamp_ns=now_ns(), episode=1, action="rearm")
            transport.try_send(flood, wire.encode(rearm))
        list(transport.received(flood))
        robot.governed.clear()
        robot.turn()
        for message in robot.governed:
            velocity = wire.velocity_of(message)
            bad += not (np.isfinite(velocity).all() and (velocity >= low).all() and (velocity <= high).all())
            driven += bool(velocity.any())
        out += len(robot.governed)
        reasons |= robot.reasons()
    print(f"\n{sent} fuzzed as an operator, {local} as the navigator; out came {out}, {driven} moving, {bad} bad")
    assert robot.process.poll() is None
    assert bad == 0
    assert driven > out * 0.02  # it was governing all the while, not just refusing
    assert {"refused: malformed", "refused: sequence"} <= reasons
