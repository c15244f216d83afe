"""The actor's gradient through the dynamics: finite differences, whom it reaches, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import AGENT
from torch import Tensor, nn

from robonav.config import load_robot
from robonav.imagination.agent import Agent
from robonav.imagination.behavior import Behavior, BehaviorConfig, dream, frozen
from robonav.world_model.model import WorldModelState

SPEC = load_robot("a1")
# The weight of a step and the entropy's features are held constant, so both are switched off against differences.
EXACT = BehaviorConfig(hidden=4, layers=1, horizon=4, entropy=0.0, actor_gradient="dynamics")


class Pendulum(nn.Module):
    """Stands in for a world model: smooth, nothing drawn, nothing ends; memory (N, 2), latent (N, 2)."""

    def __init__(self, target: float = 0.0) -> None:
        super().__init__()
        self.push = nn.Linear(3 + 2, 2)
        self.target = target

    @property
    def reward(self) -> Pendulum:
        return self

    def features(self, memory: Tensor, latent: Tensor) -> Tensor:
        return torch.cat([memory, latent], dim=-1)

    def advance(self, state: WorldModelState, latent: Tensor, action: Tensor) -> WorldModelState:
        return WorldModelState(torch.tanh(0.8 * state.memory + self.push(torch.cat([action, latent], -1))), ())

    def prior(self, memory: Tensor, latent: Tensor, action: Tensor) -> Tensor:
        return torch.sin(memory + 0.3 * latent) + 0.2 * action[:, :2]

    def sample(self, log_p: Tensor) -> Tensor:
        return log_p

    def mean(self, features: Tensor) -> Tensor:
        return -0.05 * (features[..., 0] - self.target).square() + 0.02 * features[..., 3]

    def proceed(self, features: Tensor) -> Tensor:
        return torch.full((*features.shape[:-1], 1), 40.0, dtype=features.dtype)


def differences(behavior: Behavior, loss: object, step: float = 1e-6) -> Tensor:
    """Gradient (P,) of loss() with respect to the actor's parameters by central differences."""
    out = []
    with torch.no_grad():
        for p in behavior.actor.parameters():
            for i in range(p.numel()):
                sides = []
                for sign in (1, -1):
                    p.view(-1)[i] += sign * step
                    sides.append(float(loss()))  # type: ignore[operator]
                    p.view(-1)[i] -= sign * step
                out.append((sides[0] - sides[1]) / (2 * step))
    return torch.tensor(out, dtype=torch.float64)


def gradient(behavior: Behavior) -> Tensor:
    return torch.cat([p.grad.flatten() for p in behavior.actor.parameters() if p.grad is not None])


def awake(behavior: Behavior) -> Behavior:
    """Actor and critic with weights that matter; untrained, their last layers are nearly 0."""
    with torch.no_grad():
        behavior.actor.net[-1].weight.normal_(std=0.3)
        behavior.critic.net[-1].weight.normal_(std=0.1)
    return behavior


def test_gradient_of_a_differentiable_world_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    model, behavior = Pendulum().double(), awake(Behavior(EXACT, 4).double())
    start = WorldModelState(torch.randn(6, 2).double(), ())
    latent = torch.randn(6, 2).double()

    def loss() -> Tensor:
        torch.manual_seed(1)
        dreamt = behavior.dream(model, start, latent)  # type: ignore[arg-type]
        return behavior.losses(model, dreamt)["actor"]  # type: ignore[arg-type]

    loss().backward()
    assert float(behavior.return_range) < 1, "or returns are scaled, which differs from step to step"
    got, want = gradient(behavior), differences(behavior, loss)
    assert float(got.norm()) == pytest.approx(float(want.norm()), rel=1e-5)
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-8)


def make_agent(sampled_groups: int) -> tuple[Agent, WorldModelState, Tensor]:
    torch.manual_seed(0)
    small = replace(AGENT.model, sampled_groups=sampled_groups)
    agent = Agent(replace(AGENT, model=small, behavior=replace(EXACT, horizon=3)), SPEC).double()
    awake(agent.behavior)
    with torch.no_grad():
        agent.model.reward.net[-1].weight.normal_(std=0.1)
        agent.model.proceed[-1].weight.zero_()
    state = agent.model.initial_state(4)
    return agent, state, torch.softmax(torch.randn(4, 4, 4).double(), -1).flatten(1)


