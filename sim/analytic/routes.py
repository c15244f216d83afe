"""Routes of `robonav.planning` for a batch of worlds, compiled: costs, A*, smoothing, progress and the watch.

The costs of `robonav.mapping.build_costmap` are worked out for the cells that the search looks at and for no others: a
few hundred of some ten thousand. The search visits cells in libtcod's order (binary heap, first come of equals), so
that it finds the same of several equally cheap routes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.mapping import OccupancyGrid, build_costmap
from robonav.mapping.costmap import BASE_COST, BLOCKED, CostmapConfig, lethal_radius_m
from robonav.mapping.grid import FREE_BELOW
from robonav.mapping.mapper import way_round_cells
from robonav.planning.routes import RouteConfig
from robonav.types import RobotSpec
from sim.analytic.bits import Array, bit, int64, leading_zeros, line_cells, trailing_zeros
from sim.analytic.jit import inner
from sim.analytic.maps import PAD, MapNumbers, Maps

CARDINAL, DIAGONAL = 5, 7  # edge costs of `robonav.planning.routes`
UNTOUCHED = -1
_FAR = np.int32(2**31 - 1)
_BELOW = np.float32(FREE_BELOW)
_ZERO = np.uint64(0)


class Costs(NamedTuple):
    """What a cell costs by where the nearest occupied cell is."""

    rank: Array  # (R + 1, R + 1) int64 order of the distance to a cell (rows, columns) away; `len(by_rank) - 1` is far
    by_rank: Array  # (n,) int32 cost of a free cell
    unknown: int  # added where a cell is not known to be free
    start_slack: float  # in cells
    goal_slack: float
    greed: int
    smoothing: int
    margin: int  # cells round what is known
    disc: Array  # (2 r + 1, 2 r + 1) bool cells whose being occupied blocks the middle


class Field(NamedTuple):
    """The ground of one search: a part of one world's square."""

    cost: Array  # (S * S,) int16; UNTOUCHED where not worked out
    distance: Array  # (S * S,) int32 of the search; means nothing where `cost` is UNTOUCHED
    occupied: Array  # (S, words) of the square
    log_odds: Array  # (S, S) of the square
    row: int  # of the square, where the ground begins
    column: int
    height: int
    width: int


class Search(NamedTuple):
    """Work space of one search over S x S cells."""

    cost: Array  # (S * S,) int16; UNTOUCHED where not worked out
    distance: Array  # (S * S,) int32
    back: Array  # (S * S,) int32 the cell before
    heap: Array  # (8 * S * S,) int64 priority << 32 | cell
    points: Array  # (n, 2) float64
    sums: Array  # (n + 1, 2) float64
    cells: Array  # (n, 2) int64


def route_costs(spec: RobotSpec, resolution_m: float, costmap: CostmapConfig, route: RouteConfig) -> Costs:
    """The tables, taken from `build_costmap` itself round a single occupied cell.

    Raises:
        ConfigError: the costs reach further than 31 cells.
    """
    reach = math.ceil(costmap.inflation_radius_m / resolution_m)
    if reach > 31:
        what = f"at most 31 cells of {resolution_m} m in the analytic simulator"
        raise ConfigError(explain("costmap: inflation_radius_m", what, costmap.inflation_radius_m))
    side = 2 * reach + 3
    log_odds = np.full((side, side), -1.0, np.float32)
    log_odds[reach + 1, reach + 1] = 1.0
    grid = OccupancyGrid(log_odds, np.zeros(2), resolution_m)
    around = build_costmap(grid, spec, costmap)
    corner = slice(reach + 1, 2 * reach + 2)
    away, cost = around.clearance_m[corner, corner], around.cost[corner, corner]
    levels = np.unique(away[away < costmap.inflation_radius_m])
    rank = np.searchsorted(levels, away).astype(np.int64)
    by_rank = np.full(len(levels) + 1, BASE_COST, np.int32)
    by_rank[rank.ravel()] = cost.ravel()
    by_rank[len(levels)] = BASE_COST
    lethal = lethal_radius_m(spec, resolution_m)
    r = int(lethal / resolution_m)
    offsets = np.arange(-r, r + 1)
    squared = (offsets[:, None] ** 2 + offsets[None, :] ** 2) * resolution_m**2
    return Costs(
        rank=rank,
        by_rank=by_rank,
        unknown=int(costmap.unknown_weight * BASE_COST),
        start_slack=route.start_slack_m / resolution_m,
        goal_slack=route.goal_slack_m / resolution_m,
        greed=round(BASE_COST * route.heuristic_weight),
        smoothing=route.smoothing_cells,
        margin=way_round_cells(spec, resolution_m),
        disc=squared < lethal**2,
    )


