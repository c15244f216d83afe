"""Mamba-2 layer (arXiv 2405.21060, section 7): short convolution, scalar-decay recurrence, gated norm.

    z, (x, B, C), d = in_proj u
    x, B, C = SiLU(conv(x, B, C))
    dt = softplus(d + dt_bias), A = -exp(A_log)
    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, y_t = h_t C_t + D x_t
    out = out_proj RMSNorm(y SiLU(z))

Parameter names, shapes and function are those of the public module. A reset at t forgets everything before t, in the
recurrence and in the convolution's window.

Shape letters: B batch, T time, D model size, I inner size, H heads, P head size, G groups, N state size, W taps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.kernels.step import StepForm, StepInput, StepState, StepWeights, fused_step
from robonav.ssm.layers.short_conv import conv_scan, conv_step
from robonav.ssm.recurrences.ssd import CHUNK, SSDInput, ssd_scan, ssd_step
from robonav.ssm.state import check_scan, check_step, state_dtype

NORM_EPS = 1e-5
NO_LIMIT = (0.0, math.inf)


class Mamba2State(NamedTuple):
    """What the layer carries from step to step."""

    window: Tensor  # (B, I + 2 G N, W - 1) the convolution's last inputs
    hidden: Tensor  # (B, H, P, N)


class Mamba2(nn.Module):
    """Mamba-2 layer.

    Args:
        d_model: width D of input and output.
        d_state: state size N of a head.
        d_conv: taps W of the short convolution.
        expand: inner width I over D.
        headdim: head size P; must divide I.
        ngroups: groups that share B and C, and of the norm; must divide the number of heads.
        rmsnorm: whether the output is normalised; it is gated in either case.
        norm_before_gate: RMSNorm(y) SiLU(z) in place of RMSNorm(y SiLU(z)).
        D_has_hdim: a skip weight a channel in place of one a head.
        bias: whether the projections have biases.
        conv_bias: whether the convolution has one.
        dt_limit: the step size is clamped to this range.
        chunk: longest stretch that is scanned in one matrix product.

    Raises:
        ConfigError: a size that is not positive or does not divide.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        expand: float = 2,
        headdim: int = 64,
        ngroups: int = 1,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        D_has_hdim: bool = False,
        bias: bool = False,
        conv_bias: bool = True,
        dt_limit: tuple[float, float] = NO_LIMIT,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        for name, value, least in (
            ("d_model", d_model, 1),
            ("d_state", d_state, 1),
            ("d_conv", d_conv, 2),
            ("chunk", chunk, 1),
        ):
            if value < least:
                raise ConfigError(explain(f"Mamba2.{name}", f"at least {least}", value))
        if headdim < 1 or inner < 1 or inner % headdim:
            raise ConfigError(explain("Mamba2.headdim", f"a divisor of expand * d_model = {inner}", headdim))
        heads = inner // headdim
        if ngroups < 1 or heads % ngroups:
            raise ConfigError(explain("Mamba2.ngroups", f"a divisor of the {heads} heads", ngroups))
        if not 0 <= dt_limit[0] < dt_limit[1]:
            raise ConfigError(explain("Mamba2.dt_limit", "(least, most) with 0 <= least < most", dt_limit))
        self.d_model, self.d_state, self.inner, self.headdim, self.heads = d_model, d_state, inner, headdim, heads
        self.ngroups, self.norm_before_gate, self.dt_limit, self.chunk = ngroups, norm_before_gate, dt_limit, chunk
        self.channels = inner + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, inner + self.channels + heads, bias=bias)
        # Parameters only: the convolution itself is in short_conv, where it knows of windows and resets.
        self.conv1d = nn.Conv1d(self.channels, self.channels, d_conv, groups=self.channels, bias=conv_bias)
        dt = torch.exp(torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus(dt_bias) = dt
        self.A_log = nn.Parameter(torch.log(torch.empty(heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(inner if D_has_hdim else heads))
        self.norm = nn.RMSNorm(inner, eps=NORM_EPS) if rmsnorm else None
        self.out_proj = nn.Linear(inner, d_model, bias=bias)

    def initial_state(self, batch: int) -> Mamba2State:
        """Zeros, on the layer's device, in at least float32."""
        dtype, device = state_dtype(self.D), self.D.device
        return Mamba2State(
            torch.zeros(batch, self.channels, self.conv1d.kernel_size[0] - 1, dtype=dtype, device=device),
            torch.zeros(batch, self.heads, self.headdim, self.d_state, dtype=dtype, device=device),
        )

    def step(self, x: Tensor, state: Mamba2State, reset: Tensor | None = None) -> tuple[Tensor, Mamba2State]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        reset = check_step(x, self.d_model, state, reset)
        projected = self.in_proj(x)
        with torch.autocast(x.device.type, enabled=False):
            z, mixed, dt = self._split(projected)
            mixed, window = conv_step(mixed, state.window, *self._taps(), reset)
            if mixed.is_cuda and not torch.compiler.is_compiling():
                y, hidden = self._fused_step(mixed, dt, z, state.hidden, reset)
            else:
                inputs, v = self._inputs(mixed, dt)
                y, hidden = ssd_step(state.hidden, inputs, reset)
                y = self._gated(self._skipped(y.squeeze(-3), v), z)
        return self.out_proj(y), Mamba2State(window, hidden)

    def _fused_step(self, mixed: Tensor, dt: Tensor, z: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Gated y (B, I) and the next hidden state by the kernel for many latents, or by its PyTorch form."""
        bc = self.ngroups * self.d_state
        v, b, c = F.silu(mixed).split([self.inner, bc, bc], dim=-1)
        key, query = (s.unflatten(-1, (1, self.ngroups, self.d_state)) for s in (b, c))
        v, gate = (s.unflatten(-1, (self.heads, self.headdim)) for s in (v, z))
        skip = self.D if self.D.numel() == self.heads else self.D.view(self.heads, self.headdim)
        inputs = StepInput(v, key, query, dt, gate if self.norm is None else None)
        weights = StepWeights(self.dt_bias, skip, self.A_log)
        y, new = fused_step(inputs, weights, StepState(hidden), reset, StepForm(dt_limit=self.dt_limit))
        if self.norm is None:
            return y.flatten(-2).to(self.out_proj.weight.dtype), new.hidden
        return self._gated(y.squeeze(-3), z), new.hidden

    def scan(
        self, x: Tensor, state: Mamba2State, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, Mamba2State]:
        """x (B, T, D) to y (B, T, D), equal to T calls of `step`; states after the last or the `wanted` (B, K) steps.

        Args:
            reset: (B, T), 1 where the past is dropped before that step.
            wanted: the states after these steps are returned as (B * K, ...), row b * K + k.
        """
        reset, wanted = check_scan(x, self.d_model, state, reset, wanted)
        projected = self.in_proj(x)
        with torch.autocast(x.device.type, enabled=False):
            z, mixed, dt = self._split(projected)
            mixed, window = conv_scan(mixed, state.window, *self._taps(), reset, wanted)
            inputs, v = self._inputs(mixed, dt)
            y, hidden = ssd_scan(inputs, state.hidden, reset, wanted, self.chunk)
            y = self._gated(self._skipped(y.squeeze(-3), v), z)
        return self.out_proj(y), Mamba2State(window.flatten(0, 1), hidden.flatten(0, 1))

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        """Gate z (..., I), convolution's input (..., I + 2 G N), raw step size (..., H), in the state's dtype."""
        wide = projected.to(state_dtype(self.D))
        return wide.split([self.inner, self.channels, self.heads], dim=-1)

    def _taps(self) -> tuple[Tensor, Tensor | None]:
        """The convolution's weight and bias in the state's dtype."""
        dtype, bias = state_dtype(self.D), self.conv1d.bias
        return self.conv1d.weight.to(dtype), None if bias is None else bias.to(dtype)

    def _inputs(self, mixed: Tensor, dt: Tensor) -> tuple[SSDInput, Tensor]:
        """Convolved channels (..., I + 2 G N), raw step size (..., H) to the recurrence's inputs and x (..., H, P)."""
        bc = self.ngroups * self.d_state
        v, b, c = F.silu(mixed).split([self.inner, bc, bc], dim=-1)
        dt = F.softplus(dt + self.dt_bias.to(dt.dtype))
        if self.dt_limit != NO_LIMIT:
            dt = dt.clamp(*self.dt_limit)
        v = v.unflatten(-1, (self.heads, self.headdim))
        key, query = (s.unflatten(-1, (1, self.ngroups, self.d_state)) for s in (b, c))  # rank 1
        log_decay = -dt * torch.exp(self.A_log.to(dt.dtype))
        return SSDInput(query, key, (dt[..., None] * v).unsqueeze(-3), log_decay), v

    def _skipped(self, y: Tensor, v: Tensor) -> Tensor:
        """y + D v, of y and v (..., H, P)."""
        return y + self.D.to(y.dtype).view(self.heads, -1) * v

    def _gated(self, y: Tensor, z: Tensor) -> Tensor:
        """Gate and norm: y (..., H, P) and z (..., I) to (..., I), in the output projection's dtype."""
        y, gate = y.flatten(-2), F.silu(z)
        if self.norm is None:
            y = y * gate
        elif self.norm_before_gate:
            y = self._normed(y, self.norm.weight) * gate
        else:
            y = self._normed(y * gate, self.norm.weight)
        return y.to(self.out_proj.weight.dtype)

    def _normed(self, y: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm of each of the G groups of channels."""
        size = self.inner // self.ngroups
        groups = F.rms_norm(y.unflatten(-1, (self.ngroups, size)), (size,), eps=NORM_EPS)
        return groups.flatten(-2) * weight.to(y.dtype)
