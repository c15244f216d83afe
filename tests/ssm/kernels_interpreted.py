"""The kernels under triton's interpreter, on CPU tensors: run by test_kernels.py with TRITON_INTERPRET=1 set.

The variable has to be there before the kernels are decorated, so this is a process of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, ShapeError
from robonav.ssm.kernels import StepForm, StepInput, StepState, StepWeights, fused_step, ssd_scan_cuda, step_torch
from robonav.ssm.kernels.scan import LOG_DECAY_FLOOR
from robonav.ssm.kernels.step import converted
from robonav.ssm.kernels.tables import ScanBlocks
from robonav.ssm.kernels.timing import scan_error, step_error
from robonav.ssm.layers.mamba3 import Mamba3, Mamba3State
from robonav.ssm.recurrences.ssd import LOG_DECAY_FLOOR_FLOAT32, SSDInput, ssd_recurrence, ssd_step

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_kernels.py, which sets TRITON_INTERPRET=1"

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
GUARD, PAD = 777.0, 64


def random_scan(
    length: int,
    rank: int = 1,
    heads: int = 2,
    groups: int = 1,
    p: int = 5,
    n: int = 5,
    resets: float = 0.1,
    batch: int = 1,
) -> tuple[SSDInput, Tensor, Tensor]:
    torch.manual_seed(length + 10 * rank + 100 * n)
    inputs = SSDInput(
        torch.randn(batch, length, rank, groups, n),
        torch.randn(batch, length, rank, groups, n),
        torch.randn(batch, length, rank, heads, p),
        -torch.rand(batch, length, heads),
    )
    return inputs, torch.randn(batch, heads, p, n), (torch.rand(batch, length) < resets).float()


def error(got: Tensor, want: Tensor) -> float:
    if want.numel() == 0:
        return 0.0 if got.shape == want.shape else math.inf
    return float(((got.double() - want).abs().max() / (1 + want.abs().max())).detach())


def compare_scan(
    inputs: SSDInput,
    hidden: Tensor,
    reset: Tensor,
    wanted: Tensor | None = None,
    use: tuple[bool, bool] = (True, True),
    tolerance: float = TOLERANCE[torch.float32],
    **options: Any,
) -> None:
    """Outputs, and gradients of all inputs through y and the states (`use`), against the recurrence in float64."""
    leaves = [x.clone().requires_grad_() for x in (*inputs, hidden)]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    before = [x.detach().clone() for x in leaves]
    got = ssd_scan_cuda(SSDInput(*leaves[:4]), leaves[4], reset, wanted, **options)
    y, hiddens = ssd_recurrence(SSDInput(*exact[:4]), exact[4], reset.double())
    rows = torch.arange(len(reset))[:, None]
    want = y, hiddens[rows, torch.full((len(reset), 1), reset.shape[1] - 1) if wanted is None else wanted]
    for a, b in zip(got, want, strict=True):
        assert error(a, b) < tolerance
    ahead = [torch.randn(b.shape) for b in want]
    kept = [i for i in range(2) if use[i]]
    gradients = torch.autograd.grad([got[i] for i in kept], leaves, [ahead[i].to(got[i].dtype) for i in kept])
    rounded = [ahead[i].to(got[i].dtype).double() for i in kept]
    exact_gradients = torch.autograd.grad([want[i] for i in kept], exact, rounded, allow_unused=True)
    for leaf, a, b in zip(leaves, gradients, exact_gradients, strict=True):
        assert a.dtype == leaf.dtype and bool(a.isfinite().all())
        assert error(a, torch.zeros_like(a) if b is None else b) < tolerance
    dead = (reset[..., None] != 0) | (inputs.log_decay < LOG_DECAY_FLOOR)
    assert not bool(gradients[3][dead].any())
    for x, y in zip(leaves, before, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("length", [1, 2, 17, 64, 65, 150])
def test_scan_and_its_gradients_equal_the_recurrence(length: int) -> None:
    compare_scan(*random_scan(length, batch=2 if length < 64 else 1))


@pytest.mark.parametrize(("heads", "groups", "p", "n"), [(4, 2, 5, 48), (2, 2, 48, 5), (3, 1, 16, 33)])
def test_scan_with_groups_and_odd_sizes(heads: int, groups: int, p: int, n: int) -> None:
    compare_scan(*random_scan(20, heads=heads, groups=groups, p=p, n=n))


@pytest.mark.parametrize(("rank", "length"), [(2, 17), (3, 24), (4, 33)])
def test_scan_of_higher_rank(rank: int, length: int) -> None:
    compare_scan(*random_scan(length, rank=rank, groups=2))


@pytest.mark.parametrize("resets", [0.0, 1.0])
def test_scan_with_no_and_all_resets(resets: float) -> None:
    compare_scan(*random_scan(34, resets=resets))


def test_scan_returns_wanted_states_and_takes_their_gradients() -> None:
    compare_scan(*random_scan(70, heads=1, batch=2), torch.tensor([[0, 31, 69], [5, 32, 31]]))
    compare_scan(*random_scan(6, rank=2), torch.tensor([[5, 0, 5]]))


@pytest.mark.parametrize("use", [(True, False), (False, True)])
def test_scan_where_only_one_output_is_used(use: tuple[bool, bool]) -> None:
    compare_scan(*random_scan(20), use=use)
    compare_scan(*random_scan(40), torch.tensor([[3, 39]]), use=use)


@pytest.mark.parametrize("decay", [0.0, 1e-6, 30.0, 1e4])
def test_scan_with_extreme_decays(decay: float) -> None:
    inputs, hidden, reset = random_scan(33, heads=1)
    compare_scan(inputs._replace(log_decay=decay * inputs.log_decay), hidden, reset)
    mixed = torch.where(torch.rand_like(inputs.log_decay) < 0.3, -decay, 0.0)
    compare_scan(inputs._replace(log_decay=mixed), hidden, reset)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scan_of_half_precision_inputs(dtype: torch.dtype) -> None:
    inputs, hidden, reset = random_scan(40)
    query, key, value, log_decay = inputs
    halves = SSDInput(query.to(dtype), key.to(dtype), value.to(dtype), log_decay)
    compare_scan(halves, hidden, reset, tolerance=TOLERANCE[dtype])
    y, states = ssd_scan_cuda(halves, hidden, reset)
    assert y.dtype == dtype and states.dtype == torch.float32


def test_scan_with_other_blocks_and_of_views() -> None:
    inputs, hidden, reset = random_scan(66, groups=2, p=20, n=20)
    compare_scan(inputs, hidden, reset, blocks=ScanBlocks(64, 64, 16, 16, 4, 1))
    views = SSDInput(*(x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs))
    got = ssd_scan_cuda(views, hidden.transpose(2, 3).contiguous().transpose(2, 3), reset)
    for a, b in zip(got, ssd_scan_cuda(inputs, hidden, reset), strict=True):
        assert torch.equal(a, b)


def test_floor_is_that_of_the_torch_form() -> None:
    assert LOG_DECAY_FLOOR == LOG_DECAY_FLOOR_FLOAT32


def test_scan_refuses_what_does_not_fit() -> None:
    inputs, hidden, reset = random_scan(3)
    with pytest.raises(ShapeError, match=r"hidden: expected \(1, 2, 5, 5\), got \(1, 2, 5, 4\)"):
        ssd_scan_cuda(inputs, hidden[..., :4], reset)
    with pytest.raises(ShapeError, match=r"value: expected .*float64"):
        ssd_scan_cuda(inputs._replace(value=inputs.value.double()), hidden, reset)
    with pytest.raises(ShapeError, match="wanted"):
        ssd_scan_cuda(inputs, hidden, reset, torch.zeros(1, 1))
    with pytest.raises(ConfigError, match="rank: expected at most 16"):
        ssd_scan_cuda(*random_scan(1, rank=17))


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Every tensor made with empty memory lies between two guard regions; they are checked at the end."""
    buffers: list[Tensor] = []

    def guarded(shape: Any, dtype: torch.dtype) -> Tensor:
        size = math.prod(shape)
        buffer = torch.full((size + 2 * PAD,), GUARD, dtype=dtype)
        buffers.append(buffer)
        return buffer[PAD : PAD + size].view(*shape)

    plain = torch.Tensor.new_empty

    def new_empty(like: Tensor, *shape: Any, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        if options:  # the interpreter's own
            return plain(like, *shape, **options)
        return guarded(shape[0] if isinstance(shape[0], tuple) else shape, dtype or like.dtype)

    monkeypatch.setattr(torch, "empty_like", lambda like: guarded(like.shape, like.dtype))
    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    yield buffers
    monkeypatch.undo()
    assert buffers
    for buffer in buffers:
        edges = torch.cat([buffer[:PAD], buffer[-PAD:]])
        assert torch.equal(edges, torch.full_like(edges, GUARD))
        assert not bool((buffer[PAD:-PAD] == GUARD).any()), "an entry was not written"


def walled(x: Tensor) -> Tensor:
    """x between NaNs, so that what is read beside it shows."""
    buffer = torch.full((x.numel() + 2 * PAD,), torch.nan)
    buffer[PAD:-PAD] = x.flatten()
    return buffer[PAD:-PAD].view(x.shape)


@pytest.mark.parametrize(
    ("length", "rank", "groups", "p", "n"), [(3, 1, 1, 5, 5), (35, 1, 2, 48, 3), (23, 3, 1, 5, 17)]
)
def test_scan_touches_nothing_else(guards: list[Tensor], length: int, rank: int, groups: int, p: int, n: int) -> None:
    inputs, hidden, reset = random_scan(length, rank=rank, groups=groups, p=p, n=n)
    leaves = [walled(x).requires_grad_() for x in (*inputs, hidden)]
    y, states = ssd_scan_cuda(SSDInput(*leaves[:4]), leaves[4], walled(reset), torch.tensor([[0, length - 1]]))
    gradients = torch.autograd.grad([y, states], leaves, [walled(torch.ones(x.shape)) for x in (y, states)])
    assert all(bool(x.isfinite().all()) for x in (y, states, *gradients))
    assert len(guards) >= 7


def random_step(
    rank: int = 1, groups: int = 1, p: int = 5, n: int = 6, pairs: int = 2, mimo: bool = False, gated: bool = True
) -> tuple[StepInput, StepWeights, StepState]:
    torch.manual_seed(rank + 10 * n)
    batch, heads, r = 5, 2, torch.randn
    inputs = StepInput(
        r(batch, heads, p), r(batch, rank, groups, n), r(batch, rank, groups, n), r(batch, heads),
        r(batch, heads, p) if gated else None, r(batch, heads), r(batch, heads), r(batch, pairs),
    )  # fmt: skip
    ranks = [r(heads, rank, p) for _ in range(3)] if mimo else []
    biases = r(heads, rank, n), r(heads, rank, n)
    weights = StepWeights(r(heads), r(heads), None, *biases, r(n), r(n), *ranks)
    state = StepState(r(batch, heads, p, n), r(batch, heads, pairs), r(batch, rank, heads, n), r(batch, heads, p))
    return inputs, weights, state


def compare_steps(
    inputs: StepInput, weights: StepWeights, state: StepState, form: StepForm, tolerance: float = 1e-5
) -> None:
    mine, its, before = state, state, [None if x is None else x.clone() for x in (*inputs, *state)]
    for _ in range(3):
        reset = (torch.rand(len(inputs.value)) < 0.3).float()
        y, mine = fused_step(inputs, weights, mine, reset, form, "triton")
        want, its = step_torch(inputs, weights, its, reset, form)
        for a, b in zip((y, *mine), (want, *its), strict=True):
            assert (a is None and b is None) or (a is not None and b is not None and error(a, b) < tolerance)
    for x, was in zip((*inputs, *state), before, strict=True):
        assert x is None or (was is not None and torch.equal(x, was))


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"groups": 2, "p": 48, "n": 33, "pairs": 8},
        {"n": 5, "pairs": 1, "gated": False},
        {"pairs": 0},
        {"mimo": True},
        {"rank": 3, "mimo": True, "groups": 2, "pairs": 3},
        {"rank": 2, "mimo": True, "gated": False},
    ],
    ids=str,
)
def test_step_equals_torch_for_three_steps(sizes: dict[str, Any]) -> None:
    mimo = sizes.get("mimo", False)
    compare_steps(*random_step(**sizes), StepForm(halves=mimo, rational=not mimo))


