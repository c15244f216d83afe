"""Training: resume continues exactly, worker processes change nothing, and bad checkpoints are refused in one line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_env import SPEC, CountingFactory
from tiny import AGENT, tiny_config

from robonav.config import from_mapping
from robonav.errors import CheckpointError, ConfigError, RobonavError
from robonav.learning.checkpoint import RESUME_FILE, WEIGHTS_FILE, load_agent, load_tensors
from robonav.learning.collector import CollectorPool, InProcessPool
from robonav.learning.config import TrainConfig
from robonav.learning.counters import Counters
from robonav.learning.curve import draw_curve
from robonav.learning.runlog import RunLog
from robonav.learning.streams import GymStreams
from robonav.learning.trainer import Trainer, train, worker_configs


def run(config: TrainConfig, folder: Path, resume: bool = False) -> Trainer:
    return train(config, SPEC, CountingFactory(), folder, resume, InProcessPool)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    """A run of four updates, and its folder, to be left as it is."""
    folder = tmp_path_factory.mktemp("trained")
    return run(tiny_config(updates=4), folder), folder


@pytest.fixture
def folder(trained: tuple[Trainer, Path], tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(trained[1], tmp_path / "run"))


def assert_same(a: Trainer, b: Trainer) -> None:
    for x, y in ((a.agent, b.agent), (a.average, b.average)):
        theirs = y.state_dict()
        assert all(torch.equal(v, theirs[k]) for k, v in x.state_dict().items())
    assert a.counters.env_steps == b.counters.env_steps
    ours, others = a.replay.state(), b.replay.state()
    assert all(np.array_equal(ours[k], others[k]) for k in ours)


def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(tiny_config(updates=12), tmp_path / "whole")
    run(tiny_config(updates=4), tmp_path / "parts")
    resumed = run(tiny_config(updates=12), tmp_path / "parts", resume=True)
    assert resumed.counters.updates == 12
    assert_same(whole, resumed)


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    a, b = (run(tiny_config(updates=4, seed=s), tmp_path / str(s)) for s in (1, 2))
    assert any(not torch.equal(v, b.agent.state_dict()[k]) for k, v in a.agent.state_dict().items())


def test_updates_learn_to_predict_reward_and_continuation() -> None:
    trainer = Trainer(tiny_config(), SPEC)
    pool = InProcessPool(worker_configs(trainer.config, SPEC, [0, 0]), CountingFactory())
    pool.request(0, 100, None)
    trainer.replay.add(pool.receive()[0])
    losses = [trainer.update() for _ in range(120)]
    early, late = (np.mean([x["model"] for x in part]) for part in (losses[:10], losses[-10:]))
    assert late < 0.5 * early
    assert all(np.isfinite(list(x.values())).all() for x in losses)


def test_actor_waits_for_the_world_model_and_then_learns(tmp_path: Path) -> None:
    start = Trainer(tiny_config(), SPEC).agent.behavior.state_dict()

    def changed(updates: int) -> bool:
        learnt = run(replace(tiny_config(updates), behavior_start=4), tmp_path / str(updates)).agent.behavior
        return any(not torch.equal(v, start[k]) for k, v in learnt.actor.state_dict(prefix="actor.").items())

    assert not changed(4)
    assert changed(6)


def test_checkpoint_rebuilds_the_agent_and_its_step(trained: tuple[Trainer, Path]) -> None:
    trainer, folder = trained
    loaded = load_agent(folder)
    assert loaded.spec == SPEC
    assert loaded.agent.config == AGENT
    assert loaded.info["updates"] == 4
    theirs = loaded.agent.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in trainer.average.state_dict().items())


def test_starting_over_a_run_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="--resume"):
        run(tiny_config(updates=4), folder)


def test_resuming_with_another_config_names_the_key_and_leaves_the_run_alone(folder: Path) -> None:
    before = (folder / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match="'batch' differs"):
        run(replace(tiny_config(updates=8), batch=3), folder, resume=True)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped header", "empty", "other file"])
def test_damaged_checkpoints_are_one_line(folder: Path, damage: str) -> None:
    path = folder / WEIGHTS_FILE
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other file":
        path.write_bytes((folder / RESUME_FILE).read_bytes())
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "flipped header": b"\xff" + data[1:], "empty": b""}[damage])
    with pytest.raises(CheckpointError) as error:
        load_agent(folder)
    assert "\n" not in str(error.value)
    assert WEIGHTS_FILE in str(error.value)


def test_weights_of_another_architecture_name_the_tensor(folder: Path) -> None:
    from robonav.learning.checkpoint import load_weights, save_agent

    tensors, _ = load_tensors(folder / WEIGHTS_FILE)
    other = replace(AGENT, behavior=replace(AGENT.behavior, hidden=32))
    save_agent(folder / "mixed.safetensors", tensors, other, SPEC, {})
    with pytest.raises(CheckpointError, match=r"behavior\.actor\.net\.0\.weight: expected \(32, 32\), got \(16, 32\)"):
        load_agent(folder / "mixed.safetensors")
    with pytest.raises(CheckpointError, match="got nothing"):
        load_weights(load_agent(folder).agent, {}, "x")


def test_a_killed_worker_is_one_line(tmp_path: Path) -> None:
    config = tiny_config()
    pool = CollectorPool(worker_configs(config, SPEC, [0, 0]), CountingFactory())
    try:
        pool.request(0, 4, None)
        pool.receive()
        pool.processes[0].kill()
        pool.processes[0].join()
        with pytest.raises(RobonavError, match="collector 0 died"):
            for _ in range(3):  # the first request may still fit into the pipe
                pool.request(1, 4, None)
                pool.receive()
    finally:
        pool.close()


def test_progress_has_a_row_at_the_end_and_none_twice(folder: Path) -> None:
    def updates() -> list[int]:
        lines = (folder / "progress.csv").read_text().splitlines()
        assert lines[0].startswith("updates,env_steps,minutes,success_greedy")
        return [int(line.split(",")[0]) for line in lines[1:]]

    assert updates() == [4]
    with (folder / "progress.csv").open("a") as stream:
        stream.write("6,1,1,1,1\n")  # a killed run got further than its last checkpoint
    run(tiny_config(updates=8), folder, resume=True)
    assert updates() == [4, 8]


def test_rows_of_a_run_without_a_checkpoint_are_dropped_however_often_it_begins(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_text("updates,env_steps\r\n30,100\r\n")
    for _ in range(2):
        with RunLog(tmp_path, tiny_config(), Counters()):
            pass
        assert (tmp_path / "progress.csv").read_text() == ""


def test_offline_without_a_path_does_not_simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from robonav.cli.main import main

    assert main(["train", "--preset", "quick", "--offline", "--out", str(tmp_path / "new")]) == 2
    assert "--offline: expected one run's replay, or recorded episodes, got no path" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_out_of_time_is_saved_with_its_last_row(folder: Path) -> None:
    stopped = run(replace(tiny_config(updates=40), max_minutes=1e-9), folder, resume=True)
    assert stopped.counters.updates == 6
    assert load_agent(folder).info["updates"] == 6
    assert [line.split(",")[0] for line in (folder / "progress.csv").read_text().splitlines()[1:]] == ["4", "6"]


def test_curve_is_drawn_from_progress_and_refused_without(folder: Path) -> None:
    import cv2

    draw_curve(folder, folder / "curve.png")
    assert cv2.imread(str(folder / "curve.png")).std() > 5
    (folder / "progress.csv").write_text("updates,env_steps\n4,nonsense\n")
    with pytest.raises(RobonavError, match=r"progress\.csv of a run"):
        draw_curve(folder, folder / "other.png")
    assert not (folder / "other.png").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"updates_per_iteration": 0}, "updates_per_iteration: expected at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"checkpoint_every": 7}, "a multiple of updates_per_iteration"),
        ({"collect": {"workers": -1}}, "collect: workers"),
        ({"evaluation": {"episodes": 0}}, "evaluation: episodes"),
        ({"evaluation": {"seed": 1000}}, "a seed below 1000"),
        ({"device": "gpu"}, "device"),
        ({"precision": "float16"}, "precision"),
        ({"collect": {"steps": 0}}, "collect: steps"),
        ({"collect": {"scenes": []}}, "collect: scenes"),
        ({"collect": {"greedy_envs": 99}}, "greedy_envs"),
        ({"agent": {"behavior": {"dreams": 0}}}, "dreams"),
        ({"agent": {"behavior": {"discount": 1.5}}}, "discount"),
        ({"agent": {"model": {"groups": 0}}}, "groups"),
        ({"agent": {"model": {"sampled_groups": 99}}}, "sampled_groups"),
        ({"agent": {"model": {"backbone": {"d_state": 0}}}}, "d_state"),
        ({"optimizer": {"average": 2.0}}, "average"),
    ],
)
def test_numbers_out_of_range_are_named(change: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        from_mapping(TrainConfig, change, "preset")


class FailingFactory(CountingFactory):
    """Its environments cannot be made."""

    def __call__(self, index: int, count: int) -> GymStreams:
        raise RobonavError("scene a: no such scene")


def test_a_worker_that_fails_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(RobonavError, match="scene a: no such scene"):
        train(tiny_config(), SPEC, FailingFactory(), tmp_path)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    trainer = Trainer(tiny_config(), SPEC)
    before = [p.clone() for p in trainer.agent.parameters()]
    with pytest.raises(RobonavError, match="loss is nan"):
        learner = trainer.learner
        learner._apply(learner.model_optimizer, torch.tensor(float("nan"), requires_grad=True), "world model", 0)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.agent.parameters(), strict=True))


def test_a_run_begins_with_the_weights_of_another(trained: tuple[Trainer, Path], tmp_path: Path) -> None:
    before, folder = trained
    config = replace(tiny_config(updates=4, seed=9), behavior_start=0)
    begun = Trainer(config, SPEC)
    begun.begin_with(load_agent(folder))
    average = before.average.state_dict()
    for module in (begun.agent, begun.average):
        assert all(torch.equal(value, average[name]) for name, value in module.state_dict().items())
    assert begun.counters.updates == 0 and not len(begun.replay)
    first = train(config, SPEC, CountingFactory(), tmp_path, False, InProcessPool, begin_with=load_agent(folder))
    told = load_agent(tmp_path).info["began_with"]
    assert told == {"updates": 4, "env_steps": before.counters.env_steps, "seed": 3} | told
    assert not torch.equal(first.agent.state_dict()["model.to_backbone.weight"], average["model.to_backbone.weight"])
    resumed = run(replace(config, updates=8), tmp_path, resume=True)
    assert resumed.began_with == told
    assert load_agent(tmp_path).info["began_with"] == told


def test_a_head_for_clearances_is_added_to_a_trained_model_that_stays_as_it_is(
    trained: tuple[Trainer, Path], tmp_path: Path
) -> None:
    before, folder = trained
    config = tiny_config(updates=6, seed=9)
    agent = replace(config.agent, model=replace(config.agent.model, clearance=True))
    config = replace(config, agent=agent, behavior_start=0, optimizer=replace(config.optimizer, only=("clearance",)))
    after = train(config, SPEC, CountingFactory(), tmp_path, False, InProcessPool, begin_with=load_agent(folder))
    average, fresh = before.average.state_dict(), Trainer(config, SPEC).agent.state_dict()
    moved = set()
    for module in (after.agent, after.average):
        for name, value in module.state_dict().items():
            if name in average:
                assert torch.equal(value, average[name]), name
            elif not torch.equal(value, fresh[name]):
                moved.add(name)
    assert moved and all(name.startswith("model.clearance.") for name in moved)
    resumed = train(replace(config, updates=8), SPEC, CountingFactory(), tmp_path, True, InProcessPool)
    assert torch.equal(resumed.agent.state_dict()["model.to_backbone.weight"], average["model.to_backbone.weight"])


@pytest.mark.parametrize("part", ["clearance", "objective", "nothing"])
def test_a_part_that_the_model_has_not_cannot_learn_alone(part: str) -> None:
    config = tiny_config()
    config = replace(config, optimizer=replace(config.optimizer, only=(part,)))
    with pytest.raises(ConfigError, match=rf"optimizer\.only: expected parts of the model: .*reward.*, got {part}"):
        Trainer(config, SPEC)


def test_weights_of_another_model_are_refused_in_one_line(folder: Path) -> None:
    config = tiny_config()
    wider = replace(config.agent, behavior=replace(config.agent.behavior, hidden=24))
    with pytest.raises(CheckpointError, match="weights to begin with: behavior") as error:
        Trainer(replace(config, agent=wider), SPEC).begin_with(load_agent(folder))
    assert "\n" not in str(error.value)


def test_the_command_refuses_weights_of_another_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from robonav.cli.main import main

    assert main(["train", "--preset", "quick", "--init", str(folder), "--out", str(tmp_path / "new")]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told and "agent.model." in told
    assert main(["train", "--preset", "quick", "--init", "nowhere", "--out", str(tmp_path / "new")]) == 2
    assert "expected a checkpoint, got no such file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
