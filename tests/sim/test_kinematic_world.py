"""The robot's motion against closed forms, and PyBullet's verdict about contact."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import sim
from robonav.config import load_robot
from robonav.errors import SceneError
from robonav.types import RobotSpec, Scene
from sim.geodesic import footprint_clearance_m
from sim.robot import load_standing
from sim.world import SCENES_PER_RESET, World, WorldConfig

SPEC = load_robot("a1")
FREE = dataclasses.replace(SPEC, acceleration_max_mps2=1e9, yaw_acceleration_max_radps2=1e9)


def scene(**changes: object) -> Scene:
    return dataclasses.replace(Scene("test", (-10, -10, 10, 10), (0.0, 0.0, 0.0), (9.0, 9.0)), **changes)


@pytest.fixture
def world():
    made: list[World] = []

    def make(spec: RobotSpec = SPEC, config: WorldConfig | None = None, **changes: object) -> World:
        made.append(World(spec, config))
        made[-1].load(scene(**changes))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.close()


def test_velocity_lags_as_the_exponential(world) -> None:
    robot = world(FREE)
    for n in range(1, 11):
        robot.advance((0.8, -0.3, 1.0), 0.1)
        rise = 1 - math.exp(-n * 0.1 / FREE.lag_s)
        assert robot.velocity == pytest.approx((0.8 * rise, -0.3 * rise, rise))


def test_acceleration_is_limited(world) -> None:
    spec = dataclasses.replace(SPEC, acceleration_max_mps2=1.0, yaw_acceleration_max_radps2=2.0)
    robot = world(spec)
    robot.advance((1.0, 0.4, 1.5), 0.1)
    assert math.hypot(*robot.velocity[:2]) == pytest.approx(0.1)
    assert robot.velocity[1] / robot.velocity[0] == pytest.approx(0.4)
    assert robot.velocity[2] == pytest.approx(0.2)


def test_steady_turn_is_a_circle(world) -> None:
    spec = dataclasses.replace(FREE, lag_s=0.0)
    robot = world(spec)
    for _ in range(40):
        robot.advance((0.5, 0.0, 1.0), 0.1)
    radius, angle = 0.5, 4.0
    assert robot.pose_world == pytest.approx(
        (radius * math.sin(angle), radius * (1 - math.cos(angle)), angle), abs=1e-3
    )
    assert robot.path_m == pytest.approx(2.0)


def test_sideways_and_backwards_follow_the_heading(world) -> None:
    robot = world(dataclasses.replace(FREE, lag_s=0.0), start=(1.0, 2.0, math.pi / 2))
    robot.advance((-0.4, 0.2, 0.0), 1.0)
    assert robot.pose_world == pytest.approx((1.0 - 0.2, 2.0 - 0.4, math.pi / 2))


@pytest.mark.parametrize("body", ["footprint", "links"])
def test_contact_stops_the_robot_at_the_wall(world, body: str) -> None:
    wall = np.array([[2.0, -3, 2.0, 3, 0.1]], np.float32)
    robot = world(SPEC, WorldConfig(body=body), walls=wall)
    ticks = 0
    while not robot.advance((1.0, 0.0, 0.0), 0.1):
        ticks += 1
        assert ticks < 40
    front = SPEC.length_m / 2 if body == "footprint" else 0.217  # of the standing robot's shoulders
    # One substep at full speed is the deepest that it can get.
    assert 1.95 - front - 0.005 <= robot.x_m <= 1.95 - front + 0.03
    assert robot.velocity == (0.0, 0.0, 0.0)
    assert robot.clearance_m == 0.0
    pose = robot.pose_world
    assert robot.advance((-0.4, 0.0, 0.0), 0.1)
    assert robot.pose_world == pose


def test_turning_into_a_post_is_contact(world) -> None:
    # The post stands clear of the robot's side, inside the circle of its corners.
    post = np.array([[0.0, 0.31, 0.05]], np.float32)
    robot = world(SPEC, cylinders=post)
    assert not robot.collided
    assert robot.clearance_m == pytest.approx(0.31 - 0.05 - SPEC.width_m / 2, abs=2e-3)
    assert any(robot.advance((0.0, 0.0, 1.5), 0.1) for _ in range(30))


def test_clearance_and_contact_agree_with_geometry(world) -> None:
    source = sim.load_scene("rooms", SPEC)
    robot = world()
    rng = np.random.default_rng(0)
    touched = 0
    for seed in range(12):
        room = source.scene(seed)
        robot.load(room)
        for _ in range(25):
            pose = (*rng.uniform(-4, 4, 2), rng.uniform(-math.pi, math.pi))
            robot.place(*pose)
            exact = footprint_clearance_m(room, pose, SPEC)  # sampled: up to 2 cm too large at corners
            touched += robot.collided
            if exact > 0.02:
                assert robot.clearance_m == pytest.approx(min(exact, 1.0), abs=0.02)
                assert not robot.collided
            elif exact == 0.0:
                assert robot.collided
    assert 10 < touched < 200


def test_scenes_do_not_leak_into_each_other(world) -> None:
    robot = world(SPEC, cylinders=np.array([[1.0, 0.0, 0.2]], np.float32))
    near = robot.clearance_m
    for _ in range(SCENES_PER_RESET + 5):  # past the point at which the client starts afresh
        robot.load(scene(cylinders=np.array([[0.0, 3.0, 0.2]], np.float32)))
        assert robot.clearance_m == 1.0
    robot.load(scene(cylinders=np.array([[1.0, 0.0, 0.2]], np.float32)))
    assert robot.clearance_m == near == pytest.approx(1.0 - 0.2 - SPEC.length_m / 2, abs=1e-3)


def test_more_obstacles_than_one_body_holds(world) -> None:
    posts = np.array([[3.0, 0.5 * i, 0.1] for i in range(-20, 21)], np.float32)
    robot = world(SPEC, cylinders=posts)
    for post in posts:
        robot.place(post[0] - (SPEC.length_m / 2 + 0.1 + 0.05), post[1], 0.0)
        assert robot.clearance_m == pytest.approx(0.05, abs=2e-3)


def test_a_missing_urdf_is_one_clear_line(world) -> None:
    robot = world()
    with pytest.raises(SceneError, match=r"nothing\.urdf"):
        load_standing(robot.bullet, robot.client, dataclasses.replace(SPEC, urdf="nothing.urdf"))
