"""Objectives without reconstruction: closed forms and quadrature in float64, who they move, and what training does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from tiny import AGENT

from robonav.config import from_mapping, load_robot
from robonav.errors import ConfigError
from robonav.types import policy_input_shapes
from robonav.world_model.model import WorldModel, WorldModelConfig
from robonav.world_model.objectives import (
    EmbeddingPrediction,
    ObjectiveConfig,
    RedundancyReduction,
    _NormalityStatistic,
    normalised_l1,
    random_directions,
    redundancy,
    sigreg,
    standardised,
)

SPEC = load_robot("a1")
OBJECTIVES = ("reconstruction", "redundancy", "jepa")


def config(objective: str, **weights: float) -> WorldModelConfig:
    chosen = ObjectiveConfig(directions=64, **weights)  # type: ignore[arg-type]
    backbone = replace(AGENT.model.backbone, pattern="M")
    return replace(AGENT.model, backbone=backbone, objective=objective, objectives=chosen)  # type: ignore[arg-type]


# -- redundancy reduction ------------------------------------------------------------------------------------------


def test_redundancy_is_numpys_cross_correlation() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 4)), rng.standard_normal((50, 4)) + 3
    c = np.corrcoef(x, y, rowvar=False)[:4, 4:]
    off = c[~np.eye(4, dtype=bool)]
    want = ((np.diag(c) - 1) ** 2).sum() + 5e-4 * (off**2).sum()
    got = redundancy(torch.from_numpy(x), torch.from_numpy(y), 5e-4)
    assert float(got) == pytest.approx(want, rel=1e-6)


def test_redundancy_is_zero_for_the_same_independent_entries_however_scaled() -> None:
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    assert float(redundancy(x, 5 * x - 2, 1.0)) == pytest.approx(0, abs=1e-12)
    assert float(redundancy(x, -x, 1.0)) == pytest.approx(8, rel=1e-6)  # both diagonal entries are -1
    assert float(redundancy(x, x[:, [1, 0]], 1.0)) == pytest.approx(4, rel=1e-6)  # (0 - 1)^2 twice, and 1 twice beside
    constant = torch.full((4, 2), 3.0).double()
    assert not standardised(constant).any()
    assert float(redundancy(x, constant, 1.0)) == pytest.approx(2)


def test_redundancy_does_not_move_its_target() -> None:
    torch.manual_seed(0)
    module = RedundancyReduction(ObjectiveConfig(), 6, 4)
    f, embedding = torch.randn(3, 5, 6, requires_grad=True), torch.randn(3, 5, 4, requires_grad=True)
    loss = module.losses(f, embedding)["redundancy"]
    loss.backward()
    assert embedding.grad is None
    assert f.grad is not None and f.grad.any()
    flat = redundancy(module.project(f).flatten(0, 1), embedding.flatten(0, 1), 5e-4)
    assert float(loss.detach()) == pytest.approx(0.05 * float(flat.detach()), rel=1e-5)


# -- SIGReg --------------------------------------------------------------------------------------------------------


def closed_form(term: str) -> float:
    """Integrals over 0 to 3 of 2 exp(-t^2 / 2) times (1 - exp(-t^2 / 2))^2, or times 1 - exp(-t^2)."""

    def gauss(a: float) -> float:  # of 2 exp(-a t^2)
        return math.sqrt(math.pi / a) * math.erf(3 * math.sqrt(a))

    if term == "collapsed":
        return gauss(0.5) - 2 * gauss(1.0) + gauss(1.5)
    return gauss(0.5) - gauss(1.5)


def test_statistic_of_samples_is_the_integral() -> None:
    u = np.random.default_rng(0).uniform(-1.5, 2.5, 40)

    def integrand(t: float) -> float:
        normal = math.exp(-t * t / 2)
        return 2 * normal * ((np.cos(t * u).mean() - normal) ** 2 + np.sin(t * u).mean() ** 2)

    want = 40 * quad(integrand, 0, 3, epsabs=1e-12)[0]
    got = float(_NormalityStatistic.apply(torch.from_numpy(u)[:, None]))
    assert got == pytest.approx(want, rel=2e-3)  # 17 knots
    single = float(_NormalityStatistic.apply(torch.from_numpy(u).float()[:, None]))
    assert single == pytest.approx(got, rel=1e-5)


def test_statistic_of_a_point_is_its_closed_form() -> None:
    got = float(sigreg(torch.zeros(100, 3).double(), random_directions(torch.zeros(3).double(), 5)))
    assert got == pytest.approx(100 * closed_form("collapsed"), rel=1e-3)


def test_statistic_of_normal_samples_is_its_expectation_whatever_their_number() -> None:
    torch.manual_seed(0)
    for n in (64, 512):
        u = torch.randn(n, 2000, dtype=torch.float64)
        assert float(_NormalityStatistic.apply(u).mean()) == pytest.approx(closed_form("normal"), rel=0.05)


def test_gradient_of_the_statistic() -> None:
    torch.manual_seed(0)
    u = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_NormalityStatistic.apply, (u,))


def test_sigreg_turns_any_cloud_into_a_standard_normal_one() -> None:
    torch.manual_seed(0)
    x = (0.1 * torch.rand(128, 4) + torch.tensor([1.0, 0.0, 0.0, 0.0])).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.08)
    for _ in range(200):
        optimizer.zero_grad()
        sigreg(x, random_directions(x, 64)).backward()
        optimizer.step()
    x = x.detach()
    assert float(x.mean(0).abs().max()) < 0.1
    assert float((torch.cov(x.T) - torch.eye(4)).abs().max()) < 0.25


def test_directions_have_length_one_and_no_preference() -> None:
    torch.manual_seed(0)
    a = random_directions(torch.zeros(2, 8).double(), 4000)
    assert torch.allclose(a.norm(dim=0), torch.ones(4000).double())
    assert torch.allclose(a @ a.T / 4000, torch.eye(8).double() / 8, atol=0.02)


# -- prediction ----------------------------------------------------------------------------------------------------


def test_normalised_l1_ignores_scale_and_offset_and_holds_its_target() -> None:
    a, b = torch.randn(3, 6).double().requires_grad_(), torch.randn(3, 6).double().requires_grad_()
    assert float(normalised_l1(a, 4 * a + 1).detach().max()) < 1e-4
    z = [(v - v.mean(-1, keepdim=True)) / (v.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() for v in (a, b)]
    assert torch.allclose(normalised_l1(a, b), (z[0] - z[1]).abs().mean(-1), atol=1e-12)
    normalised_l1(a, b).sum().backward()
    assert a.grad is not None and b.grad is None


def test_prediction_losses_are_their_formulas_and_leave_out_what_does_not_follow() -> None:
    torch.manual_seed(0)
    weights = ObjectiveConfig(prediction_weight=2.0, sigreg_weight=0.0, multistep_weight=3.0)
    module = EmbeddingPrediction(weights, 8, 5, 4).double()
    context, embedding = torch.randn(2, 6, 5).double(), torch.randn(2, 6, 4).double()
    follows = torch.ones(2, 6).double()
    follows[:, 0] = follows[1, 3] = 0
    ahead, at = torch.randn(2, 2, 5).double(), torch.tensor([[2, 5], [4, 5]])
    valid = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double()
    got = module.losses(context, embedding, follows, ahead, at, valid)
    z, near, far, count = module.embed(embedding), [], [], 0
    errors = []
    for b in range(2):
        for t in range(1, 6):
            if follows[b, t]:
                count += 1
                predicted = module.predict(context[b, t - 1])
                errors.append((predicted - z[b, t]).square().mean())
                near.append(normalised_l1(predicted, z[b, t]))
        for s in range(2):
            if valid[b, s]:
                far.append(normalised_l1(module.predict(ahead[b, s]), z[b, at[b, s]]))
    assert count == 9
    assert torch.allclose(got["prediction"], 2 * torch.stack(errors).mean())
    assert torch.allclose(got["multistep"], 3 * (torch.stack(near).mean() + torch.stack(far).mean()))
    assert float(got["sigreg"].detach()) == 0
    none = module.losses(context, embedding, 0 * follows, ahead, at, 0 * valid)
    assert float(none["prediction"].detach()) == float(none["multistep"].detach()) == 0


# -- in the world model --------------------------------------------------------------------------------------------


def toy(b: int, t: int, dtype: torch.dtype = torch.float32) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A robot that drives towards its goal between two walls; every sequence starts elsewhere."""
    g = torch.Generator().manual_seed(0)
    action = torch.rand(b, t, 3, generator=g) * 2 - 1
    place = 3 * torch.rand(b, 1, 2, generator=g) - 1.5 + 0.3 * travelled(action[..., :2])
    inputs = {k: torch.zeros(b, t, *s) for k, s in policy_input_shapes(SPEC).items()}
    angle = torch.linspace(-math.pi, math.pi, SPEC.lidar.beams + 1)[:-1]
    inputs["scan_m"] = (3 - place[..., :1] * torch.cos(angle) - place[..., 1:] * torch.sin(angle)).clamp(0.2, 8)
    inputs["goal_base_m"] = 1.0 - place
    inputs["waypoints_base_m"] = inputs["goal_base_m"][..., None, :] * torch.tensor([0.2, 0.5, 1.0])[:, None]
    inputs["twist_base"] = torch.cat([torch.zeros(b, 1, 3), action[:, :-1]], dim=1)
    inputs["last_command"] = inputs["twist_base"]
    inputs["present"] = torch.ones(b, t, 4)
    cells = torch.linspace(-3, 3, SPEC.local_map.cells)
    wall = (cells[:, None] + place[..., 0, None, None] > 1).expand(b, t, -1, cells.shape[0])
    inputs = {k: v.to(dtype) for k, v in inputs.items()}
    inputs["local_map"] = torch.stack([wall] * 3, dim=2).to(torch.uint8) * 255
    return inputs, action.to(dtype)


