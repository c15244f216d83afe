"""Logs of simulated episodes, and why episodes failed by what their logs hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import wire
from deploy.config import RecorderConfig
from deploy.episode_log import write_episode
from deploy.log_causes import (
    BLOCKED,
    GOVERNOR,
    LATE,
    LOST,
    MOVER,
    STANDING,
    STUCK,
    TIMEOUT,
    cause_of,
    summarise,
)
from deploy.log_reader import read_log
from deploy.log_writer import REPORT_METADATA, LogWriter
from deploy.replay import replay
from policies.bundle_policy import load
from robonav.cli.args import UsageError
from robonav.cli.failure_logs import write_failures
from robonav.cli.replay import main as replay_command
from robonav.config import load_robot, to_mapping
from robonav.errors import LogError
from robonav.evaluation.runner import Recording
from robonav.types import Decision, Episode, Observation, Scene, VelocityCommand

SPEC = load_robot("a1")
DT_NS = round(1e9 / SPEC.rate_hz)
TICKS = 45


def observation(tick: int, x_m: float, scan_m: Any = None) -> Observation:
    return Observation(
        stamp_ns=tick * DT_NS,
        pose_odom_base=np.array([x_m, 0.0, 0.0], np.float32),
        twist_base=np.zeros(3, np.float32),
        tilt_rad=np.zeros(2, np.float32),
        goal_odom_m=np.array([6.0, 0.0], np.float32),
        last_command=np.zeros(3, np.float32),
        scan_m=np.full(SPEC.lidar.beams, 3.0, np.float32) if scan_m is None else scan_m.astype(np.float32),
    )


def disc(x_m: float, y_m: float, radius_m: float) -> Any:
    """(beams,) ranges in a round hall with a disc in it, from the base."""
    angles = SPEC.lidar.angles_rad
    along = x_m * np.cos(angles) + y_m * np.sin(angles)
    inside = radius_m**2 - (x_m**2 + y_m**2 - along**2)
    hit = (inside > 0) & (along > 0)
    return np.where(hit, along - np.sqrt(np.maximum(inside, 0)), 5.0)


def write_run(
    path: Path,
    outcome: str,
    at: Callable[[int], float] = lambda tick: 0.05 * tick,
    scan: Callable[[int], Any] = lambda tick: None,
    late: int = 0,
    route: bool = True,
    let_through: float = 1.0,
) -> None:
    writer = LogWriter(path, RecorderConfig(), {"robot": json.dumps(to_mapping(SPEC))}, simulated=True)
    for tick in range(TICKS):
        head: dict[str, Any] = {"sequence": tick, "stamp_ns": tick * DT_NS, "episode": 1}
        line = np.array([[0.0, 0.0], [6.0, 0.0]], np.float32) if route else None
        command = VelocityCommand(1.0, 0.0, 0.0, 0)
        writer.write(wire.pack_observation(observation(tick, at(tick), scan(tick)), tick, 1))
        decision = Decision(command, why="actor", route_odom_m=line)
        more = {"observation": tick, "reset": tick == 0, "seed": 0, "age_ms": 0.0, "total_ms": 1.0}
        writer.write(wire.pack_decision(decision, **head, **more))
        governed = {"vx_mps": let_through, "vy_mps": 0.0, "yaw_rate_radps": 0.0, "life_ms": 250.0, "asked": tick}
        writer.write(wire.GovernedMsg(**head, **governed, reasons=() if let_through == 1 else ("obstacle",)))
        place = {"arrived": False, "collided": False, "stopped": False, "position_odom_m": (0.0, 0.0)}
        writer.write(wire.StatusMsg(**head, **place, speed_mps=0.0, late_ticks=late, lateness_ms=0.0))
    writer.write_metadata(REPORT_METADATA, {"report": json.dumps({"outcome": outcome})})
    writer.close()


def approaching(tick: int) -> Any:
    """A disc that comes at 0.6 m/s."""
    return disc(0.6 + 0.06 * (TICKS - 1 - tick), 0.0, 0.25)


CASES: dict[str, dict[str, Any]] = {
    LOST: {"outcome": "navigator lost"},
    LATE: {"outcome": "timeout", "late": 9},
    MOVER: {"outcome": "collision", "at": lambda tick: 0.0, "scan": approaching},
    STANDING: {"outcome": "collision", "at": lambda tick: 0.0, "scan": lambda tick: disc(0.6, 0.0, 0.25)},
    BLOCKED: {"outcome": "timeout", "route": False},
    GOVERNOR: {"outcome": "timeout", "let_through": 0.0},
    STUCK: {"outcome": "timeout", "at": lambda tick: 0.01 * (tick % 5)},
    TIMEOUT: {"outcome": "timeout"},
}


@pytest.mark.parametrize("cause", CASES)
def test_each_cause_is_told_from_the_log(tmp_path: Path, cause: str) -> None:
    write_run(tmp_path / "a.mcap", **CASES[cause])
    finding = cause_of(read_log(tmp_path / "a.mcap"))
    assert (finding.cause, finding.outcome) == (cause, CASES[cause]["outcome"])
    assert finding.time_s == pytest.approx((TICKS - 1) / SPEC.rate_hz)
    if cause == GOVERNOR:
        assert "obstacle" in finding.detail


def test_a_folder_is_clustered_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, cause in (("a", STUCK), ("b", STUCK), ("c", BLOCKED)):
        write_run(tmp_path / f"{name}.mcap", **CASES[cause])
    write_run(tmp_path / "won.mcap", "success")
    (tmp_path / "d.mcap").write_bytes(b"no log")
    clusters, refused = summarise(tmp_path)
    assert [(c.cause, len(c.findings)) for c in clusters] == [(STUCK, 2), (BLOCKED, 1)]
    assert len(refused) == 1
    assert replay_command([str(tmp_path), "--summary", "--picture", str(tmp_path / "pictures"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    for cluster in told["clusters"]:
        assert Path(cluster["picture"]).read_bytes().startswith(b"\x89PNG")
    assert [c["cause"] for c in told["clusters"]] == [STUCK, BLOCKED]
    with pytest.raises(LogError, match="expected a folder with logs"):
        summarise(tmp_path / "pictures")
    with pytest.raises(UsageError, match="--summary: expected one folder of logs"):
        replay_command([str(tmp_path / "won.mcap"), "--summary"])


def recording(ticks: Any, outcome: str, seed: int = 4) -> Recording:
    scene = Scene("hall-4", (-1, -1, 6, 1), (0, 0, 0), (2.0, 0.0))
    n = len(ticks) - 1
    positions = np.zeros((n + 1, 2), np.float32)
    times = {"decision_ms": np.full(n, 2.5, np.float32), "positions_world_m": positions}
    episode = Episode("hall-4", seed, outcome, n * 0.1, 1.0, 1.0, 0.0, n, **times)
    return Recording(episode, scene, np.zeros((n + 1, 3), np.float32), ticks=tuple(ticks))


def test_a_failed_episode_of_a_bundle_replays_bit_for_bit(tiny_bundle: Path, tmp_path: Path) -> None:
    policy = load(tiny_bundle, SPEC)
    state, x, ticks = policy.reset(4), 0.0, []
    for tick in range(12):
        seen = observation(tick, x)
        state, decision = policy.act(state, seen)
        ticks.append((seen, decision))
        x += 0.1 * decision.command.vx_mps
    ticks.append((observation(12, x), None))
    assert write_failures(tmp_path / "logs", [recording(ticks, "collision")], str(tiny_bundle), None, SPEC) == 1
    path = tmp_path / "logs" / "collision_hall-4.mcap"
    report = replay(path).report
    assert report.identical
    assert (report.replayed, report.outcome, report.bundle_matches) == (12, "collision", True)
    log = read_log(path)
    assert log.of(wire.StatusMsg)[-1].collided
    assert not log.of(wire.StatusMsg)[-2].collided
    assert len(log.of(wire.ObservationMsg)) == 13
    steps_ns = np.diff([e.log_time_ns for e in log.entries if e.topic == "/observation"])
    assert (np.abs(steps_ns - DT_NS) < 1000).all()  # the log's times are the simulation's


def test_a_policy_without_a_bundle_leaves_logs_too(tmp_path: Path) -> None:
    decision = Decision(VelocityCommand(0.5, 0.0, 0.0, 0))
    ticks = [(observation(0, 0.0), decision), (observation(1, 0.05), None)]
    write_episode(tmp_path / "a.mcap", ticks, "timeout", {"robot": json.dumps(to_mapping(SPEC))}, 1, [2.0])
    log = read_log(tmp_path / "a.mcap")
    assert log.damage == ""
    (was,) = log.of(wire.DecisionMsg)
    assert (was.total_ms, was.seed, was.vx_mps) == (2.0, 1, 0.5)
