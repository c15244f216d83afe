"""Figures of a scene for comparing distributions: how full it is, how near the way passes, how narrow it gets."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec, Scene
from sim.geodesic import GRID_REACH_M, GeodesicField, ObstacleGrid, tight_clearance_m

GRID_M = 0.05


@dataclass(frozen=True, slots=True)
class SceneStatistics:
    """Figures of one scene, static shapes only."""

    free_share: float  # of the map
    way_m: float  # shortest way of a disc as wide as the footprint, from start to goal
    nearest_m: float  # mean distance from that way to the nearest obstacle, at most GRID_REACH_M
    width_m: float  # diameter of the largest disc that gets from start to goal, at most 2 GRID_REACH_M
    tortuosity: float  # length of the way within the window by the distance of its ends there


def statistics(
    scene: Scene, spec: RobotSpec, window_m: tuple[float, float, float, float] | None = None
) -> SceneStatistics:
    """Measures a scene; `window_m` (x_min, y_min, x_max, y_max) limits all but the way's length and width."""
    grid = ObstacleGrid.of(scene, GRID_M)
    field = GeodesicField.of(grid, scene.goal, tight_clearance_m(spec))
    way = shortest_way(field, scene.start[:2])
    nx, ny = grid.distance_m.shape
    xs, ys = (grid.origin_m[k] + GRID_M * np.arange(n) for k, n in enumerate((nx, ny)))
    x0, y0, x1, y1 = window_m or scene.bounds_m
    inside = ((x0 <= xs) & (xs <= x1))[:, None] & ((y0 <= ys) & (ys <= y1))[None, :]
    on_way = way[(x0 <= way[:, 0]) & (way[:, 0] <= x1) & (y0 <= way[:, 1]) & (way[:, 1] <= y1)]
    cells = ((on_way - np.array(grid.origin_m)) / GRID_M).round().astype(int)
    ix, iy = np.clip(cells, 0, [nx - 1, ny - 1]).T
    return SceneStatistics(
        free_share=float((grid.distance_m > 0)[inside].mean()),
        way_m=float(np.hypot(*np.diff(way, axis=0).T).sum()),
        nearest_m=float(grid.distance_m[ix, iy].mean()),
        width_m=_width_m(grid, scene.start[:2], scene.goal),
        tortuosity=float(np.hypot(*np.diff(on_way, axis=0).T).sum() / np.hypot(*(on_way[-1] - on_way[0]))),
    )


def shortest_way(field: GeodesicField, start_m: tuple[float, float]) -> NDArray[np.float64]:
    """(n, 2) places from a start downhill along the field, a cell's diagonal or a knight's move at a time."""
    h = field.resolution_m
    cell = [round((start_m[k] - field.origin_m[k]) / h) for k in (0, 1)]
    way = [tuple(cell)]
    length = field.length_m
    while length[way[-1]] > 1.5 * h:
        i, j = way[-1]
        i0, j0 = max(i - 2, 0), max(j - 2, 0)
        around = length[i0 : i + 3, j0 : j + 3]
        step = np.hypot(*(np.indices(around.shape) + np.array([i0 - i, j0 - j])[:, None, None]))
        fall = np.where(step > 0, (length[i, j] - around) / np.maximum(step, 1e-9), -np.inf)
        best = np.unravel_index(int(np.argmax(fall)), fall.shape)
        if fall[best] <= 0 or len(way) > length.size:
            break
        way.append((i0 + int(best[0]), j0 + int(best[1])))
    return np.array(way) * h + np.array(field.origin_m)


def _width_m(grid: ObstacleGrid, start_m: tuple[float, float], goal_m: tuple[float, float]) -> float:
    """Twice the largest clearance at which start and goal still lie in one region, to half a centimetre."""
    cells = [tuple(round((p[k] - grid.origin_m[k]) / GRID_M) for k in (0, 1)) for p in (start_m, goal_m)]
    low, high = 0.0, GRID_REACH_M
    while high - low > 0.0025:
        middle = (low + high) / 2
        _, labels = cv2.connectedComponents((grid.distance_m >= middle).astype(np.uint8), connectivity=8)
        a, b = (labels[cell] for cell in cells)
        low, high = (middle, high) if a == b != 0 else (low, middle)
    return 2 * low
