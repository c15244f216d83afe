"""A batch that gives NaN is kept, the weights go back to the last checkpoint, and the run goes on; not for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting_env import SPEC, CountingFactory
from lives import full_config, run
from safetensors.numpy import load_file
from tiny import tiny_config

from robonav.errors import RobonavError
from robonav.learning.checkpoint import RESUME_FILE, load_agent, load_tensors
from robonav.learning.collector import InProcessPool
from robonav.learning.replay import Replay
from robonav.learning.trainer import ROLLBACKS_MAX, Trainer, worker_configs


def poison(
    monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool], name: str = "goal_base_m", value: float = 1e30
) -> None:
    """Makes some of the sampled batches, counted from 0, hold a value; 1e30 is finite and its square is not."""
    sample, count = Replay.sample, [0]

    def poisoned(self: Replay, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        batch = sample(self, *args, **kwargs)
        if bad(count[0]):
            batch[name][0, 1] = value
        count[0] += 1
        return batch

    monkeypatch.setattr(Replay, "sample", poisoned)


def filled(config: Any, folder: Path) -> Trainer:
    trainer = Trainer(config, SPEC, folder)
    pool = InProcessPool(worker_configs(config, SPEC, [0, 0]), CountingFactory())
    pool.request(0, 100, None)
    trainer.replay.add(pool.receive()[0])
    return trainer


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("reward", np.nan, "batch: reward not finite at update 7; look at what collects it"),
        ("scan_m", np.inf, "batch: scan_m not finite at update 7"),
        ("goal_base_m", 1e30, "world model: the loss is nan at update 7; lower the learning rates"),
    ],
)
def test_the_batch_is_kept_and_everything_learnt_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float, line: str
) -> None:
    trainer = filled(tiny_config(), tmp_path)
    for _ in range(4):
        trainer.safe_update(tmp_path)
    trainer.save(tmp_path)
    saved = {k: v.clone() for k, v in trainer.learner.state().items()}
    for _ in range(3):
        trainer.safe_update(tmp_path)
    poison(monkeypatch, lambda count: count == 0, name, value)
    after: list[dict[str, torch.Tensor]] = []
    update = trainer.update

    def watched() -> dict[str, float]:
        after.append({k: v.clone() for k, v in trainer.learner.state().items()})
        return update()

    monkeypatch.setattr(trainer, "update", watched)
    with pytest.warns(UserWarning, match=f"{line}.*back to the last checkpoint's weights, the batch is in"):
        scalars = trainer.safe_update(tmp_path)
    assert np.isfinite(list(scalars.values())).all()
    assert len(after) == 2
    assert any(not torch.equal(v, saved[k]) for k, v in after[0].items())
    assert all(torch.equal(v, saved[k]) for k, v in after[1].items())  # weights, average, moments, range of returns
    assert (trainer.counters.updates, trainer.counters.rollbacks) == (8, 1)
    (kept,) = tmp_path.glob("not_finite_*.safetensors")
    batch = load_file(kept)
    assert np.array_equal(batch[name][0, 1].ravel()[:1], np.array([value], np.float32), equal_nan=True)
    assert {*batch} >= {"scan_m", "local_map", "action", "reward", "first"}
    assert load_tensors(kept)[1]["error"].startswith(line)


def test_a_run_goes_on_past_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda count: count in (9, 14))
    with pytest.warns(UserWarning, match="back to the last checkpoint"):
        trainer = run(full_config(20), tmp_path)
    assert trainer.counters.updates == 20
    assert len(list(tmp_path.glob("not_finite_*"))) == trainer.counters.rollbacks == 2
    assert all(torch.isfinite(v).all() for v in load_agent(tmp_path).agent.state_dict().values())
    assert load_tensors(tmp_path / RESUME_FILE)[1]["counters"]["rollbacks"] == 2


def test_too_many_end_the_run_with_one_line_and_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda count: count >= 10)
    with (
        pytest.warns(UserWarning, match="back to the last checkpoint"),
        pytest.raises(RobonavError, match=r"the loss is nan at update 10; lower the learning rates") as error,
    ):
        run(full_config(20), tmp_path)
    assert "\n" not in str(error.value)
    assert len(list(tmp_path.glob("not_finite_*"))) == ROLLBACKS_MAX
    assert load_agent(tmp_path).info["updates"] == 8


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = filled(tiny_config(), tmp_path)
    poison(monkeypatch, lambda count: True)
    with pytest.raises(RobonavError, match="world model: the loss is nan at update 0; lower the learning rates"):
        trainer.safe_update(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_is_not_finite_is_found_before_the_weights_change(tmp_path: Path) -> None:
    trainer = filled(replace(tiny_config(), behavior_start=0), tmp_path)
    before = [p.clone() for p in trainer.agent.parameters()]
    bias = trainer.agent.model.to_backbone.bias
    bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RobonavError, match=r"world model: the gradient's norm is (inf|nan) at update 0"):
        trainer.update()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.agent.parameters(), strict=True))
