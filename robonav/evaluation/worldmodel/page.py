"""The page of ``robonav bench worldmodel``: curves by horizon, tables, and predicted beside real, in one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from robonav.evaluation.worldmodel.tables import Table, tables_of

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 82rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8885; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
"""
_CURVES = {
    "lidar_m": "lidar, all beams, m",
    "lidar_near_m": "lidar at 0.25 to 0.6 m, m",
    "map_nats": "map, nats a cell",
    "goal_m": "goal, m",
    "waypoints_m": "waypoints, m",
    "velocity_mps": "velocity, m/s",
    "reward": "reward",
}
_COLOURS = ("#0969da", "#c1121f", "#1a7f37", "#8250df", "#b26a00")
_TRIVIAL = {"held": ("#57606a", "--"), "held_moved": ("#57606a", ":"), "mean": ("#aab1b8", "-.")}


def page(figures: Mapping[str, Any], pictures: Mapping[str, Sequence[tuple[str, bytes]]]) -> str:
    """HTML of the whole benchmark.

    Args:
        figures: of the command.
        pictures: checkpoint to titles and PNGs.
    """
    title = "robonav bench worldmodel: " + ", ".join(figures["checkpoints"])
    parts = [f"<h1>{html.escape(title)}</h1>", *(_table(table) for table in tables_of(figures))]
    for preset in figures["data"]:
        head = f"<h2>Open-loop error by horizon, randomisation {html.escape(preset)}</h2>"
        parts.append(head + _image(curves(figures, preset), f"open-loop errors by horizon, {preset}"))
    for name, shown in pictures.items():
        parts.append(f"<h2>{html.escape(name)}: real (above, blue) and predicted (below), the worst first</h2>")
        parts += [f"<p>{html.escape(label)}</p>{_image(data, label)}" for label, data in shown]
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
    body = "\n".join(parts)
    return f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n"


def curves(figures: Mapping[str, Any], preset: str) -> bytes:
    """PNG of the errors by horizon of all checkpoints and of the trivial forecasts."""
    from matplotlib.figure import Figure

    dt_s = figures["settings"]["dt_s"]
    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(2, 4, squeeze=False).ravel()
    lines: dict[str, tuple[Mapping[str, Any], str, str]] = {}
    for i, (name, entry) in enumerate(figures["checkpoints"].items()):
        lines[name] = entry["presets"][preset]["open_loop"], _COLOURS[i % len(_COLOURS)], "-"
    for name, (colour, style) in _TRIVIAL.items():
        lines[name] = figures["trivial"][preset][name]["open_loop"], colour, style
    for axis, (key, label) in zip(axes, _CURVES.items(), strict=False):
        for name, (errors, colour, style) in lines.items():
            if key in errors:
                values = [float("nan") if v is None else v for v in errors[key]]
                seconds = [dt_s * (k + 1) for k in range(len(values))]
                axis.plot(seconds, values, style, color=colour, label=name.replace("_", " "), linewidth=1.4)
        axis.set_title(label, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("s ahead", fontsize=7)
        axis.grid(alpha=0.25)
    axes[-1].set_axis_off()
    axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center", fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>"


def _image(data: bytes, label: str) -> str:
    return f'<img alt="{html.escape(label)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
