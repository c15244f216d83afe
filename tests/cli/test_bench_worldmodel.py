from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from robonav.cli import bench
from robonav.cli.args import UsageError
from robonav.errors import CheckpointError, ConfigError, PolicyError
from robonav.imagination.agent import Agent, AgentConfig
from robonav.imagination.behavior import BehaviorConfig
from robonav.learning.checkpoint import save_agent
from robonav.ssm.backbone import BackboneConfig
from robonav.types import RobotSpec
from robonav.world_model.encoders import EncoderConfig
from robonav.world_model.model import WorldModelConfig

pytest.importorskip("numba")


def checkpoint(folder: Path, spec: RobotSpec, **model: object) -> str:
    """An untrained agent in a run folder."""
    config = AgentConfig(WorldModelConfig(**{"groups": 4, "classes": 4, **model}), BehaviorConfig(hidden=16))
    folder.mkdir()
    info = {"randomisation": "sim2real"}
    save_agent(folder / "checkpoint.safetensors", Agent(config, spec).state_dict(), config, spec, info)
    return str(folder)


RUN = ["--scenes", "empty,crowd-few", "--episodes", "2", "--seed", "3", "--horizon", "15"]


@pytest.mark.slow  # 80 s
def test_figures_page_and_film_of_two_checkpoints(tmp_path: Path, a1: RobotSpec, capsys) -> None:
    one = checkpoint(tmp_path / "one", a1, encoder=EncoderConfig(flow=True, robot=True))
    other = checkpoint(tmp_path / "other", a1, objective="redundancy", backbone=BackboneConfig(pattern="GA"))
    file, page, film = (tmp_path / name for name in ("wm.json", "wm.html", "wm.gif"))
    argv = ["worldmodel", "--checkpoints", one, other, *RUN, "--randomisation", "off,sim2real", "--drivers",
            "actor,random,dwa", "--json", str(file), "--html", str(page), "--video", str(film)]  # fmt: skip
    assert bench.main(argv) == 0
    said = capsys.readouterr().out
    assert "What must be reached" in said and "redundancy" not in said
    figures = json.loads(file.read_text())
    assert list(figures["data"]) == ["off", "sim2real"]
    assert figures["data"]["off"]["episodes"] == 4
    assert set(figures["data"]["off"]["outcomes"]) == {"actor", "random", "dwa"}
    first, second = (figures["checkpoints"][name] for name in (one, other))
    assert len(first["presets"]["sim2real"]["open_loop"]["lidar_m"]) == 15
    assert first["presets"]["off"]["closed_loop"]["lidar_m"]["all"]["n"] > 0
    assert second["presets"]["off"]["closed_loop"]["lidar_m"] is None  # it decodes nothing
    assert "reward" in second["presets"]["off"]["open_loop"]
    assert second["gates"][0]["reached"] is None
    assert page.read_text().count("data:image/png") >= 3
    assert film.read_bytes()[:3] == b"GIF"


def test_the_same_run_gives_the_same_figures(tmp_path: Path, a1: RobotSpec) -> None:
    one = checkpoint(tmp_path / "one", a1)
    found = []
    for name in ("a.json", "b.json"):
        file = tmp_path / name
        bench.main(["worldmodel", "--checkpoints", one, "--scenes", "empty", "--episodes", "1", "--randomisation",
                    "off", "--no-probes", "--json", str(file)])  # fmt: skip
        found.append(json.loads(file.read_text()))
    assert found[0] == found[1]
    assert found[0]["checkpoints"][one]["probes"] is None
    assert found[0]["checkpoints"][one]["info"]["trained_with"] == "sim2real"


@pytest.mark.parametrize(
    ("argv", "error", "said"),
    [
        (["--episodes", "0"], ConfigError, "--episodes"),
        (["--scenes", "roms"], ConfigError, "did you mean 'rooms'"),
        (["--scenes", ""], UsageError, "--scenes"),
        (["--scenes", "rooms,rooms"], UsageError, "--scenes"),
        (["--randomisation", "beyod"], ConfigError, "did you mean 'beyond'"),
        (["--drivers", "dwaa"], PolicyError, "did you mean 'dwa'"),
        (["--noise", "-1"], UsageError, "--noise"),
        (["--horizon", "2"], UsageError, "--horizon"),
        (["--samples", "0"], UsageError, "--samples"),
        (["--video", "a.avi"], UsageError, "--video"),
        (["--json", "no/such/folder/a.json"], UsageError, "--json"),
        (["--robot", "a2"], ConfigError, "no preset 'a2'"),
        (["--checkpoints", "nowhere"], CheckpointError, "nowhere: expected a checkpoint, got no such file"),
        (["--checkpoints", "generl"], CheckpointError, "shipped bundle: did you mean 'general'"),
    ],
)
def test_bad_arguments_are_told_before_anything_runs(tmp_path: Path, a1: RobotSpec, argv, error, said) -> None:
    one = checkpoint(tmp_path / "one", a1)
    with pytest.raises(error, match=said):
        bench.main(["worldmodel", "--checkpoints", one, *argv])


def test_a_checkpoint_of_other_sensors_is_refused(tmp_path: Path, a1: RobotSpec) -> None:
    other = replace(a1, name="other", lidar=replace(a1.lidar, beams=64))
    with pytest.raises(CheckpointError, match=r"lidar: expected .*beams=64.*, got .*beams=128"):
        bench.main(["worldmodel", "--checkpoints", checkpoint(tmp_path / "one", other)])


def test_the_same_checkpoint_twice_is_refused(tmp_path: Path, a1: RobotSpec) -> None:
    one = checkpoint(tmp_path / "one", a1)
    with pytest.raises(UsageError, match="--checkpoints: expected different"):
        bench.main(["worldmodel", "--checkpoints", one, one])
