"""The world model along recorded episodes: posterior tick by tick, and the prior from chosen ticks under what was done.

A start at tick t holds the memory before z_t and z_t itself. Step k of the dream from there takes a_{t+k-1} and is
compared with the observation and the reward of tick t + k. Beyond an episode's end its last action is held, so that
how long a dream lasts says nothing about how the episode ended.

Shape letters: E episodes, T ticks, M starts, H horizon, S samples, F features, A action size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from robonav.evaluation.worldmodel.episodes import Recorded
from robonav.imagination.agent import Agent, AgentState
from robonav.learning.streams import Arrays
from robonav.ssm.state import map_state
from robonav.types import MODALITIES
from robonav.world_model.model import WorldModel
from robonav.world_model.nets import symexp

OUTCOME_REWARD = 0.5  # a reward below -0.5 is taken for a collision, above 0.5 for an arrival
_EVEN = 1e-6  # chance added to both, so that an end that looks like neither counts half
_BATCH = 32  # episodes followed together
_ROWS = 1024  # dreams rolled together


class Starts(NamedTuple):
    """Where dreams begin."""

    episode: NDArray[np.int64]  # (M,) index
    tick: NDArray[np.int64]  # (M,)


class Followed(NamedTuple):
    """The posterior along episodes."""

    features: list[NDArray[np.float32]]  # (T, F) of each episode
    states: AgentState | None  # (M, ...) at the starts; None without any


class Forecast(NamedTuple):
    """Predicted for H steps from M starts; quantities by name, each mean over the samples."""

    quantities: Arrays  # (M, H, ...): those of `decode`, and reward
    collision: NDArray[np.float32]  # (M, H) chance of one within so many steps
    collision_by_reward: NDArray[np.float32]  # (M, H) the same from the reward alone
    imagined_return: NDArray[np.float32]  # (M,) see `dream_on`
    collision_by_clearance: NDArray[np.float32] | None = None  # (M, H) the same from foretold clearances


def choose_starts(episodes: Sequence[Recorded], every: int, warm_up: int, seed: int) -> Starts:
    """Every so many ticks from a random one on, after `warm_up` ticks and before the last one."""
    rng = np.random.default_rng(seed)
    first = warm_up + rng.integers(every, size=len(episodes))
    found = [(i, t) for i, e in enumerate(episodes) for t in range(int(first[i]), e.ticks - 1, every)]
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return Starts(pairs[:, 0], pairs[:, 1])


def recorded_actions(episodes: Sequence[Recorded], starts: Starts, horizon: int) -> NDArray[np.float32]:
    """(M, H, A) done after the starts; the last one that was done is held beyond an episode's end."""
    steps = starts.tick[:, None] + np.arange(horizon)
    rows = zip(starts.episode.tolist(), steps, strict=True)
    taken = [episodes[i].action[np.minimum(at, max(episodes[i].ticks - 2, 0))] for i, at in rows]
    return np.stack(taken) if taken else np.zeros((0, horizon, 3), np.float32)


@torch.no_grad()
def follow(agent: Agent, episodes: Sequence[Recorded], inputs: Sequence[Arrays], starts: Starts) -> Followed:
    """Steps the agent through the episodes as it would have been deployed, with the latent's most likely values.

    Args:
        agent: whose model is followed.
        episodes: what was done.
        inputs: what is observed, an episode; `Recorded.inputs`, or with something taken away.
        starts: ticks whose states are kept.
    """
    order = sorted(range(len(episodes)), key=lambda i: episodes[i].ticks)
    features: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(episodes)
    kept: list[AgentState] = []
    rows_of: list[NDArray[np.int64]] = []
    for first in range(0, len(order), _BATCH):
        chosen = order[first : first + _BATCH]
        length = max(episodes[i].ticks for i in chosen)
        state, place = agent.initial_state(len(chosen)), {i: row for row, i in enumerate(chosen)}
        own = np.flatnonzero(np.isin(starts.episode, chosen))
        out = []
        for t in range(length):
            at = [min(t, episodes[i].ticks - 1) for i in chosen]  # a shorter episode's end is repeated, and not kept
            now = {k: _stacked([inputs[i][k][s] for i, s in zip(chosen, at, strict=True)]) for k in inputs[chosen[0]]}
            before = [episodes[i].action[max(s - 1, 0)] * (s > 0) for i, s in zip(chosen, at, strict=True)]
            f, state = agent.observe(state, now, _stacked(before), torch.full((len(chosen),), float(t == 0)))
            out.append(f)
            here = own[starts.tick[own] == t]
            if len(here):
                wanted = torch.tensor([place[i] for i in starts.episode[here].tolist()])
                kept.append(map_state(lambda x, wanted=wanted: x[wanted], state))
                rows_of.append(here)
        stacked = torch.stack(out, 1).numpy()
        for i, row in place.items():
            features[i] = stacked[row, : episodes[i].ticks].copy()
    if not kept:
        return Followed(features, None)
    back = torch.from_numpy(np.argsort(np.concatenate(rows_of)))
    return Followed(features, map_state(lambda *x: torch.cat(x)[back], *kept))


