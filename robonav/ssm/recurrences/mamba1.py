"""The selective diagonal scan of Mamba-1 (arXiv 2312.00752, eq. 2 and algorithm 2).

    h_t = exp(dt_t A) (1 - reset_t) h_{t-1} + dt_t B_t x_t
    y_t = C_t h_t

A is diagonal and negative, B and C are shared by the channels, dt is a channel's own. The skip D x is the layer's.

Why the parallel form is a loop over T: each entry of the (D, N) state has a decay of its own, so no product of T x T
matrices replaces the recurrence. The work is (B, T, D, N) either way; what counts is how often it goes through memory.
On one busy core (batch 16, T 64, D 512, N 16, float32, forward and backward, the least of several runs in turn): this
scan 102 ms, automatic differentiation of the loop 181 ms, associative scans (Hillis-Steele) of chunks of 8 and 16 steps
464 and 766 ms. Its largest part are the exponentials (a third), worked out twice so that at most a quarter of the
states is kept.

Shape letters: B batch, T time, D channels (d_inner), N state size, K wanted states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**19  # a buffer of a chunk: a few of them fit a core's share of the cache
CHUNK_ELEMENTS_CUDA = 2**24  # there, launches cost more than memory
MIN_CHUNK = 4  # starts of chunks are kept for the gradient: at most a quarter of all states
NO_PAST = -1e4  # its exponential is 0 in every dtype, and its gradient too


class Mamba1Input(NamedTuple):
    """The recurrence's inputs, already projected."""

    x: Tensor  # (B, T, D)
    dt: Tensor  # (B, T, D), positive
    B: Tensor  # (B, T, N)
    C: Tensor  # (B, T, N)


