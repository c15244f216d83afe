"""Runs on real processes: however they end, the robot stands, the log is readable, and no process is left."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy import wire
from deploy.config import DeployConfig, SupervisorConfig
from deploy.driver_process import make_driver
from deploy.log_reader import Log, read_log
from deploy.replay import replay
from deploy.report import RunReport
from deploy.supervisor import run
from robonav.errors import RobonavError

POINT = "deploy.drivers:PointDriver"
FAR = {"goal_m": [4.0, 0.5]}
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc"),
    pytest.mark.realtime,
    pytest.mark.xdist_group("processes"),  # one run of five processes at a time
]


def workers(parent: int) -> dict[str, int]:
    """Role to process id of one parent's processes."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (row := process(int(folder.name))) is not None and row[1] == parent:
            found[row[0]] = int(folder.name)
    return found


def process(number: int) -> tuple[str, int] | None:
    """Role and parent of a living process of a run; None if it ended, or is none."""
    with contextlib.suppress(OSError, IndexError):
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        status = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
        if b"deploy.processes" in words and status[0] != "Z":
            return words[words.index(b"deploy.processes") + 1].decode(), int(status[1])
    return None


class Once:
    """Does something once, when the robot moves."""

    def __init__(self, what: Callable[[], None]) -> None:
        self.what = what
        self.done_speed_mps: float | None = None

    def __call__(self, status: wire.StatusMsg) -> None:
        if self.done_speed_mps is None and status.speed_mps > 0.5:
            self.done_speed_mps = status.speed_mps
            self.what()


def send(role: str, number: signal.Signals) -> Once:
    return Once(lambda: os.kill(workers(os.getpid())[role], number))


def run_far(bundle: Path, log: Path, once: Once | None, restarts: int = 0, **options: object) -> tuple[RunReport, Log]:
    supervisor = SupervisorConfig(stop_timeout_s=1.5, restart_burst=restarts)
    config = DeployConfig(time_limit_s=60.0 if restarts else 20.0, supervisor=supervisor)
    report = run(bundle, POINT, log, driver_kwargs={**FAR, **options}, config=config, on_status=once)
    if once is not None:
        assert once.done_speed_mps is not None
    assert workers(os.getpid()) == {}
    read = read_log(log)
    assert read.damage == ""
    assert json.loads(read.metadata["robonav.report"]["report"])["outcome"] == report.outcome
    return report, read


def test_arrival(arrival: RunReport) -> None:
    assert arrival.outcome == "success"
    assert arrival.success
    assert arrival.stopped
    assert arrival.final_speed_mps < 0.05
    assert arrival.records_lost == 0
    assert arrival.decisions >= arrival.ticks - 2
    assert arrival.decision_ms.count == arrival.decisions
    assert arrival.reasons["acceleration"] > 0
    log = read_log(arrival.log)
    assert log.of(wire.StatusMsg)[-1].stopped


