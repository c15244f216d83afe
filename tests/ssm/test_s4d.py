"""S4D: scan against step, closed forms, resets and carry, the public function, extremes, half precision, ONNX."""

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
from robonav.ssm.layers.s4d import S4D
from robonav.ssm.recurrences.s4d import S4DState, S4DSystem, discretise, s4d_recurrence, s4d_scan
from robonav.ssm.weights import load_public

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
F64 = torch.float64


def random_system(d: int, modes: int) -> tuple[Tensor, ...]:
    """Re A, Im A, dt, Re C, Im C, all differentiable."""
    real, imag = -0.1 - torch.rand(d, modes, dtype=F64), math.pi * torch.arange(modes, dtype=F64).repeat(d, 1)
    dt = 0.01 + 0.3 * torch.rand(d, dtype=F64)
    c_real, c_imag = torch.randn(2, d, modes, dtype=F64)
    return tuple(t.clone().requires_grad_() for t in (real, imag, dt, c_real, c_imag))


def random_hidden(batch: int, d: int, modes: int) -> S4DState:
    return S4DState(*(torch.randn(batch, d, modes, dtype=F64, requires_grad=True) for _ in range(2)))


def random_reset(batch: int, length: int, density: float, dtype: torch.dtype = F64) -> Tensor:
    return (torch.rand(batch, length) < density).to(dtype)


def steps(layer: S4D, x: Tensor, state: S4DState, reset: Tensor) -> tuple[Tensor, S4DState]:
    out = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, reset[:, t])
        out.append(y)
    return torch.stack(out, 1), state


def assert_near(got: object, want: object, tolerance: float) -> None:
    if isinstance(want, Tensor):
        assert isinstance(got, Tensor)
        assert got.shape == want.shape
        error, scale = (t.detach().abs().max() for t in (got - want, want))
        assert float(error) <= tolerance * (1 + float(scale))
        return
    for g, w in zip(got, want, strict=True):  # type: ignore[call-overload]
        assert_near(g, w, tolerance)


def warm_state(layer: S4D, batch: int) -> S4DState:
    """A filled state, cut from its history."""
    x = torch.randn(batch, 6, layer.d_model, dtype=layer.D.dtype)
    return S4DState(*(s.detach().requires_grad_() for s in layer.scan(x, layer.initial_state(batch))[1]))


@settings(max_examples=40, deadline=None)
@given(
    length=st.sampled_from([1, 2, 3, 17, 64, 70]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    chunk=st.sampled_from([1, 5, 16, 64]),
    seed=st.integers(0, 999),
)
def test_scan_equals_recurrence_in_outputs_wanted_states_and_gradients(
    length: int, density: float, chunk: int, seed: int
) -> None:
    torch.manual_seed(seed)
    parameters, hidden = random_system(4, 3), random_hidden(3, 4, 3)
    x = torch.randn(3, length, 4, dtype=F64, requires_grad=True)
    reset, wanted = random_reset(3, length, density), torch.randint(0, length, (3, 4))
    y, found = s4d_scan(x, discretise(*parameters), hidden, reset, wanted, chunk)
    want_y, every = s4d_recurrence(x, discretise(*parameters), hidden, reset)
    want_found = S4DState(*(part[torch.arange(3)[:, None], wanted] for part in every))
    assert_near((y, found), (want_y, want_found), 1e-10)
    got, want = (
        torch.autograd.grad(a.sin().sum() + b.real.cos().sum() + b.imag.sin().sum(), (x, *parameters, *hidden))
        for a, b in ((y, found), (want_y, want_found))
    )
    assert_near(got, want, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 150])
@pytest.mark.parametrize("spectrum", ["lin", "inv"])
def test_layer_scan_equals_steps_with_gradients(length: int, dtype: torch.dtype, spectrum: str) -> None:
    torch.manual_seed(length)
    layer = S4D(12, d_state=16, spectrum=spectrum).to(dtype)  # type: ignore[arg-type]
    x = torch.randn(3, length, 12, dtype=dtype, requires_grad=True)
    reset, start = random_reset(3, length, 0.15, dtype), warm_state(layer, 3)
    got, want = layer.scan(x, start, reset), steps(layer, x, start, reset)
    assert_near(got, want, TOLERANCE[dtype])
    leaves = (x, start.real, start.imag, *layer.parameters())
    grads = [
        torch.autograd.grad(y.square().mean() + h.real.square().mean(), leaves, retain_graph=True)
        for y, h in (got, want)
    ]
    assert_near(*grads, TOLERANCE[dtype])


