"""Several routes: which ones are found, what they cost, and what makes them distinct."""

from __future__ import annotations

import numpy as np
import pytest

from robonav.errors import ConfigError
from robonav.mapping import OccupancyGrid, build_costmap
from robonav.mapping.costmap import Costmap
from robonav.planning.alternatives import (
    AlternativesConfig,
    Blockage,
    alternatives,
    enclosed_m2,
    lethal_at_m,
    measured,
    priced,
)
from robonav.types import RobotSpec

CELL = 0.1
START, GOAL = (1.5, 3.0), (8.5, 3.0)


def room(
    a1: RobotSpec, doors: tuple[float, ...] | None = (), post: float | None = None, door_m: float = 1.2
) -> Costmap:
    """10 x 6 m, with a wall across at x = 5 that has doors at these y, or none (None), and a post on the way."""
    log_odds = np.full((60, 100), -2.0, np.float32)
    log_odds[[0, -1]] = log_odds[:, [0, -1]] = 3.0
    if doors is not None:
        log_odds[:, 49:51] = 3.0
        for y in doors:
            log_odds[round((y - door_m / 2) / CELL) : round((y + door_m / 2) / CELL), 49:51] = -2.0
    if post is not None:
        rows, columns = np.indices(log_odds.shape)
        log_odds[np.hypot((rows + 0.5) * CELL - 3.0, (columns + 0.5) * CELL - 5.0) <= post] = 3.0
    return build_costmap(OccupancyGrid(log_odds, np.zeros(2), CELL), a1)


def crossing_y(route: np.ndarray) -> float:
    return float(np.interp(5.0, route[:, 0], route[:, 1]))


def test_two_doors_give_two_routes_and_the_nearer_one_comes_first(a1: RobotSpec) -> None:
    found = alternatives(room(a1, (2.0, 5.0)), START, GOAL)
    assert [round(crossing_y(a.route_odom_m)) for a in found] == [2, 5]
    assert found[0].length_m < found[1].length_m and found[0].cost_m < found[1].cost_m
    assert enclosed_m2(room(a1, (2.0, 5.0)), found[0].route_odom_m, found[1].route_odom_m) > 0.6


@pytest.mark.parametrize("doors", [(1.0, 3.0, 5.0), (5.0, 1.0, 3.0)])
def test_three_doors_give_three_routes(a1: RobotSpec, doors: tuple[float, ...]) -> None:
    found = alternatives(room(a1, doors), START, GOAL)
    assert sorted(round(crossing_y(a.route_odom_m)) for a in found) == [1, 3, 5]
    assert len(alternatives(room(a1, doors), START, GOAL, AlternativesConfig(routes=2))) == 2


def test_an_open_room_and_a_single_door_have_one_route_however_often_they_are_searched(a1: RobotSpec) -> None:
    often = AlternativesConfig(patience=20)
    assert len(alternatives(room(a1, None), START, GOAL, often)) == 1
    assert len(alternatives(room(a1, (3.0,)), START, GOAL, often)) == 1
    assert alternatives(room(a1, ()), START, GOAL, often) == []


def test_a_post_is_the_local_planners_matter_and_a_pillar_is_not(a1: RobotSpec) -> None:
    assert len(alternatives(room(a1, None, post=0.15), START, GOAL)) == 1
    assert len(alternatives(room(a1, None, post=0.8), START, GOAL)) == 2


def test_routes_are_the_same_every_time_and_lead_nowhere_lethal(a1: RobotSpec) -> None:
    costmap = room(a1, (1.0, 3.0, 5.0))
    first, second = (alternatives(costmap, START, GOAL) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.route_odom_m, b.route_odom_m)
        assert np.allclose(a.route_odom_m[[0, -1]], [START, GOAL])
        assert lethal_at_m(costmap, a.route_odom_m, 0.0) is None


def test_cost_of_a_straight_way_over_free_ground_is_its_length(a1: RobotSpec) -> None:
    line = np.array([[2.0, 3.0], [7.0, 3.0]], np.float32)
    got = measured(room(a1, None), line)
    assert got.length_m == pytest.approx(5.0) and got.cost_m == pytest.approx(5.0, rel=0.01)
    assert got.unknown_m == 0.0
    costmap = room(a1, None)
    half = np.array(costmap.grid.log_odds)
    half[:, 45:] = 0.0
    unknown = build_costmap(OccupancyGrid(half, np.zeros(2), CELL), a1)
    assert measured(unknown, line).unknown_m == pytest.approx(2.5, abs=CELL)
    assert measured(unknown, line).cost_m == pytest.approx(5.0 + 0.5 * 2.5, abs=0.1)  # unknown_weight is 0.5


def test_a_blockage_costs_its_price_to_cross_and_turns_the_order_when_that_is_more_than_the_detour(
    a1: RobotSpec,
) -> None:
    costmap, line = room(a1, (2.0, 5.0)), np.array([[4.0, 2.0], [6.0, 2.0]], np.float32)
    before = measured(costmap, line).cost_m
    after = measured(priced(costmap, [Blockage(5.0, 2.0, 8.0)], 0.7), line).cost_m
    assert after - before == pytest.approx(8.0, rel=0.1)
    by_price = {p: alternatives(costmap, START, GOAL, blockages=[Blockage(5.0, 2.0, p)]) for p in (0.1, 8.0)}
    assert round(crossing_y(by_price[0.1][0].route_odom_m)) == 2
    assert round(crossing_y(by_price[8.0][0].route_odom_m)) == 5
    assert len(by_price[8.0]) == 2, "what is blocked stays an alternative"
    assert np.array_equal(costmap.lethal, priced(costmap, [Blockage(5.0, 2.0, 8.0)], 0.7).lethal)


def test_what_stands_on_a_route_is_seen(a1: RobotSpec) -> None:
    line = np.array([START, GOAL], np.float32)
    wall_m = 4.9 - START[0] - a1.inner_radius_m - CELL / 2
    assert lethal_at_m(room(a1, ()), line, 0.0) == pytest.approx(wall_m, abs=CELL)
    assert lethal_at_m(room(a1, ()), line, 4.5) is None, "what lies behind does not count"
    assert lethal_at_m(room(a1, (3.0,)), line, 0.0) is None


@pytest.mark.parametrize("knobs", [{"routes": 0}, {"penalty": -1.0}, {"band_m": 0.0}, {"enclosed_min_m2": -1.0}])
def test_knobs_out_of_range_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(knobs))):
        AlternativesConfig(**knobs)  # type: ignore[arg-type]
