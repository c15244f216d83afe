"""The local planner in small worlds: a robot that follows its plans as the roll-outs say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robonav.planning.field import LocalField, no_movers
from robonav.planning.local import LocalPlanner, anybody_moves
from robonav.planning.mppi import MPPIConfig
from robonav.planning.progress import ProgressConfig
from robonav.planning.rollouts import footprint_distance_m, poses_under, velocities_under
from robonav.planning.situation import SituationTracker
from robonav.planning.surroundings import Surroundings, SurroundingsTracker
from robonav.types import RobotSpec
from tests.mapping.raycast import NO_CIRCLES, cast, observe, room

ALONE = MPPIConfig(imagination=False, samples=(5, 3, 7))
WALLS = room(-2, -4, 8, 4)


def drive(
    a1: RobotSpec, config: MPPIConfig, movers: Any, ticks: int, yaw_rad: float = 0.0, walls: Any = WALLS
) -> tuple[np.ndarray, np.ndarray]:
    """(ticks, 3) poses, and (ticks,) distances from the movers, of a drive from (0, 0) to (6, 0)."""
    tracker, tracked, planner = SituationTracker(a1), SurroundingsTracker(a1), LocalPlanner(a1, config)
    situation, surroundings, state = tracker.reset(), tracked.reset(), planner.reset(0)
    pose, twist, command = np.array([0.0, 0.0, yaw_rad]), np.zeros(3), np.zeros(3)
    poses, clear_m = [], []
    for tick in range(ticks):
        circles = movers(tick)
        seen = observe(pose, (6, 0), cast(pose, a1.lidar, walls, circles), tick * 10**8, twist)
        seen = replace(seen, last_command=command.astype(np.float32))
        situation, surroundings = tracker.update(situation, seen), tracked.update(surroundings, seen)
        found = planner.plan(state, seen, situation, surroundings)
        state, command = found.state, a1.action_to_velocity(found.action)
        velocity = velocities_under(a1, twist, command[None], 1, a1.dt_s)
        moved, turned = poses_under(velocity, a1.dt_s)
        ahead = complex(pose[0], pose[1]) + complex(moved[0, 0]) * np.exp(1j * pose[2])
        pose, twist = np.array([ahead.real, ahead.imag, pose[2] + float(turned[0, 0])]), velocity[0, 0].astype(float)
        poses.append(pose)
        at = (circles[:, 0] + 1j * circles[:, 1]).astype(np.complex64)
        here = np.array([[ahead]], np.complex64), np.array([[pose[2]]], np.float32)
        clear_m.append(float(footprint_distance_m(a1, *here, at)[0, 0]) - 0.25)
    return np.array(poses), np.array(clear_m)


def test_it_drives_to_the_goal_at_full_speed_where_nothing_stands(a1: RobotSpec) -> None:
    poses, _ = drive(a1, ALONE, lambda _: NO_CIRCLES, 70)
    assert np.abs(poses[-1, :2] - [6.0, 0.0]).max() < 0.5
    assert int(np.argmax(poses[:, 0] > 5.5)) * a1.dt_s < 5.5 / a1.vx_max_mps + 1.0
    assert np.abs(poses[:, 1]).max() < 0.3


def test_a_robot_that_looks_backwards_turns_round_before_a_long_way(a1: RobotSpec) -> None:
    """Within its plan's 2 s turning gains nothing: between walls it would drive all the way backwards."""
    between = room(-1, -0.5, 8, 0.5)
    poses, _ = drive(a1, ALONE, lambda _: NO_CIRCLES, 95, np.pi, between)
    assert np.cos(poses[40, 2]) > 0.9
    assert poses[-1, 0] > 5.5
    without = replace(ALONE, route=ProgressConfig(turn_round_weight=0.0))
    slow, _ = drive(a1, without, lambda _: NO_CIRCLES, 95, np.pi, between)
    assert np.cos(slow[60, 2]) < -0.5
    assert slow[-1, 0] < poses[-1, 0] - 1.0


