from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robonav.evaluation.worldmodel import probes
from robonav.evaluation.worldmodel.episodes import Recorded, Truth
from robonav.imagination.agent import Agent, AgentConfig
from robonav.types import RobotSpec
from tests.evaluation.worldmodel_by_hand import episode_on_a_line


def behind_a_wall(spec: RobotSpec, hidden_from: int, ticks: int = 60) -> Recorded:
    """A robot at (1, 2) that looks along y, somebody at (1, 5) who walks along x, and a wall between from a tick on."""
    episode = episode_on_a_line(spec, np.zeros(ticks))
    pose = np.tile(np.array([1.0, 2.0, np.pi / 2], np.float32), (ticks, 1))
    movers = np.zeros((ticks, 2, 5), np.float32)
    movers[:, 0] = 1.0, 5.0, 0.7, 0.0, 0.25
    scan = np.full((ticks, spec.lidar.beams), 8.0, np.float32)
    ahead = np.argmin(np.abs(spec.lidar.angles_rad))
    scan[:hidden_from, ahead] = 2.75
    scan[hidden_from:, ahead] = 1.0
    return replace(episode, truth=Truth(pose, 0 * pose, scan, movers))


def test_who_is_hidden_is_where_he_is_in_base(a1: RobotSpec) -> None:
    episode = behind_a_wall(a1, 20)
    assert probes.visible(episode, a1.lidar)[:, 0].tolist() == [True] * 20 + [False] * 40
    assert not probes.visible(episode, a1.lidar)[:, 1].any()  # an empty place
    asked = probes.hidden_mover(episode, a1)
    assert asked.ticks.tolist() == list(range(20, 50))  # seen last at 19, remembered for 3 s
    assert asked.targets[0] == pytest.approx([3.0, 0.0, 0.0, -0.7], abs=1e-5)


def test_nobody_is_hidden_who_was_never_seen(a1: RobotSpec) -> None:
    assert len(probes.hidden_mover(behind_a_wall(a1, 0), a1).ticks) == 0


def test_rear_beams_point_behind(a1: RobotSpec) -> None:
    rear = probes.rear_beams(a1.lidar)
    assert np.cos(a1.lidar.angles_rad[rear]).max() < np.cos(probes.REAR_RAD) + 1e-9
    assert rear.sum() == pytest.approx(a1.lidar.beams / 4, abs=2)


def test_probes_of_a_real_model(a1: RobotSpec) -> None:
    """An untrained state still shows the twist that it reads; what nobody asks is null."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(12):
        episode = episode_on_a_line(a1, rng.uniform(-0.2, 0.2, 40))
        scan = episode.truth.scan_m.copy()
        scan[:, probes.rear_beams(a1.lidar)] = rng.choice([0.5, 3.0])
        episodes.append(replace(episode, truth=episode.truth._replace(scan_m=scan)))
    torch.manual_seed(0)
    found = probes.measure(Agent(AgentConfig(), a1).eval(), episodes, a1)
    assert found["hidden_mover_position"] is None
    assert found["own_velocity"]["measure"] == "R2" and found["own_velocity"]["memory_and_latent"][0] > 0.5
    assert found["space_behind"]["n"] == 6 * 30
    low, middle, high = (found["space_behind"]["memory_and_latent"][k] for k in (1, 0, 2))
    assert low <= middle <= high