@settings(max_examples=30, deadline=None)
@given(
    real=st.sampled_from([0.0, -1e-9, -1e-3, -0.5, -40.0]),
    imag=st.sampled_from([0.0, 1e-6, 1e-2, 3.0, 300.0]),
    dt=st.sampled_from([1e-6, 1e-3, 0.1, 100.0]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_zero_order_hold_equals_complex_arithmetic(real: float, imag: float, dt: float, dtype: torch.dtype) -> None:
    a, one = torch.tensor([[real]], dtype=dtype), torch.ones(1, 1, dtype=dtype)
    step = torch.tensor([dt], dtype=dtype)
    system = discretise(a, imag * one, step, one, one)
    z = (step.double() * complex(float(a), float(imag * one))).item()
    # The series, in complex numbers, where the quotient cancels.
    phi = (np.exp(z) - 1) / z if abs(z) > 0.5 else sum(z**k / math.factorial(k + 1) for k in range(25))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}[dtype] * (1 + abs(z) if dtype == torch.float32 else 1)
    drive = complex(float(system.drive_real), float(system.drive_imag)) / float(step)
    decay = complex(float(system.decay_real), float(system.decay_imag))
    assert abs(drive - phi) <= tolerance * abs(phi) + tolerance * math.exp(z.real)
    assert abs(decay - np.exp(z)) <= tolerance


def test_zero_order_hold_is_exact_between_samples_and_has_the_right_gradient() -> None:
    """Two half steps of a constant input are one whole step; the gradient is smooth where the series takes over."""
    real, imag, dt, c_real, c_imag = (t.detach() for t in random_system(3, 2))
    whole = discretise(real, imag, dt, c_real, c_imag)
    half = discretise(real, imag, dt / 2, c_real, c_imag)
    decay, drive = (torch.complex(half[i], half[i + 1]) for i in (0, 2))
    assert_near(torch.view_as_real(decay * drive + drive), torch.stack(whole[2:4], -1), 1e-12)
    scales = torch.tensor([0.5, 0.9, 1.1, 2.0], dtype=F64)[:, None] * torch.finfo(F64).eps ** 0.25
    real, imag = (-0.6 * scales).requires_grad_(), (0.8 * scales).requires_grad_()
    one = torch.ones_like(real)
    system = discretise(real, imag, one[:, 0], one, one)
    by_real, by_imag = torch.autograd.grad(system.drive_real.sum(), (real, imag))
    assert_near(by_real, 0.5 + real.detach() / 3, 1e-7)  # phi' = 1/2 + z/3 + ...
    assert_near(by_imag, -imag.detach() / 3, 1e-7)


def test_carry_scanning_in_two_pieces_equals_one() -> None:
    torch.manual_seed(0)
    layer = S4D(8, d_state=8).double()
    x, reset = torch.randn(2, 45, 8, dtype=F64), torch.zeros(2, 45, dtype=F64)
    reset[0, 9] = 1
    start = warm_state(layer, 2)
    whole, final = layer.scan(x, start, reset)
    for k in (1, 8, 9, 10, 32, 44):
        first, middle = layer.scan(x[:, :k], start, reset[:, :k])
        second, end = layer.scan(x[:, k:], middle, reset[:, k:])
        assert_near((torch.cat([first, second], 1), end), (whole, final), 1e-10)


@pytest.mark.parametrize("at", [0, 1, 7, 32])
def test_reset_makes_the_future_independent_of_the_past(at: int) -> None:
    torch.manual_seed(1)
    layer = S4D(8, d_state=8).double()
    x, start = torch.randn(1, 40, 8, dtype=F64), warm_state(layer, 1)
    reset = torch.zeros(1, 40, dtype=F64)
    reset[:, at] = 1
    fresh, _ = layer.scan(x[:, at:], layer.initial_state(1))
    assert_near(layer.scan(x, start, reset)[0][:, at:], fresh, 1e-12)
    assert_near(steps(layer, x, start, reset)[0][:, at:], fresh, 1e-12)
    assert float((layer.scan(x, start)[0][:, at:] - fresh).detach().abs().max()) > 1e-4
    huge = torch.cat([1e12 * x[:, :at], x[:, at:]], dim=1)  # what was dropped leaves no rounding error behind
    assert_near(layer.scan(huge, start, reset)[0][:, at:], fresh, 1e-12)


def test_states_at_wanted_steps_are_those_of_shorter_scans() -> None:
    torch.manual_seed(2)
    layer = S4D(8, d_state=8).double()
    x, reset, start = torch.randn(2, 40, 8, dtype=F64), random_reset(2, 40, 0.2), warm_state(layer, 2)
    wanted = torch.tensor([[0, 31, 32], [1, 39, 39]])
    states = layer.scan(x, start, reset, wanted)[1]
    for row in range(2):
        for column in range(3):
            t = int(wanted[row, column]) + 1
            want = layer.scan(x[:, :t], start, reset[:, :t])[1]
            assert_near([s[row * 3 + column] for s in states], [s[row] for s in want], 1e-12)


def test_constant_input_gives_a_geometric_series() -> None:
    length = 80
    decay, drive, out = 0.9 * np.exp(0.3j), 0.4 - 0.2j, 1.5 + 0.5j
    system = S4DSystem(*(torch.full((1, 1), v, dtype=F64) for z in (decay, drive, out) for v in (z.real, z.imag)))
    zero = S4DState(*(torch.zeros(1, 1, 1, dtype=F64) for _ in range(2)))
    y, _ = s4d_scan(torch.full((1, length, 1), 3.0, dtype=F64), system, zero, torch.zeros(1, length, dtype=F64))
    want = 2 * (out * drive * 3 * (1 - decay ** np.arange(1, length + 1)) / (1 - decay)).real
    assert_near(y.flatten(), torch.from_numpy(want), 1e-12)


@pytest.mark.parametrize("chunk", [1, 3])
def test_gradients_by_finite_differences(chunk: int) -> None:
    torch.manual_seed(3)
    parameters, hidden = random_system(2, 2), random_hidden(2, 2, 2)
    x = torch.randn(2, 4, 2, dtype=F64, requires_grad=True)
    reset = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]], dtype=F64)

    def run(*leaves: Tensor) -> tuple[Tensor, ...]:
        wanted = torch.tensor([[3, 1], [0, 0]])
        y, found = s4d_scan(leaves[0], discretise(*leaves[1:6]), S4DState(*leaves[6:]), reset, wanted, chunk)
        return y, *found

    assert torch.autograd.gradcheck(run, (x, *parameters, *hidden))