def test_sigterm_ends_with_a_stopped_robot(tiny_bundle: Path, tmp_path: Path) -> None:
    report, _ = run_far(tiny_bundle, tmp_path / "a.mcap", Once(lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert report.outcome == "interrupted"
    assert report.stopped


def test_a_killed_navigator_ends_with_a_stopped_robot(tiny_bundle: Path, tmp_path: Path) -> None:
    report, log = run_far(tiny_bundle, tmp_path / "a.mcap", send("navigator", signal.SIGKILL))
    assert report.outcome == "navigator lost"
    assert "SIGKILL" in report.detail
    assert report.losses == ("navigator: killed by SIGKILL",)
    assert report.restarts == {}
    assert report.stopped
    assert any("navigator lost" in e.text for e in log.of(wire.EventMsg))


def test_a_killed_driver_is_in_the_log_and_everything_ends(tiny_bundle: Path, tmp_path: Path) -> None:
    """The simulated robot is gone with its process: nobody can confirm that it stands."""
    report, log = run_far(tiny_bundle, tmp_path / "a.mcap", send("driver", signal.SIGKILL))
    assert report.outcome == "driver lost"
    assert not report.stopped
    assert any("driver lost" in e.text for e in log.of(wire.EventMsg))


def test_a_frozen_navigator_is_ramped_down_by_the_governor(tiny_bundle: Path, tmp_path: Path) -> None:
    report, log = run_far(tiny_bundle, tmp_path / "a.mcap", send("navigator", signal.SIGSTOP))
    assert report.outcome == "navigator lost"
    assert "silent" in report.detail
    assert report.reasons["expired"] > 0
    assert report.stopped
    # It stood long before the supervisor gave up on the navigator.
    last = log.of(wire.GovernedMsg)[-1]
    assert not wire.velocity_of(last).any()


def test_a_frozen_governor_is_outlived_by_the_drivers_own_expiry(tiny_bundle: Path, tmp_path: Path) -> None:
    report, log = run_far(tiny_bundle, tmp_path / "a.mcap", send("governor", signal.SIGSTOP))
    assert report.outcome == "governor lost"
    assert report.stopped
    assert "expired" in {e.kind for e in log.of(wire.EventMsg)}


def test_a_driver_that_fails_while_driving_ends_the_run_with_its_line(tiny_bundle: Path, tmp_path: Path) -> None:
    report, log = run_far(tiny_bundle, tmp_path / "a.mcap", None, fail_after_s=0.8)
    assert report.outcome == "driver lost"
    assert report.detail == "point robot: the sensor failed, as it was told to"
    assert "failed" in {e.kind for e in log.of(wire.EventMsg)}


@pytest.mark.parametrize(
    ("room", "words"),
    [(4096, "log cut short: File too large"), (0, "recorder: ended with status 1")],  # 0: nor do its last words fit
)
def test_a_recorder_that_hung_and_then_failed_is_reported_by_its_own_words(
    tiny_bundle: Path, tmp_path: Path, room: int, words: str
) -> None:
    """Silence is what the supervisor sees first; why it was silent is what the user needs."""

    def fill_disk(pid: int) -> None:
        """A limit on the size of files stands for the full disk."""
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, room))

    report = run_past_a_hung_recorder(tiny_bundle, tmp_path / "a.mcap", fill_disk)
    assert words in report.log_error
    assert not report.success


def test_a_recorder_that_hung_and_then_finished_leaves_a_whole_log(tiny_bundle: Path, tmp_path: Path) -> None:
    report = run_past_a_hung_recorder(tiny_bundle, tmp_path / "a.mcap", lambda pid: None)
    assert report.success
    assert read_log(report.log).damage == ""


def run_past_a_hung_recorder(bundle: Path, log: Path, then: Callable[[int], None]) -> RunReport:
    """A run whose recorder is stopped for longer than the supervisor waits, and goes on after `then`."""
    stopped_s: list[float] = []
    recorder: list[int] = []

    def watch(status: wire.StatusMsg) -> None:
        if not recorder and status.speed_mps > 0.5:
            recorder.append(workers(os.getpid())["recorder"])
            os.kill(recorder[0], signal.SIGSTOP)
            stopped_s.append(time.monotonic())
        elif stopped_s and time.monotonic() - stopped_s[0] > 1.8:
            stopped_s.clear()
            then(recorder[0])
            os.kill(recorder[0], signal.SIGCONT)

    config = DeployConfig(supervisor=SupervisorConfig(restart_burst=0))
    report = run(bundle, POINT, log, driver_kwargs=FAR, config=config, on_status=watch)
    assert recorder
    assert not stopped_s
    assert report.outcome == "success"
    return report


