"""One self-contained HTML page: the sources under ``static/`` with the packed logs in them. It asks no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from importlib import resources

SCRIPTS = ("data.js", "draw.js", "player.js", "map.js", "charts.js", "panels.js", "main.js")


def page(title: str, blocks: Sequence[bytes], live: str = "") -> str:
    """The page of logs that `deploy.viewer.content.block_of` packed.

    Args:
        title: of the page, any text.
        blocks: one log or two.
        live: path from which the page asks for the log again and again; "" for a page that is whole.
    """
    scripts = "\n".join(_source(name) for name in SCRIPTS)
    packed = [base64.b64encode(block).decode() for block in blocks]
    # The data come last, so that the page is painted before they are read.
    values = {
        "style": _source("style.css"),
        "script": scripts,
        "connect": "'self'" if live else "'none'",
        "live": html.escape(live),
        "title": html.escape(title),
        "waiting": "Waiting for the robot's first observation." if live else "Unpacking the log.",
        "data": "\n".join(f'<script type="application/gzip">{text}</script>' for text in packed),
    }
    parts = _source("page.html").split("{{")
    out = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition("}}")
        out += [values[name], rest]
    return "".join(out)


def _source(name: str) -> str:
    return (resources.files("deploy.viewer") / "static" / name).read_text(encoding="utf-8")
