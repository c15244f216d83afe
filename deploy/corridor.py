"""What the robot's body sweeps while it brakes, against the lidar's points. Base frame, numpy only.

A velocity is followed as a constant arc for the time in which the robot covers v * latency + v^2 / (2 a), the
distance of reacting and braking (and the same for the yaw rate); the footprint with a small margin must stay clear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.config import GovernorLimits
from robonav.types import LidarSpec

STEP_M = 0.04  # between the poses at which the footprint is checked
MAX_POSES = 16
CLOSER_M = 1e-3  # a point must come closer by this to count: moving away from what touches is allowed
SPEED_SCALES = (0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1)
TURN_SCALES = (1.0, 0.5, 0.25)


def scan_points(scan_m: NDArray[Any], lidar: LidarSpec) -> NDArray[np.float64]:
    """(beams,) ranges to the (n, 2) points that were hit, in the base frame."""
    ranges = np.asarray(scan_m, dtype=np.float64)
    hit = (ranges > 0) & (ranges < lidar.range_m - 1e-3)
    angles = lidar.angles_rad[hit]
    ranges = ranges[hit]
    return np.stack([lidar.mount_x_m + ranges * np.cos(angles), ranges * np.sin(angles)], axis=1)


def braking_distance_m(speed_mps: float, limits: GovernorLimits) -> float:
    """v * latency + v^2 / (2 a)."""
    return speed_mps * limits.config.latency_s + speed_mps**2 / (2 * limits.config.braking_mps2)


def braking_poses(velocity: NDArray[np.float64], limits: GovernorLimits) -> NDArray[np.float64]:
    """(k, 3) poses of the base on the arc of braking, the last at its end, in the present base frame."""
    vx, vy, yaw_rate = velocity
    speed, turn = float(np.hypot(vx, vy)), abs(float(yaw_rate))
    config = limits.config
    # Each motion stops after its own time; the longer one is taken for both, which sweeps more, never less.
    time_s = config.latency_s + max(speed / (2 * config.braking_mps2), turn / (2 * config.yaw_braking_radps2))
    radius_m = float(np.hypot(limits.length_m, limits.width_m)) / 2
    count = int(np.clip(np.ceil((speed + turn * radius_m) * time_s / STEP_M), 1, MAX_POSES))
    t = time_s * np.arange(1, count + 1) / count
    yaw = yaw_rate * t
    # Integrals of cos and sin of the yaw over time; np.sinc keeps them exact near zero.
    forward = t * np.sinc(yaw / np.pi)
    sideways = t * np.sinc(yaw / (2 * np.pi)) * np.sin(yaw / 2)
    return np.stack([vx * forward - vy * sideways, vx * sideways + vy * forward, yaw], axis=1)


def is_clear(points: NDArray[np.float64], velocity: NDArray[np.float64], limits: GovernorLimits) -> bool:
    """Whether no point comes into the footprint and its margin while the robot brakes from `velocity`.

    Where something is closer than the margin already, the margin shrinks to what is left: the robot may slide along
    or away, not closer.
    """
    if not len(points) or not velocity.any():
        return True
    half = np.array([limits.length_m, limits.width_m]) / 2
    now = (np.abs(points) - half).max(axis=1)  # (n,) distance outside the footprint, by the larger axis
    margin = float(np.clip(now.min() - CLOSER_M, 0.0, limits.config.corridor_margin_m))
    poses = braking_poses(velocity, limits)
    c, s = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    dx = points[None, :, 0] - poses[:, 0, None]
    dy = points[None, :, 1] - poses[:, 1, None]
    then = np.maximum(np.abs(c * dx + s * dy) - half[0], np.abs(c * dy - s * dx) - half[1])  # (k, n)
    return not bool(((then < margin) & (then < now - CLOSER_M)).any())


def safe_velocity(
    points: NDArray[np.float64], velocity: NDArray[np.float64], limits: GovernorLimits
) -> NDArray[np.float64]:
    """The velocity, slowed on the same arc as far as needed; turning on the spot if only that is clear; or zero."""
    reach = braking_distance_m(float(np.hypot(velocity[0], velocity[1])), limits) * 2
    reach += float(np.hypot(limits.length_m, limits.width_m)) / 2 + limits.config.corridor_margin_m + 0.2
    near = points[(points**2).sum(axis=1) < reach**2]
    if is_clear(near, velocity, limits):
        return velocity
    for scale in SPEED_SCALES:
        if is_clear(near, velocity * scale, limits):
            return velocity * scale
    turn = np.array([0.0, 0.0, velocity[2]])
    for scale in TURN_SCALES:
        if turn.any() and is_clear(near, turn * scale, limits):
            return turn * scale
    return np.zeros(3)
