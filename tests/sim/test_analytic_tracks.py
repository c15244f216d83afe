"""The compiled mover tracks are those of `robonav.mapping.tracks`, bit for bit; and how good their flow is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.config import load_robot
from robonav.errors import ShapeError
from robonav.mapping.tracks import MoverTracker, TrackerConfig, Tracks
from robonav.types import LidarSpec, Mover, Observation, RobotSpec, Scene
from sim.analytic.batch import AnalyticBatch
from sim.analytic.env import AnalyticVectorEnv
from sim.analytic.tracks import EVIDENCE, RADIUS, UNSEEN, VX, BatchMovers, P, X
from tests.mapping.raycast import cast, room

A1 = load_robot("a1")
NARROW = dataclasses.replace(  # sees ahead alone, with few beams, from a mount in front
    A1, lidar=LidarSpec(beams=61, angle_min_rad=-1.8, fov_rad=3.6, range_m=5.0, mount_x_m=0.2)
)
FEW = TrackerConfig(tracks_max=5)
TICK_NS = 10**8


class OneByOne:
    """The numpy tracker for B worlds, with the calls of `BatchMovers`."""

    def __init__(self, spec: RobotSpec, batch: int, config: TrackerConfig | None = None) -> None:
        self.tracker = MoverTracker(spec, config)
        self.tracks: list[Tracks] = [self.tracker.reset()] * batch
        self.ticks = [0] * batch
        self.flow = np.zeros((batch, spec.lidar.beams, 2), np.float32)

    def reset(self, worlds) -> None:
        for b in worlds:
            self.tracks[b], self.ticks[b] = self.tracker.reset(), 0

    def update(self, scan, pose, has_scan) -> None:
        for b in range(len(scan)):
            seen = observation(pose[b], scan[b] if has_scan[b] else None, self.ticks[b])
            self.tracks[b], of_beam = self.tracker.update(self.tracks[b], seen)
            self.flow[b] = self.tracker.flow(self.tracks[b], of_beam, pose[b])
            self.ticks[b] += 1


def observation(pose, scan, tick: int) -> Observation:
    rest = np.zeros(3, np.float32)
    return Observation(tick * TICK_NS, np.asarray(pose, np.float32), rest, rest[:2], rest[:2], rest, scan)


def assert_same(batch: BatchMovers, one: OneByOne) -> None:
    out = np.full_like(one.flow, np.nan)
    batch.flow(out)
    np.testing.assert_array_equal(out, one.flow)
    for b, tracks in enumerate(one.tracks):
        count = int(batch.tracks.counts[b])
        rows = batch.tracks.numbers[b, :count]
        np.testing.assert_array_equal(rows[:, X : X + 2], tracks.position_m)
        np.testing.assert_array_equal(rows[:, VX : VX + 2], tracks.velocity_mps)
        np.testing.assert_array_equal(rows[:, P : P + 3], tracks.variance)
        np.testing.assert_array_equal(rows[:, RADIUS], tracks.radius_m)
        np.testing.assert_array_equal(rows[:, UNSEEN], tracks.unseen_s)
        np.testing.assert_array_equal(rows[:, EVIDENCE], tracks.evidence_m)
        np.testing.assert_array_equal(batch.tracks.seen[b, :count], tracks.seen)


class Drive:
    """Batched episodes; actions are held for a second on average."""

    def __init__(self, scene: str, ahead: bool, batch: int, seed: int, **options) -> None:
        self.env = AnalyticVectorEnv(batch, scene, policy_input=False, **options)
        self.seen, _ = self.env.reset(seed=seed)
        self.rng, self.low = np.random.default_rng(seed), ([0.5, 0.0, -0.6] if ahead else [-0.3, -1.0, -1.0])
        self.high = [1.0, 0.0, 0.6] if ahead else [1.0, 1.0, 1.0]
        self.actions = np.zeros((batch, 3), np.float32)
        self.began, self._over = np.ones(batch, np.bool_), np.zeros(batch, np.bool_)

    def step(self) -> None:
        fresh = self.rng.random(len(self.actions)) < 0.1
        self.actions[fresh] = self.rng.uniform(self.low, self.high, (len(self.actions), 3))[fresh]
        self.seen, _, ended, cut, _ = self.env.step(self.actions)
        self.began, self._over = self._over, ended | cut  # a step after an end begins the next episode

    def truth(self, before=None):
        """Movers (B, M) as they are now, and (B, beams) which of them a beam hits, -1 for none."""
        worlds = self.env.worlds
        scan, pose = self.seen["scan_m"].astype(float), worlds.state.pose
        angle = A1.lidar.angles_rad + pose[:, 2:]
        hit_x, hit_y = pose[:, :1] + scan * np.cos(angle), pose[:, 1:2] + scan * np.sin(angle)
        state, shapes = worlds._movers.state.copy(), worlds.shapes.movers
        of_beam = np.full(scan.shape, -1)
        for b, m in zip(*np.nonzero(shapes[:, : state.shape[1], 2] > 0), strict=True):
            x, y, size, half_width, c, s = shapes[b, m, :6]
            dx, dy = hit_x[b] - x, hit_y[b] - y
            u, v = np.abs(c * dx + s * dy), np.abs(c * dy - s * dx)
            on = (u < size + 0.02) & (v < half_width + 0.02) if half_width > 0 else np.hypot(dx, dy) < size + 0.02
            of_beam[b, on & (scan[b] < A1.lidar.range_m - 1e-3)] = m
        return state, of_beam


@pytest.mark.parametrize("ahead", [False, True], ids=["random", "ahead"])
@pytest.mark.parametrize("scene", ["crowd-dense", "crowd-few", "doors-moving", "rooms", "corridors"])
def test_a_batch_follows_what_the_robots_tracker_follows(scene: str, ahead: bool) -> None:
    """Over ends of episodes, resets in mid-run and missing scans."""
    batch, rng = 4, np.random.default_rng(7)
    drive, ours, theirs = Drive(scene, ahead, batch, 30), BatchMovers(A1, batch), OneByOne(A1, batch)
    moving = 0
    for tick in range(90):
        new = np.flatnonzero(drive.began | (rng.random(batch) < 0.01))
        ours.reset(new)
        theirs.reset(new)
        has_scan = rng.random(batch) > 0.05
        scan, pose = drive.seen["scan_m"].copy(), drive.seen["pose_odom_base"]
        scan[rng.random(scan.shape) < (0.02 if tick % 2 else 0.0)] = 0.0
        ours.update(scan, pose, has_scan, A1.dt_s)
        theirs.update(scan, pose, has_scan)
        assert_same(ours, theirs)
        moving += np.count_nonzero(theirs.flow)
        drive.step()
    assert moving > 500 or not scene.startswith("crowd")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    narrow=st.booleans(),
    few=st.booleans(),
    things=st.integers(0, 40),
    speed=st.floats(0, 2),
    turn=st.floats(-2, 2),
)
def test_any_scans_give_the_same_tracks(seed, narrow, few, things, speed, turn) -> None:
    """Points everywhere that come and go, readings that are none, more things than are followed."""
    rng, spec, config = np.random.default_rng(seed), NARROW if narrow else A1, FEW if few else None
    ours, theirs = BatchMovers(spec, 2, config), OneByOne(spec, 2, config)
    beams = spec.lidar.beams
    ranges = rng.uniform(0.3, 1.2 * spec.lidar.range_m, (2, beams))
    for tick in range(8):
        start = rng.integers(0, beams, things)
        for at in start:
            ranges[rng.integers(2), at : at + rng.integers(1, 6)] = rng.uniform(0.2, 6)
        scan = np.minimum(ranges + rng.normal(0, 0.02, ranges.shape), spec.lidar.range_m).astype(np.float32)
        lost = rng.random(scan.shape) < 0.05
        scan[lost] = rng.choice([0.0, np.nan, np.inf, -1.0, spec.lidar.range_m], lost.sum())
        pose = np.array([[speed * tick * 0.1, 0, turn * tick * 0.1], rng.normal(0, 1, 3)], np.float32)
        has_scan = rng.random(2) < 0.9
        ours.update(scan, pose, has_scan, A1.dt_s)
        theirs.update(scan, pose, has_scan)
        assert_same(ours, theirs)
        assert (ours.tracks.counts <= ours.config.tracks_max).all()


def test_the_nearest_are_followed_where_there_is_no_room_for_all() -> None:
    ours = BatchMovers(A1, 1, TrackerConfig(tracks_max=3))
    posts = np.array([[d * np.cos(a), d * np.sin(a), 0.15] for d, a in ((3, 0), (2, 1), (4, 2), (1, 3), (1.5, -2))])
    scan = cast((0, 0, 0), A1.lidar, room(-7, -7, 7, 7), posts)[None]
    ours.update(scan, np.zeros((1, 3), np.float32), np.ones(1, np.bool_), A1.dt_s)
    found = ours.tracks.numbers[0, : ours.tracks.counts[0], X : X + 2]
    np.testing.assert_allclose(sorted(np.hypot(*found.T)), [1, 1.5, 2], atol=0.05)


def test_worlds_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(2)
    both, alone = BatchMovers(A1, 2), BatchMovers(A1, 1)
    out, single = np.zeros((2, A1.lidar.beams, 2), np.float32), np.zeros((1, A1.lidar.beams, 2), np.float32)
    for tick in range(12):
        walker = np.array([[2.0, -0.8 + 0.1 * tick, 0.25]])
        scan = np.stack([cast((0, 0, 0), A1.lidar, room(-5, -5, 5, 5), walker), rng.uniform(0, 8, 128)])
        scan, pose, there = scan.astype(np.float32), np.zeros((2, 3), np.float32), np.ones(2, np.bool_)
        both.update(scan, pose, there, A1.dt_s)
        alone.update(scan[:1], pose[:1], there[:1], A1.dt_s)
        if tick == 5:
            both.reset(np.array([1]))
        if tick > 5:  # a further tick in the second world alone
            both.update(scan[:, ::-1].copy(), pose, there, A1.dt_s, active=np.array([False, True]))
        both.flow(out)
        alone.flow(single)
        np.testing.assert_array_equal(out[0], single[0])
    assert single.any()
    both.reset(np.array([0]))
    out[1] = np.nan
    both.flow(out, active=np.array([True, False]))
    assert not out[0].any()
    assert np.isnan(out[1]).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scan": np.zeros((2, 5), np.float32)}, r"scan_m: expected float32 \(2, 128\), got float32 \(2, 5\)"),
        ({"pose": np.zeros((2, 3))}, "pose_odom_base: expected float32 .*, got float64"),
        ({"has_scan": np.ones(3, np.bool_)}, r"has_scan: expected bool \(2,\), got bool \(3,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message) -> None:
    good = {"scan": np.zeros((2, 128), np.float32), "pose": np.zeros((2, 3), np.float32), "has_scan": np.ones(2, bool)}
    given_arrays = good | arrays
    with pytest.raises(ShapeError, match=message):
        BatchMovers(A1, 2).update(given_arrays["scan"], given_arrays["pose"], given_arrays["has_scan"], A1.dt_s)


@pytest.mark.parametrize("scene", ["rooms", "corridors", "office"])
def test_what_stands_has_no_flow_while_the_robot_drives_and_turns(scene: str) -> None:
    wrong = beams = 0
    for ahead in (False, True):
        drive, tracks = Drive(scene, ahead, 12, 200), BatchMovers(A1, 12)
        out = np.zeros((12, A1.lidar.beams, 2), np.float32)
        for _ in range(120):
            tracks.reset(np.flatnonzero(drive.began))
            tracks.update(drive.seen["scan_m"], drive.seen["pose_odom_base"], np.ones(12, np.bool_), A1.dt_s)
            tracks.flow(out)
            wrong, beams = wrong + np.count_nonzero(out.any(-1)), beams + out.shape[0] * out.shape[1]
            drive.step()
    assert wrong < 0.001 * beams  # 0.0003 at most, and 0.02 without the evidence of an earlier scan


def test_walkers_have_their_velocity_after_a_second() -> None:
    """Those that walk, within 4 m, once seen for a second; a third of a crowd's are new, hidden or turning."""
    shares = {}
    for scene in ("crowd-few", "crowd-dense"):
        drive, tracks = Drive(scene, False, 12, 300), BatchMovers(A1, 12)
        out = np.zeros((12, A1.lidar.beams, 2), np.float32)
        known = right = 0
        before, _ = drive.truth()
        since = np.zeros(before.shape, np.int64)
        for _ in range(120):
            tracks.reset(np.flatnonzero(drive.began))
            tracks.update(drive.seen["scan_m"], drive.seen["pose_odom_base"], np.ones(12, np.bool_), A1.dt_s)
            tracks.flow(out)
            now, of_beam = drive.truth()
            visible = (of_beam[:, :, None] == np.arange(now.shape[1])).any(1)
            since[:, : now.shape[1]] = np.where(visible & ~drive.began[:, None], since[:, : now.shape[1]] + 1, 0)
            yaw = drive.env.worlds.state.pose[:, 2]
            for b, m in zip(*np.nonzero(since > 10), strict=True):
                vx, vy = (now[b, m]["x"] - before[b, m]["x"]) / 0.1, (now[b, m]["y"] - before[b, m]["y"]) / 0.1
                on = of_beam[b] == m
                if drive.seen["scan_m"][b, on].min() > 4 or np.hypot(vx, vy) < 0.25:
                    continue
                c, s = np.cos(yaw[b]), np.sin(yaw[b])
                error = np.hypot(out[b, on, 0] - (c * vx + s * vy), out[b, on, 1] - (c * vy - s * vx))
                known, right = known + 1, right + (np.median(error) < 0.3)
            before = now
            drive.step()
        assert known > 1000
        shares[scene] = right / known
    assert shares["crowd-few"] > 0.75
    assert shares["crowd-dense"] > 0.6


