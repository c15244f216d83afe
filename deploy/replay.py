"""Infers a log's decisions again from its observations and compares them, bit for bit or within a tolerance.

With another bundle, another planner or other limits of the governor it is a what-if: what was sensed stays as it was
logged, so that each tick answers what would have been decided there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy import wire
from deploy.bundle import find_bundle
from deploy.config import GovernorConfig
from deploy.differences import Difference, Differences
from deploy.log_reader import Log, read_log
from deploy.log_run import outcome_of, robot_of, start_ns_of
from deploy.regovern import Regoverned, regovern
from policies.bundle import Bundle, is_bundle, load_bundle
from policies.bundle_policy import BundlePolicy, BundleState, Planner
from robonav.errors import LogError, explain
from robonav.types import Decision

OnTick = Callable[[wire.ObservationMsg, BundleState, Decision], None]
LOGGED_PLANNER: Planner = "actor"  # of logs that name none


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What is replayed, and what is to be different."""

    bundle: str | Path | None = None
    """Folder, or the name of one that is shipped; the one that the log names if None."""
    planner: Planner | None = None
    """As logged if None."""
    governor: GovernorConfig | None = None
    """Limits under which the commands are governed again; not at all if None."""
    from_s: float = 0.0
    """Ticks before it are inferred, for their memory, but not compared."""
    to_s: float = float("inf")
    """Ticks after it are left out."""
    tolerance: float = 0.0
    """Numbers that differ by no more count as the same."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            LogError: a span without a length, or a tolerance below 0.
        """
        if not 0 <= self.from_s < self.to_s:
            raise LogError(explain("replay: from, to", "0 <= from < to", (self.from_s, self.to_s)))
        if not self.tolerance >= 0:
            raise LogError(explain("replay: tolerance", "0 or more", self.tolerance))


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What the replay found. `identical`: there are decisions, each was inferred again, and none differs."""

    log: str
    bundle: str
    planner: str
    bundle_matches: bool  # by its SHA-256
    ticks: int
    replayed: int
    difference: Difference | None  # the first
    differences: Differences
    damage: str  # of the log, "" for a whole one
    warnings: tuple[str, ...]
    outcome: str  # of the run, as logged
    governed: Regoverned | None = None

    @property
    def identical(self) -> bool:
        """Whether the log was reproduced whole."""
        return self.difference is None and self.replayed == self.ticks > 0

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return {**asdict(self), "identical": self.identical}


@dataclass(frozen=True, slots=True)
class Replay:
    """A report with what it was made from, for the picture."""

    report: ReplayReport
    log: Log
    final: BundleState | None  # the policy's state after the last tick that was replayed


def replay(
    path: str | Path | Log,
    bundle: str | Path | None = None,
    options: ReplayOptions | None = None,
    on_tick: OnTick | None = None,
    watch: Callable[[Bundle], Bundle] | None = None,
) -> Replay:
    """Re-infers every decision of a log.

    Args:
        path: the log, or one that was read already.
        bundle: stands for `options.bundle`.
        options: what is to be different.
        on_tick: told each observation, the policy's state after it, and the decision.
        watch: given the bundle, gives the one that decides; for those who want to see what it dreams.

    Raises:
        LogError: no log of ours, or its bundle is not where it was.
        BundleError: the bundle is damaged, does not fit the robot, or cannot plan as it is told to.
    """
    options = options or ReplayOptions()
    log = path if isinstance(path, Log) else read_log(path)
    run = log.run
    wanted = bundle if bundle is not None else options.bundle
    folder = find_bundle(wanted) if wanted is not None else Path(run.get("bundle", ""))
    named = wanted is not None or bool(run.get("bundle"))
    if not named or not is_bundle(folder):
        got = f"'{folder}'" if named else "none in the log"
        raise LogError(explain(f"{log.path}: its bundle", "a bundle folder", got, "name it with --bundle"))
    loaded = load_bundle(folder)
    planner = options.planner or _logged_planner(run)
    policy = BundlePolicy(loaded if watch is None else watch(loaded), robot_of(log), planner)
    matches = loaded.sha256 == run.get("bundle_sha256")
    walk = _Walk(policy, log, options, on_tick)
    if not matches:
        walk.warnings.append(f"the log was made with another bundle ({run.get('bundle_name')}) than {folder}")
    walk.to_the_end()
    governed = None
    if options.governor is not None:
        governed = regovern(log, options.governor, walk.commands)
    report = ReplayReport(
        log=str(log.path),
        bundle=str(folder),
        planner=planner,
        bundle_matches=matches,
        ticks=walk.ticks,
        replayed=walk.differences.ticks,
        difference=walk.differences.first,
        differences=walk.differences,
        damage=log.damage,
        warnings=tuple(walk.warnings),
        outcome=outcome_of(log),
        governed=governed,
    )
    return Replay(report, log, walk.state)


def _logged_planner(run: dict[str, str]) -> Planner:
    name = run.get("planner", LOGGED_PLANNER)
    return name if name in ("actor", "mppi", "geometry") else LOGGED_PLANNER  # type: ignore[return-value]


@dataclass
class _Walk:
    """Through the decisions of a log."""

    policy: BundlePolicy
    log: Log
    options: ReplayOptions
    on_tick: OnTick | None
    state: BundleState | None = None
    ticks: int = 0  # that were to be compared
    differences: Differences = field(default_factory=Differences)
    warnings: list[str] = field(default_factory=list)
    commands: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)  # (3,) by tick, as inferred again

    def to_the_end(self) -> None:
        """Compares every decision of the span, or those before the first gap."""
        observations = {m.sequence: m for m in self.log.of(wire.ObservationMsg)}
        start_ns = start_ns_of(self.log)
        span = self.options
        decisions = [
            (m, (m.stamp_ns - start_ns) * 1e-9)
            for m in self.log.of(wire.DecisionMsg)
            if (m.stamp_ns - start_ns) * 1e-9 <= span.to_s
        ]
        self.ticks = sum(at_s >= span.from_s for _, at_s in decisions)
        self.differences = Differences(tolerance=span.tolerance, period_s=self.policy.spec.dt_s)
        expected = decisions[0][0].sequence if decisions else 0
        for logged, at_s in decisions:
            message = observations.get(logged.observation)
            if logged.reset:
                self.state, expected = self.policy.reset(logged.seed), logged.sequence
            if self.state is None or message is None or logged.sequence != expected:
                # The policy's memory at this tick is unknown, so nothing after it can be compared.
                gap = f"the log has a gap before tick {logged.sequence}: what follows cannot be replayed"
                self.warnings.append(gap)
                return
            expected += 1
            self.state, decision = self.policy.act(self.state, wire.unpack_observation(message))
            if self.on_tick is not None:
                self.on_tick(message, self.state, decision)
            self.commands[logged.sequence] = decision.command.velocity
            if at_s >= span.from_s:
                self.differences.compare(at_s, logged, decision)
