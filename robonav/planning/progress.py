"""How far plans lead along the route: the term of a plan's score that needs neither a world model nor obstacles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.geometry import inverse_transform_points
from robonav.planning.routes import cumulative_length_m, points_at
from robonav.types import Observation, RobotSpec

Singles = NDArray[np.float32]
STEP_M = 0.1  # of the route's points
AIM_POINTS = 6  # how far ahead of a plan's end the route is looked at for the heading
NEAR_M = 0.05  # a point nearer than this has no direction
SLOW = 1e-3  # m/s or rad/s: what cannot move one way does so this slowly


@dataclass(frozen=True, slots=True)
class ProgressConfig:
    """Prices in metres of progress."""

    route_weight: float = 0.4
    """Per metre beside the route, at the plan's end."""
    heading_weight: float = 0.15
    """Per radian off the route's direction, at the plan's end."""
    arrival_m: float = 0.3
    """How near the route's end counts as arrived: what is left of the plan's time then counts as driven at full speed,
    so that plans do not slow down before the goal; 0 switches it off."""
    change_weight: float = 0.05
    """Per m/s, and a third of it per rad/s, that the first command differs from the last one."""
    turn_round_weight: float = 1.0
    """Per metre that could have been driven in the time that looking backwards costs after the plan (`turning_m`).
    Without it a robot that came out of a dead end backwards never turns: within a plan, turning gains nothing. The
    local planner charges it while nobody is known to move."""
    side_weight: float = 0.0
    """Per m/s of the first command sideways. Limits are a box: without this price a robot goes fastest askew."""

    def __post_init__(self) -> None:
        """Checks signs.

        Raises:
            ConfigError: a negative number.
        """
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise ConfigError(explain(f"progress: {name}", "0 or more", getattr(self, name)))


class RouteAhead(NamedTuple):
    """What is left of the route, in the base frame."""

    line: NDArray[np.complex64]  # (M,) points x + iy every 0.1 m from where the robot is on it; the end repeats itself
    end: complex
    length_m: float  # from where the robot is to the end


class Pace(NamedTuple):
    """How fast a robot is."""

    full_mps: float  # ahead
    back_mps: float
    turn_radps: float

    @classmethod
    def of(cls, spec: RobotSpec) -> Pace:
        """Of a robot at its limits."""
        return cls(spec.vx_max_mps, -spec.vx_min_mps, spec.yaw_rate_max_radps)


def turning_m(off_rad: NDArray[np.floating], rest_m: NDArray[np.floating], pace: Pace) -> NDArray[np.floating]:
    """(K,) what a robot loses that looks off_rad (K,) away from a route of which rest_m (K,) are left, in metres at
    full speed: the time to turn until the route is beside it, or by which driving the rest backwards takes longer,
    whichever is less.
    """
    turn_s = np.maximum(off_rad - np.pi / 2, 0.0) / max(pace.turn_radps, SLOW)
    longer_s = max(1.0 / max(pace.back_mps, SLOW) - 1.0 / max(pace.full_mps, SLOW), 0.0) * rest_m
    return pace.full_mps * np.minimum(turn_s, longer_s)


def route_ahead(
    route_odom_m: NDArray[np.floating], progress_m: float, observation: Observation, length_m: float
) -> RouteAhead:
    """The next `length_m` of a route (n, 2) of which the robot has done `progress_m`, and the route's end."""
    whole_m = float(cumulative_length_m(route_odom_m)[-1])
    arc_m = np.append(np.arange(0.0, length_m, STEP_M) + progress_m, whole_m)
    line = inverse_transform_points(observation.pose_odom_base, points_at(route_odom_m, arc_m))
    points = (line[:, 0] + 1j * line[:, 1]).astype(np.complex64)
    return RouteAhead(points[:-1], complex(points[-1]), max(whole_m - progress_m, 0.0))


def progress_m(
    route: RouteAhead,
    positions: NDArray[np.complex64],
    yaw_rad: Singles,
    free: NDArray[np.int64],
    time_s: NDArray[np.floating],
    pace: Pace,
    config: ProgressConfig,
) -> Singles:
    """(K,) progress of plans along the route, less the prices of being beside it and of looking away from it.

    Args:
        route: what is ahead.
        positions: (K, T) x + iy.
        yaw_rad: (K, T).
        free: (K,) steps before the first touch; what comes after does not count.
        time_s: (T,) ends of the steps.
        pace: at full speed counts time that is left at the goal.
        config: prices.
    """
    rows, last = np.arange(len(positions)), np.maximum(free - 1, 0)
    ends, yaw = positions[rows, last], yaw_rad[rows, last]
    line = route.line
    beside = np.abs(ends[:, None] - line[None])
    nearest = beside.argmin(axis=1)
    aim = line[np.minimum(nearest + AIM_POINTS, len(line) - 1)] - ends
    off = np.where(np.abs(aim) < NEAR_M, 0.0, np.abs(np.angle(aim * np.exp(-1j * yaw))))
    gain = STEP_M * nearest - config.route_weight * beside[rows, nearest] - config.heading_weight * off
    if config.turn_round_weight:
        rest = np.maximum(route.length_m - STEP_M * nearest, 0.0)
        gain = gain - config.turn_round_weight * turning_m(off, rest, pace)
    there = (np.abs(positions - np.complex64(route.end)) < config.arrival_m) & (np.arange(len(time_s)) < free[:, None])
    left_s = time_s[-1] - time_s[there.argmax(axis=1)]
    return np.asarray(np.where(there.any(axis=1), route.length_m + pace.full_mps * left_s, gain), np.float32)


def change_m(commands: NDArray[np.floating], observation: Observation, config: ProgressConfig) -> Singles:
    """(K,) price of first commands (K, 3) m/s and rad/s that differ from the last one or go sideways."""
    change = np.abs(commands - observation.last_command)
    price = config.change_weight * (np.hypot(change[:, 0], change[:, 1]) + change[:, 2] / 3)
    price = price + config.side_weight * np.abs(commands[:, 1])
    return np.asarray(price, np.float32)
