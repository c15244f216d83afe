"""Candidate plans dreamt forward together: what a planner asks of the world model, as one function of plain tensors.

All noise comes in, so that the same call in torch and in an exported graph gives the same answer. Shape letters: K
candidates, P of them the actor's own, L horizon, A action size, S sampled groups, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robonav.imagination.agent import Agent, AgentState
from robonav.ssm.state import map_state
from robonav.types import Dreams
from robonav.world_model.model import WorldModelState

Singles = NDArray[np.float32]


class Dreaming(NamedTuple):
    """Where K dreams are, and what they brought so far."""

    state: WorldModelState  # (K, ...) memory before the latent
    latent: Tensor  # (K, G * C)
    rewards: Tensor  # (K,) discounted
    weight: Tensor  # (K,) discount times the chance that the episode goes on
    doubt: Tensor  # (K,) sum of the priors' disagreement, each step weighted like its reward
    danger: Tensor  # (K,) discounted chance of a collision: see `CandidateDreams`


def dream_on(
    agent: Agent, now: Dreaming, wanted: Tensor, jitter: Tensor, gumbel: Tensor, doubts: bool = True
) -> tuple[Dreaming, Tensor]:
    """One step of K dreams, and the actions (K, A) that they took: the first P follow the actor.

    Args:
        agent: whose model and actor dream.
        now: before the step.
        wanted: (K, A); the first P rows are not looked at.
        jitter: (P, A) of the actor's own actions, in its standard deviations.
        gumbel: (K, S, C) standard Gumbel noise of the latents.
        doubts: whether the priors' disagreement is looked at.
    """
    model, behavior = agent.model, agent.behavior
    state, latent, rewards, weight, doubt, danger = now
    action, own = wanted, jitter.shape[0]
    if own:
        policy = behavior.actor(model.features(state.memory[:own], latent[:own]))
        action = torch.cat([(policy.mean + policy.std * jitter).clamp(-1, 1), wanted[own:]])
    state = model.advance(state, latent, action)
    prior = model.prior(state.memory, latent, action)
    if doubts:
        doubt = doubt + weight * model.disagreement(state.memory, latent, action, prior)
    latent = model.sample_with(prior, gumbel)
    features = model.features(state.memory, latent)
    reward, goes_on = model.reward.mean(features), torch.sigmoid(model.proceed(features).squeeze(-1))
    if model.clearance is None:
        danger = danger + weight * (1 - goes_on) * (reward < 0)  # an end that is rewarded is an arrival
    else:
        danger = torch.maximum(danger, weight * model.clearance.touch(features))
    rewards, weight = rewards + weight * reward, weight * behavior.config.discount * goes_on
    return Dreaming(state, latent, rewards, weight, doubt, danger), action


class CandidateDreams(nn.Module):
    """Dreams K candidates from one state; the first P follow the actor instead of what is wanted.

    The priors' disagreement is looked at every `doubt_every` steps.
    """

    def __init__(self, agent: Agent, doubt_every: int = 1) -> None:
        super().__init__()
        self.agent, self.doubt_every = agent, doubt_every

    def forward(
        self, start: WorldModelState, latent: Tensor, wanted: Tensor, jitter: Tensor, gumbel: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Actions, rewards, values, disagreement and danger of the candidates: see `robonav.types.Dreams`.

        Args:
            start: (1, ...) memory before the latent.
            latent: (1, G * C) of now.
            wanted: (K, L, A) actions; the first P rows are not looked at.
            jitter: (P, L, A) of the actor's own actions, in its standard deviations.
            gumbel: (L, K, S, C) standard Gumbel noise of the latents.

        Returns:
            (K, L, A) actions; (K,) the discounted imagined rewards; (K,) the critic's discounted value of the last
            state; (K,) how far the priors disagree over the horizon, 0 to 1: the mean over the steps that are
            looked at, each weighted like its reward, so that what would come after an end does not count; and (K,)
            the chance of a collision, discounted like rewards: that the episode ends without a reward, or, where the
            model has a head for clearances, the largest of a step's chances of a touch.
        """
        model, count, horizon = self.agent.model, wanted.shape[0], wanted.shape[1]
        state = WorldModelState(*map_state(lambda x: x.expand(count, *x.shape[1:]), start))
        none = wanted.new_zeros(count)
        now = Dreaming(state, latent.expand(count, -1), none, torch.ones_like(none), none, none)
        actions = []
        for t in range(horizon):
            looked = (t + 1) % self.doubt_every == 0
            now, action = dream_on(self.agent, now, wanted[:, t], jitter[:, t], gumbel[t], looked)
            actions.append(action)
        value = self.agent.behavior.critic.mean(model.features(now.state.memory, now.latent))
        doubt = now.doubt / max(horizon // self.doubt_every, 1)
        return torch.stack(actions, 1), now.rewards, now.weight * value, doubt, now.danger


class TorchImagination:
    """`CandidateDreams` from one state of an agent, on arrays: see `robonav.planning.mppi.Imagination`."""

    def __init__(self, agent: Agent, state: AgentState, doubt_every: int = 1) -> None:
        self._dreams, self._state = CandidateDreams(agent, doubt_every), state
        self.noise_shape = (agent.model.config.sampled_groups, agent.model.config.classes)

    @torch.no_grad()
    def __call__(self, wanted: Singles, jitter: Singles, gumbel: Singles) -> Dreams:
        """See `CandidateDreams.forward`."""
        noise = (torch.from_numpy(array) for array in (wanted, jitter, gumbel))
        dreamt = self._dreams(self._state.world, self._state.latent, *noise)
        return Dreams(*(tensor.numpy() for tensor in dreamt))
