"""The simulator's benchmark reports what it says, without a claim about time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robonav.cli import bench as command
from robonav.errors import ConfigError
from sim import bench
from sim.bench import PARTS, measure


def test_measures_single_environments() -> None:
    said: list[str] = []
    figures = measure(["lidar", "lidar_depth", "legged"], seconds=0.15, rounds=2, report=said.append)
    parts = {"lidar", "lidar_depth", "legged"}
    for key in ("steps_per_s", "interval", "cpu_per_s", "without_resets_per_s", "step_ms_p50", "share"):
        assert set(figures[key]) == parts, key
    for name in parts:
        low, high = figures["interval"][name]
        assert 0 < low <= figures["steps_per_s"][name] <= high
        assert figures["without_resets_per_s"][name] >= figures["steps_per_s"][name]
        assert 0 < figures["step_ms_p50"][name] <= figures["step_ms_p99"][name]
        share = figures["share"][name]
        assert sum(share.values()) == pytest.approx(1.0)
        assert all(value >= 0 for value in share.values())
        assert ("depth" in share) is (name == "lidar_depth")
        assert min(share["motion_and_contact"], share["lidar"], share["map_and_route"]) > 0
    assert figures["realtime"]["peak"] == pytest.approx(figures["interval"]["legged"][1] * 0.1)
    assert (figures["rounds"], figures["seconds"]) == (2, 0.15)
    assert len(said) == 6
    json.dumps(figures)


def test_measures_all_cores_against_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "VECTOR_ENVS", 4)
    figures = measure(["vector"], seconds=0.1, rounds=1, workers=2)
    vector = figures["vector"]
    assert (vector["workers"], vector["num_envs"]) == (2, 4)
    assert vector["ratio"] == pytest.approx(figures["steps_per_s"]["vector"] / vector["one_process"])
    low, high = vector["ratio_interval"]
    assert low == high == vector["ratio"]
    assert vector["cores"] >= 1


def test_the_batch_measures_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    figures = {"steps_per_s": 9000.0, "cpu_per_s": 9100.0, "batch": 256, "lidar_per_s": 2e4}
    figures |= {"scene_ms": 6.0, "compile_s": 1.0, "share": {"lidar": 1.0}}
    monkeypatch.setattr(bench, "_analytic", lambda *given: asked.append(given) or figures)
    got = measure(["analytic"], "empty", "a1", seconds=0.5, rounds=3)
    assert asked == [("empty", "a1", 0.5, 0)] * 3
    assert got["steps_per_s"] == {"analytic": 9000.0}
    assert got["share"]["analytic"] == {"lidar": 1.0}


def test_the_figures_are_medians_over_rounds() -> None:
    rounds = [{"steps_per_s": 3.0, "reset_ms": 1.0}, {"steps_per_s": 1.0}, {"steps_per_s": 2.0, "reset_ms": 2.0}]
    got = bench._summary({"legged": rounds}, {}, 0.1, 1.0)
    assert got["steps_per_s"]["legged"] == 2.0
    assert got["interval"]["legged"] == [1.0, 3.0]
    assert got["reset_ms"]["legged"] == 1.5
    assert got["realtime"]["median"] == pytest.approx(0.2)
    assert got["realtime"]["interval"] == pytest.approx([0.1, 0.3])
    assert got["realtime"]["peak"] == pytest.approx(0.3)


def test_the_command_writes_the_keys_that_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", lambda parts, *given, **_: {"steps_per_s": dict.fromkeys(parts, 1.0)})
    assert command.main(["sim", "--json", str(tmp_path / "sim.json")]) == 0
    saved = json.loads((tmp_path / "sim.json").read_text())
    assert saved == json.loads(capsys.readouterr().out)
    assert list(saved["steps_per_s"]) == ["analytic", "lidar", "lidar_depth", "legged", "vector"] == list(PARTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"parts": ["legs"]}, "did you mean 'legged'"),
        ({"seconds": 0.0}, "seconds"),
        ({"rounds": 0}, "rounds"),
        ({"workers": -1}, "workers"),
        ({"parts": ["lidar"], "scene": "rom"}, "did you mean 'rooms'"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words) as error:
        measure(**arguments)
    assert isinstance(error.value, ConfigError) or "scene" in str(error.value)
    assert "\n" not in str(error.value)
