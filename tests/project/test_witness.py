"""A failure while the machine stood still is made again; any other stands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import witness

CONFTEST = """
import witness
from witness import pytest_configure, pytest_runtest_protocol
witness.Witness.longest_s = lambda self, since_s: {stall_s}
"""
TESTS = """
import pytest

made = []

@pytest.fixture
def fresh():
    made.append("fixture")
    yield
    made.append("end")

@pytest.mark.realtime
def test_late_at_first(fresh):
    made.append("test")
    assert made.count("test") == 3

def test_has_no_second_try(fresh):
    made.append("other")
    assert made == ["fixture", "test", "end"] * 3 + ["fixture", "other"]

@pytest.mark.realtime
def test_always_late():
    made.append("always")
    assert not made, made.count("always")
"""


def outcome(folder: Path, stall_s: float) -> str:
    (folder / "conftest.py").write_text(CONFTEST.format(stall_s=stall_s))
    (folder / "test_late.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    realtime: of time\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", str(folder)]
    told = {**os.environ, "PYTHONPATH": str(Path(witness.__file__).parent)}
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout


def test_a_failure_on_a_machine_that_stood_still_is_made_again_and_said(tmp_path: Path) -> None:
    said = outcome(tmp_path, stall_s=0.7)
    assert "1 failed, 2 passed" in said
    assert f"AssertionError: {witness.TRIES}\n" in said
    assert "made again: the machine stood still for 0.70 s" in said


def test_a_failure_on_a_machine_that_kept_the_time_stands(tmp_path: Path) -> None:
    said = outcome(tmp_path, stall_s=0.0)
    assert "3 failed" in said
    assert "AssertionError: 1\n" in said
    assert "made again" not in said


@pytest.fixture
def watching() -> Iterator[witness.Witness]:
    watching = witness.Witness()
    watching.look()
    yield watching
    watching.close()
    assert watching.process is not None
    assert watching.process.returncode == 0


def test_the_witness_sees_that_it_was_stopped(watching: witness.Witness) -> None:
    assert watching.process is not None
    began_s = time.monotonic()
    while watching.longest_s(began_s) < 0.25:  # it takes a while until it watches
        assert time.monotonic() < began_s + 30
        os.kill(watching.process.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(watching.process.pid, signal.SIGCONT)
    assert watching.longest_s(time.monotonic() + 60) == 0.0