def test_two_runs_into_one_log_are_refused_before_anything_moves(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    refused: list[str] = []

    def second() -> None:
        program = "import sys; from robonav.cli.main import main; sys.exit(main(sys.argv[1:]))"
        words = ["run", "--bundle", str(tiny_bundle), "--driver", "null", "--log", str(log)]
        done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stdout == ""
        refused.append(done.stderr)

    first = DeployConfig(supervisor=SupervisorConfig(heartbeat_timeout_s=20.0, control_timeout_s=20.0))
    once = Once(second)  # the supervisor waits meanwhile, so the others have to be patient
    report = run(tiny_bundle, POINT, log, driver_kwargs=FAR, config=first, on_status=once)
    assert refused == [f"robonav: error: {log}: in use by another run; choose another path\n"]
    assert report.success
    assert len(read_log(log).of(wire.DecisionMsg)) == report.decisions


def test_the_time_limit_ends_a_run_that_goes_nowhere(tiny_bundle: Path, tmp_path: Path) -> None:
    config = DeployConfig(time_limit_s=1.0)
    report = run(tiny_bundle, "deploy.drivers:NullDriver", tmp_path / "a.mcap", config=config)
    assert report.outcome == "timeout"
    assert report.stopped
    assert not report.success
    poses = [wire.unpack_array(o.pose_odom_base, "pose") for o in read_log(report.log).of(wire.ObservationMsg)]
    assert len(poses) >= 5
    assert not np.any(poses)


def test_a_killed_supervisor_leaves_a_readable_log_and_no_process(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    command = f"""
from deploy.supervisor import run
run({str(tiny_bundle)!r}, {POINT!r}, {str(log)!r}, driver_kwargs={FAR!r},
    on_status=lambda status: print("moving" if status.speed_mps > 0.5 else "", flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        for line in supervisor.stdout:
            if line.strip() == "moving":
                break
        ids = set(workers(supervisor.pid).values())
        supervisor.kill()
    assert len(ids) == 4
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(map(process, ids)):
        time.sleep(0.05)
    assert not any(map(process, ids))
    read = read_log(log)
    assert read.damage == ""
    assert "supervisor lost" in read.metadata["robonav.report"]["report"]
    assert read.of(wire.DecisionMsg)


def test_ctrl_c_in_a_terminal_reaches_all_processes_and_ends_well(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    program = "import sys; from robonav.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["run", "--bundle", str(tiny_bundle), "--driver", "null", "--log", str(log), "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not log.exists() or log.stat().st_size < 8000):
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert json.loads(out)["outcome"] == "interrupted"
    assert json.loads(out)["stopped"]
    assert errors == ""
    assert read_log(log).damage == ""


@pytest.mark.parametrize(
    ("driver", "kwargs", "word"),
    [
        ("no.such:thing", {}, "no.such:thing"),
        ("nothing", {}, "nothing"),
        ("deploy.drivers:Nothing", {}, "Nothing"),
        ("deploy.timing:now_ns", {}, "robonav.types.Driver"),
        (POINT, {"robot": "zebra"}, "zebra"),
        (POINT, {"wheels": 4}, "wheels"),
    ],
)
def test_a_driver_that_cannot_be_made_is_one_line(driver: str, kwargs: dict[str, object], word: str) -> None:
    with pytest.raises(RobonavError, match=word) as error:
        make_driver(driver, kwargs)
    assert "\n" not in str(error.value)


def test_a_run_that_cannot_start_is_one_line_and_leaves_no_process(tiny_bundle: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.mcap"
    older.write_bytes(b"the log of an earlier run")
    with pytest.raises(RobonavError, match="zebra"):
        run(tiny_bundle, POINT, older, driver_kwargs={"robot": "zebra"})
    assert workers(os.getpid()) == {}
    assert older.read_bytes() == b"the log of an earlier run"


def test_the_simulated_robot_arrives_and_its_log_knows_the_world(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    kwargs = {"robot": "a1", "scene": "empty", "seed": 0}
    report = run(tiny_bundle, "sim.driver:make_driver", tmp_path / "a.mcap", driver_kwargs=kwargs)
    assert report.outcome == "success"
    assert report.stopped
    log = read_log(report.log)
    about = next(json.loads(e.text) for e in log.of(wire.EventMsg) if e.kind == "driver")
    assert len(about["start_world"]) == 3
    assert replay(report.log).report.identical


def test_a_robot_that_the_bundle_does_not_fit_is_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    from robonav.config import load_robot

    with pytest.raises(RobonavError, match="vx_max_mps"):
        run(tiny_bundle, POINT, tmp_path / "a.mcap", robot=replace(load_robot("a1"), vx_max_mps=3.0))


def test_a_log_that_cannot_be_written_is_one_line_before_anything_starts(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RobonavError, match="Is a directory"):
        run(tiny_bundle, POINT, tmp_path)
    assert list(tmp_path.iterdir()) == []
