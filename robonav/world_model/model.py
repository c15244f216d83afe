"""The world model: posterior from the observation alone, memory by a state-space backbone, prior from the memory.

One convention of time: f_t = [h_{t-1}, z_t]. All heads read f_t. The backbone's step takes (z_t, a_t) and gives h_t;
the prior p(z_{t+1} | h_t, z_t, a_t) closes the loop, and h_t holds z_t and a_t through the backbone's residual path
as well as through the prior network's own inputs. An episode's first step has h_{t-1} = 0 and a fresh state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.config import require_at_least
from robonav.errors import ConfigError, ShapeError, explain
from robonav.ssm.backbone import Backbone, BackboneConfig, SSMState
from robonav.ssm.state import named_tensors, rebuild_state, select_state
from robonav.types import ACTION_SIZE, RobotSpec
from robonav.world_model.clearance import ClearanceHead
from robonav.world_model.encoders import EncoderConfig, Inputs, ObservationDecoder, ObservationEncoder
from robonav.world_model.heads import PriorHeads, categorical_kl, jensen_shannon, require_bins
from robonav.world_model.nets import TwoHotHead, mlp
from robonav.world_model.objectives import EmbeddingPrediction, ObjectiveConfig, RedundancyReduction
from robonav.world_model.rssm import GRUMemory, MemoryPrior, RecurrentPosterior, count, sequential_parts, unroll


@dataclass(frozen=True, slots=True)
class WorldModelConfig:
    """Sizes and loss weights of the world model."""

    groups: int = 16
    """Categorical variables of the latent."""
    classes: int = 16
    """Classes of each."""
    sampled_groups: int = 4
    """Groups that are sampled, as in DreamerV3; the others are passed on as probabilities. Samples can hold several
    futures, probabilities hold distances far more sharply (decoded near beams: centimetres against decimetres)."""
    hidden: int = 192
    """Hidden width of the heads."""
    unimix: float = 0.01
    """Share of the uniform distribution in every categorical."""
    free_nats: float = 1.0
    """KL below which neither term pulls."""
    dynamics_weight: float = 1.0
    """Weight of KL(sg(posterior) || prior)."""
    representation_weight: float = 0.1
    """Weight of KL(posterior || sg(prior))."""
    motion_weight: float = 10.0
    """Weight of the reconstruction of what moves, where it is read by itself."""
    scan_weight: float = 0.5
    """Weight of the lidar's reconstruction."""
    map_weight: float = 0.05
    """Weight of the map's reconstruction."""
    vector_weight: float = 4.0
    """Weight of goal's and body's reconstruction."""
    outcome_weight: float = 4.0
    """Weight of the reward and continuation heads: collisions and arrivals are rare and decide everything."""
    reward_bins: int = 127
    """Bins of the reward; 63 round values up to 2 by less than 0.004 and cost half."""
    posterior: Literal["parallel", "sequential"] = "parallel"
    """Whether the posterior reads the observation alone, so that a sequence is one scan of the backbone, or the memory
    as well, with a GRU of as many parameters in the backbone's place (`robonav.world_model.rssm`, a control)."""
    prior_heads: int = 0
    """Further priors, for `WorldModel.disagreement`."""
    prior_head_hidden: int = 64
    """Hidden width of each."""
    objective: Literal["reconstruction", "redundancy", "jepa"] = "reconstruction"
    """What grounds the latent (`robonav.world_model.objectives`); reward, continuation and KL are part of each."""
    clearance: bool = False
    """Whether a further head says how near the footprint will be to anything (`robonav.world_model.clearance`), from
    which collisions are foreseen; it learns beside the model without moving it, and at any time."""
    probe_decoders: bool = False
    """Whether, where nothing is reconstructed, decoders learn beside the model without moving it, for people to see
    what it knows."""
    objectives: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        """Checks relations between the sizes.

        Raises:
            ConfigError: they do not fit.
        """
        sizes = {"groups": 1, "classes": 2, "hidden": 1, "prior_head_hidden": 1}
        require_at_least(self, {**sizes, "free_nats": 0, "prior_heads": 0})
        require_bins("reward_bins", self.reward_bins)
        if not 0 <= self.sampled_groups <= self.groups:
            raise ConfigError(explain("model.sampled_groups", f"0 to groups = {self.groups}", self.sampled_groups))


LOGIT_SCALE = 3.0  # on posterior and prior logits, so that passed-on probabilities differ visibly from the start


