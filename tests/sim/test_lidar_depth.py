"""Lidar, depth camera and odometry against closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.types import LidarSpec, Scene
from sim.sensors import DepthCamera, Lidar, SensorSuite
from sim.world import World

SPEC = load_robot("a1")


@pytest.fixture
def world():
    made = World(SPEC)
    yield made
    made.close()


def scene(**changes: object) -> Scene:
    return dataclasses.replace(Scene("test", (-10, -10, 10, 10), (0.0, 0.0, 0.0), (3.0, 4.0)), **changes)


def test_distance_to_a_wall_at_any_pose(world: World) -> None:
    world.load(scene(walls=np.array([[5.05, -40, 5.05, 40, 0.1]], np.float32)))
    lidar = Lidar(SPEC.lidar)
    for x, y, yaw in ((0.0, 0.0, 0.0), (1.5, -2.0, 0.7), (4.0, 3.0, -2.4)):
        world.place(x, y, yaw)
        along = np.cos(SPEC.lidar.angles_rad + yaw)
        exact = np.where(along > 1e-6, (5.0 - x) / np.maximum(along, 1e-6), np.inf)
        assert np.allclose(lidar.scan(world), np.minimum(exact, SPEC.lidar.range_m), atol=2e-3)


def test_distance_to_a_cylinder(world: World) -> None:
    centre, radius = np.array([2.0, 1.0]), 0.4
    world.load(scene(cylinders=np.array([[*centre, radius]], np.float32)))
    scan = Lidar(SPEC.lidar).scan(world)
    angles = SPEC.lidar.angles_rad
    along = centre[0] * np.cos(angles) + centre[1] * np.sin(angles)
    across = centre[1] * np.cos(angles) - centre[0] * np.sin(angles)
    hit = (np.abs(across) < radius) & (along > 0)
    exact = along[hit] - np.sqrt(radius**2 - across[hit] ** 2)
    assert hit.sum() >= 5
    inner = np.abs(across[hit]) < 0.95 * radius  # a grazing beam is ill-conditioned
    assert np.allclose(scan[hit][inner], exact[inner], atol=5e-3)
    assert np.all(scan[~hit] == SPEC.lidar.range_m)


def test_the_robot_is_never_hit(world: World) -> None:
    world.load(scene())
    for yaw in (0.0, 1.0, 2.5):
        world.place(0.0, 0.0, yaw)
        assert np.all(Lidar(SPEC.lidar).scan(world) == SPEC.lidar.range_m)


def test_a_partial_lidar_in_front_of_the_base(world: World) -> None:
    spec = LidarSpec(beams=3, angle_min_rad=-math.pi / 2, fov_rad=math.pi, range_m=5.0, mount_x_m=0.2)
    world.load(scene(walls=np.array([[2.05, -9, 2.05, 9, 0.1]], np.float32)))
    assert Lidar(spec).scan(world) == pytest.approx([5.0, 1.8, 5.0], abs=1e-3)


@pytest.mark.parametrize("distance_m", [0.6, 1.7, 3.3])
def test_depth_of_a_block_and_the_floor(world: World, distance_m: float) -> None:
    d = SPEC.depth
    left, right = 0.37, -0.21  # the block's edges; y points to the left
    box = [d.mount_x_m + distance_m + 0.5, (left + right) / 2, 1.0, left - right, 0.0]
    world.load(scene(boxes=np.array([box], np.float32)))
    camera = DepthCamera(d, world.base_height_m)
    image = camera.image(world)
    tan = math.tan(d.fov_rad / 2)
    slope_left = (1 - 2 * (np.arange(d.width) + 0.5) / d.width) * tan
    slope_up = (1 - 2 * (np.arange(d.height) + 0.5) / d.height) * tan
    floor = np.where(slope_up < 0, camera.height_m / np.maximum(-slope_up, 1e-9), np.inf)
    across, up = slope_left * distance_m, slope_up * distance_m + camera.height_m
    covered = ((across < left) & (across > right))[None, :] & ((up > 0) & (up < 1.0))[:, None]
    exact = np.minimum(np.where(covered, distance_m, np.broadcast_to(floor[:, None], covered.shape)), d.range_m)
    wrong = ~np.isclose(image, exact, atol=0.01)
    assert image.dtype == np.float32
    assert covered.sum() > 20
    assert wrong.mean() < 0.01  # pixels whose centre falls on an edge


def test_depth_does_not_see_the_robot(world: World) -> None:
    world.load(scene())
    image = DepthCamera(SPEC.depth, world.base_height_m).image(world)
    assert image[: SPEC.depth.height // 2].min() == SPEC.depth.range_m


def test_odometry_starts_at_the_start(world: World) -> None:
    world.load(scene(start=(1.0, 2.0, math.pi / 2), goal=(1.0, 5.0)))
    sensors = SensorSuite(world, depth=False)
    first = sensors.read(5, (0.1, 0.2, 0.3))
    first.check(SPEC)
    assert first.stamp_ns == 5
    assert first.depth_m is None
    assert first.pose_odom_base == pytest.approx([0, 0, 0])
    assert first.goal_odom_m == pytest.approx([3.0, 0.0], abs=1e-6)
    assert first.last_command == pytest.approx([0.1, 0.2, 0.3])
    world.place(0.0, 2.0, math.pi)
    moved = sensors.read(6, (0.0, 0.0, 0.0))
    assert moved.pose_odom_base == pytest.approx([0.0, 1.0, math.pi / 2], abs=1e-6)
    assert moved.goal_odom_m == pytest.approx([3.0, 0.0], abs=1e-6)
