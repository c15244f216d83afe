"""How well each robot's trot follows commands, how fast it is simulated, and the lag that the kinematic world needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from robonav.config import config_dir, load_robot, load_toml
from robonav.errors import SceneError
from robonav.types import RobotSpec, Scene
from sim.calibration import fit_lag_s, trajectory_errors_m
from sim.legged import LeggedWorld
from sim.robot import standing_size_m
from sim.sensors import Lidar
from sim.walker import Walker

SECONDS = 8.0
SETTLED_S = 4.0  # errors are means over what follows
PILLARS = 60

# Shares of the robot's largest (vx, vy, yaw rate); a negative vx is one of its largest backwards.
GRID = (
    *((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)),
    *((0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.0, -0.7), (0.6, 0.5, 0.5)),
)


def measure_gait(robots: Sequence[str] = (), report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Walks each robot through the grid of commands.

    Args:
        robots: presets or .toml files; without them all presets whose URDF is installed.
        report: told of each robot when it is done.

    Returns:
        ``robots.NAME`` with ``commands`` (for each command its three numbers, mean errors of vx, vy and yaw rate over
        the last 4 of 8 s, whether it fell), ``falls``, ``error_mps_max``, ``error_radps_max``, ``realtime_factor``
        (simulated seconds with lidar for a second of processor time), ``lag_s`` (fitted), ``lag_s_config`` (of the
        robot's file), ``trajectory_error_m``, ``_median`` and ``_max`` (kinematic against walking robot after 5 s of
        random commands, with the fitted lag) and ``size_m`` (length, width and height of the standing robot, as
        measured).

    Raises:
        RobonavError: an unknown robot, or one whose legs do not fit its URDF.
    """
    figures: dict[str, Any] = {}
    files = sorted((config_dir() / "robots").glob("*.toml"))
    bodies = [path.stem for path in files if "extends" not in load_toml(path)]
    for name in robots or bodies:
        spec = load_robot(name)
        try:
            figures[spec.name] = measured = _measure_one(spec)
        except SceneError as error:
            if robots:
                raise
            report(f"{name}: left out: {error}")
            continue
        report(
            f"{spec.name}: {measured['falls']} falls, error at most {measured['error_mps_max']:.3f} m/s and "
            f"{measured['error_radps_max']:.3f} rad/s, {measured['realtime_factor']:.1f} times real time, "
            f"lag {measured['lag_s']:.2f} s (file: {spec.lag_s:.2f}), after 5 s "
            f"{measured['trajectory_error_m_median']:.2f} m (median) to {measured['trajectory_error_m_max']:.2f} m off "
            f"the kinematic robot"
        )
    return {"robots": figures}


def grid_of(spec: RobotSpec) -> list[tuple[float, float, float]]:
    """The commands of the grid for a robot."""
    return [
        (
            share * (spec.vx_max_mps if share >= 0 else -spec.vx_min_mps),
            side * spec.vy_max_mps,
            turn * spec.yaw_rate_max_radps,
        )
        for share, side, turn in GRID
    ]


def _measure_one(spec: RobotSpec) -> dict[str, Any]:
    size_m = standing_size_m(spec)
    world = LeggedWorld(spec)
    try:
        lidar = Lidar(spec.lidar)
        hall = _hall()
        _walk(world, lidar, hall, (0.0, 0.0, 0.0), 0.5)  # warm: compiled code loads on its first use
        begin = time.process_time()
        rows = [_walk(world, lidar, hall, command, SECONDS) for command in grid_of(spec)]
        busy_s = time.process_time() - begin
    finally:
        world.close()
    walker = Walker(spec)
    try:
        lag_s = fit_lag_s(spec, walker)
        off_m = trajectory_errors_m(spec, walker, lag_s)
    finally:
        walker.close()
    return {
        "commands": rows,
        "falls": sum(row["fell"] for row in rows),
        "error_mps_max": max(math.hypot(row["error_vx_mps"], row["error_vy_mps"]) for row in rows),
        "error_radps_max": max(abs(row["error_radps"]) for row in rows),
        "realtime_factor": sum(row["seconds"] for row in rows) / busy_s,
        "lag_s": lag_s,
        "lag_s_config": spec.lag_s,
        "trajectory_error_m": off_m,
        "trajectory_error_m_median": float(np.median(off_m)),
        "trajectory_error_m_max": max(off_m),
        "size_m": [round(value, 3) for value in size_m],
    }


def _walk(
    world: LeggedWorld, lidar: Lidar, scene: Scene, command: tuple[float, float, float], seconds: float
) -> dict[str, Any]:
    """One command held from a stand; errors are of mean velocities, from poses, in the frame of each tick's heading."""
    world.load(scene)
    tick_s = world.spec.dt_s
    motion = []
    for _ in range(round(seconds / tick_s)):
        x, y, yaw = world.pose_world
        over = world.advance(command, tick_s)
        lidar.scan(world)
        dx, dy, turned = world.x_m - x, world.y_m - y, world.yaw_rad - yaw
        c, s = math.cos(yaw + turned / 2), math.sin(yaw + turned / 2)
        motion.append(((c * dx + s * dy) / tick_s, (c * dy - s * dx) / tick_s, turned / tick_s))
        if over:
            break
    settled = motion[round(SETTLED_S / tick_s) :] or motion
    error = np.mean(settled, axis=0) - command
    return {
        "command": list(command),
        "error_vx_mps": float(error[0]),
        "error_vy_mps": float(error[1]),
        "error_radps": float(error[2]),
        "fell": world.fallen,
        "seconds": len(motion) * tick_s,
    }


def _hall() -> Scene:
    """A hall with pillars that no robot reaches in 8 s, and that the lidar and the clearance see all the same."""
    angles = np.linspace(0.0, 2 * np.pi, PILLARS, endpoint=False)
    pillars = np.stack([11.0 * np.cos(angles), 11.0 * np.sin(angles), np.full(PILLARS, 0.2)], axis=1)
    bounds = (-12.0, -12.0, 12.0, 12.0)
    return Scene("hall", bounds, (0.0, 0.0, 0.0), (9.0, 0.0), cylinders=pillars.astype(np.float32))
