"""Planning by imagination: model-predictive path integral control over the world model's recurrent step.

Candidates come from four places: the actor dreaming on with noise, noise round the last plan moved on by one tick,
the last plan itself, and in the first round motion primitives. Each is dreamt through the prior; its score is the
discounted imagined reward plus the critic's value of the last state, less what the geometry of the plan costs (MPPI:
Williams et al. 2017; policy proposals and terminal value: TD-MPC2; geometry: `robonav.planning.sweep`).

The warm start goes in and the next one comes out. A candidate whose score is not finite is never chosen and is
counted; when there is no finite one the planner commands a stop and says so. This module needs no torch: who dreams is
handed in, a torch model or an exported graph.

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
from robonav.planning.sweep import SweepConfig
from robonav.types import ACTION_SIZE

Singles = NDArray[np.float32]
Geometry = Callable[[Singles], NDArray[Any]]  # (K, L, A) actions to (K,) costs


class Imagination(Protocol):
    """Dreams candidates from the state of now; see `robonav.imagination.candidates`."""

    noise_shape: tuple[int, int]  # S, C

    def __call__(self, wanted: Singles, jitter: Singles, gumbel: Singles) -> tuple[Singles, Singles]:
        """Actions (K, L, A) and scores (K,) from wanted (K, L, A), jitter (P, L, A) and gumbel (L, K, S, C)."""


@dataclass(frozen=True, slots=True)
class MPPIConfig:
    """The planner's dials."""

    candidates: int = 64
    """Imagined action sequences a round."""
    horizon: int = 10
    """Steps that are imagined."""
    rounds: int = 2
    """Refinements a tick."""
    from_actor: float = 0.4
    """Share of the candidates that the actor proposes."""
    noise_std: float = 0.3
    """Noise round the last plan in the first round; halved each round."""
    actor_noise: float = 0.7
    """Noise of the actor's proposals, in units of its own standard deviation; one of them has none."""
    temperature: float = 0.05
    """Of the softmax over scores, in units of return."""
    primitives: bool = True
    """Whether constant commands are among the first round's candidates."""
    imagination: bool = True
    """Whether the imagined rewards and the value count."""
    geometry: bool = True
    """Whether the swept footprint counts."""
    deadline_ms: float | None = None
    """A further round begins only if the longest one so far would still fit; the best so far is the answer."""
    sweep: SweepConfig = field(default_factory=SweepConfig)

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        for name in ("candidates", "horizon", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(explain(f"planner: {name}", "at least 1", getattr(self, name)))
        if not 0 <= self.from_actor <= 1:
            raise ConfigError(explain("planner: from_actor", "a number from 0 to 1", self.from_actor))
        if self.temperature <= 0:
            raise ConfigError(explain("planner: temperature", "above 0", self.temperature))
        if not (self.imagination or self.geometry):
            raise ConfigError("planner: expected imagination or geometry to count, got neither; switch one on")


class PlannerState(NamedTuple):
    """Warm start of the next tick."""

    plan: Singles  # (L, A) mean of the last plan
    seed: int  # of the noise
    tick: int = 0  # so that every tick has noise of its own, and a log replays exactly


class Plan(NamedTuple):
    """What the planner found."""

    action: Singles  # (A,) first action
    actions: Singles  # (L, A) the whole plan
    score: float  # its weighted score
    rejected: int  # candidates that were not finite
    rounds: int  # that were played
    why: str
    state: PlannerState


# Constant actions: standstill, straight ahead, back, arcs, turns, side steps.
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
    imagine: Imagination,
    planner: PlannerState,
    config: MPPIConfig,
    geometry: Geometry | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """Chooses an action; `imagine` starts at the state of now, and `geometry` prices plans in units of return."""
    begin = clock()
    rng = np.random.default_rng((planner.seed % 2**63, planner.tick))
    following = planner.tick + 1
    own = round(config.from_actor * config.candidates)
    best = mean = np.concatenate([planner.plan[1:], planner.plan[-1:]])
    score, rejected, played, longest = 0.0, 0, 0, 0.0
    for round_ in range(config.rounds):
        started = clock()
        if played and config.deadline_ms is not None and 1e3 * (started + longest - begin) > config.deadline_ms:
            break
        actions, scores = _candidates(imagine, rng, mean, own, round_, config)
        if not config.imagination:
            scores = np.zeros_like(scores)
        if config.geometry and geometry is not None:
            scores = scores - np.asarray(geometry(actions), np.float32)
        finite = np.isfinite(scores)
        rejected += int((~finite).sum())
        if not finite.any():
            stopped = PlannerState(np.zeros_like(mean), planner.seed, following)
            why = "stop: no finite candidate"
            return Plan(np.zeros(ACTION_SIZE, np.float32), stopped.plan, 0.0, rejected, played, why, stopped)
        played += 1
        weights = np.exp((np.where(finite, scores, -np.inf) - scores[finite].max()) / config.temperature)
        weights = (weights / weights.sum()).astype(np.float32)
        mean = best = np.einsum("k,kla->la", weights, np.where(finite[:, None, None], actions, 0.0))
        score = float((weights * np.where(finite, scores, 0.0)).sum())
        longest = max(longest, clock() - started)
    return Plan(best[0], best, score, rejected, played, "mppi", PlannerState(best, planner.seed, following))


def _candidates(
    imagine: Imagination, rng: np.random.Generator, mean: Singles, own: int, round_: int, config: MPPIConfig
) -> tuple[Singles, Singles]:
    """Dreams one round's candidates: the actor's own first, then noise round the mean, primitives, the mean itself."""
    k, horizon = config.candidates, config.horizon
    std = np.float32(config.noise_std * 0.5**round_)
    wanted = mean + std * rng.standard_normal((k, horizon, ACTION_SIZE), np.float32)
    wanted[-1] = mean
    if config.primitives and round_ == 0:
        room = min(len(PRIMITIVES), max(k - own - 1, 0))
        wanted[k - 1 - room : k - 1] = PRIMITIVES[:room, None]
    jitter = np.float32(config.actor_noise) * rng.standard_normal((own, horizon, ACTION_SIZE), np.float32)
    jitter[:1] = 0.0
    gumbel = -np.log(rng.standard_exponential((horizon, k, *imagine.noise_shape), np.float32) + np.float32(1e-20))
    return imagine(np.clip(wanted, -1.0, 1.0), jitter, gumbel)
