"""The picture of a cluster of failures: each log's last seconds on the robot's map. matplotlib, no display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deploy import wire
from deploy.drawing import new_figure
from deploy.log_causes import Cluster, Finding
from deploy.log_reader import Log, read_log
from deploy.log_run import robot_of
from robonav.files import atomic_path
from robonav.geometry import transform_points
from robonav.planning.situation import SituationTracker
from robonav.types import RobotSpec

SHOWN = 6
COLUMNS = 3
RADIUS_M = 3.5
TAIL_S = 6.0  # of the way, through which the map is made
BLUE, ORANGE, GREEN, RED = "#1f6fb4", "#e07b00", "#2e8b57", "#c0392b"


def draw_cluster(cluster: Cluster, path: str | Path) -> None:
    """Draws the cluster's first logs into an image file (the suffix chooses the format).

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RobonavError: the file cannot be written.
    """
    shown = cluster.findings[:SHOWN]
    rows, columns = -(-len(shown) // COLUMNS), min(len(shown), COLUMNS)
    figure = new_figure(4.6 * columns, 4.9 * rows + 0.5)
    for number, finding in enumerate(shown, 1):
        _draw(figure.add_subplot(rows, columns, number), finding)
    figure.suptitle(f"{cluster.cause}: {len(cluster.findings)} of the failures")
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=110)


def _draw(axes: Any, finding: Finding) -> None:
    log = read_log(finding.log)
    robot = robot_of(log)
    messages = log.of(wire.ObservationMsg)
    poses = np.array([wire.unpack_array(m.pose_odom_base, "pose_odom_base") for m in messages])
    x, y, _ = poses[-1]
    _draw_map(axes, log, robot)
    axes.plot(poses[:, 0], poses[:, 1], color=BLUE, lw=2, label="way")
    routes = [m.route_odom_m for m in log.of(wire.DecisionMsg) if m.route_odom_m is not None]
    if routes:
        points = wire.unpack_array(routes[-1], "route_odom_m")
        axes.plot(points[:, 0], points[:, 1], "--", color=ORANGE, lw=1.2, label="last route")
    goal = wire.unpack_array(messages[-1].goal_odom_m, "goal_odom_m")
    axes.plot(*goal, "*", color=GREEN, ms=13, label="goal")
    outline = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1], [1, 1]]) * [robot.length_m / 2, robot.width_m / 2]
    corners = transform_points(poses[-1].astype(np.float64), outline)
    axes.plot(corners[:, 0], corners[:, 1], color=RED, lw=1.6, label="robot")
    axes.set(xlim=(x - RADIUS_M, x + RADIUS_M), ylim=(y - RADIUS_M, y + RADIUS_M), aspect="equal")
    axes.set_title(
        f"{Path(finding.log).stem}\n{finding.outcome} after {finding.time_s:.1f} s; {finding.detail}", size=8
    )
    axes.tick_params(labelsize=7)
    axes.legend(loc="upper right", fontsize=7)


def _draw_map(axes: Any, log: Log, robot: RobotSpec) -> None:
    """The map of the last seconds, and what the lidar saw last."""
    tracker = SituationTracker(robot)
    messages = log.of(wire.ObservationMsg)
    end_ns = messages[-1].stamp_ns
    grid = tracker.mapper.reset()
    for message in messages:
        if message.stamp_ns >= end_ns - TAIL_S * 1e9:
            grid = tracker.mapper.update(grid, wire.unpack_observation(message))
    free = 1 / (1 + np.exp(np.asarray(grid.log_odds, np.float64)))
    (x0, y0), cell = grid.origin_odom_m.tolist(), grid.resolution_m
    extent = (x0, x0 + free.shape[1] * cell, y0, y0 + free.shape[0] * cell)
    axes.imshow(free, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent)
    last = wire.unpack_observation(messages[-1])
    if last.scan_m is not None:
        hit = last.scan_m < robot.lidar.range_m
        angles, ranges_m = robot.lidar.angles_rad[hit], last.scan_m[hit]
        points = np.stack([robot.lidar.mount_x_m + ranges_m * np.cos(angles), ranges_m * np.sin(angles)], axis=1)
        seen = transform_points(np.asarray(last.pose_odom_base, np.float64), points)
        axes.plot(seen[:, 0], seen[:, 1], ".", color=RED, ms=3, label="last scan")
