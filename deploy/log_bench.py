"""Measures the log: what recording costs the control loop, how large it grows, what a kill takes.

The recorder under test is the real process, told what to do as the supervisor tells it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy import transport, wire
from deploy.config import DeployConfig
from deploy.log_messages import BeliefMsg, LogMessage, MapMsg
from deploy.log_reader import read_log
from deploy.log_writer import LogWriter
from deploy.recorder import REPORT_EVENT
from deploy.station import Order
from deploy.timing import Deadlines, now_ns, summarise
from robonav.config import to_mapping
from robonav.errors import LinkError
from robonav.types import Observation, RobotSpec

NAVIGATOR = "navigator"
CONTROL_PERIOD_NS = 100_000_000
START_S = 20.0


@dataclass
class RecorderUnderTest:
    """A recorder's process with a sender beside it. Use as a context manager; leaving ends the process and its log."""

    log: Path
    robot: RobotSpec
    config: DeployConfig = field(default_factory=DeployConfig)
    refused: int = 0

    def __enter__(self) -> RecorderUnderTest:
        self._folder = transport.private_folder()
        self._link = transport.Link()
        self._control = self._link.publish_latest(transport.ipc_address(self._folder, "control"))
        self._status = self._link.receive_records(transport.ipc_address(self._folder, "status"))
        self._record = self._link.send_records(transport.ipc_address(self._folder, "record"))
        self._sequences = {"control": 0, NAVIGATOR: 0}
        self._said_ns = 0
        order = Order(str(self._folder), os.getpid(), 1, 0, self.robot, self.config, "", "", str(self.log.resolve()))
        order.metadata.update(robot=json.dumps(to_mapping(self.robot)))
        command = [sys.executable, "-m", "deploy.processes", "recorder"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(to_mapping(order)).encode())
        self.process.stdin.close()
        self._await_ready()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.send("supervisor", wire.EventMsg(**_head(0), kind=REPORT_EVENT, text="{}"))
            self.say("run")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._link.close()
        transport.remove_folder(self._folder)

    def say(self, word: str) -> None:
        """Repeats the supervisor's word when it is due."""
        if now_ns() - self._said_ns > CONTROL_PERIOD_NS:
            self._said_ns = now_ns()
            message = wire.ControlMsg(**_head(self._sequences["control"]), state=word)
            self._sequences["control"] += 1
            transport.try_send(self._control, wire.encode(message))

    def send(self, source: str, *messages: Any) -> None:
        """What `Station.record` does: the control loop's whole share of recording."""
        number = self._sequences.setdefault(source, 0)
        self._sequences[source] = number + 1
        if not transport.try_send(self._record, wire.encode(wire.RecordMsg(source, number, now_ns(), messages))):
            self.refused += 1

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            self.say("wait")
            transport.wait([self._status], 20_000_000)
            if any(True for _ in transport.received(self._status)):
                return
        self.process.kill()
        raise LinkError("recorder: does not start; run it with 'robonav run' to see why")


def ticks(robot: RobotSpec, seed: int = 0) -> Iterator[tuple[LogMessage, ...]]:
    """What a navigator sends a tick, without end: lidar, depth with noise, belief, route, and now and then a map.

    The scene is a corridor along which the robot drives; noise is 1 cm, which is what makes a log large.
    """
    rng = np.random.default_rng(seed)
    angles, height, width = robot.lidar.angles_rad, robot.depth.height, robot.depth.width
    rows, columns = np.mgrid[0:height, 0:width]
    latent = np.zeros(256, np.float32)
    tick = 0
    while True:
        x = 0.05 * tick
        wall = 1.5 / np.maximum(np.abs(np.sin(angles)), 0.1) + 0.2 * np.sin(x + 3 * angles)
        scan = np.clip(wall + rng.normal(0, 0.01, len(angles)), 0.05, robot.lidar.range_m)
        depth = 2.5 + 1.5 * np.abs(columns / width - 0.5) + 0.5 * np.sin(x + rows / 9) + rng.normal(0, 0.01, rows.shape)
        latent[:] = 0
        latent[16 * np.arange(16) + rng.integers(0, 16, 16)] = 1  # one-hot classes
        state = {"memory": rng.normal(0, 1, 192).astype(np.float32), "latent": latent}
        yield _tick(tick, x, scan, np.clip(depth, 0, robot.depth.range_m), state, robot)
        tick += 1


