"""Returns, the actor's gradient, dreams, and the planner, against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import AGENT

from robonav.config import load_robot
from robonav.imagination.agent import Agent
from robonav.imagination.behavior import Behavior, Dream, Normal, dream, lambda_returns
from robonav.imagination.candidates import TorchImagination
from robonav.planning.mppi import PRIMITIVES, MPPIConfig, initial_planner_state, plan
from robonav.types import policy_input_shapes

SPEC = load_robot("a1")
CONFIG = AGENT


def make_agent(seed: int = 0) -> Agent:
    torch.manual_seed(seed)
    return Agent(CONFIG, SPEC).eval()


def observation(batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    out = {k: torch.rand(batch, *s, generator=g) for k, s in policy_input_shapes(SPEC).items()}
    out["local_map"] = (out["local_map"] > 0.7).to(torch.uint8) * 255
    out["present"] = torch.ones(batch, 4)
    return out


def test_lambda_returns_of_constant_reward_are_the_geometric_sum() -> None:
    length, discount = 6, 0.9
    reward, proceed = torch.ones(length + 1, 1), torch.ones(length + 1, 1)
    got = lambda_returns(reward, proceed, torch.zeros(length + 1, 1), discount, 1.0)
    want = [(1 - discount ** (length - t)) / (1 - discount) for t in range(length)]
    assert got.shape == (length, 1)
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-5)


def test_lambda_zero_is_one_step_bootstrapping_and_an_end_cuts_it() -> None:
    reward = torch.tensor([9.0, 1.0, 2.0])[:, None]
    value = torch.tensor([7.0, 3.0, 5.0])[:, None]
    proceed = torch.tensor([1.0, 1.0, 0.0])[:, None]
    got = lambda_returns(reward, proceed, value, 0.5, 0.0)
    assert got.flatten().tolist() == pytest.approx([1.0 + 0.5 * 3.0, 2.0])
    assert lambda_returns(reward, proceed, value, 0.5, 1.0).flatten().tolist() == pytest.approx([1.0 + 0.5 * 2.0, 2.0])


def test_normal_matches_its_formulas() -> None:
    normal = Normal(torch.tensor([0.5, -0.5]), torch.tensor([0.2, 2.0]))
    x = torch.tensor([0.6, 0.5])
    want = sum(
        -0.5 * ((float(a) - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
        for a, m, s in zip(x, (0.5, -0.5), (0.2, 2.0), strict=True)
    )
    assert float(normal.log_prob(x)) == pytest.approx(want, rel=1e-5)
    assert float(normal.entropy()) == pytest.approx(math.log(0.2 * 2.0) + 1 + math.log(2 * math.pi), rel=1e-5)


class GoalModel(torch.nn.Module):
    """Stands in for the heads of a world model: reward is the first feature, and nothing ends."""

    class _Reward:
        @staticmethod
        def mean(features: torch.Tensor) -> torch.Tensor:
            return features[..., 0]

    reward = _Reward()

    @staticmethod
    def proceed(features: torch.Tensor) -> torch.Tensor:
        return torch.full((*features.shape[:-1], 1), 20.0)


def test_actor_learns_the_rewarded_action_even_at_the_edge_of_the_range() -> None:
    torch.manual_seed(0)
    behavior = Behavior(replace(CONFIG.behavior, entropy=1e-4), 4)
    optimizer = torch.optim.Adam(behavior.trained_parameters(), lr=1e-2)
    for _ in range(300):
        features = [torch.zeros(64, 4)]
        actions = []
        for _ in range(3):
            sampled = behavior.actor(features[-1]).sample()
            reward = sampled[:, 0].clamp(-1, 1) - (sampled[:, 1].clamp(-1, 1) - 0.3).abs()
            features.append(torch.cat([reward[:, None], torch.zeros(64, 3)], dim=1))
            actions.append(sampled)
        losses = behavior.losses(GoalModel(), Dream(torch.stack(features), torch.stack(actions)))  # type: ignore[arg-type]
        optimizer.zero_grad()
        (losses["actor"] + losses["critic"]).backward()
        optimizer.step()
    policy = behavior.actor(torch.zeros(1, 4))
    assert float(policy.mean[0, 0]) > 0.8
    assert abs(float(policy.mean[0, 1]) - 0.3) < 0.25


def test_replay_value_targets_stop_at_the_end_and_skip_the_seam() -> None:
    behavior = Behavior(replace(CONFIG.behavior, replay_weight=1.0, lambda_=1.0, discount=0.5), 4)
    targets: list[torch.Tensor] = []
    loss = behavior.critic.loss
    behavior.critic.loss = lambda logits, target: targets.append(target) or loss(logits, target)  # type: ignore[method-assign,func-returns-value]
    features = torch.zeros(1, 5, 4)
    reward = torch.tensor([[0.0, 1.0, 4.0, 0.0, 2.0]])
    terminal = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]])
    first = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]])
    behavior.replay_value_loss(features, reward, terminal, first)
    # value is 0 at the start: 1 + 0.5 * 4, then 4, then the seam, then 2 with nothing behind it.
    assert targets[0][0, [0, 1, 3]].tolist() == pytest.approx([3.0, 4.0, 2.0], abs=1e-5)


def test_dream_follows_advance_and_is_reproducible() -> None:
    agent = make_agent()
    state = agent.observe(agent.initial_state(3), observation(3), torch.zeros(3, 3), torch.ones(3))[1]
    dreams = []
    for _ in range(2):
        torch.manual_seed(1)
        dreams.append(dream(agent.model, agent.behavior.actor, state.world, state.latent, 4))
    assert torch.equal(dreams[0].features, dreams[1].features)
    assert dreams[0].features.shape == (5, 3, agent.model.feature_size)
    after = agent.model.advance(state.world, state.latent, dreams[0].actions[0].clamp(-1, 1))
    assert torch.allclose(dreams[0].features[1, :, :16], after.memory, atol=1e-6)


def test_planner_is_deterministic_and_moves_its_warm_start_on() -> None:
    agent = make_agent()
    state = agent.observe(agent.initial_state(1), observation(), torch.zeros(1, 3), torch.ones(1))[1]
    config = MPPIConfig(candidates=16, horizon=4)
    start = initial_planner_state(config, 5)
    first, second = (
        plan(TorchImagination(agent, state), start, config),
        plan(TorchImagination(agent, state), start, config),
    )
    assert np.array_equal(first.actions, second.actions)
    assert (first.state.seed, first.state.tick) == (5, 1)
    assert np.array_equal(first.state.plan, first.actions)
    assert float(np.abs(first.actions).max()) <= 1
    other = plan(TorchImagination(agent, state), start._replace(tick=1), config)
    assert not np.array_equal(first.actions, other.actions)


def test_planner_finds_the_rewarded_action() -> None:
    agent = make_agent()
    seen: list[torch.Tensor] = []
    advance = agent.model.advance

    def watch(state, latent, action, reset=None):  # type: ignore[no-untyped-def]
        seen.append(action)
        return advance(state, latent, action, reset)

    agent.model.advance = watch  # type: ignore[method-assign]
    agent.model.reward.mean = lambda features: seen[-1][:, 0] - seen[-1][:, 2].abs()  # type: ignore[method-assign]
    config = MPPIConfig(candidates=128, horizon=4, rounds=3, imagination_weight=1.0)
    state = agent.observe(agent.initial_state(1), observation(), torch.zeros(1, 3), torch.ones(1))[1]
    planner = initial_planner_state(config, 0)
    for _ in range(8):
        found = plan(TorchImagination(agent, state), planner, config)
        planner = found.state
    assert float(found.action[0]) > 0.6
    assert abs(float(found.action[2])) < 0.3


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_candidates_that_are_not_finite_are_counted_and_never_chosen(share: float) -> None:
    agent = make_agent()
    state = agent.observe(agent.initial_state(1), observation(), torch.zeros(1, 3), torch.ones(1))[1]

    def broken(features: torch.Tensor) -> torch.Tensor:
        count = features.shape[0]
        bad = torch.arange(count) < share * count
        return torch.where(bad, torch.nan, torch.zeros(count))

    agent.model.reward.mean = broken  # type: ignore[method-assign]
    config = MPPIConfig(candidates=16, horizon=3, rounds=1, imagination_weight=1.0)
    found = plan(TorchImagination(agent, state), initial_planner_state(config, 0), config)
    assert found.rejected == int(share * 16)
    assert np.isfinite(found.actions).all()
    if share == 1.0:
        assert found.why.startswith("stop")
        assert not found.action.any()


def test_geometry_decides_where_imagination_is_switched_off() -> None:
    agent = make_agent()
    state = agent.observe(agent.initial_state(1), observation(), torch.zeros(1, 3), torch.ones(1))[1]
    config = MPPIConfig(candidates=64, horizon=4, rounds=3, imagination=False)
    planner = initial_planner_state(config, 0)
    for _ in range(6):
        found = plan(
            TorchImagination(agent, state), planner, config, lambda actions: np.square(actions - 0.5).sum((1, 2))
        )
        planner = found.state
    assert np.abs(found.action - 0.5).max() < 0.15


def test_primitives_are_among_the_candidates() -> None:
    agent = make_agent()
    state = agent.observe(agent.initial_state(1), observation(), torch.zeros(1, 3), torch.ones(1))[1]
    seen: list[np.ndarray] = []
    config = MPPIConfig(candidates=64, horizon=4, rounds=2)

    def look(actions: np.ndarray) -> np.ndarray:
        seen.append(actions)
        return np.zeros(len(actions))

    plan(TorchImagination(agent, state), initial_planner_state(config, 0), config, look)
    for primitive in PRIMITIVES:
        assert (np.abs(seen[0] - primitive).max(axis=(1, 2)) == 0).any()
