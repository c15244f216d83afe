"""Checks of a scene that somebody else made: sizes, bounds, ramps and movers, each mistake one line.

Limits of ramps and steps are what the supported quadrupeds walk over; whatever is higher belongs into the boxes.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from robonav.errors import SceneError, explain
from robonav.types import Mover, RobotSpec, Scene
from sim.geodesic import box_distance_m, obstacle_distance_m

SPEEDS_MPS = (0.2, 1.5)
DOOR_SPEED_MIN_MPS = 0.05
RADIUS_MIN_M = 0.1  # the compiled step relies on it: nobody moves further than this in 50 ms
SLOPE_MAX = 0.3  # rise by length of a ramp
STEP_RISE_MAX_M = 0.10
SHAPES = {
    "walls": ("x0", "y0", "x1", "y1", "thickness"),
    "boxes": ("x", "y", "length", "width", "yaw"),
    "cylinders": ("x", "y", "radius"),
    "ramps": ("x", "y", "length", "width", "yaw", "rise"),
    "steps": ("x", "y", "length", "width", "yaw", "rise"),
}
_SIZES = ("thickness", "length", "width", "radius", "rise")
_MOTIONS = {"door": ("door",)}  # behaviours by kind; anything else walks
_WALKS = ("waypoint", "bouncing", "crossing", "reactive")


def check_scene(scene: Scene, where: str, spec: RobotSpec | None = None) -> None:
    """Checks the bounds, every shape and every mover; with a robot also that no mover starts on it.

    Raises:
        SceneError: the first mistake.
    """
    x_min, y_min, x_max, y_max = scene.bounds_m
    if not (np.isfinite(scene.bounds_m).all() and x_min < x_max and y_min < y_max):
        raise SceneError(explain(f"{where}: bounds_m", "finite x_min < x_max, y_min < y_max", scene.bounds_m))
    for key, value in (("height_m", scene.height_m), ("goal_radius_m", scene.goal_radius_m)):
        if not (math.isfinite(value) and value > 0):
            raise SceneError(explain(f"{where}: {key}", "a number above 0", value))
    for name, columns in SHAPES.items():
        _check_shapes(np.asarray(getattr(scene, name), np.float64), f"{where}: {name}", columns)
    for i, (_, _, length, _, _, rise) in enumerate(np.asarray(scene.ramps, np.float64)):
        if rise > SLOPE_MAX * length:
            raise SceneError(
                explain(f"{where}: ramps[{i}]", f"a rise of at most {SLOPE_MAX} of its length", f"{rise:.2f} m")
            )
    for i, row in enumerate(np.asarray(scene.steps, np.float64)):
        if row[5] > STEP_RISE_MAX_M:
            raise SceneError(explain(f"{where}: steps[{i}]", f"a rise of at most {STEP_RISE_MAX_M} m", f"{row[5]:.2f}"))
    check_movers(scene, where, spec)


def check_movers(scene: Scene, where: str, spec: RobotSpec | None = None) -> None:
    """Checks the movers' numbers, that their routes stay in the map and out of walls, and the room of the start.

    Raises:
        SceneError: the first mistake, with the mover's number.
    """
    for i, mover in enumerate(scene.movers):
        place = f"{where}: mover {i} ({mover.kind}, {mover.behaviour})"
        _check_numbers(mover, place)
        way = np.array(mover.waypoints_m, np.float64)
        _check_inside(scene, mover, way, place)
        if mover.behaviour != "door":
            _check_free(scene, mover, way, place)
        if spec is not None:
            x, y, yaw = scene.start
            base = np.array([x, y, spec.length_m, spec.width_m, yaw])
            at = start_m(mover) if mover.behaviour != "door" else door_points(mover)
            gap = float(np.min(box_distance_m(base, at[..., 0], at[..., 1]))) - reach_m(mover)
            if gap <= 0.0:
                raise SceneError(f"{place}: starts on the robot at ({x:.2f}, {y:.2f}); move it or the start")


def reach_m(mover: Mover) -> float:
    """Radius of a disc that holds the mover; half the thickness of a door's leaf."""
    return mover.box_m[1] / 2 if mover.box_m is not None and mover.behaviour == "door" else mover.circle_m


