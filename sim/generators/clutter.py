"""Clutter of BARN's kind: cylinders on a grid from a cellular automaton, in BARN's own frame and with its task.

The automaton is that of the dataset (Perille et al., "Benchmarking Metric Ground Navigation", SSRR 2020): cells are
filled at random, then a few times a cell with 5 or more filled neighbours is filled, and one with at most 1 is cleared.
With fill shares of 0.12 to 0.30, 2 to 4 rounds and passages of 0.7 to 0.78 m its figures come near those of the public
worlds (docs/simulation.md).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import cv2
import numpy as np
import tcod.path
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.barn import CELL_M, CYLINDER_RADIUS_M, barn_scene
from sim.generators.base import Rng, check_knobs, count_of, length_of
from sim.generators.tasks import proven_task
from sim.geodesic import shortest_ways

FILL_AT, CLEAR_AT = 5, 1  # filled neighbours of eight
CLEAR_COST = 3  # of a cell in the passage's way, in steps of the passage


@dataclass(frozen=True, slots=True)
class ClutterConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    fill: tuple[float, float] = (0.12, 0.30)  # share of the cells that are filled at first
    rounds: tuple[int, int] = (2, 4)  # of the automaton
    passage_m: tuple[float, float] = (0.7, 0.78)  # where no way is as wide as this, one is cleared
    yaw_rad: tuple[float, float] = (math.pi / 2, math.pi / 2)  # heading at the start; BARN's is +90 degrees
    margin_m: float = 0.05  # kept beyond the robot's circumscribed circle at start and goal
    time_limit_s: float = 100.0
    attempts: int = 50

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a knob out of range.
        """
        check_knobs(self, (), ("rounds",), ("fill",), ("time_limit_s", "attempts"))
        if not 0.1 <= self.passage_m[0] <= self.passage_m[1] <= 1.5:
            raise ConfigError(explain("passage_m", "a range [low, high] within 0.1 to 1.5", list(self.passage_m)))
        if not -math.pi <= self.yaw_rad[0] <= self.yaw_rad[1] <= math.pi:
            raise ConfigError(explain("yaw_rad", "a range [low, high] within -pi to pi", list(self.yaw_rad)))


def automaton(rng: Rng, fill: float, rounds: int, side: int = 30) -> NDArray[np.int64]:
    """(side, side) cells, 1 filled. The first and the last row are walls, as in the dataset."""
    cells = (rng.random((side, side)) < fill).astype(np.int64)
    cells[[0, -1]] = 1
    for _ in range(rounds):
        padded = np.pad(cells, 1)
        near = sum(padded[r : r + side, c : c + side] for r in range(3) for c in range(3)) - cells
        cells = np.where(near >= FILL_AT, 1, np.where(near <= CLEAR_AT, 0, cells))
        cells[[0, -1]] = 1
    return cells


def cleared(cells: NDArray[np.int64], passage_m: float) -> NDArray[np.int64]:
    """The cells with a passage from the first to the last column, cleared where there is none; as wide as a disc needs.

    As in the dataset, where the regions at both sides were joined if the automaton had not left a way. The passage
    follows the places at which the fewest cells are in its way.
    """
    reach = passage_m / 2 + CYLINDER_RADIUS_M
    span = math.floor(reach / CELL_M)
    offsets = np.arange(-span, span + 1) * CELL_M
    disc = (np.hypot(offsets[:, None], offsets[None, :]) <= reach).astype(np.uint8)
    filled = cells.astype(np.uint8)
    in_way = cv2.filter2D(filled, cv2.CV_16S, disc, borderType=cv2.BORDER_CONSTANT).astype(np.int32)
    cost = 1 + CLEAR_COST * in_way
    cost[: span + 1] = cost[-span - 1 :] = 0  # the rows of walls stay
    away = np.full(cells.shape, np.iinfo(np.int32).max, np.int32)
    away[:, 0] = cost[:, 0] - 1
    away[cost[:, 0] == 0, 0] = np.iinfo(np.int32).max
    away = shortest_ways(away, cost, np.array([[3, 2, 3], [2, 0, 2], [3, 2, 3]]))
    here = (int(np.argmin(away[:, -1])), cells.shape[1] - 1)
    way = tcod.path.hillclimb2d(away, here, True, True)
    passage = np.zeros_like(filled)
    passage[tuple(np.array(way).T)] = 1
    out = np.where(cv2.dilate(passage, disc) > 0, 0, cells)
    out[[0, -1]] = 1
    return out


def draw(rng: Rng, c: ClutterConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where the robot does not get through after all."""
    cells = automaton(rng, float(rng.uniform(*c.fill)), count_of(rng, c.rounds))
    scene = barn_scene(cleared(cells, length_of(rng, c.passage_m)), name)
    start, goal = scene.start[:2], scene.goal
    scene = dataclasses.replace(scene, start=(*start, float(rng.uniform(*c.yaw_rad))), time_limit_s=c.time_limit_s)
    return proven_task(scene, [(start, goal)], spec, c.margin_m)
