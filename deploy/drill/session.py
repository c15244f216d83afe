"""A run for the drill: body, supervisor and its processes, started once and tried with several faults."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from deploy import keys
from deploy.bundle import find_bundle
from deploy.config import DeployConfig
from deploy.drill.shared import BODY_FILE, SWITCH, SWITCH_FILE, read_tape, shared, zero_time_ms
from deploy.processes import ROLES
from deploy.timing import now_ns
from policies.bundle import load_bundle
from robonav.config import to_mapping
from robonav.errors import LinkError
from robonav.types import RobotSpec

HERE = Path(__file__).parent
START_S, DRIVING_S, DRIVES_S = 90.0, 0.5, 45.0
LEASE_S = 1.6  # of the drill: longer than a link is cut, so that what moves after it came late
KEYS = {"alice": "commander", "bob": "commander", "leaver": "commander", "gate": "estop", "eye": "observer"}


class Session:
    """A run that drives in circles. Use as a context manager; leaving ends all processes.

    Args:
        bundle: folder or name; the shipped one if None.
        robot: preset; the bundle must fit it.
        config: of the run; where operators connect, the lease and the time limit are the drill's.
        hand: whether the run needs somebody at the e-stop's link, who is then there.

    Raises:
        LinkError: the run did not start.
    """

    def __init__(self, bundle: str | Path | None, robot: str, config: DeployConfig, hand: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="robonav-drill-"))
        self.log = self.folder / "drill.mcap"
        self.bundle = self.folder / "bundle"
        self.robot = robot
        self._shipped = find_bundle(bundle)
        self.address = f"tcp://127.0.0.1:{free_port()}"
        link: Literal["required", "optional"] = "required" if hand else "optional"
        operator = replace(config.operator, listen=self.address, keys=str(self.folder / "keys"), estop_link=link)
        governor = replace(config.governor, lease_s=LEASE_S)
        supervisor = replace(config.supervisor, restart_burst=100)
        self.config = replace(config, operator=operator, governor=governor, supervisor=supervisor, time_limit_s=3600.0)
        self.report: dict[str, Any] = {}
        self.hand: subprocess.Popen[str] | None = None
        self._needs_hand = hand
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Session:
        """Starts everything and waits until the robot drives."""
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what still runs."""
        self.end()
        for process in self._processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def spec(self) -> RobotSpec:
        """Of the robot that is driven."""
        return load_bundle(self.bundle).contract.robot

    def pair(self, name: str) -> keys.Pair:
        """The key of one of KEYS."""
        return keys.load_pair(self.folder / "keys" / f"{name}.key")

    def pids(self) -> dict[str, int]:
        """Role to process id, the supervisor's included."""
        return {"supervisor": self.supervisor.pid, **workers(self.supervisor.pid)}

    def send(self, role: str, number: signal.Signals) -> int:
        """A signal to a process; returns when, in ns."""
        pid = self.pids()[role]
        now = now_ns()
        os.kill(pid, number)
        return now

    def tape(self) -> NDArray[Any]:
        """What the robot was driven by so far."""
        return read_tape(self.folder)

    def wait_driving(self, timeout_s: float = DRIVES_S) -> bool:
        """Waits until the robot has driven for a while without a stop; False when it does not."""

        def drives() -> bool:
            now = now_ns()
            return zero_time_ms(self.tape(), now - int(DRIVING_S * 1e9), now) == 0

        return wait_until(drives, timeout_s, self.alive)

    def alive(self) -> bool:
        """Whether the run goes on."""
        return self.supervisor.poll() is None

    def end(self) -> None:
        """Ends the run as a terminal would, and keeps its report."""
        supervisor = getattr(self, "supervisor", None)
        if supervisor is None or self.report:
            return
        if supervisor.poll() is None:
            supervisor.send_signal(signal.SIGCONT)
            supervisor.terminate()
        try:
            text, _ = supervisor.communicate(timeout=30.0)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            text, _ = supervisor.communicate()
        lines = text.strip().splitlines()
        self.report = json.loads(lines[-1]) if lines else {"outcome": "supervisor lost"}

    def _start(self) -> None:
        shutil.copytree(self._shipped, self.bundle)
        for name, role in KEYS.items():
            keys.new_key(self.folder / "keys", name, role)
        self.switch = shared(self.folder, SWITCH_FILE, SWITCH, create=True)
        lag_s = self.spec.lag_s
        self._processes.append(_python(["deploy.drill.body", str(self.folder), str(lag_s)], {}))
        if not wait_until((self.folder / BODY_FILE).exists, 20.0):
            raise LinkError("the drill's robot did not start")
        self.supervisor = _python(["deploy.drill.supervise"], self._environment())
        self._processes.append(self.supervisor)
        order = {"bundle": str(self.bundle), "folder": str(self.folder), "robot": self.robot, "log": str(self.log)}
        assert self.supervisor.stdin is not None
        self.supervisor.stdin.write(json.dumps({**order, "config": to_mapping(self.config)}))
        self.supervisor.stdin.close()
        self.supervisor.stdin = None
        there = lambda: len(self.pids()) > len(ROLES) and (self.folder / "tape").exists()  # noqa: E731
        if not wait_until(lambda: there() and len(self.tape()) > 0, START_S, self.alive):
            self._complain("did not start")
        if self._needs_hand:
            self.take_hand()
        if not self.wait_driving():
            self._complain("does not drive")

    def take_hand(self) -> None:
        """Somebody holds the e-stop's link: the program that a person would use."""
        key = str(self.folder / "keys" / "gate.key")
        words = ["robonav", "estop", "hold", "--connect", self.address, "--key", key, "--timeout-s", "20"]
        self.hand = _python(words, {})
        self._processes.append(self.hand)

    def _complain(self, what: str) -> None:
        self.end()
        detail = self.report.get("detail") or self.report.get("outcome")
        raise LinkError(f"the drill's run {what}: {detail}; try 'robonav run --driver point'")

    def _environment(self) -> dict[str, str]:
        found = {"ROBONAV_DRILL": str(self.folder), "ROBONAV_DRILL_CLOCK": str(self.folder / SWITCH_FILE)}
        if (library := clock_library()) is not None:
            found["LD_PRELOAD"] = str(library)
        return found


