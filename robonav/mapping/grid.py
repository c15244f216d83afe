"""The occupancy grid as an immutable value.

Cell (row, column) covers the square ``origin + resolution * [column, column + 1) x [row, row + 1)`` in odom, so
rows grow with y and columns with x. The origin lies on the lattice of whole cells, hence a cell keeps its lattice
index ``(floor(x / resolution), floor(y / resolution))`` while the grid grows round it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

OCCUPIED_ABOVE = 0.3  # log-odds; p > 0.57
FREE_BELOW = -0.3  # log-odds; p < 0.43, and in between a cell counts as unknown


@dataclass(frozen=True, slots=True)
class OccupancyGrid:
    """Log-odds of occupancy; 0 where nothing is known. The arrays are read-only."""

    log_odds: NDArray[np.float32]  # (H, W)
    origin_odom_m: NDArray[np.float64]  # (2,) x, y of the outer corner of cell (0, 0)
    resolution_m: float

    def __post_init__(self) -> None:
        """Locks the arrays, since several grids may share them."""
        self.log_odds.flags.writeable = False
        self.origin_odom_m.flags.writeable = False

    @property
    def origin_cell(self) -> tuple[int, int]:
        """Lattice index (column, row) of cell (0, 0)."""
        x, y = self.origin_odom_m.tolist()
        return round(x / self.resolution_m), round(y / self.resolution_m)

    @property
    def occupied(self) -> NDArray[np.bool_]:
        """(H, W) where something stands."""
        return self.log_odds > OCCUPIED_ABOVE

    @property
    def free(self) -> NDArray[np.bool_]:
        """(H, W) where beams went through."""
        return self.log_odds < FREE_BELOW

    def cell_of(self, points_odom_m: ArrayLike) -> NDArray[np.int64]:
        """(..., 2) points to (..., 2) cells (row, column); they may lie outside the grid."""
        p = (np.asarray(points_odom_m, dtype=np.float64) - self.origin_odom_m) / self.resolution_m
        return np.floor(p[..., ::-1]).astype(np.int64)

    def centre_of(self, cells: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) cells (row, column) to (..., 2) odom coordinates of their centres."""
        c = np.asarray(cells, dtype=np.float64)[..., ::-1]
        return self.origin_odom_m + (c + 0.5) * self.resolution_m

    def covers(self, column: int, row: int, column_end: int, row_end: int) -> bool:
        """Whether the lattice box [column, column_end) x [row, row_end) lies inside the grid."""
        c0, r0 = self.origin_cell
        height, width = self.log_odds.shape
        return c0 <= column and r0 <= row and column_end <= c0 + width and row_end <= r0 + height

    def reframed(self, column: int, row: int, column_end: int, row_end: int) -> OccupancyGrid:
        """The same map over another lattice box: what both cover is kept, what is new is unknown."""
        c0, r0 = self.origin_cell
        height, width = self.log_odds.shape
        log_odds = np.zeros((row_end - row, column_end - column), np.float32)
        left, right = max(column, c0), min(column_end, c0 + width)
        low, high = max(row, r0), min(row_end, r0 + height)
        if left < right and low < high:
            kept = self.log_odds[low - r0 : high - r0, left - c0 : right - c0]
            log_odds[low - row : high - row, left - column : right - column] = kept
        origin = np.array([column * self.resolution_m, row * self.resolution_m])
        return OccupancyGrid(log_odds, origin, self.resolution_m)

    def known_box(self) -> tuple[int, int, int, int] | None:
        """Lattice box (column, row, column_end, row_end) round everything seen so far; None when nothing was."""
        column, row, width, height = cv2.boundingRect((self.log_odds != 0).view(np.uint8))
        if not width:
            return None
        c0, r0 = self.origin_cell
        return c0 + column, r0 + row, c0 + column + width, r0 + row + height

    def cropped(self, column: int, row: int, column_end: int, row_end: int) -> OccupancyGrid:
        """The part of the grid inside a lattice box that meets it; the memory is shared."""
        c0, r0 = self.origin_cell
        height, width = self.log_odds.shape
        left, low = min(max(column - c0, 0), width - 1), min(max(row - r0, 0), height - 1)
        part = self.log_odds[low : max(row_end - r0, low + 1), left : max(column_end - c0, left + 1)]
        return OccupancyGrid(part, self.origin_odom_m + np.array([left, low]) * self.resolution_m, self.resolution_m)
