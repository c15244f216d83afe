"""Dreams against reality for ``robonav replay --dreams``: the one part of the command that needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robonav.types import Observation

if TYPE_CHECKING:
    from deploy.viewer.build import Forecaster, Viewed
    from deploy.viewer.episode import Episode, Floats
    from deploy.viewer.extras import Forecasts

HORIZON = 15
SHOWN = (1, 5, 10, 15)
MAX_STARTS = 600  # of a log, evenly over it


def forecaster_of(run: Path) -> Forecaster:
    """Dreams along a log with the world model of a run folder or a checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    from robonav.evaluation.worldmodel.logged import dreams_of, recorded_of
    from robonav.learning.checkpoint import load_agent

    checkpoint = load_agent(run)

    def forecast(episode: Episode, observations: Sequence[Observation], reward: Floats) -> Forecasts:
        from deploy.viewer.extras import Forecasts

        spec = episode.robot
        rewards = reward if len(reward) else np.zeros(len(observations))
        recorded = recorded_of(observations, spec, rewards, episode.outcome == "collision", checkpoint.situation)
        every = -(-len(observations) // MAX_STARTS)
        found = dreams_of(checkpoint.agent, recorded, spec, HORIZON, every)
        return Forecasts(episode.sensed.t_s[found.tick], *found[1:])

    return forecast


def dreams_text(viewed: Viewed) -> str:
    """Errors by horizon as a table."""
    from deploy.viewer.words import table

    found, dt_s = viewed.extras.forecasts, viewed.episode.robot.dt_s
    assert found is not None
    horizon = found.lidar_m.shape[1]
    steps = [k for k in SHOWN if k <= horizon]
    rows = [("dream", *(f"{k * dt_s:.1f} s" for k in steps))]
    columns = (("lidar (m)", found.lidar_m), ("lidar held (m)", found.held_m), ("pose (m)", found.pose_m))
    for name, values in (*columns, ("reward", found.reward), ("collision", found.collision)):
        rows.append((name, *(_median(values[:, k - 1]) for k in steps)))
    return "\n".join(["", *table(rows), f"(medians of {len(found.t_s)} dreams; collision is its foreseen chance)"])


def _median(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{float(np.median(known)):.3f}" if len(known) else "-"
