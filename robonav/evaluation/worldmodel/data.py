"""What dreams from recorded episodes are compared with: what came, and what trivial forecasts would have said.

Shape letters: M starts, H horizon, T ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.evaluation.worldmodel.dreams import Starts
from robonav.evaluation.worldmodel.episodes import Recorded
from robonav.learning.streams import Arrays
from robonav.types import LidarSpec, RobotSpec
from robonav.world_model.encoders import MAP_POOL

_ROWS = 256  # starts carried forward at a time
_FILL = 3  # neighbours over which gaps between carried points are closed


class Real(NamedTuple):
    """What followed each start."""

    quantities: Arrays  # (M, H, ...) as in `Forecast`, with the lidar and the velocity as they really were
    valid: NDArray[np.bool_]  # (M, H) whether the episode lasted that long
    collision: NDArray[np.bool_]  # (M, H) whether the robot collided within so many steps
    nearest_m: NDArray[np.float64]  # (M,) the shortest reading at the start; the lidar's range without any
    episode: NDArray[np.int64]  # (M,)


def true_quantities(episode: Recorded) -> Arrays:
    """(T, ...) by the names of `Forecast.quantities`; maps are pooled as the decoder's, shares from 0 to 1."""
    return {
        "scan_m": episode.truth.scan_m,
        "local_map": pooled(episode.inputs["local_map"]),
        "goal_m": episode.inputs["goal_base_m"],
        "waypoints_m": episode.inputs["waypoints_base_m"],
        "velocity": episode.truth.velocity,
        "reward": episode.reward,
    }


def observed_quantities(episode: Recorded, range_m: float) -> Arrays:
    """The same as the sensors told it; beams without a reading are as long as the lidar's range."""
    scan = episode.inputs["scan_m"]
    told = {"scan_m": np.where(scan > 0, scan, range_m), "velocity": episode.inputs["twist_base"]}
    return {**true_quantities(episode), **told}


