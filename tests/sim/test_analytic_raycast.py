"""Beams of analytic worlds against closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.config import load_robot
from robonav.types import LidarSpec, Mover, Scene
from sim.analytic.raycast import RIM_M
from sim.analytic.world import AnalyticWorld

A1 = load_robot("a1")
LIDAR = LidarSpec(beams=97, range_m=6.0, mount_x_m=0.15)
AHEAD = LidarSpec(beams=21, angle_min_rad=-0.7, fov_rad=1.4, range_m=6.0)
WORLD = AnalyticWorld(A1)
ROWS = st.floats(-4, 4), st.floats(-4, 4)
YAW = st.floats(-math.pi, math.pi)


def _scene(**shapes: object) -> Scene:
    return dataclasses.replace(Scene("test", (-9, -9, 9, 9), (0.0, 0.0, 0.0), (8.0, 8.0)), **shapes)


def _scan(scene: Scene, pose: tuple[float, float, float], lidar: LidarSpec = LIDAR) -> np.ndarray:
    WORLD.load(scene)
    WORLD.place(*pose)
    return WORLD.scan(lidar)


def _rays(pose: tuple[float, float, float], lidar: LidarSpec) -> tuple[np.ndarray, np.ndarray]:
    """Origin (2,) and directions (beams, 2) in the world."""
    x, y, yaw = pose
    angles = yaw + lidar.angles_rad
    origin = np.array((x + lidar.mount_x_m * math.cos(yaw), y + lidar.mount_x_m * math.sin(yaw)))
    return origin, np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _to_circle(pose, lidar, x, y, radius) -> np.ndarray:
    """Roots of |o + t d - c| = r."""
    origin, d = _rays(pose, lidar)
    away = origin - (x, y)
    b, c = d @ away, away @ away - radius**2
    root = np.sqrt(np.maximum(b**2 - c, 0.0))
    hit = (b**2 >= c) & (-b - root >= 0) & (c > 0)
    return np.where(hit, np.minimum(-b - root, lidar.range_m), lidar.range_m)


def _to_box(pose, lidar, x, y, length, width, yaw) -> np.ndarray:
    """The nearest of the crossings with the four sides, solved as 2 x 2 systems."""
    origin, d = _rays(pose, lidar)
    c, s = math.cos(yaw), math.sin(yaw)
    corners = np.array([(a * length / 2, b * width / 2) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))])
    corners = corners @ np.array([(c, s), (-s, c)]) + (x, y)
    best = np.full(len(d), lidar.range_m)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side, to = b - a, a - origin
        cross = d[:, 0] * side[1] - d[:, 1] * side[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (to[0] * side[1] - to[1] * side[0]) / cross
            u = (to[0] * d[:, 1] - to[1] * d[:, 0]) / cross
        best = np.where((u >= 0) & (u <= 1) & (t >= 0), np.minimum(best, t), best)
    return best


def _inside_box(pose, lidar, x, y, length, width, yaw) -> bool:
    (ox, oy), _ = _rays(pose, lidar)
    c, s = math.cos(yaw), math.sin(yaw)
    return abs(c * (ox - x) + s * (oy - y)) <= length / 2 and abs(c * (oy - y) - s * (ox - x)) <= width / 2


@given(*ROWS, st.floats(0.02, 3.0), *ROWS, YAW, st.sampled_from([LIDAR, AHEAD]))
def test_circles(x, y, radius, px, py, yaw, lidar) -> None:
    pose = (px, py, yaw)
    scene = _scene(cylinders=np.array([(x, y, radius)], np.float64))
    expected = _to_circle(pose, lidar, x, y, radius + RIM_M)
    np.testing.assert_allclose(_scan(scene, pose, lidar), expected, atol=1e-5)


@given(*ROWS, st.floats(0.02, 5.0), st.floats(0.02, 5.0), YAW, *ROWS, YAW, st.sampled_from([LIDAR, AHEAD]))
def test_turned_boxes(x, y, length, width, turn, px, py, yaw, lidar) -> None:
    pose, box = (px, py, yaw), (x, y, length, width, turn)
    scan = _scan(_scene(boxes=np.array([box], np.float64)), pose, lidar)
    if _inside_box(pose, lidar, *box):
        assert (scan == np.float32(lidar.range_m)).all()  # as in PyBullet, nothing is seen from inside
        return
    expected = _to_box(pose, lidar, *box)
    off = ~np.isclose(scan, expected, atol=1e-5)
    if off.any():  # only beams through a corner, which one rounding calls a hit and another one does not
        shrunk, grown = (_to_box(pose, lidar, x, y, length + e, width + e, turn) for e in (-1e-6, 1e-6))
        assert (np.abs(shrunk - grown)[off] > 1e-3).all()


def test_the_nearest_of_all_shapes_counts() -> None:
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(-4, 4, (12, 2)), rng.uniform(0.1, 1, (12, 2)), rng.uniform(-3, 3, 12)])
    posts = np.column_stack([rng.uniform(-4, 4, (12, 2)), rng.uniform(0.05, 0.3, 12)])
    scene = _scene(boxes=boxes, cylinders=posts)
    for pose in zip(*rng.uniform(-4, 4, (3, 40)), strict=True):
        outside = [row for row in boxes if not _inside_box(pose, LIDAR, *row)]
        parts = [_to_box(pose, LIDAR, *row) for row in outside]
        parts += [_to_circle(pose, LIDAR, x, y, r + RIM_M) for x, y, r in posts]
        np.testing.assert_allclose(_scan(scene, pose), np.min(parts, axis=0), atol=1e-5)


def test_walls_are_boxes_and_an_empty_world_is_out_of_range() -> None:
    wall = np.array([(2.0, -3.0, 2.0, 3.0, 0.2)])
    scan = _scan(_scene(walls=wall), (0.0, 0.0, 0.0), AHEAD)
    np.testing.assert_allclose(scan, 1.9 / np.cos(AHEAD.angles_rad), atol=1e-5)
    assert (_scan(_scene(), (0.0, 0.0, 0.3)) == np.float32(6.0)).all()


def test_beams_pass_over_what_is_low() -> None:
    height_m = WORLD.base_height_m + LIDAR.mount_z_m
    box = np.array([(2.0, 0.0, 1.0, 1.0, 0.0)])

    def walker(height: float) -> tuple[Mover, ...]:
        return (Mover("pedestrian", "waypoint", ((-2.0, 0.0), (-2.0, 3.0)), height_m=height),)

    low, tall = height_m - 0.01, height_m + 0.01
    for height in (low, tall):
        seen = height == tall
        ahead = _scan(_scene(boxes=box, height_m=height), (0.0, 0.0, 0.0)) < 6
        behind = _scan(_scene(movers=walker(height)), (0.0, 0.0, 0.0)) < 6
        assert ahead.any() == seen
        assert behind.any() == seen


def test_movers_are_seen_where_they_are() -> None:
    walker = Mover("pedestrian", "waypoint", ((3.0, 0.0), (3.0, 2.0)), speed_mps=1.0, radius_m=0.3)
    cart = Mover("robot", "waypoint", ((-3.0, 0.0), (-5.0, 0.0)), speed_mps=0.5, box_m=(0.6, 0.4), height_m=1.0)
    world = AnalyticWorld(A1)
    world.load(_scene(movers=(walker, cart)))
    for _ in range(10):
        state = world.mover_state
        assert state is not None
        expected = np.minimum(
            _to_circle(world.pose_world, LIDAR, state["x"][0], state["y"][0], 0.3 + RIM_M),
            _to_box(world.pose_world, LIDAR, state["x"][1], state["y"][1], 0.6, 0.4, state["yaw"][1]),
        )
        np.testing.assert_allclose(world.scan(LIDAR), expected, atol=1e-5)
        world.advance((0.3, 0.0, 0.5), 0.1)
    assert state["y"][0] == pytest.approx(1.0)
