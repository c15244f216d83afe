"""The world model's dreams, unrolled for speed: what `robonav.imagination.candidates` computes, as few large products.

- Weights that read the same tensor are one product: latent and action for the memory and the prior, memory and latent
  for reward, continuation and actor.
- Rewards and continuation are computed for some steps at once, the doubt for all of them.
- A dream is short and all candidates begin alike, so the Mamba-3 layers keep no state matrix for each of them: with
  a_t the decay from the start and c_ts that of input s up to t, y_t = a_t h_0 q_t + sum_s c_ts (k_s . q_t) v_s + D v_t
  needs keys and values of the steps so far, a fifth of the work and a tenth of the memory traffic.
- Norms' scales, the logits' scale and the share of the uniform distribution are folded into the weights behind them.

Shape letters: K candidates, P of them the actor's, L horizon, A action size, G groups, S sampled groups, C classes,
Z = G C, D model size, I inner size, H heads, P head size, N state size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.graph import Graph
from robonav.imagination.agent import Agent
from robonav.ssm.backbone import Backbone, SwiGLU
from robonav.ssm.layers.mamba3 import NORM_EPS, Mamba3
from robonav.ssm.pattern import MLP
from robonav.types import ACTION_SIZE
from robonav.world_model.clearance import TOUCH_CLASSES
from robonav.world_model.model import LOGIT_SCALE
from robonav.world_model.nets import TwoHotHead

Array = NDArray[np.float32]
TOGETHER = 3  # steps whose rewards are computed at once: more would leave the second-level cache
EPS = float(np.finfo(np.float32).eps)  # of torch's RMSNorm where none is given


class Dreamt(NamedTuple):
    """Names of what K dreams gave."""

    actions: str  # (K, L, A)
    rewards: str  # (K,)
    values: str  # (K,)
    doubts: str  # (K,)
    dangers: str  # (K,)


@dataclass(frozen=True, slots=True)
class Start:
    """Names of what all dreams begin with: memory (1, D), latent (1, Z), and the layers' state by name."""

    memory: str
    latent: str
    layers: dict[str, str]


def is_quick(agent: Agent) -> bool:
    """Whether an agent's memory is one that can be unrolled here: SISO Mamba-3 and SwiGLU blocks."""
    backbone = agent.model.backbone
    if not isinstance(backbone, Backbone) or agent.model.config.posterior != "parallel":
        return False
    layers = [backbone.layers[i] for i in range(len(backbone.layers))]
    return all(isinstance(x, Mamba3) and _is_plain(x) for x in layers) and "Z" not in backbone.letters


def _is_plain(layer: Mamba3) -> bool:
    return not layer.mimo and layer.ngroups == 1 and layer.a_form == "rational" and layer.norm is None


