"""The mover tracker of `robonav.mapping.tracks` for a batch of worlds, compiled: the same tracks, bit for bit.

Formulas are written as they stand there, operation by operation; see there for what they mean. So is the order of
sums, and who comes first among equals. Times are equal as long as control periods are whole nanoseconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ShapeError, explain
from robonav.mapping.tracks import TrackerConfig
from robonav.types import RobotSpec
from sim.analytic.bits import Array, int64
from sim.analytic.clusters import Scratch, TrackNumbers, find_clusters, new_scratch, track_numbers
from sim.analytic.jit import inner, kernel
from sim.analytic.raycast import TURN

X, Y, VX, VY, P, PV, V, RADIUS, UNSEEN, EVIDENCE = range(10)  # columns of a track


class BatchTracks(NamedTuple):
    """Tracks of B worlds in odom, the oldest first."""

    numbers: Array  # (B, K, 10) x, y, vx, vy, the three variances, radius, seconds unseen, evidence
    seen: Array  # (B, K) int64 scans in which it was seen
    counts: Array  # (B,) int64 how many there are
    of_beam: Array  # (B, beams) int64 index of a beam's track in the last scan; -1 for none
    turn: Array  # (B, 2) cosine and sine of the base's yaw at that scan
    clock_ns: Array  # (B,) int64
    past_scan: Array  # (B, N, beams) float32 the last scans, in turn
    past_sensor: Array  # (B, N, 3) x, y, yaw of the lidar in odom
    past_ns: Array  # (B, N) int64
    past_count: Array  # (B,) int64 scans so far


class BatchMovers:
    """`MoverTracker` for B worlds, whose state it holds. Worlds do not depend on each other."""

    def __init__(self, spec: RobotSpec, batch: int, config: TrackerConfig | None = None) -> None:
        """Nothing known in any world."""
        self.spec, self.batch, self.config = spec, batch, config or TrackerConfig()
        c, lidar, most = self.config, spec.lidar, self.config.tracks_max
        self._numbers, self._scratch = track_numbers(spec.lidar, c), new_scratch(lidar.beams, most)
        self.tracks = BatchTracks(
            numbers=np.zeros((batch, most, 10)),
            seen=np.zeros((batch, most), np.int64),
            counts=np.zeros(batch, np.int64),
            of_beam=np.full((batch, lidar.beams), -1, np.int64),
            turn=np.zeros((batch, 2)),
            clock_ns=np.zeros(batch, np.int64),
            past_scan=np.zeros((batch, c.past_scans, lidar.beams), np.float32),
            past_sensor=np.zeros((batch, c.past_scans, 3)),
            past_ns=np.zeros((batch, c.past_scans), np.int64),
            past_count=np.zeros(batch, np.int64),
        )
        self._all = np.ones(batch, np.bool_)

    def reset(self, indices: NDArray[np.int64]) -> None:
        """Forgets everything in these worlds."""
        self.tracks.counts[indices] = 0
        self.tracks.past_count[indices] = 0
        self.tracks.of_beam[indices] = -1

    def update(
        self,
        scan_m: NDArray[np.float32],
        pose_odom_base: NDArray[np.float32],
        has_scan: NDArray[np.bool_],
        dt_s: float,
        active: NDArray[np.bool_] | None = None,
    ) -> None:
        """Takes in scans (B, beams) at poses (B, 3) that came `dt_s` after the last ones.

        Where `has_scan` (B,) is false the tracks move on as predicted; worlds that are not `active` (B,) stay.

        Raises:
            ShapeError: arrays of another shape or type.
        """
        for name, array, shape, kind in (
            ("scan_m", scan_m, (self.batch, self.spec.lidar.beams), np.float32),
            ("pose_odom_base", pose_odom_base, (self.batch, 3), np.float32),
            ("has_scan", has_scan, (self.batch,), np.bool_),
        ):
            if array.shape != shape or array.dtype != kind:
                raise ShapeError(explain(name, f"{np.dtype(kind)} {shape}", f"{array.dtype} {array.shape}"))
        period_ns = round(dt_s * 1e9)
        todo = self._all if active is None else active
        _update(self._numbers, self.tracks, scan_m, pose_odom_base, has_scan, period_ns, todo, self._scratch)

    def flow(self, out: NDArray[np.float32], active: NDArray[np.bool_] | None = None) -> None:
        """Writes (B, beams, 2) velocities over ground, in the base frame, of what each beam of the last scan hit.

        They are 0 where nothing moves for certain, and after an update without a scan.
        """
        _flow(self._numbers, self.tracks, self._all if active is None else active, self._scratch.moving, out)


@kernel
def _update(
    numbers: TrackNumbers,
    tracks: BatchTracks,
    scan: Array,
    pose: Array,
    has_scan: Array,
    period_ns: int,
    active: Array,
    scratch: Scratch,
) -> None:
    for b in range(len(active)):
        if not active[b]:
            continue
        yaw = np.float64(pose[b, 2])
        tracks.turn[b, 0], tracks.turn[b, 1] = math.cos(yaw), math.sin(yaw)
        rows, seen, of_beam, count = tracks.numbers[b], tracks.seen[b], tracks.of_beam[b], tracks.counts[b]
        tracks.clock_ns[b] += period_ns
        _predict(numbers, rows, count, period_ns * 1e-9)
        if not has_scan[b]:
            tracks.counts[b] = _keep(numbers, rows, seen, count, scratch.renumbered)
            of_beam[:] = -1
            continue
        clusters = find_clusters(numbers, scan[b], pose[b], scratch)
        _match(numbers, rows, count, clusters, scratch)
        for c in range(clusters):
            if scratch.of_cluster[c] >= 0:
                _correct(rows[scratch.of_cluster[c]], scratch.clusters[c])
                seen[scratch.of_cluster[c]] += 1
        count = _keep(numbers, rows, seen, count, scratch.renumbered)
        for c in range(clusters):
            if scratch.of_cluster[c] >= 0:
                scratch.of_cluster[c] = scratch.renumbered[scratch.of_cluster[c]]
        tracks.counts[b] = _begin(numbers, rows, seen, count, clusters, scratch)
        for i in range(len(of_beam)):
            c = scratch.of_beam[i]
            of_beam[i] = scratch.of_cluster[c] if c >= 0 else -1
        _judge(numbers, tracks, b, scan[b], pose[b], scratch)


@kernel
def _flow(numbers: TrackNumbers, tracks: BatchTracks, active: Array, moving: Array, out: Array) -> None:
    for b in range(len(active)):
        if not active[b]:
            continue
        c, s = tracks.turn[b, 0], tracks.turn[b, 1]
        for k in range(tracks.counts[b]):
            row = tracks.numbers[b, k]
            vx, vy = row[VX], row[VY]
            moving[k, 0], moving[k, 1] = 0.0, 0.0
            if _significant(numbers, row, tracks.seen[b, k]) and row[EVIDENCE] > numbers.evidence_min_m:
                moving[k, 0], moving[k, 1] = c * vx + s * vy, c * vy - s * vx
        for i in range(out.shape[1]):
            k = tracks.of_beam[b, i]
            out[b, i, 0] = np.float32(moving[k, 0]) if k >= 0 else np.float32(0.0)
            out[b, i, 1] = np.float32(moving[k, 1]) if k >= 0 else np.float32(0.0)


@inner
def _predict(numbers: TrackNumbers, rows: Array, count: int, dt_s: float) -> None:
    """Constant velocity with white acceleration."""
    added_v = numbers.acceleration_mps2 * numbers.acceleration_mps2 * dt_s * dt_s
    added_pv, added_p = added_v * dt_s / 2, added_v * dt_s * dt_s / 4
    for k in range(count):
        row = rows[k]
        p, pv, v = row[P], row[PV], row[V]
        row[X] += dt_s * row[VX]
        row[Y] += dt_s * row[VY]
        row[P], row[PV] = p + 2 * dt_s * pv + dt_s * dt_s * v + added_p, pv + dt_s * v + added_pv
        row[V], row[UNSEEN] = v + added_v, row[UNSEEN] + dt_s


@inner
def _match(numbers: TrackNumbers, rows: Array, tracks: int, clusters: int, scratch: Scratch) -> None:
    """Writes the track of each cluster, -1 for none; the closest pairs first, of equals those of the first track."""
    pairs, apart, count, worst = scratch.pairs, scratch.apart, 0, 0.0
    for c in range(clusters):
        worst = max(worst, scratch.clusters[c, 2])
    for k in range(tracks):
        x, y, p = rows[k, X], rows[k, Y], rows[k, P]
        gate = numbers.gate_sigmas * math.sqrt(p + worst) + 0.05
        furthest = gate * gate
        for c in range(clusters):
            row = scratch.clusters[c]
            dx, dy = x - row[0], y - row[1]
            squared = dx * dx + dy * dy
            if squared > furthest:
                continue
            gate = numbers.gate_sigmas * math.sqrt(p + row[2]) + 0.05
            if squared < gate * gate:
                pairs[count, 0], pairs[count, 1], apart[count] = k, c, squared
                count += 1
    for c in range(clusters):
        scratch.of_cluster[c] = -1
    while count:
        best, left = 0, 0
        for i in range(1, count):
            if apart[i] < apart[best]:
                best = i
        k, c = pairs[best, 0], pairs[best, 1]
        scratch.of_cluster[c] = k
        for i in range(count):  # those that are still free, in their order
            if pairs[i, 0] != k and pairs[i, 1] != c:
                pairs[left, 0], pairs[left, 1], apart[left] = pairs[i, 0], pairs[i, 1], apart[i]
                left += 1
        count = left


@inner
def _correct(row: Array, cluster: Array) -> None:
    """Kalman's correction of a track that was seen."""
    p, pv, v = row[P], row[PV], row[V]
    share_p, share_v = p / (p + cluster[2]), pv / (p + cluster[2])
    dx, dy = cluster[0] - row[X], cluster[1] - row[Y]
    row[X] += share_p * dx
    row[Y] += share_p * dy
    row[VX] += share_v * dx
    row[VY] += share_v * dy
    row[P], row[PV], row[V] = (1 - share_p) * p, (1 - share_p) * pv, v - share_v * pv
    row[RADIUS] += 0.2 * (cluster[3] - row[RADIUS])
    row[UNSEEN] = 0.0


