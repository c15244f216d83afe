"""Figures of merit over episodes: success rates with Wilson intervals, SPL, percentiles. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robonav.types import Episode

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
OUTCOMES = ("success", "collision", "timeout")


class Interval(NamedTuple):
    """An estimate with the bounds of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def wilson(hits: int, trials: int, z: float = Z_95) -> Interval:
    """Rate of `hits` in `trials` with its Wilson score interval (E. B. Wilson, JASA 1927).

    Unlike the normal interval it never leaves [0, 1] and does not collapse at 0 or 1. Without trials nothing is
    known: (0, 0, 1).

    >>> [round(x, 3) for x in wilson(18, 25)]
    [0.72, 0.524, 0.857]
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"hits must lie in [0, trials], got {hits} of {trials}")
    if trials == 0:
        return Interval(0.0, 0.0, 1.0)
    rate = hits / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At 0 and 1 the bound equals the rate exactly; rounding would leave it a hair beside it.
    low = 0.0 if hits == 0 else float(centre - half)
    high = 1.0 if hits == trials else float(centre + half)
    return Interval(rate, low, high)


def spl_terms(episodes: Sequence[Episode]) -> NDArray[np.float64]:
    """(n,) success weighted by path length of each episode: S l / max(p, l) (Anderson et al. 2018, eq. 1).

    An episode that starts at its goal (l = p = 0) counts 1 when it succeeds.
    """
    return spl_of(
        [e.outcome == "success" for e in episodes], [e.shortest_m for e in episodes], [e.path_m for e in episodes]
    )


def spl_of(success: ArrayLike, shortest_m: ArrayLike, path_m: ArrayLike) -> NDArray[np.float64]:
    """`spl_terms` of plain numbers, (n,) each."""
    shortest = np.asarray(shortest_m, np.float64)
    longest = np.maximum(np.asarray(path_m, np.float64), shortest)
    ratio = np.divide(shortest, longest, out=np.ones_like(longest), where=longest > 0)
    return np.asarray(success, np.float64) * ratio


def spl(episodes: Sequence[Episode]) -> Interval:
    """Mean SPL with its bootstrap interval."""
    return bootstrap_mean(spl_terms(episodes))


def bootstrap_mean(values: ArrayLike, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of (n,) values with its 95 % percentile bootstrap interval; the same input gives the same interval."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        return Interval(0.0, 0.0, 0.0)
    rng = np.random.default_rng(seed)
    means = np.array([sample[rng.integers(0, sample.size, sample.size)].mean() for _ in range(resamples)])
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(sample.mean()), float(low), float(high))


def percentile(values: ArrayLike, percent: float) -> float | None:
    """Percentile of (n,) values, linearly interpolated; None without values."""
    sample = np.asarray(values, dtype=np.float64)
    return float(np.percentile(sample, percent)) if sample.size else None


def mean(values: ArrayLike) -> float | None:
    """Mean of (n,) values; None without values."""
    sample = np.asarray(values, dtype=np.float64)
    return float(sample.mean()) if sample.size else None
