"""Corridors: a winding way with dead ends, doorways across it, cabinets along its walls, ramps and thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.generators.base import Rng, check_knobs, count_of, length_of
from sim.generators.plan import Plan, gapped_wall, hinged_door, period_min_s, sliding_door, solids_round, turned
from sim.generators.tasks import proven_task
from sim.scene_check import SLOPE_MAX, STEP_RISE_MAX_M

WALL_M = 0.12  # of the walls with doorways
PASSAGE_M = 0.85  # that a cabinet leaves beside itself
_TURNS = ((1, 0), (0, 1), (-1, 0), (0, -1))
Node = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CorridorsConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    segments: tuple[int, int] = (3, 6)  # straight pieces from start to goal
    segment_m: tuple[float, float] = (2.8, 4.5)
    width_m: tuple[float, float] = (1.3, 2.0)
    branches: tuple[int, int] = (0, 3)  # dead ends
    doors: tuple[int, int] = (1, 3)  # doorways
    door_m: tuple[float, float] = (0.9, 1.2)
    moving_doors: float = 0.0  # share of the doorways whose door opens and closes
    hinged: float = 0.5  # share of those that swing; the others slide
    door_period_s: tuple[float, float] = (10.0, 18.0)
    doors_ignore_robot: float = 0.0  # share of the moving doors that close on the robot too
    cabinets: tuple[int, int] = (0, 4)
    ramps: tuple[int, int] = (0, 0)  # humps: up, a level piece, down
    thresholds: tuple[int, int] = (0, 0)  # low steps across the floor
    ramp_rise_m: tuple[float, float] = (0.04, 0.10)
    threshold_rise_m: tuple[float, float] = (0.02, 0.06)
    margin_m: float = 0.05  # kept beyond the robot's circumscribed circle at start and goal
    goal_radius_m: float = 0.5
    time_limit_s: float = 90.0
    attempts: int = 100

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: a knob out of range.
        """
        ranges = ("segments", "segment_m", "width_m", "door_m", "door_period_s", "ramp_rise_m", "threshold_rise_m")
        check_knobs(
            self,
            ranges,
            ("branches", "doors", "cabinets", "ramps", "thresholds"),
            ("moving_doors", "hinged", "doors_ignore_robot"),
        )
        if self.segment_m[0] < self.width_m[1] + 0.5:
            least = f"at least {self.width_m[1] + 0.5:g} (the corridor's width and a wall)"
            raise ConfigError(explain("segment_m", least, list(self.segment_m)))
        if self.door_m[1] > self.width_m[0] - 0.05:
            raise ConfigError(explain("door_m", f"below the corridor's {self.width_m[0]:g}", list(self.door_m)))
        if self.moving_doors > 0 and self.door_period_s[0] < period_min_s(self.door_m[1]):
            least = f"at least {period_min_s(self.door_m[1]):.2f} (opening and closing a door of {self.door_m[1]:g} m)"
            raise ConfigError(explain("door_period_s", least, list(self.door_period_s)))
        for key in ("ramp_rise_m", "threshold_rise_m"):
            if getattr(self, key)[1] > STEP_RISE_MAX_M:
                raise ConfigError(explain(key, f"at most {STEP_RISE_MAX_M}", list(getattr(self, key))))


