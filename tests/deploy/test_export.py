"""A trained agent leaves as a bundle that computes the same in onnxruntime, resets and missing sensors included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import AGENT

from deploy.bundle import PARITY_TICKS
from deploy.export import export, read_by, record, synthetic_ticks
from policies.bundle import load_bundle
from policies.registry import make_policy
from robonav.cli.trained import trained
from robonav.config import load_robot
from robonav.errors import BundleError, MissingDependencyError
from robonav.imagination.agent import Agent
from robonav.learning.checkpoint import load_agent, save_agent

SPEC = load_robot("a1")

pytestmark = pytest.mark.xdist_group("exported")  # one export for all


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained agent whose actor does something."""
    torch.manual_seed(0)
    agent = Agent(AGENT, SPEC)
    for parameter in agent.behavior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("run")
    save_agent(folder / "checkpoint.safetensors", agent.state_dict(), AGENT, SPEC, {"updates": 7})
    return folder


@pytest.fixture(scope="module")
def bundle_folder(run_folder: Path) -> Path:
    """Its bundle."""
    folder = run_folder / "bundle"
    export(load_agent(run_folder), folder, "tiny", synthetic_ticks(SPEC))
    return folder


def test_bundle_reproduces_torch_over_200_ticks_with_resets_and_missing_sensors(bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder)
    assert bundle.parity.ticks == PARITY_TICKS == 200
    assert 0 <= bundle.parity.max_abs_diff <= 1e-4
    recording = np.load(bundle_folder / "parity.npz", allow_pickle=False)
    names = " ".join(recording.files)
    reset = next(recording[k] for k in recording.files if k.endswith("reset"))
    present = next(recording[k] for k in recording.files if k.endswith("present"))
    assert reset.sum() >= 3
    assert (present == 0).any(), "some sensors were missing"
    assert "action" in names
    assert "7 updates" in (bundle_folder / "README.md").read_text()


def test_torch_policy_and_bundle_policy_decide_alike(run_folder: Path, bundle_folder: Path) -> None:
    from robonav.types import Observation

    policies = [make_policy(str(run_folder), SPEC), make_policy(str(bundle_folder), SPEC)]
    states = [p.reset(0) for p in policies]
    rng = np.random.default_rng(0)
    last = np.zeros(3, np.float32)
    for t in range(30):
        seen = Observation(
            stamp_ns=t * 100_000_000,
            pose_odom_base=np.array([0.05 * t, 0.0, 0.02 * t], np.float32),
            twist_base=last,
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.array([5.0, 1.0], np.float32),
            last_command=last,
            scan_m=(3 + rng.random(128)).astype(np.float32),
        )
        decisions = []
        for i, policy in enumerate(policies):
            states[i], decision = policy.act(states[i], seen)
            decisions.append(decision)
        assert np.allclose(decisions[0].command.velocity, decisions[1].command.velocity, atol=1e-4)
        assert decisions[0].value == pytest.approx(decisions[1].value, abs=1e-4)
        last = decisions[0].command.velocity.astype(np.float32)


def test_a_bundle_keeps_the_weights_that_it_was_exported_from(run_folder: Path, bundle_folder: Path) -> None:
    before, kept = load_agent(run_folder), trained(bundle_folder)
    assert kept.info == before.info and kept.spec == before.spec
    assert kept.agent.config == before.agent.config
    weights = kept.agent.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in before.agent.state_dict().items())


