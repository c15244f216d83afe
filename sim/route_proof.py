"""Proof that a robot's footprint gets from one place to another, fast enough for scenes drawn by the thousand.

Three attempts, each on a finer grid: with the circle round the footprint, which holds for every heading; then with the
footprint itself in 16 headings, on 10 and on 5 cm. Each errs on the side of "no": the margins cover what lies between
the grid's cells and headings, so a route that is found is there.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec, Scene
from sim.geodesic import ObstacleGrid

HEADINGS = 16  # over half a turn: a footprint looks the same backwards
DISCS = 4  # along the footprint, together holding it
CIRCLE_GRID_M, FOOTPRINT_GRIDS_M = 0.2, (0.1, 0.05)
INTERPOLATION_M = 0.005  # what bilinear interpolation adds at most to a distance of 0.15 m and more


class RouteProof:
    """Regions of a scene between which the robot cannot change; computed as far as the questions need."""

    def __init__(self, scene: Scene, spec: RobotSpec) -> None:
        """Nothing is computed yet."""
        self._scene, self._spec = scene, spec
        self._levels: list[tuple[ObstacleGrid, NDArray[np.int64]]] = []

    def joins(self, a_m: tuple[float, float], b_m: tuple[float, float]) -> bool:
        """True if a route joins two places at which every heading is free."""
        for level in range(1 + len(FOOTPRINT_GRIDS_M)):
            if level == len(self._levels):
                self._levels.append(self._compute(level))
            grid, regions = self._levels[level]
            if regions_at(grid, regions, a_m) & regions_at(grid, regions, b_m):
                return True
        return False

    def _compute(self, level: int) -> tuple[ObstacleGrid, NDArray[np.int64]]:
        if level == 0:
            grid = ObstacleGrid.of(self._scene, CIRCLE_GRID_M)
            return grid, circle_regions(grid, self._spec.radius_m)
        grid = ObstacleGrid.of(self._scene, FOOTPRINT_GRIDS_M[level - 1])
        return grid, footprint_regions(grid, self._spec.length_m, self._spec.width_m)


def circle_regions(grid: ObstacleGrid, radius_m: float) -> NDArray[np.int64]:
    """(1, nx, ny) region of each cell for a disc, 0 where it is not free.

    An edge of length h between cells that are R away from all obstacles stays sqrt(R^2 - h^2 / 4) away from them.
    """
    free = grid.distance_m >= math.hypot(radius_m, grid.resolution_m / 2)
    _, labels = cv2.connectedComponents(free.astype(np.uint8), connectivity=4)
    return np.asarray(labels, np.int64)[None]


def footprint_regions(grid: ObstacleGrid, length_m: float, width_m: float) -> NDArray[np.int64]:
    """(HEADINGS, nx, ny) region of each cell and heading for a rectangle, 0 where it is not free.

    The rectangle lies in DISCS discs. Between neighbouring cells, or neighbouring headings, their centres are at most
    `slack` away from where they are known to be free.
    """
    h = grid.resolution_m
    radius = math.hypot(length_m / (2 * DISCS), width_m / 2)
    arms = length_m * ((np.arange(DISCS) + 0.5) / DISCS - 0.5)
    slack = max(h / 2, float(arms[-1]) * math.pi / HEADINGS / 2)
    distance = grid.distance_m.astype(np.float32)
    size = (distance.shape[1], distance.shape[0])
    regions = np.zeros((HEADINGS, *distance.shape), np.int64)
    count = 0
    for k in range(HEADINGS):
        yaw = math.pi * k / HEADINGS
        near = np.full_like(distance, np.inf)
        for arm in arms:
            shift = np.array([[1, 0, arm * math.sin(yaw) / h], [0, 1, arm * math.cos(yaw) / h]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            near = np.minimum(near, cv2.warpAffine(distance, shift, size, None, flags, cv2.BORDER_REPLICATE))
        free = (near >= radius + slack + INTERPOLATION_M).astype(np.uint8)
        found, labels = cv2.connectedComponents(free, connectivity=4)
        regions[k] = np.where(free, labels + count, 0)
        count += found - 1
    return _joined_headings(regions, count)


def regions_at(grid: ObstacleGrid, regions: NDArray[np.int64], place_m: tuple[float, float]) -> set[int]:
    """Regions of the four cells round a place, in all headings."""
    gx = max(math.floor((place_m[0] - grid.origin_m[0]) / grid.resolution_m), 0)
    gy = max(math.floor((place_m[1] - grid.origin_m[1]) / grid.resolution_m), 0)
    return set(np.unique(regions[:, gx : gx + 2, gy : gy + 2]).tolist()) - {0}


def _joined_headings(regions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Gives one number to regions of neighbouring headings that share a cell."""
    parent = list(range(count + 1))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for k in range(HEADINGS):
        here, there = regions[k], regions[(k + 1) % HEADINGS]
        both = (here > 0) & (there > 0)
        pairs = here[both] * (count + 1) + there[both]
        for pair in np.flatnonzero(np.bincount(pairs)) if count < 300 else np.unique(pairs):
            a, b = root(int(pair) // (count + 1)), root(int(pair) % (count + 1))
            parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(count + 1)], np.int64)[regions]
