from __future__ import annotations

import numpy as np
import pytest

from robonav.errors import ConfigError
from robonav.planning.surroundings import Surroundings, SurroundingsTracker, points_ahead
from robonav.planning.sweep import SweepConfig, sweep_cost
from robonav.types import RobotSpec
from tests.mapping.raycast import NO_CIRCLES, cast, observe, room

AHEAD, STILL, BACK = (np.tile(np.array([[vx, 0.0, 0.0]]), (12, 1)) for vx in (1.0, 0.0, -1.0))


def seen(a1: RobotSpec, movers, ticks: int = 10, walls=None) -> tuple[Surroundings, object]:
    """Surroundings after `ticks` observations from the origin of movers(tick) (n, 3)."""
    tracker = SurroundingsTracker(a1)
    surroundings = tracker.reset()
    walls = room(-6, -6, 6, 6) if walls is None else walls
    for tick in range(ticks):
        observation = observe((0, 0, 0), (4, 0), cast((0, 0, 0), a1.lidar, walls, movers(tick)), tick * 10**8)
        surroundings = tracker.update(surroundings, observation)
    return surroundings, observation


def cost(a1: RobotSpec, surroundings, observation, *plans, **values) -> np.ndarray:
    return sweep_cost(np.stack(plans), observation, surroundings, a1, SweepConfig(**values))


def test_driving_at_a_wall_costs_and_the_nearer_the_more(a1: RobotSpec) -> None:
    costs = []
    for wall_x in (0.8, 1.2, 5.0):
        walls = np.concatenate([room(-6, -6, 6, 6), [[wall_x, -3, wall_x, 3]]])
        surroundings, observation = seen(a1, lambda _: NO_CIRCLES, 1, walls)
        costs.append(cost(a1, surroundings, observation, AHEAD, STILL))
    ahead, still = np.array(costs).T
    assert ahead[0] > ahead[1] > ahead[2]
    assert ahead[2] < 1e-3
    assert (still < 0.1).all() and ahead[0] > 0.3


def test_somebody_who_comes_at_the_robot_makes_standing_dearer_than_leaving(a1: RobotSpec) -> None:
    surroundings, observation = seen(a1, lambda tick: np.array([[2.4 - 0.1 * tick, 0.0, 0.25]]))
    ahead, still, back = cost(a1, surroundings, observation, AHEAD, STILL, BACK)
    assert ahead > still > back
    surroundings, observation = seen(a1, lambda _: np.array([[1.5, 0.0, 0.25]]))  # the same place, standing
    _, still, _ = cost(a1, surroundings, observation, AHEAD, STILL, BACK)
    assert still < 0.01


def test_nothing_near_costs_nothing_and_neither_does_the_unseen(a1: RobotSpec) -> None:
    surroundings, observation = seen(a1, lambda _: NO_CIRCLES, 1)
    assert np.allclose(cost(a1, surroundings, observation, AHEAD, BACK), 0, atol=1e-4)
    assert np.array_equal(cost(a1, Surroundings(), observation, AHEAD), [0.0])


def test_weights_switch_the_terms(a1: RobotSpec) -> None:
    walls = np.concatenate([room(-6, -6, 6, 6), [[0.8, -3, 0.8, 3]]])
    surroundings, observation = seen(a1, lambda _: NO_CIRCLES, 1, walls)
    both = cost(a1, surroundings, observation, AHEAD)[0]
    touch = cost(a1, surroundings, observation, AHEAD, clearance_weight=0.0)[0]
    near = cost(a1, surroundings, observation, AHEAD, collision_weight=0.0)[0]
    assert both == pytest.approx(touch + near) and touch > 0 and near > 0


def test_points_are_carried_forward_in_the_base_frame() -> None:
    surroundings = Surroundings(np.array([2 + 1j, -1 + 0j]), np.array([0 + 0.5j, 0j]))
    points = points_ahead(surroundings, np.array([1.0, 0.0, np.pi / 2]), np.array([1.0, 2.0]), 10.0)
    assert np.allclose(points[:, 0], [1.5 - 1j, 2.0 - 1j], atol=1e-6)
    assert np.allclose(points[:, 1], [2j, 2j], atol=1e-6)
    assert points_ahead(surroundings, np.zeros(3), np.array([1.0]), 0.5).shape == (1, 0)


@pytest.mark.parametrize("values", [{"margin_m": -1.0}, {"clearance_decay_m": 0.0}])
def test_bad_settings_are_refused(values) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        SweepConfig(**values)
