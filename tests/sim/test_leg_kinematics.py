"""The legs' closed-form kinematics against PyBullet's, for every robot, and what happens out of reach."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.config import config_dir, load_robot, load_toml
from robonav.errors import SceneError
from robonav.types import RobotSpec
from sim.bullet import import_pybullet
from sim.leg_kinematics import LegGeometry, foot_torques, leg_geometries
from sim.robot import load_standing

SHIPPED = ("a1", "aliengo", "laikago", "mini_cheetah", "spirit40", "vision60")
BODIES = [path for path in (config_dir() / "robots").glob("*.toml") if "extends" not in load_toml(path)]
ROBOTS = sorted(path.stem for path in BODIES)
share = st.floats(0.0, 1.0)


@functools.cache
def legs_of(name: str) -> tuple[LegGeometry, ...]:
    try:
        return leg_geometries(load_robot(name))
    except SceneError:
        if name in SHIPPED:
            raise
        pytest.skip("example-robot-data is not installed")


class Bullet:
    """A robot in PyBullet, whose feet's spheres are asked for in the frame of its root link."""

    def __init__(self, spec: RobotSpec) -> None:
        self.p = p = import_pybullet()
        self.client = p.connect(p.DIRECT)
        self.robot = load_standing(p, self.client, spec)
        # The body's frame is the base's inertial one: put the root link into the origin.
        inertial = p.getDynamicsInfo(self.robot, -1, physicsClientId=self.client)[3:5]
        p.resetBasePositionAndOrientation(self.robot, *inertial, physicsClientId=self.client)
        self.joints, self.links = {}, {}
        for joint in range(p.getNumJoints(self.robot, physicsClientId=self.client)):
            info = p.getJointInfo(self.robot, joint, physicsClientId=self.client)
            self.joints[info[1].decode()], self.links[info[12].decode()] = joint, joint

    def foot_m(self, leg: LegGeometry, foot: str, angles: tuple[float, ...]) -> np.ndarray:
        p, c = self.p, self.client
        for name, angle in zip(leg.joints, angles, strict=True):
            p.resetJointState(self.robot, self.joints[name], angle, physicsClientId=c)
        state = p.getLinkState(self.robot, self.links[foot], computeForwardKinematics=1, physicsClientId=c)
        shapes = p.getCollisionShapeData(self.robot, self.links[foot], physicsClientId=c)
        sphere = next((shape for shape in shapes if shape[2] == p.GEOM_SPHERE), None)
        if sphere is None:
            return np.array(state[4])
        assert sphere[3][0] == pytest.approx(leg.foot_radius_m, rel=1e-6)
        return np.array(p.multiplyTransforms(state[0], state[1], sphere[5], sphere[6])[0])


@pytest.fixture(scope="module")
def bullets():
    made: dict[str, Bullet] = {}

    def of(name: str) -> Bullet:
        if name not in made:
            made[name] = Bullet(load_robot(name))
        return made[name]

    yield of
    for one in made.values():
        one.p.disconnect(physicsClientId=one.client)


@pytest.mark.parametrize("name", ROBOTS)
def test_feet_are_where_pybullet_has_them(name: str, bullets) -> None:
    legs = legs_of(name)
    robot, spec = bullets(name), load_robot(name)
    assert spec.legs is not None
    rng = np.random.default_rng(0)
    for leg, names in zip(legs, spec.legs.all, strict=True):
        for _ in range(25):
            angles = tuple(rng.uniform(-2.5, 2.5, 3).tolist())
            assert leg.forward(*angles) == pytest.approx(robot.foot_m(leg, names.foot, angles), abs=1e-5)


@pytest.mark.parametrize("name", ROBOTS)
@given(which=st.integers(0, 3), shares=st.tuples(share, share, share))
def test_the_inverse_leads_back_to_a_foot_in_reach(name: str, which: int, shares: tuple[float, float, float]) -> None:
    leg = legs_of(name)[which]
    l1, l2 = leg.lengths_m
    # A place below the hip, within the leg's length, that the joint limits of every robot here allow.
    down = (0.55 + 0.3 * shares[0]) * (l1 + l2)
    forward, outward = (0.3 * (shares[1] - 0.5)) * (l1 + l2), 0.1 * (shares[2] - 0.5) * (l1 + l2)
    foot = (
        leg.hip_m[0] + leg.thigh_m[0] + forward,
        leg.hip_m[1] + leg.lateral_m + outward,
        leg.hip_m[2] + leg.thigh_m[1] - down,
    )
    angles = leg.inverse(*foot)
    assert leg.forward(*angles) == pytest.approx(foot, abs=1e-6)
    assert all(
        low - 1e-9 <= a <= high + 1e-9 for a, low, high in zip(angles, leg.lower_rad, leg.upper_rad, strict=True)
    )


@pytest.mark.parametrize("name", ROBOTS)
@given(which=st.integers(0, 3), x=st.floats(-3, 3), y=st.floats(-3, 3), z=st.floats(-3, 3))
def test_out_of_reach_is_clamped_and_never_nan(name: str, which: int, x: float, y: float, z: float) -> None:
    leg = legs_of(name)[which]
    angles = leg.inverse(x, y, z)
    assert np.isfinite(angles).all()
    assert all(
        low - 1e-9 <= a <= high + 1e-9 for a, low, high in zip(angles, leg.lower_rad, leg.upper_rad, strict=True)
    )


@pytest.mark.parametrize("name", ROBOTS)
def test_far_below_the_leg_is_stretched_towards_the_foot(name: str) -> None:
    for leg in legs_of(name):
        hip = np.array(leg.hip_m) + np.array([leg.thigh_m[0], leg.lateral_m, leg.thigh_m[1]])
        foot = np.array(leg.forward(*leg.inverse(hip[0], hip[1], hip[2] - 5.0)))
        away = foot - hip
        reach = float(np.linalg.norm(away))
        assert reach <= sum(leg.lengths_m) + 1e-9
        assert reach >= 0.85 * sum(leg.lengths_m)  # joint limits may keep the knee bent
        if reach > 0.99 * sum(leg.lengths_m):  # no limit stands in the way
            assert -away[2] / reach > 0.99


@pytest.mark.parametrize("name", ROBOTS)
@given(which=st.integers(0, 3), shares=st.tuples(share, share, share))
def test_torques_are_the_jacobians(name: str, which: int, shares: tuple[float, float, float]) -> None:
    """J^T F against differences of the forward kinematics: the virtual work of a force equals that of the torques."""
    leg = legs_of(name)[which]
    angles, force = 3.0 * (np.array(shares) - 0.5), np.array([3.0, -5.0, 40.0])
    torques = foot_torques(leg.record, *angles.tolist(), *force.tolist())
    for joint in range(3):
        step = np.zeros(3)
        step[joint] = 1e-6
        moved = np.array(leg.forward(*(angles + step))) - np.array(leg.forward(*(angles - step)))
        assert torques[joint] == pytest.approx(float(moved @ force) / 2e-6, abs=1e-5)