def test_step_of_half_precision_projections() -> None:
    inputs, weights, state = random_step()
    halves = converted(inputs, torch.Tensor.bfloat16)
    compare_steps(halves, weights, state, StepForm())


@pytest.mark.parametrize("dt", [-14.0, 100.0])
@pytest.mark.parametrize("rate", [-1e6, 0.0, 1e6])
def test_step_at_extremes(dt: float, rate: float) -> None:
    inputs, weights, state = random_step()
    weights = weights._replace(dt_bias=torch.zeros_like(weights.dt_bias))
    extreme = inputs._replace(dt=torch.full_like(inputs.dt, dt), rate=torch.full_like(inputs.dt, rate))
    compare_steps(extreme, weights, state, StepForm(), tolerance=1e-4)


@pytest.mark.parametrize("limits", [(0.0, math.inf), (0.1, 0.5), (0.1, math.inf)])
def test_step_of_mamba2_equals_the_recurrence(limits: tuple[float, float]) -> None:
    inputs, weights, state = random_step(groups=2)
    inputs = inputs._replace(rate=None, trap=None, angle=None)
    weights = StepWeights(weights.dt_bias, torch.randn(2, 5), torch.randn(2))
    assert weights.log_rate is not None and inputs.gate is not None
    carried, hidden = StepState(state.hidden), state.hidden
    for _ in range(3):
        reset = (torch.rand(5) < 0.3).float()
        y, carried = fused_step(inputs, weights, carried, reset, StepForm(dt_limit=limits), "triton")
        dt = F.softplus(inputs.dt + weights.dt_bias).clamp(*limits)
        driven = SSDInput(
            inputs.query, inputs.key, (dt[..., None] * inputs.value)[:, None], -dt * weights.log_rate.exp()
        )
        want, hidden = ssd_step(hidden, driven, reset)
        want = (want[:, 0] + weights.skip * inputs.value) * F.silu(inputs.gate)
        assert error(y, want) < 1e-5 and error(carried.hidden, hidden) < 1e-5


