"""An environment whose observations count: what was replayed can be checked to be consecutive and aligned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from robonav.config import load_robot
from robonav.learning.streams import GymStreams
from robonav.types import Decision, Observation, RobotSpec, VelocityCommand, policy_input_shapes

SPEC = load_robot("a1")


class CountingEnv(gym.Env[Any, Any]):
    """goal_base_m holds (seed % 10_000, step); the reward is the first action that led here; ends by the seed."""

    robot = SPEC

    def __init__(self) -> None:
        self.action_space = gym.spaces.Box(-1, 1, (3,))
        self.count, self.length = 0, 0

    def _observation(self) -> dict[str, Any]:
        out = {name: np.ones(shape, np.float32) for name, shape in policy_input_shapes(SPEC).items()}
        out["local_map"] = np.zeros(policy_input_shapes(SPEC)["local_map"], np.uint8)
        out["goal_base_m"] = np.array([self.number, self.count], np.float32)
        return out

    def observation(self) -> Observation:
        """What an expert reads: the step is the pose's x."""
        return Observation(
            stamp_ns=self.count,
            pose_odom_base=np.array([self.count, 0, 0], np.float32),
            twist_base=np.zeros(3, np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.zeros(2, np.float32),
            last_command=np.zeros(3, np.float32),
            scan_m=None,
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None
        self.number, self.count, self.length = seed % 10_000, 0, 3 + seed % 5
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        ended = self.count >= self.length
        terminated = ended and self.number % 2 == 0
        outcome = {"outcome": "success" if terminated else "timeout"} if ended else {}
        return self._observation(), float(action[0]), terminated, ended and not terminated, outcome


@dataclass(frozen=True)
class CountingFactory:
    """Picklable."""

    def __call__(self, index: int, count: int) -> GymStreams:
        return GymStreams([CountingEnv() for _ in range(count)])


class CountingExpert:
    """A policy whose state counts the steps of its episode; a state that was lost or kept too long would be seen."""

    name = "counting"

    def reset(self, seed: int) -> tuple[int, int]:
        return seed % 7, 0

    def act(self, state: tuple[int, int], observation: Observation) -> tuple[tuple[int, int], Decision]:
        seed, step = state
        assert observation.pose_odom_base[0] == step
        velocity = np.array([0.05 * (seed + step) % 0.5, 0.0, 0.01 * step], np.float32)
        return (seed, step + 1), Decision(VelocityCommand.of(velocity, 10**9))


def counting_expert(name: str, spec: RobotSpec) -> CountingExpert:
    """An `ExpertFactory`."""
    return CountingExpert()
