"""What grounds the latent where nothing is reconstructed: redundancy reduction, or prediction of embeddings.

Redundancy reduction (R2-Dreamer): what is projected from the features must say the same as the encoder's embedding,
entry by entry, and no two entries the same. Joint-embedding prediction (LeWorldModel, 2603.19312): the next embedding
is predicted from [h_t, z_t, a_t], and embeddings are kept from collapsing by how far their random projections are from
a normal distribution (SIGReg). An L1 term over several steps as in V-JEPA 2-AC (2506.09985) comes on top.

Shape letters: N samples, E embedding size, M directions, B batch, T time, S dream starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.config import require_at_least
from robonav.world_model.nets import mlp


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """Weights and sizes of the objectives that reconstruct nothing."""

    redundancy_weight: float = 0.05
    """Weight of redundancy reduction."""
    off_diagonal: float = 5e-4
    """Weight within it of what two different entries share."""
    prediction_weight: float = 1.0
    """Weight of the squared error of the predicted next embedding."""
    sigreg_weight: float = 0.09
    """Weight of SIGReg."""
    directions: int = 1024
    """Random directions of SIGReg, new ones an update."""
    multistep_weight: float = 0.5
    """Weight of the L1 error of normalised embeddings, one step and `multistep` steps ahead."""
    multistep: int = 2
    """Steps of the roll-out under the prior; what it predicts is compared at its end."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        weights = ("redundancy_weight", "off_diagonal", "prediction_weight", "sigreg_weight", "multistep_weight")
        require_at_least(self, {**dict.fromkeys(weights, 0), "directions": 1, "multistep": 2})


def standardised(x: Tensor) -> Tensor:
    """(N, E) with mean 0 and variance 1 in every column; a constant column becomes 0."""
    centred = x - x.mean(0)
    return centred / (centred.square().mean(0) + 1e-8).sqrt()


def redundancy(x: Tensor, y: Tensor, off_diagonal: float) -> Tensor:
    """Sum of (C_ii - 1)^2 and `off_diagonal` times C_ij^2 of the cross-correlation C of x and y, both (N, E).

    Barlow twins (2103.03230), equation 1.
    """
    correlation = standardised(x).T @ standardised(y) / x.shape[0]
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + off_diagonal * others


KNOTS, LAST_KNOT = 17, 3.0  # of the trapezoid rule


class _NormalityStatistic(torch.autograd.Function):
    """Epps-Pulley statistic (M,) of projections (N, M), its gradient made along the way.

    N * integral of 2 exp(-t^2 / 2) [(mean cos tu - exp(-t^2 / 2))^2 + (mean sin tu)^2] over t from 0 to 3. The angles
    of the knots are multiples of one, so each knot is a rotation by it: one cosine and sine in all, and no buffer a
    knot for the way back (a quarter of the time of the plain formula).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        dt = LAST_KNOT / (KNOTS - 1)
        turn_cos, turn_sin = torch.cos(dt * u), torch.sin(dt * u)
        cos, sin = turn_cos, turn_sin
        gradient, total = torch.zeros_like(u), u.new_zeros(u.shape[1])
        for k in range(1, KNOTS):  # at t = 0 both terms are 0
            t = k * dt
            normal = math.exp(-(t**2) / 2)
            weight = (1 if k == KNOTS - 1 else 2) * dt * normal
            real, imaginary = cos.mean(0) - normal, sin.mean(0)
            total += weight * (real.square() + imaginary.square())
            gradient.addcmul_(cos, imaginary, value=2 * weight * t).addcmul_(sin, real, value=-2 * weight * t)
            cos, sin = cos * turn_cos - sin * turn_sin, sin * turn_cos + cos * turn_sin
        ctx.save_for_backward(gradient)
        return u.shape[0] * total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gradient,) = ctx.saved_tensors
        return grads[0] * gradient


def sigreg(x: Tensor, directions: Tensor) -> Tensor:
    """Mean over unit directions (E, M) of how far x (N, E) is from standard normal along each; about 1 where it is."""
    statistic: Tensor = _NormalityStatistic.apply(x @ directions)
    return statistic.mean()


def random_directions(like: Tensor, count: int) -> Tensor:
    """(E, count) random unit vectors for samples `like` (..., E)."""
    return F.normalize(torch.randn(like.shape[-1], count, dtype=like.dtype, device=like.device), dim=0)


def normalised_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """(...) mean absolute difference of two embeddings (..., E) after layer normalisation; the target is constant."""
    size = predicted.shape[-1:]
    return (F.layer_norm(predicted, size) - F.layer_norm(target.detach(), size)).abs().mean(-1)


class RedundancyReduction(nn.Module):
    """Projects the features onto the encoder's embedding."""

    def __init__(self, config: ObjectiveConfig, features: int, embedding: int) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(features, embedding)

    def losses(self, features: Tensor, embedding: Tensor) -> dict[str, Tensor]:
        """Of features (B, T, F) and the embedding (B, T, E), which is not moved."""
        projected, target = self.project(features).flatten(0, 1), embedding.detach().flatten(0, 1)
        return {"redundancy": self.config.redundancy_weight * redundancy(projected, target, self.config.off_diagonal)}


class EmbeddingPrediction(nn.Module):
    """Predicts the next embedding; `embed` frees it from the encoder's last activation, so that it can be normal."""

    def __init__(self, config: ObjectiveConfig, hidden: int, context: int, embedding: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(embedding, embedding)
        self.predict = mlp(context, hidden, embedding)

    def losses(
        self, context: Tensor, embedding: Tensor, follows: Tensor, ahead: Tensor, ahead_at: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """Weighted losses; targets of the prediction are not held constant, which SIGReg makes safe.

        Args:
            context: (B, T, F) [h_t, z_t, a_t]; embedding: (B, T, E) of the encoder.
            follows: (B, T) 1 where a step belongs to the one before.
            ahead: (B, S, F) context at the end of roll-outs; ahead_at: (B, S) the steps it predicts.
            valid: (B, S) 1 where such a step is there.
        """
        c = self.config
        target = self.embed(embedding)
        predicted, following = self.predict(context[:, :-1]), target[:, 1:]
        share = follows[:, 1:] / follows[:, 1:].mean().clamp(min=1e-3)
        error = (predicted - following).square().mean(-1)
        flat = target.flatten(0, 1)
        losses = {
            "prediction": c.prediction_weight * (error * share).mean(),
            "sigreg": c.sigreg_weight * sigreg(flat, random_directions(flat, c.directions)),
        }
        if c.multistep_weight:
            rows = torch.arange(target.shape[0], device=target.device)[:, None]
            far = normalised_l1(self.predict(ahead), target[rows, ahead_at]) * valid
            near = (normalised_l1(predicted, following) * share).mean()
            losses["multistep"] = c.multistep_weight * (near + far.sum() / valid.sum().clamp(min=1))
        return losses
