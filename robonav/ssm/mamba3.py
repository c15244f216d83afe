"""Mamba-3 (SISO), arXiv 2603.15569, in plain PyTorch: recurrence, parallel scan, and the layer.

Per head, with state h of shape P x N, decay alpha_t = exp(dt_t A_t) and lambda_t from the trapezoidal rule:

    theta_t = theta_{t-1} + pi tanh(phi_t) dt_t
    k_t, q_t = Rot(theta_t)(RMSNorm(B_t) + b_B), Rot(theta_t)(RMSNorm(C_t) + b_C)
    h_t = alpha_t h_{t-1} + (1 - lambda_t) dt_t alpha_t v_{t-1} k_{t-1}^T + lambda_t dt_t v_t k_t^T
    y_t = (h_t q_t + D v_t) * SiLU(z_t)

A reset at t forgets everything before t: alpha_t becomes 0, and with it the term in v_{t-1}. The angle theta is
carried on, since y depends on differences of theta alone.

Shape letters: B batch, T time, H heads, P head size, N state size, S rotated pairs, K requested states.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, ShapeError, explain

MIN_DECAY_RATE = 1e-4


class Mamba3State(NamedTuple):
    """What one layer carries from step to step; `key` and `value` are those of the last step."""

    theta: Tensor  # (B, H, S) rotation, wrapped to [-pi, pi)
    hidden: Tensor  # (B, H, P, N)
    key: Tensor  # (B, H, N) already rotated
    value: Tensor  # (B, H, P)


class ScanInput(NamedTuple):
    """The recurrence's inputs, already projected and rotated."""

    query: Tensor  # (B, T, H, N)
    key: Tensor  # (B, T, H, N)
    value: Tensor  # (B, T, H, P)
    log_decay: Tensor  # (B, T, H) dt A, at most 0
    here: Tensor  # (B, T, H) lambda dt, weight of this step's input
    before: Tensor  # (B, T, H) (1 - lambda) dt, weight of the last step's input, before decay


def wrap_phase(theta: Tensor) -> Tensor:
    """Wraps an angle to [-pi, pi), so that a day of steps loses no precision."""
    return theta - 2 * math.pi * torch.floor(theta / (2 * math.pi) + 0.5)


def rotate_pairs(x: Tensor, theta: Tensor) -> Tensor:
    """Rotates the first 2S entries of x (..., N) in adjacent pairs (2i, 2i + 1) by theta (..., S)."""
    pairs = theta.shape[-1]
    cos, sin = torch.cos(theta), torch.sin(theta)
    turned = x[..., : 2 * pairs].unflatten(-1, (pairs, 2))
    a, b = turned[..., 0], turned[..., 1]
    rotated = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    return torch.cat([rotated, x[..., 2 * pairs :]], dim=-1)


