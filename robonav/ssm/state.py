"""What every sequence layer shares: the protocol of its three verbs, nested states, and the checks at its door.

A state is a NamedTuple of tensors with the batch first (or of such states, or an empty tuple). It is explicit: layers
keep nothing between calls. Floating states are at least float32, also under autocast or in a half-precision layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from robonav.errors import ShapeError, explain

State = Any  # a Tensor, or a tuple or NamedTuple of states


class SequenceLayer(Protocol):
    """A layer from (B, D) a tick, or (B, T, D) a sequence, to the same shape."""

    d_model: int

    def initial_state(self, batch: int) -> State:
        """The state before any input, on the layer's device."""
        ...

    def step(self, x: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        ...

    def scan(
        self, x: Tensor, state: State, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """x (B, T, D) to y (B, T, D), equal to T calls of `step`.

        The state returned is that after the last step, or, where `wanted` (B, K) is given, those after the wanted
        steps as (B * K, ...), row b * K + k.
        """
        ...


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Applies `function` to corresponding tensors of states of one structure."""
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    parts = [map_state(function, *parts) for parts in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def named_tensors(state: State, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Dotted names and tensors, depth first; unnamed parts are counted."""
    if isinstance(state, Tensor):
        yield prefix, state
        return
    names = getattr(state, "_fields", range(len(state)))
    for name, part in zip(names, state, strict=True):
        yield from named_tensors(part, f"{prefix}.{name}" if prefix else str(name))


def rebuild_state(like: State, tensors: Iterator[Tensor]) -> State:
    """Inverse of `named_tensors`: a state of the structure of `like` from tensors in that order."""
    return map_state(lambda _: next(tensors), like)


def select_state(keep: Tensor, state: State, otherwise: State) -> State:
    """Row by row: `state` where keep (B,) is true, else `otherwise`."""
    return map_state(lambda a, b: torch.where(keep.view(-1, *[1] * (a.dim() - 1)), a, b), state, otherwise)


def state_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a layer's state: its weights', but at least float32."""
    return torch.promote_types(weight.dtype, torch.float32)


def check_step(x: Tensor, d_model: int, state: State, reset: Tensor | None) -> Tensor:
    """Checks a step's arguments; returns the reset, zeros where there is none.

    Raises:
        ShapeError: names the argument, what was expected, and what came.
    """
    _check_input(x, ("B", d_model))
    _check_state(x.shape[0], state)
    return _check_reset(reset, x, (x.shape[0],))


def check_scan(
    x: Tensor, d_model: int, state: State, reset: Tensor | None, wanted: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Checks a scan's arguments; returns reset (B, T) and wanted (B, K) with their defaults filled in.

    Raises:
        ShapeError: names the argument, what was expected, and what came.
    """
    _check_input(x, ("B", "T", d_model))
    batch, length = x.shape[:2]
    if length < 1:
        raise ShapeError(explain("x", "at least one step", tuple(x.shape)))
    _check_state(batch, state)
    if wanted is None:
        wanted = torch.full((batch, 1), length - 1, device=x.device)
    elif wanted.dim() != 2 or wanted.shape[0] != batch or wanted.is_floating_point():
        raise ShapeError(explain("wanted", f"integer steps ({batch}, K)", f"{tuple(wanted.shape)} {wanted.dtype}"))
    return _check_reset(reset, x, (batch, length)), wanted


def _check_input(x: Tensor, shape: Sequence[str | int]) -> None:
    expected = "(" + ", ".join(str(s) for s in shape) + ")"
    if not x.is_floating_point():
        raise ShapeError(explain("x", f"a floating tensor {expected}", f"{tuple(x.shape)} {x.dtype}"))
    if x.dim() != len(shape) or x.shape[-1] != shape[-1]:
        raise ShapeError(explain("x", expected, tuple(x.shape)))


def _check_state(batch: int, state: State) -> None:
    for name, tensor in named_tensors(state):
        if tensor.shape[0] != batch:
            raise ShapeError(explain(f"state.{name}", f"batch {batch}, as x has", f"batch {tensor.shape[0]}"))


def _check_reset(reset: Tensor | None, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    dtype = state_dtype(x)
    if reset is None:
        return torch.zeros(shape, dtype=dtype, device=x.device)
    if tuple(reset.shape) != shape:
        raise ShapeError(explain("reset", shape, tuple(reset.shape)))
    return reset.to(dtype)