def start_m(mover: Mover) -> NDArray[np.float64]:
    """(2,) where a walker stands at its start phase."""
    way = np.array(mover.waypoints_m, np.float64)
    phase = mover.start_phase
    if mover.behaviour == "bouncing":
        return np.asarray(way[0] + phase * (way[1] - way[0]))
    lengths = np.hypot(*np.diff(way, axis=0).T)
    closed = len(way) > 2 and bool((way[0] == way[-1]).all())
    along = phase * lengths.sum() if closed else lengths.sum() * (1.0 - abs(2.0 * phase - 1.0))
    ends = np.concatenate([[0.0], np.cumsum(lengths)])
    return np.array([np.interp(along, ends, way[:, 0]), np.interp(along, ends, way[:, 1])])


def _check_shapes(rows: NDArray[np.float64], where: str, columns: tuple[str, ...]) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise SceneError(explain(where, f"rows of ({', '.join(columns)})", f"shape {rows.shape}"))
    if not np.isfinite(rows).all():
        first = int(np.argwhere(~np.isfinite(rows))[0, 0])
        raise SceneError(explain(f"{where}[{first}]", "finite numbers", "NaN or Inf"))
    for k, name in enumerate(columns):
        if name in _SIZES and (rows[:, k] <= 0).any():
            i = int(np.argmax(rows[:, k] <= 0))
            raise SceneError(explain(f"{where}[{i}]: {name}", "metres above 0", f"{rows[i, k]:.3g}"))


def _check_numbers(mover: Mover, place: str) -> None:
    door = mover.kind == "door"
    if mover.behaviour not in _MOTIONS.get(mover.kind, _WALKS):
        expected = " or ".join(_MOTIONS.get(mover.kind, _WALKS))
        raise SceneError(explain(f"{place}: behaviour", f"{expected} for a {mover.kind}", f"'{mover.behaviour}'"))
    counts = {"door": (2, 3), "bouncing": (2, 2), "crossing": (2, 2)}.get(mover.behaviour, (2, 1000))
    if not counts[0] <= len(mover.waypoints_m) <= counts[1] or any(len(p) != 2 for p in mover.waypoints_m):
        expected = f"{counts[0]} to {counts[1]} points (x, y)" if counts[0] < counts[1] else "2 points (x, y)"
        raise SceneError(explain(f"{place}: waypoints_m", expected, f"{len(mover.waypoints_m)}"))
    numbers = (mover.speed_mps, mover.radius_m, mover.height_m, mover.start_phase, mover.period_s, *(mover.box_m or ()))
    if not np.isfinite([*numbers, *np.ravel(mover.waypoints_m)]).all():
        raise SceneError(explain(place, "finite numbers", "NaN or Inf"))
    if all(p == mover.waypoints_m[0] for p in mover.waypoints_m[1:]):
        raise SceneError(explain(f"{place}: waypoints_m", "points apart from each other", "all at one place"))
    low, high = (DOOR_SPEED_MIN_MPS if door else SPEEDS_MPS[0]), SPEEDS_MPS[1]
    if not low <= mover.speed_mps <= high:
        raise SceneError(explain(f"{place}: speed_mps", f"{low} to {high}", mover.speed_mps))
    if (mover.box_m is not None and min(mover.box_m) <= 0) or mover.height_m <= 0:
        raise SceneError(explain(f"{place}: box_m and height_m", "metres above 0", f"{mover.box_m}, {mover.height_m}"))
    if door and mover.box_m is None:
        raise SceneError(explain(f"{place}: box_m", "the leaf's length and thickness", "none", "give box_m"))
    if not door and reach_m(mover) < RADIUS_MIN_M:
        raise SceneError(explain(f"{place}: radius_m", f"at least {RADIUS_MIN_M}", reach_m(mover)))
    if not 0 <= mover.start_phase < 1:
        raise SceneError(explain(f"{place}: start_phase", "0 or more, below 1", mover.start_phase))
    if mover.period_s < 0 or (door and mover.period_s <= 2 * _travel_m(mover) / mover.speed_mps):
        least = f"more than {2 * _travel_m(mover) / mover.speed_mps:.2f} (opening and closing)" if door else "0 or more"
        raise SceneError(explain(f"{place}: period_s", least, mover.period_s))


