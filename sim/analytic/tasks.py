"""The tasks of B worlds: where start and goal are, how long the way is, and when an episode is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.analytic.batch import State
from sim.analytic.bits import Array
from sim.analytic.jit import inner, kernel
from sim.analytic.pool import ReadyScene

GOING, SUCCESS, COLLISION, TIMEOUT = range(4)  # how an episode ended


class Tasks:
    """Arrays of B tasks."""

    def __init__(self, batch: int) -> None:
        self.start = np.zeros((batch, 3))  # x, y, yaw in the world
        self.goal = np.zeros((batch, 3))  # x, y, radius in the world
        self.limit_s = np.zeros(batch)
        self.shortest_m = np.zeros(batch)
        self.remaining_m = np.zeros(batch)
        self.steps = np.zeros(batch, np.int64)
        self.names: NDArray[Any] = np.full(batch, None, object)
        self._fields = np.zeros((batch, 2, 2))
        self._frames = np.zeros((batch, 5))  # of each field: x, y of its first cell, resolution, cells along x and y

    def start_in(self, worlds: NDArray[np.int64], scenes: Sequence[ReadyScene]) -> None:
        """Puts tasks into some worlds."""
        for b, ready in zip(worlds.tolist(), scenes, strict=True):
            scene, field = ready.scene, ready.field
            self.start[b], self.goal[b] = scene.start, (*scene.goal, scene.goal_radius_m)
            self.limit_s[b], self.shortest_m[b], self.names[b] = scene.time_limit_s, ready.shortest_m, scene.name
            self.steps[b] = 0
            nx, ny = field.length_m.shape
            if nx > self._fields.shape[1] or ny > self._fields.shape[2]:
                old = self._fields
                self._fields = np.zeros((len(old), max(nx, old.shape[1]), max(ny, old.shape[2])))
                self._fields[:, : old.shape[1], : old.shape[2]] = old
            self._fields[b, :nx, :ny] = field.length_m
            self._frames[b] = (*field.origin_m, field.resolution_m, nx, ny)
        _look(self._fields, self._frames, self.start, worlds, self.remaining_m)

    def judge(
        self, state: State, dt_s: float, moving: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """After a step of the moving worlds: (B,) metres of progress, metres that remain, and how the episode ended."""
        worlds = np.flatnonzero(moving)
        before = self.remaining_m.copy()
        _look(self._fields, self._frames, state.pose, worlds, self.remaining_m)
        self.steps[worlds] += 1
        away = self.goal[:, :2] - state.pose[:, :2]
        ended = np.where(self.steps * dt_s >= self.limit_s - 1e-9, TIMEOUT, GOING)
        ended[(away**2).sum(axis=1) <= self.goal[:, 2] ** 2] = SUCCESS
        ended[state.collided] = COLLISION
        ended[~moving] = GOING
        return before - self.remaining_m, self.remaining_m, ended


@inner
def length_at(field: Array, frame: Array, x: float, y: float) -> float:
    """Length of the way from a point, bilinear between cells; see `GeodesicField.at`."""
    gx = min(max((x - frame[0]) / frame[2], 0.0), frame[3] - 1.001)
    gy = min(max((y - frame[1]) / frame[2], 0.0), frame[4] - 1.001)
    ix, iy = int(gx), int(gy)
    fx, fy = gx - ix, gy - iy
    low = field[ix, iy] * (1 - fy) + field[ix, iy + 1] * fy
    high = field[ix + 1, iy] * (1 - fy) + field[ix + 1, iy + 1] * fy
    return low * (1 - fx) + high * fx


@kernel
def _look(fields: Array, frames: Array, pose: Array, worlds: Array, out: Array) -> None:
    for b in worlds:
        out[b] = length_at(fields[b], frames[b], pose[b, 0], pose[b, 1])
