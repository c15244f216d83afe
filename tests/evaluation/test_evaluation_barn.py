from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from robonav.errors import ConfigError, SceneError
from robonav.evaluation import barn
from robonav.types import Episode

BARN = Path(os.environ.get("ROBONAV_BARN_DIR") or Path(__file__).resolve().parents[3] / "shared" / "barn")
needs_barn = pytest.mark.skipif(not (BARN / "grid_files").is_dir(), reason="the BARN dataset is not here")


def drive(positions, outcome="success", dt_s=0.1):
    steps = len(positions) - 1
    points = np.array([(0.0, p) for p in positions], np.float32)
    return Episode("w", 0, outcome, steps * dt_s, 1.0, 1.0, 0.0, steps, np.ones(steps, np.float32), points)


def test_reference_length_of_a_straight_path():
    # Row 15 runs from column to column along y, 0.075 m beside the start.
    cells = np.array([(15, c) for c in range(30)])
    x, y0, y1 = -4.575 + 0.15 * 15, 5.075, 5.075 + 0.15 * 29
    expected = np.hypot(x + 2.25, y0 - 3.0) + (y1 - y0) + np.hypot(x + 2.25, 13.0 - y1)
    assert barn.reference_length(cells) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("time_s", "expected"),
    [(0.1, 0.5), (10.0, 0.5), (20.0, 0.25), (39.9, 5 / 39.9), (40.0, 0.125), (99.0, 0.125)],
)
def test_score_clips_at_two_and_eight_optimal_times(time_s, expected):
    assert barn.score(True, time_s, 10.0) == pytest.approx(expected)  # OT = 5 s
    assert barn.score(False, time_s, 10.0) == 0.0


def test_clock_starts_once_the_robot_has_moved():
    waits = drive([0.0, 0.02, 0.04, 0.06, 0.12, 0.5, 1.0])
    assert barn.clock_time(waits) == pytest.approx(0.2)  # 0.6 s less the four ticks before 0.1 m
    assert barn.clock_time(drive([0.0, 0.0, 0.01], "timeout")) == pytest.approx(0.2)
    assert barn.clock_time(drive([0.0])) == 0.0


def test_what_ends_after_the_limit_is_a_timeout():
    late = barn.judge(drive(np.linspace(0, 10, 1030)))
    assert late.outcome == "timeout"
    assert late.time_s == barn.TIME_LIMIT_S
    assert barn.trial(3, late, 10.0) == barn.Trial(3, False, False, True, 100.0, 0.0)
    in_time = barn.judge(drive(np.linspace(0, 10, 990)))
    assert in_time.outcome == "success"


def test_mean_score_weighs_worlds_alike():
    trials = [barn.Trial(w, True, False, False, 9.0, s) for w, s in ((1, 0.5), (1, 0.5), (1, 0.5), (2, 0.1))]
    assert barn.mean_score(trials) == pytest.approx(0.3)
    assert barn.mean_score([]) == 0.0


def test_report_lines_follow_the_public_format():
    trials = [barn.Trial(1, True, False, False, 12.34567, 0.41234), barn.Trial(20, False, True, False, 3.0, 0.0)]
    assert barn.report_lines(trials) == "1 1 0 0 12.3457 0.4123\n20 0 1 0 3.0000 0.0000\n"


@needs_barn
def test_reference_lengths_of_the_dataset():
    lengths = np.array([barn.load_reference_length(BARN, w) for w in barn.available_worlds(BARN)])
    assert len(lengths) == 250
    assert (lengths >= 10.0).all()  # never shorter than the straight way from start to goal
    assert lengths.max() < 20.0
    assert 0.1 < barn.score(True, 12.0, float(np.median(lengths))) < 0.5


@needs_barn
def test_held_out_worlds_are_named():
    assert barn.choose_worlds(BARN, (5, 1)) == [5, 1]
    assert len(barn.choose_worlds(BARN, None)) == 250
    with pytest.raises(ConfigError, match=r"not in .*: 6, 12 \(held out, being divisible by 6: 6, 12\)"):
        barn.choose_worlds(BARN, (1, 6, 12))


@pytest.mark.parametrize(
    ("wanted", "why"), [((), "none"), ((300,), "300"), ((1, 2, 1), "1 twice"), ((2,), "not in .*: 2;")]
)
def test_bad_worlds(tmp_path, wanted, why):
    (tmp_path / "grid_files").mkdir()
    (tmp_path / "grid_files" / "grid_1.npy").touch()
    with pytest.raises(ConfigError, match=why):
        barn.choose_worlds(tmp_path, wanted)


def test_bad_folders(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        barn.available_worlds(tmp_path / "none")
    with pytest.raises(ConfigError, match="grid_files"):
        barn.available_worlds(tmp_path)
    with pytest.raises(SceneError, match="path file of BARN world 1"):
        barn.load_reference_length(tmp_path, 1)
    (tmp_path / "path_files").mkdir()
    np.save(tmp_path / "path_files" / "path_1.npy", np.zeros(3))
    with pytest.raises(SceneError, match=r"\(n, 2\)"):
        barn.load_reference_length(tmp_path, 1)
