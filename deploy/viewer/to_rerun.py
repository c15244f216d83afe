"""A log as a recording for the Rerun viewer, with a blueprint: the map on the left, curves on the right.

Needs the optional package rerun-sdk. Odom is z up; the world is flat, so everything lies at z = 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.points import clearance_m
from deploy.viewer.beliefs import LEVELS, Beliefs
from deploy.viewer.build import Viewed
from deploy.viewer.episode import Episode
from deploy.viewer.events import events_of, marks_of
from robonav.errors import MissingDependencyError, explain
from robonav.files import atomic_path

TIMELINE = "robot_time"
MAP_EVERY = 3  # changes of the map between two pictures of it
AXES = ("vx", "vy", "yaw_rate")


def write_rrd(viewed: Viewed, path: str | Path) -> None:
    """Writes the recording.

    Raises:
        MissingDependencyError: rerun-sdk is not installed.
        RobonavError: the file cannot be written.
    """
    try:
        import rerun as rr
    except ImportError:
        do = "pip install 'robonav[rerun]'"
        raise MissingDependencyError(explain("--rrd", "rerun-sdk installed", "no such package", do)) from None
    episode = viewed.episode
    with atomic_path(path) as aside:
        recording = rr.RecordingStream("robonav", recording_id=episode.name)
        recording.save(str(aside), default_blueprint=_blueprint(episode))
        recording.log("map", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        _log_map(rr, recording, viewed.beliefs)
        _log_robot(rr, recording, episode)
        _log_routes(rr, recording, episode)
        _log_curves(rr, recording, viewed)
        _log_rollouts(rr, recording, viewed)
        _log_words(rr, recording, episode)
        recording.flush()
        recording.disconnect()


def _blueprint(episode: Episode) -> Any:
    import rerun.blueprint as rrb

    curves = [rrb.TimeSeriesView(origin=f"command/{axis}", name=axis) for axis in AXES]
    curves += [rrb.TimeSeriesView(origin=name, name=name) for name in ("value", "clearance_m", "latency_ms")]
    left: list[Any] = [rrb.Spatial3DView(origin="map", name="map")]
    if episode.sensed.depth_m is not None:
        left.append(rrb.Spatial2DView(origin="depth", name="depth"))
    left.append(rrb.TextLogView(origin="events", name="events"))
    shares = [4, 2, 1] if len(left) == 3 else [4, 1]
    return rrb.Blueprint(
        rrb.Horizontal(rrb.Vertical(*left, row_shares=shares), rrb.Vertical(*curves), column_shares=[3, 2]),
        collapse_panels=True,
    )


def _flat(points: NDArray[Any]) -> NDArray[np.float32]:
    """(n, 2) to (n, 3)."""
    return np.concatenate([points, np.zeros((len(points), 1))], axis=1).astype(np.float32)


def _log_map(rr: Any, recording: Any, beliefs: Beliefs) -> None:
    """The cells that are taken, as points."""
    taken: dict[tuple[int, int], bool] = {}
    for i, t_s in enumerate(beliefs.map_t_s):
        for cell, level in zip(beliefs.map_cells[i].tolist(), beliefs.map_levels[i].tolist(), strict=True):
            taken[tuple(cell)] = level > 0.3 * LEVELS
        if i % MAP_EVERY and i + 1 < len(beliefs.map_t_s):
            continue
        cells = np.array([cell for cell, is_taken in taken.items() if is_taken], np.float64).reshape(-1, 2)
        recording.set_time(TIMELINE, duration=t_s)
        points = _flat((cells + 0.5) * beliefs.resolution_m)
        recording.log("map/occupied", rr.Points3D(points, radii=beliefs.resolution_m / 2, colors=[120, 126, 136]))


def _log_robot(rr: Any, recording: Any, episode: Episode) -> None:
    sensed, robot = episode.sensed, episode.robot
    half = [robot.length_m / 2, robot.width_m / 2, robot.height_m / 2]
    recording.log("map/robot", rr.Boxes3D(half_sizes=[half], colors=[11, 98, 214]), static=True)
    trail = _flat(sensed.pose_odom[:, :2])
    angles = robot.lidar.angles_rad
    for i, t_s in enumerate(sensed.t_s.tolist()):
        x, y, yaw = (float(v) for v in sensed.pose_odom[i])
        recording.set_time(TIMELINE, duration=t_s)
        turn = rr.RotationAxisAngle(axis=[0, 0, 1], radians=yaw)
        recording.log("map/robot", rr.Transform3D(translation=[x, y, 0], rotation=turn))
        recording.log("map/trail", rr.LineStrips3D([trail[: i + 1]], colors=[11, 98, 214], radii=0.02))
        recording.log("map/goal", rr.Points3D(_flat(sensed.goal_odom_m[i : i + 1]), radii=0.12, colors=[17, 132, 91]))
        if sensed.scan_m is not None and len(angles) == sensed.scan_m.shape[1]:
            ranges = sensed.scan_m[i]
            hit = (ranges > 0) & (ranges < robot.lidar.range_m - 1e-3)
            ahead = x + robot.lidar.mount_x_m * np.cos(yaw) + ranges[hit] * np.cos(yaw + angles[hit])
            aside = y + robot.lidar.mount_x_m * np.sin(yaw) + ranges[hit] * np.sin(yaw + angles[hit])
            points = _flat(np.stack([ahead, aside], axis=1))
            recording.log("map/scan", rr.Points3D(points, radii=0.03, colors=[234, 88, 12]))
    if sensed.depth_m is not None:
        for t_s, image in zip(sensed.depth_t_s.tolist(), sensed.depth_m, strict=True):
            recording.set_time(TIMELINE, duration=t_s)
            recording.log("depth", rr.DepthImage(image, meter=1.0))


def _log_routes(rr: Any, recording: Any, episode: Episode) -> None:
    for t_s, points in episode.decided.routes:
        recording.set_time(TIMELINE, duration=t_s)
        recording.log("map/route", rr.LineStrips3D([_flat(points)], colors=[178, 94, 0], radii=0.015))


def _log_curves(rr: Any, recording: Any, viewed: Viewed) -> None:
    episode = viewed.episode
    sensed, decided, governed = episode.sensed, episode.decided, episode.governed

    def curve(name: str, t_s: NDArray[Any], values: NDArray[Any]) -> None:
        known = np.isfinite(values)
        times = rr.TimeColumn(TIMELINE, duration=t_s[known])
        recording.send_columns(name, indexes=[times], columns=rr.Scalars.columns(scalars=values[known]))

    for i, axis in enumerate(AXES):
        curve(f"command/{axis}/asked", decided.t_s, decided.command[:, i])
        curve(f"command/{axis}/governed", governed.t_s, governed.velocity[:, i])
        curve(f"command/{axis}/measured", sensed.t_s, sensed.twist[:, i])
    curve("value/critic", decided.t_s, decided.value)
    curve("latency_ms/decision", decided.t_s, decided.total_ms)
    curve("latency_ms/late_by", episode.stated.t_s, episode.stated.lateness_ms)
    if sensed.scan_m is not None:
        curve("clearance_m", sensed.t_s, clearance_m(sensed.scan_m, episode.robot))


def _log_rollouts(rr: Any, recording: Any, viewed: Viewed) -> None:
    """Imagined paths, bright where their value is high."""
    found = viewed.extras.rollouts
    if found is None:
        return
    for i, t_s in enumerate(found.t_s.tolist()):
        score = np.nan_to_num(found.score[i], nan=np.nanmin(found.score[i], initial=0.0))
        share = (score - score.min()) / max(float(np.ptp(score)), 1e-9)
        colours = np.stack([80 + 0 * share, 120 + 40 * share, 200 + 55 * share, 40 + 215 * share**2], axis=1)
        strips = [_flat(path) for path in found.paths_odom_m[i]]
        recording.set_time(TIMELINE, duration=t_s)
        recording.log("map/imagined", rr.LineStrips3D(strips, colors=colours.astype(np.uint8), radii=0.006))


def _log_words(rr: Any, recording: Any, episode: Episode) -> None:
    clearance = None if episode.sensed.scan_m is None else clearance_m(episode.sensed.scan_m, episode.robot)
    levels = {"stop": "ERROR", "collision": "ERROR", "near": "WARN", "late": "WARN", "error": "WARN"}
    for event in events_of(episode, clearance):
        recording.set_time(TIMELINE, duration=event.t_s)
        recording.log("events", rr.TextLog(event.text, level=levels.get(event.kind, "INFO")))
    for mark in marks_of(episode):
        recording.set_time(TIMELINE, duration=mark.start_s)
        recording.log("events/governor", rr.TextLog(mark.reason, level="INFO"))