def new_search(capacity: int, points: int) -> Search:
    """Work space for maps of `capacity` cells a side and routes of `points` points."""
    cells = capacity * capacity
    return Search(
        cost=np.empty(cells, np.int16),
        distance=np.empty(cells, np.int32),
        back=np.empty(cells, np.int32),
        heap=np.empty(8 * cells, np.int64),
        points=np.empty((points + 4, 2)),
        sums=np.empty((points + 64, 2)),
        cells=np.empty((4 * capacity + 4, 2), np.int64),
    )


@inner
def _cost_of(rank: Array, by_rank: Array, unknown: int, occupied: Array, log_odds: Array, row: int, column: int) -> int:
    """Cost of a cell of the square; BLOCKED where the robot would touch something. Rows beyond the frame are empty."""
    reach, best = rank.shape[0] - 1, len(by_rank) - 1
    start = column - reach + PAD
    word, shift = start >> 6, np.uint64(start & 63)
    middle = np.uint64(reach)
    mask = (np.uint64(1) << np.uint64(2 * reach + 1)) - np.uint64(1)
    rows = len(occupied)
    for dr in range(reach + 1):
        if rank[dr, 0] >= best:
            break
        for side in range(2 if dr else 1):
            r = row - dr if side else row + dr
            if r < 0 or r >= rows:
                continue
            near = occupied[r, word] >> shift
            if shift != _ZERO:
                near |= occupied[r, word + 1] << (np.uint64(64) - shift)
            near &= mask
            if near == _ZERO:
                continue
            dc = min(trailing_zeros(near >> middle), reach)
            left = near & ((np.uint64(1) << middle) - np.uint64(1))
            if left != _ZERO:
                dc = min(dc, reach - 63 + leading_zeros(left))
            best = min(best, rank[dr, dc])
    cost = int64(by_rank[best])
    if cost != BLOCKED and log_odds[row, column] >= _BELOW:
        cost += unknown
    return cost


