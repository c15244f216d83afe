"""Replaces processes that were lost, one state machine a role: ended for good, waited for, started, ready.

Lost is what ended, or was silent for the heartbeat's time. A frozen process is killed before another takes its place,
and its session is fenced off at once, so that nothing it still sends is driven.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from deploy.children import Children
from deploy.config import SupervisorConfig
from deploy.restarts import HOLDING, RESTARTED, backoff_ns, limit_words, part_path
from deploy.timing import now_ns
from deploy.watch import Watch

RECORDER = "recorder"
Loss = tuple[str, str]  # role and how it was lost


@dataclass
class _Replacement:
    """One that is under way."""

    session: int
    detail: str  # how its predecessor was lost
    due_ns: int  # when it may be started
    kill_ns: int  # when its predecessor is killed, should it still live
    started_ns: int | None = None


class Recovery:
    """Looks after the processes of a run that drives.

    Args:
        children: the processes.
        watch: what was heard of them.
        config: times and limits.
        log: of the run; a restarted recorder writes another part of it.
        event: a line for the log.
    """

    def __init__(
        self,
        children: Children,
        watch: Watch,
        config: SupervisorConfig,
        log: str,
        event: Callable[[str, str], None],
    ) -> None:
        self.losses: list[str] = []
        self.log_errors: list[str] = []
        self._children = children
        self._watch = watch
        self._config = config
        self._log = log
        self._event = event
        self._under_way: dict[str, _Replacement] = {}
        self._starts_ns: dict[str, list[int]] = defaultdict(list)
        self._given_up: set[str] = set()
        self._held_ns: int | None = None

    @property
    def holding(self) -> bool:
        """Whether a process without which the robot must stand is being replaced."""
        return any(role in HOLDING for role in self._under_way)

    def look(self) -> Loss | None:
        """Takes each role a step further; the loss that ends the run, if there is one."""
        for role in ("driver", *RESTARTED):
            if role in self._given_up:
                continue
            if role in self._under_way:
                ended = self._go_on(role, self._under_way[role])
            else:
                ended = self._lose(role, detail) if (detail := self._lost(role)) else None
            if ended is not None:
                return ended
        if self.holding:
            self._held_ns = None
        if self._held_ns is not None:
            waited_s = (now_ns() - self._held_ns) * 1e-9
            if waited_s > self._config.stop_timeout_s:
                return "standstill", f"the robot does not stand {waited_s:.1f} s after it was told to"
        return None

    def may_go_on(self) -> bool:
        """Whether all are in place and the driver says that it held the robot, and that it stands."""
        status = self._watch.status
        if self._held_ns is None:
            self._held_ns = now_ns()
        if self.holding or status is None or not (status.held and status.standing):
            return False
        self._held_ns = None
        self._event("resumed", "the robot stands, all processes are ready")
        return True

    def _lost(self, role: str) -> str:
        """Why a process counts as lost; "" for one that lives."""
        if self._children.status(role) is not None:
            return str(self._children.last_words(role))
        silent_s = self._watch.silent_s(role)
        return f"{role}: silent for {silent_s:.1f} s" if silent_s > self._config.heartbeat_timeout_s else ""

    def _lose(self, role: str, detail: str) -> Loss | None:
        """Begins a replacement, or gives up."""
        now = now_ns()
        self.losses.append(detail)
        self._event("lost", detail)
        wait_ns = backoff_ns(self._starts_ns[role], now, self._config) if role in RESTARTED else None
        if wait_ns is None:
            if role in RESTARTED and self._starts_ns[role]:
                detail = f"{detail}; {limit_words(self._config)}"
            if role != RECORDER:
                return role, detail
            self._given_up.add(role)  # the robot goes on: a log is worth less than a walk to the goal
            return None
        self._starts_ns[role].append(now)
        session = self._watch.restarted(role)
        kill_ns = now
        if role == RECORDER:  # what it holds is worth a moment to write it out
            self.log_errors.append(detail)
            kill_ns = now + int(self._config.stop_timeout_s * 1e9)
            if self._children.status(role) is None:
                self._children.terminate(role)
        self._under_way[role] = _Replacement(session, detail, now + wait_ns, kill_ns)
        return None

    def _go_on(self, role: str, replacement: _Replacement) -> Loss | None:
        now = now_ns()
        if replacement.started_ns is None:
            if self._children.status(role) is None:
                if now >= replacement.kill_ns:
                    self._children.kill(role)
            elif now >= replacement.due_ns:
                log = part_path(self._log, replacement.session) if role == RECORDER else ""
                self._children.start(role, replacement.session, dict(self._watch.sessions), log)
                replacement.started_ns = now
            return None
        if self._children.status(role) is not None:
            return self._again(role, str(self._children.last_words(role)))
        if role in self._watch.ready:
            self._event("restarted", f"{role}: session {replacement.session}, in place of {replacement.detail}")
            del self._under_way[role]
        elif now - replacement.started_ns > self._config.start_timeout_s * 1e9:
            return self._again(role, f"{role}: not ready {self._config.start_timeout_s:g} s after its restart")
        return None

    def _again(self, role: str, detail: str) -> Loss | None:
        del self._under_way[role]
        return self._lose(role, detail)