def test_gradient_through_the_world_model_is_that_of_finite_differences() -> None:
    agent, state, latent = make_agent(sampled_groups=0)

    def loss() -> Tensor:
        torch.manual_seed(1)
        return agent.behavior.losses(agent.model, agent.behavior.dream(agent.model, state, latent))["actor"]

    loss().backward()
    got = gradient(agent.behavior)
    torch.manual_seed(2)
    directions = torch.randn(5, got.numel(), dtype=torch.float64)
    parameters = list(agent.behavior.actor.parameters())
    for direction in directions:
        sides = []
        with torch.no_grad():
            for step in (1e-5, -2e-5):
                pieces = direction.split([p.numel() for p in parameters])
                for p, piece in zip(parameters, pieces, strict=True):
                    p += step * piece.view_as(p)
                sides.append(float(loss()))
            for p, piece in zip(parameters, pieces, strict=True):
                p += 1e-5 * piece.view_as(p)
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(float(got @ direction), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("sampled_groups", [0, 2, 4])
def test_each_loss_reaches_its_own_network_and_nothing_else(sampled_groups: int) -> None:
    agent, state, latent = make_agent(sampled_groups)
    behavior = agent.behavior
    before = {n: p.requires_grad for n, p in agent.named_parameters()}
    losses = behavior.losses(agent.model, behavior.dream(agent.model, state, latent))
    for name, owner in (("actor", "behavior.actor."), ("critic", "behavior.critic.")):
        agent.zero_grad()
        losses[name].backward(retain_graph=True)
        reached = {n for n, p in agent.named_parameters() if p.grad is not None}
        assert reached == {n for n, _ in agent.named_parameters() if n.startswith(owner)}
        size = torch.cat([p.grad.flatten() for p in agent.parameters() if p.grad is not None]).norm()
        assert 0 < float(size) < 1e3
    assert {n: p.requires_grad for n, p in agent.named_parameters()} == before
    assert not any(p.requires_grad for p in behavior.slow_critic.parameters())


def test_dreams_for_likelihood_keep_no_graph_and_are_the_same_dreams() -> None:
    agent, state, latent = make_agent(2)
    dreams = []
    for differentiable in (False, True):
        torch.manual_seed(3)
        dreams.append(dream(agent.model, agent.behavior.actor, state, latent, 3, differentiable))
    assert torch.allclose(dreams[0].features, dreams[1].features, atol=1e-12)
    assert torch.allclose(dreams[0].actions, dreams[1].actions, atol=1e-12)
    assert not dreams[0].features.requires_grad and not dreams[0].actions.requires_grad
    assert dreams[1].features.requires_grad


def test_frozen_lets_gradients_through_and_restores_even_after_a_fault() -> None:
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with frozen(layer):
        y = layer(x)
    y.sum().backward()
    assert x.grad is not None and layer.weight.grad is None
    with pytest.raises(RuntimeError, match="fault"), frozen(layer):
        raise RuntimeError("fault")
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


@pytest.mark.parametrize("gradient_by", ["dynamics", "reinforce"])
def test_both_gradients_lead_to_higher_returns(gradient_by: str) -> None:
    torch.manual_seed(0)
    model = Pendulum(target=0.6)
    behavior = Behavior(replace(EXACT, hidden=16, actor_gradient=gradient_by), 4)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(behavior.trained_parameters(), lr=1e-2)
    reward = []
    for _ in range(80):
        start = WorldModelState(0.1 * torch.randn(128, 2), ())
        dreamt = behavior.dream(model, start, 0.1 * torch.randn(128, 2))  # type: ignore[arg-type]
        losses = behavior.losses(model, dreamt)  # type: ignore[arg-type]
        optimizer.zero_grad()
        (losses["actor"] + losses["critic"]).backward()
        optimizer.step()
        reward.append(float(model.mean(dreamt.features[1:]).detach().mean()))
    assert sum(reward[-10:]) > sum(reward[:10]) + 0.02
    assert all(p.grad is None for p in model.parameters())
