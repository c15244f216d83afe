"""Evaluation beside a run: what it measures, which weights it keeps, and that the run does not depend on it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_env import SPEC, CountingEnv, CountingFactory
from tiny import tiny_config

from robonav.errors import RobonavError
from robonav.learning.checkpoint import BEST_FILE, WEIGHTS_FILE, load_agent, load_tensors, save_agent
from robonav.learning.collector import InProcessPool
from robonav.learning.config import EvaluationConfig, TrainConfig
from robonav.learning.development import Development, Evaluator, play
from robonav.learning.learner import Learner
from robonav.learning.streams import Coming, GymStreams
from robonav.learning.trainer import Trainer, train

CONFIG = EvaluationConfig(every=4, episodes=6)


class FastEnv(CountingEnv):
    """An episode is a success if its first action goes forward; the second step ends it."""

    def step(self, action):
        self.fast = float(action[0]) > 0 if self.count == 0 else self.fast
        observation, reward, *_ = super().step(action)
        ended = self.count >= 2
        return observation, reward, ended, False, {"outcome": "success" if self.fast else "collision"} if ended else {}


@dataclass(frozen=True)
class FastFactory:
    def __call__(self, index: int, count: int) -> GymStreams:
        return GymStreams([FastEnv() for _ in range(count)])


def write(folder: Path, updates: int, forward: float) -> dict[str, torch.Tensor]:
    """A checkpoint whose actor goes forward at that speed, whatever it sees."""
    config = tiny_config()
    agent = Learner(config, SPEC).agent
    output = agent.behavior.actor.net[-1]
    with torch.no_grad():
        output.weight.zero_()
        output.bias.zero_()
        output.bias[0] = forward
    save_agent(folder / WEIGHTS_FILE, agent.state_dict(), config.agent, SPEC, {"updates": updates, "seed": 3})
    return agent.state_dict()


def test_outcomes_are_those_of_the_first_episode_of_each_world() -> None:
    agent = Learner(tiny_config(), SPEC).agent
    comings = [Coming(seed, "a") for seed in (10, 11, 12, 13, 14)]  # of 3, 4, 5, 6, 7 steps; even ones succeed
    outcomes = play(agent, SPEC, CountingFactory()(0, 5), comings)
    assert outcomes == ["success", "timeout", "success", "timeout", "success"]


def test_the_best_weights_are_kept_with_what_they_scored(tmp_path: Path) -> None:
    development = Development(CONFIG, ["a", "b", "a"], tmp_path, FastFactory())
    assert [coming.scene for coming in development.comings] == ["a", "b"] * 3
    good = write(tmp_path, 4, 1.0)
    score = development.measure()
    assert (score.updates, score.success, score.best) == (4, 1.0, True)
    assert score.by_scene == {"a": (1.0, 3), "b": (1.0, 3)}
    write(tmp_path, 8, -1.0)
    score = development.measure()
    assert (score.updates, score.success, score.best) == (8, 0.0, False)
    best = load_agent(tmp_path / BEST_FILE)
    assert all(torch.equal(v, good[k]) for k, v in best.agent.state_dict().items())
    assert best.info["updates"] == 4
    assert best.info["seed"] == 3
    assert best.info["development"] == {"success": 1.0, "episodes": 6, "by_scene": {"a": [1.0, 3], "b": [1.0, 3]}}
    again = Development(CONFIG, ["a", "b"], tmp_path, FastFactory())  # as after a resume
    assert not again.measure().best
    write(tmp_path, 12, 1.0)
    assert again.measure().best  # of equals, the one that learnt longer
    assert load_agent(tmp_path / BEST_FILE).info["updates"] == 12


def test_a_score_of_other_scenes_does_not_hold_back_a_run(tmp_path: Path) -> None:
    write(tmp_path, 4, 1.0)
    Development(CONFIG, ["a"], tmp_path, FastFactory()).measure()
    write(tmp_path, 8, -1.0)
    assert Development(replace(CONFIG, episodes=5), ["a"], tmp_path, FastFactory()).measure().best


def test_development_seeds_are_no_training_seeds_and_no_evaluation_seeds() -> None:
    from robonav.evaluation.suites import EVALUATION_SEEDS_FROM
    from robonav.learning.collector import SEEDS_PER_STREAM

    for config in (CONFIG, EvaluationConfig(seed=999, episodes=10_000)):
        assert config.seeds[0] > 501 * SEEDS_PER_STREAM + 1_000 * 10_000
        assert config.seeds[-1] < EVALUATION_SEEDS_FROM
    assert set(CONFIG.seeds).isdisjoint(replace(CONFIG, seed=1).seeds)


def run(config: TrainConfig, folder: Path, resume: bool = False) -> Trainer:
    return train(config, SPEC, CountingFactory(), folder, resume, InProcessPool)


def test_a_run_measures_beside_itself_and_is_the_same_without(tmp_path: Path) -> None:
    """The evaluation may be added when a run is resumed, which is how it is asked for here."""
    run(tiny_config(4), tmp_path / "a")
    watched = run(replace(tiny_config(12), evaluation=CONFIG), tmp_path / "a", resume=True)
    plain = run(tiny_config(12), tmp_path / "b")
    ours, theirs = watched.learner.state(), plain.learner.state()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    rows = json.loads((tmp_path / "a" / "evaluations.json").read_text())
    assert rows[-1]["updates"] == 12  # the last weights are always measured
    assert rows[-1]["episodes"] == 6
    assert rows[-1]["success"] == 0.5  # seeds from an even one on: every other succeeds
    assert load_agent(tmp_path / "a" / BEST_FILE).info["development"]["success"] == 0.5
    assert not (tmp_path / "b" / BEST_FILE).exists()


class Broken:
    """Worlds that cannot be made."""

    def __call__(self, index: int, count: int) -> GymStreams:
        raise RobonavError("scene a: no such scene")


@pytest.mark.parametrize("how", ["error", "killed"])
def test_an_evaluation_that_fails_is_told_once_and_the_run_goes_on(tmp_path: Path, how: str) -> None:
    write(tmp_path, 4, 1.0)
    evaluator = Evaluator(Development(CONFIG, ["a"], tmp_path, Broken()), 4, 0)
    try:
        if how == "killed":
            evaluator._process.kill()
            evaluator._process.join()
        with pytest.warns(UserWarning, match="evaluation ended .*the run goes on without it") as told:
            evaluator.checkpoint(4)
            assert evaluator.scores(wait=True) == []
            evaluator.checkpoint(8)
            assert evaluator.last_scores(12) == []
        assert len(told) == 1
        assert not np.any(["\n" in str(w.message) for w in told])
    finally:
        evaluator.close()


def test_what_is_asked_when_it_is_due_and_idle(tmp_path: Path) -> None:
    write(tmp_path, 4, 1.0)
    evaluator = Evaluator(Development(CONFIG, ["a"], tmp_path, FastFactory()), 100, 30)
    try:
        evaluator.checkpoint(90)
        assert evaluator.scores(wait=True) == []  # not due
        evaluator.checkpoint(110)
        evaluator.checkpoint(230)  # still busy: left out
        assert len(evaluator.scores(wait=True)) == 1
        assert evaluator.asked_at == 110
        assert len(evaluator.last_scores(230)) == 1
        assert evaluator.last_scores(230) == []  # measured already
    finally:
        evaluator.close()
    assert load_tensors(tmp_path / BEST_FILE)[1]["info"]["development"]["episodes"] == 6
