"""An environment without physics for tests of the vector environment: what it shows says where it is.

It lies in a module of its own since worker processes have to import it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 3  # steps of an episode


class StubEnv(gymnasium.Env[Any, Any]):
    """Observation: episode number, step. Action (1,): 0 goes on, 1 raises, 2 ends the process, 3 truncates."""

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's name and form)

    def __init__(self, name: int, size: int = 2) -> None:
        self.name = name
        self.speed = 1.0
        self.episode = self.steps = 0
        self.observation_space = spaces.Dict({"where": spaces.Box(-1e9, 1e9, (size,), np.float64)})
        self.action_space = spaces.Box(0, 9, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        number = seed if seed is not None else int(self.np_random.integers(2**31))
        self.episode, self.steps = self.episode + 1, 0
        return self._where(), {"seed": number, "options": options or {}, "drawn": {"one": 1.0}}

    def step(self, action: Any) -> Any:
        word = int(action[0])
        if word == 1:
            raise ValueError("broken on purpose")
        if word == 2:
            os._exit(7)
        self.steps += 1
        over = self.steps == LENGTH
        info = {"steps": self.steps} | ({"outcome": "success"} if over else {})
        return self._where(), self.steps * 1.0, over, word == 3, info

    def _where(self) -> dict[str, Any]:
        return {"where": np.array([self.episode, self.steps], np.float64)}


@dataclass(frozen=True)
class StubFactory:
    """Makes one."""

    name: int
    size: int = 2

    def __call__(self) -> StubEnv:
        return StubEnv(self.name, self.size)
