from __future__ import annotations

import numpy as np
import pytest

from robonav.errors import ConfigError
from robonav.mapping import CostmapConfig, OccupancyGrid, build_costmap
from robonav.mapping.costmap import BASE_COST, BLOCKED
from robonav.types import RobotSpec


def grid_of(log_odds: np.ndarray) -> OccupancyGrid:
    return OccupancyGrid(log_odds.astype(np.float32), np.zeros(2), 0.1)


def test_cost_falls_with_the_distance_and_is_lethal_inside_the_footprint(a1: RobotSpec) -> None:
    log_odds = np.full((81, 81), -1.0)
    log_odds[40, 40] = 2.0
    costmap = build_costmap(grid_of(log_odds), a1)
    rows, columns = np.indices((81, 81))
    distance = np.hypot(rows - 40, columns - 40) * 0.1
    assert costmap.lethal[distance <= a1.inner_radius_m].all()
    assert not costmap.lethal[distance > a1.inner_radius_m + 0.1].any()
    along = costmap.cost[40, 43:]
    assert (np.diff(along) <= 0).all() and along[0] > 2 * along[-1]
    assert (costmap.cost[distance > 1.0] == BASE_COST).all()
    assert np.allclose(costmap.clearance_m, distance, atol=0.08 + 0.03 * distance)


def test_unknown_is_dearer_than_free_and_not_lethal(a1: RobotSpec) -> None:
    log_odds = np.full((40, 80), -1.0)
    log_odds[:, 40:] = 0.0
    costmap = build_costmap(grid_of(log_odds), a1)
    assert (costmap.cost[:, :40] == BASE_COST).all()
    assert (costmap.cost[:, 40:] == BASE_COST * 1.5).all()
    assert not (costmap.cost == BLOCKED).any()


def test_bad_settings_are_refused() -> None:
    for values in ({"inflation_radius_m": 0.0}, {"decay_m": -1.0}, {"unknown_weight": -0.1}):
        with pytest.raises(ConfigError):
            CostmapConfig(**values)
