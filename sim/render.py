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
from robonav.types import Mover, RobotSpec, Scene
from sim.generators.statistics import shortest_way
from sim.geodesic import all_boxes
from sim.scene_check import start_m
from sim.task import reward_field

WALL, OBSTACLE, START, GOAL = "#3b3f46", "#8b93a1", "#1464b4", "#1f9d3a"
GROUND, RAMP, STEP, LEAF = "#f4f5f7", "#e3d3b4", "#cfae74", "#a0522d"
MOVERS = {"waypoint": "#d9480f", "bouncing": "#9c36b5", "crossing": "#e0218a", "reactive": "#e8a40c"}
SHEET_GROUPS = 2  # columns of presets on a sheet


def draw_scene(axes: Any, scene: Scene, route_m: NDArray[Any] | None = None) -> None:
    """Draws the map, ramps and steps, walls, boxes, cylinders, movers with their routes, start (an arrow) and goal.

    `route_m` (n, 2) is drawn as a dashed line.
    """
    from matplotlib.patches import Circle, Polygon, Rectangle

    x_min, y_min, x_max, y_max = scene.bounds_m
    axes.add_patch(Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, color=GROUND, lw=0))
    for rows, colour in ((scene.ramps, RAMP), (scene.steps, STEP)):
        for x, y, length, width, yaw, _ in np.asarray(rows, np.float64).reshape(-1, 6):
            axes.add_patch(Polygon(_corners(x, y, length, width, yaw), closed=True, fc=colour, lw=0))
    for x, y, length, _, yaw, _ in np.asarray(scene.ramps, np.float64):  # uphill
        way = np.array([math.cos(yaw), math.sin(yaw)]) * length / 2
        ends = (x + way[0], y + way[1]), (x - way[0], y - way[1])
        axes.annotate("", *ends, arrowprops={"arrowstyle": "->", "lw": 0.6})
    walls = len(scene.walls)
    for i, (x, y, length, width, yaw) in enumerate(all_boxes(scene)):
        turned = _corners(x, y, length, width, yaw)
        axes.add_patch(Polygon(turned, closed=True, color=WALL if i < walls else OBSTACLE, lw=0))
    for x, y, radius in np.asarray(scene.cylinders, np.float64).reshape(-1, 3):
        axes.add_patch(Circle((x, y), radius, color=OBSTACLE, lw=0))
    if route_m is not None:
        axes.plot(*np.asarray(route_m, np.float64).T, color=START, lw=1.1, ls=(0, (3, 1.5)), zorder=3)
    for mover in scene.movers:
        _draw_mover(axes, mover)
    axes.add_patch(Circle(scene.goal, scene.goal_radius_m, fill=False, color=GOAL, lw=1.3, zorder=6))
    axes.plot(*scene.goal, marker="*", color=GOAL, ms=8, mec="white", mew=0.4, zorder=7)
    x, y, yaw = scene.start
    axes.annotate(
        "",
        (x + 0.7 * math.cos(yaw), y + 0.7 * math.sin(yaw)),
        (x, y),
        arrowprops={"arrowstyle": "-|>", "color": START, "lw": 1.4, "shrinkA": 0, "shrinkB": 0},
        zorder=8,
    )
    axes.plot(x, y, marker="o", color=START, ms=4.5, mec="white", mew=0.5, zorder=8)
    axes.set_xlim(x_min - 0.2, x_max + 0.2)
    axes.set_ylim(y_min - 0.2, y_max + 0.2)
    axes.set_aspect("equal")


def route_of(scene: Scene, spec: RobotSpec) -> NDArray[np.float64]:
    """(n, 2) the shortest way from start to goal, free for any heading where there is such a one."""
    field, _ = reward_field(scene, spec)
    return np.vstack([scene.start[:2], shortest_way(field, scene.start[:2])[1:-1], scene.goal])


def _corners(x: float, y: float, length: float, width: float, yaw: float) -> NDArray[np.float64]:
    """(4, 2) corners of a rectangle."""
    c, s = math.cos(yaw), math.sin(yaw)
    corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [length / 2, width / 2]
    return np.asarray(corners @ np.array([[c, s], [-s, c]]) + [x, y])


def _draw_mover(axes: Any, mover: Mover) -> None:
    """The route as a line, the body where it starts; a door's leaf when closed, and its way."""
    from matplotlib.patches import Circle, Polygon

    way = np.array(mover.waypoints_m)
    if mover.behaviour == "door" and mover.box_m is not None:
        length, width = mover.box_m
        if len(way) == 3:
            begin, end = (math.atan2(*(tip - way[0])[::-1]) for tip in way[1:])
            angles = begin + np.linspace(0.0, (end - begin + math.pi) % (2 * math.pi) - math.pi, 12)
            arc = way[0] + math.dist(way[0], way[1]) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
            axes.plot(*np.vstack([arc, way[:1]]).T, color=LEAF, lw=0.6)
            (x, y), yaw = (way[0] + way[1]) / 2, begin
        else:
            yaw = math.atan2(*(way[1] - way[0])[::-1])
            x, y = way[0]
            axes.annotate("", way[1], way[0], arrowprops={"arrowstyle": "->", "color": LEAF, "lw": 0.8})
        axes.add_patch(Polygon(_corners(x, y, length, max(width, 0.08), yaw), closed=True, color=LEAF, lw=0))
        return
    colour = MOVERS[mover.behaviour]
    if mover.behaviour == "bouncing":
        ahead = start_m(mover) + 1.8 * (way[1] - way[0])
        axes.annotate("", ahead, start_m(mover), arrowprops={"arrowstyle": "->", "color": colour, "lw": 0.9})
    else:
        axes.plot(*way.T, "-", color=colour, lw=0.8, alpha=0.6, marker=".", ms=2.0)
    x, y = start_m(mover)
    style = {"fc": colour, "ec": "#202020" if mover.ignores_robot else "none", "lw": 0.8, "zorder": 4}
    if mover.box_m is None:
        axes.add_patch(Circle((x, y), mover.radius_m, **style))
    else:
        yaw = math.atan2(*(way[1] - way[0])[::-1])
        axes.add_patch(Polygon(_corners(x, y, *mover.box_m, yaw), closed=True, **style))


