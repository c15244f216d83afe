"""Figures that a command prints, keeps as JSON (``--json``), and goes on from when it is called again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robonav.cli.args import UsageError
from robonav.errors import explain
from robonav.files import write_json_atomic


def earlier(file: Path | None) -> dict[str, Any] | None:
    """What an earlier call left in this file; None without one.

    Raises:
        UsageError: it cannot be read, or holds no JSON object.
    """
    if file is None or not file.exists():
        return None
    try:
        figures = json.loads(file.read_text())
    except (OSError, ValueError):
        figures = None
    if not isinstance(figures, dict):
        raise UsageError(explain("--json", "figures of an earlier call, or no file yet", f"{file}", "remove it"))
    return figures


def finish(figures: dict[str, Any], file: Path | None) -> int:
    """Prints figures, keeps them if asked to, and returns the exit status."""
    print(json.dumps(figures, indent=2))
    if file is not None:
        write_json_atomic(file, figures)
    return 0
