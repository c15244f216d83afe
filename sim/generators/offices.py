"""Office floors: one or two corridors with rooms on either side, doors, links between rooms, furniture."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.generators.base import Rng, check_knobs, count_of, length_of
from sim.generators.plan import Plan, frame_walls, gapped_wall, hinged_door, period_min_s, sliding_door, turned
from sim.generators.tasks import proven_task
from sim.geodesic import box_distance_m

WALL_M = 0.12
DOOR_ROOM_M = 1.2  # free of furniture round the middle of a door
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class OfficesConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    length_m: tuple[float, float] = (10.0, 15.0)
    corridors: tuple[int, int] = (1, 2)  # a second one is joined to the first by a cross corridor
    corridor_m: tuple[float, float] = (1.4, 2.2)
    room_depth_m: tuple[float, float] = (2.8, 4.2)
    room_m: tuple[float, float] = (2.8, 5.0)  # length of a room along its corridor
    door_m: tuple[float, float] = (0.9, 1.2)
    links: float = 0.2  # share of the walls between two rooms that have a doorway
    furniture: tuple[int, int] = (1, 4)  # pieces a room
    moving_doors: float = 0.0  # share of the rooms whose door opens and closes
    hinged: float = 0.5  # share of those that swing; the others slide
    door_period_s: tuple[float, float] = (10.0, 18.0)
    doors_ignore_robot: float = 0.0  # share of the moving doors that close on the robot too
    goal_distance_min_m: float = 5.0  # straight distance from start to goal
    margin_m: float = 0.05  # kept beyond the robot's circumscribed circle at start and goal
    goal_radius_m: float = 0.5
    time_limit_s: float = 90.0
    attempts: int = 100

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: a knob out of range.
        """
        ranges = ("length_m", "corridors", "corridor_m", "room_depth_m", "room_m", "door_m", "door_period_s")
        check_knobs(self, ranges, ("furniture",), ("links", "moving_doors", "hinged", "doors_ignore_robot"))
        if self.corridors[1] > 2:
            raise ConfigError(explain("corridors", "1 or 2", list(self.corridors)))
        if self.room_m[0] < self.door_m[1] + 0.6 or self.room_depth_m[0] < self.door_m[1] + 0.6:
            least = f"at least {self.door_m[1] + 0.6:g} (a door and its frame)"
            raise ConfigError(explain("room_m, room_depth_m", least, [self.room_m[0], self.room_depth_m[0]]))
        if self.length_m[0] < 2 * self.room_m[0] + self.corridor_m[1]:
            least = f"at least {2 * self.room_m[0] + self.corridor_m[1]:g} (two rooms and a corridor)"
            raise ConfigError(explain("length_m", least, list(self.length_m)))
        if self.moving_doors > 0 and self.door_period_s[0] < period_min_s(self.door_m[1]):
            least = f"at least {period_min_s(self.door_m[1]):.2f} (opening and closing a door of {self.door_m[1]:g} m)"
            raise ConfigError(explain("door_period_s", least, list(self.door_period_s)))


@dataclass(frozen=True, slots=True)
class _Room:
    x: Interval
    y: Interval
    corridor_above: bool  # on which side its corridor runs
    door: Interval


