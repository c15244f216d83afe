"""What the sensors hit, against closed forms: a beam's end, and a camera's rays onto floor, wall and lintel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.points import depth_points, scan_points
from robonav.types import DepthSpec, LidarSpec

CAMERA = DepthSpec(width=9, height=9, fov_rad=1.2, range_m=6.0, mount_x_m=0.25, mount_z_m=0.05)
HEIGHTS_M = (-0.2, 0.1)  # over the base's origin
LEVEL = np.zeros(2)


def depth_of_wall(camera: DepthSpec, x_m: float) -> np.ndarray:
    """Depth along the axis of a wall across a level camera's view: the same everywhere."""
    return np.full((camera.height, camera.width), x_m - camera.mount_x_m)


def test_scan_points_leave_out_what_was_not_hit_and_use_the_mount() -> None:
    lidar = LidarSpec(beams=5, range_m=5.0, mount_x_m=0.1, angle_min_rad=-np.pi, fov_rad=2 * np.pi * 4 / 5)
    points = scan_points(np.array([5.0, 2.0, 1.0, 0.0, np.nan], np.float32), replace(lidar, fov_rad=2 * np.pi))
    angles = -np.pi + np.array([1, 2]) * 2 * np.pi / 5
    np.testing.assert_allclose(points, [[0.1 + 2 * np.cos(angles[0]), 2 * np.sin(angles[0])], *_on(angles[1])])


def _on(angle: float) -> list[list[float]]:
    return [[0.1 + np.cos(angle), np.sin(angle)]]


@given(st.floats(0.6, 5.0))
def test_a_wall_ahead_is_a_point_a_column_at_its_distance(x_m: float) -> None:
    points = depth_points(depth_of_wall(CAMERA, x_m), CAMERA, LEVEL, HEIGHTS_M)
    assert points.shape == (9, 2)
    np.testing.assert_allclose(points[:, 0], x_m, atol=1e-9)
    tan = np.tan(0.6)
    np.testing.assert_allclose(points[:, 1], (x_m - 0.25) * tan * (1 - 2 * (np.arange(9) + 0.5) / 9), atol=1e-9)


@given(st.floats(-0.3, 0.3), st.floats(-0.2, 0.2), st.floats(0.0, 0.4))
def test_the_floor_is_no_obstacle_however_the_robot_leans(pitch: float, roll: float, mount_pitch: float) -> None:
    camera = replace(CAMERA, mount_pitch_rad=mount_pitch, mount_yaw_rad=0.3, mount_y_m=0.1)
    depth = depth_of_floor(camera, -0.33, roll, pitch)
    assert len(depth_points(depth, camera, np.array([roll, pitch]), (-0.33 + 0.02, 0.1))) == 0
    seen = depth_points(depth, camera, np.array([roll, pitch]), (-0.33 - 0.02, 0.1))
    assert len(seen) == np.count_nonzero((depth > 0).any(axis=0))


def depth_of_floor(camera: DepthSpec, floor_z_m: float, roll: float, pitch: float) -> np.ndarray:
    """Where each pixel's ray meets a floor, from the angles in another order of words: degrees of freedom by turn."""
    tan_x = np.tan(camera.fov_rad / 2)
    depth = np.zeros((camera.height, camera.width))

    def leaned(v: np.ndarray) -> np.ndarray:
        x, y, z = v
        y, z = y * np.cos(roll) - z * np.sin(roll), y * np.sin(roll) + z * np.cos(roll)
        return np.array([x * np.cos(pitch) + z * np.sin(pitch), y, -x * np.sin(pitch) + z * np.cos(pitch)])

    for i in range(camera.height):
        for j in range(camera.width):
            left = tan_x * (1 - 2 * (j + 0.5) / camera.width)
            up = tan_x * camera.height / camera.width * (1 - 2 * (i + 0.5) / camera.height)
            p, w = camera.mount_pitch_rad, camera.mount_yaw_rad
            x, z = np.cos(p) + up * np.sin(p), -np.sin(p) + up * np.cos(p)
            ray = np.array([x * np.cos(w) - left * np.sin(w), x * np.sin(w) + left * np.cos(w), z])
            at = leaned(np.array([camera.mount_x_m, camera.mount_y_m, camera.mount_z_m]))
            way = leaned(ray)
            if way[2] < 0:
                depth[i, j] = (floor_z_m - at[2]) / way[2]
    return np.where(depth < camera.range_m, depth, 0.0)


def test_what_is_above_the_robot_is_left_out_and_the_nearest_of_a_column_is_kept() -> None:
    depth = depth_of_wall(CAMERA, 1.25)
    depth[:4] = 0.3  # a lintel close by, higher than the robot: up to 0.05 + 0.3 * tan(0.6) * 8/9 = 0.23
    depth[5:, 2] = 0.5  # a low box in the third column, lower than the camera and above the floor
    points = depth_points(depth, CAMERA, LEVEL, (-0.4, 0.08))
    assert points[2, 0] == pytest.approx(0.75)
    np.testing.assert_allclose(np.delete(points[:, 0], 2), 1.25)


@pytest.mark.parametrize("nothing", [0.0, np.nan, 6.0, np.inf, -1.0])
def test_a_pixel_without_a_reading_is_no_point(nothing: float) -> None:
    depth = depth_of_wall(CAMERA, 1.0)
    depth[:, 3] = nothing
    assert len(depth_points(depth, CAMERA, LEVEL, HEIGHTS_M)) == 8
