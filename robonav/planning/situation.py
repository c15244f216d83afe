"""What the robot knows at a tick: the map, the route to the goal, what moves, and the policy's input made from them.

The tracker holds constants only. Its state, the `Situation`, goes in and comes out, so that a log's observations
give the same policy inputs again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.geometry import inverse_transform_points
from robonav.mapping import CostmapConfig, Mapper, MapperConfig, OccupancyGrid, build_costmap, egocentric_crop
from robonav.mapping.costmap import lethal_radius_m
from robonav.mapping.grid import OCCUPIED_ABOVE
from robonav.mapping.mapper import way_round_cells
from robonav.mapping.sight import SHIPPED, Flow, Memory, MotionSight, tracked
from robonav.mapping.tracks import NO_TRACKS, MoverTracker, TrackerConfig, Tracks
from robonav.planning.routes import RouteConfig, plan_route, points_at, progress_on_route
from robonav.types import WAYPOINT_LOOKAHEADS_M, Observation, PolicyInput, RobotSpec

_LOOKAHEADS_M = np.array(WAYPOINT_LOOKAHEADS_M)
_NO_CELLS = np.zeros((0, 2), np.int32)


@dataclass(frozen=True, slots=True)
class SituationConfig:
    """Mapping, costs and how often the route is planned anew."""

    replan_period_s: float = 0.5
    mapper: MapperConfig = field(default_factory=MapperConfig)
    costmap: CostmapConfig = field(default_factory=CostmapConfig)
    route: RouteConfig = field(default_factory=RouteConfig)
    movers: TrackerConfig = field(default_factory=TrackerConfig)
    sight: str = ""
    """Who says what moves in the policy's input (`flow_mps`): "" the tracker, "learned" the network that comes with the
    package (`robonav.mapping.sight`), where it is made for the robot's lidar."""

    def __post_init__(self) -> None:
        """Checks the period.

        Raises:
            ConfigError: it is not positive.
        """
        if self.replan_period_s <= 0:
            raise ConfigError(explain("situation: replan_period_s", "above 0", self.replan_period_s))
        if self.sight not in ("", SHIPPED):
            raise ConfigError(explain("situation: sight", f"'' or '{SHIPPED}'", repr(self.sight)))


@dataclass(frozen=True, slots=True)
class Situation:
    """Map, route and movers after an observation."""

    grid: OccupancyGrid
    route_odom_m: NDArray[np.float32] | None = None  # (n, 2); None before the first plan, or when nothing leads there
    ticks_since_plan: int = 0
    progress_m: float = 0.0  # arc length of the route's point closest to the robot
    mapped: bool = False  # whether any scan was seen
    goal_odom_m: tuple[float, float] | None = None  # that the route was planned for; None before the first plan
    # (m, 2) lattice cells (column, row) that were clear when the route was planned and would block it
    watched_cells: NDArray[np.int32] = field(default_factory=lambda: _NO_CELLS)
    tracks: Tracks = NO_TRACKS
    of_beam: NDArray[np.int64] | None = None  # (beams,) index of each beam's track, -1 for none; None before any update
    seen: Memory = field(default_factory=Memory)  # of the sight, where it speaks in the policy's input
    flow: Flow | None = None  # what it says of the last scan


