"""Planning by imagination: model-predictive path integral control over the world model's recurrent step.

Candidates come from three places: the actor dreaming on with noise, noise round the last plan moved on by one tick,
and the last plan itself. Each is dreamt through the prior; its score is the discounted imagined reward plus the
critic's value of the last state (MPPI: Williams et al. 2017; policy proposals and terminal value: TD-MPC2).

The warm start goes in and the next one comes out. A candidate whose score is not finite is never chosen and is
counted; when there is no finite one the planner commands a stop and says so.

Shape letters: K candidates, L horizon, A action size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from robonav.imagination.agent import Agent, AgentState
from robonav.ssm.state import map_state
from robonav.types import ACTION_SIZE
from robonav.world_model.model import WorldModelState


@dataclass(frozen=True, slots=True)
class MPPIConfig:
    """The planner's dials."""

    candidates: int = 64
    """Imagined action sequences a round."""
    horizon: int = 10
    """Steps that are imagined."""
    rounds: int = 2
    """Refinements a tick."""
    from_actor: float = 0.4
    """Share of the candidates that the actor proposes."""
    noise_std: float = 0.3
    """Noise round the last plan in the first round; halved each round."""
    actor_noise: float = 0.7
    """Noise of the actor's proposals, in units of its own standard deviation."""
    temperature: float = 0.05
    """Of the softmax over scores, in units of return."""


class PlannerState(NamedTuple):
    """Warm start of the next tick."""

    plan: Tensor  # (L, A) mean of the last plan
    seed: int  # of the noise; grows by one a tick, so that a log replays exactly


class Plan(NamedTuple):
    """What the planner found."""

    action: Tensor  # (A,) first action
    actions: Tensor  # (L, A) the whole plan
    score: float  # its weighted return
    rejected: int  # candidates that were not finite
    why: str
    state: PlannerState


def initial_planner_state(config: MPPIConfig, seed: int) -> PlannerState:
    """No plan yet."""
    return PlannerState(torch.zeros(config.horizon, ACTION_SIZE), seed)


def _repeat(state: WorldModelState, count: int) -> WorldModelState:
    """(1, ...) to (count, ...)."""
    return cast("WorldModelState", map_state(lambda x: x.expand(count, *x.shape[1:]), state))


@torch.no_grad()
def plan(agent: Agent, state: AgentState, planner: PlannerState, config: MPPIConfig) -> Plan:
    """Chooses an action from the agent's state after `Agent.observe` (batch 1)."""
    noise = torch.Generator().manual_seed(planner.seed)
    k, horizon = config.candidates, config.horizon
    proposals = round(config.from_actor * k)
    mean = torch.cat([planner.plan[1:], planner.plan[-1:]])
    best, scores, rejected = mean, torch.zeros(k), 0
    for round_ in range(config.rounds):
        std = config.noise_std * 0.5**round_
        wanted = mean + std * torch.randn(k, horizon, ACTION_SIZE, generator=noise)
        wanted[-1] = mean
        actions, scores = _imagine(agent, state, wanted.clamp(-1, 1), proposals, config, noise)
        finite = torch.isfinite(scores)
        rejected += int((~finite).sum())
        if not finite.any():
            stopped = PlannerState(torch.zeros_like(mean), planner.seed + 1)
            return Plan(torch.zeros(ACTION_SIZE), stopped.plan, 0.0, rejected, "stop: no finite candidate", stopped)
        scores = torch.where(finite, scores, -torch.inf)
        weights = torch.softmax(scores / config.temperature, dim=0)
        actions = torch.where(finite[:, None, None], actions, 0.0)
        best = mean = (weights[:, None, None] * actions).sum(0)
    score = float((weights * torch.where(finite, scores, 0.0)).sum())
    return Plan(best[0], best, score, rejected, "mppi", PlannerState(best, planner.seed + 1))


def _imagine(
    agent: Agent, start: AgentState, wanted: Tensor, proposals: int, config: MPPIConfig, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Dreams all candidates; the first `proposals` of them follow the actor instead of `wanted` (K, L, A).

    Returns the actions (K, L, A) and the scores (K,).
    """
    model, behavior = agent.model, agent.behavior
    discount = behavior.config.discount
    count = wanted.shape[0]
    state, latent = _repeat(start.world, count), start.latent.expand(count, -1)
    features = model.features(state.memory, latent)
    score, weight = torch.zeros(count), torch.ones(count)
    actions = []
    for t in range(wanted.shape[1]):
        policy = behavior.actor(features[:proposals])
        jitter = torch.randn(proposals, ACTION_SIZE, generator=noise)
        own = (policy.mean + config.actor_noise * policy.std * jitter).clamp(-1, 1)
        action = torch.cat([own, wanted[proposals:, t]])
        state = model.advance(state, latent, action)
        latent = model.sample(model.prior(state.memory, latent, action), noise)
        features = model.features(state.memory, latent)
        score = score + weight * model.reward.mean(features)
        weight = weight * discount * torch.sigmoid(model.proceed(features).squeeze(-1))
        actions.append(action)
    return torch.stack(actions, 1), score + weight * behavior.critic.mean(features)
