"""Errors of what a model decodes: of the tick itself (closed loop), and of forecasts by horizon (open loop).

Lidar errors are medians of absolute errors in metres over beams, by the range that is really there; beams that hit
nothing within the lidar's range are left out, as there is no distance to be wrong about.

Shape letters: M starts, H horizon, T ticks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robonav.evaluation.worldmodel.data import Real, true_quantities
from robonav.evaluation.worldmodel.dreams import decode
from robonav.evaluation.worldmodel.episodes import Recorded
from robonav.imagination.agent import Agent
from robonav.learning.streams import Arrays
from robonav.types import LOCAL_MAP_CHANNELS

Figures = dict[str, Any]
BIN_EDGES_M = (0.25, 0.6, 1.5, 4.0)  # the first bin is what decides collisions
HIT_SHARE = 0.999  # of the lidar's range; longer readings hit nothing
MOVING_MPS = 0.15  # slower beams count as standing still
SHARE = 0.25  # of a pooled cell that counts as occupied or free
_CLIP = 0.01  # chances of a map are kept this far from 0 and 1
_CHUNK = 4096  # ticks decoded at a time


def closed_loop(
    agent: Agent, episodes: Sequence[Recorded], features: Sequence[NDArray[np.float32]], range_m: float
) -> Figures:
    """What the posterior's features (T, F) of each episode decode to, against what was there; absent parts are null."""
    decoded = _decoded(agent, features)
    every = [true_quantities(e) for e in episodes]
    real = {name: np.concatenate([of[name] for of in every]) for name in every[0]}
    figures: Figures = {"lidar_m": None, "map": None, "flow_mps": None, "others": _errors(decoded, real, range_m)}
    if "scan_m" in decoded:
        figures["lidar_m"] = range_errors(decoded["scan_m"], real["scan_m"], range_m)
    if "local_map" in decoded:
        figures["map"] = map_errors(decoded["local_map"], real["local_map"])
    if "flow_mps" in decoded:
        flow = np.concatenate([e.inputs["flow_mps"] for e in episodes])
        figures["flow_mps"] = flow_errors(decoded["flow_mps"], flow)
    return figures


@torch.no_grad()
def _decoded(agent: Agent, features: Sequence[NDArray[np.float32]]) -> Arrays:
    """(ticks, ...) of all episodes one after the other."""
    every = torch.from_numpy(np.concatenate(list(features)))
    parts = []
    for some in every.split(_CHUNK):
        parts.append({**decode(agent.model, some, flow=True), "reward": agent.model.reward.mean(some)})
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def range_errors(decoded_m: NDArray[Any], true_m: NDArray[Any], range_m: float) -> dict[str, Figures]:
    """Median and 90 % absolute error by bin of the true range, and of all beams that hit something."""
    edges = (*BIN_EDGES_M, range_m * HIT_SHARE)
    out = {}
    for low, high in [*itertools.pairwise(edges), (0.0, edges[-1])]:
        here = (true_m >= low) & (true_m < high)
        name = "all" if low == 0 else f"{low:g} to {round(high, 2):g}"
        error = np.abs(decoded_m[here] - true_m[here])
        out[name] = {"median": _median(error), "p90": _median(error, 90), "n": int(here.sum())}
    return out


def map_errors(decoded: NDArray[Any], real: NDArray[Any]) -> Figures:
    """Cross-entropy in nats a cell, with its floor (the cells' own entropy), and the overlap (IoU) of both channels.

    Args:
        decoded: (n, 3, c, c) chances.
        real: (n, 3, c, c) shares.
    """
    figures: Figures = {"nats": float(cross_entropy(decoded, real).mean())}
    figures["floor_nats"] = float(cross_entropy(real, real).mean())
    for channel in ("occupied", "free"):
        i = LOCAL_MAP_CHANNELS.index(channel)
        said, there = decoded[:, i] > SHARE, real[:, i] > SHARE
        union = int((said | there).sum())
        figures[f"iou_{channel}"] = int((said & there).sum()) / union if union else None
    return figures


def cross_entropy(chance: NDArray[Any], share: NDArray[Any]) -> NDArray[np.float32]:
    """Nats (...) a cell, with chances kept within 0.01 and 0.99."""
    p, q = np.clip(chance.astype(np.float32), _CLIP, 1 - _CLIP), share.astype(np.float32)
    out: NDArray[np.float32] = -(q * np.log(p) + (1 - q) * np.log1p(-p))
    return out


def flow_errors(decoded: NDArray[Any], real: NDArray[Any]) -> Figures:
    """Median error of the velocity (n, beams, 2) of beams that hit a mover; `still` is that of saying 0."""
    speed = np.linalg.norm(real, axis=-1)
    moving = speed > MOVING_MPS
    error = np.linalg.norm(decoded[moving] - real[moving], axis=-1)
    return {"median": _median(error), "still": _median(speed[moving]), "n": int(moving.sum())}


def open_loop(forecast: Arrays, real: Real, range_m: float) -> Figures:
    """Errors by horizon, H numbers each: of those quantities that are forecast; null where nothing is left to compare.

    lidar_m and lidar_near_m (0.25 to 0.6 m): median over beams; goal_m, waypoints_m, velocity_mps (planar) and
    yaw_rate_radps: median; reward: mean absolute; map_nats: mean cross-entropy a cell.
    """
    horizon = real.valid.shape[1]
    rows: list[Figures] = []
    for k in range(horizon):
        valid = real.valid[:, k]
        said = {name: array[valid, k] for name, array in forecast.items()}
        there = {name: array[valid, k] for name, array in real.quantities.items()}
        rows.append(_errors(said, there, range_m) | {"n": int(valid.sum())})
    return {name: [row[name] for row in rows] for name in rows[0]}


def _errors(said: Arrays, there: Arrays, range_m: float) -> Figures:
    out: Figures = {}
    if "scan_m" in said:
        true = there["scan_m"]
        error, hit = np.abs(said["scan_m"] - true), true < range_m * HIT_SHARE
        out["lidar_m"] = _median(error[hit])
        out["lidar_near_m"] = _median(error[(true >= BIN_EDGES_M[0]) & (true < BIN_EDGES_M[1])])
    for name, shown in (("goal_m", "goal_m"), ("waypoints_m", "waypoints_m")):
        if name in said:
            out[shown] = _median(np.linalg.norm(said[name] - there[name], axis=-1))
    if "velocity" in said:
        error = said["velocity"] - there["velocity"]
        out["velocity_mps"] = _median(np.linalg.norm(error[:, :2], axis=-1))
        out["yaw_rate_radps"] = _median(np.abs(error[:, 2]))
    if "local_map" in said:
        nats = cross_entropy(said["local_map"], there["local_map"])
        out["map_nats"] = float(nats.mean()) if len(nats) else None
    if "reward" in said:
        error = np.abs(said["reward"] - there["reward"])
        out["reward"] = float(error.mean()) if len(error) else None
    return out


def scan_error_by_start(forecast: Arrays, real: Real, range_m: float) -> NDArray[np.float64] | None:
    """(M, H) mean absolute error of the beams that hit something; NaN where nothing is to compare."""
    if "scan_m" not in forecast:
        return None
    true = real.quantities["scan_m"]
    counts = (true < range_m * HIT_SHARE) & real.valid[..., None]
    total = np.where(counts, np.abs(forecast["scan_m"] - true), 0.0).sum(-1, dtype=np.float64)
    number = counts.sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _median(values: NDArray[Any], percent: float = 50.0) -> float | None:
    return float(np.percentile(values, percent)) if values.size else None
