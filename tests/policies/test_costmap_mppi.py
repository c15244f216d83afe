from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policies.costmap_mppi import CostmapMppiConfig, CostmapMppiPolicy
from robonav.errors import ConfigError
from robonav.types import Policy, RobotSpec
from tests.mapping.raycast import cast, observe, room
from tests.policies.driving import WALLS, drive

QUICK = CostmapMppiConfig(batch_size=300, time_steps=40, vx_std_mps=0.4)


def test_it_drives_round_an_obstacle_to_the_goal(a1: RobotSpec) -> None:
    circles = np.array([[2.2, 0.1, 0.5], [3.8, -0.9, 0.4]])
    path, _, room_left = drive(CostmapMppiPolicy(a1, QUICK), a1, (0.0, 0.0, 0.0), (5.0, 0.0), circles)
    assert np.hypot(*(path[-1, :2] - (5.0, 0.0))) < 0.3
    assert room_left > 0.0


def test_it_stops_and_says_why(a1: RobotSpec) -> None:
    policy = CostmapMppiPolicy(a1, QUICK)
    assert isinstance(policy, Policy)
    state, decision = policy.act(policy.reset(0), observe((0, 0, 0), (3, 0), None))
    assert decision.why == "stop: no scan" and not decision.command.velocity.any()
    cell = room(-0.6, -0.6, 0.6, 0.6)
    for _ in range(10):
        state, decision = policy.act(state, observe((0, 0, 0), (3, 0), cast((0, 0, 0), a1.lidar, cell)))
    assert decision.why == "stop: no route" and not decision.command.velocity.any()


def test_the_seed_decides_and_the_limits_hold(a1: RobotSpec) -> None:
    slow = dataclasses.replace(a1, vx_max_mps=0.4, vx_min_mps=0.0, vy_max_mps=0.0, yaw_rate_max_radps=0.6)
    policy = CostmapMppiPolicy(slow, QUICK)

    def commands(seed: int):
        state, found = policy.reset(seed), []
        for tick in range(4):
            scan = cast((0, 0, 0.4), slow.lidar, WALLS)
            state, decision = policy.act(state, observe((0, 0, 0.4), (8, 0), scan, tick * 10**8))
            found.append(decision.command.velocity)
        return np.array(found)

    one = commands(1)
    assert np.array_equal(one, commands(1)) and not np.array_equal(one, commands(2))
    assert (one[:, 0] >= 0).all() and (one[:, 0] <= 0.4).all()
    assert not one[:, 1].any() and (np.abs(one[:, 2]) <= 0.6).all()


def test_the_footprint_counts_where_it_is_asked_for(a1: RobotSpec) -> None:
    """Between two posts 0.5 m apart the robot fits along its length only: its outline has to be looked at."""
    circles = np.array([[1.5, 0.3, 0.05], [1.5, -0.3, 0.05]])
    policy = CostmapMppiPolicy(a1, dataclasses.replace(QUICK, consider_footprint=True))
    situation = policy.tracker.reset()
    for tick in range(4):
        scan = cast((0, 0, 0), a1.lidar, WALLS, circles)
        situation = policy.tracker.update(situation, observe((0, 0, 0), (3, 0), scan, tick * 10**8))
    costs = policy._costs(situation, 0j)
    still = np.full((1, 4), 1.5, np.complex64)
    along = policy._obstacle_cost(costs, 0j, 1 + 0j, still, np.zeros((1, 4), np.float32))[0]
    across = policy._obstacle_cost(costs, 0j, 1 + 0j, still, np.full((1, 4), np.pi / 2, np.float32))[0]
    assert along < policy.config.collision_cost <= across


@pytest.mark.parametrize("values", [{"batch_size": 0}, {"temperature": 0.0}, {"path_align_weight": -1.0}])
def test_bad_settings_are_refused(values) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        CostmapMppiConfig(**values)
