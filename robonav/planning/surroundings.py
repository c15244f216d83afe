"""What stands and moves round the robot at a tick, as points of its last scan, each with the velocity of what it hit.

This is what local planners sweep the footprint through. With tracking, points of movers carry their track's velocity,
and a mover that is hidden behind something else is a ring of points for as long as its track lives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.mapping.tracks import NO_TRACKS, MoverTracker, TrackerConfig, Tracks
from robonav.types import Observation, RobotSpec

_RING = np.exp(2j * np.pi * np.arange(8) / 8)
Complexes = NDArray[np.complex128]
BODY_M = 0.22  # half the width that somebody who walks needs
_OWN_M = 0.15  # what is nearer to his middle than this may be himself


class Surroundings(NamedTuple):
    """Points in odom, x + iy."""

    points_m: Complexes | None = None  # (P,); None before the first scan
    velocity_mps: Complexes = np.zeros(0, np.complex128)  # (P,)
    tracks: Tracks = NO_TRACKS


class SurroundingsTracker:
    """Turns observations into surroundings. Holds constants only."""

    def __init__(
        self, spec: RobotSpec, tracking: bool = True, config: TrackerConfig | None = None, min_range_m: float = 0.05
    ) -> None:
        self.spec = spec
        self.movers = MoverTracker(spec, config) if tracking else None
        self._min_range_m = min_range_m
        self._beams = np.exp(1j * spec.lidar.angles_rad)

    def reset(self) -> Surroundings:
        """Nothing known yet."""
        return Surroundings()

    def update(
        self,
        surroundings: Surroundings,
        observation: Observation,
        tracked: tuple[Tracks, NDArray[np.int64]] | None = None,
    ) -> Surroundings:
        """The surroundings after one more observation; without a scan, the last points move on.

        `tracked` are the tracks after this observation with the track of each beam, from who has them already.

        Raises:
            ShapeError: the scan does not fit the robot.
        """
        tracks, of_beam = surroundings.tracks, None
        if self.movers is not None:
            tracks, of_beam = tracked or self.movers.update(tracks, observation)
        if observation.scan_m is None:
            points = surroundings.points_m
            moved = None if points is None else points + surroundings.velocity_mps * self.spec.dt_s
            return surroundings._replace(points_m=moved, tracks=tracks)
        lidar, scan = self.spec.lidar, np.asarray(observation.scan_m, np.float64)
        hit = (scan < lidar.range_m - 1e-3) & (scan >= self._min_range_m)
        x, y, yaw = (float(v) for v in observation.pose_odom_base)
        points = complex(x, y) + (lidar.mount_x_m + scan[hit] * self._beams[hit]) * np.exp(1j * yaw)
        velocity = np.zeros(len(points), np.complex128)
        if self.movers is not None and of_beam is not None and len(tracks.seen):
            moving = self.movers.moving(tracks)
            of_track = np.where(moving, tracks.velocity_mps[:, 0] + 1j * tracks.velocity_mps[:, 1], 0.0)
            velocity = np.where(of_beam[hit] >= 0, of_track[of_beam[hit]], 0.0)
            hidden = np.flatnonzero(moving & (tracks.unseen_s > 0))
            centre = tracks.position_m[hidden, 0] + 1j * tracks.position_m[hidden, 1]
            rings = centre[:, None] + tracks.radius_m[hidden, None] * _RING
            points = np.concatenate([points, rings.ravel()])
            velocity = np.concatenate([velocity, np.repeat(of_track[hidden], len(_RING))])
        return Surroundings(points, velocity, tracks)


def blocked_s(still: NDArray[Any], centre: NDArray[Any], velocity: NDArray[Any]) -> NDArray[np.float64]:
    """(M,) seconds until bodies at centres (M,) with velocities (M,) come upon points (P,) that stand still.

    All are x + iy in one frame. Infinite where nothing is in the way. Nobody walks through a wall: what comes after
    that time is not known, but it is not that.
    """
    speed = np.abs(velocity)
    along = np.conj(velocity / np.maximum(speed, 1e-9))
    relative = (still[None] - centre[:, None]) * along[:, None]  # (M, P)
    beside = np.abs(relative.imag)
    reach = relative.real - np.sqrt(np.maximum(BODY_M**2 - beside**2, 0.0))
    away = np.where((relative.real > _OWN_M) & (beside < BODY_M), reach, np.inf).min(axis=1, initial=np.inf)
    return np.asarray(np.maximum(away, 0.0) / np.maximum(speed, 1e-9), np.float64)


class Carried(NamedTuple):
    """What is round the robot in the base frame, x + iy m."""

    still: NDArray[np.complex64]  # (P,)
    now: NDArray[np.complex64]  # (M,) of what moves
    ahead: NDArray[np.complex64]  # (T, M) carried forward
    velocity: NDArray[np.complex64]  # (M,) m/s


def still_and_moving(
    surroundings: Surroundings,
    pose_odom_base: NDArray[np.floating],
    time_s: NDArray[np.floating],
    reach_m: float,
    walls: bool = False,
) -> Carried:
    """Points that stand still, and those that keep their velocity, in the base frame, these at times (T,) from now.

    With `walls` those that move together stop at what stands in their way. Those that cannot come within `reach_m` of
    the base are left out. Before the first scan there are none.
    """
    time_s = np.asarray(time_s, np.float64)
    if surroundings.points_m is None:
        none = np.zeros(0, np.complex64)
        return Carried(none, none, np.zeros((len(time_s), 0), np.complex64), none)
    x, y, yaw = (float(v) for v in pose_odom_base)
    turn = np.exp(-1j * yaw)
    points, velocity = (surroundings.points_m - complex(x, y)) * turn, surroundings.velocity_mps * turn
    moves = velocity != 0
    still = points[~moves]
    points, velocity = points[moves], velocity[moves]
    until = np.full(len(points), np.inf)
    if walls and len(points):
        of_track, which = np.unique(velocity, return_inverse=True)
        centre = np.array([points[which == i].mean() for i in range(len(of_track))])
        until = blocked_s(still, centre, of_track)[which]
    ahead = points[None] + velocity[None] * np.minimum(time_s[:, None], until)
    near = (np.abs(ahead) < reach_m).any(axis=0) | (np.abs(points) < reach_m)
    parts = still[np.abs(still) < reach_m], points[near], ahead[:, near], velocity[near]
    return Carried(*(part.astype(np.complex64) for part in parts))


def points_ahead(
    surroundings: Surroundings, pose_odom_base: NDArray[np.floating], time_s: NDArray[np.floating], reach_m: float
) -> NDArray[np.complex64]:
    """(T, P) points in the base frame at times (T,) from now, at constant velocity; (1, P) if none moves.

    Those that cannot come within `reach_m` of the base are left out. Before the first scan there are none.
    """
    if surroundings.points_m is None:
        return np.zeros((1, 0), np.complex64)
    x, y, yaw = (float(v) for v in pose_odom_base)
    turn = np.exp(-1j * yaw)
    points, velocity = (surroundings.points_m - complex(x, y)) * turn, surroundings.velocity_mps * turn
    near = np.abs(points) < reach_m + np.abs(velocity) * float(np.max(time_s))
    points, velocity = points[near], velocity[near]
    if not velocity.any():
        return points[None].astype(np.complex64)
    return np.asarray(points[None] + velocity[None] * np.asarray(time_s)[:, None], np.complex64)
