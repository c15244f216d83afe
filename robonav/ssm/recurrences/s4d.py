"""The time-invariant diagonal recurrence of S4D (arXiv 2206.11893), complex numbers as pairs of real tensors.

    h_t = decay (1 - reset_t) h_{t-1} + drive x_t          decay, drive from A and dt by zero-order hold
    y_t = 2 Re(sum over modes of C h_t)                    each mode stands for a conjugate pair

The parallel form splits the sequence into chunks. Inside one, y is a convolution, a Toeplitz matrix product a channel;
the state at a chunk's start reaches y, and the inputs reach the state at its end, through powers of the decay
(Vandermonde products). Only chunks follow one another. A reset starts a row of its own in these products, so that a
sequence without resets costs nothing for them, and nothing is subtracted that a reset should have dropped. Powers are
repeated products, as in the loop: an angle dt Im(A) t worked out at once would lose digits of a float32.

Inside the parallel form, channels come first and a complex number is a tensor of 2M, the M real parts first.

Shape letters: B batch, T time, D channels, M modes (half the real state size), L chunk, J chunks, R rows, K wanted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32  # at T 64, 16 costs the same and 64 nearly twice as much; longer ones mean fewer chunks in a row


class S4DState(NamedTuple):
    """Hidden state; other axes may come between the batch and the last two."""

    real: Tensor  # (B, D, M)
    imag: Tensor  # (B, D, M)


class S4DSystem(NamedTuple):
    """The discrete system, the same at all times; see `discretise`."""

    decay_real: Tensor  # (D, M)
    decay_imag: Tensor
    drive_real: Tensor  # (D, M) B is 1 in S4D: C carries its scale
    drive_imag: Tensor
    out_real: Tensor  # (D, M) C
    out_imag: Tensor


def discretise(a_real: Tensor, a_imag: Tensor, dt: Tensor, c_real: Tensor, c_imag: Tensor) -> S4DSystem:
    """Zero-order hold: decay exp(dt A), drive (exp(dt A) - 1) / A, without loss where dt A is small.

    Args:
        a_real, a_imag: A (D, M), its real part at most 0; dt: (D,); c_real, c_imag: C (D, M).
    """
    step = dt[:, None]
    real, imag = step * a_real, step * a_imag  # z = dt A
    scale, sine, cosine = torch.exp(real), torch.sin(imag / 2), torch.cos(imag / 2)
    turn = 2 * sine.square()  # 1 - cos(imag), to all digits
    decay_real, decay_imag = scale * (1 - turn), scale * (2 * sine * cosine)
    # (exp(z) - 1) / z: by the quotient, or, where that and above all its gradient cancel, by four terms of the series.
    less_one = torch.expm1(real) - scale * turn  # Re exp(z) - 1
    size = real.square() + imag.square()
    small = size < torch.finfo(size.dtype).eps ** 0.5
    over = 1 / torch.where(small, 1.0, size)
    square_real, square_imag = real.square() - imag.square(), 2 * real * imag
    cube_real, cube_imag = square_real * real - square_imag * imag, square_real * imag + square_imag * real
    series_real = 1 + real / 2 + square_real / 6 + cube_real / 24
    series_imag = imag / 2 + square_imag / 6 + cube_imag / 24
    drive_real = step * torch.where(small, series_real, (less_one * real + decay_imag * imag) * over)
    drive_imag = step * torch.where(small, series_imag, (decay_imag * real - less_one * imag) * over)
    return S4DSystem(decay_real, decay_imag, drive_real, drive_imag, c_real, c_imag)


def s4d_step(hidden: S4DState, x: Tensor, system: S4DSystem, reset: Tensor) -> tuple[Tensor, S4DState]:
    """One step: y (B, D) and the new hidden state.

    Args:
        hidden: (B, D, M) twice; x: (B, D); reset: (B,) 1 where the past is dropped.
    """
    real, imag = ((1 - reset)[:, None, None] * part for part in hidden)  # (B, D, M)
    drive_real, drive_imag = system.drive_real * x[..., None], system.drive_imag * x[..., None]
    new_real = torch.addcmul(drive_real, system.decay_real, real).addcmul(system.decay_imag, imag, value=-1)
    new_imag = torch.addcmul(drive_imag, system.decay_real, imag).addcmul(system.decay_imag, real)
    read = torch.addcmul(system.out_real * new_real, system.out_imag, new_imag, value=-1)
    return 2 * read.sum(-1), S4DState(new_real, new_imag)


def s4d_recurrence(x: Tensor, system: S4DSystem, hidden: S4DState, reset: Tensor) -> tuple[Tensor, S4DState]:
    """The truth: a loop over T of `s4d_step`. Returns y (B, T, D) and all hidden states (B, T, D, M)."""
    ys, hiddens = [], []
    for t in range(reset.shape[1]):
        y, hidden = s4d_step(hidden, x[:, t], system, reset[:, t])
        ys.append(y)
        hiddens.append(hidden)
    return torch.stack(ys, 1), S4DState(*(torch.stack(parts, 1) for parts in zip(*hiddens, strict=True)))


def s4d_scan(
    x: Tensor,
    system: S4DSystem,
    hidden: S4DState,
    reset: Tensor,
    wanted: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, S4DState]:
    """The recurrence as matrix products over chunks; any T from 1 up.

    Args:
        x: (B, T, D); system: see `S4DSystem`; hidden: (B, D, M) twice.
        reset: (B, T), 1 where the past is dropped before that step.
        wanted: (B, K) steps after which the hidden state is asked for; by default the last one.
        chunk: longest stretch that is one matrix product.

    Returns:
        y (B, T, D) and the hidden states after the wanted steps (B, K, D, M).
    """
    batch, length, width = x.shape
    size = min(chunk, length)
    chunks = -(-length // size)
    if wanted is None:
        wanted = torch.full((batch, 1), length - 1, device=x.device)
    pad = chunks * size - length
    pieces = F.pad(x.permute(2, 0, 1), (0, pad)).view(width, batch * chunks, size)
    segment = F.pad(reset, (0, pad)).view(batch, chunks, size).cumsum(dim=2)  # (B, J, L) resets so far in the chunk
    power, to_end, from_start, toeplitz = _matrices(system, size)

    # Each segment of each chunk is a row, zero outside of itself.
    counts = segment[..., -1].flatten().long() + 1
    ends = counts.cumsum(0)  # rows up to and with this chunk's
    source = torch.repeat_interleave(torch.arange(len(counts), device=x.device), counts)  # (R,)
    number = torch.arange(len(source), device=x.device) - (ends - counts)[source]  # of the segment in its chunk
    inside = (segment.flatten(0, 1)[source] == number[:, None]).to(x.dtype)  # (R, L)
    rows = pieces.index_select(1, source) * inside  # (D, R, L)
    mixed = rows @ torch.cat([toeplitz, to_end], dim=-1)  # (D, R, L + 2M)
    y = torch.zeros_like(pieces).index_add(1, source, mixed[..., :size] * inside)
    gained = mixed[..., size:].index_select(1, ends - 1).unflatten(1, (batch, chunks))  # by a chunk's last segment

    start = torch.cat(hidden, dim=-1).transpose(0, 1)  # (D, B, 2M)
    starts = _chunk_starts(start, power[:, -1], gained, segment[..., -1] == 0)  # (D, B, J, 2M)
    carried = starts.flatten(1, 2) @ from_start  # (D, B * J, L)
    y = y + carried * (segment == 0).flatten(0, 1)
    wanted = wanted.clamp(0, length - 1)
    found = _wanted_states(pieces.unflatten(1, (batch, chunks)), segment, starts, power, to_end, wanted)
    return y.view(width, batch, -1).permute(1, 2, 0)[:, :length].contiguous(), found


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Product of complex numbers (..., 2M), the M real parts first."""
    (p, q), (r, s) = a.chunk(2, dim=-1), b.chunk(2, dim=-1)
    return torch.cat([p * r - q * s, p * s + q * r], dim=-1)


