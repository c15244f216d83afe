"""Building blocks of the generators: a plan that collects shapes and can be mirrored, walls with gaps, doors."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robonav.types import Mover, Scene
from sim.cells import merge_cells

Rows = list[list[float]]  # rows of walls, boxes, ...
Point = tuple[float, float]
LEAF_M = 0.05  # thickness of a door's leaf
DOOR_MPS = 0.6  # of a sliding leaf, or of a hinged leaf's end


@dataclass
class Plan:
    """Shapes as they are drawn, in a frame of their own whose map begins at (0, 0) unless `bounds_m` says otherwise."""

    bounds_m: tuple[float, float, float, float]
    walls: Rows = field(default_factory=list)
    boxes: Rows = field(default_factory=list)
    cylinders: Rows = field(default_factory=list)
    ramps: Rows = field(default_factory=list)
    steps: Rows = field(default_factory=list)
    movers: list[Mover] = field(default_factory=list)

    def scene(self, name: str, yaw: float, goal_radius_m: float, time_limit_s: float) -> Scene:
        """The scene, still without a task."""
        return Scene(
            name=name,
            bounds_m=self.bounds_m,
            start=(0.0, 0.0, yaw),
            goal=(0.0, 0.0),
            walls=rows(self.walls, 5),
            boxes=rows(self.boxes, 5),
            cylinders=rows(self.cylinders, 3),
            ramps=rows(self.ramps, 6),
            steps=rows(self.steps, 6),
            movers=tuple(self.movers),
            goal_radius_m=goal_radius_m,
            time_limit_s=time_limit_s,
        )


def rows(values: Rows, columns: int) -> NDArray[np.float32]:
    """Rows as the array that a `Scene` holds."""
    return np.asarray(values, np.float32).reshape(-1, columns)


def turned(scene: Scene, quarters: int, mirror: bool) -> Scene:
    """The scene with x mirrored (if asked for), then turned by quarter turns about the origin; the task as well."""
    c, s = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    sign = -1 if mirror else 1

    def place(xy: NDArray[np.float32]) -> NDArray[np.float32]:
        x, y = sign * xy[:, 0], xy[:, 1]
        return np.column_stack([c * x - s * y, s * x + c * y])

    def angle(yaw: NDArray[np.float32] | float) -> NDArray[np.float32] | float:
        return ((math.pi - yaw) if mirror else yaw) + quarters * (math.pi / 2)

    def point(p: tuple[float, float]) -> Point:
        x, y = place(np.array([p]))[0]
        return float(x), float(y)

    corners = place(np.array(scene.bounds_m).reshape(2, 2))
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    walls, boxes, cylinders = scene.walls.copy(), scene.boxes.copy(), scene.cylinders.copy()
    walls[:, :2], walls[:, 2:4] = place(scene.walls[:, :2]), place(scene.walls[:, 2:4])
    cylinders[:, :2] = place(scene.cylinders[:, :2])
    ramps, steps = scene.ramps.copy(), scene.steps.copy()
    for shapes in (boxes, ramps, steps):
        shapes[:, :2], shapes[:, 4] = place(shapes[:, :2]), angle(shapes[:, 4])
    return dataclasses.replace(
        scene,
        bounds_m=(float(x0), float(y0), float(x1), float(y1)),
        start=(*point(scene.start[:2]), float(np.angle(np.exp(1j * angle(scene.start[2]))))),
        goal=point(scene.goal),
        walls=walls,
        boxes=boxes,
        cylinders=cylinders,
        ramps=ramps,
        steps=steps,
        movers=tuple(dataclasses.replace(m, waypoints_m=tuple(map(point, m.waypoints_m))) for m in scene.movers),
    )


def sliding_door(begin: Point, end: Point, towards_end: bool, period_s: float, phase: float, ignores: bool) -> Mover:
    """A leaf that closes the gap between two points and opens by sliding on into the wall beside one of them."""
    a, b = np.array(begin), np.array(end)
    closed, way = (a + b) / 2, (b - a) if towards_end else (a - b)
    length = float(np.hypot(*way))
    points = tuple((float(x), float(y)) for x, y in (closed, closed + way))
    return Mover("door", "door", points, DOOR_MPS, box_m=(length, LEAF_M), height_m=1.0, start_phase=phase,
                 period_s=period_s, ignores_robot=ignores)  # fmt: skip


def hinged_door(hinge: Point, end: Point, left: bool, period_s: float, phase: float, ignores: bool) -> Mover:
    """A leaf that closes the gap between two points and opens by a quarter turn about the first."""
    dx, dy = end[0] - hinge[0], end[1] - hinge[1]
    way = (-dy, dx) if left else (dy, -dx)
    points = (hinge, end, (hinge[0] + way[0], hinge[1] + way[1]))
    return Mover("door", "door", points, DOOR_MPS, box_m=(math.hypot(dx, dy), LEAF_M), height_m=1.0, start_phase=phase,
                 period_s=period_s, ignores_robot=ignores)  # fmt: skip


def period_min_s(door_m: float) -> float:
    """Shortest period of a door: a hinged leaf opens and closes by a quarter turn, and rests for a second."""
    return math.pi * door_m / DOOR_MPS + 1.0


def frame_walls(size_x: float, size_y: float, thickness: float) -> Rows:
    """Four walls round [0, size_x] x [0, size_y], outside of it."""
    t, h = thickness, thickness / 2
    return [
        [-t, -h, size_x + t, -h, t],
        [-t, size_y + h, size_x + t, size_y + h, t],
        [-h, 0.0, -h, size_y, t],
        [size_x + h, 0.0, size_x + h, size_y, t],
    ]


def gapped_wall(begin: float, end: float, gaps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """What is left of [begin, end] between gaps (low, high), which may overlap."""
    pieces, at = [], begin
    for low, high in sorted(gaps):
        if low - at > 0.02:
            pieces.append((at, low))
        at = max(at, high)
    if end - at > 0.02:
        pieces.append((at, end))
    return pieces


def solids_round(free: NDArray[np.float64], margin_m: float) -> tuple[Rows, tuple[float, float, float, float]]:
    """(n, 5) boxes that fill what is left beside the free rectangles (n, 4) x0, y0, x1, y1, and the map's bounds.

    Works on the grid of the rectangles' own edges, so that it is exact.
    """
    low, high = free[:, :2].min(axis=0) - margin_m, free[:, 2:].max(axis=0) + margin_m
    edges = [np.unique(np.concatenate([free[:, k], free[:, k + 2], [low[k], high[k]]]).round(6)) for k in (0, 1)]
    middles = [(e[1:] + e[:-1]) / 2 for e in edges]
    inside = [((free[:, k, None] < m) & (m < free[:, k + 2, None])).astype(int) for k, m in enumerate(middles)]
    solid = inside[0].T @ inside[1] == 0
    row, column, down, right = merge_cells(solid).T
    x0, x1, y0, y1 = edges[0][row], edges[0][row + down], edges[1][column], edges[1][column + right]
    boxes = np.column_stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, np.zeros(len(row))])
    return boxes.tolist(), (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
