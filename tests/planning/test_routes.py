from __future__ import annotations

import heapq
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.errors import ConfigError
from robonav.geometry import path_length
from robonav.mapping import OccupancyGrid, build_costmap
from robonav.mapping.costmap import BASE_COST, BLOCKED, Costmap
from robonav.planning.routes import (
    RouteConfig,
    cumulative_length_m,
    plan_route,
    points_at,
    progress_on_route,
)
from robonav.types import RobotSpec

EXACT = RouteConfig(heuristic_weight=1.0, smoothing_cells=1)
MOVES = [m for m in itertools.product((-1, 0, 1), repeat=2) if m != (0, 0)]


def costmap_of(cost) -> Costmap:
    cost = np.asarray(cost, np.int32)
    grid = OccupancyGrid(np.full(cost.shape, -1.0, np.float32), np.array([0.0, 0.0]), 1.0)
    return Costmap(cost, np.ones(cost.shape, np.float32), grid)


def cheapest(cost: np.ndarray, start: tuple[int, int], goal: tuple[int, int]) -> int | None:
    """Dijkstra, for comparison: 5 or 7 times the cost of the cell entered."""
    done: set[tuple[int, int]] = set()
    queue = [(0, start)]
    while queue:
        so_far, cell = heapq.heappop(queue)
        if cell == goal:
            return so_far
        if cell in done:
            continue
        done.add(cell)
        for dr, dc in MOVES:
            r, c = cell[0] + dr, cell[1] + dc
            if 0 <= r < cost.shape[0] and 0 <= c < cost.shape[1] and cost[r, c] != BLOCKED:
                heapq.heappush(queue, (so_far + int(cost[r, c]) * (7 if dr and dc else 5), (r, c)))
    return None


def cost_of(cost: np.ndarray, route: np.ndarray) -> int:
    cells = np.floor(route[:, ::-1]).astype(int)
    total = 0
    for a, b in itertools.pairwise(cells):
        step = np.abs(b - a)
        assert step.max() <= 1, "steps lead to neighbours"
        assert cost[tuple(b)] != BLOCKED
        total += int(cost[tuple(b)]) * (7 if step.all() else 5 * int(step.any()))
    return total


