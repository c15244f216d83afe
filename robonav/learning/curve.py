"""The picture of a training run: success, return and losses over environment steps, from its ``progress.csv``."""

from __future__ import annotations

import csv
from pathlib import Path

from robonav.errors import RobonavError, explain
from robonav.files import atomic_path


def read_progress(path: Path) -> dict[str, list[float]]:
    """Columns of ``progress.csv`` by name.

    Raises:
        RobonavError: missing, or no such table.
    """
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}
    except (OSError, ValueError, TypeError) as error:
        raise RobonavError(explain(str(path), "the progress.csv of a run", error, "check the path")) from None


def draw_curve(run: Path, out: Path) -> None:
    """Draws the run's curves to an image file.

    Raises:
        RobonavError: the run has no progress yet, or `out` cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    progress = read_progress(run / "progress.csv")
    if not progress:
        raise RobonavError(f"{run}: no progress to draw yet; train for longer")
    steps = [n / 1000 for n in progress["env_steps"]]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for name, label in (("success_greedy", "mean action"), ("success_sampled", "exploring")):
        axes[0].plot(steps, progress[name], label=label)
    axes[0].set(ylim=(0, 1), title="success of the last 100 episodes")
    axes[1].plot(steps, progress["return"], label="imagined return")
    axes[1].plot(steps, progress["entropy"], label="entropy of the actor (nats)")
    axes[1].set(title="actor and critic")
    for name in ("model", "scan", "goal", "reward"):
        axes[2].semilogy(steps, progress[name], label=name)
    axes[2].set(title="losses of the world model")
    minutes = progress["minutes"][-1]
    for axis in axes:
        axis.set_xlabel(f"environment steps (thousands); {minutes:.1f} minutes in all")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    with atomic_path(out) as aside:
        figure.savefig(aside, dpi=110)
    plt.close(figure)
