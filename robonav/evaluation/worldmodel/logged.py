"""Dreams against a log: the world model rolled open loop from ticks of a drive, under what was done, beside what came.

A log holds no rewards and no truth; the odometry and the scan stand for the truth, and rewards are those that the
caller estimated. Shape letters: T ticks, M dreams, H steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from robonav.evaluation.worldmodel.data import what_followed
from robonav.evaluation.worldmodel.dreams import Forecast, Starts, choose_starts, dream_on, follow, recorded_actions
from robonav.evaluation.worldmodel.episodes import MOVER_SIZE, Plan, Recorded, Truth
from robonav.evaluation.worldmodel.errors import HIT_SHARE
from robonav.imagination.agent import Agent
from robonav.planning.situation import SituationConfig, SituationTracker
from robonav.types import Observation, RobotSpec

Singles = NDArray[np.float32]
SAMPLES = 4  # dreams a start, whose mean is the forecast


class LoggedDreams(NamedTuple):
    """What was foreseen and what came; NaN beyond the log's end, and where the model decodes nothing of the kind."""

    tick: NDArray[np.int64]  # (M,) index of the observation that a dream starts from
    lidar_m: Singles  # (M, H) median absolute error of the beams that hit something
    held_m: Singles  # (M, H) the same of holding the scan of the start
    pose_m: Singles  # (M, H) distance between where the dream and where the robot went
    reward: Singles  # (M, H) absolute error
    collision: Singles  # (M, H) foreseen chance of a collision within so many steps
    imagined_return: Singles  # (M,)
    path_odom_m: Singles  # (M, H + 1, 2) by the imagined velocities


def recorded_of(
    observations: Sequence[Observation],
    spec: RobotSpec,
    reward: NDArray[Any],
    collided: bool,
    situation: SituationConfig | None = None,
) -> Recorded:
    """A drive as an episode; the action of a tick is what was applied until the next one."""
    tracker = SituationTracker(spec, situation)
    now, inputs = tracker.reset(), []
    for observation in observations:
        now = tracker.update(now, observation)
        inputs.append(tracker.policy_input(now, observation).arrays())
    applied = np.stack([o.last_command for o in observations])
    taken = spec.velocity_to_action(np.concatenate([applied[1:], applied[-1:]])).astype(np.float32)
    ranges = [np.full(spec.lidar.beams, spec.lidar.range_m) if o.scan_m is None else o.scan_m for o in observations]
    truth = Truth(
        pose_world=np.stack([o.pose_odom_base for o in observations]).astype(np.float32),
        velocity=np.stack([o.twist_base for o in observations]).astype(np.float32),
        scan_m=np.stack(ranges).astype(np.float32),
        movers=np.zeros((len(observations), 0, MOVER_SIZE), np.float32),
    )
    return Recorded(
        plan=Plan(0, "log", "log", "log"),
        outcome="collision" if collided else "log",
        inputs={name: np.stack([tick[name] for tick in inputs]) for name in inputs[0]},
        reward=np.asarray(reward, np.float32),
        action=taken,
        truth=truth,
    )


@torch.no_grad()
def dreams_of(agent: Agent, episode: Recorded, spec: RobotSpec, horizon: int, every: int = 1) -> LoggedDreams:
    """Dreams from every so many ticks of an episode under the logged actions.

    Args:
        agent: whose world model dreams.
        episode: of `recorded_of`.
        spec: the robot.
        horizon: H.
        every: ticks between two starts.
    """
    starts = choose_starts([episode], every, warm_up=0, seed=0)
    if not len(starts.tick):
        none = np.zeros((0, horizon), np.float32)
        return LoggedDreams(
            starts.tick, none, none, none, none, none, none[:, 0], np.zeros((0, horizon + 1, 2), np.float32)
        )
    states = follow(agent, [episode], [episode.inputs], starts).states
    assert states is not None
    actions = recorded_actions([episode], starts, horizon)
    forecast = dream_on(agent, states, actions, SAMPLES, horizon, seed=0)
    real = what_followed([episode], starts, horizon, spec)
    valid = real.valid
    lidar = _lidar_error(forecast.quantities.get("scan_m"), real.quantities["scan_m"], spec.lidar.range_m)
    held = np.broadcast_to(episode.truth.scan_m[starts.tick][:, None], real.quantities["scan_m"].shape)
    path = _path(forecast, episode, starts, spec.dt_s)
    away = np.hypot(*np.moveaxis(path[:, 1:] - _places(episode, starts, horizon), -1, 0))
    return LoggedDreams(
        tick=starts.tick,
        lidar_m=_where(valid, lidar),
        held_m=_where(valid, _lidar_error(held, real.quantities["scan_m"], spec.lidar.range_m)),
        pose_m=_where(valid, away),
        reward=_where(valid, np.abs(forecast.quantities["reward"] - real.quantities["reward"])),
        collision=forecast.collision.astype(np.float32),
        imagined_return=forecast.imagined_return.astype(np.float32),
        path_odom_m=path.astype(np.float32),
    )


def _where(valid: NDArray[np.bool_], values: NDArray[Any]) -> Singles:
    return np.where(valid, values, np.nan).astype(np.float32)


def _lidar_error(said: NDArray[Any] | None, real: NDArray[Any], range_m: float) -> NDArray[Any]:
    """(M, H) medians over beams (M, H, beams) that really hit something."""
    if said is None:
        return np.full(real.shape[:2], np.nan)
    hit = (real > 0) & (real < HIT_SHARE * range_m)
    apart = np.where(hit, np.abs(said - real), np.nan)
    some = hit.any(axis=2)
    out = np.full(real.shape[:2], np.nan)
    out[some] = np.nanmedian(apart[some], axis=1)
    return out


def _path(forecast: Forecast, episode: Recorded, starts: Starts, dt_s: float) -> NDArray[np.float64]:
    """(M, H + 1, 2) from the real pose of the start on, by the imagined velocities; NaN where none is decoded."""
    pose = episode.truth.pose_world[starts.tick].astype(np.float64)
    velocity = forecast.quantities.get("velocity")
    if velocity is None:
        velocity = np.full((*forecast.collision.shape, 3), np.nan)
    turned = np.cumsum(velocity[..., 2], axis=1) * dt_s
    yaw = pose[:, 2:] + turned - velocity[..., 2] * dt_s / 2
    c, s = np.cos(yaw), np.sin(yaw)
    steps = np.stack([c * velocity[..., 0] - s * velocity[..., 1], s * velocity[..., 0] + c * velocity[..., 1]], -1)
    path = np.cumsum(steps * dt_s, axis=1) + pose[:, None, :2]
    return np.concatenate([pose[:, None, :2], path], axis=1)


def _places(episode: Recorded, starts: Starts, horizon: int) -> NDArray[np.float64]:
    """(M, H, 2) where the robot really came; its last place beyond the end."""
    at = np.minimum(starts.tick[:, None] + 1 + np.arange(horizon), episode.ticks - 1)
    return episode.truth.pose_world[at][..., :2].astype(np.float64)
