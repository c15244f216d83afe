"""Rewards as data: sparse outcomes, the price of time, and a shaping potential (``configs/rewards/*.toml``).

Progress is potential-based shaping (Ng, Harada and Russell 1999): with the potential phi = -progress_per_m * (way that
remains), F = shaping_discount * phi' - phi. With 1.0 it is simply the metres that the way became shorter. The theorem
asks for phi = 0 at every end (Grzes 2017); here a collision keeps its potential, so that a way half done still counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robonav.config import find_config, from_mapping, load_config
from robonav.errors import ConfigError, explain

SUCCESS, COLLISION, TIMEOUT = "success", "collision", "timeout"


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Terms of the reward; each is added at the tick on which it arises."""

    success: float = 1.0
    collision: float = -1.0
    timeout: float = 0.0
    progress_per_m: float = 0.25  # of the geodesic distance to the goal
    shaping_discount: float = 1.0
    step: float = -0.005
    near: float = -0.03  # at contact, falling linearly to 0 at `near_range_m`
    near_range_m: float = 0.2

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a discount outside (0, 1], or a range that is not positive.
        """
        if not 0 < self.shaping_discount <= 1:
            raise ConfigError(explain("shaping_discount", "above 0 and at most 1", self.shaping_discount))
        if self.near_range_m <= 0:
            raise ConfigError(explain("near_range_m", "a number above 0", self.near_range_m))

    def reward(self, progress_m: float, clearance_m: float, outcome: str | None, remaining_m: float = 0.0) -> float:
        """Reward of one tick that ended with `outcome` (None while the episode goes on).

        Args:
            progress_m: by how much the way became shorter.
            clearance_m: from the body to the nearest obstacle.
            outcome: how the episode ended.
            remaining_m: what is left of the way; it counts only with a discount below 1.
        """
        total = self.step + self.progress_per_m * progress_m
        if self.shaping_discount < 1:
            total += self.progress_per_m * (1.0 - self.shaping_discount) * remaining_m
        if clearance_m < self.near_range_m:
            total += self.near * (1.0 - clearance_m / self.near_range_m)
        if outcome is None:
            return total
        return total + {SUCCESS: self.success, COLLISION: self.collision, TIMEOUT: self.timeout}[outcome]


def load_rewards(reward: str | RewardConfig | dict[str, Any] | None) -> RewardConfig:
    """Rewards by the name of a preset or the path of a .toml, from a dict of terms, or the default ones.

    Raises:
        ConfigError: unknown preset or term, or a value out of range.
    """
    if isinstance(reward, RewardConfig):
        return reward
    if isinstance(reward, str):
        return load_config(RewardConfig, find_config("rewards", reward))
    return from_mapping(RewardConfig, reward or {}, "reward")
