"""Mover tracks from lidar scans: clusters of beams in odom, each followed by a constant-velocity Kalman filter.

The scan is taken to odom with the pose it was measured at, so that what stands still stays where it is. Beams that hit
neighbouring points form a cluster; followed are those that are no larger than a mover can be and, at one end at least,
stand in front of what is beside them. State is explicit: `Tracks` in and out.

Movers are those whose velocity is significant and explains an earlier scan better than standing still does. For what a
cluster shows of a wall, past a door's edge or where beams begin to graze, glides along with the robot and so has a
velocity; but no beam went through the place where it is now, as they did where somebody has walked to.

A cluster's centre is estimated as that of a disc as wide as the cluster: the mean of the visible half, pushed away from
the sensor by pi/4 of its radius.

Sums run in the order of the beams, and everything else is plus, minus, times, divided by and square roots in double
precision (and sine, cosine and arctangent of `math`), so that compiled code gives the same bits.
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
TURN = 2 * math.pi
EVIDENCE_SHARE = 0.5  # of the newest scan in a track's evidence
VISIBLE_CENTRE = math.pi / 4  # of a disc's radius, from its centre to the mean of the half that beams see


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """What counts as one thing, how it may move, and when it counts as moving."""

    gap_m: float = 0.12  # neighbouring hits further apart belong to two things; twice the beams' spacing counts too
    extent_max_m: float = 1.3  # larger things are walls
    noise_m: float = 0.04  # of a cluster's centre, on top of what the beams' spacing gives
    hidden_noise_m: float = 0.12  # the same, where something else hides one end of the cluster
    hidden_beams_min: int = 2  # beams of such a cluster; on a grazed wall each beam would be one for itself
    acceleration_mps2: float = 0.8  # standard deviation of the unknown acceleration
    first_speed_mps: float = 1.0  # standard deviation of the velocity of something new
    gate_sigmas: float = 3.0  # a cluster further from where a track ought to be is something else
    forget_s: float = 1.2  # a track that was not seen for so long is gone
    moving_mps: float = 0.15  # slower things stand still
    moving_sigmas: float = 1.5  # and so do those whose speed is within the error
    seen_min: int = 4  # scans before anything counts as moving
    past_scans: int = 4  # scans back to the one that a motion has to explain
    misfit_max_m: float = 0.3  # of a beam; what fits worse counts as that
    evidence_min_m: float = 0.03  # by so much a motion must explain that scan better than standing still does
    tracks_max: int = 64  # further new things are left out, the most distant first

    def __post_init__(self) -> None:
        """Checks signs.

        Raises:
            ConfigError: a value that is not positive.
        """
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(explain(f"tracker: {name}", "above 0", getattr(self, name)))


class Past(NamedTuple):
    """A scan that was."""

    scan_m: Floats  # (beams,)
    sensor: tuple[float, float, float]  # x, y, yaw in odom
    stamp_ns: int


class Tracks(NamedTuple):
    """K things that are followed, in odom."""

    position_m: Floats  # (K, 2)
    velocity_mps: Floats  # (K, 2)
    variance: Floats  # (K, 3) of position, of position with velocity, and of velocity; the same along x and y
    radius_m: Floats  # (K,)
    seen: NDArray[np.int64]  # (K,) scans in which it was seen
    unseen_s: Floats  # (K,) seconds since it was seen last
    evidence_m: Floats  # (K,) by how much its motion explains an earlier scan better than standing still does
    stamp_ns: int = 0  # of the last observation
    past: tuple[Past, ...] = ()  # the last scans, the newest last


class Clusters(NamedTuple):
    """C things in a scan, in odom."""

    centre_m: Floats  # (C, 2)
    variance_m2: Floats  # (C,) of the centre, along each axis
    radius_m: Floats  # (C,)
    range_m: Floats  # (C,) from the sensor
    of_beam: NDArray[np.int64]  # (beams,) index of a beam's cluster; -1 for none
    points_m: Floats  # (beams, 2) what each beam hit
    sensor_m: tuple[float, float]  # where the lidar was


NO_TRACKS = Tracks(
    np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
)


def significant(
    config: TrackerConfig,
    vx: NDArray[np.float64],
    vy: NDArray[np.float64],
    variance: NDArray[np.float64],
    seen: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which tracks of any shape, by their velocities, their variance, and scans seen, move beyond their error."""
    speed = np.sqrt(vx**2 + vy**2)
    certain = speed > config.moving_sigmas * np.sqrt(variance)
    return np.asarray((speed > config.moving_mps) & certain & (seen >= config.seen_min))


