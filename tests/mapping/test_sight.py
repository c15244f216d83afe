from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.errors import CheckpointError
from robonav.mapping.sight import CHANNELS, Flow, Memory, MotionSight, grouped, seen_from, tracked
from robonav.mapping.tracks import MoverTracker
from robonav.types import LidarSpec, RobotSpec
from tests.mapping.raycast import NO_CIRCLES, cast, observe, room

WALLS = room(-5.0, -5.0, 5.0, 5.0)
TICK_NS = 10**8


def shipped(spec: RobotSpec) -> MotionSight:
    sight = MotionSight.named("learned", spec.lidar)
    assert sight is not None
    return sight


def watch(spec: RobotSpec, movers, poses, scans=None):
    """For each tick what sight and tracker say after it: tracks of the sight, and how many of the tracker's move."""
    tracker, sight, said = MoverTracker(spec), shipped(spec), []
    tracks, memory = tracker.reset(), sight.reset()
    for tick, (circles, pose) in enumerate(zip(movers, poses, strict=True)):
        blind = scans is not None and not scans[tick]
        scan = None if blind else cast(pose, spec.lidar, WALLS, circles)
        observation = observe(pose, (4, 0), scan, tick * TICK_NS)
        tracks, of_beam = tracker.update(tracks, observation)
        moving = tracker.moving(tracks)
        memory, flow = sight.look(memory, observation, tracked(tracks, of_beam, moving))
        seen, beams = (tracks, of_beam) if flow is None else sight.tracks(memory, flow, observation, tracks, moving)
        said.append((seen, beams, int(moving.sum())))
    return said


def starting(place, velocity, at: int, ticks: int, radius: float = 0.25):
    """Somebody who stands for `at` ticks and then walks at once."""
    walked_s = 0.1 * np.maximum(np.arange(ticks) - at, 0)[:, None]
    xy = np.asarray(place) + walked_s * np.asarray(velocity)
    return np.concatenate([xy, np.full((ticks, 1), radius)], axis=1)[:, None]


@settings(max_examples=12, deadline=None)
@given(angle=st.floats(-3.1, 3.1), side=st.floats(-3.1, 3.1), speed=st.floats(0.7, 1.3))
def test_who_starts_to_walk_is_seen_within_three_scans(angle: float, side: float, speed: float) -> None:
    from robonav.config import load_robot

    spec, ticks, at = load_robot("a1"), 16, 10
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    movers = starting(1.8 * np.array([np.cos(side), np.sin(side)]), velocity, at, ticks)
    time_s = np.arange(ticks) * 0.1
    said = watch(spec, movers, np.stack([0.3 * time_s - 0.3, 0 * time_s, 0.3 * time_s], axis=1))
    seen = said[at + 3][0]
    away = np.linalg.norm(seen.position_m - movers[at + 3, 0, :2], axis=1)
    assert len(away) and away.min() < 0.25
    assert np.linalg.norm(seen.velocity_mps[away.argmin()] - velocity) < 0.5


def test_it_sees_who_starts_before_the_tracker_does(a1: RobotSpec) -> None:
    ticks, at = 20, 10
    poses = np.zeros((ticks, 3))
    sooner = []
    for angle in np.linspace(-3, 3, 12):
        place = 2.0 * np.array([np.cos(angle), np.sin(angle)])
        said = watch(a1, starting(place, [0.0, 1.0], at, ticks), poses)
        sight = next((t for t in range(at, ticks) if len(said[t][0].seen)), ticks)
        tracker = next((t for t in range(at, ticks) if said[t][2]), ticks)
        sooner.append(tracker - sight)
    assert np.mean(sooner) > 1.0  # ticks
    assert min(sooner) >= 0


def test_nothing_moves_where_all_stands_and_the_robot_drives(a1: RobotSpec) -> None:
    posts = np.array([[2.0, 1.0, 0.2], [1.5, -1.5, 0.3], [-2.0, 0.5, 0.25], [3.5, -0.4, 0.15]])
    ticks = 30
    time_s = np.arange(ticks) * 0.1
    poses = np.stack([0.8 * time_s - 1.0, 0.1 * time_s, 0.5 * time_s], axis=1)
    said = watch(a1, np.repeat(posts[None], ticks, axis=0), poses)
    assert sum(len(seen.seen) for seen, _, _ in said) <= 4  # of 120: four posts at thirty ticks


def test_without_a_scan_the_trackers_word_stands(a1: RobotSpec) -> None:
    ticks = 16
    movers = starting([2.0, -1.0], [0.0, 1.0], 0, ticks)
    said = watch(a1, movers, np.zeros((ticks, 3)), [True] * 12 + [False] * 4)
    seen, beams, moving = said[-1]
    assert moving == 1 and (beams == -1).all()
    away = np.linalg.norm(seen.position_m - movers[-1, 0, :2], axis=1)
    assert away.min() < 0.4  # carried on


def test_who_walks_behind_a_post_is_remembered_and_who_is_gone_is_not(a1: RobotSpec) -> None:
    ticks = 22
    walker = starting([2.5, -2.1], [0.0, 1.0], 0, ticks)[:, 0]  # behind the post from tick 16 on
    post = np.tile([1.2, 0.0, 0.35], (ticks, 1))
    seen, beams, _ = watch(a1, np.stack([walker, post], axis=1), np.zeros((ticks, 3)))[-1]
    hidden = np.setdiff1d(np.arange(len(seen.seen)), beams)
    assert np.linalg.norm(seen.position_m[hidden] - walker[-1, :2], axis=1).min(initial=9.0) < 0.4
    walker[18:] = [9.0, 9.0, 0.1]  # as if it had never been: one looks through its place
    seen, beams, moving = watch(a1, walker[:, None], np.zeros((ticks, 3)))[-1]
    assert moving == 1  # the tracker still believes in it
    assert len(seen.seen) == 0


