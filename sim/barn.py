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
    cells = np.argwhere(grid == 1)
    centres = np.array(GRID_ORIGIN_M) + CELL_M * cells
    cylinders = np.column_stack([centres, np.full(len(cells), CYLINDER_RADIUS_M)])
    walls = [(*ends, 2 * CYLINDER_RADIUS_M) for ends in ENCLOSURE_M]
    return Scene(
        name=f"barn-{Path(path).stem.removeprefix('grid_')}",
        bounds_m=BOUNDS_M,
        start=START,
        goal=GOAL_M,
        walls=np.array(walls, np.float32),
        cylinders=cylinders.astype(np.float32),
        goal_radius_m=GOAL_RADIUS_M,
        time_limit_s=TIME_LIMIT_S,
    )


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
