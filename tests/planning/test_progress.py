from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robonav.planning.progress import Pace, ProgressConfig, change_m, progress_m, route_ahead, turning_m
from robonav.types import RobotSpec
from tests.mapping.raycast import observe

PLAIN = ProgressConfig(route_weight=0.0, heading_weight=0.0, arrival_m=0.0, change_weight=0.0, turn_round_weight=0.0)
PACE = Pace(2.0, 0.5, 1.0)
ROUTE = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]], np.float32)


def test_the_route_ahead_is_seen_from_the_robot() -> None:
    ahead = route_ahead(ROUTE, 2.0, observe((2.0, 0.0, np.pi / 2), (3, 4), None), 2.05)
    assert len(ahead.line) == 21
    assert np.allclose(ahead.line[:11].imag, -np.linspace(0, 1, 11), atol=1e-5)  # to the right, as far as the corner
    assert ahead.line[20] == pytest.approx(1 - 1j, abs=1e-5)
    assert ahead.end == pytest.approx(4 - 1j, abs=1e-5)
    assert ahead.length_m == pytest.approx(5.0)


def test_progress_is_counted_along_the_route_and_its_prices_are_taken_off() -> None:
    ahead = route_ahead(ROUTE, 0.0, observe((0, 0, 0), (3, 4), None), 6.0)
    ends = np.array([[0.5], [1.0 + 0.3j], [3.0 + 1.0j]], np.complex64)
    yaw = np.array([[0.0], [0.5], [np.pi / 2]], np.float32)

    def gain(config: ProgressConfig) -> np.ndarray:
        return progress_m(ahead, ends, yaw, np.ones(3, np.int64), np.array([1.0]), PACE, config)

    assert np.allclose(gain(PLAIN), [0.5, 1.0, 4.0], atol=1e-5)
    assert np.allclose(gain(replace(PLAIN, route_weight=0.4)), [0.5, 1.0 - 0.4 * 0.3, 4.0], atol=1e-5)
    off = 0.5 + np.arctan2(0.3, 0.6)  # from the end to the route's point 0.6 m on
    assert np.allclose(gain(replace(PLAIN, heading_weight=0.15)), [0.5, 1.0 - 0.15 * off, 4.0], atol=1e-5)


def test_what_comes_after_a_touch_does_not_count() -> None:
    ahead = route_ahead(ROUTE, 0.0, observe((0, 0, 0), (3, 4), None), 6.0)
    path = np.array([[0.2, 0.4, 0.6, 0.8]], np.complex64)
    for free, far_m in ((4, 0.8), (2, 0.4), (0, 0.2)):
        found = progress_m(
            ahead, path, np.zeros((1, 4), np.float32), np.array([free]), np.arange(1.0, 5.0), PACE, PLAIN
        )
        assert found[0] == pytest.approx(far_m, abs=1e-5)


def test_who_arrives_earlier_gains_the_time_that_is_left() -> None:
    ahead = route_ahead(ROUTE[:2], 2.0, observe((2, 0, 0), (3, 0), None), 3.0)
    paths = np.array([[0.4, 0.8, 1.2, 1.6], [0.2, 0.4, 0.6, 0.8], [0.1, 0.2, 0.3, 0.4]], np.complex64)
    time_s, yaw, free = 0.5 * np.arange(1.0, 5.0), np.zeros((3, 4), np.float32), np.array([4, 4, 4])
    found = progress_m(ahead, paths, yaw, free, time_s, PACE, replace(PLAIN, arrival_m=0.3))
    assert np.allclose(found, [1.0 + 2.0 * 1.0, 1.0 + 2.0 * 0.0, 0.4], atol=1e-5)
    found = progress_m(ahead, paths, yaw, free - 3, time_s, PACE, replace(PLAIN, arrival_m=0.3))
    assert found.max() < 1.0  # it would touch something before it arrives


def test_a_changed_command_costs() -> None:
    observation = observe((0, 0, 0), (3, 4), None)  # its last command is (0.3, 0.1, -0.2)
    price = change_m(np.array([[0.3, 0.1, -0.2], [0.6, 0.5, 0.1]]), observation, ProgressConfig(change_weight=0.1))
    assert np.allclose(price, [0.0, 0.1 * (0.5 + 0.3 / 3)], atol=1e-6)


def test_looking_backwards_costs_the_time_to_turn_or_to_drive_backwards_whichever_is_less() -> None:
    off = np.array([0.0, np.pi / 2, np.pi, np.pi, np.pi])
    rest = np.array([9.0, 9.0, 9.0, 0.2, 0.0])
    # turning by 90 degrees takes 1.57 s, in which 3.14 m could have been driven; 0.2 m backwards take 0.4 s, ahead 0.1
    assert np.allclose(turning_m(off, rest, PACE), [0.0, 0.0, np.pi, 2.0 * 0.3, 0.0])
    assert turning_m(off, rest, Pace(0.5, 1.0, 1.0)).max() == 0.0  # who is quicker backwards
    no_way_back = turning_m(off, rest, Pace(1.0, 0.0, 0.5))
    assert np.allclose(no_way_back[:4], [0.0, 0.0, np.pi, np.pi])


def test_the_end_of_a_plan_that_looks_backwards_is_worth_less() -> None:
    ahead = route_ahead(ROUTE, 0.0, observe((0, 0, 0), (3, 4), None), 6.0)
    ends = np.full((3, 1), 0.5, np.complex64)
    yaw = np.array([[0.0], [np.pi / 2 + 0.2], [np.pi]], np.float32)
    config = replace(PLAIN, turn_round_weight=0.5)
    found = progress_m(ahead, ends, yaw, np.ones(3, np.int64), np.array([1.0]), PACE, config)
    assert np.allclose(found, [0.5, 0.5 - 0.5 * 2.0 * 0.2, 0.5 - 0.5 * np.pi], atol=1e-5)


def test_a_robots_pace_is_that_of_its_limits(a1: RobotSpec) -> None:
    assert Pace.of(a1) == (a1.vx_max_mps, -a1.vx_min_mps, a1.yaw_rate_max_radps)
