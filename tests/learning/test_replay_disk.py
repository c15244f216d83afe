"""Replay on disk outlives its process, refuses what is not its own, and keeps memory flat."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_env import SPEC
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_reference import (
    CAPACITY,
    LENGTH,
    SLACK,
    SMALL,
    STREAMS,
    Reference,
    chunk,
    load_state,
    open_replay,
)

from robonav.errors import CheckpointError, RobonavError, ShapeError
from robonav.learning import replay_store
from robonav.learning.replay import Replay, ReplayConfig


def same(a: Replay, b: Replay, seed: int = 0) -> bool:
    x, y = (r.sample(np.random.default_rng(seed), 30, 9, with_events=True) for r in (a, b))
    return all(np.array_equal(x[name], y[name]) for name in x)


OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 25)),
    st.tuples(st.sampled_from(["checkpoint", "checkpoint without commit", "resume", "reopen"]), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(
    operations=st.lists(OPERATIONS, min_size=1, max_size=14),
    capacity=st.integers(3, 30),
    slack=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_any_life_gives_what_the_checkpoint_held_or_says_that_it_is_gone(
    operations: list[tuple[str, int]], capacity: int, slack: int, seed: int
) -> None:
    """Lives differ in what they add, so a step of another life would be seen."""
    with tempfile.TemporaryDirectory() as folder:

        def opened() -> Replay:
            return Replay(SMALL, 2, capacity, Path(folder), slack=slack)

        replay, reference, rng = opened(), Reference(2), np.random.default_rng(seed)
        written = oldest = committed = reach = life = 0
        checkpoint: dict[str, np.ndarray] | None = None
        saved, saved_oldest, safe = Reference(2), 0, Reference(2)
        for what, steps in operations:
            if what == "add":
                replay.add(chunk(2, written, steps, life))
                reference.add(chunk(2, written, steps, life))
                written += steps
            elif what.startswith("checkpoint"):
                if what == "checkpoint":
                    replay.commit()
                    committed = written
                    safe.steps = [list(s) for s in reference.steps]
                checkpoint = {name: values.copy() for name, values in replay.state().items()}
                saved.steps, saved_oldest = [list(s) for s in reference.steps], oldest
            else:
                del replay
                replay, life = opened(), life + 1
                written, reference.steps = committed, [list(s) for s in safe.steps]
                if what == "resume" and checkpoint is not None:
                    if reach - (capacity + slack) > saved_oldest:
                        with pytest.raises(CheckpointError, match="overwrote"):
                            replay.restore(checkpoint)
                        return
                    replay.restore(checkpoint)
                    written, reference.steps = len(saved.steps[0]), [list(s) for s in saved.steps]
                    committed, safe.steps = written, [list(s) for s in saved.steps]
            reach = max(reach, written)
            oldest = min(written, max(0, written - capacity, reach - capacity - slack))
            assert (replay.written, replay.oldest) == (written, oldest)
            if written > oldest:
                length = int(rng.integers(1, written - oldest + 1))
                reference.check(replay.sample(rng, 8, length, with_events=True), oldest, written)


LIFE = "import sys, pathlib, replay_reference as r; r.live(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
PATHS = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])


def check_after_a_kill(folder: Path) -> int:
    """Opened without and with the checkpoint, every sequence is what was added; returns the checkpoint's step."""
    replay = open_replay(folder / "replay")
    seen = int(load_state(folder)["replay.written"][0])
    assert replay.written in (seen, seen + SLACK)
    reference, lived = Reference(STREAMS), Replay(SMALL, STREAMS, CAPACITY)
    reference.add(chunk(STREAMS, 0, seen + SLACK))
    plain = replay.sample(np.random.default_rng(0), 100, LENGTH, with_events=True)
    reference.check(plain, replay.oldest, replay.written)
    replay.restore(load_state(folder))
    assert (replay.written, replay.held) == (seen, min(seen, CAPACITY))
    for seed in range(5):
        batch = replay.sample(np.random.default_rng(seed), 100, LENGTH, with_events=True)
        reference.check(batch, seen - replay.held, seen)
    lived.add(chunk(STREAMS, 0, seen))
    assert same(replay, lived), "the index of events included"
    return seen


def test_a_process_killed_at_any_time_resumes_exactly_where_its_checkpoint_was(tmp_path: Path) -> None:
    rng, seen = np.random.default_rng(0), 0
    for round_ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", LIFE, str(tmp_path), "0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PATHS},
        )
        assert child.stdout is not None
        for _ in range(3 + round_):
            assert child.stdout.readline(), "the life ended by itself"
        time.sleep(rng.uniform(0, 0.02))
        child.kill()
        child.communicate()
        before, seen = seen, check_after_a_kill(tmp_path)
        assert seen > before
    assert seen > 2 * (CAPACITY + SLACK)


