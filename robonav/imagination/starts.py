"""Where dreams start: anywhere in the replayed sequences, or shortly before something went wrong in them.

Collisions are a fraction of a percent of the steps and decide everything; dreams from uniform starts hardly meet them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAD_STEPS = (
    5,
    15,
)  # least and most steps before a rare event at which a dream starts: time to avoid it, none to spare


def before_rare(
    reward: NDArray[Any], terminal: NDArray[Any], first: NDArray[Any], event: NDArray[Any] | None
) -> NDArray[np.bool_]:
    """(B, T) whether a rare event follows within LEAD_STEPS in the same episode.

    Rare is what ended an episode with a negative reward (a collision), and every step at which `event` is not 0.
    """
    rare = (terminal > 0) & (reward < 0)
    if event is not None:
        rare |= event > 0
    episode = np.cumsum(first > 0, axis=1)
    found = np.zeros(rare.shape, bool)
    for lead in range(LEAD_STEPS[0], min(LEAD_STEPS[1], rare.shape[1] - 1) + 1):
        found[:, :-lead] |= rare[:, lead:] & (episode[:, lead:] == episode[:, :-lead])
    return found


def dream_starts(
    rng: np.random.Generator,
    reward: NDArray[Any],
    terminal: NDArray[Any],
    first: NDArray[Any],
    event: NDArray[Any] | None,
    count: int,
    rare_share: float,
) -> NDArray[np.int64]:
    """Steps (B, K) of each sequence at which dreams start.

    With probability `rare_share` each is drawn from the steps shortly before a rare event (`before_rare`) where a
    sequence has such steps, and from all its steps otherwise.

    Args:
        reward: (B, T) that came with an observation; terminal, first: (B, T) 1 where an episode ended, or starts.
        event: (B, T) not 0 where something rare happened besides, such as a near miss; of a replay's event bits those
            that count as such.
        count: K.
    """
    batch, length = first.shape
    starts = rng.integers(length, size=(batch, count))
    if rare_share <= 0:
        return starts
    near = before_rare(reward, terminal, first, event)
    wanted = rng.random((batch, count)) < rare_share
    for row in np.flatnonzero(near.any(axis=1)):
        choice = rng.choice(np.flatnonzero(near[row]), size=count)
        starts[row] = np.where(wanted[row], choice, starts[row])
    return starts
