"""BARN worlds (Perille et al., "Benchmarking Metric Ground Navigation", SSRR 2020): 30 x 30 grids of cylinders.

Geometry and time limit are the public challenge's: cell (r, c) stands at x = -4.425 + 0.15 r, y = 5.175 + 0.15 c.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import SceneError, explain
from robonav.types import Scene

CELL_M = 0.15
SHAPE = (30, 30)
CYLINDER_RADIUS_M = 0.075
GRID_ORIGIN_M = (-4.425, 5.175)  # centre of cell (0, 0)
START = (-2.25, 3.0, float(np.pi / 2))
GOAL_M = (-2.25, 13.0)
GOAL_RADIUS_M = 1.0
TIME_LIMIT_S = 100.0
# Rows of cylinders that close the field behind and beside the start in every .world file, as walls.
ENCLOSURE_M = ((-4.5, 0.075, 0.0, 0.075), (-4.425, 0.0, -4.425, 5.1), (-0.075, 0.0, -0.075, 5.1))
BOUNDS_M = (-5.5, -0.5, 1.0, 14.5)


def load_barn(path: str | Path) -> Scene:
    """Reads a ``grid_I.npy`` as a scene with a cylinder for each occupied cell.

    Raises:
        SceneError: missing file, no .npy, another shape, or cells that are neither 0 nor 1.
    """
    grid = _load_array(path)
    if grid.shape != SHAPE:
        raise SceneError(explain(str(path), f"a BARN grid of shape {SHAPE}", grid.shape))
    if not (np.issubdtype(grid.dtype, np.integer) or grid.dtype == np.bool_) or not np.isin(grid, (0, 1)).all():
        raise SceneError(explain(str(path), "integers 0 (free) and 1 (obstacle)", f"other values ({grid.dtype})"))
    return barn_scene(grid, f"barn-{Path(path).stem.removeprefix('grid_')}")


def barn_scene(grid: NDArray[Any], name: str) -> Scene:
    """The scene of a (30, 30) grid of 0 and 1, with BARN's task."""
    cells = np.argwhere(grid == 1)
    centres = np.array(GRID_ORIGIN_M) + CELL_M * cells
    cylinders = np.column_stack([centres, np.full(len(cells), CYLINDER_RADIUS_M)])
    walls = [(*ends, 2 * CYLINDER_RADIUS_M) for ends in ENCLOSURE_M]
    return Scene(
        name=name,
        bounds_m=BOUNDS_M,
        start=START,
        goal=GOAL_M,
        walls=np.array(walls, np.float32),
        cylinders=cylinders.astype(np.float32),
        goal_radius_m=GOAL_RADIUS_M,
        time_limit_s=TIME_LIMIT_S,
    )


def load_barn_path(path: str | Path) -> NDArray[np.float64]:
    """Reads a ``path_I.npy``: (n, 2) world points of the reference path, from the start over its cells to the goal.

    The points are the cells' true places; the public score shifts them (see `robonav.evaluation.barn`).

    Raises:
        SceneError: missing file, no .npy, or cells that do not lead from column 0 to column 29 of the grid.
    """
    cells = _load_array(path)
    if cells.ndim != 2 or cells.shape[1:] != (2,) or not np.issubdtype(cells.dtype, np.integer):
        raise SceneError(explain(str(path), "path cells (n, 2) of integers", f"{cells.dtype} {cells.shape}"))
    inside = ((cells >= 0) & (cells < SHAPE)).all()
    if not inside or not len(cells) or cells[0, 1] != 0 or cells[-1, 1] != SHAPE[1] - 1:
        raise SceneError(explain(str(path), f"cells from column 0 to {SHAPE[1] - 1} of a BARN grid", "other cells"))
    return np.vstack([START[:2], np.array(GRID_ORIGIN_M) + CELL_M * cells, GOAL_M])


def _load_array(path: str | Path) -> NDArray[Any]:
    try:
        with Path(path).open("rb") as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return array
    except FileNotFoundError:
        raise SceneError(explain(str(path), "a .npy file", "no such file", "check the path")) from None
    except (ValueError, EOFError) as error:
        raise SceneError(f"{path}: no valid .npy array ({error})") from None
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror})") from None
