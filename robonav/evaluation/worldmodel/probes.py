"""Linear probes: what can be read off the state with a linear map, and how much of it is due to memory.

A ridge regression on features is fitted on half of the episodes and tested on the others. The memory and the latent
[h, z] stand beside the latent z alone, which sees the present observation and nothing else.

| probe | asked | given |
|---|---|---|
| hidden mover | place and velocity, in base, of the nearest one that is out of sight and was seen within 3 s | all |
| space behind | whether anything stands within 1 m in the rear sector | no beams in that sector, no map |
| own velocity | vx, vy, yaw rate | all |
| own velocity, body lost | the same | neither odometry, tilt nor last command |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.evaluation.worldmodel.dreams import Starts, follow, without
from robonav.evaluation.worldmodel.episodes import Recorded
from robonav.evaluation.worldmodel.statistics import auc, probe, r_squared
from robonav.imagination.agent import Agent
from robonav.learning.streams import Arrays
from robonav.types import LidarSpec, RobotSpec

Floats = NDArray[np.float64]
HIDDEN_WITHIN_M = 5.0
REMEMBERED_S = 3.0
MARGIN_M = 0.08  # a beam that ends so close to a mover's edge hit it
REAR_RAD = 3 * np.pi / 4  # beams that point further round than this are behind
BEHIND_M = 1.0
WARM_UP_TICKS = 10
LEAST_TICKS = 40  # in each half; fewer say nothing
LEAST_EPISODES = 4  # in each half
_NO_STARTS = Starts(np.zeros(0, np.int64), np.zeros(0, np.int64))
_BODY = ("twist_base", "tilt_rad", "last_command", "robot")


class Asked(NamedTuple):
    """A probe's answers for the ticks of one episode that it asks about."""

    ticks: NDArray[np.int64]  # (m,)
    targets: Floats  # (m, K)


def measure(agent: Agent, episodes: Sequence[Recorded], spec: RobotSpec) -> dict[str, Any]:
    """R squared, or AUC for what is either so or not, of each probe; null where too few ticks ask for it."""
    plain = [e.inputs for e in episodes]
    hidden = [hidden_mover(e, spec) for e in episodes]
    rear = rear_beams(spec.lidar)
    blind = [_blind_behind(agent, e.inputs, rear, spec.lidar.range_m) for e in episodes]
    bodiless = [without(e.inputs, "body", _BODY) for e in episodes]
    speed = [_every(e.truth.velocity) for e in episodes]
    all_features = _features(agent, episodes, plain)
    split = agent.model.config.backbone.d_model
    out = {
        "hidden_mover_position": _r2([Asked(a.ticks, a.targets[:, :2]) for a in hidden], all_features, split),
        "hidden_mover_velocity": _r2([Asked(a.ticks, a.targets[:, 2:]) for a in hidden], all_features, split),
        "own_velocity": _r2(speed, all_features, split),
        "own_velocity_body_lost": _r2(speed, _features(agent, episodes, bodiless), split),
    }
    behind = [_every(np.min(e.truth.scan_m[:, rear], axis=-1, keepdims=True) < BEHIND_M) for e in episodes]
    return out | {"space_behind": _auc(behind, _features(agent, episodes, blind), split)}


def hidden_mover(episode: Recorded, spec: RobotSpec) -> Asked:
    """Position (x, y) and velocity (vx, vy) over ground, in base, of the nearest mover that is hidden at a tick.

    Hidden is one within 5 m that no beam hits, and that one hit within the last 3 s.
    """
    seen = visible(episode, spec.lidar)  # (T, M)
    pose, movers = episode.truth.pose_world.astype(np.float64), episode.truth.movers
    dx, dy = movers[..., 0] - pose[:, :1], movers[..., 1] - pose[:, 1:2]
    c, s = np.cos(pose[:, 2:]), np.sin(pose[:, 2:])
    place = np.stack([c * dx + s * dy, c * dy - s * dx], -1)  # (T, M, 2)
    motion = np.stack([c * movers[..., 2] + s * movers[..., 3], c * movers[..., 3] - s * movers[..., 2]], -1)
    distance = np.linalg.norm(place, axis=-1)
    window = round(REMEMBERED_S / spec.dt_s)
    remembered = np.array([seen[max(0, t - window) : t].any(0) for t in range(len(seen))]).reshape(seen.shape)
    wanted = ~seen & remembered & (movers[..., 4] > 0) & (distance < HIDDEN_WITHIN_M)
    ticks = np.flatnonzero(wanted.any(1))
    which = np.where(wanted, distance, np.inf)[ticks].argmin(1) if len(ticks) else ticks
    return Asked(ticks, np.concatenate([place[ticks, which], motion[ticks, which]], -1).reshape(-1, 4))


