"""Whether a model foresees how things end: collisions by horizon, and returns against real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.evaluation.metrics import Interval, bootstrap_mean
from robonav.evaluation.worldmodel.data import Real
from robonav.evaluation.worldmodel.dreams import Forecast, Starts
from robonav.evaluation.worldmodel.episodes import Recorded
from robonav.evaluation.worldmodel.statistics import auc, kendall_tau
from robonav.planning.rollouts import footprint_distance_m, poses_under, velocities_under
from robonav.types import RobotSpec

COLLISION_HORIZONS_S = (0.5, 1.0, 1.5)
_NEAREST_M = 0.05  # shorter ranges are no readings


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
    """Collision AUC by horizon, from continuation and reward together, from the reward alone, and from clearances.

    A model that has a head for clearances is scored by that; what the other two say stands beside it.
    """
    found = {}
    for name, k in collision_steps(dt_s, real.valid.shape[1]).items():
        ways = {"by_end": forecast.collision, "by_reward": forecast.collision_by_reward}
        if forecast.collision_by_clearance is not None:
            ways["by_clearance"] = forecast.collision_by_clearance
        scores = {way: collision_auc(score[:, k - 1], real, k) for way, score in ways.items()}
        leading = scores.get("by_clearance", scores["by_end"])
        found[name] = leading | {way: score["auc"] for way, score in scores.items()}
    return found


def nearest_range(real: Real, dt_s: float) -> dict[str, Any]:
    """The same for a score that knows nothing but the shortest reading at the start."""
    steps = collision_steps(dt_s, real.valid.shape[1])
    return {name: collision_auc(-real.nearest_m, real, k) for name, k in steps.items()}


def carried_on(
    episodes: Sequence[Recorded], starts: Starts, actions: NDArray[np.float32], real: Real, spec: RobotSpec
) -> dict[str, Any]:
    """The same for the least clearance where what is seen goes on as it moves now, and the robot does as it did.

    No model is asked: the scan's points and their velocities of the start, and the robot's rollout under the actions
    (M, H, 3) that were done. What a model foresees beyond that is its own.
    """
    horizon = actions.shape[1]
    dt_s, score = np.full(horizon, spec.dt_s), np.zeros((len(actions), horizon))
    time_s = np.cumsum(dt_s).astype(np.float32)
    for m, (i, t) in enumerate(zip(starts.episode.tolist(), starts.tick.tolist(), strict=True)):
        inputs = episodes[i].inputs
        scan_m, flow = inputs["scan_m"][t], inputs["flow_mps"][t]
        hit = (scan_m < spec.lidar.range_m - 1e-3) & (scan_m > _NEAREST_M)
        points = spec.lidar.mount_x_m + scan_m[hit] * np.exp(1j * spec.lidar.angles_rad[hit])
        moved = points[None] + time_s[:, None] * (flow[hit, 0] + 1j * flow[hit, 1])[None]
        commands = spec.action_to_velocity(actions[m][None])
        positions, yaw = poses_under(velocities_under(spec, inputs["twist_base"][t], commands, horizon, dt_s), dt_s)
        clearance = footprint_distance_m(spec, positions, yaw, moved.astype(np.complex64))[0]
        score[m] = -np.minimum.accumulate(clearance)
    return {name: collision_auc(score[:, k - 1], real, k) for name, k in collision_steps(spec.dt_s, horizon).items()}


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
