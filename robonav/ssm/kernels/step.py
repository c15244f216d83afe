"""One step of Mamba-3 (SISO, MIMO) or Mamba-2 for thousands of latents, all in one kernel: `fused_step`.

It covers what lies between a layer's input projection (for Mamba-2: its convolution) and its output norm or projection:

    dt = softplus(dt + dt_bias), alpha = exp(-dt rate) (1 - reset)
    Mamba-2: rate = exp(log_rate), h = alpha h + dt x B^T
    Mamba-3: rate = max(f(rate), 1e-4), theta = wrap(theta + pi tanh(angle) dt), lambda = sigmoid(trap)
             k, q = Rot(theta)(RMSNorm(B) + key_bias), Rot(theta)(RMSNorm(C) + query_bias)
             h = alpha (h + (1 - lambda) dt sum_r v_last^(r) k_last^(r)^T) + lambda dt sum_r v^(r) k^(r)^T
    y^(r) = h q^(r) + skip v^(r);  out = y SiLU(z), for MIMO sum_r down^(r) y^(r) SiLU(gate_up^(r) z), v^(r) = up^(r) x

Nothing is written in place. `step_torch` is the same in PyTorch: the oracle, and the form that has gradients.

Shape letters: B latents, R rank, G groups, H heads, P head size, N state size, S turned pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robonav.errors import ShapeError, explain
from robonav.ssm.kernels.dispatch import Backend, architecture, on_device, use_kernels
from robonav.ssm.kernels.tables import StepBlocks, step_blocks

NORM_EPS = 1e-5
LEAST_RATE = 1e-4


class StepInput(NamedTuple):
    """The projection's parts as they come, views included; the last four are Mamba-3's, but for the gate."""

    value: Tensor  # (B, H, P)
    key: Tensor  # (B, R, G, N)
    query: Tensor  # (B, R, G, N)
    dt: Tensor  # (B, H)
    gate: Tensor | None = None  # (B, H, P) z; None leaves the gate, and the sum over ranks, to the caller
    rate: Tensor | None = None  # (B, H)
    trap: Tensor | None = None  # (B, H)
    angle: Tensor | None = None  # (B, S)


class StepWeights(NamedTuple):
    """A layer's parameters."""

    dt_bias: Tensor  # (H,)
    skip: Tensor  # (H,) or (H, P)
    log_rate: Tensor | None = None  # (H,) Mamba-2
    key_bias: Tensor | None = None  # (H, R, N) Mamba-3, and the next three
    query_bias: Tensor | None = None  # (H, R, N)
    key_norm: Tensor | None = None  # (N,)
    query_norm: Tensor | None = None  # (N,)
    up: Tensor | None = None  # (H, R, P) MIMO, and the next two
    gate_up: Tensor | None = None  # (H, R, P)
    down: Tensor | None = None  # (H, R, P)


class StepState(NamedTuple):
    """What is carried, in float32; Mamba-2 has the hidden state alone."""

    hidden: Tensor  # (B, H, P, N)
    theta: Tensor | None = None  # (B, H, S) wrapped to [-pi, pi)
    key: Tensor | None = None  # (B, R, H, N) of the last step, turned
    value: Tensor | None = None  # (B, H, P) of the last step


class StepForm(NamedTuple):
    """Variants of a layer."""

    halves: bool = False  # pairs (i, i + N / 2) turn, in place of (2 i, 2 i + 1)
    rational: bool = True  # f(a) is 1 + a for a >= 0 and 1 / (1 - a) below, in place of softplus
    dt_limit: tuple[float, float] = (0.0, math.inf)


USUAL_FORM = StepForm()
Part = TypeVar("Part", StepInput, StepWeights, StepState)


def converted(part: Part, function: Callable[[Tensor], Tensor]) -> Part:
    """Applies `function` to the tensors that are there."""
    values: list[Any] = [None if t is None else function(t) for t in part]
    return type(part)(*values)


def fused_step(
    inputs: StepInput,
    weights: StepWeights,
    state: StepState,
    reset: Tensor,
    form: StepForm = USUAL_FORM,
    backend: Backend = "auto",
    blocks: StepBlocks | None = None,
) -> tuple[Tensor, StepState]:
    """One step by the kernel, or by `step_torch` where gradients are asked for or the kernel does not fit.

    Args:
        reset: (B,) 1 where the past is dropped.
        backend: see `kernels.dispatch`; "triton" without gradients only.
        blocks: in place of the table's.

    Returns:
        (B, H, P), or without a gate (B, R, H, P), and the next state, all in the state's dtype.

    Raises:
        ConfigError, ShapeError: "triton" for what the kernel does not take; a shape that does not fit.
    """
    _check(inputs, weights, state, reset)
    parts: dict[str, Any] = {"": inputs, "weights.": weights, "state.": state}
    given = {prefix + name: t for prefix, part in parts.items() for name, t in part._asdict().items() if t is not None}
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in given.values())
    if backend == "triton" and differentiated:
        do = "call it under torch.no_grad(), or take backend='auto'"
        raise ShapeError(explain("backend='triton'", "tensors without gradients in the step", "some with", do))
    chosen = use_kernels(backend, given, rank=inputs.key.shape[1])
    if not chosen or differentiated:
        return step_torch(inputs, weights, state, reset, form)
    return _launch(inputs, weights, state, reset, form, blocks)


