"""A log as a driver: each observation once, in its time, and an end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recordings import observation, write_recording

from deploy import wire
from deploy.config import DeployConfig
from deploy.drivers.replayed import LogEndedError, ReplayedLogDriver
from deploy.log_reader import read_log
from deploy.report import RunReport
from deploy.supervisor import run
from robonav.errors import RobonavError
from robonav.types import VelocityCommand

TICK_NS = 100_000_000
TICKS = 30


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.mcap"
    write_recording(path, TICKS)
    return path


def replay(log: Path, **options: Any) -> tuple[ReplayedLogDriver, SimpleNamespace]:
    time = SimpleNamespace(ns=7_000_000_000)
    driver = ReplayedLogDriver(log, clock=lambda: time.ns, **options)
    driver.connect()
    return driver, time


def tick_of(driver: ReplayedLogDriver) -> int:
    return round(float(driver.read().pose_odom_base[0]) * 100)


@pytest.mark.parametrize("jitter_ns", [0, 30_000_000])
def test_a_loop_at_the_recorded_rate_gets_each_observation_once(log: Path, jitter_ns: int) -> None:
    driver, time = replay(log)
    assert tick_of(driver) == 0  # until it is armed
    driver.arm()
    begin, seen, rng = time.ns, [], np.random.default_rng(0)
    for k in range(TICKS):
        time.ns = begin + k * TICK_NS + int(rng.integers(-jitter_ns, jitter_ns + 1)) * (k > 0)
        got = driver.read()
        assert begin <= got.stamp_ns <= time.ns
        assert abs(got.stamp_ns - begin - k * TICK_NS) <= jitter_ns
        seen.append(round(float(got.pose_odom_base[0]) * 100))
    assert seen == list(range(TICKS))


def test_what_is_seen_is_what_was_recorded(log: Path) -> None:
    driver, _ = replay(log, speed=0)
    driver.arm()
    for k in range(TICKS):
        got, want = driver.read(), observation(k)
        for name in ("pose_odom_base", "twist_base", "tilt_rad", "goal_odom_m", "last_command", "scan_m"):
            assert np.array_equal(getattr(got, name), getattr(want, name)), name


def test_commands_change_nothing_that_is_seen(log: Path) -> None:
    driver, time = replay(log)
    driver.arm()
    applied = driver.command(VelocityCommand(9.0, 0.0, 0.0, time.ns + TICK_NS))
    assert applied.vx_mps == driver.spec.vx_max_mps
    time.ns += 3 * TICK_NS
    assert tick_of(driver) == 3
    assert driver.read().last_command == pytest.approx([0.1, 0, 0])


def test_faster_slower_and_as_fast_as_it_is_read(log: Path) -> None:
    for speed, elapsed, tick in ((2.0, 5, 10), (0.5, 8, 4)):
        driver, time = replay(log, speed=speed)
        driver.arm()
        time.ns += elapsed * TICK_NS
        assert tick_of(driver) == tick
        assert driver.read().stamp_ns == time.ns
    driver, time = replay(log, speed=0)
    driver.arm()
    assert [tick_of(driver) for _ in range(4)] == [0, 1, 2, 3]


def test_the_end_is_an_error_that_says_so_and_arming_begins_again(log: Path) -> None:
    for speed in (0.0, 1.0):
        driver, time = replay(log, speed=speed)
        driver.arm()
        if speed:
            time.ns += (TICKS - 1) * TICK_NS + 400_000_000
            assert tick_of(driver) == TICKS - 1
            time.ns += 200_000_000
        else:
            assert [tick_of(driver) for _ in range(TICKS)] == list(range(TICKS))
        assert driver.ended
        with pytest.raises(LogEndedError, match=r"the recording is over, 30 observations in 2\.9 s"):
            driver.read()
        driver.stop("hard")
        driver.arm()
        assert tick_of(driver) == 0


@pytest.mark.parametrize("outcome", ["success", "collision"])
def test_the_recorded_verdict_comes_at_its_time(tmp_path: Path, outcome: str) -> None:
    write_recording(tmp_path / "a.mcap", 3, outcome)
    driver, time = replay(tmp_path / "a.mcap")
    driver.arm()
    verdicts = []
    for _ in range(3):
        driver.read()
        verdicts.append((driver.arrived, driver.collided))
        time.ns += TICK_NS
    assert verdicts == [(False, False), (False, False), (outcome == "success", outcome == "collision")]


def test_what_cannot_be_replayed(log: Path, tmp_path: Path) -> None:
    with pytest.raises(RobonavError, match=r"path=a\.mcap"):
        ReplayedLogDriver()
    with pytest.raises(RobonavError, match="cannot be read"):
        ReplayedLogDriver(tmp_path / "none.mcap")
    with pytest.raises(RobonavError, match="use --robot a1"):
        ReplayedLogDriver(log, robot="go2")
    with pytest.raises(RobonavError, match=r"episode: expected one of \[1\], got 7"):
        ReplayedLogDriver(log, episode=7)
    with pytest.raises(RobonavError, match="speed"):
        ReplayedLogDriver(log, speed=-1.0)
    with pytest.raises(RobonavError, match="not connected"):
        ReplayedLogDriver(log).read()
    write_recording(tmp_path / "none.mcap", 0)
    with pytest.raises(RobonavError, match="expected observations, got none"):
        ReplayedLogDriver(tmp_path / "none.mcap")


@pytest.mark.slow
def test_a_whole_run_over_a_recorded_run(arrival: RunReport, tiny_bundle: Path, tmp_path: Path) -> None:
    """On real processes: it arrives when the recorded robot did, and its log holds what was recorded."""
    log = tmp_path / "again.mcap"
    factory = "deploy.drivers.replayed:ReplayedLogDriver"
    report = run(tiny_bundle, factory, log, driver_kwargs={"path": arrival.log}, config=DeployConfig(time_limit_s=30))
    assert report.outcome == "success"
    first, again = (read_log(path).of(wire.ObservationMsg) for path in (arrival.log, log))
    recorded = {m.pose_odom_base for m in first}
    assert {m.pose_odom_base for m in again} <= recorded
    assert len({m.pose_odom_base for m in again}) >= 0.7 * len(recorded)
    assert again[0].stamp_ns > first[-1].stamp_ns
