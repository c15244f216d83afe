"""What holds for every layer that is compared: bad input is named, steps repeat, scans are finite at the extremes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robonav.errors import ConfigError, ShapeError
from robonav.ssm.measure.layers import FACTORIES, make
from robonav.ssm.measure.speed import measure_speed
from robonav.ssm.state import named_tensors

D = 64
KINDS = [name for name in FACTORIES if not name.startswith("mamba3_n")]


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest) -> Any:
    return make(request.param, seed=3, d_model=D)


def test_bad_input_is_named(layer: Any) -> None:
    state = layer.initial_state(2)
    with pytest.raises(ShapeError, match=r"^x: expected .*\(B, T, 64\), got \(2, 5, 63\)"):
        layer.scan(torch.zeros(2, 5, D - 1), state)
    with pytest.raises(ShapeError, match=r"^x: expected a floating tensor \(B, 64\), got \(2, 64\) torch.int64"):
        layer.step(torch.zeros(2, D, dtype=torch.int64), state)
    with pytest.raises(ShapeError, match=r"^reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(torch.zeros(2, 5, D), state, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"^x: expected at least one step"):
        layer.scan(torch.zeros(2, 0, D), state)
    with pytest.raises(ShapeError, match=r"^wanted: expected integer steps \(2, K\)"):
        layer.scan(torch.zeros(2, 5, D), state, wanted=torch.zeros(2, 1))
    if dict(named_tensors(state)):
        with pytest.raises(ShapeError, match=r"^state\..*: expected batch 3, as x has, got batch 2"):
            layer.step(torch.zeros(3, D), state)


@torch.no_grad()
def test_steps_repeat_bit_for_bit_and_batches_do_not_mix(layer: Any) -> None:
    torch.manual_seed(0)
    x, warm = torch.randn(3, D), torch.randn(3, 4, D)
    state = layer.scan(warm, layer.initial_state(3))[1]
    first, second = layer.step(x, state), layer.step(x, state)
    for (name, a), (_, b) in zip(named_tensors(first), named_tensors(second), strict=True):
        assert torch.equal(a, b), name
    other = x.clone()
    other[0] += 1
    assert torch.allclose(layer.step(other, state)[0][1:], first[0][1:], atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_value_and_gradient_stay_finite(layer: Any, scale: float, density: float) -> None:
    torch.manual_seed(1)
    for length in (1, 2, 65):
        x = (scale * torch.randn(2, length, D)).requires_grad_()
        y, state = layer.scan(x, layer.initial_state(2), torch.full((2, length), density))
        y.square().mean().backward()
        assert torch.isfinite(y).all()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
        assert all(torch.isfinite(t).all() for _, t in named_tensors(state))


def test_state_is_float32_under_autocast_and_in_half_precision(layer: Any) -> None:
    x = torch.randn(2, 3, D)
    with torch.autocast("cpu", torch.bfloat16):
        states = [layer.scan(x, layer.initial_state(2))[1], layer.step(x[:, 0], layer.initial_state(2))[1]]
    half = layer.to(torch.bfloat16)
    states.append(half.scan(x.bfloat16(), half.initial_state(2))[1])
    for state in states:
        assert all(t.dtype == torch.float32 for _, t in named_tensors(state))


def test_bench_gives_the_promised_keys() -> None:
    figures = measure_speed(("gru", "memoryless"), rounds=1, histories=(8,))
    gru = figures["layers"]["gru"]
    assert gru["times_gru"] == 1
    assert gru["train_tokens_per_s"] > 0
    assert set(gru["step_us"]) == {"1", "1024", "4096"}
    assert gru["state_bytes"] == 4 * 256
    assert figures["layers"]["memoryless"]["state_bytes"] == 0
    assert figures["history_us"]["gru"]["8"] > 0
    assert figures["history_us"]["attention_full_cache"]["8"] > 0


def test_bench_names_an_unknown_layer() -> None:
    with pytest.raises(ConfigError, match=r"layers: expected one of .*got mamba9; did you mean"):
        measure_speed(("mamba9",))