@pytest.mark.parametrize("maps", [23, 27])
def test_a_process_killed_inside_an_add_resumes_exactly_where_its_checkpoint_was(tmp_path: Path, maps: int) -> None:
    environment = {**os.environ, "PYTHONPATH": PATHS}
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", LIFE, str(tmp_path), str(maps)], env=environment)
        assert killed.returncode == -signal.SIGKILL
        seen = check_after_a_kill(tmp_path)
        reach = int(np.load(tmp_path / "replay" / "reach.npy")[0])
        assert seen < reach <= seen + SLACK, "it was adding"
    assert seen > CAPACITY + SLACK


def filled(folder: Path, steps: int = 40) -> Replay:
    replay = Replay(SMALL, 2, 20, folder, slack=6)
    replay.add(chunk(2, 0, steps))
    replay.commit()
    return replay


def test_more_than_the_slack_after_the_checkpoint_is_said(tmp_path: Path) -> None:
    replay = filled(tmp_path)
    state = replay.state()
    replay.add(chunk(2, 40, 6))
    Replay(SMALL, 2, 20, tmp_path, slack=6).restore(state)
    replay = Replay(SMALL, 2, 20, tmp_path, slack=6)
    replay.add(chunk(2, 40, 7))
    with pytest.raises(
        CheckpointError, match="at most 6 steps a stream after the checkpoint, got 7, which overwrote 1"
    ):
        Replay(SMALL, 2, 20, tmp_path, slack=6).restore(state)


def test_what_was_committed_after_the_checkpoint_is_forgotten_with_it(tmp_path: Path) -> None:
    replay = filled(tmp_path)
    state = replay.state()
    replay.add(chunk(2, 40, 5))
    replay.commit()
    replay.restore(state)
    replay.add(chunk(2, 40, 3, life=1))
    del replay  # killed: without a commit, the steps of either life after the checkpoint count for nothing
    again, whole = Replay(SMALL, 2, 20, tmp_path, slack=6), Replay(SMALL, 2, 20)
    whole.add(chunk(2, 0, 40))
    assert again.written == 40
    assert same(again, whole)


def test_a_checkpoint_of_another_run_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    replay, other = filled(tmp_path / "a"), Replay(SMALL, 2, 20, tmp_path / "b", slack=6)
    other.add(chunk(2, 0, 40, life=1))
    with pytest.raises(CheckpointError, match="the steps of the checkpoint, got others"):
        replay.restore(other.state())
    other.add(chunk(2, 40, 1))
    with pytest.raises(CheckpointError, match="expected 41 steps a stream, got 40"):
        replay.restore(other.state())
    in_memory = Replay(SMALL, 2, 20)
    in_memory.add(chunk(2, 0, 40))
    with pytest.raises(ShapeError, match="resume with the same config"):
        replay.restore(in_memory.state())
    with pytest.raises(ShapeError, match=r"scan_m.*got nothing"):
        in_memory.restore(replay.state())
    assert same(replay, in_memory)
    assert replay.state().keys() == {"replay.written", "replay.oldest", "replay.check"}


