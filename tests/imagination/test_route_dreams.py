"""Routes dreamt forward: against single dreams by hand, and what each switch leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import AGENT

from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.imagination.agent import Agent, AgentState
from robonav.imagination.route_dreams import RouteDreams, RouteDreamsConfig
from robonav.types import PolicyInput, policy_input_shapes

SPEC = load_robot("a1")
HORIZON, SEED = 5, 7


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    made = Agent(replace(AGENT, model=replace(AGENT.model, prior_heads=2)), SPEC).eval().requires_grad_(False)
    with torch.no_grad():
        made.model.proceed[-1].bias.fill_(-0.5)
        for head in (made.model.reward, made.behavior.critic):  # heads that begin at zero would say nothing
            for p in head.parameters():
                p.add_(0.05 * torch.randn_like(p))
    return made


def policy_input(seed: int) -> PolicyInput:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.random(shape).astype(np.float32) for name, shape in policy_input_shapes(SPEC).items()}
    arrays["local_map"] = (255 * (arrays["local_map"] > 0.5)).astype(np.uint8)
    arrays["scan_m"] *= 5.0
    arrays["present"][:] = 1.0
    return PolicyInput(**arrays)


def start(agent: Agent) -> tuple[AgentState, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    state = agent.initial_state(1)
    state = state._replace(latent=torch.softmax(torch.randn(1, agent.model.latent_size), -1))
    return state, torch.rand(1, 3) * 2 - 1, torch.zeros(1)


def dreams(agent: Agent, seed: int = SEED, **knobs: object) -> RouteDreams:
    return RouteDreams(agent, *start(agent), RouteDreamsConfig(horizon=HORIZON, **knobs), seed)  # type: ignore[arg-type]


def by_hand(agent: Agent, made: PolicyInput, waits: bool, samples: int) -> tuple[float, float]:
    """Discounted rewards and discounted last value, dream by dream."""
    state, action, _ = start(agent)
    model, behavior = agent.model, agent.behavior
    inputs = {name: torch.from_numpy(array)[None] for name, array in made.arrays().items()}
    shape = (HORIZON, samples, model.config.sampled_groups, model.config.classes)
    luck = torch.from_numpy(np.random.default_rng(SEED).gumbel(size=shape).astype(np.float32))
    rewards, values = [], []
    with torch.no_grad():
        for s in range(samples):
            world = model.advance(state.world, state.latent, action)
            latent = model.mode(model.posterior(inputs))
            weight, total = 1.0, 0.0
            for t in range(HORIZON):
                f = model.features(world.memory, latent)
                act = torch.zeros(1, 3) if waits else behavior.actor(f).mean
                world = model.advance(world, latent, act)
                latent = model.sample_with(model.prior(world.memory, latent, act), luck[t, s][None])
                f = model.features(world.memory, latent)
                total += weight * float(model.reward.mean(f))
                weight *= behavior.config.discount * float(torch.sigmoid(model.proceed(f)))
            rewards.append(total)
            values.append(weight * float(behavior.critic.mean(model.features(world.memory, latent))))
    return float(np.mean(rewards)), float(np.mean(values))


def test_scores_are_those_of_single_dreams(agent: Agent) -> None:
    inputs, waits = [policy_input(0), policy_input(1), policy_input(0)], [False, False, True]
    got = dreams(agent, samples=3)(inputs, waits)
    expected = [sum(by_hand(agent, made, w, 3)) for made, w in zip(inputs, waits, strict=True)]
    assert got == pytest.approx(expected, abs=1e-5)
    assert len({round(float(v), 5) for v in got}) == 3, "the route and waiting make a difference"


def test_rewards_and_value_can_be_switched_off(agent: Agent) -> None:
    made = policy_input(2)
    rewards, value = by_hand(agent, made, False, 2)
    assert dreams(agent, samples=2, value=False)([made], [False])[0] == pytest.approx(rewards, abs=1e-5)
    assert dreams(agent, samples=2, rewards=False)([made], [False])[0] == pytest.approx(value, abs=1e-5)
    with pytest.raises(ConfigError, match="got neither"):
        RouteDreamsConfig(rewards=False, value=False)


def test_equal_routes_have_equal_scores_and_the_seed_decides_about_the_rest(agent: Agent) -> None:
    inputs = [policy_input(3)] * 3
    first, again = dreams(agent)(inputs, [False] * 3), dreams(agent)(inputs, [False] * 3)
    assert np.array_equal(first, again) and np.ptp(first) < 1e-6
    assert not np.array_equal(first, dreams(agent, seed=SEED + 1)(inputs, [False] * 3))


def test_a_batch_says_the_same_as_one_by_one(agent: Agent) -> None:
    inputs = [policy_input(k) for k in range(4)]
    together = dreams(agent)(inputs, [False, True, False, True])
    alone = [dreams(agent)([made], [k % 2 == 1])[0] for k, made in enumerate(inputs)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_disagreement_takes_off_and_the_agents_state_is_left_alone(agent: Agent) -> None:
    state, action, reset = start(agent)
    before = [tensor.clone() for _, tensor in state.tensors()]
    plain, careful = (
        RouteDreams(agent, state, action, reset, RouteDreamsConfig(disagreement_weight=w), SEED)(
            [policy_input(4)], [False]
        )
        for w in (0.0, 1.0)
    )
    assert careful[0] < plain[0]
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, state.tensors(), strict=True))
