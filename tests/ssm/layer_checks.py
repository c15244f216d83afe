"""What every sequence layer must do, as checks that the layers' tests call: scan against steps, carry, resets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robonav.ssm.state import map_state, named_tensors

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def assert_near(got: Any, want: Any, tolerance: float) -> None:
    """Same names, shapes, and values relative to the largest."""
    got, want = dict(named_tensors(got)), dict(named_tensors(want))
    assert got.keys() == want.keys()
    for name, wanted in want.items():
        assert got[name].shape == wanted.shape, name
        if not wanted.numel():  # no turned pairs, for one
            continue
        scale = 1 + float(wanted.detach().abs().max())
        assert float((got[name] - wanted).detach().abs().max()) <= tolerance * scale, name


def steps(layer: Any, x: Tensor, state: Any, reset: Tensor) -> tuple[Tensor, list[Any]]:
    """The truth: outputs (B, T, D), and the state after every step."""
    ys, states = [], []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, reset[:, t])
        ys.append(y)
        states.append(state)
    return torch.stack(ys, 1), states


def some_state(layer: Any, batch: int, length: int = 5) -> Any:
    """The state after a few random inputs."""
    weight = next(layer.parameters())
    x = torch.randn(batch, length, layer.d_model, dtype=weight.dtype)
    return map_state(Tensor.detach, layer.scan(x, layer.initial_state(batch))[1])


def check_scan_equals_steps(layer: Any, length: int, density: float, seed: int = 0, before: int = 5) -> None:
    """Outputs, the last and every wanted state, and gradients; from the state after `before` inputs."""
    torch.manual_seed(seed)
    dtype = next(layer.parameters()).dtype
    x = torch.randn(3, length, layer.d_model, dtype=dtype, requires_grad=True)
    reset = (torch.rand(3, length) < density).to(dtype)
    start = some_state(layer, 3, before)
    want_y, want_states = steps(layer, x, start, reset)
    y, last = layer.scan(x, start, reset)
    assert_near((y, last), (want_y, want_states[-1]), TOLERANCE[dtype])
    wanted = torch.randint(length, (3, 4))
    y, states = layer.scan(x, start, reset, wanted)
    every = map_state(lambda *parts: torch.stack(parts, 1), *want_states)
    rows = torch.arange(3)[:, None]
    assert_near((y, states), (want_y, map_state(lambda s: s[rows, wanted].flatten(0, 1), every)), TOLERANCE[dtype])
    weight = torch.randn_like(want_y)
    through = [x, *layer.parameters()]
    grads = (torch.autograd.grad((out * weight).sum(), through, allow_unused=True) for out in (y, want_y))
    for got, want in zip(*grads, strict=True):
        assert (got is None) == (want is None)
        assert want is None or torch.isfinite(got).all()
        assert want is None or float((got - want).abs().max()) <= TOLERANCE[dtype] * (1 + float(want.abs().max()))


def check_carry(layer: Any, length: int = 17) -> None:
    """Scanning in two pieces equals one, with a reset inside."""
    torch.manual_seed(1)
    dtype = next(layer.parameters()).dtype
    x = torch.randn(2, length, layer.d_model, dtype=dtype)
    reset = torch.zeros(2, length, dtype=dtype)
    reset[0, length // 2] = 1
    whole, final = layer.scan(x, layer.initial_state(2), reset)
    for k in (1, length // 2, length // 2 + 1, length - 1):
        first, middle = layer.scan(x[:, :k], layer.initial_state(2), reset[:, :k])
        second, end = layer.scan(x[:, k:], middle, reset[:, k:])
        assert_near((torch.cat([first, second], 1), end), (whole, final), TOLERANCE[dtype])


def check_reset_forgets(layer: Any, length: int = 12) -> None:
    """After a reset, outputs are those of a fresh start and nothing of the past is left in them; also at t = 0."""
    torch.manual_seed(2)
    dtype = next(layer.parameters()).dtype
    x = torch.randn(2, length, layer.d_model, dtype=dtype)
    for at in (0, length // 2):
        reset = torch.zeros(2, length, dtype=dtype)
        reset[:, at] = 1
        got = layer.scan(x, some_state(layer, 2), reset)[0][:, at:]
        want, _ = layer.scan(x[:, at:], layer.initial_state(2))
        assert_near(got, want, TOLERANCE[dtype])


def check_arguments_unchanged(layer: Any) -> None:
    """Neither verb writes into what it is given."""
    dtype = next(layer.parameters()).dtype
    x, reset = torch.randn(2, 7, layer.d_model, dtype=dtype), (torch.rand(2, 7) < 0.3).to(dtype)
    state = some_state(layer, 2)
    given = (x, reset, state)
    before = [t.clone() for _, t in named_tensors(given)]
    layer.scan(x, state, reset, torch.tensor([[0, 6], [3, 3]]))
    layer.step(x[:, 0], state, reset[:, 0])
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, named_tensors(given), strict=True))


def check_half(layer: Any, dtype: torch.dtype = torch.bfloat16) -> None:
    """In half precision the state stays float32, scan and steps agree, and so they do under autocast."""
    x, reset = torch.randn(2, 9, layer.d_model), (torch.rand(2, 9) < 0.2).float()
    want = layer.scan(x, layer.initial_state(2), reset)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer.scan(x, layer.initial_state(2), reset)
        ys, states = steps(layer, x, layer.initial_state(2), reset)
    assert all(t.dtype == torch.float32 for _, t in named_tensors((state, states)))
    assert_near((y.float(), ys.float()), (want, want), 3e-2)
    layer = layer.to(dtype)
    y, state = layer.scan(x.to(dtype), layer.initial_state(2), reset)
    ys, states = steps(layer, x.to(dtype), layer.initial_state(2), reset)
    assert all(t.dtype == torch.float32 for _, t in named_tensors((state, states)))
    assert y.dtype == ys.dtype == dtype
    assert_near((y.float(), ys.float()), (want, want), 3e-2)
