"""The simulated robot as a Driver: time, expiry, stops, verdicts."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from robonav.errors import LinkError, RobonavError
from robonav.types import Driver, VelocityCommand
from sim.driver import SimDriver, make_driver
from sim.randomisation import RandomisationConfig

SECOND = 1_000_000_000


@pytest.fixture
def robot():
    made: list[SimDriver] = []

    def make(**options: object) -> SimDriver:
        driver = make_driver("a1", "empty", 4, **{"realtime": False, **options})
        made.append(driver)
        driver.connect()
        driver.arm()
        return driver

    yield make
    for one in made:
        one.disconnect()
        one.disconnect()


def forward(driver: SimDriver, hold_s: float, vx: float = 0.8) -> VelocityCommand:
    return driver.command(VelocityCommand(vx, 0.0, 0.0, driver.now_ns + round(hold_s * SECOND)))


def test_is_a_driver_made_by_name(robot) -> None:
    driver = robot()
    assert isinstance(driver, Driver)
    assert pickle.loads(pickle.dumps(make_driver)) is make_driver
    assert driver.scene.name == "empty-4"
    driver.read().check(driver.spec)


def test_a_command_that_expires_ramps_to_standstill(robot) -> None:
    driver = robot()
    forward(driver, 0.3)
    driver.tick(0.29)
    assert driver.read().last_command == pytest.approx([0.8, 0, 0])
    assert driver.velocity[0] == pytest.approx(0.8, abs=0.25)
    fast = driver.velocity[0]
    driver.tick(0.01)
    driver.tick(0.05)
    assert driver.read().last_command == pytest.approx([0, 0, 0])
    assert 0.0 < driver.velocity[0] < fast  # a ramp, no jump
    driver.tick(1.5)
    assert driver.velocity[0] == pytest.approx(0.0, abs=1e-3)
    path = driver.path_m
    driver.tick(1.0)
    assert driver.path_m == pytest.approx(path, abs=1e-3)


def test_one_long_tick_honours_the_deadline_inside_it(robot) -> None:
    long, short = robot(), robot()
    for driver in (long, short):
        forward(driver, 0.33)
    long.tick(1.0)
    for _ in range(100):
        short.tick(0.01)
    assert long.path_m == pytest.approx(short.path_m, abs=0.03)
    assert long.path_m < 0.45


def test_commands_are_limited_and_the_result_is_returned(robot) -> None:
    driver = robot()
    until = driver.now_ns + SECOND
    applied = driver.command(VelocityCommand(9.0, -9.0, 9.0, until))
    spec = driver.spec
    assert applied.velocity == pytest.approx([spec.vx_max_mps, -spec.vy_max_mps, spec.yaw_rate_max_radps])
    assert applied.valid_until_ns == until
    assert driver.command(VelocityCommand(-9.0, 0.0, 0.0, until)).vx_mps == pytest.approx(spec.vx_min_mps)


@pytest.mark.parametrize("velocity", [(math.nan, 0.0, 0.0), (0.5, math.inf, 0.0)])
def test_a_command_that_is_not_finite_is_standstill(robot, velocity: tuple[float, float, float]) -> None:
    driver = robot()
    applied = driver.command(VelocityCommand(*velocity, driver.now_ns + SECOND))
    assert np.array_equal(applied.velocity, np.zeros(3))


def test_a_late_command_and_an_unarmed_robot_stand(robot) -> None:
    driver = robot()
    driver.tick(1.0)
    assert driver.command(VelocityCommand(0.5, 0, 0, driver.now_ns - 1)).vx_mps == 0.0
    driver.disconnect()
    driver.connect()
    assert forward(driver, 1.0).vx_mps == 0.0
    driver.tick(0.5)
    assert driver.path_m == 0.0


def test_stops_soft_and_hard(robot) -> None:
    driver = robot()
    forward(driver, 5.0)
    driver.tick(0.8)
    driver.stop("soft")
    assert driver.velocity[0] > 0.5
    driver.tick(1.5)
    assert driver.velocity[0] == pytest.approx(0.0, abs=1e-3)
    forward(driver, 5.0)
    driver.tick(0.8)
    driver.stop("hard")
    assert driver.velocity == (0.0, 0.0, 0.0)
    path = driver.path_m
    driver.tick(0.5)
    assert driver.path_m == path
    driver.stop()
    driver.disconnect()
    driver.stop("hard")  # safe at any time


def test_collision_is_for_good(robot) -> None:
    driver = robot()
    for _ in range(200):
        forward(driver, 0.2, 1.0)
        driver.tick(0.1)
        if driver.collided:
            break
    assert driver.collided
    place = driver.read().pose_odom_base
    forward(driver, 1.0, -0.4)
    driver.tick(1.0)
    assert np.array_equal(driver.read().pose_odom_base, place)


def test_arrival(robot) -> None:
    driver = robot()
    for _ in range(400):
        seen = driver.read()
        dx, dy = seen.goal_odom_m - seen.pose_odom_base[:2]
        turn = math.atan2(dy, dx) - float(seen.pose_odom_base[2])
        turn = (turn + math.pi) % (2 * math.pi) - math.pi
        speed = 0.8 if abs(turn) < 0.4 else 0.0
        driver.command(VelocityCommand(speed, 0.0, 2.0 * turn, driver.now_ns + SECOND // 5))
        driver.tick(0.1)
        if driver.arrived:
            break
    assert driver.arrived
    assert not driver.collided
    seen = driver.read()
    assert math.dist(seen.pose_odom_base[:2], seen.goal_odom_m) <= driver.scene.goal_radius_m + 1e-5


@pytest.mark.realtime
def test_follows_the_wall_clock(robot) -> None:
    driver = robot(realtime=False)
    with pytest.raises(RobonavError, match="realtime=False"):
        live = robot(realtime=True)
        before = time.monotonic_ns()
        first = live.read()
        assert before <= first.stamp_ns <= time.monotonic_ns()
        forward(live, 0.1, 0.8)
        time.sleep(0.25)
        second = live.read()
        assert second.stamp_ns - first.stamp_ns >= SECOND // 4
        assert 0.005 < second.pose_odom_base[0] < 0.15  # it moved, and the command ended by itself
        assert second.last_command == pytest.approx([0, 0, 0])
        live.tick(0.1)
    driver.tick(0.1)


def test_a_suspended_process_finds_the_robot_where_its_command_ended(robot) -> None:
    driver = robot()
    forward(driver, 0.2)
    driver._manual_ns += 3600 * SECOND  # an hour passes without a call
    assert driver.read().stamp_ns == driver.now_ns
    assert driver.path_m < 0.3


def test_use_before_connect_is_an_error() -> None:
    driver = make_driver("a1", "empty", 0)
    for call in (driver.read, driver.arm, lambda: driver.collided):
        with pytest.raises(LinkError, match=r"connect\(\)"):
            call()


def test_depth_is_there_when_asked_for(robot) -> None:
    driver = robot(depth=True)
    image = driver.read().depth_m
    assert image is not None
    assert image.shape == (driver.spec.depth.height, driver.spec.depth.width)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(RobonavError, match="did you mean 'office'"):
        make_driver("a1", "offce", 0)
    with pytest.raises(RobonavError, match="did you mean 'go2'"):
        make_driver("go9", "office", 0)


def test_sensor_errors_and_randomisation_hold_for_the_whole_connection(robot) -> None:
    options = {"sensors": "real", "randomisation": "sim2real"}
    runs = []
    for driver in (robot(**options), robot(**options), robot()):
        seen = []
        for _ in range(8):
            forward(driver, 0.5)
            driver.tick(0.1)
            observation = driver.read()
            scan = np.zeros(1) if observation.scan_m is None else observation.scan_m
            seen.append((scan.tolist(), observation.pose_odom_base.tolist(), driver.velocity))
        runs.append(seen)
    assert runs[0] == runs[1] != runs[2]
    assert {"command_delay_s", "lag_s", "odometry_scale"} <= set(robot(**options).randomisation)
    assert robot().randomisation == {}


def test_a_hard_stop_forgets_commands_that_are_still_under_way(robot) -> None:
    driver = robot(randomisation=RandomisationConfig(command_delay_s=(0.1, 0.1)))
    forward(driver, 1.0)
    driver.tick(0.5)
    assert driver.velocity[0] > 0.4
    driver.stop("hard")
    driver.tick(0.3)
    assert driver.velocity == pytest.approx((0.0, 0.0, 0.0))


def test_the_driver_waits_for_no_compiler() -> None:
    code = (
        "import sys\nfrom sim.driver import make_driver\n"
        "driver = make_driver('a1', 'office', 0)\ndriver.connect()\ndriver.read()\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_robot_on_legs_that_falls_has_collided_and_stays(robot) -> None:
    driver = robot(fidelity="legged")
    assert driver.fidelity == "legged"
    forward(driver, 1.0, 0.5)
    driver.tick(1.0)
    assert driver.velocity[0] > 0.2
    assert not driver.collided
    driver._world.push(0.0, 0.0, roll_rate_radps=30.0)
    driver.tick(1.0)
    assert driver.collided
    place = driver.read().pose_odom_base
    forward(driver, 1.0, 0.5)
    driver.tick(1.0)
    assert np.array_equal(driver.read().pose_odom_base, place)


def test_legs_are_randomised_in_the_legged_world_alone(robot) -> None:
    legged, kinematic = (robot(fidelity=f, randomisation="sim2real").randomisation for f in ("legged", "kinematic"))
    assert {"friction", "added_mass_kg"} <= set(legged)
    assert not {"friction", "added_mass_kg"} & set(kinematic)
    with pytest.raises(RobonavError, match="fidelity: expected 'kinematic'"):
        make_driver("a1", "empty", 0, fidelity="legs")
