"""How the decisions of a replay differ from those of the log: the first difference, the largest, and their effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy import wire
from robonav.types import Decision

NUMBERS = ("vx_mps", "vy_mps", "yaw_rate_radps", "value")


@dataclass(frozen=True, slots=True)
class Difference:
    """A tick whose decision is not the logged one."""

    tick: int
    observation: int
    field: str
    logged: str
    replayed: str
    at_s: float = 0.0
    size: float | None = None  # in the field's unit, metres for a route; None where it has no size


@dataclass
class OfField:
    """The differences of one field."""

    ticks: int = 0
    first: Difference | None = None
    largest: Difference | None = None

    def add(self, difference: Difference) -> None:
        """One more."""
        self.ticks += 1
        self.first = self.first or difference
        if self.largest is None or (difference.size or 0.0) > (self.largest.size or 0.0):
            self.largest = difference


@dataclass
class Differences:
    """All differences, and what they changed of the commands."""

    tolerance: float = 0.0
    period_s: float = 0.1
    ticks: int = 0  # that were compared
    first: Difference | None = None
    fields: dict[str, OfField] = field(default_factory=dict)
    differing: int = 0  # ticks with any difference
    logged_m: float = 0.0  # distance that the logged commands ask for
    replayed_m: float = 0.0
    apart_mps: float = 0.0  # mean difference of the commands' velocities
    turned_radps: float = 0.0  # mean difference of the yaw rates

    def compare(self, at_s: float, logged: wire.DecisionMsg, decision: Decision) -> None:
        """Takes in one tick."""
        found = differences(at_s, logged, decision, self.tolerance)
        was, now = wire.velocity_of(logged), decision.command.velocity
        self.logged_m += float(np.hypot(*was[:2])) * self.period_s
        self.replayed_m += float(np.hypot(*now[:2])) * self.period_s
        self.apart_mps += (float(np.hypot(*(now - was)[:2])) - self.apart_mps) / (self.ticks + 1)
        self.turned_radps += (abs(float(now[2] - was[2])) - self.turned_radps) / (self.ticks + 1)
        self.ticks += 1
        self.differing += bool(found)
        for difference in found:
            self.first = self.first or difference
            self.fields.setdefault(difference.field, OfField()).add(difference)


def differences(at_s: float, logged: wire.DecisionMsg, decision: Decision, tolerance: float = 0.0) -> list[Difference]:
    """Fields of one tick that differ by more than the tolerance; with 0, in any bit."""
    command, route = decision.command, decision.route_odom_m
    now: dict[str, Any] = {
        "vx_mps": command.vx_mps,
        "vy_mps": command.vy_mps,
        "yaw_rate_radps": command.yaw_rate_radps,
        "value": decision.value,
        "why": decision.why,
        "route_odom_m": None if route is None else wire.pack_array(route),
    }
    found = []
    for name, is_ in now.items():
        was = getattr(logged, name)
        if was == is_:
            continue
        size = _size(name, was, is_)
        if size is not None and size <= tolerance:
            continue
        found.append(Difference(logged.sequence, logged.observation, name, _shown(was), _shown(is_), at_s, size))
    return found


def _size(name: str, was: Any, now: Any) -> float | None:
    if name in NUMBERS:
        return abs(float(now) - float(was))
    if name == "route_odom_m" and was is not None and now is not None:
        return _apart_m(wire.unpack_array(was, "route"), wire.unpack_array(now, "route"))
    return None


def _apart_m(a: Any, b: Any) -> float | None:
    """The largest distance from a point of either route (n, 2) to the other's nearest point."""
    if not len(a) or not len(b):
        return None
    between = np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])
    return float(max(between.min(axis=0).max(), between.min(axis=1).max()))


def _shown(value: Any) -> str:
    if isinstance(value, wire.Array):
        points = wire.unpack_array(value, "route")
        return f"{len(points)} points, sum {float(np.sum(points, dtype=np.float64)):.9g}"
    return repr(value)
