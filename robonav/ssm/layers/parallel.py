"""Attention and a state-space layer side by side on one input, as in Falcon-H1 (arXiv 2507.22448).

    y = a attention(x) + s ssm(x)

The scales a and s are learned; Falcon-H1 scales its branches' outputs too, by fixed multipliers, and adds them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robonav.errors import ConfigError, explain
from robonav.ssm.layers.attention import AttentionState
from robonav.ssm.state import SequenceLayer, State


class ParallelState(NamedTuple):
    """Both branches' states."""

    attention: AttentionState
    ssm: State


class ParallelBlock(nn.Module):
    """Sum of two layers of one width, each with a learned scale that starts at 1/sqrt(2).

    Args:
        attention: an `Attention`.
        ssm: any other sequence layer.
    """

    attention: SequenceLayer
    ssm: SequenceLayer

    def __init__(self, attention: nn.Module, ssm: nn.Module) -> None:
        super().__init__()
        if attention.d_model != ssm.d_model:
            raise ConfigError(explain("ParallelBlock.ssm", f"d_model {attention.d_model}", ssm.d_model))
        self.add_module("attention", attention)
        self.add_module("ssm", ssm)
        self.d_model = self.attention.d_model
        self.scale = nn.Parameter(torch.full((2,), 0.5**0.5))  # of attention and of the state-space layer

    def initial_state(self, batch: int) -> ParallelState:
        """Both branches' states before any input."""
        return ParallelState(self.attention.initial_state(batch), self.ssm.initial_state(batch))

    def step(self, x: Tensor, state: ParallelState, reset: Tensor | None = None) -> tuple[Tensor, ParallelState]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        left, attention = self.attention.step(x, state.attention, reset)
        right, ssm = self.ssm.step(x, state.ssm, reset)
        return self.scale[0] * left + self.scale[1] * right, ParallelState(attention, ssm)

    def scan(
        self, x: Tensor, state: ParallelState, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, ParallelState]:
        """x (B, T, D) to y (B, T, D), and the states (B * K, ...) after the wanted steps."""
        left, attention = self.attention.scan(x, state.attention, reset, wanted)
        right, ssm = self.ssm.scan(x, state.ssm, reset, wanted)
        return self.scale[0] * left + self.scale[1] * right, ParallelState(attention, ssm)
