"""The floor of every table: smooth random commands that look at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.types import ACTION_SIZE, COMMAND_LIFE_NS, Decision, Observation, RobotSpec, VelocityCommand


@dataclass(frozen=True, slots=True)
class RandomConfig:
    """How long a random command lasts."""

    hold_s: float = 0.8  # time constant with which the command moves to its target; a target holds that long too

    def __post_init__(self) -> None:
        """Checks the time.

        Raises:
            ConfigError: it is not positive.
        """
        if self.hold_s <= 0:
            raise ConfigError(explain("random policy: hold_s", "above 0", self.hold_s))


class RandomState(NamedTuple):
    """What the next command depends on; the draw itself is a function of seed and tick."""

    seed: int
    tick: int
    target: NDArray[np.float64]  # (3,) action
    action: NDArray[np.float64]  # (3,) action


class RandomPolicy:
    """Moves towards a uniformly drawn action and draws a new one every `hold_s`."""

    name = "random"

    def __init__(self, spec: RobotSpec, config: RandomConfig | None = None) -> None:
        self.spec = spec
        self.config = config or RandomConfig()
        self._hold_ticks = max(1, round(self.config.hold_s * spec.rate_hz))
        self._share = 1.0 - np.exp(-spec.dt_s / self.config.hold_s)

    def reset(self, seed: int) -> RandomState:
        """Standing still."""
        return RandomState(seed, 0, np.zeros(ACTION_SIZE), np.zeros(ACTION_SIZE))

    def act(self, state: RandomState, observation: Observation) -> tuple[RandomState, Decision]:
        """Next state and a command that only depends on seed and tick."""
        target = state.target
        if state.tick % self._hold_ticks == 0:
            # SeedSequence takes no negative numbers
            draw = np.random.default_rng((state.seed % 2**63, state.tick))
            target = draw.uniform(-1.0, 1.0, ACTION_SIZE)
        action = state.action + self._share * (target - state.action)
        velocity = self.spec.action_to_velocity(action)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        return RandomState(state.seed, state.tick + 1, target, action), Decision(command, why="random")
