"""Crowds: pedestrians and other robots in any scene. Their routes lie in the part of it that the robot can reach."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, SceneError, explain
from robonav.types import Mover, RobotSpec, Scene
from sim.generators.base import Rng, SceneSource, check_knobs, count_of, length_of
from sim.generators.statistics import shortest_way
from sim.geodesic import GeodesicField, ObstacleGrid, tight_clearance_m
from sim.route_proof import circle_regions, regions_at
from sim.scene_check import SPEEDS_MPS, door_points, reach_m, start_m

GRID_M = 0.1
ROOM_M = 0.12  # kept between a route and the walls, for the grid's sake
ROBOT_BOX_M = (0.6, 0.35)
ROBOT_MPS = 1.0  # no robot goes faster, whatever speed the pedestrians have
CANDIDATES = 24
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CrowdConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    base: str = "rooms"  # the scenes in which they walk: whatever `sim.load_scene` knows
    pedestrians: tuple[int, int] = (3, 6)
    robots: tuple[int, int] = (0, 1)
    behaviours: tuple[Literal["waypoint", "bouncing", "crossing", "reactive"], ...] = (
        "waypoint",
        "bouncing",
        "crossing",
        "reactive",
    )  # of pedestrians, drawn evenly; robots follow waypoints
    speed_mps: tuple[float, float] = (0.3, 1.3)
    radius_m: tuple[float, float] = (0.2, 0.3)
    ignores_robot: float = 0.3  # share of those who walk on as if the robot were not there
    waypoints: tuple[int, int] = (2, 5)
    leg_min_m: float = 1.0
    start_gap_m: float = 1.0  # between the robot's circumscribed circle and anyone, at the start
    attempts: int = 40  # draws a mover

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: a knob out of range.
        """
        check_knobs(self, ("waypoints", "radius_m"), ("pedestrians", "robots"), ("ignores_robot",), ("attempts",))
        low, high = self.speed_mps
        if not SPEEDS_MPS[0] <= low <= high <= SPEEDS_MPS[1]:
            expected = f"a range [low, high] within {SPEEDS_MPS[0]} to {SPEEDS_MPS[1]}"
            raise ConfigError(explain("speed_mps", expected, [low, high]))
        if not 0.1 <= self.radius_m[0] <= self.radius_m[1] <= 0.6:
            raise ConfigError(explain("radius_m", "a range within 0.1 to 0.6", list(self.radius_m)))
        if self.waypoints[0] < 2 or self.leg_min_m <= 0 or self.start_gap_m < 0:
            got = (self.waypoints[0], self.leg_min_m, self.start_gap_m)
            raise ConfigError(explain("waypoints, leg_min_m, start_gap_m", "at least 2, above 0, 0 or more", got))
        if not self.behaviours:
            raise ConfigError(explain("behaviours", "at least one", "none"))


@dataclass(frozen=True, slots=True)
class CrowdSource:
    """The base's scene number `seed`, with movers drawn from the same number."""

    name: str
    config: CrowdConfig
    spec: RobotSpec
    base: SceneSource

    def scene(self, seed: int) -> Scene:
        """The scene with its movers.

        Raises:
            SceneError: the seed is negative, the base has no such scene, or the movers find no room.
        """
        scene = self.base.scene(seed)
        rng = np.random.default_rng([seed, 0x63726F77])
        pedestrians, robots = count_of(rng, self.config.pedestrians), count_of(rng, self.config.robots)
        movers = _Walkers(scene, self.config, self.spec, rng).draw(pedestrians, robots)
        if len(movers) < self.config.pedestrians[0] + self.config.robots[0]:
            least = f"room for {self.config.pedestrians[0]} pedestrians and {self.config.robots[0]} robots"
            raise SceneError(explain(f"scene '{self.name}', seed {seed}", least, f"{len(movers)}", "lower the number"))
        return dataclasses.replace(scene, name=f"{self.name}-{seed}", movers=(*scene.movers, *movers))


