"""The situation tracker of `robonav.planning` for a batch of worlds, compiled: map, route, movers, policy's input."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ShapeError, explain
from robonav.mapping.sight import MotionSight
from robonav.planning.situation import SituationConfig
from robonav.types import WAYPOINT_LOOKAHEADS_M, RobotSpec, policy_input_shapes
from sim.analytic.bits import Array
from sim.analytic.crop import crop_map, draw_route, progress_m, waypoints
from sim.analytic.jit import inner, kernel
from sim.analytic.maps import (
    MapNumbers,
    Maps,
    Scratch,
    clear_map,
    enlarged,
    map_numbers,
    move_frame,
    new_maps,
    new_scratch,
    update_map,
)
from sim.analytic.routes import Costs, Search, new_search, plan, route_costs, watch
from sim.analytic.sight import BatchSight
from sim.analytic.tracks import BatchMovers

CAPACITY = 256  # cells a side at first; maps that need more enlarge all
ROUTE_POINTS = 1024
DONE, MORE_MAP, MORE_ROUTE = range(3)


class Routes(NamedTuple):
    """Routes of B worlds."""

    points: Array  # (B, n, 2) float32 in odom
    counts: Array  # (B,) int64; 0 without a route
    ticks: Array  # (B,) int64 since it was planned; negative before the first plan
    progress_m: Array  # (B,)
    goal: Array  # (B, 2) float32 that it was planned for


class BatchTracker:
    """`SituationTracker` for B worlds, whose state it holds. Worlds do not depend on each other."""

    def __init__(self, spec: RobotSpec, batch: int, config: SituationConfig | None = None) -> None:
        """Nothing known in any world.

        Raises:
            ConfigError: costs that reach further than 31 cells.
        """
        self.spec = spec
        self.config = config or SituationConfig()
        self.batch = batch
        mapper = self.config.mapper
        self._numbers = map_numbers(spec, mapper)
        self._costs = route_costs(spec, mapper.resolution_m, self.config.costmap, self.config.route)
        self._replan_ticks = max(1, round(self.config.replan_period_s * spec.rate_hz))
        self.movers = BatchMovers(spec, batch, self.config.movers)
        sight = MotionSight.named(self.config.sight, spec.lidar)
        self.sight = None if sight is None else BatchSight(sight, batch, spec.dt_s, self.config.movers)
        self.maps = new_maps(batch, CAPACITY)
        self._scratch = new_scratch(CAPACITY, spec.lidar.beams)
        self.routes = Routes(
            points=np.zeros((batch, ROUTE_POINTS, 2), np.float32),
            counts=np.zeros(batch, np.int64),
            ticks=np.full(batch, -1, np.int64),
            progress_m=np.zeros(batch),
            goal=np.zeros((batch, 2), np.float32),
        )
        self._search = new_search(CAPACITY, ROUTE_POINTS)
        self._status = np.zeros(batch, np.int64)
        self._frames = np.zeros((batch, 4), np.int64)
        self._lookaheads = np.array(WAYPOINT_LOOKAHEADS_M)
        self.reset(np.arange(batch))

    def reset(self, indices: NDArray[np.int64]) -> None:
        """Forgets everything in these worlds."""
        _reset(self.maps, self.routes, self._numbers.block, np.asarray(indices, np.int64))
        self.movers.reset(np.asarray(indices, np.int64))
        if self.sight is not None:
            self.sight.reset(indices)

    def update(
        self,
        scan_m: NDArray[np.float32],
        pose_odom_base: NDArray[np.float32],
        goal_odom_m: NDArray[np.float32],
        active: NDArray[np.bool_] | None = None,
        has_scan: NDArray[np.bool_] | None = None,
    ) -> None:
        """Takes in a scan (B, beams) at poses (B, 3) with goals (B, 2), in the worlds that are active.

        Where `has_scan` (B,) is false there is none, and its beams are 0.

        Raises:
            ShapeError: arrays of another shape, or a pose or goal that is not finite.
        """
        beams = (self.batch, self.spec.lidar.beams)
        for name, array, shape in (
            ("scan_m", scan_m, beams),
            ("pose_odom_base", pose_odom_base, (self.batch, 3)),
            ("goal_odom_m", goal_odom_m, (self.batch, 2)),
        ):
            if array.shape != shape or array.dtype != np.float32:
                raise ShapeError(explain(name, f"float32 {shape}", f"{array.dtype} {array.shape}"))
        if not (np.isfinite(pose_odom_base).all() and np.isfinite(goal_odom_m).all()):
            raise ShapeError(explain("pose_odom_base, goal_odom_m", "finite numbers", "NaN or Inf"))
        todo = np.ones(self.batch, np.bool_) if active is None else active.copy()
        seen = np.ones(self.batch, np.bool_) if has_scan is None else has_scan
        self.movers.update(scan_m, pose_odom_base, seen, self.spec.dt_s, todo)
        if self.sight is not None:
            self.sight.update(scan_m, pose_odom_base, seen, todo)
        self._update(scan_m, pose_odom_base, goal_odom_m, todo, True)
        while self._status.any():
            again, replan = self._status == MORE_MAP, self._status == MORE_ROUTE
            self._make_room()
            self._update(scan_m, pose_odom_base, goal_odom_m, again, True)
            self._update(scan_m, pose_odom_base, goal_odom_m, replan, False)

    def policy_input(
        self,
        pose_odom_base: NDArray[np.float32],
        goal_odom_m: NDArray[np.float32],
        out: dict[str, NDArray[Any]],
        active: NDArray[np.bool_] | None = None,
    ) -> None:
        """Writes `flow_mps`, `local_map`, `goal_base_m`, `waypoints_base_m` of the active worlds into their arrays."""
        todo = np.ones(self.batch, np.bool_) if active is None else active
        if self.sight is None:
            self.movers.flow(out["flow_mps"], todo)
        else:
            self.sight.flow(self.movers.tracks, todo, out["flow_mps"])
        _policy_input(
            self._numbers,
            self.maps,
            self.routes,
            pose_odom_base,
            goal_odom_m,
            self.spec.local_map.resolution_m,
            self._lookaheads,
            todo,
            self._scratch.cells,
            out["local_map"],
            out["goal_base_m"],
            out["waypoints_base_m"],
        )

    def route(self, b: int) -> NDArray[np.float32] | None:
        """(n, 2) route of a world in odom, or None."""
        count = int(self.routes.counts[b])
        return self.routes.points[b, :count].copy() if count else None

    def log_odds(self, b: int) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """(H, W) log-odds of a world's grid, and the lattice cell (column, row) of its first cell."""
        column, row, column_end, row_end = (int(v) for v in self.maps.frame[b])
        x, y = (int(v) for v in self.maps.corner[b])
        return self.maps.log_odds[b, row - y : row_end - y, column - x : column_end - x].copy(), (column, row)

    def _update(self, scan: Array, pose: Array, goal: Array, todo: Array, observe: bool) -> None:
        _update(
            self._numbers,
            self._costs,
            self.maps,
            self.routes,
            scan,
            pose,
            goal,
            todo,
            observe,
            self._replan_ticks,
            self._scratch,
            self._search,
            self._status,
            self._frames,
        )

    def _make_room(self) -> None:
        """Moves maps that reached the end of their squares, and enlarges what is too small."""
        points = self.routes.points.shape[1]
        if (self._status == MORE_ROUTE).any():
            points *= 2
            longer = np.zeros((self.batch, points, 2), np.float32)
            longer[:, : points // 2] = self.routes.points
            self.routes = self.routes._replace(points=longer)
        moving = np.flatnonzero(self._status == MORE_MAP)
        capacity = self.maps.log_odds.shape[1]
        if len(moving):
            sides = self._frames[moving, 2:] - self._frames[moving, :2]
            if sides.max() + 2 > capacity:
                capacity = -(-int(1.25 * sides.max()) // 64) * 64
                self.maps = enlarged(self.maps, capacity)
                self._scratch = new_scratch(capacity, self.spec.lidar.beams)
            for b in moving:
                frame = self._frames[b].tolist()
                move_frame(self.maps, int(b), (frame[0], frame[1], frame[2], frame[3]))
        self._search = new_search(capacity, points)


def empty_policy_input(spec: RobotSpec, batch: int) -> dict[str, NDArray[Any]]:
    """Arrays of `PolicyInput` with the batch in front."""
    return {
        name: np.zeros((batch, *shape), np.uint8 if name == "local_map" else np.float32)
        for name, shape in policy_input_shapes(spec).items()
    }


@kernel
def _reset(maps: Maps, routes: Routes, block: int, indices: Array) -> None:
    for b in indices:
        clear_map(maps, block, b)
        routes.counts[b], routes.ticks[b], routes.progress_m[b] = 0, -1, 0.0


@kernel
def _update(
    numbers: MapNumbers,
    costs: Costs,
    maps: Maps,
    routes: Routes,
    scan: Array,
    pose: Array,
    goal: Array,
    todo: Array,
    observe: bool,
    replan_ticks: int,
    scratch: Scratch,
    search: Search,
    status: Array,
    frames: Array,
) -> None:
    """Map, then route where it is due, of the worlds in `todo`; `status` says who needs more room."""
    for b in range(len(todo)):
        if not todo[b]:
            continue
        if observe and not update_map(numbers, maps, b, pose[b], goal[b], scan[b], scratch, frames[b]):
            status[b] = MORE_MAP
            continue
        status[b] = DONE
        due = routes.ticks[b] < 0 or routes.ticks[b] + 1 >= replan_ticks or maps.blocked[b] or not observe
        if due or routes.goal[b, 0] != goal[b, 0] or routes.goal[b, 1] != goal[b, 1]:
            count = plan(numbers, costs, maps, b, pose[b], goal[b], search, routes.points[b])
            if count < 0:
                status[b] = MORE_ROUTE
                continue
            routes.counts[b], routes.ticks[b], routes.progress_m[b] = count, 0, 0.0
            routes.goal[b, 0], routes.goal[b, 1] = goal[b, 0], goal[b, 1]
            watch(numbers, costs, maps, b, routes.points[b], count, search.cells)
        else:
            routes.ticks[b] += 1
            if routes.counts[b]:
                count, begin_m = routes.counts[b], routes.progress_m[b]
                routes.progress_m[b] = progress_m(routes.points[b], count, pose[b], begin_m)


@kernel
def _policy_input(
    numbers: MapNumbers,
    maps: Maps,
    routes: Routes,
    pose: Array,
    goal: Array,
    resolution_m: float,
    lookaheads_m: Array,
    todo: Array,
    cells: Array,
    local_map: Array,
    goal_base: Array,
    waypoints_base: Array,
) -> None:
    for b in range(len(todo)):
        if not todo[b]:
            continue
        count = routes.counts[b]
        crop_map(numbers, maps, b, pose[b], resolution_m, local_map[b])
        draw_route(routes.points[b], count, pose[b], resolution_m, local_map[b, 2], cells)
        waypoints(routes.points[b], count, routes.progress_m[b], lookaheads_m, pose[b], goal[b], waypoints_base[b])
        _to_base(pose[b], goal[b], goal_base[b])


@inner
def _to_base(pose: Array, point: Array, out: Array) -> None:
    """A point in odom as seen from the base."""
    yaw = np.float64(pose[2])
    c, s = np.cos(yaw), np.sin(yaw)
    dx, dy = np.float64(point[0]) - np.float64(pose[0]), np.float64(point[1]) - np.float64(pose[1])
    out[0], out[1] = np.float32(c * dx + s * dy), np.float32(c * dy - s * dx)
