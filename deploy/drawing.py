"""Figures without a display: the one place that knows whether matplotlib is there."""

from __future__ import annotations

from typing import Any

from robonav.errors import MissingDependencyError, explain


def new_figure(width_in: float, height_in: float) -> Any:
    """An empty matplotlib figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        do = "pip install 'robonav[viz]'"
        raise MissingDependencyError(explain("the picture", "matplotlib installed", "no such package", do)) from None
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
