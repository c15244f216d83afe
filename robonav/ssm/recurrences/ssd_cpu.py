"""The SSD recurrence on a processor: the loop itself, compiled, with the state of a head in its cache.

For small states (N to about 64) the loop beats the chunked matrix products: no T x T masks, no copies, every number
read once. The backward pass recomputes the states of one stretch at a time from marks that the forward pass left, so
memory stays at one state a stretch. Rows (batch, head) are shared out to as many threads as torch uses.

Inside, a state is (N, P), so that the inner loops run over neighbouring numbers.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

STRETCH = 32  # steps between two marks
Array = np.ndarray[Any, Any]
# Sums may be reordered, so that they run in vector registers; NaN and infinities keep their meaning.
REORDER = {"reassoc", "contract", "nsz"}


@njit(nogil=True, cache=True, fastmath=REORDER)
def _advance(state: Array, decay: float, key: Array, value: Array) -> None:
    """state = decay state + key value^T, in its own place (one array: two that may overlap are not vectorised)."""
    size, width = state.shape
    for n in range(size):
        k = key[n]
        for p in range(width):
            state[n, p] = decay * state[n, p] + k * value[p]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _advance_to(new: Array, state: Array, decay: float, key: Array, value: Array) -> None:
    """new = decay state + key value^T."""
    size, width = state.shape
    for n in range(size):
        k = key[n]
        for p in range(width):
            new[n, p] = decay * state[n, p] + k * value[p]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _read(state: Array, query: Array, out: Array) -> None:
    """out = query state."""
    size, width = state.shape
    whole = size - size % 4
    out[:] = 0
    for n in range(0, whole, 4):
        q0, q1, q2, q3 = query[n], query[n + 1], query[n + 2], query[n + 3]
        for p in range(width):
            out[p] += q0 * state[n, p] + q1 * state[n + 1, p] + q2 * state[n + 2, p] + q3 * state[n + 3, p]
    for n in range(whole, size):
        q0 = query[n]
        for p in range(width):
            out[p] += q0 * state[n, p]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _forward_rows(
    first: int,
    last: int,
    query: Array,  # (B, T, G, R, N)
    key: Array,  # (B, T, G, R, N)
    value: Array,  # (B, T, H, R, P)
    decay: Array,  # (B, T, H) in [0, 1], 0 at a reset
    start: Array,  # (B, H, P, N)
    wanted: Array,  # (B, K)
    y: Array,  # (B, T, H, R, P)
    found: Array,  # (B, K, H, P, N)
    marks: Array,  # (B, stretches, H, N, P) or empty
) -> None:
    _, length, heads, rank, width = value.shape
    size = query.shape[4]
    share = heads // query.shape[2]
    one = value.dtype.type(1)
    state = np.empty((size, width), value.dtype)
    for row in range(first, last):
        b, h = row // heads, row % heads
        g = h // share
        state[:] = start[b, h].T
        for t in range(length):
            if marks.size and t % STRETCH == 0:
                marks[b, t // STRETCH, h] = state
            _advance(state, decay[b, t, h], key[b, t, g, 0], value[b, t, h, 0])
            for r in range(1, rank):
                _advance(state, one, key[b, t, g, r], value[b, t, h, r])
            for r in range(rank):
                _read(state, query[b, t, g, r], y[b, t, h, r])
            for k in range(wanted.shape[1]):
                if wanted[b, k] == t:
                    found[b, k, h] = state.T


@njit(nogil=True, cache=True, fastmath=REORDER)
def _read_gradients(state: Array, d_state: Array, query: Array, d_out: Array, d_query: Array) -> None:
    """Of `_read`: d_query = state d_out, and d_state += query d_out^T."""
    size, width = state.shape
    for n in range(size):
        q = query[n]
        total = query.dtype.type(0)
        for p in range(width):
            total += state[n, p] * d_out[p]
            d_state[n, p] += q * d_out[p]
        d_query[n] = total


@njit(nogil=True, cache=True, fastmath=REORDER)
def _drive_gradients(d_state: Array, key: Array, value: Array, d_key: Array, d_value: Array) -> None:
    """Of key value^T: d_key = d_state value, d_value = key d_state."""
    size, width = d_state.shape
    d_value[:] = 0
    for n in range(size):
        k = key[n]
        total = key.dtype.type(0)
        for p in range(width):
            total += d_state[n, p] * value[p]
            d_value[p] += d_state[n, p] * k
        d_key[n] = total


@njit(nogil=True, cache=True, fastmath=REORDER)
def _decay_gradient(d_state: Array, before: Array, decay: float) -> float:
    """Of decay * before: returns <d_state, before>, and takes d_state back over the decay."""
    size, width = d_state.shape
    total = before.dtype.type(0)
    for n in range(size):
        for p in range(width):
            total += d_state[n, p] * before[n, p]
            d_state[n, p] *= decay
    return total


@njit(nogil=True, cache=True, fastmath=REORDER)
def _step_gradients(
    after: Array,
    before: Array,
    d_state: Array,
    query: Array,
    key: Array,
    value: Array,
    decay: float,
    d_out: Array,
    d_query: Array,
    d_key: Array,
    d_value: Array,
) -> float:
    """The three above in one pass over the state, for rank 1; returns the decay's gradient."""
    size, width = d_state.shape
    d_decay = zero = key.dtype.type(0)
    d_value[:] = 0
    for n in range(size):
        q, k = query[n], key[n]
        d_q, d_k = zero, zero
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
def _backward_rows(
    first: int,
    last: int,
    query: Array,
    key: Array,
    value: Array,
    decay: Array,
    wanted: Array,
    marks: Array,
    d_y: Array,  # (B, T, H, R, P)
    d_found: Array,  # (B, K, H, P, N)
    d_query: Array,  # (B, T, H, R, N), a share a head
    d_key: Array,  # (B, T, H, R, N)
    d_value: Array,  # (B, T, H, R, P)
    d_decay: Array,  # (B, T, H)
    d_start: Array,  # (B, H, P, N)
) -> None:
    _, length, heads, rank, width = value.shape
    size = query.shape[4]
    share = heads // query.shape[2]
    one = value.dtype.type(1)
    states = np.empty((min(STRETCH, length) + 1, size, width), value.dtype)
    d_state = np.empty((size, width), value.dtype)
    for row in range(first, last):
        b, h = row // heads, row % heads
        g = h // share
        d_state[:] = 0
        for stretch in range((length - 1) // STRETCH, -1, -1):
            begin = stretch * STRETCH
            end = min(begin + STRETCH, length)
            states[0] = marks[b, stretch, h]
            for t in range(begin, end):
                before, after = states[t - begin], states[t - begin + 1]
                _advance_to(after, before, decay[b, t, h], key[b, t, g, 0], value[b, t, h, 0])
                for r in range(1, rank):
                    _advance(after, one, key[b, t, g, r], value[b, t, h, r])
            for t in range(end - 1, begin - 1, -1):
                for w in range(wanted.shape[1]):
                    if wanted[b, w] == t:
                        d_state += d_found[b, w, h].T
                before, after, a = states[t - begin], states[t - begin + 1], decay[b, t, h]
                if rank == 1:
                    q, k, v = query[b, t, g, 0], key[b, t, g, 0], value[b, t, h, 0]
                    d_q, d_k, d_v = d_query[b, t, h, 0], d_key[b, t, h, 0], d_value[b, t, h, 0]
                    d_decay[b, t, h] = _step_gradients(
                        after, before, d_state, q, k, v, a, d_y[b, t, h, 0], d_q, d_k, d_v
                    )
                    continue
                for r in range(rank):
                    _read_gradients(after, d_state, query[b, t, g, r], d_y[b, t, h, r], d_query[b, t, h, r])
                for r in range(rank):
                    d_k, d_v = d_key[b, t, h, r], d_value[b, t, h, r]
                    _drive_gradients(d_state, key[b, t, g, r], value[b, t, h, r], d_k, d_v)
                d_decay[b, t, h] = _decay_gradient(d_state, before, a)
        d_start[b, h] = d_state.T


@functools.cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "ssd")