@inner
def _keep(numbers: TrackNumbers, rows: Array, seen: Array, count: int, renumbered: Array) -> int:
    """Drops tracks that were not seen for long; how many are left."""
    left = 0
    for k in range(count):
        renumbered[k] = -1
        if rows[k, UNSEEN] <= (numbers.forget_s if seen[k] >= numbers.seen_min else numbers.forget_s / 4):
            if left < k:
                for n in range(rows.shape[1]):
                    rows[left, n] = rows[k, n]
                seen[left] = seen[k]
            renumbered[k] = left
            left += 1
    return left


@inner
def _begin(numbers: TrackNumbers, rows: Array, seen: Array, count: int, clusters: int, scratch: Scratch) -> int:
    """A track for each cluster that has none, the nearest alone where there is no room for all; how many there are."""
    of_cluster, new = scratch.of_cluster, 0
    for c in range(clusters):
        new += of_cluster[c] < 0
    while new > len(seen) - count:
        worst = -1
        for c in range(clusters):
            if of_cluster[c] == -1 and (worst < 0 or scratch.clusters[c, 4] >= scratch.clusters[worst, 4]):
                worst = c
        of_cluster[worst] = -2
        new -= 1
    for c in range(clusters):
        if of_cluster[c] == -1:
            row, cluster = rows[count], scratch.clusters[c]
            row[X], row[Y], row[VX], row[VY] = cluster[0], cluster[1], 0.0, 0.0
            row[P], row[PV], row[V] = cluster[2], 0.0, numbers.first_speed_mps * numbers.first_speed_mps
            row[RADIUS], row[UNSEEN], row[EVIDENCE], seen[count] = cluster[3], 0.0, 0.0, 1
            of_cluster[c] = count
            count += 1
        elif of_cluster[c] < 0:
            of_cluster[c] = -1
    return count


