from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robonav.errors import ConfigError
from robonav.planning.rollouts import poses_under, velocities_under
from robonav.planning.surroundings import (
    BODY_M,
    Surroundings,
    SurroundingsTracker,
    blocked_s,
    points_ahead,
    still_and_moving,
)
from robonav.planning.sweep import Sweep, SweepConfig, sweep
from robonav.types import Observation, RobotSpec
from tests.mapping.raycast import NO_CIRCLES, cast, observe, room

AHEAD, STILL, BACK = (np.tile(np.array([[vx, 0.0, 0.0]]), (12, 1)) for vx in (1.0, 0.0, -1.0))
OPEN = observe((0, 0, 0), (4, 0), None)


def seen(a1: RobotSpec, movers, ticks: int = 10, walls=None) -> tuple[Surroundings, Observation]:
    """Surroundings after `ticks` observations from the origin of movers(tick) (n, 3)."""
    tracker = SurroundingsTracker(a1)
    surroundings = tracker.reset()
    walls = room(-6, -6, 6, 6) if walls is None else walls
    for tick in range(ticks):
        observation = observe((0, 0, 0), (4, 0), cast((0, 0, 0), a1.lidar, walls, movers(tick)), tick * 10**8)
        surroundings = tracker.update(surroundings, observation)
    return surroundings, observation


def swept(a1: RobotSpec, surroundings: Surroundings, observation: Observation, *plans, **values) -> Sweep:
    return sweep(np.stack(plans), observation, surroundings, a1, SweepConfig(**values))


def with_wall(a1: RobotSpec, wall_x: float) -> tuple[Surroundings, Observation]:
    return seen(a1, lambda _: NO_CIRCLES, 1, np.concatenate([room(-6, -6, 6, 6), [[wall_x, -3, wall_x, 3]]]))


def test_driving_at_a_wall_costs_and_the_nearer_the_more(a1: RobotSpec) -> None:
    ahead, still = np.array([swept(a1, *with_wall(a1, x), AHEAD, STILL).cost for x in (0.8, 1.2, 5.0)]).T
    assert ahead[0] > ahead[1] > ahead[2]
    assert ahead[2] < 1e-3
    assert (still < 0.1).all() and ahead[0] > 0.3


def test_the_first_touch_is_when_the_footprint_gets_there(a1: RobotSpec) -> None:
    surroundings, observation = with_wall(a1, 1.2)
    found = swept(a1, surroundings, observation, AHEAD, STILL)
    dt_s = np.concatenate([np.full(12, 0.1), np.full(4, 0.2)])
    assert np.allclose(np.diff(found.time_s, prepend=0.0), dt_s)
    commands = np.concatenate([AHEAD, np.repeat(AHEAD[-1:], 4, axis=0)])[None] * [a1.vx_max_mps, 1.0, 1.0]
    positions, _ = poses_under(velocities_under(a1, np.zeros(3), commands, 16, dt_s), dt_s)
    assert np.allclose(positions, found.positions[:1])
    gap_m = 1.2 - positions[0].real - a1.length_m / 2
    assert found.free.tolist() == [int(np.argmax(gap_m < 0.05)), 16]


def test_somebody_who_comes_at_the_robot_makes_standing_dearer_than_leaving(a1: RobotSpec) -> None:
    surroundings, observation = seen(a1, lambda tick: np.array([[2.4 - 0.1 * tick, 0.0, 0.25]]))
    ahead, still, back = swept(a1, surroundings, observation, AHEAD, STILL, BACK).cost
    assert ahead > still > back
    surroundings, observation = seen(a1, lambda _: np.array([[1.5, 0.0, 0.25]]))  # the same place, standing
    assert swept(a1, surroundings, observation, STILL).cost[0] < 0.05


def test_what_cannot_be_braked_is_forbidden_and_standing_still_is_not(a1: RobotSpec) -> None:
    close = Surroundings(np.array([0.31 + 0.06 + 0.05j]), np.zeros(1, complex))  # 6 cm ahead of the footprint
    ahead, still, back = swept(a1, close, OPEN, AHEAD, STILL, BACK, clearance_weight=0.0).cost
    assert ahead > 10
    assert still == 0 and back == 0
    slow = swept(a1, close._replace(points_m=np.array([1.2 + 0j])), OPEN, AHEAD, clearance_weight=0.0).cost[0]
    assert 0 < slow < 2  # there is time to brake


def test_whatever_leads_away_is_welcome_where_it_is_too_close_already(a1: RobotSpec) -> None:
    touching = Surroundings(np.array([0.31 + 0.02 + 0j]), np.zeros(1, complex))
    ahead, back = swept(a1, touching, OPEN, AHEAD, BACK).cost
    assert ahead > 10 > back