def pooled(local_map: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(T, 3, C, C) in 0..255 to shares (T, 3, C / 4, C / 4)."""
    t, channels, cells, _ = local_map.shape
    side = cells // MAP_POOL
    blocks = local_map.reshape(t, channels, side, MAP_POOL, side, MAP_POOL).mean((3, 5), dtype=np.float32)
    return (blocks / 255).astype(np.float16)


def what_followed(episodes: Sequence[Recorded], starts: Starts, horizon: int, spec: RobotSpec) -> Real:
    """The real futures of the starts; ticks beyond an episode's end hold its last one and are not valid."""
    at = starts.tick[:, None] + 1 + np.arange(horizon)
    last = np.array([e.ticks - 1 for e in episodes])[starts.episode][:, None]
    crashed = np.array([e.collided for e in episodes])[starts.episode][:, None]
    nearest = []
    for i, t in zip(starts.episode.tolist(), starts.tick.tolist(), strict=True):
        scan = episodes[i].inputs["scan_m"][t]
        nearest.append(min(scan[scan > 0], default=spec.lidar.range_m))
    return Real(
        quantities=_pick([true_quantities(e) for e in episodes], starts.episode, np.minimum(at, last)),
        valid=at <= last,
        collision=crashed & (at >= last),
        nearest_m=np.array(nearest, np.float64),
        episode=starts.episode,
    )


def real_returns(episodes: Sequence[Recorded], starts: Starts, discount: float) -> NDArray[np.float64]:
    """(M,) discounted rewards from each start to its episode's end."""
    returns = [discounted(e.reward, discount) for e in episodes]
    return np.array([returns[i][t] for i, t in zip(*starts, strict=True)])


def discounted(reward: NDArray[Any], discount: float) -> NDArray[np.float64]:
    """(T,) sums over j >= 1 of discount^(j - 1) r_{t + j}: what is still to come after each tick."""
    out = np.zeros(len(reward))
    for t in range(len(reward) - 2, -1, -1):
        out[t] = reward[t + 1] + discount * out[t + 1]
    return out


def trivial_forecasts(episodes: Sequence[Recorded], starts: Starts, horizon: int, spec: RobotSpec) -> dict[str, Arrays]:
    """Forecasts (M, H, ...) without a model.

    ``held`` holds the last observation; ``held_moved`` has the last scan carried to where the robot really came, which
    no model is told; ``mean`` says the mean of these very episodes.
    """
    seen = [observed_quantities(e, spec.lidar.range_m) for e in episodes]
    now = starts.tick[:, None]
    held = _pick(seen, starts.episode, now)  # (M, 1, ...)
    poses = [{"pose": e.truth.pose_world.astype(np.float64)} for e in episodes]
    last = np.array([e.ticks - 1 for e in episodes])[starts.episode][:, None]
    after = _pick(poses, starts.episode, np.minimum(now + 1 + np.arange(horizon), last))["pose"]
    before = _pick(poses, starts.episode, now)["pose"][:, 0]
    moved = np.concatenate(
        [
            carried_scan(held["scan_m"][i : i + _ROWS, 0], before[i : i + _ROWS], after[i : i + _ROWS], spec.lidar)
            for i in range(0, len(before), _ROWS)
        ]
    )
    shape = (len(starts.tick), horizon)
    means = {name: np.concatenate([e[name] for e in seen]).mean(0, dtype=np.float64) for name in held}
    mean = {name: np.broadcast_to(value, (*shape, *value.shape)) for name, value in means.items()}
    lasting = {name: np.broadcast_to(values, (*shape, *values.shape[2:])) for name, values in held.items()}
    return {"held": lasting, "held_moved": {"scan_m": moved}, "mean": mean}


def carried_scan(
    scan_m: NDArray[Any], before: NDArray[np.float64], after: NDArray[np.float64], lidar: LidarSpec
) -> NDArray[np.float32]:
    """(M, H, beams): what a lidar would read elsewhere if the world were the points of one scan.

    Of points in one beam the nearest counts; beams without one take that of a near neighbour, or the lidar's range.

    Args:
        scan_m: (M, beams).
        before: (M, 3) pose of the robot then, in the world.
        after: (M, H, 3) its poses later.
        lidar: whose scan it is.
    """
    angles, (count, horizon) = lidar.angles_rad, after.shape[:2]
    x = lidar.mount_x_m + scan_m * np.cos(angles)
    y = scan_m * np.sin(angles)
    c, s = np.cos(before[:, 2:]), np.sin(before[:, 2:])
    world_x = (before[:, :1] + c * x - s * y)[:, None]  # (M, 1, beams)
    world_y = (before[:, 1:2] + s * x + c * y)[:, None]
    dx, dy = world_x - after[..., :1], world_y - after[..., 1:2]
    c, s = np.cos(after[..., 2:]), np.sin(after[..., 2:])
    there_x, there_y = c * dx + s * dy - lidar.mount_x_m, c * dy - s * dx
    turn = np.mod(np.arctan2(there_y, there_x) - lidar.angle_min_rad + lidar.increment_rad / 2, 2 * np.pi)
    beam = np.floor(turn / lidar.increment_rad).astype(np.int64)
    out = np.full((count, horizon, lidar.beams + 1), np.inf)  # the last one takes what lies outside the field of view
    rows, steps = np.arange(count)[:, None, None], np.arange(horizon)[:, None]
    np.minimum.at(out, (rows, steps, np.minimum(beam, lidar.beams)), np.hypot(there_x, there_y))
    ring = out[..., :-1]
    for _ in range(_FILL):
        sides = np.minimum(np.roll(ring, 1, -1), np.roll(ring, -1, -1))
        ring = np.where(np.isinf(ring), sides, ring)
    return np.minimum(ring, lidar.range_m).astype(np.float32)


def _pick(quantities: Sequence[Arrays], episode: NDArray[np.int64], at: NDArray[np.int64]) -> Arrays:
    """(M, H, ...) of ticks `at` (M, H) of the starts' episodes (M,)."""
    return {
        name: np.stack([quantities[i][name][ticks] for i, ticks in zip(episode.tolist(), at, strict=True)])
        for name in quantities[0]
    }
