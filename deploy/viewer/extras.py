"""What a log does not hold itself but can be worked out from it: rewards, imagined rollouts, dreams beside what came.

Shape letters: N observations, R ticks with rollouts, K candidates, L steps of a plan, M dreams, H steps of a dream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]


class Rollouts(NamedTuple):
    """What the planner imagined."""

    t_s: Floats  # (R,)
    paths_odom_m: Singles  # (R, K, L + 1, 2)
    score: Singles  # (R, K) imagined return; NaN where a candidate was refused
    doubt: Singles  # (R,) disagreement of the priors along the best one


class Forecasts(NamedTuple):
    """Dreams under the actions that were taken, against what was then sensed. NaN beyond the log's end."""

    t_s: Floats  # (M,)
    lidar_m: Singles  # (M, H) median absolute error over the beams that hit something
    held_m: Singles  # (M, H) the same of a forecast that nothing changes
    pose_m: Singles  # (M, H) distance between imagined and real place
    reward: Singles  # (M, H) absolute error against the estimated reward
    collision: Singles  # (M, H) chance of one within so many steps
    imagined_return: Singles  # (M,)
    path_odom_m: Singles  # (M, H + 1, 2) where the dream went


@dataclass(frozen=True, slots=True)
class Extras:
    """What could be worked out; the rest is None, with a word why in `absent` by the name of the channel."""

    reward: Floats | None = None  # (N,)
    real_return: Floats | None = None  # (N,) discounted rewards from there on
    rollouts: Rollouts | None = None
    forecasts: Forecasts | None = None
    absent: dict[str, str] = field(default_factory=dict)


def discounted(reward: NDArray[Any], discount: float) -> Floats:
    """(T,) sums over j >= 1 of discount^(j - 1) r_{t + j}: what is still to come after each tick; 0 at the last."""
    out = np.zeros(len(reward))
    for t in range(len(reward) - 2, -1, -1):
        out[t] = reward[t + 1] + discount * out[t + 1]
    return out