def test_a_cleared_replay_is_empty_and_no_longer_the_checkpoints(tmp_path: Path) -> None:
    replay = filled(tmp_path)
    state = replay.state()
    replay.clear()
    assert len(replay) == 0
    replay = Replay(SMALL, 2, 20, tmp_path, slack=6)
    assert len(replay) == 0
    with pytest.raises(CheckpointError, match="expected 40 steps a stream, got 0"):
        replay.restore(state)
    replay.add(chunk(2, 0, 15, life=2))
    fresh = Replay(SMALL, 2, 20)
    fresh.add(chunk(2, 0, 15, life=2))
    assert same(replay, fresh)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"streams": 3}, "streams: expected 3, got 2"),
        ({"capacity": 21}, "capacity: expected 21, got 20"),
        ({"slack": 7}, "slack: expected 7, got 6"),
        ({"spec": SPEC}, "array scan_m"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    filled(tmp_path)
    wanted: dict[str, Any] = {"spec": SMALL, "streams": 2, "capacity": 20, "slack": 6, **change}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=rf"replay\.json: {line}.*another folder"):
        Replay(folder=tmp_path, **wanted)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["scan_m.npy", "event.npy", "reach.npy", "replay.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "empty", "header"])
def test_a_damaged_folder_is_one_line_and_left_as_it_is(tmp_path: Path, name: str, damage: str) -> None:
    filled(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"short": data[:-1] if name[-1] == "y" else data[:40], "empty": b""}.get(damage, b"?" + data))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=name) as error:
        Replay(SMALL, 2, 20, tmp_path, slack=6)
    assert "\n" not in str(error.value)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": "robonav-replay-0"}, "format robonav-replay-1"),
        ({"written": "many"}, "written: expected a number"),
        ({"complete": 3}, "complete"),
        ({"array more": [1]}, "array more"),
    ],
)
def test_a_layout_file_of_another_kind_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    filled(tmp_path)
    path = tmp_path / "replay.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=line):
        Replay(SMALL, 2, 20, tmp_path, slack=6)
    path.write_text("[]")
    with pytest.raises(CheckpointError, match="format robonav-replay-1, got no mapping"):
        Replay(SMALL, 2, 20, tmp_path, slack=6)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_when_the_files_are_made_is_one_line_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full_disk)
        with pytest.raises(RobonavError, match=r"No space left on device\); free some space"):
            Replay(SMALL, 2, 20, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert len(Replay(SMALL, 2, 20, tmp_path)) == 0


def test_files_are_allocated_whole_also_where_a_copy_left_zeros_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = Replay(SMALL, 2, 20_000, tmp_path)
    path = tmp_path / "scan_m.npy"
    size = path.stat().st_size
    assert path.stat().st_blocks * 512 >= size
    replay.add(chunk(2, 0, 30))
    replay.commit()
    data = path.read_bytes()
    path.unlink()
    with path.open("wb") as stream:  # a sparse copy
        stream.write(data[:4096])
        stream.truncate(size)
    assert path.stat().st_blocks * 512 < size
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full_disk)
        with pytest.raises(RobonavError, match="No space left"):
            Replay(SMALL, 2, 20_000, tmp_path)
    assert len(Replay(SMALL, 2, 20_000, tmp_path)) == 60
    assert path.stat().st_blocks * 512 >= size
    assert path.read_bytes()[:4096] == data[:4096]


@pytest.mark.parametrize("when", ["flush", "counter"])
def test_a_full_disk_at_a_commit_leaves_the_last_one_standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    replay = filled(tmp_path)
    replay.add(chunk(2, 40, 5))
    with monkeypatch.context() as patch:
        if when == "flush":
            patch.setattr(np.memmap, "flush", full_disk)
        else:
            patch.setattr(os, "fsync", full_disk)
        with pytest.raises(RobonavError, match="No space left on device"):
            replay.commit()
    again = Replay(SMALL, 2, 20, tmp_path, slack=6)
    assert again.written == 40
    assert again.held == 20
    replay.commit()
    assert Replay(SMALL, 2, 20, tmp_path, slack=6).written == 45


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RobonavError, match="file"):
        Replay(SMALL, 2, 20, tmp_path / "file")
    with pytest.raises(RobonavError, match="file"):
        Replay(SMALL, 2, 20, tmp_path / "file" / "below")


def test_files_whose_making_was_interrupted_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def killed(path: Path) -> None:
        made.append(path)
        if len(made) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(replay_store, "_allocate", killed)
        with pytest.raises(KeyboardInterrupt):
            Replay(SMALL, 2, 20, tmp_path)
    assert len(Replay(SMALL, 2, 20, tmp_path)) == 0
    assert len(Replay(SMALL, 2, 20, tmp_path)) == 0


MEMORY = """
import sys
import numpy as np
from pathlib import Path
from replay_reference import SMALL, chunk
from robonav.learning.replay import Replay

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("Anonymous:"))

part = chunk(4, 0, 5000)
part["event"][:] = 0
part["event"][:, ::50] = 2
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
before = anonymous()
replay = Replay(SMALL, 4, 250_000, folder, slack=5000 if folder else 0)
for _ in range(53):
    replay.add(part)
replay.commit()
replay.state()
for seed in range(300):
    replay.sample(np.random.default_rng(seed), 16, 64)
assert len(replay) == 1_000_000
print(anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's account of memory")
def test_memory_stays_flat_with_a_million_steps(tmp_path: Path) -> None:
    """Anonymous memory, since mapped files count as resident though they are page cache that can be dropped."""

    def grown(*where: str) -> int:
        environment = {**os.environ, "PYTHONPATH": PATHS}
        out = subprocess.run([sys.executable, "-c", MEMORY, *where], capture_output=True, text=True, env=environment)
        assert out.returncode == 0, out.stderr
        return int(out.stdout)

    assert grown() > 150, "MB; what the same steps take in memory"
    assert grown(str(tmp_path)) < 20


def test_rare_sequences_come_back_after_a_reopening(tmp_path: Path) -> None:
    filled(tmp_path)
    again = Replay(SMALL, 2, 20, tmp_path, ReplayConfig(recent=0, rare=1), slack=6)
    assert (again.sample(np.random.default_rng(0), 50, 4, with_events=True)["event"] > 0).any(axis=1).all()