def travelled(step: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(step[:, :1]), step.cumsum(1)[:, :-1]], dim=1)


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_has_its_losses_and_moves_every_part_of_the_model(objective: str, probe: bool) -> None:
    torch.manual_seed(0)
    model = WorldModel(replace(config(objective), probe_decoders=probe), SPEC)
    inputs, action = toy(3, 8)
    zeros, first = torch.zeros(3, 8), torch.zeros(3, 8)
    first[1, 4] = 1
    sequence = model.observe(inputs, action, first, torch.tensor([[0, 3], [1, 5], [2, 7]]))
    losses = model.loss(inputs, sequence, zeros, zeros, first)
    decoded = {"scan", "map", "goal", "body"} if objective == "reconstruction" or probe else set()
    own = {"redundancy": {"redundancy"}, "jepa": {"prediction", "sigreg", "multistep"}}.get(objective, set())
    assert set(losses) == {"dynamics", "representation", "reward", "continue"} | decoded | own
    assert all(loss.shape == () for loss in losses.values())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    silent = {n for n, p in model.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())}
    assert all("absent" in n for n in silent), silent
    assert float(model.encoder.scan.net[0].weight.grad.abs().max()) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("objective", ["redundancy", "jepa"])
def test_probe_decoders_learn_but_move_nothing(objective: str) -> None:
    torch.manual_seed(0)
    model = WorldModel(replace(config(objective), probe_decoders=True), SPEC)
    inputs, action = toy(2, 5)
    zeros = torch.zeros(2, 5)
    losses = model.loss(inputs, model.observe(inputs, action, zeros, torch.zeros(2, 1).long()), zeros, zeros, zeros)
    sum(losses[name] for name in ("scan", "map", "goal", "body")).backward()  # type: ignore[union-attr]
    moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"decoder"}
    assert not any("decoder" in n for n in WorldModel(config(objective), SPEC).state_dict())


