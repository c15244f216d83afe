"""The world model: scan against step, resets, masks, losses, and the two-hot distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import AGENT
from torch.nn import functional as F

from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.types import MODALITIES, policy_input_shapes
from robonav.world_model.encoders import EncoderConfig, ObservationEncoder, ScanEncoder, with_patches
from robonav.world_model.model import WorldModel
from robonav.world_model.nets import TwoHotHead, symexp, symlog

SPEC = load_robot("a1")
CONFIG = AGENT.model


def batch(b: int, t: int, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    out = {k: 4 * torch.rand(b, t, *s, generator=g).double() for k, s in policy_input_shapes(SPEC).items()}
    out["local_map"] = (out["local_map"] > 3).to(torch.uint8) * 255
    out["present"] = torch.ones(b, t, 4).double()
    return out


def make_model(seed: int = 0) -> WorldModel:
    torch.manual_seed(seed)
    return WorldModel(CONFIG, SPEC).double()


def test_features_of_the_scan_equal_steps_with_resets() -> None:
    model = make_model()
    inputs, action = batch(2, 12), torch.rand(2, 12, 3).double() * 2 - 1
    first = torch.zeros(2, 12).double()
    first[0, 5] = first[1, 0] = first[1, 11] = 1
    at = torch.arange(12).expand(2, -1)
    sequence = model.observe(inputs, action, first, at)
    state = model.initial_state(2)
    for t in range(12):
        state = state.map(model.initial_state(2), first[:, t] < 0.5)
        want = model.features(state.memory, sequence.latent[:, t])
        assert torch.allclose(sequence.features[:, t], want, atol=1e-10)
        assert torch.allclose(sequence.dream_states.memory.unflatten(0, (2, 12))[:, t], state.memory, atol=1e-10)
        state = model.advance(state, sequence.latent[:, t], action[:, t])


def test_dreams_from_the_scan_equal_dreams_from_steps() -> None:
    model = make_model()
    inputs, action = batch(1, 9), torch.rand(1, 9, 3).double()
    first = torch.zeros(1, 9).double()
    first[0, 4] = 1
    sequence = model.observe(inputs, action, first, torch.tensor([[0, 4, 7, 8]]))
    from_steps = model.initial_state(1)
    wanted = {}
    for t in range(9):
        from_steps = from_steps.map(model.initial_state(1), first[:, t] < 0.5)
        wanted[t] = model.advance(from_steps, sequence.latent[:, t], action[:, t]).memory
        from_steps = model.advance(from_steps, sequence.latent[:, t], action[:, t])
    latent = sequence.latent[0, [0, 4, 7, 8]]
    ahead = model.advance(sequence.dream_states, latent, action[0, [0, 4, 7, 8]])
    for row, t in enumerate((0, 4, 7, 8)):
        assert torch.allclose(ahead.memory[row], wanted[t][0], atol=1e-10)


def test_what_happened_before_an_episode_leaves_no_trace_in_it() -> None:
    model = make_model()
    inputs, action = batch(1, 10), torch.rand(1, 10, 3).double()
    first = torch.zeros(1, 10).double()
    first[0, 6] = 1
    at = torch.zeros(1, 1, dtype=torch.long)
    features = []
    for seed in (1, 2):
        changed = {k: torch.cat([batch(1, 10, seed)[k][:, :6], v[:, 6:]], dim=1) for k, v in inputs.items()}
        torch.manual_seed(0)
        features.append(model.observe(changed, action, first, at).features[:, 6:])
    assert torch.allclose(features[0], features[1], atol=1e-12)


def test_memory_sees_the_past_and_never_the_future() -> None:
    model = make_model()
    inputs, action = batch(1, 8), torch.rand(1, 8, 3).double()
    first, at = torch.zeros(1, 8).double(), torch.zeros(1, 1, dtype=torch.long)
    torch.manual_seed(0)
    base = model.observe(inputs, action, first, at).features
    changed = action.clone()
    changed[0, 3] += 1
    torch.manual_seed(0)
    other = model.observe(inputs, changed, first, at).features
    assert torch.allclose(base[:, :4], other[:, :4], atol=1e-12), "f_3 does not know a_3"
    assert float((base[:, 4] - other[:, 4]).abs().max()) > 1e-6


@pytest.mark.parametrize("modality", range(len(MODALITIES)))
def test_an_absent_modality_is_neither_read_nor_asked_for(modality: int) -> None:
    model = make_model()
    inputs = batch(1, 3)
    inputs["present"][..., modality] = 0
    other = batch(1, 3, seed=9)
    keys = {0: ["scan_m"], 1: ["local_map"], 2: ["goal_base_m", "waypoints_base_m"]}.get(
        modality, ["twist_base", "tilt_rad", "last_command"]
    )
    changed = {**inputs, **{k: other[k] for k in keys}}
    assert torch.equal(model.encoder(inputs), model.encoder(changed))
    f = torch.zeros(1, 3, model.feature_size).double()
    losses = model.decoder.losses(f, inputs)
    assert float(losses[MODALITIES[modality]].abs().max()) == 0
    assert all(float(loss.min()) > 0 for name, loss in losses.items() if name != MODALITIES[modality])


def test_patches_hold_each_cell_once_in_its_place() -> None:
    cells = torch.arange(3 * 8 * 8).reshape(1, 3, 8, 8).to(torch.uint8)
    patches = with_patches({"local_map": cells}, torch.float32)["map_patches"]
    want = F.unfold(cells.float(), 4, stride=4).unflatten(1, (3, 16)).permute(0, 3, 1, 2).reshape(1, 2, 2, 3, 16)
    assert torch.equal(patches, want)


def test_scan_encoder_is_equivariant_to_turning_by_a_sector() -> None:
    torch.manual_seed(0)
    encoder = ScanEncoder(EncoderConfig(), SPEC)
    scan = torch.rand(1, 128) * 5 + 0.2
    turned = encoder({"scan_m": scan.roll(8, -1)}).unflatten(-1, (16, -1))
    assert torch.allclose(turned, encoder({"scan_m": scan}).unflatten(-1, (16, -1)).roll(1, 1), atol=1e-6)


def test_losses_reach_the_parameters_and_free_nats_stop_the_kl() -> None:
    model = make_model()
    inputs, zeros = batch(2, 6), torch.zeros(2, 6).double()
    sequence = model.observe(inputs, torch.zeros(2, 6, 3).double(), zeros, torch.zeros(2, 1, dtype=torch.long))
    same = sequence._replace(prior=sequence.posterior)
    losses = model.loss(inputs, same, zeros, zeros, zeros)
    assert float(losses["dynamics"].detach()) == pytest.approx(1.0)
    assert float(losses["representation"].detach()) == pytest.approx(0.1)
    sum(model.loss(inputs, sequence, zeros, zeros, zeros).values()).backward()  # type: ignore[union-attr]
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert all("absent" in n for n in silent), silent


@settings(max_examples=50, deadline=None)
@given(st.floats(-15, 15))
def test_two_hot_of_a_target_has_the_target_as_its_mean(target: float) -> None:
    head = TwoHotHead(2, 4, 1).double()
    logits = torch.zeros(1, head.bins.shape[0], dtype=torch.float64, requires_grad=True)
    head.loss(logits, torch.tensor([target], dtype=torch.float64)).sum().backward()
    assert logits.grad is not None
    encoded = torch.softmax(torch.zeros_like(logits), -1) - logits.grad  # gradient is softmax minus target
    assert float((encoded * head.bins).sum()) == pytest.approx(float(symlog(torch.tensor(target).double())), abs=1e-6)
    assert int((encoded > 1e-12).sum()) <= 2


def test_two_hot_starts_at_zero_and_symexp_inverts_symlog() -> None:
    head = TwoHotHead(3, 4, 1)
    assert float(head.mean(torch.randn(1, 3)).abs()) < 1e-6
    x = torch.linspace(-50, 50, 11)
    assert torch.allclose(symexp(symlog(x)), x, rtol=1e-4)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.sectors"):
        ObservationEncoder(EncoderConfig(sectors=7), SPEC)
