"""Predicted against real lidar and map: strips of panels by horizon, and a film. Drawn by OpenCV.

A panel looks down on the robot, which looks up the page: the pooled map in grey (dark where occupied, light where
free), the ends of the lidar's beams as dots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from robonav.evaluation.video import write_gif, write_mp4
from robonav.evaluation.worldmodel.data import true_quantities
from robonav.evaluation.worldmodel.dreams import decode
from robonav.evaluation.worldmodel.measure import DataSet, Measured
from robonav.files import atomic_path
from robonav.imagination.agent import Agent
from robonav.learning.streams import Arrays
from robonav.types import LOCAL_MAP_CHANNELS, RobotSpec

Image = NDArray[np.uint8]
SHOWN = (0, 1, 3, 5, 10, 15, 20)  # steps of a strip
_PLACES = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)  # of the episodes, ordered from the worst to the best
_VIEW_M = 4.0  # from the robot to a panel's edge
_PANEL_PX, _CAPTION_PX, _FILM_PX = 180, 22, 360
_UNKNOWN, _OCCUPIED, _FREE = 205, 160, 50  # grey, and what occupied takes off and free adds
_REAL, _SAID, _ROBOT, _TEXT = (9, 105, 218), (207, 90, 14), (36, 41, 47), (36, 41, 47)
_FILM_HZ, _HOLD = 5.0, 5  # half of real time; frames that the end stands still


class Example(NamedTuple):
    """A dream beside what followed, H + 1 panels each, the first being the start itself."""

    title: str
    real: Arrays  # scan_m (H + 1, beams), and local_map (H + 1, 3, c, c) where the model decodes it
    said: Arrays


def choose_examples(agent: Agent, data: DataSet, measured: Measured) -> list[Example]:
    """Of each episode the start with the largest lidar error over the horizon; then from the worst to the best.

    Nothing where the model decodes no lidar, or no episode lasts as long as the horizon.
    """
    if measured.scan_errors is None:
        return []
    whole = np.where(data.real.valid.all(1), measured.scan_errors.mean(1), np.nan)
    worst: dict[int, int] = {}
    for m in np.flatnonzero(np.isfinite(whole)).tolist():
        episode = int(data.starts.episode[m])
        if episode not in worst or whole[m] > whole[worst[episode]]:
            worst[episode] = m
    ordered = sorted(worst.values(), key=lambda m: -whole[m])
    places = dict.fromkeys(round(share * (len(ordered) - 1)) for share in _PLACES) if ordered else {}
    return [_example(agent, data, measured, ordered[i], float(whole[ordered[i]])) for i in places]


@torch.no_grad()
def _example(agent: Agent, data: DataSet, measured: Measured, m: int, error_m: float) -> Example:
    index, tick = int(data.starts.episode[m]), int(data.starts.tick[m])
    episode = data.episodes[index]
    now = decode(agent.model, torch.from_numpy(measured.followed.features[index][tick]))
    names: list[str] = [name for name in ("scan_m", "local_map") if name in now]
    said = {n: np.concatenate([now[n].numpy()[None], measured.forecast.quantities[n][m]]) for n in names}
    horizon = data.real.valid.shape[1]
    quantities = true_quantities(episode)
    real = {n: quantities[n][tick : tick + horizon + 1] for n in names}
    where = f"{episode.plan.scene} {episode.plan.seed} at {tick * data.spec.dt_s:.1f} s, {episode.plan.driver}"
    return Example(f"{where}: mean lidar error {error_m:.2f} m", real, said)


def strip(example: Example, spec: RobotSpec) -> bytes:
    """PNG: real panels above predicted ones, by horizon."""
    steps = [k for k in SHOWN if k < len(example.real["scan_m"])]
    columns = []
    for k in steps:
        caption = np.full((_CAPTION_PX, _PANEL_PX, 3), 255, np.uint8)
        _write(caption, f"+{k * spec.dt_s:.1f} s" if k else "now (posterior)", (4, 15))
        both = (example.real, _REAL), (example.said, _SAID)
        panels = [panel(part, k, spec, _PANEL_PX, dots) for part, dots in both]
        columns.append(np.concatenate([caption, *panels]))
    return png(np.concatenate(columns, axis=1))


def panel(quantities: Arrays, k: int, spec: RobotSpec, size_px: int, dots: tuple[int, int, int]) -> Image:
    """(size, size, 3) RGB of step k."""
    image = np.full((size_px, size_px, 3), _UNKNOWN, np.uint8)
    scale = size_px / (2 * _VIEW_M)
    if "local_map" in quantities:
        cells = quantities["local_map"][k].astype(np.float64)
        occupied, free = (cells[LOCAL_MAP_CHANNELS.index(c)] for c in ("occupied", "free"))
        grey = np.clip(_UNKNOWN + _FREE * free - _OCCUPIED * occupied, 0, 255).astype(np.uint8)
        side = min(size_px, round(spec.local_map.cells * spec.local_map.resolution_m * scale))
        first = (size_px - side) // 2
        shown = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST)
        image[first : first + side, first : first + side] = shown[..., None]
    scan, angles = quantities["scan_m"][k], spec.lidar.angles_rad
    hit = scan < spec.lidar.range_m * 0.99
    x, y = spec.lidar.mount_x_m + scan * np.cos(angles), scan * np.sin(angles)
    places = np.stack([size_px / 2 - scale * y, size_px / 2 - scale * x], -1)[hit]
    for u, v in np.round(np.clip(places, -9, size_px + 9)).astype(int).tolist():
        cv2.circle(image, (u, v), max(1, size_px // 110), dots, cv2.FILLED, cv2.LINE_AA)
    half = np.array([spec.width_m, spec.length_m]) * scale / 2
    low, high = (np.round(size_px / 2 + sign * half).astype(int).tolist() for sign in (-1, 1))
    cv2.rectangle(image, low, high, _ROBOT, 1, cv2.LINE_AA)
    cv2.rectangle(image, (0, 0), (size_px - 1, size_px - 1), (255, 255, 255), 1)
    return image


def write_film(examples: Sequence[Example], spec: RobotSpec, path: Path) -> None:
    """Real beside predicted, one example after the other, at half of real time (.mp4 or .gif).

    Raises:
        RobonavError: the file cannot be written, or OpenCV here cannot write mp4.
    """
    frames = (frame for example in examples for frame in _frames(example, spec))
    with atomic_path(path) as aside:
        if path.suffix.lower() == ".gif":
            twice = (frame for frame in frames for _ in range(2))  # of a GIF's frames every second one is kept
            write_gif(twice, aside, 2 * _FILM_HZ)
        else:
            write_mp4(frames, aside, _FILM_HZ, (2 * _FILM_PX, _FILM_PX + 2 * _CAPTION_PX))


def _frames(example: Example, spec: RobotSpec) -> Iterator[Image]:
    steps = len(example.real["scan_m"])
    for k in range(steps):
        caption = np.full((2 * _CAPTION_PX, 2 * _FILM_PX, 3), 255, np.uint8)
        _write(caption, example.title, (6, 15))
        _write(caption, f"real, +{k * spec.dt_s:.1f} s", (6, 36), _REAL)
        _write(caption, "dreamt" if k else "posterior", (_FILM_PX + 6, 36), _SAID)
        both = [panel(example.real, k, spec, _FILM_PX, _REAL), panel(example.said, k, spec, _FILM_PX, _SAID)]
        frame = np.concatenate([caption, np.concatenate(both, axis=1)])
        yield from [frame] * (1 + _HOLD * (k in (0, steps - 1)))


def png(image: Image) -> bytes:
    """An RGB image as PNG."""
    return bytes(cv2.imencode(".png", image[..., ::-1])[1])


def _write(image: Image, text: str, place: tuple[int, int], colour: tuple[int, int, int] = _TEXT) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