def test_a_bouncing_pedestrian_in_the_open_has_its_velocity() -> None:
    batch, rng = 16, np.random.default_rng(5)
    worlds, tracks = AnalyticBatch(A1, batch), BatchMovers(A1, batch)
    scenes = []
    for _ in range(batch):
        angle, (x, y) = rng.uniform(-3, 3), rng.uniform((-3, 1), (3, 7))
        way = ((x, y), (x + np.cos(angle), y + np.sin(angle)))
        walker = Mover("pedestrian", "bouncing", way, speed_mps=rng.uniform(0.4, 1.4), ignores_robot=True)
        scenes.append(Scene("open", (-6, -6, 6, 8), (0.0, -2.0, 1.0), (5.0, 5.0), movers=(walker,)))
    worlds.reset(np.arange(batch), scenes)
    scan, out = np.zeros((batch, 128), np.float32), np.zeros((batch, 128, 2), np.float32)
    errors, turned = [], np.zeros(batch)
    since, before = np.zeros(batch), worlds._movers.state[:, 0].copy()
    for tick in range(100):
        worlds.step(np.tile([0.6, 0.0, 0.8 * np.sin(tick / 12)], (batch, 1)))
        worlds.scan(out=scan)
        pose = worlds.state.pose.astype(np.float32)
        tracks.update(scan, pose, np.ones(batch, np.bool_), A1.dt_s)
        tracks.flow(out)
        now = worlds._movers.state[:, 0].copy()
        turned = np.where((now["vx"] != before["vx"]) | (now["vy"] != before["vy"]), 0, turned + 1)
        hit = scan < A1.lidar.range_m - 1e-3
        since = np.where(hit.any(1), since + 1, 0)
        c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
        vx, vy = c * now["vx"] + s * now["vy"], c * now["vy"] - s * now["vx"]
        for b in np.flatnonzero((since > 10) & (turned > 10)):  # a second after it came into sight or was mirrored
            on = hit[b] & (scan[b] < 4)
            errors.extend(np.hypot(out[b, on, 0] - vx[b], out[b, on, 1] - vy[b]))
        before = now
    assert len(errors) > 1000
    assert np.median(errors) < 0.08
    assert np.quantile(errors, 0.95) < 0.2
