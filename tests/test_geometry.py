from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from robonav.geometry import compose, inverse_transform_points, invert, path_length, transform_points, wrap_angle

metres = st.floats(-50, 50)
poses = st.tuples(metres, metres, st.floats(-np.pi, np.pi, exclude_max=True))
TOLERANCE = 1e-9


def assert_same_pose(got, expected):
    assert_allclose(got[:2], expected[:2], atol=TOLERANCE)
    assert abs(wrap_angle(got[2] - expected[2])) < TOLERANCE


def test_a_pose_known_by_hand():
    assert_same_pose(compose((1.0, 2.0, np.pi / 2), (3.0, 0.5, 0.25)), (0.5, 5.0, np.pi / 2 + 0.25))


def test_points_known_by_hand_and_leading_axes():
    points = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert_allclose(transform_points((1.0, 2.0, np.pi / 2), points), [[[1.0, 3.0], [0.0, 2.0]]], atol=TOLERANCE)


@given(st.floats(-1e3, 1e3))
def test_wrapped_angle_is_in_range_and_points_the_same_way(angle_rad):
    wrapped = wrap_angle(angle_rad)
    assert -np.pi <= wrapped < np.pi
    assert_allclose([np.cos(wrapped), np.sin(wrapped)], [np.cos(angle_rad), np.sin(angle_rad)], atol=1e-9)


@given(poses)
def test_a_pose_and_its_inverse_cancel(pose):
    assert_same_pose(compose(pose, invert(pose)), (0.0, 0.0, 0.0))
    assert_same_pose(compose(invert(pose), pose), (0.0, 0.0, 0.0))


@given(poses, poses, poses)
def test_composition_is_associative(a, b, c):
    assert_same_pose(compose(compose(a, b), c), compose(a, compose(b, c)))


@given(poses, poses, st.tuples(metres, metres))
def test_composition_transforms_as_one_after_the_other(a, b, point):
    assert_allclose(transform_points(compose(a, b), point), transform_points(a, transform_points(b, point)), atol=1e-9)


@given(poses, st.lists(st.tuples(metres, metres), min_size=1, max_size=5))
def test_points_come_back(pose, points):
    there = transform_points(pose, points)
    assert_allclose(inverse_transform_points(pose, there), points, atol=1e-9)
    assert_allclose(transform_points(invert(pose), there), points, atol=1e-9)


def test_path_length():
    assert path_length(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])) == 6.0
    assert path_length(np.zeros((1, 2))) == 0.0
    assert path_length(np.zeros((0, 2))) == 0.0
