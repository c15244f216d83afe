"""What the benchmark of training measures: every part, both models, a ratio with its interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from counting_env import SPEC, CountingFactory
from tiny import tiny_config

from robonav.cli import bench
from robonav.errors import ConfigError, RobonavError
from robonav.learning.bench import PartClock, mean_ratio, measure_training
from robonav.learning.learner import PARTS


def test_figures_add_up() -> None:
    told: list[str] = []
    figures = measure_training(tiny_config(), SPEC, CountingFactory(), 2, 2, 300, told.append)
    for name in ("parallel", "sequential"):
        part = figures[name]
        assert set(part["parts"]) == set(part["cpu_parts"]) == set(PARTS)
        assert all(seconds > 0 for seconds in part["parts"].values())
        assert 0.5 * part["seconds"] < sum(part["parts"].values()) < 1.5 * part["seconds"]
    assert figures["sequential"]["parameters"] == pytest.approx(figures["parallel"]["parameters"], rel=0.05)
    for unit in ("seconds", "cpu_seconds"):
        ratio = figures["ratio"][unit]["update"]
        assert ratio["low"] <= ratio["mean"] <= ratio["high"]
    assert figures["collect"]["steps_per_s"] > 0
    memory = figures["memory_mb"]
    assert 0 < memory["anonymous"] < memory["rss"] <= memory["peak_rss"]
    assert told[:2] == ["collection", "replay of 300 steps on disk"]


def test_a_mean_ratio_and_its_interval_follow_the_textbook() -> None:
    assert mean_ratio([2.0]) == {"mean": 2.0, "low": None, "high": None}
    even = mean_ratio([1.0, 4.0])  # logs 0 and 1.386, their standard error 0.693, t = 12.71
    assert even["mean"] == pytest.approx(2.0)
    assert even["high"] == pytest.approx(2.0 * 2.0**12.71, rel=1e-3)
    assert even["low"] * even["high"] == pytest.approx(4.0, rel=0.02)


def test_the_clock_sums_what_is_inside() -> None:
    clock = PartClock()
    for _ in range(2):
        with clock("dream"):
            sum(range(200_000))
    assert clock.wall["dream"] >= clock.cpu["dream"] * 0.5 > 0
    assert clock.wall["backward"] == 0


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--updates", "0"], "--updates: expected at least 1, got 0"),
        (["--rounds", "-1"], "--rounds: expected at least 1"),
        (["--threads", "0"], "--threads: expected at least 1"),
        (["--replay-steps", "100"], "--replay-steps: expected at least 4096"),
        (["--preset", "generol"], "no preset 'generol'; did you mean 'general'?"),
        (["--update", "3"], "unknown option '--update'"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], line: str) -> None:
    with pytest.raises(RobonavError) as error:
        bench.main(["train", *argv])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RobonavError, match="No space left on device"):
        measure_training(tiny_config(), SPEC, CountingFactory(), 1, 1, 300)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]  # torch's own


def test_a_control_that_cannot_be_is_a_config_error() -> None:
    model = tiny_config().agent.model
    with pytest.raises(ConfigError, match="posterior"):
        from robonav.config import override

        override(model, {"posterior": "both"})
    assert replace(model, posterior="sequential").posterior == "sequential"
