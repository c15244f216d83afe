"""Mamba-3's scan on a processor: the loop itself, compiled, with the state of a head in its cache (as in `ssd_cpu`).

The reduction to the SSD recurrence is that of `mamba3_scan`; the scaled keys, and the terms by which y differs, are
made here where the numbers are at hand, in place of passes over whole tensors. The backward pass recomputes the states
of one stretch at a time from marks that the forward pass left. Inside, a state is (N, P).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from robonav.ssm.recurrences.ssd_cpu import REORDER, STRETCH, Array, _decay_gradient, _read_gradients, share_out


@njit(nogil=True, cache=True, fastmath=REORDER)
def _advance(state: Array, decay: float, key: Array, scale: float, value: Array) -> None:
    """state = decay state + scale key value^T, in its own place."""
    size, width = state.shape
    for n in range(size):
        k = scale * key[n]
        for p in range(width):
            state[n, p] = decay * state[n, p] + k * value[p]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _advance_to(new: Array, state: Array, decay: float, key: Array, scale: float, value: Array) -> None:
    """new = decay state + scale key value^T."""
    size, width = state.shape
    for n in range(size):
        k = scale * key[n]
        for p in range(width):
            new[n, p] = decay * state[n, p] + k * value[p]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _read(state: Array, query: Array, out: Array) -> None:
    """out += query state."""
    size, width = state.shape
    whole = size - size % 4
    for n in range(0, whole, 4):
        q0, q1, q2, q3 = query[n], query[n + 1], query[n + 2], query[n + 3]
        for p in range(width):
            out[p] += q0 * state[n, p] + q1 * state[n + 1, p] + q2 * state[n + 2, p] + q3 * state[n + 3, p]
    for n in range(whole, size):
        q0 = query[n]
        for p in range(width):
            out[p] += q0 * state[n, p]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _own_share(b: int, h: int, query: Array, key: Array, value: Array, ahead: Array, skip: Array, y: Array) -> None:
    """y^(r) = D v^(r) - ahead sum_s (q^(r) . k^(s)) v^(s), for one row and all steps: slices a step cost too much."""
    _, length, _, rank, width = value.shape
    for t in range(length):
        for r in range(rank):
            for p in range(width):
                y[b, t, h, r, p] = skip[h] * value[b, t, h, r, p]
            for s in range(rank):
                own = ahead[b, t, h] * 0
                for n in range(query.shape[4]):
                    own += query[b, t, h, r, n] * key[b, t, h, s, n]
                mix = -ahead[b, t, h] * own
                for p in range(width):
                    y[b, t, h, r, p] += mix * value[b, t, h, s, p]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _forward_rows(
    first: int,
    last: int,
    query: Array,  # (B, T, H, R, N)
    key: Array,  # (B, T, H, R, N)
    value: Array,  # (B, T, H, R, P)
    decay: Array,  # (B, T, H) in [0, 1], 0 at a reset
    scale: Array,  # (B, T, H) here + ahead
    ahead: Array,  # (B, T, H)
    skip: Array,  # (H,)
    start: Array,  # (B, H, P, N)
    wanted: Array,  # (B, K)
    y: Array,  # (B, T, H, R, P)
    found: Array,  # (B, K, H, P, N)
    marks: Array,  # (B, stretches, H, N, P) or empty
) -> None:
    _, length, heads, rank, width = value.shape
    one = value.dtype.type(1)
    state = np.empty((query.shape[4], width), value.dtype)
    for row in range(first, last):
        b, h = row // heads, row % heads
        _own_share(b, h, query, key, value, ahead, skip, y)
        state[:] = start[b, h].T
        for t in range(length):
            if marks.size and t % STRETCH == 0:
                marks[b, t // STRETCH, h] = state
            for r in range(rank):
                a = decay[b, t, h] if r == 0 else one
                _advance(state, a, key[b, t, h, r], scale[b, t, h], value[b, t, h, r])
            for r in range(rank):
                _read(state, query[b, t, h, r], y[b, t, h, r])
            for i in range(wanted.shape[1]):
                if wanted[b, i] == t:
                    found[b, i, h] = state.T


@njit(nogil=True, cache=True, fastmath=REORDER)
def _drive_gradients(d_state: Array, key: Array, scale: float, value: Array, d_key: Array, d_value: Array) -> None:
    """Of k value^T with k = scale key: d_key, of k, and what is added to d_value."""
    size, width = d_state.shape
    for n in range(size):
        k = scale * key[n]
        total = k * 0
        for p in range(width):
            total += d_state[n, p] * value[p]
            d_value[p] += d_state[n, p] * k
        d_key[n] = total


@njit(nogil=True, cache=True, fastmath=REORDER)
def _step_gradients(
    after: Array,
    before: Array,
    d_state: Array,
    query: Array,
    key: Array,
    scale: float,
    value: Array,
    decay: float,
    d_out: Array,
    d_query: Array,
    d_key: Array,
    d_value: Array,
) -> float:
    """Of reading, drive and decay in one pass over the state, for rank 1; returns that of the decay."""
    size, width = d_state.shape
    d_decay = decay * 0
    for n in range(size):
        q, k = query[n], scale * key[n]
        d_q, d_k = q * 0, k * 0
        for p in range(width):
            d = d_state[n, p] + q * d_out[p]
            d_q += after[n, p] * d_out[p]
            d_k += d * value[p]
            d_value[p] += d * k
            d_decay += d * before[n, p]
            d_state[n, p] = d * decay
        d_query[n] = d_q
        d_key[n] = d_k
    return d_decay


@njit(nogil=True, cache=True, fastmath=REORDER)
def _own_share_gradients(
    b: int,
    h: int,
    query: Array,
    key: Array,
    value: Array,
    ahead: Array,
    skip: Array,
    d_y: Array,
    d_value: Array,
    d_ahead: Array,
    d_own: Array,  # (T, R, R)
) -> float:
    """Of `_own_share`: of value, ahead and the products q^(r) . k^(s); returns that of D."""
    _, length, _, rank, width = value.shape
    of_skip = skip[h] * 0
    for t in range(length):
        of_ahead = skip[h] * 0
        for s in range(rank):
            for p in range(width):
                d_value[b, t, h, s, p] = skip[h] * d_y[b, t, h, s, p]
            for r in range(rank):
                own, d_mix = skip[h] * 0, skip[h] * 0
                for n in range(query.shape[4]):
                    own += query[b, t, h, r, n] * key[b, t, h, s, n]
                mix = -ahead[b, t, h] * own
                for p in range(width):
                    d_mix += d_y[b, t, h, r, p] * value[b, t, h, s, p]
                    d_value[b, t, h, s, p] += mix * d_y[b, t, h, r, p]
                if r == s:
                    of_skip += d_mix
                of_ahead -= own * d_mix
                d_own[t, r, s] = -ahead[b, t, h] * d_mix
        d_ahead[b, t, h] = of_ahead
    return of_skip


@njit(nogil=True, cache=True, fastmath=REORDER)
def _finish_gradients(
    b: int,
    h: int,
    query: Array,
    key: Array,
    scale: Array,
    d_own: Array,
    d_query: Array,
    d_key: Array,
    d_scale: Array,
) -> None:
    """d_key of the scaled key to that of the key, and the share of q . k in both."""
    _, length, _, rank, size = query.shape
    for t in range(length):
        of_scale = scale[b, t, h] * 0
        for s in range(rank):
            for n in range(size):
                of_scale += d_key[b, t, h, s, n] * key[b, t, h, s, n]
                d_key[b, t, h, s, n] *= scale[b, t, h]
            for r in range(rank):
                for n in range(size):
                    d_query[b, t, h, r, n] += d_own[t, r, s] * key[b, t, h, s, n]
                    d_key[b, t, h, s, n] += d_own[t, r, s] * query[b, t, h, r, n]
        d_scale[b, t, h] = of_scale


@njit(nogil=True, cache=True, fastmath=REORDER)
def _backward_rows(
    first: int,
    last: int,
    query: Array,
    key: Array,
    value: Array,
    decay: Array,
    scale: Array,
    ahead: Array,
    skip: Array,
    wanted: Array,
    marks: Array,
    d_y: Array,  # (B, T, H, R, P)
    d_found: Array,  # (B, K, H, P, N)
    d_query: Array,  # (B, T, H, R, N)
    d_key: Array,  # (B, T, H, R, N)
    d_value: Array,  # (B, T, H, R, P)
    d_decay: Array,  # (B, T, H)
    d_scale: Array,  # (B, T, H)
    d_ahead: Array,  # (B, T, H)
    d_skip: Array,  # (B, H)
    d_start: Array,  # (B, H, P, N)
) -> None:
    _, length, heads, rank, width = value.shape
    size = query.shape[4]
    one = value.dtype.type(1)
    states = np.empty((min(STRETCH, length) + 1, size, width), value.dtype)
    d_state = np.empty((size, width), value.dtype)
    d_own = np.empty((length, rank, rank), value.dtype)
    for row in range(first, last):
        b, h = row // heads, row % heads
        d_skip[b, h] = _own_share_gradients(b, h, query, key, value, ahead, skip, d_y, d_value, d_ahead, d_own)
        d_state[:] = 0
        for stretch in range((length - 1) // STRETCH, -1, -1):
            begin = stretch * STRETCH
            end = min(begin + STRETCH, length)
            states[0] = marks[b, stretch, h]
            for t in range(begin, end):
                before, after, gain = states[t - begin], states[t - begin + 1], scale[b, t, h]
                _advance_to(after, before, decay[b, t, h], key[b, t, h, 0], gain, value[b, t, h, 0])
                for r in range(1, rank):
                    _advance(after, one, key[b, t, h, r], gain, value[b, t, h, r])
            for t in range(end - 1, begin - 1, -1):
                for i in range(wanted.shape[1]):
                    if wanted[b, i] == t:
                        d_state += d_found[b, i, h].T
                before, after = states[t - begin], states[t - begin + 1]
                a, gain = decay[b, t, h], scale[b, t, h]
                if rank == 1:
                    q, k, v = query[b, t, h, 0], key[b, t, h, 0], value[b, t, h, 0]
                    d_q, d_k, d_v = d_query[b, t, h, 0], d_key[b, t, h, 0], d_value[b, t, h, 0]
                    d_out = d_y[b, t, h, 0]
                    d_decay[b, t, h] = _step_gradients(after, before, d_state, q, k, gain, v, a, d_out, d_q, d_k, d_v)
                    continue
                for r in range(rank):
                    _read_gradients(after, d_state, query[b, t, h, r], d_y[b, t, h, r], d_query[b, t, h, r])
                for r in range(rank):
                    k, v = key[b, t, h, r], value[b, t, h, r]
                    _drive_gradients(d_state, k, gain, v, d_key[b, t, h, r], d_value[b, t, h, r])
                d_decay[b, t, h] = _decay_gradient(d_state, before, a)
        _finish_gradients(b, h, query, key, scale, d_own, d_query, d_key, d_scale)
        d_start[b, h] = d_state.T


class Mamba3Loop(torch.autograd.Function):
    """y (B, T, H, R, P) and h' after the wanted steps (B, K, H, P, N), from the arguments of `_forward_rows`."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        inputs = [x.detach().contiguous() for x in tensors]
        value, start, wanted = inputs[2], inputs[7], inputs[8]
        batch, length, heads = inputs[3].shape
        y = torch.empty_like(value)
        found = start.new_empty(batch, wanted.shape[1], *start.shape[1:])
        stretches = -(-length // STRETCH) if any(ctx.needs_input_grad) else 0
        marks = start.new_empty(batch, stretches, heads, start.shape[3], start.shape[2])
        arrays = [x.numpy() for x in (*inputs, y, found, marks)]
        share_out(batch * heads, lambda first, last: _forward_rows(first, last, *arrays))
        ctx.save_for_backward(*inputs[:7], wanted, marks)
        return y, found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_found: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        inputs = (*ctx.saved_tensors, d_y.contiguous(), d_found.contiguous())
        gradients = [torch.empty_like(x) for x in inputs[:6]]  # of query, key, value, decay, scale, ahead
        batch, _, heads = inputs[3].shape
        d_skip = d_y.new_empty(batch, heads)
        d_start = d_y.new_empty(batch, *d_found.shape[2:])
        arrays = [x.numpy() for x in (*inputs, *gradients, d_skip, d_start)]
        share_out(batch * heads, lambda first, last: _backward_rows(first, last, *arrays))
        return *gradients, d_skip.sum(0), d_start, None
