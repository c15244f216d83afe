"""Sizes and dials of opponents that Stable-Baselines3 trains; needs torch, not Stable-Baselines3."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from torch import nn

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.world_model.encoders import EncoderConfig


def _encoder() -> EncoderConfig:
    return EncoderConfig(sector_width=32, flow=True, motion=True, robot=True)


@dataclass(frozen=True, slots=True)
class ActorConfig:
    """Sizes of an actor."""

    algorithm: Literal["ppo", "sac"] = "ppo"
    """That trained it. PPO's mean action is clipped, SAC's goes through tanh."""
    layers: tuple[int, ...] = (256, 256)
    """Widths of the layers behind the encoder; the critics' as well."""
    encoder: EncoderConfig = field(default_factory=_encoder)

    def __post_init__(self) -> None:
        """Checks the widths.

        Raises:
            ConfigError: there is none, or one that is not positive.
        """
        if not self.layers or min(self.layers) < 1:
            raise ConfigError(explain("sb3: layers", "one or more widths of at least 1", self.layers))

    @property
    def activation(self) -> type[nn.Module]:
        """What stands behind each layer: Stable-Baselines3's default for the algorithm."""
        return nn.Tanh if self.algorithm == "ppo" else nn.ReLU


@dataclass(frozen=True, slots=True)
class Sb3Config:
    """What differs from the library's defaults, or is worth turning."""

    actor: Annotated[ActorConfig, tyro.conf.arg(name="")] = field(default_factory=ActorConfig)
    steps: int = 1_000_000
    """Environment steps in all."""
    seed: int = 0
    """Of weights, exploration and sampling."""
    gamma: float = 0.997
    """Discount; the agent's own is 0.99."""
    learning_rate: float = 3e-4
    """Of Adam."""
    batch: int = 256
    """Steps a gradient step."""
    rollout: int = 128
    """PPO: steps of every environment between updates."""
    entropy: float = 3e-4
    """PPO: weight of the entropy. SAC tunes its own."""
    replay: int = 100_000
    """SAC: steps that replay holds, about 30 kB each."""
    start: int = 5_000
    """SAC: steps of uniform random actions before it learns."""
    gradient_steps: int = 1
    """SAC: updates after each step of all environments."""
    save_every: int = 50_000
    """Steps between two savings of the actor."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        counts = ("steps", "batch", "rollout", "replay", "gradient_steps", "save_every")
        require_at_least(self, {**dict.fromkeys(counts, 1), "seed": 0, "learning_rate": 0, "entropy": 0, "start": 0})
        if self.actor.algorithm == "ppo":  # it normalises advantages over a batch
            require_at_least(self, {"batch": 2, "rollout": 2})
        if not 0 <= self.gamma < 1:
            raise ConfigError(explain("gamma", "0 or more, and below 1", self.gamma))
