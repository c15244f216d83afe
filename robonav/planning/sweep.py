"""The geometric terms of a plan's score: its footprint swept through points that are carried forward, and the route.

A learned model foresees what it was trained on; these terms hold for whatever the lidar sees. They give a planner what
a dynamic window with tracking knows (Fox, Burgard and Thrun 1997; the objective is that of Nav2's DWB): when a plan
would touch something, whether the robot can still brake before, how close it comes, and how far along the route it
leads. Prices are in metres of progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.planning.field import LocalField, footprint_spots, movers_distance_m, spots_distance_m
from robonav.planning.rollouts import footprint_distance_m, poses_under, velocities_under
from robonav.planning.surroundings import Surroundings, still_and_moving
from robonav.types import Observation, RobotSpec

Singles = NDArray[np.float32]
ESCAPE_M = 1e-3
Complexes = NDArray[np.complex64]
Floats = NDArray[np.floating]


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
    risk_weight: float = 1.0
    """Of passing somebody who moves: exp(-distance / scale) at the instant where that, less the later it is, is most.
    What is known of him fades with time, so the scale grows; a mean over the plan would forgive a close shave."""
    risk_m: float = 0.1
    """The scale now."""
    risk_mps: float = 0.15
    """How fast it grows."""
    walls: bool = True
    """Whether who moves stops at what stands in his way; otherwise he walks through it."""
    stop_weight: float = 0.5
    """Of touching somebody at once if he who moves stops now; falls linearly to 0 at `doubt_s`."""
    turn_weight: float = 0.5
    """The same if he turns back now."""
    swerve_weight: float = 0.0
    """The same if he turns by 90 degrees now, for either side."""
    doubt_s: float = 1.0
    """How far ahead those are looked at; later there is time to plan again."""
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
        for name in ("clearance_decay_m", "risk_m", "tail_step_s", "doubt_s"):
            if getattr(self, name) == 0:
                raise ConfigError(explain(f"sweep: {name}", "above 0", 0))

    @property
    def tail_steps(self) -> int:
        """Steps of the tail."""
        return round(self.tail_s / self.tail_step_s)

    @property
    def doubts(self) -> tuple[tuple[complex, float], ...]:
        """By what everybody's velocity might be multiplied right now, and what a touch at once costs then."""
        doubts = ((0, self.stop_weight), (-1, self.turn_weight), (1j, self.swerve_weight), (-1j, self.swerve_weight))
        return tuple((turn, weight) for turn, weight in doubts if weight)


class Sweep(NamedTuple):
    """What K plans lead to over T steps, in the base frame of now."""

    positions: NDArray[np.complex64]  # (K, T) x + iy m
    yaw_rad: Singles  # (K, T)
    free: NDArray[np.int64]  # (K,) steps before the first touch
    time_s: NDArray[np.float64]  # (T,) from now
    cost: Singles  # (K,) m of progress


class Clearance(Protocol):
    """Distances from a footprint at poses to what is round it."""

    def ahead_m(self, positions: Complexes, yaw_rad: Singles, time_s: Floats) -> tuple[Singles, Singles | None]:
        """(K, T) at poses (K, T) at times (T,) from now to what stands, and to movers carried forward, if any."""
        ...

    def doubtful_m(self, positions: Complexes, yaw_rad: Singles, time_s: Floats, turn: complex) -> Singles | None:
        """(K, T) to movers whose velocity is multiplied by `turn` now; None without movers."""
        ...

    def here_m(self) -> float:
        """Where the robot is now."""
        ...


class PointClearance:
    """To points of the surroundings, exactly."""

    def __init__(
        self,
        surroundings: Surroundings,
        observation: Observation,
        spec: RobotSpec,
        time_s: Floats,
        reach_m: float,
        config: SweepConfig,
    ) -> None:
        self._spec, self._growth_mps = spec, config.growth_mps
        pose = observation.pose_odom_base
        self._still, self._now, self._moving, self._velocity = still_and_moving(
            surroundings, pose, time_s, reach_m, config.walls
        )

    def ahead_m(self, positions: Complexes, yaw_rad: Singles, time_s: Floats) -> tuple[Singles, Singles | None]:
        """See `Clearance`."""
        still = footprint_distance_m(self._spec, positions, yaw_rad, self._still)
        if not len(self._now):
            return still, None
        moving = footprint_distance_m(self._spec, positions, yaw_rad, self._moving)
        return still, moving - (self._growth_mps * time_s).astype(np.float32)

    def doubtful_m(self, positions: Complexes, yaw_rad: Singles, time_s: Floats, turn: complex) -> Singles | None:
        """See `Clearance`."""
        if not len(self._now):
            return None
        gone = np.asarray(time_s, np.float32)[:, None] * self._velocity
        return footprint_distance_m(self._spec, positions, yaw_rad, self._now + np.complex64(turn) * gone)

    def here_m(self) -> float:
        """See `Clearance`."""
        points = np.concatenate([self._still, self._now])
        pose = np.zeros((1, 1), np.complex64), np.zeros((1, 1), np.float32)
        return float(footprint_distance_m(self._spec, *pose, points)[0, 0])


