"""A robot that follows a policy's commands among walls and posts, by the rays of `tests.mapping.raycast`."""

from __future__ import annotations

import numpy as np

from robonav.types import Policy, RobotSpec
from tests.mapping.raycast import NO_CIRCLES, cast, observe, room

WALLS = room(-1.0, -3.0, 9.0, 3.0)


def drive(
    policy: Policy, spec: RobotSpec, start, goal, circles=NO_CIRCLES, walls=WALLS, limit_s: float = 60.0, later=None
):
    """A robot that follows commands with the spec's acceleration limits; returns path, whys and least clearance.

    `later` is (tick, walls): what stands from that tick on. `circles` are (n, 3), or a function of the tick.
    """
    pose, velocity, state = np.array(start, float), np.zeros(3), policy.reset(0)
    path, whys, room_left, sub = [pose.copy()], [], np.inf, 5
    for tick in range(round(limit_s / spec.dt_s)):
        if later is not None and tick == later[0]:
            walls = later[1]
        posts = circles(tick) if callable(circles) else circles
        scan = cast(pose, spec.lidar, walls, posts)
        state, decision = policy.act(state, observe(pose, goal, scan, tick * 10**8, velocity))
        whys.append(decision.why)
        for _ in range(sub):
            limits = np.array([spec.acceleration_max_mps2] * 2 + [spec.yaw_acceleration_max_radps2])
            change = (decision.command.velocity - velocity) * (spec.dt_s / sub / spec.lag_s)
            velocity = velocity + np.clip(change, -limits * spec.dt_s / sub, limits * spec.dt_s / sub)
            c, s = np.cos(pose[2]), np.sin(pose[2])
            step = np.array([c * velocity[0] - s * velocity[1], s * velocity[0] + c * velocity[1], velocity[2]])
            pose = pose + step * spec.dt_s / sub
        path.append(pose.copy())
        room_left = min(room_left, clearance(pose, posts, walls, spec))
        if np.hypot(*(pose[:2] - goal)) < 0.3:
            break
    return np.array(path), whys, room_left


def clearance(pose, circles, walls, spec: RobotSpec) -> float:
    """Distance of the footprint to circles and to points along the walls."""
    share = np.linspace(0, 1, 200)[:, None, None]
    points = (walls[:, :2] + share * (walls[:, 2:] - walls[:, :2])).reshape(-1, 2)
    points = np.concatenate([points, circles[:, :2]])
    radius = np.concatenate([np.zeros(len(points) - len(circles)), circles[:, 2]])
    c, s = np.cos(pose[2]), np.sin(pose[2])
    gap = points - pose[:2]
    ahead = np.abs(c * gap[:, 0] + s * gap[:, 1]) - spec.length_m / 2
    beside = np.abs(c * gap[:, 1] - s * gap[:, 0]) - spec.width_m / 2
    return float((np.hypot(np.maximum(ahead, 0), np.maximum(beside, 0)) - radius).min())