@inner
def _push(heap: Array, size: int, item: int) -> int:
    """Puts an item into the heap of `size` items; the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if item >> 32 >= heap[parent] >> 32:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = item
    return size + 1


@inner
def _pop(heap: Array, size: int) -> int:
    """Takes the first item away, which the caller has read; the new size."""
    size -= 1
    item = heap[size]
    i = 0
    while True:
        child, least = 2 * i + 1, item >> 32
        chosen = -1
        if child < size and heap[child] >> 32 < least:
            chosen, least = child, heap[child] >> 32
        if child + 1 < size and heap[child + 1] >> 32 < least:
            chosen = child + 1
        if chosen < 0:
            break
        heap[i] = heap[chosen]
        i = chosen
    heap[i] = item
    return size


@inner
def _known_cost(costs: Costs, field: Field, cell: int) -> int:
    """Cost of a cell of the ground, worked out once."""
    cost = int64(field.cost[cell])
    if cost == UNTOUCHED:
        row, column = cell // field.width + field.row, cell % field.width + field.column
        cost = _cost_of(costs.rank, costs.by_rank, costs.unknown, field.occupied, field.log_odds, row, column)
        field.cost[cell], field.distance[cell] = cost, _FAR
    return cost


@inner
def _nearest_free(costs: Costs, field: Field, row: int, column: int, slack: float) -> int:
    """The cell itself, or the closest one within the slack that is not lethal; -1 without one."""
    width = field.width
    if _known_cost(costs, field, row * width + column) != BLOCKED:
        return row * width + column
    reach = math.floor(slack)
    best, least = -1, 1 << 40
    for r in range(max(row - reach, 0), min(row + reach + 1, field.height)):
        for c in range(max(column - reach, 0), min(column + reach + 1, width)):
            squared = (r - row) ** 2 + (c - column) ** 2
            if squared < least and _known_cost(costs, field, r * width + c) != BLOCKED:
                best, least = r * width + c, squared
    return best if least <= slack**2 else -1


@inner
def _find(costs: Costs, field: Field, search: Search, begin: int, end: int) -> bool:
    """A* from `begin` to `end`; True if it got there, with the way in `search.back`."""
    width, height = field.width, field.height
    heap, distance, back, known = search.heap, search.distance, search.back, field.cost
    rank, by_rank, unknown = costs.rank, costs.by_rank, costs.unknown
    occupied, log_odds, row_0, column_0 = field.occupied, field.log_odds, field.row, field.column
    straight, diagonal = CARDINAL * costs.greed, DIAGONAL * costs.greed
    end_row, end_column = end // width, end % width
    distance[begin], back[begin] = 0, begin
    size = _push(heap, int64(0), begin)
    first = True
    while size:
        item = heap[0]
        size = _pop(heap, size)
        cell = item & 0xFFFFFFFF
        if cell == end:
            return True
        row, column = cell // width, cell % width
        here = int64(distance[cell])
        dy, dx = abs(row - end_row), abs(column - end_column)
        guess = (max(dx, dy) - min(dx, dy)) * straight + min(dx, dy) * diagonal
        if not first and (item >> 32) != here + guess:
            continue  # a better way here was found since
        first = False
        for k in range(9):
            r, c = row + k // 3 - 1, column + k % 3 - 1
            if k == 4 or r < 0 or c < 0 or r >= height or c >= width:
                continue
            there = r * width + c
            cost = int64(known[there])
            if cost == UNTOUCHED:
                cost = _cost_of(rank, by_rank, unknown, occupied, log_odds, r + row_0, c + column_0)
                known[there], distance[there] = cost, _FAR
            total = here + cost * (DIAGONAL if k % 2 == 0 else CARDINAL)
            if cost == BLOCKED or distance[there] <= total:
                continue
            distance[there], back[there] = total, cell
            dy, dx = abs(r - end_row), abs(c - end_column)
            guess = (max(dx, dy) - min(dx, dy)) * straight + min(dx, dy) * diagonal
            size = _push(heap, size, (total + guess) << 32 | there)
    return False


@inner
def _ground(numbers: MapNumbers, costs: Costs, maps: Maps, b: int, pose: Array, goal: Array, ground: Array) -> None:
    """Lattice box of the cells that a route can make use of; see `SituationTracker._ground`."""
    cell = numbers.resolution_m
    box, corner = maps.seen[b], maps.corner[b]
    # A free cell that is hit may come to 0 again, so the box of what is known may also shrink.
    for side in range(4):
        while box[0] < box[2] and box[1] < box[3]:
            r, c = box[1] - corner[1], box[0] - corner[0]
            if side == 2:
                c = box[2] - 1 - corner[0]
            elif side == 3:
                r = box[3] - 1 - corner[1]
            known = False
            for k in range(box[2] - box[0] if side % 2 else box[3] - box[1]):
                value = maps.log_odds[b, r, c + k] if side % 2 else maps.log_odds[b, r + k, c]
                if value != np.float32(0.0):
                    known = True
                    break
            if known:
                break
            box[side] += 1 if side < 2 else -1
    empty = box[0] >= box[2] or box[1] >= box[3]
    for axis in range(2):
        at = math.floor(np.float64(pose[axis]) / cell)
        to = math.floor(np.float64(goal[axis]) / cell)
        low, high = (at, at) if empty else (box[axis], box[axis + 2])
        low, high = min(at, to, low) - costs.margin, max(at + 1, to + 1, high) + costs.margin
        first, last = maps.frame[b, axis], maps.frame[b, axis + 2]
        ground[axis] = min(max(low, first), last - 1)
        ground[axis + 2] = min(max(high, ground[axis] + 1), last)


@inner
def plan(
    numbers: MapNumbers, costs: Costs, maps: Maps, b: int, pose: Array, goal: Array, search: Search, route: Array
) -> int:
    """Writes the route (n, 2) float32 in odom and returns n; 0 without one, -1 if it needs more room than `route` has.

    The numbers are those of `robonav.planning.routes.plan_route` on the ground of the situation tracker.
    """
    cell = numbers.resolution_m
    ground = np.empty(4, np.int64)
    _ground(numbers, costs, maps, b, pose, goal, ground)
    width, height = ground[2] - ground[0], ground[3] - ground[1]
    row_0, column_0 = ground[1] - maps.corner[b, 1], ground[0] - maps.corner[b, 0]
    field = Field(search.cost, search.distance, maps.occupied[b], maps.log_odds[b], row_0, column_0, height, width)
    search.cost[: width * height] = UNTOUCHED
    x0 = maps.frame[b, 0] * cell + (ground[0] - maps.frame[b, 0]) * cell
    y0 = maps.frame[b, 1] * cell + (ground[1] - maps.frame[b, 1]) * cell
    start_x, start_y = np.float64(pose[0]), np.float64(pose[1])
    goal_x, goal_y = np.float64(goal[0]), np.float64(goal[1])
    start_column = min(max(math.floor((start_x - x0) / cell), 0), width - 1)
    start_row = min(max(math.floor((start_y - y0) / cell), 0), height - 1)
    wanted_column, wanted_row = math.floor((goal_x - x0) / cell), math.floor((goal_y - y0) / cell)
    goal_column, goal_row = min(max(wanted_column, 0), width - 1), min(max(wanted_row, 0), height - 1)
    begin = _nearest_free(costs, field, start_row, start_column, costs.start_slack)
    end = _nearest_free(costs, field, goal_row, goal_column, costs.goal_slack)
    if begin < 0 or end < 0 or not _find(costs, field, search, begin, end):
        return 0
    length, at = 1, end
    while at != begin:
        length, at = length + 1, search.back[at]
    if length + 2 > min(len(route), len(search.points)):
        return -1
    points = search.points
    at = end
    for k in range(length, 0, -1):
        points[k, 0], points[k, 1] = x0 + (at % width + 0.5) * cell, y0 + (at // width + 0.5) * cell
        at = search.back[at]
    # the robot itself comes first; the centre of its own cell may lie behind it
    first = 1 if begin == start_row * width + start_column else 0
    points[first, 0], points[first, 1] = start_x, start_y
    count = length + 1
    if wanted_row == end // width and wanted_column == end % width:
        if length == 1 and first == 1:  # both are in one cell
            count = 3
        points[count - 1, 0], points[count - 1, 1] = goal_x, goal_y
    count -= first
    for i in range(count):
        points[i, 0], points[i, 1] = points[i + first, 0], points[i + first, 1]
    if count == 1:
        points[1, 0], points[1, 1] = points[0, 0], points[0, 1]
        count = 2
    _smooth(costs, field, search, count, x0, y0, cell, route)
    return count


@inner
def _smooth(costs: Costs, field: Field, search: Search, n: int, x0: float, y0: float, cell: float, out: Array) -> None:
    """Moving average of the inner points; one that would come to lie on dearer ground stays where it was."""
    points, sums, length = search.points, search.sums, costs.smoothing
    half = length // 2
    width, height = field.width, field.height
    total_x, total_y = 0.0, 0.0
    sums[0, 0], sums[0, 1] = 0.0, 0.0
    for i in range(n + 2 * half):
        k = min(max(i - half, 0), n - 1)
        total_x, total_y = total_x + points[k, 0], total_y + points[k, 1]
        sums[i + 1, 0], sums[i + 1, 1] = total_x, total_y
    for i in range(n):
        x, y = points[i, 0], points[i, 1]
        if 0 < i < n - 1 and length > 1:
            mean_x, mean_y = (sums[i + length, 0] - sums[i, 0]) / length, (sums[i + length, 1] - sums[i, 1]) / length
            old = min(max(math.floor((y - y0) / cell), 0), height - 1) * width
            old += min(max(math.floor((x - x0) / cell), 0), width - 1)
            new = min(max(math.floor((mean_y - y0) / cell), 0), height - 1) * width
            new += min(max(math.floor((mean_x - x0) / cell), 0), width - 1)
            cost = _known_cost(costs, field, new)
            if cost != BLOCKED and not cost > 1.2 * _known_cost(costs, field, old):
                x, y = mean_x, mean_y
        out[i, 0], out[i, 1] = np.float32(x), np.float32(y)


@inner
def watch(numbers: MapNumbers, costs: Costs, maps: Maps, b: int, route: Array, count: int, cells: Array) -> None:
    """Marks the cells whose becoming occupied blocks the route; see `SituationTracker._watched`."""
    column_0, row_0 = maps.frame[b, 0], maps.frame[b, 1]
    shift_x, shift_y = column_0 - maps.corner[b, 0], row_0 - maps.corner[b, 1]
    width, height = maps.frame[b, 2] - column_0, maps.frame[b, 3] - row_0
    cell = numbers.resolution_m
    x0, y0 = column_0 * cell, row_0 * cell
    disc, watched, occupied = costs.disc, maps.watched[b], maps.occupied[b]
    watched[shift_y : shift_y + height] = _ZERO
    radius = disc.shape[0] // 2
    old_column, old_row = int64(0), int64(0)
    for i in range(count):
        column = (int64(np.rint(((np.float64(route[i, 0]) - x0) / cell - 0.5) * 16.0)) + 8) >> 4
        row = (int64(np.rint(((np.float64(route[i, 1]) - y0) / cell - 0.5) * 16.0)) + 8) >> 4
        if i:
            for k in range(line_cells(old_column, old_row, column, row, width, height, cells)):
                for dr in range(-radius, radius + 1):
                    r = cells[k, 1] + dr
                    if r < 0 or r >= height:
                        continue
                    for dc in range(-radius, radius + 1):
                        c = cells[k, 0] + dc
                        if disc[dr + radius, dc + radius] and 0 <= c < width:
                            at = c + shift_x + PAD
                            watched[r + shift_y, at >> 6] |= bit(at)
        old_column, old_row = column, row
    for r in range(shift_y, shift_y + height):
        for w in range(watched.shape[1]):
            watched[r, w] &= ~occupied[r, w]
