"""A top view of episodes as a film: scene, movers, trail, robot, lidar. mp4 by OpenCV, GIF by pillow, imported late."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robonav.errors import RobonavError
from robonav.evaluation.runner import Recording
from robonav.evaluation.shapes import drawn_bounds, footprint, mover_outline, solid_polygons
from robonav.files import atomic_path
from robonav.geometry import transform_points
from robonav.types import RobotSpec

_LONG_SIDE_PX = 640
_CAPTION_PX = 28
_HOLD_FRAMES = 10  # the end of an episode stands still for so long
_SPEED = 2.0  # times real time
# RGB
_GROUND, _SOLID, _GOAL, _SCAN, _ROBOT = (255, 255, 255), (87, 96, 106), (9, 105, 218), (240, 150, 60), (36, 41, 47)
_MOVER = (163, 137, 218)
_TRAIL = {"success": (26, 127, 55), "collision": (193, 18, 31), "timeout": (178, 106, 0)}

Image = NDArray[np.uint8]
ToPixels = Callable[[NDArray[np.float64]], NDArray[np.int32]]  # (n, 2) m in world -> (n, 2) px


def write_video(recordings: Sequence[Recording], spec: RobotSpec, path: str | Path) -> int:
    """Writes the episodes one after the other, at twice real time, and returns the number of frames.

    Raises:
        RobonavError: the file cannot be written, or OpenCV here cannot write mp4.
    """
    path = Path(path)
    sides = [_canvas_size(r) for r in recordings]
    size = max(w for w, _ in sides), max(h for _, h in sides)  # one size for all frames
    frames = (frame for r in recordings for frame in _frames(r, spec, size))  # drawn one at a time: a film is large
    with atomic_path(path) as aside:
        if path.suffix.lower() == ".gif":
            write_gif(frames, aside, spec.rate_hz * _SPEED)
        else:
            write_mp4(frames, aside, spec.rate_hz * _SPEED, size)
    return sum(len(r.poses_world) + _HOLD_FRAMES for r in recordings)


def _scale(recording: Recording) -> float:
    """Pixels a metre."""
    x0, y0, x1, y1 = drawn_bounds(recording.scene, recording.poses_world)
    return _LONG_SIDE_PX / max(x1 - x0, y1 - y0)


def _canvas_size(recording: Recording) -> tuple[int, int]:
    """(width, height) px, even numbers, since mp4's colour subsampling wants them."""
    x0, y0, x1, y1 = drawn_bounds(recording.scene, recording.poses_world)
    scale = _scale(recording)
    width, height = round((x1 - x0) * scale), round((y1 - y0) * scale) + _CAPTION_PX
    return max(width + width % 2, 320), height + height % 2


def _frames(recording: Recording, spec: RobotSpec, size: tuple[int, int]) -> Iterator[Image]:
    import cv2

    x0, _, x1, y1 = drawn_bounds(recording.scene, recording.poses_world)
    scale = _scale(recording)
    left_px = (size[0] - (x1 - x0) * scale) / 2  # a narrow scene stands in the middle

    def pixels(points_m: NDArray[np.float64]) -> NDArray[np.int32]:
        points = np.reshape(points_m, (-1, 2))
        return np.round((points - (x0, y1)) * (scale, -scale) + (left_px, _CAPTION_PX)).astype(np.int32)

    ground = _draw_scene(recording, size, scale, pixels)
    episode, poses = recording.episode, recording.poses_world.astype(np.float64)
    for tick in range(len(poses)):
        frame = ground.copy()
        if recording.movers_world is not None:
            for mover, pose in zip(recording.scene.movers, recording.movers_world[tick], strict=True):
                cv2.fillPoly(frame, [pixels(mover_outline(mover, pose))], _MOVER, cv2.LINE_AA)
        if recording.scans_m is not None:
            hits = _scan_points(recording.scans_m[tick], poses[tick], spec)
            for u, v in pixels(hits):
                cv2.circle(frame, (int(u), int(v)), 2, _SCAN, cv2.FILLED, cv2.LINE_AA)
        colour = _TRAIL[episode.outcome]
        cv2.polylines(frame, [pixels(poses[: tick + 1, :2])], False, colour, 2, cv2.LINE_AA)
        cv2.fillPoly(frame, [pixels(footprint(spec, poses[tick]))], _ROBOT, cv2.LINE_AA)
        nose = transform_points(poses[tick], np.array([(0.0, 0.0), (spec.length_m / 2, 0.0)]))
        cv2.polylines(frame, [pixels(nose)], False, _GROUND, 2, cv2.LINE_AA)
        last = tick == len(poses) - 1
        text = f"{episode.scene}  {tick * spec.dt_s:5.1f} s  {episode.outcome if last else ''}"
        cv2.putText(frame, text, (8, _CAPTION_PX - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _ROBOT, 1, cv2.LINE_AA)
        yield from [frame] * (1 + _HOLD_FRAMES * last)


def _draw_scene(recording: Recording, size: tuple[int, int], scale: float, pixels: ToPixels) -> Image:
    import cv2

    scene = recording.scene
    image: Image = np.full((size[1], size[0], 3), _GROUND, np.uint8)
    for polygon in solid_polygons(scene):
        cv2.fillPoly(image, [pixels(polygon)], _SOLID, cv2.LINE_AA)
    for (u, v), radius_m in zip(pixels(scene.cylinders[:, :2].astype(np.float64)), scene.cylinders[:, 2], strict=True):
        cv2.circle(image, (int(u), int(v)), max(1, round(float(radius_m) * scale)), _SOLID, cv2.FILLED, cv2.LINE_AA)
    u, v = (int(c) for c in pixels(np.array(scene.goal))[0])
    cv2.circle(image, (u, v), round(scene.goal_radius_m * scale), _GOAL, 2, cv2.LINE_AA)
    return image


def _scan_points(scan_m: NDArray[np.float32], pose_world: NDArray[np.float64], spec: RobotSpec) -> NDArray[np.float64]:
    """(n, 2) world points of the beams that hit something."""
    hit = scan_m < spec.lidar.range_m * 0.999
    angles = spec.lidar.angles_rad[hit]
    points_base = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * scan_m[hit, None]
    points_base[:, 0] += spec.lidar.mount_x_m
    return transform_points(pose_world, points_base)


def write_mp4(frames: Iterator[Image], path: Path, rate_hz: float, size: tuple[int, int]) -> None:
    """Writes RGB frames (H, W, 3) of one size as MPEG-4."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, size)
    try:
        for frame in frames:
            writer.write(frame[..., ::-1])  # RGB -> BGR
    finally:
        writer.release()
    # The writer tells nothing when it fails, so the file is read back.
    if not cv2.VideoCapture(str(path)).read()[0]:
        raise RobonavError(
            f"{path.suffix} video: OpenCV on this machine cannot write it; choose a path that ends in .gif"
        )


def write_gif(frames: Iterator[Image], path: Path, rate_hz: float) -> None:
    """Writes RGB frames (H, W, 3) as an animated GIF."""
    from PIL import Image as Pillow

    # Every second frame: half the size, and 100 ms a page, which all viewers keep to.
    pages = (Pillow.fromarray(frame).quantize(32) for frame in itertools.islice(frames, 0, None, 2))
    first = next(pages)
    first.save(path, format="GIF", save_all=True, append_images=pages, duration=round(2000 / rate_hz), loop=0)
