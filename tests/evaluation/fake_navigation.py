"""A tiny world for the runner's tests, in a module of its own since worker processes import it by its name.

A point drives along a line to a goal. Scene number s puts the goal 1 to 4 m ahead and a wall behind it on every third
number, which a policy that does not look meets first.
"""

from __future__ import annotations

import os

import numpy as np

from robonav.errors import PolicyError
from robonav.types import Decision, Observation, RobotSpec, Scene, VelocityCommand

SPEC = RobotSpec("point", "none", 0.2, 0.2, 0.2, -1.0, 1.0, 1.0, 1.0)


class LineEnv:
    def __init__(self):
        self.unwrapped = self
        self.scene = None

    def reset(self, seed=None, options=None):
        rng = np.random.default_rng(seed)
        goal = float(rng.uniform(1.0, 4.0))
        self.scene = (options or {}).get("scene") or Scene(f"line-{seed}", (-1, -1, 6, 1), (0, 0, 0), (goal, 0.0))
        self.blocked = seed % 3 == 0
        self.position = np.zeros(2)
        self.path_m = 0.0
        self.ticks = 0
        self.rng = rng
        return {}, self._info()

    def _info(self):
        return {
            "position_world_m": self.position.copy(),
            "path_m": self.path_m,
            "shortest_m": self.scene.goal[0],
            "scene": self.scene.name,
        }

    def observation(self):
        zeros = np.zeros(3, np.float32)
        pose = np.array([*self.position, 0.0], np.float32)
        scan = np.full(SPEC.lidar.beams, 8.0, np.float32)
        return Observation(self.ticks, pose, zeros, zeros[:2], np.array(self.scene.goal, np.float32), zeros, scan)

    def step(self, action):
        velocity = SPEC.action_to_velocity(action)
        step = (velocity[:2] + self.rng.normal(0, 0.05, 2)) * SPEC.dt_s
        self.position = self.position + step
        self.path_m += float(np.linalg.norm(step))
        self.ticks += 1
        goal_x = self.scene.goal[0]
        info, outcome = self._info(), None
        if self.blocked and self.position[0] > goal_x - 0.8:
            outcome = "collision"
        elif abs(self.position[0] - goal_x) < self.scene.goal_radius_m:
            outcome = "success"
        elif self.ticks >= 80:
            outcome = "timeout"
        if outcome:
            info["outcome"] = outcome
        return {}, -0.1, outcome in ("success", "collision"), outcome == "timeout", info

    def close(self):
        pass


class Forward:
    """Drives forward with a speed that its own seeded stream varies."""

    name = "forward"

    def reset(self, seed):
        return np.random.default_rng(seed + 1)

    def act(self, state, observation):
        return state, Decision(VelocityCommand(float(state.uniform(0.5, 1.0)), 0.0, 0.0, 0))


class Broken(Forward):
    name = "broken"

    def act(self, state, observation):
        return state, Decision(VelocityCommand(float("nan"), 0.0, 0.0, 0))


class Refusing(Forward):
    def reset(self, seed):
        raise PolicyError("refused to start")


class Dying(Forward):
    def reset(self, seed):
        os._exit(9)
