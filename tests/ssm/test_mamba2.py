"""Mamba-2: the layer against the public module's function, its scan against its steps, resets, ONNX, extremes."""

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

from robonav.errors import CheckpointError, ConfigError, ShapeError
from robonav.ssm.layers.mamba2 import Mamba2, Mamba2State
from robonav.ssm.layers.short_conv import conv_scan, conv_step
from robonav.ssm.weights import load_public

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"ngroups": 2},
    {"ngroups": 2, "norm_before_gate": True, "bias": True, "d_conv": 2},
    {"rmsnorm": False, "D_has_hdim": True, "conv_bias": False, "dt_limit": (0.01, 0.5)},
]


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


def small(dtype: torch.dtype = torch.float64, **options: Any) -> Mamba2:
    """Four heads of four, with a state of six, and parameters that all matter."""
    torch.manual_seed(0)
    layer = Mamba2(8, **{"d_state": 6, "headdim": 4, "chunk": 16, **options})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        layer.dt_bias.add_(3)  # forgets within some ten steps
    return layer.to(dtype)


def steps(layer: Mamba2, x: Tensor, state: Mamba2State, reset: Tensor) -> tuple[Tensor, Mamba2State]:
    out = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, reset[:, t])
        out.append(y)
    return torch.stack(out, 1), state


def random_run(layer: Mamba2, batch: int, length: int, density: float) -> tuple[Tensor, Mamba2State, Tensor]:
    """Inputs, a state that has seen something, and resets."""
    dtype = layer.D.dtype
    _, state = layer.scan(torch.randn(batch, 5, layer.d_model, dtype=dtype), layer.initial_state(batch))
    reset = (torch.rand(batch, length) < density).to(dtype)
    return torch.randn(batch, length, layer.d_model, dtype=dtype), Mamba2State(*(s.detach() for s in state)), reset


