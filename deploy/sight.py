"""An observation as the governor takes it: what was hit, how the base moves and leans, what each sensor showed."""

from __future__ import annotations

import numpy as np

from deploy.config import GovernorConfig
from deploy.governor import Seen, observed
from deploy.points import points_of
from deploy.sensors import pictures_of, unbelievable
from robonav.types import Observation, RobotSpec


def seen_in(
    observation: Observation, robot: RobotSpec, config: GovernorConfig, received_ns: int
) -> tuple[Seen | None, str]:
    """What an observation that came at `received_ns` shows; or None, and why ("" where nothing looked)."""
    why = unbelievable(observation, robot)
    points = points_of(observation, robot, config)
    if why or not points:
        return None, why
    o, hits = observation, np.concatenate(list(points.values()))
    return observed(hits, o.twist_base, o.tilt_rad, received_ns, o.stamp_ns, pictures_of(points, robot)), ""
