"""Routes dreamt forward: the observation is encoded with each route, then the actor dreams on from the agent's memory.

What is said of a route is the discounted imagined reward over the horizon with the critic's value of the last state
(TD-MPC2's terminal value; choosing among dreamt routes: the route is an input of the actor, so a dream follows it).
Waiting is dreamt with standstill in the actor's place. All candidates are dreamt with the same noise in the latents, so
that what differs between them is the route and not its luck.

Shape letters: K candidates, S samples, N = K S dreams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robonav.config import require_at_least
from robonav.errors import ConfigError
from robonav.imagination.agent import Agent, AgentState
from robonav.ssm.state import map_state
from robonav.types import PolicyInput
from robonav.world_model.model import WorldModelState


@dataclass(frozen=True, slots=True)
class RouteDreamsConfig:
    """How routes are dreamt."""

    horizon: int = 15
    """Ticks."""
    samples: int = 3
    """Dreams a route; their mean counts."""
    rewards: bool = True
    """Whether imagined rewards count."""
    value: bool = True
    """Whether the critic's value of the last state counts."""
    disagreement_weight: float = 0.0
    """What full disagreement of the priors takes off a return."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit, or nothing that counts.
        """
        require_at_least(self, {"horizon": 1, "samples": 1, "disagreement_weight": 0})
        if not (self.rewards or self.value):
            raise ConfigError("route dreams: expected rewards or value to count, got neither; switch one on")


class RouteDreams:
    """Dreams from an agent's memory at a tick, before that tick's observation; see `robonav.planning.route_choice`.

    Args:
        state: of the tick before.
        action_prev: (1, A) what was applied since.
        reset: (1,) 1 at an episode's first tick.
        seed: of the noise.
    """

    def __init__(
        self,
        agent: Agent,
        state: AgentState,
        action_prev: Tensor,
        reset: Tensor,
        config: RouteDreamsConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._agent, self._state, self._action, self._reset = agent, state, action_prev, reset
        self.config = config or RouteDreamsConfig()
        self._seed = seed

    @torch.no_grad()
    def __call__(self, inputs: Sequence[PolicyInput], waits: Sequence[bool]) -> NDArray[np.float32]:
        """(K,) imagined returns of following the routes in these inputs, or of standing still where `waits`."""
        agent, model, behavior, c = self._agent, self._agent.model, self._agent.behavior, self.config
        arrays = [made.arrays() for made in inputs]
        batch = {name: torch.from_numpy(np.stack([a[name] for a in arrays])) for name in arrays[0]}
        count, total = len(inputs), len(inputs) * c.samples

        def spread(x: Tensor, rows: int) -> Tensor:
            return x.expand(rows, *x.shape[1:])

        state = AgentState(
            WorldModelState(*map_state(lambda x: spread(x, count), self._state.world)),
            spread(self._state.latent, count),
        )
        _, after = agent.observe(state, batch, spread(self._action, count), self._reset.expand(count))
        world = WorldModelState(*map_state(lambda x: x.repeat_interleave(c.samples, 0), after.world))
        latent = after.latent.repeat_interleave(c.samples, 0)
        stands = torch.tensor(list(waits)).repeat_interleave(c.samples)[:, None]
        rng = np.random.default_rng(self._seed % 2**63)
        shape = (c.horizon, c.samples, model.config.sampled_groups, model.config.classes)
        luck = torch.from_numpy(rng.gumbel(size=shape).astype(np.float32))
        score, weight = latent.new_zeros(total), latent.new_ones(total)
        features = model.features(world.memory, latent)
        for t in range(c.horizon):
            action = torch.where(stands, 0.0, behavior.actor(features).mean)
            world = model.advance(world, latent, action)
            prior = model.prior(world.memory, latent, action)
            if c.disagreement_weight:
                doubt = model.disagreement(world.memory, latent, action, prior)
                score = score - weight * (c.disagreement_weight / c.horizon) * doubt
            latent = model.sample_with(prior, luck[t].repeat(count, 1, 1))
            features = model.features(world.memory, latent)
            if c.rewards:
                score = score + weight * model.reward.mean(features)
            weight = weight * behavior.config.discount * torch.sigmoid(model.proceed(features).squeeze(-1))
        if c.value:
            score = score + weight * behavior.critic.mean(features)
        return np.asarray(score.view(count, c.samples).mean(1).numpy(), np.float32)