def layer_step(layer: Mamba3, x: Tensor, state: Mamba3State, reset: Tensor) -> tuple[Tensor, Mamba3State]:
    """How a Mamba-3 layer calls the kernel."""
    z, v, b, c, dt, rate, trap, angle = layer.in_proj(x).split(
        [layer.inner, layer.inner, *[layer.rank * layer.ngroups * layer.d_state] * 2, *[layer.heads] * 3, layer.pairs],
        -1,
    )
    z, v = (part.unflatten(-1, (layer.heads, layer.headdim)) for part in (z, v))
    b, c = (part.unflatten(-1, (layer.rank, layer.ngroups, layer.d_state)) for part in (b, c))
    inputs = StepInput(v, b, c, dt, z if layer.norm is None else None, rate, trap, angle)
    mimo = (layer.mimo_x, layer.mimo_z, layer.mimo_o) if layer.mimo else ()
    norms = layer.B_norm.weight, layer.C_norm.weight
    weights = StepWeights(layer.dt_bias, layer.D, None, layer.B_bias, layer.C_bias, *norms, *mimo)
    carried = StepState(state.hidden, state.theta, state.key, state.value)
    form = StepForm(halves=layer.mimo, rational=layer.a_form == "rational")
    y, new = fused_step(inputs, weights, carried, reset, form, "triton")
    assert new.theta is not None and new.key is not None and new.value is not None
    gated = y.flatten(-2) if layer.norm is None else layer._gated(y, z)
    return layer.out_proj(gated), Mamba3State(new.theta, new.hidden, new.key, new.value)


