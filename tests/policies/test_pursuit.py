from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policies.pursuit import PursuitConfig, PursuitPolicy
from robonav.errors import ConfigError
from robonav.types import Policy, RobotSpec
from tests.mapping.raycast import cast, observe, room
from tests.policies.driving import WALLS, drive


@pytest.mark.parametrize("yaw", [0.0, 3.0, -1.6])
def test_it_drives_round_obstacles_to_the_goal(a1: RobotSpec, yaw: float) -> None:
    circles = np.array([[2.5, 0.1, 0.5], [4.5, -0.6, 0.4], [4.6, 1.3, 0.5], [6.3, 0.2, 0.3], [1.6, -1.7, 0.075]])
    path, whys, room_left = drive(PursuitPolicy(a1), a1, (0.0, 0.0, yaw), (8.0, 0.0), circles)
    assert np.hypot(*(path[-1, :2] - (8.0, 0.0))) < 0.3
    assert room_left > 0.0
    assert len(path) * a1.dt_s < 20.0
    assert whys.count("pursuit") > 0.7 * len(whys)


def test_it_turns_in_place_when_the_route_lies_behind(a1: RobotSpec) -> None:
    path, whys, _ = drive(PursuitPolicy(a1), a1, (4.0, 0.0, np.pi), (8.0, 0.0))
    assert whys[0] == "turn" and whys[-1] == "pursuit"
    turned = whys.index("pursuit")
    assert np.hypot(*(path[turned, :2] - path[0, :2])) < 0.1


def test_it_passes_a_gap_not_much_wider_than_itself(a1: RobotSpec) -> None:
    gap_m = 0.62
    bars = np.array([[4.0, -3.0, 4.0, -gap_m / 2], [4.0, gap_m / 2, 4.0, 3.0]])
    path, _, room_left = drive(PursuitPolicy(a1), a1, (0.0, 1.5, 0.5), (8.0, 0.0), walls=np.concatenate([WALLS, bars]))
    assert np.hypot(*(path[-1, :2] - (8.0, 0.0))) < 0.3 and room_left > 0.0


def test_it_stops_and_says_why(a1: RobotSpec) -> None:
    policy, blind = PursuitPolicy(a1), observe((0, 0, 0), (3, 0), None)
    assert isinstance(policy, Policy)
    state, decision = policy.act(policy.reset(0), blind)
    assert decision.why == "stop: no scan" and not decision.command.velocity.any()
    _, decision = policy.act(state, observe((3, 0, 0), (3, 0.05), cast((3, 0, 0), a1.lidar, WALLS)))
    assert decision.why == "stop: at the goal" and not decision.command.velocity.any()
    cell = room(-0.6, -0.6, 0.6, 0.6)  # shut in, the goal outside
    state = policy.reset(0)
    for _ in range(10):
        state, decision = policy.act(state, observe((0, 0, 0), (3, 0), cast((0, 0, 0), a1.lidar, cell)))
    assert decision.why == "stop: no route" and not decision.command.velocity.any()


def test_it_does_not_drive_into_what_suddenly_stands_ahead(a1: RobotSpec) -> None:
    # the only way to the goal is shut 0.6 m before the robot's nose while it runs at full speed
    hall = room(-1.0, -0.8, 9.0, 0.8)
    open_path, _, _ = drive(PursuitPolicy(a1), a1, (0.0, 0.0, 0.0), (8.0, 0.0), walls=hall, limit_s=3.0)
    front = open_path[-1, 0] + a1.length_m / 2
    assert open_path[-1, 0] > 1.5
    shut = np.concatenate([hall, [[front + 0.6, -0.8, front + 0.6, 0.8]]])
    path, whys, room_left = drive(
        PursuitPolicy(a1), a1, (0.0, 0.0, 0.0), (8.0, 0.0), walls=hall, limit_s=8.0, later=(30, shut)
    )
    assert room_left > 0.0
    assert np.abs(path[-10:] - path[-1]).max() < 0.05 and whys[-1].startswith("stop")


def test_obstacles_stay_where_they_were_when_a_scan_is_missing(a1: RobotSpec) -> None:
    policy, goal = PursuitPolicy(a1), (8.0, 0.0)
    block = np.concatenate([WALLS, [[1.0, -1.0, 1.0, 1.0]]])
    state, _ = policy.act(policy.reset(0), observe((0, 0, 0), goal, cast((0, 0, 0), a1.lidar, block)))
    _, decision = policy.act(state, observe((0.6, 0, 0), goal, None))
    assert decision.command.vx_mps < 0.2


def test_same_observations_give_the_same_decisions(a1: RobotSpec) -> None:
    circles = np.array([[2.5, 0.1, 0.5]])
    (one, why_one, _), (two, why_two, _) = (
        drive(PursuitPolicy(a1), a1, (0, 0, 1.0), (6.0, 0.0), circles, limit_s=6) for _ in range(2)
    )
    assert np.array_equal(one, two) and why_one == why_two


def test_it_obeys_the_limits_of_a_slower_robot(a1: RobotSpec) -> None:
    slow = dataclasses.replace(a1, vx_max_mps=0.4, vx_min_mps=0.0, vy_max_mps=0.0, yaw_rate_max_radps=0.6)
    policy = PursuitPolicy(slow)
    state = policy.reset(0)
    for yaw in np.linspace(-3, 3, 25):
        state, decision = policy.act(state, observe((0, 0, yaw), (8, 0), cast((0, 0, yaw), slow.lidar, WALLS)))
        vx, vy, rate = decision.command.velocity
        assert 0 <= vx <= 0.4 and vy == 0 and abs(rate) <= 0.6 + 1e-9


def test_bad_settings_are_refused() -> None:
    for values in ({"lookaheads_m": ()}, {"creep_margin_m": 0.2}, {"creep_mps": 0.0}):
        with pytest.raises(ConfigError):
            PursuitConfig(**values)
