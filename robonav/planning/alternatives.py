"""Several distinct routes over one costmap.

Method: the penalty method (Chen, Bell and Bogenberger 2007; Bader et al. 2011, Alternative route graphs): search, make
the ground near the route that was found dearer, search again. What comes out is kept if it is of another homotopy class
than all that are kept, in the sense that matters to a robot: the loop of both routes encloses lethal ground of at
least `enclosed_min_m2` (two routes of one class enclose none). So an open room has one route however often it is
searched, and two doors have two.

Nothing here is drawn at random: equal costmaps give equal routes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.mapping.costmap import BASE_COST, BLOCKED, Costmap
from robonav.mapping.grid import FREE_BELOW
from robonav.planning.routes import RouteConfig, cumulative_length_m, plan_route, points_at

_SUBPIXEL_BITS = 4
_COST_MAX = 1_000_000  # of a cell: sums over a route stay far below 2^31


@dataclass(frozen=True, slots=True)
class AlternativesConfig:
    """How many routes, and what makes two of them distinct."""

    routes: int = 3
    """At most so many."""
    patience: int = 2
    """Searches in a row that find nothing new before it is given up; each raises the price near what was found."""
    penalty: float = 3.0
    """Multiples of a cell's own cost that a search adds to cells near its route."""
    band_m: float = 0.6
    """How near."""
    enclosed_min_m2: float = 0.6
    """Lethal ground between two distinct routes; a post of 0.2 m with the robot's inner radius round it has 0.5."""
    blockage_radius_m: float = 0.7
    """Ground round a known blockage that is dearer to cross."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"routes": 1, "patience": 1, "penalty": 0})
        for name in ("band_m", "enclosed_min_m2", "blockage_radius_m"):
            if getattr(self, name) <= 0:
                raise ConfigError(explain(f"alternatives: {name}", "above 0", getattr(self, name)))


class Blockage(NamedTuple):
    """A place where the robot did not get on."""

    x_m: float  # in odom
    y_m: float
    price_m: float  # metres of way that a route through it is worth avoiding


class Alternative(NamedTuple):
    """A route and what it costs."""

    route_odom_m: NDArray[np.float32]  # (n, 2)
    length_m: float
    cost_m: float  # metres of free ground that it is worth: nearness to obstacles, the unknown and blockages count
    unknown_m: float  # of its length, on ground that was never seen free


def alternatives(
    costmap: Costmap,
    start_odom_m: ArrayLike,
    goal_odom_m: ArrayLike,
    config: AlternativesConfig | None = None,
    route: RouteConfig | None = None,
    blockages: Sequence[Blockage] = (),
) -> list[Alternative]:
    """Distinct routes, cheapest first; none when nothing leads to the goal. See the module."""
    c = config or AlternativesConfig()
    costmap = priced(costmap, blockages, c.blockage_radius_m)
    search, found, in_vain = costmap, list[Alternative](), 0
    while len(found) < c.routes and in_vain < c.patience:
        points = plan_route(search, start_odom_m, goal_odom_m, route)
        if points is None:
            break
        if all(enclosed_m2(costmap, points, other.route_odom_m) >= c.enclosed_min_m2 for other in found):
            found.append(measured(costmap, points))
            in_vain = 0
        else:
            in_vain += 1
        search = _penalised(search, costmap, points, c)
    return sorted(found, key=lambda a: a.cost_m)


def measured(costmap: Costmap, route_odom_m: NDArray[np.float32]) -> Alternative:
    """Length and cost of a route (n, 2). Lethal cells, in which it may begin, count as the dearest free ones do."""
    length_m = float(cumulative_length_m(route_odom_m)[-1])
    steps = max(int(np.ceil(length_m / costmap.grid.resolution_m)), 1)
    middles = points_at(route_odom_m, (np.arange(steps) + 0.5) * length_m / steps)
    rows, columns = np.clip(costmap.grid.cell_of(middles), 0, np.array(costmap.cost.shape) - 1).T
    cost = costmap.cost[rows, columns]
    cost = np.where(cost == BLOCKED, max(int(cost.max()), BASE_COST), cost)
    unknown = costmap.grid.log_odds[rows, columns] >= FREE_BELOW
    share = length_m / steps
    return Alternative(route_odom_m, length_m, float(cost.sum()) / BASE_COST * share, float(unknown.sum()) * share)


def enclosed_m2(costmap: Costmap, a_odom_m: NDArray[np.floating], b_odom_m: NDArray[np.floating]) -> float:
    """Lethal ground inside the loop of two routes (n, 2) and (m, 2) with common ends, in square metres."""
    loop = np.concatenate([np.asarray(a_odom_m, np.float64), np.asarray(b_odom_m, np.float64)[::-1]])
    inside = np.zeros(costmap.cost.shape, np.uint8)
    cv2.fillPoly(inside, [_pixels(costmap, loop)], 1, cv2.LINE_8, _SUBPIXEL_BITS)
    return float(np.count_nonzero(inside & (costmap.cost == BLOCKED))) * costmap.grid.resolution_m**2


def lethal_at_m(costmap: Costmap, route_odom_m: NDArray[np.floating], from_m: float) -> float | None:
    """Arc length at which a route (n, 2) enters lethal ground, `from_m` or later and but for its last metre, if any."""
    end_m = float(cumulative_length_m(route_odom_m)[-1]) - 1.0
    arc_m = np.arange(from_m, max(end_m, from_m), costmap.grid.resolution_m / 2)
    cells = np.clip(costmap.grid.cell_of(points_at(route_odom_m, arc_m)), 0, np.array(costmap.cost.shape) - 1)
    lethal = np.flatnonzero(costmap.cost[tuple(cells.T)] == BLOCKED)
    return float(arc_m[lethal[0]]) if len(lethal) else None


def priced(costmap: Costmap, blockages: Sequence[Blockage], radius_m: float) -> Costmap:
    """The costmap on which a straight way through a blockage costs `price_m` more; lethal cells stay lethal."""
    if not blockages:
        return costmap
    extra = np.zeros(costmap.cost.shape, np.float64)
    rows, columns = np.indices(extra.shape)
    for blockage in blockages:
        row, column = costmap.grid.cell_of((blockage.x_m, blockage.y_m))
        near = np.hypot(rows - row, columns - column) * costmap.grid.resolution_m <= radius_m
        extra[near] += BASE_COST * blockage.price_m / (2 * radius_m)
    return _with_cost(costmap, costmap.cost + extra)


def _penalised(search: Costmap, costmap: Costmap, route_odom_m: NDArray[np.float32], c: AlternativesConfig) -> Costmap:
    band: NDArray[Any] = np.zeros(costmap.cost.shape, np.uint8)
    width = max(round(2 * c.band_m / costmap.grid.resolution_m), 1)
    cv2.polylines(band, [_pixels(costmap, route_odom_m)], False, 1, width, cv2.LINE_8, _SUBPIXEL_BITS)
    return _with_cost(costmap, search.cost + band * c.penalty * costmap.cost)


def _with_cost(costmap: Costmap, cost: NDArray[np.floating]) -> Costmap:
    whole = np.where(costmap.cost == BLOCKED, BLOCKED, np.minimum(cost, _COST_MAX)).astype(np.int32)
    return dataclasses.replace(costmap, cost=whole)


def _pixels(costmap: Costmap, points_odom_m: NDArray[np.floating]) -> NDArray[np.int32]:
    """Points in OpenCV's fixed-point pixels, whose centres are whole numbers."""
    grid = costmap.grid
    pixels = (np.asarray(points_odom_m, np.float64) - grid.origin_odom_m) / grid.resolution_m - 0.5
    return np.rint(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