def _tick(tick: int, x: float, scan: Any, depth: Any, state: dict[str, Any], robot: RobotSpec) -> tuple[Any, ...]:
    observation = Observation(
        stamp_ns=now_ns(),
        pose_odom_base=np.array([x, 0.0, 0.1], np.float32),
        twist_base=np.array([1.0, 0.0, 0.0], np.float32),
        tilt_rad=np.zeros(2, np.float32),
        goal_odom_m=np.array([9.0, 0.0], np.float32),
        last_command=np.array([1.0, 0.0, 0.0], np.float32),
        scan_m=scan.astype(np.float32),
        depth_m=depth.astype(np.float32),
    )
    head = _head(tick)
    route = np.stack([np.linspace(x, 9.0, 40), np.zeros(40)], axis=1)
    decision = wire.DecisionMsg(
        **head,
        observation=tick,
        reset=tick == 0,
        seed=0,
        vx_mps=1.0,
        vy_mps=0.0,
        yaw_rate_radps=0.0,
        value=0.5,
        why="actor",
        age_ms=1.0,
        total_ms=4.0,
        route_odom_m=wire.pack_array(route),
        details={"map_ms": 2.0, "infer_ms": 1.0},
    )
    belief = BeliefMsg(**head, observation=tick, state={name: wire.pack_array(v) for name, v in state.items()})
    messages = [wire.pack_observation(observation, tick, 1), decision, belief]
    if tick % max(1, round(robot.rate_hz)) == 0:
        cells = np.where(np.abs(np.mgrid[-48:48, -48:48][0]) < 15, 0, 255).astype(np.uint8)
        place = {"origin_odom_m": (x - 4.8, -4.8), "resolution_m": 0.1, "rows": 96, "columns": 96}
        messages.append(MapMsg(**head, observation=tick, **place, cells=cells.tobytes()))  # type: ignore[arg-type]
    return tuple(messages)


def _head(sequence: int) -> dict[str, Any]:
    return {"sequence": sequence, "stamp_ns": now_ns(), "episode": 1}


def measure_log(
    robot: RobotSpec, folder: Path, rate_hz: float, seconds: float, minutes: float, report: Callable[[str], None]
) -> dict[str, Any]:
    """Cost in the loop, size, throughput, and what a kill takes, by name.

    Args:
        robot: whose sensors are recorded.
        folder: for the logs, some 100 MB.
        rate_hz: of the control loop.
        seconds: that the loop runs.
        minutes: of the log whose size is measured; written as fast as it goes, in the chunks of real time.
        report: is told what is measured.
    """
    report(f"loop at {rate_hz:g} Hz for {seconds:g} s")
    cost = loop_cost(robot, folder / "loop.mcap", rate_hz, seconds)
    report(f"size of {minutes:g} minutes")
    size = log_size(robot, folder / "size.mcap", rate_hz, minutes)
    report("kill")
    lost_s = kill_loss(robot, folder / "killed.mcap", rate_hz, 3.3)
    return {"loop": cost, "size": size, "lost_on_kill_s": round(lost_s, 3)}


def loop_cost(robot: RobotSpec, log: Path, rate_hz: float, seconds: float) -> dict[str, Any]:
    """Milliseconds that a paced loop spends on handing a tick to the recorder.

    On a busy machine wall time is mostly that of other programs; processor time is the loop's own.
    """
    source, spent_ms, cpu_ms = ticks(robot), [], []
    with RecorderUnderTest(log, robot) as recorder:
        deadlines = Deadlines(int(1e9 / rate_hz), now_ns())
        for _ in range(int(rate_hz * seconds)):
            messages = next(source)
            time.sleep(deadlines.remaining_ns(now_ns()) * 1e-9)
            deadlines.begin(now_ns())
            recorder.say("run")
            began, cpu_began = time.perf_counter(), time.thread_time()
            recorder.send(NAVIGATOR, *messages)
            cpu_ms.append((time.thread_time() - cpu_began) * 1e3)
            spent_ms.append((time.perf_counter() - began) * 1e3)
        refused = recorder.refused
    kept = len(read_log(log).of(wire.DecisionMsg))
    times = {"wall_ms": asdict(summarise(spent_ms)), "cpu_ms": asdict(summarise(cpu_ms))}
    return {**times, "ticks": len(spent_ms), "kept": kept, "refused": refused}


def log_size(robot: RobotSpec, log: Path, rate_hz: float, minutes: float) -> dict[str, Any]:
    """Megabytes of a log, and how many times faster than real time its thread writes."""
    config = DeployConfig().recorder
    writer = LogWriter(log, config, {"robot": json.dumps(to_mapping(robot))})
    per_chunk, count, source = max(1, round(config.chunk_s * rate_hz)), int(minutes * 60 * rate_hz), ticks(robot)
    spent = 0.0
    for tick in range(count):
        messages = next(source)
        began = time.perf_counter()
        for message in messages:
            writer.write(message)
        if tick % per_chunk == per_chunk - 1:
            writer.flush()
        spent += time.perf_counter() - began
    writer.close()
    return {
        "megabytes": round(log.stat().st_size * 1e-6, 1),
        "minutes": minutes,
        "ms_a_tick": round(spent / count * 1e3, 3),
        "times_real_time": round(count / rate_hz / spent, 1),
    }


def kill_loss(robot: RobotSpec, log: Path, rate_hz: float, seconds: float) -> float:
    """Seconds between the recorder's SIGKILL and the last message in its log."""
    source = ticks(robot)
    with RecorderUnderTest(log, robot) as recorder:
        deadlines = Deadlines(int(1e9 / rate_hz), now_ns())
        for _ in range(int(rate_hz * seconds)):
            time.sleep(deadlines.remaining_ns(now_ns()) * 1e-9)
            deadlines.begin(now_ns())
            recorder.say("run")
            recorder.send(NAVIGATOR, *next(source))
        recorder.process.kill()
        killed_ns = now_ns()
        recorder.process.wait()
    decisions = read_log(log).of(wire.DecisionMsg)
    return (killed_ns - decisions[-1].stamp_ns) * 1e-9 if decisions else seconds
