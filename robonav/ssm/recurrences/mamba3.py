"""Mamba-3's recurrence (arXiv 2603.15569), of any rank: the scalar-decay recurrence under the trapezoidal rule.

    h_t = alpha_t h_{t-1} + (1 - lambda_t) dt_t alpha_t sum_r v_{t-1}^(r) k_{t-1}^(r)^T
          + lambda_t dt_t sum_r v_t^(r) k_t^(r)^T
    y_t^(r) = h_t q_t^(r) + D v_t^(r)

with alpha_t = exp(dt_t A_t). A reset at t makes alpha_t 0, and with it the term in v_{t-1}. Keys and queries come
rotated. Rank R is 1 for SISO; for MIMO v^(r) is x weighted channel by channel, and the state keeps its size.

Shape letters: B batch, T time, R rank, H heads, P head size, N state size, K wanted states.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from robonav.ssm.recurrences.ssd import CHUNK, Backend, SSDInput, _has_numba, _suits_loop, ssd_scan


class Mamba3Input(NamedTuple):
    """The recurrence's inputs, already projected and rotated."""

    query: Tensor  # (B, T, R, H, N)
    key: Tensor  # (B, T, R, H, N)
    value: Tensor  # (B, T, R, H, P)
    log_decay: Tensor  # (B, T, H) dt A, at most 0
    here: Tensor  # (B, T, H) lambda dt, weight of this step's input
    before: Tensor  # (B, T, H) (1 - lambda) dt, weight of the last step's input, before decay


class Mamba3Carry(NamedTuple):
    """What a step needs of the past."""

    hidden: Tensor  # (B, H, P, N)
    key: Tensor  # (B, R, H, N) of the last step
    value: Tensor  # (B, R, H, P) of the last step


