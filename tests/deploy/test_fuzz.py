"""A governor's real process under a million messages of nonsense: no command over a limit comes out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import rig
import zmq
from ports import free_port

from deploy import keys, transport, wire
from deploy.config import DeployConfig, GovernorLimits, OperatorConfig
from deploy.timing import now_ns

pytestmark = [pytest.mark.realtime, pytest.mark.xdist_group("operators")]
BATCH = 20_000
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


@contextmanager
def flood(robot: rig.Rig, pair: keys.Pair, address: str) -> Iterator[zmq.Socket[bytes]]:
    """A link with room for a thousand messages, which ours do not have."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret.encode()
    socket.curve_serverkey = pair.robot.encode()
    socket.connect(address)
    yield socket
    context.destroy(0)


class Tally:
    """What came out of a governor."""

    def __init__(self) -> None:
        limits = GovernorLimits.of(rig.ROBOT, DeployConfig().governor)
        self.low = np.array([limits.vx_min_mps, -limits.vy_max_mps, -limits.yaw_rate_max_radps])
        self.high = np.array([limits.vx_max_mps, limits.vy_max_mps, limits.yaw_rate_max_radps])
        self.out = self.moving = self.bad = 0
        self.reasons: set[str] = set()

    def take(self, robot: rig.Rig) -> None:
        """All that came since."""
        for message in (*robot.governed, *robot.logged):
            velocity = wire.velocity_of(message)
            fits = np.isfinite(velocity).all() and (velocity >= self.low).all() and (velocity <= self.high).all()
            self.bad += not fits
            self.moving += bool(velocity.any())
        self.out += len(robot.governed) + len(robot.logged)
        self.reasons |= robot.reasons()
        robot.governed.clear()
        robot.logged.clear()


def send_nonsense(robot: rig.Rig, socket: zmq.Socket[bytes], rng: random.Random, tally: Tally) -> int:
    """BATCH messages over the link, and some in the navigator's place; returns how many."""
    sent = local = 0
    while sent < BATCH:
        for _ in range(200):  # as fast as the link takes them
            if not transport.try_send(socket, fuzzed(rng, sent + local)):
                break
            sent += 1
        local += robot.send_raw(fuzzed(rng, sent + local))
        if robot.governed and robot.governed[-1].estop and robot.governed[-1].vx_mps == 0.0:
            # Nonsense presses it now and then; re-armed, there is more to see.
            rearm = wire.EStopMsg(sequence=sent + local, stamp_ns=now_ns(), episode=1, action="rearm")
            transport.try_send(socket, wire.encode(rearm))
        tally.take(robot)
        list(transport.received(socket))
        robot.turn()
    return sent + local


@pytest.mark.parametrize("batches", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_no_fuzzed_message_makes_a_command_that_is_not_finite_or_over_a_limit(tmp_path: Path, batches: int) -> None:
    """Each batch has a governor of its own: a wild number that is heard once leaves its key nothing more to say."""
    pair = keys.load_pair(keys.new_key(tmp_path, "mallory", "commander"))
    tally, sent = Tally(), 0
    for batch in range(batches):
        address = f"tcp://127.0.0.1:{free_port()}"
        operator = OperatorConfig(listen=address, keys=str(tmp_path), rate_hz=1e9)
        with rig.governor(operator) as robot, flood(robot, pair, address) as socket:
            sent += send_nonsense(robot, socket, random.Random(batch), tally)
            robot.run(0.3)
            tally.take(robot)
            assert robot.process.poll() is None
    print(f"\n{sent} fuzzed; out came {tally.out}, {tally.moving} moving, {tally.bad} bad")
    assert tally.bad == 0
    assert tally.moving > tally.out * 0.01  # it was governing all the while, not just refusing
    assert {"refused: malformed", "refused: sequence"} <= tally.reasons
