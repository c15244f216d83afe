"""Actor and critic trained on imagined rollouts (DreamerV3, 2301.04104, section "Actor critic learning").

Shape letters: N dreams, L horizon (actions taken), F features, A action size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.types import ACTION_SIZE
from robonav.world_model.heads import require_bins
from robonav.world_model.model import WorldModel, WorldModelState
from robonav.world_model.nets import TwoHotHead, mlp

FORWARD_BIAS = 0.5  # of the untrained actor's first action, before tanh


@dataclass(frozen=True, slots=True)
class BehaviorConfig:
    """Sizes and constants of imagination."""

    hidden: int = 192
    """Hidden width of actor and critic."""
    layers: int = 2
    """Hidden layers of actor and critic."""
    horizon: int = 12
    """Actions in a dream."""
    dreams: int = 8
    """Dreams a replayed sequence."""
    discount: float = 0.99
    """Per control step."""
    lambda_: float = 0.95
    """Mixture of the lambda return."""
    entropy: float = 3e-4
    """Weight of the actor's entropy."""
    min_std: float = 0.1
    """Smallest standard deviation of the actor."""
    max_std: float = 1.0
    """Largest standard deviation of the actor."""
    slow_decay: float = 0.98
    """Decay of the slow critic."""
    slow_weight: float = 1.0
    """Weight of the critic's pull towards the slow critic."""
    replay_weight: float = 0.3
    """Weight of the value loss on replayed sequences."""
    return_decay: float = 0.99
    """Decay of the running range of returns."""
    value_bins: int = 127
    """Bins of the critic; 63 round values up to 2 by less than 0.004 and cost half."""
    actor_gradient: Literal["reinforce", "dynamics"] = "reinforce"
    """How the actor learns: from the likelihood of what it did, weighted by advantage, or by backpropagation of the
    returns through the dream."""
    rare_share: float = 0.0
    """Share of the dreams that start shortly before a collision or near miss, in sequences that hold one."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"hidden": 1, "layers": 1, "horizon": 1, "dreams": 1, "min_std": 0, "entropy": 0})
        require_bins("value_bins", self.value_bins)
        for name in ("discount", "lambda_", "slow_decay", "return_decay", "rare_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(explain(name, "a number from 0 to 1", getattr(self, name)))
        if self.max_std < self.min_std:
            raise ConfigError(explain("max_std", f"at least min_std = {self.min_std}", self.max_std))


class Normal(NamedTuple):
    """Diagonal normal distribution over actions; samples are clipped to [-1, 1] where they are applied."""

    mean: Tensor  # (..., A)
    std: Tensor  # (..., A)

    def sample(self) -> Tensor:
        """(..., A), without gradient."""
        return self.rsample().detach()

    def rsample(self) -> Tensor:
        """(..., A) as a function of mean and standard deviation, with its gradient (reparameterised)."""
        return self.mean + self.std * torch.randn_like(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        """(...) log density."""
        distribution = torch.distributions.Normal(self.mean, self.std, validate_args=False)
        return distribution.log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        """(...) nats."""
        return torch.distributions.Normal(self.mean, self.std, validate_args=False).entropy().sum(-1)


class Actor(nn.Module):
    """Features to a normal distribution over normalised actions, mean inside (-1, 1)."""

    def __init__(self, features: int, config: BehaviorConfig) -> None:
        super().__init__()
        self.net = mlp(features, config.hidden, 2 * ACTION_SIZE, config.layers)
        output = self.net[-1]
        assert isinstance(output, nn.Linear)
        nn.init.uniform_(output.weight, -1e-3, 1e-3)
        nn.init.zeros_(output.bias)
        with torch.no_grad():  # a walking robot goes forward; without this many a run first learns to reverse
            output.bias[0] = FORWARD_BIAS
        self.low, self.high = config.min_std, config.max_std

    def forward(self, features: Tensor) -> Normal:
        """(..., F) -> Normal over (..., A)."""
        mean, spread = self.net(features).chunk(2, dim=-1)
        return Normal(torch.tanh(mean), self.low + (self.high - self.low) * torch.sigmoid(spread))


class Dream(NamedTuple):
    """An imagined rollout."""

    features: Tensor  # (L + 1, N, F)
    actions: Tensor  # (L, N, A) as sampled; the world gets them clipped to [-1, 1]


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through the modules to what they read, and none is kept for their parameters."""
    learned = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        for p in learned:
            p.requires_grad_(False)
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)


def dream(
    model: WorldModel, actor: Actor, state: WorldModelState, latent: Tensor, horizon: int, differentiable: bool = False
) -> Dream:
    """Rolls the prior forward under the actor.

    Args:
        state: (N, ...) memory before the start's latent; latent: (N, G * C) the start's z_t.
        differentiable: keeps the graph from the features back to the actor (straight through the sampled latents);
            the model is frozen in it.
    """
    with frozen(model), torch.set_grad_enabled(differentiable):
        features, actions = [model.features(state.memory, latent)], []
        for _ in range(horizon):
            sampled = actor(features[-1]).rsample()
            action = sampled.clamp(-1, 1)
            state = model.advance(state, latent, action)
            latent = model.sample(model.prior(state.memory, latent, action))
            features.append(model.features(state.memory, latent))
            actions.append(sampled)  # the likelihood of clipped actions would push the mean outwards
        return Dream(torch.stack(features), torch.stack(actions))