def _read(c: Tensor) -> Tensor:
    """Weights (..., 2M) whose scalar product with h is 2 Re(c h)."""
    real, imag = c.chunk(2, dim=-1)
    return torch.cat([2 * real, -2 * imag], dim=-1)


def _matrices(system: S4DSystem, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a chunk is multiplied by, a channel each.

    Returns:
        powers 0 to L of the decay (D, L + 1, 2M); from inputs to the state at the end (D, L, 2M); from the state at
        the start to outputs (D, 2M, L); from inputs to outputs (D, L, L).
    """
    decay, drive, out = (torch.stack(system[i : i + 2], dim=1).flatten(1)[:, None] for i in (0, 2, 4))  # (D, 1, 2M)
    modes = system.decay_real.shape[-1]
    power = torch.cat([torch.ones_like(decay[..., :modes]), torch.zeros_like(decay[..., modes:])], dim=-1)
    power = torch.cat([power, decay], dim=1)
    while power.shape[1] <= size:  # doubling: powers 1 to n times power n
        power = torch.cat([power, _times(power[:, -1:], power[:, 1 : size + 2 - power.shape[1]])], dim=1)
    by_age = _times(drive, power[:, :-1])  # (D, L, 2M) an input in the state, so many steps later
    kernel = (by_age @ _read(out).transpose(1, 2)).squeeze(-1)  # (D, L)
    step = torch.arange(size, device=decay.device)
    age = step - step[:, None]  # (L from, L to)
    toeplitz = kernel[:, age.clamp(min=0)] * (age >= 0)
    from_start = _read(_times(out, power[:, 1:]))
    return power, by_age.flip(1), from_start.transpose(1, 2), toeplitz


def _chunk_starts(start: Tensor, decay: Tensor, gained: Tensor, whole: Tensor) -> Tensor:
    """States before each chunk (D, B, J, 2M), one after the other.

    Args:
        start: (D, B, 2M); decay: over a chunk (D, 2M); gained: (D, B, J, 2M) from the inputs of each chunk.
        whole: (B, J) true where no reset cuts the chunk.
    """
    starts = [start]
    for j in range(gained.shape[2] - 1):
        starts.append(_times(decay[:, None], starts[-1]) * whole[:, j, None] + gained[:, :, j])
    return torch.stack(starts, dim=2)


def _wanted_states(
    pieces: Tensor, segment: Tensor, starts: Tensor, power: Tensor, to_end: Tensor, wanted: Tensor
) -> S4DState:
    """States after the wanted steps (B, K): inputs of the same chunk and segment, and the chunk's start."""
    size = segment.shape[-1]
    row = torch.arange(len(wanted), device=wanted.device)[:, None]
    j, place = wanted // size, wanted % size
    source = place[..., None] - torch.arange(size - 1, -1, -1, device=wanted.device)  # (B, K, L) oldest first
    at = (row[..., None], j[..., None], source.clamp(min=0))
    now = segment[row, j, place]  # (B, K)
    counts = (source >= 0) & (segment[at] == now[..., None])
    inputs = pieces[:, at[0], at[1], at[2]] * counts  # (D, B, K, L)
    gained = (inputs.flatten(1, 2) @ to_end).unflatten(1, wanted.shape)  # (D, B, K, 2M)
    found = _times(power[:, place + 1], starts[:, row, j]) * (now == 0)[..., None] + gained
    return S4DState(*found.permute(1, 2, 0, 3).chunk(2, dim=-1))