def test_memory_is_all_there_is(a1: RobotSpec) -> None:
    sight, tracker = shipped(a1), MoverTracker(a1)
    memory, tracks = sight.reset(), tracker.reset()
    for tick in range(9):
        circles = np.array([[2.0, -1.0 + 0.1 * tick, 0.25]])
        observation = observe(np.zeros(3), (4, 0), cast(np.zeros(3), a1.lidar, WALLS, circles), tick * TICK_NS)
        tracks, of_beam = tracker.update(tracks, observation)
        before, of = memory, tracked(tracks, of_beam, tracker.moving(tracks))
        memory, flow = sight.look(before, observation, of)
        again, other = shipped(a1).look(before, observation, of)
        assert flow is not None and other is not None
        assert np.array_equal(flow.velocity_mps, other.velocity_mps) and len(again.scans_m) == len(memory.scans_m)
    assert len(memory.scans_m) == 7  # no more than it looks back for, and the newest


def test_scans_are_found_by_their_time_whatever_the_loops_rate_is() -> None:
    slow, fast, torn = Memory(), Memory(), Memory()
    for tenth in range(10):
        scan, pose = np.full(4, float(tenth)), np.zeros(3)
        slow = slow.with_scan(scan, pose, tenth * TICK_NS)
        fast = fast.with_scan(scan, pose, tenth * TICK_NS).with_scan(scan + 0.5, pose, tenth * TICK_NS + TICK_NS // 2)
        if tenth != 7:
            torn = torn.with_scan(scan, pose, tenth * TICK_NS + (tenth % 3) * 10**6)
    now = 10 * TICK_NS
    for memory in (slow, fast):
        assert [memory.scans_m[memory.ago(lag, now)][0] for lag in (1, 2, 3, 4, 6)] == [9, 8, 7, 6, 4]
    assert [torn.ago(lag, now) is None for lag in (1, 2, 3, 4)] == [False, False, True, False]
    assert Memory().ago(1, now) is None
    assert len(fast.stamps_ns) == 14 and slow.ago(30, now) is None


def test_answers_turn_with_the_beams(a1: RobotSpec) -> None:
    x = np.random.default_rng(0).normal(size=(CHANNELS, a1.lidar.beams)).astype(np.float32)
    sight = shipped(a1)
    assert np.allclose(sight.answers(np.roll(x, 31, axis=1)), np.roll(sight.answers(x), 31, axis=1), atol=1e-4)


def test_a_scan_from_elsewhere_is_seen_from_here(a1: RobotSpec) -> None:
    there, here = np.array([-0.5, 0.2, 0.3]), np.array([0.4, -0.1, 1.0])
    then, now = (cast(pose, a1.lidar, WALLS, NO_CIRCLES).astype(float) for pose in (there, here))
    found = seen_from(a1.lidar, then[None], there[None], here[None])[0]
    given_ = (found > 0) & (now < a1.lidar.range_m - 0.1)
    assert given_.mean() > 0.9
    assert np.median(np.abs(found - now)[given_]) < 0.05
    still = seen_from(a1.lidar, then[None], there[None], there[None])[0]
    assert np.allclose(still, then)
    assert not seen_from(a1.lidar, np.zeros_like(then)[None], there[None], here[None]).any()


def flow_of(velocity: dict[int, tuple[float, float]], beams: int = 128) -> Flow:
    found = np.zeros((beams, 2), np.float32)
    for beam, one in velocity.items():
        found[beam] = one
    return Flow(found, (found != 0).any(axis=1).astype(np.float32), found)


def test_neighbours_that_move_alike_are_one_thing() -> None:
    points = 2.0 * np.exp(1j * np.linspace(-np.pi, np.pi, 128, endpoint=False))
    ahead, back = (1.0, 0.0), (-1.0, 0.0)
    group = grouped(points, flow_of({126: ahead, 127: ahead, 0: ahead, 1: ahead, 2: back, 3: back, 60: ahead}))
    assert len({group[126], group[127], group[0], group[1]}) == 1  # over the end of the scan
    assert group[2] == group[3] != group[1]
    assert group.max() == 2 and (np.delete(group, [126, 127, 0, 1, 2, 3, 60]) == -1).all()
    assert (grouped(points, flow_of({})) == -1).all()
    all_round = grouped(points, flow_of(dict.fromkeys(range(128), ahead)))
    assert (all_round >= 0).all()
    points[1:] *= 1.4  # a step between beams 0 and 1
    assert len(set(grouped(points, flow_of({0: ahead, 1: ahead}))[:2].tolist())) == 2


def test_weights_that_do_not_fit_are_refused_in_a_line(tmp_path: Path, a1: RobotSpec) -> None:
    with pytest.raises(CheckpointError, match=r"no\.npz"):
        MotionSight.named(str(tmp_path / "no.npz"), a1.lidar)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match="weights of a sight"):
        MotionSight.load(tmp_path / "one.npy", a1.lidar)
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(CheckpointError, match="weights of a sight"):
        MotionSight.load(tmp_path / "torn.npz", a1.lidar)
    with pytest.raises(CheckpointError, match="sight: a"):
        MotionSight(a1.lidar, {"a.weight": np.zeros((4, 3, 3)), "a.bias": np.zeros(4)})
    other = LidarSpec(beams=64)
    assert MotionSight.named("learned", other) is None  # the tracker's word then
    assert MotionSight.named("", a1.lidar) is None
    assert shipped(a1).reset() == Memory()
