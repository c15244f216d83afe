"""The imagination planner as one ONNX graph: proposals, prices, dreams, scores and refinement, without a loop.

`robonav.planning.mppi.plan` with `robonav.planning.local`'s prices is the same in numpy and torch, round by round. The
last plan goes in as a state and the next one comes out; all noise comes in (`policies.planner_layout`).

Shape letters: K candidates, P of them the actor's, L horizon, A action size, M constant commands.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from deploy.export_pricing import Pricing
from deploy.export_rollout import Dreamt, Rollouts, Start, is_quick
from deploy.graph import Graph
from policies.contract import NEXT_PREFIX, STATE_PREFIX
from policies.onnx_planner import LAYOUT_KEY
from policies.planner_layout import PLAN, PlannerLayout
from robonav.config import to_mapping
from robonav.errors import BundleError, explain
from robonav.imagination.agent import Agent
from robonav.planning.mppi import knot_shares
from robonav.types import ACTION_SIZE

NEVER = -1e30  # score of a candidate that is not finite, or is none


def planner_to_onnx(agent: Agent, layout: PlannerLayout) -> bytes:
    """The serialised graph; static shapes, named as `policies.planner_layout` says.

    Raises:
        BundleError: the agent's memory cannot be unrolled.
    """
    if not is_quick(agent):
        pattern = agent.config.model.backbone.pattern
        do = "train with such a backbone, or export without --planner"
        raise BundleError(explain("planner", "a memory of Mamba-3 layers (M) and MLPs", f"'{pattern}'", do))
    g = Graph("planner")
    names = [name for name, _ in agent.initial_state(1).tensors()]
    for name, tensor in agent.initial_state(1).tensors():
        g.input(STATE_PREFIX + name, tuple(tensor.shape))
    g.input(STATE_PREFIX + PLAN, (layout.config.horizon, ACTION_SIZE))
    for name, shape in layout.inputs().items():
        g.input(name, shape)
    layers = {name: STATE_PREFIX + name for name in names if name not in ("memory", "latent")}
    start = Start(STATE_PREFIX + "memory", STATE_PREFIX + "latent", layers)
    return _Planner(g, agent, layout, start).written()


class Priced(NamedTuple):
    """Candidates: names of their actions (n, L, A) and scores (n,), and n."""

    actions: str
    scores: str
    n: int


class _Planner:
    def __init__(self, g: Graph, agent: Agent, layout: PlannerLayout, start: Start) -> None:
        c = layout.config
        self.g, self.layout, self.c, self.own = g, layout, c, layout.own
        self.room = c.dreams - layout.own
        self.pricing = Pricing(g, layout)
        odds = g.op("Reciprocal", "noise.latent")
        self.rollouts = Rollouts(g, agent, start, odds, c.horizon, layout.doubt_every)
        self._plans = g.split("noise.plans", [1] * c.rounds, axis=0)
        self._choice = g.split("noise.choice", [1] * (c.rounds - c.first_dreaming), axis=0)

    def written(self) -> bytes:
        """All rounds, and what comes out."""
        g, c = self.g, self.c
        plan = STATE_PREFIX + PLAN
        moved = g.concat(g.slice(plan, 1, c.horizon, 0), g.slice(plan, c.horizon - 1, c.horizon, 0), axis=0)
        best = mean = moved
        score = g.constant(np.array([NEVER], np.float32))
        rejected = g.constant(np.zeros(1, np.float32))
        actors: tuple[str, str] | None = None
        earlier: list[Priced] = []
        for round_ in range(c.rounds):
            found = self._priced(*self._proposed(best, mean, round_))
            if round_ < c.first_dreaming:
                earlier.append(found)
            else:
                if earlier:
                    found, earlier = self._joined(*earlier, found), []
                    score = g.constant(np.array([NEVER], np.float32))
                found, actors = self._dreamt(self._chosen(found, round_), actors)
            scores, lost = self._finite(found.scores)
            rejected = g.op("Add", rejected, lost)
            top = g.op("ReduceMax", scores, keepdims=1)
            mean = self._mean(found, scores, top, mean)
            here = g.op("Gather", found.actions, g.op("ArgMax", scores, axis=0, keepdims=0), axis=0)
            better = g.op("Greater", top, score)
            best, score = g.op("Where", better, here, best), g.op("Max", top, score)
        any_found = g.op("Greater", score, NEVER / 2)
        best = g.op("Where", any_found, best, 0.0)  # else it stops
        g.output(g.reshape(g.slice(best, 0, 1, 0), ACTION_SIZE), "action", (ACTION_SIZE,))
        g.output(g.op("Where", any_found, score, 0.0), "score", (1,))
        g.output(g.op("Cast", any_found, to=1), "found", (1,))
        g.output(rejected, "rejected", (1,))
        g.output(best, NEXT_PREFIX + PLAN, (c.horizon, ACTION_SIZE))
        return g.to_bytes({LAYOUT_KEY: json.dumps(to_mapping(self.layout), sort_keys=True)})

    def _proposed(self, best: str, mean: str, round_: int) -> tuple[str, int]:
        """Proposals (n, L, A) round the best plan and round the mean, in the first round constants too; and n."""
        g, c = self.g, self.c
        noise = g.op("MatMul", knot_shares(c), g.reshape(self._plans[round_], c.candidates, -1, ACTION_SIZE))
        std = np.full((c.candidates, 1, 1), c.noise_std * 0.5**round_, np.float32)
        std[:2] = 0.0  # best and mean themselves
        even = (np.arange(c.candidates) % 2 == 0)[:, None, None]
        wanted = g.op("Add", g.op("Mul", noise, std), g.op("Where", even, best, mean))
        count = c.candidates
        if round_ == 0 and self.layout.constants:
            kept_up = g.reshape("constants", self.layout.constants, 1, ACTION_SIZE)
            wanted = g.concat(wanted, g.expand(kept_up, self.layout.constants, c.horizon, ACTION_SIZE), axis=0)
            count += self.layout.constants
        return g.op("Clip", wanted, -1.0, 1.0), count

    def _priced(self, wanted: str, count: int) -> Priced:
        """Proposals (n, L, A) and their scores by geometry; NEVER for constants that nobody can reach."""
        g, c = self.g, self.c
        scores = g.op("Neg", self.pricing.price(wanted, count))
        if count > c.candidates:
            known = g.concat(np.ones(c.candidates, np.float32), "known", axis=0)
            scores = g.op("Where", g.op("Greater", known, 0.5), scores, NEVER)
        return Priced(wanted, scores, count)

    def _joined(self, first: Priced, *others: Priced) -> Priced:
        """Candidates of several rounds, the last one first; see `robonav.planning.mppi`."""
        g, parts, count = self.g, [first[:2]], first.n
        for other in others:
            actions, scores = (g.slice(x, 1, other.n, 0) for x in other[:2])
            parts.insert(0, (actions, scores))
            count += other.n - 1
        actions, scores = (g.concat(*names, axis=0) for names in zip(*parts, strict=True))
        return Priced(actions, scores, count)

    def _chosen(self, found: Priced, round_: int) -> Priced:
        """The K - P that are dreamt: drawn by the softmax of their price."""
        g, c, count = self.g, self.c, found.n
        if count <= self.room:
            return found
        luck = g.reshape(g.slice(self._choice[round_ - c.first_dreaming], 0, count, 1), count)
        luck = g.op("Add", g.op("Mul", found.scores, 1 / c.temperature), luck)
        first = g.op("Equal", np.arange(count), g.op("ArgMax", found.scores, axis=0, keepdims=1))
        luck = g.op("Where", first, -NEVER, luck)  # the best one always
        _, chosen = g.ops("TopK", luck, np.array([self.room], np.int64), outputs=2, axis=0)
        actions, scores = (g.op("Gather", x, chosen, axis=0) for x in found[:2])
        return Priced(actions, scores, self.room)

    def _dreamt(self, chosen: Priced, actors: tuple[str, str] | None) -> tuple[Priced, tuple[str, str]]:
        """Those that were chosen behind the actor's own, with what imagination says of them; and the actor's alone,
        which are dreamt in the first call and handed back in later ones.
        """
        g, c = self.g, self.c
        if actors is not None:
            dreamt = self.rollouts.dream(chosen.actions, chosen.n)
            actions = g.concat(actors[0], dreamt.actions, axis=0)
            scores = g.concat(actors[1], g.op("Add", chosen.scores, self._gain(dreamt)), axis=0)
            return Priced(actions, scores, self.own + chosen.n), actors
        std = np.full((self.own, 1, 1), c.actor_noise, np.float32)
        std[:1] = 0.0
        count = self.own + chosen.n
        dreamt = self.rollouts.dream(chosen.actions, count, g.op("Mul", "noise.actor", std), self.own)
        own = g.slice(dreamt.actions, 0, self.own, 0)
        scores = g.concat(g.op("Neg", self.pricing.price(own, self.own)), chosen.scores, axis=0)
        scores = g.op("Add", scores, self._gain(dreamt))
        return Priced(dreamt.actions, scores, count), (own, g.slice(scores, 0, self.own, 0))

    def _gain(self, found: Dreamt) -> str:
        """(K,) what dreams add to the scores of their plans: `robonav.planning.mppi.imagined_gain`."""
        g, c = self.g, self.c
        dangers = found.dangers
        if c.danger_floor:
            below = g.op("Less", dangers, c.danger_floor)  # NaN stays
            dangers = g.op("Where", below, 0.0, g.op("Sub", dangers, c.danger_floor))
        danger = g.op("Mul", dangers, -c.danger_weight)
        if not c.imagination_weight:
            return danger
        parts = [g.op("Mul", found.doubts, -c.disagreement_weight)]
        parts += [found.rewards] * c.rewards + [found.values] * c.value
        returns = g.op("Mul", g.op("Sum", *parts), c.imagination_weight)
        return g.op("Add", returns, danger)

    def _finite(self, scores: str) -> tuple[str, str]:
        """Scores (K,), those that are not finite or belong to nobody at NEVER, and how many are not finite (1,)."""
        g = self.g
        wrong = g.op("Or", g.op("IsNaN", scores), g.op("IsInf", scores))
        lost = g.op("ReduceSum", g.op("Cast", wrong, to=1), keepdims=1)
        return g.op("Where", wrong, NEVER, scores), lost

    def _mean(self, found: Priced, scores: str, top: str, before: str) -> str:
        """(L, A) mean of the actions, by the softmax of their finite scores."""
        g, c = self.g, self.c
        weights = g.op("Exp", g.op("Mul", g.op("Sub", scores, top), 1 / c.temperature))
        counts = g.op("Cast", g.op("Greater", scores, NEVER / 2), to=1)
        weights = g.op("Mul", weights, counts)
        total = g.op("ReduceSum", weights, keepdims=1)
        flat = g.reshape(found.actions, found.n, -1)
        flat = g.op("Where", g.reshape(g.op("Greater", counts, 0.5), found.n, 1), flat, 0.0)
        mixed = g.op("MatMul", g.reshape(weights, 1, found.n), flat)
        mixed = g.reshape(g.op("Div", mixed, g.op("Max", total, 1e-20)), c.horizon, ACTION_SIZE)
        return g.op("Where", g.op("Greater", total, 0.0), mixed, before)
