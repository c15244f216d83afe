"""A T-maze for memory: a post at the left or right of the start says which arm holds the goal.

The start lies in a chamber. From there the post is in sight of lidar and camera; once the robot is a metre inside the
stem, the chamber's front wall hides it. The delay until the decision is the stem's length. For the task to need memory,
the environment must hide the goal's direction until the junction: `Scene.goal` lies in the right arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.generators.base import Rng, check_knobs, length_of
from sim.generators.plan import Plan, solids_round, turned
from sim.generators.tasks import proven_task

CHAMBER_M = (3.6, 3.2)  # width and depth
CUE_M = (1.45, 0.4, 0.15)  # sideways from the middle, back from the chamber's front wall, radius
WALL_M = 0.3


@dataclass(frozen=True, slots=True)
class TMazeConfig:
    """Knobs of the generator. Pairs are inclusive ranges that are drawn from uniformly."""

    stem_m: tuple[float, float] = (3.0, 8.0)  # the delay
    width_m: tuple[float, float] = (1.2, 1.5)
    arm_m: tuple[float, float] = (2.0, 3.0)
    opposite: bool = False  # the goal lies on the side that the cue does not show
    margin_m: float = 0.05  # kept beyond the robot's circumscribed circle at start and goal
    goal_radius_m: float = 0.5
    time_limit_s: float = 60.0
    attempts: int = 20

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a knob out of range.
        """
        check_knobs(self, ("stem_m", "width_m", "arm_m"))
        if self.width_m[1] > 1.8:
            raise ConfigError(explain("width_m", "at most 1.8: a wider stem would show the cue", list(self.width_m)))
        if self.stem_m[0] < 1.0 or self.arm_m[0] < 1.2:
            got = [self.stem_m[0], self.arm_m[0]]
            raise ConfigError(explain("stem_m, arm_m", "at least 1 and 1.2", got))


def draw(rng: Rng, c: TMazeConfig, spec: RobotSpec, name: str) -> Scene | None:
    """One scene, or None where the stem is too narrow for the robot."""
    stem, width, arm = length_of(rng, c.stem_m), length_of(rng, c.width_m), length_of(rng, c.arm_m)
    right = 1.0 if rng.integers(2) else -1.0  # the side of the goal
    chamber, depth = CHAMBER_M
    bar = depth + stem
    free = [
        [-chamber / 2, 0.0, chamber / 2, depth],
        [-width / 2, depth - 0.1, width / 2, bar + width],
        [-width / 2 - arm, bar, width / 2 + arm, bar + width],
    ]
    boxes, bounds = solids_round(np.array(free), WALL_M)
    shown = -right if c.opposite else right
    cue = [shown * CUE_M[0], depth - CUE_M[1], CUE_M[2]]
    plan = Plan(bounds, boxes=boxes, cylinders=[cue])
    start = (float(rng.uniform(-0.1, 0.1)), 0.6)
    goal = (right * (width / 2 + arm - width / 2), bar + width / 2)
    yaw = math.pi / 2 + float(rng.uniform(-0.15, 0.15))
    scene = plan.scene(name, yaw, c.goal_radius_m, c.time_limit_s)
    task = proven_task(scene, [(start, goal)], spec, c.margin_m)
    if task is None:
        return None
    return turned(task, int(rng.integers(4)), bool(rng.integers(2)))
