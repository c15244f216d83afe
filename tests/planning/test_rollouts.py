from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.config import load_robot
from robonav.planning.rollouts import footprint_distance_m, poses_under, velocities_under
from robonav.types import RobotSpec

NUMBER = st.floats(-1.0, 1.0)


def test_a_robot_without_lag_or_limits_drives_the_arc(a1: RobotSpec) -> None:
    spec = dataclasses.replace(a1, lag_s=0.0, acceleration_max_mps2=1e6, yaw_acceleration_max_radps2=1e6)
    velocities = velocities_under(spec, np.zeros(3), np.array([[0.8, 0.0, 0.6]]), 40, 0.05)
    positions, yaw = poses_under(velocities, 0.05)
    radius, turned = 0.8 / 0.6, 0.6 * 2.0
    assert yaw[0, -1] == pytest.approx(turned, rel=1e-5)
    assert positions[0, -1] == pytest.approx(complex(radius * np.sin(turned), radius * (1 - np.cos(turned))), abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(now=st.tuples(NUMBER, NUMBER, NUMBER), command=st.tuples(NUMBER, NUMBER, NUMBER))
def test_rollouts_are_what_the_simulator_does(now: tuple[float, ...], command: tuple[float, ...]) -> None:
    pytest.importorskip("pybullet")
    from robonav.types import Scene
    from sim.world import World, WorldConfig

    spec = load_robot("a1")
    world = World(spec, WorldConfig(substep_s=0.1))
    try:
        world.load(Scene("open", (-50, -50, 50, 50), (0, 0, 0), (9, 0)))
        world.velocity = (now[0], now[1], now[2])
        velocities = velocities_under(spec, np.array(now), np.array([command]), 8, 0.1)
        positions, yaw = poses_under(velocities, 0.1)
        for t in range(8):
            world.advance(command, 0.1)
            assert np.allclose(world.velocity, velocities[0, t], atol=1e-5)
            assert abs(complex(world.x_m, world.y_m) - positions[0, t]) < 1e-4
            assert world.yaw_rad == pytest.approx(float(yaw[0, t]), abs=1e-5)
    finally:
        world.close()


@settings(max_examples=50, deadline=None)
@given(x=st.floats(-2, 2), y=st.floats(-2, 2), yaw=st.floats(-3, 3), px=st.floats(-3, 3), py=st.floats(-3, 3))
def test_distance_is_that_of_a_rectangle(x: float, y: float, yaw: float, px: float, py: float) -> None:
    spec = load_robot("a1")
    found = footprint_distance_m(
        spec, np.array([[complex(x, y)]], np.complex64), np.array([[yaw]], np.float32), np.array([complex(px, py)])
    )[0, 0]
    seen = complex(px - x, py - y) * np.exp(-1j * yaw)
    ahead, beside = abs(seen.real) - spec.length_m / 2, abs(seen.imag) - spec.width_m / 2
    outside = np.hypot(max(ahead, 0), max(beside, 0))
    assert found == pytest.approx(outside if outside > 0 else max(ahead, beside), abs=1e-5)


def test_points_may_move_and_none_is_infinitely_far(a1: RobotSpec) -> None:
    still, yaw = np.zeros((1, 3), np.complex64), np.zeros((1, 3), np.float32)
    coming = np.array([[3.0 + 0j], [2.0 + 0j], [1.0 + 0j]], np.complex64)
    distance = footprint_distance_m(a1, still, yaw, coming)[0]
    assert np.allclose(distance, np.array([3.0, 2.0, 1.0]) - a1.length_m / 2)
    assert np.isinf(footprint_distance_m(a1, still, yaw, np.zeros((3, 0), np.complex64))).all()
