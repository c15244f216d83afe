"""Grids of solid cells as few rectangles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def merge_cells(solid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Covers the True cells by disjoint rectangles (n, 4) row, column, rows, columns: greedily right, then down."""
    left = solid.copy()
    rectangles = []
    for row in range(left.shape[0]):
        while left[row].any():
            column = int(left[row].argmax())
            line = left[row, column:]
            columns = left.shape[1] - column if line.all() else int(line.argmin())
            whole = left[row:, column : column + columns].all(axis=1)
            rows = left.shape[0] - row if whole.all() else int(whole.argmin())
            left[row : row + rows, column : column + columns] = False
            rectangles.append((row, column, rows, columns))
    return np.array(rectangles, np.int64).reshape(-1, 4)
