from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from robonav.errors import ShapeError
from robonav.types import (
    LidarSpec,
    Observation,
    PolicyInput,
    RobotSpec,
    VelocityCommand,
    policy_input_shapes,
)

unit = st.floats(-1, 1)
actions = st.tuples(unit, unit, unit)


def observation(spec: RobotSpec, **changes) -> Observation:
    fields = {
        "stamp_ns": 1,
        "pose_odom_base": np.zeros(3, np.float32),
        "twist_base": np.zeros(3, np.float32),
        "tilt_rad": np.zeros(2, np.float32),
        "goal_odom_m": np.ones(2, np.float32),
        "last_command": np.zeros(3, np.float32),
        "scan_m": np.full(spec.lidar.beams, spec.lidar.range_m, np.float32),
    }
    return Observation(**{**fields, **changes})


@given(actions)
def test_action_to_velocity_and_back(a1, action):
    velocity = a1.action_to_velocity(np.array(action))
    assert_allclose(a1.velocity_to_action(velocity), action, atol=1e-12)


@given(st.tuples(*[st.floats(-9, 9)] * 3))
def test_velocity_stays_within_the_limits(a1, action):
    vx, vy, yaw_rate = a1.action_to_velocity(np.array(action))
    assert a1.vx_min_mps <= vx <= a1.vx_max_mps
    assert abs(vy) <= a1.vy_max_mps
    assert abs(yaw_rate) <= a1.yaw_rate_max_radps


def test_action_zero_stands_and_the_ends_are_the_limits(a1):
    assert_allclose(a1.action_to_velocity(np.zeros((4, 3))), np.zeros((4, 3)))
    assert_allclose(a1.action_to_velocity(np.ones(3)), [a1.vx_max_mps, a1.vy_max_mps, a1.yaw_rate_max_radps])
    assert_allclose(a1.action_to_velocity(-np.ones(3)), [a1.vx_min_mps, -a1.vy_max_mps, -a1.yaw_rate_max_radps])


def test_a_robot_that_cannot_strafe_or_reverse_has_finite_actions(a1):
    spec = dataclasses.replace(a1, vy_max_mps=0.0, vx_min_mps=0.0)
    assert_allclose(spec.velocity_to_action(np.array([0.5, 0.0, 0.0])), [0.5 / a1.vx_max_mps, 0.0, 0.0])
    assert_allclose(spec.action_to_velocity(-np.ones(3)), [0.0, 0.0, -a1.yaw_rate_max_radps])


def test_beams_of_a_full_circle_have_no_double_and_others_span_both_ends():
    full = LidarSpec(beams=4)
    assert_allclose(full.angles_rad, [-np.pi, -np.pi / 2, 0.0, np.pi / 2])
    half = LidarSpec(beams=3, angle_min_rad=-np.pi / 2, fov_rad=np.pi)
    assert_allclose(half.angles_rad, [-np.pi / 2, 0.0, np.pi / 2])


def test_radii_hold_the_footprint(a1):
    assert a1.inner_radius_m == a1.width_m / 2
    assert a1.radius_m == pytest.approx(np.hypot(a1.length_m / 2, a1.width_m / 2))


def test_a_good_observation_passes(a1):
    observation(a1).check(a1)
    observation(a1, scan_m=None).check(a1)
    observation(a1, depth_m=np.ones((a1.depth.height, a1.depth.width), np.float32)).check(a1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("scan_m", np.zeros(360, np.float32), "expected (128,), got (360,)"),
        ("pose_odom_base", np.zeros(2, np.float32), "expected (3,), got (2,)"),
        ("goal_odom_m", None, "expected (2,), got ()"),
        ("depth_m", np.zeros((64, 65), np.float32), "expected (64, 64), got (64, 65)"),
        ("twist_base", np.array([0.0, np.nan, 0.0], np.float32), "finite numbers"),
        ("goal_odom_m", np.array([np.inf, 0.0], np.float32), "finite numbers"),
    ],
)
def test_a_bad_observation_is_named(a1, field, value, said):
    with pytest.raises(ShapeError) as caught:
        observation(a1, **{field: value}).check(a1)
    assert field in str(caught.value)
    assert said in str(caught.value)
    assert "a1" in str(caught.value)


def test_policy_input_shapes_name_its_fields_in_order(a1):
    shapes = policy_input_shapes(a1)
    assert list(shapes) == [f.name for f in dataclasses.fields(PolicyInput)]
    arrays = {name: np.full(shape, index) for index, (name, shape) in enumerate(shapes.items())}
    given_back = PolicyInput(**arrays).arrays()
    assert list(given_back) == list(shapes)
    assert all(given_back[name] is arrays[name] for name in shapes)


def test_command_from_a_velocity_and_back():
    command = VelocityCommand.of(np.array([0.5, -0.25, 1.0]), valid_until_ns=7)
    assert command == VelocityCommand(0.5, -0.25, 1.0, 7)
    assert_allclose(command.velocity, [0.5, -0.25, 1.0])


def test_contracts_cannot_be_changed(a1):
    with pytest.raises(dataclasses.FrozenInstanceError):
        a1.rate_hz = 20.0