def test_arguments_are_left_unchanged() -> None:
    torch.manual_seed(4)
    system, hidden = discretise(*random_system(4, 3)), random_hidden(2, 4, 3)
    x, reset = torch.randn(2, 40, 4, dtype=F64), random_reset(2, 40, 0.3)
    before = [t.clone() for t in (x, *system, *hidden, reset)]
    s4d_scan(x, system, hidden, reset)
    s4d_recurrence(x, system, hidden, reset)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, *system, *hidden, reset), strict=True))


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
    b, d, m = 2, 3, 2
    leaves = [size * torch.randn(b, length, d), torch.full((d, m), rate), torch.tensor([[0.0, 50.0]]).repeat(d, 1)]
    leaves += [torch.full((d,), dt), torch.randn(d, m), torch.randn(d, m), torch.randn(b, d, m), torch.randn(b, d, m)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    system, hidden = discretise(*leaves[1:6]), S4DState(*leaves[6:])
    y, found = s4d_scan(leaves[0], system, hidden, random_reset(b, length, density).float())
    grads = torch.autograd.grad((y / size).mean() + (found.real / size).mean() + found.imag.mean(), leaves)
    assert all(bool(torch.isfinite(t).all()) for t in (y, *found, *grads))


def test_initial_spectrum_is_the_papers() -> None:
    n = torch.arange(4.0)
    for spectrum, want in (("lin", math.pi * n), ("inv", 8 / math.pi * (8 / (2 * n + 1) - 1))):
        kernel = S4D(3, d_state=8, spectrum=spectrum).kernel  # type: ignore[arg-type]
        assert_near(kernel.A_imag, want.repeat(3, 1), 1e-6)
        assert_near(-torch.exp(kernel.log_A_real), torch.full((3, 4), -0.5), 1e-6)
        assert bool(((kernel.log_dt >= math.log(1e-3)) & (kernel.log_dt <= math.log(0.1))).all())


def public_parameters(d: int, n: int) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the public module's."""
    return {
        "D": torch.randn(d, dtype=F64),
        "kernel.C": torch.randn(d, n // 2, 2, dtype=F64),
        "kernel.log_dt": -2 + torch.randn(d, dtype=F64),
        "kernel.log_A_real": -0.7 + 0.1 * torch.randn(d, n // 2, dtype=F64),
        "kernel.A_imag": math.pi * torch.arange(n // 2, dtype=F64).repeat(d, 1),
        "output_linear.0.weight": 0.3 * torch.randn(2 * d, d, 1, dtype=F64),
        "output_linear.0.bias": 0.3 * torch.randn(2 * d, dtype=F64),
    }


def public_function(parameters: dict[str, Tensor], x: np.ndarray) -> np.ndarray:
    """The public module's function on one sequence (T, D): the kernel in complex numbers, and sums, in numpy."""
    p = {name: tensor.numpy() for name, tensor in parameters.items()}
    a = -np.exp(p["kernel.log_A_real"]) + 1j * p["kernel.A_imag"]
    dt = np.exp(p["kernel.log_dt"])[:, None]
    c = (p["kernel.C"][..., 0] + 1j * p["kernel.C"][..., 1]) * (np.exp(dt * a) - 1) / a
    kernel = np.stack([2 * (c * np.exp(dt * a * t)).sum(1).real for t in range(len(x))])  # (T, D)
    y = np.stack([sum(kernel[t - s] * x[s] for s in range(t + 1)) + p["D"] * x[t] for t in range(len(x))])
    active = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(y)
    value, gate = np.split(active @ p["output_linear.0.weight"][..., 0].T + p["output_linear.0.bias"], 2, axis=1)
    return value / (1 + np.exp(-gate))


def test_public_weights_load_and_compute_the_public_function() -> None:
    torch.manual_seed(7)
    layer = S4D(6, d_state=8).double()
    public = public_parameters(6, 8)
    load_public(layer, {f"s4d.{name}": tensor for name, tensor in public.items()}, "s4d.")
    x = torch.randn(2, 40, 6, dtype=F64)
    want = torch.stack([torch.from_numpy(public_function(public, row.numpy())) for row in x])
    assert_near(layer.scan(x, layer.initial_state(2))[0], want, 1e-10)
    assert_near(steps(layer, x, layer.initial_state(2), torch.zeros(2, 40))[0], want, 1e-10)
    with pytest.raises(CheckpointError, match=r"kernel\.C: expected \(6, 4, 2\), got \(6, 4\)"):
        load_public(layer, {**public, "kernel.C": torch.zeros(6, 4)})
    public.pop("D")
    with pytest.raises(CheckpointError, match="got no D"):
        load_public(layer, public)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_layer_keeps_its_state_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(8)
    layer = S4D(32, d_state=8).to(dtype)
    x, reset = torch.randn(2, 9, 32).to(dtype), random_reset(2, 9, 0.2).float()
    got, state = layer.scan(x, layer.initial_state(2), reset)
    by_step, last = steps(layer, x, layer.initial_state(2), reset)
    want, exact = layer.float().scan(x.float(), layer.initial_state(2), reset)  # the same, rounded, weights
    assert {got.dtype, by_step.dtype} == {dtype}
    assert {s.dtype for s in (*state, *last)} == {torch.float32}
    assert_near((state, last), (exact, exact), 1e-4)
    assert_near((got.float(), by_step.float()), (want, want), 0.02)


def test_autocast_keeps_state_and_recurrence_in_float32() -> None:
    torch.manual_seed(9)
    layer = S4D(32, d_state=8)
    x = torch.randn(2, 40, 32)
    want, exact = layer.scan(x, layer.initial_state(2))
    with torch.autocast("cpu", torch.bfloat16):
        got, state = layer.scan(x, layer.initial_state(2))
        by_step, last = steps(layer, x, layer.initial_state(2), torch.zeros(2, 40))
    assert got.dtype == by_step.dtype == torch.bfloat16
    assert {s.dtype for s in (*state, *last)} == {torch.float32}
    assert_near((state, last), (exact, exact), 1e-4)
    assert_near((got.float(), by_step.float()), (want, want), 0.02)
    got.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


def test_step_runs_in_onnxruntime_with_another_batch(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    torch.manual_seed(10)
    layer = S4D(16, d_state=8)
    batch = torch.export.Dim("batch", min=1, max=64)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, real: Tensor, imag: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y, state = self.layer.step(x, S4DState(real, imag), reset)
            return y, *state

    path = tmp_path / "step.onnx"
    names = ["x", "real", "imag", "reset"]
    torch.onnx.export(
        Step().eval(),
        (torch.randn(2, 16), *layer.initial_state(2), torch.zeros(2)),
        path,
        dynamo=True,
        opset_version=20,
        input_names=names,
        output_names=["y", "next_real", "next_imag"],
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
        ({"d_state": 7}, "d_state"),
        ({"dt_min": 0.0}, "dt_min"),
        ({"dt_max": 1e-4}, "dt_min, dt_max"),
        ({"spectrum": "legs"}, "spectrum"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}.*expected.*got"):
            S4D(**{"d_model": 16, **arguments})  # type: ignore[arg-type]
    layer = S4D(16, d_state=8)
    with pytest.raises(ShapeError, match=r"reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(torch.zeros(2, 5, 16), layer.initial_state(2), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"state\.real: expected batch 2"):
        layer.step(torch.zeros(2, 16), layer.initial_state(3))
    with pytest.raises(ShapeError, match=r"x: expected a floating tensor"):
        layer.step(torch.zeros(2, 16, dtype=torch.int64), layer.initial_state(2))
