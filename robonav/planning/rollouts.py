"""Where commands take a robot, and how close its footprint then comes to points: the geometry of local planning.

The robot follows a command as a first-order lag within its acceleration limits, as the simulator's robots do; poses are
those of the base in the frame in which it stands now. Points may move: one set of them a step. Steps may differ in
length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec

Singles = NDArray[np.float32]
Steps = float | NDArray[np.floating]  # seconds of every step, or (T,) of each
_BLOCK = 1 << 16  # pairs of a pose and a point at a time, so that they stay in a core's cache


def velocities_under(
    spec: RobotSpec, twist_base: NDArray[np.floating], commands: NDArray[np.floating], steps: int, dt_s: Steps
) -> Singles:
    """(N, T, 3) velocities after each step, from (3,) now, of a robot that follows commands (N, 3) or (N, T, 3).

    The lag is integrated exactly; the limits hold for a whole step.
    """
    commands = np.asarray(commands, np.float32)
    constant = commands.ndim == 2
    seconds = np.broadcast_to(np.asarray(dt_s, np.float64), (steps,))
    blends = (1.0 - np.exp(-seconds / spec.lag_s) if spec.lag_s > 0 else np.ones(steps)).astype(np.float32)
    planar_most = (spec.acceleration_max_mps2 * seconds).astype(np.float32)
    turn_most = (spec.yaw_acceleration_max_radps2 * seconds).astype(np.float32)
    out = np.empty((steps, 3, len(commands)), np.float32)  # by components, so that each is contiguous
    wanted = np.ascontiguousarray(commands.T[:, None] if constant else commands.transpose(2, 1, 0))  # (3, T, N)
    now = np.repeat(np.asarray(twist_base, np.float32)[:, None], len(commands), axis=1)
    for t in range(steps):
        change = blends[t] * (wanted[:, 0 if constant else t] - now)
        planar = np.sqrt(change[0] * change[0] + change[1] * change[1])
        change[:2] *= np.minimum(np.float32(1.0), planar_most[t] / np.maximum(planar, np.float32(1e-6)))
        change[2] = np.minimum(np.maximum(change[2], -turn_most[t]), turn_most[t])
        out[t] = now = now + change
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def poses_under(velocities: Singles, dt_s: Steps) -> tuple[NDArray[np.complex64], Singles]:
    """Positions x + iy (N, T) and headings (N, T) after each step with velocities (N, T, 3), from (0, 0, 0)."""
    seconds = np.asarray(dt_s, np.float32)
    turned = velocities[..., 2] * seconds
    yaw = np.cumsum(turned, axis=1)
    middle = yaw - turned * np.float32(0.5)
    cos, sin = np.cos(middle), np.sin(middle)
    vx, vy = velocities[..., 0] * seconds, velocities[..., 1] * seconds
    positions = np.empty(yaw.shape, np.complex64)
    np.cumsum(vx * cos - vy * sin, axis=1, out=positions.real)
    np.cumsum(vx * sin + vy * cos, axis=1, out=positions.imag)
    return positions, yaw


def footprint_distance_m(
    spec: RobotSpec, positions: NDArray[np.complex64], yaw_rad: Singles, points: NDArray[np.complex64]
) -> Singles:
    """(N, T) distance from the rectangular footprint to the nearest of points (P,), or (T, P) where they move.

    Inside the footprint it is negative; without points it is infinite.
    """
    count = points.shape[-1]
    if not count:
        return np.full(positions.shape, np.inf, np.float32)
    still = points.ndim == 1 or len(points) == 1
    half = np.array([spec.length_m / 2, spec.width_m / 2], np.float32)
    shape = (1, -1) if still else positions.T.shape  # one product for all steps, or one a step
    cos, sin = np.cos(yaw_rad.T).reshape(shape), np.sin(yaw_rad.T).reshape(shape)
    x, y = positions.real.T.reshape(shape), positions.imag.T.reshape(shape)
    ahead_of = np.stack([cos, sin, -(x * cos + y * sin)], 1)  # (T, 3, N), after (P, 3) of x, y, 1
    beside_of = np.stack([-sin, cos, x * sin - y * cos], 1)
    px, py = points.real.reshape(-1, count), points.imag.reshape(-1, count)
    at: Singles = np.stack([px, py, np.ones_like(px)], -1).astype(np.float32)  # (T, P, 3)
    out: Singles = np.empty(cos.shape, np.float32)
    poses = min(max(1, _BLOCK // count), out.shape[1])
    together = max(1, _BLOCK // (count * poses))  # steps
    for t in range(0, len(at), together):
        now = slice(t, t + together)
        for first in range(0, out.shape[1], poses):
            part = slice(first, first + poses)
            out[now, part] = _box_distance_m(at[now] @ ahead_of[now, :, part], at[now] @ beside_of[now, :, part], half)
    return np.ascontiguousarray(out.reshape(positions.T.shape).T)


def _box_distance_m(ahead: Singles, beside: Singles, half: Singles) -> Singles:
    """(T, n) signed distance from a box of half sizes (2,) to the nearest of its points (T, P, n); overwrites them."""
    np.abs(ahead, out=ahead)
    np.abs(beside, out=beside)
    ahead -= half[0]
    beside -= half[1]
    inside = np.maximum(ahead, beside).min(axis=1)  # also the outside distance, but for the corners
    np.maximum(ahead, np.float32(0.0), out=ahead)
    np.maximum(beside, np.float32(0.0), out=beside)
    ahead *= ahead
    beside *= beside
    ahead += beside
    return np.where(inside > 0, np.sqrt(ahead.min(axis=1)), inside)