def test_roll_out_is_the_dream_under_the_taken_actions() -> None:
    torch.manual_seed(0)
    chosen = replace(config("jepa", multistep=3), sampled_groups=0)  # nothing is drawn
    model = WorldModel(chosen, SPEC).double()
    inputs, action = toy(2, 9, torch.float64)
    first = torch.zeros(2, 9).double()
    first[1, 4] = 1
    at = torch.tensor([[0, 5, 7], [2, 4, 6]])
    sequence = model.observe(inputs, action, first, at)
    follows = torch.cat([torch.zeros(2, 1).double(), 1 - first[:, 1:]], dim=1)
    ahead, target, valid = model._roll_out(sequence, follows, 3)
    assert valid.tolist() == [[1, 1, 0], [0, 1, 0]]
    assert target.tolist() == [[3, 8, 8], [5, 7, 8]]
    for b, s in ((0, 0), (0, 1), (1, 1)):
        state = model.initial_state(1)
        t0 = int(at[b, s])
        for t in range(4 if b else 0, t0):
            state = model.advance(state, sequence.latent[b : b + 1, t], action[b : b + 1, t])
        latent = sequence.latent[b : b + 1, t0]
        for t in range(t0, t0 + 3):
            a = action[b : b + 1, t]
            state = model.advance(state, latent, a)
            want = torch.cat([state.memory, latent, a], dim=-1)
            latent = model.sample(model.prior(state.memory, latent, a))
        assert torch.allclose(ahead[b, s], want[0], atol=1e-10)


