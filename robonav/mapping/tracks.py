"""Mover tracks from lidar scans: clusters of beams in odom, each followed by a constant-velocity Kalman filter.

The scan is taken to odom with the pose it was measured at, so that what stands still stays where it is. Beams that hit
neighbouring points form a cluster; clusters that stand in front of what surrounds them, and are no larger than a
mover can be, are followed. Those whose velocity is significant are movers. State is explicit: `Tracks` in and out.

A cluster's centre is estimated as that of a disc as wide as the cluster: the mean of the visible half, pushed away from
the sensor by pi/4 of its radius.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, ShapeError, explain
from robonav.types import LidarSpec, Observation, RobotSpec

Floats = NDArray[np.float64]
_VISIBLE_CENTRE = math.pi / 4  # of a disc's radius, from its centre to the mean of the half that beams see


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """What counts as one thing, how it may move, and when it counts as moving."""

    gap_m: float = 0.12  # neighbouring hits further apart belong to two things; twice the beams' spacing counts too
    extent_max_m: float = 1.3  # larger things are walls
    noise_m: float = 0.04  # of a cluster's centre, on top of what the beams' spacing gives
    acceleration_mps2: float = 0.8  # standard deviation of the unknown acceleration
    first_speed_mps: float = 1.0  # standard deviation of the velocity of something new
    gate_sigmas: float = 3.0  # a cluster further from where a track ought to be is something else
    forget_s: float = 1.2  # a track that was not seen for so long is gone
    moving_mps: float = 0.2  # slower things stand still
    moving_sigmas: float = 2.0  # and so do those whose speed is within the error
    seen_min: int = 4  # scans before anything counts as moving

    def __post_init__(self) -> None:
        """Checks signs.

        Raises:
            ConfigError: a value that is not positive.
        """
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(explain(f"tracker: {name}", "above 0", getattr(self, name)))


class Tracks(NamedTuple):
    """K things that are followed, in odom."""

    position_m: Floats  # (K, 2)
    velocity_mps: Floats  # (K, 2)
    variance: Floats  # (K, 3) of position, of position with velocity, and of velocity; the same along x and y
    radius_m: Floats  # (K,)
    seen: NDArray[np.int64]  # (K,) scans in which it was seen
    unseen_s: Floats  # (K,) seconds since it was seen last
    stamp_ns: int = 0  # of the last observation


class Clusters(NamedTuple):
    """C things in a scan, in odom."""

    centre_m: Floats  # (C, 2)
    variance_m2: Floats  # (C,) of the centre, along each axis
    radius_m: Floats  # (C,)
    of_beam: NDArray[np.int64]  # (beams,) index of a beam's cluster; -1 for none


NO_TRACKS = Tracks(
    np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0)
)


class MoverTracker:
    """Follows what moves. Holds constants only."""

    def __init__(self, spec: RobotSpec, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self.lidar: LidarSpec = spec.lidar
        self._beams = np.exp(1j * spec.lidar.angles_rad)
        self._spacing_rad = spec.lidar.increment_rad
        self._round = spec.lidar.fov_rad > 2 * math.pi - 1e-6

    def reset(self) -> Tracks:
        """Nothing known yet."""
        return NO_TRACKS

    def update(self, tracks: Tracks, observation: Observation) -> tuple[Tracks, NDArray[np.int64]]:
        """Tracks after one more observation, and (beams,) the index of each beam's track, -1 for none.

        Without a scan the tracks move on as predicted.

        Raises:
            ShapeError: the scan does not fit the robot.
        """
        dt_s = (observation.stamp_ns - tracks.stamp_ns) * 1e-9 if len(tracks.seen) else 0.0
        tracks = self._predict(tracks._replace(stamp_ns=observation.stamp_ns), max(dt_s, 0.0))
        none = np.full(self.lidar.beams, -1)
        if observation.scan_m is None:
            return self._kept(tracks, none)
        clusters = self.clusters(np.asarray(observation.scan_m, np.float64), observation.pose_odom_base)
        of_cluster = self._matched(tracks, clusters)
        tracks = self._corrected(tracks, clusters, of_cluster)
        new = np.flatnonzero(of_cluster < 0)
        of_cluster[new] = len(tracks.seen) + np.arange(len(new))
        tracks = self._begun(tracks, clusters, new)
        of_beam = np.where(clusters.of_beam >= 0, of_cluster[clusters.of_beam], -1) if len(of_cluster) else none
        return self._kept(tracks, of_beam)

    def moving(self, tracks: Tracks) -> NDArray[np.bool_]:
        """(K,) which tracks move for certain."""
        c = self.config
        speed = np.hypot(tracks.velocity_mps[:, 0], tracks.velocity_mps[:, 1])
        certain = speed > c.moving_sigmas * np.sqrt(tracks.variance[:, 2])
        return np.asarray((speed > c.moving_mps) & certain & (tracks.seen >= c.seen_min))

    def clusters(self, scan_m: Floats, pose_odom_base: NDArray[np.floating]) -> Clusters:
        """Things in front of what surrounds them, and no larger than a mover.

        Raises:
            ShapeError: the scan does not fit the robot.
        """
        lidar, c = self.lidar, self.config
        if scan_m.shape != (lidar.beams,):
            raise ShapeError(explain("scan_m", (lidar.beams,), scan_m.shape))
        x, y, yaw = (float(v) for v in pose_odom_base)
        turn = complex(math.cos(yaw), math.sin(yaw))
        sensor = complex(x, y) + lidar.mount_x_m * turn
        points = sensor + scan_m * self._beams * turn
        hit = (scan_m < lidar.range_m - 1e-3) & (scan_m > 0)
        following = np.roll(points, -1)
        gap = np.maximum(c.gap_m, 2.0 * self._spacing_rad * np.minimum(scan_m, np.roll(scan_m, -1)))
        breaks = ~(hit & np.roll(hit, -1) & (np.abs(following - points) < gap))  # between a beam and the next one
        if not self._round:
            breaks[-1] = True
        if not breaks.any():  # one wall all round
            return Clusters(np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.full(lidar.beams, -1))
        first_beam = int(np.flatnonzero(breaks)[0]) + 1  # so that no cluster goes over the end
        order = (np.arange(lidar.beams) + first_beam) % lidar.beams
        ends = np.flatnonzero(breaks[order])
        starts = np.concatenate(([0], ends[:-1] + 1))
        begin, end = order[starts], order[ends]
        before, after = (begin - 1) % lidar.beams, (end + 1) % lidar.beams
        in_front = (scan_m[before] > scan_m[begin]) & (scan_m[after] > scan_m[end])
        if not self._round:
            in_front &= (begin != 0) & (end != lidar.beams - 1)
        counts = ends - starts + 1
        mean = np.add.reduceat(points[order], starts) / counts
        range_m = np.abs(mean - sensor)
        spacing = self._spacing_rad * range_m
        width = np.abs(points[end] - points[begin]) + spacing * (counts > 1)
        chosen = np.flatnonzero(hit[begin] & in_front & (width < c.extent_max_m))
        radius = np.maximum(width[chosen] / 2, 0.05)
        away = (mean[chosen] - sensor) / np.maximum(range_m[chosen], 1e-6)
        centre = mean[chosen] + _VISIBLE_CENTRE * radius * away
        number = np.full(len(starts), -1)
        number[chosen] = np.arange(len(chosen))
        of_beam = np.empty(lidar.beams, np.int64)
        of_beam[order] = np.repeat(number, counts)
        # each end of a cluster is known to the beams' spacing, uniformly; its middle is the mean of two ends
        variance = c.noise_m**2 + spacing[chosen] ** 2 / 24
        return Clusters(np.stack([centre.real, centre.imag], -1), variance, radius, of_beam)

    def _predict(self, tracks: Tracks, dt_s: float) -> Tracks:
        """Constant velocity with white acceleration."""
        p, pv, v = tracks.variance.T
        q = self.config.acceleration_mps2**2
        variance = np.stack(
            [p + 2 * dt_s * pv + dt_s**2 * v + q * dt_s**4 / 4, pv + dt_s * v + q * dt_s**3 / 2, v + q * dt_s**2], -1
        )
        position = tracks.position_m + dt_s * tracks.velocity_mps
        return tracks._replace(position_m=position, variance=variance, unseen_s=tracks.unseen_s + dt_s)

    def _matched(self, tracks: Tracks, clusters: Clusters) -> NDArray[np.int64]:
        """(C,) track of each cluster, -1 for none; the closest pairs first."""
        of_cluster = np.full(len(clusters.radius_m), -1)
        if not len(of_cluster) or not len(tracks.seen):
            return of_cluster
        apart = np.linalg.norm(tracks.position_m[:, None] - clusters.centre_m[None], axis=-1)  # (K, C)
        gate = self.config.gate_sigmas * np.sqrt(tracks.variance[:, :1] + clusters.variance_m2[None]) + 0.05
        track_taken = np.zeros(len(tracks.seen), np.bool_)
        for flat in np.argsort(apart, axis=None):
            k, c = divmod(int(flat), len(of_cluster))
            if apart[k, c] < gate[k, c] and not track_taken[k] and of_cluster[c] < 0:
                of_cluster[c], track_taken[k] = k, True
        return of_cluster

    def _corrected(self, tracks: Tracks, clusters: Clusters, of_cluster: NDArray[np.int64]) -> Tracks:
        """Kalman's correction of the tracks that were seen."""
        at = np.flatnonzero(of_cluster >= 0)
        k = of_cluster[at]
        position, velocity, variance, radius, seen, unseen, _ = (np.copy(part) for part in tracks)
        p, pv, v = variance[k].T
        share_p, share_v = p / (p + clusters.variance_m2[at]), pv / (p + clusters.variance_m2[at])
        surprise = clusters.centre_m[at] - position[k]
        position[k] += share_p[:, None] * surprise
        velocity[k] += share_v[:, None] * surprise
        variance[k] = np.stack([(1 - share_p) * p, (1 - share_p) * pv, v - share_v * pv], -1)
        radius[k] += 0.2 * (clusters.radius_m[at] - radius[k])
        seen[k] += 1
        unseen[k] = 0.0
        return Tracks(position, velocity, variance, radius, seen, unseen, tracks.stamp_ns)

    def _begun(self, tracks: Tracks, clusters: Clusters, new: NDArray[np.int64]) -> Tracks:
        """With a track for each cluster that belongs to none."""
        n = len(new)
        first = np.stack([clusters.variance_m2[new], np.zeros(n), np.full(n, self.config.first_speed_mps**2)], -1)
        return Tracks(
            np.concatenate([tracks.position_m, clusters.centre_m[new]]),
            np.concatenate([tracks.velocity_mps, np.zeros((n, 2))]),
            np.concatenate([tracks.variance, first]),
            np.concatenate([tracks.radius_m, clusters.radius_m[new]]),
            np.concatenate([tracks.seen, np.ones(n, np.int64)]),
            np.concatenate([tracks.unseen_s, np.zeros(n)]),
            tracks.stamp_ns,
        )

    def _kept(self, tracks: Tracks, of_beam: NDArray[np.int64]) -> tuple[Tracks, NDArray[np.int64]]:
        """Without those that were not seen for long, or, where they were not known to move, not just now."""
        known = tracks.seen >= self.config.seen_min
        keep = tracks.unseen_s <= np.where(known, self.config.forget_s, self.config.forget_s / 4)
        if keep.all():
            return tracks, of_beam
        number = np.full(len(keep) + 1, -1)  # the last place is that of beams without a track
        number[:-1][keep] = np.arange(int(keep.sum()))
        kept = Tracks(
            tracks.position_m[keep],
            tracks.velocity_mps[keep],
            tracks.variance[keep],
            tracks.radius_m[keep],
            tracks.seen[keep],
            tracks.unseen_s[keep],
            tracks.stamp_ns,
        )
        return kept, number[of_beam]