class MoverTracker:
    """Follows what moves. Holds constants only."""

    def __init__(self, spec: RobotSpec, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self.lidar: LidarSpec = spec.lidar
        self._cos, self._sin = np.cos(spec.lidar.angles_rad), np.sin(spec.lidar.angles_rad)
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
            return self._kept(tracks)[0], none
        clusters = self.clusters(np.asarray(observation.scan_m, np.float64), observation.pose_odom_base)
        of_cluster = self._matched(tracks, clusters)
        tracks, number = self._kept(self._corrected(tracks, clusters, of_cluster))
        of_cluster = number[of_cluster]
        new = np.flatnonzero(of_cluster < 0)
        room = max(self.config.tracks_max - len(tracks.seen), 0)
        if len(new) > room:  # the nearest alone
            new = np.sort(new[np.argsort(clusters.range_m[new], kind="stable")[:room]])
        of_cluster[new] = len(tracks.seen) + np.arange(len(new))
        tracks = self._begun(tracks, clusters, new)
        of_beam = np.append(of_cluster, -1)[clusters.of_beam]
        return self._judged(tracks, of_beam, clusters, observation), of_beam

    def moving(self, tracks: Tracks) -> NDArray[np.bool_]:
        """(K,) which tracks move for certain."""
        return self._significant(tracks) & (tracks.evidence_m > self.config.evidence_min_m)

    def flow(
        self, tracks: Tracks, of_beam: NDArray[np.int64], pose_odom_base: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """(beams, 2) velocity over ground, in the base frame, of what each beam hit; 0 unless it moves for certain.

        Args:
            tracks: after an observation.
            of_beam: (beams,) index of each beam's track, as `update` gave it with them.
            pose_odom_base: (3,) of that observation.
        """
        velocity = np.append(np.where(self.moving(tracks)[:, None], tracks.velocity_mps, 0.0), [[0.0, 0.0]], axis=0)
        vx, vy = velocity[of_beam].T
        c, s = math.cos(pose_odom_base[2]), math.sin(pose_odom_base[2])
        return np.stack([c * vx + s * vy, c * vy - s * vx], -1).astype(np.float32)

    def clusters(self, scan_m: Floats, pose_odom_base: NDArray[np.floating]) -> Clusters:
        """Things in front of what is beside them, at one end at least, and no larger than a mover.

        Raises:
            ShapeError: the scan does not fit the robot.
        """
        lidar, c = self.lidar, self.config
        if scan_m.shape != (lidar.beams,):
            raise ShapeError(explain("scan_m", (lidar.beams,), scan_m.shape))
        x, y, yaw = (float(v) for v in pose_odom_base)
        cos, sin = math.cos(yaw), math.sin(yaw)
        sensor_x, sensor_y = x + lidar.mount_x_m * cos, y + lidar.mount_x_m * sin
        hit = (scan_m < lidar.range_m - 1e-3) & (scan_m > 0)
        reach = np.where(hit, scan_m, 0.0)
        px = sensor_x + reach * (self._cos * cos - self._sin * sin)
        py = sensor_y + reach * (self._cos * sin + self._sin * cos)
        points, sensor = np.stack([px, py], -1), (sensor_x, sensor_y)
        to_next_x, to_next_y = np.roll(px, -1) - px, np.roll(py, -1) - py
        gap = np.maximum(c.gap_m, 2.0 * self._spacing_rad * np.minimum(reach, np.roll(reach, -1)))
        near = to_next_x * to_next_x + to_next_y * to_next_y < gap * gap
        breaks = ~(hit & np.roll(hit, -1) & near)  # between a beam and the next one
        if not self._round:
            breaks[-1] = True
        if not breaks.any():  # one wall all round
            of_beam = np.full(lidar.beams, -1)
            return Clusters(np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.zeros(0), of_beam, points, sensor)
        first_beam = int(np.flatnonzero(breaks)[0]) + 1  # so that no cluster goes over the end
        order = (np.arange(lidar.beams) + first_beam) % lidar.beams
        ends = np.flatnonzero(breaks[order])
        starts = np.concatenate(([0], ends[:-1] + 1))
        begin, end = order[starts], order[ends]
        before, after = (begin - 1) % lidar.beams, (end + 1) % lidar.beams
        free_begin, free_end = scan_m[before] > scan_m[begin], scan_m[after] > scan_m[end]
        if not self._round:
            free_begin, free_end = free_begin & (begin != 0), free_end & (end != lidar.beams - 1)
        counts = ends - starts + 1
        many = counts >= c.hidden_beams_min
        of_order = np.repeat(np.arange(len(starts)), counts)
        away_x = np.bincount(of_order, px[order]) / counts - sensor_x  # bincount adds up one after the other
        away_y = np.bincount(of_order, py[order]) / counts - sensor_y
        range_m = np.sqrt(away_x * away_x + away_y * away_y)
        spacing = self._spacing_rad * range_m
        along_x, along_y = px[end] - px[begin], py[end] - py[begin]
        width = np.sqrt(along_x * along_x + along_y * along_y) + np.where(counts > 1, spacing, 0.0)
        from_begin_x, from_begin_y = px[order] - px[begin][of_order], py[order] - py[begin][of_order]
        reach_2 = np.maximum.reduceat(from_begin_x * from_begin_x + from_begin_y * from_begin_y, starts)
        small = (width < c.extent_max_m) & (reach_2 < c.extent_max_m * c.extent_max_m)
        chosen = np.flatnonzero(hit[begin] & small & (free_begin & free_end | (free_begin | free_end) & many))
        radius = np.maximum(width[chosen] / 2, 0.05)
        further = 1.0 + VISIBLE_CENTRE * radius / np.maximum(range_m[chosen], 1e-6)
        centre = np.stack([sensor_x + further * away_x[chosen], sensor_y + further * away_y[chosen]], -1)
        number = np.full(len(starts), -1)
        number[chosen] = np.arange(len(chosen))
        of_beam = np.empty(lidar.beams, np.int64)
        of_beam[order] = number[of_order]
        # each end of a cluster is known to the beams' spacing, uniformly; its middle is the mean of two ends
        noise = np.where((free_begin & free_end)[chosen], c.noise_m, c.hidden_noise_m)
        variance = noise * noise + spacing[chosen] * spacing[chosen] / 24
        return Clusters(centre, variance, radius, range_m[chosen], of_beam, points, sensor)

    def _significant(self, tracks: Tracks) -> NDArray[np.bool_]:
        """(K,) which tracks have a velocity beyond its error."""
        vx, vy = tracks.velocity_mps.T
        return significant(self.config, vx, vy, tracks.variance[:, 2], tracks.seen)

    def _judged(self, tracks: Tracks, of_beam: NDArray[np.int64], clusters: Clusters, now: Observation) -> Tracks:
        """With what an earlier scan says for the motion of the tracks that were seen, and with this scan kept.

        A beam is evidence by how much better its point fits that scan when it is taken back along the motion. Beams
        whose points were hidden then say nothing.
        """
        c, past = self.config, tracks.past
        sensor = (*clusters.sensor_m, float(now.pose_odom_base[2]))
        newest = Past(np.array(now.scan_m, np.float64), sensor, now.stamp_ns)
        evidence, seen = tracks.evidence_m.copy(), tracks.unseen_s == 0
        beams = np.flatnonzero(np.append(self._significant(tracks), False)[of_beam]) if past else np.zeros(0, np.int64)
        track = of_beam[beams]
        point, velocity = clusters.points_m[beams], tracks.velocity_mps[track]
        back = np.clip(tracks.seen[track] - 1, 1, len(past))
        better, told = np.zeros(len(beams)), np.zeros(len(beams), np.bool_)
        for n in np.unique(back).tolist():
            at, then = np.flatnonzero(back == n), past[-n]
            lag_s = (now.stamp_ns - then.stamp_ns) * 1e-9
            moved = self._misfit_m(then, point[at] - velocity[at] * lag_s)
            better[at] = np.abs(self._misfit_m(then, point[at])) - np.abs(moved)
            told[at] = moved > -c.misfit_max_m  # else it was hidden
        count = np.bincount(track[told], minlength=len(seen))
        mean = np.bincount(track[told], better[told], len(seen)) / np.maximum(count, 1)
        learns = seen & ((count > 0) | (np.bincount(track, minlength=len(seen)) == 0))
        evidence[learns] += EVIDENCE_SHARE * (mean[learns] - evidence[learns])
        return tracks._replace(evidence_m=evidence, past=(*past, newest)[-c.past_scans :])

    def _misfit_m(self, then: Past, point_m: Floats) -> Floats:
        """(n,) how far points (n, 2) in odom are in front of what the beams beside them hit in an earlier scan.

        Negative behind it, 0 where that scan says nothing, and at most `misfit_max_m` either way.
        """
        lidar, most = self.lidar, self.config.misfit_max_m
        dx, dy = point_m[:, 0] - then.sensor[0], point_m[:, 1] - then.sensor[1]
        angle = np.array([math.atan2(y, x) for x, y in zip(dx.tolist(), dy.tolist(), strict=True)])
        angle = angle - (then.sensor[2] + lidar.angle_min_rad)
        beam = np.floor((angle - TURN * np.floor(angle / TURN)) / self._spacing_rad).astype(np.int64)
        one, two = then.scan_m[beam % lidar.beams], then.scan_m[(beam + 1) % lidar.beams]
        told = (one > 0) & (two > 0) & (self._round | (beam < lidar.beams - 1))
        distance = np.sqrt(dx * dx + dy * dy)
        nearer, further = np.minimum(one, two), np.maximum(one, two)
        behind = (distance > further) & (further < lidar.range_m - 1e-3)
        misfit = np.where(distance < nearer, nearer - distance, np.where(behind, further - distance, 0.0))
        return np.where(told, np.clip(misfit, -most, most), 0.0)

    def _predict(self, tracks: Tracks, dt_s: float) -> Tracks:
        """Constant velocity with white acceleration."""
        p, pv, v = tracks.variance.T
        added_v = self.config.acceleration_mps2 * self.config.acceleration_mps2 * dt_s * dt_s
        added_pv, added_p = added_v * dt_s / 2, added_v * dt_s * dt_s / 4
        variance = np.stack([p + 2 * dt_s * pv + dt_s * dt_s * v + added_p, pv + dt_s * v + added_pv, v + added_v], -1)
        position = tracks.position_m + dt_s * tracks.velocity_mps
        return tracks._replace(position_m=position, variance=variance, unseen_s=tracks.unseen_s + dt_s)

    def _matched(self, tracks: Tracks, clusters: Clusters) -> NDArray[np.int64]:
        """(C,) track of each cluster, -1 for none; the closest pairs first, and of equals those of the first track."""
        of_cluster = np.full(len(clusters.radius_m), -1)
        dx = tracks.position_m[:, None, 0] - clusters.centre_m[None, :, 0]  # (K, C)
        dy = tracks.position_m[:, None, 1] - clusters.centre_m[None, :, 1]
        apart = dx * dx + dy * dy
        gate = self.config.gate_sigmas * np.sqrt(tracks.variance[:, :1] + clusters.variance_m2[None]) + 0.05
        of_track, to_cluster = np.nonzero(apart < gate * gate)
        track_taken = np.zeros(len(tracks.seen), np.bool_)
        for i in np.argsort(apart[of_track, to_cluster], kind="stable"):
            k, c = of_track[i], to_cluster[i]
            if not track_taken[k] and of_cluster[c] < 0:
                of_cluster[c], track_taken[k] = k, True
        return of_cluster

    def _corrected(self, tracks: Tracks, clusters: Clusters, of_cluster: NDArray[np.int64]) -> Tracks:
        """Kalman's correction of the tracks that were seen."""
        at = np.flatnonzero(of_cluster >= 0)
        k = of_cluster[at]
        position, velocity, variance = tracks.position_m.copy(), tracks.velocity_mps.copy(), tracks.variance.copy()
        radius, seen, unseen = tracks.radius_m.copy(), tracks.seen.copy(), tracks.unseen_s.copy()
        p, pv, v = variance[k].T
        share_p, share_v = p / (p + clusters.variance_m2[at]), pv / (p + clusters.variance_m2[at])
        surprise = clusters.centre_m[at] - position[k]
        position[k] += share_p[:, None] * surprise
        velocity[k] += share_v[:, None] * surprise
        variance[k] = np.stack([(1 - share_p) * p, (1 - share_p) * pv, v - share_v * pv], -1)
        radius[k] += 0.2 * (clusters.radius_m[at] - radius[k])
        seen[k] += 1
        unseen[k] = 0.0
        return Tracks(position, velocity, variance, radius, seen, unseen, *tracks[6:])

    def _begun(self, tracks: Tracks, clusters: Clusters, new: NDArray[np.int64]) -> Tracks:
        """With a track for each of these clusters."""
        n = len(new)
        speed = self.config.first_speed_mps
        first = np.stack([clusters.variance_m2[new], np.zeros(n), np.full(n, speed * speed)], -1)
        return Tracks(
            np.concatenate([tracks.position_m, clusters.centre_m[new]]),
            np.concatenate([tracks.velocity_mps, np.zeros((n, 2))]),
            np.concatenate([tracks.variance, first]),
            np.concatenate([tracks.radius_m, clusters.radius_m[new]]),
            np.concatenate([tracks.seen, np.ones(n, np.int64)]),
            np.concatenate([tracks.unseen_s, np.zeros(n)]),
            np.concatenate([tracks.evidence_m, np.zeros(n)]),
            *tracks[7:],
        )

    def _kept(self, tracks: Tracks) -> tuple[Tracks, NDArray[np.int64]]:
        """Without those that were not seen for long, or, where they were not known to move, not just now.

        Also (K + 1,) each track's new index, -1 for those that are gone and in the last place.
        """
        known = tracks.seen >= self.config.seen_min
        keep = tracks.unseen_s <= np.where(known, self.config.forget_s, self.config.forget_s / 4)
        number = np.full(len(keep) + 1, -1)
        number[:-1][keep] = np.arange(int(keep.sum()))
        kept = tracks._replace(
            position_m=tracks.position_m[keep],
            velocity_mps=tracks.velocity_mps[keep],
            variance=tracks.variance[keep],
            radius_m=tracks.radius_m[keep],
            seen=tracks.seen[keep],
            unseen_s=tracks.unseen_s[keep],
            evidence_m=tracks.evidence_m[keep],
        )
        return kept, number
