"""Routes over the costmap by A* (tcod), and the points of a route that lie ahead of the robot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from robonav.errors import ConfigError, explain
from robonav.mapping.costmap import BASE_COST, BLOCKED, Costmap

_CARDINAL, _DIAGONAL = 5, 7  # whole-number edge costs, 1 : 1.4


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """Bounds of the route search."""

    start_slack_m: float = 0.8  # how far from a lethal start the route may begin
    goal_slack_m: float = 0.5  # how far from a lethal goal the route may end
    # above 1 a route may cost up to that factor more than the best (2 % seen), and is found in a third of the time
    heuristic_weight: float = 1.3
    smoothing_cells: int = 5  # length of the moving average over the path; 1 leaves it as A* made it

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a negative distance, a heuristic weight below 1, or a smoothing length that is even or below 1.
        """
        if min(self.start_slack_m, self.goal_slack_m) < 0:
            got = (self.start_slack_m, self.goal_slack_m)
            raise ConfigError(explain("routes: start_slack_m, goal_slack_m", "0 or more", got))
        if self.heuristic_weight < 1:
            raise ConfigError(explain("routes: heuristic_weight", "1 or more", self.heuristic_weight))
        if self.smoothing_cells < 1 or self.smoothing_cells % 2 == 0:
            raise ConfigError(explain("routes: smoothing_cells", "an odd number", self.smoothing_cells))


def plan_route(
    costmap: Costmap, start_odom_m: ArrayLike, goal_odom_m: ArrayLike, config: RouteConfig | None = None
) -> NDArray[np.float32] | None:
    """The cheapest route as (n, 2) odom points, n >= 2, or None when there is none.

    It begins at the start itself, also where that is lethal ground (a robot may stand in inflated space). It ends
    at the goal, or at the nearest free cell when the goal is lethal or outside the map.
    """
    config = config or RouteConfig()
    start, goal = np.asarray(start_odom_m, np.float64)[:2], np.asarray(goal_odom_m, np.float64)[:2]
    cell = costmap.grid.resolution_m
    last = np.array(costmap.cost.shape) - 1
    start_cell, wanted = np.clip(costmap.grid.cell_of(start), 0, last), costmap.grid.cell_of(goal)
    goal_cell = np.clip(wanted, 0, last)
    begin = _nearest_free(costmap.cost, start_cell, config.start_slack_m / cell)
    end = _nearest_free(costmap.cost, goal_cell, config.goal_slack_m / cell)
    if begin is None or end is None:
        return None
    cells = _cheapest_path(costmap.cost, begin, end, config.heuristic_weight)
    if cells is None:
        return None
    points = costmap.grid.centre_of(cells)
    if begin == (start_cell[0], start_cell[1]):
        points = points[1:]  # the centre of the robot's own cell may lie behind it
    if end == (wanted[0], wanted[1]):
        points = points[:-1] if len(points) else points
        points = np.concatenate((start[None], points, goal[None]))
    else:
        points = np.concatenate((start[None], points))
    if len(points) == 1:
        points = np.concatenate((points, points))
    return _smoothed(points, costmap, config.smoothing_cells).astype(np.float32)


def cumulative_length_m(route_odom_m: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,) arc length from the route's start to each of its points."""
    line = _as_complex(route_odom_m)
    length = np.zeros(len(line))
    np.cumsum(np.abs(line[1:] - line[:-1]), out=length[1:])
    return length


def progress_on_route(route_odom_m: NDArray[np.floating], position_odom_m: ArrayLike, from_m: float = 0.0) -> float:
    """Arc length of the point of the route that is closest to a position, at `from_m` or later, in metres."""
    line = _as_complex(route_odom_m)
    x, y = (float(v) for v in np.asarray(position_odom_m)[:2])
    step = line[1:] - line[:-1]
    span = np.maximum(np.abs(step), 1e-9)
    end = np.cumsum(span)
    from_m = min(from_m, float(end[-1]))
    ahead = complex(x, y) - line[:-1]
    low = np.maximum(from_m - end + span, 0.0)  # where on each segment the part still to go begins
    along = np.minimum(np.maximum((ahead * step.conj()).real / span, low), span)
    distance = np.abs(ahead - step * (along / span))
    distance[end < from_m] = np.inf
    best = int(np.argmin(distance))
    return float(end[best] - span[best] + along[best])


def points_at(route_odom_m: NDArray[np.floating], arc_length_m: ArrayLike) -> NDArray[np.float64]:
    """(k, 2) points of a polyline at arc lengths (k,), clipped to its ends."""
    points = np.interp(
        np.asarray(arc_length_m, np.float64), cumulative_length_m(route_odom_m), _as_complex(route_odom_m)
    )
    return points.view(np.float64).reshape(-1, 2)


def _as_complex(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    """(n, 2) points as (n,) complex x + iy, for which numpy needs half the calls."""
    line: NDArray[np.complex128] = np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]
    return line


def _nearest_free(cost: NDArray[np.int32], cell: NDArray[np.int64], slack_cells: float) -> tuple[int, int] | None:
    """The cell itself, or the closest one within the slack that is not lethal."""
    row, column = int(cell[0]), int(cell[1])
    if cost[row, column] != BLOCKED:
        return row, column
    reach = math.floor(slack_cells)
    top, left = max(row - reach, 0), max(column - reach, 0)
    rows, columns = np.nonzero(cost[top : row + reach + 1, left : column + reach + 1] != BLOCKED)
    if not len(rows):
        return None
    squared = (rows + top - row) ** 2 + (columns + left - column) ** 2
    best = int(np.argmin(squared))
    if squared[best] > slack_cells**2:
        return None
    return int(rows[best]) + top, int(columns[best]) + left


def _cheapest_path(
    cost: NDArray[np.int32], begin: tuple[int, int], end: tuple[int, int], heuristic_weight: float
) -> NDArray[np.intc] | None:
    """A* over eight neighbours; a step costs its length times the cost of the cell that it enters.

    Returns:
        (n, 2) cells (row, column) with both ends, or None when the end cannot be reached.
    """
    # Which cells hang together is found far faster than A* finds out that it searched them all
    _, parts = cv2.connectedComponents((cost != BLOCKED).view(np.uint8), connectivity=8, ltype=cv2.CV_16U)
    if parts[begin] != parts[end]:
        return None
    import tcod.path  # here, because it loads a shared library that most users of this module never need

    graph = tcod.path.SimpleGraph(
        cost=cost, cardinal=_CARDINAL, diagonal=_DIAGONAL, greed=round(BASE_COST * heuristic_weight)
    )
    finder = tcod.path.Pathfinder(graph)
    finder.add_root(begin)
    return finder.path_to(end)


def _smoothed(points: NDArray[np.float64], costmap: Costmap, length: int) -> NDArray[np.float64]:
    """Moving average of the inner points; one that would come to lie on dearer ground stays where it was."""
    if length == 1 or len(points) < 3:
        return points
    half = length // 2
    padded = np.concatenate((np.repeat(points[:1], half, 0), points, np.repeat(points[-1:], half, 0)))
    total = np.concatenate((np.zeros((1, 2)), np.cumsum(padded, axis=0)))
    mean = (total[length:] - total[:-length]) / length
    last = np.array(costmap.cost.shape) - 1
    old = costmap.cost[tuple(np.clip(costmap.grid.cell_of(points), 0, last).T)]
    new = costmap.cost[tuple(np.clip(costmap.grid.cell_of(mean), 0, last).T)]
    keep = (new == BLOCKED) | (new > 1.2 * old)
    keep[0] = keep[-1] = True
    return np.where(keep[:, None], points, mean)
