"""What moves, and how fast, seen in the last few scans by a small learned network (scene flow of a 2-D lidar).

A Kalman filter needs half a second to find out that somebody has started to walk or has turned on the spot, since what
it knows of him must first become significant. The network looks at the raw scans instead: earlier ones, taken along
with the robot's own motion to where the lidar is now, beside the newest one, and what the filter says of each beam. It
answers for each beam whether what it hit moves, and with which velocity. Its layers are circular convolutions over the
beams, so that it does not matter where somebody is.

This module needs no torch: `robonav.learning.sight` trains the weights.

Shape letters: N scans that are looked at, B beams, C channels, W width of the hidden layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from robonav.errors import CheckpointError, explain
from robonav.mapping.tracks import VISIBLE_CENTRE, Tracks
from robonav.types import LidarSpec, Observation

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
TURN = 2 * np.pi
SHIPPED: Final = "learned"
"""Name of the weights that come with the package."""
LAGS = (1, 2, 3, 4, 6)
"""How long ago the earlier scans were, in tenths of a second."""
NEIGHBOURS = (-2, -1, 1, 2)
"""Beams whose ranges are seen beside a beam's own."""
TRACKED = 2 + len(NEIGHBOURS) + 2 * len(LAGS)
"""The first channel of what the filter says."""
CHANNELS = TRACKED + 7
LAYERS = (("a", 3, 1), ("b", 5, 1), ("c", 5, 2), ("d", 1, 1))
"""Names of the convolutions, how many taps they have, and how far apart these are."""
RANGE_DECAY_M = 1.5
"""Over which a range's own channel falls to 1/e."""
GAP_M, UNLIKE_MPS = 0.35, 0.6  # neighbouring beams further apart, or moving less alike, hit two things
LEAST_RADIUS_M = 0.05
KNOWN_SCANS, POSITION_STD_M, VELOCITY_STD_MPS = 100, 0.05, 0.1  # of what is seen to move, as a track: it is known well
LAG_NS, NEAR_NS = 10**8, 5 * 10**7  # of a lag of 1, and how far off a scan's time may be
KEPT_NS = max(LAGS) * LAG_NS + NEAR_NS
_SHIPPED_FILE = Path(__file__).with_name("sight.npz")
_CUT_M = 1.0  # of differences between ranges
_NOTHING_M = 99.0
_SEEN_CUT, _SEEN_SCALE, _SPREAD_CUT_MPS, _EVIDENCE_SCALE = 20, 10.0, 1.5, 3.0


class Tracked(NamedTuple):
    """What the filter says of the thing that each beam hit."""

    velocity_mps: Doubles  # (N, B, 2) over ground, in odom; 0 where a beam has no track
    known: Doubles  # (N, B) whether it has one
    moving: Doubles  # (N, B) whether that moves for certain
    seen: Doubles  # (N, B) scans in which it was seen
    spread_mps: Doubles  # (N, B) standard deviation of its velocity
    evidence_m: Doubles  # (N, B) by how much motion explains an earlier scan better than standing still does

    def rows(self) -> Doubles:
        """(N, 7, B): velocity x, y and the rest."""
        return np.concatenate([self.velocity_mps.transpose(0, 2, 1), np.stack(self[1:], axis=1)], axis=1)

    @classmethod
    def of_rows(cls, rows: Doubles) -> Tracked:
        """What `rows` (N, 7, B) hold."""
        return cls(rows[:, :2].transpose(0, 2, 1), *(rows[:, k] for k in range(2, rows.shape[1])))


