"""Ramps and steps: the floor's height, and bodies for worlds in which robots walk."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.types import Scene

_LOW = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], np.float64)
_RAMP = np.concatenate([_LOW, [[0.5, -0.5, 1], [0.5, 0.5, 1]]])  # corners of a wedge of length, width and rise 1
_STEP = np.concatenate([_LOW, _LOW + np.array([0, 0, 1])])
# Corners of the faces that can be seen, anticlockwise from outside.
_WEDGE_FACES = ((0, 4, 5, 3), (0, 1, 4), (2, 3, 5), (1, 2, 5, 4))
_BLOCK_FACES = ((4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))


def floor_height_m(scene: Scene, points_world_m: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 2) points to (...) heights of the floor there; where shapes overlap, the highest."""
    p = np.asarray(points_world_m, np.float64)
    height = np.zeros(p.shape[:-1])
    for rows, sloped in ((scene.ramps, True), (scene.steps, False)):
        for x, y, length, width, yaw, rise in np.asarray(rows, np.float64):
            c, s = math.cos(yaw), math.sin(yaw)
            dx, dy = p[..., 0] - x, p[..., 1] - y
            along, across = c * dx + s * dy, c * dy - s * dx
            on = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
            here = rise * (along / length + 0.5) if sloped else np.full_like(along, rise)
            height = np.where(on, np.maximum(height, here), height)
    return np.asarray(height)


def add_terrain(bullet: Any, client: int, scene: Scene, rgba: tuple[float, ...] | None = None) -> list[int]:
    """Creates the ramps and steps of a scene as static bodies; returns their ids."""
    bodies = []
    for rows, corners in ((scene.ramps, _RAMP), (scene.steps, _STEP)):
        for x, y, length, width, yaw, rise in np.asarray(rows, np.float64).tolist():
            hull = (corners * [length, width, rise]).tolist()
            shape = bullet.createCollisionShape(bullet.GEOM_MESH, vertices=hull, physicsClientId=client)
            visual = -1
            if rgba is not None:
                visual = _seen(bullet, client, np.array(hull), rgba)
            turn = [0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)]
            bodies.append(
                int(
                    bullet.createMultiBody(
                        0.0, shape, visual, basePosition=[x, y, 0.0], baseOrientation=turn, physicsClientId=client
                    )
                )
            )
    return bodies


def _seen(bullet: Any, client: int, corners: NDArray[np.float64], rgba: tuple[float, ...]) -> int:
    """A visual shape of the faces of a wedge (6 corners) or a block (8), each with its own normal; returns its id."""
    points: list[list[float]] = []
    normals: list[list[float]] = []
    indices: list[int] = []
    for face in _WEDGE_FACES if len(corners) == 6 else _BLOCK_FACES:
        normal = np.cross(corners[face[1]] - corners[face[0]], corners[face[2]] - corners[face[0]])
        first = len(points)
        points += corners[list(face)].tolist()
        normals += [(normal / max(float(np.linalg.norm(normal)), 1e-12)).tolist()] * len(face)
        indices += [first + k for j in range(2, len(face)) for k in (0, j - 1, j)]
    return int(
        bullet.createVisualShape(
            bullet.GEOM_MESH,
            vertices=points,
            indices=indices,
            normals=normals,
            uvs=[[0.0, 0.0]] * len(points),
            rgbaColor=rgba,
            physicsClientId=client,
        )
    )