def _python(module: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(HERE / "inject"), *(p for p in sys.path if p)])
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, **environment},
        text=True,
        preexec_fn=os.setpgrp,  # Ctrl-C in a terminal is for the drill, which ends the others
    )


def wait_until(done: Callable[[], object], timeout_s: float, while_: Callable[[], bool] = lambda: True) -> bool:
    """Waits until something is so; False when it does not become so in time, or `while_` ends."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and while_():
        if done():
            return True
        time.sleep(0.01)
    return bool(done())


def workers(parent: int) -> dict[str, int]:
    """Role to process id of one supervisor's processes."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (row := _worker(folder)) is not None and row[1] == parent:
            found[row[0]] = int(folder.name)
    return found


def _worker(folder: Path) -> tuple[str, int] | None:
    with contextlib.suppress(OSError, IndexError):
        words = (folder / "cmdline").read_bytes().split(b"\0")
        status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        if b"deploy.processes" in words and status[0] != "Z":
            return words[words.index(b"deploy.processes") + 1].decode(), int(status[1])
    return None


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_LIBRARY: list[Path | None] = []


def clock_library() -> Path | None:
    """The library that shifts the wall clock, compiled once; None where there is no C compiler."""
    if not _LIBRARY:
        compiler = shutil.which("cc") or shutil.which("gcc")
        path = Path(tempfile.mkdtemp(prefix="robonav-drill-")) / "clock.so"
        built = (
            compiler is not None
            and not subprocess.run(
                [compiler, "-shared", "-fPIC", "-O1", "-o", str(path), str(HERE / "clock.c"), "-ldl"],
                capture_output=True,
            ).returncode
        )
        _LIBRARY.append(path if built else None)
    return _LIBRARY[0]


@contextlib.contextmanager
def quiet_files() -> Iterator[None]:
    """Removes what the drill compiled."""
    try:
        yield
    finally:
        for path in _LIBRARY:
            if path is not None:
                shutil.rmtree(path.parent, ignore_errors=True)
        _LIBRARY.clear()