def _launch(
    inputs: StepInput,
    weights: StepWeights,
    state: StepState,
    reset: Tensor,
    form: StepForm,
    blocks: StepBlocks | None,
) -> tuple[Tensor, StepState]:
    from robonav.ssm.kernels import step_kernels

    batch, rank, groups, n = inputs.key.shape
    heads, p = inputs.value.shape[1:]
    mamba3, gated = inputs.angle is not None, inputs.gate is not None
    pairs = 0 if inputs.angle is None else inputs.angle.shape[1]
    state = converted(state, lambda t: t.float().contiguous())
    new = converted(state, torch.empty_like)
    hidden = state.hidden
    y = hidden.new_empty((batch, heads, p) if gated else (batch, rank, heads, p))
    if blocks is None:
        blocks = step_blocks(architecture(hidden), p, n)

    def pointers(part: tuple[Tensor | None, ...]) -> list[Tensor]:
        return [hidden if t is None else t for t in part]  # `hidden` is not read there

    parts = converted(inputs, _row_major)
    arguments: list[Any] = [
        *pointers(parts),
        *(0 if t is None else t.stride(0) for t in parts),
        *pointers(converted(weights, torch.Tensor.contiguous)),
        *pointers(state),
        reset.float().contiguous(),
        y,
        *pointers(new),
    ]
    grid = (-(-batch // blocks.latents), heads, -(-p // blocks.p))
    with on_device(hidden):
        step_kernels.fused_step[grid](
            *arguments, batch,
            R=rank, H=heads, G=groups, P=p, N=n, S=pairs,
            MAMBA3=mamba3, MIMO=weights.up is not None, HALVES=form.halves, RATIONAL=form.rational,
            GATED=gated, WIDE_SKIP=weights.skip.dim() == 2,
            LIMITED=form.dt_limit != (0.0, math.inf), DT_LEAST=form.dt_limit[0], DT_MOST=form.dt_limit[1],
            EPS=NORM_EPS, LEAST_RATE=LEAST_RATE,
            LATENTS=blocks.latents, BLOCK_P=blocks.p, BLOCK_N=blocks.n, num_warps=blocks.warps, num_stages=1,
        )  # fmt: skip
    return y, new


def step_torch(
    inputs: StepInput, weights: StepWeights, state: StepState, reset: Tensor, form: StepForm = USUAL_FORM
) -> tuple[Tensor, StepState]:
    """`fused_step` in PyTorch, in the state's dtype."""
    dtype = state.hidden.dtype
    inputs, weights = converted(inputs, lambda t: t.to(dtype)), converted(weights, lambda t: t.to(dtype))
    heads, n = inputs.value.shape[1], inputs.key.shape[-1]
    reset = reset.to(dtype)
    dt = F.softplus(inputs.dt + weights.dt_bias).clamp(*form.dt_limit)
    key, query = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (inputs.key, inputs.query))  # (B, R, H, N)
    rate = _decay_rate(inputs, weights, form)
    alpha = (torch.exp(-dt * rate) * (1 - reset)[:, None])[..., None, None]  # (B, H, 1, 1)
    values = _ranks(inputs.value, weights.up)
    if inputs.angle is None:
        hidden = alpha * state.hidden + torch.einsum("bh,brhp,brhn->bhpn", dt, values, key)
        new = StepState(hidden)
    else:
        assert state.theta is not None and state.key is not None and state.value is not None
        assert inputs.trap is not None and weights.key_bias is not None and weights.query_bias is not None
        theta = state.theta + math.pi * torch.tanh(inputs.angle)[:, None] * dt[..., None]  # (B, H, S)
        theta = theta - 2 * math.pi * torch.floor(theta / (2 * math.pi) + 0.5)
        key = F.rms_norm(key, (n,), weights.key_norm, NORM_EPS) + weights.key_bias.transpose(0, 1)
        query = F.rms_norm(query, (n,), weights.query_norm, NORM_EPS) + weights.query_bias.transpose(0, 1)
        key, query = (_turned(t, theta[:, None], form.halves) for t in (key, query))
        here = torch.sigmoid(inputs.trap) * dt
        last = _ranks(state.value, weights.up)
        past = state.hidden + torch.einsum("bh,brhp,brhn->bhpn", dt - here, last, state.key)
        hidden = alpha * past + torch.einsum("bh,brhp,brhn->bhpn", here, values, key)
        new = StepState(hidden, theta, key, inputs.value)
    skip = weights.skip if weights.skip.dim() == 2 else weights.skip[:, None]
    y = torch.einsum("bhpn,brhn->brhp", hidden, query) + skip * values
    if inputs.gate is None:
        return y, new
    if weights.up is None:
        return y.squeeze(1) * F.silu(inputs.gate), new
    assert weights.down is not None
    return (y * F.silu(_ranks(inputs.gate, weights.gate_up)) * weights.down.transpose(0, 1)).sum(1), new


def _decay_rate(inputs: StepInput, weights: StepWeights, form: StepForm) -> Tensor:
    """(B, H) or (H,), above 0."""
    if inputs.rate is None:
        assert weights.log_rate is not None
        return torch.exp(weights.log_rate)
    rational = F.relu(inputs.rate) + 1 / (1 - inputs.rate.clamp(max=0))
    return (rational if form.rational else F.softplus(inputs.rate)).clamp(min=LEAST_RATE)


def _ranks(x: Tensor, weight: Tensor | None) -> Tensor:
    """x (B, H, P) of all ranks (B, R, H, P)."""
    return x[:, None] if weight is None else x[:, None] * weight.transpose(0, 1)


def _turned(x: Tensor, theta: Tensor, halves: bool) -> Tensor:
    """Turns pairs of x (..., N) by theta (..., S)."""
    count, pairs = x.shape[-1] // 2, theta.shape[-1]
    angle = F.pad(theta, (0, count - pairs))
    cos, sin = torch.cos(angle), torch.sin(angle)
    even = x[..., : 2 * count]
    a, b = even.chunk(2, dim=-1) if halves else even.unflatten(-1, (count, 2)).unbind(-1)
    turned = a * cos - b * sin, a * sin + b * cos
    whole = torch.cat(turned, dim=-1) if halves else torch.stack(turned, dim=-1).flatten(-2)
    return torch.cat([whole, x[..., 2 * count :]], dim=-1)


def _row_major(x: Tensor) -> Tensor:
    """x, copied if its axes but the first are not contiguous: columns of a projection are taken as they lie."""
    expected = 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if size != 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x


def _check(inputs: StepInput, weights: StepWeights, state: StepState, reset: Tensor) -> None:
    """Shapes, since a kernel would read past what is there."""
    if inputs.key.dim() != 4 or 0 in inputs.key.shape:
        raise ShapeError(explain("key", "(B, R, G, N), nothing empty", tuple(inputs.key.shape)))
    batch, rank, groups, n = inputs.key.shape
    if inputs.value.dim() != 3 or 0 in inputs.value.shape or inputs.value.shape[1] % groups:
        raise ShapeError(explain("value", f"({batch}, H, P), H a multiple of G = {groups}", tuple(inputs.value.shape)))
    heads, p = inputs.value.shape[1:]
    mamba3 = inputs.angle is not None
    if mamba3 and n < 2:
        raise ShapeError(explain("key", "N of at least 2, a pair", n))
    if rank > 1 and weights.up is None:
        raise ShapeError(explain("up", f"({heads}, {rank}, {p}) for rank {rank}", None))
    pairs = inputs.angle.shape[-1] if inputs.angle is not None else 0
    if 2 * pairs > n:
        raise ShapeError(explain("angle", f"at most {n // 2} pairs for N = {n}", pairs))
    wide, ranks = (batch, heads, p), (heads, rank, p)
    needed: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "value": (inputs.value, wide), "query": (inputs.query, (batch, rank, groups, n)),
        "dt": (inputs.dt, (batch, heads)), "dt_bias": (weights.dt_bias, (heads,)),
        "state.hidden": (state.hidden, (batch, heads, p, n)), "reset": (reset, (batch,)),
        "skip": (weights.skip, (heads,) if weights.skip.dim() == 1 else (heads, p)),
    }  # fmt: skip
    if mamba3:
        needed |= {
            "rate": (inputs.rate, (batch, heads)), "trap": (inputs.trap, (batch, heads)),
            "angle": (inputs.angle, (batch, pairs)), "state.theta": (state.theta, (batch, heads, pairs)),
            "state.key": (state.key, (batch, rank, heads, n)), "state.value": (state.value, wide),
            "key_bias": (weights.key_bias, (heads, rank, n)), "query_bias": (weights.query_bias, (heads, rank, n)),
            "key_norm": (weights.key_norm, (n,)), "query_norm": (weights.query_norm, (n,)),
        }  # fmt: skip
    else:
        needed["log_rate"] = (weights.log_rate, (heads,))
    if inputs.gate is not None:
        needed["gate"] = (inputs.gate, wide)
    if weights.up is not None:
        needed |= {"up": (weights.up, ranks), "gate_up": (weights.gate_up, ranks), "down": (weights.down, ranks)}
    for name, (tensor, shape) in needed.items():
        if tensor is None or tuple(tensor.shape) != shape:
            raise ShapeError(explain(name, shape, None if tensor is None else tuple(tensor.shape)))
        if tensor.device != inputs.key.device:
            raise ShapeError(explain(name, f"a tensor on {inputs.key.device}, as key", f"one on {tensor.device}"))
