"""The Mamba-3 layer: the public module's function, scan against steps, resets, precision, a day of steps, ONNX."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robonav.errors import CheckpointError, ConfigError, ShapeError
from robonav.ssm.layers.mamba3 import Mamba3, Mamba3State
from robonav.ssm.state import map_state
from robonav.ssm.weights import load_public
from tests.ssm.layer_checks import (
    assert_near,
    check_arguments_unchanged,
    check_carry,
    check_half,
    check_reset_forgets,
    check_scan_equals_steps,
    some_state,
    steps,
)

F64 = torch.float64
VARIANTS: dict[str, dict[str, Any]] = {
    "siso": {},
    "siso_groups": {"ngroups": 2, "rope_fraction": 1.0, "out_norm": True, "a_form": "softplus"},
    "siso_still": {"rope_fraction": 0.0},
    "mimo": {"rank": 2},
    "mimo_groups": {"rank": 4, "ngroups": 2, "rope_fraction": 1.0, "out_norm": True},
    "mimo_rank_1": {"rank": 1, "mimo": True},
}


def make(dtype: torch.dtype = F64, seed: int = 0, **options: Any) -> Mamba3:
    """A small layer whose parameters are all random."""
    torch.manual_seed(seed)
    layer = Mamba3(24, **{"d_state": 8, "headdim": 8, "expand": 4 / 3, **options}).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return layer


@pytest.fixture(params=VARIANTS)
def layer(request: pytest.FixtureRequest) -> Mamba3:
    return make(**VARIANTS[request.param])


# The public module's function, written down from the paper and its documented layout.


class Sizes(NamedTuple):
    d_model: int = 16
    heads: int = 4
    p: int = 8
    n: int = 8
    groups: int = 1
    rank: int = 1
    mimo: bool = False
    rope_fraction: float = 0.5
    out_norm: bool = False
    a_form: str = "rational"

    @property
    def pairs(self) -> int:
        return int(self.n * self.rope_fraction) // 2

    def layer(self) -> Mamba3:
        return Mamba3(
            self.d_model,
            self.n,
            self.heads * self.p / self.d_model,
            self.p,
            self.rank,
            self.mimo,
            self.groups,
            self.rope_fraction,
            self.out_norm,
            self.a_form,  # type: ignore[arg-type]
        ).double()


def public_parameters(sizes: Sizes) -> dict[str, Tensor]:
    d, heads, p, n, inner = sizes.d_model, sizes.heads, sizes.p, sizes.n, sizes.heads * sizes.p
    width = 2 * inner + 2 * n * sizes.groups * sizes.rank + 3 * heads + sizes.pairs
    shapes: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (width, d),
        "dt_bias": (heads,),
        "B_bias": (heads, sizes.rank, n),
        "C_bias": (heads, sizes.rank, n),
        "B_norm.weight": (n,),
        "C_norm.weight": (n,),
        "D": (heads,),
        "out_proj.weight": (d, inner),
    }
    if sizes.mimo:
        shapes |= dict.fromkeys(("mimo_x", "mimo_z", "mimo_o"), (heads, sizes.rank, p))
    if sizes.out_norm:
        shapes["norm.weight"] = (inner,)
    return {name: torch.randn(shape, dtype=F64) for name, shape in shapes.items()}


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / math.sqrt(float(x @ x) / len(x) + 1e-5) * weight


def turn(x: Tensor, angles: Tensor, mimo: bool) -> Tensor:
    x = x.clone()
    for s, angle in enumerate(angles.tolist()):
        i, j = (s, s + len(x) // 2) if mimo else (2 * s, 2 * s + 1)
        x[i], x[j] = (
            x[i] * math.cos(angle) - x[j] * math.sin(angle),
            x[i] * math.sin(angle) + x[j] * math.cos(angle),
        )
    return x


def public_output(w: dict[str, Tensor], sizes: Sizes, inputs: Tensor) -> Tensor:
    """(T, D) to (T, D), a head at a time, from the zero state."""
    heads, p, n, groups, rank = sizes.heads, sizes.p, sizes.n, sizes.groups, sizes.rank
    ones = torch.ones(heads, rank, p, dtype=F64)
    mimo_x, mimo_z, mimo_o = (w.get(name, ones) for name in ("mimo_x", "mimo_z", "mimo_o"))
    theta = torch.zeros(heads, sizes.pairs, dtype=F64)
    hidden = torch.zeros(heads, p, n, dtype=F64)
    last_k, last_v = torch.zeros(heads, rank, n, dtype=F64), torch.zeros(heads, rank, p, dtype=F64)
    outputs = []
    for u in inputs:
        row = list((w["in_proj.weight"] @ u).split(1))

        def take(*shape: int, row: list[Tensor] = row) -> Tensor:
            count = math.prod(shape)
            taken = torch.cat([row.pop(0) for _ in range(count)]) if count else torch.zeros(0, dtype=F64)
            return taken.view(shape)

        z, x = take(heads, p), take(heads, p)
        b, c = take(rank, groups, n), take(rank, groups, n)
        dd_dt, dd_a, trap, angle = take(heads), take(heads), take(heads), take(sizes.pairs)
        assert not row
        y = torch.zeros(heads, p, dtype=F64)
        for h in range(heads):
            dt = math.log1p(math.exp(float(dd_dt[h] + w["dt_bias"][h])))
            a = float(dd_a[h])
            f = math.log1p(math.exp(a)) if sizes.a_form == "softplus" else 1 + a if a >= 0 else 1 / (1 - a)
            alpha, lam = math.exp(-dt * max(f, 1e-4)), 1 / (1 + math.exp(-float(trap[h])))
            theta[h] += math.pi * torch.tanh(angle) * dt
            g = h // (heads // groups)
            hidden[h] *= alpha
            queries, values = [], []
            for r in range(rank):
                hidden[h] += (1 - lam) * dt * alpha * torch.outer(last_v[h, r], last_k[h, r])
                key = turn(rms_norm(b[r, g], w["B_norm.weight"]) + w["B_bias"][h, r], theta[h], sizes.mimo)
                queries.append(turn(rms_norm(c[r, g], w["C_norm.weight"]) + w["C_bias"][h, r], theta[h], sizes.mimo))
                values.append(x[h] * mimo_x[h, r])
                hidden[h] += lam * dt * torch.outer(values[r], key)
                last_k[h, r], last_v[h, r] = key, values[r]
            for r in range(rank):
                out = hidden[h] @ queries[r] + w["D"][h] * values[r]
                if sizes.out_norm:
                    out = rms_norm(out, w["norm.weight"][h * p : (h + 1) * p])
                gate = z[h] * mimo_z[h, r]
                y[h] += out * gate / (1 + torch.exp(-gate)) * mimo_o[h, r]
        outputs.append(w["out_proj.weight"] @ y.flatten())
    return torch.stack(outputs)


@pytest.mark.parametrize("a_form", ["rational", "softplus"])
@pytest.mark.parametrize("out_norm", [False, True])
@pytest.mark.parametrize("rope_fraction", [0.5, 1.0])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rank", [0, 1, 2, 4])  # 0 stands for SISO
def test_the_public_modules_parameters_compute_its_function(
    rank: int, groups: int, rope_fraction: float, out_norm: bool, a_form: str
) -> None:
    torch.manual_seed(rank + 10 * groups)
    sizes = Sizes(groups=groups, rank=max(rank, 1), mimo=rank > 0, rope_fraction=rope_fraction)
    sizes = sizes._replace(out_norm=out_norm, a_form=a_form)
    parameters = public_parameters(sizes)
    layer = sizes.layer()
    load_public(
        layer, {f"backbone.layers.3.mixer.{name}": x for name, x in parameters.items()}, "backbone.layers.3.mixer."
    )
    x = torch.randn(2, 7, sizes.d_model, dtype=F64)
    want = torch.stack([public_output(parameters, sizes, row) for row in x])
    assert_near(layer.scan(x, layer.initial_state(2))[0], want, 1e-10)
    with torch.no_grad():
        assert_near(steps(layer, x, layer.initial_state(2), torch.zeros(2, 7, dtype=F64))[0], want, 1e-10)


def test_a_missing_name_and_a_wrong_shape_are_named() -> None:
    parameters = public_parameters(Sizes(rank=2, mimo=True))
    with pytest.raises(CheckpointError, match="no mimo_o"):
        load_public(Sizes(rank=2, mimo=True).layer(), {k: v for k, v in parameters.items() if k != "mimo_o"})
    with pytest.raises(CheckpointError, match="also mimo_o, mimo_x, mimo_z"):
        load_public(Sizes().layer(), parameters)
    with pytest.raises(CheckpointError, match=r"B_bias: expected \(4, 2, 8\), got \(4, 3, 8\)"):
        load_public(Sizes(rank=2, mimo=True).layer(), {**parameters, "B_bias": torch.zeros(4, 3, 8)})


# Scan, steps, resets.


@pytest.mark.parametrize(("length", "density"), [(1, 0.0), (1, 1.0), (2, 0.2), (17, 1.0), (70, 0.1)])
def test_scan_equals_steps(layer: Mamba3, length: int, density: float) -> None:
    if layer.pairs:
        check_scan_equals_steps(layer, length, density)


@pytest.mark.parametrize("name", ["siso", "mimo_groups"])
def test_scan_equals_steps_in_float32(name: str) -> None:
    check_scan_equals_steps(make(torch.float32, **VARIANTS[name]), 64, 0.1)


def test_without_rotation_scan_equals_steps() -> None:
    layer = make(rope_fraction=0.0)
    x, reset = torch.randn(2, 9, 24, dtype=F64), torch.zeros(2, 9, dtype=F64)
    y, state = layer.scan(x, layer.initial_state(2))
    assert state.theta.shape == (2, 4, 0)
    assert_near(y, steps(layer, x, layer.initial_state(2), reset)[0], 1e-10)


@pytest.mark.parametrize("batch", [1, 200])
def test_the_compiled_step_equals_the_plain_one(layer: Mamba3, batch: int) -> None:
    """Without gradients a processor runs another program; with two threads, rows are shared out."""
    state = map_state(lambda s: s.repeat(batch, *[1] * (s.dim() - 1)), some_state(layer, 1))
    x, reset = torch.randn(batch, 24, dtype=F64), (torch.rand(batch) < 0.3).to(F64)
    want_y, want = layer.step(x, state, reset)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            y, got = layer.step(x, state, reset)
            again, _ = layer.step(x, state, reset)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(y, again)
    assert_near((y, *got[1:]), (want_y, *want[1:]), 1e-12)
    if layer.pairs:
        assert_near(got.theta, want.theta, 1e-12)


def test_carry_resets_and_arguments(layer: Mamba3) -> None:
    if layer.pairs:
        check_carry(layer)
        check_reset_forgets(layer)
        check_arguments_unchanged(layer)


def test_a_reset_cuts_off_the_past_but_carries_the_angle() -> None:
    layer = make(rank=2)
    state, x = some_state(layer, 1), torch.randn(1, 24, dtype=F64)
    y, after = layer.step(x, state, torch.ones(1, dtype=F64))
    fresh_y, fresh = layer.step(x, layer.initial_state(1))
    assert_near(y, fresh_y, 1e-10)
    change = torch.exp(1j * (after.theta - fresh.theta - state.theta))
    assert_near(torch.view_as_real(change), torch.view_as_real(torch.ones_like(change)), 1e-10)


def test_a_state_keeps_no_sequence_in_memory() -> None:
    layer = make()
    _, state = layer.scan(torch.randn(2, 50, 24, dtype=F64), layer.initial_state(2))
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in state)


# Precision and long runs.


@pytest.mark.parametrize("name", ["siso", "mimo_groups"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_keep_the_state_in_float32(name: str, dtype: torch.dtype) -> None:
    check_half(make(torch.float32, **VARIANTS[name]), dtype)


@settings(max_examples=25, deadline=None)
@given(
    length=st.sampled_from([1, 65, 300]),
    dt=st.sampled_from([1e-6, 1e-2, 1e2]),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    name=st.sampled_from(["siso", "siso_groups", "mimo_groups"]),
)
def test_extremes_stay_finite_in_value_and_gradient(
    length: int, dt: float, scale: float, density: float, name: str
) -> None:
    layer = make(torch.float32, **VARIANTS[name])
    with torch.no_grad():
        layer.dt_bias.fill_(dt + math.log(-math.expm1(-dt)))
    x = (scale * torch.randn(2, length, 24)).requires_grad_()
    y, state = layer.scan(x, layer.initial_state(2), (torch.rand(2, length) < density).float())
    grads = torch.autograd.grad(y.square().mean() + state.hidden.mean(), [x, *layer.parameters()], allow_unused=True)
    assert all(bool(torch.isfinite(part).all()) for part in (y, *state, *grads) if part is not None)


@pytest.mark.parametrize("ticks", [3_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_day_of_steps_does_not_drift(ticks: int) -> None:
    """Angles stay wrapped, the state bounded, and the last steps equal float64's from the angle of their begin."""
    stretch = 1000
    layer = make(torch.float32)
    with torch.no_grad():
        layer.dt_bias.fill_(-1.0)  # steps of about 0.3: nothing is left after a stretch
        state = layer.initial_state(1)
        largest_angle, largest_hidden = torch.zeros(()), torch.zeros(())
        for begin in range(0, ticks, stretch):
            x = torch.randn(1, stretch, 24)
            start = state
            for t in range(stretch):
                y, state = layer.step(x[:, t], state)
            largest_angle = torch.maximum(largest_angle, state.theta.abs().max())
            if begin == 0:
                early = state.hidden.abs().max()
            largest_hidden = torch.maximum(largest_hidden, state.hidden.abs().max())
        assert float(largest_angle) <= math.pi + 1e-6
        assert float(largest_hidden) < 20 * float(early)
        exact = layer.double()
        fresh = exact.initial_state(1)._replace(theta=start.theta.double())
        want, end = exact.scan(x.double(), fresh)
    assert_near(y.double(), want[:, -1], 1e-4)
    assert_near(state.hidden.double(), end.hidden, 1e-4)


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 0}, r"Mamba3\.d_model: expected at least 1, got 0"),
        ({"rank": 0}, r"Mamba3\.rank: expected at least 1, got 0"),
        ({"headdim": 7}, r"Mamba3\.headdim: expected a divisor of expand \* d_model = 24, got 7"),
        ({"headdim": 0}, r"Mamba3\.headdim"),
        ({"d_state": 5}, r"Mamba3\.d_state: expected an even number from 2 up, got 5"),
        ({"d_state": 0}, r"Mamba3\.d_state"),
        ({"ngroups": 2}, r"Mamba3\.ngroups: expected a divisor of the 3 heads, got 2"),
        ({"rank": 2, "mimo": False}, r"Mamba3\.mimo: expected True for rank 2"),
        ({"rope_fraction": 1.5}, r"Mamba3\.rope_fraction"),
        ({"d_state": 4, "rope_fraction": 0.25}, r"Mamba3\.rope_fraction: expected 0, or 0\.5 to 1 for d_state 4"),
        ({"a_form": "exp"}, r"Mamba3\.a_form: expected rational or softplus, got exp"),
        ({"dt_min": 0.1, "dt_max": 0.01}, r"Mamba3\.dt_min, dt_max"),
        ({"chunk": 0}, r"Mamba3\.chunk"),
    ],
)
def test_bad_sizes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mamba3(**{"d_model": 24, "headdim": 8, **options})


