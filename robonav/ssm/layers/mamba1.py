"""Mamba-1 (arXiv 2312.00752) with the public module's parameters: short convolution, selective scan, gate.

    [x, z] = in_proj(input);  x = SiLU(conv1d(x));  [dt, B, C] = x_proj(x);  dt = softplus(dt_proj(dt))
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t;  y_t = C_t h_t + D x_t;  output = out_proj(y_t * SiLU(z_t))

A = -exp(A_log). The convolution sees the last d_conv inputs x: those before this step are state. A reset drops them as
it drops h: within a sequence, taps that reach before a reset count zero.

Shape letters: B batch, T time, D d_inner, N d_state, W d_conv, K wanted states.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.layers.short_conv import conv_scan, conv_step
from robonav.ssm.recurrences.mamba1 import Mamba1Input, mamba1_scan, mamba1_step
from robonav.ssm.state import check_scan, check_step, state_dtype

DT_INIT_FLOOR = 1e-4


class Mamba1State(NamedTuple):
    """What one layer carries from step to step."""

    window: Tensor  # (B, D, W - 1) inputs of the convolution, the oldest first
    hidden: Tensor  # (B, D, N)


class Mamba1(nn.Module):
    """Mamba-1 layer. Parameter names, shapes, order and the function are those of the public module.

    Args:
        d_model: width of input and output.
        d_state: state size N of a channel.
        d_conv: taps W of the short convolution.
        expand: inner width D over d_model.
        dt_rank: rank of the projection to the step sizes; "auto" is d_model / 16, rounded up.
        dt_min: with `dt_max` the range of step sizes at the start, log-uniform.
        conv_bias: a bias in the convolution, as in the public weights.
        bias: biases in the input and output projections, unlike the public weights.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand * d_model": inner, "dt_rank": rank}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ConfigError(explain(name, "an integer of at least 1", repr(size)))
        if not 0 < dt_min <= dt_max < math.inf:
            raise ConfigError(explain("dt_min, dt_max", "0 < dt_min <= dt_max", f"{dt_min}, {dt_max}"))
        self.d_model, self.d_state, self.d_conv, self.d_inner, self.dt_rank = d_model, d_state, d_conv, inner, rank
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, bias=conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(inner, 1))  # S4D-Real
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=bias)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        dt = torch.exp(torch.empty(inner).uniform_(math.log(dt_min), math.log(dt_max))).clamp(min=DT_INIT_FLOOR)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse softplus

    def initial_state(self, batch: int) -> Mamba1State:
        """Zeros, on the layer's device, at least float32."""
        dtype, device = state_dtype(self.D), self.D.device
        return Mamba1State(
            torch.zeros(batch, self.d_inner, self.d_conv - 1, dtype=dtype, device=device),
            torch.zeros(batch, self.d_inner, self.d_state, dtype=dtype, device=device),
        )

    def step(self, x: Tensor, state: Mamba1State, reset: Tensor | None = None) -> tuple[Tensor, Mamba1State]:
        """x (B, d_model) to y (B, d_model) and the next state; `reset` (B,) drops the past where it is 1."""
        dtype = state_dtype(self.D)
        reset = check_step(x, self.d_model, state, reset).to(dtype)
        u, z = self.in_proj(x).to(dtype).chunk(2, dim=-1)  # (B, D)
        u, window = conv_step(u, state.window.to(dtype), *self._conv(dtype), reset)
        u = F.silu(u)
        inputs = self._inputs(u, dtype)
        y, hidden = mamba1_step(state.hidden.to(dtype), inputs, self._rates(dtype), reset)
        return self._output(y, u, z), Mamba1State(window, hidden)

    def scan(
        self, x: Tensor, state: Mamba1State, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, Mamba1State]:
        """A whole sequence at once; equals T calls of `step`.

        Args:
            x: (B, T, d_model); reset: (B, T), 1 where the past is dropped before that step.
            wanted: (B, K) steps after which the state is asked for; by default the last one.

        Returns:
            y (B, T, d_model), and states (B * K, ...) after the wanted steps.
        """
        dtype = state_dtype(self.D)
        reset, wanted = check_scan(x, self.d_model, state, reset, wanted)
        reset = reset.to(dtype)
        u, z = self.in_proj(x).to(dtype).chunk(2, dim=-1)  # (B, T, D)
        u, windows = conv_scan(u, state.window.to(dtype), *self._conv(dtype), reset, wanted)
        u = F.silu(u)
        inputs = self._inputs(u, dtype)
        y, hidden = mamba1_scan(inputs, self._rates(dtype), state.hidden.to(dtype), reset, wanted)
        return self._output(y, u, z), Mamba1State(windows.flatten(0, 1), hidden.flatten(0, 1))

    def _inputs(self, u: Tensor, dtype: torch.dtype) -> Mamba1Input:
        """u (..., D) to the recurrence's inputs, the step sizes positive."""
        dt, b, c = self.x_proj(u.to(self.D.dtype)).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        dt = F.linear(dt, self.dt_proj.weight).to(dtype) + self.dt_proj.bias.to(dtype)  # the sum not in half precision
        return Mamba1Input(u, F.softplus(dt), b.to(dtype), c.to(dtype))

    def _rates(self, dtype: torch.dtype) -> Tensor:
        """A (D, N), negative."""
        return -torch.exp(self.A_log.to(dtype))

    def _conv(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """The convolution's weight (D, 1, W) and bias (D,)."""
        bias = self.conv1d.bias
        return self.conv1d.weight.to(dtype), None if bias is None else bias.to(dtype)

    def _output(self, y: Tensor, u: Tensor, z: Tensor) -> Tensor:
        """Skip, gate, and projection back to d_model."""
        gated = torch.addcmul(y, self.D.to(y.dtype), u) * F.silu(z)
        return self.out_proj(gated.to(self.D.dtype))
