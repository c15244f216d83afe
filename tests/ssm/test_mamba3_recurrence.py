"""Mamba-3's recurrence: parallel forms against the literal step, closed forms, gradients, extremes, rotation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robonav.ssm.recurrences.mamba3 import (
    Mamba3Carry,
    Mamba3Input,
    mamba3_recurrence,
    mamba3_scan,
    mamba3_step,
)
from robonav.ssm.recurrences.rotation import from_complex, rotate, rotors, to_complex, wrap_phase
from robonav.ssm.recurrences.ssd import Backend, SSDInput, ssd_recurrence

F64 = torch.float64
BACKENDS: tuple[Backend, ...] = ("loop", "chunks")


def random_case(
    batch: int, length: int, rank: int = 1, heads: int = 2, p: int = 4, n: int = 6, dtype: torch.dtype = F64
) -> tuple[Mamba3Carry, Mamba3Input, Tensor]:
    """Carry, inputs, and skip."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, dtype=dtype)

    dt, lam, rate = (torch.rand(batch, length, heads, dtype=dtype) for _ in range(3))
    query, key = normal(length, rank, heads, n), normal(length, rank, heads, n)
    inputs = Mamba3Input(query, key, normal(length, rank, heads, p), -dt * rate, lam * dt, (1 - lam) * dt)
    carry = Mamba3Carry(normal(heads, p, n), normal(rank, heads, n), normal(rank, heads, p))
    return carry, inputs, torch.randn(heads, dtype=dtype)