class Rollouts:
    """Dreams of one agent from one start; holds what does not depend on the candidates.

    Args:
        g: the graph.
        agent: `is_quick`.
        start: names of the start's tensors.
        odds: (L, 1, S, C) exp of standard Gumbel noise, the same for all candidates, or (L, K, S, C).
        horizon: L.
        doubt_every: the priors' disagreement is looked at every so many steps.
    """

    def __init__(self, g: Graph, agent: Agent, start: Start, odds: str, horizon: int, doubt_every: int) -> None:
        self.g, self.agent, self.horizon, self.doubt_every = g, agent, horizon, doubt_every
        model = agent.model
        c = model.config
        self.groups, self.classes, self.sampled = c.groups, c.classes, c.sampled_groups
        self.latent_size, self.d = model.latent_size, c.backbone.d_model
        self.width = c.hidden
        self._odds = g.split(odds, [1] * horizon, axis=0)
        self._fold = _Folded(agent)
        self.start = start
        head = self.sampled * self.classes
        parts = [start.latent]
        if 0 < head < self.latent_size:
            parts = list(g.split(start.latent, [head, self.latent_size - head]))
        if head < self.latent_size:  # probabilities less what is mixed in
            parts[-1] = g.op("Div", g.op("Sub", parts[-1], c.unimix / c.classes), 1 - c.unimix)
        self._latent = g.concat(*parts, axis=-1)
        self._layers = [
            Mamba3Roll(
                g, cast("Mamba3", layer), {k.split(".", 1)[1]: v for k, v in start.layers.items() if f"layer{i}." in k}
            )
            for i, layer in enumerate(cast("Backbone", model.backbone).layers)
        ]

    def dream(self, wanted: str, count: int, jitter: str | None = None, own: int = 0) -> Dreamt:
        """Dreams of wanted (K - P, L, A) and, in front of them, of the actor with jitter (P, L, A)."""
        g, w = self.g, self._fold
        carried = [layer.begin(count) for layer in self._layers]
        planned = [g.reshape(a, count - own, ACTION_SIZE) for a in g.split(wanted, [1] * self.horizon, axis=1)]
        luck = (
            []
            if jitter is None
            else [g.reshape(a, own, ACTION_SIZE) for a in g.split(jitter, [1] * self.horizon, axis=1)]
        )
        latent, features = g.expand(self._latent, count, self.latent_size), ""
        actions, seen, contexts = [], [], []
        for t in range(self.horizon):
            action = planned[t]
            if luck:
                own_features = g.slice(features, 0, own, 0) if t else g.concat(self.start.memory, self._latent, axis=-1)
                action = g.concat(self._acted(own_features, luck[t]), action, axis=0)
            actions.append(g.reshape(action, count, 1, ACTION_SIZE))
            both = g.linear(g.concat(latent, action, axis=-1), w.from_latent, w.from_latent_bias)
            x, context = g.split(both, [self.d, self.width])
            memory = self._memory(x, carried)
            hidden = g.silu(g.normed(g.linear(memory, w.prior_memory, context), w.prior_scale, EPS))
            logits = g.reshape(g.linear(hidden, w.prior_out, w.prior_out_bias), count, self.groups, self.classes)
            if (t + 1) % self.doubt_every == 0 and w.others is not None:
                contexts.append((g.concat(memory, latent, action, axis=-1), logits))
            latent = self._sampled(logits, t, count)
            features = g.concat(memory, latent, axis=-1)
            seen.append(features)
        rewards, weights, dangers = self._outcomes(seen, count)
        value = self._critic(seen[-1], count)
        last = g.reshape(g.slice(weights, self.horizon, self.horizon + 1, 1), count)
        doubts = self._doubts(contexts, weights, count)
        return Dreamt(g.concat(*actions, axis=1), rewards, g.op("Mul", last, value), doubts, dangers)

    def _acted(self, features: str, luck: str) -> str:
        """(P, A) what the actor does, with noise in its standard deviations."""
        g, actor = self.g, self.agent.behavior.actor
        out = self._mlp(features, self._fold.actor)
        mean, spread = g.split(out, [ACTION_SIZE, ACTION_SIZE])
        std = g.op("Add", g.op("Mul", g.op("Sigmoid", spread), actor.high - actor.low), actor.low)
        action = g.op("Add", g.op("Tanh", mean), g.op("Mul", std, luck))
        return g.op("Clip", action, -1.0, 1.0)

    def _mlp(self, x: str, layers: list[tuple[Array, Array | None, Array | None]]) -> str:
        g = self.g
        for weight, bias, scale in layers:
            x = g.linear(x, weight, bias)
            if scale is not None:
                x = g.silu(g.normed(x, scale, EPS))
        return x

    def _memory(self, x: str, carried: list[Carried]) -> str:
        """(K, D) the memory after x, one step of the backbone."""
        g, backbone = self.g, cast("Backbone", self.agent.model.backbone)
        layer, mlp = 0, 0
        for letter in backbone.letters:
            if letter == MLP:
                block, norm = cast("SwiGLU", backbone.mlps[mlp]), backbone.mlp_norms[mlp]
                up = g.linear(g.normed(x, _array(norm.weight), _eps(norm)), _weight(block.up))
                width = block.down.in_features
                gate, raised = g.split(up, [width, width])
                x = g.linear(g.op("Mul", g.silu(gate), raised), _weight(block.down), x)
                mlp += 1
                continue
            norm = backbone.norms[layer]
            u = g.normed(x, _array(norm.weight), _eps(norm))
            x, carried[layer] = self._layers[layer].step(u, x, carried[layer])
            layer += 1
        return g.normed(x, _array(backbone.out_norm.weight), _eps(backbone.out_norm))

    def _sampled(self, logits: str, t: int, count: int) -> str:
        """(K, Z) one-hot samples, and the probabilities (before anything is mixed in) of the other groups."""
        g, c = self.g, self.agent.model.config
        p = g.softmax(logits)
        drawn, kept = p, ""
        if not self.sampled:
            return g.reshape(p, count, self.latent_size)
        if self.sampled < self.groups:
            drawn, kept = g.split(p, [self.sampled, self.groups - self.sampled], axis=1)
        mixed = g.op("Add", drawn, c.unimix / c.classes / (1 - c.unimix)) if c.unimix else drawn
        odds = g.reshape(self._odds[t], -1, self.sampled, self.classes)
        one_hot = g.op("Hardmax", g.op("Mul", mixed, odds), axis=-1)
        return g.reshape(g.concat(one_hot, kept, axis=1) if kept else one_hot, count, self.latent_size)

    def _outcomes(self, seen: list[str], count: int) -> tuple[str, str, str]:
        """(K,) discounted rewards, (K, L + 1) the weight of each step's reward, the last that of the value, and (K,)
        discounted chance of a collision.
        """
        g, w, steps = self.g, self._fold, self.horizon
        rewards, goings = [], []
        for first in range(0, steps, TOGETHER):
            rows = len(seen[first : first + TOGETHER]) * count
            pair = g.linear(g.concat(*seen[first : first + TOGETHER], axis=0), w.outcome_in, w.outcome_bias)
            pair = g.silu(
                g.op(
                    "Mul",
                    g.normed(g.reshape(pair, rows, 2, self.width), np.ones(self.width, np.float32), EPS),
                    w.outcome_scale,
                )
            )
            reward, proceed = (g.reshape(part, rows, self.width) for part in g.split(pair, [1, 1], axis=1))
            rewards.append(g.reshape(self._expected(reward, *w.reward_out, w.reward_bins), -1, count))
            goings.append(g.reshape(g.linear(proceed, *w.proceed_out), -1, count))
        reward = g.op("Transpose", g.concat(*rewards, axis=0), perm=[1, 0])  # (K, L)
        going = g.op("Transpose", g.concat(*goings, axis=0), perm=[1, 0])
        going = g.op("Neg", g.op("Softplus", g.op("Neg", going)))  # log sigmoid
        before = np.triu(np.ones((steps, steps + 1), np.float32), 1)
        discount = np.log(self.agent.behavior.config.discount) * np.arange(steps + 1, dtype=np.float32)
        weights = g.op("Exp", g.op("Add", g.op("MatMul", going, before), discount))
        now = g.slice(weights, 0, steps, 1)
        if w.clearance is None:
            ends = g.op("Mul", now, g.op("Sub", 1.0, g.op("Exp", going)))
            punished = g.op("Cast", g.op("Less", reward, 0.0), to=1)
            dangers = g.reduce("ReduceSum", g.op("Mul", ends, punished))
        else:
            dangers = g.reduce("ReduceMax", g.op("Mul", now, self._touches(seen, count)))
        return g.reduce("ReduceSum", g.op("Mul", reward, now)), weights, dangers

    def _touches(self, seen: list[str], count: int) -> str:
        """(K, L) chances of a touch at each step, by the head for clearances."""
        g, layers, found = self.g, self._fold.clearance, list[str]()
        assert layers is not None
        for first in range(0, len(seen), TOGETHER):
            p = g.softmax(self._mlp(g.concat(*seen[first : first + TOGETHER], axis=0), layers))
            near = g.reduce("ReduceSum", g.slice(p, 0, TOUCH_CLASSES, 1))
            found.append(g.reshape(near, -1, count))
        return g.op("Transpose", g.concat(*found, axis=0), perm=[1, 0])

    def _expected(self, hidden: str, weight: Array, bias: Array, bins: Array) -> str:
        """(n, 1) mean of a two-hot head from its last hidden layer."""
        p = self.g.softmax(self.g.linear(hidden, weight, bias))
        return self.g.op("MatMul", p, bins[:, None])

    def _critic(self, features: str, count: int) -> str:
        w = self._fold
        hidden = self._mlp(features, w.critic[:-1])
        weight, bias, _ = w.critic[-1]
        assert bias is not None
        return self.g.reshape(self._expected(hidden, weight, bias, w.critic_bins), count)

    def _doubts(self, contexts: list[tuple[str, str]], weights: str, count: int) -> str:
        """(K,) how far the priors disagree: mean over the steps that were looked at, each weighted like its reward."""
        g, w, c = self.g, self._fold, self.agent.model.config
        if not contexts:
            return g.op("Mul", g.reshape(g.slice(weights, 0, 1, 1), count), 0.0)
        assert w.others is not None
        looks, rows = len(contexts), len(contexts) * count
        context = g.concat(*(context for context, _ in contexts), axis=0)
        logits = [g.concat(*(own for _, own in contexts), axis=0)]
        for layers in w.others:
            logits.append(g.reshape(self._mlp(context, layers), rows, self.groups, self.classes))
        p = g.op(
            "Softmax", g.concat(*(g.reshape(x, 1, rows, self.groups, self.classes) for x in logits), axis=0), axis=-1
        )
        p = g.op("Add", g.op("Mul", p, 1 - c.unimix), c.unimix / c.classes) if c.unimix else p
        mean = g.reduce("ReduceMean", p, 0, keep=True)
        both = g.concat(p, mean, axis=0)  # (heads + 1, n, G, C)
        negative = g.reduce("ReduceSum", g.reshape(g.op("Mul", both, g.op("Log", both)), len(logits) + 1, rows, -1))
        share = np.append(np.full(len(logits), 1 / len(logits), np.float32), np.float32(-1.0))
        nats = g.op("MatMul", (share / self.groups / np.log(len(logits)))[None], negative)  # (1, n)
        nats = g.op("Transpose", g.reshape(g.op("Relu", nats), looks, count), perm=[1, 0])
        at = np.arange(self.doubt_every - 1, self.horizon, self.doubt_every)
        weighted = g.op("Mul", nats, g.op("Gather", weights, at.astype(np.int64), axis=1))
        return g.op("Mul", g.reduce("ReduceSum", weighted), 1 / looks)


