"""Candidate dreams: scores and disagreement against a loop over single dreams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import AGENT

from robonav.config import load_robot
from robonav.imagination.agent import Agent, AgentState
from robonav.imagination.candidates import CandidateDreams, TorchImagination
from robonav.planning.mppi import MPPIConfig, initial_planner_state, plan
from robonav.types import Dreams

SPEC = load_robot("a1")
K, P, L = 5, 2, 4


def dreams(heads: int, clearance: bool = False) -> tuple[Agent, AgentState, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = replace(AGENT.model, prior_heads=heads, clearance=clearance)
    agent = Agent(replace(AGENT, model=model), SPEC).eval().requires_grad_(False)
    c = agent.model.config
    gumbel = -torch.empty(L, K, c.sampled_groups, c.classes).exponential_().log()
    noise = [torch.rand(K, L, 3) * 2 - 1, torch.randn(P, L, 3), gumbel]
    state = agent.initial_state(1)
    return agent, state._replace(latent=torch.softmax(torch.randn(1, 16), -1)), noise


@pytest.mark.parametrize(("heads", "clearance"), [(0, False), (2, False), (2, True)])
def test_scores_and_disagreement_are_those_of_single_dreams(heads: int, clearance: bool) -> None:
    agent, start, (wanted, jitter, gumbel) = dreams(heads, clearance)
    model, discount = agent.model, agent.config.behavior.discount
    with torch.no_grad():
        model.proceed[-1].bias.fill_(-0.5)
        model.reward.net[-1].weight.normal_(std=3.0)  # of either sign
        found = Dreams(*CandidateDreams(agent)(start.world, start.latent, wanted, jitter, gumbel))
    actions, rewards, values, doubts, dangers = found
    assert torch.equal(actions[P:], wanted[P:])
    for k in range(K):
        state, latent = start.world, start.latent
        score, doubt, danger, weight = 0.0, 0.0, 0.0, 1.0
        for t in range(L):
            action = actions[k : k + 1, t]
            state = model.advance(state, latent, action)
            doubt += weight * float(model.disagreement(state.memory, latent, action)[0]) / L
            latent = model.sample_with(model.prior(state.memory, latent, action), gumbel[t, k : k + 1])
            f = model.features(state.memory, latent)
            reward, goes_on = float(model.reward.mean(f)[0]), float(torch.sigmoid(model.proceed(f))[0, 0])
            score += weight * reward
            if model.clearance is None:
                danger += weight * (1 - goes_on) * (reward < 0)
            else:
                touch = float(torch.softmax(model.clearance(f), -1)[0, :2].sum())
                danger = max(danger, weight * touch)
            weight *= discount * goes_on
        assert float(rewards[k]) == pytest.approx(score, rel=1e-4, abs=1e-5)
        assert float(values[k]) == pytest.approx(weight * float(agent.behavior.critic.mean(f)[0]), abs=1e-5)
        assert float(doubts[k]) == pytest.approx(doubt, rel=1e-4, abs=1e-7)
        assert float(dangers[k]) == pytest.approx(danger, abs=1e-5)
    assert bool((doubts > 0).all()) == (heads > 0)
    assert 0 < float(dangers.max()) <= 1 and float(dangers.std()) > 0


def test_an_end_that_is_rewarded_is_no_danger_and_one_that_is_punished_is() -> None:
    agent, start, noise = dreams(0)
    reward = agent.model.reward.net[-1]
    with torch.no_grad():
        agent.model.proceed[-1].weight.zero_()
        agent.model.proceed[-1].bias.fill_(-30.0)  # ends at the first step
        for top, expected in ((0, 1.0), (-1, 0.0)):  # the lowest bin of the reward, and the highest
            reward.weight.zero_()
            reward.bias.zero_()
            reward.bias[top] = 50.0
            dangers = Dreams(*CandidateDreams(agent)(start.world, start.latent, *noise)).dangers
            assert dangers.tolist() == pytest.approx([expected] * K)


def test_what_comes_after_an_end_is_not_held_against_a_plan() -> None:
    agent, start, noise = dreams(2)
    with torch.no_grad():
        agent.model.proceed[-1].bias.fill_(-30.0)
        doubts = CandidateDreams(agent)(start.world, start.latent, *noise)[3]
        agent.model.proceed[-1].bias.fill_(30.0)
        longer = CandidateDreams(agent)(start.world, start.latent, *noise)[3]
    assert bool((doubts < longer).all())


@pytest.mark.parametrize(
    ("off", "index"), [({"value": False}, 1), ({"rewards": False}, 2), ({"rewards": False, "value": False}, None)]
)
def test_terms_of_a_dream_can_be_switched_off(off: dict[str, bool], index: int | None) -> None:
    agent, start, _ = dreams(2)
    with torch.no_grad():
        agent.behavior.critic.net[-1].bias.copy_(torch.linspace(-1, 1, agent.behavior.critic.net[-1].bias.shape[0]))
        agent.model.reward.net[-1].bias.copy_(torch.linspace(1, -1, agent.model.reward.net[-1].bias.shape[0]))
    told = []

    class Heard(TorchImagination):
        def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:  # type: ignore[override]
            told.append(super().__call__(*arrays))
            return told[-1]

    config = MPPIConfig(
        candidates=6, horizon=3, rounds=1, imagination_weight=2.0, disagreement_weight=0.7, danger_weight=0.0, **off
    )
    found = plan(Heard(agent, start), initial_planner_state(config, 0), config)
    returns = -0.7 * told[0][3] + (0.0 if index is None else told[0][index])
    assert found.score == pytest.approx(2 * float(returns.max()), abs=1e-5)
