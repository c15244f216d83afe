"""An environment of a curriculum: what it observes says from which preset its episode is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from counting_env import CountingEnv

from robonav.learning.streams import GymStreams

PRESETS = ("easy", "middle", "hard", "last")
RANDOMISATIONS = ("off", "some")


class LevelEnv(CountingEnv):
    """tilt_rad holds the numbers of preset and randomisation; the easier the preset, the more episodes succeed."""

    def _observation(self) -> dict[str, Any]:
        return {**super()._observation(), "tilt_rad": np.array(self.place, np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.place = (PRESETS.index(options["preset"]), RANDOMISATIONS.index(options["randomisation"]))
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            won = self.number % 4 >= self.place[0]
            return observation, reward, won, not won, {"outcome": "success" if won else "timeout"}
        return observation, reward, terminated, truncated, info


@dataclass(frozen=True)
class LevelFactory:
    """Picklable."""

    def __call__(self, index: int, count: int) -> GymStreams:
        return GymStreams([LevelEnv() for _ in range(count)])
