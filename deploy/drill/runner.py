"""Tries faults on real processes, and says what each came to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy import wire
from deploy.config import DeployConfig
from deploy.drill.faults import Fault, Window, endings, processes
from deploy.drill.link_faults import hands, links
from deploy.drill.session import Session, quiet_files
from deploy.drill.shared import zero_after_ms, zero_time_ms
from deploy.log_reader import Log, read_log
from robonav.errors import LinkError, RobonavError, nearest

SETTLED_NS = 100_000_000  # before a fault the robot must have driven
END_S = 15.0
LATE = "nothing late"


@dataclass(frozen=True, slots=True)
class Result:
    """What a fault came to. Times in milliseconds: until zero, of standing, or of doing what was refused."""

    fault: str
    about: str
    requires: str
    measured_ms: float | None  # None where it could not be measured
    bound_ms: float
    passed: bool
    said: str = ""  # why it failed, or was left out
    skipped: bool = False


def all_faults() -> tuple[Fault, ...]:
    """The list that the tests and the doctor use, in an order in which one run serves many."""
    return (*processes(), *links(), *endings(), *hands())


def choose(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of these names; all for none.

    Raises:
        LinkError: no fault has such a name.
    """
    known = {fault.name: fault for fault in all_faults()}
    for name in names:
        if name not in known:
            raise LinkError(f"unknown fault '{name}'; {nearest(name, sorted(known))}")
    return tuple(fault for name, fault in known.items() if not names or name in names)


def drill(
    faults: Sequence[Fault],
    bundle: str | Path | None,
    robot: str,
    config: DeployConfig,
    tell: Callable[[str], None] = lambda name: None,
) -> Iterator[Result]:
    """Tries the faults one after the other; a run that one of them ends is followed by a new one.

    Args:
        faults: of `choose`.
        bundle: that drives.
        robot: preset that fits it.
        config: of the run.
        tell: is told the name of what is tried now.

    Yields:
        A result a fault, and one of each run about commands that came late, in no certain order.
    """
    waiting = [fault for fault in faults if not fault.needs()]
    yield from (_skipped(fault, fault.needs()) for fault in faults if fault.needs())
    with quiet_files():
        while waiting:
            hand, group = next(itertools.groupby(waiting, lambda fault: fault.hand))
            together = list(group)
            with Session(bundle, robot, config, hand) as session:
                tried = list(_try(session, together, tell))
                waiting = waiting[len(tried) :]
                session.end()
                yield from _judge(session, tried)


@dataclass
class _Trial:
    fault: Fault
    window: Window | None
    result: Result


def _try(session: Session, faults: Sequence[Fault], tell: Callable[[str], None]) -> Iterator[_Trial]:
    """Faults in turn until one ends the run."""
    for fault in faults:
        tell(fault.name)
        try:
            window = fault.attack(session)
            trial = _Trial(fault, window, measure(session, fault, window))
        except (RobonavError, KeyError, OSError) as error:
            said = f"no process of the {error.args[0]}" if isinstance(error, KeyError) else str(error)
            trial = _Trial(fault, None, _result(session, fault, None, f"could not be tried: {said}"))
        yield trial
        if fault.after == "ends" or not session.wait_driving():
            if fault.after == "drives on":
                trial.result = _fail(trial.result, "the robot did not drive on after it")
            return


def bound_ms(fault: Fault, session: Session) -> float:
    """Of the time from the fault to zero: the life of what falls silent, and a tick of the robot.

    What drives on may stand for a tick; what is refused may not move the robot at all.
    """
    config, tick_ms = session.config, session.spec.dt_s * 1e3
    command_ms = config.governor.command_life_s * 1e3
    if fault.requires != "stops":
        return tick_ms if fault.requires == "drives on" else 0.0
    lives = {
        "command": command_ms,
        "observation": config.governor.observation_life_s * 1e3,
        "revoke": config.operator.revoke_s * 1e3 + command_ms,
        "estop link": config.operator.estop_link_s * 1e3,
    }
    return lives[fault.life] + tick_ms


def measure(session: Session, fault: Fault, window: Window) -> Result:
    """What the robot was driven by in the window, against what is required."""
    tape = session.tape()
    if not window.began_ns:
        return _result(session, fault, None, "it never began")
    if fault.requires != "refused" and zero_time_ms(tape, window.began_ns - SETTLED_NS, window.began_ns):
        return _result(session, fault, None, "the robot did not drive before it")
    if fault.requires == "stops":
        measured = zero_after_ms(tape, window.began_ns, window.ended_ns)
    elif fault.requires == "drives on":
        measured = zero_time_ms(tape, window.began_ns, window.ended_ns)
    else:
        measured = float("nan") if window.moved_ms is None else window.moved_ms
    return _result(session, fault, measured, window.wrong)


def _result(session: Session, fault: Fault, measured: float | None, wrong: str) -> Result:
    bound = bound_ms(fault, session)
    if measured == float("inf"):
        measured, wrong = None, wrong or "the robot was not stopped"
    passed = not wrong and measured is not None and measured <= bound
    return Result(fault.name, fault.about, fault.requires, measured, bound, passed, wrong)


def _fail(result: Result, said: str) -> Result:
    said = f"{result.said}; {said}" if result.said else said
    return replace(result, passed=False, said=said)


def _skipped(fault: Fault, why: str) -> Result:
    return Result(fault.name, fault.about, fault.requires, None, 0.0, True, why, skipped=True)


def _judge(session: Session, trials: list[_Trial]) -> Iterator[Result]:
    """The results, after a look into the log: were the reasons given, and did nothing come late?"""
    try:
        log = read_log(session.log)
    except RobonavError:
        yield from (trial.result for trial in trials)
        return
    governed = log.of(wire.GovernedMsg)
    for trial in trials:
        fault, window, result = trial.fault, trial.window, trial.result
        if fault.reason and window is not None and not _gave(governed, fault.reason, window):
            result = _fail(result, f"the log does not say '{fault.reason}'")
        yield result
    worst = oldest_ms(log)
    config = session.config.governor
    bound = config.command_life_s * 1e3 + session.spec.dt_s * 1e3
    about = f"age of the navigator's oldest command that moved the robot, over {len(trials)} faults"
    yield Result(LATE, about, LATE, worst, bound, worst <= bound)


def _gave(governed: list[Any], reason: str, window: Window) -> bool:
    return any(
        reason in message.reasons for message in governed if window.began_ns <= message.stamp_ns <= window.ended_ns
    )


def oldest_ms(log: Log) -> float:
    """The largest age, in ms, that a decision of the navigator had when the driver moved the robot by it."""
    decided = {m.sequence: m.stamp_ns for m in log.of(wire.DecisionMsg)}
    asked = {m.sequence: m.asked for m in log.of(wire.GovernedMsg) if m.holder == "navigator" and m.asked}
    worst = 0.0
    for applied in log.of(wire.AppliedMsg):
        stamp_ns = decided.get(asked.get(applied.governed, -1))
        if stamp_ns is not None and wire.velocity_of(applied).any():
            worst = max(worst, (applied.stamp_ns - stamp_ns) * 1e-6)
    return worst
