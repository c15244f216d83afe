from __future__ import annotations

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from robonav.config import from_mapping, to_mapping
from robonav.errors import ConfigError
from robonav.geometry import inverse_transform_points
from robonav.planning.routes import points_at, progress_on_route
from robonav.planning.situation import SituationConfig, SituationTracker
from robonav.types import WAYPOINT_LOOKAHEADS_M, RobotSpec, policy_input_shapes
from tests.mapping.raycast import NO_CIRCLES, cast, observe, room

WALLS = room(-1.03, -3.03, 7.03, 3.03)
GOAL = (5.5, 0.0)


def seen(spec: RobotSpec, pose, circles=NO_CIRCLES, goal=GOAL, walls=WALLS):
    return observe(pose, goal, cast(pose, spec.lidar, walls, circles))


def test_policy_input_has_the_contract_shapes_and_units(a1: RobotSpec) -> None:
    tracker, pose = SituationTracker(a1), (0.4, -0.3, 0.7)
    observation = seen(a1, pose)
    situation = tracker.update(tracker.reset(), observation)
    made = tracker.policy_input(situation, observation)
    assert {k: v.shape for k, v in made.arrays().items()} == policy_input_shapes(a1)
    assert made.local_map.dtype == np.uint8
    assert all(v.dtype == np.float32 for k, v in made.arrays().items() if k != "local_map")
    assert made.present.tolist() == [1, 1, 1, 1]
    assert np.array_equal(made.scan_m, observation.scan_m)
    assert np.allclose(made.goal_base_m, inverse_transform_points(pose, GOAL), atol=1e-5)
    assert np.array_equal(made.last_command, observation.last_command)
    assert np.array_equal(made.tilt_rad, observation.tilt_rad)
    assert made.local_map.any(axis=(1, 2)).all()
    progress = progress_on_route(situation.route_odom_m, pose)
    ahead = points_at(situation.route_odom_m, progress + np.array(WAYPOINT_LOOKAHEADS_M))
    expected = inverse_transform_points(pose, ahead)
    assert np.allclose(made.waypoints_base_m, expected, atol=0.02)
    for array in made.arrays().values():  # copies: the environment hands them out
        assert not any(np.shares_memory(array, other) for other in (observation.scan_m, observation.last_command))


def test_masks_follow_what_was_seen(a1: RobotSpec) -> None:
    tracker = SituationTracker(a1)
    blind = observe((0, 0, 0), GOAL, None)
    situation = tracker.update(tracker.reset(), blind)
    made = tracker.policy_input(situation, blind)
    assert made.present.tolist() == [0, 0, 1, 1]
    assert not made.scan_m.any() and not made.local_map.any()
    situation = tracker.update(situation, seen(a1, (0, 0, 0)))
    situation = tracker.update(situation, blind)
    made = tracker.policy_input(situation, blind)
    assert made.present.tolist() == [0, 1, 1, 1] and made.local_map.any() and not made.scan_m.any()


def test_without_a_route_the_waypoints_lie_on_the_line_to_the_goal(a1: RobotSpec) -> None:
    tracker, pose = SituationTracker(a1), (0.0, 0.0, 0.0)
    ring = np.concatenate([WALLS, room(4.02, -1.5, 6.98, 1.5)])  # the goal is walled in
    situation = tracker.reset()
    for x in np.linspace(0, 2.5, 20):
        situation = tracker.update(situation, seen(a1, (x, -2 + x, 0), goal=GOAL, walls=ring))
    for y in np.concatenate([np.linspace(0, 2.3, 15), np.linspace(2.3, -2.3, 25)]):
        situation = tracker.update(situation, seen(a1, (3.2, y, 0), walls=ring))
    for y, x in itertools.product((-2.2, 2.2), np.linspace(3.2, 6.3, 20)):
        situation = tracker.update(situation, seen(a1, (x, y, 0), walls=ring))
    for _ in range(6):
        situation = tracker.update(situation, seen(a1, pose, walls=ring))
    # the ring's far side faces the room's wall 5 cm off, so the way in is shut on all sides
    assert situation.route_odom_m is None
    made = tracker.policy_input(situation, seen(a1, pose, walls=ring))
    assert np.allclose(made.waypoints_base_m, [(d, 0.0) for d in WAYPOINT_LOOKAHEADS_M], atol=1e-5)
    assert not made.local_map[2].any()


