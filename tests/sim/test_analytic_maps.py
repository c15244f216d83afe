"""The compiled maps, routes and policy inputs are those of `robonav.mapping` and `robonav.planning`, bit for bit."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.config import load_robot
from robonav.errors import ConfigError, ShapeError
from robonav.mapping import CostmapConfig, MapperConfig
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import LidarSpec, Observation, RobotSpec
from sim.analytic.bits import Array, filled_to_right, leading_zeros, line_cells, trailing_zeros
from sim.analytic.jit import kernel
from sim.analytic.situation import BatchTracker, empty_policy_input
from sim.analytic.world import AnalyticWorld
from sim.policy_inputs import CompiledInputs, TrackedInputs
from sim.scenes import load_scene

A1 = load_robot("a1")
NARROW = dataclasses.replace(  # sees ahead alone, with few beams, from a mount in front
    load_robot("go2"),
    lidar=LidarSpec(beams=61, angle_min_rad=-1.8, fov_rad=3.6, range_m=5.0, mount_x_m=0.2, mount_z_m=0.1),
)
SMALL = SituationConfig(mapper=MapperConfig(max_side_m=8.0, log_odds_max=1.5), replan_period_s=0.3)


@kernel
def _line(x0: int, y0: int, x1: int, y1: int, width: int, height: int, cells: Array) -> int:
    return line_cells(x0, y0, x1, y1, width, height, cells)


@kernel
def _bits(words: Array, out: Array) -> None:
    for i in range(len(words)):
        out[i, 0], out[i, 1] = trailing_zeros(words[i]), leading_zeros(words[i])
        words[i] = filled_to_right(words[i])


def _episode(spec: RobotSpec, scene: str, number: int, ticks: int, rng: np.random.Generator) -> list[Observation]:
    """What a robot sees that drives about at random; its odometry drifts, now and then it jumps, beams are lost."""
    world = AnalyticWorld(spec)
    task = load_scene(scene, spec).scene(number)
    world.load(task)
    x0, y0, yaw0 = task.start
    c, s = np.cos(yaw0), np.sin(yaw0)
    dx, dy = task.goal[0] - x0, task.goal[1] - y0
    goal = np.array((c * dx + s * dy, c * dy - s * dx), np.float32)
    drift, seen = np.zeros(3), []
    for tick in range(ticks):
        x, y, yaw = world.pose_world
        pose = np.array((c * (x - x0) + s * (y - y0), c * (y - y0) - s * (x - x0), yaw - yaw0)) + drift
        scan = world.scan(spec.lidar)
        if tick % 12 == 11:  # now a goal in an obstacle, or close to one, and now one anywhere
            beam = int(np.argmin(np.abs(scan - rng.uniform(0.5, 3))))
            angle = pose[2] + spec.lidar.angles_rad[beam]
            onto = pose[:2] + scan[beam] * np.array((np.cos(angle), np.sin(angle)))
            goal = (onto if tick % 24 == 11 else goal + rng.normal(0, 1, 2)).astype(np.float32)
        lost = rng.random(len(scan)) < 0.05
        scan[lost] = rng.choice([0.0, np.nan, -1.0, spec.lidar.range_m, np.inf], lost.sum())
        seen.append(
            Observation(
                stamp_ns=tick * 10**8,
                pose_odom_base=pose.astype(np.float32),
                twist_base=np.zeros(3, np.float32),
                tilt_rad=np.zeros(2, np.float32),
                goal_odom_m=goal,
                last_command=np.zeros(3, np.float32),
                scan_m=None if rng.random() < 0.05 else scan,
            )
        )
        drift += rng.normal(0, 0.005, 3) + (tick % 50 == 49) * rng.normal(0, 0.3, 3)
        if world.advance(rng.uniform((-0.2, -0.3, -1.0), (0.8, 0.3, 1.0)), spec.dt_s):
            place = (rng.uniform(*task.bounds_m[0::2]), rng.uniform(*task.bounds_m[1::2]), rng.uniform(-3, 3))
            world.place(*place)
    return seen


def _assert_same_knowledge(batch: BatchTracker, b: int, situation: Situation) -> None:
    log_odds, corner = batch.log_odds(b)
    assert corner == situation.grid.origin_cell
    np.testing.assert_array_equal(log_odds, situation.grid.log_odds)
    route = batch.route(b)
    if situation.route_odom_m is None:
        assert route is None
    else:
        np.testing.assert_array_equal(route, situation.route_odom_m)
        assert batch.routes.progress_m[b] == pytest.approx(situation.progress_m, abs=1e-9)


@pytest.mark.parametrize(
    ("spec", "scenes"),
    [
        (A1, ("rooms", "clutter", "office")),
        (NARROW, ("rooms", "maze", "crowd-few")),
    ],
    ids=["full circle", "ahead"],
)
def test_a_batch_knows_what_the_robots_tracker_knows(spec, scenes) -> None:
    rng = np.random.default_rng(len(scenes[0]))
    ticks = 90
    seen = [_episode(spec, scene, k, ticks, rng) for k, scene in enumerate(scenes)]
    tracker, batch = SituationTracker(spec), BatchTracker(spec, len(scenes))
    situations = [tracker.reset() for _ in scenes]
    out = empty_policy_input(spec, len(scenes))
    nothing = np.zeros(spec.lidar.beams, np.float32)
    routes = 0
    for tick in range(ticks):
        now = [episode[tick] for episode in seen]
        scans = np.stack([nothing if o.scan_m is None else o.scan_m for o in now])
        poses, goals = np.stack([o.pose_odom_base for o in now]), np.stack([o.goal_odom_m for o in now])
        batch.update(scans, poses, goals)
        batch.policy_input(poses, goals, out)
        for b, observation in enumerate(now):
            situations[b] = tracker.update(situations[b], observation)
            _assert_same_knowledge(batch, b, situations[b])
            routes += situations[b].route_odom_m is not None
            if situations[b].mapped:
                expected = tracker.policy_input(situations[b], observation)
                np.testing.assert_array_equal(out["local_map"][b], expected.local_map)
                np.testing.assert_allclose(out["goal_base_m"][b], expected.goal_base_m, atol=2e-6)
                np.testing.assert_allclose(out["waypoints_base_m"][b], expected.waypoints_base_m, atol=2e-6)
    assert routes > ticks  # else the comparison of routes says little


def test_maps_of_the_largest_size_move_along() -> None:
    """Where such a map, of 80 m as presets have it, cuts a scan off, cells at its border may differ."""
    rng = np.random.default_rng(1)
    tracker, batch = SituationTracker(A1, SMALL), BatchTracker(A1, 1, SMALL)
    situation, corners = tracker.reset(), set()
    for observation in _episode(A1, "office", 1, 90, rng):
        if observation.scan_m is None:
            continue
        situation = tracker.update(situation, observation)
        batch.update(observation.scan_m[None], observation.pose_odom_base[None], observation.goal_odom_m[None])
        log_odds, corner = batch.log_odds(0)
        assert corner == situation.grid.origin_cell
        assert log_odds.shape == situation.grid.log_odds.shape
        assert np.mean(log_odds != situation.grid.log_odds) <= 1e-3
        corners.add(corner)
    assert max(log_odds.shape) == 80  # 8 m
    assert len(corners) > 2


@pytest.mark.parametrize(("sight", "scene"), [("", "rooms"), ("learned", "crowd-dense")])
def test_inputs_of_one_episode_are_those_of_the_robots_tracker(sight: str, scene: str) -> None:
    config = SituationConfig(sight=sight)
    compiled, tracked = CompiledInputs(A1, config), TrackedInputs(A1, config)
    rng, moved = np.random.default_rng(3), 0
    for number in range(2):
        compiled.reset()
        tracked.reset()
        for observation in _episode(A1, scene, number, 40, rng):
            ours, theirs = compiled.arrays(observation), tracked.arrays(observation)
            assert ours.keys() == theirs.keys()
            for name, array in theirs.items():
                assert ours[name].dtype == array.dtype
                np.testing.assert_allclose(ours[name], array, atol=2e-6, err_msg=name)
            np.testing.assert_array_equal(ours["local_map"], theirs["local_map"])
            moved += bool(ours["flow_mps"].any())
    assert moved > 30 * bool(sight)


def test_a_world_of_a_batch_is_left_alone_where_it_is_not_active() -> None:
    rng = np.random.default_rng(4)
    first, second = (_episode(A1, "rooms", k, 12, rng) for k in range(2))
    both, alone = BatchTracker(A1, 2), BatchTracker(A1, 1)
    nothing = np.zeros(A1.lidar.beams, np.float32)

    def arrays(*now: Observation) -> tuple[np.ndarray, ...]:
        scans = np.stack([nothing if o.scan_m is None else o.scan_m for o in now])
        return scans, np.stack([o.pose_odom_base for o in now]), np.stack([o.goal_odom_m for o in now])

    for tick in range(12):
        both.update(*arrays(first[tick], second[tick]))
        alone.update(*arrays(first[tick]))
        if tick == 5:  # an episode of the second world ends
            both.reset(np.array([1]))
        if tick > 5:
            both.update(*arrays(first[tick], second[0]), active=np.array([False, True]))
        np.testing.assert_array_equal(both.log_odds(0)[0], alone.log_odds(0)[0])
        np.testing.assert_array_equal(both.route(0), alone.route(0))
    both.reset(np.array([0]))
    assert both.route(0) is None
    assert not both.log_odds(0)[0].any()


@given(
    st.tuples(*[st.integers(-60, 90)] * 4),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_lines_are_those_of_opencv(ends, size) -> None:
    (x0, y0, x1, y1), (width, height) = ends, size
    image = np.zeros((height, width), np.uint8)
    cv2.line(image, (x0, y0), (x1, y1), 1, 1, cv2.LINE_8)
    cells = np.zeros((400, 2), np.int64)
    drawn = np.zeros_like(image)
    count = _line(x0, y0, x1, y1, width, height, cells)
    drawn[cells[:count, 1], cells[:count, 0]] = 1
    np.testing.assert_array_equal(drawn, image)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_bits_of_words(values) -> None:
    words, out = np.array(values, np.uint64), np.zeros((len(values), 2), np.int64)
    _bits(words, out)
    for value, word, (low, high) in zip(values, words.tolist(), out.tolist(), strict=True):
        assert (low, high) == ((value & -value).bit_length() - 1 if value else 64, 64 - value.bit_length())
        assert all(word >> k & 1 == bin(value & ((2 << k) - 1)).count("1") % 2 for k in range(64))


@pytest.mark.parametrize(
    ("scan", "pose", "goal", "message"),
    [
        (np.zeros((2, 5), np.float32), None, None, r"scan_m: expected float32 \(2, 128\), got float32 \(2, 5\)"),
        (np.zeros((2, 128)), None, None, "scan_m: expected float32 .*, got float64"),
        (None, np.zeros((1, 3), np.float32), None, r"pose_odom_base: expected float32 \(2, 3\)"),
        (None, None, np.full((2, 2), np.nan, np.float32), "finite numbers, got NaN or Inf"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(scan, pose, goal, message) -> None:
    batch = BatchTracker(A1, 2)
    scan = np.zeros((2, 128), np.float32) if scan is None else scan
    pose = np.zeros((2, 3), np.float32) if pose is None else pose
    goal = np.zeros((2, 2), np.float32) if goal is None else goal
    with pytest.raises(ShapeError, match=message):
        batch.update(scan, pose, goal)


def test_costs_that_reach_too_far_are_refused() -> None:
    with pytest.raises(ConfigError, match="inflation_radius_m: expected at most 31 cells"):
        BatchTracker(A1, 1, SituationConfig(costmap=CostmapConfig(inflation_radius_m=5.0)))
