"""What a run remembers: resumed runs are bit-equal to uninterrupted ones, whatever ended them."""

from __future__ import annotations

import errno
import json
import multiprocessing as mp
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_env import SPEC, CountingFactory
from lives import full_config, live, run
from tiny import tiny_config

from robonav.config import to_mapping
from robonav.errors import CheckpointError, RobonavError
from robonav.learning.checkpoint import RESUME_FILE, WEIGHTS_FILE, load_agent, load_tensors, save_tensors
from robonav.learning.counters import Counters
from robonav.learning.trainer import Trainer, train


def assert_same(a: Trainer, b: Trainer) -> None:
    """Weights, optimisers, counters, random state and what replay gives."""
    ours, theirs = a.learner.state(), b.learner.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    mine, others = a.counters.mapping(), b.counters.mapping()
    assert {**mine, "elapsed_s": 0} == {**others, "elapsed_s": 0}
    assert a.rng.bit_generator.state == b.rng.bit_generator.state
    x, y = (t.replay.sample(np.random.default_rng(0), 20, 9, with_events=True) for t in (a, b))
    assert all(np.array_equal(x[name], y[name]) for name in x)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return run(full_config(20), tmp_path_factory.mktemp("whole"))


def test_a_resumed_run_with_experts_lost_sensors_and_replay_on_disk_is_the_uninterrupted_one(
    whole: Trainer, tmp_path: Path
) -> None:
    run(full_config(8), tmp_path)
    resumed = run(full_config(20), tmp_path, resume=True)
    assert_same(whole, resumed)
    batch = whole.replay.sample(np.random.default_rng(1), 40, 9)
    assert 0.2 < batch["labelled"].mean() < 0.8  # the expert spoke
    assert whole.replay.written > whole.replay.capacity  # the rings went round


def test_the_windows_of_success_a_scene_go_on(whole: Trainer, tmp_path: Path) -> None:
    windows = whole.counters.by_scene
    assert set(windows) == {"a", "b"}
    assert 0 < np.mean([won for window in windows.values() for won in window]) < 1
    run(full_config(12), tmp_path)
    saved = load_tensors(tmp_path / RESUME_FILE)[1]["counters"]
    assert sum(map(len, saved["by_scene"].values())) > 0
    resumed = run(full_config(20), tmp_path, resume=True)
    assert resumed.counters.by_scene == windows
    assert all(window.maxlen == 100 for window in resumed.counters.by_scene.values())
    shown = json.loads((tmp_path / "success.json").read_text())["by_scene"]
    assert {scene: n for scene, (_, n) in shown.items()} == {scene: len(won) for scene, won in windows.items()}
    assert Counters.of({k: v for k, v in saved.items() if k != "by_scene"}).by_scene == {}  # an older checkpoint


