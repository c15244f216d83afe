"""Distances that movers need, compiled: to boxes, cylinders, door leaves and the zones that those sweep.

No fast-math here: a sum whose order depended on the padding or on the batch would end the bit-for-bit reproducibility.
After a change here delete ``sim/__pycache__/mover_kernels*.nb*``: numba's cache looks at a function's own file only.
A box is (x, y, half length, half width, cos yaw, sin yaw). Distances are signed: negative inside.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]
FAR_M = 1e9


@njit(cache=True, nogil=True)
def wrapped(angle_rad: float) -> float:
    """An angle in [-pi, pi)."""
    return (angle_rad + math.pi) % (2.0 * math.pi) - math.pi


@njit(cache=True, nogil=True)
def box_gap(
    px: float, py: float, x: float, y: float, half_l: float, half_w: float, c: float, s: float
) -> tuple[float, float, float]:
    """(distance of a point to a box, and the unit vector away from it), inside towards the nearest side."""
    dx, dy = px - x, py - y
    u, v = c * dx + s * dy, c * dy - s * dx
    su = 1.0 if u >= 0.0 else -1.0
    sv = 1.0 if v >= 0.0 else -1.0
    out_u, out_v = abs(u) - half_l, abs(v) - half_w
    if out_u <= 0.0 and out_v <= 0.0:
        if out_u > out_v:
            return out_u, c * su, s * su
        return out_v, -s * sv, c * sv
    out_u, out_v = max(out_u, 0.0), max(out_v, 0.0)
    d = math.sqrt(out_u * out_u + out_v * out_v)
    nu, nv = su * out_u / d, sv * out_v / d
    return d, c * nu - s * nv, s * nu + c * nv


@njit(cache=True, nogil=True)
def disc_gap(px: float, py: float, x: float, y: float, radius: float) -> tuple[float, float, float]:
    """(distance of a point to a disc, and the unit vector away from it)."""
    dx, dy = px - x, py - y
    r = math.sqrt(dx * dx + dy * dy)
    if r < 1e-9:
        return -radius, 1.0, 0.0
    return r - radius, dx / r, dy / r


@njit(cache=True, nogil=True)
def segment_gap(px: float, py: float, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float]:
    """(distance of a point to a segment, and the unit vector away from it)."""
    ex, ey = x1 - x0, y1 - y0
    square = ex * ex + ey * ey
    t = 0.0 if square < 1e-18 else min(max(((px - x0) * ex + (py - y0) * ey) / square, 0.0), 1.0)
    return disc_gap(px, py, x0 + t * ex, y0 + t * ey, 0.0)


@njit(cache=True, nogil=True)
def sector_gap(
    px: float, py: float, x: float, y: float, radius: float, begin_rad: float, turn_rad: float
) -> tuple[float, float, float]:
    """(distance of a point to a sector about (x, y) from `begin_rad` over `turn_rad`, vector away); 0 inside."""
    dx, dy = px - x, py - y
    r = math.sqrt(dx * dx + dy * dy)
    turned = wrapped(math.atan2(dy, dx) - begin_rad)
    if turn_rad < 0.0:
        turned = -turned
    if 0.0 <= turned <= abs(turn_rad) and r > 1e-9:
        return max(r - radius, 0.0), dx / r, dy / r
    end_rad = begin_rad + turn_rad
    a = segment_gap(px, py, x, y, x + radius * math.cos(begin_rad), y + radius * math.sin(begin_rad))
    b = segment_gap(px, py, x, y, x + radius * math.cos(end_rad), y + radius * math.sin(end_rad))
    return a if a[0] <= b[0] else b


@njit(cache=True, nogil=True)
def static_gap(
    boxes: Array, cylinders: Array, bounds_m: Array, px: float, py: float, limit_m: float
) -> tuple[float, float, float]:
    """(distance to the nearest box (S, 6), cylinder (C, 3) or edge of the map, vector away); `limit_m` if further."""
    best, nx, ny = limit_m, 0.0, 0.0
    for i in range(boxes.shape[0]):
        x, y, half_l, half_w = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        reach = max(best + half_l + half_w, 0.0)  # at least the circumscribed radius
        dx, dy = px - x, py - y
        if dx * dx + dy * dy < reach * reach:
            gap, gx, gy = box_gap(px, py, x, y, half_l, half_w, boxes[i, 4], boxes[i, 5])
            if gap < best:
                best, nx, ny = gap, gx, gy
    for i in range(cylinders.shape[0]):
        x, y, radius = cylinders[i, 0], cylinders[i, 1], cylinders[i, 2]
        reach = max(best + radius, 0.0)
        dx, dy = px - x, py - y
        if dx * dx + dy * dy < reach * reach:
            gap, gx, gy = disc_gap(px, py, x, y, radius)
            if gap < best:
                best, nx, ny = gap, gx, gy
    if px - bounds_m[0] < best:
        best, nx, ny = px - bounds_m[0], 1.0, 0.0
    if py - bounds_m[1] < best:
        best, nx, ny = py - bounds_m[1], 0.0, 1.0
    if bounds_m[2] - px < best:
        best, nx, ny = bounds_m[2] - px, -1.0, 0.0
    if bounds_m[3] - py < best:
        best, nx, ny = bounds_m[3] - py, 0.0, -1.0
    return best, nx, ny


@njit(cache=True, nogil=True)
def robot_gap(robot: Array, px: float, py: float) -> float:
    """Distance of a point to the robot's footprint; far where there is no robot."""
    if robot[6] <= 0.0:
        return FAR_M
    return box_gap(px, py, robot[0], robot[1], robot[6], robot[7], math.cos(robot[2]), math.sin(robot[2]))[0]


