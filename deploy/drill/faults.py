"""The faults as data: what is done, what it must come to, and within which time."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from deploy.drill.robot import SENSORS
from deploy.drill.session import Session, clock_library
from deploy.timing import now_ns

Requires = Literal["stops", "drives on", "refused"]
Life = Literal[
    "command", "observation", "revoke", "estop link", "none"
]  # of what falls silent; the bound is it and a tick

FREEZE_S = 1.0  # shorter than the supervisor's patience, so that the process wakes up in the same run
WATCH_S = 1.2
HOUR_NS = 3_600_000_000_000


class Window(NamedTuple):
    """When a fault was there, and what else was seen of it."""

    began_ns: int
    ended_ns: int
    wrong: str = ""  # what was not as it must be, besides the command
    moved_ms: float | None = None  # "refused": for how long the robot did what it must not


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault."""

    name: str
    about: str
    requires: Requires
    attack: Callable[[Session], Window]
    life: Life = "command"
    reason: str = ""  # that the governor's log must give meanwhile
    after: Literal["drives on", "ends", "any"] = "drives on"
    hand: bool = False  # in a run that needs somebody at the e-stop's link
    needs: Callable[[], str] = lambda: ""  # why it cannot be tried on this computer, or ""


def freeze(role: str, seconds: float = FREEZE_S) -> Callable[[Session], Window]:
    """SIGSTOP, and SIGCONT after a while."""

    def attack(session: Session) -> Window:
        began_ns = session.send(role, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            ended_ns = session.send(role, signal.SIGCONT)
        return Window(began_ns, ended_ns)

    return attack


def kill(role: str, how: signal.Signals = signal.SIGKILL) -> Callable[[Session], Window]:
    """A signal that ends the process at once."""

    def attack(session: Session) -> Window:
        began_ns = session.send(role, how)
        time.sleep(WATCH_S if role in ("recorder", "supervisor", "driver") else 0.5)
        return Window(began_ns, now_ns())

    return attack


def sensor(kind: str) -> Callable[[Session], Window]:
    """A sensor that fails in one of the ways of `deploy.drill.robot.SENSORS`, and is well again after a while."""

    def attack(session: Session) -> Window:
        session.switch["began_ns"][0] = 0
        session.switch["sensor"][0] = SENSORS.index(kind)
        time.sleep(WATCH_S)
        window = Window(int(session.switch["began_ns"][0]), now_ns())
        session.switch["sensor"][0] = 0
        return window

    return attack


def slow(milliseconds: int) -> Callable[[Session], Window]:
    """One step of the policy that takes so long."""

    def attack(session: Session) -> Window:
        session.switch["began_ns"][0] = 0
        session.switch["slow_ms"][0] = milliseconds
        while not session.switch["began_ns"][0] and session.alive():
            time.sleep(0.005)
        began_ns = int(session.switch["began_ns"][0])
        time.sleep(min(milliseconds * 1e-3, WATCH_S) - 0.02)
        return Window(began_ns, now_ns())

    return attack


def clock_steps(session: Session) -> Window:
    """The wall clock of all processes an hour ahead, a day back, and to the right time again."""
    began_ns = now_ns()
    for offset_ns in (HOUR_NS, -24 * HOUR_NS, 0):
        session.switch["clock_ns"][0] = offset_ns
        time.sleep(0.5)
    return Window(began_ns, now_ns())


def no_compiler() -> str:
    """Why the wall clock cannot be stepped."""
    return "" if clock_library() is not None else "needs a C compiler (cc) for the library that shifts the wall clock"


def full_disk(session: Session) -> Window:
    """The recorder's files may not grow any more."""
    pid, began_ns = session.pids()["recorder"], now_ns()
    size = Path(session.log).stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
    time.sleep(2.0)
    return Window(began_ns, now_ns())


def swapped_bundle(session: Session) -> Window:
    """Another file in the place of the graph that is driven with."""
    path = session.bundle / "policy.onnx"
    kept, began_ns = path.read_bytes(), now_ns()
    aside = path.with_suffix(".aside")
    aside.write_bytes(os.urandom(4096))
    aside.replace(path)
    time.sleep(WATCH_S)
    window = Window(began_ns, now_ns())
    path.write_bytes(kept)
    return window


def lost_with_its_bundle(session: Session) -> Window:
    """The navigator is killed when another graph lies in its bundle's place: none may drive until it is put back."""
    path = session.bundle / "policy.onnx"
    kept = path.read_bytes()
    path.write_bytes(os.urandom(4096))
    try:
        began_ns = session.send("navigator", signal.SIGKILL)
        time.sleep(6.0)
        return Window(began_ns, now_ns())
    finally:
        path.write_bytes(kept)


def processes() -> tuple[Fault, ...]:
    """Faults of a run's own processes, of its computer and of its sensors."""
    freezing: dict[str, dict[str, Any]] = {
        "navigator": {"requires": "stops", "reason": "expired"},
        "governor": {"requires": "stops"},
        "driver": {"requires": "stops"},
        "supervisor": {"requires": "stops"},
        "recorder": {"requires": "drives on"},
    }
    found = [
        Fault(f"{role} frozen", f"SIGSTOP of the {role} for {FREEZE_S:g} s, then SIGCONT", attack=freeze(role), **more)
        for role, more in freezing.items()
    ]
    sensing: dict[str, dict[str, Any]] = {
        "frozen": {"about": "the lidar repeats its last picture with new stamps", "reason": "frozen sensor"},
        "frozen all": {"about": "all sensors repeat themselves with new stamps", "reason": "frozen sensor"},
        "absent": {"about": "observations without a picture", "reason": "stale observation"},
        "hung": {"about": "reading the sensors blocks", "life": "command"},
        "nan": {"about": "a scan of NaN", "reason": "refused: bad observation"},
        "negative": {"about": "a scan of negative ranges", "reason": "refused: bad scan"},
        "random": {"about": "a scan of random ranges", "reason": "refused: bad scan"},
        "blind": {"about": "a scan that sees nothing, all at once", "reason": "refused: blind scan"},
    }
    for kind, more in sensing.items():
        found.append(Fault(f"sensor {kind}", requires="stops", attack=sensor(kind), **{"life": "observation", **more}))
    found += [
        Fault("slow step", "a step of the policy that takes 0.5 s", "stops", slow(500), reason="expired"),
        Fault("wall clock steps", "an hour ahead, a day back", "drives on", clock_steps, needs=no_compiler),
        Fault("bundle swapped", "another file in the bundle's place", "drives on", swapped_bundle),
    ]
    return tuple(found)


def endings() -> tuple[Fault, ...]:
    """Faults after which a process is another one, or the run is over."""
    return (
        Fault("navigator killed", "SIGKILL; another takes its place", "stops", kill("navigator")),
        Fault("very slow step", "a step of the policy that takes 5 s", "stops", slow(5000)),
        Fault("governor killed", "SIGKILL; another takes its place", "stops", kill("governor")),
        Fault("governor aborts", "SIGABRT, as by a library", "stops", kill("governor", signal.SIGABRT)),
        Fault("no bundle to restart", "the navigator is killed, its bundle damaged", "stops", lost_with_its_bundle),
        Fault("recorder killed", "SIGKILL; another takes its place", "drives on", kill("recorder")),
        Fault("disk full", "the log cannot grow", "drives on", full_disk, after="any"),
        Fault("driver killed", "SIGKILL: the robot's own hold ends", "stops", kill("driver"), after="ends"),
        Fault("supervisor killed", "SIGKILL", "stops", kill("supervisor"), after="ends"),
    )
