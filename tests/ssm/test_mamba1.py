"""Mamba-1: scan against step, resets and carry, the public module's function, extreme inputs, half precision, ONNX."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robonav.errors import CheckpointError, ConfigError, ShapeError
from robonav.ssm.layers.mamba1 import Mamba1, Mamba1State
from robonav.ssm.recurrences import mamba1 as core
from robonav.ssm.recurrences.mamba1 import Mamba1Input, mamba1_recurrence, mamba1_scan
from robonav.ssm.weights import load_public

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
F64 = torch.float64


def random_inputs(batch: int, length: int, d: int = 5, n: int = 3) -> tuple[Mamba1Input, Tensor, Tensor]:
    """Inputs, A and an initial state, all differentiable."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, requires_grad=True)

    dt = torch.rand(batch, length, d, dtype=F64, requires_grad=True)
    rates = (-2 * torch.rand(d, n, dtype=F64)).requires_grad_()
    inputs = Mamba1Input(randn(batch, length, d), dt, randn(batch, length, n), randn(batch, length, n))
    return inputs, rates, randn(batch, d, n)


def random_reset(batch: int, length: int, density: float, dtype: torch.dtype = F64) -> Tensor:
    return (torch.rand(batch, length) < density).to(dtype)


def steps(layer: Mamba1, x: Tensor, state: Mamba1State, reset: Tensor) -> tuple[Tensor, Mamba1State]:
    out = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, reset[:, t])
        out.append(y)
    return torch.stack(out, 1), state


def assert_near(got: object, want: object, tolerance: float) -> None:
    if isinstance(want, Tensor):
        assert isinstance(got, Tensor)
        assert got.shape == want.shape
        error, scale = ((t.detach().abs().max() if t.numel() else 0.0) for t in (got - want, want))
        assert float(error) <= tolerance * (1 + float(scale))
        return
    for g, w in zip(got, want, strict=True):  # type: ignore[call-overload]
        assert_near(g, w, tolerance)


def warm_state(layer: Mamba1, batch: int) -> Mamba1State:
    """A state with a filled window, cut from its history."""
    dtype = layer.D.dtype
    state = layer.scan(torch.randn(batch, 6, layer.d_model, dtype=dtype), layer.initial_state(batch))[1]
    return Mamba1State(*(s.detach().requires_grad_() for s in state))


