from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.errors import ConfigError, ShapeError
from robonav.mapping.tracks import MoverTracker, TrackerConfig, Tracks
from robonav.types import RobotSpec
from tests.mapping.raycast import cast, observe, room

WALLS = room(-5.0, -5.0, 5.0, 5.0)
TICK_NS = 10**8


def watch(tracker: MoverTracker, spec: RobotSpec, movers, poses, walls=WALLS, scans=None) -> Tracks:
    """Tracks after observing movers (ticks, n, 3) x, y, radius from poses (ticks, 3)."""
    tracks = tracker.reset()
    for tick, (circles, pose) in enumerate(zip(movers, poses, strict=True)):
        blind = scans is not None and not scans[tick]
        scan = None if blind else cast(pose, spec.lidar, walls, circles)
        tracks, _ = tracker.update(tracks, observe(pose, (4, 0), scan, tick * TICK_NS))
    return tracks


def walking(start, velocity, ticks: int, radius: float = 0.25):
    time_s = np.arange(ticks)[:, None] * 0.1
    xy = np.asarray(start) + time_s * np.asarray(velocity)
    return np.concatenate([xy, np.full((ticks, 1), radius)], axis=1)[:, None]


@settings(max_examples=25, deadline=None)
@given(angle=st.floats(-3.1, 3.1), speed=st.floats(0.4, 1.4), turn=st.floats(-0.8, 0.8))
def test_a_walker_is_found_with_its_velocity_from_a_turning_robot(angle: float, speed: float, turn: float) -> None:
    from robonav.config import load_robot

    spec = load_robot("a1")
    ticks = 16
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([2.2, 0.3])
    movers = walking(middle - velocity * ticks * 0.05, velocity, ticks)
    time_s = np.arange(ticks) * 0.1
    poses = np.stack([0.3 * time_s, 0 * time_s, turn * time_s], axis=1)
    tracker = MoverTracker(spec)
    tracks = watch(tracker, spec, movers, poses)
    moving = tracker.moving(tracks)
    assert moving.sum() == 1
    found = int(np.flatnonzero(moving)[0])
    assert np.linalg.norm(tracks.position_m[found] - movers[-1, 0, :2]) < 0.2
    assert np.linalg.norm(tracks.velocity_mps[found] - velocity) < 0.25 + 0.15 * speed


def test_what_stands_still_does_not_move_for_a_driving_robot(a1: RobotSpec) -> None:
    posts = np.array([[2.0, 1.0, 0.2], [1.5, -1.5, 0.3], [-2.0, 0.5, 0.25], [3.5, -0.4, 0.15]])
    ticks = 30
    time_s = np.arange(ticks) * 0.1
    poses = np.stack([0.8 * time_s - 1.0, 0.1 * time_s, 0.5 * time_s], axis=1)
    tracker = MoverTracker(a1)
    tracks = watch(tracker, a1, np.repeat(posts[None], ticks, 0), poses)
    assert len(tracks.seen) >= 3
    assert not tracker.moving(tracks).any()


def test_walls_are_no_movers(a1: RobotSpec) -> None:
    tracker = MoverTracker(a1)
    tracks = watch(tracker, a1, np.zeros((5, 0, 3)), np.zeros((5, 3)))
    assert len(tracks.seen) == 0


def test_a_track_moves_on_while_nothing_is_seen_and_is_then_forgotten(a1: RobotSpec) -> None:
    ticks, seen = 40, 12
    movers = walking((2.0, -1.0), (0.0, 0.8), ticks)
    tracker = MoverTracker(a1)
    scans = np.arange(ticks) < seen
    some = watch(tracker, a1, movers[: seen + 5], np.zeros((seen + 5, 3)), scans=scans)
    assert tracker.moving(some).sum() == 1
    assert np.linalg.norm(some.position_m[0] - movers[seen + 4, 0, :2]) < 0.25
    assert some.unseen_s[0] == pytest.approx(0.5)
    gone = watch(tracker, a1, movers, np.zeros((ticks, 3)), scans=scans)
    assert len(gone.seen) == 0


def test_beams_name_the_track_that_they_hit(a1: RobotSpec) -> None:
    tracker = MoverTracker(a1)
    tracks, circles = tracker.reset(), np.array([[2.0, 0.0, 0.3], [0.0, 2.0, 0.3]])
    for tick in range(3):
        scan = cast((0, 0, 0), a1.lidar, WALLS, circles)
        tracks, of_beam = tracker.update(tracks, observe((0, 0, 0), (4, 0), scan, tick * TICK_NS))
    angles = a1.lidar.angles_rad
    ahead, left = np.abs(angles).argmin(), np.abs(angles - np.pi / 2).argmin()
    behind = np.abs(np.abs(angles) - np.pi).argmin()
    assert of_beam[ahead] >= 0 and of_beam[left] >= 0 and of_beam[ahead] != of_beam[left]
    assert of_beam[behind] == -1
    assert np.linalg.norm(tracks.position_m[of_beam[ahead]] - (2.0, 0.0)) < 0.15


