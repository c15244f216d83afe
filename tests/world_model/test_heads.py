"""Prior heads: divergence against closed forms, who learns from them, and what they know after training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from tiny import AGENT

from robonav.config import from_mapping, load_robot, to_mapping
from robonav.errors import ConfigError
from robonav.imagination.agent import Agent, AgentConfig
from robonav.types import policy_input_shapes
from robonav.world_model.heads import PriorHeads, jensen_shannon
from robonav.world_model.model import WorldModel
from robonav.world_model.nets import TwoHotHead

SPEC = load_robot("a1")
CONFIG = replace(AGENT.model, prior_heads=3, prior_head_hidden=8)


def batch(b: int, t: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    out = {k: 4 * torch.rand(b, t, *s, generator=g).double() for k, s in policy_input_shapes(SPEC).items()}
    out["local_map"] = (out["local_map"] > 3).to(torch.uint8) * 255
    return {**out, "present": torch.ones(b, t, 4).double()}


def gradients(config: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = WorldModel(config, SPEC).double()  # type: ignore[arg-type]
    inputs, zeros = batch(8, 6), torch.zeros(8, 6).double()
    action = torch.linspace(-1, 1, 144).reshape(8, 6, 3).double()
    torch.manual_seed(1)
    sequence = model.observe(inputs, action, zeros, torch.zeros(8, 1, dtype=torch.long))
    losses = model.loss(inputs, sequence, zeros, zeros, zeros)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_divergence_of_certain_classes_is_one_of_equal_ones_zero() -> None:
    certain = torch.eye(3, dtype=torch.float64).clamp(min=1e-300).log().reshape(3, 1, 3)
    assert float(jensen_shannon(certain)) == pytest.approx(1.0, abs=1e-12)
    same = torch.log_softmax(torch.randn(1, 5, 4, dtype=torch.float64), -1).expand(3, 5, 4)
    assert float(jensen_shannon(same)) == pytest.approx(0.0, abs=1e-12)


def test_divergence_of_two_is_scipys_and_lies_between_zero_and_one() -> None:
    log_p = torch.log_softmax(3 * torch.randn(7, 2, 5, 4, dtype=torch.float64), -1)
    p = log_p.exp().numpy()
    want = [np.mean([jensenshannon(p[b, 0, g], p[b, 1, g]) ** 2 for g in range(5)]) / np.log(2) for b in range(7)]
    got = jensen_shannon(log_p)
    assert got.tolist() == pytest.approx(want, rel=1e-10)
    assert 0 < float(got.min()) <= float(got.max()) < 1


def test_without_heads_nothing_disagrees_and_no_parameter_is_added() -> None:
    model = WorldModel(AGENT.model, SPEC)
    assert not any("prior_heads" in name for name in model.state_dict())
    assert not model.disagreement(torch.randn(4, 16), torch.randn(4, 16), torch.randn(4, 3)).any()


def test_heads_start_apart_and_the_main_prior_counts_among_them() -> None:
    torch.manual_seed(0)
    model = WorldModel(CONFIG, SPEC).double()
    context = [torch.randn(9, n).double() for n in (16, 16, 3)]
    doubt = model.disagreement(*context).detach()
    assert doubt.shape == (9,)
    assert float(doubt.min()) > 1e-4
    assert torch.equal(doubt, model.disagreement(*context, model.prior(*context)).detach())
    with torch.no_grad():
        for net in model.prior_heads.nets:  # type: ignore[union-attr]
            for p in net.parameters():
                p.zero_()
        model.prior_net[-1].weight.zero_()
        model.prior_net[-1].bias.zero_()
        assert float(model.disagreement(*context).max()) == pytest.approx(0, abs=1e-12)
        model.prior_net[-1].bias[0] = 5
    assert float(model.disagreement(*context).detach().min()) > 1e-3


def test_heads_change_the_gradient_of_nothing_else() -> None:
    without, with_heads = gradients(AGENT.model), gradients(CONFIG)
    heads = {name for name in with_heads if name.startswith("prior_heads")}
    assert len(heads) == 3 * 4
    assert all(float(with_heads[name].abs().max()) > 0 for name in heads)
    assert set(without) == set(with_heads) - heads
    for name, gradient in without.items():
        assert torch.allclose(gradient, with_heads[name], rtol=1e-10, atol=1e-14), name


def test_each_head_weighs_the_sequences_of_a_batch_for_itself() -> None:
    torch.manual_seed(0)
    log_p = torch.log_softmax(torch.randn(400, 5, 2, 4), -1)
    other = torch.log_softmax(torch.randn(400, 5, 1, 2, 4), -1)
    one = PriorHeads.loss(log_p, other)
    kl = (log_p.exp() * (log_p - other[:, :, 0])).sum((-1, -2))
    weight = one / kl
    assert torch.allclose(weight, weight[:, :1].expand(-1, 5), atol=1e-4)
    assert torch.allclose(weight, weight.round(), atol=1e-4)
    assert float(weight[:, 0].mean()) == pytest.approx(1, abs=0.15)
    assert float(weight[:, 0].var()) == pytest.approx(1, abs=0.3)
    both = PriorHeads.loss(log_p, other.expand(-1, -1, 2, -1, -1)) / kl
    assert float(both[:, 0].var()) == pytest.approx(2, abs=0.5), "independent weights add up"


def test_heads_agree_on_what_they_were_trained_on_and_differ_elsewhere() -> None:
    torch.manual_seed(0)
    heads = PriorHeads(4, 32, 4 * 4, 4)
    optimizer = torch.optim.Adam(heads.parameters(), lr=3e-3)
    truth = torch.randn(4, 16)

    def log_p(logits: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits.unflatten(-1, (4, 4)), -1)

    seen = 0.5 * torch.randn(32, 8, 4) + torch.tensor([1.0, 0.0, 0.0, 0.0])
    target = log_p(3 * torch.tanh(seen @ truth))
    before = float(jensen_shannon(log_p(heads(seen))).detach().mean())
    for _ in range(300):
        optimizer.zero_grad()
        PriorHeads.loss(target, log_p(heads(seen))).mean().backward()
        optimizer.step()
    known = float(jensen_shannon(log_p(heads(seen))).detach().mean())
    unknown = float(jensen_shannon(log_p(heads(-4 * seen))).detach().mean())
    assert known < 0.5 * before
    assert unknown > 4 * known


@pytest.mark.parametrize(("bins", "error"), [(63, 0.005), (127, 0.001)])
def test_rounding_by_the_bins_is_small_where_returns_lie(bins: int, error: float) -> None:
    head = TwoHotHead(1, 1, 1, bins).double()
    target = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    logits = torch.zeros(4001, bins, dtype=torch.float64, requires_grad=True)
    head.loss(logits, target).sum().backward()
    encoded = 1 / bins - logits.grad  # type: ignore[operator]  # gradient is softmax minus target
    head.forward = lambda features: encoded.clamp(min=1e-300).log()  # type: ignore[method-assign]
    assert float((head.mean(target) - target).abs().max()) < error


def test_an_agent_without_the_newer_keys_is_built_as_it_was() -> None:
    saved = to_mapping(AGENT)
    for key in ("reward_bins", "prior_heads", "prior_head_hidden"):
        del saved["model"][key]
    del saved["behavior"]["value_bins"]
    agent = Agent(from_mapping(AgentConfig, saved, "checkpoint"), SPEC)
    assert agent.model.reward.bins.shape == agent.behavior.critic.bins.shape == (127,)
    assert agent.model.prior_heads is None


@pytest.mark.parametrize("bins", [62, 1])
def test_bins_that_do_not_fit_are_named(bins: int) -> None:
    with pytest.raises(ConfigError, match="reward_bins"):
        replace(AGENT.model, reward_bins=bins)
    with pytest.raises(ConfigError, match="value_bins"):
        replace(AGENT.behavior, value_bins=bins)