def save_sheet(
    path: str | Path, families: Sequence[tuple[str, Sequence[Scene]]], spec: RobotSpec, panel_in: float = 1.72
) -> None:
    """Writes an image with a strip for each family of scenes, a panel a scene, two strips side by side, and a legend.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RobonavError: the file cannot be written, or a scene has no way.
    """
    figure = _figure()
    columns = max(len(scenes) for _, scenes in families)
    rows = math.ceil(len(families) / SHEET_GROUPS)
    figure.set_size_inches(panel_in * columns * SHEET_GROUPS + 0.3, (panel_in + 0.24) * rows + 1.0)
    figure.suptitle(f"Scene presets, {columns} numbers of each, with the shortest way for robot '{spec.name}'", size=13)
    strips = figure.subfigures(rows, SHEET_GROUPS, squeeze=False, wspace=0.01).T.ravel()
    for strip, (name, scenes) in zip(strips, families, strict=False):
        strip.suptitle(name, size=10, weight="bold", x=0.01, ha="left")
        for axes, scene in zip(strip.subplots(1, columns, squeeze=False)[0], scenes, strict=False):
            draw_scene(axes, scene, route_of(scene, spec))
        for axes in strip.axes:
            axes.axis("off")
    _add_legend(figure, [scene for _, scenes in families for scene in scenes], routes=True)
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=96)


def _figure() -> Any:
    """An empty figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib: not installed; pip install 'robonav[viz]'") from error
    return Figure(layout="constrained")


def _add_legend(figure: Any, scenes: Sequence[Scene], routes: bool) -> None:
    """A line at the bottom that says what the signs mean, as far as they occur."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    movers = [mover for scene in scenes for mover in scene.movers]
    dot: dict[str, Any] = {"ls": "", "marker": "o"}
    signs: list[Any] = [
        Line2D([], [], color=START, label="start", **dot),
        Line2D([], [], color=GOAL, label="goal", ls="", marker="*", ms=9),
    ]
    if routes:
        signs.append(Line2D([], [], color=START, label="shortest way", lw=1.2, ls=(0, (3, 1.5))))
    for behaviour, colour in MOVERS.items():
        if any(m.behaviour == behaviour and m.kind == "pedestrian" for m in movers):
            signs.append(Line2D([], [], color=colour, label=f"{behaviour} pedestrian", lw=0.8, marker="o"))
    if any(m.kind == "robot" for m in movers):
        signs.append(Line2D([], [], color=MOVERS["waypoint"], label="other robot", lw=0.8, marker="s"))
    if any(m.ignores_robot and m.kind != "door" for m in movers):
        signs.append(Line2D([], [], color="#cccccc", mec="#202020", label="black rim: ignores the robot", **dot))
    if any(m.kind == "door" for m in movers):
        signs.append(Line2D([], [], color=LEAF, label="moving door", lw=3))
    for present, colour, label in (
        (any(len(s.ramps) for s in scenes), RAMP, "ramp, arrow uphill"),
        (any(len(s.steps) for s in scenes), STEP, "step"),
    ):
        if present:
            signs.append(Patch(color=colour, label=label))
    width = figure.get_size_inches()[0]
    figure.legend(
        handles=signs,
        loc="outside lower center",
        ncols=max(2, min(len(signs), int(width / 1.7))),
        fontsize=8,
        frameon=False,
    )


def save_scenes(
    path: str | Path,
    scenes: Sequence[Scene],
    paths_world_m: Sequence[Mapping[str, NDArray[Any]]] | None = None,
    columns: int = 4,
    spec: RobotSpec | None = None,
) -> None:
    """Writes a PNG with one panel a scene; `paths_world_m` holds for each scene labelled (n, 2) polylines.

    With a robot, the shortest way is drawn as well, and a legend.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RobonavError: the file cannot be written, or a scene has no way.
    """
    figure = _figure()
    columns = min(columns, len(scenes))
    rows = math.ceil(len(scenes) / columns)
    figure.set_size_inches(4 * columns, 3.8 * rows + (0.4 if spec else 0.0))
    for i, scene in enumerate(scenes):
        axes = figure.add_subplot(rows, columns, i + 1)
        draw_scene(axes, scene, route_of(scene, spec) if spec else None)
        axes.set_title(scene.name, fontsize=9)
        lines = paths_world_m[i] if paths_world_m else {}
        for label, points in lines.items():
            line = np.asarray(points, np.float64).reshape(-1, 2)
            axes.plot(line[:, 0], line[:, 1], lw=1.5, label=label)
        if lines:
            axes.legend(fontsize=7, loc="best")
    if spec:
        _add_legend(figure, scenes, routes=True)
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=110)