def share_out(rows: int, work: Callable[[int, int], None]) -> None:
    """Runs work(first, last) over all rows, on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), rows)
    if threads <= 1:
        work(0, rows)
        return
    bounds = [rows * i // threads for i in range(threads + 1)]
    list(_pool(os.getpid(), threads).map(work, bounds[:-1], bounds[1:]))  # of this process: threads end at a fork


class SSDLoop(torch.autograd.Function):
    """y and wanted states from query, key (B, T, G, R, N), value (B, T, H, R, P), decay (B, T, H), start, wanted."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        *floats, wanted = tensors
        query, key, value, decay, start = (x.detach().contiguous() for x in floats)
        batch, length, heads = decay.shape
        size, width = query.shape[-1], value.shape[-1]
        y = torch.empty_like(value)
        found = value.new_zeros(batch, wanted.shape[1], heads, width, size)
        stretches = -(-length // STRETCH) if any(ctx.needs_input_grad) else 0
        marks = value.new_empty(batch, stretches, heads, size, width)
        arrays = [x.numpy() for x in (query, key, value, decay, start, wanted.contiguous(), y, found, marks)]
        share_out(batch * heads, lambda first, last: _forward_rows(first, last, *arrays))
        ctx.save_for_backward(query, key, value, decay, wanted, marks)
        return y, found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_found: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        query, key, value, decay, wanted, marks = ctx.saved_tensors
        batch, length, heads, rank, width = value.shape
        groups, size = query.shape[2], query.shape[-1]
        d_query = query.new_empty(batch, length, heads, rank, size)
        d_key, d_value, d_decay = torch.empty_like(d_query), torch.empty_like(value), torch.empty_like(decay)
        d_start = value.new_empty(batch, heads, width, size)
        inputs = (query, key, value, decay, wanted.contiguous(), marks, d_y.contiguous(), d_found.contiguous())
        arrays = [x.numpy() for x in (*inputs, d_query, d_key, d_value, d_decay, d_start)]
        share_out(batch * heads, lambda first, last: _backward_rows(first, last, *arrays))
        if groups != heads:  # heads of a group share their query and key
            d_query, d_key = (x.unflatten(2, (groups, heads // groups)).sum(3) for x in (d_query, d_key))
        return d_query, d_key, d_value, d_decay, d_start, None
