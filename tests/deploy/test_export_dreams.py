"""The planner's dreams in onnxruntime: what torch dreams, from the same memory, and a bundle that plans with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import AGENT

from deploy.bundle import load_bundle
from deploy.drivers import room_scan
from deploy.export import export, synthetic_drives, synthetic_ticks
from policies.bundle_policy import BundlePolicy
from policies.onnx_dreams import PlannedDreams
from policies.registry import make_policy
from robonav.config import load_robot
from robonav.errors import BundleError, ConfigError, PolicyError
from robonav.imagination.agent import Agent
from robonav.imagination.candidates import TorchImagination
from robonav.learning.checkpoint import load_agent, save_agent
from robonav.planning.mppi import MPPIConfig
from robonav.planning.situation import SituationConfig
from robonav.types import Observation
from robonav.world_model.encoders import EncoderConfig

pytestmark = pytest.mark.slow  # 50 s: torch exports the dreams twice; plans are held to torch in test_export_planner
SPEC = load_robot("a1")
DIALS = MPPIConfig(candidates=10, horizon=5, samples=(3, 2, 3))
SIZES = PlannedDreams(candidates=10, own=4, horizon=5)
READS_ALL = replace(
    AGENT,
    model=replace(
        AGENT.model,
        prior_heads=2,
        encoder=EncoderConfig(sector_width=4, vector_width=8, map_width=8, hidden=16, flow=True, robot=True),
    ),
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    agent = Agent(READS_ALL, SPEC)
    for head in (agent.behavior.critic, agent.model.reward):  # as initialised they say 0
        torch.nn.init.normal_(head.net[-1].weight, std=0.3)
    save_agent(folder / "checkpoint.safetensors", agent.state_dict(), READS_ALL, SPEC, {})
    return folder


@pytest.fixture(scope="module")
def bundle_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "dreamer"
    export(load_agent(run_folder), out, "dreamer", synthetic_drives(SPEC, SituationConfig()), planner=DIALS)
    return out


def observation(tick: int) -> Observation:
    pose = np.array([0.05 * tick, 0.0, 0.02 * tick], np.float32)
    return Observation(
        stamp_ns=tick * 100_000_000,
        pose_odom_base=pose,
        twist_base=np.array([0.5, 0.0, 0.2], np.float32),
        tilt_rad=np.zeros(2, np.float32),
        goal_odom_m=np.array([3.0, 1.0], np.float32),
        last_command=np.array([0.5, 0.0, 0.2], np.float32),
        scan_m=room_scan(pose.astype(np.float64), 8.0, SPEC.lidar),
    )


def test_dreams_are_those_of_torch_from_the_same_memory(run_folder: Path, bundle_folder: Path) -> None:
    agent, bundle = load_agent(run_folder).agent, load_bundle(bundle_folder)
    rng = np.random.default_rng(0)
    ticks = synthetic_ticks(SPEC, 4)
    memory, state = bundle.step.initial_state(), agent.initial_state(1)
    action = np.zeros((1, 3), np.float32)
    for t, tick in enumerate(ticks):
        inputs = {t.name: tick[t.name][None] for t in bundle.contract.inputs if t.name in tick and t.name != "reset"}
        reset = np.array([float(t == 0)], np.float32)
        memory, _ = bundle.step.step(memory, {**inputs, "action_prev": action, "reset": reset})
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        with torch.no_grad():
            state = agent.step(state, tensors, torch.from_numpy(action), torch.from_numpy(reset)).state
        action = rng.uniform(-1, 1, (1, 3)).astype(np.float32)
    dreams = bundle.dreams()
    assert dreams.planned == SIZES
    wanted = rng.uniform(-1, 1, (10, 5, 3)).astype(np.float32)
    jitter = rng.normal(size=(4, 5, 3)).astype(np.float32)
    gumbel = rng.gumbel(size=(5, 10, *dreams.noise_shape)).astype(np.float32)
    ours, theirs = dreams.of(memory)(wanted, jitter, gumbel), TorchImagination(agent, state)(wanted, jitter, gumbel)
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a, b, atol=2e-5)
    assert np.array_equal(ours[0][4:], wanted[4:])
    assert np.std(ours[1]) > 1e-4
    assert (ours.doubts > 0).all()
    assert ours.dangers.max() > 0
    fewer = dreams.of(memory)(wanted[:7], jitter, gumbel[:, :7])
    for a, b in zip(fewer, theirs, strict=True):
        assert a.shape == b[:7].shape
        assert np.allclose(a, b[:7], atol=2e-5)


def test_a_bundle_plans_with_its_graph_and_its_seed(bundle_folder: Path) -> None:
    exported = make_policy(bundle_folder, SPEC, planner="mppi")
    assert isinstance(exported, BundlePolicy)
    assert load_bundle(bundle_folder).parity.plans is not None  # so torch planned the same
    ours = exported.reset(3)
    for tick in range(5):
        ours, a = exported.act(ours, observation(tick))
        assert a.why == "mppi"
        assert a.imagined_path_odom_m is not None
        assert a.details["plan_ms"] > 0
    again = exported.reset(3)
    for tick in range(5):
        again, c = exported.act(again, observation(tick))
    assert np.array_equal(a.command.velocity, c.command.velocity)
    other = exported.reset(4)
    for tick in range(5):
        other, c = exported.act(other, observation(tick))
    assert a.details["score"] != c.details["score"]


def test_a_bundle_without_dreams_plans_by_geometry_alone(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no dreams\.onnx; export it again with --planner"):
        make_policy(tiny_bundle, SPEC, planner="mppi")
    with pytest.raises(PolicyError, match="planner: expected one of actor, mppi, geometry, got 'zebra'"):
        make_policy(tiny_bundle, SPEC, planner="zebra")
    policy = make_policy(tiny_bundle, SPEC, planner="geometry")
    state = policy.reset(0)
    for tick in range(3):
        state, decision = policy.act(state, observation(tick))
    assert decision.why == "mppi"
    assert decision.command.vx_mps > 0.1


def test_sizes_that_cannot_be_are_named() -> None:
    with pytest.raises(ConfigError, match="dreams: own: expected at most candidates = 3, got 4"):
        PlannedDreams(3, 4, 5)


def test_damaged_dreams_are_refused(bundle_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(bundle_folder, folder)
    graph = folder / "dreams.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"dreams\.onnx: expected SHA-256"):
        load_bundle(folder)
