"""Attention over a window: scan against steps, the window's edge, resets, rotary embedding, empty caches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.errors import ConfigError, ShapeError
from robonav.ssm.layers.attention import BLOCK, Attention, SharedAttention, rotate_places
from tests.ssm.layer_checks import (
    assert_near,
    check_arguments_unchanged,
    check_carry,
    check_half,
    check_reset_forgets,
    check_scan_equals_steps,
    some_state,
    steps,
)


def make(rope: bool = False, window: int = 6, heads: int = 4, kv_heads: int | None = 2) -> Attention:
    torch.manual_seed(0)
    return Attention(16, heads, window, rope, kv_heads).double()


@settings(max_examples=25, deadline=None)
@given(
    length=st.sampled_from([1, 2, 5, 6, 7, 17, BLOCK, BLOCK + 1, 150]),
    window=st.sampled_from([1, 6, 70]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    rope=st.booleans(),
    kv_heads=st.sampled_from([None, 1, 2]),
    before=st.sampled_from([2, 80]),
)
def test_scan_equals_steps(
    length: int, window: int, density: float, rope: bool, kv_heads: int | None, before: int
) -> None:
    check_scan_equals_steps(make(rope, window, 4, kv_heads), length, density, seed=length, before=before)


@pytest.mark.parametrize("rope", [False, True])
def test_float32_carry_resets_arguments_and_half(rope: bool) -> None:
    check_scan_equals_steps(make(rope).float(), 100, 0.05)
    check_carry(make(rope))
    check_reset_forgets(make(rope))
    check_arguments_unchanged(make(rope))
    check_half(make(rope).float())
    check_half(make(rope).float(), torch.float16)


@pytest.mark.parametrize("rope", [False, True])
def test_equals_plain_attention_over_the_last_window_inputs(rope: bool) -> None:
    layer, length = make(rope, window=5, kv_heads=4), 20
    x = torch.randn(2, length, 16, dtype=torch.float64)
    q, k, v = layer.in_proj(x).unflatten(-1, (12, 4)).split(4, dim=-2)
    if rope:  # by absolute places, as it is usually done
        q, k = rotate_places(q, 1e4), rotate_places(k, 1e4)
    t = torch.arange(length)
    past = t[:, None] - t
    score = torch.einsum("bthe,bshe->bhts", q, k) / 2
    share = score.masked_fill((past < 0) | (past > 5), -math.inf).softmax(-1)
    want = layer.out_proj(torch.einsum("bhts,bshe->bthe", share, v).flatten(2))
    assert_near(layer.scan(x, layer.initial_state(2))[0], want, 1e-12)


@pytest.mark.parametrize("rope", [False, True])
def test_what_left_the_window_has_no_effect_and_what_is_in_it_has(rope: bool) -> None:
    layer = make(rope, window=6)
    x = torch.randn(1, 20, 16, dtype=torch.float64)
    changed = x.clone()
    changed[:, 4] += 1
    difference = (layer.scan(x, layer.initial_state(1))[0] - layer.scan(changed, layer.initial_state(1))[0]).abs()
    seen = difference.amax(-1)[0] > 1e-9
    assert seen.tolist() == [4 <= t <= 4 + 6 for t in range(20)]


def test_one_input_and_an_empty_cache_give_the_value_itself() -> None:
    layer = make(rope=True, kv_heads=4)
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    y, state = layer.step(x, layer.initial_state(3))
    assert_near(y, layer.out_proj(layer.in_proj(x)[:, 32:]), 1e-12)
    assert state.filled.sum(1).tolist() == [1, 1, 1]
    assert all(not part.isnan().any() for part in (*state, *torch.autograd.grad(y.sum(), x)))


def test_a_reset_empties_the_cache_of_its_row_alone_and_empty_places_are_never_read() -> None:
    layer = make()
    x, state = torch.randn(2, 16, dtype=torch.float64), some_state(layer, 2, 9)
    y, after = layer.step(x, state, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert after.filled.sum(1).tolist() == [1, 6]
    assert_near(y[:1], layer.step(x[:1], layer.initial_state(1))[0], 1e-12)
    assert_near(y[1:], layer.step(x, state)[0][1:], 1e-12)
    empty = after.filled[..., None, None] == 0
    other = after._replace(keys=after.keys.masked_fill(empty, 1e9), values=after.values.masked_fill(empty, -1e9))
    sequence = torch.randn(2, 8, 16, dtype=torch.float64)
    for verb, inputs in ((layer.step, x), (layer.scan, sequence)):
        assert_near(verb(inputs, other)[0], verb(inputs, after)[0], 1e-12)


def test_the_rotary_embedding_sees_order_and_no_absolute_time() -> None:
    for rope, told_apart in ((False, False), (True, True)):
        layer = make(rope)
        x = torch.randn(1, 4, 16, dtype=torch.float64)
        swapped = x[:, [1, 0, 2, 3]]
        ends = [layer.scan(s, layer.initial_state(1))[0][:, -1].detach() for s in (x, swapped)]
        assert (float((ends[0] - ends[1]).abs().max()) > 1e-6) is told_apart
    layer = make(rope=True, window=3)
    x = torch.randn(1, 4, 16, dtype=torch.float64)
    later = torch.cat([torch.randn(1, 500, 16, dtype=torch.float64), x], dim=1)
    y, late = (layer.scan(s, layer.initial_state(1))[0][:, -1] for s in (x, later))
    assert_near(late, y, 1e-12)


def test_rotation_by_a_quarter_turn_and_of_pairs() -> None:
    x = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64).expand(3, 1, 4)
    turned = rotate_places(x, base=100.0)[:, 0]
    t = torch.arange(3, dtype=torch.float64)
    want = torch.stack([torch.cos(t), -torch.sin(t / 10), torch.sin(t), torch.cos(t / 10)], dim=-1)
    assert_near(turned, want, 1e-12)
    assert_near(rotate_places(x[1:], 100.0, first=1)[:, 0], want[1:], 1e-12)


def test_gradcheck_with_a_carried_cache_and_a_reset() -> None:
    torch.manual_seed(0)
    layer = Attention(4, 2, 2, rope=True).double()
    state = some_state(layer, 1, 3)
    reset = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)

    def run(x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, after = layer.scan(x, state._replace(keys=keys, values=values), reset, torch.tensor([[1, 3]]))
        return y, *after[:2]

    given = (torch.randn(1, 4, 4, dtype=torch.float64), state.keys, state.values)
    assert torch.autograd.gradcheck(run, tuple(g.clone().requires_grad_() for g in given))


def test_gradients_stay_finite_for_long_all_reset_and_large_inputs() -> None:
    layer = Attention(16, 2, 8, rope=True)
    for length, density, scale in ((1, 1.0, 1e3), (65, 1.0, 1e3), (4096, 0.0, 1.0), (70, 0.3, 1e3)):
        x = (scale * torch.randn(1, length, 16)).requires_grad_()
        y, state = layer.scan(x, layer.initial_state(1), (torch.rand(1, length) < density).float())
        y.square().mean().backward()
        assert x.grad is not None
        assert all(torch.isfinite(t).all() for t in (y, x.grad, *state))


def test_shared_attention_reads_two_streams_and_keeps_a_state_a_place() -> None:
    shared = SharedAttention(16, make()).double()
    x = torch.randn(2, 9, 32, dtype=torch.float64)
    reset = torch.zeros(2, 9, dtype=torch.float64)
    y, state = shared.scan(x, shared.initial_state(2), reset)
    want, states = steps(shared, x, shared.initial_state(2), reset)
    assert y.shape == (2, 9, 16)
    assert_near((y, state), (want, states[-1]), 1e-10)
    assert not torch.allclose(shared.scan(x.flip(-1), shared.initial_state(2))[0], y)


def test_bad_arguments_are_named() -> None:
    for arguments, said in (
        ((16, 3), "heads: expected a divisor of d_model = 16, got 3"),
        ((16, 0), "heads"),
        ((16, 4, 0), "window: expected at least 1, got 0"),
        ((16, 4, 8, False, 3), "kv_heads: expected a divisor of heads = 4, got 3"),
        ((16, 4, 8, False, 0), "kv_heads"),
        ((12, 4, 8, True), "head size with rope: expected an even number, got 3"),
    ):
        with pytest.raises(ConfigError, match=said):
            Attention(*arguments)
    layer = make()
    x = torch.zeros(2, 5, 16, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"reset: expected \(2, 5\), got \(2, 4\)"):
        layer.scan(x, layer.initial_state(2), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"state\.keys: expected batch 2, as x has, got batch 3"):
        layer.scan(x, layer.initial_state(3))
    with pytest.raises(ShapeError, match="floating"):
        layer.step(torch.zeros(2, 16, dtype=torch.long), layer.initial_state(2))
