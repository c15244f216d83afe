"""The geometric term of a plan's score: the footprint swept along the plan, through points that are carried forward.

A learned model foresees what it was trained on; this term holds for whatever the lidar sees. It gives a planner what a
dynamic window with tracking knows: when a plan would touch something, and how close it comes before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.planning.rollouts import footprint_distance_m, poses_under, velocities_under
from robonav.planning.surroundings import Surroundings, points_ahead
from robonav.types import Observation, RobotSpec


@dataclass(frozen=True, slots=True)
class SweepConfig:
    """Prices, in units of return."""

    collision_weight: float = 1.0  # of a touch at once; falls linearly to 0 at the sweep's end
    clearance_weight: float = 0.1  # of being at the obstacle all the time
    clearance_decay_m: float = 0.15
    margin_m: float = 0.05  # that the footprint keeps
    tail_s: float = 0.6  # how long the last action goes on after the plan

    def __post_init__(self) -> None:
        """Checks signs.

        Raises:
            ConfigError: a negative number, or a decay of 0.
        """
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise ConfigError(explain(f"sweep: {name}", "0 or more", getattr(self, name)))
        if self.clearance_decay_m == 0:
            raise ConfigError(explain("sweep: clearance_decay_m", "above 0", 0))


def sweep_cost(
    actions: NDArray[np.floating],
    observation: Observation,
    surroundings: Surroundings,
    spec: RobotSpec,
    config: SweepConfig,
) -> NDArray[np.float32]:
    """(K,) costs of plans (K, L, 3) of normalised actions, one a tick; 0 where nothing is near."""
    tail = round(config.tail_s / spec.dt_s)
    commands = spec.action_to_velocity(actions)
    commands = np.concatenate([commands, np.repeat(commands[:, -1:], tail, axis=1)], axis=1)
    steps = commands.shape[1]
    velocities = velocities_under(spec, observation.twist_base, commands, steps, spec.dt_s)
    positions, yaw = poses_under(velocities, spec.dt_s)
    reach_m = float(np.abs(positions).max()) + spec.radius_m + 4 * config.clearance_decay_m
    time_s = spec.dt_s * np.arange(1, steps + 1)
    points = points_ahead(surroundings, observation.pose_odom_base, time_s, reach_m)
    distance = footprint_distance_m(spec, positions, yaw, points) - config.margin_m  # (K, steps)
    touched = distance < 0
    free = np.where(touched.any(axis=1), touched.argmax(axis=1), steps)
    counted = np.arange(steps)[None] < np.maximum(free, 1)[:, None]
    closeness = np.exp(-np.maximum(distance, 0.0) / config.clearance_decay_m)
    mean = (closeness * counted).sum(axis=1) / counted.sum(axis=1)
    cost = config.collision_weight * (1.0 - free / steps) + config.clearance_weight * mean
    return np.asarray(cost, np.float32)
