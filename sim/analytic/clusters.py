"""Things in a lidar's scans as `robonav.mapping.tracks.MoverTracker.clusters` finds them, compiled: the same bits."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from robonav.mapping.tracks import EVIDENCE_SHARE, VISIBLE_CENTRE, TrackerConfig
from robonav.types import LidarSpec
from sim.analytic.bits import Array
from sim.analytic.jit import inner


class TrackNumbers(NamedTuple):
    """A lidar and a `TrackerConfig` as plain numbers."""

    cos: Array  # (beams,) of the beams' directions in base
    sin: Array  # (beams,)
    spacing_rad: float
    range_m: float
    mount_x_m: float
    full_circle: bool
    gap_m: float
    extent_max_m: float
    noise_m: float
    hidden_noise_m: float
    hidden_beams_min: int
    acceleration_mps2: float
    first_speed_mps: float
    gate_sigmas: float
    forget_s: float
    moving_mps: float
    moving_sigmas: float
    seen_min: int
    misfit_max_m: float
    visible_centre: float
    evidence_share: float
    evidence_min_m: float
    first_rad: float  # direction of the first beam in base


class Scratch(NamedTuple):
    """Work space of one world."""

    points: Array  # (beams, 2)
    hit: Array  # (beams,) bool
    breaks: Array  # (beams,) bool
    clusters: Array  # (beams, 5) centre, variance, radius, range
    of_beam: Array  # (beams,) int64 cluster of a beam
    of_cluster: Array  # (beams,) int64 track of a cluster
    renumbered: Array  # (K,) int64 new index of a track
    pairs: Array  # (K * beams, 2) int64 track, cluster
    apart: Array  # (K * beams,) squared distance of a pair
    moving: Array  # (K, 2) velocity in base
    better: Array  # (K,) sum of evidence over a track's beams
    beams: Array  # (K,) int64 how many those are


def track_numbers(lidar: LidarSpec, c: TrackerConfig) -> TrackNumbers:
    """The numbers that kernels need."""
    return TrackNumbers(
        cos=np.cos(lidar.angles_rad),
        sin=np.sin(lidar.angles_rad),
        spacing_rad=float(lidar.increment_rad),
        range_m=float(lidar.range_m),
        mount_x_m=float(lidar.mount_x_m),
        full_circle=bool(lidar.fov_rad > 2 * math.pi - 1e-6),
        gap_m=c.gap_m,
        extent_max_m=c.extent_max_m,
        noise_m=c.noise_m,
        hidden_noise_m=c.hidden_noise_m,
        hidden_beams_min=c.hidden_beams_min,
        acceleration_mps2=c.acceleration_mps2,
        first_speed_mps=c.first_speed_mps,
        gate_sigmas=c.gate_sigmas,
        forget_s=c.forget_s,
        moving_mps=c.moving_mps,
        moving_sigmas=c.moving_sigmas,
        seen_min=c.seen_min,
        misfit_max_m=c.misfit_max_m,
        visible_centre=VISIBLE_CENTRE,
        evidence_share=EVIDENCE_SHARE,
        evidence_min_m=c.evidence_min_m,
        first_rad=float(lidar.angle_min_rad),
    )


def new_scratch(beams: int, most: int) -> Scratch:
    """For so many beams and tracks."""
    return Scratch(
        points=np.zeros((beams, 2)),
        hit=np.zeros(beams, np.bool_),
        breaks=np.zeros(beams, np.bool_),
        clusters=np.zeros((beams, 5)),
        of_beam=np.zeros(beams, np.int64),
        of_cluster=np.zeros(beams, np.int64),
        renumbered=np.zeros(most, np.int64),
        pairs=np.zeros((most * beams, 2), np.int64),
        apart=np.zeros(most * beams),
        moving=np.zeros((most, 2)),
        better=np.zeros(most),
        beams=np.zeros(most, np.int64),
    )


@inner
def find_clusters(numbers: TrackNumbers, scan: Array, pose: Array, scratch: Scratch) -> int:
    """Writes the clusters of a scan and the cluster of each beam; their number."""
    points, hit, breaks, of_beam = scratch.points, scratch.hit, scratch.breaks, scratch.of_beam
    beams = len(scan)
    cos, sin = math.cos(np.float64(pose[2])), math.sin(np.float64(pose[2]))
    x = np.float64(pose[0]) + numbers.mount_x_m * cos
    y = np.float64(pose[1]) + numbers.mount_x_m * sin
    limit = numbers.range_m - 1e-3
    for i in range(beams):
        reach = np.float64(scan[i])
        hit[i] = reach < limit and reach > 0.0
        if hit[i]:
            points[i, 0] = x + reach * (numbers.cos[i] * cos - numbers.sin[i] * sin)
            points[i, 1] = y + reach * (numbers.cos[i] * sin + numbers.sin[i] * cos)
        of_beam[i] = -1
    first = -1
    for i in range(beams):
        j = i + 1 if i + 1 < beams else 0
        breaks[i] = True
        if hit[i] and hit[j] and (j or numbers.full_circle):
            dx, dy = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1]
            gap = max(numbers.gap_m, 2.0 * numbers.spacing_rad * np.float64(min(scan[i], scan[j])))
            breaks[i] = not (dx * dx + dy * dy < gap * gap)
        if first < 0 and breaks[i]:
            first = i + 1
    if first < 0:  # one wall all round
        return 0
    count, begin, size, sum_x, sum_y, reach_2 = 0, first % beams, 0, 0.0, 0.0, 0.0
    for k in range(beams):
        i = (first + k) % beams
        if hit[i]:
            sum_x, sum_y = sum_x + points[i, 0], sum_y + points[i, 1]
            ax, ay = points[i, 0] - points[begin, 0], points[i, 1] - points[begin, 1]
            reach_2 = max(reach_2, ax * ax + ay * ay)
        size += 1
        if not breaks[i]:
            continue
        after = i + 1 if i + 1 < beams else 0
        free = 0
        if hit[begin]:
            free += scan[begin - 1] > scan[begin] and (numbers.full_circle or begin != 0)
            free += scan[after] > scan[i] and (numbers.full_circle or i != beams - 1)
        if free == 2 or (free == 1 and size >= numbers.hidden_beams_min):
            dx, dy = sum_x / size - x, sum_y / size - y
            range_m = math.sqrt(dx * dx + dy * dy)
            spacing = numbers.spacing_rad * range_m
            ax, ay = points[i, 0] - points[begin, 0], points[i, 1] - points[begin, 1]
            width = math.sqrt(ax * ax + ay * ay) + (spacing if size > 1 else 0.0)
            if width < numbers.extent_max_m and reach_2 < numbers.extent_max_m * numbers.extent_max_m:
                row = scratch.clusters[count]
                row[3] = max(width / 2, 0.05)
                further = 1.0 + numbers.visible_centre * row[3] / max(range_m, 1e-6)
                row[0], row[1] = x + further * dx, y + further * dy
                noise = numbers.noise_m if free == 2 else numbers.hidden_noise_m
                row[2], row[4] = noise * noise + spacing * spacing / 24, range_m
                for n in range(size):
                    of_beam[(begin + n) % beams] = count
                count += 1
        begin, size, sum_x, sum_y, reach_2 = after, 0, 0.0, 0.0, 0.0
    return count
