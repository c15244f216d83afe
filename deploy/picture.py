"""The picture of an episode: map, route and way; commands asked and governed; latencies. matplotlib, no display."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import wire
from deploy.drawing import new_figure
from deploy.log_run import start_ns_of
from deploy.replay import Replay
from robonav.files import atomic_path

ROUTES_SHOWN = 6
LABELS = ("vx (m/s)", "vy (m/s)", "yaw rate (rad/s)")
BLUE, ORANGE, GREEN, RED, GREY = "#1f6fb4", "#e07b00", "#2e8b57", "#c0392b", "#8a8a8a"


def draw(replay: Replay, path: str | Path) -> None:
    """Draws a replayed log into an image file (the suffix chooses the format).

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RobonavError: the file cannot be written.
    """
    figure = new_figure(15, 8)
    grid = figure.add_gridspec(4, 2, width_ratios=(1.25, 1))
    _draw_map(figure.add_subplot(grid[:, 0]), replay)
    start_ns = start_ns_of(replay.log)
    for row in range(3):
        _draw_command(figure.add_subplot(grid[row, 1]), replay, row, start_ns)
    _draw_latency(figure.add_subplot(grid[3, 1]), replay, start_ns)
    report = replay.report
    same = "replay identical" if report.identical else "replay DIFFERS"
    if report.difference is None and not report.identical:
        same = f"replayed {report.replayed} of {report.ticks} ticks"
    figure.suptitle(f"{Path(report.log).name}: {report.outcome}, {report.ticks} decisions, {same}")
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=110)


def _draw_map(axes: Any, replay: Replay) -> None:
    grid = None if replay.final is None else replay.final.situation.grid
    if grid is not None:
        free_to_occupied = 1 / (1 + np.exp(np.asarray(grid.log_odds, dtype=np.float64)))
        height, width = grid.log_odds.shape
        x0, y0 = (float(v) for v in grid.origin_odom_m)
        extent = (x0, x0 + width * grid.resolution_m, y0, y0 + height * grid.resolution_m)
        axes.imshow(free_to_occupied, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent)
    routes = [m.route_odom_m for m in replay.log.of(wire.DecisionMsg) if m.route_odom_m is not None]
    for i in np.unique(np.linspace(0, len(routes) - 1, ROUTES_SHOWN).astype(int)) if routes else []:
        points = wire.unpack_array(routes[i], "route")
        axes.plot(points[:, 0], points[:, 1], "--", color=ORANGE, lw=1, alpha=0.7, label="route" if i == 0 else None)
    observations = replay.log.of(wire.ObservationMsg)
    if observations:
        poses = np.array([wire.unpack_array(m.pose_odom_base, "pose") for m in observations])
        goal = wire.unpack_array(observations[-1].goal_odom_m, "goal")
        axes.plot(poses[:, 0], poses[:, 1], color=BLUE, lw=2.2, label="driven")
        axes.plot(*poses[0, :2], "o", color=GREEN, ms=9, label="start")
        axes.plot(*goal, "*", color=RED, ms=15, label="goal")
        _frame(axes, poses, goal, replay)
    axes.set(xlabel="x odom (m)", ylabel="y odom (m)", aspect="equal", title="map at the end, routes, way")
    if observations:
        axes.legend(loc="best", fontsize=9)


def _frame(axes: Any, poses: NDArray[Any], goal: NDArray[Any], replay: Replay) -> None:
    """Shows what is known of the map, at least the way and the goal."""
    points = [poses[:, :2], goal[None]]
    if replay.final is not None:
        grid = replay.final.situation.grid
        rows, columns = np.nonzero(np.asarray(grid.log_odds) != 0)
        if len(rows):
            cells = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
            points.append(np.asarray(grid.origin_odom_m) + cells * grid.resolution_m)
    everything = np.concatenate(points)
    low, high = everything.min(axis=0) - 0.3, everything.max(axis=0) + 0.3
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _draw_command(axes: Any, replay: Replay, row: int, start_ns: int) -> None:
    for kind, color, label, width in (
        (wire.DecisionMsg, GREY, "asked", 2.4),
        (wire.GovernedMsg, BLUE, "governed", 1.2),
    ):
        messages = replay.log.of(kind)
        times = [(m.stamp_ns - start_ns) * 1e-9 for m in messages]
        axes.step(times, [wire.velocity_of(m)[row] for m in messages], where="post", color=color, lw=width, label=label)
    axes.set_ylabel(LABELS[row])
    axes.grid(alpha=0.3)
    if row:
        return
    governed = replay.log.of(wire.GovernedMsg)
    counted = Counter(reason for m in governed for reason in m.reasons)
    for (reason, count), color in zip(counted.most_common(4), (ORANGE, RED, GREEN, "#7d3c98"), strict=False):
        times = [(m.stamp_ns - start_ns) * 1e-9 for m in governed if reason in m.reasons]
        low = axes.get_ylim()[0]
        axes.plot(times, [low] * len(times), "|", color=color, ms=9, label=f"{reason} ({count})")
    axes.legend(loc="upper right", fontsize=7, ncols=2)
    axes.set_title("commands, with the governor's reasons")


def _draw_latency(axes: Any, replay: Replay, start_ns: int) -> None:
    decisions = replay.log.of(wire.DecisionMsg)
    times = [(m.stamp_ns - start_ns) * 1e-9 for m in decisions]
    axes.plot(times, [m.total_ms for m in decisions], color=BLUE, lw=1, label="decision")
    axes.plot(times, [m.details.get("infer_ms", np.nan) for m in decisions], color=GREEN, lw=1, label="network")
    axes.plot(times, [m.age_ms for m in decisions], color=ORANGE, lw=1, label="observation's age")
    axes.set(xlabel="time (s)", ylabel="ms", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=7, ncols=3)
