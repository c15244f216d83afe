"""The robot's footprint against a scene's true shapes, without grids: solids with doors open, and exact distances.

Written apart from `sim.geodesic`, on which the generators rely, so that the one can be held against the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robonav.types import Mover, RobotSpec, Scene

Floats = NDArray[np.float64]
_SIGNS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float64)


@dataclass(frozen=True, slots=True)
class Solids:
    """What stands still, in the world frame."""

    corners_m: Floats  # (n, 4, 2) of rectangles, in order
    circles: Floats  # (m, 3) x, y, radius


def solids_of(scene: Scene, doors: str = "open") -> Solids:
    """Walls, boxes and cylinders; with `doors` "open" also the leaves of hinged doors where they stand when open.

    A sliding door that is open has gone into the wall beside it. "none" leaves the doors out.
    """
    rectangles = [_wall(*row) for row in np.asarray(scene.walls, np.float64).reshape(-1, 5).tolist()]
    for x, y, length, width, yaw in np.asarray(scene.boxes, np.float64).reshape(-1, 5).tolist():
        rectangles.append(corners_at(np.array([[x, y, yaw]]), length, width)[0])
    if doors == "open":
        rectangles += [_open_leaf(m) for m in scene.movers if m.behaviour == "door" and len(m.waypoints_m) == 3]
    circles = np.asarray(scene.cylinders, np.float64).reshape(-1, 3)
    return Solids(np.array(rectangles, np.float64).reshape(-1, 4, 2), circles)


def corners_at(poses: Floats, length_m: float, width_m: float) -> Floats:
    """(n, 3) poses to (n, 4, 2) corners of a rectangle there."""
    c, s = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    turn = np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)  # (n, 2, 2)
    own = _SIGNS * [length_m / 2, width_m / 2]
    return np.asarray(poses[:, None, :2] + np.einsum("nij,kj->nki", turn, own))


def footprint_gap_m(solids: Solids, poses: Floats, spec: RobotSpec, reach_m: float = 0.5) -> Floats:
    """(n, 3) poses to (n,) exact distances from the footprint to the nearest solid: 0 in contact, at most `reach_m`."""
    poses = np.asarray(poses, np.float64).reshape(-1, 3)
    gap = np.full(len(poses), reach_m)
    half = np.array([spec.length_m / 2, spec.width_m / 2])
    near_m = float(np.hypot(*half)) + reach_m
    if len(solids.circles):
        away = np.hypot(*(poses[:, None, :2] - solids.circles[:, :2]).transpose(2, 0, 1))
        i, j = np.nonzero(away < near_m + solids.circles[:, 2])
        local = _into(poses[i], solids.circles[j, None, :2])[:, 0]
        np.minimum.at(gap, i, np.maximum(_to_rectangle(local, half) - solids.circles[j, 2], 0.0))
    if len(solids.corners_m):
        middle = solids.corners_m.mean(axis=1)
        sides = solids.corners_m[:, 0] - solids.corners_m[:, 1], solids.corners_m[:, 1] - solids.corners_m[:, 2]
        sizes = np.stack([np.hypot(*side.T) for side in sides], axis=-1)  # (n, 2) length, width
        turned = np.column_stack([middle, np.arctan2(sides[0][:, 1], sides[0][:, 0])])
        away = np.hypot(*(poses[:, None, :2] - middle).transpose(2, 0, 1))
        i, j = np.nonzero(away < near_m + np.hypot(*sizes.T) / 2)
        np.minimum.at(gap, i, _rectangle_gap(poses[i], half, turned[j], sizes[j] / 2, solids.corners_m[j]))
    return gap


def _rectangle_gap(poses: Floats, half: Floats, others: Floats, other_half: Floats, other_corners: Floats) -> Floats:
    """(q,) distances of rectangles at poses (q, 3) to others. Apart, a corner of one of them is nearest to the other.

    They are apart if one of their four side directions separates them.
    """
    corners = corners_at(poses, 2 * half[0], 2 * half[1])
    in_own, in_other = _into(poses, other_corners), _into(others, corners)
    apart = np.zeros(len(poses), np.bool_)
    for local, size in ((in_own, np.broadcast_to(half, other_half.shape)), (in_other, other_half)):
        apart |= ((local.min(axis=1) > size) | (local.max(axis=1) < -size)).any(axis=-1)
    nearest = np.minimum(
        _to_rectangle(in_own, half).min(axis=1, initial=np.inf),
        _to_rectangle(in_other, other_half[:, None]).min(axis=1, initial=np.inf),
    )
    return np.where(apart, nearest, 0.0)


def _into(poses: Floats, points: Floats) -> Floats:
    """(q, k, 2) world points in the frames of (q, 3) poses."""
    c, s = np.cos(poses[:, None, 2]), np.sin(poses[:, None, 2])
    d = points - poses[:, None, :2]
    return np.stack([c * d[..., 0] + s * d[..., 1], c * d[..., 1] - s * d[..., 0]], axis=-1)


def _to_rectangle(points: Floats, half: Floats) -> Floats:
    """(..., 2) points to distances from a rectangle about the origin; 0 inside."""
    return np.asarray(np.hypot(*np.moveaxis(np.maximum(np.abs(points) - half, 0.0), -1, 0)))


def _wall(x0: float, y0: float, x1: float, y1: float, thickness: float) -> Floats:
    begin, end = np.array([x0, y0]), np.array([x1, y1])
    along = (end - begin) / math.dist(begin, end)
    side = np.array([-along[1], along[0]]) * thickness / 2
    return np.array([end + side, begin + side, begin - side, end - side])


def _open_leaf(door: Mover) -> Floats:
    hinge, _, end = door.waypoints_m
    return _wall(*hinge, *end, (door.box_m or (0.0, 0.0))[1])
