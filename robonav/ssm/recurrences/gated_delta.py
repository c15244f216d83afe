"""The gated delta rule (Gated DeltaNet, arXiv 2412.06464, equation 10): a memory that overwrites what it held at a key.

    h_t = alpha_t h_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T
    y_t = h_t q_t

with alpha_t = exp(log_decay_t) (1 - reset_t), keys of length one, and beta in (0, 1), or in (0, 2) to reach negative
eigenvalues (arXiv 2411.12537). With the correction u_t = beta_t (v_t - alpha_t h_{t-1} k_t) it reads

    h_t = alpha_t h_{t-1} + u_t k_t^T

so that, over a chunk with cumulative log decay cs, all corrections solve one unit lower triangular system, the UT
transform of a product of Householder-like matrices (section 3.3):

    u_t + beta_t sum_{s < t} exp(cs_t - cs_s) (k_t . k_s) u_s = beta_t v_t - beta_t exp(cs_t) h_0 k_t

Shape letters: B batch, T time, H heads, P value size, N key size, K wanted states, C chunks, L chunk length.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_DECAY_FLOOR = {torch.float64: -60.0}  # below it nothing is left, and sums of decays would lose digits
LOG_DECAY_FLOOR_FLOAT32 = -25.0
CHUNK = 64


class GatedDeltaInput(NamedTuple):
    """The recurrence's inputs, already projected; keys of length one."""

    query: Tensor  # (B, T, H, N)
    key: Tensor  # (B, T, H, N)
    value: Tensor  # (B, T, H, P)
    log_decay: Tensor  # (B, T, H), at most 0
    beta: Tensor  # (B, T, H), in (0, 2)


def gated_delta_step(hidden: Tensor, inputs: GatedDeltaInput, reset: Tensor) -> tuple[Tensor, Tensor]:
    """One step, `inputs` without the T axis: y (B, H, P) and the new hidden state (B, H, P, N).

    Args:
        hidden: (B, H, P, N); reset: (B,) 1 where the past is dropped.
    """
    query, key, value, log_decay, beta = inputs
    alpha = (torch.exp(log_decay) * (1 - reset)[:, None])[..., None, None]  # (B, H, 1, 1)
    past = alpha * hidden  # (B, H, P, N)
    # Rows times a transposed matrix: on a processor that takes a third of the time of a matrix times columns.
    held = (key[..., None, :] @ past.mT).squeeze(-2)  # (B, H, P)
    correction = beta[..., None] * (value - held)  # (B, H, P)
    new = torch.addcmul(past, correction[..., None], key[..., None, :])  # (B, H, P, N), with no copy of the product
    return (query[..., None, :] @ new.mT).squeeze(-2), new


def gated_delta_recurrence(inputs: GatedDeltaInput, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """The truth: a loop over T of `gated_delta_step`. Returns y (B, T, H, P) and all hidden states (B, T, H, P, N)."""
    ys, hiddens = [], []
    for t in range(reset.shape[1]):
        y, hidden = gated_delta_step(hidden, GatedDeltaInput(*(x[:, t] for x in inputs)), reset[:, t])
        ys.append(y)
        hiddens.append(hidden)
    return torch.stack(ys, 1), torch.stack(hiddens, 1)


def gated_delta_scan(
    inputs: GatedDeltaInput, hidden: Tensor, reset: Tensor, wanted: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The recurrence as one triangular solve and matrix products a chunk; any T from 1 up.

    Args:
        inputs: see `GatedDeltaInput`; hidden: (B, H, P, N); reset: (B, T), 1 where the past is dropped before a step.
        wanted: (B, K) steps after which the hidden state is asked for; by default the last one.
        chunk: longest stretch that is one triangular system.

    Returns:
        y (B, T, H, P) and the hidden states after the wanted steps (B, K, H, P, N).
    """
    length = reset.shape[1]
    chunk = min(chunk, length)
    # Steps that only fill up the last chunk have beta 0 and no decay: they leave the state as it is.
    query, key, value, log_decay, beta = (_chunks(x, chunk) for x in inputs)  # (B, C, H, L, ...)
    segment = torch.cumsum(_chunks(reset[..., None], chunk), dim=-1)  # (B, C, 1, L), counted within the chunk
    floor = LOG_DECAY_FLOOR.get(log_decay.dtype, LOG_DECAY_FLOOR_FLOAT32)
    cs = torch.cumsum(log_decay.clamp(min=floor), dim=-1)  # (B, C, H, L)

    # Weight of correction s in the state after step t. Masked before exp: never inf - inf, and no gradient at -inf.
    step = torch.arange(chunk, device=reset.device)
    reach = (step[:, None] >= step) & (segment[..., None] == segment[..., None, :])
    decay = torch.where(reach, cs[..., None] - cs[..., None, :], -torch.inf).exp()  # (B, C, H, L, L)
    from_start = torch.where(segment == 0, cs, -torch.inf).exp()  # (B, C, H, L)

    gain = beta[..., None]
    system = gain * (key @ key.mT) * decay  # the solver reads what is below the diagonal, and takes that as 1
    sides = torch.cat([gain * value, gain * from_start[..., None] * key], dim=-1)
    own, against = _solve(system, sides).split([value.shape[-1], key.shape[-1]], dim=-1)

    correction, starts, hidden = _carry(own, against, key, decay[..., -1, :], from_start[..., -1], hidden)
    y = (query @ key.mT * decay) @ correction + from_start[..., None] * (query @ starts.mT)
    y = y.transpose(2, 3).flatten(1, 2)[:, :length]  # (B, T, H, P)
    if wanted is None:
        return y, hidden[:, None]
    rows, where, inside = torch.arange(wanted.shape[0], device=wanted.device)[:, None], wanted // chunk, wanted % chunk
    weight = decay[rows, where, :, inside]  # (B, K, H, L)
    picked = (weight[..., None] * correction[rows, where]).mT @ key[rows, where]
    return y, picked + from_start[rows, where, :, inside][..., None, None] * starts[rows, where]


def _chunks(x: Tensor, chunk: int) -> Tensor:
    """(B, T, H, ...) to (B, C, H, L, ...), filled up with zeros."""
    fill = -x.shape[1] % chunk
    if fill:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, fill))
    return x.unflatten(1, (-1, chunk)).transpose(2, 3)


def _solve(system: Tensor, sides: Tensor) -> Tensor:
    """X with (I + strictly lower part of `system`) X = `sides`."""
    return torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)


def _carry(
    own: Tensor, against: Tensor, key: Tensor, to_end: Tensor, from_start: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Goes from chunk to chunk.

    Args:
        own: (B, C, H, L, P) corrections for a zero initial state; against: (B, C, H, L, N) what h_0 takes off them.
        to_end: (B, C, H, L) weight of a correction at the chunk's end; from_start: (B, C, H) that of its initial state.

    Returns:
        Corrections (B, C, H, L, P), each chunk's initial state (B, C, H, P, N), and the last state (B, H, P, N).
    """
    corrections, starts = [], []
    kept = to_end[..., None] * key
    for c in range(key.shape[1]):
        starts.append(hidden)
        correction = own[:, c] - against[:, c] @ hidden.mT
        corrections.append(correction)
        hidden = from_start[:, c, :, None, None] * hidden + correction.mT @ kept[:, c]
    return torch.stack(corrections, 1), torch.stack(starts, 1), hidden
