"""The trot's promises, by the benchmark that measures them, and the lag that the kinematic world takes from it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robonav.cli import bench
from robonav.config import load_robot
from robonav.errors import ConfigError, SceneError
from sim import gait_bench
from sim.calibration import (
    LAGS_S,
    driven,
    fit_lag_s,
    step_responses,
    trajectory_errors_m,
    validation_sequences,
    walked,
)
from sim.gait_bench import grid_of, measure_gait
from sim.walker import Walker
from sim.world import World

SHIPPED = ("a1", "aliengo", "laikago", "mini_cheetah", "spirit40", "vision60")
SPEC = load_robot("a1")


@pytest.fixture(scope="module")
def walker():
    one = Walker(SPEC)
    yield one
    one.close()


def test_the_grid_has_nine_commands_within_the_limits() -> None:
    grid = grid_of(SPEC)
    assert len(set(grid)) == 9
    assert (0.0, 0.0, 0.0) in grid
    assert max(c[0] for c in grid) == SPEC.vx_max_mps
    assert min(c[0] for c in grid) == SPEC.vx_min_mps
    assert {c[1] for c in grid} >= {SPEC.vy_max_mps, -SPEC.vy_max_mps}
    assert max(abs(c[2]) for c in grid) == SPEC.yaw_rate_max_radps


def test_kinematic_and_walking_robot_stay_together(walker) -> None:
    """Two random sequences of 5 s, with the lag of the robot's file; all robots and twelve of them are slow."""
    errors = trajectory_errors_m(SPEC, walker, SPEC.lag_s, count=2)
    assert len(errors) == 2
    assert max(errors) <= 0.3


def test_another_lag_goes_elsewhere(walker) -> None:
    """So that the test above can fail: a robot that followed at once, or much later, is further off."""
    calibrated = np.mean(trajectory_errors_m(SPEC, walker, SPEC.lag_s, count=2))
    assert np.mean(trajectory_errors_m(SPEC, walker, 0.6, count=2)) > calibrated + 0.05


def test_the_lag_of_a_robot_that_is_a_lag_is_found(walker, monkeypatch) -> None:
    """The fit against a robot that moves as the kinematic one with a lag of 0.3 s."""
    other = World(dataclasses.replace(SPEC, lag_s=0.3))
    try:
        monkeypatch.setattr("sim.calibration.walked", lambda _walker, commands: driven(other, commands, 0.3))
        assert fit_lag_s(SPEC, walker) == pytest.approx(0.3, abs=1e-9)
    finally:
        other.close()
    assert 0.3 in LAGS_S


def test_a_fall_is_an_infinite_error(walker, monkeypatch) -> None:
    monkeypatch.setattr("sim.calibration.walked", lambda walker, commands: walked(walker, commands[:5]))
    assert trajectory_errors_m(SPEC, walker, SPEC.lag_s, count=1) == [math.inf]


def test_sequences_are_seeded_and_within_the_limits() -> None:
    sequences = validation_sequences(SPEC, count=3)
    assert sequences == validation_sequences(SPEC, count=3)
    assert sequences != validation_sequences(SPEC, count=3, seed=1)
    for commands in (*sequences, *step_responses(SPEC)):
        assert len(commands) == 50
        assert np.all(np.abs(commands) <= [SPEC.vx_max_mps, SPEC.vy_max_mps, SPEC.yaw_rate_max_radps])


def test_the_benchmark_in_short(monkeypatch, capsys, tmp_path) -> None:
    """One command of the nine for 2 s, through the command line."""
    monkeypatch.setattr(gait_bench, "SECONDS", 2.0)
    monkeypatch.setattr(gait_bench, "SETTLED_S", 1.0)
    monkeypatch.setattr(gait_bench, "GRID", ((0.6, 0.0, 0.0),))
    monkeypatch.setattr(gait_bench, "fit_lag_s", lambda _spec, _walker: 0.16)
    monkeypatch.setattr(gait_bench, "trajectory_errors_m", lambda *_: [0.1, 0.3, 0.2])
    assert bench.main(["gait", "--robots", "a1", "--json", str(tmp_path / "gait.json")]) == 0
    out, err = capsys.readouterr()
    assert '"falls": 0' in out
    assert "a1: 0 falls, error at most" in err
    assert "after 5 s 0.20 m (median) to 0.30 m off" in err
    assert (tmp_path / "gait.json").read_text().count("error_vx_mps") == 1


@pytest.mark.parametrize(
    ("robots", "said"), [(["b1"], "robots: no preset 'b1'"), (["none.toml"], "expected an existing .toml file")]
)
def test_the_benchmark_names_an_unknown_robot(robots: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        measure_gait(robots)


def test_a_robot_without_its_urdf_is_left_out_unless_it_was_asked_for(monkeypatch) -> None:
    def missing(spec):
        raise SceneError(f"robot '{spec.name}': no such file")

    monkeypatch.setattr(gait_bench, "_measure_one", missing)
    said: list[str] = []
    assert measure_gait(report=said.append) == {"robots": {}}
    assert len(said) >= 6
    assert all("left out" in line for line in said)
    with pytest.raises(SceneError, match="robot 'a1'"):
        measure_gait(["a1"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_nine_commands_are_held_for_eight_seconds(name: str) -> None:
    """What the contract asks for; about 10 s a robot on a quiet core."""
    measured = measure_gait([name])["robots"][name]
    assert len(measured["commands"]) == 9
    assert all(row["seconds"] == pytest.approx(8.0) for row in measured["commands"])
    assert measured["falls"] == 0
    assert measured["error_mps_max"] <= 0.1
    assert measured["error_radps_max"] <= 0.15
    assert measured["trajectory_error_m_max"] <= 0.3
    assert len(measured["trajectory_error_m"]) == 12
    assert measured["lag_s"] == pytest.approx(load_robot(name).lag_s, abs=0.021)  # what the file has was measured
