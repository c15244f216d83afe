"""The classical baselines "dwa" and "dwa-tracking": the dynamic window approach (Fox, Burgard and Thrun 1997).

Constant commands that the robot can reach are rolled out with its lag, its footprint swept along. One is admissible if
the robot can still brake before it touches anything; the best of those is driven. The objective is that of DWB, Nav2's
version: progress along the route, distance from it, heading, clearance, and a steady hand. With tracking, the points of
what moves are carried forward at their constant velocity, and a collision that braking does not avoid costs too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.mapping.tracks import TrackerConfig
from robonav.planning.progress import Pace, ProgressConfig, change_m, progress_m, route_ahead
from robonav.planning.rollouts import footprint_distance_m, poses_under, velocities_under
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.planning.surroundings import Surroundings, SurroundingsTracker, points_ahead
from robonav.planning.window import reachable_commands
from robonav.types import COMMAND_LIFE_NS, Decision, Observation, RobotSpec, VelocityCommand


@dataclass(frozen=True, slots=True)
class DwaConfig:
    """Window, horizon and weights; the weights are prices in metres of progress."""

    tracking: bool = False
    horizon_s: float = 2.0
    step_s: float = 0.2
    samples: tuple[int, int, int] = (7, 5, 9)  # of vx, vy and yaw rate
    margin_m: float = 0.05  # that the footprint keeps
    route_weight: float = 0.4  # per metre beside the route, at the roll-out's end
    heading_weight: float = 0.15  # per radian off the route's direction, at the roll-out's end
    clearance_weight: float = 0.5  # on the footprint at the obstacle, averaged along the roll-out
    clearance_decay_m: float = 0.2
    collision_weight: float = 2.0  # on touching something at once; falls to 0 at the horizon
    change_weight: float = 0.05  # per m/s, and a third of it per rad/s, that the command changes
    turn_round_weight: float = 0.0  # of looking backwards (`robonav.planning.progress`); DWB knows no such term
    situation: SituationConfig = field(default_factory=SituationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a time or distance that is not positive, a negative weight, or no samples.
        """
        for name in ("horizon_s", "step_s", "clearance_decay_m"):
            if getattr(self, name) <= 0:
                raise ConfigError(explain(f"dwa: {name}", "above 0", getattr(self, name)))
        for name in ("margin_m", *(n for n in self.__dataclass_fields__ if n.endswith("_weight"))):
            if getattr(self, name) < 0:
                raise ConfigError(explain(f"dwa: {name}", "0 or more", getattr(self, name)))
        if min(self.samples) < 1:
            raise ConfigError(explain("dwa: samples", "1 or more", self.samples))


class DwaState(NamedTuple):
    """Map and route, and what stands and moves round the robot."""

    situation: Situation
    surroundings: Surroundings


class DwaPolicy:
    """Deterministic: same observations, same decisions."""

    def __init__(self, spec: RobotSpec, config: DwaConfig | None = None) -> None:
        self.spec = spec
        self.config = config or DwaConfig()
        self.name = "dwa-tracking" if self.config.tracking else "dwa"
        self.tracker = SituationTracker(spec, self.config.situation)
        c = self.config
        least_m = c.situation.mapper.min_range_m
        self.surroundings = SurroundingsTracker(spec, c.tracking, c.tracker, least_m)
        self._steps = max(1, round(c.horizon_s / c.step_s))
        self._time_s = c.step_s * np.arange(1, self._steps + 1)

    def reset(self, seed: int) -> DwaState:
        """Nothing known; the seed is not used."""
        return DwaState(self.tracker.reset(), self.surroundings.reset())

    def act(self, state: DwaState, observation: Observation) -> tuple[DwaState, Decision]:
        """Next state and the decision for this tick."""
        situation = self.tracker.update(state.situation, observation)
        state = DwaState(situation, self.surroundings.update(state.surroundings, observation))
        velocity, why, path = self._choose(state, observation)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        route = situation.route_odom_m
        return state, Decision(command, why=why, route_odom_m=route, imagined_path_odom_m=path)

    def _choose(
        self, state: DwaState, observation: Observation
    ) -> tuple[NDArray[np.float64], str, NDArray[np.float32] | None]:
        """(3,) velocity, why, and the (T, 2) path in odom that it ought to give."""
        still = np.zeros(3)
        if state.surroundings.points_m is None:
            return still, "stop: no scan", None
        route = state.situation.route_odom_m
        if route is None:
            return still, "stop: no route", None
        c, spec, steps = self.config, self.spec, self._steps
        commands = reachable_commands(spec, observation.twist_base, c.samples)
        velocities = velocities_under(spec, observation.twist_base, commands, steps, c.step_s)
        positions, yaw = poses_under(velocities, c.step_s)
        reach = float(np.abs(positions).max()) + spec.radius_m + 3 * c.clearance_decay_m
        points = points_ahead(state.surroundings, observation.pose_odom_base, self._time_s, reach)
        distance = footprint_distance_m(spec, positions, yaw, points)  # (N, T)
        touched = distance < c.margin_m
        free = np.where(touched.any(axis=1), touched.argmax(axis=1), steps)  # steps before the first touch
        admissible = free * c.step_s > self._braking_s(commands)
        here = footprint_distance_m(spec, np.zeros((1, 1), np.complex64), np.zeros((1, 1), np.float32), points[:1])
        if here[0, 0] < c.margin_m:  # too close already: whatever leads away from it is welcome
            admissible |= distance[:, 0] > here[0, 0] + 1e-3
        admissible |= np.abs(commands).max(axis=1) == 0
        last = np.maximum(free - 1, 0)
        length_m = spec.vx_max_mps * c.horizon_s + 1.0
        ahead = route_ahead(route, state.situation.progress_m, observation, length_m)
        prices = ProgressConfig(
            route_weight=c.route_weight,
            heading_weight=c.heading_weight,
            arrival_m=0.0,
            change_weight=c.change_weight,
            turn_round_weight=c.turn_round_weight,
        )
        score = progress_m(ahead, positions, yaw, free, self._time_s, Pace.of(spec), prices)
        counted = np.arange(steps)[None] <= last[:, None]
        closeness = np.exp(-np.maximum(distance - c.margin_m, 0.0) / c.clearance_decay_m)
        score -= c.clearance_weight * (closeness * counted).sum(axis=1) / counted.sum(axis=1)
        score -= c.collision_weight * (1.0 - free / steps)
        score -= change_m(commands, observation, prices)
        best = int(np.argmax(np.where(admissible, score, -np.inf)))
        x, y, heading = (float(v) for v in observation.pose_odom_base)
        path = complex(x, y) + positions[best] * np.exp(1j * heading)
        why = self.name if np.abs(commands[best]).max() > 0 else "stop: blocked"
        return commands[best].astype(np.float64), why, np.stack([path.real, path.imag], -1).astype(np.float32)

    def _braking_s(self, commands: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N,) seconds at the command's speed that cover a tick, the lag, and braking to a stop."""
        spec = self.spec
        planar = np.hypot(commands[:, 0], commands[:, 1]) / (2 * spec.acceleration_max_mps2)
        turning = np.abs(commands[:, 2]) / (2 * spec.yaw_acceleration_max_radps2)
        return np.asarray(spec.dt_s + spec.lag_s + np.maximum(planar, turning), np.float64)
