"""The geometric terms of a plan's score: its footprint swept through points that are carried forward, and the route.

A learned model foresees what it was trained on; these terms hold for whatever the lidar sees. They give a planner what
a dynamic window with tracking knows (Fox, Burgard and Thrun 1997; the objective is that of Nav2's DWB): when a plan
would touch something, whether the robot can still brake before, how close it comes, and how far along the route it
leads. Prices are in metres of progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.planning.rollouts import footprint_distance_m, poses_under, velocities_under
from robonav.planning.surroundings import Surroundings, still_and_moving
from robonav.types import Observation, RobotSpec

Singles = NDArray[np.float32]
_ESCAPE_M = 1e-3


@dataclass(frozen=True, slots=True)
class SweepConfig:
    """How plans are swept, and prices in metres of progress."""

    collision_weight: float = 2.0
    """Of a touch at once; falls linearly to 0 at the sweep's end."""
    clearance_weight: float = 0.5
    """Of being at the obstacle all the time."""
    clearance_decay_m: float = 0.2
    """Distance over which closeness falls to 1/e."""
    margin_m: float = 0.05
    """That the footprint keeps."""
    growth_mps: float = 0.0
    """How fast the margin round what moves grows, since nobody keeps his velocity for long."""
    stop_weight: float = 0.5
    """Of touching somebody at once if he who moves stops now; falls linearly to 0 at `doubt_s`."""
    turn_weight: float = 0.5
    """The same if he turns back now."""
    doubt_s: float = 1.0
    """How far ahead those two are looked at; later there is time to plan again."""
    tail_s: float = 0.8
    """How long the last action goes on after the plan."""
    tail_step_s: float = 0.2
    """Step of the tail."""
    forbidden: float = 10.0
    """Price of a plan that touches something before the robot can have braked."""

    def __post_init__(self) -> None:
        """Checks signs.

        Raises:
            ConfigError: a negative number, or a decay or step of 0.
        """
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise ConfigError(explain(f"sweep: {name}", "0 or more", getattr(self, name)))
        for name in ("clearance_decay_m", "tail_step_s", "doubt_s"):
            if getattr(self, name) == 0:
                raise ConfigError(explain(f"sweep: {name}", "above 0", 0))


class Sweep(NamedTuple):
    """What K plans lead to over T steps, in the base frame of now."""

    positions: NDArray[np.complex64]  # (K, T) x + iy m
    yaw_rad: Singles  # (K, T)
    free: NDArray[np.int64]  # (K,) steps before the first touch
    time_s: NDArray[np.float64]  # (T,) from now
    cost: Singles  # (K,) m of progress


def sweep(
    actions: NDArray[np.floating],
    observation: Observation,
    surroundings: Surroundings,
    spec: RobotSpec,
    config: SweepConfig,
) -> Sweep:
    """Rolls out plans (K, L, 3) of normalised actions, one a tick, with the last one going on, and prices touches."""
    c, horizon, tail = config, actions.shape[1], round(config.tail_s / config.tail_step_s)
    dt_s = np.concatenate([np.full(horizon, spec.dt_s), np.full(tail, c.tail_step_s)])
    time_s, steps = np.cumsum(dt_s), horizon + tail
    commands = spec.action_to_velocity(actions)
    commands = np.concatenate([commands, np.repeat(commands[:, -1:], tail, axis=1)], axis=1)
    velocities = velocities_under(spec, observation.twist_base, commands, steps, dt_s)
    positions, yaw = poses_under(velocities, dt_s)
    reach_m = float(np.abs(positions).max()) + spec.radius_m + 3 * c.clearance_decay_m
    margin_m = c.growth_mps * time_s
    instants = np.concatenate([[0.0], time_s])
    still, moving = still_and_moving(surroundings, observation.pose_odom_base, instants, reach_m + float(margin_m[-1]))
    now, moving = moving[0], moving[1:]
    distance = footprint_distance_m(spec, positions, yaw, moving) - margin_m.astype(np.float32)  # (K, T)
    distance = np.minimum(distance, footprint_distance_m(spec, positions, yaw, still)) - np.float32(c.margin_m)
    touched = distance < 0
    free = np.where(touched.any(axis=1), touched.argmax(axis=1), steps)
    free_s = instants[free]
    counted = np.where(np.arange(steps)[None] < np.maximum(free, 1)[:, None], dt_s.astype(np.float32), np.float32(0.0))
    closeness = np.exp(-np.maximum(distance, 0.0) / np.float32(c.clearance_decay_m))
    mean = (closeness * counted).sum(axis=1) / counted.sum(axis=1)
    cost = c.collision_weight * (1.0 - free_s / time_s[-1]) + c.clearance_weight * mean
    braking_s = _braking_s(spec, commands[:, 0])
    forbidden = (free < steps) & (free_s <= braking_s)
    soon = int(np.searchsorted(time_s, c.doubt_s + 1e-6))
    if len(now) and soon and (c.stop_weight or c.turn_weight):
        for weight, otherwise in ((c.stop_weight, now), (c.turn_weight, 2 * now - moving[:soon])):
            touched = footprint_distance_m(spec, positions[:, :soon], yaw[:, :soon], otherwise) < c.margin_m
            safe_s = np.where(touched.any(axis=1), instants[touched.argmax(axis=1)], c.doubt_s)
            cost = cost + weight * np.maximum(1.0 - safe_s / c.doubt_s, 0.0)
    points = np.concatenate([still, now])
    here = footprint_distance_m(spec, np.zeros((1, 1), np.complex64), np.zeros((1, 1), np.float32), points)
    if here[0, 0] < c.margin_m:  # too close already: whatever leads away from it is welcome
        forbidden &= distance[:, min(1, steps - 1)] <= here[0, 0] - c.margin_m + _ESCAPE_M
    forbidden &= np.abs(commands).max(axis=(1, 2)) > 0  # standing still is always allowed
    return Sweep(positions, yaw, free, time_s, np.asarray(cost + c.forbidden * forbidden, np.float32))


def _braking_s(spec: RobotSpec, commands: NDArray[np.floating]) -> NDArray[np.float64]:
    """(K,) seconds at commands (K, 3) that cover a tick, the lag, and braking to a stop."""
    planar = np.hypot(commands[:, 0], commands[:, 1]) / (2 * spec.acceleration_max_mps2)
    turning = np.abs(commands[:, 2]) / (2 * spec.yaw_acceleration_max_radps2)
    return np.asarray(spec.dt_s + spec.lag_s + np.maximum(planar, turning), np.float64)
