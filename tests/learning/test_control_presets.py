"""Presets beside general: controls of as many parameters with another memory, and a smaller one without a map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robonav.cli.main import main
from robonav.config import find_config, load_config, load_robot
from robonav.imagination.agent import Agent
from robonav.learning.checkpoint import load_agent
from robonav.learning.config import TrainConfig

CONTROLS = {"general-gru": "GRU", "general-attention": "Attention", "general-memoryless": "Memoryless"}


def preset(name: str) -> TrainConfig:
    return load_config(TrainConfig, find_config("train", name))


def parameters(config: TrainConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Agent(config.agent, load_robot(config.robot)).parameters())


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_in_its_memory_alone_and_is_as_large(name: str) -> None:
    general, control = preset("general"), preset(name)
    assert control.agent.model.backbone != general.agent.model.backbone
    model = replace(control.agent.model, backbone=general.agent.model.backbone)
    assert replace(control, agent=replace(control.agent, model=model)) == general
    assert parameters(control) == pytest.approx(parameters(general), rel=0.03)


def test_what_goes_on_from_general_has_its_model_and_acts_from_the_first_step() -> None:
    general, people = preset("general"), preset("general-people")
    assert people.agent == general.agent
    assert people.behavior_start == 0
    assert people.kickstart.regret_m > 0 and people.kickstart.slack_m > 0
    assert people.kickstart.policy == "window-sideways" and people.collect.sight == "learned"
    assert set(people.collect.scenes) == set(general.collect.scenes)
    assert people.collect.robots == general.collect.robots


def test_the_head_for_clearances_alone_learns_on_what_goes_on_from_general() -> None:
    people, clearance = preset("general-people"), preset("general-clearance")
    assert clearance.agent == replace(people.agent, model=replace(people.agent.model, clearance=True))
    assert clearance.optimizer.only == ("clearance",)


def test_the_lidar_preset_reads_no_map_and_has_less_than_half_the_parameters() -> None:
    general, lidar = preset("general"), preset("lidar")
    spec = load_robot(lidar.robot)
    read, all_read = (set(c.agent.model.encoder.input_names(spec)) for c in (lidar, general))
    assert all_read - read == {"local_map"}
    assert parameters(lidar) < 0.5 * parameters(general)
    assert lidar.collect == general.collect


@pytest.mark.parametrize(("name", "layer"), [*CONTROLS.items(), ("lidar", "Mamba3")])
def test_a_preset_trains(name: str, layer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {
        **{"updates": 2, "updates-per-iteration": 1, "checkpoint-every": 2, "behavior-start": 1, "replay-steps": 2000},
        **{"batch": 2, "length": 8, "max-minutes": 0, "kickstart.streams": 0, "agent.behavior.horizon": 3},
        **{"collect.workers": 0, "collect.envs": 2, "collect.greedy-envs": 1, "collect.prefill": 40},
        **{"collect.scenes": "empty", "collect.robots": "a1", "collect.imperfect": 0},
    }
    flags = [word for flag, value in small.items() for word in (f"--{flag}", str(value))]
    assert main(["train", "--preset", name, "--out", str(tmp_path / "run"), *flags, "--no-replay-on-disk"]) == 0
    assert "trained 2 updates" in capsys.readouterr().out
    agent = load_agent(tmp_path / "run").agent
    assert {type(module).__name__ for module in agent.modules()} >= {layer}
    assert all(torch.isfinite(p).all() for p in agent.parameters())