def test_the_route_is_planned_each_period(a1: RobotSpec) -> None:
    tracker, situation, ticks = SituationTracker(a1), None, []
    situation = tracker.reset()
    for _ in range(16):
        situation = tracker.update(situation, seen(a1, (0, 0, 0)))
        ticks.append(situation.ticks_since_plan)
    assert ticks == [0, 1, 2, 3, 4] * 3 + [0]


def test_a_new_obstacle_on_the_route_is_planned_round_at_once(a1: RobotSpec) -> None:
    tracker = SituationTracker(a1, SituationConfig(replan_period_s=100.0))
    situation, pose = tracker.reset(), (0.0, 0.0, 0.0)
    for _ in range(4):
        situation = tracker.update(situation, seen(a1, pose))
    old = situation.route_odom_m
    assert situation.ticks_since_plan == 3 and np.abs(old[:, 1]).max() < 0.15
    post = np.array([[2.5, 0.0, 0.3]])
    planned = None
    for tick in range(6):  # cells that were seen free often need some hits first
        situation = tracker.update(situation, seen(a1, pose, post))
        if situation.ticks_since_plan == 0:
            planned = tick
    assert planned is not None
    from_post = np.hypot(*(situation.route_odom_m - (2.5, 0.0)).T)
    assert from_post.min() > 0.3 + a1.inner_radius_m - 0.05
    beside = tracker.update(situation, seen(a1, pose, np.concatenate([post, [[-0.5, 2.5, 0.2]]])))
    assert beside.ticks_since_plan > 0  # what stands elsewhere does not matter


def test_a_new_goal_is_planned_for_at_once(a1: RobotSpec) -> None:
    tracker = SituationTracker(a1)
    situation = tracker.update(tracker.reset(), seen(a1, (0, 0, 0)))
    situation = tracker.update(situation, seen(a1, (0, 0, 0)))
    situation = tracker.update(situation, seen(a1, (0, 0, 0), goal=(0.0, 2.0)))
    assert situation.ticks_since_plan == 0 and np.allclose(situation.route_odom_m[-1], (0.0, 2.0))


def test_the_map_may_grow_while_a_route_is_followed(a1: RobotSpec) -> None:
    hall = room(-1.03, -1.53, 40.0, 1.53)
    tracker = SituationTracker(a1, SituationConfig(replan_period_s=2.0))
    situation, goal, shapes = tracker.reset(), (30.0, 0.0), set()
    for x in np.arange(0.0, 29.0, 0.5):
        situation = tracker.update(situation, seen(a1, (x, 0.0, 0.0), goal=goal, walls=hall))
        shapes.add(situation.grid.log_odds.shape)
        assert situation.route_odom_m is not None
        assert np.allclose(situation.route_odom_m[-1], goal, atol=1e-4)
    assert len(shapes) > 1


def test_situations_are_values(a1: RobotSpec) -> None:
    """Same observations, same inputs; the one that goes in is left alone; and they survive a process boundary."""
    tracker, other = SituationTracker(a1), SituationTracker(a1)
    first = second = tracker.reset()
    post = np.array([[2.5, 0.1, 0.3]])
    for x in np.linspace(0, 1.5, 12):
        observation = seen(a1, (x, 0, 0.2), post)
        before = pickle.dumps(first)
        following = tracker.update(first, observation)
        assert pickle.dumps(first) == before
        first = pickle.loads(pickle.dumps(following))
        second = other.update(second, observation)
        a, b = tracker.policy_input(first, observation), other.policy_input(second, observation)
        for name, array in a.arrays().items():
            assert np.array_equal(array, b.arrays()[name]), name
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.mapped = False


def test_the_config_goes_through_a_mapping_and_is_checked() -> None:
    config = SituationConfig(replan_period_s=0.7)
    assert from_mapping(SituationConfig, to_mapping(config), "x") == config
    with pytest.raises(ConfigError, match="replan_period_s"):
        SituationConfig(replan_period_s=0.0)
    with pytest.raises(ConfigError, match="heuristic_weight"):
        from_mapping(SituationConfig, {"route": {"heuristic_weight": 0.0}}, "run.toml")
