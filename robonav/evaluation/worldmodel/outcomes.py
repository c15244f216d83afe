"""Whether a model foresees how things end: collisions by horizon, and returns against real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.evaluation.metrics import Interval, bootstrap_mean
from robonav.evaluation.worldmodel.data import Real
from robonav.evaluation.worldmodel.dreams import Forecast
from robonav.evaluation.worldmodel.statistics import auc, kendall_tau

COLLISION_HORIZONS_S = (0.5, 1.0, 1.5)


def collision_steps(dt_s: float, horizon: int) -> dict[str, int]:
    """Steps of each of COLLISION_HORIZONS_S that lies within the horizon."""
    steps = {f"{s:g} s": round(s / dt_s) for s in COLLISION_HORIZONS_S}
    return {name: k for name, k in steps.items() if 1 <= k <= horizon}


def collision_auc(score: NDArray[Any], real: Real, steps: int) -> dict[str, Any]:
    """AUC with its interval of scores (M,) for a collision within so many steps, and how many there were."""
    hit = real.collision[:, steps - 1]
    found = auc(score, hit, real.episode)
    return {"auc": None if found is None else list(found), "positives": int(hit.sum()), "n": len(hit)}


def foreseen_collisions(forecast: Forecast, real: Real, dt_s: float) -> dict[str, Any]:
    """Collision AUC by horizon, from continuation and reward together, and from the reward alone."""
    return {
        name: collision_auc(forecast.collision[:, k - 1], real, k)
        | {"by_reward": collision_auc(forecast.collision_by_reward[:, k - 1], real, k)["auc"]}
        for name, k in collision_steps(dt_s, real.valid.shape[1]).items()
    }


def nearest_range(real: Real, dt_s: float) -> dict[str, Any]:
    """The same for a score that knows nothing but the shortest reading at the start."""
    steps = collision_steps(dt_s, real.valid.shape[1])
    return {name: collision_auc(-real.nearest_m, real, k) for name, k in steps.items()}


def ranked_returns(
    imagined: NDArray[Any], real: NDArray[Any], episode: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> dict[str, Any]:
    """Kendall's tau-b of imagined (M,) against real discounted returns (M,) of the chosen starts (M,)."""
    tau = kendall_tau(imagined[chosen], real[chosen], episode[chosen])
    return {"tau": None if tau is None else list(tau), "n": int(chosen.sum())}


def paired_difference(first: NDArray[Any], other: NDArray[Any], episode: NDArray[np.int64]) -> list[Interval | None]:
    """By horizon: the mean over episodes of (other - first), each (M, H) with NaN where there is nothing.

    Below 0 the other one is better. Intervals are bootstrap ones over episodes.
    """
    difference = other - first
    numbers: Sequence[int] = np.unique(episode).tolist()
    out: list[Interval | None] = []
    for k in range(difference.shape[1]):
        rows = [difference[episode == i, k] for i in numbers]
        means = [float(np.nanmean(row)) for row in rows if np.isfinite(row).any()]
        out.append(bootstrap_mean(means, resamples=500) if means else None)
    return out
