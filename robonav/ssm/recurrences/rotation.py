"""Rotation of pairs of entries by angles that depend on the data: Mamba-3's rotary embedding (arXiv 2603.15569).

Two conventions of what a pair is, both with S of N / 2 pairs turned and the rest left as they are: neighbours
(2i, 2i + 1), and halves (i, i + N / 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def wrap_phase(theta: Tensor) -> Tensor:
    """Wraps an angle to [-pi, pi), so that a day of steps loses no precision."""
    return theta - 2 * math.pi * torch.floor(theta / (2 * math.pi) + 0.5)


def rotate(x: Tensor, theta: Tensor, halves: bool = False) -> Tensor:
    """Turns the first S pairs of x (..., N) by theta (..., S): real arithmetic, which every backend can export."""
    cos, sin = torch.cos(theta), torch.sin(theta)
    turned, half = theta.shape[-1], x.shape[-1] // 2
    if halves:
        a, rest_a, b, rest_b = x.split([turned, half - turned, turned, half - turned], dim=-1)
        return torch.cat([a * cos - b * sin, rest_a, a * sin + b * cos, rest_b], dim=-1)
    pairs, rest = x[..., : 2 * turned].unflatten(-1, (turned, 2)), x[..., 2 * turned :]
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.cat([torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2), rest], dim=-1)


def to_complex(x: Tensor, halves: bool = False) -> Tensor:
    """Pairs of x (..., N) as complex numbers (..., N / 2): rotation is then one product with `rotors`."""
    if halves:
        return torch.complex(*x.chunk(2, dim=-1))
    return torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))


def from_complex(z: Tensor, halves: bool = False) -> Tensor:
    """Inverse of `to_complex`."""
    return torch.cat([z.real, z.imag], dim=-1) if halves else torch.view_as_real(z).flatten(-2)


def rotors(theta: Tensor, count: int) -> Tensor:
    """exp(i theta) for theta (..., S), and 1 for the pairs beyond S: (..., count)."""
    unit = torch.view_as_complex(torch.stack([torch.cos(theta), torch.sin(theta)], dim=-1))
    return F.pad(unit, (0, count - theta.shape[-1]), value=1.0) if count > theta.shape[-1] else unit
