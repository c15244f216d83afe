"""The walking robot among obstacles: tracking, contact, falls, pushes, ground and masses, determinism, memory."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.types import Mover, RobotSpec, Scene
from sim.legged import LeggedWorld
from sim.randomisation import LegsDraw
from sim.walker import CONTROL_S, LeggedConfig
from sim.world import SCENES_PER_RESET

SPEC = load_robot("a1")
FREE = Scene("free", (-50.0, -50.0, 50.0, 50.0), (0.0, 0.0, 0.0), (40.0, 40.0))


@pytest.fixture
def world():
    made: list[LeggedWorld] = []

    def make(spec: RobotSpec = SPEC, config: LeggedConfig | None = None, scene: Scene = FREE) -> LeggedWorld:
        made.append(LeggedWorld(spec, config))
        made[-1].load(scene)
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.close()


def walk(robot: LeggedWorld, command: tuple[float, float, float], seconds: float) -> bool:
    return any(robot.advance(command, 0.1) for _ in range(round(seconds * 10)))


@pytest.mark.parametrize("command", [(0.6, 0.0, 0.0), (-0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.4, 0.0, 0.8)])
def test_a_command_is_reached_within_three_seconds(world, command: tuple[float, float, float]) -> None:
    """The bounds of the long benchmark, 0.1 m/s and 0.15 rad/s, over the last of 3 s."""
    robot = world()
    assert not walk(robot, command, 2.0)
    seen = []
    for _ in range(10):
        x, y, yaw = robot.pose_world
        assert not robot.advance(command, 0.1)
        c, s = math.cos(yaw), math.sin(yaw)
        dx, dy = robot.x_m - x, robot.y_m - y
        seen.append(((c * dx + s * dy) / 0.1, (c * dy - s * dx) / 0.1, (robot.yaw_rad - yaw) / 0.1))
    vx, vy, yaw_rate = np.mean(seen, axis=0) - command
    assert math.hypot(vx, vy) < 0.1
    assert abs(yaw_rate) < 0.15
    assert robot.velocity == pytest.approx(command, abs=0.15)  # what odometry says
    assert math.hypot(*robot.tilt_rad) < 0.15


def test_without_a_command_it_stands_on_all_four(world) -> None:
    robot = world(scene=dataclasses.replace(FREE, start=(1.0, -2.0, 2.5)))
    assert robot.pose_world == pytest.approx((1.0, -2.0, 2.5))
    assert not walk(robot, (0.0, 0.0, 0.0), 1.0)
    assert robot.feet_down == (True, True, True, True)
    assert robot.pose_world == pytest.approx((1.0, -2.0, 2.5), abs=0.02)
    assert robot.base_height_m == pytest.approx(SPEC.legs.stance_height_m, abs=0.02)


def test_it_stops_when_the_command_does(world) -> None:
    robot = world()
    walk(robot, (0.8, 0.0, 0.0), 1.5)
    assert robot.velocity[0] > 0.6
    walk(robot, (0.0, 0.0, 0.0), 1.0)
    at = robot.pose_world
    walk(robot, (0.0, 0.0, 0.0), 0.5)
    assert robot.pose_world == pytest.approx(at, abs=0.02)
    assert robot.feet_down == (True, True, True, True)


def test_diagonal_feet_step_together(world) -> None:
    robot = world()
    walk(robot, (0.5, 0.0, 0.0), 0.5)
    seen = set()
    for _ in range(60):
        robot.advance((0.5, 0.0, 0.0), CONTROL_S)
        seen.add(robot.feet_down)
    assert {(True, False, False, True), (False, True, True, False)} <= seen
    assert (True, True, False, False) not in seen


def test_time_goes_in_whole_control_steps_and_none_is_lost(world) -> None:
    a, b = world(), world()
    for _ in range(16):
        a.advance((0.5, 0.0, 0.0), 0.1)
    for _ in range(32):
        b.advance((0.5, 0.0, 0.0), 0.05)
    assert a.pose_world == b.pose_world
    assert a.path_m == b.path_m


def test_a_wall_is_a_collision_and_stops_it(world) -> None:
    robot = world(scene=dataclasses.replace(FREE, walls=np.array([[1.2, -3, 1.2, 3, 0.1]], np.float32)))
    assert robot.clearance_m > 0.5
    assert walk(robot, (0.8, 0.0, 0.0), 3.0)
    assert robot.collided
    assert not robot.fallen
    assert robot.velocity == (0.0, 0.0, 0.0)
    assert robot.clearance_m == 0.0
    assert 1.15 - 0.45 < robot.x_m < 1.15 - 0.2  # its nose or a front foot
    pose = robot.pose_world
    assert robot.advance((-0.4, 0.0, 0.0), 0.1)
    assert robot.pose_world == pose
    robot.load(FREE)
    assert not robot.collided
    assert robot.clearance_m == 1.0


def test_somebody_runs_into_the_standing_robot(world) -> None:
    mover = Mover("pedestrian", "waypoint", ((2.0, 0.0), (-2.0, 0.0)), speed_mps=1.5, ignores_robot=True)
    robot = world(scene=dataclasses.replace(FREE, movers=(mover,)))
    assert walk(robot, (0.0, 0.0, 0.0), 3.0)
    assert robot.collided


def test_a_hard_kick_is_a_fall_and_it_is_told(world) -> None:
    robot = world()
    walk(robot, (0.3, 0.0, 0.0), 0.5)
    robot.push(0.0, 3.0, roll_rate_radps=-12.0)
    assert walk(robot, (0.3, 0.0, 0.0), 2.0)
    assert robot.fallen
    assert not robot.collided
    assert robot.velocity == (0.0, 0.0, 0.0)
    pose = robot.pose_world
    assert robot.advance((0.3, 0.0, 0.0), 0.1)
    assert robot.pose_world == pose
    robot.load(FREE)
    assert not robot.fallen
    assert not walk(robot, (0.3, 0.0, 0.0), 0.5)


def test_a_push_moves_it_and_is_borne(world) -> None:
    robot = world()
    robot.push(0.0, 0.8)
    assert not walk(robot, (0.0, 0.0, 0.0), 1.5)
    assert abs(robot.y_m) > 0.03
    assert math.hypot(*robot.tilt_rad) < 0.1


def after(robot: LeggedWorld, legs: LegsDraw, command: tuple[float, float, float], seconds: float = 1.5):
    robot.vary(legs, 5)
    robot.load(FREE)
    walk(robot, command, seconds)
    return robot.pose_world, robot.base_height_m, robot.fallen


def test_randomisation_of_legs_has_effect(world) -> None:
    robot, ahead = world(), (0.8, 0.0, 0.0)
    plain = after(robot, LegsDraw(), ahead)
    ice = after(robot, LegsDraw(friction=0.05), ahead)
    assert ice[0][0] < plain[0][0] - 0.1 or ice[2]  # slips
    heavy = after(robot, LegsDraw(added_mass_kg=6.0), (0.0, 0.0, 0.0))
    light = after(robot, LegsDraw(added_mass_kg=-1.0), (0.0, 0.0, 0.0))
    assert heavy[1] < light[1] - 0.001  # sinks into its springs
    assert after(robot, LegsDraw(motor_strength=0.05), ahead)[2]  # too weak to stand
    tilted = after(robot, LegsDraw(centre_of_mass_m=(0.08, 0.0, 0.0)), (0.0, 0.0, 0.0))
    assert tilted[:2] != after(robot, LegsDraw(), (0.0, 0.0, 0.0))[:2]
    pushed = after(robot, LegsDraw(push_mps=0.6, push_period_s=0.5), ahead)
    assert abs(pushed[0][1] - plain[0][1]) > 0.02 or abs(pushed[0][0] - plain[0][0]) > 0.02
    assert after(robot, LegsDraw(), ahead) == plain  # nothing of it stays


def test_conditions_that_cannot_be_are_refused(world) -> None:
    with pytest.raises(ConfigError, match="friction"):
        LeggedConfig(friction=-0.1)
    with pytest.raises(ConfigError, match="motor_strength: expected a number above 0"):
        LeggedConfig(motor_strength=0.0)
    robot = world()
    robot.vary(LegsDraw(added_mass_kg=-50.0))
    with pytest.raises(ConfigError, match="payload_kg: expected above"):
        robot.load(FREE)


DIGEST = """
import numpy as np
from tests.sim.test_legged_world import episode_digest
print(episode_digest())
"""


def episode_digest() -> str:
    """Of the poses of an episode with pushes, ramps and somebody who walks."""
    robot = LeggedWorld(SPEC)
    mover = Mover("pedestrian", "bouncing", ((3.0, 2.0), (0.0, 2.0)), speed_mps=0.8)
    ramp = np.array([[1.6, 0.0, 0.8, 2.0, 0.0, 0.05]], np.float32)
    scene = dataclasses.replace(FREE, bounds_m=(-4.0, -4.0, 4.0, 4.0), movers=(mover,), ramps=ramp)
    rows = []
    try:
        for seed in (3, 4):  # the second episode of a world as well
            robot.vary(LegsDraw(friction=0.7, added_mass_kg=1.0, push_mps=0.5, push_period_s=0.6), seed)
            robot.load(scene)
            for tick in range(15):
                robot.advance((0.6, 0.1, 0.5 * math.sin(tick)), 0.1)
                rows.append((*robot.pose_world, *robot.tilt_rad, robot.clearance_m))
    finally:
        robot.close()
    return hashlib.sha256(np.array(rows).tobytes()).hexdigest()


def test_the_same_seed_is_the_same_episode_in_another_process(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIGEST], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == episode_digest()


def test_an_episode_does_not_depend_on_those_before_it(world) -> None:
    used, fresh = world(), world()
    walk(used, (0.5, 0.2, 1.0), 1.0)
    used.push(1.0, 1.0)
    walk(used, (0.5, 0.2, 1.0), 0.3)
    for robot in (used, fresh):
        robot.load(FREE)
        walk(robot, (0.7, 0.0, -0.5), 1.0)
    assert used.pose_world == fresh.pose_world
    assert used.path_m == fresh.path_m


def resident_kb() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def resets(robot: LeggedWorld, count: int) -> None:
    posts = np.array([[3.0, y, 0.1] for y in range(-3, 4)], np.float32)
    ramp = np.array([[2.0, 0.0, 0.8, 2.0, 0.0, 0.05]], np.float32)
    scenes = [FREE, dataclasses.replace(FREE, cylinders=posts, ramps=ramp)]
    for n in range(count):
        robot.load(scenes[n % 2])
        robot.advance((0.5, 0.0, 0.0), CONTROL_S)


def check_resets(robot: LeggedWorld, count: int, most_kb: int) -> None:
    p = robot.bullet
    resets(robot, 60)  # caches fill
    free = p.connect(p.DIRECT)  # the first number that no client has
    p.disconnect(physicsClientId=free)
    before_kb = resident_kb()
    resets(robot, count)
    assert resident_kb() - before_kb < most_kb
    again = p.connect(p.DIRECT)
    p.disconnect(physicsClientId=again)
    assert again == free


def test_resets_leave_no_clients_and_little_memory(world) -> None:
    check_resets(world(), SCENES_PER_RESET + 20, 8_000)


@pytest.mark.slow
def test_two_thousand_resets_leave_no_clients_and_little_memory(world) -> None:
    """About 40 s on a quiet core."""
    check_resets(world(), 2000, 12_000)
