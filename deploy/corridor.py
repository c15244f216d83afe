"""What the robot's body sweeps while it brakes, against the lidar's points. Base frame of the scan, numpy only.

A velocity is followed as an arc over the distance of reacting and braking, v_now * (latency + age) + v^2 / (2 a), where
v_now is the speed that the robot has already in that direction, if that is more, and age is the scan's; the same for
the yaw rate. The footprint with a small margin must stay clear on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deploy.config import GovernorLimits

STEP_M = 0.04  # between the poses at which the footprint is checked
MAX_POSES = 16
REACH_M = 0.2  # beyond what the footprint can reach, points do not count
CLOSER_M = 1e-3  # a point must come closer by this to count: moving away from what touches is allowed
SPEED_SCALES = (0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85)
TURN_SCALES = (1.0, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class Scan:
    """What is known of the surroundings: (n, 2) points in the base frame, the twist (3,) then, and the scan's age."""

    points_base_m: NDArray[np.float64]
    twist_base: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    age_s: float = 0.0


def braking_poses(velocity: NDArray[np.float64], scan: Scan, limits: GovernorLimits) -> NDArray[np.float64]:
    """(k, 3) poses of the base on the arc of braking from `velocity`, the last at its end, in the scan's base frame."""
    config = limits.config
    react_s = config.latency_s + scan.age_s
    speed, turn = float(np.hypot(velocity[0], velocity[1])), abs(float(velocity[2]))
    travel_s = turn_s = 0.0  # for which the velocity would last to cover the distance
    if speed > 0:
        towards = float(velocity[:2] @ scan.twist_base[:2]) / speed
        travel_s = react_s * max(1.0, towards / speed) + speed / (2 * config.braking_mps2)
    if turn > 0:
        towards = float(np.sign(velocity[2]) * scan.twist_base[2])
        turn_s = react_s * max(1.0, towards / turn) + turn / (2 * config.yaw_braking_radps2)
    radius_m = float(np.hypot(limits.length_m, limits.width_m)) / 2
    count = int(np.clip(np.ceil((speed * travel_s + turn * turn_s * radius_m) / STEP_M), 1, MAX_POSES))
    part = np.arange(1, count + 1) / count
    yaw = velocity[2] * turn_s * part
    # Integrals of cos and sin of the yaw along the arc; np.sinc keeps them exact near zero.
    forward = travel_s * part * np.sinc(yaw / np.pi)
    sideways = travel_s * part * np.sinc(yaw / (2 * np.pi)) * np.sin(yaw / 2)
    vx, vy = velocity[0], velocity[1]
    return np.stack([vx * forward - vy * sideways, vx * sideways + vy * forward, yaw], axis=1)


def is_clear(velocity: NDArray[np.float64], scan: Scan, limits: GovernorLimits) -> bool:
    """Whether no point comes into the footprint and its margin while the robot brakes from `velocity`.

    Where something is closer than the margin already, the margin shrinks to what is left: the robot may slide along
    or away, not closer.
    """
    points = scan.points_base_m
    if not len(points) or not velocity.any():
        return True
    poses = braking_poses(velocity, scan, limits)
    half = np.array([limits.length_m, limits.width_m]) / 2
    reach_m = float(np.hypot(poses[-1, 0], poses[-1, 1])) + float(np.hypot(*half)) + REACH_M
    points = points[(points**2).sum(axis=1) < reach_m**2]
    if not len(points):
        return True
    now = (np.abs(points) - half).max(axis=1)  # (n,) distance outside the footprint, by the larger axis
    margin = float(np.clip(now.min() - CLOSER_M, 0.0, limits.config.corridor_margin_m))
    c, s = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    dx = points[None, :, 0] - poses[:, 0, None]
    dy = points[None, :, 1] - poses[:, 1, None]
    then = np.maximum(np.abs(c * dx + s * dy) - half[0], np.abs(c * dy - s * dx) - half[1])  # (k, n)
    return not bool(((then < margin) & (then < now - CLOSER_M)).any())


def safe_velocity(velocity: NDArray[np.float64], scan: Scan, limits: GovernorLimits) -> NDArray[np.float64]:
    """The velocity, slowed on the same arc as far as needed; turning on the spot if only that is clear; or zero."""
    if is_clear(velocity, scan, limits):
        return velocity
    # Slower sweeps less, so the fastest clear scale is found by halving; what is returned has been checked itself.
    below, above = -1, len(SPEED_SCALES)
    while above - below > 1:
        middle = (below + above) // 2
        if is_clear(velocity * SPEED_SCALES[middle], scan, limits):
            below = middle
        else:
            above = middle
    if below >= 0:
        return velocity * SPEED_SCALES[below]
    turn = np.array([0.0, 0.0, velocity[2]])
    for scale in TURN_SCALES:
        if turn.any() and is_clear(turn * scale, scan, limits):
            return turn * scale
    return np.zeros(3)
