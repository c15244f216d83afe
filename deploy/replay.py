"""Infers a log's decisions again from its observations and compares them bit for bit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy import wire
from deploy.bundle import find_bundle
from deploy.log_reader import Log, read_log
from deploy.recorder import REPORT_METADATA
from policies.bundle import is_bundle
from policies.bundle_policy import BundlePolicy, BundleState, load
from robonav.errors import LogError, explain
from robonav.types import Decision


@dataclass(frozen=True, slots=True)
class Difference:
    """The first tick whose decision is not the logged one."""

    tick: int
    observation: int
    field: str
    logged: str
    replayed: str


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What the replay found. `identical`: there are decisions, each was inferred again, and none differs."""

    log: str
    bundle: str
    bundle_matches: bool  # by its SHA-256
    ticks: int
    replayed: int
    difference: Difference | None
    damage: str  # of the log, "" for a whole one
    warnings: tuple[str, ...]
    outcome: str  # of the run, as logged

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


def replay(path: str | Path, bundle: str | Path | None = None) -> Replay:
    """Re-infers every decision of a log.

    Args:
        path: the log.
        bundle: folder of the bundle, or the name of one that is shipped; the one that the log names if None.

    Raises:
        LogError: no log of ours, or its bundle is not where it was.
        BundleError: the bundle is damaged.
    """
    log = read_log(path)
    run = log.run
    folder = find_bundle(bundle) if bundle is not None else Path(run.get("bundle", ""))
    if not is_bundle(folder):
        raise LogError(explain(f"{path}: its bundle", "a bundle folder", f"'{folder}'", "name it with --bundle"))
    policy = load(folder)
    matches = policy.bundle.sha256 == run.get("bundle_sha256")
    warnings = []
    if not matches:
        warnings.append(f"the log was made with another bundle ({run.get('bundle_name')}) than {folder}")
    observations = {m.sequence: m for m in log.of(wire.ObservationMsg)}
    decisions = log.of(wire.DecisionMsg)
    replayed, difference, state = _compare(policy, observations, decisions, warnings)
    report = ReplayReport(
        log=str(path),
        bundle=str(folder),
        bundle_matches=matches,
        ticks=len(decisions),
        replayed=replayed,
        difference=difference,
        damage=log.damage,
        warnings=tuple(warnings),
        outcome=outcome_of(log),
    )
    return Replay(report, log, state)


def outcome_of(log: Log) -> str:
    """The run's outcome from the log's report, or what is known without one."""
    text = log.metadata.get(REPORT_METADATA, {}).get("report")
    if text is None:
        return "unknown: the log ends before the report"
    import msgspec

    return str(msgspec.json.decode(text.encode()).get("outcome", "unknown"))


def _compare(
    policy: BundlePolicy,
    observations: dict[int, wire.ObservationMsg],
    decisions: list[wire.DecisionMsg],
    warnings: list[str],
) -> tuple[int, Difference | None, BundleState | None]:
    state: BundleState | None = None
    expected = decisions[0].sequence if decisions else 0
    for count, logged in enumerate(decisions):
        message = observations.get(logged.observation)
        if logged.reset:
            state, expected = policy.reset(logged.seed), logged.sequence
        if state is None or message is None or logged.sequence != expected:
            # The policy's memory at this tick is unknown, so nothing after it can be compared.
            warnings.append(f"the log has a gap before tick {logged.sequence}: what follows cannot be replayed")
            return count, None, state
        expected += 1
        state, decision = policy.act(state, wire.unpack_observation(message))
        difference = _first_difference(logged, decision)
        if difference is not None:
            return count + 1, difference, state
    return len(decisions), None, state


def _first_difference(logged: wire.DecisionMsg, decision: Decision) -> Difference | None:
    command, route = decision.command, decision.route_odom_m
    pairs: list[tuple[str, Any, Any]] = [
        ("vx_mps", logged.vx_mps, command.vx_mps),
        ("vy_mps", logged.vy_mps, command.vy_mps),
        ("yaw_rate_radps", logged.yaw_rate_radps, command.yaw_rate_radps),
        ("value", logged.value, decision.value),
        ("why", logged.why, decision.why),
        ("route_odom_m", logged.route_odom_m, None if route is None else wire.pack_array(route)),
    ]
    for name, was, now in pairs:
        if was != now:
            return Difference(logged.sequence, logged.observation, name, _shown(was), _shown(now))
    return None


def _shown(value: Any) -> str:
    if isinstance(value, wire.Array):
        points = wire.unpack_array(value, "route")
        return f"{len(points)} points, sum {float(np.sum(points, dtype=np.float64)):.9g}"
    return repr(value)
