"""The sequential control: equal parameters, the posterior reads the memory, scan equals steps, and it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from noise import batch_of
from tiny import tiny_config

from robonav.config import find_config, load_config, load_robot
from robonav.errors import ShapeError
from robonav.imagination.agent import Agent, AgentConfig
from robonav.learning.config import TrainConfig
from robonav.learning.learner import Learner
from robonav.ssm.backbone import BackboneConfig
from robonav.types import policy_input_shapes
from robonav.world_model.encoders import EncoderConfig
from robonav.world_model.model import WorldModel, WorldModelConfig
from robonav.world_model.rssm import GRUMemory, count, sequential_parts

SPEC = load_robot("a1")
SMALL = WorldModelConfig(
    groups=4,
    classes=4,
    sampled_groups=0,  # latents without noise, so that both ways of computing give the same
    hidden=32,
    posterior="sequential",
    backbone=BackboneConfig(pattern="MM", d_model=32, d_state=4, headdim=8),
    encoder=EncoderConfig(sector_width=4, vector_width=8, map_width=8, hidden=32),
)


def model_of(config: WorldModelConfig = SMALL) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(config, SPEC).double()


def batch(rows: int = 2, length: int = 9) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    inputs = {name: torch.rand(rows, length, *shape).double() for name, shape in policy_input_shapes(SPEC).items()}
    inputs["present"] = torch.ones(rows, length, 4).double()
    first = torch.zeros(rows, length).double()
    first[0, 4] = first[1, 0] = 1.0
    return inputs, torch.rand(rows, length, 3).double() * 2 - 1, first


@pytest.mark.parametrize("preset", ["quick", "general"])
def test_both_have_the_same_number_of_parameters(preset: str) -> None:
    config = load_config(TrainConfig, find_config("train", preset)).agent.model
    ours = count(WorldModel(config, SPEC))
    theirs = count(WorldModel(replace(config, posterior="sequential"), SPEC))
    assert theirs == pytest.approx(ours, rel=0.005)


def test_a_sequence_is_the_steps_one_after_the_other() -> None:
    model = model_of()
    inputs, action, first = batch()
    at = torch.tensor([[0, 3, 4, 8], [1, 5, 7, 7]])
    sequence = model.observe(inputs, action, first, at)
    state = model.initial_state(2)
    for t in range(first.shape[1]):
        fresh = model.initial_state(2)
        state = state.map(fresh, first[:, t] < 0.5)
        log_p = model.posterior({name: values[:, t] for name, values in inputs.items()}, state.memory)
        latent = model.mode(log_p)
        assert torch.allclose(sequence.posterior[:, t], log_p, atol=1e-10)
        assert torch.allclose(sequence.features[:, t], model.features(state.memory, latent), atol=1e-10)
        for row in range(2):
            for k in (at[row] == t).nonzero().flatten().tolist():
                index = 4 * row + k
                assert torch.allclose(sequence.dream_states.memory[index], state.memory[row], atol=1e-10)
                assert torch.allclose(sequence.dream_states.ssm[0].hidden[index], state.ssm[0].hidden[row], atol=1e-10)
        state = model.advance(state, latent, action[:, t])
        prior = model.prior(state.memory, latent, action[:, t])
        if t + 1 < first.shape[1]:
            assert torch.allclose(sequence.prior[:, t + 1], prior, atol=1e-10)


def test_the_posterior_reads_the_memory_and_the_prior_nothing_else() -> None:
    model = model_of()
    inputs, action, _ = batch()
    now = {name: values[:, 0] for name, values in inputs.items()}
    memory = torch.randn(2, 32).double()
    assert not torch.allclose(model.posterior(now, memory), model.posterior(now, torch.zeros_like(memory)))
    latent, other = torch.rand(2, 2, 16).double().unbind(0)
    assert torch.equal(model.prior(memory, latent, action[:, 0]), model.prior(memory, other, -action[:, 0]))
    with pytest.raises(ShapeError, match="posterior: expected the memory, since it is sequential, got none"):
        model.posterior(now)


def test_an_episode_does_not_know_the_one_before() -> None:
    model = model_of()
    inputs, action, first = batch()
    at = torch.zeros(2, 1, dtype=torch.long)
    changed = {name: values.clone() for name, values in inputs.items()}
    changed["scan_m"][0, :4] += 1.0
    a, b = (model.observe(x, action, first, at).features for x in (inputs, changed))
    assert torch.equal(a[0, 4:], b[0, 4:])
    assert not torch.equal(a[0, 3], b[0, 3])


def test_it_learns_in_the_same_loop() -> None:
    config = tiny_config()
    agent = replace(config.agent, model=replace(config.agent.model, posterior="sequential"))
    learner = Learner(replace(config, agent=agent, behavior_start=0), SPEC)
    data, dreams = batch_of(config, 0)
    losses = [learner.update(data, dreams, 200 + k)["model"] for k in range(30)]  # past the warm-up
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None for p in learner.agent.model.backbone.parameters())


def test_a_budget_that_is_too_small_is_one_line() -> None:
    with pytest.raises(ShapeError, match="for a sequential posterior, got 100; widen the backbone"):
        sequential_parts(100, 32, 32, 32, 16)
    parts = sequential_parts(60_000, 32, 32, 32, 16)
    assert isinstance(parts.memory, GRUMemory)
    assert count(*parts) == pytest.approx(60_000, rel=0.01)


def test_an_agent_with_a_sequential_posterior_acts_on_what_training_sees() -> None:
    torch.manual_seed(0)
    agent = Agent(AgentConfig(model=SMALL), SPEC).double().eval()
    inputs, action, first = batch()
    at = torch.zeros(2, 1, dtype=torch.long)
    trained = agent.model.observe(inputs, action, first, at).features
    state, previous = agent.initial_state(2), torch.zeros(2, 3).double()
    with torch.no_grad():
        for t in range(first.shape[1]):
            now = {name: values[:, t] for name, values in inputs.items()}
            step = agent.step(state, now, previous, first[:, t] if t else torch.ones(2).double())
            assert torch.allclose(step.features, trained[:, t], atol=1e-9)
            state, previous = step.state, action[:, t]