def draw(rng: Rng, c: CorridorsConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where the way bit its own tail or the robot does not fit through."""
    way = _walk(rng, count_of(rng, c.segments))
    if way is None:
        return None
    edges = [(way[i], way[i + 1]) for i in range(len(way) - 1)]
    branches = count_of(rng, c.branches)
    for _ in range(branches):
        edges += _branch(rng, edges)
    zero = len(way) + branches
    lines = np.cumsum(rng.uniform(*c.segment_m, (2, 2 * zero)), axis=1)  # where the lattice's lines lie
    lines -= lines[:, zero : zero + 1]
    width = length_of(rng, c.width_m)

    def at(node: Node) -> np.ndarray:
        return lines[(0, 1), (node[0] + zero, node[1] + zero)]

    ends = np.array([[at(a), at(b)] for a, b in edges])  # (edges, 2, 2)
    free = np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1) + width / 2 * np.array([-1, -1, 1, 1])
    boxes, bounds = solids_round(free, 0.3)
    plan = Plan(bounds, boxes=boxes)
    order = rng.permutation(len(edges))
    doors = order[: min(count_of(rng, c.doors), len(edges))]
    for i in doors:
        _doorway(rng, c, plan, ends[i], width)
    rest = order[len(doors) :]
    for k in range(count_of(rng, c.ramps) + (thresholds := count_of(rng, c.thresholds))):
        if k < len(rest):
            _bump(rng, c, plan, ends[rest[k]], width, k < thresholds)
    for _ in range(count_of(rng, c.cabinets)):
        i = int(rng.integers(len(edges)))
        if i not in doors:
            _cabinet(rng, plan, ends[i], width)
    start, goal = (p + rng.uniform(-0.1, 0.1, 2) for p in (at(way[0]), at(way[-1])))
    scene = plan.scene(name, float(rng.uniform(-math.pi, math.pi)), c.goal_radius_m, c.time_limit_s)
    task = proven_task(scene, [(tuple(start), tuple(goal))], spec, c.margin_m)
    return None if task is None else turned(task, int(rng.integers(4)), bool(rng.integers(2)))


def _walk(rng: Rng, length: int) -> list[Node] | None:
    way, heading = [(0, 0)], 0
    for _ in range(length):
        options = []
        for turn in (-1, 0, 1):
            dx, dy = _TURNS[(heading + turn) % 4]
            if (way[-1][0] + dx, way[-1][1] + dy) not in way:
                options += [(heading + turn) % 4] * (1 if turn == 0 else 2)  # bends are worth more than straights
        if not options:
            return None
        heading = int(rng.choice(options))
        way.append((way[-1][0] + _TURNS[heading][0], way[-1][1] + _TURNS[heading][1]))
    return way


def _branch(rng: Rng, edges: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    nodes = sorted({n for edge in edges for n in edge})
    node = nodes[int(rng.integers(len(nodes)))]
    dx, dy = _TURNS[int(rng.integers(4))]
    other = (node[0] + dx, node[1] + dy)
    return [] if other in nodes else [(node, other)]


def _doorway(rng: Rng, c: CorridorsConfig, plan: Plan, ends: np.ndarray, width: float) -> None:
    """A wall across the corridor with a gap in it, somewhere in the middle of the segment."""
    _, across, middle = _frame(ends, float(rng.uniform(0.45, 0.55)))
    gap = min(length_of(rng, c.door_m), width - 0.05)
    low = float(rng.uniform(-width / 2, width / 2 - gap))
    for a, b in gapped_wall(-width / 2 - 0.02, width / 2 + 0.02, [(low, low + gap)]):
        plan.walls.append([*(middle + a * across), *(middle + b * across), WALL_M])
    moves, hinged = rng.random() < c.moving_doors, rng.random() < c.hinged
    ignores, phase, period = rng.random() < c.doors_ignore_robot, float(rng.random()), length_of(rng, c.door_period_s)
    side = bool(rng.integers(2))
    if not moves:
        return
    begin, end = middle + low * across, middle + (low + gap) * across
    slides = [_inside(plan, (begin + end) / 2 + sign * 1.5 * (end - begin)) for sign in (-1, 1)]  # the leaf's far end
    if hinged or not any(slides):  # hung where the leaf stands nearer to the corridor's wall
        if low + width / 2 > width / 2 - low - gap:
            begin, end = end, begin
        plan.movers.append(hinged_door(tuple(begin), tuple(end), side, period, phase, ignores))
    else:
        towards_end = slides[1] and (side or not slides[0])
        plan.movers.append(sliding_door(tuple(begin), tuple(end), towards_end, period, phase, ignores))


def _inside(plan: Plan, point: np.ndarray) -> bool:
    x0, y0, x1, y1 = plan.bounds_m
    return bool(x0 <= point[0] <= x1 and y0 <= point[1] <= y1)


def _cabinet(rng: Rng, plan: Plan, ends: np.ndarray, width: float) -> None:
    along, across, place = _frame(ends, float(rng.uniform(0.2, 0.8)))
    depth = float(rng.uniform(0.2, 0.5))
    if width - depth < PASSAGE_M:
        return
    side = 1.0 if rng.integers(2) else -1.0
    place = place + side * (width - depth) / 2 * across
    plan.boxes.append([*place, float(rng.uniform(0.4, 1.0)), depth, math.atan2(along[1], along[0])])


def _bump(rng: Rng, c: CorridorsConfig, plan: Plan, ends: np.ndarray, width: float, threshold: bool) -> None:
    """A low step, or a ramp up, a level piece and a ramp down, from wall to wall."""
    along, _, middle = _frame(ends, 0.5)
    yaw = math.atan2(along[1], along[0])
    if threshold:
        plan.steps.append([*middle, float(rng.uniform(0.15, 0.3)), width, yaw, length_of(rng, c.threshold_rise_m)])
        return
    rise, top = length_of(rng, c.ramp_rise_m), 0.5
    length = rise / SLOPE_MAX * float(rng.uniform(1.2, 2.0))
    for way, turn in ((-1.0, 0.0), (1.0, math.pi)):
        plan.ramps.append([*(middle + way * (top + length) / 2 * along), length, width, yaw + turn, rise])
    plan.steps.append([*middle, top, width, yaw, rise])


def _frame(ends: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along and across a segment, and the point at a share of its length."""
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    return along, np.array([-along[1], along[0]]), ends[0] + share * (ends[1] - ends[0])
