"""Where commands take a robot, and how close its footprint then comes to points: the geometry of local planning.

The robot follows a command as a first-order lag within its acceleration limits, as the simulator's robots do; poses are
those of the base in the frame in which it stands now. Points may move: one set of them a step.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec

Singles = NDArray[np.float32]


def velocities_under(
    spec: RobotSpec, twist_base: NDArray[np.floating], commands: NDArray[np.floating], steps: int, dt_s: float
) -> Singles:
    """(N, T, 3) velocities after each step, from (3,) now, of a robot that follows commands (N, 3) or (N, T, 3).

    The lag is integrated exactly; the limits hold for a whole step.
    """
    commands = np.asarray(commands, np.float32)
    if commands.ndim == 2:
        commands = np.broadcast_to(commands[:, None], (len(commands), steps, 3))
    blend = np.float32(1.0 - math.exp(-dt_s / spec.lag_s) if spec.lag_s > 0 else 1.0)
    planar_most = np.float32(spec.acceleration_max_mps2 * dt_s)
    turn_most = np.float32(spec.yaw_acceleration_max_radps2 * dt_s)
    out = np.empty((len(commands), steps, 3), np.float32)
    now = np.broadcast_to(np.asarray(twist_base, np.float32), (len(commands), 3))
    for t in range(steps):
        change = blend * (commands[:, t] - now)
        planar = np.hypot(change[:, 0], change[:, 1])
        change[:, :2] *= np.minimum(1.0, planar_most / np.maximum(planar, 1e-6))[:, None]
        change[:, 2] = np.clip(change[:, 2], -turn_most, turn_most)
        out[:, t] = now = now + change
    return out


def poses_under(velocities: Singles, dt_s: float) -> tuple[NDArray[np.complex64], Singles]:
    """Positions x + iy (N, T) and headings (N, T) after each step with velocities (N, T, 3), from (0, 0, 0)."""
    yaw = np.cumsum(velocities[..., 2] * np.float32(dt_s), axis=1)
    middle = yaw - velocities[..., 2] * np.float32(dt_s / 2)
    speed = velocities[..., 0] + 1j * velocities[..., 1]
    return np.cumsum(speed * np.exp(1j * middle) * np.float32(dt_s), axis=1).astype(np.complex64), yaw


def footprint_distance_m(
    spec: RobotSpec, positions: NDArray[np.complex64], yaw_rad: Singles, points: NDArray[np.complex64]
) -> Singles:
    """(N, T) distance from the rectangular footprint to the nearest of points (P,), or (T, P) where they move.

    Inside the footprint it is negative; without points it is infinite.
    """
    if not points.shape[-1]:
        return np.full(positions.shape, np.inf, np.float32)
    seen = (points - positions[..., None]) * np.exp(-1j * yaw_rad).astype(np.complex64)[..., None]  # (N, T, P)
    ahead = np.abs(seen.real) - np.float32(spec.length_m / 2)
    beside = np.abs(seen.imag) - np.float32(spec.width_m / 2)
    inside = np.maximum(ahead, beside)  # also the outside distance, but for the corners
    np.maximum(ahead, 0, out=ahead)
    np.maximum(beside, 0, out=beside)
    squared = ahead * ahead + beside * beside
    nearest = np.sqrt(squared.min(axis=-1))
    return np.where(nearest > 0, nearest, inside.min(axis=-1))
