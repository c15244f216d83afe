"""A small exact lidar for tests: beams against segments and circles in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robonav.types import LidarSpec, Observation

NO_SEGMENTS = np.zeros((0, 4))
NO_CIRCLES = np.zeros((0, 3))


def room(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    """(4, 4) walls of a room as segments x0, y0, x1, y1."""
    return np.array([[x0, y0, x1, y0], [x1, y0, x1, y1], [x1, y1, x0, y1], [x0, y1, x0, y0]], float)


def cast(
    pose: ArrayLike, lidar: LidarSpec, segments: NDArray[Any] = NO_SEGMENTS, circles: NDArray[Any] = NO_CIRCLES
) -> NDArray[np.float32]:
    """(beams,) distances to the nearest segment (n, 4) or circle (m, 3), range_m where nothing is hit."""
    x, y, yaw = np.asarray(pose, float)
    angles = lidar.angles_rad + yaw
    ray = np.stack([np.cos(angles), np.sin(angles)], -1)
    origin = np.array([x + lidar.mount_x_m * np.cos(yaw), y + lidar.mount_x_m * np.sin(yaw)])
    distance = np.full(lidar.beams, lidar.range_m)
    for segment in segments:
        along, gap = segment[2:] - segment[:2], segment[:2] - origin
        cross = ray[:, 1] * along[0] - ray[:, 0] * along[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (gap[1] * along[0] - gap[0] * along[1]) / cross
            share = (ray[:, 0] * gap[1] - ray[:, 1] * gap[0]) / cross
        hit = (np.abs(cross) > 1e-12) & (t > 0) & (share >= 0) & (share <= 1) & (t < distance)
        distance = np.where(hit, t, distance)
    for centre_x, centre_y, radius in circles:
        gap = np.array([centre_x, centre_y]) - origin
        along = ray @ gap
        inside = along**2 - (gap @ gap - radius**2)
        t = along - np.sqrt(np.maximum(inside, 0.0))
        distance = np.where((inside > 0) & (t > 0) & (t < distance), t, distance)
    return distance.astype(np.float32)


def observe(
    pose: ArrayLike, goal: ArrayLike, scan: NDArray[np.float32] | None, stamp_ns: int = 0, twist: ArrayLike = (0, 0, 0)
) -> Observation:
    """An observation whose odom frame is the test's world."""
    return Observation(
        stamp_ns=stamp_ns,
        pose_odom_base=np.asarray(pose, np.float32),
        twist_base=np.asarray(twist, np.float32),
        tilt_rad=np.array([0.01, -0.02], np.float32),
        goal_odom_m=np.asarray(goal, np.float32),
        last_command=np.array([0.3, 0.1, -0.2], np.float32),
        scan_m=scan,
    )
