"""A run folder has one trainer, and a signal ends a run with a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from counting_env import SPEC, CountingFactory, counting_expert
from lives import full_config, run

from robonav.errors import CheckpointError
from robonav.learning.checkpoint import RESUME_FILE, load_agent
from robonav.learning.collector import InProcessPool
from robonav.learning.run_guard import Interruption, interruption, sole_trainer
from robonav.learning.trainer import Trainer, train

HOLD = """
import sys, time
from pathlib import Path
from robonav.learning.run_guard import sole_trainer
with sole_trainer(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that trains in the folder, as far as the lock knows."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_a_second_trainer_is_told_who_is_in_and_changes_nothing(tmp_path: Path) -> None:
    first = holder(tmp_path)
    try:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(CheckpointError, match=rf"process {first.pid} trains in this folder already") as error:
            run(full_config(4), tmp_path)
        assert "\n" not in str(error.value)
        assert sorted(tmp_path.iterdir()) == before
    finally:
        first.kill()
        first.wait()
    assert run(full_config(4), tmp_path).counters.updates == 4  # a killed process holds nothing


def test_a_folder_is_free_again_when_a_run_has_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_trainer(tmp_path):
        raise ZeroDivisionError
    with sole_trainer(tmp_path):
        assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"


@pytest.fixture
def heard() -> Iterator[None]:
    """Both signals as in a terminal, whatever started the tests: a shell's background jobs ignore SIGINT."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_one_raises(number: signal.Signals, heard: None) -> None:
    with interruption() as noted:
        assert not noted.wanted and noted.status == 0
        os.kill(os.getpid(), number)
        assert noted.wanted
        assert (noted.name, noted.status) == (number.name, 128 + number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_a_shell_ignores_for_its_background_jobs_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption() as noted:
            os.kill(os.getpid(), signal.SIGINT)
            assert not noted.wanted
            os.kill(os.getpid(), signal.SIGTERM)
            assert noted.wanted
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_hears_none() -> None:
    found: list[Interruption] = []

    def elsewhere() -> None:
        with interruption() as noted:
            found.append(noted)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(found) == 1 and not found[0].wanted


class Terminating(InProcessPool):
    """Gets a SIGTERM in the middle of its fifth chunk."""

    chunks = 0

    def request(self, *args: object) -> None:
        self.chunks += 1
        if self.chunks == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        super().request(*args)  # type: ignore[arg-type]


def interrupted_run(folder: Path) -> Trainer:
    return train(full_config(200), SPEC, CountingFactory(), folder, False, Terminating, counting_expert)


def test_a_signal_ends_a_run_with_a_checkpoint_from_which_it_goes_on(tmp_path: Path) -> None:
    ended = interrupted_run(tmp_path)
    at = ended.counters.updates
    assert 0 < at < 20
    assert ended.interruption.wanted
    assert load_agent(tmp_path).info["updates"] == at
    resumed = run(full_config(at), tmp_path, resume=True)  # nothing is left to do: this is the checkpoint
    ours, theirs = ended.learner.state(), resumed.learner.state()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert run(full_config(20), tmp_path, resume=True).counters.updates == 20


def test_the_command_ends_by_sigterm_with_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, root: Path) -> None:
    code = f"import sys; sys.path[:0] = {[str(root), str(root / 'tests/learning')]!r}; import lives; "
    code += f"lives.live_as_the_command({str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    begin = time.monotonic()
    while not (tmp_path / RESUME_FILE).exists() and time.monotonic() - begin < 120:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, told
    at = load_agent(tmp_path).info["updates"]
    assert 0 < at < 100_000
    expected = f"robonav: ended by SIGTERM after {at} updates; --resume --out {tmp_path} goes on"
    assert told.splitlines()[-1] == expected
    assert "Traceback" not in told


def test_a_run_that_ends_before_its_first_update_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from robonav.cli.train import TrainArgs, _ended_early

    class AtOnce(Terminating):
        chunks = 4

    config = full_config(200)
    config = replace(config, collect=replace(config.collect, prefill=1000))
    ended = train(config, SPEC, CountingFactory(), tmp_path, False, AtOnce, counting_expert)
    assert ended.counters.updates == 0 and not (tmp_path / RESUME_FILE).exists()
    assert _ended_early(TrainArgs(out=tmp_path), ended) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.endswith("ended by SIGTERM after 0 updates; nothing was learnt yet\n")
