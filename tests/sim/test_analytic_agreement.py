"""Analytic worlds against PyBullet: beams and contact at random poses in generated scenes."""

from __future__ import annotations

import pytest

from robonav.errors import ConfigError, SceneError
from sim.analytic.agreement import PRESETS, measure_agreement


def _check(result: dict, beams_within: float) -> None:
    assert result["beams"] == 128 * result["poses"]
    assert result["beams_within"] >= beams_within
    assert result["verdicts_same"] >= 0.999
    assert result["worst_gap_m"] < 1e-3
    assert result["clearance_error_m"] < 2e-3
    assert 0.05 < result["touching"] < 0.6  # both verdicts occur
    assert all(shares["beams_within"] >= 0.99 for shares in result["presets"].values())


def test_beams_and_contact_agree_with_pybullet() -> None:
    result = measure_agreement(300, ("rooms", "clutter", "crowd-dense", "doors-moving"), seed=1)
    assert result["poses"] == 300
    _check(result, 0.998)  # a lidar within a wall's outermost millimetre costs 64 beams at once
    assert measure_agreement(30, ("rooms",), seed=1) == measure_agreement(30, ("rooms",), seed=1)


def test_other_robots_agree_as_well() -> None:
    assert measure_agreement(75, ("rooms", "maze", "warehouse"), robot="spirit40", seed=2)["verdicts_same"] >= 0.98


@pytest.mark.slow
def test_ten_thousand_poses_agree_with_pybullet() -> None:
    """About a minute."""
    result = measure_agreement(10_000)
    assert result["poses"] == 10_000
    assert set(result["presets"]) == set(PRESETS)
    _check(result, 0.999)


def test_bad_numbers_and_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"poses, presets: expected 1 or more of each, got 0, 8"):
        measure_agreement(0)
    with pytest.raises(ConfigError, match=r"got 10, 0"):
        measure_agreement(10, ())
    with pytest.raises(SceneError, match=r"no scene 'roms'; .*rooms"):
        measure_agreement(10, ("roms",))
