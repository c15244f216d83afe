"""Mamba-3: the parallel scan and the layer against the step, with resets, carry, closed forms and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.errors import ConfigError, ShapeError
from robonav.ssm.backbone import Backbone, BackboneConfig
from robonav.ssm.mamba3 import Mamba3, Mamba3State, ScanInput, parallel_scan, recurrence, rotate_pairs, wrap_phase

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def random_inputs(batch: int, length: int, heads: int = 2, p: int = 4, n: int = 6) -> tuple[ScanInput, Mamba3State]:
    f64 = torch.float64
    dt = torch.rand(batch, length, heads, dtype=f64)
    lam = torch.rand(batch, length, heads, dtype=f64)
    inputs = ScanInput(
        torch.randn(batch, length, heads, n, dtype=f64),
        torch.randn(batch, length, heads, n, dtype=f64),
        torch.randn(batch, length, heads, p, dtype=f64),
        -dt * torch.rand(batch, length, heads, dtype=f64),
        lam * dt,
        (1 - lam) * dt,
    )
    state = Mamba3State(
        torch.zeros(batch, heads, 1, dtype=f64),
        torch.randn(batch, heads, p, n, dtype=f64),
        torch.randn(batch, heads, n, dtype=f64),
        torch.randn(batch, heads, p, dtype=f64),
    )
    return inputs, state


def steps(layer: Mamba3 | Backbone, x: torch.Tensor, state: object, reset: torch.Tensor) -> tuple[torch.Tensor, object]:
    out = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, reset[:, t])
        out.append(y)
    return torch.stack(out, 1), state


def assert_near(got: object, want: object, tolerance: float) -> None:
    if isinstance(want, torch.Tensor):
        assert isinstance(got, torch.Tensor)
        scale = 1 + float(want.abs().max())
        assert float((got - want).abs().max()) <= tolerance * scale
        return
    for g, w in zip(got, want, strict=True):  # type: ignore[call-overload]
        assert_near(g, w, tolerance)


@settings(max_examples=40, deadline=None)
@given(length=st.sampled_from([1, 2, 3, 17, 64]), density=st.sampled_from([0.0, 0.2, 1.0]), seed=st.integers(0, 999))
def test_parallel_scan_equals_recurrence_for_outputs_and_every_state(length: int, density: float, seed: int) -> None:
    torch.manual_seed(seed)
    inputs, state = random_inputs(3, length)
    reset = (torch.rand(3, length) < density).double()
    want_y, want_h = recurrence(inputs, state, reset)
    wanted = torch.arange(length).expand(3, -1)
    y, h = parallel_scan(inputs, state, reset, wanted)
    assert_near((y, h), (want_y, want_h), 1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 150])
@pytest.mark.parametrize("rope_fraction", [0.5, 1.0])
def test_layer_scan_equals_steps_across_chunks_and_resets(
    length: int, dtype: torch.dtype, rope_fraction: float
) -> None:
    torch.manual_seed(length)
    layer = Mamba3(32, d_state=8, headdim=16, rope_fraction=rope_fraction).to(dtype)
    x = torch.randn(3, length, 32, dtype=dtype)
    reset = (torch.rand(3, length) < 0.15).to(dtype)
    start = layer.scan(torch.randn(3, 5, 32, dtype=dtype), layer.initial_state(3), torch.zeros(3, 5, dtype=dtype))[1]
    assert_near(layer.scan(x, start, reset), steps(layer, x, start, reset), TOLERANCE[dtype])


def test_carry_scanning_in_two_pieces_equals_one() -> None:
    torch.manual_seed(0)
    layer = Mamba3(16, d_state=4, headdim=8).double()
    x = torch.randn(2, 17, 16, dtype=torch.float64)
    reset = torch.zeros(2, 17, dtype=torch.float64)
    reset[0, 9] = 1
    whole, final = layer.scan(x, layer.initial_state(2), reset)
    for k in (1, 8, 9, 16):
        first, middle = layer.scan(x[:, :k], layer.initial_state(2), reset[:, :k])
        second, end = layer.scan(x[:, k:], middle, reset[:, k:])
        assert_near((torch.cat([first, second], 1), end), (whole, final), 1e-10)


def test_reset_makes_the_future_independent_of_the_past() -> None:
    torch.manual_seed(1)
    layer = Mamba3(16, d_state=4, headdim=8).double()
    x = torch.randn(1, 20, 16, dtype=torch.float64)
    other = x.clone()
    other[:, :7] = torch.randn(1, 7, 16, dtype=torch.float64)
    reset = torch.zeros(1, 20, dtype=torch.float64)
    without = [layer.scan(s, layer.initial_state(1), reset)[0][:, 7:] for s in (x, other)]
    reset[:, 7] = 1
    with_reset = [layer.scan(s, layer.initial_state(1), reset)[0][:, 7:] for s in (x, other)]
    assert float((without[0] - without[1]).abs().max()) > 1e-4
    assert_near(with_reset[0], with_reset[1], 1e-10)
    fresh, _ = layer.scan(x[:, 7:], layer.initial_state(1), torch.zeros(1, 13, dtype=torch.float64))
    assert_near(with_reset[0], fresh, 1e-10)


def test_reset_at_the_first_step_drops_the_initial_state() -> None:
    torch.manual_seed(2)
    inputs, state = random_inputs(1, 5)
    reset = torch.zeros(1, 5, dtype=torch.float64)
    reset[:, 0] = 1
    nothing = Mamba3State(*(torch.zeros_like(s) for s in state))
    wanted = torch.tensor([[4]])
    got = parallel_scan(inputs, state, reset, wanted)
    want = parallel_scan(inputs, nothing, torch.zeros_like(reset), wanted)
    assert_near(got, want, 1e-12)


def test_constant_input_gives_the_geometric_series() -> None:
    length, alpha, gain = 30, 0.9, 0.25
    one = torch.ones(1, length, 1, 1, dtype=torch.float64)
    rate = torch.full((1, length, 1), math.log(alpha), dtype=torch.float64)
    weight = torch.full((1, length, 1), gain, dtype=torch.float64)
    inputs = ScanInput(one, one, one, rate, weight, torch.zeros_like(weight))
    zero = Mamba3State(*(torch.zeros(1, 1, 1, *s, dtype=torch.float64) for s in ((), (1,), (), ())))
    y, _ = parallel_scan(inputs, zero, torch.zeros(1, length, dtype=torch.float64), torch.tensor([[0]]))
    want = gain * (1 - alpha ** torch.arange(1, length + 1, dtype=torch.float64)) / (1 - alpha)
    assert_near(y.flatten(), want, 1e-12)


def test_rotation_turns_pairs_and_wrapping_changes_nothing() -> None:
    theta = torch.tensor([math.pi / 2, 7.0], dtype=torch.float64)
    x = torch.tensor([1.0, 0.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    turned = rotate_pairs(x, theta)
    assert_near(turned[:2], torch.tensor([0.0, 1.0], dtype=torch.float64), 1e-12)
    assert float(turned[4]) == 5.0
    assert_near(turned, rotate_pairs(x, wrap_phase(theta)), 1e-12)
    assert float(wrap_phase(theta).abs().max()) <= math.pi


def test_gradients_of_the_parallel_scan() -> None:
    torch.manual_seed(3)
    inputs, state = random_inputs(1, 4, heads=1, p=2, n=2)
    reset = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return parallel_scan(ScanInput(*tensors), state, reset, torch.tensor([[3]]))

    assert torch.autograd.gradcheck(run, tuple(i.detach().requires_grad_() for i in inputs))


def test_gradients_stay_finite_when_everything_decays_or_resets() -> None:
    for density in (0.0, 1.0):
        layer = Mamba3(16, d_state=4, headdim=8)
        x = (100 * torch.randn(2, 64, 16)).requires_grad_()
        y, _ = layer.scan(x, layer.initial_state(2), torch.full((2, 64), density))
        y.square().mean().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


def test_arguments_are_left_unchanged() -> None:
    torch.manual_seed(4)
    inputs, state = random_inputs(2, 9)
    reset = (torch.rand(2, 9) < 0.3).double()
    before = [t.clone() for t in (*inputs, *state, reset)]
    parallel_scan(inputs, state, reset, torch.tensor([[8], [8]]))
    recurrence(inputs, state, reset)
    assert all(torch.equal(a, b) for a, b in zip(before, (*inputs, *state, reset), strict=True))


def test_backbone_scan_equals_steps_and_gives_states_at_wanted_steps() -> None:
    torch.manual_seed(5)
    backbone = Backbone(BackboneConfig(pattern="MMM", d_model=32, d_state=8, headdim=16)).double()
    x = torch.randn(2, 23, 32, dtype=torch.float64)
    reset = (torch.rand(2, 23) < 0.2).double()
    y, final = backbone.scan(x, backbone.initial_state(2), reset)
    assert_near((y, final), steps(backbone, x, backbone.initial_state(2), reset), 1e-10)
    wanted = torch.tensor([[0, 11, 22], [4, 5, 6]])
    states = backbone.scan(x, backbone.initial_state(2), reset, wanted)[1]
    for row in range(2):
        for column in range(3):
            t = int(wanted[row, column])
            want = backbone.scan(x[:, : t + 1], backbone.initial_state(2), reset[:, : t + 1])[1]
            got = tuple(type(s)(*(a[row * 3 + column] for a in s)) for s in states)
            assert_near(got, tuple(type(s)(*(a[row] for a in s)) for s in want), 1e-10)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"pattern.*unknown: Q"):
        BackboneConfig(pattern="MQ")
    with pytest.raises(ConfigError, match="headdim"):
        Mamba3(30, headdim=16)
    layer = Mamba3(16, d_state=4, headdim=8)
    with pytest.raises(ShapeError, match=r"reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(torch.zeros(2, 5, 16), layer.initial_state(2), torch.zeros(2, 4))
