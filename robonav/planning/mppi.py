"""Planning by imagination: model-predictive path integral control over the world model's recurrent step.

Candidates come from five places: the actor dreaming on with noise, smooth noise round the best plan and round the mean
so far, the last plan moved on by one tick, and in the first round constant commands. Their geometry is priced first
and chooses which of them are dreamt; what a dream says is then taken off or added: the chance of a collision, and,
where it is switched on, the discounted imagined reward with the critic's value of the last state (MPPI: Williams et
al. 2017; policy proposals and terminal value: TD-MPC2; price: `robonav.planning.sweep` and `progress`). The answer is
the best candidate of all rounds, never a mean that nobody priced: between a way round on the left and one on the right
lies what both avoid.

The warm start goes in and the next one comes out. A candidate whose score is not finite is never chosen and is
counted; when there is no finite one the planner commands a stop and says so. This module needs no torch: who dreams is
handed in, a torch model or an exported graph, or nobody.

Shape letters: K candidates, P of them the actor's, L horizon, A action size, S sampled groups, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.mapping.sight import SHIPPED
from robonav.planning.progress import ProgressConfig
from robonav.planning.sweep import SweepConfig
from robonav.types import ACTION_SIZE, Dreams

Singles = NDArray[np.float32]
Geometry = Callable[[Singles], NDArray[Any]]  # (K, L, A) actions to (K,) costs


class Imagination(Protocol):
    """Dreams candidates from the state of now; see `robonav.imagination.candidates`."""

    noise_shape: tuple[int, int]  # S, C

    def __call__(self, wanted: Singles, jitter: Singles, gumbel: Singles) -> Dreams:
        """From wanted (K, L, A), jitter (P, L, A) and gumbel (L, K, S, C)."""


@dataclass(frozen=True, slots=True)
class MPPIConfig:
    """The planner's dials."""

    candidates: int = 64
    """Action sequences a round; constant commands come on top."""
    dreamt: int = 64
    """Sequences a round that are dreamt where somebody dreams, the actor's among them; at most as many as candidates.
    Their number is what a decision of an exported planner takes its time for."""
    dreaming_rounds: int = 1
    """Rounds that are dreamt, counted from the last one; those before are refined by geometry alone, and their
    candidates compete for the first dreams."""
    horizon: int = 12
    """Ticks that a plan covers."""
    rounds: int = 2
    """Refinements a tick."""
    from_actor: float = 0.4
    """Share of those that are dreamt which the actor proposes."""
    noise_std: float = 0.3
    """Noise round the best plan in the first round; halved each round."""
    knots: int = 3
    """Points in time between which the noise is drawn as straight lines."""
    actor_noise: float = 0.7
    """Noise of the actor's proposals, in units of its own standard deviation; one of them has none."""
    temperature: float = 0.1
    """Of the softmax over scores, in metres of progress."""
    imagination_weight: float = 0.0
    """Metres of progress that a unit of imagined return is worth: reward, value and disagreement together. At 1 the
    planner collides more often than without dreams, so what counts of them by default is the danger."""
    danger_weight: float = 4.0
    """Metres of progress that a collision costs which is imagined for certain."""
    danger_floor: float = 0.25
    """Imagined chance of a collision from which on it counts: what a model says of safe plans is noise, and noise
    among plans that are nearly equal makes a robot restless."""
    disagreement_weight: float = 0.5
    """What full disagreement of the priors takes off an imagined return, in its units; 0 switches it off."""
    primitives: bool = True
    """Whether constant commands are among the first round's candidates."""
    samples: tuple[int, int, int] = (7, 5, 9)
    """Constant commands: how many vx, vy and yaw rates of those that the robot can reach."""
    imagination: bool = True
    """Whether anybody dreams."""
    rewards: bool = True
    """Whether imagined rewards count."""
    value: bool = True
    """Whether the value of the last imagined state counts."""
    geometry: bool = True
    """Whether the swept footprint counts."""
    progress: bool = True
    """Whether progress along the route counts."""
    deadline_ms: float | None = None
    """A further round begins only if the longest one so far would still fit; the best so far is the answer."""
    sight: str = SHIPPED
    """Who says what moves: "learned", the network that comes with the package (`robonav.mapping.sight`), a file of
    `robonav sight`, or "" for the tracker alone, which also speaks where a robot's lidar is not the network's."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    route: ProgressConfig = field(default_factory=ProgressConfig)

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        for name in ("candidates", "dreamt", "dreaming_rounds", "horizon", "rounds", "knots"):
            if getattr(self, name) < 1:
                raise ConfigError(explain(f"planner: {name}", "at least 1", getattr(self, name)))
        if not 0 <= self.from_actor <= 1:
            raise ConfigError(explain("planner: from_actor", "a number from 0 to 1", self.from_actor))
        if not 0 <= self.danger_floor < 1:
            raise ConfigError(explain("planner: danger_floor", "a number from 0 to below 1", self.danger_floor))
        if self.temperature <= 0:
            raise ConfigError(explain("planner: temperature", "above 0", self.temperature))
        for name in ("imagination_weight", "danger_weight", "disagreement_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(explain(f"planner: {name}", "0 or more", getattr(self, name)))
        if min(self.samples) < 1:
            raise ConfigError(explain("planner: samples", "1 or more", self.samples))
        if not (self.imagination or self.geometry or self.progress):
            expected = "imagination, geometry or progress to count, got none of them; switch one on"
            raise ConfigError(f"planner: expected {expected}")

    @property
    def dreams(self) -> int:
        """K where somebody dreams."""
        return min(self.dreamt, self.candidates)

    @property
    def first_dreaming(self) -> int:
        """The first round that is dreamt, from 0."""
        return max(self.rounds - self.dreaming_rounds, 0)

    def pool(self, round_: int, constants: int) -> int:
        """Of how many candidates a round that is dreamt chooses, where there are so many constant commands.

        The best so far is the first candidate of a round, and counts once.
        """
        rounds = range(round_ + 1) if round_ == self.first_dreaming else (round_,)
        return len(rounds) * (self.candidates - 1) + 1 + constants * (self.primitives and 0 in rounds)

    @property
    def own(self) -> int:
        """P."""
        return round(self.from_actor * self.dreams)


class PlannerState(NamedTuple):
    """Warm start of the next tick."""

    plan: Singles  # (L, A) the last plan
    seed: int  # of the noise
    tick: int = 0  # so that every tick has noise of its own, and a log replays exactly


class Plan(NamedTuple):
    """What the planner found."""

    action: Singles  # (A,) first action
    actions: Singles  # (L, A) the whole plan
    score: float  # in metres of progress
    rejected: int  # candidates that were not finite
    rounds: int  # that were played
    why: str
    state: PlannerState


# Constant actions where nobody knows which ones the robot can reach: standstill, ahead, back, arcs, turns, side steps.
PRIMITIVES = np.array(
    [
        *((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.0, 0.0), (-1.0, 0.0, 0.0)),
        *((1.0, 0.0, 0.5), (1.0, 0.0, -0.5), (0.6, 0.0, 1.0), (0.6, 0.0, -1.0)),
        *((0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.7, 1.0, 0.0), (0.7, -1.0, 0.0)),
    ],
    np.float32,
)


def initial_planner_state(config: MPPIConfig, seed: int) -> PlannerState:
    """No plan yet."""
    return PlannerState(np.zeros((config.horizon, ACTION_SIZE), np.float32), seed)


def plan(
    imagine: Imagination | None,
    planner: PlannerState,
    config: MPPIConfig,
    geometry: Geometry | None = None,
    clock: Callable[[], float] = time.perf_counter,
    constants: Singles = PRIMITIVES,
) -> Plan:
    """Chooses an action.

    Args:
        imagine: dreams from the state of now; None: the geometry decides alone.
        planner: the warm start.
        config: the dials.
        geometry: prices plans in metres of progress; a negative price is a gain.
        clock: tells seconds.
        constants: (M, A) actions that are candidates of the first round as plans that keep them up.
    """

    def price(actions: Singles) -> Singles:
        return np.zeros(len(actions), np.float32) if geometry is None else np.asarray(geometry(actions), np.float32)

    begin = clock()
    dreams = imagine is not None and config.imagination
    shape = imagine.noise_shape if imagine is not None and dreams else (0, 0)
    noise = draw_noise(planner, config, shape, len(constants))
    dreamer = _Dreamer(imagine, config, noise) if imagine is not None and dreams else None
    earlier: list[tuple[Singles, Singles]] = []  # candidates of the rounds before the first that is dreamt
    best = mean = np.concatenate([planner.plan[1:], planner.plan[-1:]])
    score, rejected, played, longest = -np.inf, 0, 0, 0.0
    for round_ in range(config.rounds):
        started = clock()
        if played and config.deadline_ms is not None and 1e3 * (started + longest - begin) > config.deadline_ms:
            break
        wanted = _proposals(noise.plans[round_], best, mean, round_, config, constants)
        actions, scores = wanted, -price(wanted)
        if dreamer is not None and round_ < config.first_dreaming:
            earlier.append((actions, scores))
        elif dreamer is not None:
            if earlier:
                wanted, scores, score = *_joined([*earlier, (actions, scores)]), -np.inf
                earlier = []
            actions, scores = dreamer.dream(wanted, scores, round_, price)
        finite = np.isfinite(scores)
        rejected += int((~finite).sum())
        played += 1
        longest = max(longest, clock() - started)
        if not finite.any():
            continue
        scores = np.where(finite, scores, -np.inf)
        weights = np.exp((scores - scores.max()) / config.temperature)
        weights = (weights / weights.sum()).astype(np.float32)
        mean = np.einsum("k,kla->la", weights, np.where(finite[:, None, None], actions, np.float32(0.0)))
        if scores.max() > score:
            best, score = actions[int(scores.argmax())].copy(), float(scores.max())
    following = planner.tick + 1
    if score == -np.inf:
        stopped = PlannerState(np.zeros_like(mean), planner.seed, following)
        why = "stop: no finite candidate"
        return Plan(np.zeros(ACTION_SIZE, np.float32), stopped.plan, 0.0, rejected, played, why, stopped)
    return Plan(best[0], best, score, rejected, played, "mppi", PlannerState(best, planner.seed, following))


class Noise(NamedTuple):
    """All that is random in a tick; standard normal, exponential and Gumbel numbers."""

    actor: Singles  # (P, L, A) of the actor's proposals
    latent: Singles  # (L, 1, S, C) exponential, of the latents: all candidates of all rounds have the same luck
    plans: Singles  # (R, K, knots, A) of the other proposals
    choice: tuple[NDArray[np.float64], ...]  # for each round that is dreamt, Gumbel, of which candidates are


def draw_noise(planner: PlannerState, config: MPPIConfig, noise_shape: tuple[int, int], constants: int) -> Noise:
    """The noise of a tick: the same for the same seed and tick.

    Plans have the same noise whether somebody dreams or not, so that what differs between the two is the dreams.

    Args:
        planner: has both.
        config: the dials.
        noise_shape: S, C of the imagination; (0, 0) where nobody dreams.
        constants: how many constant commands are candidates of the first round.
    """
    rng = np.random.default_rng((planner.seed % 2**63, planner.tick))
    c, dreams = config, noise_shape != (0, 0)
    plans = rng.standard_normal((c.rounds, c.candidates, max(c.knots, 2), ACTION_SIZE), np.float32)
    actor = rng.standard_normal((c.own * dreams, c.horizon, ACTION_SIZE), np.float32)
    latent = rng.standard_exponential((c.horizon, 1, *noise_shape), np.float32) + np.float32(1e-20)
    dreamt = range(c.first_dreaming, c.rounds) if dreams else ()
    choice = [rng.gumbel(size=c.pool(round_, constants)) for round_ in dreamt]
    return Noise(actor, latent, plans, tuple(choice))


def imagined_gain(dreamt: Dreams, config: MPPIConfig) -> Singles:
    """(K,) what dreams add to the scores of their plans, in metres of progress."""
    c, floor = config, np.float32(config.danger_floor)
    dangers = np.where(dreamt.dangers < floor, np.float32(0.0), dreamt.dangers - floor)
    gain = -np.float32(c.danger_weight) * dangers
    if not c.imagination_weight:
        return gain
    returns = c.rewards * dreamt.rewards + c.value * dreamt.values - np.float32(c.disagreement_weight) * dreamt.doubts
    return np.float32(c.imagination_weight) * returns + gain


def knot_shares(config: MPPIConfig) -> Singles:
    """(L, knots) share of each knot at each tick: straight lines between knots."""
    at = np.linspace(0, config.knots - 1, config.horizon) if config.knots > 1 else np.zeros(config.horizon)
    before = np.minimum(at.astype(int), max(config.knots - 2, 0))
    share = (at - before).astype(np.float32)
    shares = np.zeros((config.horizon, max(config.knots, 2)), np.float32)
    rows = np.arange(config.horizon)
    shares[rows, before], shares[rows, before + 1] = 1 - share, share
    return shares


def _proposals(
    drawn: Singles, best: Singles, mean: Singles, round_: int, config: MPPIConfig, constants: Singles
) -> Singles:
    """(K, L, A): best and mean so far, smooth noise round each, and in the first round all constants on top."""
    horizon = config.horizon
    noise = np.einsum("lj,kja->kla", knot_shares(config), drawn)
    noise[:2] = 0.0
    wanted = np.float32(config.noise_std * 0.5**round_) * noise
    wanted[0::2] += best
    wanted[1::2] += mean
    if config.primitives and round_ == 0:
        kept_up = np.broadcast_to(np.asarray(constants, np.float32)[:, None], (len(constants), horizon, ACTION_SIZE))
        wanted = np.concatenate([wanted, kept_up])
    return np.clip(wanted, -1.0, 1.0)


def _joined(rounds: list[tuple[Singles, Singles]]) -> tuple[Singles, Singles]:
    """Actions and scores of several rounds, the last one first, so that constants stand last.

    The first candidate of a later round is the best of those before, and counts once.
    """
    first, *later = rounds
    actions, scores = zip(*((a[1:], s[1:]) for a, s in reversed(later)), first, strict=True)
    return np.concatenate(actions), np.concatenate(scores)


class _Dreamer:
    """Dreams the promising candidates of a round: drawn without replacement by the softmax of their price.

    All of them, in all rounds, are dreamt with the same noise in the latents: what differs between scores is then the
    plans, not their luck. For the same reason the actor's own dreams are the same in all rounds, and are dreamt once.
    """

    def __init__(self, imagine: Imagination, config: MPPIConfig, noise: Noise) -> None:
        self._imagine, self._config, self._choice = imagine, config, noise.choice
        self._own = config.own
        jitter = noise.actor.copy()
        jitter[:1] = 0.0
        self._jitter = np.float32(config.actor_noise) * jitter
        self._gumbel = np.repeat(-np.log(noise.latent), config.dreams, axis=1)
        self._actors: tuple[Singles, Singles] | None = None

    def dream(
        self, wanted: Singles, scores: Singles, round_: int, price: Callable[[Singles], Singles]
    ) -> tuple[Singles, Singles]:
        """Actions (K, L, A), the actor's first, and scores (K,), of plans with scores from their geometry."""
        c = self._config
        room = c.dreams - self._own
        if len(wanted) > room:
            finite = np.where(np.isfinite(scores), scores, -np.inf)
            luck = finite / c.temperature + self._choice[round_ - c.first_dreaming]
            luck[finite.argmax()] = np.inf  # the best one always
            chosen = np.argsort(-luck, kind="stable")[:room]
            wanted, scores = wanted[chosen], scores[chosen]
        if self._actors is not None and not len(wanted):
            return self._actors
        own = 0 if self._actors is not None else self._own
        filled = np.concatenate([np.zeros((own, *wanted.shape[1:]), np.float32), wanted])
        dreamt = self._imagine(filled, self._jitter[:own], self._gumbel[:, : len(filled)])
        actions = dreamt.actions
        scores = np.concatenate([-price(actions[:own]), scores]) if own else scores
        scores = imagined_gain(dreamt, c) + scores
        if self._actors is None:
            self._actors = actions[:own], scores[:own]
            return actions, scores
        return np.concatenate([self._actors[0], actions]), np.concatenate([self._actors[1], scores])
