"""Recovery: whatever happens to a log's bytes, what is whole comes back as it was, and what is missing is told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import log_damage
import pytest

from deploy import wire
from deploy.log_messages import BeliefMsg, MapMsg
from deploy.log_reader import Entry, Log, read_log, recover
from robonav.cli import recover as command
from robonav.errors import LogError

TICKS = 40


class Original(NamedTuple):
    finished: bytes
    killed: bytes  # without report and index
    log: Log

    def entries(self) -> dict[tuple[str, int], Entry]:
        return {(e.topic, e.sequence): e for e in self.log.entries}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    folder = tmp_path_factory.mktemp("logs")
    log_damage.write_log(folder / "finished.mcap", TICKS)
    finished = (folder / "finished.mcap").read_bytes()
    end = next(begin for opcode, begin, _ in reversed(list(log_damage.records(finished))) if opcode == 6)
    last_index = next(begin for opcode, begin, _ in log_damage.records(finished) if begin > end and opcode != 7)
    return Original(finished, finished[:last_index], read_log(folder / "finished.mcap"))


def without_depth(message: Any) -> Any:
    return wire.msgspec.structs.replace(message, depth_m=None) if isinstance(message, wire.ObservationMsg) else message


def check_honest(log: Log, original: Original) -> None:
    """Everything in the log was in the original, in its order, and what is missing is told."""
    entries = original.entries()
    for entry in log.entries:
        was = entries[entry.topic, entry.sequence]
        assert entry == was or (
            log.damage and entry.message.depth_m is None and entry.message == without_depth(was.message)
        )
    keys = [(e.topic, e.sequence) for e in log.entries]
    assert keys == [key for key in entries if key in set(keys)]
    for name, values in log.metadata.items():
        assert values == original.log.metadata[name]
    if len(keys) < len(entries) or len(log.metadata) < len(original.log.metadata):
        assert log.damage


def check_fuzzed(original: Original, folder: Path, number: int) -> bool:
    """One damaged log; whether it could be read."""
    chooser = random.Random(number)
    kind = log_damage.KINDS[number % len(log_damage.KINDS)]
    data = original.finished if chooser.random() < 0.5 else original.killed
    path, whole = folder / "damaged.mcap", folder / "whole.mcap"
    path.write_bytes(kind(data, chooser))
    try:
        log = read_log(path)
    except LogError as error:
        assert "\n" not in str(error)
        with pytest.raises(LogError, match="expected an MCAP log"):
            recover(path, whole)
        return False
    check_honest(log, original)
    found = recover(path, whole)
    again = read_log(whole)
    assert (again.damage, again.entries) == ("", log.entries)
    assert found.damage == log.damage
    assert {name: v for name, v in again.metadata.items() if name != "robonav.recovered"} == log.metadata
    return True


def test_damaged_logs_are_recovered_or_refused(original: Original, tmp_path: Path) -> None:
    read = sum(check_fuzzed(original, tmp_path, number) for number in range(60))
    assert read >= 55  # refused are those that were cut inside their first eight bytes


@pytest.mark.slow
def test_a_thousand_damaged_logs_are_recovered_or_refused(original: Original, tmp_path: Path) -> None:
    assert sum(check_fuzzed(original, tmp_path, number) for number in range(1000)) >= 950


@pytest.mark.parametrize("damage", ["flip", "zero length", "opcode"])
def test_damage_in_the_middle_costs_one_chunk(original: Original, tmp_path: Path, damage: str) -> None:
    chunks = [(begin, end) for opcode, begin, end in log_damage.records(original.killed) if opcode == 6]
    begin, end = chunks[3]
    data = bytearray(original.killed)
    if damage == "flip":
        data[(begin + end) // 2] ^= 1
    elif damage == "zero length":
        data[begin + 1 : begin + 9] = bytes(8)
    else:
        data[begin] = 200
    path = tmp_path / "a.mcap"
    path.write_bytes(data)
    log = read_log(path)
    kept = [m.sequence for m in log.of(wire.DecisionMsg)]
    assert len(kept) == TICKS - log_damage.TICKS_A_CHUNK
    assert log.lost["/decision"] == log.lost["/observation"] == log.lost["/belief"] == log_damage.TICKS_A_CHUNK
    assert log.lost_s > 0
    assert "lost" in log.damage
    check_honest(log, original)


def test_the_index_tells_what_is_lost_at_the_end(original: Original, tmp_path: Path) -> None:
    chunks = [(begin, end) for opcode, begin, end in log_damage.records(original.finished) if opcode == 6]
    data = bytearray(original.finished)
    for begin, end in chunks[-2:]:
        data[(begin + end) // 2] ^= 1
    path = tmp_path / "a.mcap"
    path.write_bytes(data)
    log = read_log(path)
    assert log.lost["/decision"] == TICKS - len(log.of(wire.DecisionMsg)) == 2 * log_damage.TICKS_A_CHUNK
    assert log.metadata["robonav.report"] == original.log.metadata["robonav.report"]


def test_the_first_chunk_holds_the_schemas_and_the_index_repeats_them(original: Original, tmp_path: Path) -> None:
    data = bytearray(original.finished)
    begin, end = next((b, e) for opcode, b, e in log_damage.records(original.finished) if opcode == 6)
    data[(begin + end) // 2] ^= 1
    path = tmp_path / "a.mcap"
    path.write_bytes(data)
    log = read_log(path)
    assert len(log.of(wire.DecisionMsg)) == TICKS - log_damage.TICKS_A_CHUNK
    check_honest(log, original)


def test_metadata_that_changed_are_no_metadata(original: Original, tmp_path: Path) -> None:
    data = original.killed.replace(b"seed\x01\x00\x00\x003", b"seed\x01\x00\x00\x004")
    assert data != original.killed
    path = tmp_path / "a.mcap"
    path.write_bytes(data)
    log = read_log(path)
    assert "robonav.run" not in log.metadata
    assert log.damage
    assert len(log.of(wire.DecisionMsg)) == TICKS


def test_what_is_logged_beside_the_wire_comes_back(original: Original) -> None:
    assert len(original.log.of(BeliefMsg)) == TICKS
    beliefs, maps = original.log.of(BeliefMsg), original.log.of(MapMsg)
    assert {len(wire.unpack_array(b.state["memory"], "memory")) for b in beliefs} == {192}
    assert [m.occupancy.shape for m in maps] == [(96, 96)] * len(maps) != []
    assert {0, 255} == set(maps[0].occupancy.ravel().tolist())


def test_the_command_tells_what_was_saved_and_lost(
    original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks = [(begin, end) for opcode, begin, end in log_damage.records(original.finished) if opcode == 6]
    data = bytearray(original.finished)
    data[sum(chunks[2]) // 2] ^= 1
    path, whole = tmp_path / "a.mcap", tmp_path / "whole.mcap"
    path.write_bytes(data)
    assert command.main([str(path), str(whole)]) == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.startswith("/decision"))
    assert row == ["/decision", str(TICKS - log_damage.TICKS_A_CHUNK), str(log_damage.TICKS_A_CHUNK)]
    assert command.main([str(whole), str(tmp_path / "again.mcap")]) == 0
    assert "was whole" in capsys.readouterr().out
