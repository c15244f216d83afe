"""The actor's pull towards an expert's actions on replayed steps."""

from __future__ import annotations

from torch import Tensor

from robonav.imagination.behavior import Actor

SCALE = 0.5  # of an error in the normalised action that costs half a unit


def imitation_loss(actor: Actor, features: Tensor, label: Tensor, labelled: Tensor) -> Tensor:
    """Squared error of the actor's mean, averaged over the steps that have a label; 0 without any.

    The mean alone is drawn: a likelihood would also narrow the distribution, and with it exploration.

    Args:
        actor: to train.
        features: (B, T, F), without gradient.
        label: (B, T, A) normalised actions of the expert.
        labelled: (B, T) 1 where there is one.
    """
    error = ((actor(features).mean - label) / SCALE).square().sum(-1) / 2
    return (error * labelled).sum() / labelled.sum().clamp(min=1.0)