class WorldModelState(NamedTuple):
    """What is carried between ticks: the latent and memory of the last tick."""

    memory: Tensor  # (B, D) h_{t-1}
    ssm: SSMState

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, in the order that `WorldModel.state_of` takes; a memoryless layer has none."""
        yield "memory", self.memory
        for name, tensor in named_tensors(self.ssm):
            yield f"layer{name}", tensor

    def map(self, other: WorldModelState, keep: Tensor) -> WorldModelState:
        """Row by row: self where keep (B,) is true, else `other`."""
        memory = torch.where(keep[:, None], self.memory, other.memory)
        return WorldModelState(memory, select_state(keep, self.ssm, other.ssm))


class Sequence(NamedTuple):
    """Result of observing a batch of sequences."""

    features: Tensor  # (B, T, F)
    posterior: Tensor  # (B, T, G, C) log probabilities
    prior: Tensor  # (B, T, G, C) log probabilities of z_t given everything before t
    latent: Tensor  # (B, T, G * C)
    dream_states: WorldModelState  # (B * K, ...) before the wanted steps
    dream_at: Tensor  # (B, K) these steps
    context: Tensor  # (B, T, D + G * C + A) [h_t, z_t, a_t], from which z_{t+1} is predicted
    embedding: Tensor  # (B, T, E) of the encoder


class WorldModel(nn.Module):
    """Encoder, latent, memory, prior and heads."""

    def __init__(self, config: WorldModelConfig, spec: RobotSpec) -> None:
        super().__init__()
        self.config = config
        d = config.backbone.d_model
        self.latent_size = config.groups * config.classes
        self.feature_size = d + self.latent_size
        self.encoder = ObservationEncoder(config.encoder, spec)
        self.to_posterior: nn.Linear | RecurrentPosterior = nn.Linear(config.encoder.hidden, self.latent_size)
        self.to_backbone = nn.Linear(self.latent_size + ACTION_SIZE, d)
        self.backbone: Backbone | GRUMemory = Backbone(config.backbone)
        self.prior_net: nn.Sequential | MemoryPrior = mlp(
            d + self.latent_size + ACTION_SIZE, config.hidden, self.latent_size
        )
        if config.posterior == "sequential":
            budget = count(self.to_posterior, self.backbone, self.prior_net)
            self.to_posterior, self.backbone, self.prior_net = sequential_parts(
                budget, config.encoder.hidden, d, config.hidden, self.latent_size
            )
        decodes = config.objective == "reconstruction" or config.probe_decoders
        self.decoder = ObservationDecoder(config.encoder, spec, self.feature_size) if decodes else None
        self.reward = TwoHotHead(self.feature_size, config.hidden, 1, config.reward_bins)
        self.proceed = mlp(self.feature_size, config.hidden, 1)
        inputs, width, heads = d + self.latent_size + ACTION_SIZE, config.prior_head_hidden, config.prior_heads
        self.prior_heads = PriorHeads(inputs, width, self.latent_size, heads) if heads else None
        embedding, o = config.encoder.hidden, config.objectives
        self.objective: RedundancyReduction | EmbeddingPrediction | None = None
        if config.objective == "redundancy":
            self.objective = RedundancyReduction(o, self.feature_size, embedding)
        elif config.objective == "jepa":
            self.objective = EmbeddingPrediction(o, config.hidden, inputs, embedding)
        self.clearance = ClearanceHead(self.feature_size, config.hidden, spec.lidar) if config.clearance else None

    # -- state ---------------------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> WorldModelState:
        """Nothing remembered."""
        memory = self.to_backbone.weight.new_zeros(batch, self.config.backbone.d_model)
        return WorldModelState(memory, self.backbone.initial_state(batch))

    def state_of(self, tensors: list[Tensor]) -> WorldModelState:
        """Inverse of `WorldModelState.tensors`, for exported graphs that carry a flat list."""
        return WorldModelState(tensors[0], rebuild_state(self.backbone.initial_state(1), iter(tensors[1:])))

    # -- latents -------------------------------------------------------------------------------------------------

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """(..., G * C) logits to (..., G, C) log probabilities with 1 % uniform mixed in."""
        logits = LOGIT_SCALE * logits.unflatten(-1, (self.config.groups, self.config.classes))
        p = torch.softmax(logits, dim=-1)
        return torch.log((1 - self.config.unimix) * p + self.config.unimix / self.config.classes)

    def sample(self, log_p: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latent (..., G * C).

        The sampled groups are straight-through one-hot samples (Gumbel-max), the others their probabilities.
        """
        noise = torch.empty_like(log_p[..., : self.config.sampled_groups, :]).exponential_(generator=generator).log()
        return self._latent(log_p, -noise)

    def sample_with(self, log_p: Tensor, gumbel: Tensor) -> Tensor:
        """`sample` with standard Gumbel noise (..., S, C) that is handed in."""
        return self._latent(log_p, gumbel)

    def mode(self, log_p: Tensor) -> Tensor:
        """Latent (..., G * C) with the most likely class in place of samples."""
        return self._latent(log_p, torch.zeros(()))

    def _latent(self, log_p: Tensor, gumbel: Tensor) -> Tensor:
        count = self.config.sampled_groups
        p = log_p.exp()
        drawn = p[..., :count, :]
        one_hot = F.one_hot((log_p[..., :count, :].detach() + gumbel).argmax(-1), self.config.classes).to(p.dtype)
        return torch.cat([one_hot + drawn - drawn.detach(), p[..., count:, :]], dim=-2).flatten(-2)

    def posterior(self, inputs: Inputs, memory: Tensor | None = None) -> Tensor:
        """Log probabilities (B, G, C) of z_t given the observation, and the memory (B, D) where it is sequential.

        Raises:
            ShapeError: it is sequential and there is no memory.
        """
        embedding = self.encoder(inputs)
        if isinstance(self.to_posterior, nn.Linear):
            return self.log_probabilities(self.to_posterior(embedding))
        if memory is None:
            raise ShapeError(explain("posterior", "the memory, since it is sequential", "none"))
        return self.log_probabilities(self.to_posterior(self.to_posterior.from_embedding(embedding), memory))

    def prior(self, memory: Tensor, latent: Tensor, action: Tensor) -> Tensor:
        """Log probabilities of z_{t+1} from h_t, z_t, a_t."""
        return self.log_probabilities(self.prior_net(torch.cat([memory, latent, action], dim=-1)))

    def disagreement(self, memory: Tensor, latent: Tensor, action: Tensor, prior: Tensor | None = None) -> Tensor:
        """Disagreement (B,) of the priors about z_{t+1}, from 0 to 1 (`jensen_shannon`); 0 where there is one only.

        Args:
            prior: (B, G, C) what `WorldModel.prior` says, where that is known already.
        """
        if self.prior_heads is None:
            return memory.new_zeros(memory.shape[:-1])
        prior = self.prior(memory, latent, action) if prior is None else prior
        others = self.log_probabilities(self.prior_heads(torch.cat([memory, latent, action], dim=-1)))
        return jensen_shannon(torch.cat([prior.unsqueeze(-3), others], dim=-3))

    @staticmethod
    def features(memory: Tensor, latent: Tensor) -> Tensor:
        """f_t = [h_{t-1}, z_t]."""
        return torch.cat([memory, latent], dim=-1)

    # -- verbs ---------------------------------------------------------------------------------------------------

    def advance(
        self, state: WorldModelState, latent: Tensor, action: Tensor, reset: Tensor | None = None
    ) -> WorldModelState:
        """Memory after (z_t, a_t): one recurrent step."""
        x = self.to_backbone(torch.cat([latent, action], dim=-1))
        memory, ssm = self.backbone.step(x, state.ssm, reset)
        return WorldModelState(memory, ssm)

    def observe(self, inputs: Inputs, action: Tensor, first: Tensor, dream_at: Tensor) -> Sequence:
        """A batch of sequences, in one parallel scan unless the posterior is sequential.

        Args:
            inputs: `PolicyInput` arrays with leading (B, T).
            action: (B, T, 3) taken after each observation.
            first: (B, T) 1 where an episode starts.
            dream_at: (B, K) steps t at which dreams start; their states are those before step t.
        """
        batch = first.shape[0]
        embedding = self.encoder(inputs)
        before = (dream_at - 1).clamp(min=0)
        if isinstance(self.to_posterior, nn.Linear) and isinstance(self.backbone, Backbone):
            posterior = self.log_probabilities(self.to_posterior(embedding))
            latent = self.sample(posterior)
            x = self.to_backbone(torch.cat([latent, action], dim=-1))
            memory, ssm = self.backbone.scan(x, self.initial_state(batch).ssm, first, before)
        else:
            posterior, latent, memory, ssm = unroll(self, embedding, action, first, before)
        shifted = F.pad(memory[:, :-1], (0, 0, 1, 0))  # h_{t-1}, zero at t = 0
        past = shifted * (1 - first)[..., None]
        context = torch.cat([memory, latent, action], dim=-1)
        prior = self.log_probabilities(self.prior_net(context))
        prior = torch.cat([posterior[:, :1].detach(), prior[:, :-1]], dim=1)  # p(z_t | ...), unused where first

        rows = torch.arange(batch, device=first.device)[:, None]
        fresh = (dream_at == 0) | (first[rows, dream_at] > 0)
        states = WorldModelState(past[rows, dream_at].flatten(0, 1), ssm)
        dream_states = states.map(self.initial_state(dream_at.numel()), ~fresh.flatten())
        return Sequence(
            self.features(past, latent), posterior, prior, latent, dream_states, dream_at, context, embedding
        )

    def loss(
        self, inputs: Inputs, sequence: Sequence, reward: Tensor, terminal: Tensor, first: Tensor
    ) -> dict[str, Tensor]:
        """Mean losses, weighted, by name; their sum is minimised (DreamerV3, equations 4 and 5).

        Args:
            reward: (B, T) that came with the observation; terminal: (B, T) 1 where the episode ended in the world.
        """
        c = self.config
        f = sequence.features
        # The prior of a sequence's or an episode's first step is conditioned on nothing that belongs to it.
        follows = 1 - first
        follows = torch.cat([torch.zeros_like(follows[:, :1]), follows[:, 1:]], dim=1)
        dynamics = categorical_kl(sequence.posterior.detach(), sequence.prior)
        representation = categorical_kl(sequence.posterior, sequence.prior.detach())
        share = follows / follows.mean().clamp(min=1e-3)
        proceed = self.proceed(f).squeeze(-1)
        losses = {
            **self._grounding(inputs, sequence, follows),
            "dynamics": c.dynamics_weight * dynamics.clamp(min=c.free_nats) * share,
            "representation": c.representation_weight * representation.clamp(min=c.free_nats) * share,
            "reward": c.outcome_weight * self.reward.loss(self.reward(f), reward) * _rewarded(first),
            "continue": c.outcome_weight * F.binary_cross_entropy_with_logits(proceed, 1 - terminal, reduction="none"),
        }
        if self.clearance is not None:
            losses["clearance"] = self.clearance.loss(f.detach(), inputs, reward, terminal)
        if self.prior_heads is not None:
            predicted = self.log_probabilities(self.prior_heads(sequence.context[:, :-1]))
            divergence = self.prior_heads.loss(sequence.posterior[:, 1:], predicted)
            losses["prior_heads"] = F.pad(divergence, (1, 0)) * share
        return {name: loss.mean() for name, loss in losses.items()}

    def _grounding(self, inputs: Inputs, sequence: Sequence, follows: Tensor) -> dict[str, Tensor]:
        """Losses of the objective, and of the decoders where there are any."""
        c, f = self.config, sequence.features
        losses = {}
        if self.decoder is not None:
            decoded = self.decoder.losses(f if self.objective is None else f.detach(), inputs)
            losses = {
                "scan": c.scan_weight * decoded["scan"],
                "map": c.map_weight * decoded["local_map"],
                "goal": c.vector_weight * decoded["goal"],
                "body": c.vector_weight * decoded["body"],
            }
            if "motion" in decoded:
                losses["motion"] = c.motion_weight * decoded["motion"]
        if isinstance(self.objective, RedundancyReduction):
            losses |= self.objective.losses(f, sequence.embedding)
        elif self.objective is not None:
            ahead = self._roll_out(sequence, follows, c.objectives.multistep)
            losses |= self.objective.losses(sequence.context, sequence.embedding, follows, *ahead)
        return losses

    def _roll_out(self, sequence: Sequence, follows: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Follows the prior from the dream starts under the actions that were taken.

        Returns:
            (B, K, D + G * C + A) [h, z, a] of the last of the steps, the steps (B, K) that this predicts, kept inside
            the sequence, and (B, K) 1 where they are there in the same episode.
        """
        at, last = sequence.dream_at, follows.shape[1] - 1
        rows = torch.arange(at.shape[0], device=at.device)[:, None]
        state, latent = sequence.dream_states, sequence.latent[rows, at].flatten(0, 1)
        context = sequence.context.new_zeros(0)
        for step in range(steps):
            action = sequence.context[rows, (at + step).clamp(max=last), -ACTION_SIZE:].flatten(0, 1)
            if step:
                latent = self.sample(self.log_probabilities(self.prior_net(context)))
            state = self.advance(state, latent, action)
            context = torch.cat([state.memory, latent, action], dim=-1)
        target = (at + steps).clamp(max=last)
        episode = (1 - follows).cumsum(1)
        valid = (at + steps <= last) & (episode[rows, at] == episode[rows, target])
        return context.unflatten(0, at.shape), target, valid.to(follows.dtype)


def _rewarded(first: Tensor) -> Tensor:
    """An episode's first observation came with no reward."""
    return 1 - first
