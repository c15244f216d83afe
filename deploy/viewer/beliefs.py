"""What the robot believed, tick by tick: how its map changed, what moved, and how much of the route was left.

Fed with the situations of a replay, or of a tracker of its own where there is no bundle to replay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.mapping.grid import OccupancyGrid
from robonav.mapping.tracks import MoverTracker, Tracks
from robonav.planning.situation import Situation, SituationTracker
from robonav.types import Observation, RobotSpec

LEVELS = 4.0  # a unit of log-odds
MAP_EVERY_S = 0.3


@dataclass
class Beliefs:
    """Grows with each tick that is added. The map is kept as changes of lattice cells."""

    spec: RobotSpec
    map_t_s: list[float] = field(default_factory=list)
    map_cells: list[NDArray[np.int32]] = field(default_factory=list)  # (n, 2) column, row on the lattice
    map_levels: list[NDArray[np.int8]] = field(default_factory=list)  # (n,) log-odds times LEVELS; 0 is unknown
    movers_t_s: list[float] = field(default_factory=list)
    movers: list[NDArray[np.float32]] = field(default_factory=list)  # (k, 5) x, y, vx, vy in odom, radius
    remaining_m: list[float] = field(default_factory=list)  # (N,) of the route; NaN without one
    resolution_m: float = 0.1

    def __post_init__(self) -> None:
        """Nothing seen yet."""
        self._tracker = MoverTracker(self.spec)
        self._shown: OccupancyGrid | None = None
        self._levels: NDArray[np.int8] = np.zeros((0, 0), np.int8)

    def add(self, t_s: float, situation: Situation, planned: Tracks | None = None) -> None:
        """One more tick, in the order of time; `planned` are the tracks by which a planner went, if one did."""
        self.movers_t_s.append(t_s)
        self.movers.append(self._moving(situation.tracks if planned is None else planned))
        route = situation.route_odom_m
        self.remaining_m.append(np.nan if route is None else route_length_m(route) - situation.progress_m)
        if not self.map_t_s or t_s - self.map_t_s[-1] >= MAP_EVERY_S:
            self._add_map(t_s, situation.grid)

    def _moving(self, tracks: Tracks) -> NDArray[np.float32]:
        if not len(tracks.seen):
            return np.zeros((0, 5), np.float32)
        chosen = self._tracker.moving(tracks)
        columns = [tracks.position_m[chosen], tracks.velocity_mps[chosen], tracks.radius_m[chosen, None]]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def _add_map(self, t_s: float, grid: OccupancyGrid) -> None:
        levels = np.rint(grid.log_odds * LEVELS).astype(np.int8)
        before = np.zeros_like(levels)
        if self._shown is not None:
            _copy_overlap(self._levels, self._shown.origin_cell, before, grid.origin_cell)
        rows, columns = np.nonzero(levels != before)
        column_0, row_0 = grid.origin_cell
        self.map_t_s.append(t_s)
        self.map_cells.append(np.stack([columns + column_0, rows + row_0], axis=1).astype(np.int32))
        self.map_levels.append(levels[rows, columns])
        self.resolution_m = grid.resolution_m
        self._shown, self._levels = grid, levels


class OwnTracker:
    """Beliefs from observations alone, for a log whose bundle is not at hand or a robot that is still driving."""

    def __init__(self, spec: RobotSpec) -> None:
        self.beliefs = Beliefs(spec)
        self._tracker = SituationTracker(spec)
        self._situation = self._tracker.reset()

    def add(self, t_s: float, observation: Observation) -> None:
        """One more observation."""
        self._situation = self._tracker.update(self._situation, observation)
        self.beliefs.add(t_s, self._situation)


def route_length_m(route_odom_m: NDArray[Any]) -> float:
    """Length of a route (n, 2)."""
    steps = np.diff(np.asarray(route_odom_m, np.float64), axis=0)
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())


def _copy_overlap(
    source: NDArray[np.int8], source_cell: tuple[int, int], target: NDArray[np.int8], target_cell: tuple[int, int]
) -> None:
    """Writes what both lattice boxes cover into the target; cells are (column, row) of their corners."""
    low = [max(a, b) for a, b in zip(source_cell, target_cell, strict=True)]
    sizes = (source.shape[::-1], target.shape[::-1])
    high = [min(a + m, b + n) for a, m, b, n in zip(source_cell, sizes[0], target_cell, sizes[1], strict=True)]
    if low[0] >= high[0] or low[1] >= high[1]:
        return

    def part(array: NDArray[np.int8], cell: tuple[int, int]) -> NDArray[np.int8]:
        return array[low[1] - cell[1] : high[1] - cell[1], low[0] - cell[0] : high[0] - cell[0]]

    part(target, target_cell)[:] = part(source, source_cell)
