"""Any scene as a ROS map_server map: a .yaml and a .pgm beside it. Movers, ramps and steps are left out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robonav.errors import SceneError, explain
from robonav.files import atomic_path, write_text_atomic
from robonav.types import Scene
from sim.geodesic import all_boxes, box_distance_m, cylinder_distance_m

CELLS_MAX = 100_000_000
OCCUPIED, FREE = 0, 254  # grey levels


def occupancy(scene: Scene, resolution_m: float) -> NDArray[np.bool_]:
    """(rows, columns) solid cells of a scene's bounds, row 0 at the lowest y.

    A cell is solid if a shape comes within half a cell of its centre, so that no thin wall gets lost.

    Raises:
        SceneError: the resolution is not positive, or so fine that the map would be huge.
    """
    if not (math.isfinite(resolution_m) and resolution_m > 0):
        raise SceneError(explain("resolution", "metres a cell, above 0", resolution_m))
    x_min, y_min, x_max, y_max = scene.bounds_m
    columns = max(1, math.ceil((x_max - x_min) / resolution_m - 1e-6))
    rows = max(1, math.ceil((y_max - y_min) / resolution_m - 1e-6))
    if rows * columns > CELLS_MAX:
        raise SceneError(explain("resolution", f"a map of at most {CELLS_MAX} cells", f"{columns} x {rows}"))
    xs = x_min + (np.arange(columns) + 0.5) * resolution_m
    ys = y_min + (np.arange(rows) + 0.5) * resolution_m
    solid = np.zeros((rows, columns), np.bool_)
    near = 0.499 * resolution_m  # less than half, so that a map that is exported again does not grow

    def window(x: float, y: float, reach: float) -> tuple[slice, slice]:
        j0, j1 = np.searchsorted(xs, (x - reach - near, x + reach + near))
        i0, i1 = np.searchsorted(ys, (y - reach - near, y + reach + near))
        return slice(i0, i1), slice(j0, j1)

    for box in all_boxes(scene):
        i, j = window(box[0], box[1], math.hypot(box[2], box[3]) / 2)
        solid[i, j] |= box_distance_m(box, xs[None, j], ys[i, None]) <= near
    for cylinder in np.asarray(scene.cylinders, np.float64).reshape(-1, 3):
        i, j = window(cylinder[0], cylinder[1], cylinder[2])
        solid[i, j] |= cylinder_distance_m(cylinder, xs[None, j], ys[i, None]) <= near
    return solid


def export_map(scene: Scene, path: str | Path, resolution_m: float = 0.05) -> None:
    """Writes NAME.yaml and NAME.pgm; the task stands in the .yaml as comments.

    Raises:
        SceneError: the path is no .yaml, or the resolution is out of range.
        RobonavError: a file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        raise SceneError(explain(str(path), "a map's name that ends in .yaml", f"'{path.suffix}'"))
    solid = occupancy(scene, resolution_m)
    picture = np.where(solid[::-1], OCCUPIED, FREE).astype(np.uint8)
    rows, columns = picture.shape
    image = path.with_suffix(".pgm")
    with atomic_path(image) as aside:
        aside.write_bytes(f"P5\n{columns} {rows}\n255\n".encode() + picture.tobytes())
    start, goal = ", ".join(f"{v:.4f}" for v in scene.start), ", ".join(f"{v:.4f}" for v in scene.goal)
    write_text_atomic(
        path,
        f"# {scene.name}\n"
        f"# start: [{start}]\n"
        f"# goal: [{goal}]\n"
        f"image: {image.name}\n"
        f"mode: trinary\n"
        f"resolution: {resolution_m}\n"
        f"origin: [{scene.bounds_m[0]!r}, {scene.bounds_m[1]!r}, 0.0]\n"
        f"negate: 0\n"
        f"occupied_thresh: 0.65\n"
        f"free_thresh: 0.196\n",
    )
