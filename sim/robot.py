"""Robots in PyBullet: where their URDF lies and how they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robonav.errors import SceneError, explain
from robonav.types import RobotSpec

# Standing joint angles by the end of the joint's name, and the base's height then.
STANDING: dict[str, tuple[dict[str, float], float]] = {
    "a1/a1.urdf": ({"hip_joint": 0.0, "upper_joint": 0.6, "lower_joint": -1.2}, 0.35),
}


def standing_height_m(spec: RobotSpec) -> float:
    """Height of the base above the floor when the robot stands; three quarters of its height where it is not known."""
    return STANDING[spec.urdf][1] if spec.urdf in STANDING else 0.75 * spec.height_m


def load_standing(bullet: Any, client: int, spec: RobotSpec, flags: int = 0) -> int:
    """Loads the robot's URDF (of pybullet_data, or a path) with its joints in the standing pose; returns the body.

    Raises:
        SceneError: there is no such URDF.
    """
    import pybullet_data

    path = Path(spec.urdf)
    if not path.is_file():
        path = Path(pybullet_data.getDataPath()) / spec.urdf
    if not path.is_file():
        raise SceneError(explain(f"robot '{spec.name}': urdf", "a file, or a name in pybullet_data", f"'{spec.urdf}'"))
    pose, height_m = STANDING.get(spec.urdf, ({}, standing_height_m(spec)))
    robot = bullet.loadURDF(str(path), (0, 0, height_m), flags=flags, physicsClientId=client)
    for joint in range(bullet.getNumJoints(robot, physicsClientId=client)):
        name = bullet.getJointInfo(robot, joint, physicsClientId=client)[1].decode()
        for ending, angle in pose.items():
            if name.endswith(ending):
                bullet.resetJointState(robot, joint, angle, physicsClientId=client)
    return int(robot)