@njit(cache=True, nogil=True)
def swing_rad(way: Array) -> float:
    """Angle from the closed to the open place of a hinged door (hinge, end when closed, end when open)."""
    closed = math.atan2(way[1, 1] - way[0, 1], way[1, 0] - way[0, 0])
    return wrapped(math.atan2(way[2, 1] - way[0, 1], way[2, 0] - way[0, 0]) - closed)


@njit(cache=True, nogil=True)
def door_zone_gap(door: Any, way: Array, px: float, py: float) -> tuple[float, float, float]:
    """(distance of a point to what a door covers on its way, vector away). `door` is a record of `sim.movers.MOVER`."""
    dx, dy = way[1, 0] - way[0, 0], way[1, 1] - way[0, 1]
    length = math.sqrt(dx * dx + dy * dy)
    if door.waypoints == 2:  # sliding: what counts is the doorway, not the wall that it slides into
        c, s = dx / length, dy / length
        return box_gap(px, py, way[0, 0], way[0, 1], door.half_length_m, door.half_width_m, c, s)
    return sector_gap(px, py, way[0, 0], way[0, 1], length, math.atan2(dy, dx), swing_rad(way))


@njit(cache=True, nogil=True)
def door_pose(door: Any, way: Array, progress: float) -> tuple[float, float, float]:
    """(x, y, yaw) of a door's leaf; progress 0 is closed, 1 open."""
    dx, dy = way[1, 0] - way[0, 0], way[1, 1] - way[0, 1]
    if door.waypoints == 2:
        return way[0, 0] + progress * dx, way[0, 1] + progress * dy, math.atan2(dy, dx)
    yaw = math.atan2(dy, dx) + progress * swing_rad(way)
    half = math.sqrt(dx * dx + dy * dy) / 2.0
    return way[0, 0] + half * math.cos(yaw), way[0, 1] + half * math.sin(yaw), yaw


@njit(cache=True, nogil=True)
def door_travel_m(door: Any, way: Array) -> float:
    """Way of a sliding leaf, or of a hinged leaf's end, from closed to open."""
    length = math.sqrt((way[1, 0] - way[0, 0]) ** 2 + (way[1, 1] - way[0, 1]) ** 2)
    return length if door.waypoints == 2 else length * abs(swing_rad(way))
