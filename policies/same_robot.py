"""Whether a policy may drive a robot: it must be the one that it was trained for, in all that it depends on."""

from __future__ import annotations

from dataclasses import replace

from robonav.errors import RobonavError, explain
from robonav.types import RobotSpec

# URDF, height, accelerations, lag and depth camera may differ: the policy reads none of them.
BODY = ("length_m", "width_m", "vx_min_mps", "vx_max_mps", "vy_max_mps", "yaw_rate_max_radps")
SENSORS = ("rate_hz", "lidar", "local_map")


def check_same_robot(
    trained: RobotSpec, spec: RobotSpec, where: str, error_class: type[RobonavError], told: bool = False
) -> None:
    """Checks that two robots are the same in rate, lidar and local map, and in size and limits.

    Args:
        trained: the robot that the policy was trained for.
        spec: the robot that it shall drive.
        where: what the policy is, as the message begins.
        error_class: of the error that is raised.
        told: the policy reads the robot's size and limits, so these may differ.

    Raises:
        RobonavError: an `error_class` that names the first difference.
    """
    if told:  # where the lidar sits belongs to the body
        lidar = replace(spec.lidar, mount_x_m=trained.lidar.mount_x_m, mount_z_m=trained.lidar.mount_z_m)
        spec = replace(spec, lidar=lidar)
    for key in SENSORS if told else BODY + SENSORS:
        want, got = getattr(trained, key), getattr(spec, key)
        if want != got:
            place = f"{where} for robot '{trained.name}': {key}"
            do = f"use robot '{trained.name}' as it was in training, or train and export for '{spec.name}'"
            raise error_class(explain(place, want, f"{got} of robot '{spec.name}'", do))
