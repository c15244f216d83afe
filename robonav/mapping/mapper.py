"""Log-odds mapping of lidar scans at odometry poses (Moravec and Elfes 1985; Thrun et al., Probabilistic Robotics 9).

A scan's free space is one filled polygon and not a ray per beam: cells between neighbouring beams count as free
when both beams pass them. Cells that a beam ends in win over free ones of the same scan, so that thin posts stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, ShapeError, explain
from robonav.mapping.grid import OccupancyGrid
from robonav.types import Observation, RobotSpec

_SUBPIXEL_BITS = 4  # fillPoly takes fixed-point vertices
_UNSEEN, _FREE, _HIT = 0, 1, 2
Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in odom, metres
_WAY_ROUND_M = 0.5  # width of unknown ground round the known that routes may use
_JOIN_AT = np.array([0.0, 0.25, 0.5, 0.75])[:, None]


@dataclass(frozen=True, slots=True)
class MapperConfig:
    """Evidence, clamping and growth of the grid."""

    resolution_m: float = 0.1
    hit_log_odds: float = 1.2  # added where a beam ends; 3 x the free step, so one hit in three passes keeps a post
    free_log_odds: float = -0.4  # added where beams pass
    log_odds_min: float = -2.0  # two hits turn the freest cell into an occupied one
    log_odds_max: float = 3.0  # seven passes clear a cell that something has left
    min_range_m: float = 0.05  # shorter returns say nothing
    block_cells: int = 16  # the grid grows by whole blocks
    max_side_m: float = 80.0  # beyond it the map forgets what is far from the robot

    def __post_init__(self) -> None:
        """Checks how the values relate.

        Raises:
            ConfigError: a sign or an order that cannot map anything.
        """
        if self.resolution_m <= 0 or self.block_cells < 1:
            raise ConfigError(
                explain("mapper: resolution_m, block_cells", "above 0", (self.resolution_m, self.block_cells))
            )
        if not self.log_odds_min < self.free_log_odds < 0 < self.hit_log_odds < self.log_odds_max:
            order = "log_odds_min < free_log_odds < 0 < hit_log_odds < log_odds_max"
            values = (self.log_odds_min, self.free_log_odds, self.hit_log_odds, self.log_odds_max)
            raise ConfigError(explain("mapper", order, values))
        if self.max_side_m < 4 * self.block_cells * self.resolution_m:
            raise ConfigError(explain("mapper: max_side_m", "at least 4 blocks", self.max_side_m))


def way_round_cells(spec: RobotSpec, resolution_m: float) -> int:
    """Cells of unknown ground round the known that routes may use: there is a way for the robot round what it sees."""
    return int((spec.radius_m + _WAY_ROUND_M) / resolution_m)


def growth_cells(spec: RobotSpec, resolution_m: float) -> tuple[int, int]:
    """Cells that a map must reach beyond what a scan sees, so that a route has its way round; and where it grows to."""
    least = way_round_cells(spec, resolution_m) + 1
    return least, max(math.ceil(1.0 / resolution_m), least + 1)


class Mapper:
    """Turns observations into maps. Holds constants only: the map goes in and the next one comes out."""

    def __init__(self, spec: RobotSpec, config: MapperConfig | None = None) -> None:
        self.spec = spec
        self.config = config or MapperConfig()
        lidar, c = spec.lidar, self.config
        self._growth = growth_cells(spec, c.resolution_m)
        self._full_circle = lidar.fov_rad >= 2 * np.pi - 1e-6
        # ends lie a little behind the surface, since a surface often is the very border between two cells
        self._into_surface_m = 0.1 * c.resolution_m
        self._beam_directions = np.exp(1j * lidar.angles_rad)  # (beams,) in base
        # (2 * beams,) the polygon's vertices: every beam, and half-way to the next one
        angles = np.repeat(lidar.angles_rad, 2)
        angles[1::2] += lidar.increment_rad / 2
        self._vertex_directions = np.exp(1j * angles)
        self._evidence = np.zeros(256, np.float32)  # by what a cell was seen as; OpenCV's tables have 256 entries
        self._evidence[[_FREE, _HIT]] = c.free_log_odds, c.hit_log_odds

    def reset(self) -> OccupancyGrid:
        """An unknown map round the start."""
        half = self.config.block_cells
        empty = np.zeros((2 * half, 2 * half), np.float32)
        corner = -half * self.config.resolution_m
        return OccupancyGrid(empty, np.array([corner, corner]), self.config.resolution_m)

    def update(self, grid: OccupancyGrid, observation: Observation) -> OccupancyGrid:
        """The map after one more observation; `grid` is left as it is.

        Without a scan the map only grows, so that it holds robot and goal.

        Raises:
            ShapeError: a scan of another number of beams, or a pose or goal that is not finite.
        """
        x, y, yaw = (float(v) for v in observation.pose_odom_base)
        goal_x, goal_y = (float(v) for v in observation.goal_odom_m)
        if not math.isfinite(x + y + yaw + goal_x + goal_y):
            where = "pose_odom_base, goal_odom_m"
            raise ShapeError(explain(where, "finite numbers", (x, y, yaw, goal_x, goal_y)))
        if observation.scan_m is None:
            return self._grown(grid, x, y, observation.goal_odom_m, (x, y, x, y))
        scan = np.asarray(observation.scan_m, dtype=np.float64)
        if scan.shape != self._beam_directions.shape:
            where = f"scan_m for robot '{self.spec.name}'"
            raise ShapeError(explain(where, self._beam_directions.shape, scan.shape, "set lidar.beams of the robot"))
        heading = complex(math.cos(yaw), math.sin(yaw))
        sensor = complex(x, y) + self.spec.lidar.mount_x_m * heading
        polygon = self._free_polygon(scan, sensor, heading)
        hits = self._hits(scan, sensor, heading)
        ends = np.concatenate((polygon, hits))
        box = (float(ends.real.min()), float(ends.imag.min()), float(ends.real.max()), float(ends.imag.max()))
        grid = self._grown(grid, x, y, observation.goal_odom_m, box)
        return self._with_evidence(grid, polygon, hits, box)

    def _free_polygon(self, scan: NDArray[np.float64], sensor: complex, heading: complex) -> NDArray[np.complex128]:
        """Outline of what the scan saw free, as complex x + iy in odom.

        Half-way between two beams only the shorter of both counts.
        """
        # fmax and fmin turn a beam that is NaN into one that ends at the sensor
        reach = np.fmin(np.fmax(scan, 0.0) + self._into_surface_m, self.spec.lidar.range_m)
        vertices = np.repeat(reach, 2)
        np.minimum(reach[:-1], reach[1:], out=vertices[1:-1:2])
        directions = self._vertex_directions * heading
        if self._full_circle:
            vertices[-1] = min(reach[-1], reach[0])
            return sensor + vertices * directions
        outline = sensor + vertices[:-1] * directions[:-1]
        return np.concatenate((outline, [sensor]))

    def _hits(self, scan: NDArray[np.float64], sensor: complex, heading: complex) -> NDArray[np.complex128]:
        """Points on what the beams met, as complex x + iy in odom.

        Neighbouring hits that are closer than the robot is wide are joined, so that a wall seen from afar or at a
        grazing angle has no holes; the robot could not pass between them anyway.
        """
        c, lidar = self.config, self.spec.lidar
        hit = np.flatnonzero((scan >= c.min_range_m) & (scan < lidar.range_m - 1e-3))
        points = sensor + (scan[hit] + self._into_surface_m) * (self._beam_directions[hit] * heading)
        if len(hit) < 2:
            return points
        step = np.empty_like(points)
        np.subtract(points[1:], points[:-1], out=step[:-1])
        step[-1] = points[0] - points[-1]
        gap = np.empty_like(hit)
        np.subtract(hit[1:], hit[:-1], out=gap[:-1])
        gap[-1] = hit[0] + len(scan) - hit[-1] if self._full_circle else 0
        step[(gap != 1) | (np.abs(step) >= self.spec.width_m)] = 0.0
        joined: NDArray[np.complex128] = (points + _JOIN_AT * step).ravel()
        return joined

    def _grown(
        self, grid: OccupancyGrid, x: float, y: float, goal_odom_m: NDArray[np.float32], seen_box_m: Box
    ) -> OccupancyGrid:
        """A grid that holds robot, goal and scan with a way round them; the same object when it holds them already."""
        c = self.config
        cell, block = c.resolution_m, c.block_cells
        goal_x, goal_y = (float(v) for v in goal_odom_m)
        least, margin = self._growth
        low_x, high_x = min(x - 1.0, goal_x - 1.0, seen_box_m[0]), max(x + 1.0, goal_x + 1.0, seen_box_m[2])
        low_y, high_y = min(y - 1.0, goal_y - 1.0, seen_box_m[1]), max(y + 1.0, goal_y + 1.0, seen_box_m[3])
        box = [math.floor(low_x / cell), math.floor(low_y / cell), math.floor(high_x / cell), math.floor(high_y / cell)]
        if grid.covers(box[0] - least, box[1] - least, box[2] + least + 1, box[3] + least + 1):
            return grid
        height, width = grid.log_odds.shape
        column, row = grid.origin_cell
        frame: list[int] = []
        limit = int(c.max_side_m / cell) // block * block
        for start, size, low, high, here in (
            (column, width, box[0], box[2], x),
            (row, height, box[1], box[3], y),
        ):
            first = min(start, math.floor((low - margin) / block) * block)
            end = max(start + size, math.ceil((high + margin) / block) * block)
            if end - first > limit:
                first = (math.floor(here / cell) - limit // 2) // block * block
                end = first + limit
            frame += [first, end]
        if (frame[0], frame[2], frame[1], frame[3]) == (column, row, column + width, row + height):
            return grid
        return grid.reframed(frame[0], frame[2], frame[1], frame[3])

    def _with_evidence(
        self,
        grid: OccupancyGrid,
        polygon: NDArray[np.complex128],
        hits: NDArray[np.complex128],
        seen_box_m: Box,
    ) -> OccupancyGrid:
        """Adds one scan's evidence inside the window that it touches."""
        c = self.config
        height, width = grid.log_odds.shape
        scale = 1.0 / grid.resolution_m
        x0, y0 = grid.origin_odom_m.tolist()
        origin = complex(x0, y0)
        low_x, low_y = math.floor((seen_box_m[0] - x0) * scale), math.floor((seen_box_m[1] - y0) * scale)
        high_x, high_y = math.floor((seen_box_m[2] - x0) * scale), math.floor((seen_box_m[3] - y0) * scale)
        left, right = max(low_x - 1, 0), min(high_x + 2, width)
        low, high = max(low_y - 1, 0), min(high_y + 2, height)
        # a map at its largest size may leave part of the scan outside
        grid_holds_scan = left < low_x and high_x + 1 < right and low < low_y and high_y + 1 < high
        if left >= right or low >= high:
            return grid
        seen = np.full((high - low, right - left), _UNSEEN, np.uint8)
        corner = complex(left, low)
        # pixel centres are whole numbers for fillPoly, and halves in cell coordinates
        outline = ((polygon - origin) * scale - (corner + complex(0.5, 0.5))) * (1 << _SUBPIXEL_BITS)
        vertices = np.rint(outline.view(np.float64)).astype(np.int32).reshape(-1, 2)
        cv2.fillPoly(seen, [vertices], _FREE, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
        # the outline itself proves nothing: along a wall at a grazing angle it would rub the wall out
        cv2.polylines(seen, [vertices], True, _UNSEEN, 1, cv2.LINE_8, _SUBPIXEL_BITS)
        cells = (hits - origin) * scale - corner
        columns, rows = np.floor(cells.real).astype(np.intp), np.floor(cells.imag).astype(np.intp)
        if not grid_holds_scan:
            inside = (columns >= 0) & (rows >= 0) & (columns < right - left) & (rows < high - low)
            columns, rows = columns[inside], rows[inside]
        seen[rows, columns] = _HIT
        window = grid.log_odds[low:high, left:right] + cv2.LUT(seen, self._evidence)
        np.maximum(window, c.log_odds_min, out=window)
        np.minimum(window, c.log_odds_max, out=window)
        log_odds = grid.log_odds.copy()
        log_odds[low:high, left:right] = window
        return OccupancyGrid(log_odds, grid.origin_odom_m, grid.resolution_m)
