"""The governor's process: what it makes of observations, and how soon it stops when one side falls silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rig

from deploy import wire
from deploy.config import GovernorConfig
from deploy.governor import GovernorState, Seen
from deploy.governor_process import see
from deploy.points import points_of
from deploy.sensors import BAD_OBSERVATION, BAD_SCAN, BLIND_SCAN
from deploy.timing import now_ns
from robonav.types import Observation

CONFIG = GovernorConfig()
STATE = GovernorState.start(1)
ROBOT = rig.ROBOT


def observation(**changes: Any) -> Observation:
    fields: dict[str, Any] = {
        "stamp_ns": 5,
        "pose_odom_base": np.zeros(3, np.float32),
        "twist_base": np.array([0.1, 0.2, 0.3], np.float32),
        "tilt_rad": np.array([0.1, -0.2], np.float32),
        "goal_odom_m": np.zeros(2, np.float32),
        "last_command": np.zeros(3, np.float32),
        "scan_m": np.full(ROBOT.lidar.beams, 2.0, np.float32),
    }
    return Observation(**{**fields, **changes})


def frame(episode: int = 1, **changes: Any) -> bytes:
    return wire.encode(wire.pack_observation(observation(**changes), 1, episode))


def seen(*frames: bytes, before: Seen | None = None) -> Seen | None:
    return see(frames, ROBOT, CONFIG, STATE, before)[0]


def test_an_observation_is_seen_with_its_stamp_and_the_time_of_its_receipt() -> None:
    before = now_ns()
    found = seen(frame())
    assert found is not None
    assert before <= found.received_ns <= now_ns()
    assert (found.stamp_ns, found.tilt_rad) == (5, pytest.approx(0.2))
    np.testing.assert_allclose(found.twist_base, [0.1, 0.2, 0.3], atol=1e-7)
    assert found.points_base_m.shape == (ROBOT.lidar.beams, 2)
    np.testing.assert_allclose(np.hypot(*found.points_base_m.T), 2.0, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        b"garbage",
        frame(episode=2),
        frame(scan_m=None),
        frame(scan_m=np.zeros(7, np.float32)),
        frame(scan_m=np.full(ROBOT.lidar.beams, np.nan, np.float32)),
        frame(tilt_rad=np.full(2, np.inf, np.float32)),
        frame(twist_base=np.zeros(2, np.float32)),
        frame(depth_m=np.zeros((3, 3), np.float32)),
        wire.encode(wire.ControlMsg(sequence=0, stamp_ns=0, episode=1, state="stop")),
    ],
)
def test_what_is_no_observation_of_this_robot_leaves_the_last_to_go_stale(bad: bytes) -> None:
    assert seen(bad) is None
    last = seen(frame())
    assert seen(bad, before=last) is last


def test_the_newest_of_several_is_kept() -> None:
    found = seen(frame(), frame(stamp_ns=9), b"garbage")
    assert found is not None
    assert found.stamp_ns == 9


def test_a_robot_with_a_depth_camera_alone_sees_a_wall() -> None:
    depth = np.full((ROBOT.depth.height, ROBOT.depth.width), 0.5, np.float32)
    points = points_of(observation(scan_m=None, depth_m=depth, tilt_rad=np.zeros(2)), ROBOT, CONFIG)
    assert points.keys() == {"depth"}
    assert points["depth"].shape == (ROBOT.depth.width, 2)
    np.testing.assert_allclose(points["depth"][:, 0], ROBOT.depth.mount_x_m + 0.5)
    both = seen(frame(depth_m=depth))
    assert both is not None
    assert len(both.points_base_m) == ROBOT.depth.width + ROBOT.lidar.beams
    assert both.pictures.keys() == {"scan", "depth"}
    assert points_of(observation(scan_m=None), ROBOT, CONFIG) == {}
    # Without legs in its file, three quarters of the robot's height.
    legless = replace(ROBOT, legs=None, height_m=0.44)
    assert points_of(observation(scan_m=None, depth_m=depth), legless, CONFIG).keys() == {"depth"}


def test_what_cannot_be_is_refused_by_name() -> None:
    def refused(*frames: bytes) -> tuple[str, ...]:
        return see(frames, ROBOT, CONFIG, STATE, None)[1]

    assert refused(frame()) == ()
    assert refused(b"garbage", frame(scan_m=np.full(ROBOT.lidar.beams, np.nan))) == (BAD_OBSERVATION,) * 2
    assert refused(frame(scan_m=np.full(ROBOT.lidar.beams, -1.0))) == (BAD_SCAN,)
    assert refused(frame(scan_m=np.zeros(ROBOT.lidar.beams))) == (BLIND_SCAN,)
    assert refused(frame(episode=2), frame(scan_m=None)) == ()


@pytest.fixture
def robot() -> Iterator[rig.Rig]:
    """A governor under a navigator that asks for 0.6 m/s."""
    with rig.governor() as robot:
        robot.others.append(lambda: robot.navigate(0.6))
        assert robot.until(lambda: robot.vx_mps == 0.6)
        yield robot


def zero_after_s(robot: rig.Rig, since_ns: int) -> float:
    """When the last moving command left the governor, after `since_ns`."""
    assert robot.until(lambda: robot.vx_mps == 0.0)
    robot.run(0.3)
    assert robot.vx_mps == 0.0
    return (max(m.stamp_ns for m in robot.governed if m.vx_mps != 0.0) - since_ns) * 1e-9


TICK_S = 0.1  # the robot's


@pytest.mark.realtime
@pytest.mark.xdist_group("operators")
def test_a_silent_navigator_is_stopped_within_a_commands_life_and_a_tick(robot: rig.Rig) -> None:
    robot.others.clear()
    silent_ns = now_ns()
    assert zero_after_s(robot, silent_ns) <= CONFIG.command_life_s + TICK_S
    assert {"expired"} <= robot.reasons()


@pytest.mark.realtime
@pytest.mark.xdist_group("operators")
def test_silent_frozen_and_leaning_sensors_stop_the_robot_and_it_goes_on_after(robot: rig.Rig) -> None:
    observe, robot.observe = robot.observe, lambda: None  # type: ignore[method-assign]
    silent_ns = now_ns()
    assert zero_after_s(robot, silent_ns) <= CONFIG.observation_life_s + TICK_S
    assert "stale observation" in robot.reasons()
    robot.observe = observe  # type: ignore[method-assign]
    assert robot.until(lambda: robot.vx_mps == 0.6)
    robot.tilt_rad = 0.7
    leaned_ns = now_ns()
    assert zero_after_s(robot, leaned_ns) <= 2 * TICK_S
    assert "tilt" in robot.reasons()
    robot.tilt_rad = 0.0
    assert robot.until(lambda: robot.vx_mps == 0.6)
    robot.range_m = ROBOT.length_m / 2 + 0.05
    near_ns = now_ns()
    assert zero_after_s(robot, near_ns) <= 2 * TICK_S
    assert "stopped: obstacle" in robot.reasons()
    assert robot.counts["stale observation"] > 0