def test_flow_is_the_velocity_of_what_a_beam_hit_as_the_base_sees_it(a1: RobotSpec) -> None:
    ticks, yaw = 14, 2.0
    movers = walking((-1.0, 1.6), (0.9, 0.0), ticks)
    tracker = MoverTracker(a1)
    tracks = watch(tracker, a1, movers[:-1], np.tile([0.0, 0.0, yaw], (ticks - 1, 1)))
    last = observe((0, 0, yaw), (4, 0), cast((0, 0, yaw), a1.lidar, WALLS, movers[-1]), (ticks - 1) * TICK_NS)
    tracks, of_beam = tracker.update(tracks, last)
    flow = tracker.flow(tracks, of_beam, last.pose_odom_base)
    x, y = movers[-1, 0, :2]
    onto = np.cos(a1.lidar.angles_rad + yaw - np.arctan2(y, x)) > np.cos(0.8 * np.arcsin(0.25 / np.hypot(x, y)))
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow[onto], np.tile([0.9 * np.cos(yaw), -0.9 * np.sin(yaw)], (onto.sum(), 1)), atol=0.15)
    assert not flow[of_beam < 0].any()
    blind, none = tracker.update(tracks, observe((0, 0, yaw), (4, 0), None, ticks * TICK_NS))
    assert tracker.moving(blind).any()
    assert not tracker.flow(blind, none, last.pose_odom_base).any()
    assert not tracker.flow(tracker.reset(), none, last.pose_odom_base).any()


@pytest.mark.parametrize("velocity", [(0.8, 0.0), (-0.8, 0.0), (0.0, 0.8), (0.6, -0.6)])
def test_a_walker_is_found_whichever_way_it_walks(a1: RobotSpec, velocity) -> None:
    """One that goes away was hidden by itself where it is now; one that comes was seen through."""
    ticks = 14
    movers = walking(np.array([2.5, 0.2]) - 0.6 * np.array(velocity), velocity, ticks)
    tracker = MoverTracker(a1)
    tracks = watch(tracker, a1, movers, np.zeros((ticks, 3)))
    assert tracker.moving(tracks).sum() == 1


def test_a_wall_that_shows_past_the_edges_of_a_door_does_not_move(a1: RobotSpec) -> None:
    """What is seen of it glides along with the robot."""
    walls = np.array([[-4.0, 1.0, 0.0, 1.0], [0.9, 1.0, 5.0, 1.0], [-4.0, 1.8, 5.0, 1.8], [-4.0, -0.35, 5.0, -0.35]])
    ticks = 30
    time_s = np.arange(ticks) * 0.1
    poses = np.stack([0.9 * time_s - 1.0, 0 * time_s, 0.3 * np.sin(3 * time_s)], axis=1)
    tracker, tracks = MoverTracker(a1), MoverTracker(a1).reset()
    fast = moving = 0
    for tick, pose in enumerate(poses):
        tracks, _ = tracker.update(tracks, observe(pose, (4, 0), cast(pose, a1.lidar, walls), tick * TICK_NS))
        speed = np.hypot(*tracks.velocity_mps.T)
        fast += ((speed > 0.3) & (tracks.seen >= 4)).any()
        moving += tracker.moving(tracks).any()
    assert fast > 10  # velocities alone would have said so
    assert moving <= 1


def test_two_who_cross_keep_their_velocities(a1: RobotSpec) -> None:
    ticks = 16
    one, two = walking((2.0, -1.0), (0, 0.9), ticks), walking((2.9, 0.7), (0, -0.9), ticks)
    tracker = MoverTracker(a1)
    tracks = watch(tracker, a1, np.concatenate([one, two], axis=1), np.zeros((ticks, 3)))
    assert sorted(np.sign(tracks.velocity_mps[tracker.moving(tracks), 1])) == [-1, 1]


def test_a_scan_without_any_gap_is_no_mover(a1: RobotSpec) -> None:
    tracker = MoverTracker(a1)
    clusters = tracker.clusters(np.full(a1.lidar.beams, 1.0), np.zeros(3))
    assert len(clusters.radius_m) == 0


def test_a_lidar_that_does_not_go_round(a1: RobotSpec) -> None:
    lidar = dataclasses.replace(a1.lidar, angle_min_rad=-1.5, fov_rad=3.0, beams=64)
    spec = dataclasses.replace(a1, lidar=lidar)
    tracker = MoverTracker(spec)
    tracks = watch(tracker, spec, walking((2.0, -0.6), (0, 0.8), 14), np.zeros((14, 3)))
    assert tracker.moving(tracks).sum() == 1


def test_bad_input_is_refused(a1: RobotSpec) -> None:
    with pytest.raises(ShapeError, match="scan_m"):
        MoverTracker(a1).clusters(np.ones(7), np.zeros(3))
    with pytest.raises(ConfigError, match="gap_m"):
        TrackerConfig(gap_m=0.0)