def test_a_margin_grows_round_what_moves_alone(a1: RobotSpec) -> None:
    beside = np.array([0.0 + 0.5j])  # 0.34 m from the footprint
    for velocity, growth, touched in ((1e-6, 0.2, True), (1e-6, 0.0, False), (0.0, 0.2, False)):
        surroundings = Surroundings(beside, np.array([velocity + 0j]))
        assert (swept(a1, surroundings, OPEN, STILL, growth_mps=growth).free[0] < 16) == touched


def test_following_somebody_closely_costs_since_he_may_stop_or_turn_back(a1: RobotSpec) -> None:
    ahead_of_it = Surroundings(np.array([0.31 + 0.35 + 0j]), np.array([1.0 + 0j]))  # as fast as the robot, 0.35 m ahead
    moving = replace(OPEN, twist_base=np.array([1.0, 0.0, 0.0], np.float32))
    none, stops, turns, both = (
        swept(
            a1,
            ahead_of_it,
            moving,
            AHEAD,
            STILL,
            clearance_weight=0.0,
            stop_weight=stop,
            turn_weight=turn,
            risk_weight=0.0,
        ).cost
        for stop, turn in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    )
    assert none.tolist() == [0.0, 0.0]
    assert 0.5 < stops[0] < turns[0] < 1.0
    assert stops[1] == 0 and turns[1] <= turns[0]
    assert np.allclose(both, stops + turns)


def test_passing_somebody_costs_since_he_may_swerve_to_either_side(a1: RobotSpec) -> None:
    """He walks the other way, so stopping or turning back would keep him out of the way; the sides are alike."""
    for side in (1, -1):
        beside = Surroundings(np.array([0.5 + side * 0.9j]), np.array([-1.0 + 0j]))
        moving = replace(OPEN, twist_base=np.array([1.0, 0.0, 0.0], np.float32))
        none, swerves, twice = (
            swept(a1, beside, moving, AHEAD, BACK, stop_weight=0.0, turn_weight=0.0, swerve_weight=weight).cost
            for weight in (0.0, 1.0, 2.0)
        )
        assert 0.1 < swerves[0] - none[0] < 1.0  # one of both sides meets it, within the second
        assert np.allclose(twice - none, 2 * (swerves - none))


def test_the_risk_of_passing_somebody_is_that_of_the_closest_shave(a1: RobotSpec) -> None:
    """A point goes past a robot that stands, 0.34 m from its side: the price has a closed form at each instant."""
    beside = Surroundings(np.array([0.8 + 0.5j]), np.array([-1.0 + 0j]))
    dials = {"clearance_weight": 0.0, "stop_weight": 0.0, "turn_weight": 0.0, "margin_m": 0.0}
    found = swept(a1, beside, OPEN, STILL, risk_weight=3.0, risk_m=0.1, risk_mps=0.15, **dials)
    ahead_m = np.maximum(np.abs(0.8 - found.time_s) - a1.length_m / 2, 0.0)
    apart_m = np.hypot(ahead_m, 0.5 - a1.width_m / 2)
    at_once = np.exp(-apart_m / (0.1 + 0.15 * found.time_s)) * (1 - found.time_s / found.time_s[-1])
    assert found.cost[0] == pytest.approx(3.0 * at_once.max(), rel=1e-4)
    assert swept(a1, beside, OPEN, STILL, risk_weight=0.0, **dials).cost[0] == 0.0
    standing = Surroundings(np.array([0.0 + 0.5j]), np.array([0.0 + 0j]))
    assert swept(a1, standing, OPEN, STILL, risk_weight=3.0, **dials).cost[0] == 0.0  # what stands is no risk
    with pytest.raises(ConfigError, match="risk_m"):
        SweepConfig(risk_m=0.0)


def test_doubts_without_weight_are_not_looked_at() -> None:
    assert SweepConfig(stop_weight=0.0, turn_weight=0.0, swerve_weight=0.0).doubts == ()
    assert SweepConfig(stop_weight=0.1, turn_weight=0.2, swerve_weight=0.3).doubts == (
        (0, 0.1), (-1, 0.2), (1j, 0.3), (-1j, 0.3),
    )  # fmt: skip


def test_nothing_near_costs_nothing_and_neither_does_the_unseen(a1: RobotSpec) -> None:
    surroundings, observation = seen(a1, lambda _: NO_CIRCLES, 1)
    assert np.allclose(swept(a1, surroundings, observation, AHEAD, BACK).cost, 0, atol=1e-4)
    assert np.array_equal(swept(a1, Surroundings(), observation, AHEAD).cost, [0.0])


def test_weights_switch_the_terms(a1: RobotSpec) -> None:
    both, touch, near, none = (
        swept(a1, *with_wall(a1, 0.8), AHEAD, **values).cost[0]
        for values in (
            {"forbidden": 0.0},
            {"forbidden": 0.0, "clearance_weight": 0.0},
            {"forbidden": 0.0, "collision_weight": 0.0},
            {"forbidden": 0.0, "collision_weight": 0.0, "clearance_weight": 0.0},
        )
    )
    assert both == pytest.approx(touch + near) and touch > 0 and near > 0
    assert none == 0


