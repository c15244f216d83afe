"""The depthwise causal convolution in front of a recurrence, with its window as state and with resets.

    y_t = bias + sum_j weight_j x_{t - W + 1 + j}

An input from before a reset counts zero. The window holds the last W - 1 inputs, older first, zeros where a reset
dropped them, so that a step needs nothing else. The weight has the shape of a depthwise `nn.Conv1d`: (C, 1, W).

Shape letters: B batch, T time, C channels, W taps, K wanted states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def conv_step(x: Tensor, window: Tensor, weight: Tensor, bias: Tensor | None, reset: Tensor) -> tuple[Tensor, Tensor]:
    """One step: x (B, C), window (B, C, W - 1) and reset (B,) to y (B, C) and the next window."""
    taps = torch.cat([window * (1 - reset)[:, None, None], x[..., None]], dim=-1)  # (B, C, W)
    y = (taps * weight[:, 0]).sum(-1)
    return (y if bias is None else y + bias), taps[..., 1:]


def conv_scan(
    x: Tensor, window: Tensor, weight: Tensor, bias: Tensor | None, reset: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """A whole sequence, equal to T calls of `conv_step`.

    Args:
        x: (B, T, C); window: (B, C, W - 1) before the first step; reset: (B, T).
        wanted: (B, K) steps after which the window is asked for.

    Returns:
        y (B, T, C) and the windows after the wanted steps (B, K, C, W - 1).
    """
    length, width = x.shape[1], weight.shape[-1]
    inputs = torch.cat([window.transpose(1, 2), x], dim=1)  # (B, W - 1 + T, C), step t at W - 1 + t
    segment = torch.cumsum(reset, dim=1)
    segments = F.pad(segment, (width - 1, 0))  # the window belongs to segment 0
    reach = torch.stack([segments[:, j : j + length] == segment for j in range(width)]).to(x.dtype)  # (W, B, T)
    y: Tensor = _MaskedConvolution.apply(inputs, weight[:, 0].T, reach)
    rows = torch.arange(x.shape[0], device=x.device)[:, None, None]
    last = wanted[..., None] + torch.arange(1, width, device=x.device)  # (B, K, W - 1)
    kept = segments[rows, last] == segment.gather(1, wanted)[..., None]
    windows = (inputs[rows, last] * kept[..., None]).transpose(-1, -2)
    return (y if bias is None else y + bias), windows


class _MaskedConvolution(torch.autograd.Function):
    """Inputs (B, W - 1 + T, C), weight (W, C) and mask (W, B, T) of what each tap may see to y (B, T, C).

    Differentiated by hand, since autograd would keep W copies of the inputs; it takes a third of the time.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, reach: Tensor) -> Tensor:
        """The last tap sees the step itself, whatever was reset."""
        ctx.save_for_backward(inputs, weight, reach)
        past, length = len(weight) - 1, reach.shape[-1]
        y = inputs[:, past:] * weight[past]
        for j in range(past):
            y.addcmul_(inputs[:, j : j + length] * reach[j, ..., None], weight[j])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of inputs and weight."""
        inputs, weight, reach = ctx.saved_tensors
        length = reach.shape[-1]
        to_inputs, to_weight = torch.zeros_like(inputs), torch.empty_like(weight)
        for j, tap in enumerate(weight):
            seen = grad * reach[j, ..., None]
            to_inputs[:, j : j + length].addcmul_(seen, tap)
            to_weight[j] = (seen * inputs[:, j : j + length]).sum((0, 1))
        return to_inputs, to_weight, None
