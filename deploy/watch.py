"""What the supervisor has heard of a run's processes, summed over those that were started in place of others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deploy import wire
from deploy.timing import Histogram, Stages, now_ns


@dataclass
class Watch:
    """Fed with frames of the status stream; its memory does not grow with the run."""

    stages: Stages
    sessions: Counter[str] = field(default_factory=Counter)  # by role; what an earlier one says is not heard
    beats_ns: dict[str, int] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    decision_ms: Histogram = field(default_factory=Histogram)
    lateness_ms: Histogram = field(default_factory=Histogram)
    tick_ms: Histogram = field(default_factory=Histogram)  # working time of the driver's ticks
    seen: int = 0  # ticks from `first_ns` to `last_ns`
    first_ns: int | None = None  # stamp of the robot's first tick
    last_ns: int | None = None
    status: wire.StatusMsg | None = None
    driving: bool = False
    _counts: dict[str, dict[str, int]] = field(default_factory=dict)  # of the sessions that live
    _before: dict[str, Counter[str]] = field(default_factory=dict)  # of those that ended

    def hear(self, frame: bytes) -> Any:
        """Takes a frame in and returns its message."""
        message = wire.decode(frame)
        if isinstance(message, wire.HeartbeatMsg):
            if message.session == self.sessions[message.role]:
                self._beat(message)
        elif isinstance(message, wire.StatusMsg):
            over = self.status is not None and (self.status.arrived or self.status.collided)
            if self.driving and not over:
                self.first_ns = self.first_ns or message.stamp_ns
                self.last_ns = message.stamp_ns
                self.seen += 1
                self.lateness_ms.add(message.lateness_ms)
            self.status = message
        return message

    def restarted(self, role: str) -> int:
        """Another process takes a role over: its session, whose word alone counts from now on."""
        self._before.setdefault(role, Counter()).update(self._counts.pop(role, {}))
        self.ready.discard(role)
        self.sessions[role] += 1
        return self.sessions[role]

    def counts(self, role: str) -> Counter[str]:
        """Totals of a role over all its sessions."""
        return self._before.get(role, Counter()) + Counter(self._counts.get(role, {}))

    def silent_s(self, role: str) -> float:
        """Since the last heartbeat."""
        return (now_ns() - self.beats_ns[role]) * 1e-9

    def _beat(self, message: wire.HeartbeatMsg) -> None:
        role = message.role
        decided = message.counts.get("ticks", 0) > self._counts.get(role, {}).get("ticks", 0)
        if role == "navigator" and decided:
            self.decision_ms.add(message.last_ms)
        elif role == "driver" and decided:
            self.tick_ms.add(message.last_ms)
        if self.driving:
            for stage in message.stages:
                self.stages.add(*stage)
        self.beats_ns[role] = now_ns()
        self._counts[role] = message.counts
        self.ready.add(role)