def mamba3_step(carry: Mamba3Carry, inputs: Mamba3Input, skip: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """One step, `inputs` without the T axis: y (B, R, H, P) and the new hidden state (B, H, P, N).

    Args:
        skip: (H,) D; reset: (B,) 1 where the past is dropped.
    """
    query, key, value, log_decay, here, before = inputs
    alpha = torch.exp(log_decay) * (1 - reset)[:, None]  # (B, H)
    # The inputs of this step and the last are one product of 2R columns. It and the state are kept N-major in memory
    # (a transposed view): the inner loops run over P, which is longer than N.
    keys = torch.cat([key, carry.key], dim=1)  # (B, 2R, H, N)
    weights = torch.stack([here, before * alpha], dim=1)  # (B, 2, H)
    values = torch.cat([weights[:, :1, :, None] * value, weights[:, 1:, :, None] * carry.value], dim=1)  # (B, 2R, H, P)
    drive = (keys.permute(0, 2, 3, 1) @ values.transpose(1, 2)).transpose(-1, -2)  # (B, H, P, N)
    new = torch.addcmul(drive, alpha[..., None, None], carry.hidden)
    y = (query.transpose(1, 2) @ new.transpose(-1, -2)).transpose(1, 2)  # (B, R, H, P)
    return torch.addcmul(y, skip[:, None], value), new


def mamba3_recurrence(carry: Mamba3Carry, inputs: Mamba3Input, skip: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """The truth: a loop over T of `mamba3_step`. Returns y (B, T, R, H, P) and all hidden states (B, T, H, P, N)."""
    ys, hiddens = [], []
    for t in range(reset.shape[1]):
        now = Mamba3Input(*(x[:, t] for x in inputs))
        y, hidden = mamba3_step(carry, now, skip, reset[:, t])
        carry = Mamba3Carry(hidden, now.key, now.value)
        ys.append(y)
        hiddens.append(hidden)
    return torch.stack(ys, 1), torch.stack(hiddens, 1)


def suits_step_loop(x: Tensor) -> bool:
    """Whether the compiled step (`mamba3_step_cpu`) can run on x: a processor, and no gradient asked for."""
    cpu = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and _has_numba()


def mamba3_scan(
    carry: Mamba3Carry,
    inputs: Mamba3Input,
    skip: Tensor,
    reset: Tensor,
    wanted: Tensor | None = None,
    chunk: int = CHUNK,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """The recurrence in parallel, on `ssd_scan`; any T from 1 up.

    Let ahead_t = before_{t+1} (1 - reset_{t+1}) be the weight with which input t comes back a step later, 0 at the last
    step. Then h'_t = h_t + ahead_t v_t k_t^T obeys h'_t = alpha_t h'_{t-1} + (here_t + ahead_t) v_t k_t^T: the SSD
    recurrence, started from h_{-1} + before_0 v_{-1} k_{-1}^T.

    Args:
        skip: (H,) D; reset: (B, T), 1 where the past is dropped before that step.
        wanted: (B, K) steps after which the hidden state is asked for; by default the last one.
        chunk: longest stretch that is one matrix product, where the form has chunks.
        backend: see `ssd_scan`; "auto" takes the compiled loop on a processor.

    Returns:
        y (B, T, R, H, P) and the hidden states after the wanted steps (B, K, H, P, N).
    """
    query, key, value, log_decay, here, before = inputs
    ahead = F.pad((before * (1 - reset)[..., None])[:, 1:], (0, 0, 0, 1))  # (B, T, H)
    start = carry.hidden + torch.einsum("bh,brhp,brhn->bhpn", before[:, 0], carry.value, carry.key)
    if backend == "loop" or (backend == "auto" and _suits_loop(SSDInput(query, key, value, log_decay))):
        y, hidden = _compiled_loop(inputs, ahead, start, skip, reset, wanted)
    else:
        scaled_key = (here + ahead)[:, :, None, :, None] * key  # cheaper than scaled values: N is smaller than P
        share = max(chunk // query.shape[2], 1)  # a step is R rows of the product
        y, hidden = ssd_scan(SSDInput(query, scaled_key, value, log_decay), start, reset, wanted, share, backend)
        y = y + _own_share(query, key, value, ahead, skip)
    if wanted is None:  # nothing is ahead of the last step
        return y, hidden
    rows = torch.arange(reset.shape[0], device=reset.device)[:, None]
    at = (rows, wanted)
    return y, hidden - torch.einsum("bkh,bkrhp,bkrhn->bkhpn", ahead[at], value[at], key[at])


def _own_share(query: Tensor, key: Tensor, value: Tensor, ahead: Tensor, skip: Tensor) -> Tensor:
    """D v^(r) - ahead sum_s (q^(r) . k^(s)) v^(s), by which y differs from h' q: (B, T, R, H, P)."""
    if query.shape[2] == 1:
        own = (query * key).sum(-1)  # (B, T, 1, H)
        return (skip - ahead[:, :, None] * own)[..., None] * value
    query, key, value = (x.transpose(2, 3) for x in (query, key, value))  # (B, T, H, R, .)
    own = query @ key.transpose(-1, -2)  # (B, T, H, R, R)
    eye = torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
    mix = skip[:, None, None] * eye - ahead[..., None, None] * own
    return (mix @ value).transpose(2, 3)


def _compiled_loop(
    inputs: Mamba3Input, ahead: Tensor, start: Tensor, skip: Tensor, reset: Tensor, wanted: Tensor | None
) -> tuple[Tensor, Tensor]:
    from robonav.ssm.recurrences.mamba3_cpu import Mamba3Loop  # numba takes a second to import

    if wanted is None:
        wanted = torch.full((reset.shape[0], 1), reset.shape[1] - 1)
    query, key, value = (x.transpose(2, 3) for x in inputs[:3])  # (B, T, H, R, .)
    decay = torch.exp(inputs.log_decay) * (1 - reset)[..., None]
    y, hidden = Mamba3Loop.apply(query, key, value, decay, inputs.here + ahead, ahead, skip, start, wanted)
    return y.transpose(2, 3), hidden
