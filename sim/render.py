"""Drawings of scenes and trajectories from above. matplotlib is loaded when something is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import MissingDependencyError
from robonav.files import atomic_path
from robonav.types import Scene
from sim.geodesic import all_boxes

WALL, OBSTACLE, START, GOAL = "#3b3f46", "#8b93a1", "#1f77b4", "#2ca02c"


def draw_scene(axes: Any, scene: Scene) -> None:
    """Draws walls, boxes, cylinders, start (an arrow) and goal (its circle) onto matplotlib axes."""
    from matplotlib.patches import Circle, Polygon

    walls = len(scene.walls)
    for i, (x, y, length, width, yaw) in enumerate(all_boxes(scene)):
        c, s = math.cos(yaw), math.sin(yaw)
        corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [length / 2, width / 2]
        turned = corners @ np.array([[c, s], [-s, c]]) + [x, y]
        axes.add_patch(Polygon(turned, closed=True, color=WALL if i < walls else OBSTACLE, lw=0))
    for x, y, radius in np.asarray(scene.cylinders, np.float64).reshape(-1, 3):
        axes.add_patch(Circle((x, y), radius, color=OBSTACLE, lw=0))
    axes.add_patch(Circle(scene.goal, scene.goal_radius_m, fill=False, color=GOAL, lw=1.5))
    axes.plot(*scene.goal, marker="*", color=GOAL, ms=10)
    x, y, yaw = scene.start
    axes.arrow(x, y, 0.4 * math.cos(yaw), 0.4 * math.sin(yaw), width=0.06, color=START, zorder=5)
    x_min, y_min, x_max, y_max = scene.bounds_m
    axes.set_xlim(x_min - 0.2, x_max + 0.2)
    axes.set_ylim(y_min - 0.2, y_max + 0.2)
    axes.set_aspect("equal")


def save_scenes(
    path: str | Path,
    scenes: Sequence[Scene],
    paths_world_m: Sequence[Mapping[str, NDArray[Any]]] | None = None,
    columns: int = 4,
) -> None:
    """Writes a PNG with one panel a scene; `paths_world_m` holds for each scene labelled (n, 2) polylines.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RobonavError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib: not installed; pip install 'robonav[viz]'") from error
    columns = min(columns, len(scenes))
    rows = math.ceil(len(scenes) / columns)
    figure = Figure(figsize=(4 * columns, 3.8 * rows), layout="constrained")
    for i, scene in enumerate(scenes):
        axes = figure.add_subplot(rows, columns, i + 1)
        draw_scene(axes, scene)
        axes.set_title(scene.name, fontsize=9)
        lines = paths_world_m[i] if paths_world_m else {}
        for label, points in lines.items():
            line = np.asarray(points, np.float64).reshape(-1, 2)
            axes.plot(line[:, 0], line[:, 1], lw=1.5, label=label)
        if lines:
            axes.legend(fontsize=7, loc="best")
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=110)
