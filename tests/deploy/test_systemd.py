"""The service: what systemd is told over a real datagram socket, and that the unit is one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.systemd import Notifier, without_notify
from robonav.cli.run import main

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "launch" / "systemd" / "robonav.service"
SECOND = 1_000_000_000


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5.0)
        yield listener


def heard(manager: socket.socket) -> list[str]:
    """All datagrams that are there."""
    found = []
    manager.setblocking(False)
    try:
        while True:
            found.append(manager.recv(4096).decode())
    except BlockingIOError:
        return found


def listen(manager: socket.socket, said: list[str]) -> None:
    """As systemd does: a datagram socket holds only a few."""
    manager.settimeout(60.0)
    while not (said and said[-1].startswith("STOPPING")):
        said.append(manager.recv(4096).decode())


def test_ready_alive_and_stopping_reach_the_manager(manager: socket.socket, tmp_path: Path) -> None:
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(told)
    notifier.ready("driving a1")
    assert heard(manager) == ["READY=1\nSTATUS=driving a1"]
    for tenths in range(31):  # 3 s
        notifier.alive(tenths * SECOND // 10)
    assert heard(manager) == ["WATCHDOG=1"] * 4  # at 0, 1, 2 and 3 s: half of the watchdog's time
    notifier.stopping("success")
    assert heard(manager) == ["STOPPING=1\nSTATUS=success"]


def test_an_abstract_address_is_one_that_begins_with_a_zero() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = f"robonav-test-{os.getpid()}"
        listener.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).says("hello")
        assert heard(listener) == ["STATUS=hello"]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "1000"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_manager_nothing_happens(told: dict[str, str]) -> None:
    notifier = Notifier(told)
    notifier.ready("")
    notifier.alive(5 * SECOND)
    notifier.stopping("")


def test_the_watchdog_of_another_process_is_not_fed(manager: socket.socket, tmp_path: Path) -> None:
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    Notifier(told).alive(0)
    assert heard(manager) == []


def test_a_child_is_not_told_where_to_speak() -> None:
    assert without_notify({"NOTIFY_SOCKET": "x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "PATH": "p"}) == {
        "PATH": "p"
    }


@pytest.mark.realtime
@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_run_says_that_it_is_ready_alive_and_ends(
    manager: socket.socket, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    words = ["--bundle", str(tiny_bundle), "--driver", "null", "--timeout-s", "0.5", "--log", str(tmp_path / "a.mcap")]
    said: list[str] = []
    listener = threading.Thread(target=listen, args=(manager, said))
    listener.start()
    assert main(words) == 1
    listener.join(5.0)
    assert said.count("READY=1\nSTATUS=driving a1") == 1
    assert said.count("STOPPING=1\nSTATUS=timeout") == 1
    first, last = said.index("READY=1\nSTATUS=driving a1"), said.index("STOPPING=1\nSTATUS=timeout")
    assert said[first:last].count("WATCHDOG=1") >= 2


def test_the_unit_is_one_and_starts_what_there_is(tmp_path: Path) -> None:
    text = UNIT.read_text()
    for line in ("Type=notify", "WatchdogSec=2", "Restart=on-abnormal", "NoNewPrivileges=yes", "KillMode=mixed"):
        assert f"\n{line}\n" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    (tmp_path / "robonav.service").write_text(text.replace("User=robonav\nGroup=robonav\n", ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "robonav.service")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "robonav.service:" not in done.stderr, done.stderr  # no unknown line


def test_the_units_command_is_a_command(tmp_path: Path) -> None:
    """The shell's line with systemd's escapes undone: one process, its log named by the time, all arguments there."""
    line = next(row for row in UNIT.read_text().splitlines() if row.startswith("ExecStart="))
    script = line.split("-c ", 1)[1].strip("'").replace("$$", "$").replace("%%", "%")
    (tmp_path / "robonav").write_text(f"#!{sys.executable}\nimport os, sys\nprint(os.getpid(), *sys.argv[1:])\n")
    (tmp_path / "robonav").chmod(0o755)
    told = {"ROBONAV_BIN": str(tmp_path), "STATE_DIRECTORY": "/s t", "ROBONAV_ARGS": "--driver null --json"}
    with subprocess.Popen(["/bin/sh", "-c", script], env={**os.environ, **told}, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        pid, *words = shell.stdout.read().decode().split()
    assert int(pid) == shell.pid
    assert words[:3] == ["run", "--log", "/s"]
    assert words[4:] == ["--driver", "null", "--json"]
    assert words[3].startswith("t/20") and words[3].endswith(".mcap")
