from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policies.dwa import DwaConfig, DwaPolicy
from robonav.errors import ConfigError
from robonav.types import Policy, RobotSpec
from tests.mapping.raycast import cast, observe, room
from tests.policies.driving import WALLS, drive

GOAL = (8.0, 0.0)


@pytest.mark.parametrize("yaw", [0.0, 3.0])
def test_it_drives_round_obstacles_to_the_goal(a1: RobotSpec, yaw: float) -> None:
    circles = np.array([[2.5, 0.1, 0.5], [4.5, -0.6, 0.4], [4.6, 1.3, 0.5], [6.3, 0.2, 0.3]])
    path, _, room_left = drive(DwaPolicy(a1), a1, (0.0, 0.0, yaw), GOAL, circles)
    assert np.hypot(*(path[-1, :2] - GOAL)) < 0.3
    assert room_left > 0.0
    assert len(path) * a1.dt_s < 20.0


def test_it_does_not_drive_into_what_suddenly_stands_ahead(a1: RobotSpec) -> None:
    hall = room(-1.0, -0.8, 9.0, 0.8)
    policy = DwaPolicy(a1)
    open_path, _, _ = drive(policy, a1, (0.0, 0.0, 0.0), GOAL, walls=hall, limit_s=3.0)
    front = open_path[-1, 0] + a1.length_m / 2
    assert open_path[-1, 0] > 1.5
    shut = np.concatenate([hall, [[front + 0.6, -0.8, front + 0.6, 0.8]]])
    _, _, room_left = drive(policy, a1, (0.0, 0.0, 0.0), GOAL, walls=hall, limit_s=8.0, later=(30, shut))
    assert room_left > 0.0


def test_tracking_saves_it_from_somebody_who_runs_across(a1: RobotSpec) -> None:
    def runner(tick: int):  # would meet the robot at x = 3.4
        return np.array([[3.4, 5.5 - 1.25 * 0.1 * tick, 0.3]])

    outcomes = {}
    for tracking in (False, True):
        policy = DwaPolicy(a1, DwaConfig(tracking=tracking))
        walls = room(-1.0, -8.0, 9.0, 8.0)
        path, _, outcomes[tracking] = drive(policy, a1, (0.0, 0.0, 0.0), GOAL, runner, walls, limit_s=16.0)
        if tracking:
            assert np.hypot(*(path[-1, :2] - GOAL)) < 0.3
    assert outcomes[True] > 0.1
    assert outcomes[True] > outcomes[False]


def test_it_stops_and_says_why(a1: RobotSpec) -> None:
    policy = DwaPolicy(a1)
    assert isinstance(policy, Policy)
    state, decision = policy.act(policy.reset(0), observe((0, 0, 0), (3, 0), None))
    assert decision.why == "stop: no scan" and not decision.command.velocity.any()
    cell = room(-0.6, -0.6, 0.6, 0.6)  # shut in, the goal outside
    for _ in range(10):
        state, decision = policy.act(state, observe((0, 0, 0), (3, 0), cast((0, 0, 0), a1.lidar, cell)))
    assert decision.why == "stop: no route" and not decision.command.velocity.any()


@pytest.mark.parametrize("tracking", [False, True])
def test_commands_keep_the_limits_and_can_be_reached(a1: RobotSpec, tracking: bool) -> None:
    slow = dataclasses.replace(a1, vx_max_mps=0.4, vx_min_mps=0.0, vy_max_mps=0.0, yaw_rate_max_radps=0.6)
    policy = DwaPolicy(slow, DwaConfig(tracking=tracking))
    state = policy.reset(0)
    for tick, yaw in enumerate(np.linspace(-3, 3, 13)):
        scan = cast((0, 0, yaw), slow.lidar, WALLS)
        state, decision = policy.act(state, observe((0, 0, yaw), GOAL, scan, tick * 10**8))
        vx, vy, rate = decision.command.velocity
        assert -1e-6 <= vx <= 0.4 + 1e-6 and vy == 0 and abs(rate) <= 0.6 + 1e-6


def test_without_a_scan_what_moved_moves_on(a1: RobotSpec) -> None:
    policy = DwaPolicy(a1, DwaConfig(tracking=True))
    state = policy.reset(0)
    for tick in range(10):
        circles = np.array([[2.0, -1.0 + 0.08 * tick, 0.3]])
        scan = cast((0, 0, 0), a1.lidar, WALLS, circles)
        state, _ = policy.act(state, observe((0, 0, 0), GOAL, scan, tick * 10**8))
    moved, before = np.abs(state.surroundings.velocity_mps) > 0.3, state.surroundings.points_m
    assert moved.any() and before is not None
    state, _ = policy.act(state, observe((0, 0, 0), GOAL, None, 10 * 10**8))
    assert state.surroundings.points_m is not None
    assert np.allclose((state.surroundings.points_m - before)[moved].imag, 0.08, atol=0.03)
    assert np.allclose((state.surroundings.points_m - before)[~moved], 0)


def test_same_observations_give_the_same_decisions(a1: RobotSpec) -> None:
    circles = np.array([[2.5, 0.1, 0.5]])
    config = DwaConfig(tracking=True)
    one, two = (drive(DwaPolicy(a1, config), a1, (0, 0, 1.0), (6.0, 0.0), circles, limit_s=4) for _ in range(2))
    assert np.array_equal(one[0], two[0]) and one[1] == two[1]


@pytest.mark.parametrize("values", [{"horizon_s": 0.0}, {"margin_m": -0.1}, {"samples": (0, 1, 1)}])
def test_bad_settings_are_refused(values) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        DwaConfig(**values)
