"""The GRU against torch's own and against its steps, and the layer without memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.errors import ConfigError, ShapeError
from robonav.ssm.layers.gru import GRU, GRUState
from robonav.ssm.layers.memoryless import Memoryless
from tests.ssm.layer_checks import (
    assert_near,
    check_arguments_unchanged,
    check_carry,
    check_half,
    check_reset_forgets,
    check_scan_equals_steps,
    some_state,
)


def make(hidden: int | None = None) -> GRU:
    torch.manual_seed(0)
    return GRU(8, hidden).double()


@settings(max_examples=20, deadline=None)
@given(
    length=st.sampled_from([1, 2, 17, 64]), density=st.sampled_from([0.0, 0.1, 1.0]), hidden=st.sampled_from([None, 5])
)
def test_gru_scan_equals_steps(length: int, density: float, hidden: int | None) -> None:
    check_scan_equals_steps(make(hidden), length, density, seed=length)


def test_without_resets_it_is_torchs_gru_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make()
    x = torch.randn(3, 12, 8, dtype=torch.float64)
    state = some_state(layer, 3)
    want, last = layer.gru(x, state.hidden[None])
    calls = []
    run = torch.gru
    monkeypatch.setattr(torch, "gru", lambda *a: calls.append(a[0].shape[1]) or run(*a))  # type: ignore[func-returns-value]
    y, after = layer.scan(x, state)
    assert_near((y, after.hidden), (want, last[0]), 1e-12)
    reset = torch.zeros(3, 12, dtype=torch.float64)
    reset[1, 5] = reset[2, 5] = reset[0, 9] = 1
    layer.scan(x, state, reset)
    assert calls == [12, 5, 4, 3]


def test_a_closed_form_with_zero_weights() -> None:
    layer = make()
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    layer.gru.bias_ih_l0.data[16:] = 0.7  # n = tanh(0.7), u = 1/2: the state moves half the way at each step
    y, _ = layer.scan(torch.randn(1, 6, 8, dtype=torch.float64), layer.initial_state(1))
    share = 1 - 0.5 ** torch.arange(1, 7, dtype=torch.float64)
    assert_near(y, (torch.tanh(torch.tensor(0.7, dtype=torch.float64)) * share)[None, :, None].expand(1, 6, 8), 1e-12)


@pytest.mark.parametrize("layer", [lambda: make(), lambda: make(5), lambda: Memoryless(8, 12).double()])
def test_float32_carry_resets_arguments_and_half(layer: Any) -> None:
    check_scan_equals_steps(layer().float(), 100, 0.05)
    check_carry(layer())
    check_reset_forgets(layer())
    check_arguments_unchanged(layer())
    check_half(layer().float())
    check_half(layer().float(), torch.float16)


def test_gru_gradcheck_with_a_reset() -> None:
    torch.manual_seed(0)
    layer = GRU(3, 2).double()
    reset = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)

    def run(x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, after = layer.scan(x, GRUState(hidden), reset, torch.tensor([[1, 3]]))
        return y, after.hidden

    given = torch.randn(1, 4, 3, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(run, tuple(g.requires_grad_() for g in given))


def test_memoryless_maps_each_input_alone() -> None:
    layer = Memoryless(8, 12).double()
    assert layer.initial_state(4) == ()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    y, state = layer.scan(x, (), wanted=torch.tensor([[1], [2]]))
    assert state == ()
    assert_near(layer.scan(x.flip(1), ())[0].flip(1), y, 1e-12)


def test_bad_arguments_are_named() -> None:
    for make_bad, said in (
        (lambda: GRU(8, 0), "GRU.hidden: expected at least 1, got 0"),
        (lambda: Memoryless(8, 0), "Memoryless.width: expected at least 1, got 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_bad()
    x = torch.zeros(2, 5, 8, dtype=torch.float64)
    for layer in (make(), Memoryless(8, 4).double()):
        state = layer.initial_state(2)
        with pytest.raises(ShapeError, match=r"x: expected \(B, T, 8\), got \(2, 5, 7\)"):
            layer.scan(x[..., :7], state)
        with pytest.raises(ShapeError, match=r"reset: expected \(2,\), got \(3,\)"):
            layer.step(x[:, 0], state, torch.zeros(3))
        with pytest.raises(ShapeError, match="wanted: expected integer steps"):
            layer.scan(x, state, wanted=torch.zeros(2, 1))
    with pytest.raises(ShapeError, match=r"state\.hidden: expected batch 2"):
        make().step(x[:, 0], make().initial_state(3))