def test_a_small_bundle_keeps_halves_and_is_exported_again_as_it_is(run_folder: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    export(load_agent(run_folder), first, "tiny", synthetic_ticks(SPEC), precision="fp16")
    kept, before = trained(first).agent.state_dict(), load_agent(run_folder).agent.state_dict()
    large = {name for name, tensor in before.items() if tensor.ndim > 1 and tensor.numel() >= 4096}
    assert large and large != set(before)
    for name, tensor in before.items():
        assert torch.equal(kept[name], tensor.half().float() if name in large else tensor)
    export(trained(first), again, "tiny", synthetic_ticks(SPEC), precision="fp16")
    assert (again / "weights.safetensors").read_bytes() == (first / "weights.safetensors").read_bytes()
    assert (again / "policy.onnx").read_bytes() == (first / "policy.onnx").read_bytes()


def test_training_begins_with_a_bundle_or_says_that_it_has_no_weights(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from robonav.cli.main import main
    from robonav.cli.train import TrainArgs, _initial
    from robonav.learning.config import TrainConfig

    bare = tmp_path / "bare"
    bundle = export(load_agent(run_folder), bare, "tiny", synthetic_ticks(SPEC), weights=False)
    assert "weights.safetensors" not in bundle.files
    assert main(["train", "--init", str(bare), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err.strip()
    assert "without its weights" in told and "\n" not in told and not (tmp_path / "run").exists()
    begun = _initial(TrainArgs(init=run_folder / "bundle", config=TrainConfig(agent=AGENT)))
    assert begun is not None and begun.info == {"updates": 7}


def test_notes_that_are_no_text_are_one_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from robonav.cli.main import main

    (tmp_path / "notes.md").write_bytes("k\xf6nnte".encode("latin-1"))
    argv = ["export", str(run_folder), "--out", str(tmp_path / "b"), "--notes", str(tmp_path / "notes.md")]
    assert main(argv) == 2
    told = capsys.readouterr().err.strip()
    assert "expected text in UTF-8" in told and "\n" not in told and not (tmp_path / "b").exists()


def test_a_damaged_weights_file_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    import shutil

    from robonav.errors import CheckpointError

    copy = tmp_path / "copy"
    shutil.copytree(bundle_folder, copy)
    whole = (copy / "weights.safetensors").read_bytes()
    (copy / "weights.safetensors").write_bytes(whole[:-9])
    with pytest.raises(BundleError, match=r"weights\.safetensors: expected SHA-256"):
        load_bundle(copy)
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        trained(copy)


def test_recorded_memory_is_dropped_by_a_reset(run_folder: Path) -> None:
    agent = load_agent(run_folder).agent
    ticks = synthetic_ticks(SPEC, count=8)
    for t, tick in enumerate(ticks):
        tick["reset"] = np.array(t in (0, 4), np.float32)
    whole = record(agent, SPEC, ticks).outputs["action"]
    fresh = record(agent, SPEC, ticks[4:]).outputs["action"]
    assert np.allclose(whole[4:], fresh, atol=1e-5)
    carried = [{**tick, "reset": np.array(t == 0, np.float32)} for t, tick in enumerate(ticks)]
    assert not np.allclose(record(agent, SPEC, carried).outputs["action"][4:], fresh, atol=1e-5)


def test_a_graph_that_differs_from_torch_is_refused_and_nothing_is_written(
    run_folder: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    from deploy.bundle import make_contract, write_bundle
    from robonav.planning.situation import SituationConfig

    agent = load_agent(run_folder).agent
    graph = (bundle_folder / "policy.onnx").read_bytes()
    with torch.no_grad():
        agent.behavior.actor.net[-1].bias += 0.01
    recording = record(agent, SPEC, synthetic_ticks(SPEC))
    states = {name: tuple(t.shape) for name, t in agent.initial_state(1).tensors()}
    contract = make_contract("tiny", SPEC, states, SituationConfig(), reads=read_by(agent, SPEC))
    with pytest.raises(BundleError, match=r"at most 0\.0001"):
        write_bundle(tmp_path / "out", graph, contract, recording, "card")
    assert list(tmp_path.iterdir()) == []


def test_without_the_simulator_the_record_is_synthetic(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sim
    from robonav.cli import export as command

    def missing(**_: object) -> None:
        raise MissingDependencyError("no pybullet")

    monkeypatch.setattr(sim, "make_env", missing)
    ticks = command._driven_ticks("rooms", load_agent(run_folder))
    assert len(ticks) == PARITY_TICKS
    assert "synthetic" in capsys.readouterr().out


def test_exporting_nothing_or_over_something_else_is_one_line_at_once(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from robonav.cli.main import main

    (tmp_path / "mine.txt").write_text("mine")
    for source, out, line in (
        (tmp_path / "missing", tmp_path / "out", "no such file"),
        (run_folder, tmp_path, "older bundle"),
    ):
        assert main(["export", str(source), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_weights_of_the_shipped_navigator_decide_as_its_graph_does() -> None:
    from deploy.bundle import load_parity
    from policies.registry import pretrained_dir

    folder = pretrained_dir() / "general"
    known, agent = load_parity(load_bundle(folder)), trained(folder).agent
    ticks = [{name: values[t, 0] for name, values in known.inputs.items()} for t in range(60)]
    again = record(agent, SPEC, ticks)
    for name in ("action", "value"):
        assert np.abs(again.outputs[name] - known.outputs[name][:60]).max() < 5e-3