class _Walkers:
    """Draws movers for one scene."""

    def __init__(self, scene: Scene, config: CrowdConfig, spec: RobotSpec, rng: Rng) -> None:
        self.scene, self.config, self.spec, self.rng = scene, config, spec, rng
        self.grid = ObstacleGrid.of(scene, GRID_M)
        x0, y0, x1, y1 = scene.bounds_m
        nx, ny = self.grid.distance_m.shape
        xs, ys = (self.grid.origin_m[k] + GRID_M * np.arange(n) for k, n in enumerate((nx, ny)))
        edge = np.minimum(np.minimum(xs - x0, x1 - xs)[:, None], np.minimum(ys - y0, y1 - ys)[None, :])
        regions = circle_regions(self.grid, spec.inner_radius_m)
        own = regions_at(self.grid, regions, scene.start[:2])
        self.reachable = np.isin(regions[0], list(own)) & (regions[0] > 0)  # (nx, ny) for the robot
        self.room_m = np.minimum(self.grid.distance_m, edge)  # (nx, ny) to walls and to the map's edge
        self.way: Floats | None = None
        self.taken: list[tuple[Floats, float]] = []  # where the others start, and their radius

    def draw(self, pedestrians: int, robots: int) -> list[Mover]:
        movers = []
        for i in range(pedestrians + robots):
            for _ in range(self.config.attempts):
                mover = self._robot() if i >= pedestrians else self._pedestrian()
                if mover is not None and self._has_room(mover):
                    movers.append(mover)
                    break
        return movers

    def _pedestrian(self) -> Mover | None:
        c, rng = self.config, self.rng
        behaviour = c.behaviours[int(rng.integers(len(c.behaviours)))]
        speed, radius = length_of(rng, c.speed_mps), length_of(rng, c.radius_m)
        phase, ignores = float(rng.random()), bool(rng.random() < c.ignores_robot)
        wait_s = float(rng.uniform(3.0, 8.0)) if behaviour == "crossing" else 0.0
        clear = self.room_m >= radius + ROOM_M
        if behaviour == "crossing":
            way, phase = self._across(clear), 0.0
        elif behaviour == "bouncing":
            way = self._straight(clear, radius)
        else:
            way = self._chain(clear, radius)
        if way is None:
            return None
        return Mover("pedestrian", behaviour, way, speed, radius, start_phase=phase, period_s=wait_s,
                     ignores_robot=ignores)  # fmt: skip

    def _robot(self) -> Mover | None:
        c, rng = self.config, self.rng
        speed = length_of(rng, (min(c.speed_mps[0], ROBOT_MPS), min(c.speed_mps[1], ROBOT_MPS)))
        phase, ignores = float(rng.random()), bool(rng.random() < c.ignores_robot)
        reach = math.hypot(*ROBOT_BOX_M) / 2
        way = self._chain(self.room_m >= reach + ROOM_M, reach)
        if way is None:
            return None
        return Mover("robot", "waypoint", way, speed, box_m=ROBOT_BOX_M, height_m=0.8, start_phase=phase,
                     ignores_robot=ignores)  # fmt: skip

    def _has_room(self, mover: Mover) -> bool:
        at, radius = start_m(mover), reach_m(mover)
        x, y, _ = self.scene.start
        if math.dist(at, (x, y)) < self.spec.radius_m + radius + self.config.start_gap_m:
            return False
        if any(math.dist(at, other) < radius + size + 0.1 for other, size in self.taken):
            return False
        if any(np.hypot(*(door_points(m) - at).T).min() < radius + 0.1 for m in self.scene.movers if m.kind == "door"):
            return False
        self.taken.append((at, radius))
        return True

    def _places(self, radius: float) -> Floats:
        """(CANDIDATES, 2) places for a disc where the robot can come; none if there is no room."""
        cells = np.argwhere(self.reachable & (self.room_m >= radius + ROOM_M))
        if not len(cells):
            return np.zeros((0, 2))
        picked = cells[self.rng.integers(len(cells), size=CANDIDATES)]
        return np.asarray(picked * GRID_M + np.array(self.grid.origin_m))

    def _free_between(self, clear: NDArray[np.bool_], a: Floats, b: Floats) -> NDArray[np.bool_]:
        """Which of the straight ways from a (2,) to b (n, 2) are clear."""
        span = float(np.max(np.hypot(*(b - a).T), initial=GRID_M))
        share = np.linspace(0.0, 1.0, 2 + math.ceil(span / GRID_M))
        points = a + share[None, :, None] * (b - a)[:, None]
        cells = ((points - np.array(self.grid.origin_m)) / GRID_M).round().astype(int)
        ix, iy = (np.clip(cells[..., k], 0, n - 1) for k, n in enumerate(clear.shape))
        inside = ((cells >= 0) & (cells < np.array(clear.shape))).all(axis=-1)
        free: NDArray[np.bool_] = (clear[ix, iy] & inside).all(axis=1)
        return free

    def _chain(self, clear: NDArray[np.bool_], radius: float) -> tuple[tuple[float, float], ...] | None:
        """Places of which each sees the next."""
        places = self._places(radius)
        if not len(places):
            return None
        way = [places[0]]
        for _ in range(count_of(self.rng, self.config.waypoints) - 1):
            away = np.hypot(*(places - way[-1]).T)
            seen = np.flatnonzero((away >= self.config.leg_min_m) & self._free_between(clear, way[-1], places))
            if not len(seen):
                break
            far = away[seen] ** 2  # longer legs are likelier, so that routes leave their room
            way.append(places[int(self.rng.choice(seen, p=far / far.sum()))])
        return _points(way) if len(way) > 1 else None

    def _straight(self, clear: NDArray[np.bool_], radius: float) -> tuple[tuple[float, float], ...] | None:
        places = self._places(radius)
        if not len(places):
            return None
        heading = float(self.rng.uniform(-math.pi, math.pi))
        end = places[0] + 0.5 * np.array([math.cos(heading), math.sin(heading)])
        return _points([places[0], end]) if self._free_between(clear, places[0], end[None])[0] else None

    def _across(self, clear: NDArray[np.bool_]) -> tuple[tuple[float, float], ...] | None:
        """A line that crosses the robot's shortest way, up to 2.5 m to either side."""
        if self.way is None:
            field = GeodesicField.of(self.grid, self.scene.goal, tight_clearance_m(self.spec))
            self.way = shortest_way(field, self.scene.start[:2])
        if len(self.way) < 8:
            return None
        i = int(self.rng.integers(len(self.way) // 5, len(self.way) - 2))
        along = self.way[min(i + 2, len(self.way) - 1)] - self.way[i - 2]
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-9)
        across *= 1.0 if self.rng.integers(2) else -1.0
        ends = []
        for sign in (-1.0, 1.0):
            reach = np.arange(0.5, 2.6, 0.1)
            free = self._free_between(clear, self.way[i], self.way[i] + sign * reach[:, None] * across)
            if not free[0]:
                return None
            ends.append(self.way[i] + sign * reach[int(np.argmin(free)) - 1 if not free.all() else -1] * across)
        return _points(ends)


def _points(way: list[Floats]) -> tuple[tuple[float, float], ...]:
    return tuple((round(float(x), 4), round(float(y), 4)) for x, y in way)
