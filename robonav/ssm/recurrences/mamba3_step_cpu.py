"""Mamba-3's step on a processor, without gradients: from the input projection to y, in one pass over the state.

For many latents a step is bound by the bytes it moves, for one by the number of calls. So everything between the two
projections but the gate is done here, a head at a time, while its numbers are in the cache.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from robonav.ssm.recurrences.ssd_cpu import REORDER, Array, share_out


class StepInput(NamedTuple):
    """Tensors of `step_loop`, all of one dtype."""

    projected: Tensor  # (B, W) z (H P), x (H P), B and C (R G N each), d, a, u (H each), phi (S), in these columns
    reset: Tensor  # (B,)
    dt_bias: Tensor  # (H,)
    norm: Tensor  # (2, N) weights of B's and C's RMSNorm
    bias: Tensor  # (2, H, R, N) of B and C
    mimo_x: Tensor  # (H, R, P)
    skip: Tensor  # (H,)
    theta: Tensor  # (B, H, S)
    hidden: Tensor  # (B, H, P, N)
    last_key: Tensor  # (B, R, H, N)
    last_x: Tensor  # (B, H, P)


@njit(nogil=True, cache=True)
def _softplus(x: float) -> float:
    return x if x > 20 else np.log1p(np.exp(x))


@njit(nogil=True, cache=True, fastmath=REORDER)
def _step_rows(
    first: int,
    last: int,
    groups: int,
    halves: bool,
    rational: bool,
    eps: float,
    least_rate: float,
    projected: Array,
    reset: Array,
    dt_bias: Array,
    norm: Array,
    bias: Array,
    mimo_x: Array,
    skip: Array,
    theta: Array,
    hidden: Array,  # (B, H, N, P)
    last_key: Array,
    last_x: Array,
    y: Array,  # (B, R, H, P)
    angle: Array,  # (B, H, S)
    new: Array,  # (B, H, N, P)
    key: Array,  # (B, R, H, N)
    x: Array,  # (B, H, P)
) -> None:
    # Slices of arrays are avoided: each costs about as much as a head's rotation.
    _, heads, size, width = hidden.shape
    rank, pairs = key.shape[1], theta.shape[2]
    step, far = (1, size // 2) if halves else (2, 1)  # pairs (step i, step i + far)
    one, pi = hidden.dtype.type(1), hidden.dtype.type(math.pi)
    normed = np.empty((2, rank, groups, size), hidden.dtype)
    rate_of_turn = np.empty(pairs, hidden.dtype)
    query = np.empty((rank, size), hidden.dtype)
    value = np.empty((rank, width), hidden.dtype)
    last_value = np.empty((rank, width), hidden.dtype)
    for b in range(first, last):
        column = 2 * heads * width
        for c in range(2):
            for r in range(rank):
                for g in range(groups):
                    square = eps
                    for n in range(size):
                        square += projected[b, column + n] * projected[b, column + n] / size
                    scale = one / np.sqrt(square)
                    for n in range(size):
                        normed[c, r, g, n] = projected[b, column + n] * scale * norm[c, n]
                    column += size
        for s in range(pairs):
            rate_of_turn[s] = pi * np.tanh(projected[b, column + 3 * heads + s])
        for h in range(heads):
            dt = _softplus(projected[b, column + h] + dt_bias[h])
            raw, trap = projected[b, column + heads + h], projected[b, column + 2 * heads + h]
            rate = (one + raw if raw >= 0 else one / (one - raw)) if rational else _softplus(raw)
            alpha = np.exp(-dt * max(rate, least_rate)) * (one - reset[b])
            here = dt / (one + np.exp(-trap))
            past = (dt - here) * alpha
            g = h // (heads // groups)
            for r in range(rank):
                for n in range(size):
                    key[b, r, h, n] = normed[0, r, g, n] + bias[0, h, r, n]
                    query[r, n] = normed[1, r, g, n] + bias[1, h, r, n]
            for s in range(pairs):
                turned = theta[b, h, s] + rate_of_turn[s] * dt
                turned -= 2 * pi * np.floor(turned / (2 * pi) + one / 2)
                angle[b, h, s] = turned
                i, j, cos, sin = step * s, step * s + far, np.cos(turned), np.sin(turned)
                for r in range(rank):
                    k_i, k_j, q_i, q_j = key[b, r, h, i], key[b, r, h, j], query[r, i], query[r, j]
                    key[b, r, h, i], key[b, r, h, j] = k_i * cos - k_j * sin, k_i * sin + k_j * cos
                    query[r, i], query[r, j] = q_i * cos - q_j * sin, q_i * sin + q_j * cos
            for p in range(width):
                x[b, h, p] = projected[b, (heads + h) * width + p]
            for r in range(rank):
                for p in range(width):
                    value[r, p] = x[b, h, p] * mimo_x[h, r, p]
                    last_value[r, p] = last_x[b, h, p] * mimo_x[h, r, p]
                for p in range(width):
                    y[b, r, h, p] = skip[h] * value[r, p]
            for n in range(size):
                k, k_last = here * key[b, 0, h, n], past * last_key[b, 0, h, n]
                for p in range(width):
                    new[b, h, n, p] = alpha * hidden[b, h, n, p] + k_last * last_value[0, p] + k * value[0, p]
                for r in range(1, rank):
                    k, k_last = here * key[b, r, h, n], past * last_key[b, r, h, n]
                    for p in range(width):
                        new[b, h, n, p] += k_last * last_value[r, p] + k * value[r, p]
                for r in range(rank):
                    q = query[r, n]
                    for p in range(width):
                        y[b, r, h, p] += q * new[b, h, n, p]


def step_loop(
    inputs: StepInput, groups: int, halves: bool, rational: bool, eps: float, least_rate: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y (B, R, H, P) before gate and norm, and the new theta, hidden state, key (B, R, H, N) and x (B, H, P).

    The new hidden state, like the old one where it comes from here, is a transposed view of (B, H, N, P) in memory.
    """
    inputs = inputs._replace(hidden=inputs.hidden.transpose(-1, -2))
    dtype = inputs.projected.dtype
    inputs = StepInput(*(x.detach().to(dtype).contiguous() for x in inputs))
    (batch, heads, size, width), rank = inputs.hidden.shape, inputs.bias.shape[2]
    theta, new, x = (torch.empty_like(old) for old in (inputs.theta, inputs.hidden, inputs.last_x))
    y, key = x.new_empty(batch, rank, heads, width), x.new_empty(batch, rank, heads, size)
    arrays = [tensor.numpy() for tensor in (*inputs, y, theta, new, key, x)]
    scalar = arrays[0].dtype.type
    choices = (groups, halves, rational, scalar(eps), scalar(least_rate))
    share_out(batch, lambda first, last: _step_rows(first, last, *choices, *arrays))
    return y, theta, new.transpose(-1, -2), key, x
