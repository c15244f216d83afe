"""The scalar-decay linear recurrence of Mamba-2 (SSD, arXiv 2405.21060), of any rank: the core of Mamba-2 and -3.

    h_t = exp(log_decay_t) (1 - reset_t) h_{t-1} + sum_r v_t^(r) k_t^(r)^T
    y_t^(r) = h_t q_t^(r)

Step sizes are folded into the values. Rank R is 1 but for Mamba-3 MIMO. Queries and keys come in G groups, each shared
by H / G neighbouring heads. Mamba-3's trapezoidal rule is this recurrence with rescaled values (recurrences.mamba3).

Shape letters: B batch, T time, R rank, G groups, H heads, P head size, N state size, K wanted states.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robonav.errors import ConfigError, MissingDependencyError, explain

LOG_DECAY_FLOOR = {torch.float64: -60.0}  # below it nothing is left, and sums of decays would lose digits
LOG_DECAY_FLOOR_FLOAT32 = -25.0
CHUNK = 64
LOOP_STATE = 64 * 64  # largest P N for which the compiled loop is the faster form
Backend = Literal["auto", "loop", "chunks", "triton"]


class SSDInput(NamedTuple):
    """The recurrence's inputs, already projected."""

    query: Tensor  # (B, T, R, G, N)
    key: Tensor  # (B, T, R, G, N)
    value: Tensor  # (B, T, R, H, P) times the step size
    log_decay: Tensor  # (B, T, H), at most 0


