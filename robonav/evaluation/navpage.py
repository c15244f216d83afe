"""The page of ``robonav bench nav``: tables, and trajectories over their scenes, failures first, in one file."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robonav.evaluation.pictures import draw_page
from robonav.evaluation.runner import Recording
from robonav.types import RobotSpec

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #8885; text-align: right; white-space: nowrap; }
td, th { font-size: 14px; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.bar { display: inline-block; height: .6em; background: #1a7f37; vertical-align: baseline; }
"""
_COLUMNS = (
    *("policy", "n", "success", "95 % interval", "collision", "timeout", "SPL", "time to goal s"),
    *("clearance m", "jerk m/s3", "decision ms p50", "p99"),
)


def page(
    results: Mapping[str, Mapping[str, Any]],
    compared: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[tuple[str, str], bytes],
    title: str,
) -> str:
    """HTML of the whole benchmark.

    Args:
        results: suite to policy to `navbench.summary_of`.
        compared: suite to policy to `navbench.paired` against the suite's first policy.
        pictures: (suite, policy) to a PNG.
        title: of the page.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for suite, policies in results.items():
        parts.append(f"<h2>{html.escape(suite)}</h2>{_table(policies)}{_against(compared.get(suite, {}), policies)}")
        for name in policies:
            picture = pictures.get((suite, name))
            if picture is not None:
                data = base64.b64encode(picture).decode()
                label = html.escape(f"{name} on {suite}: trajectories, failures first")
                parts.append(f'<h3>{html.escape(name)}</h3><img alt="{label}" src="data:image/png;base64,{data}">')
    body = "\n".join(parts)
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
    return f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n"


def picture_of(recordings: Sequence[Recording], spec: RobotSpec, title: str) -> bytes:
    """PNG of trajectories over their scenes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.png"
        draw_page(recordings, spec, title, path)
        return path.read_bytes()


def _table(policies: Mapping[str, Any]) -> str:
    rows = []
    for name, f in policies.items():
        rate, low, high = f["success"]
        cells = [
            html.escape(name),
            f["n"],
            f'<span class=bar style="width:{60 * rate:.0f}px"></span> {rate:.3f}',
            f"{low:.3f} to {high:.3f}",
            f"{f['collision'][0]:.3f}",
            f"{f['timeout'][0]:.3f}",
            f"{f['spl'][0]:.3f}",
            _shown(f["time_s"] and f["time_s"][0], 1),
            _shown(f["clearance_min_m"], 2),
            _shown(f["jerk_mps3"], 1),
            _shown(f["decision_ms_p50"], 2),
            _shown(f["decision_ms_p99"], 2),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _against(compared: Mapping[str, Any], policies: Mapping[str, Any]) -> str:
    """The first policy against each other one, as sentences."""
    if not compared:
        return ""
    first = html.escape(next(iter(policies)))
    lines = []
    for name, c in compared.items():
        difference, low, high = (100 * v for v in c["difference"])
        time = "" if c["time_ratio"] is None else f"; times {c['time_ratio']:.2f} to 1 where both arrive"
        lines.append(
            f"<li>{first} against {html.escape(name)}: {difference:+.1f} points [{low:+.1f}, {high:+.1f}], "
            f"{c['wins']} won, {c['losses']} lost, p = {c['p']:.3g}{time}</li>"
        )
    return f"<ul>{''.join(lines)}</ul>"


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
