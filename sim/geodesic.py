"""Distances in a scene: to the nearest obstacle, and along the shortest way to the goal.

The way is searched on a grid whose obstacles are inflated by the robot's size, with 16 directions (straight, diagonal
and knight's moves), so that lengths are at most 2.8 % too long. The search is libtcod's Dijkstra.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import tcod.path
from numpy.typing import NDArray

from robonav.errors import SceneError
from robonav.types import RobotSpec, Scene

GRID_REACH_M = 1.0  # distances beyond this do not matter to any robot here
UNITS_PER_CELL = 100  # integer path costs: a step to the next cell costs this much
_DIAGONAL, _KNIGHT = 141, 224
_EDGES = np.array(
    [
        [0, _KNIGHT, 0, _KNIGHT, 0],
        [_KNIGHT, _DIAGONAL, UNITS_PER_CELL, _DIAGONAL, _KNIGHT],
        [0, UNITS_PER_CELL, 0, UNITS_PER_CELL, 0],
        [_KNIGHT, _DIAGONAL, UNITS_PER_CELL, _DIAGONAL, _KNIGHT],
        [0, _KNIGHT, 0, _KNIGHT, 0],
    ],
    np.int32,
)
_UNREACHED = np.iinfo(np.int32).max


def walls_as_boxes(walls: NDArray[Any]) -> NDArray[np.float64]:
    """(n, 5) walls (x0, y0, x1, y1, thickness) as (n, 5) boxes (x, y, length, width, yaw)."""
    w = np.asarray(walls, np.float64).reshape(-1, 5)
    dx, dy = w[:, 2] - w[:, 0], w[:, 3] - w[:, 1]
    centre = (w[:, :2] + w[:, 2:4]) / 2
    return np.column_stack([centre, np.hypot(dx, dy), w[:, 4], np.arctan2(dy, dx)])


def all_boxes(scene: Scene) -> NDArray[np.float64]:
    """(n, 5) walls and boxes of a scene as boxes (x, y, length, width, yaw)."""
    return np.concatenate([walls_as_boxes(scene.walls), np.asarray(scene.boxes, np.float64).reshape(-1, 5)])


def box_distance_m(box: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of points to one box (x, y, length, width, yaw); 0 inside. `x` and `y` broadcast."""
    c, s = math.cos(box[4]), math.sin(box[4])
    dx, dy = x - box[0], y - box[1]
    out_x = np.maximum(np.abs(c * dx + s * dy) - box[2] / 2, 0.0)
    out_y = np.maximum(np.abs(c * dy - s * dx) - box[3] / 2, 0.0)
    return np.hypot(out_x, out_y)


