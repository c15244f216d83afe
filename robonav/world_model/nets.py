"""Small networks shared by encoders and heads, and the symlog two-hot distribution of DreamerV3 (2301.04104)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(x.abs())


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """Linear, RMSNorm, SiLU repeated, and a linear output."""
    parts: list[nn.Module] = []
    width = inputs
    for _ in range(layers):
        parts += [nn.Linear(width, hidden, bias=False), nn.RMSNorm(hidden), nn.SiLU()]
        width = hidden
    return nn.Sequential(*parts, nn.Linear(width, outputs))


class TwoHotHead(nn.Module):
    """Predicts a scalar as a categorical over bins that are evenly spaced in symlog; starts at 0.

    Args:
        limit: the bins span symexp(-limit) to symexp(limit). DreamerV3's 20 serves unknown reward scales; ours are
            near 1, and at 20 the rounding of the outer bins (1e8 each) would drown the value in single precision.
    """

    bins: Tensor

    def __init__(self, inputs: int, hidden: int, layers: int, bins: int = 127, limit: float = 3.0) -> None:
        super().__init__()
        self.net = mlp(inputs, hidden, bins, layers)
        output = self.net[-1]
        assert isinstance(output, nn.Linear)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        self.limit, self.step = limit, 2 * limit / (bins - 1)
        half = torch.linspace(-limit, 0, bins // 2 + 1)
        self.register_buffer("bins", torch.cat([half, -half[:-1].flip(0)]), persistent=False)  # exactly symmetric

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) -> logits (..., bins)."""
        logits: Tensor = self.net(features)
        return logits

    def mean(self, features: Tensor) -> Tensor:
        """(..., F) -> expected value (...). Mirrored bins are added first, so that 0 stays exactly 0."""
        p = torch.softmax(self(features), dim=-1)
        value = symexp(self.bins)
        half = self.bins.shape[0] // 2
        low, high = (p * value)[..., :half], (p * value)[..., half + 1 :].flip(-1)
        return (low + high).sum(-1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (...) of logits (..., bins) with the two-hot encoding of target (...); NaN of a NaN."""
        position = ((symlog(target) + self.limit) / self.step).clamp(0, self.bins.shape[0] - 1)
        below = position.nan_to_num().floor().long().clamp(max=self.bins.shape[0] - 2)
        above_weight = position - below
        log_p = F.log_softmax(logits, dim=-1)
        near = log_p.gather(-1, torch.stack([below, below + 1], dim=-1))
        return -(near * torch.stack([1 - above_weight, above_weight], dim=-1)).sum(-1)
