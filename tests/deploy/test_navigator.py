"""What the navigator decides nothing on: old, impossible or foreign observations, and another bundle than the run's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.config import DeployConfig
from deploy.navigator import NOT_FINITE, OLD, _same_bundle, _unusable
from deploy.station import Order
from robonav.config import load_robot
from robonav.errors import BundleError, ShapeError
from robonav.types import Observation

ROBOT = load_robot("a1")
MS = 1_000_000
ORDER = Order("", 0, 1, 0, ROBOT, DeployConfig(), "bundles/a", "", "", metadata={"bundle_sha256": "a" * 64})


def observation(**changes: Any) -> Observation:
    zeros = np.zeros(3, np.float32)
    scan_m = np.ones(ROBOT.lidar.beams, np.float32)
    whole = Observation(1000 * MS, zeros, zeros, zeros[:2], zeros[:2], zeros, scan_m)
    return replace(whole, **changes)


def test_a_fresh_one_is_decided_on_up_to_the_age_that_the_governor_takes() -> None:
    assert _unusable(observation(), ORDER, 1000 * MS) == ""
    assert _unusable(observation(), ORDER, 1400 * MS) == ""
    assert _unusable(observation(), ORDER, 1400 * MS + 1) == OLD


@pytest.mark.parametrize("name", ["pose_odom_base", "twist_base", "tilt_rad", "scan_m"])
def test_nan_in_any_sensor_passes_by(name: str) -> None:
    broken = np.array(getattr(observation(), name))
    broken[0] = np.nan
    assert _unusable(observation(**{name: broken}), ORDER, 1000 * MS) == NOT_FINITE
    assert _unusable(observation(depth_m=np.full((64, 64), np.inf)), ORDER, 1000 * MS) == NOT_FINITE


def test_a_scan_of_another_robot_does_not_pass_by_waiting() -> None:
    with pytest.raises(ShapeError, match="scan_m"):
        _unusable(observation(scan_m=np.ones(7, np.float32)), ORDER, 1000 * MS)


def test_another_bundle_than_the_runs_does_not_drive() -> None:
    _same_bundle("a" * 64, ORDER)
    _same_bundle("b" * 64, replace(ORDER, metadata={}))  # of a run that names none
    with pytest.raises(BundleError, match="the bundle aaaaaaaaaaaa of this run, got bbbbbbbbbbbb; end"):
        _same_bundle("b" * 64, ORDER)


def test_a_bundle_knows_its_name_in_the_runs_metadata(tiny_bundle: Path, other_bundle: Path) -> None:
    from deploy.report import run_metadata
    from policies.bundle import load_bundle

    tiny, other = load_bundle(tiny_bundle), load_bundle(other_bundle)
    order = replace(ORDER, metadata=run_metadata(tiny, ROBOT, "", DeployConfig(), 0, {}))
    _same_bundle(load_bundle(tiny_bundle).sha256, order)
    with pytest.raises(BundleError):
        _same_bundle(other.sha256, order)
