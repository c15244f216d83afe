"""What braking sweeps: closed forms for straight lines, doors that must stay open, and ways out of a corner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.config import GovernorConfig, GovernorLimits
from deploy.corridor import Scan, braking_poses, is_clear, safe_velocity
from robonav.config import load_robot
from robonav.geometry import inverse_transform_points

SPEC = load_robot("a1")
LIMITS = GovernorLimits.of(SPEC, GovernorConfig())
MARGIN_M = LIMITS.config.corridor_margin_m
FRONT_M = SPEC.length_m / 2


def wall_ahead(gap_m: float) -> np.ndarray:
    """Points `gap_m` before the front's margin."""
    y = np.linspace(-1, 1, 81)
    return np.stack([np.full_like(y, FRONT_M + MARGIN_M + gap_m), y], axis=1)


def braking_distance_m(speed_mps: float, age_s: float = 0.0) -> float:
    return speed_mps * (0.2 + age_s) + speed_mps**2 / (2 * 3.0)


def forward(speed_mps: float) -> np.ndarray:
    return np.array([speed_mps, 0.0, 0.0])


def door(width_m: float, pose: tuple[float, float, float]) -> np.ndarray:
    """A wall along y at x = 1 with an opening round y = 0, seen from a pose."""
    y = np.arange(width_m / 2, 3, 0.02)
    wall = np.concatenate([np.stack([np.full_like(y, 1.0), side * y], axis=1) for side in (1, -1)])
    return inverse_transform_points(pose, np.concatenate([wall, wall + np.array([0.15, 0.0])]))


@given(st.floats(0.05, 1.0), st.floats(0.0, 0.6), st.floats(0.0, 0.2))
def test_straight_ahead_is_clear_exactly_when_the_braking_distance_fits(
    speed: float, gap_m: float, age_s: float
) -> None:
    distance = braking_distance_m(speed, age_s)
    if abs(distance - gap_m) > 1e-6:
        scan = Scan(wall_ahead(gap_m), age_s=age_s)
        assert is_clear(forward(speed), scan, LIMITS) == (distance < gap_m)


@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.floats(0.0, 0.6))
def test_a_robot_that_is_faster_than_asked_reacts_over_a_longer_way(speed: float, now: float, gap_m: float) -> None:
    distance = 0.2 * max(now, speed) + speed**2 / 6
    if abs(distance - gap_m) > 1e-6:
        assert is_clear(forward(speed), Scan(wall_ahead(gap_m), forward(now)), LIMITS) == (distance < gap_m)
    assert is_clear(forward(speed), Scan(wall_ahead(0.6), -forward(now)), LIMITS)


@given(st.floats(0.0, 0.6), st.floats(0.2, 1.0))
def test_the_safe_velocity_brakes_before_the_wall(gap_m: float, speed: float) -> None:
    safe = safe_velocity(forward(speed), Scan(wall_ahead(gap_m)), LIMITS)
    assert 0 <= safe[0] <= speed
    assert braking_distance_m(float(safe[0])) <= gap_m + 1e-9


def test_an_arc_of_braking_ends_where_the_closed_form_says() -> None:
    v, w = 0.8, 1.2
    nothing = Scan(np.zeros((0, 2)))
    length, angle = braking_distance_m(v), w * 0.2 + w**2 / (2 * 8.0)
    x, y, yaw = braking_poses(np.array([v, 0.0, w]), nothing, LIMITS)[-1]
    assert yaw == pytest.approx(angle)
    assert (x, y) == pytest.approx((length / angle * np.sin(angle), length / angle * (1 - np.cos(angle))))
    straight = braking_poses(np.array([0.3, -0.2, 0.0]), nothing, LIMITS)[-1]
    assert np.hypot(*straight[:2]) == pytest.approx(braking_distance_m(float(np.hypot(0.3, 0.2))))


@pytest.mark.parametrize("y_m", [-0.25, 0.0, 0.25])
@pytest.mark.parametrize("yaw_rad", [-0.25, 0.0, 0.25])
def test_a_door_of_1_2_m_is_driven_through_at_full_speed(y_m: float, yaw_rad: float) -> None:
    velocity = np.array([1.0, 0.0, 0.0])
    for x_m in np.arange(0.0, 1.6, 0.05):
        pose = (float(x_m), y_m + (x_m - 1.0) * np.tan(yaw_rad), yaw_rad)
        assert is_clear(velocity, Scan(door(1.2, pose)), LIMITS)


def test_a_turn_through_a_door_is_judged_along_its_arc() -> None:
    post = np.array([[FRONT_M + 0.17, -0.22]])  # right before the right front corner's side
    assert is_clear(np.array([0.8, 0.0, 1.5]), Scan(post), LIMITS)
    assert not is_clear(np.array([0.8, 0.0, -1.5]), Scan(post), LIMITS)


@pytest.mark.parametrize("velocity", [[-0.4, 0, 0], [0, 0.4, 0], [0, -0.4, 0]])
def test_a_robot_at_the_wall_may_back_off_and_slide_along(velocity: list[float]) -> None:
    wall = wall_ahead(-MARGIN_M + 0.005)
    assert is_clear(np.array(velocity, np.float64), Scan(wall), LIMITS)
    assert not is_clear(np.array([0.3, 0.0, 0.0]), Scan(wall), LIMITS)


def test_a_robot_beside_a_wall_closer_than_the_margin_may_drive_along_it() -> None:
    x = np.linspace(-1, 3, 201)
    wall = np.stack([x, np.full_like(x, SPEC.width_m / 2 + 0.02)], axis=1)
    assert is_clear(np.array([1.0, 0.0, 0.0]), Scan(wall), LIMITS)
    assert not is_clear(np.array([1.0, 0.3, 0.0]), Scan(wall), LIMITS)


def test_a_robot_that_cannot_go_on_may_still_turn_away() -> None:
    # The wall is near enough to stop 0.5 m/s and far enough for the corners' circle.
    wall = wall_ahead(0.03)
    safe = safe_velocity(np.array([1.0, 0.0, 0.8]), Scan(wall), LIMITS)
    assert safe[2] > 0
    assert is_clear(safe, Scan(wall), LIMITS)


def test_standstill_and_an_empty_scan_are_clear() -> None:
    assert is_clear(np.zeros(3), Scan(wall_ahead(-0.2)), LIMITS)
    assert is_clear(np.array([1.0, 0, 0]), Scan(np.zeros((0, 2))), LIMITS)


@pytest.mark.parametrize(("gap_m", "turn"), [(0.045, 0.25), (0.06, 0.5), (0.01, 0.0)])
def test_a_robot_that_cannot_go_on_turns_as_fast_as_its_corners_allow(gap_m: float, turn: float) -> None:
    """A post before the nose: a turn by w brings it closer by (1 - cos) of the angle of braking from w."""
    post = Scan(np.array([[FRONT_M + gap_m, 0.0]]))
    safe = safe_velocity(np.array([1.0, 0.0, 1.5]), post, LIMITS)
    np.testing.assert_allclose(safe, [0.0, 0.0, 1.5 * turn])
    for scale in (0.25, 0.5, 1.0):
        angle = 1.5 * scale * 0.2 + (1.5 * scale) ** 2 / 16
        margin_m = min(MARGIN_M, gap_m - 1e-3)
        assert ((FRONT_M + gap_m) * np.cos(angle) - FRONT_M >= margin_m) == (scale <= turn)
