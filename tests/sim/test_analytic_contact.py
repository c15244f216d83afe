"""Clearance of the footprint in analytic worlds against a plain computation on polygons."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.config import load_robot
from robonav.types import Mover, Scene
from sim.analytic.world import AnalyticWorld
from sim.world import WorldConfig

A1 = load_robot("a1")
RANGE_M = 2.0
WORLD = AnalyticWorld(A1, WorldConfig(clearance_range_m=RANGE_M))
PLACE, YAW, SIDE = st.floats(-3, 3), st.floats(-math.pi, math.pi), st.floats(0.02, 2.0)


def _scene(**shapes: object) -> Scene:
    return dataclasses.replace(Scene("test", (-9, -9, 9, 9), (0.0, 0.0, 0.0), (8.0, 8.0)), **shapes)


def _corners(x, y, length, width, yaw) -> np.ndarray:
    c, s = math.cos(yaw), math.sin(yaw)
    corners = np.array([(a * length / 2, b * width / 2) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))])
    return corners @ np.array([(c, s), (-s, c)]) + (x, y)


def _inside(polygon: np.ndarray, point: np.ndarray) -> bool:
    side, to = np.roll(polygon, -1, axis=0) - polygon, point - polygon
    return bool((side[:, 0] * to[:, 1] - side[:, 1] * to[:, 0] >= 0).all())


def _point_gap(polygon: np.ndarray, point: np.ndarray) -> float:
    if _inside(polygon, point):
        return 0.0
    side, to = np.roll(polygon, -1, axis=0) - polygon, point - polygon
    share = np.clip((side * to).sum(axis=1) / (side**2).sum(axis=1), 0, 1)
    return float(np.hypot(*(to - share[:, None] * side).T).min())


def _cross(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether sides of two polygons cross."""
    for p, q in zip(a, np.roll(a, -1, axis=0), strict=True):
        for r, s in zip(b, np.roll(b, -1, axis=0), strict=True):
            d = (q[0] - p[0]) * (s[1] - r[1]) - (q[1] - p[1]) * (s[0] - r[0])
            if d:
                t = ((r[0] - p[0]) * (s[1] - r[1]) - (r[1] - p[1]) * (s[0] - r[0])) / d
                u = ((r[0] - p[0]) * (q[1] - p[1]) - (r[1] - p[1]) * (q[0] - p[0])) / d
                if 0 <= t <= 1 and 0 <= u <= 1:
                    return True
    return False


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    if _cross(a, b):
        return 0.0
    return min(min(_point_gap(a, p) for p in b), min(_point_gap(b, p) for p in a))


def _clearance(scene: Scene, pose: tuple[float, float, float]) -> float:
    WORLD.load(scene)
    WORLD.place(*pose)
    assert WORLD.collided == (WORLD.clearance_m <= 0)
    return WORLD.clearance_m


@given(PLACE, PLACE, SIDE, SIDE, YAW, PLACE, PLACE, YAW)
def test_boxes(x, y, length, width, turn, px, py, yaw) -> None:
    footprint = _corners(px, py, A1.length_m, A1.width_m, yaw)
    expected = min(_gap(footprint, _corners(x, y, length, width, turn)), RANGE_M)
    got = _clearance(_scene(boxes=np.array([(x, y, length, width, turn)], np.float64)), (px, py, yaw))
    assert got == pytest.approx(expected, abs=1e-9)


@given(PLACE, PLACE, SIDE, PLACE, PLACE, YAW)
def test_cylinders(x, y, radius, px, py, yaw) -> None:
    footprint = _corners(px, py, A1.length_m, A1.width_m, yaw)
    expected = min(max(_point_gap(footprint, np.array((x, y))) - radius, 0.0), RANGE_M)
    got = _clearance(_scene(cylinders=np.array([(x, y, radius)], np.float64)), (px, py, yaw))
    assert got == pytest.approx(expected, abs=1e-9)


def test_the_nearest_of_all_shapes_counts() -> None:
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(-4, 4, (15, 2)), rng.uniform(0.1, 1, (15, 2)), rng.uniform(-3, 3, 15)])
    posts = np.column_stack([rng.uniform(-4, 4, (15, 2)), rng.uniform(0.05, 0.3, 15)])
    walkers = tuple(
        Mover("robot", "waypoint", ((x, y), (x + 1, y)), box_m=(0.5, 0.3)) if k % 2 else
        Mover("pedestrian", "waypoint", ((x, y), (x + 1, y)), radius_m=0.2)
        for k, (x, y) in enumerate(rng.uniform(-4, 4, (6, 2)))
    )  # fmt: skip
    scene = _scene(boxes=boxes, cylinders=posts, movers=walkers)
    touching = 0
    for pose in zip(*rng.uniform(-4, 4, (3, 60)), strict=True):
        footprint = _corners(pose[0], pose[1], A1.length_m, A1.width_m, pose[2])
        gaps = [_gap(footprint, _corners(*row)) for row in boxes]
        gaps += [_point_gap(footprint, row[:2]) - row[2] for row in posts]
        for walker in walkers:
            place = walker.waypoints_m[0]
            if walker.box_m is None:
                gaps.append(_point_gap(footprint, np.array(place)) - walker.radius_m)
            else:
                gaps.append(_gap(footprint, _corners(*place, *walker.box_m, 0.0)))
        expected = min(max(min(gaps), 0.0), RANGE_M)
        assert _clearance(scene, pose) == pytest.approx(expected, abs=1e-9)
        touching += expected == 0
    assert 5 < touching < 55


def test_contact_stops_the_robot_until_it_is_placed_anew() -> None:
    world = AnalyticWorld(A1)
    world.load(_scene(boxes=np.array([(2.0, 0.0, 0.2, 4.0, 0.0)], np.float64)))
    free_m = 2.0 - 0.1 - A1.length_m / 2
    assert world.clearance_m == pytest.approx(min(free_m, 1.0))
    while not world.advance((0.5, 0.0, 0.0), 0.1):
        assert world.clearance_m == pytest.approx(min(free_m - world.x_m, 1.0), abs=1e-6)
        assert world.x_m < 2.0
    assert world.x_m == pytest.approx(free_m, abs=0.5 * 0.025 + 1e-3)  # where a substep found the contact
    assert world.velocity == (0.0, 0.0, 0.0)
    there = world.pose_world
    assert world.advance((-0.5, 0.0, 0.0), 0.1)
    assert world.pose_world == there
    world.place(0.0, 0.0, 0.0)
    assert not world.collided
    assert not world.advance((0.5, 0.0, 0.0), 0.1)
