"""The SSD scan on a GPU: `ssd_scan_cuda`, with the signature and the results of `recurrences.ssd.ssd_scan`.

The PyTorch form is its oracle. The backward pass recomputes everything inside a chunk from the inputs and from the
states at the chunks' borders, which the forward pass leaves. It sums in a fixed order: the same bits each time.

Shape letters: B batch, T time, R rank, G groups, H heads, P head size, N state size, K wanted states, C chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from robonav.errors import ShapeError, explain
from robonav.ssm.kernels.dispatch import architecture, on_device, use_kernels
from robonav.ssm.kernels.tables import ScanBlocks, scan_blocks

if TYPE_CHECKING:
    from robonav.ssm.recurrences.ssd import SSDInput

LOG_DECAY_FLOOR = -25.0  # that of the PyTorch form in float32
Precision = Literal["tf32x3", "tf32", "ieee"]


class Plan(NamedTuple):
    """What the kernels of one call are compiled for."""

    blocks: ScanBlocks
    precision: Precision
    rank: int
    heads: int
    groups: int
    p: int
    n: int

    def constants(self) -> dict[str, Any]:
        """The kernels' constant arguments."""
        b = self.blocks
        return {
            "R": self.rank, "H": self.heads, "G": self.groups, "P": self.p, "N": self.n,
            "STEPS": b.steps, "ROWS": b.rows, "BLOCK_P": b.p, "BLOCK_N": b.n,
            "PRECISION": self.precision, "FLOOR": LOG_DECAY_FLOOR, "num_warps": b.warps, "num_stages": b.stages,
        }  # fmt: skip


def ssd_scan_cuda(
    inputs: SSDInput,
    hidden: Tensor,
    reset: Tensor,
    wanted: Tensor | None = None,
    precision: Precision | None = None,
    blocks: ScanBlocks | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence by triton kernels, forward and backward; any T from 1 up, any P and N, rank up to 16.

    Args:
        inputs: query, key (B, T, R, G, N), value (B, T, R, H, P), log_decay (B, T, H); float32, bfloat16 or float16.
        hidden: (B, H, P, N); reset: (B, T), 1 where the past is dropped before that step.
        wanted: (B, K) steps after which the hidden state is asked for; by default the last one, which costs least.
        precision: of products of float32 numbers. By default "tf32x3", as good as float32, or "tf32" where
            `torch.backends.cuda.matmul` allows it or where queries, keys and values are half precision anyway.
        blocks: in place of the table's.

    Returns:
        y (B, T, R, H, P) in the values' dtype, and the states after the wanted steps (B, K, H, P, N) in float32.

    Raises:
        ShapeError: a tensor that is not on a GPU, or whose shape or dtype does not fit.
    """
    query, key, value, log_decay = inputs
    _check(query, key, value, log_decay, hidden, reset, wanted)
    tensors = {"query": query, "key": key, "value": value, "log_decay": log_decay, "hidden": hidden}
    use_kernels("triton", tensors, rank=query.shape[2])
    if precision is None:
        half = all(x.dtype != torch.float32 for x in (query, key, value))
        precision = "tf32" if half or _tf32_allowed() else "tf32x3"
    _, length, rank, groups, n = query.shape
    heads, p = value.shape[3:]
    if blocks is None:
        blocks = scan_blocks(architecture(query), length, rank, p, n, precision != "tf32")
    plan = Plan(blocks, precision, rank, heads, groups, p, n)
    y, states = _Scan.apply(query, key, value, log_decay, hidden, reset, wanted, plan)
    return y, states


class _Scan(torch.autograd.Function):
    """Launches the kernels. Outputs y and the states after the wanted steps, or after the last."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        log_decay: Tensor,
        hidden: Tensor,
        reset: Tensor,
        wanted: Tensor | None,
        plan: Plan,
    ) -> tuple[Tensor, Tensor]:
        from robonav.ssm.kernels import scan_kernels

        ctx.hidden_dtype = hidden.dtype
        query, key, value, log_decay = (x.contiguous() for x in (query, key, value, log_decay))
        hidden, reset = hidden.float().contiguous(), reset.float().contiguous()
        batch, length = reset.shape
        chunks = -(-length // plan.blocks.steps)
        y = torch.empty_like(value)
        starts = hidden.new_empty(batch, chunks - 1, *hidden.shape[1:])
        final = torch.empty_like(hidden)
        constants = plan.constants()
        with on_device(query):
            scan_kernels.scan_forward[(batch * plan.heads,)](
                query, key, value, log_decay, hidden, reset, y, starts, final, length, chunks, **constants
            )
            states = final[:, None]
            if wanted is not None:
                wanted = wanted.to(torch.int64).contiguous()
                count = wanted.shape[1]
                states = hidden.new_empty(batch, count, *hidden.shape[1:])
                scan_kernels.scan_states[(batch * plan.heads, count)](
                    key, value, log_decay, hidden, reset, starts, wanted, states, length, chunks, count, **constants
                )
        ctx.save_for_backward(query, key, value, log_decay, hidden, reset, starts, wanted)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        return y, states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_y: Tensor | None, d_states: Tensor | None) -> tuple[Tensor | None, ...]:
        from robonav.ssm.kernels import scan_kernels

        if d_y is None and d_states is None:
            return (None,) * 8
        query, key, value, log_decay, hidden, reset, starts, wanted = ctx.saved_tensors
        plan: Plan = ctx.plan
        batch, length = reset.shape
        chunks = 1 + starts.shape[1]
        d_y = torch.zeros_like(value) if d_y is None else d_y.contiguous()
        found = wanted is not None and d_states is not None
        d_found = d_states.float().contiguous() if found and d_states is not None else hidden  # `hidden`: not read
        if wanted is None and d_states is not None:
            d_hidden = d_states[:, 0].to(torch.float32, copy=True).contiguous()
        elif chunks > 1:
            d_hidden = torch.zeros_like(hidden)
        else:
            d_hidden = torch.empty_like(hidden)
        carry = chunks > 1 or (wanted is None and d_states is not None)
        shared = plan.heads // plan.groups
        # One slice a head. Where heads share a group these are partial sums, in float32.
        per_head = (*query.shape[:3], plan.heads, plan.n)
        d_query = query.new_empty(per_head, dtype=query.dtype if shared == 1 else torch.float32)
        d_key = key.new_empty(per_head, dtype=key.dtype if shared == 1 else torch.float32)
        d_value, d_log_decay = torch.empty_like(value), torch.empty_like(log_decay)
        with on_device(query):
            scan_kernels.scan_backward[(batch * plan.heads,)](
                query, key, value, log_decay, hidden, reset, starts, wanted if found else reset, d_y, d_found,
                d_query, d_key, d_value, d_log_decay, d_hidden, length, chunks, d_found.shape[1] if found else 0,
                CARRY=carry, WANTED=found, **plan.constants(),
            )  # fmt: skip
        if shared > 1:
            d_query = d_query.unflatten(3, (plan.groups, shared)).sum(4).to(query.dtype)
            d_key = d_key.unflatten(3, (plan.groups, shared)).sum(4).to(key.dtype)
        return d_query, d_key, d_value, d_log_decay, d_hidden.to(ctx.hidden_dtype), None, None, None


