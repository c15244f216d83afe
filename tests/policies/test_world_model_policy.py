"""The trained agent behind the Policy protocol: determinism, the planner beside the actor, robots that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import AGENT

from policies.registry import make_policy
from policies.world_model_policy import WorldModelPolicy
from robonav.config import load_robot
from robonav.errors import CheckpointError, PolicyError
from robonav.imagination.agent import Agent
from robonav.learning.checkpoint import save_agent
from robonav.planning.local import imagined_path
from robonav.types import COMMAND_LIFE_NS, Decision, LidarSpec, LocalMapSpec, Observation, Policy

SPEC = load_robot("a1")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_agent(folder / "checkpoint.safetensors", Agent(AGENT, SPEC).state_dict(), AGENT, SPEC, {})
    return folder


def observation(t: int, scan: bool = True) -> Observation:
    return Observation(
        stamp_ns=t * 100_000_000,
        pose_odom_base=np.array([0.05 * t, 0.0, 0.0], np.float32),
        twist_base=np.array([0.5, 0.0, 0.0], np.float32),
        tilt_rad=np.zeros(2, np.float32),
        goal_odom_m=np.array([4.0, 0.0], np.float32),
        last_command=np.array([0.5, 0.0, 0.0], np.float32),
        scan_m=np.full(128, 3.0, np.float32) if scan else None,
    )


def drive(policy: Policy, ticks: int, seed: int = 0, scan: bool = True) -> list[Decision]:
    state, decisions = policy.reset(seed), []
    for t in range(ticks):
        state, decision = policy.act(state, observation(t, scan))
        decisions.append(decision)
    return decisions


@pytest.mark.parametrize("planner", ["actor", "mppi", "imagination"])
def test_same_seed_same_decisions_within_the_robots_limits(run_folder: Path, planner: str) -> None:
    policy = make_policy(str(run_folder), SPEC, planner=planner)
    first, second = drive(policy, 5), drive(policy, 5)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.command.velocity, b.command.velocity)
        assert SPEC.vx_min_mps <= a.command.vx_mps <= SPEC.vx_max_mps
        assert a.why == ("actor" if planner == "actor" else "mppi")
    assert [d.command.valid_until_ns - t * 100_000_000 for t, d in enumerate(first)] == [COMMAND_LIFE_NS] * 5


def test_planner_explains_itself_with_an_imagined_path_from_the_robot(run_folder: Path) -> None:
    policy = make_policy(str(run_folder), SPEC, planner="mppi")
    decision = drive(policy, 3)[-1]
    assert decision.imagined_path_odom_m is not None
    assert decision.imagined_path_odom_m.shape == (policy.config.horizon + 1, 2)  # type: ignore[attr-defined]
    assert np.allclose(decision.imagined_path_odom_m[0], [0.1, 0.0])
    assert {"score", "rejected"} <= set(decision.details)


@pytest.mark.parametrize("planner", ["mppi", "geometry"])
def test_the_seed_drives_the_planners_noise(run_folder: Path, planner: str) -> None:
    policy = make_policy(str(run_folder), SPEC, planner=planner)
    far = replace(observation(0), scan_m=np.full(128, 7.0, np.float32))
    first, second = (policy.act(policy.reset(seed), far)[1].imagined_path_odom_m for seed in (0, 1))
    assert first is not None and second is not None
    assert not np.array_equal(first, second)


def test_geometry_alone_never_asks_the_agent(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(str(run_folder), SPEC, planner="geometry")

    def asked(*_: Any) -> None:
        raise AssertionError("the agent was asked")

    for name in ("step", "encode", "observe"):
        monkeypatch.setattr(Agent, name, asked, raising=False)
    far = replace(observation(0), scan_m=np.full(128, 7.0, np.float32))
    _, decision = policy.act(policy.reset(0), far)
    assert decision.why == "mppi" and decision.command.vx_mps > 0.2
    _, decision = policy.act(policy.reset(0), observation(0, scan=False))
    assert decision.why == "stop: no scan" and not decision.command.velocity.any()


def test_imagined_path_of_a_constant_turn_is_a_circle() -> None:
    actions = np.tile(np.array([[1.0, 0.0, 1.0]], np.float32), (200, 1))
    path = imagined_path(observation(0), actions, SPEC)
    radius = SPEC.vx_max_mps / SPEC.yaw_rate_max_radps
    assert np.linalg.norm(path - np.array([0.0, radius]), axis=1) == pytest.approx(radius, rel=0.01)


def test_it_drives_without_lidar_too(run_folder: Path) -> None:
    decisions = drive(make_policy(str(run_folder), SPEC), 3, scan=False)
    assert all(np.isfinite(d.command.velocity).all() for d in decisions)


def test_memory_matters(run_folder: Path) -> None:
    policy = make_policy(str(run_folder), SPEC)
    state, _ = policy.act(policy.reset(0), observation(0))
    _, with_past = policy.act(state, observation(9))
    _, without = policy.act(policy.reset(0), observation(9))
    assert with_past.value != without.value or not np.array_equal(with_past.command.velocity, without.command.velocity)


@pytest.mark.parametrize(
    "changes",
    [
        {"lidar": LidarSpec(beams=64)},
        {"vx_max_mps": 2.0},
        {"rate_hz": 20.0},
        {"width_m": 0.5},
        {"local_map": LocalMapSpec(resolution_m=0.2)},
    ],
)
def test_a_robot_that_it_was_not_trained_for_is_refused(run_folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match=rf"robot 'a1': {next(iter(changes))}: expected .* of robot 'other'"):
        make_policy(str(run_folder), replace(SPEC, name="other", **changes))
    assert make_policy(str(run_folder), replace(SPEC, name="heavy", lag_s=0.3)).name.endswith("actor")


def test_what_does_not_fit_is_one_line(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="planner"):
        make_policy(str(run_folder), SPEC, planner="psychic")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        make_policy(str(tmp_path), SPEC)


def test_map_and_route_are_made_as_in_training(tmp_path: Path) -> None:
    info = {"situation": {"replan_period_s": 2.5}}
    save_agent(tmp_path / "checkpoint.safetensors", Agent(AGENT, SPEC).state_dict(), AGENT, SPEC, info)
    policy = make_policy(str(tmp_path), SPEC)
    assert policy.tracker.config.replan_period_s == 2.5  # type: ignore[attr-defined]


@pytest.mark.parametrize("planner", ["navigator", "actor-routes", "geometry-routes"])
def test_routes_are_chosen_at_plans_and_told(run_folder: Path, planner: str) -> None:
    policy = make_policy(str(run_folder), SPEC, planner=planner)
    runs: list[list[Decision]] = []
    for _ in range(2):
        state, decisions = policy.reset(0), []
        for t in range(8):
            seen = replace(observation(t), scan_m=np.full(128, SPEC.lidar.range_m, np.float32))
            state, decision = policy.act(state, seen)
            decisions.append(decision)
        runs.append(decisions)
    for a, b in zip(*runs, strict=True):
        assert np.array_equal(a.command.velocity, b.command.velocity) and a.details == b.details
    assert [t for t, d in enumerate(runs[0]) if "route_chosen" in d.details] == [0, 5], "every 0.5 s"
    assert runs[0][0].details["routes"] >= 1 and runs[0][0].route_odom_m is not None


@pytest.mark.parametrize("planner", ["navigator", "actor-routes", "geometry-routes"])
def test_waiting_stands_still_until_the_next_plan(
    run_folder: Path, planner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(str(run_folder), SPEC, planner=planner)
    assert isinstance(policy, WorldModelPolicy)
    choose = policy.chooser.choose

    def waiting(*args: Any) -> Any:
        routes, situation, choice = choose(*args)
        return routes._replace(waits=True), situation, choice

    monkeypatch.setattr(policy.chooser, "choose", waiting)
    decisions = drive(policy, 3)
    assert all(d.why == "wait" and not d.command.velocity.any() for d in decisions)


def test_one_that_reads_the_robot_may_drive_another_body(tmp_path: Path) -> None:
    encoder = replace(AGENT.model.encoder, robot=True)
    told = replace(AGENT, model=replace(AGENT.model, encoder=encoder))
    torch.manual_seed(0)
    save_agent(tmp_path / "checkpoint.safetensors", Agent(told, SPEC).state_dict(), told, SPEC, {})
    big = load_robot("vision60")
    policy = make_policy(str(tmp_path), big)
    fastest = max(decision.command.vx_mps for decision in drive(policy, 3))
    assert fastest <= big.vx_max_mps
    assert fastest != max(d.command.vx_mps for d in drive(make_policy(str(tmp_path), SPEC), 3))
    with pytest.raises(PolicyError, match="lidar"):
        make_policy(str(tmp_path), replace(big, lidar=LidarSpec(beams=64)))
