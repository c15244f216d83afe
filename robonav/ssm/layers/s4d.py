"""S4D (arXiv 2206.11893): a diagonal system that is the same at all times, then GELU and a gated projection.

    h_t = exp(dt A) h_{t-1} + ((exp(dt A) - 1) / A) x_t;  y_t = 2 Re(C h_t) + D x_t;  output = GLU(W GELU(y_t) + b)

A = -exp(log_A_real) + i A_imag, one of each conjugate pair. Parameter names and shapes are those of the public s4d.py.

Shape letters: B batch, T time, D d_model, M modes (d_state / 2), K wanted states.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.recurrences.s4d import S4DState, S4DSystem, discretise, s4d_scan, s4d_step
from robonav.ssm.state import check_scan, check_step, state_dtype

Spectrum = Literal["lin", "inv"]


class S4DKernel(nn.Module):
    """The system's parameters, under the public module's names.

    Args:
        d_model: channels D; d_state: real state size, twice the modes.
        dt_min, dt_max: range of step sizes at the start, log-uniform.
        spectrum: Im A at the start, "lin" pi n (S4D-Lin) or "inv" (N / pi) (N / (2n + 1) - 1) (S4D-Inv), N = d_state.
    """

    def __init__(self, d_model: int, d_state: int, dt_min: float, dt_max: float, spectrum: Spectrum) -> None:
        super().__init__()
        modes = d_state // 2
        n = torch.arange(float(modes))
        imag = math.pi * n if spectrum == "lin" else d_state / math.pi * (d_state / (2 * n + 1) - 1)
        self.C = nn.Parameter(torch.randn(d_model, modes, 2) * 0.5**0.5)  # real and imaginary part
        self.log_dt = nn.Parameter(torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_A_real = nn.Parameter(torch.full((d_model, modes), math.log(0.5)))
        self.A_imag = nn.Parameter(imag.repeat(d_model, 1))

    def system(self, dtype: torch.dtype) -> S4DSystem:
        """The discrete system."""
        real, imag = -torch.exp(self.log_A_real.to(dtype)), self.A_imag.to(dtype)
        return discretise(real, imag, torch.exp(self.log_dt.to(dtype)), *self.C.to(dtype).unbind(-1))


class S4D(nn.Module):
    """S4D layer. The state is that of the recurrence: real and imaginary part (B, D, M).

    Args:
        d_model: width D of input and output; each channel is a system of its own.
        d_state: real state size of a channel, even; d_state / 2 complex modes.
        dt_min: with `dt_max` the range of step sizes at the start, log-uniform.
        spectrum: Im A at the start, "lin" or "inv".
    """

    def __init__(
        self, d_model: int, d_state: int = 64, dt_min: float = 1e-3, dt_max: float = 1e-1, spectrum: Spectrum = "lin"
    ) -> None:
        super().__init__()
        for name, size, expected in (
            ("d_model", d_model, "an integer of at least 1"),
            ("d_state", d_state, "an even integer of at least 2"),
        ):
            if not isinstance(size, int) or size < 1 or (name == "d_state" and size % 2):
                raise ConfigError(explain(name, expected, repr(size)))
        if not 0 < dt_min <= dt_max < math.inf:
            raise ConfigError(explain("dt_min, dt_max", "0 < dt_min <= dt_max", f"{dt_min}, {dt_max}"))
        if spectrum not in get_args(Spectrum):
            raise ConfigError(explain("spectrum", " or ".join(map(repr, get_args(Spectrum))), repr(spectrum)))
        self.d_model, self.d_state = d_model, d_state
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = S4DKernel(d_model, d_state, dt_min, dt_max, spectrum)
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, 1), nn.GLU(dim=-2))

    def initial_state(self, batch: int) -> S4DState:
        """Zeros, on the layer's device, at least float32."""
        shape, dtype = (batch, self.d_model, self.d_state // 2), state_dtype(self.D)
        return S4DState(*(torch.zeros(shape, dtype=dtype, device=self.D.device) for _ in range(2)))

    def step(self, x: Tensor, state: S4DState, reset: Tensor | None = None) -> tuple[Tensor, S4DState]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        dtype = state_dtype(self.D)
        reset = check_step(x, self.d_model, state, reset).to(dtype)
        u = x.to(dtype)
        hidden = S4DState(*(part.to(dtype) for part in state))
        y, hidden = s4d_step(hidden, u, self.kernel.system(dtype), reset)
        return self._output(y, u), hidden

    def scan(
        self, x: Tensor, state: S4DState, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, S4DState]:
        """A whole sequence at once; equals T calls of `step`.

        Args:
            x: (B, T, D); reset: (B, T), 1 where the past is dropped before that step.
            wanted: (B, K) steps after which the state is asked for; by default the last one.

        Returns:
            y (B, T, D), and states (B * K, D, M) after the wanted steps.
        """
        dtype = state_dtype(self.D)
        reset, wanted = check_scan(x, self.d_model, state, reset, wanted)
        with torch.autocast(device_type=x.device.type, enabled=False):
            u = x.to(dtype)
            hidden = S4DState(*(part.to(dtype) for part in state))
            y, found = s4d_scan(u, self.kernel.system(dtype), hidden, reset.to(dtype), wanted)
        return self._output(y, u), S4DState(*(part.flatten(0, 1) for part in found))

    def _output(self, y: Tensor, u: Tensor) -> Tensor:
        """Skip, GELU, and the gated projection; its public form is a convolution of one tap."""
        linear = self.output_linear[0]
        assert isinstance(linear, nn.Conv1d)
        active = F.gelu(torch.addcmul(y, self.D.to(y.dtype), u)).to(self.D.dtype)
        return F.glu(F.linear(active, linear.weight[..., 0], linear.bias), dim=-1)