def recurrence_step(
    hidden: Tensor, last_key: Tensor, last_value: Tensor, inputs: ScanInput, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the recurrence; `inputs` without the T axis.

    Args:
        hidden: (B, H, P, N); last_key: (B, H, N); last_value: (B, H, P); reset: (B,) 1 where the past is dropped.

    Returns:
        y (B, H, P) and the new hidden state (B, H, P, N).
    """
    query, key, value, log_decay, here, before = inputs
    alpha = (torch.exp(log_decay) * (1 - reset)[:, None])[..., None, None]  # (B, H, 1, 1)
    past = hidden + (before[..., None] * last_value)[..., None] * last_key[..., None, :]  # (B, H, P, N)
    new = alpha * past + (here[..., None] * value)[..., None] * key[..., None, :]
    return (new @ query[..., None]).squeeze(-1), new


def recurrence(inputs: ScanInput, state: Mamba3State, reset: Tensor) -> tuple[Tensor, Tensor]:
    """The truth that `parallel_scan` is tested against: a loop over T of `recurrence_step`.

    Returns y (B, T, H, P) and all hidden states (B, T, H, P, N).
    """
    hidden, key, value = state.hidden, state.key, state.value
    ys, hiddens = [], []
    for t in range(reset.shape[1]):
        now = ScanInput(*(x[:, t] for x in inputs))
        y, hidden = recurrence_step(hidden, key, value, now, reset[:, t])
        key, value = now.key, now.value
        ys.append(y)
        hiddens.append(hidden)
    return torch.stack(ys, 1), torch.stack(hiddens, 1)


def parallel_scan(inputs: ScanInput, state: Mamba3State, reset: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence as masked matrix products over one chunk of any length T.

    With cs the cumulative log decay and seg the running count of resets, input s reaches step t > s with weight
    exp(cs_t - cs_s) scale_s, where scale_s = here_s + before_{s+1} [no reset at s + 1]; at t = s the second term
    is not there yet. The initial state counts for steps before the first reset.

    Args:
        wanted: (B, K) steps after which the hidden state is asked for.

    Returns:
        y (B, T, H, P) and the hidden states after the wanted steps (B, K, H, P, N).
    """
    query, key, value, log_decay, here, before = inputs
    length = reset.shape[1]
    cs = torch.cumsum(log_decay, dim=1).transpose(1, 2)  # (B, H, T)
    segment = torch.cumsum(reset, dim=1)  # (B, T)
    ahead = F.pad((before * (1 - reset)[..., None])[:, 1:], (0, 0, 0, 1)).transpose(1, 2)  # (B, H, T)
    scale = here.transpose(1, 2) + ahead
    step = torch.arange(length, device=reset.device)

    def weights(target: Tensor) -> Tensor:  # (B, K) -> (B, H, K, T) weight of input s in the state after step t
        reach = (step <= target[..., None]) & (segment[:, None] == segment.gather(1, target)[..., None])
        cs_target = cs.gather(2, target[:, None].expand(-1, cs.shape[1], -1))
        decay = torch.where(reach[:, None], cs_target[..., None] - cs[:, :, None], -torch.inf).exp()
        return decay * scale[:, :, None]

    # The exponent is finite or -inf, never inf - inf, and its gradient at -inf is exp(-inf) = 0.
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # (B, H, T, .)
    everything = step.expand(reset.shape[0], -1)
    attention = (q @ k.transpose(-1, -2)) * weights(everything)  # (B, H, T, T)
    y = attention @ v - ((q * k).sum(-1) * ahead)[..., None] * v  # (B, H, T, P)

    carried = state.hidden + (before[:, 0, :, None] * state.value)[..., None] * state.key[..., None, :]
    from_start = cs.exp() * (segment == 0)[:, None]  # (B, H, T)
    y = y + from_start[..., None] * (q @ carried.transpose(-1, -2))

    own = F.one_hot(wanted, length).to(cs.dtype)[:, None] * ahead[:, :, None]  # (B, H, K, T)
    mix = weights(wanted) - own
    hidden = torch.einsum("bhkt,bhtp,bhtn->bkhpn", mix, v, k)
    start = from_start.gather(2, wanted[:, None].expand(-1, cs.shape[1], -1)).transpose(1, 2)  # (B, K, H)
    return y.transpose(1, 2), hidden + start[..., None, None] * carried[:, None]


def inverse_softplus(x: Tensor) -> Tensor:
    """x such that softplus(result) = x, for x > 0."""
    return x + torch.log(-torch.expm1(-x))


class Mamba3(nn.Module):
    """Mamba-3 layer. Projection order and parameter names are those of the public module.

    Args:
        d_model: width D of input and output.
        d_state: state size N of a head.
        expand: inner width over D.
        headdim: head size P; must divide expand * D.
        rope_fraction: share of the state that rotates.
        chunk: longest stretch that is scanned in one matrix product.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        expand: float = 1.0,
        headdim: int = 64,
        rope_fraction: float = 0.5,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        if headdim < 1 or inner % headdim:
            raise ConfigError(explain("backbone.headdim", f"a divisor of expand * d_model = {inner}", headdim))
        self.d_model, self.d_state, self.inner, self.headdim, self.chunk = d_model, d_state, inner, headdim, chunk
        self.heads = inner // headdim
        rotated = int(d_state * rope_fraction)
        self.pairs = (rotated - rotated % 2) // 2
        if self.pairs < 1:
            raise ConfigError(explain("backbone.d_state * rope_fraction", "at least 2", d_state * rope_fraction))
        self.split = [inner, inner, d_state, d_state, self.heads, self.heads, self.heads, self.pairs]
        self.in_proj = nn.Linear(d_model, sum(self.split), bias=False)
        dt = torch.exp(torch.empty(self.heads).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(inverse_softplus(dt))
        self.B_bias = nn.Parameter(torch.ones(self.heads, 1, d_state))
        self.C_bias = nn.Parameter(torch.ones(self.heads, 1, d_state))
        self.B_norm = nn.RMSNorm(d_state, eps=1e-5)
        self.C_norm = nn.RMSNorm(d_state, eps=1e-5)
        self.D = nn.Parameter(torch.ones(self.heads))
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def initial_state(self, batch: int) -> Mamba3State:
        """Zeros, on the layer's device and in its dtype."""
        zeros = self.D.new_zeros
        return Mamba3State(
            zeros(batch, self.heads, self.pairs),
            zeros(batch, self.heads, self.headdim, self.d_state),
            zeros(batch, self.heads, self.d_state),
            zeros(batch, self.heads, self.headdim),
        )

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x (..., D) to gate z, value v (..., H, P), B and C (..., N), dt A, lambda dt, (1 - lambda) dt, turn."""
        z, v, b, c, dd_dt, dd_a, trap, angle = self.in_proj(x).split(self.split, dim=-1)
        dt = F.softplus(dd_dt + self.dt_bias)  # (..., H)
        rate = torch.where(dd_a >= 0, 1 + dd_a, 1 / (1 - dd_a.clamp(max=0))).clamp(min=MIN_DECAY_RATE)
        lam = torch.sigmoid(trap)
        turn = math.pi * torch.tanh(angle)[..., None, :] * dt[..., None]  # (..., H, S)
        heads = (*x.shape[:-1], self.heads, self.headdim)
        return z, v.reshape(heads), self.B_norm(b), self.C_norm(c), -dt * rate, lam * dt, (1 - lam) * dt, turn

    def _rotated(self, b: Tensor, c: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """B, C (..., N) with their head biases, rotated by theta (..., H, S): key, query (..., H, N)."""
        key = rotate_pairs(b[..., None, :] + self.B_bias[:, 0], theta)
        return key, rotate_pairs(c[..., None, :] + self.C_bias[:, 0], theta)

    def _output(self, y: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """Skip, gate, and projection back to D."""
        return self.out_proj((y + self.D[:, None] * v).flatten(-2) * F.silu(z))

    def step(self, x: Tensor, state: Mamba3State, reset: Tensor | None = None) -> tuple[Tensor, Mamba3State]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        if reset is None:
            reset = x.new_zeros(x.shape[0])
        z, v, b, c, log_decay, here, before, turn = self._project(x)
        theta = wrap_phase(state.theta + turn)
        key, query = self._rotated(b, c, theta)
        inputs = ScanInput(query, key, v, log_decay, here, before)
        y, hidden = recurrence_step(state.hidden, state.key, state.value, inputs, reset)
        return self._output(y, v, z), Mamba3State(theta, hidden, key, v)

    def scan(
        self, x: Tensor, state: Mamba3State, reset: Tensor, wanted: Tensor | None = None
    ) -> tuple[Tensor, Mamba3State]:
        """A whole sequence at once; equals T calls of `step`.

        Args:
            x: (B, T, D); reset: (B, T), 1 where the past is dropped before that step.
            wanted: (B, K) steps after which the state is asked for; by default the last one.

        Returns:
            y (B, T, D), and the state after step T - 1, or states (B * K, ...) after the wanted steps.
        """
        batch, length, _ = x.shape
        if reset.shape != (batch, length):
            raise ShapeError(explain("reset", (batch, length), tuple(reset.shape)))
        z, v, b, c, log_decay, here, before, turn = self._project(x)
        theta = wrap_phase(state.theta[:, None] + torch.cumsum(turn, dim=1))  # (B, T, H, S)
        key, query = self._rotated(b, c, theta)
        inputs = ScanInput(query, key, v, log_decay, here, before)
        at = torch.full((batch, 1), length - 1, device=x.device) if wanted is None else wanted
        y, hidden = self._scan_chunks(inputs, theta, state, reset, at)
        rows = torch.arange(batch, device=x.device)[:, None]
        states = Mamba3State(theta[rows, at], hidden, key[rows, at], v[rows, at])
        return self._output(y, v, z), Mamba3State(*(s.flatten(0, 1) for s in states))

    def _scan_chunks(
        self, inputs: ScanInput, theta: Tensor, state: Mamba3State, reset: Tensor, at: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scans chunk after chunk, each starting from the last one's state; picks the wanted hidden states."""
        length = reset.shape[1]
        ys: list[Tensor] = []
        wanted_hidden: Tensor | None = None
        for begin in range(0, length, self.chunk):
            end = min(begin + self.chunk, length)
            piece = ScanInput(*(i[:, begin:end] for i in inputs))
            inside = (at - begin).clamp(0, end - begin - 1)
            last = torch.full_like(at[:, :1], end - begin - 1)
            y, hidden = parallel_scan(piece, state, reset[:, begin:end], torch.cat([inside, last], dim=1))
            ys.append(y)
            picked, final = hidden[:, :-1], hidden[:, -1]
            here = (at >= begin)[..., None, None, None]
            wanted_hidden = picked if wanted_hidden is None else torch.where(here, picked, wanted_hidden)
            state = Mamba3State(theta[:, end - 1], final, piece.key[:, -1], piece.value[:, -1])
        assert wanted_hidden is not None  # T >= 1
        return torch.cat(ys, dim=1), wanted_hidden
