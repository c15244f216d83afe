"""Events of replayed steps, and an index that finds the steps that hold one without a look at the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAR_MISS, COLLISION, BLOCKED_ROUTE, SUCCESS = 1, 2, 4, 8  # bits of a step's `event`
EVENTS = (NEAR_MISS, COLLISION, BLOCKED_ROUTE, SUCCESS)

Ints = NDArray[np.int64]


class EventIndex(NamedTuple):
    """For every kind in EVENTS the sorted keys ``step * streams + stream`` of the steps that hold it."""

    streams: int
    keys: tuple[Ints, ...]

    @classmethod
    def empty(cls, streams: int) -> EventIndex:
        """No events."""
        return cls(streams, tuple(np.zeros(0, np.int64) for _ in EVENTS))

    def add(self, event: NDArray[np.uint8], first_step: int) -> EventIndex:
        """With the (streams, n) bits of the steps from `first_step` on, which must be newer than all others."""
        new = []
        for bit in EVENTS:
            step, stream = np.nonzero((event & bit).T)  # in the order of the keys
            new.append((first_step + step) * self.streams + stream)
        return self._replace(keys=tuple(np.concatenate(both) for both in zip(self.keys, new, strict=True)))

    def since(self, oldest: int) -> EventIndex:
        """Without the steps before `oldest`."""
        kept = (key[np.searchsorted(key, oldest * self.streams) :] for key in self.keys)
        return self._replace(keys=tuple(kept))

    def draw(self, kind: NDArray[Any], place: NDArray[Any], weights: tuple[float, ...]) -> tuple[Ints, Ints] | None:
        """Stream and step, (n,) each, of an event for each pair of uniform numbers in [0, 1); None where there is none.

        `kind` chooses among the kinds that are there, by their `weights`; `place` chooses a step that holds it.
        """
        share = np.array([w * (len(key) > 0) for w, key in zip(weights, self.keys, strict=True)])
        if not share.any():
            return None
        chosen = np.searchsorted(np.cumsum(share), kind * share.sum(), side="right")
        chosen = np.minimum(chosen, np.flatnonzero(share)[-1])  # a sum that was rounded down
        drawn = [self.keys[c][int(p * len(self.keys[c]))] for c, p in zip(chosen, place, strict=True)]
        step, stream = np.divmod(np.array(drawn, np.int64), self.streams)
        return stream, step
