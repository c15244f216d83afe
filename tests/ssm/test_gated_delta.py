"""The gated delta rule: its chunked form against the loop and plain matrices, its layer, resets, ONNX, extremes."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import CheckpointError, ConfigError, ShapeError
from robonav.ssm.layers.gated_delta import GatedDeltaNet, GatedDeltaState
from robonav.ssm.recurrences.gated_delta import (
    GatedDeltaInput,
    gated_delta_recurrence,
    gated_delta_scan,
    gated_delta_step,
)
from robonav.ssm.weights import load_public

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
HEADS, P, N = 2, 3, 5


def assert_near(got: Any, want: Any, tolerance: float) -> None:
    """Relative to the largest expected entry, or to 1 where all are smaller."""
    if isinstance(got, tuple):
        for a, b in zip(got, want, strict=True):
            assert_near(a, b, tolerance)
        return
    got, want = got.detach(), want.detach()
    assert got.shape == want.shape
    assert torch.isfinite(got).all()
    assert float((got - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


def random_inputs(length: int, batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[GatedDeltaInput, Tensor]:
    """Beta over all of (0, 2), and decays from none to strong."""
    inputs = GatedDeltaInput(
        torch.randn(batch, length, HEADS, N, dtype=dtype),
        F.normalize(torch.randn(batch, length, HEADS, N, dtype=dtype), dim=-1),
        torch.randn(batch, length, HEADS, P, dtype=dtype),
        -3 * torch.rand(batch, length, HEADS, dtype=dtype) ** 8,
        2 * torch.rand(batch, length, HEADS, dtype=dtype),
    )
    return inputs, torch.randn(batch, HEADS, P, N, dtype=dtype)


def random_reset(length: int, density: float, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(batch, length) < density).to(dtype)


def leaves(inputs: GatedDeltaInput, hidden: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in (*inputs, hidden)]


def small(dtype: torch.dtype = torch.float64, **options: Any) -> GatedDeltaNet:
    """Two heads of six keys and three values, and parameters that all matter."""
    torch.manual_seed(0)
    layer = GatedDeltaNet(8, **{"num_heads": 2, "head_dim": 6, "expand_v": 0.5, "chunk": 16, **options})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        layer.dt_bias.add_(1)  # forgets within some ten steps
    return layer.to(dtype)


def steps(layer: GatedDeltaNet, x: Tensor, state: GatedDeltaState, reset: Tensor) -> tuple[Tensor, GatedDeltaState]:
    out = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, reset[:, t])
        out.append(y)
    return torch.stack(out, 1), state


def random_run(layer: GatedDeltaNet, batch: int, length: int, density: float) -> tuple[Tensor, GatedDeltaState, Tensor]:
    """Inputs, a state that has seen something, and resets."""
    dtype = layer.A_log.dtype
    _, state = layer.scan(torch.randn(batch, 5, layer.d_model, dtype=dtype), layer.initial_state(batch))
    reset = (torch.rand(batch, length) < density).to(dtype)
    return torch.randn(batch, length, layer.d_model, dtype=dtype), GatedDeltaState(*(s.detach() for s in state)), reset


def test_recurrence_is_the_written_formula() -> None:
    torch.manual_seed(0)
    inputs, start = random_inputs(6)
    reset = torch.tensor([[0.0, 0, 1, 0, 0, 0], [1.0, 0, 0, 0, 1, 1]], dtype=torch.float64)
    y, hiddens = gated_delta_recurrence(inputs, start, reset)
    query, key, value, log_decay, beta = (x.numpy() for x in inputs)
    for b in range(2):
        for head in range(HEADS):
            state = start[b, head].numpy()
            for t in range(6):
                k, gain = key[b, t, head], beta[b, t, head]
                decay = 0.0 if reset[b, t] else math.exp(log_decay[b, t, head])
                state = decay * state @ (np.eye(N) - gain * np.outer(k, k)) + gain * np.outer(value[b, t, head], k)
                assert_near(hiddens[b, t, head], torch.tensor(state), 1e-12)
                assert_near(y[b, t, head], torch.tensor(state @ query[b, t, head]), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 150])
def test_scan_equals_recurrence_for_outputs_and_every_state(length: int, dtype: torch.dtype) -> None:
    torch.manual_seed(length)
    inputs, start = random_inputs(length, dtype=dtype)
    reset = random_reset(length, 0.1, dtype=dtype)
    want = gated_delta_recurrence(inputs, start, reset)
    assert_near(gated_delta_scan(inputs, start, reset, torch.arange(length).expand(2, -1)), want, TOLERANCE[dtype])
    y, end = gated_delta_scan(inputs, start, reset)
    assert_near((y, end[:, 0]), (want[0], want[1][:, -1]), TOLERANCE[dtype])


@settings(max_examples=30)
@given(
    length=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    chunk=st.sampled_from([1, 2, 7, 16, 64]),
    seed=st.integers(0, 999),
)
def test_scan_equals_recurrence_for_any_length_and_chunk(length: int, density: float, chunk: int, seed: int) -> None:
    torch.manual_seed(seed)
    inputs, start = random_inputs(length)
    reset = random_reset(length, density)
    want_y, want_h = gated_delta_recurrence(inputs, start, reset)
    wanted = torch.randint(0, length, (2, 3))
    want = (want_y, want_h[torch.arange(2)[:, None], wanted])
    assert_near(gated_delta_scan(inputs, start, reset, wanted, chunk), want, 1e-10)


@pytest.mark.parametrize("when", [0, 1, 40, 64])
def test_reset_drops_everything_before_it(when: int) -> None:
    torch.manual_seed(1)
    inputs, start = random_inputs(70)
    reset = torch.zeros(2, 70, dtype=torch.float64)
    reset[:, when] = 1
    y, end = gated_delta_scan(inputs, start, reset)
    later = GatedDeltaInput(*(x[:, when:] for x in inputs))
    want = gated_delta_scan(later, torch.zeros_like(start), torch.zeros(2, 70 - when, dtype=torch.float64))
    assert_near((y[:, when:], end), want, 1e-12)


def test_full_gain_overwrites_what_a_key_held() -> None:
    """With beta 1 a key gives back exactly its last value, whatever was stored there."""
    torch.manual_seed(2)
    inputs, start = random_inputs(40)
    inputs = inputs._replace(query=inputs.key, beta=torch.ones_like(inputs.beta))
    y, _ = gated_delta_scan(inputs, start, torch.zeros(2, 40, dtype=torch.float64))
    assert_near(y, inputs.value, 1e-12)


def test_gain_of_two_counts_parities() -> None:
    """Writing nothing with beta 2 mirrors the state at a key: its sign is the parity of the ones so far."""
    torch.manual_seed(3)
    ones = torch.randint(0, 2, (1, 300, 1)).double()
    key = torch.zeros(1, 300, 1, 2, dtype=torch.float64)
    key[..., 0] = 1
    nothing, start = torch.zeros(1, 300, 1, 1, dtype=torch.float64), torch.tensor([[[[1.0, 0.0]]]]).double()
    inputs = GatedDeltaInput(key, key, nothing, torch.zeros_like(ones), 2 * ones)
    y, _ = gated_delta_scan(inputs, start, torch.zeros(1, 300, dtype=torch.float64))
    assert_near(y[..., 0], 1 - 2 * (torch.cumsum(ones, 1) % 2), 1e-12)


def test_constant_input_gives_the_geometric_series() -> None:
    length, alpha, beta = 150, 0.97, 0.3
    one = torch.ones(1, length, 1, 1, dtype=torch.float64)
    inputs = GatedDeltaInput(one, one, one, math.log(alpha) * one[..., 0], beta * one[..., 0])
    y, _ = gated_delta_scan(inputs, torch.zeros(1, 1, 1, 1).double(), torch.zeros(1, length).double())
    rate = alpha * (1 - beta)
    want = beta * (1 - rate ** torch.arange(1, length + 1, dtype=torch.float64)) / (1 - rate)
    assert_near(y.flatten(), want, 1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_gradients_by_finite_differences(chunk: int) -> None:
    torch.manual_seed(4)
    inputs, start = random_inputs(4, batch=1)
    reset = torch.tensor([[0.0, 0, 1, 0]], dtype=torch.float64)
    wanted = torch.tensor([[1, 3]])

    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return gated_delta_scan(GatedDeltaInput(*tensors[:5]), tensors[5], reset, wanted, chunk)

    assert torch.autograd.gradcheck(run, leaves(inputs, start), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("density", [0.0, 0.1])
def test_gradients_equal_those_of_the_recurrence(density: float, dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    inputs, start = random_inputs(75, dtype=dtype)
    reset = random_reset(75, density, dtype=dtype)
    wanted = torch.tensor([[74, 0, 33], [64, 63, 5]])
    toward_y, toward_h = torch.randn(2, 75, HEADS, P, dtype=dtype), torch.randn(2, 3, HEADS, P, N, dtype=dtype)
    results = []
    for parallel in (True, False):
        own = leaves(inputs, start)
        if parallel:
            y, h = gated_delta_scan(GatedDeltaInput(*own[:5]), own[5], reset, wanted)
        else:
            y, every = gated_delta_recurrence(GatedDeltaInput(*own[:5]), own[5], reset)
            h = every[torch.arange(2)[:, None], wanted]
        results.append(torch.autograd.grad((y * toward_y).sum() + (h * toward_h).sum(), own))
    assert_near(*results, TOLERANCE[dtype])


@pytest.mark.parametrize("beta", [0.0, 1e-6, 1.0, 2.0])
@pytest.mark.parametrize("log_decay", [0.0, -1e-6, -30.0, -1600.0])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_extremes_are_finite_and_equal_the_loop(log_decay: float, beta: float, density: float) -> None:
    """All keys are one, the worst case for the triangular system."""
    torch.manual_seed(6)
    inputs, start = random_inputs(65, batch=1, dtype=torch.float32)
    inputs = inputs._replace(
        key=inputs.key[:, :1].expand(-1, 65, -1, -1),
        log_decay=torch.full_like(inputs.log_decay, log_decay),
        beta=torch.full_like(inputs.beta, beta),
    )
    own = leaves(inputs, start)
    reset = torch.full((1, 65), density)
    y, h = gated_delta_scan(GatedDeltaInput(*own[:5]), own[5], reset)
    grads = torch.autograd.grad(y.square().mean() + h.square().mean(), own)
    assert all(torch.isfinite(grad).all() for grad in grads)
    want_y, want_h = gated_delta_recurrence(inputs, start, reset)
    assert_near((y, h[:, 0]), (want_y, want_h[:, -1]), 1e-4)


def test_float32_keeps_its_digits_over_4096_steps() -> None:
    torch.manual_seed(7)
    inputs, start = random_inputs(4096, batch=1)
    inputs = inputs._replace(log_decay=-1e-3 * torch.rand_like(inputs.log_decay))
    reset = torch.zeros(1, 4096, dtype=torch.float64)
    want = gated_delta_scan(inputs, start, reset)
    own = leaves(GatedDeltaInput(*(x.float() for x in inputs)), start.float())
    y, h = gated_delta_scan(GatedDeltaInput(*own[:5]), own[5], reset.float())
    assert_near((y.double(), h.double()), want, 1e-4)
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(y.square().mean(), own[:5]))


def test_arguments_are_left_unchanged_and_steps_repeat() -> None:
    torch.manual_seed(8)
    inputs, start = random_inputs(70)
    reset, wanted = random_reset(70, 0.2), torch.tensor([[3], [69]])
    layer = small()
    x, state, layer_reset = random_run(layer, 2, 9, 0.3)
    arguments = (*inputs, start, reset, wanted, x, *state, layer_reset)
    before = [t.clone() for t in arguments]
    gated_delta_scan(inputs, start, reset, wanted, 16)
    layer.scan(x, state, layer_reset, torch.tensor([[8], [0]]))
    now = GatedDeltaInput(*(x[:, 0] for x in inputs))
    first, second = (gated_delta_step(start, now, reset[:, 0]) for _ in range(2))
    y, end = layer.step(x[:, 0], state, layer_reset[:, 0])
    again, last = layer.step(x[:, 0], state, layer_reset[:, 0])
    assert all(torch.equal(a, b) for a, b in zip(before, arguments, strict=True))
    assert all(torch.equal(a, b) for a, b in zip((*first, y, *end), (*second, again, *last), strict=True))


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def public_function(w: dict[str, Any], u: Any, heads: int, max_beta: float) -> np.ndarray[Any, Any]:
    """What the layer of that name in flash-linear-attention computes of u (T, D), one number after the other."""
    length = u.shape[0]

    def branch(name: str) -> Any:
        """Projected, convolved, and split into heads (T, H, .)."""
        x, taps = u @ w[f"{name}_proj.weight"].T, w[f"{name}_conv1d.weight"][:, 0]
        out = np.zeros_like(x)
        for t in range(length):
            for j in range(min(t + 1, taps.shape[1])):
                out[t] += taps[:, -1 - j] * x[t - j]
        return silu(out).reshape(length, heads, -1)

    q, k, v = branch("q"), branch("k"), branch("v")
    q, k = (x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6) for x in (q, k))
    beta = max_beta / (1 + np.exp(-u @ w["b_proj.weight"].T))
    alpha = np.exp(-np.exp(w["A_log"]) * np.log1p(np.exp(u @ w["a_proj.weight"].T + w["dt_bias"])))
    y = np.zeros_like(v)
    for head in range(heads):
        hidden = np.zeros((v.shape[-1], k.shape[-1]))
        for t in range(length):
            hidden = alpha[t, head] * hidden
            error = v[t, head] - hidden @ k[t, head]
            hidden = hidden + beta[t, head] * np.outer(error, k[t, head])
            y[t, head] = hidden @ q[t, head] / math.sqrt(k.shape[-1])
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * w["o_norm.weight"]
    return (y.reshape(length, -1) * silu(u @ w["g_proj.weight"].T)) @ w["o_proj.weight"].T


@pytest.mark.parametrize("negative", [False, True])
def test_public_parameters_give_the_public_function(negative: bool) -> None:
    torch.manual_seed(9)
    shapes = {
        **{"q_proj.weight": (12, 8), "k_proj.weight": (12, 8), "v_proj.weight": (6, 8), "g_proj.weight": (6, 8)},
        **{"a_proj.weight": (2, 8), "b_proj.weight": (2, 8), "A_log": (2,), "dt_bias": (2,), "o_norm.weight": (3,)},
        **{"q_conv1d.weight": (12, 1, 4), "k_conv1d.weight": (12, 1, 4), "v_conv1d.weight": (6, 1, 4)},
        "o_proj.weight": (8, 6),
    }
    weights = {name: 0.7 * torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}
    layer = small(allow_neg_eigval=negative)
    load_public(layer, weights)
    u = torch.randn(1, 20, 8, dtype=torch.float64)
    y, _ = layer.scan(u, layer.initial_state(1))
    want = public_function({name: w.numpy() for name, w in weights.items()}, u[0].numpy(), 2, 2.0 if negative else 1.0)
    assert_near(y[0], torch.tensor(want), 1e-10)


def test_what_does_not_fit_is_named() -> None:
    layer = small()
    with pytest.raises(CheckpointError, match=r"A_log: expected \(2,\), got \(5,\)"):
        load_public(layer, dict(layer.state_dict()) | {"A_log": torch.zeros(5)})
    for argument, options in (
        ("num_heads", {"num_heads": 0}),
        ("head_dim", {"head_dim": 0}),
        (r"head_dim \* expand_v", {"expand_v": 0.0}),
        ("conv_size", {"conv_size": 1}),
        ("chunk", {"chunk": 0}),
    ):
        with pytest.raises(ConfigError, match=rf"GatedDeltaNet\.{argument}: expected .*got"):
            GatedDeltaNet(8, **options)
    x, state = torch.zeros(2, 5, 8).double(), layer.initial_state(2)
    with pytest.raises(ShapeError, match=r"reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(x, state, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"state\.window: expected batch 2"):
        layer.step(x[:, 0], layer.initial_state(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 150])
def test_layer_scans_as_it_steps_across_chunks_and_resets(length: int, dtype: torch.dtype) -> None:
    layer = small(dtype, allow_neg_eigval=True)
    x, state, reset = random_run(layer, 3, length, 0.15)
    assert_near(layer.scan(x, state, reset), steps(layer, x, state, reset), TOLERANCE[dtype])


def test_layer_gradients_equal_those_of_its_steps() -> None:
    layer = small()
    x, state, reset = random_run(layer, 2, 21, 0.15)
    toward = torch.randn_like(x)
    results = []
    for run in (layer.scan, lambda *a: steps(layer, *a)):
        own = [t.clone().requires_grad_() for t in (x, *state)]
        y, end = run(own[0], GatedDeltaState(*own[1:]), reset)
        loss = (y * toward).sum() + end.hidden.square().sum() + end.window.square().sum()
        results.append(((y, end), torch.autograd.grad(loss, [*own, *layer.parameters()])))
    assert_near(*results, 1e-10)


def test_layer_states_at_wanted_steps_and_carry() -> None:
    layer = small()
    x, state, reset = random_run(layer, 2, 23, 0.2)
    wanted = torch.tensor([[0, 11, 22], [4, 3, 1]])
    y, states = layer.scan(x, state, reset, wanted)
    for row in range(2):
        for column in range(3):
            cut = int(wanted[row, column]) + 1
            first, middle = layer.scan(x[:, :cut], state, reset[:, :cut])
            assert_near(tuple(s[3 * row + column] for s in states), tuple(s[row] for s in middle), 1e-10)
            if cut < 23:
                second, _ = layer.scan(x[:, cut:], middle, reset[:, cut:])
                assert_near(torch.cat([first, second], 1), y, 1e-10)


@pytest.mark.parametrize("when", [0, 1, 9, 16])
def test_reset_hides_the_past_from_recurrence_and_convolutions(when: int) -> None:
    layer = small()
    x, state, reset = random_run(layer, 1, 20, 0)
    other = torch.cat([torch.randn(1, when, 8, dtype=torch.float64), x[:, when:]], dim=1)
    old = GatedDeltaState(*(torch.randn_like(s) for s in state))
    without = layer.scan(x, state, reset)[0] - layer.scan(other, old, reset)[0]
    assert float(without[:, when:].detach().abs().max()) > 1e-3
    reset[:, when] = 1
    fresh, end = layer.scan(x[:, when:], layer.initial_state(1))
    for run in (layer.scan, lambda *a: steps(layer, *a)):
        y, last = run(other, old, reset)
        assert_near((y[:, when:], last), (fresh, end), 1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_layer_keeps_its_state_in_float32(dtype: torch.dtype) -> None:
    layer = small(torch.float32)
    x, _, reset = random_run(layer, 2, 20, 0.1)
    want, _ = layer.scan(x, layer.initial_state(2), reset)
    layer = layer.to(dtype)
    for run in (layer.scan, lambda *a: steps(layer, *a)):
        y, state = run(x.to(dtype), layer.initial_state(2), reset)
        assert y.dtype == dtype
        assert {s.dtype for s in state} == {torch.float32}
        assert_near(y.float(), want, 0.05)


def test_autocast_keeps_the_recurrence_in_float32() -> None:
    """Numbers that the projections hold exactly in bfloat16 give the states of float32."""
    layer = small(torch.float32)
    with torch.no_grad():
        for projection in (layer.q_proj, layer.k_proj, layer.v_proj, layer.a_proj, layer.b_proj, layer.g_proj):
            projection.weight.copy_((4 * projection.weight).round() / 4)
    x, state, reset = random_run(layer, 2, 20, 0.1)
    x = x.round().clamp(-2, 2)
    for run in (layer.scan, lambda *a: steps(layer, *a)):
        want_y, want = run(x, state, reset)
        with torch.autocast("cpu", torch.bfloat16):
            y, end = run(x, state, reset)
        assert y.dtype == torch.bfloat16
        assert {s.dtype for s in end} == {torch.float32}
        assert_near(tuple(end), tuple(want), 1e-5)
        assert_near(y.float(), want_y, 0.02)


@settings(max_examples=20)
@given(
    scale=st.sampled_from([0.0, 1e-3, 1.0, 100.0, 1e4]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    length=st.sampled_from([1, 2, 17, 40]),
    dt=st.sampled_from([1e-6, 1e-2, 1.0, 100.0]),
)
def test_layer_is_finite_in_value_and_gradient(scale: float, density: float, length: int, dt: float) -> None:
    layer = small(torch.float32, allow_neg_eigval=True)
    with torch.no_grad():
        layer.dt_bias.fill_(dt + math.log(-math.expm1(-dt)))
    x = (scale * torch.randn(2, length, 8)).requires_grad_()
    reset = (torch.rand(2, length) < density).float()
    y, state = layer.scan(x, layer.initial_state(2), reset)
    grads = torch.autograd.grad(y.square().mean(), [x, *layer.parameters()])
    assert all(torch.isfinite(t).all() for t in (y, *state, *grads))


class StepGraph(nn.Module):
    """The step with its state as plain arguments."""

    def __init__(self, layer: GatedDeltaNet) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, reset: Tensor, window: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        y, state = self.layer.step(x, GatedDeltaState(window, hidden), reset)
        return y, *state


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_onnx_step_equals_torch_over_200_ticks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: torch.dtype
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer, tolerance = small(dtype).eval(), 1e-4 if dtype == torch.float32 else 5e-2
    names, next_names = ["x", "reset", "window", "hidden"], ["y", "next.window", "next.hidden"]
    batch = {0: torch.export.Dim("batch")}
    example = (torch.zeros(2, 8, dtype=dtype), torch.zeros(2), *layer.initial_state(2))
    path = str(tmp_path / "step.onnx")
    caplog.set_level(logging.ERROR, "torch.onnx")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            StepGraph(layer),
            example,
            path,
            input_names=names,
            output_names=next_names,
            dynamic_shapes=(batch,) * 4,
            opset_version=20,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    state = layer.initial_state(3)
    carried = [s.numpy() for s in state]
    for _ in range(200):
        x, reset = torch.randn(3, 8).to(dtype), (torch.rand(3) < 0.05).float()
        with torch.no_grad():
            y, state = layer.step(x, state, reset)
        inputs = dict(zip(names, [x.numpy(), reset.numpy(), *carried], strict=True))
        out, *carried = session.run(next_names, inputs)
        assert_near(torch.tensor(out).float(), y.float(), tolerance)
    assert_near(torch.tensor(carried[1]), state.hidden, tolerance)
