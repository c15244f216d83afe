"""The log: what was written comes back, what is damaged is told, and a full disk leaves what is whole."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from deploy import log_file, wire
from deploy.config import RecorderConfig
from deploy.log_messages import FREE, BeliefMsg, MapMsg
from deploy.log_reader import read_log, recover
from deploy.recorder import TOPICS, LogFile, LogWriter
from deploy.report import RunReport, check_log_path
from robonav.errors import LogError


def event(i: int, size: int = 40) -> wire.EventMsg:
    noise = random.Random(i).randbytes(size // 2).hex()
    return wire.EventMsg(sequence=i, stamp_ns=i, episode=1, kind="test", text=noise)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_messages_and_metadata_come_back(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, RecorderConfig(compression=compression), {"bundle": "b", "seed": "3"})
    for i in range(50):
        writer.write(event(i), i)
    writer.close()
    log = read_log(path)
    assert log.damage == ""
    assert log.run == {"bundle": "b", "seed": "3"}
    assert log.of(wire.EventMsg) == [event(i) for i in range(50)]
    assert [e.sequence for e in log.entries] == list(range(50))


def test_any_mcap_tool_reads_a_run(arrival: RunReport) -> None:
    with Path(arrival.log).open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        topics = {channel.topic for _, channel, _ in reader.iter_messages()}
        summary = reader.get_summary()
    assert topics == {*TOPICS.values(), "/map", "/pose", "/route", "/scan", "/text", "/tf"} - {"/rollouts"}
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.chunk_count >= 2


def test_a_run_is_logged_without_a_gap(arrival: RunReport) -> None:
    log = read_log(arrival.log)
    decisions, observations = log.of(wire.DecisionMsg), log.of(wire.ObservationMsg)
    assert [d.sequence for d in decisions] == list(range(len(decisions)))
    assert [d.observation for d in decisions] == [o.sequence for o in observations]
    assert [d.reset for d in decisions] == [True] + [False] * (len(decisions) - 1)
    assert json.loads(log.metadata["robonav.report"]["report"])["outcome"] == "success"
    assert log.metadata["robonav.report"]["lost"] == "0"
    assert {"bundle", "bundle_sha256", "robot", "driver", "config", "seed", "versions"} <= set(log.run)
    governed = {g.sequence for g in log.of(wire.GovernedMsg)}
    # Those of before the first command are not logged.
    assert {a.governed for a in log.of(wire.AppliedMsg) if a.governed >= min(governed)} <= governed


def test_a_run_logs_what_it_believed_and_its_map(arrival: RunReport) -> None:
    log = read_log(arrival.log)
    decisions, beliefs = log.of(wire.DecisionMsg), log.of(BeliefMsg)
    assert [b.observation for b in beliefs] == [d.observation for d in decisions]
    memory = [wire.unpack_array(b.state["h"], "h") for b in beliefs]
    assert memory[0].shape == (1, 4)
    assert not np.array_equal(memory[0], memory[-1])
    maps = log.of(MapMsg)
    assert 1 <= len(maps) <= len(decisions) // 5
    assert FREE in maps[-1].occupancy
    shortest = min(m.rows for m in maps) * maps[0].resolution_m
    assert shortest > 1.0
    assert {d.details.keys() >= {"map_ms", "route_ms", "infer_ms"} for d in decisions} == {True}


@pytest.mark.parametrize("part", [0.999, 0.9, 0.5, 0.25])
def test_a_truncated_log_gives_what_is_whole_and_says_so(arrival: RunReport, log_copy: Path, part: float) -> None:
    whole = read_log(arrival.log)
    data = log_copy.read_bytes()
    log_copy.write_bytes(data[: int(part * len(data))])
    log = read_log(log_copy)
    assert log.damage.startswith("truncated: ")
    assert log.entries == whole.entries[: len(log.entries)]
    assert log.run == whole.run
    if part > 0.4:
        assert log.entries


def test_every_truncation_is_read_or_refused_in_one_line(log_copy: Path) -> None:
    data = log_copy.read_bytes()
    last = -1
    for end in [*range(0, 64), *range(64, len(data), max(1, len(data) // 60)), len(data) - 1]:
        log_copy.write_bytes(data[:end])
        if end < 8:
            with pytest.raises(LogError, match="MCAP"):
                read_log(log_copy)
            continue
        log = read_log(log_copy)
        assert log.damage.startswith("truncated")
        assert len(log.entries) >= last
        last = len(log.entries)


def test_a_flipped_bit_is_noticed(log_copy: Path) -> None:
    data = log_copy.read_bytes()
    whole = len(read_log(log_copy).entries)
    chooser = random.Random(0)
    noticed = 0
    for _ in range(40):
        # Inside the data: flips in the index at the end concern readers that seek.
        at = chooser.randrange(3000, len(data) // 2)
        changed = bytearray(data)
        changed[at] ^= 1 << chooser.randrange(8)
        log_copy.write_bytes(bytes(changed))
        try:
            log = read_log(log_copy)
        except LogError as error:
            assert "\n" not in str(error)
            noticed += 1
            continue
        noticed += bool(log.damage)
        if not log.damage:  # a flip in a chunk's index or in a time
            assert len(log.entries) == whole
    assert noticed >= 25  # chunks are most of the file; the rest is index


def test_a_log_cut_before_its_run_says_so(log_copy: Path) -> None:
    log_copy.write_bytes(log_copy.read_bytes()[:90])
    with pytest.raises(LogError, match=r"truncated: 0 messages whole, .* of a file of 90 bytes"):
        _ = read_log(log_copy).run


def test_a_log_in_use_is_refused_and_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, RecorderConfig(), {"bundle": "b"})
    writer.write(event(0), 0)
    (tmp_path / "link.mcap").symlink_to(path)
    for name in ("a.mcap", "link.mcap"):
        for claim in (check_log_path, LogFile):
            with pytest.raises(LogError, match=f"{name}: in use by another run; choose another path"):
                claim(tmp_path / name)
    writer.close()
    assert read_log(path).of(wire.EventMsg) == [event(0)]
    check_log_path(path)  # and it is free again


def test_a_claimed_log_that_is_given_up_is_as_it_was(tmp_path: Path) -> None:
    older, new = tmp_path / "older.mcap", tmp_path / "folder" / "new.mcap"
    older.write_bytes(b"an earlier run")
    for path in (older, new):
        LogFile(path).give_up()
    assert older.read_bytes() == b"an earlier run"
    assert not new.exists()


def test_an_older_log_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"x" * 100_000)
    LogWriter(path, RecorderConfig(), {"bundle": "b"}).close()
    assert read_log(path).damage == ""
    assert path.stat().st_size < 100_000


def test_recover_makes_a_whole_log_of_a_truncated_one(log_copy: Path, tmp_path: Path) -> None:
    data = log_copy.read_bytes()
    log_copy.write_bytes(data[: len(data) * 2 // 3])
    damaged = read_log(log_copy)
    found = recover(log_copy, tmp_path / "whole.mcap")
    recovered = read_log(tmp_path / "whole.mcap")
    assert found.topics["/decision"] == len(damaged.of(wire.DecisionMsg)) > 0
    assert found.messages == sum(found.topics.values())
    assert found.damage == damaged.damage
    assert recovered.damage == ""
    assert recovered.entries == damaged.entries
    assert recovered.run == damaged.run
    assert recovered.metadata["robonav.recovered"]["damage"] == found.damage


def test_recover_refuses_to_write_over_its_source(log_copy: Path) -> None:
    before = log_copy.read_bytes()
    with pytest.raises(LogError, match="another file"):
        recover(log_copy, log_copy)
    assert log_copy.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"# a text\n" * 50, b"\x89PNG\r\n\x1a\n" + b"\0" * 100])
def test_a_file_that_is_no_log_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(LogError, match="expected an MCAP log"):
        read_log(path)


def test_a_missing_log_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="No such file"):
        read_log(tmp_path / "none.mcap")


def test_a_full_disk_leaves_a_log_that_ends_with_a_whole_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, RecorderConfig(chunk_s=1e-9), {"bundle": "b"})
    for i in range(20):
        writer.write(event(i, 400), i)
    room = [150]

    def write_little(handle: int, data: memoryview) -> int:
        """A disk with `room` bytes left."""
        taken = min(room[0], len(data))
        if taken == 0:
            raise OSError(28, "No space left on device")
        room[0] -= taken
        return real_write(handle, data[:taken])

    real_write = log_file.os.write
    monkeypatch.setattr(log_file.os, "write", write_little)
    with pytest.raises(LogError, match="No space left") as error:
        writer.write(event(20, 4000), 20)
    assert "\n" not in str(error.value)
    writer.close()  # safe afterwards
    monkeypatch.undo()
    log = read_log(path)
    assert log.damage.startswith("truncated: 40 messages whole")  # each event and its line of text


def test_a_device_without_room_is_one_line() -> None:
    with pytest.raises(LogError, match="No space left"):
        LogWriter("/dev/full", RecorderConfig(), {})


@pytest.mark.realtime
def test_a_run_goes_on_when_the_log_finds_no_room(tiny_bundle: Path, tmp_path: Path) -> None:
    """A file-size limit stands for the full disk; the robot arrives, and the report says what became of the log."""
    script = textwrap.dedent("""
        import json, resource, sys
        from deploy.supervisor import run
        resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))
        report = run(sys.argv[1], "deploy.drivers:PointDriver", sys.argv[2], driver_kwargs={"goal_m": [1.5, 0.4]})
        print(json.dumps(report.to_json()))
    """)
    log = tmp_path / "small.mcap"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_bundle), str(log)],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["outcome"] == "success"
    assert report["stopped"]
    assert "log cut short" in report["log_error"]
    assert "\n" not in report["log_error"]
    assert "Traceback" not in done.stderr
    assert log.stat().st_size <= 24_000
    read = read_log(log)
    assert read.damage.startswith("truncated")
    assert read.of(wire.DecisionMsg)
