"""What is round the robot as arrays of a fixed size: the distance to what stands, on a grid, and discs that move.

This is what an exported planner reads: no matter how many points a scan has, its graph stays the same. The grid is
centred on the base and turned with it; each cell holds the distance from its centre to the nearest point itself, not
to the cell that holds it, so that distances are right to about a centimetre, or to a cell where two points share one. A
footprint is swept through it as seven spots: three discs along its longer axis and one in each corner.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.planning.surroundings import Surroundings, blocked_s
from robonav.types import RobotSpec

Singles = NDArray[np.float32]
CELLS = 128
MOVERS = 8  # further ones, the most distant first, stand still
FAR_M = 1e3  # where discs are that are none
LONG_S = 1e3  # for which nothing stands in somebody's way
NOTHING_M = 20.0  # distance where nothing stands
_CORNER = 0.25  # radius of a corner's spot over that of the discs


class LocalField(NamedTuple):
    """What stands and moves, in the base frame of now."""

    distance_m: Singles  # (CELLS, CELLS) rows along y, columns along x
    half_m: float  # from the base to the centres of the outermost cells
    movers: Singles  # (MOVERS, 6) x, y m, velocity x, y m/s, radius m, seconds until something stands in the way
    standing: NDArray[np.complex64]  # (P,) x + iy m, that the grid was made of


def local_field(
    surroundings: Surroundings, moving: NDArray[np.bool_], pose_odom_base: NDArray[np.floating], half_m: float
) -> LocalField:
    """The field round a robot.

    Args:
        surroundings: points, and tracks of what moves.
        moving: (K,) which of the tracks move for certain.
        pose_odom_base: (3,) of the robot.
        half_m: how far the grid reaches.
    """
    x, y, yaw = (float(v) for v in pose_odom_base)
    turn = np.exp(-1j * yaw)
    tracks, chosen = surroundings.tracks, np.flatnonzero(moving)
    centre = (tracks.position_m[chosen, 0] + 1j * tracks.position_m[chosen, 1] - complex(x, y)) * turn
    velocity = (tracks.velocity_mps[chosen, 0] + 1j * tracks.velocity_mps[chosen, 1]) * turn
    nearest = np.argsort(np.abs(centre), kind="stable")[:MOVERS]
    chosen, centre, velocity = chosen[nearest], centre[nearest], velocity[nearest]
    standing = _standing(surroundings, velocity, complex(x, y), turn)
    until = np.minimum(blocked_s(standing, centre, velocity), LONG_S)
    movers = no_movers()
    movers[: len(chosen)] = np.stack([*_parts(centre), *_parts(velocity), tracks.radius_m[chosen], until], axis=1)
    return LocalField(distance_grid(standing, half_m), half_m, movers, standing)


def no_movers() -> Singles:
    """(MOVERS, 6) of nobody."""
    return np.tile(np.array([FAR_M, 0.0, 0.0, 0.0, 0.0, LONG_S], np.float32), (MOVERS, 1))


def _parts(points: NDArray[np.complexfloating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return points.real, points.imag


def field_half_m(spec: RobotSpec, seconds: float, beyond_m: float) -> float:
    """How far a field must reach for a robot that drives for so long and looks so far beyond its footprint."""
    return spec.vx_max_mps * seconds + spec.radius_m + beyond_m


def footprint_spots(spec: RobotSpec) -> Singles:
    """(7, 3) x, y, radius in the base frame of the discs that stand for the footprint."""
    long, short = max(spec.length_m, spec.width_m) / 2, min(spec.length_m, spec.width_m) / 2
    corner = _CORNER * short
    spots = [(along * (long - short), 0.0, short) for along in (-1, 0, 1)]
    spots += [(i * (long - corner), j * (short - corner), corner) for i in (-1, 1) for j in (-1, 1)]
    found = np.array(spots, np.float32)
    return found if spec.length_m >= spec.width_m else found[:, [1, 0, 2]]


def spots_distance_m(field: LocalField, positions: NDArray[np.complex64], yaw_rad: Singles, spots: Singles) -> Singles:
    """(N, T) distance from a footprint's spots at poses (N, T) to what stands; beyond the grid that of its edge."""
    centre = (spots[:, 0] + 1j * spots[:, 1]).astype(np.complex64)
    at = positions[..., None] + np.exp(1j * yaw_rad)[..., None] * centre
    scale = np.float32((CELLS - 1) / 2)
    column, row = (np.clip((part / np.float32(field.half_m) + 1) * scale, 0, CELLS - 1) for part in (at.real, at.imag))
    left, low = (np.minimum(part.astype(np.int64), CELLS - 2) for part in (column, row))
    across, up = column - left, row - low
    cells = field.distance_m
    below = cells[low, left] * (1 - across) + cells[low, left + 1] * across
    above = cells[low + 1, left] * (1 - across) + cells[low + 1, left + 1] * across
    return np.asarray((below * (1 - up) + above * up - spots[:, 2]).min(-1), np.float32)


def movers_distance_m(
    spec: RobotSpec, positions: NDArray[np.complex64], yaw_rad: Singles, centre: NDArray[np.complex64], radius: Singles
) -> Singles:
    """(N, T) signed distance from the footprint at poses (N, T) to the nearest of discs at centres (T, M)."""
    relative = (centre[None] - positions[..., None]) * np.exp(-1j * yaw_rad)[..., None]
    ahead, beside = np.abs(relative.real) - spec.length_m / 2, np.abs(relative.imag) - spec.width_m / 2
    outside = np.hypot(np.maximum(ahead, 0), np.maximum(beside, 0))
    return np.asarray((outside + np.minimum(np.maximum(ahead, beside), 0) - radius).min(-1), np.float32)


def _standing(
    surroundings: Surroundings,
    velocity: NDArray[np.complex128],
    at: complex,
    turn: complex,
) -> NDArray[np.complex64]:
    """(P,) points in the base frame that belong to no disc that moves."""
    if surroundings.points_m is None:
        return np.zeros(0, np.complex64)
    points, drift = (surroundings.points_m - at) * turn, surroundings.velocity_mps * turn
    # a moving point has exactly its track's velocity
    carried = (np.abs(drift[:, None] - velocity[None]) < 1e-9).any(axis=1) & (drift != 0)
    return points[~carried].astype(np.complex64)


def distance_grid(points: NDArray[np.complex64], half_m: float) -> Singles:
    """(CELLS, CELLS) distance from each cell's centre to the nearest of points (P,)."""
    scale = (CELLS - 1) / 2
    margin = 8  # points just outside count as well
    column, row = (np.rint((part / half_m + 1) * scale).astype(int) + margin for part in (points.real, points.imag))
    size = CELLS + 2 * margin
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    points, column, row = points[inside], column[inside], row[inside]
    if not len(points):
        return np.full((CELLS, CELLS), NOTHING_M, np.float32)
    free = np.ones((size, size), np.uint8)
    free[row, column] = 0
    _, labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(int(labels.max()) + 1, np.complex128)
    of_label[labels[row, column]] = points
    centres = (np.arange(CELLS) / scale - 1) * half_m
    nearest = of_label[labels[margin:-margin, margin:-margin]]
    return np.hypot(nearest.real - centres[None], nearest.imag - centres[:, None]).astype(np.float32)