class Memory(NamedTuple):
    """The last scans, the newest last; one that was lost is all 0."""

    scans_m: tuple[Doubles, ...] = ()  # each (B,)
    poses: tuple[Doubles, ...] = ()  # each (3,) of the base in odom
    stamps_ns: tuple[int, ...] = ()

    def with_scan(self, scan_m: Doubles, pose: Doubles, stamp_ns: int) -> Memory:
        """With one more, and without those that are no longer of use."""
        first = next((i for i, then in enumerate(self.stamps_ns) if stamp_ns - then <= KEPT_NS), len(self.stamps_ns))
        scans, poses, stamps = self.scans_m[first:], self.poses[first:], self.stamps_ns[first:]
        return Memory((*scans, scan_m), (*poses, pose), (*stamps, stamp_ns))

    def ago(self, lag: int, stamp_ns: int) -> int | None:
        """Number of the scan that was taken `lag` tenths of a second before a time, whatever the loop's rate is."""
        if not self.stamps_ns:
            return None
        off = [abs(stamp_ns - lag * LAG_NS - then) for then in self.stamps_ns]
        nearest = int(np.argmin(off))
        return nearest if off[nearest] <= NEAR_NS else None


class Flow(NamedTuple):
    """What each beam of a scan hit."""

    velocity_mps: Singles  # (B, 2) over ground, in odom; 0 where it does not move
    chance: Singles  # (B,) that it moves
    base_mps: Singles  # (B, 2) the same velocity in the base frame