def test_bad_tensors_are_named() -> None:
    layer = make(torch.float32)
    state = layer.initial_state(2)
    with pytest.raises(ShapeError, match=r"reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(torch.zeros(2, 5, 24), state, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"state\.theta: expected batch 3"):
        layer.step(torch.zeros(3, 24), state)
    with pytest.raises(ShapeError, match=r"x: expected a floating tensor"):
        layer.step(torch.zeros(2, 24, dtype=torch.int64), state)


# ONNX.


class Steps(torch.nn.Module):
    """A step of several layers with a flat signature: one export in place of several, each of which takes seconds."""

    def __init__(self, layers: list[Mamba3]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x: Tensor, reset: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        outputs, states = [], []
        for i, layer in enumerate(self.layers):
            y, state = layer.step(x, Mamba3State(*parts[4 * i : 4 * i + 4]), reset)
            outputs.append(y)
            states += list(state)
        return (*outputs, *states)

    def initial_states(self, batch: int) -> list[Tensor]:
        return [part for layer in self.layers for part in layer.initial_state(batch)]


def onnx_outputs(path: Path, module: Steps, inputs: Tensor, reset: Tensor) -> list[np.ndarray[Any, Any]]:
    """Exports the steps with an open batch, runs them over the inputs (B, T, D): (B, T, D) of each layer."""
    onnxruntime = pytest.importorskip("onnxruntime")
    example = (inputs[:2, 0], reset[:2, 0], *module.initial_states(2))
    batch = torch.export.Dim("batch")
    open_batch = ({0: batch}, {0: batch}, tuple({0: batch} for _ in example[2:]))
    program = torch.onnx.export(
        module, example, dynamo=True, opset_version=20, dynamic_shapes=open_batch, verbose=False
    )
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [part.name for part in session.get_inputs()]
    states = [part.numpy() for part in module.initial_states(inputs.shape[0])]
    outputs = []
    for t in range(inputs.shape[1]):
        tensors = (inputs[:, t].numpy(), reset[:, t].numpy(), *states)
        results = session.run(None, dict(zip(names, tensors, strict=True)))
        outputs.append(results[: len(module.layers)])
        states = results[len(module.layers) :]
    return [np.stack(ys, axis=1) for ys in zip(*outputs, strict=True)]


@pytest.mark.parametrize(
    ("dtype", "variant"),
    [
        (torch.float32, "mimo_groups"),
        pytest.param(torch.float32, "siso", marks=pytest.mark.slow),  # as in every bundle that is exported in tests
        pytest.param(torch.float16, "mimo_groups", marks=pytest.mark.slow),
        pytest.param(torch.float16, "siso", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_onnx_step_equals_torch_over_200_ticks(dtype: torch.dtype, variant: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    module = Steps([make(dtype, **VARIANTS[variant])])
    torch.manual_seed(1)
    x, reset = torch.randn(3, 200, 24).to(dtype), (torch.rand(3, 200) < 0.05).float()
    with torch.no_grad():
        wanted = [steps(layer, x, layer.initial_state(3), reset)[0] for layer in module.layers]
        found = onnx_outputs(tmp_path / "step.onnx", module, x, reset)
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == want.numpy().dtype
        assert_near(torch.from_numpy(got).float(), want.float(), 1e-4 if dtype == torch.float32 else 1e-2)