def test_turning_round_waits_until_nobody_moves() -> None:
    wall = np.array([2.0 + 0j])
    assert not anybody_moves(Surroundings(wall, np.zeros(1, complex)))
    assert anybody_moves(Surroundings(np.append(wall, 3j), np.array([0, 0.4 + 0j])))
    assert not anybody_moves(Surroundings())
    field = LocalField(np.zeros((1, 1), np.float32), 1.0, no_movers(), wall.astype(np.complex64))
    assert not anybody_moves(field)
    field.movers[0, 0] = 4.0
    assert anybody_moves(field)


def test_it_lets_somebody_who_crosses_pass_without_touching_him(a1: RobotSpec) -> None:
    poses, clear_m = drive(a1, ALONE, lambda tick: np.array([[2.5, -2.5 + 0.09 * tick, 0.25]]), 75)
    assert clear_m.min() > 0.0
    assert poses[-1, 0] > 4.0


def test_it_gives_way_to_somebody_who_comes_straight_on(a1: RobotSpec) -> None:
    poses, clear_m = drive(a1, ALONE, lambda tick: np.array([[5.5 - 0.08 * tick, 0.05, 0.25]]), 75)
    assert clear_m.min() > 0.0
    assert poses[-1, 0] > 4.0


def test_terms_can_be_switched_off(a1: RobotSpec) -> None:
    def crossing(tick: int) -> np.ndarray:
        return np.array([[1.5, -1.5 + 0.09 * tick, 0.25]])

    _, clear_m = drive(a1, replace(ALONE, geometry=False, route=ProgressConfig(route_weight=2.0)), crossing, 25)
    assert clear_m.min() < 0.0  # nothing keeps it away from who crosses
    assert drive(a1, ALONE, crossing, 25)[1].min() > 0.0
    tracker, tracked = SituationTracker(a1), SurroundingsTracker(a1)
    plans: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for goal in ((6, 2), (6, -2)):
        seen = observe((0, 0, 0), goal, cast((0, 0, 0), a1.lidar, WALLS))
        situation, surroundings = tracker.update(tracker.reset(), seen), tracked.update(tracked.reset(), seen)
        for progress, found in plans.items():
            planner = LocalPlanner(a1, replace(ALONE, progress=progress))
            found.append(planner.plan(planner.reset(0), seen, situation, surroundings).actions)
    assert np.array_equal(*plans[False])  # the goal is nothing to it
    assert not np.array_equal(*plans[True])


def test_without_scan_or_route_it_stops_and_says_so(a1: RobotSpec) -> None:
    planner, tracker, tracked = LocalPlanner(a1, ALONE), SituationTracker(a1), SurroundingsTracker(a1)
    blind = observe((0, 0, 0), (6, 0), None)
    found = planner.plan(planner.reset(0), blind, tracker.update(tracker.reset(), blind), tracked.reset())
    assert found.why == "stop: no scan" and not found.action.any() and found.state.tick == 1
    seeing = observe((0, 0, 0), (6, 0), cast((0, 0, 0), a1.lidar, WALLS))
    surroundings = tracked.update(tracked.reset(), seeing)
    found = planner.plan(planner.reset(0), seeing, tracker.reset(), surroundings)
    assert found.why == "stop: no route" and not found.action.any()


@pytest.mark.parametrize("seed", [0, 1])
def test_same_observations_and_seed_same_plan(a1: RobotSpec, seed: int) -> None:
    planner, tracker, tracked = LocalPlanner(a1, ALONE), SituationTracker(a1), SurroundingsTracker(a1)
    seen = observe((0, 0, 0), (6, 0), cast((0, 0, 0), a1.lidar, WALLS, np.array([[1.5, 0.2, 0.3]])))
    situation, surroundings = tracker.update(tracker.reset(), seen), tracked.update(tracked.reset(), seen)
    plans = [planner.plan(planner.reset(seed), seen, situation, surroundings).actions for _ in range(2)]
    assert np.array_equal(*plans)
    assert np.abs(plans[0]).max() <= 1