class MotionSight:
    """The network with its weights. Holds constants only."""

    def __init__(self, lidar: LidarSpec, weights: Mapping[str, NDArray[np.floating]]) -> None:
        """Checks the weights.

        Raises:
            CheckpointError: a name is missing or a shape does not fit.
        """
        self.lidar = lidar
        self._layers: list[tuple[Singles, Singles, int, int]] = []
        width = CHANNELS
        for name, taps, apart in LAYERS:
            weight, bias = (weights.get(f"{name}.{part}") for part in ("weight", "bias"))
            if weight is None or bias is None or weight.ndim != 3 or weight.shape[1:] != (width, taps):
                got = "nothing" if weight is None else weight.shape
                want = f"a weight (outputs, {width}, {taps}) and a bias"
                raise CheckpointError(explain(f"sight: {name}", want, got))
            outputs = weight.shape[0]
            flat = np.ascontiguousarray(weight.transpose(0, 2, 1).reshape(outputs, taps * width), np.float32)
            self._layers.append((flat, np.asarray(bias, np.float32)[:, None], taps, apart))
            width = outputs
        if width != 3:
            raise CheckpointError(explain("sight", "3 outputs a beam", width))

    @classmethod
    def load(cls, path: Path, lidar: LidarSpec) -> MotionSight:
        """From a file of `robonav.learning.sight`.

        Raises:
            CheckpointError: there is none, it is damaged, or it is for another lidar.
        """
        weights, beams, span = _read(path)
        if not _fits(beams, span, lidar):
            want, got = f"{beams} beams over {span:.3f} rad", f"{lidar.beams} over {lidar.fov_rad:.3f}"
            raise CheckpointError(explain(f"sight '{path}': lidar", want, got))
        return cls(lidar, weights)

    @classmethod
    def named(cls, name: str, lidar: LidarSpec) -> MotionSight | None:
        """The sight that comes with the package, if it is made for such a lidar, or that of a file; None for "".

        Raises:
            CheckpointError: a file that does not fit.
        """
        if name != SHIPPED:
            return cls.load(Path(name), lidar) if name else None
        weights, beams, span = _read(_SHIPPED_FILE)
        return cls(lidar, weights) if _fits(beams, span, lidar) else None

    def reset(self) -> Memory:
        """Nothing seen yet."""
        return Memory()

    def look(self, memory: Memory, observation: Observation, of: Tracked) -> tuple[Memory, Flow | None]:
        """What moves in the newest scan; None without one. `of` is what the filter says after this observation."""
        pose, scan = np.asarray(observation.pose_odom_base, np.float64), hits(observation.scan_m, self.lidar)
        kept = memory.with_scan(scan, pose, observation.stamp_ns)
        if observation.scan_m is None:
            return kept, None
        earlier = []
        for lag in LAGS:
            i = memory.ago(lag, observation.stamp_ns)
            then = (np.zeros_like(scan), pose) if i is None else (memory.scans_m[i], memory.poses[i])
            earlier.append((then[0][None], then[1][None]))
        seen = channels(self.lidar, scan[None], pose[None], earlier, of)
        answers, angles = self.answers(seen[0]), self.lidar.angles_rad
        with np.errstate(over="ignore"):
            chance = np.asarray(1.0 / (1.0 + np.exp(-answers[2])), np.float32)
        return kept, Flow(beam_flow(answers, scan, pose[2] + angles), chance, beam_flow(answers, scan, angles))

    def tracks(
        self, memory: Memory, flow: Flow, observation: Observation, tracks: Tracks, moving: NDArray[np.bool_]
    ) -> tuple[Tracks, NDArray[np.int64]]:
        """Tracks and each beam's track after an observation, in place of the filter's.

        They are those of whatever is seen to move, and of movers that the filter knows and that are hidden now.

        Args:
            memory: after a look.
            flow: that the look found.
            observation: that was looked at.
            tracks: of the filter after this observation.
            moving: (K,) which of them move for certain.
        """
        x, y, yaw = (float(v) for v in observation.pose_odom_base)
        sensor = complex(x, y) + self.lidar.mount_x_m * np.exp(1j * yaw)
        beams = np.exp(1j * (yaw + self.lidar.angles_rad))
        group = grouped(sensor + memory.scans_m[-1] * beams, flow)
        seen = _things(memory.scans_m[-1], sensor, beams, flow, group, self.lidar.increment_rad)
        hidden = np.flatnonzero(moving & (tracks.unseen_s > 0))
        away = tracks.position_m[hidden, 0] + 1j * tracks.position_m[hidden, 1] - sensor
        beam = np.rint(((np.angle(away) - yaw - self.lidar.angle_min_rad) % TURN) / self.lidar.increment_rad)
        in_front = memory.scans_m[-1][beam.astype(np.int64) % self.lidar.beams]
        hidden = hidden[(in_front > 0) & (in_front < np.abs(away))]  # else one looks through where he would be
        return _joined(seen, tracks, hidden), group

    def answers(self, x: Singles) -> Singles:
        """(3, B) for channels (C, B): velocity away from the lidar and to the left of that, m/s, and a logit."""
        for i, (weight, bias, taps, apart) in enumerate(self._layers):
            shifts = [(taps // 2 - tap) * apart for tap in range(taps)]
            x = np.asarray(weight @ np.concatenate([np.roll(x, shift, axis=1) for shift in shifts]) + bias, np.float32)
            if i < len(self._layers) - 1:
                with np.errstate(over="ignore"):  # of what is far below 0, which becomes 0
                    x = np.asarray(x / (1.0 + np.exp(-x)), np.float32)
        return x


def _read(path: Path) -> tuple[dict[str, NDArray[np.floating]], int, float]:
    """A file's weights, and the beams of the lidar for which they are made and their angle in rad."""
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = {name: file[name] for name in file.files}
        return weights, int(weights.pop("beams")), float(weights.pop("fov_rad"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, TypeError, AttributeError) as error:
        raise CheckpointError(explain(f"sight '{path}'", "weights of a sight", str(error)[:120])) from None


def _fits(beams: int, fov_rad: float, lidar: LidarSpec) -> bool:
    """Whether a lidar has as many beams over as wide an angle."""
    return beams == lidar.beams and abs(fov_rad - lidar.fov_rad) < 1e-3


def hits(given_m: NDArray[np.floating] | None, lidar: LidarSpec) -> Doubles:
    """(B,) ranges of a scan, 0 where a beam hit nothing; all 0 where there is no scan."""
    if given_m is None:
        return np.zeros(lidar.beams)
    scan_m = np.asarray(given_m, np.float64)
    return np.where((scan_m < lidar.range_m - 1e-3) & (scan_m > 0.05), scan_m, 0.0)


def tracked(tracks: Tracks, of_beam: NDArray[np.int64], moving: NDArray[np.bool_]) -> Tracked:
    """What the filter says of each beam of one scan; N is 1."""
    on, beams = of_beam >= 0, len(of_beam)
    which = of_beam[on]
    columns = np.zeros((5, beams))
    velocity = np.zeros((beams, 2))
    velocity[on] = tracks.velocity_mps[which]
    values = (np.ones(len(which)), moving[which], tracks.seen[which], np.sqrt(tracks.variance[which, 2]))
    columns[:, on] = np.stack([*values, tracks.evidence_m[which]])
    return Tracked(velocity[None], *columns[:, None])


def channels(
    lidar: LidarSpec, scan_m: Doubles, pose: Doubles, earlier: list[tuple[Doubles, Doubles]], of: Tracked
) -> Singles:
    """(N, C, B) what the network reads.

    Args:
        lidar: of the robot.
        scan_m: (N, B) ranges, 0 where a beam hit nothing.
        pose: (N, 3) of the base in odom.
        earlier: for each lag scans (N, B) and poses (N, 3); a scan that is all 0 was not there.
        of: what the filter says.
    """
    hit = scan_m > 0
    seen = [np.exp(-scan_m / RANGE_DECAY_M) * hit, hit]
    for shift in NEIGHBOURS:
        beside = np.roll(scan_m, shift, axis=1)
        seen.append(np.clip(beside - scan_m, -_CUT_M, _CUT_M) * (hit & (beside > 0)))
    for then_m, there in earlier:
        then_m = seen_from(lidar, then_m, there, pose)
        both = hit & (then_m > 0)
        seen += [np.clip(then_m - scan_m, -_CUT_M, _CUT_M) * both, both]
    seen += [*along_beams(of.velocity_mps, pose[:, 2:] + lidar.angles_rad), of.known, of.moving]
    seen += [np.minimum(of.seen, _SEEN_CUT) / _SEEN_SCALE, np.minimum(of.spread_mps, _SPREAD_CUT_MPS)]
    seen.append(np.clip(_EVIDENCE_SCALE * of.evidence_m, -1.0, 1.0))
    return np.stack(seen, axis=1).astype(np.float32)


def beam_flow(answers: Singles, scan_m: Doubles, yaw_rad: Doubles) -> Singles:
    """(B, 2) velocity over ground of what each beam of a scan hit; 0 where it does not move.

    Args:
        answers: (3, B) of the network.
        scan_m: (B,) ranges, 0 where a beam hit nothing.
        yaw_rad: (B,) whereto the beams look, in the frame that the velocity is asked for in.
    """
    radial, across, logit = answers
    on = (logit > 0) & (scan_m > 0)
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return (np.stack([radial * cos - across * sin, radial * sin + across * cos], -1) * on[:, None]).astype(np.float32)


def along_beams(velocity: NDArray[np.floating], yaw_rad: Doubles) -> tuple[Doubles, Doubles]:
    """(N, B) each: velocities (N, B, 2) along beams that look to `yaw_rad` (N, B), and to the left of that."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    vx, vy = velocity[..., 0], velocity[..., 1]
    return vx * cos + vy * sin, vy * cos - vx * sin


def seen_from(lidar: LidarSpec, scan_m: Doubles, there: Doubles, here: Doubles) -> Doubles:
    """(N, B) ranges of scans (N, B) taken at poses `there` (N, 3) as the lidar at poses `here` (N, 3) would see them.

    Where several points fall to a beam the nearest counts; a beam between two that have points takes the lesser.
    """
    x, y = _sensor(lidar, there)
    to_x, to_y = _sensor(lidar, here)
    yaw = there[:, 2:] + lidar.angles_rad
    dx, dy = x + scan_m * np.cos(yaw) - to_x, y + scan_m * np.sin(yaw) - to_y
    angle = np.arctan2(dy, dx) - here[:, 2:] - lidar.angle_min_rad
    beam = np.rint((angle % TURN) / lidar.increment_rad).astype(np.int64) % lidar.beams
    out, hit = np.full(scan_m.shape, _NOTHING_M), scan_m > 0
    rows = np.broadcast_to(np.arange(len(scan_m))[:, None], beam.shape)
    np.minimum.at(out, (rows[hit], beam[hit]), np.hypot(dx, dy)[hit])
    between = np.minimum(np.roll(out, 1, axis=1), np.roll(out, -1, axis=1))
    out = np.where(out < _NOTHING_M, out, between)
    return np.where(out < _NOTHING_M, out, 0.0)


def _sensor(lidar: LidarSpec, pose: Doubles) -> tuple[Doubles, Doubles]:
    """(N, 1) each: where the lidar of bases at poses (N, 3) is."""
    yaw = pose[:, 2:]
    return pose[:, :1] + lidar.mount_x_m * np.cos(yaw), pose[:, 1:2] + lidar.mount_x_m * np.sin(yaw)


def grouped(points: NDArray[np.complex128], flow: Flow) -> NDArray[np.int64]:
    """(B,) number of the thing that each beam's point (B,) x + iy belongs to, -1 where it does not move.

    Neighbouring beams belong together where they hit neighbouring places that move alike.
    """
    on = (flow.velocity_mps != 0).any(axis=1)
    velocity = flow.velocity_mps[:, 0] + 1j * flow.velocity_mps[:, 1]
    near = np.abs(np.roll(points, -1) - points) < GAP_M
    alike = np.abs(np.roll(velocity, -1) - velocity) < UNLIKE_MPS
    joins = on & np.roll(on, -1) & near & alike  # a beam and the next one
    first = int(np.argmin(joins)) + 1  # no thing goes on from the beam before this one, unless one goes all round
    order = (np.arange(len(on)) + first) % len(on)
    begins = on[order] & ~np.roll(joins, 1)[order]
    begins[0] = on[order[0]]  # one that goes all round begins somewhere
    group = np.full(len(on), -1)
    group[order] = np.where(on[order], np.cumsum(begins) - 1, -1)
    return group


def _things(
    scan_m: Doubles,
    sensor: complex,
    beams: NDArray[np.complex128],
    flow: Flow,
    group: NDArray[np.int64],
    spacing: float,
) -> Tracks:
    """Tracks of G things: the middle of what is seen, pushed away as that of a disc, and the mean velocity."""
    on = np.flatnonzero(group >= 0)
    which, count = group[on], np.maximum(np.bincount(group[on]), 1)
    points = sensor + scan_m[on] * beams[on]
    share = flow.chance[on].astype(np.float64)
    weight = np.bincount(which, share)

    def mean(values: NDArray[np.floating], by: NDArray[np.floating] | None = None) -> Doubles:
        return np.bincount(which, values if by is None else values * by) / (count if by is None else weight)

    middle = mean(points.real) + 1j * mean(points.imag)
    velocity = np.stack([mean(flow.velocity_mps[on, k].astype(np.float64), share) for k in range(2)], -1)
    range_m = np.maximum(np.abs(middle - sensor), 1e-6)
    reach = np.zeros(len(count))
    np.maximum.at(reach, which, np.abs(points - middle[which]))
    radius = np.maximum(reach + spacing * range_m / 2, LEAST_RADIUS_M)
    centre = middle + VISIBLE_CENTRE * radius * (middle - sensor) / range_m
    n = len(count)
    variance = np.tile([POSITION_STD_M**2, 0.0, VELOCITY_STD_MPS**2], (n, 1))
    position = np.stack([centre.real, centre.imag], -1)
    return Tracks(position, velocity, variance, radius, np.full(n, KNOWN_SCANS), np.zeros(n), np.ones(n))


def _joined(seen: Tracks, tracks: Tracks, hidden: NDArray[np.int64]) -> Tracks:
    """What is seen, then the hidden ones of the filter's tracks."""
    return tracks._replace(
        position_m=np.concatenate([seen.position_m, tracks.position_m[hidden]]),
        velocity_mps=np.concatenate([seen.velocity_mps, tracks.velocity_mps[hidden]]),
        variance=np.concatenate([seen.variance, tracks.variance[hidden]]),
        radius_m=np.concatenate([seen.radius_m, tracks.radius_m[hidden]]),
        seen=np.concatenate([seen.seen, tracks.seen[hidden]]),
        unseen_s=np.concatenate([seen.unseen_s, tracks.unseen_s[hidden]]),
        evidence_m=np.concatenate([seen.evidence_m, tracks.evidence_m[hidden]]),
    )
