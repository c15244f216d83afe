"""Attention and an SSM side by side: the sum of its branches, nested states, scan against steps."""

from __future__ import annotations

import pytest
import torch

from robonav.errors import ConfigError
from robonav.ssm.layers.attention import Attention, AttentionState
from robonav.ssm.layers.mamba2 import Mamba2, Mamba2State
from robonav.ssm.layers.parallel import ParallelBlock
from robonav.ssm.state import named_tensors
from tests.ssm.layer_checks import (
    assert_near,
    check_arguments_unchanged,
    check_carry,
    check_half,
    check_reset_forgets,
    check_scan_equals_steps,
)


def make() -> ParallelBlock:
    torch.manual_seed(0)
    attention = Attention(16, 2, window=4, rope=True)
    return ParallelBlock(attention, Mamba2(16, d_state=4, expand=1, headdim=8)).double()


@pytest.mark.parametrize("length", [1, 2, 17, 70])
def test_scan_equals_steps(length: int) -> None:
    check_scan_equals_steps(make(), length, 0.1)


def test_float32_carry_resets_arguments_and_half() -> None:
    check_scan_equals_steps(make().float(), 40, 0.1)
    check_carry(make())
    check_reset_forgets(make())
    check_arguments_unchanged(make())
    check_half(make().float())


def test_it_is_the_scaled_sum_of_its_branches() -> None:
    block = make()
    block.scale.data = torch.tensor([0.3, -2.0], dtype=torch.float64)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    left, right = (part.scan(x, part.initial_state(2))[0] for part in (block.attention, block.ssm))
    assert_near(block.scan(x, block.initial_state(2))[0], 0.3 * left - 2 * right, 1e-12)


def test_its_state_is_both_branches_states() -> None:
    state = make().initial_state(3)
    assert isinstance(state.attention, AttentionState)
    assert isinstance(state.ssm, Mamba2State)
    names = [name for name, _ in named_tensors(state)]
    assert names == ["attention.keys", "attention.values", "attention.filled", "ssm.window", "ssm.hidden"]


def test_branches_of_two_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ParallelBlock\.ssm: expected d_model 16, got 8"):
        ParallelBlock(Attention(16, 2), Attention(8, 2))