def _tf32_allowed() -> bool:
    """Whether the user lets float32 products lose digits for speed; torch has an old and a new switch."""
    matmul = torch.backends.cuda.matmul
    try:
        return bool(matmul.fp32_precision == "tf32")
    except AttributeError:
        return bool(matmul.allow_tf32)


def _check(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, hidden: Tensor, reset: Tensor, wanted: Tensor | None
) -> None:
    """Shapes, since a kernel would read past what is there."""
    if query.dim() != 5 or 0 in query.shape:
        raise ShapeError(explain("query", "(B, T, R, G, N), nothing empty", tuple(query.shape)))
    batch, length, rank, groups, n = query.shape
    if value.dim() != 5 or value.shape[:3] != query.shape[:3] or 0 in value.shape or value.shape[3] % groups:
        expected = f"({batch}, {length}, {rank}, H, P), H a multiple of G = {groups}"
        raise ShapeError(explain("value", expected, tuple(value.shape)))
    heads, p = value.shape[3:]
    expected_shapes = {
        "key": (key, tuple(query.shape)),
        "log_decay": (log_decay, (batch, length, heads)),
        "hidden": (hidden, (batch, heads, p, n)),
        "reset": (reset, (batch, length)),
    }
    for name, (tensor, shape) in expected_shapes.items():
        if tuple(tensor.shape) != shape:
            raise ShapeError(explain(name, shape, tuple(tensor.shape)))
        if tensor.device != query.device:
            raise ShapeError(explain(name, f"a tensor on {query.device}, as query", f"one on {tensor.device}"))
    if wanted is not None and (wanted.dim() != 2 or len(wanted) != batch or wanted.is_floating_point()):
        raise ShapeError(explain("wanted", f"integer steps ({batch}, K)", f"{tuple(wanted.shape)} {wanted.dtype}"))
