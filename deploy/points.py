"""What lidar and depth camera hit, as points in the base frame. Pure, numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.config import GovernorConfig
from robonav.types import DepthSpec, LidarSpec, Observation, RobotSpec


def scan_points(scan_m: NDArray[Any], lidar: LidarSpec) -> NDArray[np.float64]:
    """(beams,) ranges to the (n, 2) points that were hit, in the base frame."""
    ranges = np.asarray(scan_m, dtype=np.float64)
    hit = (ranges > 0) & (ranges < lidar.range_m - 1e-3)
    angles = lidar.angles_rad[hit]
    ranges = ranges[hit]
    return np.stack([lidar.mount_x_m + ranges * np.cos(angles), ranges * np.sin(angles)], axis=1)


def clearance_m(scan_m: NDArray[Any], robot: RobotSpec) -> NDArray[np.float64]:
    """(N,) from the edge of the footprint to the nearest hit of (N, B) scans; NaN without a hit."""
    ranges = np.asarray(scan_m, np.float64)
    hit = (ranges > 0) & (ranges < robot.lidar.range_m - 1e-3)
    angles = robot.lidar.angles_rad
    if ranges.shape[1] != len(angles):
        return np.full(len(ranges), np.nan)
    x = np.abs(robot.lidar.mount_x_m + ranges * np.cos(angles)) - robot.length_m / 2
    y = np.abs(ranges * np.sin(angles)) - robot.width_m / 2
    outside = np.where(hit, np.hypot(np.maximum(x, 0), np.maximum(y, 0)), np.inf)
    nearest = outside.min(axis=1, initial=np.inf)
    return np.where(np.isfinite(nearest), nearest, np.nan)


def depth_points(
    depth_m: NDArray[Any], camera: DepthSpec, tilt_rad: NDArray[Any], z_base_m: tuple[float, float]
) -> NDArray[np.float64]:
    """The nearest obstacle of each image column, as a lidar would see it.

    Args:
        depth_m: (height, width) depth along the optical axis; 0, NaN and the range's end are no hits.
        camera: pinhole with square pixels, and its mount in the base frame.
        tilt_rad: (2,) roll and pitch of the base, nose down.
        z_base_m: lowest and highest height of an obstacle over the base's origin, on a level base; below is floor,
            above is clear of the robot.

    Returns:
        (n, 2) points in the level base frame, n at most `width`.
    """
    depth = np.asarray(depth_m, dtype=np.float64)
    hit = (depth > 0) & (depth < camera.range_m - 1e-3)
    depth = np.where(hit, depth, 0.0)
    tan_x = np.tan(camera.fov_rad / 2)
    tan_y = tan_x * camera.height / camera.width
    left = tan_x * (1 - 2 * (np.arange(camera.width) + 0.5) / camera.width)
    up = tan_y * (1 - 2 * (np.arange(camera.height) + 0.5) / camera.height)
    rays = np.stack(np.broadcast_arrays(1.0, left[None, :], up[:, None]), axis=-1)  # (h, w, 3) ahead, left, up
    mount = _rotation(0.0, camera.mount_pitch_rad, camera.mount_yaw_rad)
    at = np.array([camera.mount_x_m, camera.mount_y_m, camera.mount_z_m])
    points = (depth[..., None] * rays) @ mount.T + at
    points = points @ _rotation(float(tilt_rad[0]), float(tilt_rad[1]), 0.0).T
    hit &= (points[..., 2] >= z_base_m[0]) & (points[..., 2] <= z_base_m[1])
    away = np.where(hit, np.hypot(points[..., 0], points[..., 1]), np.inf)
    columns = np.flatnonzero(hit.any(axis=0))
    return np.asarray(points[away.argmin(axis=0)[columns], columns, :2], dtype=np.float64)


def _rotation(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """(3, 3) of yaw, then pitch (nose down), then roll about the turned axes: ahead, left, up."""
    cr, sr, cp, sp, cy, sy = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)


def points_of(observation: Observation, robot: RobotSpec, config: GovernorConfig) -> dict[str, NDArray[np.float64]]:
    """(n, 2) points of each sensor that an observation has, "scan" and "depth", in the base frame."""
    found = {}
    if observation.scan_m is not None:
        found["scan"] = scan_points(observation.scan_m, robot.lidar)
    if observation.depth_m is not None:
        origin_m = robot.legs.stance_height_m if robot.legs is not None else 0.75 * robot.height_m
        heights_m = (config.floor_clearance_m - origin_m, robot.height_m - origin_m)
        found["depth"] = depth_points(observation.depth_m, robot.depth, observation.tilt_rad, heights_m)
    return found
