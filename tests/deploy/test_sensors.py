"""Pictures that cannot be, and sensors that hang: told from what a moving and a standing robot sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.config import GovernorConfig
from deploy.drivers import room_scan
from deploy.points import points_of, scan_points
from deploy.sensors import (
    BAD_SCAN,
    BLIND_DEPTH,
    BLIND_SCAN,
    ROUGH_SHARE,
    Picture,
    Watch,
    frozen,
    picture_of,
    pictures_of,
    unbelievable,
    watch,
    went_blind,
)
from robonav.config import load_robot
from robonav.types import Observation

ROBOT = load_robot("a1")
RANGE_M, BEAMS = ROBOT.lidar.range_m, ROBOT.lidar.beams
LIFE_S = GovernorConfig().observation_life_s
MS = 1_000_000


def looking(scan_m: Any = None, depth_m: Any = None) -> Observation:
    zeros = np.zeros(3, np.float32)
    return Observation(0, zeros, zeros, zeros[:2], zeros[:2], zeros, scan_m, depth_m)


def scan(x_m: float = 0.0) -> np.ndarray:
    return room_scan(np.array([x_m, 0.0, 0.3]), 6.0, ROBOT.lidar)


def test_what_a_robot_sees_in_a_room_or_an_open_place_can_be_believed() -> None:
    depth = np.full((ROBOT.depth.height, ROBOT.depth.width), 2.0, np.float32)
    assert unbelievable(looking(scan(), depth), ROBOT) == ""
    assert unbelievable(looking(np.full(BEAMS, RANGE_M, np.float32)), ROBOT) == ""
    assert unbelievable(looking(), ROBOT) == ""
    few = scan()
    few[: BEAMS // 11] = -1.0  # now and then a beam comes back wrong
    few[-BEAMS // 2 :] = 0.0
    assert unbelievable(looking(few), ROBOT) == ""


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), posts=st.integers(0, 40))
def test_a_thicket_of_posts_is_no_random_scan(seed: int, posts: int) -> None:
    """Neighbouring beams may part at every post; between the posts they do not."""
    rng = np.random.default_rng(seed)
    ranges = np.full(BEAMS, RANGE_M)
    for _ in range(posts):
        at, wide, far = rng.integers(BEAMS), rng.integers(2, 9), rng.uniform(0.3, RANGE_M)
        beams = np.arange(at, at + wide) % BEAMS
        ranges[beams] = np.minimum(ranges[beams], far)
    assert unbelievable(looking(ranges), ROBOT) == ""


@pytest.mark.parametrize("seed", range(20))
def test_a_random_scan_cannot_be(seed: int) -> None:
    ranges = np.random.default_rng(seed).uniform(0.0, RANGE_M, BEAMS)
    assert unbelievable(looking(ranges), ROBOT) == BAD_SCAN


def test_negative_ranges_and_blind_sensors_are_named() -> None:
    assert unbelievable(looking(np.full(BEAMS, -1.0)), ROBOT) == BAD_SCAN
    some = scan()
    some[: BEAMS // 9] = -1.0
    assert unbelievable(looking(some), ROBOT) == BAD_SCAN
    assert unbelievable(looking(np.zeros(BEAMS)), ROBOT) == BLIND_SCAN
    assert unbelievable(looking(scan(), np.zeros((2, 2))), ROBOT) == BLIND_DEPTH
    # Of a few beams nothing is said: they may part as they like.
    sparse = np.zeros(BEAMS)
    sparse[:16] = np.tile([0.5, 7.0], 8)
    assert unbelievable(looking(sparse), ROBOT) == ""
    sparse[:17] = np.tile([0.5, 7.0], 9)[:17]
    assert unbelievable(looking(sparse), ROBOT) == BAD_SCAN
    # What lies beyond the range counts as at its end.
    # As rough as the bound is not too rough yet, and a tenth of negative beams is not too many.
    lidar = replace(ROBOT.lidar, beams=20, range_m=8.0)
    edge = replace(ROBOT, lidar=lidar)
    waves = np.where(np.arange(20) % 2, 2.4, 1.2)
    assert np.median(np.abs(np.diff(waves))) == ROUGH_SHARE * lidar.range_m
    assert unbelievable(looking(waves), edge) == ""
    waves[1::2] += 0.001
    assert unbelievable(looking(waves), edge) == BAD_SCAN
    tenth = np.full(20, 1.0)
    tenth[:2] = -1.0
    assert unbelievable(looking(tenth), edge) == ""
    tenth[2] = -1.0
    assert unbelievable(looking(tenth), edge) == BAD_SCAN
    beyond = np.where(np.arange(BEAMS) % 2, RANGE_M, 99.0)
    assert unbelievable(looking(beyond), ROBOT) == ""


def picture(values: Any) -> Picture:
    return picture_of(scan_points(np.asarray(values), ROBOT.lidar), BEAMS)


def test_a_picture_knows_what_was_hit_and_its_last_bit() -> None:
    one = picture(scan())
    assert one == picture(scan())
    assert one.digest != picture(np.nextafter(scan(), np.float32(0))).digest
    assert one.hit_share == np.mean(scan() < RANGE_M - 1e-3)
    nothing = picture(np.full(BEAMS, RANGE_M))
    assert (nothing.digest, nothing.hit_share) == ("", 0.0)
    half = np.full(BEAMS, RANGE_M)
    half[: BEAMS // 2] = 1.0
    half[0] = 0.0
    assert picture(half).hit_share == 0.5 - 1 / BEAMS


def test_each_sensor_has_its_picture_and_a_floor_is_none() -> None:
    """A level body that drives over a bare floor sees the same of it, to the last bit, as long as it likes."""
    config, depth = GovernorConfig(), np.full((ROBOT.depth.height, ROBOT.depth.width), 1.0, np.float32)
    both = pictures_of(points_of(looking(scan(), depth), ROBOT, config), ROBOT)
    assert both["scan"] == picture(scan())
    assert both["depth"].digest
    assert both["depth"].hit_share == 1.0
    assert pictures_of(points_of(looking(), ROBOT, config), ROBOT) == {}
    floor = depth.copy()
    floor[: ROBOT.depth.height // 2 + 20] = ROBOT.depth.range_m  # what is left lies below the obstacles' heights
    assert pictures_of(points_of(looking(None, floor), ROBOT, config), ROBOT)["depth"].digest == ""


def watched(*pictures: tuple[Any, bool], step_ms: int = 100) -> dict[str, Watch]:
    """Watches after scans that came each 100 ms, from 0 on, and whether the body moved then."""
    found: dict[str, Watch] = {}
    for i, (values, moves) in enumerate(pictures):
        found = watch(found, {"scan": picture(values)}, i * step_ms * MS, moves)
    return found


def is_frozen(found: dict[str, Watch], at_ms: float) -> bool:
    return frozen(found, int(at_ms * MS), LIFE_S)


def test_the_same_picture_while_the_body_moves_is_frozen_after_its_life() -> None:
    found = watched(*[(scan(), True)] * 5)
    assert not is_frozen(found, 400)
    assert is_frozen(found, 400.001)
    assert found["scan"].since_ns == 0


def test_a_picture_that_changes_is_alive_and_one_change_thaws_it() -> None:
    found = watched(*[(scan(0.001 * i), True) for i in range(20)])
    assert not is_frozen(found, 2200)
    stuck = watched(*[(scan(), True)] * 9, (scan(0.001), True))
    assert not is_frozen(stuck, 1000)
    assert is_frozen(watched(*[(scan(), True)] * 9), 1000)


def test_a_standing_robot_may_see_the_same_for_ever_and_its_time_counts_from_when_it_moves() -> None:
    still = [(scan(), False)] * 20
    assert not is_frozen(watched(*still), 2300)
    starting = watched(*still, (scan(), True))  # at 2000 ms; the last that stood came at 1900
    assert not is_frozen(starting, 2300)
    assert is_frozen(starting, 2300.001)


def test_a_frozen_sensor_stays_so_while_the_robot_stands_for_it() -> None:
    found = watched(*[(scan(), True)] * 5, *[(scan(), False)] * 20)
    assert is_frozen(found, 2500)


def test_a_last_picture_of_a_robot_that_stopped_hard_is_not_frozen() -> None:
    """It came while the robot moved, and it is right that it stays."""
    assert not is_frozen(watched((scan(0.1), True), (scan(), True), *[(scan(), False)] * 20), 2300)


def test_where_nothing_is_in_range_nothing_can_change() -> None:
    assert not is_frozen(watched(*[(np.full(BEAMS, RANGE_M), True)] * 20), 2500)


def test_each_sensor_is_watched_by_itself() -> None:
    found: dict[str, Watch] = {}
    for i in range(8):
        pictures = {"scan": picture(scan(0.01 * i)), "depth": picture_of(np.ones((9, 2)), 9)}
        found = watch(found, pictures, i * 100 * MS, True)
    assert is_frozen(found, 700)
    assert not is_frozen({"scan": found["scan"]}, 700)
    # A camera that is left out of an observation is not known any more.
    assert set(watch(found, {"scan": found["scan"].picture}, 0, True)) == {"scan"}


def test_all_hits_gone_at_once_is_blindness_and_a_slow_end_of_a_room_is_not() -> None:
    nothing = {"scan": picture(np.full(BEAMS, RANGE_M))}
    room = watched((scan(), True))
    assert went_blind(room, nothing)
    assert not went_blind(room, {"scan": picture(scan())})
    assert not went_blind({}, nothing)
    assert not went_blind(room, {})
    last = room["scan"]
    for share, blind in ((0.25, True), (0.24, False)):
        before = {"scan": replace(last, picture=replace(last.picture, hit_share=share))}
        assert went_blind(before, nothing) == blind
