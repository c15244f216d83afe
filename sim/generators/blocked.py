"""Two ways to one goal, of which the shorter one is closed out of sight of the start: a robot has to find that out.

Start and goal are the ends of a ring of corridors. The short way bends twice, and what closes it stands behind the
first bend; the long way is always free, which is proven with the short one walled up. Six things close the short way:

| kind | what stands there |
|---|---|
| dead-end | it ends before the goal |
| shut | a door across it that stays shut |
| standing | people who stand together; the gap that they leave beside them is at most a tight fit |
| meeting | a person who walks up and down in it and stops in front of the robot |
| tunnel | it becomes so narrow that the robot cannot turn round, bends once more, and ends: the way out is backwards |
| closing | it becomes as narrow, and a door at its end that stands open at first shuts before the robot can be there |
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.types import Mover, RobotSpec, Scene
from sim.generators.base import Rng, check_knobs, length_of
from sim.generators.plan import (
    DOOR_MPS,
    LEAF_M,
    Plan,
    Point,
    hinged_door,
    period_min_s,
    sliding_door,
    solids_round,
    turned,
)
from sim.generators.tasks import proven_task
from sim.scene_check import RADIUS_MIN_M, SPEEDS_MPS

Kind = Literal["dead-end", "shut", "standing", "meeting", "tunnel", "closing"]
WALL_M = 0.3
TURN_SHARE = (0.3, 0.5)  # of the length from start to goal at which the short way bends
SWAY_M = 0.02  # how far standing people shift
ELBOW_M = 0.03  # between them and the wall that they stand at
CHEST_M = 0.05  # left between a person and the wall at the narrowest, so that they can turn
NARROW_SHARE = (0.4, 0.65)  # of the way from the footprint's width to the circle that it turns in
POCKET_M = (0.5, 0.8)  # depth of what lies behind a tunnel's last bend


@dataclass(frozen=True, slots=True)
class BlockedConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    kinds: tuple[Kind, ...] = ("dead-end", "shut", "standing", "meeting")  # of which one is drawn
    length_m: tuple[float, float] = (5.0, 7.0)  # from start to goal
    bend_m: tuple[float, float] = (1.8, 2.4)  # how far the short way leads aside
    detour_m: tuple[float, float] = (3.0, 4.5)  # how far the long way leads aside
    width_m: tuple[float, float] = (1.1, 1.5)
    person_radius_m: tuple[float, float] = (0.22, 0.32)
    speed_mps: tuple[float, float] = (0.3, 0.8)  # of a person who walks
    gap_m: tuple[float, float] = (0.3, 0.5)  # that standing people leave beside them
    margin_m: float = 0.05  # kept beyond the robot's circumscribed circle at start and goal
    goal_radius_m: float = 0.5
    time_limit_s: float = 90.0
    attempts: int = 100

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: a knob out of range.
        """
        ranges = ("length_m", "bend_m", "detour_m", "width_m", "person_radius_m", "speed_mps", "gap_m")
        check_knobs(self, ranges)
        if not self.kinds:
            raise ConfigError(explain("kinds", "one or more", "none"))
        apart = self.width_m[1] + WALL_M
        for key in ("bend_m", "detour_m"):
            if getattr(self, key)[0] < apart:
                raise ConfigError(explain(key, f"at least {apart:g} (a corridor and a wall)", list(getattr(self, key))))
        if not _hides(self.bend_m[1], TURN_SHARE[1] * self.length_m[0], self.width_m[0]):
            raise ConfigError(explain("bend_m", "so far that one cannot see round the bend", list(self.bend_m)))
        if self.length_m[0] < 2 * apart + 1.0:
            least = f"at least {2 * apart + 1.0:g} (two corridors and what lies between them)"
            raise ConfigError(explain("length_m", least, list(self.length_m)))
        if self.detour_m[0] <= self.bend_m[1]:
            raise ConfigError(explain("detour_m", f"above bend_m ({self.bend_m[1]:g})", list(self.detour_m)))
        widest = self.width_m[0] / 2 - CHEST_M
        if self.person_radius_m[1] > widest:
            raise ConfigError(explain("person_radius_m", f"at most {widest:g}", list(self.person_radius_m)))
        widest = self.width_m[0] - 2 * (ELBOW_M + RADIUS_MIN_M)
        if self.gap_m[1] > widest:
            raise ConfigError(explain("gap_m", f"at most {widest:g}", list(self.gap_m)))


@dataclass(frozen=True, slots=True)
class _Ring:
    """Sizes of one ring, in its own frame: start at the origin, goal at (length, 0), the short way below."""

    kind: Kind
    length: float
    bend: float
    detour: float
    width: float
    turn: float  # x at which the short way bends
    narrow: float  # width of a tunnel

    @property
    def aside(self) -> float:
        """From the middle of one corridor to that of the next one."""
        return self.width + WALL_M

    @property
    def stretch(self) -> tuple[float, float]:
        """Begin and end (x) of what is closed."""
        return self.turn + self.width / 2, self.length - self.width / 2