def lambda_returns(reward: Tensor, proceed: Tensor, value: Tensor, discount: float, lambda_: float) -> Tensor:
    """R_t = r_{t+1} + discount c_{t+1} ((1 - lambda) v_{t+1} + lambda R_{t+1}), with R_L = v_L.

    Rewards arrive with the observation, so reward, proceed and value are all indexed by time 0..L along the first axis.

    Returns:
        (L, ...) returns of times 0..L-1.
    """
    returns = [value[-1]]
    for t in range(reward.shape[0] - 1, 0, -1):
        mixed = (1 - lambda_) * value[t] + lambda_ * returns[-1]
        returns.append(reward[t] + discount * proceed[t] * mixed)
    return torch.stack(returns[:0:-1])


class Behavior(nn.Module):
    """Actor, critic, slow critic, and the running range of returns."""

    return_range: Tensor

    def __init__(self, config: BehaviorConfig, features: int) -> None:
        super().__init__()
        self.config = config
        self.actor = Actor(features, config)
        self.critic = TwoHotHead(features, config.hidden, config.layers, config.value_bins)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("return_range", torch.zeros(()))

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of actor and critic; the slow critic follows by averaging."""
        yield from self.actor.parameters()
        yield from self.critic.parameters()

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """One step of the exponential average."""
        for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.config.slow_decay)

    def dream(self, model: WorldModel, state: WorldModelState, latent: Tensor) -> Dream:
        """A dream as `losses` needs it; see `dream`."""
        return dream(model, self.actor, state, latent, self.config.horizon, self.config.actor_gradient == "dynamics")

    def losses(self, model: WorldModel, dreamt: Dream) -> dict[str, Tensor]:
        """What the actor gains by likelihood or by dynamics (`BehaviorConfig.actor_gradient`), and the critic's loss.

        The critic learns two-hot lambda returns. Neither loss keeps a gradient for the world model.
        """
        c = self.config
        through = c.actor_gradient == "dynamics"
        f = dreamt.features
        with frozen(model, self.critic), torch.set_grad_enabled(through):
            proceed = torch.sigmoid(model.proceed(f).squeeze(-1))
            value = self.critic.mean(f)
            returns = lambda_returns(model.reward.mean(f), proceed, value, c.discount, c.lambda_)
        f = f.detach()
        with torch.no_grad():
            slow_value = self.slow_critic.mean(f)
            weight = torch.cumprod(c.discount * proceed[:-1], dim=0) / c.discount
            scale = self._scale(returns)
        policy: Normal = self.actor(f[:-1])
        gain = returns if through else policy.log_prob(dreamt.actions) * (returns - value[:-1])
        gain = gain / scale + c.entropy * policy.entropy()
        logits, returns = self.critic(f[:-1]), returns.detach()
        critic = self.critic.loss(logits, returns) + c.slow_weight * self.critic.loss(logits, slow_value[:-1])
        return {
            "actor": -(weight * gain).mean(),
            "critic": (weight * critic).mean(),
            "entropy": policy.entropy().mean().detach(),
            "return": returns.mean(),
        }

    def replay_value_loss(self, features: Tensor, reward: Tensor, terminal: Tensor, first: Tensor) -> Tensor:
        """Value loss on replayed sequences (B, T, ...), with the critic's own values as bootstrap.

        The step before an episode's start has no successor of its own: it is left out, and bootstraps there.
        """
        c = self.config
        with torch.no_grad():
            value = self.critic.mean(features)
            new = first > 0
            # Where the next step starts an episode, the return of this one is its own value (nothing follows).
            returns = [value[:, -1]]
            for t in range(features.shape[1] - 1, 0, -1):
                mixed = (1 - c.lambda_) * value[:, t] + c.lambda_ * returns[-1]
                ahead = reward[:, t] + c.discount * (1 - terminal[:, t]) * mixed
                returns.append(torch.where(new[:, t], value[:, t - 1], ahead))
            target = torch.stack(returns[:0:-1], dim=1)
            valid = (~new[:, 1:]).to(target.dtype)
        loss = self.critic.loss(self.critic(features[:, :-1]), target)
        return c.replay_weight * (loss * valid).mean()

    @torch.no_grad()
    def _scale(self, returns: Tensor) -> Tensor:
        """max(1, range from the 5th to the 95th percentile), averaged over updates."""
        low, high = torch.quantile(returns.flatten(), returns.new_tensor([0.05, 0.95]))
        first = self.return_range == 0
        decay = torch.where(first, torch.zeros_like(low), torch.full_like(low, self.config.return_decay))
        self.return_range.copy_(decay * self.return_range + (1 - decay) * (high - low))
        return self.return_range.clamp(min=1.0)
