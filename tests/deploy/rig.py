"""A governor's real process, with the test in the places of supervisor, driver and recorder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy import transport, wire
from deploy.config import DeployConfig, OperatorConfig
from deploy.station import Order
from deploy.timing import now_ns
from robonav.config import load_robot, to_mapping
from robonav.types import Observation

ROBOT = load_robot("a1")
CONTROL_S, OBSERVE_S = 0.05, 0.05
PATIENCE_S = 30.0


class Rig:
    """Keeps a governor alive while `run` is called, and keeps all that it lets through and logs."""

    def __init__(self, link: transport.Link, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.folder = folder
        self.governed: list[wire.GovernedMsg] = []
        self.logged: list[wire.GovernedMsg] = []  # those of `governed` and, where this reader was slow, the others too
        self.events: list[wire.EventMsg] = []
        self.counts: dict[str, int] = {}
        self.speed_mps = 0.0  # that the sensors report
        self.tilt_rad = 0.0
        self.range_m = ROBOT.lidar.range_m
        self.word = "run"  # of the supervisor
        self.fences: dict[str, int] = {}
        self.others: list[Callable[[], object]] = []  # called at each turn
        self._link = link
        self._control = link.publish_latest(transport.ipc_address(folder, "control"))
        self._status = link.receive_records(transport.ipc_address(folder, "status"))
        self._record = link.receive_records(transport.ipc_address(folder, "record"))
        self._observations = link.publish_latest(transport.ipc_address(folder, "observations"))
        self._output = link.receive_records(transport.ipc_address(folder, "governed"))  # each one, none conflated
        self._commands = link.send_commands(transport.ipc_address(folder, "commands"))
        self._sequence = 0
        self._said_s = self._observed_s = 0.0

    def run(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Lets time pass until something is so; False when it did not become so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()
            if until():
                return True
        return False

    def until(self, so: Callable[[], object]) -> bool:
        """Lets time pass until something is so, however long a busy machine takes for it; False if it never is."""
        return self.run(PATIENCE_S, so)

    def turn(self) -> None:
        """Speaks as supervisor and driver when it is due, and takes in what came."""
        now = time.monotonic()
        if now - self._said_s >= CONTROL_S:
            self._said_s = now
            self._send(self._control, wire.ControlMsg, state=self.word, fences=self.fences)
        if now - self._observed_s >= OBSERVE_S:
            self._observed_s = now
            self.observe()
        for other in self.others:
            other()
        transport.wait([self._output, self._status, self._record], 5_000_000)
        self.governed += [wire.decode_as(wire.GovernedMsg, f) for f in transport.received(self._output)]
        for frame in transport.received(self._status):
            self.counts = wire.decode_as(wire.HeartbeatMsg, frame).counts
        for frame in transport.received(self._record):
            messages = wire.decode_as(wire.RecordMsg, frame).messages
            self.events += [m for m in messages if isinstance(m, wire.EventMsg)]
            self.logged += [m for m in messages if isinstance(m, wire.GovernedMsg)]

    def observe(self) -> None:
        """One observation of an empty place."""
        observation = Observation(
            stamp_ns=now_ns(),
            pose_odom_base=np.zeros(3, np.float32),
            twist_base=np.array([self.speed_mps, 0, 0], np.float32),
            tilt_rad=np.array([self.tilt_rad, 0], np.float32),
            goal_odom_m=np.zeros(2, np.float32),
            last_command=np.zeros(3, np.float32),
            scan_m=np.full(ROBOT.lidar.beams, self.range_m, np.float32),
        )
        self._sequence += 1
        transport.try_send(self._observations, wire.encode(wire.pack_observation(observation, self._sequence, 1)))

    def navigate(self, vx_mps: float) -> None:
        """A command of the navigator."""
        velocity = {"vx_mps": vx_mps, "vy_mps": 0.0, "yaw_rate_radps": 0.0}
        self._send(self._commands, wire.CommandMsg, observation=0, **velocity)

    def send_raw(self, frame: bytes) -> bool:
        """Bytes in a command's place."""
        return transport.try_send(self._commands, frame)

    @property
    def vx_mps(self) -> float:
        """That was let through last."""
        return self.governed[-1].vx_mps if self.governed else 0.0

    def reasons(self) -> set[str]:
        """All that were said so far."""
        return {reason for message in (*self.governed, *self.logged) for reason in message.reasons}

    def _send(self, to: object, kind: type[wire.Message], **fields: object) -> None:
        self._sequence += 1
        message = kind(sequence=self._sequence, stamp_ns=now_ns(), episode=1, **fields)  # type: ignore[arg-type]
        transport.try_send(to, wire.encode(message))  # type: ignore[arg-type]


def every(seconds: float, work: Callable[[], object]) -> Callable[[], None]:
    """Called at each turn, works each so many seconds."""
    due = [0.0]

    def turn() -> None:
        if time.monotonic() >= due[0]:
            due[0] = time.monotonic() + seconds
            work()

    return turn


@contextmanager
def governor(operator: OperatorConfig | None = None, config: DeployConfig | None = None) -> Iterator[Rig]:
    """A governor that is ready; it ends with the block."""
    config = replace(config or DeployConfig(), operator=operator or OperatorConfig())
    folder = transport.private_folder()
    order = Order(
        folder=str(folder),
        supervisor_pid=os.getpid(),
        episode=1,
        seed=0,
        robot=ROBOT,
        config=config,
        bundle="",
        driver="",
        log="",
    )
    command = [sys.executable, "-m", "deploy.processes", "governor"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with transport.Link() as link:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        try:
            rig = Rig(link, folder, process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(to_mapping(order)).encode())
            process.stdin.close()
            assert rig.until(lambda: rig.governed or process.poll() is not None), "the governor did not start"
            yield rig
        finally:
            process.kill()
            process.wait()
    transport.remove_folder(folder)
