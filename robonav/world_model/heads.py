"""Several small priors beside the main one: where they disagree, the model has seen too little to be dreamt through.

Each predicts the next latent from [h_t, z_t, a_t], which it only reads: the rest of the model learns the same with and
without them. They start apart and see the sequences of a batch with weights of their own (online bagging, Oza and
Russell 2001), as in ensembles that explore or keep a planner to what is known (Plan2Explore, 2005.05960).

Shape letters: E heads, G groups, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robonav.errors import ConfigError, explain
from robonav.world_model.nets import mlp


def require_bins(name: str, bins: int) -> None:
    """Checks the bins of a `TwoHotHead`: 0 has one of its own, so their number is odd.

    Raises:
        ConfigError: it is not, or below 3.
    """
    if bins < 3 or bins % 2 == 0:
        raise ConfigError(explain(name, "an odd number of at least 3", bins))


def categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats (...), summed over the groups; log probabilities (..., G, C)."""
    return (p.exp() * (p - q)).sum((-1, -2))


def jensen_shannon(log_p: Tensor) -> Tensor:
    """Jensen-Shannon divergence of E categoricals: log probabilities (..., E, G, C) to (...), mean over the groups.

    The entropy of their mean less the mean of their entropies, over ln(E): 0 where all agree, 1 where each is certain
    of another class.
    """
    p = log_p.exp()
    mean = p.mean(-3, keepdim=True)
    nats = (p * (log_p - mean.log())).sum(-1).mean((-1, -2))  # over classes, then groups and heads
    return nats.clamp(min=0) / math.log(log_p.shape[-3])


class PriorHeads(nn.Module):
    """E networks from [h_t, z_t, a_t] to logits of z_{t+1}."""

    def __init__(self, inputs: int, hidden: int, outputs: int, count: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(mlp(inputs, hidden, outputs) for _ in range(count))

    def forward(self, context: Tensor) -> Tensor:
        """(..., F) -> logits (..., E, G * C); no gradient reaches the input."""
        context = context.detach()
        return torch.stack([net(context) for net in self.nets], dim=-2)

    @staticmethod
    def loss(posterior: Tensor, predicted: Tensor) -> Tensor:
        """Loss (B, T): KL(sg(posterior) || head), summed over heads with Poisson(1) weights a sequence and head.

        Args:
            posterior: (B, T, G, C) log probabilities; predicted: (B, T, E, G, C) those of the same steps.
        """
        divergence = categorical_kl(posterior.detach().unsqueeze(-3), predicted)  # (B, T, E)
        weight = torch.poisson(torch.ones_like(divergence[:, :1]))
        return (weight * divergence).sum(-1)
