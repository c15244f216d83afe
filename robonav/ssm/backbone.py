"""A stack of sequence layers chosen by a pattern string, one letter a layer.

Each layer stands in a pre-norm residual block, followed by a pre-norm SwiGLU block. Known letters: M, Mamba-3 (SISO).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.ssm.mamba3 import Mamba3, Mamba3State

LAYERS = {"M": Mamba3}
SSMState = tuple[Mamba3State, ...]


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Sizes of the memory."""

    pattern: str = "MM"
    """One letter a layer."""
    d_model: int = 192
    """Width D."""
    d_state: int = 16
    """State size N of a head."""
    expand: float = 1.0
    """Inner width of a layer over D."""
    headdim: int = 48
    """Head size P."""
    mlp_ratio: float = 1.0
    """Width of the SwiGLU block over D; 0 leaves it out."""

    def __post_init__(self) -> None:
        """Checks the pattern and the sizes.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"d_model": 1, "d_state": 1, "headdim": 1, "mlp_ratio": 0})
        unknown = [letter for letter in self.pattern if letter not in LAYERS]
        if unknown or not self.pattern:
            got = f"{self.pattern!r} (unknown: {', '.join(unknown) or 'empty'})"
            raise ConfigError(explain("backbone.pattern", f"letters out of {sorted(LAYERS)}", got))


class SwiGLU(nn.Module):
    """(..., D) -> (..., D), down(SiLU(gate x) * up x)."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, 2 * width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Backbone(nn.Module):
    """Layers of the pattern with the same three verbs as each layer; output is normalised."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.norms = nn.ModuleList(nn.RMSNorm(d) for _ in config.pattern)
        self.layers = nn.ModuleList(
            LAYERS[letter](d, config.d_state, config.expand, config.headdim) for letter in config.pattern
        )
        width = int(config.mlp_ratio * d)
        self.mlp_norms = nn.ModuleList(nn.RMSNorm(d) for _ in config.pattern if width)
        self.mlps = nn.ModuleList(SwiGLU(d, width) for _ in config.pattern if width)
        self.out_norm = nn.RMSNorm(d)

    def initial_state(self, batch: int) -> SSMState:
        """The state before any input."""
        return tuple(self._layer(i).initial_state(batch) for i in range(len(self.layers)))

    def _layer(self, index: int) -> Mamba3:
        return cast("Mamba3", self.layers[index])

    def _mix(self, x: Tensor, index: int) -> Tensor:
        return x + self.mlps[index](self.mlp_norms[index](x)) if len(self.mlps) else x

    def step(self, x: Tensor, state: SSMState, reset: Tensor | None = None) -> tuple[Tensor, SSMState]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,)."""
        after = []
        for i in range(len(self.layers)):
            y, layer_state = self._layer(i).step(self.norms[i](x), state[i], reset)
            x = self._mix(x + y, i)
            after.append(layer_state)
        return self.out_norm(x), tuple(after)

    def scan(self, x: Tensor, state: SSMState, reset: Tensor, wanted: Tensor | None = None) -> tuple[Tensor, SSMState]:
        """x (B, T, D) to y (B, T, D) and the last state, or the states (B * K, ...) after the wanted (B, K) steps."""
        after = []
        for i in range(len(self.layers)):
            y, layer_state = self._layer(i).scan(self.norms[i](x), state[i], reset, wanted)
            x = self._mix(x + y, i)
            after.append(layer_state)
        return self.out_norm(x), tuple(after)


def select_state(keep: Tensor, state: SSMState, otherwise: SSMState) -> SSMState:
    """Row by row: `state` where keep (B,) is true, else `otherwise`."""
    return tuple(
        Mamba3State(*(torch.where(keep.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(s, o, strict=True)))
        for s, o in zip(state, otherwise, strict=True)
    )