@inner
def _significant(numbers: TrackNumbers, row: Array, seen: int) -> bool:
    """Whether a track has a velocity beyond its error."""
    speed = math.sqrt(row[VX] * row[VX] + row[VY] * row[VY])
    certain = speed > numbers.moving_mps and speed > numbers.moving_sigmas * math.sqrt(row[V])
    return certain and seen >= numbers.seen_min


@inner
def _judge(numbers: TrackNumbers, tracks: BatchTracks, b: int, scan: Array, pose: Array, scratch: Scratch) -> None:
    """Evidence of the tracks that were seen, from an earlier scan; then this scan is kept."""
    rows, seen, of_beam, points = tracks.numbers[b], tracks.seen[b], tracks.of_beam[b], scratch.points
    scans, sensors, stamps, total = tracks.past_scan[b], tracks.past_sensor[b], tracks.past_ns[b], tracks.past_count[b]
    room = len(scans)
    for k in range(tracks.counts[b]):
        # -1 for those that need not be looked at
        scratch.beams[k] = 0 if total and _significant(numbers, rows[k], seen[k]) else -1
        scratch.better[k] = 0.0
    for i in range(len(of_beam)):
        k = of_beam[i]
        if k < 0 or scratch.beams[k] < 0:
            continue
        slot = (total - max(min(room, seen[k] - 1, total), 1)) % room
        lag_s = (tracks.clock_ns[b] - stamps[slot]) * 1e-9
        x, y = points[i, 0], points[i, 1]
        still = _misfit_m(numbers, scans[slot], sensors[slot], x, y)
        moved = _misfit_m(numbers, scans[slot], sensors[slot], x - rows[k, VX] * lag_s, y - rows[k, VY] * lag_s)
        if moved > -numbers.misfit_max_m:
            scratch.better[k] += abs(still) - abs(moved)
            scratch.beams[k] += 1
    for k in range(tracks.counts[b]):
        if rows[k, UNSEEN] == 0.0 and scratch.beams[k]:
            mean = scratch.better[k] / scratch.beams[k] if scratch.beams[k] > 0 else 0.0
            rows[k, EVIDENCE] += numbers.evidence_share * (mean - rows[k, EVIDENCE])
    slot = total % room
    c, s = tracks.turn[b, 0], tracks.turn[b, 1]
    sensors[slot, 0] = np.float64(pose[0]) + numbers.mount_x_m * c
    sensors[slot, 1] = np.float64(pose[1]) + numbers.mount_x_m * s
    sensors[slot, 2] = np.float64(pose[2])
    scans[slot], stamps[slot] = scan, tracks.clock_ns[b]
    tracks.past_count[b] = total + 1


@inner
def _misfit_m(numbers: TrackNumbers, scan: Array, sensor: Array, x: float, y: float) -> float:
    """How far a point is in front of or behind what the beams beside it hit in an earlier scan."""
    dx, dy = x - sensor[0], y - sensor[1]
    angle = math.atan2(dy, dx) - (sensor[2] + numbers.first_rad)
    i = int64(math.floor((angle - TURN * math.floor(angle / TURN)) / numbers.spacing_rad))
    beams = len(scan)
    if not numbers.full_circle and i >= beams - 1:
        return 0.0  # out of view
    one, two = np.float64(scan[i % beams]), np.float64(scan[(i + 1) % beams])
    if not (one > 0.0 and two > 0.0):
        return 0.0  # no reading
    distance = math.sqrt(dx * dx + dy * dy)
    nearer, further = min(one, two), max(one, two)
    if distance < nearer:
        return min(nearer - distance, numbers.misfit_max_m)
    if distance > further and further < numbers.range_m - 1e-3:
        return -min(distance - further, numbers.misfit_max_m)
    return 0.0
