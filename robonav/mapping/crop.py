"""The egocentric crop: what the policy sees of the map, turned with the robot."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from robonav.mapping.grid import FREE_BELOW, OCCUPIED_ABOVE, OccupancyGrid
from robonav.types import LOCAL_MAP_CHANNELS, LocalMapSpec

_ON = 255
_SUBPIXEL_BITS = 4  # polylines takes fixed-point vertices
_FREE, _OCCUPIED = 1, 2
_IS_FREE, _IS_OCCUPIED = np.zeros((2, 256), np.uint8)  # tables for cv2.LUT
_IS_FREE[_FREE] = _IS_OCCUPIED[_OCCUPIED] = _ON


def egocentric_crop(
    grid: OccupancyGrid, pose_odom_base: ArrayLike, local_map: LocalMapSpec, route_odom_m: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """(3, C, C) occupied, free and route round the robot, each 0 or 255; unknown is 0 in all.

    Row 0 lies ahead of the robot, column 0 to its left, the robot in the middle. Every occupied cell of the grid
    inside the crop is in the crop: sampling the turned grid alone would skip single cells, which are thin posts.

    Args:
        grid: the map.
        pose_odom_base: (x, y, yaw).
        local_map: size and resolution of the crop.
        route_odom_m: (n, 2) polyline to draw, or None.
    """
    size, scale = local_map.cells, local_map.resolution_m / grid.resolution_m
    x, y, yaw = np.asarray(pose_odom_base, np.float64).tolist()
    cos, sin = math.cos(yaw), math.sin(yaw)
    x0, y0 = grid.origin_odom_m.tolist()
    # in the crop: forward = middle - row, left = middle - column, as pixels whose centres are whole numbers
    middle = (size - 1) / 2
    robot_column = (x - x0) / grid.resolution_m - 0.5
    robot_row = (y - y0) / grid.resolution_m - 0.5
    reach = math.ceil(size * scale * 0.7072) + 2
    left, low = max(round(robot_column) - reach, 0), max(round(robot_row) - reach, 0)
    window = grid.log_odds[low : max(round(robot_row) + reach, 0), left : max(round(robot_column) + reach, 0)]
    robot_column, robot_row = robot_column - left, robot_row - low
    crop = np.zeros((len(LOCAL_MAP_CHANNELS), size, size), np.uint8)
    if window.size:
        to_grid = scale * np.array([[sin, -cos, (cos - sin) * middle], [-cos, -sin, (cos + sin) * middle]])
        to_grid[:, 2] += robot_column, robot_row
        occupied = window > OCCUPIED_ABOVE
        states = (window < FREE_BELOW).view(np.uint8)
        states[occupied] = _OCCUPIED
        turned = cv2.warpAffine(states, to_grid, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        rows, columns = np.divmod(np.flatnonzero(occupied), window.shape[1])
        cells = (columns - robot_column) + 1j * (rows - robot_row)
        cells *= complex(cos, -sin) / scale
        cells = middle * (1 + 1j) - cells
        row, column = np.rint(cells.real).astype(np.intp), np.rint(cells.imag).astype(np.intp)
        inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
        turned[row[inside], column[inside]] = _OCCUPIED
        crop[0] = cv2.LUT(turned, _IS_OCCUPIED)
        crop[1] = cv2.LUT(turned, _IS_FREE)
    if route_odom_m is not None and len(route_odom_m):
        _draw_route(crop[2], route_odom_m, (x, y, yaw), local_map)
    return crop


def _draw_route(
    channel: NDArray[np.uint8], route_odom_m: NDArray[Any], pose: tuple[float, float, float], local_map: LocalMapSpec
) -> None:
    """Draws a polyline (n, 2) into a fresh channel."""
    x, y, yaw = pose
    line = np.ascontiguousarray(route_odom_m, np.float64).view(np.complex128)[:, 0]
    base = (line - complex(x, y)) * complex(math.cos(yaw), -math.sin(yaw))
    middle = (local_map.cells - 1) / 2 * (1 + 1j)
    pixels = (middle - base / local_map.resolution_m) * (1 << _SUBPIXEL_BITS)  # row + i column
    # OpenCV clips in fixed point: far points must not overflow it
    vertices = np.rint(pixels.view(np.float64).clip(-1e6, 1e6)).astype(np.int32).reshape(-1, 2)[:, ::-1]
    cv2.polylines(channel, [np.ascontiguousarray(vertices)], False, _ON, 1, cv2.LINE_8, _SUBPIXEL_BITS)
