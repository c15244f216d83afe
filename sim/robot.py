"""Robots in PyBullet: where their URDF lies and how they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robonav.types import RobotSpec
from sim.bullet import import_pybullet
from sim.urdf import find_urdf, loadable


@dataclass(frozen=True, slots=True)
class Posture:
    """A robot's root link and joints, as a world with legs has them."""

    position_m: tuple[float, float, float]  # of the root link in the world frame
    orientation: tuple[float, float, float, float]  # quaternion (x, y, z, w)
    joints_rad: Mapping[str, float]  # by the URDF's names; joints that are not named stay

    def take(self, bullet: Any, client: int, robot: int) -> None:
        """Poses a body that was loaded with `load_standing`."""
        inertial = bullet.getDynamicsInfo(robot, -1, physicsClientId=client)[3:5]
        at, turn = bullet.multiplyTransforms(self.position_m, self.orientation, *inertial)
        bullet.resetBasePositionAndOrientation(robot, at, turn, physicsClientId=client)
        for joint in range(bullet.getNumJoints(robot, physicsClientId=client)):
            name = bullet.getJointInfo(robot, joint, physicsClientId=client)[1].decode()
            if name in self.joints_rad:
                bullet.resetJointState(robot, joint, self.joints_rad[name], physicsClientId=client)


def standing_height_m(spec: RobotSpec) -> float:
    """Height of the URDF's root link above the floor when the robot stands; three quarters of the robot's height where
    its legs are not described.
    """
    return spec.legs.stance_height_m if spec.legs is not None else 0.75 * spec.height_m


def load_standing(bullet: Any, client: int, spec: RobotSpec, flags: int = 0) -> int:
    """Loads the robot's URDF with its joints in the standing pose, or at zero without legs; returns the body.

    Raises:
        SceneError: there is no such URDF, or a package that it names is not installed.
        ConfigError: its legs do not fit the URDF.
    """
    path = find_urdf(spec.urdf, f"robot '{spec.name}': urdf")
    with loadable(path) as name:
        robot = bullet.loadURDF(name, (0, 0, standing_height_m(spec)), flags=flags, physicsClientId=client)
    if spec.legs is not None:
        from sim.leg_kinematics import leg_geometries  # compiled, and not needed for a robot that is a box

        angles = {
            joint: angle
            for leg in leg_geometries(spec)
            for joint, angle in zip(leg.joints, leg.inverse(*leg.standing_foot_m(spec.legs)), strict=True)
        }
        for joint in range(bullet.getNumJoints(robot, physicsClientId=client)):
            name = bullet.getJointInfo(robot, joint, physicsClientId=client)[1].decode()
            if name in angles:
                bullet.resetJointState(robot, joint, angles[name], physicsClientId=client)
    return int(robot)


def standing_size_m(spec: RobotSpec) -> tuple[float, float, float]:
    """(length, width, height) of the least box about the root link that holds the standing robot's collision shapes.

    Length and width are twice the furthest reach from the root's axis, since the footprint turns about it.

    Raises:
        SceneError: there is no such URDF.
        ConfigError: its legs do not fit the URDF.
    """
    p = import_pybullet()
    client = p.connect(p.DIRECT)
    try:
        robot = load_standing(p, client, spec, p.URDF_IGNORE_VISUAL_SHAPES)
        at, turn = p.getDynamicsInfo(robot, -1, physicsClientId=client)[3:5]
        at = (at[0], at[1], at[2] + standing_height_m(spec))
        p.resetBasePositionAndOrientation(robot, at, turn, physicsClientId=client)
        slab = p.createCollisionShape(p.GEOM_BOX, halfExtents=[10.0, 10.0, 10.0], physicsClientId=client)
        body = p.createMultiBody(0.0, slab, physicsClientId=client)
        reach = []
        for axis, side in ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1)):
            centre = [0.0, 0.0, 0.0]
            centre[axis] = side * 15.0  # its face is 5 m away, so that the distance gives the robot's extent
            p.resetBasePositionAndOrientation(body, centre, (0, 0, 0, 1), physicsClientId=client)
            points = p.getClosestPoints(robot, body, 6.0, physicsClientId=client)
            reach.append(5.0 - min(point[8] for point in points))
    finally:
        p.disconnect(client)
    return 2 * max(reach[:2]), 2 * max(reach[2:4]), reach[4]
