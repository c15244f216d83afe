"""The SSD recurrence: the parallel form against the loop and a plain oracle, with groups, ranks, resets, extremes."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robonav.ssm.recurrences.ssd import Backend, SSDInput, ssd_recurrence, ssd_scan, ssd_step

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
HEADS, P, N = 4, 3, 5
LOOP = pytest.param("loop", marks=pytest.mark.skipif(find_spec("numba") is None, reason="needs numba"))
FORMS = pytest.mark.parametrize("backend", ["chunks", LOOP])


def assert_near(got: Any, want: Any, tolerance: float) -> None:
    """Relative to the largest expected entry, or to 1 where all are smaller."""
    if isinstance(got, tuple):
        for a, b in zip(got, want, strict=True):
            assert_near(a, b, tolerance)
        return
    assert got.shape == want.shape
    got, want = got.detach(), want.detach()
    assert torch.isfinite(got).all()
    assert float((got - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


def random_inputs(
    length: int, batch: int = 2, groups: int = 2, rank: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[SSDInput, Tensor]:
    inputs = SSDInput(
        torch.randn(batch, length, rank, groups, N, dtype=dtype),
        torch.randn(batch, length, rank, groups, N, dtype=dtype),
        torch.randn(batch, length, rank, HEADS, P, dtype=dtype),
        -3 * torch.rand(batch, length, HEADS, dtype=dtype) ** 4,
    )
    return inputs, torch.randn(batch, HEADS, P, N, dtype=dtype)


def random_reset(length: int, density: float, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(batch, length) < density).to(dtype)


def leaves(inputs: SSDInput, hidden: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in (*inputs, hidden)]


@pytest.mark.parametrize(("groups", "rank"), [(1, 1), (2, 1), (4, 3)])
def test_recurrence_is_the_written_formula(groups: int, rank: int) -> None:
    torch.manual_seed(0)
    inputs, start = random_inputs(6, groups=groups, rank=rank)
    reset = torch.tensor([[0.0, 0, 1, 0, 0, 0], [1.0, 0, 0, 0, 1, 1]], dtype=torch.float64)
    y, hiddens = ssd_recurrence(inputs, start, reset)
    query, key, value, log_decay = (x.numpy() for x in inputs)
    for b in range(2):
        for head in range(HEADS):
            group = head * groups // HEADS
            state = start[b, head].numpy()
            for t in range(6):
                state = state * (0.0 if reset[b, t] else math.exp(log_decay[b, t, head]))
                for r in range(rank):
                    state = state + value[b, t, r, head][:, None] * key[b, t, r, group][None]
                assert_near(hiddens[b, t, head], torch.tensor(state), 1e-12)
                for r in range(rank):
                    assert_near(y[b, t, r, head], torch.tensor(state @ query[b, t, r, group]), 1e-12)


@FORMS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 150])
@pytest.mark.parametrize(("groups", "rank"), [(1, 1), (2, 1), (4, 2)])
def test_scan_equals_recurrence_for_outputs_and_every_state(
    backend: Backend, length: int, groups: int, rank: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(length)
    inputs, start = random_inputs(length, groups=groups, rank=rank, dtype=dtype)
    reset = random_reset(length, 0.1, dtype=dtype)
    want = ssd_recurrence(inputs, start, reset)
    assert_near(
        ssd_scan(inputs, start, reset, torch.arange(length).expand(2, -1), backend=backend), want, TOLERANCE[dtype]
    )


@FORMS
@settings(max_examples=20)
@given(
    length=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    chunk=st.sampled_from([1, 2, 7, 16, 64]),
    rank=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_scan_equals_recurrence_for_any_length_and_chunk(
    backend: Backend, length: int, density: float, chunk: int, rank: int, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs, start = random_inputs(length, rank=rank)
    reset = random_reset(length, density)
    want_y, want_h = ssd_recurrence(inputs, start, reset)
    wanted = torch.randint(0, length, (2, 3))
    want = (want_y, want_h[torch.arange(2)[:, None], wanted])
    assert_near(ssd_scan(inputs, start, reset, wanted, chunk, backend=backend), want, 1e-10)


@pytest.mark.parametrize("chunk", [1, 5, 64, 69, 70, 1000])
def test_chunk_length_changes_nothing(chunk: int) -> None:
    torch.manual_seed(1)
    inputs, start = random_inputs(70, rank=2)
    reset = random_reset(70, 0.05)
    wanted = torch.tensor([[69, 0, 63, 64], [4, 5, 4, 68]])
    assert_near(ssd_scan(inputs, start, reset, wanted, chunk, "chunks"), ssd_scan(inputs, start, reset, wanted), 1e-10)


@FORMS
def test_last_state_is_the_default(backend: Backend) -> None:
    torch.manual_seed(2)
    inputs, start = random_inputs(70)
    reset = random_reset(70, 0.05)
    wanted = torch.full((2, 1), 69)
    assert_near(
        ssd_scan(inputs, start, reset, backend=backend), ssd_scan(inputs, start, reset, wanted, backend=backend), 1e-12
    )


@FORMS
def test_two_pieces_equal_one(backend: Backend) -> None:
    torch.manual_seed(3)
    inputs, start = random_inputs(17, rank=2)
    reset = random_reset(17, 0.1)
    want_y, want_h = ssd_scan(inputs, start, reset, backend=backend)
    for cut in (1, 8, 16):
        first, middle = ssd_scan(SSDInput(*(x[:, :cut] for x in inputs)), start, reset[:, :cut], backend=backend)
        second, end = ssd_scan(SSDInput(*(x[:, cut:] for x in inputs)), middle[:, 0], reset[:, cut:], backend=backend)
        assert_near((torch.cat([first, second], 1), end), (want_y, want_h), 1e-10)


@FORMS
@pytest.mark.parametrize("when", [0, 1, 40, 64])
def test_reset_drops_everything_before_it(backend: Backend, when: int) -> None:
    torch.manual_seed(4)
    inputs, start = random_inputs(70)
    reset = torch.zeros(2, 70, dtype=torch.float64)
    reset[:, when] = 1
    y, end = ssd_scan(inputs, start, reset, backend=backend)
    later = SSDInput(*(x[:, when:] for x in inputs))
    want = ssd_scan(later, torch.zeros_like(start), torch.zeros(2, 70 - when, dtype=torch.float64), backend=backend)
    assert_near((y[:, when:], end), want, 1e-12)


@FORMS
def test_all_resets_leave_each_step_alone(backend: Backend) -> None:
    torch.manual_seed(5)
    inputs, start = random_inputs(70, groups=4)
    y, end = ssd_scan(inputs, start, torch.ones(2, 70, dtype=torch.float64), backend=backend)
    want = (inputs.query * inputs.key).sum(-1, keepdim=True) * inputs.value
    assert_near(y, want, 1e-12)
    assert_near(end[:, 0], inputs.value[:, -1, 0, ..., None] * inputs.key[:, -1, 0, :, None], 1e-12)


@FORMS
def test_constant_input_gives_the_geometric_series(backend: Backend) -> None:
    length, alpha = 300, 0.97
    one = torch.ones(1, length, 1, 1, 1, dtype=torch.float64)
    inputs = SSDInput(one, one, one, torch.full((1, length, 1), math.log(alpha), dtype=torch.float64))
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    y, _ = ssd_scan(inputs, zero, torch.zeros(1, length, dtype=torch.float64), backend=backend)
    want = (1 - alpha ** torch.arange(1, length + 1, dtype=torch.float64)) / (1 - alpha)
    assert_near(y.flatten(), want, 1e-12)


@FORMS
@pytest.mark.parametrize("chunk", [3, 64])
def test_gradients_by_finite_differences(backend: Backend, chunk: int) -> None:
    torch.manual_seed(6)
    inputs, start = random_inputs(4, batch=1, rank=2)
    reset = torch.tensor([[0.0, 0, 1, 0]], dtype=torch.float64)
    wanted = torch.tensor([[1, 3]])

    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return ssd_scan(SSDInput(*tensors[:4]), tensors[4], reset, wanted, chunk, backend=backend)

    assert torch.autograd.gradcheck(run, leaves(inputs, start), fast_mode=True)


@FORMS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("groups", "rank"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("density", [0.0, 0.1])
def test_gradients_equal_those_of_the_recurrence(
    backend: Backend, groups: int, rank: int, density: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(7)
    inputs, start = random_inputs(75, groups=groups, rank=rank, dtype=dtype)
    reset = random_reset(75, density, dtype=dtype)
    wanted = torch.tensor([[74, 0, 33], [64, 63, 5]])
    rows = torch.arange(2)[:, None]
    toward_y, toward_h = torch.randn(2, 75, rank, HEADS, P, dtype=dtype), torch.randn(2, 3, HEADS, P, N, dtype=dtype)
    results = []
    for parallel in (True, False):
        own = leaves(inputs, start)
        if parallel:
            y, h = ssd_scan(SSDInput(*own[:4]), own[4], reset, wanted, backend=backend)
        else:
            y, every = ssd_recurrence(SSDInput(*own[:4]), own[4], reset)
            h = every[rows, wanted]
        results.append(torch.autograd.grad((y * toward_y).sum() + (h * toward_h).sum(), own))
    assert_near(*results, TOLERANCE[dtype])


@FORMS
@pytest.mark.parametrize("log_decay", [0.0, -1e-6, -30.0, -1600.0])
@pytest.mark.parametrize(("length", "density"), [(1, 0.0), (1, 1.0), (65, 0.0), (65, 1.0), (4096, 0.01)])
def test_extremes_are_finite_and_equal_the_loop(
    backend: Backend, length: int, density: float, log_decay: float
) -> None:
    torch.manual_seed(8)
    inputs, start = random_inputs(length, batch=1, dtype=torch.float32)
    inputs = inputs._replace(log_decay=torch.full_like(inputs.log_decay, log_decay))
    own = leaves(inputs, start)
    reset = random_reset(length, density, batch=1, dtype=torch.float32)
    y, h = ssd_scan(SSDInput(*own[:4]), own[4], reset, backend=backend)
    for grad in torch.autograd.grad(y.square().mean() + h.square().mean(), own):
        assert torch.isfinite(grad).all()
    if length <= 65:
        want_y, want_h = ssd_recurrence(inputs, start, reset)
        assert_near((y, h[:, 0]), (want_y, want_h[:, -1]), 1e-4)


@FORMS
def test_float32_keeps_its_digits_over_4096_steps(backend: Backend) -> None:
    torch.manual_seed(9)
    inputs, start = random_inputs(4096, batch=1)
    inputs = inputs._replace(log_decay=-1e-3 * torch.rand_like(inputs.log_decay))
    reset = torch.zeros(1, 4096, dtype=torch.float64)
    want = ssd_scan(inputs, start, reset, chunk=256, backend=backend)
    single = SSDInput(*(x.float() for x in inputs))
    y, h = ssd_scan(single, start.float(), reset.float(), backend=backend)
    assert_near((y.double(), h.double()), want, 1e-4)


@FORMS
def test_float32_keeps_its_digits_after_strong_decays(backend: Backend) -> None:
    """A cumulative decay of hundreds must not blur the differences between later steps."""
    torch.manual_seed(10)
    inputs, start = random_inputs(64)
    log_decay = torch.full_like(inputs.log_decay, -1e-3)
    log_decay[:, 1:33] = -40.0
    inputs = inputs._replace(log_decay=log_decay)
    reset = torch.zeros(2, 64, dtype=torch.float64)
    want_y, want_h = ssd_recurrence(inputs, start, reset)
    y, h = ssd_scan(SSDInput(*(x.float() for x in inputs)), start.float(), reset.float(), backend=backend)
    assert_near((y.double(), h[:, 0].double()), (want_y, want_h[:, -1]), 1e-4)


@FORMS
@settings(max_examples=20)
@given(
    exponent=st.floats(-6, 2),
    spread=st.floats(0, 4),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    length=st.sampled_from([1, 2, 63, 65]),
    seed=st.integers(0, 999),
)
def test_step_sizes_from_1e_6_to_1e2(
    backend: Backend, exponent: float, spread: float, density: float, length: int, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs, start = random_inputs(length, dtype=torch.float32)
    dt = torch.clamp(10 ** (exponent + spread * torch.randn(2, length, HEADS)), 1e-6, 1e2)
    inputs = inputs._replace(log_decay=-16 * dt, value=inputs.value * dt[:, :, None, :, None])
    reset = random_reset(length, density, dtype=torch.float32)
    own = leaves(inputs, start)
    y, h = ssd_scan(SSDInput(*own[:4]), own[4], reset, backend=backend)
    want_y, want_h = ssd_recurrence(inputs, start, reset)
    assert_near((y, h[:, 0]), (want_y, want_h[:, -1]), 1e-4)
    for grad in torch.autograd.grad(y.square().mean() + h.square().mean(), own):
        assert torch.isfinite(grad).all()


@FORMS
def test_arguments_are_left_unchanged_and_steps_repeat(backend: Backend) -> None:
    torch.manual_seed(11)
    inputs, start = random_inputs(70, rank=2)
    reset, wanted = random_reset(70, 0.2), torch.tensor([[3], [69]])
    before = [t.clone() for t in (*inputs, start, reset, wanted)]
    ssd_scan(inputs, start, reset, wanted, 16, backend=backend)
    first, second = (ssd_step(start, SSDInput(*(x[:, 0] for x in inputs)), reset[:, 0]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, (*inputs, start, reset, wanted), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@FORMS
def test_inputs_of_any_memory_layout(backend: Backend) -> None:
    """Projections are split into views, so inputs are not contiguous."""
    torch.manual_seed(12)
    inputs, start = random_inputs(20, rank=2)
    views = SSDInput(*(x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs))
    reset = random_reset(20, 0.1)
    assert_near(
        ssd_scan(views, start.mT.contiguous().mT, reset, backend=backend),
        ssd_scan(inputs, start, reset, backend=backend),
        1e-12,
    )
