"""All figures of a world model on a set of recorded episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.evaluation.worldmodel import errors, outcomes
from robonav.evaluation.worldmodel.data import Real, real_returns, trivial_forecasts, what_followed
from robonav.evaluation.worldmodel.dreams import (
    Followed,
    Forecast,
    Starts,
    choose_starts,
    dream_on,
    follow,
    recorded_actions,
)
from robonav.evaluation.worldmodel.episodes import Recorded
from robonav.imagination.agent import Agent
from robonav.types import RobotSpec

Figures = dict[str, Any]
NEAR_GATE_M, AUC_GATES, TAU_GATE = 0.03, {"0.5 s": 0.95, "1.5 s": 0.85}, 0.6


@dataclass(frozen=True, slots=True)
class MeasureConfig:
    """How a world model is measured."""

    horizon: int = 20
    """Steps of a dream."""
    samples: int = 4
    """Dreams from each start."""
    every: int = 3
    """Ticks between two starts of an episode."""
    warm_up: int = 5
    """Ticks before its first start."""
    return_steps: int = 15
    """Steps after which the critic takes over in imagined returns."""
    seed: int = 0
    """Of the starts and the dreams."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"horizon": 1, "samples": 1, "every": 1, "warm_up": 0, "return_steps": 1, "seed": 0})
        if self.return_steps > self.horizon:
            raise ConfigError(explain("return_steps", f"at most horizon = {self.horizon}", self.return_steps))


class DataSet(NamedTuple):
    """Episodes, and what dreams from them are compared with."""

    episodes: Sequence[Recorded]
    starts: Starts
    real: Real
    spec: RobotSpec
    trivial: Figures  # figures of forecasts without a model
    figures: Figures  # what the episodes are


class Measured(NamedTuple):
    """A model's figures, and what pictures and comparisons need."""

    figures: Figures
    followed: Followed
    forecast: Forecast
    scan_errors: NDArray[np.float64] | None  # (M, H) see `errors.scan_error_by_start`


def prepare(episodes: Sequence[Recorded], spec: RobotSpec, config: MeasureConfig) -> DataSet:
    """Starts and targets, the same for every model.

    Raises:
        ConfigError: no episode is long enough to start a dream in.
    """
    starts = choose_starts(episodes, config.every, config.warm_up, config.seed)
    if not len(starts.tick):
        longest = max(e.ticks for e in episodes)
        want = f"an episode of more than {config.warm_up + config.every} ticks"
        raise ConfigError(explain("episodes", want, f"at most {longest}", "use more episodes, or other scenes"))
    real = what_followed(episodes, starts, config.horizon, spec)
    trivial: Figures = {
        name: {"open_loop": errors.open_loop(forecast, real, spec.lidar.range_m)}
        for name, forecast in trivial_forecasts(episodes, starts, config.horizon, spec).items()
    }
    trivial["nearest_range"] = {"collision": outcomes.nearest_range(real, spec.dt_s)}
    actions = recorded_actions(episodes, starts, config.horizon)
    trivial["carried_on"] = {"collision": outcomes.carried_on(episodes, starts, actions, real, spec)}
    figures = {
        "episodes": len(episodes),
        "ticks": sum(e.ticks for e in episodes),
        "starts": len(starts.tick),
        "scenes": dict(Counter(e.plan.scene for e in episodes)),
        "outcomes": {
            name: dict(Counter(e.outcome for e in episodes if e.plan.driver == name))
            for name in dict.fromkeys(e.plan.driver for e in episodes)
        },
    }
    return DataSet(episodes, starts, real, spec, trivial, figures)


def measure(agent: Agent, data: DataSet, config: MeasureConfig) -> Measured:
    """Closed-loop and open-loop errors, collision AUC and rank correlation of returns."""
    episodes, starts, real, range_m = data.episodes, data.starts, data.real, data.spec.lidar.range_m
    followed = follow(agent, episodes, [e.inputs for e in episodes], starts)
    assert followed.states is not None
    actions = recorded_actions(episodes, starts, config.horizon)
    forecast = dream_on(agent, followed.states, actions, config.samples, config.return_steps, config.seed)
    returns = real_returns(episodes, starts, agent.behavior.config.discount)
    by_actor = np.array([e.plan.driver == "actor" for e in episodes])[starts.episode]
    everyone = np.ones_like(by_actor)
    figures: Figures = {
        "closed_loop": errors.closed_loop(agent, episodes, followed.features, range_m),
        "open_loop": errors.open_loop(forecast.quantities, real, range_m),
        "collision": outcomes.foreseen_collisions(forecast, real, data.spec.dt_s),
        "returns": {
            name: outcomes.ranked_returns(forecast.imagined_return, returns, starts.episode, chosen)
            for name, chosen in (("all", everyone), ("actor", by_actor))
            if chosen.any()
        },
    }
    return Measured(figures, followed, forecast, errors.scan_error_by_start(forecast.quantities, real, range_m))


def gates(figures: Figures) -> list[Figures]:
    """What a world model must reach, what this one does, and whether it is enough; null where it was not measured."""
    closed = (figures["closed_loop"]["lidar_m"] or {}).get("0.25 to 0.6", {}).get("median")
    rows = [_gate("decoded range at 0.25 to 0.6 m, median error, m", closed, NEAR_GATE_M, most=True)]
    for name, least in AUC_GATES.items():
        found = figures["collision"].get(name, {}).get("auc")
        rows.append(_gate(f"collision AUC at {name}, open loop", found and found[0], least))
    tau = figures["returns"]["all"]["tau"]
    return [*rows, _gate("Kendall tau of imagined against real returns", tau and tau[0], TAU_GATE)]


def _gate(what: str, value: float | None, limit: float, most: bool = False) -> Figures:
    reached = None if value is None else value <= limit if most else value >= limit
    wanted = f"{'at most' if most else 'at least'} {limit:g}"
    return {"what": what, "wanted": wanted, "value": value, "reached": reached}
