"""The local planner without an agent as a baseline; how it drives is in tests/planning/test_local.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import AGENT

from policies.baselines import make_baseline
from policies.geometry import GeometryConfig, GeometryPolicy
from policies.registry import make_policy
from robonav.errors import ConfigError
from robonav.imagination.agent import Agent
from robonav.learning.checkpoint import save_agent
from robonav.planning.mppi import MPPIConfig
from robonav.types import Decision, Policy, RobotSpec
from tests.mapping.raycast import cast, observe, room
from tests.policies.driving import drive

WALLS = room(-1.0, -3.0, 9.0, 3.0)


def decisions(policy: Policy, a1: RobotSpec, seed: int) -> list[Decision]:
    """Of 12 ticks, with somebody who crosses and one scan that is missing."""
    state, told = policy.reset(seed), []
    for tick in range(12):
        pose = (0.06 * tick, 0.0, 0.02 * tick)
        scan = None if tick == 7 else cast(pose, a1.lidar, WALLS, np.array([[2.5, -1.5 + 0.1 * tick, 0.25]]))
        state, decision = policy.act(state, observe(pose, (7.0, 1.0), scan, tick * 10**8, (0.6, 0.0, 0.2)))
        told.append(decision)
    return told


def test_it_decides_as_a_run_without_imagination_bit_for_bit(a1: RobotSpec, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_agent(tmp_path / "checkpoint.safetensors", Agent(AGENT, a1).state_dict(), AGENT, a1, {})
    run = make_policy(tmp_path, a1, planner="geometry")
    for seed in (0, 3):
        own = decisions(make_policy("geometry", a1), a1, seed)
        for one, other in zip(own, decisions(run, a1, seed), strict=True):
            assert np.array_equal(one.command.velocity, other.command.velocity)
            assert one.command.valid_until_ns == other.command.valid_until_ns
            assert np.array_equal(one.imagined_path_odom_m, other.imagined_path_odom_m)  # type: ignore[arg-type]
            assert (one.why, one.details) == (other.why, other.details)
    assert not np.array_equal(own[3].imagined_path_odom_m, decisions(run, a1, 0)[3].imagined_path_odom_m)  # type: ignore[arg-type]


def test_it_drives_round_an_obstacle_to_the_goal(a1: RobotSpec) -> None:
    path, whys, room_left = drive(make_policy("geometry", a1), a1, (0, 0, 0), (5.0, 0.0), np.array([[2.5, 0.1, 0.5]]))
    assert np.hypot(*(path[-1, :2] - (5.0, 0.0))) < 0.3
    assert room_left > 0.0 and set(whys) == {"mppi"}


def test_a_preset_sets_the_planners_dials_but_nobody_dreams(a1: RobotSpec, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('method = "geometry"\n[geometry.planner]\nhorizon = 6\nimagination = true\n')
    policy = make_baseline(str(tmp_path / "mine.toml"), a1)
    assert isinstance(policy, GeometryPolicy) and policy.name == "mine"
    _, decision = policy.act(policy.reset(0), observe((0, 0, 0), (3, 0), cast((0, 0, 0), a1.lidar, WALLS)))
    assert decision.imagined_path_odom_m is not None and len(decision.imagined_path_odom_m) == 7
    _, decision = policy.act(policy.reset(0), observe((0, 0, 0), (3, 0), None))
    assert decision.why == "stop: no scan" and not decision.command.velocity.any()
    assert GeometryPolicy(a1, GeometryConfig(planner=MPPIConfig(rounds=1))).pilot.planner.config.rounds == 1
    (tmp_path / "mine.toml").write_text('method = "geometry"\n[geometry.planner]\nhorizont = 6\n')
    with pytest.raises(ConfigError, match="horizont"):
        make_baseline(str(tmp_path / "mine.toml"), a1)