class SituationTracker:
    """Maps, plans, replans each `replan_period_s` and at once when something new blocks the route."""

    def __init__(self, spec: RobotSpec, config: SituationConfig | None = None) -> None:
        self.spec = spec
        self.config = config or SituationConfig()
        self.mapper = Mapper(spec, self.config.mapper)
        self.movers = MoverTracker(spec, self.config.movers)
        self.sight = MotionSight.named(self.config.sight, spec.lidar)
        self._replan_ticks = max(1, round(self.config.replan_period_s * spec.rate_hz))
        cell = self.config.mapper.resolution_m
        reach = int(lethal_radius_m(spec, cell) / cell)
        offsets = np.arange(-reach, reach + 1)
        squared = (offsets[:, None] ** 2 + offsets[None, :] ** 2) * cell**2
        self._lethal_disc = (squared < lethal_radius_m(spec, cell) ** 2).astype(np.uint8)

    def reset(self) -> Situation:
        """Nothing known yet."""
        return Situation(self.mapper.reset())

    def update(self, situation: Situation, observation: Observation) -> Situation:
        """The situation after one more observation.

        Raises:
            ShapeError: the scan or the pose does not fit the robot.
        """
        return self.update_route(self.update_map(situation, observation), observation)

    def update_map(self, situation: Situation, observation: Observation) -> Situation:
        """The first half of `update`: map and movers are of the observation, the route is not yet.

        Raises:
            ShapeError: the scan or the pose does not fit the robot.
        """
        grid = self.mapper.update(situation.grid, observation)
        tracks, of_beam = self.movers.update(situation.tracks, observation)
        mapped = situation.mapped or observation.scan_m is not None
        seen, flow = situation.seen, None
        if self.sight is not None:
            of = tracked(tracks, of_beam, self.movers.moving(tracks))
            seen, flow = self.sight.look(situation.seen, observation, of)
        return replace(situation, grid=grid, mapped=mapped, tracks=tracks, of_beam=of_beam, seen=seen, flow=flow)

    def update_route(self, situation: Situation, observation: Observation) -> Situation:
        """The second half: the route is planned where it is due, else followed."""
        grid = situation.grid
        goal_x, goal_y = (float(v) for v in observation.goal_odom_m)
        ticks = situation.ticks_since_plan + 1
        due = situation.goal_odom_m != (goal_x, goal_y) or ticks >= self._replan_ticks
        if due or _any_occupied(grid, situation.watched_cells):
            ground = self.ground(grid, observation)
            costmap = build_costmap(ground, self.spec, self.config.costmap)
            route = plan_route(costmap, observation.pose_odom_base, (goal_x, goal_y), self.config.route)
            watched = _NO_CELLS if route is None else self._watched(grid, route)
            return replace(
                situation,
                route_odom_m=route,
                ticks_since_plan=0,
                progress_m=0.0,
                goal_odom_m=(goal_x, goal_y),
                watched_cells=watched,
            )
        route, progress = situation.route_odom_m, situation.progress_m
        if route is not None:
            progress = progress_on_route(route, observation.pose_odom_base, progress)
        return replace(situation, ticks_since_plan=ticks, progress_m=progress)

    def with_route(
        self, situation: Situation, route_odom_m: NDArray[np.float32] | None, observation: Observation
    ) -> Situation:
        """The situation with a route (n, 2) that somebody else chose; it stays until the next plan is due."""
        watched, progress = _NO_CELLS, 0.0
        if route_odom_m is not None:
            watched = self._watched(situation.grid, route_odom_m)
            progress = progress_on_route(route_odom_m, observation.pose_odom_base)
        return replace(situation, route_odom_m=route_odom_m, progress_m=progress, watched_cells=watched)

    def policy_input(self, situation: Situation, observation: Observation) -> PolicyInput:
        """What a learned policy reads at this tick, in physical units.

        Without a scan at this tick the beams are 0 and marked absent; the local map is absent until the first scan
        ever. Without a route the waypoints lie on the straight line to the goal.
        """
        spec, pose = self.spec, observation.pose_odom_base
        route, progress = situation.route_odom_m, situation.progress_m
        if route is None:
            line, progress = np.stack([pose[:2], observation.goal_odom_m]), 0.0
        else:
            line = route
        points_odom_m = np.empty((1 + len(WAYPOINT_LOOKAHEADS_M), 2))
        points_odom_m[0] = observation.goal_odom_m
        points_odom_m[1:] = points_at(line, progress + _LOOKAHEADS_M)
        points_base_m = inverse_transform_points(pose, points_odom_m).astype(np.float32)
        if situation.mapped:
            local_map = egocentric_crop(situation.grid, pose, spec.local_map, route)
        else:
            local_map = np.zeros((3, spec.local_map.cells, spec.local_map.cells), np.uint8)
        scan, flow_mps = observation.scan_m, np.zeros((spec.lidar.beams, 2), np.float32)
        if scan is not None and situation.flow is not None:
            flow_mps = situation.flow.base_mps
        elif scan is not None and situation.of_beam is not None:
            flow_mps = self.movers.flow(situation.tracks, situation.of_beam, pose)
        scan_m = np.zeros(spec.lidar.beams, np.float32) if scan is None else np.array(scan, np.float32)
        return PolicyInput(
            scan_m=scan_m,
            flow_mps=flow_mps,
            local_map=local_map,
            goal_base_m=points_base_m[0].copy(),
            waypoints_base_m=points_base_m[1:].copy(),
            twist_base=np.array(observation.twist_base, np.float32),
            tilt_rad=np.array(observation.tilt_rad, np.float32),
            last_command=np.array(observation.last_command, np.float32),
            robot=spec.dynamics,
            present=np.array([scan is not None, situation.mapped, 1.0, 1.0], np.float32),
        )

    def ground(self, grid: OccupancyGrid, observation: Observation) -> OccupancyGrid:
        """The part of the grid that a route can make use of: all that is known, robot, goal, and a way round them."""
        cell = grid.resolution_m
        ends = np.floor(np.stack([observation.pose_odom_base[:2], observation.goal_odom_m]) / cell).astype(int)
        known = grid.known_box() or (*ends[0].tolist(), *ends[0].tolist())
        margin = way_round_cells(self.spec, cell)
        low = np.minimum(ends.min(axis=0), known[:2]) - margin
        high = np.maximum(ends.max(axis=0) + 1, known[2:]) + margin
        return grid.cropped(int(low[0]), int(low[1]), int(high[0]), int(high[1]))

    def _watched(self, grid: OccupancyGrid, route_odom_m: NDArray[np.float32]) -> NDArray[np.int32]:
        """Lattice cells whose becoming occupied makes a cell of the route lethal.

        The last cells before the goal count too; cells that are occupied already do not, since the plan knew them.
        """
        height, width = grid.log_odds.shape
        band: NDArray[Any] = np.zeros((height, width), np.uint8)
        pixels = (np.asarray(route_odom_m, np.float64) - grid.origin_odom_m) / grid.resolution_m - 0.5
        cv2.polylines(band, [np.rint(pixels * 16).astype(np.int32)], False, 1, 1, cv2.LINE_8, 4)
        band[:] = cv2.dilate(band, self._lethal_disc)
        rows, columns = np.divmod(np.flatnonzero(band & (grid.log_odds <= OCCUPIED_ABOVE)), width)
        column_0, row_0 = grid.origin_cell
        return np.stack([columns + column_0, rows + row_0], axis=1).astype(np.int32)


def _any_occupied(grid: OccupancyGrid, lattice_cells: NDArray[np.int32]) -> bool:
    """Whether something stands in one of the cells; those outside the grid do not count."""
    if not len(lattice_cells):
        return False
    column_0, row_0 = grid.origin_cell
    height, width = grid.log_odds.shape
    columns, rows = lattice_cells[:, 0] - column_0, lattice_cells[:, 1] - row_0
    if columns.min() < 0 or rows.min() < 0 or columns.max() >= width or rows.max() >= height:
        inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
        columns, rows = columns[inside], rows[inside]
    return bool((grid.log_odds[rows, columns] > OCCUPIED_ABOVE).any())
