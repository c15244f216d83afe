"""An environment whose observations count: what was replayed can be checked to be consecutive and aligned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from robonav.config import load_robot
from robonav.learning.streams import GymStreams
from robonav.types import policy_input_shapes

SPEC = load_robot("a1")


class CountingEnv(gym.Env[Any, Any]):
    """goal_base_m holds (seed % 10_000, step); the reward is the first action that led here; ends by the seed."""

    def __init__(self) -> None:
        self.action_space = gym.spaces.Box(-1, 1, (3,))
        self.count, self.length = 0, 0

    def _observation(self) -> dict[str, Any]:
        out = {name: np.ones(shape, np.float32) for name, shape in policy_input_shapes(SPEC).items()}
        out["local_map"] = np.zeros(policy_input_shapes(SPEC)["local_map"], np.uint8)
        out["goal_base_m"] = np.array([self.number, self.count], np.float32)
        return out

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
