"""The classical baseline "astar": A* route, pure pursuit (Coulter 1992), and a stop before what stands in the way.

Pursuit proposes arcs towards points of the route, fast and far ones first. Each is rolled out as far as the robot
needs to brake, with its rectangular footprint against the scan, and the first that stays clear is driven. When none
does, the robot turns in place or creeps sideways along the route, and stops when that is not free either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.geometry import inverse_transform_points
from robonav.planning.routes import points_at
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import COMMAND_LIFE_NS, Decision, Observation, RobotSpec, VelocityCommand

_SAMPLES = 6  # poses of a roll-out that are checked
_SPEED_SHARES = (1.0, 0.6, 0.3)
_CREEP_DIRECTIONS = np.exp(1j * np.arange(-8, 8) * np.pi / 8)  # (16,) forward + i left


@dataclass(frozen=True, slots=True)
class PursuitConfig:
    """Pursuit's gains and distances."""

    lookaheads_m: tuple[float, ...] = (0.8, 0.5, 0.3)  # tried in this order; the nearer cut corners less
    turn_in_place_rad: float = 0.9  # heading error above which the robot turns before it drives
    keep_turning_rad: float = 0.35  # and below which it drives again
    turn_gain_per_s: float = 2.0  # yaw rate per heading error when turning in place
    margin_m: float = 0.10  # room that the footprint keeps at full speed
    creep_margin_m: float = 0.03  # room that it keeps at the slowest
    creep_mps: float = 0.2  # speed of sideways and backward steps
    slow_clearance_m: float = 0.5  # below this room round the footprint the speed falls
    slowest_share: float = 0.35  # of the full speed, without any room
    arrive_m: float = 0.15  # distance to the goal at which the robot stays
    situation: SituationConfig = field(default_factory=SituationConfig)

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a distance that is not positive, or margins in the wrong order.
        """
        if not self.lookaheads_m or min(self.lookaheads_m) <= 0 or self.creep_mps <= 0 or self.slow_clearance_m <= 0:
            got = (self.lookaheads_m, self.creep_mps, self.slow_clearance_m)
            raise ConfigError(explain("pursuit: lookaheads_m, creep_mps, slow_clearance_m", "above 0", got))
        if not 0 <= self.creep_margin_m <= self.margin_m:
            margins = (self.creep_margin_m, self.margin_m)
            raise ConfigError(explain("pursuit: creep_margin_m, margin_m", "0 or more, in this order", margins))


class PursuitState(NamedTuple):
    """Map and route, whether a turn in place goes on, and where obstacles were last seen."""

    situation: Situation
    turning: bool
    obstacles_odom_m: NDArray[np.float64] | None  # (n, 2); None before the first scan


class PursuitPolicy:
    """Deterministic: same observations, same decisions."""

    name = "astar"

    def __init__(self, spec: RobotSpec, config: PursuitConfig | None = None) -> None:
        self.spec = spec
        self.config = config or PursuitConfig()
        self.tracker = SituationTracker(spec, self.config.situation)
        self._beams = np.exp(1j * spec.lidar.angles_rad)

    def reset(self, seed: int) -> PursuitState:
        """Nothing known; the seed is not used."""
        return PursuitState(self.tracker.reset(), False, None)

    def act(self, state: PursuitState, observation: Observation) -> tuple[PursuitState, Decision]:
        """Next state and the decision for this tick."""
        situation = self.tracker.update(state.situation, observation)
        obstacles = self._obstacles(state.obstacles_odom_m, observation)
        velocity, why, turning = self._choose(situation, observation, obstacles, state.turning)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        decision = Decision(command, why=why, route_odom_m=situation.route_odom_m)
        return PursuitState(situation, turning, obstacles), decision

    def _choose(
        self, situation: Situation, observation: Observation, obstacles: NDArray[np.float64] | None, turning: bool
    ) -> tuple[NDArray[np.float64], str, bool]:
        """(3,) velocity, why, and whether the robot turns in place."""
        c, pose, still = self.config, observation.pose_odom_base, np.zeros(3)
        goal = inverse_transform_points(pose, observation.goal_odom_m)
        if np.hypot(goal[0], goal[1]) < c.arrive_m:
            return still, "stop: at the goal", False
        if obstacles is None:
            return still, "stop: no scan", False
        route = situation.route_odom_m
        if route is None:
            return still, "stop: no route", False
        near = inverse_transform_points(pose, obstacles)
        near = near[np.abs(near).max(axis=1) < self.spec.radius_m + self._reach_m()]
        targets = points_at(route, situation.progress_m + np.asarray(c.lookaheads_m))
        aims = inverse_transform_points(pose, targets)  # (k, 2)
        room_now = float(self._room(still[None], np.zeros(1), near)[0])
        error = float(np.arctan2(aims[0, 1], aims[0, 0]))
        turning = abs(error) > (c.keep_turning_rad if turning else c.turn_in_place_rad)
        arcs, margins = self._arcs(aims, room_now)
        turn, creep = self._turn(error), self._creep(aims[-1])
        tries = [(arcs, margins, "pursuit")] if not turning else []
        tries += [(turn, np.full(len(turn), c.creep_margin_m), "turn")]
        tries += [(arcs, margins, "pursuit")] if turning else []
        tries += [(creep, np.full(len(creep), c.creep_margin_m), "creep")]
        if abs(error) < c.keep_turning_rad:  # nothing to turn for: go round by a side step
            tries = [t for t in tries if t[2] != "turn"]
        for velocities, margin, why in tries:
            room = self._room(velocities, self._braking_s(velocities), near)
            # where the robot stands too close already, it may go anywhere that does not bring it closer
            clear = room >= np.minimum(margin, max(room_now - 0.002, 0.005))
            if clear.any():
                return velocities[int(np.argmax(clear))], why, turning
        return still, "stop: blocked", turning

    def _arcs(self, aims: NDArray[np.float64], room_now: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, 3) velocities on arcs through the aims (k, 2), best first, and the room (n,) that each must keep."""
        c, spec = self.config, self.spec
        room_share = min(max(room_now, 0.0) / c.slow_clearance_m, 1.0)
        top = spec.vx_max_mps * (c.slowest_share + (1.0 - c.slowest_share) * room_share)
        distance = np.maximum(np.hypot(aims[:, 0], aims[:, 1]), 0.05)
        curvature = 2.0 * aims[:, 1] / distance**2
        curvature = np.where(aims[:, 0] > 0, curvature, np.sign(aims[:, 1]) * np.maximum(np.abs(curvature), 2.0))
        speed = np.array(_SPEED_SHARES)[:, None] * top / (1.0 + 0.5 * np.abs(curvature))  # (shares, k)
        speed = np.minimum(speed, spec.yaw_rate_max_radps / np.maximum(np.abs(curvature), 1e-6))
        # so slow that the braking distance ends at the last aim
        speed = np.minimum(speed, np.sqrt(spec.acceleration_max_mps2 * distance[0]))
        zero = np.zeros_like(speed)
        velocities = np.stack([speed, zero, speed * curvature], axis=-1).reshape(-1, 3)
        spread = np.linspace(c.margin_m, c.creep_margin_m, len(_SPEED_SHARES))
        return velocities, np.repeat(spread, len(aims))

    def _turn(self, error: float) -> NDArray[np.float64]:
        """(2, 3) turns in place towards the route, and the other way round."""
        limit = self.spec.yaw_rate_max_radps
        rate = float(np.clip(self.config.turn_gain_per_s * error, -limit, limit))
        return np.array([[0.0, 0.0, rate], [0.0, 0.0, -0.5 * np.sign(rate) * limit]])

    def _creep(self, aim: NDArray[np.float64]) -> NDArray[np.float64]:
        """(m, 3) slow steps without turning, those that lead most towards the aim (2,) first."""
        towards = (_CREEP_DIRECTIONS * complex(aim[0], -aim[1])).real
        order = np.argsort(-towards, kind="stable")[:9]  # none that leads away
        step = self.config.creep_mps * _CREEP_DIRECTIONS[order]
        forward = np.clip(step.real, self.spec.vx_min_mps, self.spec.vx_max_mps)
        left = np.clip(step.imag, -self.spec.vy_max_mps, self.spec.vy_max_mps)
        return np.stack([forward, left, np.zeros(len(order))], axis=-1)

    def _braking_s(self, velocities: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) seconds of constant velocity that cover what the robot moves until a stop could have ended."""
        spec = self.spec
        speed = np.hypot(velocities[:, 0], velocities[:, 1])
        ramp = np.maximum(
            speed / (2 * spec.acceleration_max_mps2), np.abs(velocities[:, 2]) / (2 * spec.yaw_acceleration_max_radps2)
        )
        return spec.dt_s + spec.lag_s + ramp + 0.1

    def _reach_m(self) -> float:
        """How far from the robot's circle a roll-out can come, with the margin."""
        fastest = np.array([[self.spec.vx_max_mps, 0.0, 0.0]])
        return float(self.spec.vx_max_mps * self._braking_s(fastest)[0] + self.config.slow_clearance_m)

    def _room(
        self, velocities: NDArray[np.float64], duration_s: NDArray[np.float64], points: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(n,) smallest distance between footprint and points (p, 2) of the base frame while driving (n, 3) for (n,) s.

        Velocities are constant in the base frame; inside the footprint the distance is negative.
        """
        if not len(points):
            return np.full(len(velocities), np.inf)
        time_s = duration_s[:, None] * np.linspace(0.0, 1.0, _SAMPLES)  # (n, t)
        yaw = velocities[:, 2, None] * time_s
        # the mean heading of a stretch stands for its arc: exact to second order in the yaw
        move = (velocities[:, 0] + 1j * velocities[:, 1])[:, None] * time_s * np.exp(0.5j * yaw)
        seen = (points[:, 0] + 1j * points[:, 1] - move[..., None]) * np.exp(-1j * yaw)[..., None]  # (n, t, p)
        ahead = np.abs(seen.real) - self.spec.length_m / 2
        beside = np.abs(seen.imag) - self.spec.width_m / 2
        outside = np.hypot(np.maximum(ahead, 0.0), np.maximum(beside, 0.0))
        distance = np.where(outside > 0, outside, np.maximum(ahead, beside))
        nearest: NDArray[np.float64] = distance.min(axis=(1, 2))
        return nearest

    def _obstacles(self, last: NDArray[np.float64] | None, observation: Observation) -> NDArray[np.float64] | None:
        """(n, 2) odom points of this scan's hits; without a scan those of the last one."""
        if observation.scan_m is None:
            return last
        lidar = self.spec.lidar
        scan = np.asarray(observation.scan_m, np.float64)
        hit = (scan < lidar.range_m - 1e-3) & (scan >= self.config.situation.mapper.min_range_m)
        x, y, yaw = (float(v) for v in observation.pose_odom_base)
        points = complex(x, y) + (lidar.mount_x_m + scan[hit] * self._beams[hit]) * np.exp(1j * yaw)
        return points.view(np.float64).reshape(-1, 2)
