from __future__ import annotations

from pathlib import Path

import pytest

from robonav.cli.main import main
from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.mapping.sight import MotionSight
from robonav.planning.local import LocalPilot
from robonav.planning.mppi import MPPIConfig

QUICK = ["--episodes", "10", "--scenes", "empty", "crowd-few", "--ticks", "6", "--workers", "1"]


def test_what_it_writes_is_what_a_planner_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "sight.npz"
    assert main(["sight", "--out", str(out), *QUICK, "--train.steps", "3", "--train.width", "4"]) == 0
    text = capsys.readouterr().out
    assert "60 ticks of 10 episodes" in text and str(out) in text
    a1 = load_robot("a1")
    assert MotionSight.load(out, a1.lidar).reset().scans_m == ()
    assert LocalPilot(a1, MPPIConfig(sight=str(out))).sight is not None
    assert LocalPilot(a1, MPPIConfig(sight="")).sight is None
    assert [path.name for path in out.parent.iterdir()] == ["sight.npz"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--episodes", "3"], "--episodes: expected at least 10"),
        (["--episodes", "10", "--scenes", "nope"], "no scene 'nope'"),
        (["--episodes", "10", "--robots", "nope"], "no preset 'nope'"),
        (["--episodes", "10", "--driver", "nope"], "'nope'"),
        (["--episodes", "10", "--ticks", "0"], "--ahead, --ticks"),
        (["--episodes", "10", "--train.lr", "0"], "lr"),
        (["--episodes", "10", "--train.seed", "-1"], "seed"),
        (["--episodes", "10", "--workers", "0"], "--workers"),
        (["--episodes", "10", "--robots"], "--robots: expected at least one preset"),
        (["--episodes", "10", "--scenes"], "--scenes: expected at least one preset"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_driven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    assert main(["sight", "--out", str(tmp_path / "s.npz"), *flags]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_driven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sight", "--out", str(tmp_path), *QUICK]) == 2
    assert "a regular file" in capsys.readouterr().err


def test_a_bundle_takes_no_sight_of_ones_own() -> None:
    from policies.planner_layout import PlannerLayout

    with pytest.raises(ConfigError, match="bundles carry none"):
        PlannerLayout(config=MPPIConfig(sight="own.npz"))
