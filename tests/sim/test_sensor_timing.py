"""Rate, latency and loss of readings, tick by tick."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.types import Scene
from sim.sensor_config import ContactErrors, DepthErrors, ImuErrors, LidarErrors, OdometryErrors, SensorConfig
from sim.sensor_timing import Channel
from sim.sensors import SensorSuite
from sim.world import World

TICK_S = 0.1


def heard(ticks: int, seed: int = 0, **timing: object) -> list[int | None]:
    """What the robot has at each tick, of a sensor whose reading is the number of the tick."""
    channel: Channel[int] = Channel(np.random.default_rng(seed), TICK_S, **timing)  # type: ignore[arg-type]
    out = []
    for k in range(ticks):
        now_ns = round(k * TICK_S * 1e9)
        if channel.due(now_ns):
            channel.send(now_ns, k)
        out.append(channel.receive(now_ns))
    return out


def test_a_fast_sensor_without_delay_is_this_very_tick() -> None:
    assert heard(4) == [0, 1, 2, 3]
    assert heard(4, rate_hz=100.0) == [0, 1, 2, 3]
    assert Channel(np.random.default_rng(0), TICK_S).immediate


def test_a_slow_sensor_holds_its_reading_or_has_none() -> None:
    assert heard(7, rate_hz=5.0) == [0, 0, 2, 2, 4, 4, 6]
    assert heard(5, rate_hz=5.0, between="absent") == [0, None, 2, None, 4]


def test_a_rate_that_is_no_divisor_keeps_its_average() -> None:
    got = heard(300, rate_hz=4.0, between="absent")
    assert sum(x is not None for x in got) == pytest.approx(120, abs=1)


@pytest.mark.parametrize(
    ("latency_s", "late"), [(0.0, 0), (0.04, 0), (0.05, 1), (0.07, 1), (0.1, 1), (0.15, 2), (0.26, 3)]
)
def test_latency_is_rounded_to_ticks(latency_s: float, late: int) -> None:
    got = heard(12, latency_s=latency_s)
    assert got == [max(k - late, 0) for k in range(12)]  # at first there is what was measured first


def test_latency_and_rate_add_up() -> None:
    assert heard(8, rate_hz=5.0, latency_s=0.1) == [0, 0, 0, 2, 2, 4, 4, 6]
    assert heard(8, rate_hz=5.0, latency_s=0.1, between="absent") == [0, 0, None, 2, None, 4, None, 6]


def test_lost_frames_have_their_share_and_follow_the_seed() -> None:
    got = heard(4000, dropped=0.2, between="absent")
    assert np.mean([x is None for x in got]) == pytest.approx(0.2, abs=0.02)
    assert got == heard(4000, dropped=0.2, between="absent")
    assert got != heard(4000, seed=1, dropped=0.2, between="absent")
    held = heard(4000, dropped=0.2)
    assert None not in held
    assert np.mean(np.diff(held) == 0) == pytest.approx(0.2, abs=0.02)


def test_each_sensor_has_its_own_rate_and_latency() -> None:
    """The robot drives towards a wall: each reading tells when it was taken."""
    spec = load_robot("a1")
    world = World(spec)
    wall = np.array([[6.0, -9, 6.0, 9, 0.1]], np.float32)
    world.load(Scene("test", (-10, -10, 10, 10), (0.0, 0.0, 0.0), (5.0, 0.0), walls=wall))
    config = SensorConfig(
        lidar=LidarErrors(rate_hz=5.0, between="hold"),
        depth=DepthErrors(latency_s=0.2),
        imu=ImuErrors(rate_hz=2.0, noise_rad=0.1),
        odometry=OdometryErrors(latency_s=0.1),
        contact=ContactErrors(missing=False, latency_s=0.3),
    )
    suite = SensorSuite(world, True, config)
    ahead = int(np.argmin(np.abs(spec.lidar.angles_rad)))
    rows = []
    for k in range(9):
        world.place(0.1 * k, 0.0, 0.0)
        seen = suite.read(k * 100_000_000, (0.0, 0.0, 0.0))
        assert seen.scan_m is not None
        assert seen.depth_m is not None
        lidar_x = 5.95 - spec.lidar.mount_x_m - float(seen.scan_m[ahead])
        depth_x = 5.95 - spec.depth.mount_x_m - float(seen.depth_m[spec.depth.height // 2 - 1, spec.depth.width // 2])
        rows.append([lidar_x, depth_x, float(seen.pose_odom_base[0]), float(seen.tilt_rad[0])])
    world.close()
    lidar, depth, odometry, tilt = np.array(rows).T
    assert lidar == pytest.approx([0, 0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8], abs=0.01)
    # beyond the camera's range it shows the range: what counts are the ticks at which it is nearer
    near = 5.95 - spec.depth.mount_x_m - spec.depth.range_m
    assert depth == pytest.approx([max(0.1 * max(k - 2, 0), near) for k in range(9)], abs=0.03)
    assert odometry == pytest.approx([0.1 * max(k - 1, 0) for k in range(9)], abs=1e-6)
    assert len(set(tilt.tolist())) == 2
    assert len(set(tilt[:5].tolist())) == 1


def test_held_readings_go_out_as_copies() -> None:
    spec = dataclasses.replace(load_robot("a1"))
    world = World(spec)
    world.load(Scene("test", (-10, -10, 10, 10), (0.0, 0.0, 0.0), (5.0, 0.0)))
    suite = SensorSuite(world, False, SensorConfig(lidar=LidarErrors(rate_hz=1.0, between="hold")))
    first = suite.read(0, (0.0, 0.0, 0.0)).scan_m
    assert first is not None
    first[:] = -1.0
    second = suite.read(100_000_000, (0.0, 0.0, 0.0)).scan_m
    world.close()
    assert second is not None
    assert second.min() > 0.0