@torch.no_grad()
def dream_on(
    agent: Agent, states: AgentState, actions: NDArray[np.float32], samples: int, return_steps: int, seed: int
) -> Forecast:
    """Rolls the prior under actions (M, H, A), several times from each start.

    With c_j the chance to go on and, by the reward head, q_j that of a reward below -0.5 and s_j above 0.5, step j
    ends the dream in a collision with h_j = (1 - c_j) q_j / (q_j + s_j), and a collision within k steps has the chance
    sum_{j <= k} h_j prod_{i < j} c_i. By the reward alone it is 1 - prod_{j <= k} (1 - q_j), and, where the model has a
    head for clearances that says a touch has the chance t_j, by these 1 - prod_{j <= k} (1 - t_j). The imagined return
    is sum_{j <= L} d^(j-1) r_j prod_{i < j} c_i + d^L v_L prod_{i <= L} c_i with L = `return_steps`, d the discount and
    v the critic. All are means over the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    size = max(1, _ROWS // samples)
    parts = []
    for first in range(0, len(actions), size):
        rows = slice(first, first + size)
        state = map_state(lambda x, rows=rows: x[rows].repeat_interleave(samples, 0), states)
        taken = torch.from_numpy(actions[rows]).repeat_interleave(samples, 0)
        parts.append(_dream(agent, state, taken, samples, return_steps, generator))
    quantities = {name: np.concatenate([p.quantities[name] for p in parts]) for name in parts[0].quantities}
    collision, by_reward, returns = (np.concatenate([p[k] for p in parts]) for k in (1, 2, 3))
    nearness = [p.collision_by_clearance for p in parts if p.collision_by_clearance is not None]
    return Forecast(quantities, collision, by_reward, returns, np.concatenate(nearness) if nearness else None)


def _dream(
    agent: Agent, state: AgentState, actions: Tensor, samples: int, return_steps: int, generator: torch.Generator
) -> Forecast:
    model, discount = agent.model, agent.behavior.config.discount
    world, latent = state.world, state.latent
    rows, horizon = actions.shape[:2]
    alive, safe, returns = torch.ones(rows), torch.ones(rows), torch.zeros(rows)
    hit, clear = torch.zeros(rows), torch.ones(rows)
    steps: list[dict[str, Tensor]] = []
    for k in range(horizon):
        world = model.advance(world, latent, actions[:, k])
        latent = model.sample(model.prior(world.memory, latent, actions[:, k]), generator)
        f = model.features(world.memory, latent)
        reward, proceed = model.reward.mean(f), torch.sigmoid(model.proceed(f).squeeze(-1))
        crash, arrive = outcome_chances(model, f)
        hit = hit + alive * (1 - proceed) * (crash + _EVEN) / (crash + arrive + 2 * _EVEN)
        safe = safe * (1 - crash)
        if k < return_steps:
            returns = returns + discount**k * alive * reward
        alive = alive * proceed
        if k == return_steps - 1:
            returns = returns + discount**return_steps * alive * agent.behavior.critic.mean(f)
        step = {**decode(model, f), "reward": reward, "hit": hit, "by_reward": 1 - safe}
        if model.clearance is not None:
            clear = clear * (1 - model.clearance.touch(f))
            step["by_clearance"] = 1 - clear
        steps.append({name: x.unflatten(0, (-1, samples)).mean(1) for name, x in step.items()})
    stacked = {name: torch.stack([step[name] for step in steps], 1).numpy() for name in steps[0]}
    if "local_map" in stacked:  # the largest of them
        stacked["local_map"] = stacked["local_map"].astype(np.float16)
    hits, by_reward = stacked.pop("hit"), stacked.pop("by_reward")
    by_clearance = stacked.pop("by_clearance", None)
    return Forecast(stacked, hits, by_reward, returns.unflatten(0, (-1, samples)).mean(1).numpy(), by_clearance)


def outcome_chances(model: WorldModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """Chances (...) that the reward that comes with features (..., F) is that of a collision, and of an arrival."""
    p, value = torch.softmax(model.reward(features), dim=-1), symexp(model.reward.bins)
    return p[..., value < -OUTCOME_REWARD].sum(-1), p[..., value > OUTCOME_REWARD].sum(-1)


def decode(model: WorldModel, features: Tensor, flow: bool = False) -> dict[str, Tensor]:
    """What the decoder says in physical units, by name; nothing without a decoder.

    scan_m (., beams), flow_mps (., beams, 2) if asked for and read, local_map (., 3, C / 4, C / 4) chances, goal_m
    (., 2), waypoints_m (., 3, 2), velocity (., 3).
    """
    decoder, out = model.decoder, {}
    if decoder is None:
        return {}
    if "scan" in decoder.modalities:
        out["scan_m"] = decoder.scan_m(features)
        if flow and decoder.flow:
            out["flow_mps"] = decoder.flow_mps(features)
    if "local_map" in decoder.modalities:
        cells = torch.sigmoid(decoder.local_map(features))  # by rows, columns and channels
        out["local_map"] = cells.unflatten(-1, (decoder.pooled, decoder.pooled, -1)).movedim(-1, -3)
    goal = decoder.goal(features)
    direction = F.normalize(goal[..., 2:4], dim=-1)
    out["goal_m"] = symexp(goal[..., :1]).clamp(min=0) * direction
    out["waypoints_m"] = goal[..., 4:].unflatten(-1, (-1, 2))
    if "body" in decoder.modalities:
        out["velocity"] = decoder.body(features)[..., :3]
    return out


def without(inputs: Arrays, modality: str, names: Sequence[str]) -> Arrays:
    """`PolicyInput` arrays (T, ...) with one modality absent, whose arrays are `names`."""
    present = inputs["present"].copy()
    present[..., MODALITIES.index(modality)] = 0.0
    return {**inputs, "present": present} | {name: np.zeros_like(inputs[name]) for name in names}


def _stacked(rows: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(rows))
