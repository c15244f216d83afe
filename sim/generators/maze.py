"""Mazes: a spanning tree of cells by depth-first search, with some walls taken out again."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.generators.base import Rng, check_knobs, count_of, length_of
from sim.generators.plan import Plan
from sim.generators.tasks import proven_task

Cell = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MazeConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    cells: tuple[int, int] = (5, 7)  # a side
    cell_m: tuple[float, float] = (1.2, 1.7)  # from wall to wall
    loops: float = 0.1  # share of the inner walls that are taken out again
    way_min: float = 0.6  # length of the way from start to goal, as a share of the maze's longest
    wall_m: float = 0.1
    margin_m: float = 0.05  # kept beyond the robot's circumscribed circle at start and goal
    goal_radius_m: float = 0.5
    time_limit_s: float = 120.0
    attempts: int = 100

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a knob out of range.
        """
        check_knobs(self, ("cells", "cell_m"), (), ("loops", "way_min"))
        check_knobs(self, positive=("wall_m",))
        if not 2 <= self.cells[0] <= self.cells[1] <= 20:
            raise ConfigError(explain("cells", "2 to 20 a side", list(self.cells)))
        if self.cell_m[0] <= self.wall_m + 0.4:
            raise ConfigError(explain("cell_m", f"more than {self.wall_m + 0.4:g}", list(self.cell_m)))


def draw(rng: Rng, c: MazeConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where the passages are too narrow for the robot."""
    nx, ny, h = count_of(rng, c.cells), count_of(rng, c.cells), length_of(rng, c.cell_m)
    open_walls = _tree(rng, nx, ny)
    for wall in _inner_walls(nx, ny):
        if rng.random() < c.loops:
            open_walls.add(wall)
    t = c.wall_m
    plan = Plan((-t / 2, -t / 2, nx * h + t / 2, ny * h + t / 2), walls=_walls(nx, ny, h, t, open_walls))
    ends = _far_apart(rng, nx, ny, open_walls, c.way_min)
    jitter = max(h / 2 - t / 2 - spec.radius_m - 0.05 - c.margin_m - 0.02, 0.0)
    places = [((i + 0.5) * h, (j + 0.5) * h) for i, j in ends]
    start, goal = (tuple(float(v + d) for v, d in zip(p, rng.uniform(-jitter, jitter, 2), strict=True)) for p in places)
    scene = plan.scene(name, float(rng.uniform(-math.pi, math.pi)), c.goal_radius_m, c.time_limit_s)
    return proven_task(scene, [((start[0], start[1]), (goal[0], goal[1]))], spec, c.margin_m)


def _inner_walls(nx: int, ny: int) -> list[tuple[Cell, Cell]]:
    right = [((i, j), (i + 1, j)) for i in range(nx - 1) for j in range(ny)]
    return right + [((i, j), (i, j + 1)) for i in range(nx) for j in range(ny - 1)]


def _neighbours(cell: Cell, nx: int, ny: int) -> list[Cell]:
    i, j = cell
    around = ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1))
    return [(a, b) for a, b in around if 0 <= a < nx and 0 <= b < ny]


def _tree(rng: Rng, nx: int, ny: int) -> set[tuple[Cell, Cell]]:
    """Walls (pairs of cells in order) that depth-first search takes out."""
    here = (int(rng.integers(nx)), int(rng.integers(ny)))
    stack, seen, opened = [here], {here}, set()
    while stack:
        options = [n for n in _neighbours(stack[-1], nx, ny) if n not in seen]
        if not options:
            stack.pop()
            continue
        following = options[int(rng.integers(len(options)))]
        opened.add((min(stack[-1], following), max(stack[-1], following)))
        seen.add(following)
        stack.append(following)
    return opened


def _far_apart(rng: Rng, nx: int, ny: int, opened: set[tuple[Cell, Cell]], share: float) -> tuple[Cell, Cell]:
    """A cell, and one whose way there is at least a share of the longest from there."""
    start = (int(rng.integers(nx)), int(rng.integers(ny)))
    steps, front = {start: 0}, [start]
    while front:
        reached = []
        for cell, near in itertools.product(front, range(4)):
            around = _neighbours(cell, nx, ny)
            if near >= len(around) or around[near] in steps:
                continue
            if (min(cell, around[near]), max(cell, around[near])) in opened:
                steps[around[near]] = steps[cell] + 1
                reached.append(around[near])
        front = reached
    longest = max(steps.values())
    far = [cell for cell, n in steps.items() if n >= max(share * longest, 1)]
    return start, far[int(rng.integers(len(far)))]


def _walls(nx: int, ny: int, h: float, t: float, opened: set[tuple[Cell, Cell]]) -> list[list[float]]:
    """The walls that are left, in runs as long as possible."""
    shut_x = np.ones((nx + 1, ny), bool)  # between (i - 1, j) and (i, j)
    shut_y = np.ones((nx, ny + 1), bool)
    for (i, j), (k, _) in opened:
        if k > i:
            shut_x[k, j] = False
        else:
            shut_y[i, j + 1] = False
    walls = []
    for line, along_y in [(shut_x[i], (i, True)) for i in range(nx + 1)] + [
        (shut_y[:, j], (j, False)) for j in range(ny + 1)
    ]:
        at, vertical = along_y[0] * h, along_y[1]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
        for a, b in edges.reshape(-1, 2).tolist():
            low, high = a * h - t / 2, b * h + t / 2
            walls.append([at, low, at, high, t] if vertical else [low, at, high, at, t])
    return walls