def visible(episode: Recorded, lidar: LidarSpec) -> NDArray[np.bool_]:
    """(T, M) whether a beam of a perfect lidar ends at the mover."""
    pose, scan = episode.truth.pose_world.astype(np.float64), episode.truth.scan_m
    angles = lidar.angles_rad + pose[:, 2:]
    c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
    x = (pose[:, 0] + c * lidar.mount_x_m)[:, None] + scan * np.cos(angles)  # (T, beams)
    y = (pose[:, 1] + s * lidar.mount_x_m)[:, None] + scan * np.sin(angles)
    movers = episode.truth.movers
    out = np.zeros(movers.shape[:2], np.bool_)
    for m in range(movers.shape[1]):
        gap = np.hypot(x - movers[:, m, :1], y - movers[:, m, 1:2]) - movers[:, m, 4:5]
        out[:, m] = ((gap < MARGIN_M) & (scan < lidar.range_m)).any(1) & (movers[:, m, 4] > 0)
    return out


def rear_beams(lidar: LidarSpec) -> NDArray[np.bool_]:
    """(beams,) which of them point behind."""
    return np.abs(np.mod(lidar.angles_rad + np.pi, 2 * np.pi) - np.pi) > REAR_RAD


def _blind_behind(agent: Agent, inputs: Arrays, rear: NDArray[np.bool_], range_m: float) -> Arrays:
    """Nothing is read behind, and there is no map. Encoders that know no missing beams are told of free space."""
    scan, flow = inputs["scan_m"].copy(), inputs["flow_mps"].copy()
    scan[:, rear] = 0.0 if agent.model.config.encoder.flow else range_m
    flow[:, rear] = 0.0
    return {**without(inputs, "local_map", ("local_map",)), "scan_m": scan, "flow_mps": flow}


def _every(values: NDArray[Any]) -> Asked:
    """Every tick after the warm-up."""
    return Asked(np.arange(WARM_UP_TICKS, len(values)), values[WARM_UP_TICKS:].astype(np.float64))


def _features(agent: Agent, episodes: Sequence[Recorded], inputs: Sequence[Arrays]) -> list[NDArray[np.float32]]:
    return follow(agent, episodes, inputs, _NO_STARTS).features


class _Split(NamedTuple):
    """Ticks of all episodes that a probe asks about."""

    features: Floats  # (n, F)
    targets: Floats  # (n, K)
    episode: NDArray[np.int64]  # (n,)
    train: NDArray[np.bool_]  # (n,)


def _gathered(asked: Sequence[Asked], features: Sequence[NDArray[np.float32]]) -> _Split | None:
    """None where too few ticks or episodes ask for anything."""
    counts = [len(a.ticks) for a in asked]
    with_ticks = np.flatnonzero(counts)
    shuffled = np.random.default_rng(0).permutation(with_ticks)  # scenes and drivers take turns: not every second one
    training = np.zeros(len(asked), np.bool_)
    training[shuffled[::2]] = True
    episode = np.repeat(np.arange(len(asked)), counts)
    train = training[episode]
    if min(train.sum(), (~train).sum()) < LEAST_TICKS or len(with_ticks) < 2 * LEAST_EPISODES:
        return None
    x = np.concatenate([f[a.ticks] for f, a in zip(features, asked, strict=True) if len(a.ticks)])
    y = np.concatenate([a.targets for a in asked if len(a.ticks)])
    return _Split(x.astype(np.float64), y.astype(np.float64), episode, train)


def _views(features: Floats, split: int) -> dict[str, Floats]:
    return {"memory_and_latent": features, "latent": features[:, split:]}


def _r2(asked: Sequence[Asked], features: Sequence[NDArray[np.float32]], split: int) -> dict[str, Any] | None:
    data = _gathered(asked, features)
    if data is None:
        return None
    test = ~data.train
    out: dict[str, Any] = {"measure": "R2", "n": int(test.sum()), "episodes": len(np.unique(data.episode[test]))}
    for name, x in _views(data.features, split).items():
        said = probe(x, data.targets, data.episode, data.train)
        out[name] = list(r_squared(data.targets[test], said, data.episode[test]))
    return out


def _auc(asked: Sequence[Asked], features: Sequence[NDArray[np.float32]], split: int) -> dict[str, Any] | None:
    data = _gathered(asked, features)
    if data is None:
        return None
    test = ~data.train
    hit = data.targets[test, 0] > 0.5
    out: dict[str, Any] = {"measure": "AUC", "n": int(test.sum()), "positives": int(hit.sum())}
    for name, x in _views(data.features, split).items():
        found = auc(probe(x, data.targets, data.episode, data.train)[:, 0], hit, data.episode[test])
        out[name] = None if found is None else list(found)
    return out