class FieldClearance:
    """To a `LocalField`: what an exported planner computes."""

    def __init__(self, field: LocalField, spec: RobotSpec, config: SweepConfig) -> None:
        self._field, self._spec, self._spots = field, spec, footprint_spots(spec)
        self._growth_mps = config.growth_mps
        x, y, vx, vy, self._radius, until = field.movers.T
        self._until_s = until if config.walls else np.full_like(until, np.inf)
        self._now, self._velocity = (x + 1j * y).astype(np.complex64), (vx + 1j * vy).astype(np.complex64)

    def ahead_m(self, positions: Complexes, yaw_rad: Singles, time_s: Floats) -> tuple[Singles, Singles | None]:
        """See `Clearance`."""
        still = spots_distance_m(self._field, positions, yaw_rad, self._spots)
        time = np.asarray(time_s, np.float32)
        carried_s = np.minimum(time[:, None], self._until_s)
        return still, self._to_movers(positions, yaw_rad, carried_s) - np.float32(self._growth_mps) * time

    def doubtful_m(self, positions: Complexes, yaw_rad: Singles, time_s: Floats, turn: complex) -> Singles | None:
        """See `Clearance`."""
        return self._to_movers(positions, yaw_rad, np.complex64(turn) * np.asarray(time_s, np.float32)[:, None])

    def here_m(self) -> float:
        """See `Clearance`."""
        pose = np.zeros((1, 1), np.complex64), np.zeros((1, 1), np.float32)
        still, moving = self.ahead_m(*pose, np.zeros(1))
        return float(_nearer(still, moving)[0, 0])

    def _to_movers(self, positions: Complexes, yaw_rad: Singles, time_s: Singles | Complexes) -> Singles:
        centre = self._now[None] + time_s * self._velocity[None]
        return movers_distance_m(self._spec, positions, yaw_rad, centre, self._radius)


def sweep(
    actions: NDArray[np.floating],
    observation: Observation,
    surroundings: Surroundings | LocalField,
    spec: RobotSpec,
    config: SweepConfig,
) -> Sweep:
    """Rolls out plans (K, L, 3) of normalised actions, one a tick, with the last one going on, and prices touches.

    The footprint is swept through points of the surroundings, or through a field of them.
    """
    c, horizon, tail = config, actions.shape[1], config.tail_steps
    dt_s = np.concatenate([np.full(horizon, spec.dt_s), np.full(tail, c.tail_step_s)])
    time_s, steps = np.cumsum(dt_s), horizon + tail
    commands = spec.action_to_velocity(actions)
    commands = np.concatenate([commands, np.repeat(commands[:, -1:], tail, axis=1)], axis=1)
    velocities = velocities_under(spec, observation.twist_base, commands, steps, dt_s)
    positions, yaw = poses_under(velocities, dt_s)
    clearance: Clearance
    if isinstance(surroundings, LocalField):
        clearance = FieldClearance(surroundings, spec, c)
    else:
        reach_m = float(np.abs(positions).max()) + spec.radius_m + 3 * c.clearance_decay_m + c.growth_mps * time_s[-1]
        clearance = PointClearance(surroundings, observation, spec, time_s, float(reach_m), c)
    instants = np.concatenate([[0.0], time_s])
    still, moving = clearance.ahead_m(positions, yaw, time_s)
    distance = _nearer(still, moving) - np.float32(c.margin_m)  # (K, T)
    touched = distance < 0
    free = np.where(touched.any(axis=1), touched.argmax(axis=1), steps)
    free_s = instants[free]
    counted = np.where(np.arange(steps)[None] < np.maximum(free, 1)[:, None], dt_s.astype(np.float32), np.float32(0.0))
    closeness = np.exp(-np.maximum(distance, 0.0) / np.float32(c.clearance_decay_m))
    mean = (closeness * counted).sum(axis=1) / counted.sum(axis=1)
    cost = c.collision_weight * (1.0 - free_s / time_s[-1]) + c.clearance_weight * mean
    if moving is not None and c.risk_weight:
        cost = cost + c.risk_weight * _risk(moving - np.float32(c.margin_m), time_s, c)
    forbidden = (free < steps) & (free_s <= _braking_s(spec, commands[:, 0]))
    soon = int(np.searchsorted(time_s, c.doubt_s + 1e-6))
    for turn, weight in c.doubts if soon else ():
        apart = clearance.doubtful_m(positions[:, :soon], yaw[:, :soon], time_s[:soon], turn)
        if apart is None:
            break
        touched = apart < c.margin_m
        safe_s = np.where(touched.any(axis=1), instants[touched.argmax(axis=1)], c.doubt_s)
        cost = cost + weight * np.maximum(1.0 - safe_s / c.doubt_s, 0.0)
    here_m = clearance.here_m()
    if here_m < c.margin_m:  # too close already: whatever leads away from it is welcome
        forbidden &= distance[:, min(1, steps - 1)] <= here_m - c.margin_m + ESCAPE_M
    forbidden &= np.abs(commands).max(axis=(1, 2)) > 0  # standing still is always allowed
    return Sweep(positions, yaw, free, time_s, np.asarray(cost + c.forbidden * forbidden, np.float32))


def _nearer(still: Singles, moving: Singles | None) -> Singles:
    """Distance to what is nearest of all."""
    return still if moving is None else np.minimum(still, moving)


def _risk(distance_m: Singles, time_s: Floats, config: SweepConfig) -> Singles:
    """(K,) of coming as near to movers as distances (K, T) at times (T,) say; from 0 to 1."""
    scale = (config.risk_m + config.risk_mps * time_s).astype(np.float32)
    later = (1.0 - time_s / time_s[-1]).astype(np.float32)
    return np.asarray((np.exp(-np.maximum(distance_m, 0.0) / scale) * later).max(axis=1), np.float32)


def _braking_s(spec: RobotSpec, commands: NDArray[np.floating]) -> NDArray[np.float64]:
    """(K,) seconds at commands (K, 3) that cover a tick, the lag, and braking to a stop."""
    planar = np.hypot(commands[:, 0], commands[:, 1]) / (2 * spec.acceleration_max_mps2)
    turning = np.abs(commands[:, 2]) / (2 * spec.yaw_acceleration_max_radps2)
    return np.asarray(spec.dt_s + spec.lag_s + np.maximum(planar, turning), np.float64)
