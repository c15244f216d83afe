"""Gated DeltaNet layer (arXiv 2412.06464): short convolutions, the gated delta rule, gated norm.

    q, k, v = SiLU(conv(q_proj u)), SiLU(conv(k_proj u)), SiLU(conv(v_proj u)), then q and k scaled to length one
    alpha = exp(-exp(A_log) softplus(a_proj u + dt_bias)), beta = sigmoid(b_proj u)
    h_t = alpha_t h_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T, y_t = h_t q_t / sqrt(N)
    out = o_proj(RMSNorm(y) SiLU(g_proj u)), with the norm a head

Parameter names and shapes are those of flash-linear-attention's layer. A reset at t forgets everything before t, in the
recurrence and in the convolutions' window.

Shape letters: B batch, T time, D model size, H heads, P value size, N key size, W taps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.layers.short_conv import conv_scan, conv_step
from robonav.ssm.recurrences.gated_delta import CHUNK, GatedDeltaInput, gated_delta_scan, gated_delta_step
from robonav.ssm.state import check_scan, check_step, state_dtype

NORM_EPS = 1e-5
LENGTH_EPS = 1e-6  # under the root, so that a key of zero stays zero and has a gradient


class GatedDeltaState(NamedTuple):
    """What the layer carries from step to step."""

    window: Tensor  # (B, 2 H N + H P, W - 1) the last inputs of the convolutions of q, k, v
    hidden: Tensor  # (B, H, P, N)


class GatedDeltaNet(nn.Module):
    """Gated DeltaNet layer.

    Args:
        d_model: width D of input and output.
        num_heads: heads H; by default as many as make H * head_dim three quarters of D, the paper's allocation.
        head_dim: size N of a head's queries and keys.
        expand_v: a head's value size P over N.
        conv_size: taps W of the short convolutions.
        allow_neg_eigval: beta in (0, 2), which lets the state flip signs and so track parities (arXiv 2411.12537).
        chunk: longest stretch that is one triangular system.

    Raises:
        ConfigError: a size that is not positive.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int | None = None,
        head_dim: int = 64,
        expand_v: float = 2.0,
        conv_size: int = 4,
        allow_neg_eigval: bool = False,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__()
        heads = max(1, 3 * d_model // (4 * max(head_dim, 1))) if num_heads is None else num_heads
        values = int(head_dim * expand_v)
        for name, value, least in (
            ("d_model", d_model, 1),
            ("num_heads", heads, 1),
            ("head_dim", head_dim, 1),
            ("head_dim * expand_v", values, 1),
            ("conv_size", conv_size, 2),
            ("chunk", chunk, 1),
        ):
            if value < least:
                raise ConfigError(explain(f"GatedDeltaNet.{name}", f"at least {least}", value))
        self.d_model, self.heads, self.head_dim, self.value_dim = d_model, heads, head_dim, values
        self.max_beta, self.chunk = 2.0 if allow_neg_eigval else 1.0, chunk
        self.split = [heads * head_dim, heads * head_dim, heads * values]  # q, k, v
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d_model, size, bias=False) for size in self.split)
        self.a_proj = nn.Linear(d_model, heads, bias=False)
        self.b_proj = nn.Linear(d_model, heads, bias=False)
        self.g_proj = nn.Linear(d_model, heads * values, bias=False)
        # Parameters only: the convolution itself is in short_conv, where it knows of windows and resets.
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (
            nn.Conv1d(size, size, conv_size, groups=size, bias=False) for size in self.split
        )
        dt = torch.exp(torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus(dt_bias) = dt
        self.A_log = nn.Parameter(torch.log(torch.empty(heads).uniform_(0, 16).clamp(min=1e-3)))
        self.o_norm = nn.RMSNorm(values, eps=NORM_EPS)
        self.o_proj = nn.Linear(heads * values, d_model, bias=False)

    def initial_state(self, batch: int) -> GatedDeltaState:
        """Zeros, on the layer's device, in at least float32."""
        dtype, device = state_dtype(self.A_log), self.A_log.device
        return GatedDeltaState(
            torch.zeros(batch, sum(self.split), self.q_conv1d.kernel_size[0] - 1, dtype=dtype, device=device),
            torch.zeros(batch, self.heads, self.value_dim, self.head_dim, dtype=dtype, device=device),
        )

    def step(self, x: Tensor, state: GatedDeltaState, reset: Tensor | None = None) -> tuple[Tensor, GatedDeltaState]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        reset = check_step(x, self.d_model, state, reset)
        mixed, a, b, gate = self._project(x)
        with torch.autocast(x.device.type, enabled=False):
            mixed, window = conv_step(mixed, state.window, self._taps(), None, reset)
            y, hidden = gated_delta_step(state.hidden, self._inputs(mixed, a, b), reset)
            y = self._gated(y, gate)
        return self.o_proj(y), GatedDeltaState(window, hidden)

    def scan(
        self, x: Tensor, state: GatedDeltaState, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, GatedDeltaState]:
        """x (B, T, D) to y (B, T, D), equal to T calls of `step`; states after the last or the `wanted` (B, K) steps.

        Args:
            reset: (B, T), 1 where the past is dropped before that step.
            wanted: the states after these steps are returned as (B * K, ...), row b * K + k.
        """
        every = wanted
        reset, wanted = check_scan(x, self.d_model, state, reset, wanted)
        mixed, a, b, gate = self._project(x)
        with torch.autocast(x.device.type, enabled=False):
            mixed, window = conv_scan(mixed, state.window, self._taps(), None, reset, wanted)
            y, hidden = gated_delta_scan(self._inputs(mixed, a, b), state.hidden, reset, every, self.chunk)
            y = self._gated(y, gate)
        return self.o_proj(y), GatedDeltaState(window.flatten(0, 1), hidden.flatten(0, 1))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v side by side (..., 2 H N + H P), raw decay, beta (..., H), gate (..., H P), in the state's dtype."""
        mixed = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)
        dtype = state_dtype(self.A_log)
        return mixed.to(dtype), self.a_proj(x).to(dtype), self.b_proj(x).to(dtype), self.g_proj(x).to(dtype)

    def _taps(self) -> Tensor:
        """The weights of the three convolutions as those of one, in the state's dtype."""
        weights = [conv.weight for conv in (self.q_conv1d, self.k_conv1d, self.v_conv1d)]
        return torch.cat(weights).to(state_dtype(self.A_log))

    def _inputs(self, mixed: Tensor, a: Tensor, b: Tensor) -> GatedDeltaInput:
        """Convolved channels (..., 2 H N + H P), raw decay and beta (..., H) to the recurrence's inputs."""
        q, k, v = (s.unflatten(-1, (self.heads, -1)) for s in F.silu(mixed).split(self.split, dim=-1))
        rate = torch.exp(self.A_log.to(a.dtype)) * F.softplus(a + self.dt_bias.to(a.dtype))
        query = _unit_length(q) * self.head_dim**-0.5
        return GatedDeltaInput(query, _unit_length(k), v, -rate, self.max_beta * torch.sigmoid(b))

    def _gated(self, y: Tensor, gate: Tensor) -> Tensor:
        """Norm a head and gate: y (..., H, P) and gate (..., H P) to (..., H P), in the output projection's dtype."""
        weight = self.o_norm.weight.to(y.dtype)
        y = F.rms_norm(y, (self.value_dim,), weight, NORM_EPS).flatten(-2) * F.silu(gate)
        return y.to(self.o_proj.weight.dtype)


def _unit_length(x: Tensor) -> Tensor:
    """Scales x (..., N) to length one."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + LENGTH_EPS)
