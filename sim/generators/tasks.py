"""Starts and goals: pairs of free places that a route joins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from robonav.types import Mover, RobotSpec, Scene
from sim.generators.plan import rows
from sim.geodesic import ObstacleGrid, obstacle_distance_m, safe_clearance_m
from sim.route_proof import RouteProof
from sim.scene_check import door_points
from sim.task import field_to

DOOR_GAP_M = 0.1  # between the ends of a way and a door's leaf, wherever that stands
PROOF_GRID_M = 0.2  # coarse, since thousands of scenes are drawn while training
Point = tuple[float, float]


def place_task(
    scene: Scene, candidates_m: np.ndarray, spec: RobotSpec, goal_distance_min_m: float, margin_m: float
) -> Scene | None:
    """Takes the first pair of candidate points (n, 2) that is far enough apart and joined by a way.

    The way keeps the robot's circumscribed circle free, so it holds for every heading. Returns None without a pair.
    """
    free = candidates_m[obstacle_distance_m(scene, candidates_m) >= safe_clearance_m(spec) + margin_m]
    if len(free) < 2:
        return None
    # An edge of length L between cells R away from all obstacles stays sqrt(R^2 - L^2 / 4) away from them: for the
    # knight's moves of this grid and R a little larger than the circle, that still holds the circle.
    reach_m = math.hypot(spec.radius_m, PROOF_GRID_M * math.sqrt(5) / 2)
    grid = ObstacleGrid.of(scene, PROOF_GRID_M)
    for i, goal in enumerate(free[:3]):
        field = field_to(grid, (float(goal[0]), float(goal[1])), reach_m)
        for start in free[i + 1 :]:
            if np.hypot(*(start - goal)) >= goal_distance_min_m and field.reaches(float(start[0]), float(start[1])):
                return dataclasses.replace(
                    scene,
                    start=(float(start[0]), float(start[1]), scene.start[2]),
                    goal=(float(goal[0]), float(goal[1])),
                )
    return None


def proven_task(
    scene: Scene, pairs: Iterable[tuple[Point, Point]], spec: RobotSpec, margin_m: float, tries: int = 4
) -> Scene | None:
    """Takes the first of up to `tries` pairs (start, goal) with room for any heading that a way joins.

    Unlike in `place_task`, the way may be as narrow as the footprint itself (see `sim.route_proof`). Doors stand open,
    and neither place lies where one swings. None without a pair.
    """
    doors = [m for m in scene.movers if m.behaviour == "door"]
    leaves = [_open_leaf(m) for m in doors if len(m.waypoints_m) == 3]
    opened = dataclasses.replace(scene, boxes=np.concatenate([scene.boxes, rows(leaves, 5)])) if leaves else scene
    swept = np.concatenate([door_points(m) for m in doors]) if doors else np.zeros((0, 2))
    proof = RouteProof(opened, spec)
    for start, goal in pairs:
        ends = np.array([start, goal])
        if obstacle_distance_m(opened, ends).min() < safe_clearance_m(spec) + margin_m:
            continue
        if doors and np.hypot(*(swept[:, None] - ends).T).min() < safe_clearance_m(spec) + DOOR_GAP_M:
            continue
        if proof.joins(start, goal):
            return dataclasses.replace(
                scene, start=(float(start[0]), float(start[1]), scene.start[2]), goal=(float(goal[0]), float(goal[1]))
            )
        tries -= 1
        if tries == 0:
            break
    return None


def _open_leaf(door: Mover) -> list[float]:
    """A hinged door's leaf as a box, when it stands open."""
    (x0, y0), _, (x1, y1) = door.waypoints_m
    thickness = door.box_m[1] if door.box_m else 0.0
    return [(x0 + x1) / 2, (y0 + y1) / 2, math.hypot(x1 - x0, y1 - y0), thickness, math.atan2(y1 - y0, x1 - x0)]
