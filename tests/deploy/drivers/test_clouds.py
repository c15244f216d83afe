"""Planar scans from clouds: against a room in closed form, and against one ray at a time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.drivers import room_scan
from deploy.drivers.clouds import Slice, cloud_points, planar_scan, rotation, yaw_of
from robonav.config import load_robot
from robonav.errors import LinkError
from robonav.types import LidarSpec

GO2 = load_robot("go2")
HEIGHTS = Slice(-0.2, 0.2)


def walls(side_m: float, z_m: float, count: int = 4000) -> Any:
    along = np.linspace(-side_m / 2, side_m / 2, count)
    far = np.full_like(along, side_m / 2)
    flat = np.concatenate([np.stack(p, 1) for p in ((along, far), (along, -far), (far, along), (-far, along))])
    return np.concatenate([flat, np.full((len(flat), 1), z_m)], axis=1)


def test_a_room_is_seen_as_by_a_planar_lidar() -> None:
    scan = planar_scan(walls(5.0, 0.0), GO2, HEIGHTS)
    assert scan.dtype == np.float32
    # the nearest point of a beam's sector, so a little less than along its middle
    exact = room_scan(np.zeros(3), 5.0, GO2.lidar)
    assert (scan <= exact + 1e-3).all()
    assert (scan >= exact - 0.1).all()


def test_floor_and_what_passes_over_the_back_are_no_obstacles() -> None:
    room = np.concatenate([walls(10.0, 0.0), walls(4.0, -0.32), walls(4.0, 0.5)])
    assert planar_scan(room, GO2, HEIGHTS) == pytest.approx(planar_scan(walls(10.0, 0.0), GO2, HEIGHTS))


def test_unseen_is_no_reading_and_far_seen_is_free() -> None:
    assert not planar_scan(np.zeros((0, 3)), GO2, HEIGHTS).any()
    near_floor = planar_scan(walls(4.0, -0.32), GO2, HEIGHTS)
    assert not near_floor.any()  # too near to say that the way is free
    far_floor = planar_scan(walls(9.0, -0.32), GO2, HEIGHTS)
    assert (far_floor == GO2.lidar.range_m).all()


def test_the_robots_own_body_and_bad_points_are_left_out() -> None:
    own = np.array([[0.2, 0.0, 0.0], [-0.3, 0.1, 0.1], [np.nan, 1.0, 0.0], [1.0, np.inf, 0.0]])
    assert not planar_scan(own, GO2, HEIGHTS).any()


@given(
    st.floats(-np.pi, np.pi - 1e-6),
    st.floats(0.8, 7.9),
    st.sampled_from([LidarSpec(beams=128), LidarSpec(beams=31, angle_min_rad=-1.0, fov_rad=2.0, mount_x_m=0.2)]),
)
def test_one_point_lies_in_the_sector_of_the_nearest_beam(bearing: float, away: float, lidar: LidarSpec) -> None:
    spec = replace(GO2, lidar=lidar)
    point = np.array([[lidar.mount_x_m + away * np.cos(bearing), away * np.sin(bearing), 0.0]])
    scan = planar_scan(point, spec, HEIGHTS)
    off = np.abs((lidar.angles_rad - bearing + np.pi) % (2 * np.pi) - np.pi)
    if off.min() < lidar.increment_rad / 2 - 1e-6:
        assert scan[off.argmin()] == pytest.approx(away, rel=1e-5)
        assert np.count_nonzero(scan) == 1
    elif off.min() > lidar.increment_rad / 2 + 1e-6:
        assert not scan.any()


def cloud(points: Any, **changes: Any) -> Any:
    """As sensor_msgs/PointCloud2: intensity before x, y, z, and padding."""
    order = ">" if changes.get("is_bigendian") else "<"
    layout = np.dtype({"names": list("ixyz"), "formats": [order + "f4"] * 4, "offsets": [0, 4, 8, 12], "itemsize": 20})
    raw = np.zeros(len(points), layout)
    for axis, values in zip("xyz", np.asarray(points).T, strict=True):
        raw[axis] = values
    fields = [
        SimpleNamespace(name=n, offset=o, datatype=7) for n, o in (("intensity", 0), ("x", 4), ("y", 8), ("z", 12))
    ]
    about = {"fields": fields, "width": len(points), "height": 1, "point_step": 20, "is_bigendian": False}
    return SimpleNamespace(**about | {"data": list(raw.tobytes())} | changes)


def test_clouds_of_either_byte_order_are_read() -> None:
    points = [[1.0, 2.0, 3.0], [-1.5, 0.25, 0.0]]
    for big in (False, True):
        assert cloud_points(cloud(points, is_bigendian=big)) == pytest.approx(np.array(points))
    assert len(cloud_points(cloud([[0.0, 0.0, 0.0], [np.nan, 1.0, 1.0], [1.0, 0.0, 0.0]]))) == 1


@pytest.mark.parametrize(
    "change",
    [{"data": [0] * 19}, {"point_step": 12}, {"fields": []}, {"width": 3}],
)
def test_clouds_that_are_damaged_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LinkError, match="point cloud: expected"):
        cloud_points(cloud([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], **change))


@given(st.floats(-3.1, 3.1))
def test_yaw_of_a_rotation(yaw: float) -> None:
    turn = rotation(np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)]))
    assert yaw_of(turn) == pytest.approx(yaw)
    assert turn @ turn.T == pytest.approx(np.eye(3))