@given(st.integers(0, 10_000))
def test_routes_are_optimal_on_random_grids(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = random.integers(4, 14, 2)
    cost = random.integers(BASE_COST, 5 * BASE_COST, shape)
    cost[random.random(shape) < 0.3] = BLOCKED
    free = np.argwhere(cost != BLOCKED)
    if len(free) < 2:
        return
    start, goal = (tuple(int(v) for v in free[i]) for i in random.choice(len(free), 2, replace=False))
    at = [(cell[1] + 0.5, cell[0] + 0.5) for cell in (start, goal)]
    route = plan_route(costmap_of(cost), *at, EXACT)
    best = cheapest(cost, start, goal)
    if best is None:
        assert route is None
        return
    assert route is not None and np.allclose(route[0], at[0]) and np.allclose(route[-1], at[1])
    assert cost_of(cost, route) == best
    quick = plan_route(costmap_of(cost), *at, RouteConfig(heuristic_weight=1.3, smoothing_cells=1))
    assert quick is not None and cost_of(cost, quick) <= 1.3 * best


def test_unreachable_goals_have_no_route() -> None:
    cost = np.full((20, 20), BASE_COST)
    cost[:, 10] = BLOCKED
    assert plan_route(costmap_of(cost), (3.5, 3.5), (15.5, 3.5)) is None
    cost[4, 10] = BASE_COST
    route = plan_route(costmap_of(cost), (3.5, 3.5), (15.5, 3.5))
    assert route is not None and ((np.abs(route - (10.5, 4.5)) <= 1.0).all(axis=1)).any()


def test_unknown_ground_is_avoided_where_a_known_way_is_hardly_longer(a1: RobotSpec) -> None:
    log_odds = np.full((60, 60), -1.0, np.float32)
    log_odds[28:33, 20:40] = 0.0  # unknown across the straight line, 0.5 m high
    costmap = build_costmap(OccupancyGrid(log_odds, np.zeros(2), 0.1), a1)
    route = plan_route(costmap, (0.55, 3.05), (5.45, 3.05), EXACT)
    assert route is not None
    unknown = (np.abs(route[:, 1] - 3.05) < 0.25) & (route[:, 0] > 2.0) & (route[:, 0] < 4.0)
    assert not unknown.any()
    log_odds = np.zeros((60, 60), np.float32)
    route = plan_route(build_costmap(OccupancyGrid(log_odds, np.zeros(2), 0.1), a1), (0.55, 3.05), (5.45, 3.05))
    assert route is not None and path_length(route) == pytest.approx(4.9, abs=0.05)


def test_a_start_on_lethal_ground_is_left_and_a_lethal_goal_is_approached() -> None:
    cost = np.full((30, 30), BASE_COST)
    cost[10:13, 10:13] = BLOCKED
    near = RouteConfig(start_slack_m=3.0, goal_slack_m=3.0)
    route = plan_route(costmap_of(cost), (10.7, 11.5), (20.5, 11.5), near)
    assert route is not None and np.allclose(route[0], (10.7, 11.5))
    assert cost[tuple(np.floor(route[1:, ::-1]).astype(int).T)].min() > 0
    route = plan_route(costmap_of(cost), (20.5, 11.5), (11.5, 11.5), near)
    assert route is not None and 1.0 < np.hypot(*(route[-1] - (11.5, 11.5))) < 3.0
    tight = RouteConfig(start_slack_m=0.5, goal_slack_m=0.5)
    assert plan_route(costmap_of(cost), (11.5, 11.5), (20.5, 11.5), tight) is None
    assert plan_route(costmap_of(cost), (20.5, 11.5), (11.5, 11.5), tight) is None


def test_a_goal_outside_the_map_is_approached_up_to_its_border() -> None:
    route = plan_route(costmap_of(np.full((20, 20), BASE_COST)), (3.5, 3.5), (100.0, 3.5))
    assert route is not None and np.allclose(route[-1], (19.5, 3.5))


def test_start_and_goal_in_one_cell_give_two_points() -> None:
    route = plan_route(costmap_of(np.full((5, 5), BASE_COST)), (2.2, 2.2), (2.8, 2.6))
    assert route is not None and np.allclose(route, [(2.2, 2.2), (2.8, 2.6)])


def test_smoothing_stays_off_lethal_ground_and_shortens(a1: RobotSpec) -> None:
    random = np.random.default_rng(5)
    log_odds = np.full((100, 100), -1.0, np.float32)
    for row, column in random.integers(15, 85, (25, 2)):
        log_odds[row : row + 3, column : column + 3] = 2.0
    costmap = build_costmap(OccupancyGrid(log_odds, np.zeros(2), 0.1), a1)
    raw = plan_route(costmap, (0.55, 0.55), (9.45, 9.45), RouteConfig(smoothing_cells=1))
    smooth = plan_route(costmap, (0.55, 0.55), (9.45, 9.45))
    assert raw is not None and smooth is not None
    assert path_length(smooth) < path_length(raw)
    dense = points_at(smooth, np.arange(0.0, path_length(smooth), 0.02))
    on = costmap.cost[tuple(costmap.grid.cell_of(dense).T)]
    assert (on == BLOCKED).mean() < 0.01  # at most a corner cut of one cell between two points


def test_waypoints_follow_the_arc_length() -> None:
    route = np.array([(0.0, 0.0), (2.0, 0.0), (2.0, 3.0)])
    pose = (0.5, 0.3, np.pi / 2)  # 0.5 m along
    lookaheads_m = np.array([0.8, 1.6, 3.0])
    found = points_at(route, progress_on_route(route, pose) + lookaheads_m)
    assert np.allclose(found, [(1.3, 0.0), (2.0, 0.1), (2.0, 1.5)], atol=1e-6)
    at_end = points_at(route, progress_on_route(route, (2.0, 2.5, 0.0)) + lookaheads_m)
    assert np.allclose(at_end, (2.0, 3.0), atol=1e-6)


def test_progress_finds_the_closest_point_and_never_goes_back() -> None:
    # out and back: the two legs lie 0.2 m apart
    route = np.array([(0.0, 0.0), (4.0, 0.0), (4.0, 0.2), (0.0, 0.2)])
    assert progress_on_route(route, (1.0, 0.05)) == pytest.approx(1.0)
    assert progress_on_route(route, (1.0, 0.05), from_m=3.0) == pytest.approx(4.2 + 3.0)
    assert progress_on_route(route, (1.0, -0.5), from_m=0.9) == pytest.approx(1.0)
    assert progress_on_route(route, (0.2, -2.0), from_m=0.9) == pytest.approx(0.9)
    assert progress_on_route(route, (-5.0, 0.2), from_m=99.0) == pytest.approx(8.2)


@given(st.integers(0, 10_000))
def test_progress_matches_dense_sampling(seed: int) -> None:
    random = np.random.default_rng(seed)
    route = np.cumsum(random.normal(size=(6, 2)), axis=0)
    position, total = random.normal(size=2) * 2, float(cumulative_length_m(route)[-1])
    dense = np.linspace(0.0, total, 4001)
    distance = np.hypot(*(points_at(route, dense) - position).T)
    found = points_at(route, [progress_on_route(route, position)])[0]
    assert np.hypot(*(found - position)) <= distance.min() + 1e-3
    from_m = 0.4 * total
    late = progress_on_route(route, position, from_m)
    assert late >= from_m - 1e-6
    assert np.hypot(*(points_at(route, [late])[0] - position)) <= distance[dense >= from_m].min() + 1e-3


def test_repeated_points_do_no_harm() -> None:
    route = np.array([(1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (2.0, 1.0)])
    assert progress_on_route(route, (1.4, 2.0)) == pytest.approx(0.4)
    assert np.isfinite(points_at(route, (0.0, 0.5, 5.0))).all()


def test_bad_settings_are_refused() -> None:
    for values in ({"goal_slack_m": -1.0}, {"heuristic_weight": 0.5}, {"smoothing_cells": 4}):
        with pytest.raises(ConfigError):
            RouteConfig(**values)


def test_importing_routes_loads_neither_tcod_nor_torch() -> None:
    code = "import sys, robonav.planning.situation; sys.exit(any(m in sys.modules for m in ('tcod', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