def ssd_step(hidden: Tensor, inputs: SSDInput, reset: Tensor) -> tuple[Tensor, Tensor]:
    """One step, `inputs` without the T axis: y (B, R, H, P) and the new hidden state (B, H, P, N).

    Args:
        hidden: (B, H, P, N); reset: (B,) 1 where the past is dropped.
    """
    heads = hidden.shape[1]
    query, key = (x.repeat_interleave(heads // x.shape[-2], dim=-2) for x in inputs[:2])  # (B, R, H, N)
    alpha = (torch.exp(inputs.log_decay) * (1 - reset)[:, None])[..., None, None]  # (B, H, 1, 1)
    drive = torch.einsum("brhp,brhn->bhpn", inputs.value, key)
    new = alpha * hidden + drive  # (B, H, P, N)
    return torch.einsum("bhpn,brhn->brhp", new, query), new


def ssd_recurrence(inputs: SSDInput, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """The truth: a loop over T of `ssd_step`. Returns y (B, T, R, H, P) and all hidden states (B, T, H, P, N)."""
    ys, hiddens = [], []
    for t in range(reset.shape[1]):
        y, hidden = ssd_step(hidden, SSDInput(*(x[:, t] for x in inputs)), reset[:, t])
        ys.append(y)
        hiddens.append(hidden)
    return torch.stack(ys, 1), torch.stack(hiddens, 1)


def ssd_scan(
    inputs: SSDInput,
    hidden: Tensor,
    reset: Tensor,
    wanted: Tensor | None = None,
    chunk: int = CHUNK,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """The recurrence over a sequence of any length from 1 up, in the form that suits the device.

    Args:
        inputs: see `SSDInput`; hidden: (B, H, P, N); reset: (B, T), 1 where the past is dropped before that step.
        wanted: (B, K) steps after which the hidden state is asked for; by default the last one.
        chunk: longest stretch that is one matrix product, where the form has chunks.
        backend: "auto" takes the compiled loop on a processor (where numba is installed and the state is small), the
            Triton kernels on CUDA, and else "chunks", the masked matrix products in PyTorch.

    Returns:
        y (B, T, R, H, P) and the hidden states after the wanted steps (B, K, H, P, N).

    Raises:
        ConfigError, ShapeError, MissingDependencyError: the backend asked for cannot run on these tensors or here.
    """
    if wanted is None:
        wanted = torch.full((reset.shape[0], 1), reset.shape[1] - 1, device=reset.device)
    if backend == "triton" or (backend == "auto" and _suits_kernels(inputs, hidden)):
        from robonav.ssm.kernels.scan import ssd_scan_cuda  # triton is not everywhere

        return ssd_scan_cuda(inputs, hidden, reset, wanted)
    if backend == "loop" or (backend == "auto" and _suits_loop(inputs)):
        return _compiled_loop(inputs, hidden, reset, wanted)
    return ssd_chunks(inputs, hidden, reset, wanted, chunk)


def _suits_kernels(inputs: SSDInput, hidden: Tensor) -> bool:
    """Whether the Triton kernels take these tensors."""
    if not inputs.value.is_cuda or torch.compiler.is_compiling():
        return False
    from robonav.ssm.kernels.dispatch import use_kernels

    return use_kernels("auto", {**inputs._asdict(), "hidden": hidden}, rank=inputs.query.shape[2])


def _suits_loop(inputs: SSDInput) -> bool:
    """Whether the compiled loop can run, and is faster than matrix products."""
    value = inputs.value
    return (
        value.device.type == "cpu"
        and value.dtype in (torch.float32, torch.float64)
        and value.shape[-1] * inputs.key.shape[-1] <= LOOP_STATE
        and not torch.compiler.is_compiling()
        and _has_numba()
    )


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def _compiled_loop(inputs: SSDInput, hidden: Tensor, reset: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    if not _has_numba():
        raise MissingDependencyError("ssd_scan(backend='loop'): needs numba; pip install 'robonav[train]'")
    if inputs.value.device.type != "cpu":
        raise ConfigError(explain("backend='loop'", "tensors on cpu", inputs.value.device, "use 'auto'"))
    from robonav.ssm.recurrences.ssd_cpu import SSDLoop  # numba takes a second to import

    query, key, value, log_decay = inputs
    decay = log_decay.exp() * (1 - reset)[..., None]
    query, key, value = (x.transpose(2, 3) for x in (query, key, value))
    y, found = SSDLoop.apply(query, key, value, decay, hidden, wanted)
    return y.transpose(2, 3), found


def ssd_chunks(
    inputs: SSDInput, hidden: Tensor, reset: Tensor, wanted: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """`ssd_scan` as masked matrix products over stretches of at most `chunk` steps."""
    length = reset.shape[1]
    ys: list[Tensor] = []
    found: Tensor | None = None
    for begin in range(0, length, chunk):
        end = min(begin + chunk, length)
        piece = SSDInput(*(x[:, begin:end] for x in inputs))
        inside = (wanted - begin).clamp(0, end - begin - 1)
        last = torch.full_like(wanted[:, :1], end - begin - 1)
        y, hiddens = _one_chunk(piece, hidden, reset[:, begin:end], torch.cat([inside, last], dim=1))
        ys.append(y)
        picked, hidden = hiddens[:, :-1], hiddens[:, -1]
        here = (wanted >= begin)[..., None, None, None]
        found = picked if found is None else torch.where(here, picked, found)
    assert found is not None  # T >= 1
    return torch.cat(ys, dim=1), found


def _one_chunk(inputs: SSDInput, hidden: Tensor, reset: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Input s reaches step t >= s with weight exp(cs_t - cs_s) where no reset lies between them."""
    query, key, value, log_decay = inputs
    heads, length = log_decay.shape[-1], reset.shape[1]
    floor = LOG_DECAY_FLOOR.get(log_decay.dtype, LOG_DECAY_FLOOR_FLOAT32)
    cs = torch.cumsum(log_decay.clamp(min=floor), dim=1).transpose(1, 2)  # (B, H, T)
    segment = torch.cumsum(reset, dim=1)  # (B, T)
    step = torch.arange(length, device=reset.device)

    def weights(target: Tensor) -> Tensor:  # (B, K) -> (B, H, K, T) weight of input s in the state after step t
        reach = (step <= target[..., None]) & (segment[:, None] == segment.gather(1, target)[..., None])
        cs_target = cs.gather(2, target[:, None].expand(-1, heads, -1))
        return torch.where(reach[:, None], cs_target[..., None] - cs[:, :, None], -torch.inf).exp()

    # The exponent is finite or -inf, never inf - inf, and its gradient at -inf is exp(-inf) = 0.
    mask = weights(step.expand(reset.shape[0], -1))
    query, key = (x.repeat_interleave(heads // x.shape[-2], dim=-2) for x in (query, key))
    score = torch.einsum("btrhn,bsqhn->bhtrsq", query, key) * mask[:, :, :, None, :, None]
    y = torch.einsum("bhtrsq,bsqhp->btrhp", score, value)
    from_start = cs.exp() * (segment == 0)[:, None]  # (B, H, T)
    y = y + torch.einsum("btrhn,bhpn,bht->btrhp", query, hidden, from_start)
    new = torch.einsum("bhkt,btrhp,btrhn->bkhpn", weights(wanted), value, key)
    start = from_start.gather(2, wanted[:, None].expand(-1, heads, -1)).transpose(1, 2)  # (B, K, H)
    return y, new + start[..., None, None] * hidden[:, None]
