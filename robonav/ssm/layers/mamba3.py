"""Mamba-3 layer (arXiv 2603.15569), SISO and MIMO.

    z, x, B, C, d, a, u, phi = in_proj
    dt = softplus(d + dt_bias), A = -max(f(a), 1e-4), lambda = sigmoid(u)
    theta_t = theta_{t-1} + pi tanh(phi_t) dt_t
    k_t, q_t = Rot(theta_t)(RMSNorm(B_t) + B_bias), Rot(theta_t)(RMSNorm(C_t) + C_bias)
    y = the recurrence of k, q, v, dt A, lambda dt, (1 - lambda) dt, plus D v
    out = out_proj(y SiLU(z)), or out_proj(RMSNorm(y) SiLU(z)) with the output norm

SISO: v = x. MIMO of rank R: v^(r) = mimo_x^(r) x and z^(r) = mimo_z^(r) z, channel by channel; each y^(r), D v^(r)
included, is normed and gated by z^(r), and out_proj gets their sum weighted with mimo_o^(r).

Parameter names, shapes and function are those of the public module. SISO turns pairs (2i, 2i + 1) of the first
rope_fraction N entries; MIMO turns pairs (i, i + N / 2) for i below rope_fraction N / 2.

A reset at t forgets everything before t. The angle is carried on: y depends on differences of angles alone, and the
hidden state is in the angle's frame.

Shape letters: B batch, T time, D model size, I inner size, R rank, G groups, H heads, P head size, N state size,
S turned pairs, K wanted states.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.kernels.step import StepForm, StepInput, StepState, StepWeights, fused_step
from robonav.ssm.recurrences.mamba3 import Mamba3Carry, Mamba3Input, mamba3_scan, mamba3_step, suits_step_loop
from robonav.ssm.recurrences.rotation import from_complex, rotate, rotors, to_complex, wrap_phase
from robonav.ssm.recurrences.ssd import CHUNK
from robonav.ssm.state import check_scan, check_step, state_dtype

NORM_EPS = 1e-5
MIN_DECAY_RATE = 1e-4
MIN_INITIAL_DT = 1e-4
ALIGNMENT = 16  # a product of fewer columns than a multiple of it takes 1.4 times as long in MKL
PAD_ROWS = 128  # from so many rows up, a padded copy of the weight is worth its while
DecayForm = Literal["rational", "softplus"]


class Mamba3State(NamedTuple):
    """What the layer carries from step to step; `key` and `value` are those of the last step."""

    theta: Tensor  # (B, H, S) angle, wrapped to [-pi, pi)
    hidden: Tensor  # (B, H, P, N)
    key: Tensor  # (B, R, H, N) already rotated
    value: Tensor  # (B, H, P)


class _Projected(NamedTuple):
    """The input projection's parts, in the state's dtype."""

    z: Tensor  # (..., H, P)
    x: Tensor  # (..., H, P)
    bc: Tensor  # (..., 2 R G N) B, then C
    log_decay: Tensor  # (..., H)
    here: Tensor  # (..., H) lambda dt
    before: Tensor  # (..., H) (1 - lambda) dt
    turn: Tensor  # (..., H, S) change of the angle


class Mamba3(nn.Module):
    """Mamba-3 layer.

    Args:
        d_model: width D of input and output.
        d_state: state size N of a head, even.
        expand: inner width I over D.
        headdim: head size P; must divide I.
        rank: R; more than 1 is MIMO.
        mimo: whether the layer has the MIMO parameters and their convention of pairs; by default if rank > 1.
        ngroups: groups of heads that share B and C; must divide the number of heads.
        rope_fraction: share of the state that turns; 0 for none.
        out_norm: RMSNorm of each head's y before the gate.
        a_form: f of the decay rate: "rational" is 1 + a for a >= 0 and 1 / (1 - a) below; "softplus" the paper's.
        dt_min, dt_max: range of the initial step sizes.
        chunk: longest stretch that is scanned in one matrix product.

    Raises:
        ConfigError: a size that is not positive or does not divide, a fraction or choice out of range.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        expand: float = 1.0,
        headdim: int = 64,
        rank: int = 1,
        mimo: bool | None = None,
        ngroups: int = 1,
        rope_fraction: float = 0.5,
        out_norm: bool = False,
        a_form: DecayForm = "rational",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.headdim, self.rank, self.ngroups = d_model, d_state, headdim, rank, ngroups
        self.mimo = rank > 1 if mimo is None else mimo
        self.inner = int(expand * d_model)
        self.heads = self.inner // max(headdim, 1)
        self.pairs = int(d_state * rope_fraction) // 2
        self.a_form, self.chunk = a_form, chunk
        self._check_sizes(rope_fraction, dt_min, dt_max)

        n, heads = ngroups * rank * d_state, self.heads
        self.split = [self.inner, self.inner, 2 * n, heads, heads, heads, self.pairs]
        self.in_proj = nn.Linear(d_model, sum(self.split), bias=False)
        dt = torch.empty(heads).uniform_(math.log(dt_min), math.log(dt_max)).exp().clamp(min=MIN_INITIAL_DT)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus(dt_bias) = dt
        self.B_bias = nn.Parameter(torch.ones(heads, rank, d_state))
        self.C_bias = nn.Parameter(torch.ones(heads, rank, d_state))
        self.B_norm = nn.RMSNorm(d_state, eps=NORM_EPS)
        self.C_norm = nn.RMSNorm(d_state, eps=NORM_EPS)
        if self.mimo:
            self.mimo_x = nn.Parameter(torch.full((heads, rank, headdim), 1 / rank))
            self.mimo_z = nn.Parameter(torch.ones(heads, rank, headdim))
            self.mimo_o = nn.Parameter(torch.full((heads, rank, headdim), 1 / rank))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(self.inner, eps=NORM_EPS) if out_norm else None
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)

    def _check_sizes(self, rope_fraction: float, dt_min: float, dt_max: float) -> None:
        for name, value in (("d_model", self.d_model), ("rank", self.rank), ("chunk", self.chunk)):
            if value < 1:
                raise ConfigError(explain(f"Mamba3.{name}", "at least 1", value))
        if self.d_state < 2 or self.d_state % 2:
            raise ConfigError(explain("Mamba3.d_state", "an even number from 2 up", self.d_state))
        if self.headdim < 1 or self.inner < 1 or self.inner % self.headdim:
            divisor = f"a divisor of expand * d_model = {self.inner}"
            raise ConfigError(explain("Mamba3.headdim", divisor, self.headdim))
        if self.ngroups < 1 or self.heads % self.ngroups:
            raise ConfigError(explain("Mamba3.ngroups", f"a divisor of the {self.heads} heads", self.ngroups))
        if self.rank > 1 and not self.mimo:
            raise ConfigError(explain("Mamba3.mimo", f"True for rank {self.rank}", self.mimo))
        if not 0 <= rope_fraction <= 1 or (rope_fraction > 0 and self.pairs == 0):
            least = f"0, or {2 / self.d_state:g} to 1 for d_state {self.d_state}"
            raise ConfigError(explain("Mamba3.rope_fraction", least, rope_fraction))
        if self.a_form not in get_args(DecayForm):
            raise ConfigError(explain("Mamba3.a_form", " or ".join(get_args(DecayForm)), self.a_form))
        if not 0 < dt_min <= dt_max:
            raise ConfigError(explain("Mamba3.dt_min, dt_max", "0 < dt_min <= dt_max", (dt_min, dt_max)))

    def initial_state(self, batch: int) -> Mamba3State:
        """Zeros, on the layer's device, in at least float32."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, dtype=state_dtype(self.D), device=self.D.device)

        heads, p, n = self.heads, self.headdim, self.d_state
        return Mamba3State(zeros(heads, self.pairs), zeros(heads, p, n), zeros(self.rank, heads, n), zeros(heads, p))

    def step(self, x: Tensor, state: Mamba3State, reset: Tensor | None = None) -> tuple[Tensor, Mamba3State]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        reset = check_step(x, self.d_model, state, reset)
        wide = self._project(x)
        with torch.autocast(x.device.type, enabled=False):
            if suits_step_loop(wide):
                z = wide[:, : self.inner].unflatten(-1, (self.heads, self.headdim))
                y, state = self._compiled_step(wide, state, reset)
            elif wide.is_cuda and not torch.compiler.is_compiling():
                gated, state = self._fused_step(wide, state, reset)
                return self.out_proj(gated), state
            else:
                parts = self._parts(wide)
                z, theta = parts.z, wrap_phase(state.theta + parts.turn)
                inputs = self._inputs(parts, theta)
                carry = Mamba3Carry(state.hidden, state.key, self._ranks(state.value))
                y, hidden = mamba3_step(carry, inputs, self.D.to(theta.dtype), reset)
                state = Mamba3State(theta, hidden, inputs.key.contiguous(), parts.x.contiguous())
            gated = self._gated(y, z)
        return self.out_proj(gated), state

    def _compiled_step(self, wide: Tensor, state: Mamba3State, reset: Tensor) -> tuple[Tensor, Mamba3State]:
        """y (B, R, H, P) and the next state from the projection, on a processor."""
        from robonav.ssm.recurrences.mamba3_step_cpu import StepInput as LoopInput
        from robonav.ssm.recurrences.mamba3_step_cpu import step_loop  # numba takes a second to import

        norm = torch.stack([self.B_norm.weight, self.C_norm.weight])
        bias = torch.stack([self.B_bias, self.C_bias])
        mimo_x = self.mimo_x if self.mimo else self.D.new_ones(self.heads, 1, self.headdim)
        dt_bias, norm, bias, mimo_x, skip = (part.to(wide.dtype) for part in (self.dt_bias, norm, bias, mimo_x, self.D))
        inputs = LoopInput(wide, reset, dt_bias, norm, bias, mimo_x, skip, *state)
        y, *parts = step_loop(inputs, self.ngroups, self.mimo, self.a_form == "rational", NORM_EPS, MIN_DECAY_RATE)
        return y, Mamba3State(*parts)

    def _fused_step(self, wide: Tensor, state: Mamba3State, reset: Tensor) -> tuple[Tensor, Mamba3State]:
        """Gated y (B, I) and the next state by the kernel for many latents, or by its PyTorch form."""
        spare = wide.shape[-1] - self.in_proj.out_features
        z, x, bc, dd_dt, dd_a, trap, angle, _ = wide.split([*self.split, spare], dim=-1)
        z, x = (part.unflatten(-1, (self.heads, self.headdim)) for part in (z, x))
        key, query = bc.unflatten(-1, (2, self.rank, self.ngroups, self.d_state)).unbind(1)
        inputs = StepInput(x, key, query, dd_dt, z if self.norm is None else None, dd_a, trap, angle)
        ranks = (self.mimo_x, self.mimo_z, self.mimo_o) if self.mimo else (None, None, None)
        norms = (self.B_bias, self.C_bias, self.B_norm.weight, self.C_norm.weight)
        weights = StepWeights(self.dt_bias, self.D, None, *norms, *ranks)
        carried = StepState(state.hidden, state.theta, state.key, state.value)
        form = StepForm(halves=self.mimo, rational=self.a_form == "rational")
        y, new = fused_step(inputs, weights, carried, reset, form)
        assert new.theta is not None and new.key is not None and new.value is not None  # Mamba-3 has them
        gated = self._gated(y, z) if self.norm is not None else y.flatten(-2).to(self.out_proj.weight.dtype)
        return gated, Mamba3State(new.theta, new.hidden, new.key, new.value)

    def scan(
        self, x: Tensor, state: Mamba3State, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, Mamba3State]:
        """x (B, T, D) to y (B, T, D), equal to T calls of `step`; states after the last or the `wanted` (B, K) steps.

        Args:
            reset: (B, T), 1 where the past is dropped before that step.
            wanted: the states after these steps are returned as (B * K, ...), row b * K + k.
        """
        reset, steps = check_scan(x, self.d_model, state, reset, wanted)
        wide = self._project(x)
        with torch.autocast(x.device.type, enabled=False):
            parts = self._parts(wide)
            # Unwrapped angles grow with T: their sum is taken in float64.
            turned = torch.cumsum(parts.turn, dim=1, dtype=torch.float64)
            theta = wrap_phase(state.theta[:, None] + turned).to(parts.turn.dtype)  # (B, T, H, S)
            inputs = self._inputs(parts, theta)
            carry = Mamba3Carry(state.hidden, state.key, self._ranks(state.value))
            skip = self.D.to(theta.dtype)
            y, hidden = mamba3_scan(carry, inputs, skip, reset, None if wanted is None else steps, self.chunk)
            gated = self._gated(y, parts.z)
        kept = [at_steps(part, wanted) for part in (theta, inputs.key, parts.x)]
        return self.out_proj(gated), Mamba3State(kept[0], hidden.flatten(0, 1), kept[1], kept[2])

    def _project(self, x: Tensor) -> Tensor:
        """The input projection in the state's dtype, (..., W); on a processor zeros fill it up to whole registers."""
        spare = -self.in_proj.out_features % ALIGNMENT
        traced = torch.compiler.is_compiling()  # asked first: a traced batch has no size to compare
        if traced or x.device.type != "cpu" or not spare or x.numel() < PAD_ROWS * self.d_model:
            wide = self.in_proj(x)
        else:
            weight = self.in_proj.weight
            wide = F.linear(x, torch.cat([weight, weight.new_zeros(spare, self.d_model)]))
        return wide.to(state_dtype(self.D))

    def _parts(self, wide: Tensor) -> _Projected:
        """Splits the projection (..., W) and makes decays, weights, and turns of it."""
        spare = wide.shape[-1] - self.in_proj.out_features
        z, x, bc, dd_dt, dd_a, trap, angle, _ = wide.split([*self.split, spare], dim=-1)
        dt = F.softplus(dd_dt + self.dt_bias.to(wide.dtype))  # (..., H)
        # 1 + a for a >= 0, 1 / (1 - a) below; in this form the derivative is right at 0 too.
        rate = F.relu(dd_a) + 1 / (1 - dd_a.clamp(max=0)) if self.a_form == "rational" else F.softplus(dd_a)
        here = torch.sigmoid(trap) * dt
        turn = (math.pi * torch.tanh(angle))[..., None, :] * dt[..., None]  # (..., H, S)
        z, x = (part.unflatten(-1, (self.heads, self.headdim)) for part in (z, x))
        return _Projected(z, x, bc, -dt * rate.clamp(min=MIN_DECAY_RATE), here, dt - here, turn)

    def _normed(self, bc: Tensor) -> Tensor:
        """B and C (..., 2 R G N), side by side as projected, to RMSNorm of each: (..., 2, G, 1, R, N)."""
        bc = bc.unflatten(-1, (2, self.rank, self.ngroups, self.d_state))
        weight = torch.stack([self.B_norm.weight, self.C_norm.weight])[:, None, None].to(bc.dtype)
        return (rms_normed(bc) * weight).transpose(-2, -3).unsqueeze(-3)

    def _inputs(self, parts: _Projected, theta: Tensor) -> Mamba3Input:
        """Adds each head's biases to B and C, and turns them by theta (..., H, S) to key and query."""
        groups = (self.ngroups, self.heads // self.ngroups)
        bias = torch.stack([self.B_bias, self.C_bias]).unflatten(1, groups).to(theta.dtype)  # (2, G, H / G, R, N)
        angle = theta.unflatten(-2, groups)[..., None, :, :, None, :]  # (..., 1, G, H / G, 1, S)
        if torch.compiler.is_compiling():  # neither ONNX nor the compiler take complex numbers well
            turned = rotate(self._normed(parts.bc) + bias, angle, self.mimo)
        else:
            pairs = to_complex(self._normed(parts.bc), self.mimo) + to_complex(bias, self.mimo)
            turned = from_complex(pairs * rotors(angle, self.d_state // 2), self.mimo)
        key, query = turned.flatten(-4, -3).transpose(-2, -3).unbind(-4)  # (..., R, H, N)
        return Mamba3Input(query, key, self._ranks(parts.x), parts.log_decay, parts.here, parts.before)

    def _ranks(self, x: Tensor) -> Tensor:
        """x (..., H, P) to the values (..., R, H, P) of all ranks."""
        if not self.mimo:
            return x.unsqueeze(-3)
        return (x[..., None, :] * self.mimo_x.to(x.dtype)).transpose(-2, -3)

    def _gated(self, y: Tensor, z: Tensor) -> Tensor:
        """Norm and gate of y (..., R, H, P) by z (..., H, P); ranks are summed up: (..., I) for the projection."""
        if self.norm is not None:
            y = rms_normed(y) * self.norm.weight.view(self.heads, self.headdim).to(y.dtype)
        if self.mimo:
            mimo_z, mimo_o = (weight.transpose(0, 1).to(y.dtype) for weight in (self.mimo_z, self.mimo_o))  # (R, H, P)
            gated = (y * F.silu(z[..., None, :, :] * mimo_z) * mimo_o).sum(-3)
        else:
            gated = y.squeeze(-3) * F.silu(z)
        return gated.flatten(-2).to(self.out_proj.weight.dtype)


def rms_normed(x: Tensor) -> Tensor:
    """RMSNorm over the last axis, without weights."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)


def at_steps(x: Tensor, wanted: Tensor | None) -> Tensor:
    """x (B, T, ...) after the wanted steps (B, K), as (B * K, ...); after the last one by default."""
    if wanted is None:
        return x[:, -1].clone()  # a view would keep the whole sequence in memory
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    return x[rows, wanted].flatten(0, 1)
