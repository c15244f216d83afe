"""Starts a run's processes, watches them, restarts those that may be, ends them, and reports.

Whatever ends the run, the robot stands first. Processes: recorder, driver (the robot), governor, navigator. Each says
that it lives; each stops when the supervisor says so, or falls silent. When the governor or the navigator is lost the
word is "hold" until another has taken its place and the robot stands (`deploy.recovery`). The order of ending is:
navigator, governor and driver are told at once, the driver brings the robot to a standstill, then the recorder gets the
report and finishes the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from deploy import transport, wire
from deploy.bundle import find_bundle
from deploy.children import Children
from deploy.config import DeployConfig
from deploy.processes import ROLES
from deploy.recorder import REPORT_EVENT
from deploy.recovery import Recovery
from deploy.report import COLLISION, INTERRUPTED, SUCCESS, TIMEOUT, RunReport, check_log_path, run_metadata, timing
from deploy.resources import Resources
from deploy.restarts import log_parts
from deploy.station import Order, open_topic
from deploy.systemd import Notifier
from deploy.timing import Stages, now_ns
from deploy.topics import SUPERVISOR
from deploy.watch import Watch
from policies.bundle import load_bundle
from policies.contract import check_robot
from robonav.errors import ConfigError, LinkError, explain
from robonav.types import RobotSpec

VITAL = ("driver", "governor", "navigator")
RECORDER_FINISH_NS = 10_000_000_000
POLL_NS = 20_000_000


def run(
    bundle: str | Path,
    driver: str,
    log: str | Path,
    *,
    robot: RobotSpec | None = None,
    driver_kwargs: Mapping[str, Any] | None = None,
    config: DeployConfig | None = None,
    seed: int = 0,
    labels: Mapping[str, str] | None = None,
    on_status: Callable[[wire.StatusMsg], None] | None = None,
) -> RunReport:
    """Drives a robot to its goal with a bundle, and logs it.

    Args:
        bundle: folder, or the name of one that is shipped.
        driver: "module:factory" that makes a `robonav.types.Driver`, imported in the driver's process.
        log: MCAP file to write.
        robot: that is driven; the bundle's own if None. The bundle must fit it.
        driver_kwargs: of the factory; plain values.
        config: times, limits, log.
        seed: of the policy's reset.
        labels: further words for the log's metadata (scene, robot preset, ...).
        on_status: called with the robot's status at each of its ticks while it drives.

    Raises:
        RobonavError: the run could not start: bundle, robot, scene, driver, or log. Once started, a run ends in a
            report.
    """
    loaded = load_bundle(find_bundle(bundle))
    config = config or DeployConfig()
    robot = robot or loaded.contract.robot
    check_robot(loaded.contract, robot)
    if config.operator.start_latched and not config.operator.listen:
        expected = "false, or operator.listen, where somebody can re-arm it"
        raise ConfigError(explain("operator.start_latched", expected, True))
    folder = transport.private_folder()
    try:
        check_log_path(log)
        order = Order(
            folder=str(folder),
            supervisor_pid=os.getpid(),
            episode=1,
            seed=seed,
            robot=robot,
            config=config,
            bundle=str(loaded.folder.resolve()),
            driver=driver,
            log=str(Path(log).resolve()),
            driver_kwargs=dict(driver_kwargs or {}),
            metadata=run_metadata(loaded, robot, driver, config, seed, labels or {}),
        )
        with transport.Link() as link, _signals() as interrupted:
            return _Run(order, link, interrupted, on_status).to_the_end()
    finally:
        transport.remove_folder(folder)


class _Run:
    def __init__(
        self,
        order: Order,
        link: transport.Link,
        interrupted: threading.Event,
        on_status: Callable[[wire.StatusMsg], None] | None,
    ) -> None:
        self.order = order
        self.on_status = on_status
        self.config = order.config.supervisor
        self.interrupted = interrupted
        self.control = open_topic(link, order.folder, "control", SUPERVISOR)
        self.status = open_topic(link, order.folder, "status", SUPERVISOR)
        self.record = open_topic(link, order.folder, "record", SUPERVISOR)
        self.word = "wait"
        self.sequence = 0
        self.recorded = 0
        self.said_ns = 0
        self.watch = Watch(Stages(order.robot.dt_s))
        self.children = Children(order)
        self.recovery = Recovery(self.children, self.watch, self.config, order.log, self.event)
        self.resources = Resources()
        self.notifier = Notifier()
        self.log_error = ""

    def to_the_end(self) -> RunReport:
        """Start, drive, stop, report; no child outlives this call."""
        try:
            self.start()
            outcome, detail = self.drive()
            self.notifier.stopping(outcome)
            self.event("end", f"{outcome}: {detail}" if detail else outcome)
            self.end(VITAL)
            report = self.report(outcome, detail)
            self.finish_log(report)
            return self.report(outcome, detail)
        finally:
            self.end(ROLES)

    def start(self) -> None:
        """Starts all processes and waits until they are ready; raises the error of one that is not."""
        for role in ROLES:
            self.children.start(role)
        deadline = now_ns() + int(self.config.start_timeout_s * 1e9)
        while len(self.watch.ready) < len(ROLES):
            self.listen()
            for role in ROLES:
                if self.children.status(role) is not None:
                    raise self.children.last_words(role)
            if self.interrupted.is_set():
                return
            if now_ns() > deadline:
                late = ", ".join(r for r in ROLES if r not in self.watch.ready)
                raise LinkError(
                    f"not ready after {self.config.start_timeout_s:g} s: {late}; raise supervisor.start_timeout_s"
                )
        self.watch.beats_ns = dict.fromkeys(ROLES, now_ns())

    def drive(self) -> tuple[str, str]:
        """Until arrival, collision, the time limit, a signal, or a loss that ends the run: (outcome, detail)."""
        self.notifier.ready(f"driving {self.order.robot.name}")
        if not self.interrupted.is_set():
            self.say("run")
        limit_ns = now_ns() + int(self.order.config.time_limit_s * 1e9)
        while True:
            self.listen()
            status = self.watch.status
            if self.interrupted.is_set():
                return INTERRUPTED, "by a signal"
            if status is not None and status.collided:
                return COLLISION, ""
            if status is not None and status.arrived:
                return SUCCESS, ""
            if (lost := self.recovery.look()) is not None:
                role, detail = lost
                return f"{role} lost", detail
            self.hold()
            self.resources.look({"supervisor": os.getpid(), **self.children.pids()}, now_ns() * 1e-9)
            if now_ns() > limit_ns:
                return TIMEOUT, f"after {self.order.config.time_limit_s:g} s"

    def hold(self) -> None:
        """Holds the robot while a process of the control loop is being replaced, and until it stands."""
        if self.recovery.holding:
            if self.word != "hold":
                self.say("hold")
                self.notifier.says(f"holding: {self.recovery.losses[-1]}")
        elif self.word == "hold" and self.recovery.may_go_on():
            self.say("run")
            self.notifier.says(f"driving {self.order.robot.name}")

    def listen(self, timeout_ns: int = POLL_NS) -> None:
        """Says the word when it is due, and hears what came within the time."""
        self.notifier.alive(now_ns())
        if now_ns() - self.said_ns > self.config.control_period_s * 1e9:
            self.say(self.word)
        transport.wait([self.status], timeout_ns)
        for frame in transport.received(self.status):
            message = self.watch.hear(frame)
            if self.on_status is not None and self.watch.driving and isinstance(message, wire.StatusMsg):
                self.on_status(message)

    def say(self, word: str) -> None:
        """Tells all processes."""
        self.word, self.said_ns = word, now_ns()
        self.watch.driving = word in ("run", "hold")
        message = wire.ControlMsg(
            sequence=self.sequence,
            stamp_ns=self.said_ns,
            episode=self.order.episode,
            state=word,
            fences=dict(self.watch.sessions),
        )
        self.sequence += 1
        transport.try_send(self.control, wire.encode(message))

    def event(self, kind: str, text: str) -> None:
        """A line for the log."""
        event = wire.EventMsg(
            sequence=self.recorded, stamp_ns=now_ns(), episode=self.order.episode, kind=kind, text=text
        )
        frame = wire.encode(wire.RecordMsg("supervisor", self.recorded, now_ns(), (event,)))
        self.recorded += 1
        transport.try_send(self.record, frame)

    def end(self, roles: tuple[str, ...]) -> None:
        """Ends processes: by word, then by SIGTERM, then by SIGKILL, with a time for each."""
        self.children.end(roles, lambda: self.say("stop"), self.listen, self.config.stop_timeout_s, self.unresponsive)
        self.listen(0)

    def unresponsive(self, role: str) -> None:
        """Notes a process that has to be ended by force."""
        self.event("unresponsive", f"{role}: did not end when told")

    def finish_log(self, report: RunReport) -> None:
        """Hands the report to the recorder and waits until the log is whole."""
        self.event(REPORT_EVENT, json.dumps(report.to_json()))
        deadline = now_ns() + RECORDER_FINISH_NS
        while self.children.running(("recorder",)) and now_ns() < deadline:
            self.listen()
        self.listen(0)
        # How it ended is known only now; that it was silent for a while was a guess.
        if self.children.status("recorder") is None:
            ending = "recorder: did not finish"
        else:
            ending = "" if self.children.status("recorder") == 0 else str(self.children.last_words("recorder"))
        self.log_error = "; ".join(filter(None, (*self.recovery.log_errors, ending)))

    def report(self, outcome: str, detail: str) -> RunReport:
        """From what was heard."""
        watch = self.watch
        status = watch.status
        time_s = 0.0 if watch.first_ns is None or watch.last_ns is None else (watch.last_ns - watch.first_ns) * 1e-9
        driver, governor = watch.counts("driver"), watch.counts("governor")
        decisions = watch.counts("navigator")["ticks"]
        return RunReport(
            outcome=outcome,
            detail=detail,
            time_s=round(time_s, 3),
            ticks=driver["ticks"],
            decisions=decisions,
            decisions_per_s=round(decisions / time_s, 2) if time_s > 0 else 0.0,
            decision_ms=watch.decision_ms.summary(),
            lateness_ms=watch.lateness_ms.summary(),
            late_ticks=driver["late"],
            skipped_ticks=driver["skipped"],
            stopped=status is not None and status.stopped,
            final_speed_mps=0.0 if status is None else round(status.speed_mps, 4),
            reasons={key: count for key, count in sorted(governor.items()) if key != "dropped"},
            records_lost=watch.counts("recorder")["lost"],
            log=self.order.log,
            log_error=self.log_error,
            timing=timing(watch, driver["skipped"], self.order.robot.dt_s),
            resources=self.resources.report(),
            restarts={role: watch.sessions[role] for role in ROLES if watch.sessions[role]},
            losses=tuple(self.recovery.losses),
            log_parts=log_parts(self.order.log, watch.sessions["recorder"]),
        )


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set while inside; only the main thread can hear signals."""
    interrupted = threading.Event()

    def note(_signal: int, _frame: FrameType | None) -> None:
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