@settings(max_examples=40, deadline=None)
@given(
    length=st.sampled_from([1, 2, 3, 17, 64]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    chunk=st.sampled_from([1, 5, 16, 64]),
    seed=st.integers(0, 999),
)
def test_scan_equals_recurrence_in_outputs_wanted_states_and_gradients(
    length: int, density: float, chunk: int, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs, rates, hidden = random_inputs(3, length)
    reset, wanted = random_reset(3, length, density), torch.randint(0, length, (3, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "chunk_length", lambda *_: min(chunk, length))
        y, found = mamba1_scan(inputs, rates, hidden, reset, wanted)
        got = torch.autograd.grad(y.sin().sum() + found.cos().sum(), (*inputs, rates, hidden))
    want_y, every = mamba1_recurrence(inputs, rates, hidden, reset)
    want_found = every[torch.arange(3)[:, None], wanted]
    assert_near((y, found), (want_y, want_found), 1e-10)
    want = torch.autograd.grad(want_y.sin().sum() + want_found.cos().sum(), (*inputs, rates, hidden))
    assert_near(got, want, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 150])
@pytest.mark.parametrize("d_conv", [1, 4])
def test_layer_scan_equals_steps_with_gradients(length: int, dtype: torch.dtype, d_conv: int) -> None:
    torch.manual_seed(length)
    layer = Mamba1(16, d_state=4, d_conv=d_conv).to(dtype)
    x = torch.randn(3, length, 16, dtype=dtype, requires_grad=True)
    reset, start = random_reset(3, length, 0.15, dtype), warm_state(layer, 3)
    got, want = layer.scan(x, start, reset), steps(layer, x, start, reset)
    assert_near(got, want, TOLERANCE[dtype])
    leaves = (x, start.hidden, *layer.parameters())
    grads = [
        torch.autograd.grad(y.square().sum() + h.square().sum(), leaves, retain_graph=True) for y, (_, h) in (got, want)
    ]
    assert_near(*grads, TOLERANCE[dtype])


def test_carry_scanning_in_two_pieces_equals_one() -> None:
    torch.manual_seed(0)
    layer = Mamba1(16, d_state=4).double()
    x, reset = torch.randn(2, 17, 16, dtype=F64), torch.zeros(2, 17, dtype=F64)
    reset[0, 9] = 1
    start = warm_state(layer, 2)
    whole, final = layer.scan(x, start, reset)
    for k in (1, 2, 8, 9, 10, 16):
        first, middle = layer.scan(x[:, :k], start, reset[:, :k])
        second, end = layer.scan(x[:, k:], middle, reset[:, k:])
        assert_near((torch.cat([first, second], 1), end), (whole, final), 1e-10)


@pytest.mark.parametrize("at", [0, 1, 7])
def test_reset_makes_the_future_independent_of_the_past(at: int) -> None:
    """Also through the convolution, whose taps reach three steps back."""
    torch.manual_seed(1)
    layer = Mamba1(16, d_state=4).double()
    x, start = torch.randn(1, 20, 16, dtype=F64), warm_state(layer, 1)
    reset = torch.zeros(1, 20, dtype=F64)
    reset[:, at] = 1
    fresh, _ = layer.scan(x[:, at:], layer.initial_state(1))
    assert_near(layer.scan(x, start, reset)[0][:, at:], fresh, 1e-12)
    assert_near(steps(layer, x, start, reset)[0][:, at:], fresh, 1e-12)
    assert float((layer.scan(x, start)[0][:, at:] - fresh).detach().abs().max()) > 1e-4


def test_states_at_wanted_steps_are_those_of_shorter_scans() -> None:
    torch.manual_seed(2)
    layer = Mamba1(16, d_state=4).double()
    x, reset, start = torch.randn(2, 23, 16, dtype=F64), random_reset(2, 23, 0.2), warm_state(layer, 2)
    wanted = torch.tensor([[0, 11, 22], [1, 2, 2]])
    states = layer.scan(x, start, reset, wanted)[1]
    for row in range(2):
        for column in range(3):
            t = int(wanted[row, column]) + 1
            want = layer.scan(x[:, :t], start, reset[:, :t])[1]
            assert_near([s[row * 3 + column] for s in states], [s[row] for s in want], 1e-12)


def test_constant_input_gives_a_geometric_series() -> None:
    length, rate, dt = 50, -0.3, 0.5
    one = torch.ones(1, length, 1, dtype=F64)
    inputs, rates = Mamba1Input(2 * one, dt * one, one, one), torch.tensor([[rate]], dtype=F64)
    y, _ = mamba1_scan(inputs, rates, torch.zeros(1, 1, 1, dtype=F64), torch.zeros(1, length, dtype=F64))
    alpha = math.exp(dt * rate)
    want = 2 * dt * (1 - alpha ** torch.arange(1, length + 1, dtype=F64)) / (1 - alpha)
    assert_near(y.flatten(), want, 1e-12)


@pytest.mark.parametrize("chunk", [1, 3])
def test_gradients_by_finite_differences(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    monkeypatch.setattr(core, "chunk_length", lambda *_: chunk)
    inputs, rates, hidden = random_inputs(2, 4, d=2, n=2)
    reset = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]], dtype=F64)

    def run(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        return mamba1_scan(Mamba1Input(*leaves[:4]), leaves[4], leaves[5], reset, torch.tensor([[3, 1], [0, 0]]))

    assert torch.autograd.gradcheck(run, (*inputs, rates, hidden))


def test_arguments_are_left_unchanged_and_the_gradient_can_be_asked_for_twice() -> None:
    torch.manual_seed(4)
    inputs, rates, hidden = random_inputs(2, 9)
    reset = random_reset(2, 9, 0.3)
    leaves = (*inputs, rates, hidden)
    before = [t.clone() for t in (*leaves, reset)]
    y, _ = mamba1_scan(inputs, rates, hidden, reset)
    first = torch.autograd.grad(y.square().sum(), leaves, retain_graph=True)
    second = torch.autograd.grad(y.square().sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(before, (*leaves, reset), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    layer = Mamba1(8, d_state=2)
    x, state = torch.randn(2, 8), layer.initial_state(2)
    copies = [t.clone() for t in (x, *state)]
    layer.step(x, state, torch.ones(2))
    layer.scan(x[:, None], state)
    assert all(torch.equal(a, b) for a, b in zip(copies, (x, *state), strict=True))


def test_memory_kept_for_the_gradient_is_a_fraction_of_all_states() -> None:
    batch, length, d, n = 8, 64, 128, 16
    inputs = Mamba1Input(*(torch.rand(batch, length, size, requires_grad=True) for size in (d, d, n, n)))
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mamba1_scan(inputs, -torch.rand(d, n), torch.zeros(batch, d, n), torch.zeros(batch, length))
    assert sum(kept.values()) < 0.5 * batch * length * d * n


@settings(max_examples=20, deadline=None)
@given(
    length=st.sampled_from([1, 2, 65, 4096]),
    dt=st.sampled_from([1e-6, 1e-2, 1.0, 1e2]),
    rate=st.sampled_from([0.0, -1e-8, -1.0, -1e4]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    size=st.sampled_from([1e-6, 1.0, 1e3]),
)
def test_extreme_decays_steps_and_resets_stay_finite(
    length: int, dt: float, rate: float, density: float, size: float
) -> None:
    torch.manual_seed(5)
    b, d, n = 2, 3, 2
    x, B, C = (size * torch.randn(b, length, w) for w in (d, n, n))
    leaves = [x, torch.full((b, length, d), dt), B, C, torch.full((d, n), rate), torch.randn(b, d, n)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y, found = mamba1_scan(Mamba1Input(*leaves[:4]), leaves[4], leaves[5], random_reset(b, length, density).float())
    grads = torch.autograd.grad((y / size**2).mean() + (found / size).mean(), leaves)
    assert all(bool(torch.isfinite(t).all()) for t in (y, found, *grads))


def test_layer_stays_finite_for_large_inputs() -> None:
    torch.manual_seed(6)
    layer = Mamba1(16, d_state=4)
    for length, density in ((1, 0.0), (64, 0.0), (64, 1.0), (1024, 0.1)):
        x = (100 * torch.randn(2, length, 16)).requires_grad_()
        y, state = layer.scan(x, layer.initial_state(2), random_reset(2, length, density).float())
        grads = torch.autograd.grad(y.square().mean(), (x, *layer.parameters()))
        assert all(bool(torch.isfinite(t).all()) for t in (y, *state, *grads))


def public_parameters(d_model: int, d_state: int, d_conv: int, rank: int) -> dict[str, Tensor]:
    """A state dict with the names, shapes and order of the public module's, expand 2."""
    inner = 2 * d_model
    shapes = {
        "A_log": (inner, d_state),
        "D": (inner,),
        "in_proj.weight": (2 * inner, d_model),
        "conv1d.weight": (inner, 1, d_conv),
        "conv1d.bias": (inner,),
        "x_proj.weight": (rank + 2 * d_state, inner),
        "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,),
        "out_proj.weight": (d_model, inner),
    }
    return {name: 0.3 * torch.randn(*shape, dtype=F64) for name, shape in shapes.items()}


def public_function(parameters: dict[str, Tensor], x: np.ndarray) -> np.ndarray:
    """The public module's function on one sequence (T, d_model), number by number, in numpy."""
    p = {name: tensor.numpy() for name, tensor in parameters.items()}
    inner, n = p["A_log"].shape
    taps, rank = p["conv1d.weight"].shape[-1], p["dt_proj.weight"].shape[1]
    xz = x @ p["in_proj.weight"].T
    u, z = xz[:, :inner], xz[:, inner:]
    out = []
    h = np.zeros((inner, n))
    for t in range(len(x)):
        v = p["conv1d.bias"].copy()
        for j in range(taps):
            back = taps - 1 - j
            if t - back >= 0:
                v += p["conv1d.weight"][:, 0, j] * u[t - back]
        v = v / (1 + np.exp(-v))
        low = p["x_proj.weight"] @ v
        dt = np.log1p(np.exp(p["dt_proj.weight"] @ low[:rank] + p["dt_proj.bias"]))
        b, c = low[rank : rank + n], low[rank + n :]
        y = p["D"] * v
        for i in range(inner):
            h[i] = np.exp(-dt[i] * np.exp(p["A_log"][i])) * h[i] + dt[i] * b * v[i]
            y[i] += h[i] @ c
        out.append(p["out_proj.weight"] @ (y * z[t] / (1 + np.exp(-z[t]))))
    return np.stack(out)


def test_public_weights_load_and_compute_the_public_function() -> None:
    torch.manual_seed(7)
    layer = Mamba1(20, d_state=6, d_conv=3).double()
    public = public_parameters(20, 6, 3, rank=2)
    assert [(name, tensor.shape) for name, tensor in layer.state_dict().items()] == [
        (name, tensor.shape) for name, tensor in public.items()
    ]
    load_public(layer, {f"layers.0.mixer.{name}": tensor for name, tensor in public.items()}, "layers.0.mixer.")
    x = torch.randn(2, 13, 20, dtype=F64)
    want = torch.stack([torch.from_numpy(public_function(public, row.numpy())) for row in x])
    assert_near(layer.scan(x, layer.initial_state(2))[0], want, 1e-10)
    assert_near(steps(layer, x, layer.initial_state(2), torch.zeros(2, 13))[0], want, 1e-10)


def test_public_weights_that_do_not_fit_are_named() -> None:
    layer = Mamba1(20, d_state=6)
    public = public_parameters(20, 6, 4, rank=2)
    with pytest.raises(CheckpointError, match=r"A_log: expected \(40, 6\), got \(40, 5\)"):
        load_public(layer, {**public, "A_log": torch.zeros(40, 5)})
    public.pop("dt_proj.bias")
    with pytest.raises(CheckpointError, match=r"no dt_proj\.bias"):
        load_public(layer, public)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_layer_keeps_its_state_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(8)
    layer = Mamba1(32, d_state=4)
    x, reset = torch.randn(2, 9, 32), random_reset(2, 9, 0.2).float()
    want, _ = layer.scan(x, layer.initial_state(2), reset)
    layer.to(dtype)
    got, state = layer.scan(x.to(dtype), layer.initial_state(2), reset)
    by_step, last = steps(layer, x.to(dtype), layer.initial_state(2), reset)
    assert {got.dtype, by_step.dtype} == {dtype}
    assert {s.dtype for s in (*state, *last)} == {torch.float32}
    assert_near(got.float(), want, 0.03)
    assert_near(by_step.float(), want, 0.03)


def test_autocast_keeps_state_and_recurrence_in_float32() -> None:
    torch.manual_seed(9)
    layer = Mamba1(32, d_state=4)
    x = torch.randn(2, 40, 32)
    want, exact = layer.scan(x, layer.initial_state(2))
    with torch.autocast("cpu", torch.bfloat16):
        got, state = layer.scan(x, layer.initial_state(2))
        by_step, last = steps(layer, x, layer.initial_state(2), torch.zeros(2, 40))
    assert got.dtype == by_step.dtype == torch.bfloat16
    assert {s.dtype for s in (*state, *last)} == {torch.float32}
    assert_near((got.float(), state), (want, exact), 0.03)
    assert_near((got.float(), state), (by_step.float(), last), 0.03)
    got.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


def test_step_runs_in_onnxruntime_with_another_batch(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    torch.manual_seed(10)
    layer = Mamba1(16, d_state=4)
    batch = torch.export.Dim("batch", min=1, max=64)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, window: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y, state = self.layer.step(x, Mamba1State(window, hidden), reset)
            return y, *state

    path = tmp_path / "step.onnx"
    names = ["x", "window", "hidden", "reset"]
    torch.onnx.export(
        Step().eval(),
        (torch.randn(2, 16), *layer.initial_state(2), torch.zeros(2)),
        path,
        dynamo=True,
        opset_version=20,
        input_names=names,
        output_names=["y", "next_window", "next_hidden"],
        dynamic_shapes={name: {0: batch} for name in names},
        verbose=False,
    )
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    x, reset = torch.randn(3, 200, 16), random_reset(3, 200, 0.05).float()
    want, last = steps(layer, x, layer.initial_state(3), reset)
    state, got = [s.numpy() for s in layer.initial_state(3)], []
    for t in range(200):
        feed = dict(zip(names, (x[:, t].numpy(), *state, reset[:, t].numpy()), strict=True))
        y, *state = session.run(None, feed)
        got.append(torch.from_numpy(y))
    assert_near((torch.stack(got, 1), [torch.from_numpy(s) for s in state]), (want, tuple(last)), 1e-4)


def test_bad_sizes_and_arguments_are_named() -> None:
    for arguments, name in (
        ({"d_model": 0}, "d_model"),
        ({"d_state": 0}, "d_state"),
        ({"d_conv": 0}, "d_conv"),
        ({"expand": 0.01}, r"expand \* d_model"),
        ({"dt_rank": 0}, "dt_rank"),
        ({"dt_rank": "full"}, "dt_rank"),
        ({"dt_min": 0.2}, "dt_min"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}.*expected.*got"):
            Mamba1(**{"d_model": 16, **arguments})  # type: ignore[arg-type]
    layer = Mamba1(16, d_state=4)
    with pytest.raises(ShapeError, match=r"reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(torch.zeros(2, 5, 16), layer.initial_state(2), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"state\.window: expected batch 2"):
        layer.step(torch.zeros(2, 16), layer.initial_state(3))
    with pytest.raises(ShapeError, match=r"x: expected a floating tensor"):
        layer.step(torch.zeros(2, 16, dtype=torch.int64), layer.initial_state(2))