def cylinder_distance_m(cylinder: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of points to one cylinder (x, y, radius); 0 inside. `x` and `y` broadcast."""
    return np.maximum(np.hypot(x - cylinder[0], y - cylinder[1]) - cylinder[2], 0.0)


def obstacle_distance_m(scene: Scene, points_world_m: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 2) points to (...) distances to the nearest obstacle; 0 inside of one, infinite in an empty world."""
    p = np.asarray(points_world_m, np.float64)
    nearest = np.full(p.shape[:-1], np.inf)
    for box in all_boxes(scene):
        nearest = np.minimum(nearest, box_distance_m(box, p[..., 0], p[..., 1]))
    for cylinder in np.asarray(scene.cylinders, np.float64).reshape(-1, 3):
        nearest = np.minimum(nearest, cylinder_distance_m(cylinder, p[..., 0], p[..., 1]))
    return nearest


@dataclass(frozen=True, slots=True)
class ObstacleGrid:
    """Distances to the nearest obstacle on the cell centres of a scene's bounds; first axis x, second y."""

    distance_m: NDArray[np.float64]  # (nx, ny), at most GRID_REACH_M
    origin_m: tuple[float, float]  # centre of cell (0, 0)
    resolution_m: float

    @classmethod
    def of(cls, scene: Scene, resolution_m: float = 0.1) -> ObstacleGrid:
        """Samples a scene; each obstacle touches only the cells within GRID_REACH_M of it."""
        x_min, y_min, x_max, y_max = scene.bounds_m
        nx = max(2, math.ceil((x_max - x_min) / resolution_m))
        ny = max(2, math.ceil((y_max - y_min) / resolution_m))
        origin = (x_min + resolution_m / 2, y_min + resolution_m / 2)
        xs = origin[0] + resolution_m * np.arange(nx)[:, None]
        ys = origin[1] + resolution_m * np.arange(ny)[None, :]
        grid = np.full((nx, ny), GRID_REACH_M)

        def window(low: float, high: float, start: float, count: int) -> slice:
            first = math.floor((low - GRID_REACH_M - start) / resolution_m)
            last = math.ceil((high + GRID_REACH_M - start) / resolution_m)
            return slice(min(max(first, 0), count), min(max(last + 1, 0), count))

        for box in all_boxes(scene):
            c, s = abs(math.cos(box[4])), abs(math.sin(box[4]))
            hx, hy = (c * box[2] + s * box[3]) / 2, (s * box[2] + c * box[3]) / 2
            i, j = window(box[0] - hx, box[0] + hx, origin[0], nx), window(box[1] - hy, box[1] + hy, origin[1], ny)
            np.minimum(grid[i, j], box_distance_m(box, xs[i], ys[:, j]), out=grid[i, j])
        for cylinder in np.asarray(scene.cylinders, np.float64).reshape(-1, 3):
            x, y, r = cylinder
            i, j = window(x - r, x + r, origin[0], nx), window(y - r, y + r, origin[1], ny)
            np.minimum(grid[i, j], cylinder_distance_m(cylinder, xs[i], ys[:, j]), out=grid[i, j])
        return cls(grid, origin, resolution_m)


def shortest_ways(units: NDArray[np.int32], cost: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.int32]:
    """(nx, ny) lengths of the shortest ways from the cells of `units` that hold one already, by Dijkstra's search.

    An edge to a neighbour costs what `edges` (odd, odd) holds for it about its middle, times the neighbour's `cost`;
    cells of cost 0 are closed. `tcod.path.dijkstra2d` finds the same, and leaks as much memory as its heap takes (tcod
    21.2: 8 kB a search of 80 x 80 cells).
    """
    graph = tcod.path.CustomGraph(units.shape)
    graph.add_edges(edge_map=edges, cost=cost)
    finder = tcod.path.Pathfinder(graph)
    finder.distance[:] = units
    finder.rebuild_frontier()
    finder.resolve()
    return np.asarray(finder.distance, np.int32)


@dataclass(frozen=True, slots=True)
class GeodesicField:
    """Length of the shortest way to the goal from anywhere, in metres.

    Cells that the way cannot use (too near to an obstacle, or cut off) hold the nearest usable cell's length plus
    the straight distance to it, so that the field stays defined wherever the robot can be.
    """

    length_m: NDArray[np.float64]  # (nx, ny)
    reached: NDArray[np.bool_]  # (nx, ny) True where a way exists
    origin_m: tuple[float, float]
    resolution_m: float

    @classmethod
    def of(cls, grid: ObstacleGrid, goal_m: tuple[float, float], clearance_m: float) -> GeodesicField:
        """Searches from the goal through cells whose centre is `clearance_m` away from every obstacle."""
        free = grid.distance_m >= clearance_m
        h = grid.resolution_m
        gx, gy = (goal_m[0] - grid.origin_m[0]) / h, (goal_m[1] - grid.origin_m[1]) / h
        units = np.full(free.shape, _UNREACHED, np.int32)
        for ix in (math.floor(gx), math.floor(gx) + 1):
            for iy in (math.floor(gy), math.floor(gy) + 1):
                if 0 <= ix < free.shape[0] and 0 <= iy < free.shape[1] and free[ix, iy]:
                    units[ix, iy] = round(math.hypot(ix - gx, iy - gy) * UNITS_PER_CELL)
        units = shortest_ways(units, free.astype(np.int8), _EDGES)
        reached = (units != _UNREACHED) & free
        length = units.astype(np.float64) * (h / UNITS_PER_CELL)
        return cls(_extend(length, reached, h), reached, grid.origin_m, h)

    def at(self, x_m: float, y_m: float) -> float:
        """Length of the way from a point, bilinear between cells; infinite where nothing reaches the goal."""
        nx, ny = self.length_m.shape
        gx = min(max((x_m - self.origin_m[0]) / self.resolution_m, 0.0), nx - 1.001)
        gy = min(max((y_m - self.origin_m[1]) / self.resolution_m, 0.0), ny - 1.001)
        ix, iy = int(gx), int(gy)
        fx, fy = gx - ix, gy - iy
        d = self.length_m
        low = d[ix, iy] * (1 - fy) + d[ix, iy + 1] * fy
        high = d[ix + 1, iy] * (1 - fy) + d[ix + 1, iy + 1] * fy
        return float(low * (1 - fx) + high * fx)

    def reaches(self, x_m: float, y_m: float) -> bool:
        """True if a way starts at one of the cells around a point."""
        gx = math.floor((x_m - self.origin_m[0]) / self.resolution_m)
        gy = math.floor((y_m - self.origin_m[1]) / self.resolution_m)
        return bool(self.reached[max(gx, 0) : max(gx, 0) + 2, max(gy, 0) : max(gy, 0) + 2].any())


def _extend(length: NDArray[np.float64], reached: NDArray[np.bool_], resolution_m: float) -> NDArray[np.float64]:
    """Fills cells that were not reached from the nearest reached one plus the distance to it."""
    if reached.all():
        return length
    if not reached.any():
        return np.full_like(length, np.inf)
    away, labels = cv2.distanceTransformWithLabels(
        (~reached).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    length_of_label = np.zeros(int(labels.max()) + 1)
    length_of_label[labels[reached]] = length[reached]
    return np.where(reached, length, length_of_label[labels] + away * resolution_m)


def safe_clearance_m(spec: RobotSpec, margin_m: float = 0.05) -> float:
    """Distance of the robot's centre from obstacles at which any heading is free of contact."""
    return spec.radius_m + margin_m


def tight_clearance_m(spec: RobotSpec) -> float:
    """Smallest distance of the robot's centre from obstacles: it passes if it is aligned with the gap."""
    return spec.inner_radius_m + 0.01


def check_task(scene: Scene, spec: RobotSpec, where: str) -> None:
    """Checks that the start is free and that the robot's footprint can get from the start to the goal.

    Raises:
        SceneError: the start or the goal stands inside an obstacle or outside the bounds, or no way joins them.
    """
    x_min, y_min, x_max, y_max = scene.bounds_m
    places = (("start", scene.start[0], scene.start[1]), ("goal", scene.goal[0], scene.goal[1]))
    for name, x, y in places:
        place = f"{where}: {name} ({x:.2f}, {y:.2f})"
        if not (math.isfinite(x) and math.isfinite(y)):
            raise SceneError(f"{place}: expected finite coordinates; correct the {name}")
        if not (x_min <= x <= x_max and y_min <= y <= y_max):
            bounds = f"x {x_min:.2f} to {x_max:.2f}, y {y_min:.2f} to {y_max:.2f}"
            raise SceneError(f"{place}: outside the map ({bounds}); choose a {name} inside of it")
    away = footprint_clearance_m(scene, scene.start, spec)
    if away <= 0.0:
        raise SceneError(
            f"{where}: start {_place(scene.start)}: inside a wall or an obstacle for a footprint "
            f"of {spec.length_m} x {spec.width_m} m; move the start to free space"
        )
    if float(obstacle_distance_m(scene, np.array(scene.goal))) <= 0.0:
        raise SceneError(f"{where}: goal {_place(scene.goal)}: inside a wall or an obstacle; move it to free space")
    field = GeodesicField.of(ObstacleGrid.of(scene, 0.05), scene.goal, tight_clearance_m(spec))
    if not field.reaches(scene.start[0], scene.start[1]):
        raise SceneError(
            f"{where}: no way from start {_place(scene.start)} to goal {_place(scene.goal)} for robot '{spec.name}' "
            f"({spec.width_m} m wide); widen the passages or move start or goal"
        )


def footprint_clearance_m(scene: Scene, pose: tuple[float, float, float], spec: RobotSpec) -> float:
    """Distance from the footprint at a pose to the nearest obstacle, sampled each 4 cm; 0 in contact."""
    xs = np.linspace(-spec.length_m / 2, spec.length_m / 2, max(2, math.ceil(spec.length_m / 0.04)))
    ys = np.linspace(-spec.width_m / 2, spec.width_m / 2, max(2, math.ceil(spec.width_m / 0.04)))
    base = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
    x, y, yaw = pose
    c, s = math.cos(yaw), math.sin(yaw)
    world = np.stack([x + c * base[..., 0] - s * base[..., 1], y + s * base[..., 0] + c * base[..., 1]], axis=-1)
    return float(obstacle_distance_m(scene, world).min())


def _place(point: tuple[float, ...]) -> str:
    return f"({point[0]:.2f}, {point[1]:.2f})"
