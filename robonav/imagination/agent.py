"""The agent: world model, actor and critic, and the one step from observation to action that is deployed.

This step is the same in collection, evaluation and the exported graph. At tick t the memory is first advanced with
the last latent and the action that was really applied over the last tick, then the observation is encoded:

    h_{t-1} = step(z_{t-1}, a_{t-1});  z_t ~ q(z_t | o_t);  f_t = [h_{t-1}, z_t];  a_t = actor(f_t)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robonav.imagination.behavior import Behavior, BehaviorConfig
from robonav.types import RobotSpec
from robonav.world_model.encoders import Inputs
from robonav.world_model.model import WorldModel, WorldModelConfig, WorldModelState


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What a checkpoint needs to be rebuilt, besides the robot."""

    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    behavior: BehaviorConfig = field(default_factory=BehaviorConfig)


class AgentState(NamedTuple):
    """Memory before the last tick's latent, and that latent."""

    world: WorldModelState
    latent: Tensor  # (B, G * C)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors in a fixed order."""
        yield from self.world.tensors()
        yield "latent", self.latent


class Step(NamedTuple):
    """What the agent knows after an observation."""

    action: Tensor  # (B, A) in [-1, 1]
    mean: Tensor  # (B, A) without exploration
    value: Tensor  # (B,)
    features: Tensor  # (B, F)
    state: AgentState


class Agent(nn.Module):
    """World model and behaviour."""

    def __init__(self, config: AgentConfig, spec: RobotSpec) -> None:
        super().__init__()
        self.config = config
        self.model = WorldModel(config.model, spec)
        self.behavior = Behavior(config.behavior, self.model.feature_size)

    def initial_state(self, batch: int) -> AgentState:
        """Before the first tick."""
        latent = self.model.to_backbone.weight.new_zeros(batch, self.model.latent_size)
        return AgentState(self.model.initial_state(batch), latent)

    def observe(
        self, state: AgentState, inputs: Inputs, action_prev: Tensor, reset: Tensor, sample: bool = False
    ) -> tuple[Tensor, AgentState]:
        """Features f_t (B, F) and the next state.

        Args:
            action_prev: (B, A) what was applied since the last tick.
            reset: (B,) 1 at an episode's first tick: everything before is dropped.
            sample: samples the latent as in training; otherwise its most likely value.
        """
        world = self.model.advance(state.world, state.latent, action_prev)
        world = world.map(self.model.initial_state(reset.shape[0]), reset < 0.5)
        log_p = self.model.posterior(inputs, world.memory)
        latent = self.model.sample(log_p) if sample else self.model.mode(log_p)
        return self.model.features(world.memory, latent), AgentState(world, latent)

    def step(
        self, state: AgentState, inputs: Inputs, action_prev: Tensor, reset: Tensor, noise: Tensor | None = None
    ) -> Step:
        """One tick.

        `noise` (B,) scales exploration: 1 samples the actor, 0 takes its mean; None means no sampling anywhere.
        """
        features, state = self.observe(state, inputs, action_prev, reset, sample=noise is not None)
        policy = self.behavior.actor(features)
        action = policy.mean
        if noise is not None:
            action = action + noise[:, None] * policy.std * torch.randn_like(action)
        return Step(action.clamp(-1, 1), policy.mean, self.behavior.critic.mean(features), features, state)
