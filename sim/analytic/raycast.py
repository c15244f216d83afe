"""Beams of a planar lidar against boxes, cylinders and movers, compiled.

The broad phase goes by angle: a shape is tried only with the beams between its outermost corners, as seen from the
sensor, and not at all beyond the range. A room's 128 beams then take some 300 tests instead of 128 a shape.
"""

from __future__ import annotations

import math

import numpy as np

from sim.analytic.bits import Array
from sim.analytic.jit import inner
from sim.analytic.shapes import Shapes

TURN = 2.0 * math.pi
RIM_M = 0.0008  # PyBullet casts a convex shape: its rays still hit what passes a cylinder by 0.5 to 1.0 mm
SLACK_BEAMS = 1e-6  # rounding must not lose a beam that grazes a corner


@inner
def _beams(
    begin_rad: float, span_rad: float, first_rad: float, step_rad: float, count: int, part: int
) -> tuple[int, int]:
    """First and last beam within a span of directions; `part` 1 is what of it lies a turn earlier."""
    begin = (begin_rad - first_rad) % TURN - TURN * part
    low = math.ceil(begin / step_rad - SLACK_BEAMS)
    high = math.floor((begin + span_rad) / step_rad + SLACK_BEAMS)
    return max(low, 0), min(high, count - 1)


@inner
def _try_box(row: Array, x: float, y: float, rays: Array, first_rad: float, step_rad: float, ranges: Array) -> None:
    """Shortens the beams that meet a box. From inside of one nothing is hit, as in PyBullet."""
    dx, dy = x - row[0], y - row[1]
    half_l, half_w, c, s = row[2], row[3], row[4], row[5]
    u, v = c * dx + s * dy, c * dy - s * dx  # the sensor in the box's frame
    au, av = abs(u), abs(v)
    if au <= half_l and av <= half_w:
        return
    out_u, out_v = max(au - half_l, 0.0), max(av - half_w, 0.0)
    longest = ranges[len(ranges) - 1]
    if out_u * out_u + out_v * out_v >= longest * longest:
        return
    # the two corners at the rim, for a sensor in the first quadrant, then mirrored back
    pu, pv = -half_l, half_w if av > half_w else -half_w
    if av <= half_w:
        pu = half_l
    qu, qv = half_l, half_w if au <= half_l or av <= half_w else -half_w
    su, sv = 1.0 if u >= 0.0 else -1.0, 1.0 if v >= 0.0 else -1.0
    pu, pv, qu, qv = su * pu - u, sv * pv - v, su * qu - u, sv * qv - v
    begin = math.atan2(s * pu + c * pv, c * pu - s * pv)
    span = math.atan2(pu * qv - pv * qu, pu * qu + pv * qv)
    if span < 0.0:
        begin, span = begin + span, -span
    count = len(rays)
    for part in range(2):
        low, high = _beams(begin, span, first_rad, step_rad, count, part)
        for i in range(low, high + 1):
            du, dv = c * rays[i, 0] + s * rays[i, 1], c * rays[i, 1] - s * rays[i, 0]
            tu, tv = 1.0 / du, 1.0 / dv
            u0, u1, v0, v1 = (-half_l - u) * tu, (half_l - u) * tu, (-half_w - v) * tv, (half_w - v) * tv
            near = max(min(u0, u1), min(v0, v1))
            if 0.0 <= near <= min(max(u0, u1), max(v0, v1)) and near < ranges[i]:
                ranges[i] = near


@inner
def _try_disc(
    dx: float, dy: float, radius: float, rays: Array, first_rad: float, step_rad: float, ranges: Array
) -> None:
    """Shortens the beams that meet a disc whose centre is (dx, dy) away from the sensor."""
    squared = dx * dx + dy * dy
    longest = ranges[len(ranges) - 1]
    if squared <= radius * radius or squared >= (longest + radius) ** 2:
        return
    half = math.asin(radius / math.sqrt(squared))
    begin = math.atan2(dy, dx) - half
    rest = squared - radius * radius
    for part in range(2):
        low, high = _beams(begin, 2.0 * half, first_rad, step_rad, len(rays), part)
        for i in range(low, high + 1):
            along = dx * rays[i, 0] + dy * rays[i, 1]
            inside = along * along - rest
            if inside >= 0.0 and along > 0.0:
                near = along - math.sqrt(inside)
                if near < ranges[i]:
                    ranges[i] = near


@inner
def cast(
    shapes: Shapes,
    b: int,
    pose: Array,
    beams: Array,
    mount_x_m: float,
    height_m: float,
    first_rad: float,
    step_rad: float,
    range_m: float,
    rays: Array,
    ranges: Array,
    out: Array,
) -> None:
    """Writes world b's scan (beams,) float32 from a pose of the base; the range's limit where nothing is hit.

    Args:
        beams: (beams, 2) directions in base.
        height_m: of the lidar above the floor.
        first_rad: direction of the first beam, in base.
        step_rad: between two beams.
        rays: (beams, 2) work space.
        ranges: (beams + 1,) work space.
    """
    c, s = math.cos(pose[2]), math.sin(pose[2])
    x, y = pose[0] + mount_x_m * c, pose[1] + mount_x_m * s
    count = len(beams)
    for i in range(count):
        rays[i, 0], rays[i, 1] = beams[i, 0] * c - beams[i, 1] * s, beams[i, 0] * s + beams[i, 1] * c
        ranges[i] = range_m
    ranges[count] = range_m
    first_rad += pose[2]
    if shapes.height_m[b] >= height_m:
        for i in range(shapes.box_count[b]):
            _try_box(shapes.boxes[b, i], x, y, rays, first_rad, step_rad, ranges)
        for i in range(shapes.cylinder_count[b]):
            row = shapes.cylinders[b, i]
            _try_disc(row[0] - x, row[1] - y, row[2] + RIM_M, rays, first_rad, step_rad, ranges)
    for i in range(shapes.mover_count[b]):
        row = shapes.movers[b, i]
        if shapes.mover_height_m[b, i] < height_m:
            continue
        if row[3] > 0.0:
            _try_box(row, x, y, rays, first_rad, step_rad, ranges)
        elif row[2] > 0.0:
            _try_disc(row[0] - x, row[1] - y, row[2] + RIM_M, rays, first_rad, step_rad, ranges)
    for i in range(count):
        out[i] = np.float32(ranges[i])
