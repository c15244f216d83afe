"""Two ways to one goal, of which the shorter one is closed out of sight of the start: a robot has to find that out.

Start and goal are the ends of a ring of corridors. The short way bends twice, and what closes it stands behind the
first bend; the long way is always free, which is proven with the short one walled up. Four things close the short way:

| kind | what stands there |
|---|---|
| dead-end | it ends before the goal |
| shut | a door across it that stays shut |
| standing | people who stand together; the gap that they leave beside them is at most a tight fit |
| meeting | a person who walks up and down in it and stops in front of the robot |
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import Mover, RobotSpec, Scene
from sim.generators.base import Rng, check_knobs, length_of
from sim.generators.plan import LEAF_M, Plan, Point, hinged_door, period_min_s, solids_round, turned
from sim.generators.tasks import proven_task
from sim.scene_check import RADIUS_MIN_M, SPEEDS_MPS

Kind = Literal["dead-end", "shut", "standing", "meeting"]
WALL_M = 0.3
TURN_SHARE = (0.3, 0.5)  # of the length from start to goal at which the short way bends
SWAY_M = 0.02  # how far standing people shift
ELBOW_M = 0.03  # between them and the wall that they stand at
CHEST_M = 0.05  # left between a person and the wall at the narrowest, so that they can turn


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


def draw(rng: Rng, c: BlockedConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where the long way is too narrow for the robot or one sees round the bend."""
    kind = c.kinds[int(rng.integers(len(c.kinds)))]
    length, bend, detour = length_of(rng, c.length_m), length_of(rng, c.bend_m), length_of(rng, c.detour_m)
    width = length_of(rng, c.width_m)
    aside = width / 2 + WALL_M + width / 2  # from the middle of one corridor to that of the next one
    turn = length_of(rng, TURN_SHARE) * length  # where the short way bends
    end = length if kind != "dead-end" else min(turn + float(rng.uniform(0.5, 1.5)), length - aside)
    ways = [((0.0, 0.0), (turn, 0.0)), ((turn, 0.0), (turn, -bend)), ((turn, -bend), (end, -bend))]
    ways += [((0.0, 0.0), (0.0, detour)), ((0.0, detour), (length, detour)), ((length, detour), (length, 0.0))]
    if kind != "dead-end":
        ways.append(((length, -bend), (length, 0.0)))
    free = np.array([[*np.minimum(a, b) - width / 2, *np.maximum(a, b) + width / 2] for a, b in ways])
    boxes, bounds = solids_round(free, WALL_M)
    if not _hides(bend, turn, width):
        return None
    plan = Plan(bounds, boxes=boxes)
    begin, last = turn + width / 2, length - width / 2  # of the stretch that is closed
    at = begin + float(rng.uniform(0.3, 0.7)) * (last - begin)
    left, radius, gap = bool(rng.integers(2)), length_of(rng, c.person_radius_m), length_of(rng, c.gap_m)
    speed, phase = length_of(rng, c.speed_mps), float(rng.random())
    if kind == "shut":
        plan.movers.append(_shut_door((at, -bend), width, left, c.time_limit_s))
    elif kind == "standing":
        radius = (width - gap) / 2 - ELBOW_M
        y = -bend + (width / 2 - ELBOW_M - radius) * (1.0 if left else -1.0)
        plan.movers.append(Mover("pedestrian", "waypoint", ((at, y), (at + SWAY_M, y)), SPEEDS_MPS[0], radius))
    elif kind == "meeting":
        walks = ((begin, -bend), (last, -bend))
        plan.movers.append(Mover("pedestrian", "waypoint", walks, speed, radius, start_phase=phase))
    yaw = float(rng.uniform(-math.pi, math.pi))
    scene = plan.scene(name, yaw, c.goal_radius_m, c.time_limit_s)
    walled_up = [*plan.boxes, [at, -bend, LEAF_M, width + WALL_M, 0.0]] if kind != "dead-end" else plan.boxes
    proof = dataclasses.replace(scene, movers=(), boxes=np.array(walled_up, np.float32))
    task = proven_task(proof, [((0.0, 0.0), (length, 0.0))], spec, c.margin_m)
    if task is None:
        return None
    scene = dataclasses.replace(scene, start=task.start, goal=task.goal)
    return turned(scene, int(rng.integers(4)), bool(rng.integers(2)))


def _hides(bend: float, turn: float, width: float) -> bool:
    """Whether no straight line leads from the start past both corners of the bend into what follows."""
    return (bend - width / 2) * (turn - width / 2) >= width / 2 * (turn + width / 2)


def _shut_door(middle: Point, width: float, left: bool, time_limit_s: float) -> Mover:
    """A leaf across a corridor along x that begins to open when the episode is over."""
    hinge, end = (middle[0], middle[1] + width / 2), (middle[0], middle[1] - width / 2)
    period_s = 2 * time_limit_s + 2 * period_min_s(width)
    return hinged_door(hinge, end, left, period_s, 0.5, False)
