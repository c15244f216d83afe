"""The sight of `robonav.mapping.sight` for a batch of worlds: what it answers in each, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.mapping.sight import KEPT_NS, LAG_NS, LAGS, NEAR_NS, MotionSight, Tracked, beam_flow, channels, hits
from robonav.mapping.tracks import TrackerConfig, significant
from sim.analytic.tracks import EVIDENCE, VX, VY, BatchTracks, V


class BatchSight:
    """`MotionSight` for B worlds, whose last scans it holds. Worlds do not depend on each other."""

    def __init__(self, sight: MotionSight, batch: int, dt_s: float, config: TrackerConfig) -> None:
        """Nothing seen in any world."""
        self.sight, self._config = sight, config
        period_ns = round(dt_s * 1e9)
        kept = KEPT_NS // period_ns + 1
        # (kept + 1, lags) which of so many scans, the newest first, counts as one of that lag; -1 for none
        self._ago = np.array([[_ticks_ago(lag * LAG_NS, period_ns, n) for lag in LAGS] for n in range(kept + 1)])
        self._scans = np.zeros((batch, kept, sight.lidar.beams))  # the newest first; one that was not there is all 0
        self._poses = np.zeros((batch, kept, 3))
        self._count = np.zeros(batch, np.int64)  # of them

    def reset(self, indices: NDArray[np.int64]) -> None:
        """Forgets everything in these worlds."""
        self._count[indices] = 0

    def update(
        self,
        scan_m: NDArray[np.float32],
        pose_odom_base: NDArray[np.float32],
        has_scan: NDArray[np.bool_],
        active: NDArray[np.bool_],
    ) -> None:
        """Takes in scans (B, beams) at poses (B, 3); worlds that are not `active` (B,) stay."""
        worlds = np.flatnonzero(active)
        scans, poses = self._scans[worlds], self._poses[worlds]
        scans[:, 1:], poses[:, 1:] = scans[:, :-1].copy(), poses[:, :-1].copy()
        scans[:, 0] = hits(scan_m[worlds], self.sight.lidar) * has_scan[worlds, None]
        poses[:, 0] = pose_odom_base[worlds]
        self._scans[worlds], self._poses[worlds] = scans, poses
        self._count[worlds] = np.minimum(self._count[worlds] + 1, scans.shape[1])

    def flow(self, tracks: BatchTracks, active: NDArray[np.bool_], out: NDArray[np.float32]) -> None:
        """Writes (B, beams, 2) velocities over ground, in the base frame, of what each beam of the last scan hit.

        Args:
            tracks: after the same scans.
            active: (B,) worlds that are asked about.
            out: (B, beams, 2); 0 where nothing moves, or without a scan.
        """
        worlds = np.flatnonzero(active)
        scans, poses = self._scans[worlds], self._poses[worlds]
        ago, row = self._ago[self._count[worlds]], np.arange(len(worlds))
        earlier = [(scans[row, n] * (n >= 0)[:, None], poses[row, n]) for n in ago.T]
        seen = channels(self.sight.lidar, scans[:, 0], poses[:, 0], earlier, self._tracked(tracks, worlds))
        for i, b in enumerate(worlds.tolist()):
            out[b] = beam_flow(self.sight.answers(seen[i]), scans[i, 0], self.sight.lidar.angles_rad)

    def _tracked(self, tracks: BatchTracks, worlds: NDArray[np.int64]) -> Tracked:
        """What the filter says of each beam of these worlds."""
        c, rows, seen = self._config, tracks.numbers[worlds], tracks.seen[worlds]
        of_beam = tracks.of_beam[worlds]
        known = of_beam >= 0
        certain = significant(c, rows[..., VX], rows[..., VY], rows[..., V], seen)
        moving = certain & (rows[..., EVIDENCE] > c.evidence_min_m)

        def of(values: NDArray[Any]) -> NDArray[np.float64]:
            return np.asarray(np.take_along_axis(values, np.maximum(of_beam, 0), axis=1) * known, np.float64)

        velocity = np.stack([of(rows[..., VX]), of(rows[..., VY])], -1)
        return Tracked(
            velocity, known.astype(np.float64), of(moving), of(seen), of(np.sqrt(rows[..., V])), of(rows[..., EVIDENCE])
        )


def _ticks_ago(ago_ns: int, period_ns: int, count: int) -> int:
    """Which of `count` scans, the newest first, was taken `ago_ns` ago; -1 for none. See `Memory.ago`."""
    off = [abs(n * period_ns - ago_ns) for n in range(count)]
    best = min(range(count), key=lambda n: (off[n], -n), default=-1)
    return best if best >= 0 and off[best] <= NEAR_NS else -1
