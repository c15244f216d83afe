"""Episodes of logs: the policy's own inputs, the commands that were applied, and endings where they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import wire
from deploy.config import RecorderConfig
from deploy.log_episodes import Steps, episodes_of
from deploy.log_reader import Log, read_log
from deploy.log_run import robot_of
from deploy.log_writer import LogWriter
from robonav.cli import dataset, train
from robonav.config import load_robot, to_mapping
from robonav.errors import LogError, RobonavError
from robonav.learning.checkpoint import load_tensors
from robonav.planning.situation import SituationTracker
from robonav.types import Observation

SPEC = load_robot("a1")


def judge(progress_m: float, clearance_m: float, outcome: str | None) -> tuple[float, int]:
    return progress_m + (100.0 if outcome == "success" else 0.0), 8 if outcome == "success" else 0


def write_drive(path: Path, ticks: int = 20) -> None:
    """A robot that drives 1.4 m along a corridor to its goal; the driver says so beside the last observation."""
    writer = LogWriter(path, RecorderConfig(), {"robot": json.dumps(to_mapping(SPEC))})
    angles, dt_ns = SPEC.lidar.angles_rad, round(1e9 / SPEC.rate_hz)
    scan_m = np.minimum(1.2 / np.maximum(np.abs(np.sin(angles)), 1e-3), SPEC.lidar.range_m)
    for tick in range(ticks):
        speed = 0.4 + 0.02 * tick
        observation = Observation(
            stamp_ns=tick * dt_ns,
            pose_odom_base=np.array([1.4 * tick / (ticks - 1), 0.0, 0.0], np.float32),
            twist_base=np.array([speed, 0.0, 0.0], np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.array([1.6, 0.0], np.float32),
            last_command=np.array([speed, 0.1, -0.2], np.float32),
            scan_m=scan_m.astype(np.float32),
        )
        head = {"sequence": tick, "stamp_ns": tick * dt_ns, "episode": 1}
        writer.write(wire.pack_observation(observation, tick, 1))
        place = {"arrived": tick == ticks - 2, "collided": False, "position_odom_m": (0.0, 0.0), "stopped": False}
        writer.write(wire.StatusMsg(**head, **place, speed_mps=speed, late_ticks=0, lateness_ms=0.0))
    writer.close()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    write_drive(tmp_path / "drive.mcap")
    return read_log(tmp_path / "drive.mcap")


def episodes(log: Log) -> list[Steps]:
    return episodes_of(log, SPEC, judge)


def test_a_run_is_one_episode_that_ends_at_the_goal(log: Log) -> None:
    (steps,) = episodes(log)
    n = len(steps["first"])
    assert n == len(log.of(wire.ObservationMsg)) - 1  # what came after the arrival is no part of it
    assert steps["first"].tolist() == [1.0] + [0.0] * (n - 1)
    assert steps["terminal"].tolist() == [0.0] * (n - 1) + [1.0]
    assert steps["event"].tolist() == [0] * (n - 1) + [8]
    assert steps["reward"][0] == 0
    assert steps["reward"][-1] > 99
    way_m = 1.4 * (n - 1) / n
    assert steps["reward"][:-1].sum() + steps["reward"][-1] - 100 == pytest.approx(way_m, abs=0.05)


def test_inputs_are_the_policys_and_actions_those_that_were_applied(log: Log) -> None:
    (steps,) = episodes(log)
    robot = robot_of(log)
    tracker = SituationTracker(robot)
    situation = tracker.reset()
    messages = log.of(wire.ObservationMsg)[: len(steps["first"])]
    for i, message in enumerate(messages):
        observation = wire.unpack_observation(message)
        situation = tracker.update(situation, observation)
        for name, values in tracker.policy_input(situation, observation).arrays().items():
            np.testing.assert_array_equal(steps[name][i], values, err_msg=name)
        if i:
            np.testing.assert_allclose(
                robot.action_to_velocity(steps["action"][i - 1]), observation.last_command, atol=1e-5
            )


def test_a_gap_parts_episodes_and_only_the_last_one_ends(log: Log) -> None:
    entries = tuple(
        e for e in log.entries if not (isinstance(e.message, wire.ObservationMsg) and e.message.sequence == 5)
    )
    parts = episodes(replace(log, entries=entries))
    assert len(parts) == 2
    assert [p["first"].sum() for p in parts] == [1, 1]
    assert [p["terminal"].sum() for p in parts] == [0, 1]


def test_a_run_that_was_broken_off_has_no_ending(log: Log) -> None:
    entries = tuple(e for e in log.entries if not isinstance(e.message, wire.StatusMsg))
    (steps,) = episodes(replace(log, entries=entries))
    assert not steps["terminal"].any()


def test_a_log_of_another_layout_is_one_line(log: Log) -> None:
    other = replace(SPEC, name="other", lidar=replace(SPEC.lidar, beams=64))
    with pytest.raises(LogError, match=r"scan_m of robot 'a1': expected \(64,\) as of robot 'other', got \(128,\)"):
        episodes_of(log, other, judge)
    with pytest.raises(LogError, match="rate_hz"):
        episodes_of(log, replace(SPEC, rate_hz=17.0), judge)
    with pytest.raises(LogError, match="metadata 'robot'"):
        robot_of(replace(log, metadata={"robonav.run": {"robot": "{}"}}))


TINY = (
    *("--length", "8", "--batch", "2", "--updates", "6", "--updates-per-iteration", "3", "--checkpoint-every", "3"),
    *("--behavior-start", "2", "--agent.model.hidden", "16", "--agent.model.groups", "4", "--agent.model.classes", "4"),
    *("--agent.model.backbone.d-model", "16", "--agent.model.backbone.d-state", "4"),
    *("--agent.model.backbone.headdim", "8", "--agent.behavior.hidden", "16", "--agent.behavior.horizon", "3"),
    *("--threads", "1", "--max-minutes", "0"),
)


def test_the_commands_learn_from_logs_and_from_the_dataset_made_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("minari")
    (tmp_path / "logs").mkdir()
    for name in ("a.mcap", "b.mcap"):
        write_drive(tmp_path / "logs" / name)
    assert dataset.main([str(tmp_path / "logs"), "--out", str(tmp_path / "sets"), "--name", "two-v0"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    shapes: list[Any] = []
    for source in (tmp_path / "logs", tmp_path / "sets" / "two-v0"):
        out = tmp_path / f"run_{source.name}"
        assert train.main(["--preset", "quick", "--out", str(out), "--offline", str(source), *TINY]) == 0
        assert "trained 6 updates on " in capsys.readouterr().out
        shapes.append({name: value.shape for name, value in load_tensors(out / "checkpoint.safetensors")[0].items()})
    assert shapes[0] == shapes[1] and shapes[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RobonavError, match="neither"):
        train.main(["--offline", str(tmp_path / "empty"), "--out", str(tmp_path / "x")])
