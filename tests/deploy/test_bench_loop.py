"""``robonav bench loop``: a real run at a rate of its own, and figures that say what was measured."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from deploy.drivers import PointDriver
from policies.bundle import load_bundle
from robonav.cli import bench
from robonav.cli.args import UsageError
from robonav.cli.bench_loop import bundle_at, priority, robot_at
from robonav.cli.patrol import TURN_M, Patrol
from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.types import Driver, VelocityCommand


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def test_a_patrol_walks_to_and_fro_and_is_never_done() -> None:
    clock = Clock()
    patrol = Patrol(PointDriver(goal_m=(3.0, 0.0), clock=clock))
    assert isinstance(patrol, Driver)
    patrol.connect()
    patrol.arm()
    goals, xs = [], []
    for _ in range(400):
        clock.now_ns += 50_000_000
        seen = patrol.read()
        goals.append(float(seen.goal_odom_m[0]))
        xs.append(float(seen.pose_odom_base[0]))
        forward = np.sign(seen.goal_odom_m[0] - xs[-1])
        patrol.command(VelocityCommand.of(np.array([0.4 * forward, 0, 0]), clock.now_ns + 10**9))
        assert not patrol.arrived and not patrol.collided
    turns = np.flatnonzero(np.diff(goals))
    assert len(turns) >= 2
    assert set(goals) == {0.0, 3.0}
    for turn in turns:  # where it turned round
        assert abs(xs[turn + 1] - goals[turn]) < TURN_M


def test_a_bundle_and_a_robot_of_another_rate(tiny_bundle: Path, tmp_path: Path) -> None:
    assert bundle_at(tiny_bundle, load_robot("a1").rate_hz, tmp_path) == tiny_bundle
    copy = load_bundle(bundle_at(tiny_bundle, 25.0, tmp_path))
    robot = load_robot(str(robot_at("a1", 25.0, tmp_path)))
    assert copy.contract.rate_hz == copy.contract.robot.rate_hz == robot.rate_hz == 25.0
    assert robot.name == "a1"
    (tmp_path / "bare.toml").write_text('name = "bare"\n')
    with pytest.raises(ConfigError, match="a line rate_hz"):
        robot_at(str(tmp_path / "bare.toml"), 25.0, tmp_path)


def test_a_priority_is_for_the_measurement_alone() -> None:
    before = os.nice(0)
    with priority(before + 1):
        assert os.nice(0) == before + 1
    assert os.nice(0) in (before, before + 1)  # only a privileged user may go back up


@pytest.mark.parametrize("words", [["--rate", "0"], ["--seconds", "-1"], ["--nice", "20"]])
def test_figures_that_cannot_be_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=words[0]):
        bench.main(["loop", *words])


@pytest.mark.realtime
@pytest.mark.xdist_group("processes")
def test_the_loop_is_measured_on_its_real_processes(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "loop.json"
    words = ["--seconds", "1.5", "--driver", "point", "--bundle", str(tiny_bundle), "--json", str(out)]
    assert bench.main(["loop", *words]) == 0
    found = json.loads(out.read_text())
    assert found == json.loads(capsys.readouterr().out)
    for name in ("rate_hz", "period_error_pct", "missed_pct"):
        assert isinstance(found[name], float)
    for name in ("tick_ms", "decision_ms", "link_ms"):
        assert 0 <= found[name]["p50"] <= found[name]["p99"] <= found[name]["max"]
        assert found[name]["count"] > 0
    assert found["target_hz"] == 20.0
    assert found["ticks"] + found["skipped_ticks"] >= 20  # deadlines in 1.5 s; the bundle's own rate has 15
    assert list(found["stages"]) == ["sense", "map", "route", "infer", "govern", "act", "link"]
    ages = [found["stages"][name]["age_ms"]["p50"] for name in ("map", "route", "infer")]
    assert ages == sorted(ages)  # an observation grows older on its way
    assert set(found["resources"]) == {"supervisor", "driver", "governor", "navigator", "recorder"}
    assert found["resources"]["navigator"]["rss_max_mb"] > 20