def draw(rng: Rng, c: OfficesConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where no pair of rooms is far enough apart and joined."""
    length, two = length_of(rng, c.length_m), count_of(rng, c.corridors) == 2
    bands = "rcrrcr" if two else "rcr"  # rows of rooms and corridors, from below
    depths = [length_of(rng, c.corridor_m if band == "c" else c.room_depth_m) for band in bands]
    edges = [0.0, *itertools.accumulate(depths)]
    plan = Plan((-WALL_M, -WALL_M, length + WALL_M, edges[-1] + WALL_M))
    plan.walls += frame_walls(length, edges[-1], WALL_M)
    cross: Interval | None = None
    if two:
        width = length_of(rng, c.corridor_m)
        least, most = c.room_m[0], length - c.room_m[0] - width
        begin = float(rng.uniform(least, most))
        cross = (begin, begin + width)
    rooms: list[_Room] = []
    for i, band in enumerate(bands):
        if band == "c":
            continue
        inner = two and i in (2, 3)
        spans = [(0.0, cross[0]), (cross[1], length)] if inner and cross else [(0.0, length)]
        above = bands[i + 1 : i + 2] == "c"
        row = [r for span in spans for r in _rooms(rng, c, span, (edges[i], edges[i + 1]), above)]
        _row_walls(rng, c, plan, row, edges[i + 1] if above else edges[i], length, cross if inner else None)
        if i == 2 and cross:  # the back of two rows
            plan.walls += [[a, edges[3], b, edges[3], WALL_M] for a, b in ((0.0, cross[0]), (cross[1], length))]
        rooms += row
    for room in rooms:
        for _ in range(count_of(rng, c.furniture)):
            _furnish(rng, plan, room)
    points = [[(float(rng.uniform(*r.x)), float(rng.uniform(*r.y))) for _ in range(3)] for r in rooms]
    order = [tuple(rng.permutation(len(rooms))[:2]) for _ in range(12)]
    pairs = [(a, b) for i, j in order for a, b in zip(points[i], points[j], strict=True)]
    pairs = [(a, b) for a, b in pairs if math.dist(a, b) >= c.goal_distance_min_m]
    scene = plan.scene(name, float(rng.uniform(-math.pi, math.pi)), c.goal_radius_m, c.time_limit_s)
    task = proven_task(scene, pairs, spec, c.margin_m)
    return None if task is None else turned(task, int(rng.integers(4)), bool(rng.integers(2)))


def _rooms(rng: Rng, c: OfficesConfig, span: Interval, y: Interval, above: bool) -> list[_Room]:
    """Rooms of about equal length along a span, each with the place of its door."""
    length = span[1] - span[0]
    count = max(1, min(round(length / length_of(rng, c.room_m)), int(length / c.room_m[0])))
    cuts = span[0] + length * (np.arange(count + 1) / count)
    slack = max(length / count - c.room_m[0], 0.0) / 2
    cuts[1:-1] += rng.uniform(-slack, slack, count - 1) / 2
    rooms = []
    for x0, x1 in itertools.pairwise(cuts.tolist()):
        door = length_of(rng, c.door_m)
        low = float(rng.uniform(x0 + 0.2, x1 - 0.2 - door))
        rooms.append(_Room((x0, x1), y, above, (low, low + door)))
    return rooms


def _row_walls(
    rng: Rng, c: OfficesConfig, plan: Plan, row: list[_Room], y: float, length: float, cross: Interval | None
) -> None:
    """The wall between a row of rooms and its corridor, the walls between the rooms, and the doors."""
    gaps = [r.door for r in row] + ([cross] if cross else [])
    pieces = gapped_wall(0.0, length, gaps)
    plan.walls += [[a, y, b, y, WALL_M] for a, b in pieces]
    for room in row:
        moves, hinged, side = rng.random() < c.moving_doors, rng.random() < c.hinged, bool(rng.integers(2))
        phase, period = float(rng.random()), length_of(rng, c.door_period_s)
        ignores = rng.random() < c.doors_ignore_robot
        if not moves:
            continue
        low, high = room.door
        room_for = [any(a <= low - (high - low) and low <= b + 1e-9 for a, b in pieces)]  # to slide left, right
        room_for.append(any(a <= high + 1e-9 and high + (high - low) <= b for a, b in pieces))
        if hinged or not any(room_for):  # into the room, hung where its own wall is nearer
            at_left = low - room.x[0] < room.x[1] - high
            hinge, end = ((low, y), (high, y)) if at_left else ((high, y), (low, y))
            plan.movers.append(hinged_door(hinge, end, at_left != room.corridor_above, period, phase, ignores))
        else:
            towards_end = room_for[1] and (side or not room_for[0])
            plan.movers.append(sliding_door((low, y), (high, y), towards_end, period, phase, ignores))
    for left, right in itertools.pairwise(row):
        if left.x[1] != right.x[0]:
            continue  # the cross corridor is between them
        gap: list[Interval] = []
        if rng.random() < c.links:
            door = length_of(rng, c.door_m)
            low = float(rng.uniform(left.y[0] + 0.2, left.y[1] - 0.2 - door))
            gap = [(low, low + door)]
        plan.walls += [[left.x[1], a, left.x[1], b, WALL_M] for a, b in gapped_wall(*left.y, gap)]
    if cross:
        plan.walls += [[x, row[0].y[0], x, row[0].y[1], WALL_M] for x in cross]


def _furnish(rng: Rng, plan: Plan, room: _Room) -> None:
    """A desk or shelf along a wall, a table, or a chair; left out where it would stand in front of a door."""
    kind = rng.integers(4)
    (x0, x1), (y0, y1) = room.x, room.y
    edge = WALL_M / 2
    if kind <= 1:
        long, deep = float(rng.uniform(0.8, 1.6)), float(rng.uniform(0.6, 0.8) if kind else rng.uniform(0.3, 0.4))
        side = int(rng.integers(3))  # back, left, right
        share = float(rng.random())
        if side == 0:
            y = y0 + edge + deep / 2 if room.corridor_above else y1 - edge - deep / 2
            box = [x0 + edge + long / 2 + share * max(x1 - x0 - 2 * edge - long, 0.0), y, long, deep, 0.0]
        else:
            x = x0 + edge + deep / 2 if side == 1 else x1 - edge - deep / 2
            box = [x, y0 + edge + long / 2 + share * max(y1 - y0 - 2 * edge - long, 0.0), long, deep, math.pi / 2]
    elif kind == 2:
        box = [*_middle(rng, room, 0.9), float(rng.uniform(0.8, 1.4)), float(rng.uniform(0.6, 0.9))]
        box.append(float(rng.uniform(-0.2, 0.2)))
    else:
        x, y = _middle(rng, room, 0.35)
        box = [x, y, 0.4, 0.4, 0.0]
    doors = [((low + high) / 2, y) for low, high, y in _openings(plan, room)]
    if any(float(box_distance_m(np.array(box), np.array(x), np.array(y))) < DOOR_ROOM_M for x, y in doors):
        return
    if kind == 3:
        plan.cylinders.append([box[0], box[1], float(rng.uniform(0.15, 0.25))])
    else:
        plan.boxes.append(box)


def _openings(plan: Plan, room: _Room) -> list[tuple[float, float, float]]:
    """The room's door; links are kept free by the proof of a way only."""
    y = room.y[1] if room.corridor_above else room.y[0]
    return [(*room.door, y)]


def _middle(rng: Rng, room: _Room, keep: float) -> tuple[float, float]:
    x, y = (float(rng.uniform(low + keep, high - keep)) for low, high in (room.x, room.y))
    return x, y
