"""Faults on real processes, and that the drill itself would notice a robot that is not stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy import wire
from deploy.config import DeployConfig
from deploy.drill import runner
from deploy.drill.faults import Fault, Window
from deploy.drill.link_faults import away_ms, moving_ms
from deploy.drill.pilot import AWAY
from deploy.drill.runner import LATE, Result, all_faults, choose, drill, measure, oldest_ms
from deploy.drill.session import clock_library, quiet_files
from deploy.drill.shared import RECORD, SWITCH, SWITCH_FILE, TapeWriter, read_tape, shared, zero_after_ms, zero_time_ms
from robonav.cli import doctor
from robonav.cli.main import main
from robonav.config import find_config, load_config, load_robot
from robonav.errors import LinkError

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc"),
    pytest.mark.xdist_group("processes"),  # one run of processes at a time
]
MS = 1_000_000
QUICK = ("navigator frozen", "sensor frozen")


def tried(names: tuple[str, ...], bundle: Path) -> list[Result]:
    """Results; a fault that fails is tried once more, for this machine may have been busy."""
    config = load_config(DeployConfig, find_config("deploy", "default"))
    results = list(drill(choose(names), bundle, "a1", config))
    failed = {r.fault for r in results if not r.passed}
    if failed:
        print("\n".join(doctor._row(r) for r in results if not r.passed))
        again = choose(tuple(failed - {LATE})) or choose(names)
        results = [r for r in results if r.passed] + list(drill(again, bundle, "a1", config))
    return results


@pytest.mark.realtime
def test_a_frozen_navigator_and_a_frozen_lidar_stop_the_robot_in_time(tiny_bundle: Path) -> None:
    results = tried(QUICK, tiny_bundle)
    assert {r.fault for r in results} == {*QUICK, LATE}
    assert [doctor._row(r) for r in results if not r.passed] == []
    measured = {r.fault: r.measured_ms for r in results}
    assert measured["navigator frozen"] > 50  # a command lives for a while, and so it was measured at all
    assert measured["sensor frozen"] > 200


@pytest.mark.realtime
@pytest.mark.slow
def test_every_fault_comes_to_what_it_must(tiny_bundle: Path) -> None:
    results = tried((), tiny_bundle)
    print()
    for result in results:
        print(doctor._row(result))
    assert [doctor._row(r) for r in results if not r.passed] == []
    assert {r.fault for r in results} == {f.name for f in all_faults()} | {LATE}


def tape(*rows: tuple[float, float]) -> Any:
    """Of (ms, vx)."""
    found = np.zeros(len(rows), RECORD)
    for i, (at_ms, vx) in enumerate(rows):
        found[i]["stamp_ns"], found[i]["velocity"][0] = at_ms * MS, vx
    return found


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, 0.5), (120, 0.5), (300, 0.0)], 200.0),
        ([(0, 0.5), (90, 0.0)], 0.0),  # it stood already
        ([(0, 0.5), (300, 0.0), (400, 0.2), (450, 0.0)], 350.0),  # what comes late counts
        ([(0, 0.5), (300, 0.0), (990, 0.2)], np.inf),
        ([(0, 0.5)], np.inf),
        ([(0, 0.0)], 0.0),
        ([(0, 0.5), (300, 0.0), (1100, 0.5)], 200.0),  # what comes after the window is another matter
    ],
)
def test_the_time_to_zero_is_that_of_the_last_moving_command(rows: list[tuple[float, float]], expected: float) -> None:
    assert zero_after_ms(tape(*rows), 100 * MS, 1000 * MS) == pytest.approx(expected)


def test_the_time_of_standing_and_of_moving() -> None:
    rows = tape((0, 0.5), (200, 0.0), (260, 0.5), (400, AWAY[0]), (450, 0.5))
    assert zero_time_ms(rows, 100 * MS, 1000 * MS) == 60.0
    assert zero_time_ms(rows, 220 * MS, 240 * MS) == 20.0
    assert zero_time_ms(rows, 300 * MS, 1000 * MS) == 0.0
    assert moving_ms(rows, 100 * MS, 1000 * MS) == 840.0
    assert away_ms(rows, 100 * MS, 1000 * MS) == 50.0
    assert zero_time_ms(tape((0, 0.0)), 100 * MS, 1000 * MS) == 900.0  # the last one holds


def test_the_tape_is_read_while_it_is_written(tmp_path: Path) -> None:
    writer = TapeWriter(tmp_path)
    writer.write(5, np.array([0.1, 0.2, 0.3]))
    with (tmp_path / "tape").open("ab") as half:
        half.write(b"half a rec")
    found = read_tape(tmp_path)
    assert found["stamp_ns"].tolist() == [5]
    np.testing.assert_array_equal(found["velocity"], [[0.1, 0.2, 0.3]])


def session(rows: Any) -> Any:
    return SimpleNamespace(tape=lambda: rows, config=DeployConfig(), spec=load_robot("a1"))


STOPS = Fault("a", "about", "stops", lambda s: Window(0, 0))


@pytest.mark.parametrize(
    ("rows", "passed", "said"),
    [
        ([(0, 0.5), (440, 0.0)], True, ""),
        ([(0, 0.5), (460, 0.0)], False, ""),
        ([(0, 0.5)], False, "the robot was not stopped"),
        ([(0, 0.5), (50, 0.0)], False, "the robot did not drive before it"),
    ],
)
def test_a_robot_that_stops_late_or_not_fails(rows: list[tuple[float, float]], passed: bool, said: str) -> None:
    result = measure(session(tape(*rows)), STOPS, Window(100 * MS, 1000 * MS))
    assert (result.passed, result.said) == (passed, said)
    assert result.bound_ms == 350.0


def test_what_must_drive_on_and_what_must_be_refused() -> None:
    drives_on, refused = replace(STOPS, requires="drives on"), replace(STOPS, requires="refused", life="none")
    window = Window(100 * MS, 1000 * MS)
    assert measure(session(tape((0, 0.5), (300, 0.0), (390, 0.5))), drives_on, window).passed
    assert not measure(session(tape((0, 0.5), (300, 0.0), (410, 0.5))), drives_on, window).passed
    assert measure(session(tape((0, 0.5))), refused, window._replace(moved_ms=0.0)).passed
    assert not measure(session(tape((0, 0.5))), refused, window._replace(moved_ms=1.0)).passed
    assert not measure(session(tape((0, 0.5))), refused, window).passed
    wrong = measure(session(tape((0, 0.5))), refused, window._replace(moved_ms=0.0, wrong="one was accepted"))
    assert (wrong.passed, wrong.said) == (False, "one was accepted")
    assert measure(session(tape((0, 0.5))), drives_on, Window(0, 1)).said == "it never began"


def test_the_bound_is_the_life_of_what_falls_silent_and_a_tick() -> None:
    bounds = {life: runner.bound_ms(replace(STOPS, life=life), session(None)) for life in ("command", "observation")}
    assert bounds == {"command": 350.0, "observation": 500.0}
    assert runner.bound_ms(replace(STOPS, life="revoke"), session(None)) == 600.0
    assert runner.bound_ms(replace(STOPS, life="estop link"), session(None)) == 1100.0


def test_the_age_of_what_moved_the_robot_is_read_from_the_log() -> None:
    head = {"episode": 1, "vx_mps": 0.5, "vy_mps": 0.0, "yaw_rate_radps": 0.0}
    decision = {"observation": 0, "reset": False, "seed": 0, "value": 0.0, "why": "", "route_odom_m": None}
    messages = [
        wire.DecisionMsg(sequence=7, stamp_ns=0, age_ms=0.0, total_ms=0.0, details={}, **decision, **head),
        wire.GovernedMsg(sequence=1, stamp_ns=90 * MS, life_ms=250.0, asked=7, reasons=(), holder="navigator", **head),
        wire.GovernedMsg(sequence=2, stamp_ns=400 * MS, life_ms=250.0, asked=7, reasons=(), holder="alice", **head),
        wire.AppliedMsg(sequence=1, stamp_ns=100 * MS, governed=1, **head),
        wire.AppliedMsg(sequence=2, stamp_ns=900 * MS, governed=2, **head),
        wire.AppliedMsg(sequence=3, stamp_ns=900 * MS, governed=1, **{**head, "vx_mps": 0.0}),
    ]
    log: Any = SimpleNamespace(of=lambda kind: [m for m in messages if isinstance(m, kind)])
    assert oldest_ms(log) == 100.0


def test_names_are_unique_and_an_unknown_one_is_one_line() -> None:
    names = [fault.name for fault in all_faults()]
    assert len(set(names)) == len(names) >= 34
    assert [fault.name for fault in choose(("e-stop", "sensor nan"))] == ["sensor nan", "e-stop"]
    assert len(choose(())) == len(names)
    with pytest.raises(LinkError, match="did you mean 'governor killed'"):
        choose(("governer killed",))


def test_what_cannot_be_tried_here_is_left_out_and_said() -> None:
    fault = replace(STOPS, needs=lambda: "needs a compiler")
    (result,) = drill([fault], None, "a1", DeployConfig())
    assert (result.skipped, result.passed, result.said) == (True, True, "needs a compiler")
    assert doctor._row(result).endswith("left out: needs a compiler")


@pytest.fixture
def library() -> Iterator[Path]:
    with quiet_files():
        if (found := clock_library()) is None:
            pytest.skip("no C compiler")
        yield found
    assert not found.exists()


@pytest.mark.realtime
def test_the_library_shifts_the_wall_clock_and_no_other(library: Path, tmp_path: Path) -> None:
    switch = shared(tmp_path, SWITCH_FILE, SWITCH, create=True)
    switch["clock_ns"][0] = 3_600_000_000_000
    program = "import time; print(time.time(), time.time_ns() * 1e-9, time.monotonic())"
    environment = {**os.environ, "LD_PRELOAD": str(library), "ROBONAV_DRILL_CLOCK": str(tmp_path / SWITCH_FILE)}
    out = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    wall_s, also_s, monotonic_s = map(float, out.stdout.split())
    assert wall_s - time.time() == pytest.approx(3600, abs=30)
    assert 0 <= also_s - wall_s < 1
    assert 0 <= time.monotonic() - monotonic_s < 30


def result(**changes: Any) -> Result:
    return replace(Result("a fault", "about", "stops", 12.3, 350.0, True), **changes)


def test_the_command_says_what_came_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [result(), result(fault="other", measured_ms=None, passed=False, said="the robot was not stopped")]
    monkeypatch.setattr(runner, "drill", lambda *_: iter(results))
    assert main(["doctor", "--drill"]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split() == ["a", "fault", "stops", "12", "ms", "350", "ms", "ok"]
    assert rows[2].endswith("350 ms  FAILED: the robot was not stopped")
    assert rows[3] == "1 of 2 as it must be"
    del results[1]
    assert main(["doctor", "--drill", "--only", "e-stop", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"]
    assert shown["faults"][0]["measured_ms"] == 12.3
    assert main(["doctor", "--drill", "--only", "?"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(all_faults())


@pytest.mark.parametrize("words", [["--drill", "--only", "nothing"], ["--only", "e-stop"], ["--robot", "go2"]])
def test_bad_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
