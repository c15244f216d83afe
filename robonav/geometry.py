"""Planar poses (x, y, yaw): composition, inverse, and points between frames. numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wrap_angle(angle_rad: ArrayLike) -> NDArray[np.float64]:
    """Wraps angles to [-pi, pi)."""
    return (np.asarray(angle_rad, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi


def transform_points(pose_a_b: ArrayLike, points_b: ArrayLike) -> NDArray[np.float64]:
    """(..., 2) points in frame b to frame a, where `pose_a_b` = (x, y, yaw) is b's pose in a."""
    x, y, yaw = np.asarray(pose_a_b, dtype=np.float64)
    p = np.asarray(points_b, dtype=np.float64)
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([x + c * p[..., 0] - s * p[..., 1], y + s * p[..., 0] + c * p[..., 1]], axis=-1)


def inverse_transform_points(pose_a_b: ArrayLike, points_a: ArrayLike) -> NDArray[np.float64]:
    """(..., 2) points in frame a to frame b, where `pose_a_b` is b's pose in a."""
    x, y, yaw = np.asarray(pose_a_b, dtype=np.float64)
    p = np.asarray(points_a, dtype=np.float64)
    c, s = np.cos(yaw), np.sin(yaw)
    dx, dy = p[..., 0] - x, p[..., 1] - y
    return np.stack([c * dx + s * dy, -s * dx + c * dy], axis=-1)


def compose(pose_a_b: ArrayLike, pose_b_c: ArrayLike) -> NDArray[np.float64]:
    """Pose of c in a from b in a and c in b."""
    b_c = np.asarray(pose_b_c, dtype=np.float64)
    xy = transform_points(pose_a_b, b_c[:2])
    return np.array([xy[0], xy[1], wrap_angle(np.asarray(pose_a_b, dtype=np.float64)[2] + b_c[2])])


def invert(pose_a_b: ArrayLike) -> NDArray[np.float64]:
    """Pose of a in b from b in a."""
    xy = inverse_transform_points(pose_a_b, np.zeros(2))
    return np.array([xy[0], xy[1], wrap_angle(-np.asarray(pose_a_b, dtype=np.float64)[2])])


def path_length(points: NDArray[Any]) -> float:
    """Length of a polyline (n, 2)."""
    p = np.asarray(points, dtype=np.float64)
    return float(np.linalg.norm(np.diff(p, axis=0), axis=1).sum()) if len(p) > 1 else 0.0
