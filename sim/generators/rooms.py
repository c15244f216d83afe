"""Scene generator: rectangular rooms with boxes and cylinders, each proven to have a way to its goal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.generators.base import Rng, check_knobs
from sim.generators.tasks import place_task


@dataclass(frozen=True, slots=True)
class RoomsConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    size_m: tuple[float, float] = (8.0, 10.0)  # inner length of each side
    boxes: tuple[int, int] = (2, 5)
    cylinders: tuple[int, int] = (2, 5)
    box_side_m: tuple[float, float] = (0.3, 1.0)
    cylinder_radius_m: tuple[float, float] = (0.1, 0.35)
    partitions: tuple[int, int] = (0, 0)  # walls across the room, each with a door
    door_m: tuple[float, float] = (1.1, 1.5)  # width of a door
    goal_distance_min_m: float = 4.0  # straight distance from start to goal
    margin_m: float = 0.1  # kept beyond the robot's circumscribed circle at start and goal
    wall_thickness_m: float = 0.1
    goal_radius_m: float = 0.5
    time_limit_s: float = 60.0
    attempts: int = 200  # redraws before a seed is given up

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: a range that is reversed or not positive, or a goal further away than the room is long.
        """
        ranges, counts = ("size_m", "box_side_m", "cylinder_radius_m", "door_m"), ("boxes", "cylinders", "partitions")
        check_knobs(self, ranges, counts, positive=("wall_thickness_m", "goal_radius_m", "time_limit_s", "attempts"))
        if self.goal_distance_min_m >= self.size_m[0] * math.sqrt(2) - 1.0:
            raise ConfigError(
                explain(
                    "goal_distance_min_m", f"less than the diagonal of {self.size_m[0]} m", self.goal_distance_min_m
                )
            )


def draw(rng: Rng, c: RoomsConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One room, or None where no two of the tried places have a way between them."""
    half_x, half_y = rng.uniform(*c.size_m, size=2) / 2
    t = c.wall_thickness_m
    x, y = half_x + t / 2, half_y + t / 2  # wall centre lines
    walls = [
        [-half_x - t, -y, half_x + t, -y, t],
        [-half_x - t, y, half_x + t, y, t],
        [-x, -half_y, -x, half_y, t],
        [x, -half_y, x, half_y, t],
    ]
    n_boxes = rng.integers(c.boxes[0], c.boxes[1] + 1)
    n_cylinders = rng.integers(c.cylinders[0], c.cylinders[1] + 1)
    boxes = np.column_stack(
        [
            rng.uniform(-1, 1, (n_boxes, 2)) * [half_x, half_y],
            rng.uniform(*c.box_side_m, (n_boxes, 2)),
            rng.uniform(-math.pi, math.pi, n_boxes),
        ]
    )
    cylinders = np.column_stack(
        [rng.uniform(-1, 1, (n_cylinders, 2)) * [half_x, half_y], rng.uniform(*c.cylinder_radius_m, n_cylinders)]
    )
    if c.partitions[1]:
        for _ in range(rng.integers(c.partitions[0], c.partitions[1] + 1)):
            walls += _partition(rng, half_x, half_y, c)
    yaw = float(rng.uniform(-math.pi, math.pi))
    points = rng.uniform(-1, 1, (24, 2)) * [half_x, half_y]
    scene = Scene(
        name=name,
        bounds_m=(float(-half_x - t), float(-half_y - t), float(half_x + t), float(half_y + t)),
        start=(0.0, 0.0, yaw),
        goal=(0.0, 0.0),
        walls=np.array(walls, np.float32),
        boxes=boxes.astype(np.float32),
        cylinders=cylinders.astype(np.float32),
        goal_radius_m=c.goal_radius_m,
        time_limit_s=c.time_limit_s,
    )
    return place_task(scene, points, spec, c.goal_distance_min_m, c.margin_m)


def _partition(rng: Rng, half_x: float, half_y: float, c: RoomsConfig) -> list[list[float]]:
    """Two wall segments across the room, along a random axis, with a door between them."""
    across = bool(rng.integers(2))  # along y, at a fixed x
    depth, width = (half_x, half_y) if across else (half_y, half_x)
    at = float(rng.uniform(-0.4, 0.4) * depth)
    door = float(rng.uniform(*c.door_m))
    begin = float(rng.uniform(-width, width - door))
    segments = [(-width, begin), (begin + door, width)]
    if across:
        return [[at, a, at, b, c.wall_thickness_m] for a, b in segments]
    return [[a, at, b, at, c.wall_thickness_m] for a, b in segments]
