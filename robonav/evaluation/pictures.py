"""A page of trajectories over their scenes: small multiples, failures first. matplotlib is imported when it draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robonav.evaluation.runner import Recording
from robonav.evaluation.shapes import drawn_bounds, footprint, mover_outline, solid_polygons
from robonav.files import atomic_path
from robonav.types import RobotSpec

MAX_PANELS = 24
COLOURS = {"success": "#1a7f37", "collision": "#c1121f", "timeout": "#b26a00"}  # also told apart by their titles
SOLID = "#57606a"
MOVER = "#6639ba"
_LAST_S = 2.0  # of the way that is drawn stronger, so that one sees who met whom
_PANEL_CM = 5.0
_FAILURES_FIRST = ("collision", "timeout", "success")


def failures_first(recordings: Sequence[Recording]) -> list[Recording]:
    """Collisions, then timeouts, then successes, each in the order of the run."""
    return sorted(recordings, key=lambda r: _FAILURES_FIRST.index(r.episode.outcome))


def draw_page(recordings: Sequence[Recording], spec: RobotSpec, title: str, path: str | Path) -> int:
    """Writes a page of up to MAX_PANELS episodes as an image whose format follows the suffix; returns their number.

    Raises:
        RobonavError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = failures_first(recordings)[:MAX_PANELS]
    boxes = [drawn_bounds(r.scene, r.poses_world) for r in shown]
    aspect = float(np.median([(b[3] - b[1]) / (b[2] - b[0]) for b in boxes]))  # height by width
    columns = min(len(shown), 8 if aspect > 1.5 else 6)
    rows = -(-len(shown) // columns)
    panel = (_PANEL_CM, float(np.clip(_PANEL_CM * aspect, 2.5, 12.0)) + 0.6)
    size = (max(columns * panel[0], 12.0) / 2.54, (rows * panel[1] + 1.2) / 2.54)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, recording, bounds in zip(axes, shown, boxes, strict=False):
        _draw_panel(axis, recording, spec, bounds)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    more = f" (first {len(shown)} of {len(recordings)}, failures first)" if len(shown) < len(recordings) else ""
    legend = "dot: start, circle: goal, rectangle: where the robot ended"
    if any(r.movers_world is not None for r in shown):
        legend += f"; violet: who moves, the ways (the last {_LAST_S:g} s stronger) and where they were at the end"
    figure.suptitle(f"{title}{more}\n{legend}", fontsize=8)
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=150)
    return len(shown)


def _draw_panel(axis: Any, recording: Recording, spec: RobotSpec, bounds: tuple[float, ...]) -> None:
    from matplotlib.collections import EllipseCollection, PolyCollection
    from matplotlib.patches import Circle, Polygon

    scene, episode, poses = recording.scene, recording.episode, recording.poses_world
    colour = COLOURS[episode.outcome]
    axis.add_collection(PolyCollection(solid_polygons(scene), facecolors=SOLID, edgecolors="none"))
    if len(scene.cylinders):
        wide = 2 * scene.cylinders[:, 2]
        axis.add_collection(
            EllipseCollection(
                wide, wide, np.zeros_like(wide), units="xy", offsets=scene.cylinders[:, :2],
                offset_transform=axis.transData, facecolors=SOLID, edgecolors="none",
            )
        )  # fmt: skip
    axis.add_patch(Circle(scene.goal, scene.goal_radius_m, facecolor="none", edgecolor="#0969da", linewidth=1.0))
    axis.plot(*scene.goal, "+", color="#0969da", markersize=4, markeredgewidth=1.0)
    axis.plot(*scene.start[:2], "o", color="#24292f", markersize=2.5)
    _draw_movers(axis, recording, spec)
    axis.plot(poses[:, 0], poses[:, 1], "-", color=colour, linewidth=1.3)
    axis.add_patch(Polygon(footprint(spec, poses[-1]), facecolor=colour, alpha=0.35, edgecolor=colour, linewidth=0.8))
    axis.set_title(f"{scene.name}: {episode.outcome}, {episode.time_s:.1f} s", fontsize=6, color=colour, pad=2)
    axis.set(xlim=(bounds[0], bounds[2]), ylim=(bounds[1], bounds[3]), xticks=[], yticks=[])
    axis.set_aspect("equal", anchor="N")
    for spine in axis.spines.values():
        spine.set(linewidth=0.4, color="#d0d7de")


def _draw_movers(axis: Any, recording: Recording, spec: RobotSpec) -> None:
    """Ways and last outlines of the movers; of a door the leaf alone, where it was at first and at the end."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import to_rgb

    ways, movers = recording.movers_world, recording.scene.movers
    if ways is None:
        return
    last = slice(-round(_LAST_S * spec.rate_hz) - 1, None)
    walkers = [i for i, mover in enumerate(movers) if mover.kind != "door"]
    doors = [i for i, mover in enumerate(movers) if mover.kind == "door"]
    axis.add_collection(LineCollection([ways[:, i, :2] for i in walkers], colors=MOVER, linewidths=0.5, alpha=0.35))
    axis.add_collection(LineCollection([ways[last, i, :2] for i in walkers], colors=MOVER, linewidths=1.3, alpha=0.8))
    before = [mover_outline(movers[i], ways[0, i]) for i in doors]
    axis.add_collection(PolyCollection(before, facecolors="none", edgecolors=MOVER, linewidths=0.4, alpha=0.5))
    ends = [mover_outline(mover, ways[-1, i]) for i, mover in enumerate(movers)]
    axis.add_collection(PolyCollection(ends, facecolors=(*to_rgb(MOVER), 0.3), edgecolors=MOVER, linewidths=0.7))
