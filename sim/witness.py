"""A route of the footprint from start to goal as a list of poses, and the proof that the way between them is free.

The search works on a raster of its own; what it finds counts only once `certified_gap_m` has shown on the true shapes
that the footprint touches nothing, neither at the poses nor between them. Doors stand open.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from robonav.types import RobotSpec, Scene
from sim.exact import Floats, Solids, footprint_gap_m, solids_of

# Searches: headings over half a turn (a footprint looks the same backwards), raster, and whether the raster's and the
# turns' error is kept as a margin; without it a route grazes more, and what touches is found out afterwards.
SEARCHES = ((1, 0.05, True), (32, 0.05, False), (32, 0.02, False), (64, 0.02, True))
DISCS = 8  # along the footprint, together holding it
BISECTIONS = 10
GAP_MIN_M = 1e-4


def find_route(scene: Scene, spec: RobotSpec) -> tuple[Floats, float] | None:
    """(n, 3) poses x, y, yaw of a route, and its smallest distance to a solid; None if no search finds one.

    The first pose is the start with its heading, the last one lies at the goal. First with the circle round the
    footprint, which needs no turns; then with the footprint itself, on finer and finer rasters.
    """
    solids = solids_of(scene)
    for headings, resolution_m, margin in SEARCHES:
        free, origin = _free_cells(scene, solids, spec, resolution_m, headings, margin)
        cells = [
            tuple(math.floor((p[k] - origin[k]) / resolution_m) for k in (0, 1)) for p in (scene.start, scene.goal)
        ]
        way = _flood(free, *cells[0], *cells[1])  # from any heading: the turn at the start is looked at afterwards
        if not len(way):
            continue
        route = _poses(way, origin, resolution_m, headings, scene)
        gap_m = certified_gap_m(solids, route, spec)
        if gap_m > 0.0:
            return route, gap_m
    return None


def certified_gap_m(solids: Solids, route: Floats, spec: RobotSpec) -> float:
    """Smallest distance of the footprint from the solids at the poses of a route and between them; 0 if not shown free.

    From one pose to the next, no point of the footprint moves further than m = distance + radius * turn. If the
    distances at both ends add up to more than m, every pose between is free; else the middle is looked at as well.
    """
    begin, end = route[:-1], route[1:]
    gaps = footprint_gap_m(solids, route, spec)
    least, first, last = float(gaps.min()), gaps[:-1], gaps[1:]
    for _ in range(BISECTIONS):
        if least < GAP_MIN_M:
            return 0.0
        moved = np.hypot(*(end - begin)[:, :2].T) + spec.radius_m * np.abs(end[:, 2] - begin[:, 2])
        open_ = first + last <= moved
        if not open_.any():
            return least
        begin, end, first, last = begin[open_], end[open_], first[open_], last[open_]
        middle = (begin + end) / 2
        between = footprint_gap_m(solids, middle, spec)
        least = min(least, float(between.min()))
        begin, end = np.concatenate([begin, middle]), np.concatenate([middle, end])
        first, last = np.concatenate([first, between]), np.concatenate([between, last])
    return 0.0


def _free_cells(
    scene: Scene, solids: Solids, spec: RobotSpec, h: float, headings: int, margin: bool
) -> tuple[NDArray[np.bool_], tuple[float, float]]:
    """(headings, nx, ny) where the footprint (with one heading: the circle round it) is free, and the raster's corner.

    A solid fills every cell that it touches, so that it is nowhere nearer than the raster says, less half a diagonal.
    """
    x_min, y_min, x_max, y_max = scene.bounds_m
    nx, ny = math.ceil((x_max - x_min) / h) + 2, math.ceil((y_max - y_min) / h) + 2
    origin = (x_min - h, y_min - h)
    solid = np.zeros((nx, ny), np.uint8)  # to OpenCV the columns are y
    scale = 1 << 8
    corner = np.array(origin) + h / 2  # centre of cell (0, 0)
    for polygon in solids.corners_m:
        cv2.fillPoly(solid, [np.round((polygon - corner)[:, ::-1] / h * scale).astype(np.int32)], 1, cv2.LINE_8, 8)
    xs, ys = (corner[k] + h * np.arange(n) for k, n in enumerate((nx, ny)))
    for x, y, radius in solids.circles.tolist():
        i, j = (slice(*np.searchsorted(v, (p - radius - h, p + radius + h))) for v, p in ((xs, x), (ys, y)))
        solid[i, j] |= np.hypot(xs[i, None] - x, ys[None, j] - y) <= radius + h
    away = cv2.distanceTransform(1 - solid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * np.float32(h)
    away[[0, -1]] = 0.0
    away[:, [0, -1]] = 0.0
    if headings == 1:
        return (away >= spec.radius_m + h)[None], origin
    arms = spec.length_m * ((np.arange(DISCS) + 0.5) / DISCS - 0.5)
    least = math.hypot(spec.length_m / (2 * DISCS), spec.width_m / 2) + h / math.sqrt(2)
    if margin:  # a disc's place is rounded, and between two poses it is off by half of the step
        least += h / math.sqrt(2) + max(h / 2, float(arms[-1]) * math.pi / headings / 2)
    pad = math.ceil(spec.length_m / 2 / h) + 1
    padded = np.pad(away >= least, pad)
    free = np.ones((headings, nx, ny), np.bool_)
    for k in range(headings):
        yaw = math.pi * k / headings
        for arm in arms:
            i, j = pad + round(arm * math.cos(yaw) / h), pad + round(arm * math.sin(yaw) / h)
            free[k] &= padded[i : i + nx, j : j + ny]
    return free, origin


def _poses(way: NDArray[np.int64], origin: tuple[float, float], h: float, headings: int, scene: Scene) -> Floats:
    """The cells (n, 3) heading, i, j as poses with a continuous yaw, between the true start and the true goal."""
    places = np.array(origin) + (way[:, 1:] + 0.5) * h
    if headings == 1:
        yaw = np.full(len(way), scene.start[2])
    else:
        yaw = np.unwrap(way[:, 0] * (math.pi / headings), period=math.pi)
        yaw += math.pi * np.round((scene.start[2] - yaw[0]) / math.pi)
    body = np.column_stack([places, yaw])
    return np.vstack([scene.start, body, [*scene.goal, yaw[-1]]])


@njit(cache=True, nogil=True)
def _flood(free: Any, i0: int, j0: int, i1: int, j1: int) -> Any:
    """(n, 3) cells (heading, i, j) from the start's place to the first cell found at the goal's; (0, 3) without a way.

    Breadth first, over the four neighbours and to the next headings.
    """
    layers, nx, ny = free.shape
    came = np.full((layers, nx, ny), -1, np.int8)
    queue = np.empty(free.size, np.int64)
    first, last, found = 0, 0, -1
    for layer in range(layers):
        if free[layer, i0, j0]:
            queue[last] = (layer * nx + i0) * ny + j0
            last += 1
            came[layer, i0, j0] = 6
    di, dj, dk = (1, -1, 0, 0, 0, 0), (0, 0, 1, -1, 0, 0), (0, 0, 0, 0, 1, -1)
    while first < last:
        code = queue[first]
        first += 1
        k, i, j = code // (nx * ny), code // ny % nx, code % ny
        if i == i1 and j == j1:
            found = code
            break
        for way in range(6 if layers > 1 else 4):
            a, b, c = (k + dk[way]) % layers, i + di[way], j + dj[way]
            if 0 <= b < nx and 0 <= c < ny and free[a, b, c] and came[a, b, c] < 0:
                came[a, b, c] = way
                queue[last] = (a * nx + b) * ny + c
                last += 1
    count, code = 0, found
    route = np.empty((last if found >= 0 else 0, 3), np.int64)
    while code >= 0:
        k, i, j = code // (nx * ny), code // ny % nx, code % ny
        route[count] = (k, i, j)
        count += 1
        way = came[k, i, j]
        if way == 6:
            break
        code = (((k - dk[way]) % layers) * nx + i - di[way]) * ny + j - dj[way]
    return route[:count][::-1]