def assert_near(got: Tensor, want: Tensor, tolerance: float) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= tolerance * (1 + float(want.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25, deadline=None)
@given(
    length=st.sampled_from([1, 2, 3, 17, 64, 70]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    rank=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 999),
)
def test_scan_equals_recurrence_for_outputs_and_every_state(
    backend: Backend, length: int, density: float, rank: int, seed: int
) -> None:
    torch.manual_seed(seed)
    carry, inputs, skip = random_case(3, length, rank)
    reset = (torch.rand(3, length) < density).to(F64)
    want_y, want_h = mamba3_recurrence(carry, inputs, skip, reset)
    y, h = mamba3_scan(carry, inputs, skip, reset, torch.arange(length).expand(3, -1), 16, backend)
    assert_near(y, want_y, 1e-10)
    assert_near(h, want_h, 1e-10)
    y, h = mamba3_scan(carry, inputs, skip, reset, None, 64, backend)
    assert_near(y, want_y, 1e-10)
    assert_near(h, want_h[:, -1:], 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("length", [1, 40])
def test_gradients_equal_those_of_the_recurrence(length: int, rank: int, backend: Backend) -> None:
    torch.manual_seed(length + rank)
    carry, inputs, skip = random_case(2, length, rank)
    leaves = [x.requires_grad_() for x in (*carry, *inputs, skip)]
    reset = (torch.rand(2, length) < 0.1).to(F64)
    wanted = torch.randint(length, (2, 3))
    want_y, every = mamba3_recurrence(carry, inputs, skip, reset)
    want_h = every[torch.arange(2)[:, None], wanted]
    y, h = mamba3_scan(carry, inputs, skip, reset, wanted, 16, backend)
    weight_y, weight_h = torch.randn_like(y), torch.randn_like(h)
    got = torch.autograd.grad((y * weight_y).sum() + (h * weight_h).sum(), leaves)
    want = torch.autograd.grad((want_y * weight_y).sum() + (want_h * weight_h).sum(), leaves)
    for g, w in zip(got, want, strict=True):
        assert_near(g, w, 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rank", [1, 2])
def test_gradcheck(rank: int, backend: Backend) -> None:
    torch.manual_seed(3)
    carry, inputs, skip = random_case(1, 4, rank, heads=1, p=2, n=2)
    reset = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=F64)

    def run(*x: Tensor) -> tuple[Tensor, Tensor]:
        return mamba3_scan(Mamba3Carry(*x[:3]), Mamba3Input(*x[3:9]), x[9], reset, torch.tensor([[1, 3]]), 3, backend)

    assert torch.autograd.gradcheck(run, tuple(x.requires_grad_() for x in (*carry, *inputs, skip)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_is_near_float64(backend: Backend) -> None:
    torch.manual_seed(4)
    carry, inputs, skip = random_case(2, 64, 2)
    reset = (torch.rand(2, 64) < 0.1).to(F64)
    want, _ = mamba3_recurrence(carry, inputs, skip, reset)
    narrow = [type(x)(*(part.float() for part in x)) for x in (carry, inputs)]
    y, _ = mamba3_scan(*narrow, skip.float(), reset.float(), backend=backend)
    assert y.dtype == torch.float32
    assert_near(y.double(), want, 1e-4)


def test_a_step_is_the_trapezoidal_rule() -> None:
    """h = alpha h + beta v_{-1} k_{-1}^T + gamma v k^T, y = h q + D v, element by element."""
    torch.manual_seed(5)
    carry, inputs, skip = random_case(2, 1, rank=2)
    query, key, value, log_decay, here, before = (x[:, 0] for x in inputs)
    y, hidden = mamba3_step(
        carry, Mamba3Input(query, key, value, log_decay, here, before), skip, torch.tensor([0.0, 1])
    )
    for b in range(2):
        for h in range(2):
            alpha = math.exp(log_decay[b, h]) * (b == 0)
            want = alpha * carry.hidden[b, h]
            for r in range(2):
                want = want + before[b, h] * alpha * torch.outer(carry.value[b, r, h], carry.key[b, r, h])
                want = want + here[b, h] * torch.outer(value[b, r, h], key[b, r, h])
            assert_near(hidden[b, h], want, 1e-12)
            for r in range(2):
                assert_near(y[b, r, h], want @ query[b, r, h] + skip[h] * value[b, r, h], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lambda_one_is_mamba_2(backend: Backend) -> None:
    torch.manual_seed(6)
    carry, inputs, skip = random_case(2, 20, rank=2)
    inputs = inputs._replace(before=torch.zeros_like(inputs.before))
    reset = torch.zeros(2, 20, dtype=F64)
    y, hidden = mamba3_scan(carry, inputs, 0 * skip, reset, backend=backend)
    ssd = SSDInput(inputs.query, inputs.key, inputs.here[:, :, None, :, None] * inputs.value, inputs.log_decay)
    want_y, want_hidden = ssd_recurrence(ssd, carry.hidden, reset)
    assert_near(y, want_y, 1e-12)
    assert_near(hidden, want_hidden[:, -1:], 1e-12)


def ones_case(length: int, alpha: float, here: float, before: float) -> tuple[Mamba3Carry, Mamba3Input, Tensor]:
    one = torch.ones(1, length, 1, 1, 1, dtype=F64)
    decay, now, past = (torch.full((1, length, 1), x, dtype=F64) for x in (math.log(alpha), here, before))
    zero = torch.zeros(1, 1, 1, 1, dtype=F64)
    return Mamba3Carry(zero, zero, zero), Mamba3Input(one, one, one, decay, now, past), torch.zeros(1, dtype=F64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_input_gives_the_geometric_series(backend: Backend) -> None:
    length, alpha, here, before = 30, 0.9, 0.25, 0.1
    carry, inputs, skip = ones_case(length, alpha, here, before)
    y, _ = mamba3_scan(carry, inputs, skip, torch.zeros(1, length, dtype=F64), backend=backend)
    t = torch.arange(length, dtype=F64)
    gain = here + before * alpha  # of every input but the first, which has no input before it
    want = here * alpha**t + gain * (1 - alpha**t) / (1 - alpha)
    assert_near(y.flatten(), want, 1e-12)


def test_lambda_one_half_integrates_to_second_order() -> None:
    """h' = -h + cos t from 0: the error falls by 4 where the step is halved, by 2 under the exponential Euler rule."""
    end, exact = 4.0, (math.cos(4) + math.sin(4) - math.exp(-4)) / 2
    errors: dict[float, list[float]] = {0.5: [], 1.0: []}
    for lam, found in errors.items():
        for length in (200, 400):
            dt = end / length
            carry, inputs, skip = ones_case(length, math.exp(-dt), lam * dt, (1 - lam) * dt)
            times = dt * (1 + torch.arange(length, dtype=F64))
            carry = carry._replace(key=torch.ones_like(carry.key), value=torch.ones_like(carry.value))  # cos 0
            inputs = inputs._replace(value=torch.cos(times).view(1, -1, 1, 1, 1))
            y, _ = mamba3_scan(carry, inputs, skip, torch.zeros(1, length, dtype=F64))
            found.append(abs(float(y[0, -1]) - exact))
    assert errors[0.5][0] / errors[0.5][1] == pytest.approx(4, rel=0.05)
    assert errors[1.0][0] / errors[1.0][1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_at_the_first_step_drops_the_carry(backend: Backend) -> None:
    torch.manual_seed(7)
    carry, inputs, skip = random_case(2, 5)
    reset = torch.zeros(2, 5, dtype=F64)
    reset[:, 0] = 1
    nothing = Mamba3Carry(*(torch.zeros_like(x) for x in carry))
    got = mamba3_scan(carry, inputs, skip, reset, backend=backend)
    want = mamba3_scan(nothing, inputs, skip, 0 * reset, backend=backend)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=30, deadline=None)
@given(
    length=st.sampled_from([1, 2, 63, 65, 500, 4096]),
    dt=st.sampled_from([1e-6, 1e-2, 1.0, 1e2]),
    rate=st.sampled_from([0.0, 1e-4, 1.0, 1e4]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    lam=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_extremes_stay_finite_in_value_and_gradient(
    backend: Backend, length: int, dt: float, rate: float, density: float, lam: float, seed: int
) -> None:
    torch.manual_seed(seed)
    carry, inputs, skip = random_case(1, length, heads=1, p=2, n=2, dtype=torch.float32)
    step = torch.full_like(inputs.here, dt)
    inputs = inputs._replace(log_decay=-step * rate, here=lam * step, before=(1 - lam) * step)
    leaves = [x.requires_grad_() for x in (*carry, *inputs, skip)]
    reset = (torch.rand(1, length) < density).float()
    y, h = mamba3_scan(carry, inputs, skip, reset, backend=backend)
    grads = torch.autograd.grad(y.square().mean() + h.mean(), leaves)
    assert all(bool(torch.isfinite(x).all()) for x in (y, h, *grads))


@pytest.mark.parametrize("function", [mamba3_recurrence, mamba3_scan])
def test_arguments_are_left_unchanged_and_results_repeat(
    function: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    torch.manual_seed(8)
    carry, inputs, skip = random_case(2, 9, rank=2)
    reset = (torch.rand(2, 9) < 0.3).to(F64)
    given_tensors = (*carry, *inputs, skip, reset)
    before = [x.clone() for x in given_tensors]
    first, second = (function(carry, inputs, skip, reset) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, given_tensors, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_the_compiler_of_the_loop_the_scan_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(9)
    carry, inputs, skip = random_case(2, 9)
    reset = torch.zeros(2, 9, dtype=F64)
    want, _ = mamba3_scan(carry, inputs, skip, reset)
    monkeypatch.setattr("robonav.ssm.recurrences.ssd._has_numba", lambda: False)
    assert_near(mamba3_scan(carry, inputs, skip, reset)[0], want, 1e-12)


def test_rotation_turns_pairs_of_neighbours_or_of_halves() -> None:
    quarter = torch.tensor([math.pi / 2, 0.0], dtype=F64)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=F64)
    assert_near(rotate(x, quarter), torch.tensor([-2.0, 1.0, 3.0, 4.0, 5.0, 6.0], dtype=F64), 1e-12)
    assert_near(rotate(x, quarter, halves=True), torch.tensor([-4.0, 2.0, 3.0, 1.0, 5.0, 6.0], dtype=F64), 1e-12)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("turned", [0, 1, 4])
def test_rotation_keeps_lengths_and_is_the_complex_product(turned: int, halves: bool) -> None:
    torch.manual_seed(10)
    x, theta = torch.randn(3, 8, dtype=F64), torch.randn(3, turned, dtype=F64)
    y = rotate(x, theta, halves)
    assert_near(y.norm(dim=-1), x.norm(dim=-1), 1e-12)
    assert_near(rotate(y, -theta, halves), x, 1e-12)
    assert_near(from_complex(to_complex(x, halves) * rotors(theta, 4), halves), y, 1e-12)


@given(st.floats(-1e4, 1e4))
def test_wrapping_an_angle_changes_no_rotation(angle: float) -> None:
    theta = torch.tensor([angle], dtype=F64)
    wrapped = wrap_phase(theta)
    assert -math.pi <= float(wrapped) <= math.pi
    x = torch.tensor([0.6, 0.8], dtype=F64)
    assert_near(rotate(x, wrapped), rotate(x, theta), 1e-10)