def train(chosen: WorldModelConfig, steps: int) -> tuple[list[dict[str, float]], torch.Tensor, WorldModel]:
    """Losses of every step, and the embeddings (N, E) after the last."""
    torch.manual_seed(0)
    model = WorldModel(chosen, SPEC)
    inputs, action = toy(8, 12)
    reward, zeros, at = 0.3 * action[..., 0], torch.zeros(8, 12), torch.arange(0, 12, 3).expand(8, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    seen = []
    for _ in range(steps):
        losses = model.loss(inputs, model.observe(inputs, action, zeros, at), reward, zeros, zeros)
        optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        seen.append({name: float(loss.detach()) for name, loss in losses.items()})
    with torch.no_grad():
        embedding = model.encoder(inputs)
        if isinstance(model.objective, EmbeddingPrediction):
            embedding = model.objective.embed(embedding)
    return seen, embedding.flatten(0, 1), model


def mean_of(seen: list[dict[str, float]], names: tuple[str, ...]) -> float:
    return sum(s[name] for s in seen for name in names) / len(seen)


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("reconstruction", ("scan", "map", "goal", "body")),
        ("redundancy", ("redundancy",)),
        ("jepa", ("prediction", "sigreg", "multistep")),
    ],
)
def test_training_lowers_the_objective_and_keeps_the_embedding_spread(objective: str, names: tuple[str, ...]) -> None:
    seen, embedding, _ = train(config(objective), 80)
    begin, end = mean_of(seen[:5], names), mean_of(seen[-5:], names)
    assert end < 0.7 * begin, (begin, end)
    assert sum(seen[-1].values()) < sum(seen[0].values())
    assert float(embedding.std(0).mean()) > 0.1
    place = toy(8, 12)[0]["goal_base_m"].flatten(0, 1)
    known = torch.cat([embedding, torch.ones(96, 1)], dim=1).double()
    rest = place - known @ torch.linalg.lstsq(known, place.double()).solution
    assert bool((rest.var(0) < 0.3 * place.var(0)).all()), "both coordinates of where the robot is can be read from it"


def test_prediction_collapses_without_sigreg_and_not_with_it() -> None:
    _, with_it, _ = train(config("jepa", multistep_weight=0.0), 40)
    _, without, _ = train(config("jepa", multistep_weight=0.0, sigreg_weight=0.0), 40)
    assert float(with_it.var(0).mean()) > 0.5
    assert float(without.var(0).mean()) < 0.1 * float(with_it.var(0).mean())


def test_an_unknown_objective_and_bad_weights_are_named() -> None:
    with pytest.raises(ConfigError, match="objective"):
        from_mapping(WorldModelConfig, {"objective": "jeppa"}, "model")
    with pytest.raises(ConfigError, match="multistep"):
        ObjectiveConfig(multistep=1)
    with pytest.raises(ConfigError, match="sigreg_weight"):
        ObjectiveConfig(sigreg_weight=-1)
