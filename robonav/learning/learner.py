"""One update: the world model on a replayed batch, then actor and critic on dreams that start in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from robonav.errors import ConfigError, RobonavError, explain
from robonav.imagination.agent import Agent
from robonav.imagination.behavior import frozen
from robonav.imagination.imitation import imitation_loss
from robonav.learning.checkpoint import load_optimizer, load_weights, optimizer_tensors
from robonav.learning.config import TrainConfig
from robonav.learning.device import autocast, device_of, full_precision_outputs
from robonav.learning.ranks import ALONE, Ranks
from robonav.ssm.state import map_state
from robonav.types import RobotSpec
from robonav.world_model.encoders import with_patches
from robonav.world_model.model import Sequence, WorldModel

# Of an update, in its order; `Trainer` samples.
PARTS = ("sampling", "encode and scan", "heads and losses", "backward", "optimiser", "dream", "actor-critic")
LOWER = "lower the learning rates"
Clock = Callable[[str], AbstractContextManager[None]]


class NotFiniteError(RobonavError):
    """A loss or a gradient is NaN or infinite; nothing was changed by that step."""


class Learner:
    """Weights, their running average, and optimisers."""

    def __init__(self, config: TrainConfig, spec: RobotSpec, ranks: Ranks = ALONE) -> None:
        """New weights from the config's seed, the same in all ranks.

        Raises:
            ConfigError: the device is not there.
        """
        self.config, self.ranks = config, ranks
        self.device = device_of(config.device)
        torch.manual_seed(config.seed)
        self.agent = Agent(config.agent, spec).to(self.device)
        self.average = copy.deepcopy(self.agent).requires_grad_(False)
        _freeze_all_but(self.agent.model, config.optimizer.only)
        self.model_optimizer = self._adamw(_groups(self.agent.model), config.optimizer.model_lr)
        behaviour = [{"params": list(self.agent.behavior.trained_parameters())}]
        self.behavior_optimizer = self._adamw(behaviour, config.optimizer.behavior_lr)
        self.clock: Clock = lambda part: nullcontext()
        if config.precision == "bfloat16":
            full_precision_outputs(self.agent)
        self._observe, self._loss = self.agent.model.observe, self.agent.model.loss
        self._dream = self.agent.behavior.dream
        if config.compile:
            self._compile()

    def _compile(self) -> None:
        """Compiles for the batch's fixed shapes: what is left of a processor's time beside its loops, or all of it.

        On a processor scan and dream run in loops of their own (`robonav.ssm.recurrences`), which are quicker than what
        the compiler makes of the parallel form, and an unrolled dream takes it minutes.
        """
        self._loss = torch.compile(self._loss, dynamic=False)
        if self.device.type == "cpu":
            self.agent.model.encoder.compile(dynamic=False)
        else:
            self._observe = torch.compile(self._observe, dynamic=False)
            self._dream = torch.compile(self._dream, dynamic=False)

    def _adamw(self, groups: list[dict[str, Any]], rate: float) -> torch.optim.AdamW:
        decay = self.config.optimizer.weight_decay
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, betas=(0.9, 0.99), fused=True)

    # -- one update ----------------------------------------------------------------------------------------------

    def update(self, batch: dict[str, Tensor], dream_at: Tensor, updates: int) -> dict[str, float]:
        """Learns from a batch; returns scalars.

        Args:
            batch: replayed arrays (B, T, ...).
            dream_at: (B, K) steps at which dreams start.
            updates: made before this one.

        Raises:
            NotFiniteError: a loss or a gradient is.
        """
        batch = {name: values.to(self.device) for name, values in batch.items()}
        self._require_finite("batch", batch, updates, "look at what collects it")
        batch, dream_at = with_patches(batch, torch.float32), dream_at.to(self.device)
        first, acting = batch["first"], updates >= self.config.behavior_start and not self.config.optimizer.only
        with autocast(self.device, self.config.precision):
            with self.clock("encode and scan"):
                sequence = self._observe(batch, batch["action"], first, dream_at)
            with self.clock("heads and losses"):
                losses = self._loss(batch, sequence, batch["reward"], batch["terminal"], first)
                if acting and self.config.kickstart.shape:
                    losses["shape"] = self._shape_loss(sequence, batch)
                model_loss = sum(losses.values(), torch.zeros((), device=self.device))
        self._apply(self.model_optimizer, model_loss, "world model", updates)
        behaved = {}
        if acting:
            behaved = self._update_behavior(sequence, dream_at, batch, updates)
        with self.clock("optimiser"):
            self._follow_average(updates)
        scalars = {**losses, "model": model_loss, **behaved}
        values = torch.stack([value.detach().float() for value in scalars.values()]).tolist()
        return dict(zip(scalars, values, strict=True))

    def _shape_loss(self, sequence: Sequence, batch: dict[str, Tensor]) -> Tensor:
        """How far the actor, as it is, is from the experts: a loss of what it reads."""
        actor = self.agent.behavior.actor
        with frozen(actor):
            loss = imitation_loss(actor, sequence.features, batch["label"], batch["labelled"])
        return self.config.kickstart.shape * loss

    def _update_behavior(
        self, sequence: Sequence, dream_at: Tensor, batch: dict[str, Tensor], updates: int
    ) -> dict[str, Tensor]:
        """Actor and critic on dreams that start at `dream_at` (B, K), and both on the replayed sequences."""
        model, behavior, c = self.agent.model, self.agent.behavior, self.config
        with autocast(self.device, c.precision):
            with self.clock("dream"):
                rows = torch.arange(dream_at.shape[0], device=self.device)[:, None]
                latent = sequence.latent.detach()[rows, dream_at].flatten(0, 1)
                dreamt = self._dream(model, map_state(Tensor.detach, sequence.dream_states), latent)
            with self.clock("actor-critic"):
                self._require_finite("dream", {"features": dreamt.features}, updates, LOWER)
                losses = behavior.losses(model, dreamt)
                features = sequence.features.detach()
                ends = batch["reward"], batch["terminal"], batch["first"]
                losses["replay_value"] = behavior.replay_value_loss(features, *ends)
                total = losses["actor"] + losses["critic"] + losses["replay_value"]
                if c.kickstart.streams:
                    weight = c.kickstart.weight_at(updates - c.behavior_start)
                    losses["expert"] = imitation_loss(behavior.actor, features, batch["label"], batch["labelled"])
                    total = total + weight * losses["expert"]
        self._apply(self.behavior_optimizer, total, "behaviour", updates)
        with self.clock("optimiser"):
            behavior.update_slow_critic()
            behavior.return_range.copy_(self.ranks.mean(behavior.return_range))
        return losses

    def _require_finite(self, what: str, arrays: Mapping[str, Tensor], updates: int, do: str) -> None:
        """Raises NotFiniteError, in all ranks if in one: a two-hot loss of NaN would not give NaN but a bad index."""
        bad = [name for name, x in arrays.items() if x.is_floating_point() and not torch.isfinite(x).all()]
        if self.ranks.mean(torch.tensor(float(bool(bad)), device=self.device)) > 0:
            found = ", ".join(bad) or "that of another rank"
            raise NotFiniteError(f"{what}: {found} not finite at update {updates}; {do}")

    def _apply(self, optimizer: torch.optim.Optimizer, loss: Tensor, what: str, updates: int) -> None:
        """One step of an optimiser, with warm-up and a clipped gradient."""
        over = self.ranks.mean(loss.detach())  # so that all ranks find the same
        if not torch.isfinite(over):
            raise NotFiniteError(f"{what}: the loss is {float(over)} at update {updates}; {LOWER}")
        with self.clock("backward"):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        with self.clock("optimiser"):
            o = self.config.optimizer
            is_model = optimizer is self.model_optimizer
            rate, begin = (o.model_lr, 0) if is_model else (o.behavior_lr, self.config.behavior_start)
            for group in optimizer.param_groups:
                self.ranks.average_gradients(group["params"])
                group["lr"] = rate * o.rate_at(updates, begin, self.config.updates)
                norm = torch.nn.utils.clip_grad_norm_(group["params"], o.clip)
                if not torch.isfinite(norm):
                    found = f"the gradient's norm is {float(norm)}"
                    raise NotFiniteError(f"{what}: {found} at update {updates}; {LOWER}")
            optimizer.step()

    @torch.no_grad()
    def _follow_average(self, updates: int) -> None:
        """Running average of the weights; follows quickly at first."""
        decay = min(self.config.optimizer.average, 1 - 1 / (updates + 1))
        ours, live = self.average.state_dict(), self.agent.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(live[name], 1 - decay)

    # -- what others read ----------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights on the processor, for the collectors."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.agent.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """Weights, average and optimisers as flat names."""
        tensors: dict[str, Tensor] = {f"agent.{k}": v for k, v in self.agent.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= optimizer_tensors(self.model_optimizer, "model_optimizer")
        return tensors | optimizer_tensors(self.behavior_optimizer, "behavior_optimizer")

    def begin_with(self, agent: Agent) -> None:
        """Takes over an agent's weights, for the average as well; the optimisers know nothing of them yet.

        A head for clearances that the agent lacks begins anew.

        Raises:
            CheckpointError: it is another model.
        """
        for module in (self.agent, self.average):
            own = module.state_dict()
            new = {name: value for name, value in own.items() if name.startswith("model.clearance.")}
            load_weights(module, new | agent.state_dict(), "weights to begin with")

    def restore(self, tensors: dict[str, Tensor], where: str) -> None:
        """Inverse of `state`; other tensors are left alone.

        Raises:
            CheckpointError: they belong to another configuration.
        """
        for module, prefix in ((self.agent, "agent."), (self.average, "average.")):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, own, where)
        load_optimizer(self.model_optimizer, tensors, "model_optimizer")
        load_optimizer(self.behavior_optimizer, tensors, "behavior_optimizer")


def _groups(model: WorldModel) -> list[dict[str, Any]]:
    """Parameters whose gradients are clipped together: the further prior heads must not scale the others' step."""
    heads = [] if model.prior_heads is None else list(model.prior_heads.parameters())
    apart = {id(p) for p in heads}
    rest = [p for p in model.parameters() if id(p) not in apart]
    learning = [[p for p in group if p.requires_grad] for group in (rest, heads)]
    return [{"params": group} for group in learning if group]


def _freeze_all_but(model: WorldModel, parts: tuple[str, ...]) -> None:
    """Leaves only these parts to be learnt; all, if none is named.

    Raises:
        ConfigError: the model has no such part, or one without weights.
    """
    children = {name: part for name, part in model.named_children() if any(True for _ in part.parameters())}
    for part in parts:
        if part not in children:
            raise ConfigError(explain("optimizer.only", f"parts of the model: {', '.join(sorted(children))}", part))
    for name, child in children.items():
        child.requires_grad_(not parts or name in parts)
