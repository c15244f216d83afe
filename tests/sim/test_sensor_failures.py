"""A sensor lost in mid-run: when, which, and that nothing else changes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.types import Observation, Scene
from sim.sensor_config import FailureConfig, LidarErrors, SensorConfig, load_sensors
from sim.sensor_failures import draw_failure
from sim.sensors import SensorSuite
from sim.world import World

SPEC = load_robot("a1")
STILL = (0.0, 0.0, 0.0)
WALL = np.array([[2.0, -4.0, 2.0, 4.0, 0.1]], np.float32)


@pytest.fixture
def world():
    made = World(SPEC)
    made.load(Scene("test", (-10, -10, 10, 10), (0.0, 0.0, 0.0), (3.0, 4.0), walls=WALL))
    yield made
    made.close()


def episode(
    world: World, config: SensorConfig, seed: int = 3, ticks: int = 60
) -> tuple[SensorSuite, list[Observation]]:
    suite = SensorSuite(world, False, config, compiled=False)
    suite.start(seed, config)
    return suite, [suite.read(k * 100_000_000, STILL) for k in range(ticks)]


def failing(sensor: str, **changes: object) -> SensorConfig:
    times = {"fails_at_s": (2.0, 2.0), "fails_for_s": (1.5, 1.5)} | changes
    return SensorConfig(failure=FailureConfig(sensors=(sensor,), **times))  # type: ignore[arg-type]


def test_a_lost_lidar_gives_no_scan_for_just_that_time_and_the_pose_goes_on(world: World) -> None:
    _, seen = episode(world, failing("lidar"))
    assert [k for k, o in enumerate(seen) if o.scan_m is None] == list(range(20, 35))
    assert all(np.isfinite(o.pose_odom_base).all() for o in seen)
    _, seen = episode(world, failing("lidar", to_the_end=1.0))
    assert [k for k, o in enumerate(seen) if o.scan_m is None] == list(range(20, 60))


def test_a_lost_sector_has_beams_without_a_reading_and_the_others_are_as_before(world: World) -> None:
    width = math.pi / 2
    suite, seen = episode(world, failing("lidar-sector", sector_rad=(width, width)))
    before, during = seen[19].scan_m, seen[20].scan_m
    assert before is not None and during is not None and suite.failure is not None
    lost = during == 0.0
    assert lost.sum() == pytest.approx(SPEC.lidar.beams / 4, abs=1)
    assert np.array_equal(during[~lost], before[~lost])
    bearing = np.angle(np.exp(1j * SPEC.lidar.angles_rad[lost]).sum())
    assert abs(np.angle(np.exp(1j * (bearing - suite.failure.sector_rad[0])))) < SPEC.lidar.increment_rad
    assert np.array_equal(seen[40].scan_m, before)


def test_lost_velocities_and_tilt_read_zero(world: World) -> None:
    world.advance((0.8, 0.0, 0.5), 1.0)
    for sensor, name in (("twist", "twist_base"), ("imu", "tilt_rad")):
        _, seen = episode(world, failing(sensor))
        assert not any(getattr(o, name).any() for o in seen[20:35])
        assert all(o.scan_m is not None for o in seen)
    _, seen = episode(world, failing("twist"))
    assert seen[19].twist_base.any() and seen[35].twist_base.any()


def test_a_failure_changes_no_other_draw(world: World) -> None:
    noisy = SensorConfig(lidar=LidarErrors(noise_m=0.02, dropout=0.05, dropped=0.2))
    _, whole = episode(world, noisy)
    _, broken = episode(world, dataclasses.replace(noisy, failure=failing("imu").failure))
    for a, b in zip(whole, broken, strict=True):
        assert (a.scan_m is None) == (b.scan_m is None)
        assert a.scan_m is None or np.array_equal(a.scan_m, b.scan_m)


def test_the_draw_follows_the_seed_and_the_knobs() -> None:
    config = load_sensors("broken").failure
    drawn = [draw_failure(config, np.random.default_rng(k)) for k in range(400)]
    assert drawn[:50] == [draw_failure(config, np.random.default_rng(k)) for k in range(50)]
    assert all(d is not None for d in drawn)
    failures = [d for d in drawn if d is not None]
    assert {f.sensor for f in failures} == set(config.sensors)
    assert all(config.fails_at_s[0] <= f.begin_s <= config.fails_at_s[1] for f in failures)
    for_good = [f for f in failures if math.isinf(f.end_s)]
    assert len(for_good) / len(failures) == pytest.approx(config.to_the_end, abs=0.07)
    assert for_good[0].record()["lost_to_s"] is None
    spans = [f.end_s - f.begin_s for f in failures if math.isfinite(f.end_s)]
    assert config.fails_for_s[0] - 1e-9 <= min(spans) and max(spans) <= config.fails_for_s[1] + 1e-9
    assert draw_failure(FailureConfig(), np.random.default_rng(0)) is None


def test_who_may_lack_a_scan_says_so() -> None:
    assert load_sensors("broken").scan_may_lack
    assert not SensorConfig(failure=FailureConfig(sensors=("imu",))).scan_may_lack


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"fails_at_s": (5.0, 1.0)}, "fails_at_s: expected a range"),
        ({"fails_for_s": (-1.0, 1.0)}, "fails_for_s: expected a range"),
        ({"to_the_end": 1.5}, "to_the_end"),
        ({"sector_rad": (1.0, 7.0)}, "sector_rad: expected at most 2 pi"),
    ],
)
def test_knobs_out_of_range_are_one_clear_line(knobs: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        FailureConfig(sensors=("lidar",), **knobs)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
