"""What stands and moves in B worlds, as padded arrays.

A box is a row (x, y, half length, half width, cos yaw, sin yaw), a cylinder (x, y, radius), as in `sim.movers`. A mover
is a row like a box; half width 0 says that it is a disc, whose radius stands at half length.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.types import Scene
from sim.analytic.bits import Array
from sim.geodesic import all_boxes


class Shapes(NamedTuple):
    """Shapes of B worlds."""

    boxes: Array  # (B, S, 6)
    box_count: Array  # (B,) int64
    cylinders: Array  # (B, C, 3)
    cylinder_count: Array  # (B,) int64
    bounds_m: Array  # (B, 4) x_min, y_min, x_max, y_max
    movers: Array  # (B, M, 6)
    mover_count: Array  # (B,) int64
    mover_height_m: Array  # (B, M)
    height_m: Array  # (B,) of what stands still


class Solid(NamedTuple):
    """What stands still in one scene."""

    boxes: NDArray[np.float64]  # (S, 6)
    cylinders: NDArray[np.float64]  # (C, 3)


def solid_of(scene: Scene) -> Solid:
    """Walls and boxes as boxes, and the cylinders."""
    boxes = all_boxes(scene)
    turned = np.column_stack([boxes[:, :2], boxes[:, 2:4] / 2, np.cos(boxes[:, 4]), np.sin(boxes[:, 4])])
    return Solid(turned, np.array(scene.cylinders, np.float64).reshape(-1, 3))


def new_shapes(batch: int, boxes: int = 0, cylinders: int = 0, movers: int = 0) -> Shapes:
    """Empty worlds with room for so many shapes each."""
    return Shapes(
        boxes=np.zeros((batch, boxes, 6)),
        box_count=np.zeros(batch, np.int64),
        cylinders=np.zeros((batch, cylinders, 3)),
        cylinder_count=np.zeros(batch, np.int64),
        bounds_m=np.zeros((batch, 4)),
        movers=np.zeros((batch, movers, 6)),
        mover_count=np.zeros(batch, np.int64),
        mover_height_m=np.zeros((batch, movers)),
        height_m=np.zeros(batch),
    )


def with_room(shapes: Shapes, boxes: int, cylinders: int, movers: int) -> Shapes:
    """The same shapes; with longer arrays where those are too short."""
    have = (shapes.boxes.shape[1], shapes.cylinders.shape[1], shapes.movers.shape[1])
    if have[0] >= boxes and have[1] >= cylinders and have[2] >= movers:
        return shapes
    most = (math.ceil(max(n, 1.5 * m)) if m > n else n for n, m in zip(have, (boxes, cylinders, movers), strict=True))
    new = new_shapes(len(shapes.box_count), *most)
    for name in Shapes._fields:
        old = getattr(shapes, name)
        getattr(new, name)[tuple(slice(n) for n in old.shape)] = old
    return new


def put(shapes: Shapes, b: int, scene: Scene, solid: Solid) -> Shapes:
    """The shapes with a scene in world b, in place where there is room; `sim.analytic.movers` sees to its movers."""
    shapes = with_room(shapes, len(solid.boxes), len(solid.cylinders), len(scene.movers))
    shapes.boxes[b, : len(solid.boxes)] = solid.boxes
    shapes.cylinders[b, : len(solid.cylinders)] = solid.cylinders
    shapes.box_count[b], shapes.cylinder_count[b] = len(solid.boxes), len(solid.cylinders)
    shapes.bounds_m[b] = scene.bounds_m
    shapes.mover_count[b] = len(scene.movers)
    shapes.mover_height_m[b, : len(scene.movers)] = [mover.height_m for mover in scene.movers]
    shapes.height_m[b] = scene.height_m
    return shapes