@pytest.mark.parametrize(
    "options",
    [{}, {"out_norm": True}, {"rank": 2, "out_norm": True}, {"rank": 3, "ngroups": 2, "a_form": "softplus"}],
    ids=str,
)
def test_step_equals_the_mamba3_layer(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = Mamba3(20, d_state=6, headdim=10, **options)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
        state = mine = layer.initial_state(4)
        for _ in range(3):
            x, reset = torch.randn(4, 20), (torch.rand(4) < 0.3).float()
            y, state = layer.step(x, state, reset)
            got, mine = layer_step(layer, x, mine, reset)
            assert error(got, y) < 1e-5
            for a, b in zip(mine, state, strict=True):
                assert error(a, b) < 1e-5


@pytest.mark.parametrize("mimo", [False, True])
def test_step_touches_nothing_else(guards: list[Tensor], mimo: bool) -> None:
    inputs, weights, state = random_step(rank=1 + mimo, mimo=mimo, p=5, n=5, pairs=1)
    inputs, weights, state = converted(inputs, walled), converted(weights, walled), converted(state, walled)
    y, new = fused_step(inputs, weights, state, walled(torch.zeros(5)), StepForm(halves=mimo), "triton")
    assert all(bool(x.isfinite().all()) for x in (y, *new) if x is not None)
    assert len(guards) == 5


def test_step_with_gradients_is_the_torch_form() -> None:
    inputs, weights, state = random_step()
    value = nn.Parameter(inputs.value)
    y, _ = fused_step(inputs._replace(value=value), weights, state, torch.zeros(5))
    (gradient,) = torch.autograd.grad(y.sum(), value)
    assert bool(gradient.isfinite().all())
    with pytest.raises(ShapeError, match="gradients"):
        fused_step(inputs._replace(value=value), weights, state, torch.zeros(5), backend="triton")


REFUSED: dict[str, Callable[[StepInput, StepWeights, StepState], Any]] = {
    "gate": lambda i, w, s: (i._replace(gate=i.gate[:, :1]), w, s),  # type: ignore[index]
    "state.theta": lambda i, w, s: (i, w, s._replace(theta=None)),
    "key_norm": lambda i, w, s: (i, w._replace(key_norm=torch.ones(7)), s),
    "angle": lambda i, w, s: (i._replace(angle=torch.zeros(5, 4)), w, s),
    "state.hidden": lambda i, w, s: (i, w, s._replace(hidden=s.hidden[:4])),
    "log_rate": lambda i, w, s: (i._replace(angle=None), w, s),
}


@pytest.mark.parametrize("name", REFUSED)
def test_step_refuses_what_does_not_fit(name: str) -> None:
    inputs, weights, state = REFUSED[name](*random_step())
    with pytest.raises(ShapeError, match=f"^{name}: expected"):
        fused_step(inputs, weights, state, torch.zeros(5), backend="triton")


def test_checks_before_timing() -> None:
    cpu = torch.device("cpu")
    assert scan_error(cpu, batch=1, length=9, heads=1, p=8, n=4) < 1e-5
    assert step_error(cpu, latents=3, heads=2, p=8, n=4) < 1e-5