def _travel_m(door: Mover) -> float:
    way = np.array(door.waypoints_m, np.float64)
    if len(way) == 2:
        return math.dist(way[0], way[1])
    turn = math.atan2(*(way[2] - way[0])[::-1]) - math.atan2(*(way[1] - way[0])[::-1])
    return math.dist(way[0], way[1]) * abs((turn + math.pi) % (2 * math.pi) - math.pi)


def _check_inside(scene: Scene, mover: Mover, way: NDArray[np.float64], place: str) -> None:
    room = 0.0 if mover.behaviour == "door" else reach_m(mover)
    low, high = np.array(scene.bounds_m[:2]) + room, np.array(scene.bounds_m[2:]) - room
    outside = (way < low - 1e-6).any(axis=1) | (way > high + 1e-6).any(axis=1)
    if outside.any():
        k = int(np.argmax(outside))
        x_min, y_min, x_max, y_max = scene.bounds_m
        bounds = f"x {x_min:.2f} to {x_max:.2f}, y {y_min:.2f} to {y_max:.2f}"
        raise SceneError(f"{place}: waypoint {k} ({way[k, 0]:.2f}, {way[k, 1]:.2f}) leaves the map ({bounds})")


def _check_free(scene: Scene, mover: Mover, way: NDArray[np.float64], place: str) -> None:
    """Routes are walked straight from point to point; a bouncing mover only needs a free place to start at."""
    if mover.behaviour == "bouncing":
        points, legs = start_m(mover)[None], np.zeros(1, int)
    else:
        parts = [max(2, math.ceil(math.dist(a, b) / 0.1) + 1) for a, b in itertools.pairwise(way)]
        points = np.concatenate([np.linspace(way[k], way[k + 1], n) for k, n in enumerate(parts)])
        legs = np.repeat(np.arange(len(parts)), parts)
    blocked = obstacle_distance_m(scene, points) < reach_m(mover) - 1e-3
    if blocked.any():
        at, k = points[int(np.argmax(blocked))], int(legs[int(np.argmax(blocked))])
        leg = "starts" if mover.behaviour == "bouncing" else f"on the way from waypoint {k} to {k + 1}, runs"
        raise SceneError(f"{place}: {leg} into a wall or an obstacle at ({at[0]:.2f}, {at[1]:.2f}); move the route")


def door_points(door: Mover) -> NDArray[np.float64]:
    """(n, 2) points, at most 10 cm apart for usual doors, of what a door's leaf covers on its way."""
    way = np.array(door.waypoints_m, np.float64)
    if len(way) == 2:
        half = (way[1] - way[0]) / math.dist(way[0], way[1]) * (door.box_m or (0.0, 0.0))[0] / 2
        return np.linspace(way[0] - half, way[0] + half, 20)
    begin = math.atan2(*(way[1] - way[0])[::-1])
    turn = math.atan2(*(way[2] - way[0])[::-1]) - begin
    angles = begin + np.linspace(0.0, (turn + math.pi) % (2 * math.pi) - math.pi, 13)
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * math.dist(way[0], way[1])
    return np.asarray(way[0] + rays[:, None, :] * np.linspace(0.0, 1.0, 12)[:, None]).reshape(-1, 2)
