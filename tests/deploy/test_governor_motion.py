"""How fast the velocity may change: closed forms of ramp and S-curve, and bounds that hold for every course."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.config import GovernorConfig, GovernorLimits
from deploy.motion import ACCELERATION, JERK, MAX_STEP_S, Motion, brake, drive, within_speed
from robonav.config import load_robot

DT_S = 0.02
CONFIG = GovernorConfig(
    acceleration_factor=1.0, jerk_mps3=30.0, yaw_jerk_radps3=60.0, stop_mps2=5.0, stop_yaw_radps2=10.0
)
LIMITS = GovernorLimits.of(load_robot("a1"), CONFIG)  # 3 m/s^2 and 8 rad/s^2
BOX = np.array([1.0, 0.4, 1.5])


def course(target: np.ndarray, cycles: int, motion: Motion | None = None) -> list[Motion]:
    motions = [motion or Motion()]
    for _ in range(cycles):
        motions.append(drive(motions[-1], target, DT_S, LIMITS)[0])
    return motions


@pytest.mark.parametrize(("axis", "jerk", "rate"), [(0, 30.0, 3.0), (1, 30.0, 3.0), (2, 60.0, 8.0)])
def test_from_standstill_the_acceleration_grows_by_the_jerk_up_to_its_limit(
    axis: int, jerk: float, rate: float
) -> None:
    target = np.zeros(3)
    target[axis] = BOX[axis]
    motions = course(target, 60)
    grown = [m.acceleration[axis] for m in motions[1:4]]
    np.testing.assert_allclose(grown, [jerk * DT_S, 2 * jerk * DT_S, 3 * jerk * DT_S], atol=1e-9)
    np.testing.assert_allclose(motions[2].velocity[axis], 3 * jerk * DT_S**2, atol=1e-12)  # 1 + 2 steps of j dt^2
    assert max(m.acceleration[axis] for m in motions) <= rate + 1e-9
    assert motions[-1].velocity[axis] == target[axis]
    assert not motions[-1].acceleration.any()
    speeds = [m.velocity[axis] for m in motions]
    assert all(b >= a for a, b in pairwise(speeds))  # no overshoot


def test_the_time_to_a_speed_is_the_s_curves() -> None:
    """0 to 1 m/s with 3 m/s^2 and 30 m/s^3: v / a + a / j = 0.433 s, to within the steps."""
    speeds = [m.velocity[0] for m in course(np.array([1.0, 0, 0]), 60)]
    assert 0.433 - DT_S <= speeds.index(1.0) * DT_S <= 0.433 + 2 * DT_S
    short = [m.velocity[0] for m in course(np.array([0.1, 0, 0]), 60)]  # 2 sqrt(v / j) = 0.115 s without a plateau
    assert 0.115 - DT_S <= short.index(0.1) * DT_S <= 0.115 + 2 * DT_S


def test_what_held_it_back_is_said() -> None:
    forward = np.array([1.0, 0, 0])
    motion, why = drive(Motion(), forward, DT_S, LIMITS)
    assert why == (ACCELERATION, JERK)
    at_full = Motion(np.array([0.5, 0, 0]), np.array([3.0, 0, 0]))
    motion, why = drive(at_full, forward, DT_S, LIMITS)
    assert why == (ACCELERATION,)
    assert motion.velocity[0] == pytest.approx(0.56)
    near = Motion(np.array([0.999, 0, 0]))
    motion, why = drive(near, forward, DT_S, LIMITS)
    assert why == ()
    np.testing.assert_array_equal(motion.velocity, forward)
    assert motion.acceleration[0] == pytest.approx(0.001 / DT_S)
    motion, why = drive(motion, forward, DT_S, LIMITS)
    assert (why, motion.acceleration.any()) == ((), False)
    _, why = drive(Motion(), np.array([1.0, 0, 1.5]), DT_S, LIMITS)
    assert why == (ACCELERATION, JERK)  # each once, though both parts met both
    _, why = drive(Motion(), np.array([0.02, 0, 0]), DT_S, LIMITS)
    assert why == (JERK,)


def test_the_plane_has_one_limit_and_the_yaw_rate_another() -> None:
    at_full = Motion(np.zeros(3), np.array([1.8, 2.4, 8.0]))  # 3 m/s^2 along (3, 4)
    motion, _ = drive(at_full, np.array([0.3, 0.4, 1.5]), DT_S, LIMITS)
    np.testing.assert_allclose(motion.velocity, [0.036, 0.048, 0.16], atol=1e-12)


def test_standstill_that_is_asked_for_is_approached_without_jerk() -> None:
    moving = Motion(np.array([0.6, 0.0, 0.5]), np.array([3.0, 0, 8.0]))
    motion, why = drive(moving, np.zeros(3), DT_S, LIMITS)
    np.testing.assert_allclose(motion.velocity, [0.54, 0.0, 0.34])
    np.testing.assert_allclose(motion.acceleration, [-3.0, 0.0, -8.0])
    assert why == (ACCELERATION,)
    motion, why = drive(Motion(np.array([0.05, 0.0, 0.1])), np.zeros(3), DT_S, LIMITS)
    assert not motion.velocity.any()
    assert why == ()


def test_a_stop_ramps_at_its_own_rate_at_once_and_ends_the_acceleration() -> None:
    moving = Motion(np.array([0.6, 0.0, 0.5]), np.array([3.0, 0, 8.0]))
    motion = brake(moving, np.zeros(3), DT_S, LIMITS)
    np.testing.assert_allclose(motion.velocity, [0.5, 0.0, 0.3])
    assert not motion.acceleration.any()
    assert not brake(moving, np.zeros(3), 0.2, LIMITS).velocity.any()  # the time that passed, however long
    slower = brake(moving, np.array([0.45, 0.0, 0.5]), 1.0, LIMITS)
    np.testing.assert_array_equal(slower.velocity, [0.45, 0.0, 0.5])
    np.testing.assert_array_equal(brake(moving, np.zeros(3), -1.0, LIMITS).velocity, moving.velocity)


def test_a_delay_is_not_made_up_for_by_accelerating_more() -> None:
    moving = Motion(np.zeros(3), np.array([3.0, 0, 0]))
    forward = np.array([1.0, 0, 0])
    long, exact = drive(moving, forward, 5.0, LIMITS)[0], drive(moving, forward, MAX_STEP_S, LIMITS)[0]
    np.testing.assert_array_equal(long.velocity, exact.velocity)
    assert long.velocity[0] == pytest.approx(0.3)
    for nothing in (0.0, -0.1):
        assert drive(moving, forward, nothing, LIMITS) == (moving, ())


def test_the_arguments_stay_as_they_were() -> None:
    motion, target = Motion(np.array([0.5, 0.1, 0.2]), np.array([1.0, 0, 0])), np.array([0.1, 0.2, -0.3])
    for move in (drive, brake):
        for step_s in (0.02, 10.0):
            out = move(motion, target, step_s, LIMITS)
            (out[0] if isinstance(out, tuple) else out).velocity[:] = 9.0
    np.testing.assert_array_equal(motion.velocity, [0.5, 0.1, 0.2])
    np.testing.assert_array_equal(target, [0.1, 0.2, -0.3])
    np.testing.assert_array_equal(drive(Motion(target), target, 0.02, LIMITS)[0].velocity, target)


def test_an_overshoot_that_jerk_forces_stays_within_the_box_of_speeds() -> None:
    almost = Motion(np.array([0.99, 0, 0]), np.array([3.0, 0, 0]))
    motion, why = drive(almost, np.array([0.9, 0, 0]), DT_S, LIMITS)
    assert motion.velocity[0] == 1.0  # 0.99 + (3.0 - 0.6) * 0.02 without the box
    assert JERK in why
    assert motion.acceleration[0] == pytest.approx(0.5)
    inside = Motion(np.array([0.5, 0, 0]), np.array([3.0, 0, 0]))
    motion, _ = drive(inside, np.array([0.45, 0, 0]), DT_S, LIMITS)
    assert motion.velocity[0] == pytest.approx(0.5 + (3.0 - 0.6) * DT_S)


def test_the_box_of_speeds() -> None:
    np.testing.assert_array_equal(within_speed(np.array([9.0, 9.0, 9.0]), LIMITS), [1.0, 0.4, 1.5])
    np.testing.assert_array_equal(within_speed(np.array([-9.0, -9.0, -9.0]), LIMITS), [-0.4, -0.4, -1.5])
    np.testing.assert_array_equal(within_speed(np.array([0.2, -0.1, 0.3]), LIMITS), [0.2, -0.1, 0.3])


targets = st.tuples(st.floats(-0.4, 1.0), st.floats(-0.4, 0.4), st.floats(-1.5, 1.5)).map(np.array)


@given(st.lists(st.tuples(targets, st.integers(1, 12)), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_acceleration_and_jerk_hold_on_every_course(course_: list[tuple[np.ndarray, int]]) -> None:
    motion = Motion()
    for target, cycles in course_:
        for _ in range(cycles):
            after, why = drive(motion, target, DT_S, LIMITS)
            step = after.velocity - motion.velocity
            assert np.hypot(*step[:2]) <= 3.0 * DT_S + 1e-9
            assert abs(step[2]) <= 8.0 * DT_S + 1e-9
            jerked = (after.acceleration - motion.acceleration) * DT_S
            at_limit = not np.array_equal(np.abs(after.velocity) < BOX - 1e-9, [True] * 3) or after.velocity[0] <= -0.4
            if target.any() and not at_limit:
                assert np.hypot(*jerked[:2]) <= 30.0 * DT_S**2 + 1e-9
                assert abs(jerked[2]) <= 60.0 * DT_S**2 + 1e-9
            assert why or np.array_equal(after.velocity, target)
            motion = after
    for _ in range(120):  # it comes to the target, and stays
        motion, _ = drive(motion, course_[-1][0], DT_S, LIMITS)
    np.testing.assert_allclose(motion.velocity, course_[-1][0], atol=1e-9)


@given(st.lists(st.tuples(targets, st.floats(1e-6, 0.15)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
@example([(np.array([1.0, 0, 0]), 1e-6)] * 3)
def test_cycles_of_any_length_stay_finite_within_the_box_and_the_acceleration(
    course_: list[tuple[np.ndarray, float]],
) -> None:
    motion = Motion()
    for target, step_s in course_:
        after, _ = drive(motion, target, step_s, LIMITS)
        assert np.isfinite(after.velocity).all()
        assert (np.abs(after.velocity) <= BOX + 1e-12).all()
        assert np.hypot(*(after.velocity - motion.velocity)[:2]) <= 3.0 * min(step_s, MAX_STEP_S) + 1e-9
        motion = after
