"""A stated search for a policy's parameters: random ones first, then steps round the best so far.

The first trial is the preset as it stands. The second half of the trials moves each value of the best trial by a
quarter of its range at most, each with probability one half. All trials see the same episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import Episode, RobotSpec

TIME_SHARE = 0.2  # of the quickness of successes in a trial's score


@dataclass(frozen=True, slots=True)
class TuningConfig:
    """What is searched, and where (``configs/tuning/*.toml``)."""

    policy: str  # preset that the search starts from
    suites: tuple[str, ...]
    ranges: dict[str, Any] = field(
        default_factory=dict
    )  # parameter to [low, high], both above 0: searched on a log scale
    trials: int = 24
    episodes: int = 40  # of each suite

    def __post_init__(self) -> None:
        """Checks ranges and counts.

        Raises:
            ConfigError: a range that is none, or no trials, episodes or suites.
        """
        for key, pair in self.ranges.items():
            numbers = isinstance(pair, list) and len(pair) == 2 and all(isinstance(v, (int, float)) for v in pair)
            if not numbers or not 0 < pair[0] < pair[1] < math.inf:
                raise ConfigError(explain(f"ranges.{key}", "[low, high], both above 0", pair))
        if min(self.trials, self.episodes, len(self.suites), len(self.ranges)) < 1:
            got = (self.trials, self.episodes, len(self.suites), len(self.ranges))
            raise ConfigError(explain("trials, episodes, suites, ranges", "at least one of each", got))


def quickness(episode: Episode, spec: RobotSpec) -> float:
    """Success weighted by time: the shortest way at full speed against the time that was taken; 0 without success."""
    if episode.outcome != "success":
        return 0.0
    best_s = episode.shortest_m / spec.vx_max_mps
    return min(1.0, best_s / max(episode.time_s, 1e-9))


def score(episodes: Sequence[Episode], spec: RobotSpec) -> float:
    """Success rate, and a fifth of the mean quickness."""
    won = sum(e.outcome == "success" for e in episodes) / len(episodes)
    return won + TIME_SHARE * sum(quickness(e, spec) for e in episodes) / len(episodes)


def search(
    config: TuningConfig, start: Mapping[str, Any], measure: Callable[[Mapping[str, Any]], dict[str, Any]], seed: int
) -> Iterator[dict[str, Any]]:
    """Trials one after the other.

    Args:
        config: ranges and number of trials.
        start: the values of the preset.
        measure: figures of some values, with the key "score".
        seed: of the draws.

    Yields:
        The figures with "values" and "trial".
    """
    rng = np.random.default_rng(seed)
    whole = {key for key in config.ranges if isinstance(start.get(key), int)}
    best: dict[str, Any] = {}
    for trial in range(config.trials):
        values = dict(start)
        if trial > 0:
            centre = best["values"] if trial > config.trials // 2 else None
            for key, (low, high) in config.ranges.items():
                values[key] = _drawn(rng, low, high, None if centre is None else centre[key])
                values[key] = round(values[key]) if key in whole else float(f"{values[key]:.3g}")
        figures = {**measure(values), "values": {key: values[key] for key in config.ranges}, "trial": trial}
        if not best or figures["score"] > best["score"]:
            best = figures
        yield figures


def _drawn(rng: np.random.Generator, low: float, high: float, centre: float | None) -> float:
    """Log-uniform in the range, or a step from the centre; the same number of draws either way."""
    span = math.log(high / low)
    moves, step = rng.random(), rng.random()
    if centre is None:
        return low * math.exp(step * span)
    if moves < 0.5:
        return centre
    return min(max(centre * math.exp((step - 0.5) * span / 2), low), high)