class Carried(NamedTuple):
    """What a layer carries through the steps of K dreams: t earlier inputs, and the one before this step."""

    since: str  # (K, H, 1, 1) decay from the start; empty before the first step
    theta: str  # (K, H, 2, S) the same for key and query: products of equal shapes take a tenth of the time
    weights: str  # (K, H, 1, t) of the inputs before the last one, complete; empty before the first step
    last: str  # (K, H) the last input's own share; empty before the first step
    keys: str  # (K, H, t + 1, N)
    values: str  # (K, H, t + 1, P)


class Mamba3Roll:
    """One SISO Mamba-3 layer from a start that all candidates share."""

    def __init__(self, g: Graph, layer: Mamba3, state: dict[str, str]) -> None:
        self.g, self.heads, self.p, self.n, self.s = g, layer.heads, layer.headdim, layer.d_state, layer.pairs
        # pairs that are turned together: first all first halves, then all second halves, then what is not turned
        order = [*range(0, 2 * self.s, 2), *range(1, 2 * self.s, 2), *range(2 * self.s, self.n)]
        inner, heads, at = layer.inner, layer.heads, np.array(order, np.int64)
        z, x, bc, dt, a, trap, angle = np.split(_weight(layer.in_proj), np.cumsum(layer.split)[:-1], axis=1)
        bc = bc.reshape(len(bc), 2, self.n)[:, :, at].reshape(len(bc), -1)
        self._in = np.ascontiguousarray(np.concatenate([z, x, bc, dt, a, trap, angle, angle], axis=1))
        self._sizes = [inner, inner, 2 * self.n, heads, heads, heads, 2 * self.s]
        self._in_bias = np.zeros(self._in.shape[1], np.float32)
        first = 2 * (inner + self.n)
        self._in_bias[first : first + heads] = _array(layer.dt_bias)
        scale = np.stack([_array(layer.B_norm.weight), _array(layer.C_norm.weight)])
        self._bc_scale = scale[:, at]  # (2, N)
        bias = np.stack([_array(layer.B_bias)[:, 0], _array(layer.C_bias)[:, 0]], axis=1)
        self._bc_bias = bias[..., at]  # (H, 2, N)
        self._skip = np.repeat(_array(layer.D), self.p)  # (I,)
        self._out = _weight(layer.out_proj)
        # h_0 of all heads as one block-diagonal matrix (H N, H P), and the input before the first step
        hidden = g.op("Gather", g.op("Transpose", state["hidden"], perm=[0, 1, 3, 2]), at, axis=2)
        eye = np.eye(heads, dtype=np.float32)[:, None, :, None]
        blocks = g.op("Mul", g.reshape(hidden, heads, self.n, 1, self.p), eye)
        self._hidden = g.reshape(blocks, heads * self.n, heads * self.p)
        self._key = g.op("Gather", g.reshape(state["key"], 1, heads, 1, self.n), at, axis=3)
        self._value = g.reshape(state["value"], 1, heads, 1, self.p)
        theta = g.reshape(state["theta"], 1, heads, 1, self.s)
        self._theta = g.concat(theta, theta, axis=2)

    def begin(self, count: int) -> Carried:
        """Before the first step of K dreams."""
        g, heads = self.g, self.heads
        keys, values = g.expand(self._key, count, heads, 1, self.n), g.expand(self._value, count, heads, 1, self.p)
        return Carried("", g.expand(self._theta, count, heads, 2, self.s), "", "", keys, values)

    def step(self, u: str, residual: str, now: Carried) -> tuple[str, Carried]:
        """u (K, D) to residual + y (K, D)."""
        g, heads = self.g, self.heads
        z, x, bc, dt, a, trap, angle = g.split(g.linear(u, self._in, self._in_bias), self._sizes)
        dt = g.op("Softplus", dt)  # (K, H): numbers are added to arrays without trailing axes of 1 ten times as fast
        rate = g.op("Sub", -1.0, g.op("Max", a, g.op("Softsign", a)))  # -f(a)
        here = g.op("Mul", g.op("Sigmoid", trap), dt)
        before = g.op("Sub", dt, here)
        before = g.op("Add", now.last, before) if now.last else before
        dt, decay, share, before = (
            g.reshape(part, -1, heads, 1, 1) for part in (dt, g.op("Exp", g.op("Mul", dt, rate)), here, before)
        )
        turn = g.op("Mul", g.reshape(g.op("Mul", g.op("Tanh", angle), np.pi), -1, 1, 2, self.s), dt)
        theta = g.op("Add", now.theta, turn)
        key, query = self._turned(bc, theta)
        earlier = g.op("Mul", g.concat(now.weights, before, axis=3) if now.weights else before, decay)
        weights = g.concat(earlier, share, axis=3)  # (K, H, 1, t)
        keys = g.concat(now.keys, key, axis=2)
        value = g.reshape(x, -1, heads, 1, self.p)
        values = g.concat(now.values, value, axis=2)
        since = g.op("Mul", now.since, decay) if now.since else decay
        match = g.op("MatMul", query, g.op("Transpose", keys, perm=[0, 1, 3, 2]))  # (K, H, 1, t)
        y = g.reshape(g.op("MatMul", g.op("Mul", weights, match), values), -1, heads * self.p)
        y = g.op("Add", y, g.op("Mul", x, self._skip))
        faded = g.reshape(g.op("Mul", query, since), -1, heads * self.n)
        y = g.linear(faded, self._hidden, y)
        return g.linear(g.op("Mul", y, g.silu(z)), self._out, residual), Carried(
            since, theta, earlier, here, keys, values
        )

    def _turned(self, bc: str, theta: str) -> tuple[str, str]:
        """Key and query (K, H, 1, N): B and C normed, biased and turned by theta (K, H, 2, S)."""
        g, rest = self.g, self.n - 2 * self.s
        ones = np.ones(self.n, np.float32)
        both = g.op("Mul", g.normed(g.reshape(bc, -1, 1, 2, self.n), ones, NORM_EPS), self._bc_scale)
        both = g.op("Add", both, self._bc_bias)  # (K, H, 2, N)
        if self.s:
            cos, sin = g.op("Cos", theta), g.op("Sin", theta)
            a, b, *kept = g.split(both, [self.s, self.s, rest] if rest else [self.s, self.s])
            turned = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
            beside = g.op("Add", g.op("Mul", a, sin), g.op("Mul", b, cos))
            both = g.concat(turned, beside, *kept, axis=-1)
        key, query = g.split(both, [1, 1], axis=2)
        return key, query


