"""Outlines of a scene's shapes in the world frame, for drawing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robonav.geometry import transform_points
from robonav.types import Mover, RobotSpec, Scene

_ROUND = 2 * np.pi * np.arange(24) / 24
_CORNERS = np.array([(0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5)])


def rectangle(pose_world: NDArray[np.float64], length_m: float, width_m: float) -> NDArray[np.float64]:
    """(4, 2) corners of a rectangle whose centre and length axis are at `pose_world` (x, y, yaw)."""
    return transform_points(pose_world, _CORNERS * (length_m, width_m))


def solid_polygons(scene: Scene) -> list[NDArray[np.float64]]:
    """(4, 2) corners of each wall and box of a scene."""
    polygons = []
    for x0, y0, x1, y1, thickness in np.asarray(scene.walls, np.float64):
        pose = np.array([(x0 + x1) / 2, (y0 + y1) / 2, np.arctan2(y1 - y0, x1 - x0)])
        polygons.append(rectangle(pose, float(np.hypot(x1 - x0, y1 - y0)), thickness))
    for x, y, length, width, yaw in np.asarray(scene.boxes, np.float64):
        polygons.append(rectangle(np.array([x, y, yaw]), length, width))
    return polygons


def footprint(spec: RobotSpec, pose_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 2) corners of the robot at a pose."""
    return rectangle(pose_world, spec.length_m, spec.width_m)


def mover_outline(mover: Mover, pose_world: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 2) outline of a mover whose middle is at a pose (x, y, yaw)."""
    pose = np.asarray(pose_world, np.float64)
    if mover.box_m is None:
        return pose[:2] + mover.radius_m * np.stack([np.cos(_ROUND), np.sin(_ROUND)], axis=-1)
    length_m, width_m = mover.box_m
    if mover.behaviour == "door" and len(mover.waypoints_m) == 3:  # the leaf reaches from the hinge to its end
        length_m = float(np.linalg.norm(np.subtract(mover.waypoints_m[1], mover.waypoints_m[0])))
    return rectangle(pose, length_m, width_m)


def drawn_bounds(scene: Scene, poses_world: NDArray[np.float32], margin_m: float = 0.3) -> tuple[float, ...]:
    """(x_min, y_min, x_max, y_max) m that show the scene, the way that was driven, and the goal."""
    points = np.vstack([poses_world[:, :2], [scene.goal], np.reshape(scene.bounds_m, (2, 2))])
    low, high = points.min(axis=0) - margin_m, points.max(axis=0) + margin_m
    return (*map(float, low), *map(float, high))
