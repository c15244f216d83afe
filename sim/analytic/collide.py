"""Distance of the robot's footprint to what stands and moves, compiled.

Two convex shapes that do not overlap are closest at a corner of one of them; whether two rectangles overlap is decided
by the four directions of their sides (separating axes). Shapes further away than the nearest so far cost one distance
to the footprint's centre.
"""

from __future__ import annotations

import math

from sim.analytic.bits import Array
from sim.analytic.jit import inner
from sim.analytic.shapes import Shapes


@inner
def _to_box(x: float, y: float, half_l: float, half_w: float) -> float:
    """Squared distance of a point to a box about the origin; 0 inside."""
    u, v = max(abs(x) - half_l, 0.0), max(abs(y) - half_w, 0.0)
    return u * u + v * v


@inner
def box_distance(
    dx: float, dy: float, c: float, s: float, half_l: float, half_w: float, other_l: float, other_w: float
) -> float:
    """Distance between a box about the origin and another one; 0 if they overlap or touch.

    Args:
        dx: of the other's centre, as `dy`.
        dy: see `dx`.
        c: cosine of the other's yaw.
        s: sine of the other's yaw.
        half_l: half length of the box about the origin, as `half_w`.
        half_w: see `half_l`.
        other_l: half length of the other, as `other_w`.
        other_w: see `other_l`.
    """
    ac, az = abs(c), abs(s)
    u, v = c * dx + s * dy, c * dy - s * dx  # of this centre, less its sign, in the other's frame
    if (
        abs(dx) <= half_l + ac * other_l + az * other_w
        and abs(dy) <= half_w + az * other_l + ac * other_w
        and abs(u) <= other_l + ac * half_l + az * half_w
        and abs(v) <= other_w + az * half_l + ac * half_w
    ):
        return 0.0
    best = math.inf
    for i in range(4):
        a = 1.0 if i & 1 else -1.0
        b = 1.0 if i & 2 else -1.0
        x, y = a * other_l, b * other_w
        best = min(best, _to_box(dx + c * x - s * y, dy + s * x + c * y, half_l, half_w))
        x, y = a * half_l - dx, b * half_w - dy
        best = min(best, _to_box(c * x + s * y, c * y - s * x, other_l, other_w))
    return math.sqrt(best)


@inner
def _nearer(row: Array, x: float, y: float, c: float, s: float, half_l: float, half_w: float, best: float) -> float:
    """The smaller of `best` and the distance between the footprint at (x, y) and a box."""
    bx, by = row[0] - x, row[1] - y
    bc, bs = row[4], row[5]
    away = best + math.sqrt(half_l * half_l + half_w * half_w)
    if _to_box(bc * bx + bs * by, bc * by - bs * bx, row[2], row[3]) >= away * away:
        return best
    turned_c, turned_s = bc * c + bs * s, bs * c - bc * s
    gap = box_distance(c * bx + s * by, c * by - s * bx, turned_c, turned_s, half_l, half_w, row[2], row[3])
    return min(best, gap)


@inner
def clearance(
    shapes: Shapes, b: int, x: float, y: float, yaw: float, half_l: float, half_w: float, range_m: float
) -> float:
    """Distance from the footprint at a pose to the nearest shape of world b; `range_m` if further, 0 in contact."""
    best = range_m
    c, s = math.cos(yaw), math.sin(yaw)
    for i in range(shapes.box_count[b]):
        best = _nearer(shapes.boxes[b, i], x, y, c, s, half_l, half_w, best)
    for i in range(shapes.cylinder_count[b]):
        dx, dy = shapes.cylinders[b, i, 0] - x, shapes.cylinders[b, i, 1] - y
        gap = math.sqrt(_to_box(c * dx + s * dy, c * dy - s * dx, half_l, half_w)) - shapes.cylinders[b, i, 2]
        best = min(best, gap)
    for i in range(shapes.mover_count[b]):
        row = shapes.movers[b, i]
        if row[3] > 0.0:
            best = _nearer(row, x, y, c, s, half_l, half_w, best)
        elif row[2] > 0.0:
            dx, dy = row[0] - x, row[1] - y
            best = min(best, math.sqrt(_to_box(c * dx + s * dy, c * dy - s * dx, half_l, half_w)) - row[2])
    return max(best, 0.0)