class _Folded:
    """An agent's weights (inputs first) as the products that the rollouts take."""

    def __init__(self, agent: Agent) -> None:
        model, c = agent.model, agent.model.config
        self._mixed = c.sampled_groups * c.classes  # from here on latents are probabilities
        self._latent, self._unimix, self._classes, self._d = model.latent_size, c.unimix, c.classes, c.backbone.d_model
        backbone = _weight(model.to_backbone)  # (Z + A, D)
        prior = cast("nn.Sequential", model.prior_net)
        prior_in = _weight(prior[0])  # (D + Z + A, hidden)
        both = np.concatenate([backbone, prior_in[self._d :]], axis=1)
        bias = np.concatenate([_array(model.to_backbone.bias), np.zeros(c.hidden, np.float32)])
        self.from_latent, self.from_latent_bias = self._unmixed(both, bias, 0)
        self.prior_memory, self.prior_scale = prior_in[: self._d], _array(prior[1].weight)
        self.prior_out, self.prior_out_bias = LOGIT_SCALE * _weight(prior[-1]), LOGIT_SCALE * _array(prior[-1].bias)
        reward, proceed = model.reward.net, model.proceed
        heads = np.concatenate([_weight(reward[0]), _weight(proceed[0])], axis=1)
        self.outcome_in, self.outcome_bias = self._unmixed(heads, np.zeros(heads.shape[1], np.float32), self._d)
        self.outcome_scale = np.stack([_array(reward[1].weight), _array(proceed[1].weight)])[None]
        self.reward_out, self.reward_bins = (_weight(reward[-1]), _array(reward[-1].bias)), _symexp(model.reward)
        self.proceed_out = (_weight(proceed[-1]), _array(proceed[-1].bias))
        self.actor = self._layers(agent.behavior.actor.net, self._d)
        self.critic, self.critic_bins = self._layers(agent.behavior.critic.net, self._d), _symexp(agent.behavior.critic)
        self.clearance = None if model.clearance is None else self._layers(model.clearance.net, self._d)
        self.others: list[Any] | None = None
        if model.prior_heads is not None:
            self.others = [
                self._layers(cast("nn.Sequential", net), self._d, LOGIT_SCALE) for net in model.prior_heads.nets
            ]

    def _layers(
        self, net: nn.Sequential, at: int, scale: float = 1.0
    ) -> list[tuple[Array, Array | None, Array | None]]:
        """Weight, bias and norm of each layer of an `mlp` that reads features, latents from row `at` on."""
        parts = list(net)
        found: list[tuple[Array, Array | None, Array | None]] = []
        for i in range(0, len(parts) - 1, 3):
            found.append((_weight(parts[i]), None, _array(parts[i + 1].weight)))
        weight, bias = self._unmixed(found[0][0], np.zeros(found[0][0].shape[1], np.float32), at)
        found[0] = (weight, bias, found[0][2])
        found.append((scale * _weight(parts[-1]), scale * _array(parts[-1].bias), None))
        return found

    def _unmixed(self, weight: Array, bias: Array, at: int) -> tuple[Array, Array]:
        """Weight and bias for latents whose probabilities have nothing mixed in yet; they begin at row `at`."""
        weight, rows = weight.copy(), slice(at + self._mixed, at + self._latent)
        bias = bias + weight[rows].sum(0) * np.float32(self._unimix / self._classes)
        weight[rows] *= np.float32(1 - self._unimix)
        return weight, bias


def _weight(linear: Any) -> Array:
    """(inputs, outputs)."""
    return np.ascontiguousarray(_array(linear.weight).T)


def _array(tensor: Any) -> Array:
    assert isinstance(tensor, Tensor)
    return np.asarray(tensor.detach().float().numpy())


def _eps(norm: Any) -> float:
    return EPS if norm.eps is None else float(norm.eps)


def _symexp(head: TwoHotHead) -> Array:
    bins = _array(head.bins)
    return np.asarray(np.sign(bins) * np.expm1(np.abs(bins)), np.float32)
