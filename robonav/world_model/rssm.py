"""The control of the parallel posterior: DreamerV3's recurrent state-space model (2301.04104, equation 3).

    h_t = GRU(h_{t-1}, z_t, a_t);  posterior q(z_t | h_{t-1}, o_t);  prior p(z_{t+1} | h_t)

in the world model's convention of time, where h_{t-1} is what DreamerV3 calls the deterministic state of step t. The
posterior needs the memory, so a sequence is one step after the other. The GRU's width is chosen so that memory,
posterior and prior together have the parameters of the parallel ones; they read it through a projection to D, so that
every head has the same size as there. What depends on the observation alone is still done for all steps at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ShapeError, explain
from robonav.ssm.layers.gru import GRU
from robonav.ssm.state import State
from robonav.world_model.nets import mlp

if TYPE_CHECKING:
    from robonav.world_model.model import WorldModel


class Parts(NamedTuple):
    """The modules of a world model that differ."""

    posterior: RecurrentPosterior
    memory: GRUMemory
    prior: MemoryPrior


class GRUMemory(nn.Module):
    """A GRU behind the verbs of `robonav.ssm.backbone.Backbone` that a step needs; its input is normalised."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model)
        self.layer = GRU(d_model, hidden)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        """The state before any input."""
        return (self.layer.initial_state(batch),)

    def step(
        self, x: Tensor, state: tuple[State, ...], reset: Tensor | None = None
    ) -> tuple[Tensor, tuple[State, ...]]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        y, after = self.layer.step(F.silu(self.norm(x)), state[0], reset)
        return y, (after,)


class RecurrentPosterior(nn.Module):
    """Logits of z_t from [h_{t-1}, embedding]: `nets.mlp`, its first layer in two pieces."""

    def __init__(self, embedding: int, d_model: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.from_embedding = nn.Linear(embedding, hidden, bias=False)
        self.from_memory = nn.Linear(d_model, hidden, bias=False)
        self.out = nn.Sequential(nn.RMSNorm(hidden), nn.SiLU(), nn.Linear(hidden, outputs))

    def forward(self, seen: Tensor, memory: Tensor) -> Tensor:
        """Logits (B, G * C) of `seen` (B, hidden), which is from_embedding(embedding), and the memory (B, D)."""
        logits: Tensor = self.out(seen + self.from_memory(memory))
        return logits


class MemoryPrior(nn.Module):
    """Logits of z_{t+1} from h_t alone."""

    def __init__(self, d_model: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.net = mlp(d_model, hidden, outputs)

    def forward(self, context: Tensor) -> Tensor:
        """Context (..., D + G * C + A), of which h_t is read -> logits (..., G * C)."""
        logits: Tensor = self.net(context[..., : self.d_model])
        return logits


def count(*modules: nn.Module) -> int:
    """Parameters of some modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


def sequential_parts(budget: int, embedding: int, d_model: int, hidden: int, outputs: int) -> Parts:
    """Posterior, memory and prior with `budget` parameters in all, to within one unit of the GRU.

    Args:
        budget: parameters of what they replace.
        embedding: size of the encoder's output.
        d_model: D.
        hidden: width of posterior and prior.
        outputs: G * C.

    Raises:
        ShapeError: posterior and prior alone are larger.
    """
    posterior = RecurrentPosterior(embedding, d_model, hidden, outputs)
    prior = MemoryPrior(d_model, hidden, outputs)
    left = budget - count(posterior, prior) - d_model
    linear = 4 * d_model + 6  # a GRU of width E has 3 E^2 + (3 D + 6) E parameters, its projection D E
    units = round((math.sqrt(max(linear**2 + 12 * left, 0)) - linear) / 6) if left > 0 else 0
    if units < 1:
        want = f"more than {count(posterior, prior)} parameters in memory and prior for a sequential posterior"
        raise ShapeError(explain("model", want, budget, "widen the backbone"))
    units += units == d_model  # a GRU of the same width would have no projection
    return Parts(posterior, GRUMemory(d_model, units), prior)


def unroll(
    model: WorldModel, embedding: Tensor, action: Tensor, first: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor, tuple[State, ...]]:
    """Observes sequences step by step.

    Args:
        model: with a sequential posterior.
        embedding: (B, T, E) of the encoder.
        action: (B, T, A) taken after each observation.
        first: (B, T) 1 where an episode starts.
        wanted: (B, K) steps after which the memory's state is asked for.

    Returns:
        Log probabilities (B, T, G, C) of the posterior, latents (B, T, G * C), memory h_t (B, T, D), and states
        (B * K, ...).
    """
    posterior, memory = model.to_posterior, model.backbone
    assert isinstance(posterior, RecurrentPosterior)
    assert isinstance(memory, GRUMemory)
    seen = posterior.from_embedding(embedding)
    world = model.initial_state(embedding.shape[0])
    h, state = world.memory, world.ssm
    told, latents, memories, states = [], [], [], []
    for t in range(embedding.shape[1]):
        h = h * (1 - first[:, t])[:, None]
        log_p = model.log_probabilities(posterior(seen[:, t], h))
        latent = model.sample(log_p)
        x = model.to_backbone(torch.cat([latent, action[:, t]], dim=-1))
        h, state = memory.step(x, state, first[:, t])
        told.append(log_p)
        latents.append(latent)
        memories.append(h)
        states.append(state[0].hidden)
    rows = torch.arange(wanted.shape[0], device=wanted.device)[:, None]
    at_wanted = torch.stack(states, dim=1)[rows, wanted].flatten(0, 1)
    kept = (type(state[0])(at_wanted),)
    return torch.stack(told, dim=1), torch.stack(latents, dim=1), torch.stack(memories, dim=1), kept
