"""Errors of the sensors against their statistics and closed forms, from seeded streams."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.types import LidarSpec, Scene
from sim.sensor_config import (
    DepthErrors,
    ImuErrors,
    LidarErrors,
    OdometryErrors,
    SensorConfig,
    load_sensors,
)
from sim.sensor_errors import Odometry, depth_with_errors, scan_with_errors, tilt_with_errors
from sim.sensors import BEAMS_MAX, DepthCamera, Lidar, SensorSuite
from sim.world import World

SPEC = load_robot("a1")
TICK_NS = 100_000_000
STILL = (0.0, 0.0, 0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def world():
    made = World(SPEC)
    yield made
    made.close()


def scene(**changes: object) -> Scene:
    return dataclasses.replace(Scene("test", (-10, -10, 10, 10), (0.0, 0.0, 0.0), (3.0, 4.0)), **changes)


# lidar


def test_noise_of_ranges_has_its_deviation_and_no_bias() -> None:
    true = np.full(40_000, 4.0, np.float32)
    got = scan_with_errors(true, 12.0, LidarErrors(noise_m=0.03, noise_share=0.01), rng())
    assert got.mean() == pytest.approx(4.0, abs=1e-3)
    assert got.std() == pytest.approx(math.hypot(0.03, 0.04), rel=0.02)


def test_where_nothing_stands_nothing_is_mismeasured() -> None:
    true = np.array([12.0, 11.99, 0.01] * 2000, np.float32)
    got = scan_with_errors(true, 12.0, LidarErrors(noise_m=0.5), rng())
    assert (got[0::3] == 12.0).all()
    assert (got[1::3] != true[1::3]).any()
    assert got.min() >= 0.0
    assert got.max() <= 12.0


def test_lost_beams_read_the_range_and_have_their_share() -> None:
    got = scan_with_errors(np.ones(20_000, np.float32), 12.0, LidarErrors(dropout=0.05), rng())
    assert set(np.unique(got).tolist()) == {1.0, 12.0}
    assert (got == 12.0).mean() == pytest.approx(0.05, abs=0.005)


def test_errors_leave_their_input_alone_and_follow_the_stream() -> None:
    true = np.linspace(0.5, 5, 128).astype(np.float32)
    before = true.copy()
    errors = LidarErrors(noise_m=0.1, dropout=0.1)
    first, second, other = (scan_with_errors(true, 12.0, errors, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(true, before)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


# depth


def test_depth_noise_grows_with_the_square_of_the_range() -> None:
    errors = DepthErrors(noise_per_m=0.004)
    for range_m in (1.0, 2.0, 4.0):
        got = depth_with_errors(np.full((200, 200), range_m, np.float32), 6.0, errors, rng())
        assert got.std() == pytest.approx(0.004 * range_m**2, rel=0.02)
    assert (depth_with_errors(np.full((8, 8), 6.0, np.float32), 6.0, errors, rng()) == 6.0).all()


@pytest.mark.parametrize("share", [0.03, 0.1, 0.4])
def test_holes_take_their_share_of_the_image(share: float) -> None:
    image = np.full((64, 64), 3.0, np.float32)
    stream = rng()
    lost = [(depth_with_errors(image, 6.0, DepthErrors(holes=share), stream) == 0).mean() for _ in range(600)]
    assert np.mean(lost) == pytest.approx(share, rel=0.15)  # discs of whole pixels, cut off at the border


def test_holes_are_patches() -> None:
    lost = depth_with_errors(np.full((64, 64), 3.0, np.float32), 6.0, DepthErrors(holes=0.1), rng(3)) == 0
    beside = lost[:, 1:] & lost[:, :-1]
    assert beside.sum() > 0.5 * lost[:, 1:].sum()  # single pixels would give a tenth


def test_edges_are_wrong_where_depth_steps_and_nowhere_else() -> None:
    image = np.full((60, 60), 4.0, np.float32)
    image[:, 30:] = 1.0
    at_step = np.zeros((60, 60), bool)
    at_step[:, 29:31] = True
    lost, flying, all_right = 0, 0, 0
    stream = rng()
    for _ in range(60):
        got = depth_with_errors(image, 6.0, DepthErrors(edges=0.6), stream)
        assert np.array_equal(got[~at_step], image[~at_step])
        edge = got[at_step]
        lost += int((edge == 0).sum())
        flying += int(((edge > 1.0) & (edge < 4.0)).sum())
        all_right += int((edge == image[at_step]).sum())
    total = lost + flying + all_right
    assert total == 60 * 120
    assert lost / total == pytest.approx(0.3, abs=0.02)
    assert flying / total == pytest.approx(0.3, abs=0.02)


def test_a_low_step_is_no_edge() -> None:
    image = np.full((20, 20), 2.0, np.float32)
    image[:, 10:] = 2.2
    assert np.array_equal(depth_with_errors(image, 6.0, DepthErrors(edges=1.0), rng()), image)


def test_the_mounts_error_turns_the_picture(world: World) -> None:
    """A wall 2 m ahead, seen by a camera that looks up or aside by some angle."""
    world.load(scene(walls=np.array([[2.25 + SPEC.depth.mount_x_m, -9, 2.25 + SPEC.depth.mount_x_m, 9, 0.5]])))
    camera = DepthCamera(SPEC.depth, world.base_height_m)
    middle = (SPEC.depth.height // 2 - 1, SPEC.depth.width // 2)
    straight = camera.image(world)[middle]
    assert straight == pytest.approx(2.0, abs=0.02)
    for roll, pitch, yaw in ((0.0, -0.2, 0.0), (0.0, 0.0, 0.3), (0.0, 0.0, -0.3)):
        camera.mount_error(roll, pitch, yaw)
        # depth along the axis: the axis meets the wall later, the pixel beside it hardly differs
        assert camera.image(world)[middle] == pytest.approx(2.0 / math.cos(math.hypot(pitch, yaw)), rel=0.02)
    camera.mount_error(0.0, 0.0, 0.0)
    assert camera.image(world)[middle] == straight


def test_the_mount_is_where_the_robot_says(world: World) -> None:
    box = scene(boxes=np.array([[2.51, 1.0, 0.02, 0.5, 0.0]], np.float32))
    world.load(box)
    for mount_y_m in (0.0, 1.0):
        spec = dataclasses.replace(SPEC.depth, mount_x_m=0.5, mount_y_m=mount_y_m)
        image = DepthCamera(spec, world.base_height_m).image(world)
        seen = image[spec.height // 2 - 1] < 5.0  # the board is 2 m ahead of the mount
        columns = np.flatnonzero(seen)
        centre = (1 - 2 * (columns.mean() + 0.5) / spec.width) * math.tan(spec.fov_rad / 2) * 2.0
        assert centre == pytest.approx(1.0 - mount_y_m, abs=0.05)
    turned = dataclasses.replace(SPEC.depth, mount_x_m=0.0, mount_yaw_rad=math.pi / 2)
    assert DepthCamera(turned, world.base_height_m).image(world)[: turned.height // 2].min() == turned.range_m


# IMU


def test_tilt_has_bias_and_noise() -> None:
    stream = rng()
    got = np.array([tilt_with_errors((0.1, -0.2), 0.02, (0.01, -0.03), stream) for _ in range(20_000)])
    assert got.mean(axis=0) == pytest.approx([0.11, -0.23], abs=1e-3)
    assert got.std(axis=0) == pytest.approx([0.02, 0.02], rel=0.03)
    assert tilt_with_errors((0.1, -0.2), 0.0, (0.0, 0.0), stream) == pytest.approx([0.1, -0.2])


# odometry


def drive(errors: OdometryErrors, poses: list[tuple[float, float, float]], seed: int = 0) -> np.ndarray:
    odometry = Odometry(errors, rng(seed))
    return np.array([odometry.pose(k * TICK_NS, pose) for k, pose in enumerate(poses)])


def test_perfect_odometry_is_the_truth_with_the_heading_wrapped() -> None:
    got = drive(OdometryErrors(), [(1.0, 2.0, 3.0), (1.0, 2.0, 4.0)])
    assert got[1] == pytest.approx([1.0, 2.0, 4.0 - 2 * math.pi])


def test_scale_measures_too_much_of_each_axis() -> None:
    errors = OdometryErrors(scale=(0.02, -0.05, 0.1))
    straight = drive(errors, [(0.1 * k, 0.0, 0.0) for k in range(51)])
    assert straight[-1] == pytest.approx([5.1, 0.0, 0.0], abs=1e-4)
    sideways = drive(errors, [(0.0, 0.1 * k, 0.0) for k in range(51)])
    assert sideways[-1] == pytest.approx([0.0, 4.75, 0.0], abs=1e-4)
    turning = drive(errors, [(0.0, 0.0, 0.02 * k) for k in range(51)])
    assert turning[-1] == pytest.approx([0.0, 0.0, 1.1], abs=1e-4)


def test_a_turn_that_is_measured_at_rest_bends_the_way_into_a_circle() -> None:
    speed, drift, seconds = 0.8, 0.05, 20.0
    got = drive(OdometryErrors(yaw_drift_radps=drift), [(0.1 * speed * k, 0.0, 0.0) for k in range(201)])
    angle = drift * seconds
    radius = speed / drift
    assert got[-1, 2] == pytest.approx(angle, abs=1e-4)
    assert got[-1, :2] == pytest.approx([radius * math.sin(angle), radius * (1 - math.cos(angle))], abs=0.1)


def test_random_errors_grow_with_the_root_of_the_way() -> None:
    errors = OdometryErrors(noise_per_m=0.02)
    ways = [(0.1 * k, 0.0, 0.0) for k in range(101)]
    ends = np.array([drive(errors, ways, seed)[[25, 100], 0] for seed in range(400)]) - [2.5, 10.0]
    assert ends.std(axis=0) == pytest.approx([0.02 * math.sqrt(2.5), 0.02 * math.sqrt(10.0)], rel=0.12)
    turns = [(0.0, 0.0, 0.05 * k) for k in range(41)]
    headings = [drive(OdometryErrors(noise_per_rad=0.03), turns, seed)[-1, 2] for seed in range(400)]
    assert np.std(headings) == pytest.approx(0.03 * math.sqrt(2.0), rel=0.12)


def test_odometry_rests_while_the_robot_does() -> None:
    errors = OdometryErrors(scale=(0.1, 0.1, 0.1), noise_per_m=0.1, noise_per_rad=0.1)
    got = drive(errors, [(1.0, 1.0, 0.5)] * 20)
    assert np.array_equal(got, np.broadcast_to(got[0], got.shape))


def test_measured_velocity_has_its_noise() -> None:
    odometry = Odometry(OdometryErrors(velocity_noise_mps=0.1, yaw_rate_noise_radps=0.2), rng())
    got = np.array([odometry.twist((0.5, -0.1, 0.3)) for _ in range(20_000)])
    assert got.mean(axis=0) == pytest.approx([0.5, -0.1, 0.3], abs=5e-3)
    assert got.std(axis=0) == pytest.approx([0.1, 0.1, 0.2], rel=0.03)


# the suite


def test_missing_sensors_are_missing_and_the_others_stay(world: World) -> None:
    world.load(scene())
    config = SensorConfig(lidar=LidarErrors(missing=True), depth=DepthErrors(missing=True), imu=ImuErrors(missing=True))
    suite = SensorSuite(world, True, config)
    seen = suite.read(0, STILL)
    assert (seen.scan_m, seen.depth_m, seen.contact) == (None, None, None)
    assert np.array_equal(seen.tilt_rad, np.zeros(2))
    assert SensorSuite(world, True).read(0, STILL).scan_m is not None


def test_contact_tells_of_the_body_and_of_the_feet(world: World) -> None:
    world.load(scene(boxes=np.array([[3.0, 0.0, 1.0, 1.0, 0.0]], np.float32)))
    suite = SensorSuite(world, False, load_sensors("real"))
    assert suite.read(0, STILL).contact.tolist() == [0, 1, 1, 1, 1]
    world.place(3.0, 0.0, 0.0)
    assert suite.read(TICK_NS, STILL).contact.tolist() == [1, 1, 1, 1, 1]


def test_the_errors_of_one_sensor_do_not_depend_on_another(world: World) -> None:
    world.load(scene(walls=np.array([[2, -4, 2, 4, 0.1]], np.float32)))
    noisy = LidarErrors(noise_m=0.05)
    suites = [
        SensorSuite(world, False, c)
        for c in (SensorConfig(lidar=noisy), SensorConfig(noisy, imu=ImuErrors(noise_rad=0.1)))
    ]
    for suite in suites:
        suite.start(7, suite.config)
    scans = [suite.read(0, STILL).scan_m for suite in suites]
    assert np.array_equal(*scans)
    suites[0].start(8, suites[0].config)
    assert not np.array_equal(suites[0].read(0, STILL).scan_m, scans[0])


# what cannot be


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (LidarSpec(beams=BEAMS_MAX + 1), f"at most {BEAMS_MAX}, PyBullet's ray batch, got {BEAMS_MAX + 1}"),
        (LidarSpec(beams=0), "lidar.beams: expected 1 or more, got 0"),
        (LidarSpec(beams=1, fov_rad=math.pi), "2 or more"),
        (LidarSpec(range_m=-1.0), "above 0"),
    ],
)
def test_beams_that_cannot_be_are_one_clear_line(spec: LidarSpec, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        Lidar(spec)
    assert "\n" not in str(error.value)


def test_as_many_beams_as_pybullet_takes_are_cast(world: World) -> None:
    world.load(scene(walls=np.array([[2.05, -40, 2.05, 40, 0.1]], np.float32)))
    scan = Lidar(LidarSpec(beams=BEAMS_MAX)).scan(world)
    assert len(scan) == BEAMS_MAX
    assert scan.min() == pytest.approx(2.0, abs=2e-3)


@pytest.mark.parametrize("changes", [{"width": 0}, {"height": -3}, {"fov_rad": math.pi}, {"range_m": 0.01}])
def test_a_camera_that_cannot_be_is_one_clear_line(changes: dict) -> None:
    with pytest.raises(ConfigError, match="depth") as error:
        DepthCamera(dataclasses.replace(SPEC.depth, **changes), 0.3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        (LidarErrors, {"noise_m": -0.1}, "noise_m"),
        (LidarErrors, {"dropout": 1.5}, "dropout"),
        (LidarErrors, {"dropped": 1.0}, "missing = true"),
        (LidarErrors, {"rate_hz": -1.0}, "rate_hz"),
        (DepthErrors, {"holes": 2.0}, "holes"),
        (DepthErrors, {"latency_s": -0.1}, "latency_s"),
        (DepthErrors, {"hole_radius_px": 0.5}, "hole_radius_px"),
        (ImuErrors, {"noise_rad": -1.0}, "noise_rad"),
        (OdometryErrors, {"scale": (-1.0, 0.0, 0.0)}, "scale"),
        (OdometryErrors, {"missing": True}, "odometry on every robot"),
        (OdometryErrors, {"noise_per_m": -0.1}, "noise_per_m"),
    ],
)
def test_errors_that_cannot_be_are_one_clear_line(config: type, arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        config(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["perfect", "real"])
def test_presets_load(name: str) -> None:
    assert load_sensors(name).lidar.missing is False


def test_an_unknown_key_of_a_file_is_named(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[lidar]\nnoize_m = 0.1\n")
    with pytest.raises(ConfigError, match="noise_m"):
        load_sensors(str(file))
