from __future__ import annotations

import numpy as np

from robonav.mapping.tracks import MoverTracker
from robonav.planning.surroundings import SurroundingsTracker
from robonav.types import RobotSpec
from tests.mapping.raycast import cast, observe, room


def test_tracks_from_elsewhere_serve_as_well_as_its_own(a1: RobotSpec) -> None:
    own, handed = SurroundingsTracker(a1), SurroundingsTracker(a1)
    movers = MoverTracker(a1)
    tracks, first, second = movers.reset(), own.reset(), handed.reset()
    for tick in range(12):
        circles = np.array([[2.4, 1.0 - 0.1 * tick, 0.25], [-1.0, 1.5, 0.3]])
        seen = observe((0, 0, 0), (4, 0), cast((0, 0, 0), a1.lidar, room(-4, -4, 4, 4), circles), tick * 10**8)
        first = own.update(first, seen)
        tracks, of_beam = movers.update(tracks, seen)
        second = handed.update(second, seen, (tracks, of_beam))
    assert first.points_m is not None and second.points_m is not None
    assert np.array_equal(first.points_m, second.points_m)
    assert np.array_equal(first.velocity_mps, second.velocity_mps)
    moving = first.velocity_mps[first.velocity_mps != 0]
    assert len(moving) and np.abs(moving - (0.0 - 1.0j)).max() < 0.3


def test_without_a_scan_the_last_points_move_on(a1: RobotSpec) -> None:
    tracker = SurroundingsTracker(a1, tracking=False)
    seen = observe((0, 0, 0), (4, 0), cast((0, 0, 0), a1.lidar, room(-4, -4, 4, 4)), 0)
    before = tracker.update(tracker.reset(), seen)._replace()
    assert before.points_m is not None
    before = before._replace(velocity_mps=np.full(len(before.points_m), 0.5 + 0j))
    after = tracker.update(before, observe((0, 0, 0), (4, 0), None, 10**8))
    assert after.points_m is not None
    assert np.allclose(after.points_m - before.points_m, 0.5 * a1.dt_s)
