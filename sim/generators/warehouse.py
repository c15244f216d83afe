"""Warehouses: rows of racks with aisles between them, cross aisles, missing racks, and pallets that narrow an aisle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.generators.base import Rng, check_knobs, count_of, length_of
from sim.generators.plan import Plan, frame_walls, turned
from sim.generators.tasks import proven_task

WALL_M = 0.15
PASSAGE_M = 0.85  # that a pallet leaves beside itself


@dataclass(frozen=True, slots=True)
class WarehouseConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    length_m: tuple[float, float] = (12.0, 17.0)  # along the aisles
    rows: tuple[int, int] = (3, 5)  # of racks
    aisle_m: tuple[float, float] = (1.3, 2.2)
    cross_aisle_m: tuple[float, float] = (1.5, 2.2)
    rack_depth_m: tuple[float, float] = (0.8, 1.2)
    rack_length_m: tuple[float, float] = (3.0, 6.0)  # between two cross aisles
    missing: float = 0.1  # share of the racks that are not there
    pallets: tuple[int, int] = (2, 8)
    posts: tuple[int, int] = (0, 3)  # pillars at the ends of racks
    goal_distance_min_m: float = 6.0  # straight distance from start to goal
    margin_m: float = 0.05  # kept beyond the robot's circumscribed circle at start and goal
    goal_radius_m: float = 0.5
    time_limit_s: float = 90.0
    attempts: int = 100

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: a knob out of range.
        """
        ranges = ("length_m", "rows", "aisle_m", "cross_aisle_m", "rack_depth_m", "rack_length_m")
        check_knobs(self, ranges, ("pallets", "posts"), ("missing",))
        least = 2 * self.cross_aisle_m[1] + 1.0
        if self.length_m[0] < least:
            raise ConfigError(explain("length_m", f"at least {least:g} (racks and cross aisles)", list(self.length_m)))


def draw(rng: Rng, c: WarehouseConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where the robot finds no way between two places that are far apart."""
    length, count = length_of(rng, c.length_m), count_of(rng, c.rows)
    aisle, cross, depth = length_of(rng, c.aisle_m), length_of(rng, c.cross_aisle_m), length_of(rng, c.rack_depth_m)
    width = count * (aisle + depth) + aisle
    plan = Plan((-WALL_M, -WALL_M, length + WALL_M, width + WALL_M))
    plan.walls += frame_walls(length, width, WALL_M)
    blocks = max(1, round((length - cross) / (length_of(rng, c.rack_length_m) + cross)))
    block = (length - (blocks + 1) * cross) / blocks
    lanes = [row * (aisle + depth) + aisle / 2 for row in range(count + 1)]  # y of the aisles' middles
    racks = []  # x0, x1, y
    for y in (lane + (aisle + depth) / 2 for lane in lanes[:-1]):
        for k in range(blocks):
            x0 = cross + k * (block + cross)
            if rng.random() >= c.missing:
                racks.append((x0, x0 + block, y))
                plan.boxes.append([x0 + block / 2, y, block, depth, 0.0])
    for _ in range(count_of(rng, c.pallets)):
        _pallet(rng, plan, racks, depth, aisle)
    for _ in range(count_of(rng, c.posts) if racks else 0):
        x0, x1, y = racks[int(rng.integers(len(racks)))]
        plan.cylinders.append([x0 - 0.12 if rng.integers(2) else x1 + 0.12, y, 0.12])
    points = np.column_stack([rng.uniform(0.0, length, 40), rng.choice(lanes, 40)])
    columns = cross / 2 + rng.integers(blocks + 1, size=40) * (block + cross)
    points = np.where(rng.random(40)[:, None] < 0.3, np.column_stack([columns, rng.uniform(0.0, width, 40)]), points)
    pairs = [((float(a[0]), float(a[1])), (float(b[0]), float(b[1]))) for a, b in points.reshape(20, 2, 2)]
    pairs = [(a, b) for a, b in pairs if math.dist(a, b) >= c.goal_distance_min_m]
    scene = plan.scene(name, float(rng.uniform(-math.pi, math.pi)), c.goal_radius_m, c.time_limit_s)
    task = proven_task(scene, pairs, spec, c.margin_m)
    return None if task is None else turned(task, int(rng.integers(4)), bool(rng.integers(2)))


def _pallet(rng: Rng, plan: Plan, racks: list[tuple[float, float, float]], depth: float, aisle: float) -> None:
    """A pallet that stands in front of a rack, as deep as the aisle bears."""
    deep, share, side = float(rng.uniform(0.4, 0.9)), float(rng.random()), 1.0 if rng.integers(2) else -1.0
    long, turn = float(rng.uniform(0.6, 1.2)), float(rng.uniform(-0.1, 0.1))
    deep = min(deep, aisle - PASSAGE_M - 0.1)
    if deep < 0.25 or not racks:
        return
    x0, x1, y = racks[int(rng.integers(len(racks)))]
    plan.boxes.append([x0 + share * (x1 - x0), y + side * (depth + deep) / 2, long, deep, turn])