def public_shapes(
    d_model: int, d_state: int, d_conv: int, inner: int, headdim: int, ngroups: int, **options: Any
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the public module's parameters."""
    heads, channels = inner // headdim, inner + 2 * ngroups * d_state
    shapes: dict[str, tuple[int, ...]] = {
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (inner if options.get("D_has_hdim") else heads,),
        "in_proj.weight": (2 * inner + 2 * ngroups * d_state + heads, d_model),
        "conv1d.weight": (channels, 1, d_conv),
        "conv1d.bias": (channels,),
        "norm.weight": (inner,),
        "out_proj.weight": (d_model, inner),
    }
    if not options.get("conv_bias", True):
        del shapes["conv1d.bias"]
    if not options.get("rmsnorm", True):
        del shapes["norm.weight"]
    if options.get("bias"):
        shapes |= {"in_proj.bias": shapes["in_proj.weight"][:1], "out_proj.bias": (d_model,)}
    return shapes


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def public_function(
    w: dict[str, Any], u: Any, d_state: int, headdim: int, ngroups: int = 1, **options: Any
) -> np.ndarray[Any, Any]:
    """What the public module computes of u (T, D), one number after the other."""
    length, inner = u.shape[0], w["out_proj.weight"].shape[1]
    heads, width = inner // headdim, w["conv1d.weight"].shape[-1]
    bc = ngroups * d_state
    projected = u @ w["in_proj.weight"].T + w.get("in_proj.bias", 0.0)
    z, mixed, raw_dt = np.split(projected, [inner, 2 * inner + 2 * bc], axis=1)
    convolved = np.zeros_like(mixed)
    for t in range(length):
        for j in range(width):
            if t - j >= 0:
                convolved[t] += w["conv1d.weight"][:, 0, width - 1 - j] * mixed[t - j]
    convolved = silu(convolved + w.get("conv1d.bias", 0.0))
    x, b, c = convolved[:, :inner], convolved[:, inner : inner + bc], convolved[:, inner + bc :]
    dt = np.clip(np.log1p(np.exp(raw_dt + w["dt_bias"])), *options.get("dt_limit", (0.0, math.inf)))
    y = np.zeros_like(x)
    for head in range(heads):
        own, group = slice(head * headdim, (head + 1) * headdim), head // (heads // ngroups)
        part = slice(group * d_state, (group + 1) * d_state)
        skip = w["D"][own] if options.get("D_has_hdim") else w["D"][head]
        hidden = np.zeros((headdim, d_state))
        for t in range(length):
            decay = np.exp(-np.exp(w["A_log"][head]) * dt[t, head])
            hidden = decay * hidden + dt[t, head] * np.outer(x[t, own], b[t, part])
            y[t, own] = hidden @ c[t, part] + skip * x[t, own]

    def norm(value: Any) -> Any:
        groups = value.reshape(length, ngroups, -1)
        scale = np.sqrt((groups**2).mean(-1, keepdims=True) + 1e-5)
        return (groups / scale).reshape(length, inner) * w["norm.weight"]

    if not options.get("rmsnorm", True):
        y = y * silu(z)
    else:
        y = norm(y) * silu(z) if options.get("norm_before_gate") else norm(y * silu(z))
    return y @ w["out_proj.weight"].T + w.get("out_proj.bias", 0.0)


@pytest.mark.parametrize("options", VARIANTS)
def test_public_parameters_give_the_public_function(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    sizes = {"d_state": 6, "headdim": 4, "ngroups": 1, "d_conv": 4, **options}
    shapes = public_shapes(d_model=8, inner=16, **sizes)
    weights = {name: 0.5 * torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}
    layer = Mamba2(8, **sizes).double()
    load_public(layer, {f"mixer.{name}": w for name, w in weights.items()}, "mixer.")
    u = torch.randn(1, 20, 8, dtype=torch.float64)
    y, _ = layer.scan(u, layer.initial_state(1))
    del sizes["d_conv"]
    want = public_function({name: w.numpy() for name, w in weights.items()}, u[0].numpy(), **sizes)
    assert_near(y[0], torch.tensor(want), 1e-10)


def test_what_does_not_fit_is_named() -> None:
    layer = Mamba2(8, d_state=6, headdim=4)
    weights = dict(layer.state_dict())
    with pytest.raises(CheckpointError, match=r"A_log: expected \(4,\), got \(5,\)"):
        load_public(layer, weights | {"A_log": torch.zeros(5)})
    with pytest.raises(CheckpointError, match=r"no conv1d\.bias"):
        load_public(layer, {name: w for name, w in weights.items() if name != "conv1d.bias"})
    for argument, options in (
        ("headdim", {"headdim": 3}),
        ("headdim", {"headdim": 0}),
        ("ngroups", {"headdim": 4, "ngroups": 3}),
        ("d_state", {"headdim": 4, "d_state": 0}),
        ("d_conv", {"headdim": 4, "d_conv": 1}),
        ("chunk", {"headdim": 4, "chunk": 0}),
        ("dt_limit", {"headdim": 4, "dt_limit": (1.0, 0.0)}),
    ):
        with pytest.raises(ConfigError, match=rf"Mamba2\.{argument}: expected .*got"):
            Mamba2(8, **options)
    x, state = torch.zeros(2, 5, 8), layer.initial_state(2)
    with pytest.raises(ShapeError, match=r"x: expected \(B, T, 8\), got \(2, 5, 9\)"):
        layer.scan(torch.zeros(2, 5, 9), state)
    with pytest.raises(ShapeError, match=r"reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(x, state, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"state\.window: expected batch 2"):
        layer.step(x[:, 0], layer.initial_state(3))
    with pytest.raises(ShapeError, match="floating"):
        layer.step(torch.zeros(2, 8, dtype=torch.int64), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 150])
def test_scan_equals_steps_across_chunks_and_resets(length: int, dtype: torch.dtype) -> None:
    layer = small(dtype, ngroups=2)
    x, state, reset = random_run(layer, 3, length, 0.15)
    assert_near(layer.scan(x, state, reset), steps(layer, x, state, reset), TOLERANCE[dtype])


@pytest.mark.parametrize("options", VARIANTS)
def test_every_variant_scans_as_it_steps_with_equal_gradients(options: dict[str, Any]) -> None:
    layer = small(**options)
    x, state, reset = random_run(layer, 2, 21, 0.15)
    toward = torch.randn_like(x)
    results = []
    for run in (layer.scan, lambda *a: steps(layer, *a)):
        own = [t.clone().requires_grad_() for t in (x, *state)]
        y, end = run(own[0], Mamba2State(*own[1:]), reset)
        loss = (y * toward).sum() + end.hidden.square().sum() + end.window.square().sum()
        results.append(((y, end), torch.autograd.grad(loss, [*own, *layer.parameters()])))
    assert_near(*results, 1e-10)


def test_states_at_wanted_steps_and_carry() -> None:
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


@pytest.mark.parametrize("when", [0, 1, 2, 9, 16])
def test_reset_hides_the_past_from_recurrence_and_convolution(when: int) -> None:
    layer = small()
    x, state, reset = random_run(layer, 1, 20, 0)
    other = torch.cat([torch.randn(1, when, 8, dtype=torch.float64), x[:, when:]], dim=1)
    old = Mamba2State(*(torch.randn_like(s) for s in state))
    without = layer.scan(x, state, reset)[0] - layer.scan(other, old, reset)[0]
    assert float(without[:, when:].detach().abs().max()) > 1e-3
    reset[:, when] = 1
    fresh, end = layer.scan(x[:, when:], layer.initial_state(1))
    for run in (layer.scan, lambda *a: steps(layer, *a)):
        y, last = run(other, old, reset)
        assert_near((y[:, when:], last), (fresh, end), 1e-10)


def test_window_is_zero_where_a_reset_dropped_it() -> None:
    layer = small()
    x, state, reset = random_run(layer, 1, 12, 0)
    reset[0, 10] = 1
    _, at = layer.scan(x, state, reset, torch.tensor([[9, 10, 11]]))
    empty = (at.window == 0).all(dim=1)
    assert empty.tolist() == [[False, False, False], [True, True, False], [True, False, False]]


def test_convolution_is_that_of_torch_where_nothing_is_reset() -> None:
    torch.manual_seed(2)
    conv = nn.Conv1d(5, 5, 4, groups=5).double()
    x, window = torch.randn(2, 9, 5, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    y, _ = conv_scan(x, window, conv.weight, conv.bias, torch.zeros(2, 9).double(), torch.tensor([[8], [8]]))
    assert_near(y, conv(torch.cat([window, x.transpose(1, 2)], dim=-1)).transpose(1, 2), 1e-12)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_gradients_of_the_convolution_by_finite_differences(length: int) -> None:
    torch.manual_seed(3)
    reset = (torch.arange(length) == 2).double().expand(2, -1)
    shapes = ((2, length, 3), (2, 3, 3), (3, 1, 4), (3,))
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    wanted = torch.tensor([[0, length - 1], [length - 1, 0]])
    assert torch.autograd.gradcheck(lambda *t: conv_scan(*t, reset, wanted), tensors)
    x, window, weight, bias = tensors
    y, window = conv_step(x[:, 0], window, weight, bias, reset[:, 0])
    assert_near((y, window), tuple(r[:, 0] for r in conv_scan(*tensors, reset, wanted[:1].expand(2, -1))), 1e-12)


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
        layer.in_proj.weight.copy_((4 * layer.in_proj.weight).round() / 4)
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
def test_extremes_are_finite_in_value_and_gradient(scale: float, density: float, length: int, dt: float) -> None:
    layer = small(torch.float32)
    with torch.no_grad():
        layer.dt_bias.fill_(dt + math.log(-math.expm1(-dt)))
    x = (scale * torch.randn(2, length, 8)).requires_grad_()
    reset = (torch.rand(2, length) < density).float()
    y, state = layer.scan(x, layer.initial_state(2), reset)
    grads = torch.autograd.grad(y.square().mean(), [x, *layer.parameters()])
    assert all(torch.isfinite(t).all() for t in (y, *state, *grads))
    assert_near(y, steps(layer, x, layer.initial_state(2), reset)[0], 1e-4)


@pytest.mark.parametrize("density", [0.0, 0.01])
def test_a_long_sequence_is_finite(density: float) -> None:
    layer = small(torch.float32)
    x = torch.randn(1, 4096, 8, requires_grad=True)
    y, _ = layer.scan(x, layer.initial_state(1), (torch.rand(1, 4096) < density).float())
    (grad,) = torch.autograd.grad(y.square().mean(), x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(grad).all()


def test_arguments_are_left_unchanged_and_steps_repeat() -> None:
    layer = small()
    x, state, reset = random_run(layer, 2, 9, 0.3)
    wanted = torch.tensor([[8], [2]])
    before = [t.clone() for t in (x, *state, reset, wanted)]
    layer.scan(x, state, reset, wanted)
    first, second = (layer.step(x[:, 0], state, reset[:, 0]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, (x, *state, reset, wanted), strict=True))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


class StepGraph(nn.Module):
    """The step with its state as plain arguments."""

    def __init__(self, layer: Mamba2) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, reset: Tensor, window: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        y, state = self.layer.step(x, Mamba2State(window, hidden), reset)
        return y, *state


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_onnx_step_equals_torch_over_200_ticks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: torch.dtype
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer, tolerance = small(dtype, ngroups=2).eval(), 1e-4 if dtype == torch.float32 else 5e-2
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