def live_and_be_killed(tmp_path: Path, rng: random.Random) -> int:
    """Lives of a run until it is over; how many of them were ended from outside."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["robonav.learning.trainer"])
    kills, lives = 0, 0
    while not (tmp_path / WEIGHTS_FILE).exists() or load_agent(tmp_path).info["updates"] < 20:
        lives += 1
        assert lives < 60
        process = context.Process(target=live, args=(str(tmp_path), 20, (tmp_path / RESUME_FILE).exists()))
        process.start()
        if kills < 4:
            before = (tmp_path / RESUME_FILE).stat().st_mtime_ns if (tmp_path / RESUME_FILE).exists() else 0
            while process.is_alive() and not _newer(tmp_path / RESUME_FILE, before):
                time.sleep(0.002)
            time.sleep(rng.random() * 0.5)  # somewhere between this checkpoint and the ones that follow
            kills += process.is_alive()
            process.kill()
        process.join()
    return kills


def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(whole: Trainer, tmp_path: Path) -> None:
    rng = random.Random(1)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if live_and_be_killed(folder, rng):  # on a busy machine its first life may end before it can be killed
            break
    else:
        pytest.fail("no life was ended")
    (folder / ".resume-abc.safetensors").write_bytes(b"half")  # as a kill in the middle of a checkpoint leaves it
    (folder / ".tmpA1b2C3").write_bytes(b"half")  # and in the middle of one of safetensors' own writes
    assert_same(whole, run(full_config(20), folder, resume=True))
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("left", ["older", "none"])
def test_a_run_killed_between_the_two_files_of_a_checkpoint_writes_the_weights_on_resume(
    whole: Trainer, tmp_path: Path, left: str
) -> None:
    weights = tmp_path / WEIGHTS_FILE
    run(full_config(12), tmp_path)
    before = weights.read_bytes()
    run(full_config(20), tmp_path, resume=True)
    weights.unlink()
    if left == "older":
        weights.write_bytes(before)
    run(full_config(20), tmp_path, resume=True)  # nothing is left to learn
    found = load_agent(tmp_path)
    assert found.info["updates"] == 20
    average = whole.average.state_dict()
    assert all(torch.equal(value, average[name]) for name, value in found.agent.state_dict().items())


def _newer(path: Path, before: int) -> bool:
    return path.exists() and path.stat().st_mtime_ns > before


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, saves = os.fsync, []

    def full(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        if name.startswith(f".{Path(RESUME_FILE).stem}"):
            saves.append(name)
            if len(saves) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RobonavError, match=r"resume\.safetensors: cannot write \(No space left on device\)"):
            run(full_config(20), tmp_path)
    assert load_agent(tmp_path).info["updates"] == 4
    assert not list(tmp_path.glob(".*"))
    assert run(full_config(20), tmp_path, resume=True).counters.updates == 20


@pytest.mark.parametrize("file", ["progress.csv", "success.json"])
def test_a_full_disk_between_checkpoints_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    run(tiny_config(4), tmp_path)
    opened = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == file or (file.endswith("json") and self.name.startswith(f".{Path(file).stem}")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(RobonavError, match="No space left on device") as error:
            run(tiny_config(8), tmp_path, resume=True)
    assert "\n" not in str(error.value)
    assert load_agent(tmp_path).info["updates"] == 4


def test_the_command_ends_with_one_line_and_status_2_on_a_full_disk(tmp_path: Path, root: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    code = f"import sys; sys.path[:0] = {[str(root), str(root / 'tests/learning')]!r}; import lives; "
    code += f"lives.live_on_a_small_disk({str(tmp_path)!r}, 60_000)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("robonav:")]
    assert ended.returncode == 2, ended
    assert len(lines) == 1
    assert "File too large" in lines[0]
    assert "Traceback" not in ended.stdout


def test_a_full_disk_met_by_tensorboards_thread_is_told_by_the_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", full)
        with pytest.raises(RobonavError, match=r"No space left on device.*goes on with --resume"):
            run(tiny_config(8), tmp_path)
    assert "Traceback" not in capfd.readouterr().err


def test_keys_that_a_checkpoint_does_not_know_had_their_defaults(tmp_path: Path) -> None:
    run(tiny_config(4), tmp_path)
    tensors, about = load_tensors(tmp_path / RESUME_FILE)
    for place in (about["config"], about["config"]["agent"]["model"], about["config"]["agent"]["model"]["encoder"]):
        for key in ("device", "evaluation", "posterior", "flow"):
            place.pop(key, None)
    save_tensors(tmp_path / RESUME_FILE, tensors, about)
    assert run(tiny_config(8), tmp_path, resume=True).counters.updates == 8
    other = tiny_config(12)
    model = replace(other.agent.model, posterior="sequential")
    with pytest.raises(CheckpointError, match="'agent' differs"):
        run(replace(other, agent=replace(other.agent, model=model)), tmp_path, resume=True)


def test_how_it_is_computed_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    run(tiny_config(4), tmp_path)
    changed = replace(tiny_config(8), precision="bfloat16", device="auto", threads=1)
    assert run(changed, tmp_path, resume=True).counters.updates == 8


def test_no_worker_is_the_single_process(tmp_path: Path) -> None:
    config = tiny_config(6)
    alone = replace(config, collect=replace(config.collect, workers=0))
    assert alone.streams == config.streams
    a = train(alone, SPEC, CountingFactory(), tmp_path / "a")
    b = run(replace(config, kickstart=config.kickstart), tmp_path / "b")
    assert_same(a, b)
    assert to_mapping(a.config)["collect"]["workers"] == 0
    assert mp.active_children() == [] or all("resource" in p.name for p in mp.active_children())


def test_replay_of_another_layout_is_refused(tmp_path: Path) -> None:
    run(full_config(4), tmp_path)
    with pytest.raises(CheckpointError, match="capacity: expected 45, got 40; resume with the same config"):
        run(replace(full_config(8), replay_steps=90), tmp_path, resume=True)
