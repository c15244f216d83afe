"""The movers of `sim.movers` in a batch of analytic worlds: they move on each substep and become shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from robonav.types import Scene
from sim.analytic.batch import State
from sim.analytic.bits import Array
from sim.analytic.jit import kernel
from sim.analytic.shapes import Shapes
from sim.mover_kernels import advance_world
from sim.movers import MOVER, STATE, initial_state, movers_of


class BatchMovers:
    """Numbers and states of the movers of B worlds."""

    def __init__(self, batch: int) -> None:
        self._table = np.zeros((batch, 0), MOVER)
        self._ways = np.zeros((batch, 0, 3, 2))
        self.state = np.zeros((batch, 0), STATE)
        self.any = False

    def reset(self, worlds: Array, scenes: Sequence[Scene], shapes: Shapes) -> None:
        """Takes over the movers of new scenes, each at its start."""
        fresh = movers_of(scenes, self._table.shape[1], self._ways.shape[2])
        count, points = fresh.ways_m.shape[1:3]
        if (count, points) != self._ways.shape[1:3]:
            table, ways, state = self._table, self._ways, self.state
            batch = len(table)
            self._table, self.state = np.zeros((batch, count), MOVER), np.zeros((batch, count), STATE)
            self._ways = np.zeros((batch, count, points, 2))
            self._table[:, : table.shape[1]], self.state[:, : table.shape[1]] = table, state
            self._ways[:, : ways.shape[1], : ways.shape[2]] = ways
        self._table[worlds], self._ways[worlds] = fresh.table, fresh.ways_m
        self.state[worlds] = initial_state(fresh)
        self.any = bool((self._table["behaviour"] != 0).any())
        todo = np.zeros(len(self._table), np.bool_)
        todo[worlds] = True
        _place(self._table, self.state, todo, shapes.movers)

    def advance(self, shapes: Shapes, state: State, todo: Array, h: Array) -> None:
        """Moves on the movers of the worlds in `todo` by `h` (B,) seconds; their way counts against what was free."""
        _advance(self._table, self._ways, self.state, shapes, state.rows, todo, h, state.free_m)
        _place(self._table, self.state, todo, shapes.movers)


@kernel
def _advance(
    table: Array, ways: Array, state: Array, shapes: Shapes, rows: Array, todo: Array, h: Array, free_m: Array
) -> None:
    for b in range(len(todo)):
        if todo[b] and shapes.mover_count[b]:
            boxes = shapes.boxes[b, : shapes.box_count[b]]
            posts = shapes.cylinders[b, : shapes.cylinder_count[b]]
            moved = advance_world(table[b], ways[b], state[b], boxes, posts, shapes.bounds_m[b], rows[b], h[b])
            free_m[b] -= moved


@kernel
def _place(table: Array, state: Array, todo: Array, rows: Array) -> None:
    """Writes the movers' shapes; places without a mover have no size."""
    for b in range(len(todo)):
        if not todo[b]:
            continue
        for m in range(table.shape[1]):
            mover, row = table[b, m], rows[b, m]
            row[0], row[1] = state[b, m].x, state[b, m].y
            row[2], row[3] = mover.half_length_m, mover.half_width_m
            if mover.half_width_m <= 0.0:
                row[2] = mover.radius_m
            row[4], row[5] = math.cos(state[b, m].yaw), math.sin(state[b, m].yaw)