def mamba1_step(hidden: Tensor, inputs: Mamba1Input, A: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """One step, `inputs` without the T axis: y (B, D) and the new hidden state (B, D, N).

    Args:
        hidden: (B, D, N); A: (D, N), at most 0; reset: (B,) 1 where the past is dropped.
    """
    alpha = torch.exp(inputs.dt[..., None] * A) * (1 - reset)[:, None, None]  # (B, D, N)
    drive = (inputs.dt * inputs.x)[..., None] * inputs.B[:, None]  # (B, D, N)
    new = torch.addcmul(drive, alpha, hidden)
    return (new * inputs.C[:, None]).sum(-1), new


def mamba1_recurrence(inputs: Mamba1Input, A: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """The truth: a loop over T of `mamba1_step`. Returns y (B, T, D) and all hidden states (B, T, D, N)."""
    ys, hiddens = [], []
    for t in range(reset.shape[1]):
        y, hidden = mamba1_step(hidden, Mamba1Input(*(x[:, t] for x in inputs)), A, reset[:, t])
        ys.append(y)
        hiddens.append(hidden)
    return torch.stack(ys, 1), torch.stack(hiddens, 1)


def mamba1_scan(
    inputs: Mamba1Input, A: Tensor, hidden: Tensor, reset: Tensor, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence with one fused multiply-add a step and a gradient in closed form; any T from 1 up.

    Differentiable once, in all inputs, A and the initial state (not in `reset`).

    Args:
        inputs: see `Mamba1Input`; A: (D, N), at most 0; hidden: (B, D, N).
        reset: (B, T), 1 where the past is dropped before that step.
        wanted: (B, K) steps after which the hidden state is asked for; by default the last one.

    Returns:
        y (B, T, D) and the hidden states after the wanted steps (B, K, D, N).
    """
    x, dt, B, C = inputs
    batch, length = reset.shape
    if wanted is None:
        wanted = torch.full((batch, 1), length - 1, device=reset.device)
    steps = wanted.clamp(0, length - 1)
    # Channels innermost: then dt and x run along with the state, and B and C are one number a row.
    flat_a, start = A.t().contiguous(), hidden.transpose(1, 2).contiguous()
    y, found = _Scan.apply(dt * x, dt, B, C, flat_a, start, reset, steps)
    return y, found.transpose(2, 3).contiguous()


def chunk_length(state_elements: int, length: int, on_cuda: bool) -> int:
    """Steps that are worked on together, for states of so many elements over the batch."""
    elements = CHUNK_ELEMENTS_CUDA if on_cuda else CHUNK_ELEMENTS
    return min(length, max(MIN_CHUNK, elements // max(1, state_elements)))


class _Scan(torch.autograd.Function):
    """The scan, chunk after chunk, in buffers that stay in the cache; the backward pass works chunks out again.

    With g_t the gradient of h_t and alpha_t = exp(dt_t A) (1 - reset_t):

        g_t = C_t dy_t + alpha_{t+1} g_{t+1} (+ the gradient of a wanted state)
        d(dt_t A) = g_t alpha_t h_{t-1},  d(dt_t x_t) = B_t g_t,  dB_t = g_t (dt_t x_t),  dC_t = h_t dy_t

    Buffers have time first, (T, B, N, D). What is kept is the inputs and the state at the start of each chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        drive: Tensor,  # (B, T, D) dt x
        dt: Tensor,  # (B, T, D)
        B: Tensor,  # (B, T, N)
        C: Tensor,  # (B, T, N)
        A: Tensor,  # (N, D)
        hidden: Tensor,  # (B, N, D)
        reset: Tensor,  # (B, T)
        steps: Tensor,  # (B, K)
    ) -> tuple[Tensor, Tensor]:
        """y (B, T, D) and the states after `steps`, (B, K, N, D)."""
        length = dt.shape[1]
        chunk = chunk_length(hidden.numel(), length, hidden.is_cuda)
        starts = hidden.new_empty(-(-length // chunk), *hidden.shape)
        alpha, states = (hidden.new_empty(chunk, *hidden.shape) for _ in range(2))
        y, found = torch.empty_like(drive), hidden.new_empty(*steps.shape, *hidden.shape[1:])
        with torch.autocast(hidden.device.type, enabled=False):
            for k in range(len(starts)):
                starts[k] = hidden
                piece = slice(k * chunk, min((k + 1) * chunk, length))
                a, h = (buffer[: piece.stop - piece.start] for buffer in (alpha, states))
                _states(a, h, drive[:, piece], dt[:, piece], B[:, piece], A, starts[k], reset[:, piece])
                y[:, piece] = _over_n(C[:, piece], h)
                at, row, column = _wanted_here(steps, piece)
                found[row, column] = h[at, row]
                hidden = h[-1]
        ctx.save_for_backward(drive, dt, B, C, A, starts, reset, steps)
        ctx.set_materialize_grads(False)
        return y, found

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, d_y: Tensor | None, d_found: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of drive, dt, B, C, A and the initial state."""
        drive, dt, B, C, A, starts, reset, steps = ctx.saved_tensors
        length = dt.shape[1]
        chunk = chunk_length(starts[0].numel(), length, dt.is_cuda)
        alpha, states, grads, spare = (starts.new_empty(chunk, *starts.shape[1:]) for _ in range(4))
        d_drive, d_dt, d_b, d_c = (torch.empty_like(x) for x in (drive, dt, B, C))
        d_a, carried = torch.zeros_like(A), torch.zeros_like(starts[0])
        with torch.autocast(dt.device.type, enabled=False):
            for k in reversed(range(len(starts))):
                piece = slice(k * chunk, min((k + 1) * chunk, length))
                a, h, g, other = (buffer[: piece.stop - piece.start] for buffer in (alpha, states, grads, spare))
                _states(a, h, drive[:, piece], dt[:, piece], B[:, piece], A, starts[k], reset[:, piece])
                if d_y is None:
                    g.zero_()
                    d_c[:, piece] = 0
                else:
                    torch.mul(_first(C[:, piece])[..., None], _first(d_y[:, piece])[:, :, None], out=g)
                    d_c[:, piece] = _over_d(d_y[:, piece], h)
                if d_found is not None:
                    at, row, column = _wanted_here(steps, piece)
                    g.index_put_((at, row), d_found[row, column], accumulate=True)
                g[-1] += carried
                for t in range(len(g) - 2, -1, -1):
                    g[t].addcmul_(a[t + 1], g[t + 1])
                d_b[:, piece] = _over_d(drive[:, piece], g)
                d_drive[:, piece] = _over_n(B[:, piece], g)
                g.mul_(a)  # what reaches the state before
                carried = g[0]
                torch.mul(g[0], starts[k], out=other[0])
                torch.mul(g[1:], h[:-1], out=other[1:])  # of dt A
                d_dt[:, piece] = torch.mul(other, A, out=a).sum(2).transpose(0, 1)
                d_a += torch.mul(other, _first(dt[:, piece])[:, :, None], out=a).sum((0, 1))
                grads, spare = spare, grads  # `carried` lies in the first
        return d_drive, d_dt, d_b, d_c, d_a, carried.clone(), None, None


def _first(x: Tensor) -> Tensor:
    """(B, T, ...) -> (T, B, ...), a view."""
    return x.transpose(0, 1)


def _over_n(row: Tensor, states: Tensor) -> Tensor:
    """B or C (B, T, N) times states (T, B, N, D), summed over N: (B, T, D)."""
    return (_first(row)[:, :, None] @ states)[:, :, 0].transpose(0, 1)


def _over_d(channels: Tensor, states: Tensor) -> Tensor:
    """(B, T, D) times states (T, B, N, D), summed over D: (B, T, N). The row on the left is five times faster."""
    return (_first(channels)[:, :, None] @ states.transpose(-1, -2))[:, :, 0].transpose(0, 1)


def _states(
    alpha: Tensor, states: Tensor, drive: Tensor, dt: Tensor, B: Tensor, A: Tensor, start: Tensor, reset: Tensor
) -> None:
    """Fills decays and states (T, B, N, D) of one chunk, which are buffers of this file's."""
    no_past = (NO_PAST * _first(reset))[:, :, None, None]
    torch.addcmul(no_past, _first(dt)[:, :, None], A, out=alpha).exp_()
    torch.mul(_first(B)[..., None], _first(drive)[:, :, None], out=states)
    for t in range(len(states)):
        states[t].addcmul_(alpha[t], states[t - 1] if t else start)


def _wanted_here(steps: Tensor, piece: slice) -> tuple[Tensor, Tensor, Tensor]:
    """The wanted steps (B, K) inside a chunk: place in the chunk, row and column."""
    row, column = ((steps >= piece.start) & (steps < piece.stop)).nonzero(as_tuple=True)
    return steps[row, column] - piece.start, row, column