def test_points_are_carried_forward_in_the_base_frame() -> None:
    surroundings = Surroundings(np.array([2 + 1j, -1 + 0j]), np.array([0 + 0.5j, 0j]))
    pose, times = np.array([1.0, 0.0, np.pi / 2]), np.array([1.0, 2.0])
    points = points_ahead(surroundings, pose, times, 10.0)
    assert np.allclose(points[:, 0], [1.5 - 1j, 2.0 - 1j], atol=1e-6)
    assert np.allclose(points[:, 1], [2j, 2j], atol=1e-6)
    assert points_ahead(surroundings, np.zeros(3), np.array([1.0]), 0.5).shape == (1, 0)
    around = still_and_moving(surroundings, pose, times, 10.0)
    assert np.allclose(around.still, [2j], atol=1e-6)
    assert np.allclose(around.now, [1 - 1j], atol=1e-6)
    assert np.allclose(around.ahead, [[1.5 - 1j], [2.0 - 1j]], atol=1e-6)
    assert np.allclose(around.velocity, [0.5], atol=1e-6)
    near = still_and_moving(surroundings, pose, times, 1.9)  # the mover is within reach at first
    assert near.still.shape == (0,) and near.ahead.shape == (2, 1)
    nobody = still_and_moving(Surroundings(), pose, times, 9.0)
    assert [part.shape for part in nobody] == [(0,), (0,), (2, 0), (0,)]


def test_nobody_walks_through_what_stands_in_his_way() -> None:
    """He who comes to a wall at (2, 0) stops there with his body before it; he who passes beside a post does not."""
    wall = 2.0 + 1j * np.linspace(-1, 1, 41)
    walker, other = np.array([1.0 + 0.05j, 1.0 - 0.05j]), np.array([1.0 + 3j])
    points = np.concatenate([walker, other, wall, [1.5 + 3.3j]])
    velocity = np.concatenate([[0.5, 0.5], [0.5 + 1e-6j], np.zeros(42)])
    surroundings, times = Surroundings(points, velocity), np.array([1.0, 2.0, 4.0])
    free = still_and_moving(surroundings, np.zeros(3), times, 10.0)
    held = still_and_moving(surroundings, np.zeros(3), times, 10.0, walls=True)
    assert np.allclose(free.ahead[:, 0].real, [1.5, 2.0, 3.0], atol=1e-5)
    stop = 2.0 - BODY_M
    assert np.allclose(held.ahead[:, :2].real, [[1.5] * 2, [stop] * 2, [stop] * 2], atol=1e-2)
    assert np.allclose(held.ahead[:, 2], free.ahead[:, 2])  # 0.3 m beside the post
    assert np.array_equal(held.velocity, free.velocity) and np.array_equal(held.now, free.now)


def test_time_until_something_is_in_the_way() -> None:
    still = np.array([3.0 + 0j, 3.0 + 0.2j, -1.0 + 0j, 0.1 + 0j])
    centre, velocity = np.array([0j, 0j, 0j, 5j]), np.array([2.0 + 0j, -0.5 + 0j, 0.3j, 1.0 + 0j])
    found = blocked_s(still, centre, velocity)
    assert found[0] == pytest.approx((3.0 - BODY_M) / 2.0)  # what is at 0.1 m may be himself
    assert found[1] == pytest.approx((1.0 - BODY_M) / 0.5)
    assert np.isinf(found[2:]).all()
    assert np.isinf(blocked_s(still[:0], centre, velocity)).all()
    within = blocked_s(np.array([0.2 + 0j]), np.zeros(1, complex), np.ones(1, complex))
    assert within[0] == 0.0


def test_a_plan_into_where_a_walker_must_stop_is_dear(a1: RobotSpec) -> None:
    """He walks towards a wall on the robot's right and would be through it before the robot is there."""
    wall = 1.2 + 1.1j + np.linspace(-0.6, 0.6, 25)
    walker = 1.2 - 0.5j + 0.2 * np.exp(2j * np.pi * np.arange(8) / 8)
    surroundings = Surroundings(np.concatenate([walker, wall]), np.concatenate([np.full(8, 1.2j), np.zeros(25)]))
    plans = np.zeros((1, 12, 3), np.float32)
    plans[..., 0] = 0.55
    plans[..., 2] = 0.35
    free, held = (sweep(plans, OPEN, surroundings, a1, SweepConfig(walls=w)).cost[0] for w in (False, True))
    assert held > free + 0.1


@pytest.mark.parametrize("values", [{"margin_m": -1.0}, {"clearance_decay_m": 0.0}, {"tail_step_s": 0.0}])
def test_bad_settings_are_refused(values) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        SweepConfig(**values)