def draw(rng: Rng, c: BlockedConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where the long way is too narrow for the robot or one sees round the bend."""
    kind = c.kinds[int(rng.integers(len(c.kinds)))]
    length, bend, detour = length_of(rng, c.length_m), length_of(rng, c.bend_m), length_of(rng, c.detour_m)
    width = length_of(rng, c.width_m)
    turn = length_of(rng, TURN_SHARE) * length
    narrow = 0.0
    if kind in ("tunnel", "closing"):
        narrow = spec.width_m + length_of(rng, NARROW_SHARE) * (2 * spec.radius_m - spec.width_m)
    ring = _Ring(kind, length, bend, detour, width, turn, narrow)
    boxes, bounds = solids_round(_free(rng, ring), WALL_M)
    if not _hides(bend, turn, width):
        return None
    plan = Plan(bounds, boxes=boxes)
    begin, last = ring.stretch
    at = begin + float(rng.uniform(0.3, 0.7)) * (last - begin)
    plan.movers += _blockers(rng, c, spec, ring, at)
    yaw = float(rng.uniform(-math.pi, math.pi))
    scene = plan.scene(name, yaw, c.goal_radius_m, c.time_limit_s)
    leaf = [at, -bend, LEAF_M, width + WALL_M, 0.0]
    walled_up = plan.boxes if kind in ("dead-end", "tunnel") else [*plan.boxes, leaf]
    proof = dataclasses.replace(scene, movers=(), boxes=np.array(walled_up, np.float32))
    task = proven_task(proof, [((0.0, 0.0), (length, 0.0))], spec, c.margin_m)
    if task is None:
        return None
    scene = dataclasses.replace(scene, start=task.start, goal=task.goal)
    return turned(scene, int(rng.integers(4)), bool(rng.integers(2)))


def _free(rng: Rng, ring: _Ring) -> NDArray[np.float64]:
    """(n, 4) free rectangles x0, y0, x1, y1: the long way, and what there is of the short one."""
    length, bend, detour, turn, half = ring.length, ring.bend, ring.detour, ring.turn, ring.width / 2
    begin, last = ring.stretch
    ways = [((0.0, 0.0), (turn, 0.0)), ((turn, 0.0), (turn, -bend))]
    ways += [((0.0, 0.0), (0.0, detour)), ((0.0, detour), (length, detour)), ((length, detour), (length, 0.0))]
    if ring.kind not in ("dead-end", "tunnel"):
        ways.append(((length, -bend), (length, 0.0)))
    if ring.kind == "dead-end":
        ways.append(((turn, -bend), (min(turn + float(rng.uniform(0.5, 1.5)), length - ring.aside), -bend)))
    elif not ring.narrow:
        ways.append(((turn, -bend), (length, -bend)))
    free = [[*np.minimum(a, b) - half, *np.maximum(a, b) + half] for a, b in ways]
    if ring.kind == "closing":
        free.append([begin, -bend - ring.narrow / 2, last, -bend + ring.narrow / 2])
    elif ring.kind == "tunnel":
        end, thin = last - WALL_M - ring.narrow / 2, ring.narrow / 2
        deep = max(min(length_of(rng, POCKET_M), bend - half - WALL_M - thin), 0.0)
        free.append([begin, -bend - thin, end + thin, -bend + thin])
        free.append([end - thin, -bend - thin, end + thin, -bend + thin + deep])
    return np.array(free)


def _blockers(rng: Rng, c: BlockedConfig, spec: RobotSpec, ring: _Ring, at: float) -> list[Mover]:
    """What stands or moves in the short way, near x = `at`."""
    y, width, (begin, last) = -ring.bend, ring.width, ring.stretch
    left, radius, gap = bool(rng.integers(2)), length_of(rng, c.person_radius_m), length_of(rng, c.gap_m)
    speed, phase = length_of(rng, c.speed_mps), float(rng.random())
    if ring.kind == "shut":
        return [_shut_door((at, y), width, left, c.time_limit_s)]
    if ring.kind == "standing":
        radius = (width - gap) / 2 - ELBOW_M
        y += (width / 2 - ELBOW_M - radius) * (1.0 if left else -1.0)
        return [Mover("pedestrian", "waypoint", ((at, y), (at + SWAY_M, y)), SPEEDS_MPS[0], radius)]
    if ring.kind == "meeting":
        return [Mover("pedestrian", "waypoint", ((begin, y), (last, y)), speed, radius, start_phase=phase)]
    if ring.kind == "closing":
        return [_closing_door((last - WALL_M / 2, y), ring, spec, c.time_limit_s)]
    return []


def _hides(bend: float, turn: float, width: float) -> bool:
    """Whether no straight line leads from the start past both corners of the bend into what follows."""
    return (bend - width / 2) * (turn - width / 2) >= width / 2 * (turn + width / 2)


def _shut_door(middle: Point, width: float, left: bool, time_limit_s: float) -> Mover:
    """A leaf across a corridor along x that begins to open when the episode is over."""
    hinge, end = (middle[0], middle[1] + width / 2), (middle[0], middle[1] - width / 2)
    period_s = 2 * time_limit_s + 2 * period_min_s(width)
    return hinged_door(hinge, end, left, period_s, 0.5, False)


def _closing_door(middle: Point, ring: _Ring, spec: RobotSpec, time_limit_s: float) -> Mover:
    """A leaf that stands open in the wall beside a tunnel, and is shut before the fastest robot can be there."""
    half = ring.narrow / 2 + WALL_M / 2
    begin, end = (middle[0], middle[1] - half), (middle[0], middle[1] + half)
    travel_s = 2 * half / DOOR_MPS
    wait_s = 2 * time_limit_s  # open, and then closed
    period_s = 2 * (wait_s + travel_s)
    shuts_s = max((ring.bend + middle[0]) / spec.vx_max_mps - travel_s, 0.0)
    leaf = sliding_door(begin, end, True, period_s, 0.0, False)
    return dataclasses.replace(leaf, start_phase=(wait_s - min(shuts_s, wait_s)) / period_s)
