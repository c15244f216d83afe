"""The queue before the log: it never waits, drops are counted and told, and a kill takes a second at most."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import log_damage
import pytest

from deploy import wire
from deploy.config import RecorderConfig
from deploy.log_bench import kill_loss, log_size, loop_cost
from deploy.log_queue import LogQueue
from deploy.log_reader import read_log
from deploy.log_writer import LogWriter
from robonav.config import load_robot
from robonav.errors import LogError


def event(i: int) -> wire.EventMsg:
    return wire.EventMsg(sequence=i, stamp_ns=i, episode=1, kind="test", text=str(i))


class SlowDisk(LogWriter):
    """Writes nothing until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, RecorderConfig(), {})
        self.go = threading.Event()

    def write(self, message: Any, sequence: int | None = None) -> None:
        self.go.wait(60)
        super().write(message, sequence)


@pytest.mark.realtime
def test_a_disk_that_stalls_fills_the_queue_and_no_more(tmp_path: Path) -> None:
    writer = SlowDisk(tmp_path / "a.mcap")
    with LogQueue(writer, limit_bytes=1000) as queue:
        began = time.perf_counter()
        taken = [queue.put(event(i), 100) for i in range(50)]
        assert time.perf_counter() - began < 1.0  # nothing waited for the disk
        assert taken == [True] * 10 + [False] * 40
        writer.go.set()
        deadline = time.monotonic() + 30
        while not queue.put(event(99), 100):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    writer.close()
    events = read_log(tmp_path / "a.mcap").of(wire.EventMsg)
    assert [e.sequence for e in events if e.kind == "test"] == [*range(10), 99]
    told = [e.text for e in events if e.kind == "lost"]
    assert queue.dropped >= 40
    assert sum(int(text.split()[0]) for text in told) == queue.dropped
    assert all("Event" in text for text in told)


def test_a_log_that_cannot_be_written_is_told_and_nothing_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy import log_file

    def no_room(handle: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    writer = LogWriter(tmp_path / "a.mcap", RecorderConfig(chunk_s=1e-9), {})
    with LogQueue(writer, limit_bytes=10_000) as queue:
        monkeypatch.setattr(log_file.os, "write", no_room)
        queue.put(event(0), 100)
        deadline = time.monotonic() + 30
        with pytest.raises(LogError, match="No space left"):
            while time.monotonic() < deadline:
                queue.check()
                time.sleep(0.01)
    monkeypatch.undo()
    assert read_log(tmp_path / "a.mcap").damage.startswith("truncated")


def test_an_unexpected_error_of_the_thread_is_told(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", RecorderConfig(), {})
    with LogQueue(writer, limit_bytes=10_000) as queue:
        queue.put(object(), 100)
    with pytest.raises(AttributeError):
        queue.check()


def test_messages_keep_their_order(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", RecorderConfig(), {})
    with LogQueue(writer, limit_bytes=10_000_000) as queue:
        assert all(queue.put(event(i), 100) for i in range(500))
    writer.close()
    log = read_log(tmp_path / "a.mcap")
    assert [e.message.sequence for e in log.entries] == list(range(500))
    assert [e.sequence for e in log.entries] == list(range(500))


@pytest.mark.realtime
def test_a_killed_recorder_loses_a_second_at_most(tmp_path: Path) -> None:
    assert 0 <= kill_loss(log_damage.small_robot(), tmp_path / "a.mcap", rate_hz=20, seconds=1.6) < 1.0


@pytest.mark.realtime
def test_the_recorders_process_keeps_every_tick(tmp_path: Path) -> None:
    cost = loop_cost(log_damage.small_robot(), tmp_path / "a.mcap", rate_hz=50, seconds=0.6)
    assert (cost["kept"], cost["refused"]) == (30, 0)
    assert cost["cpu_ms"]["p50"] < 1.0


def test_ten_minutes_of_lidar_and_depth_stay_under_120_mb(tmp_path: Path) -> None:
    found = log_size(load_robot("a1"), tmp_path / "a.mcap", rate_hz=20, minutes=0.1)
    assert found["megabytes"] * 100 < 120
