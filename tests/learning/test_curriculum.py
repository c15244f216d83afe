"""Curriculum: when a level is won, what episodes are drawn from, and that a resumed run goes on as if nothing was."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from counting_env import SPEC
from level_env import PRESETS, LevelFactory
from tiny import tiny_config

from robonav.config import find_config, from_mapping, load_config
from robonav.errors import CheckpointError, ConfigError
from robonav.learning.checkpoint import RESUME_FILE, load_tensors
from robonav.learning.collector import Collector, CollectorPool, InProcessPool
from robonav.learning.config import TrainConfig
from robonav.learning.counters import Counters
from robonav.learning.curriculum import (
    CurriculumConfig,
    CurriculumState,
    LevelConfig,
    Result,
    after,
    choose,
)
from robonav.learning.trainer import Trainer, train, worker_configs
from sim.randomisation import load_randomisation
from sim.scenes import load_scene

LEVELS = (
    LevelConfig("one", ("easy",)),
    LevelConfig("two", ("middle", "hard")),
    LevelConfig("three", ("last",), "some"),
)
CONFIG = CurriculumConfig(LEVELS, window=4, promote_at=0.75, rehearsal=0.3)


def results(text: str, level: int = 0, greedy: bool = False) -> list[Result]:
    """One a letter: + for a success."""
    return [Result(level, letter == "+", greedy) for letter in text]


# promotion


@pytest.mark.parametrize(
    ("text", "level", "recent"),
    [
        ("+++", 0, "+++"),  # the window is not full yet
        ("++++", 1, ""),
        ("+++-", 1, ""),  # 0.75 is enough
        ("++--", 0, "++--"),
        ("--++++", 1, ""),  # what is further back has left the window
        ("-+-+-+-+", 0, "-+-+"),
    ],
)
def test_a_level_is_won_by_success_over_a_full_window(text: str, level: int, recent: str) -> None:
    state = after(CONFIG, CurriculumState(), results(text))
    assert state.level == level
    assert state.recent == tuple(letter == "+" for letter in recent)


def test_results_one_by_one_or_together_are_the_same() -> None:
    rng = np.random.default_rng(0)
    stream = [Result(0, bool(rng.random() < 0.6), bool(rng.random() < 0.5)) for _ in range(50)]
    together, single = after(replace(CONFIG, promote_at=1.0), CurriculumState(), stream), CurriculumState()
    for result in stream:
        single = after(replace(CONFIG, promote_at=1.0), single, [result])
    assert together == single


def test_what_follows_a_promotion_in_one_batch_was_played_on_the_old_level() -> None:
    state = after(CONFIG, CurriculumState(), results("++++") + results("++++", level=1))
    assert state == CurriculumState(1, promotions=(4,))
    state = after(CONFIG, state, results("--", level=0) + results("+-+++", level=1))
    assert (state.level, state.promotions) == (2, (4, 4))


def test_rehearsed_episodes_do_not_count() -> None:
    state = after(CONFIG, CurriculumState(1), results("++++", level=0))
    assert state == CurriculumState(1)


@pytest.mark.parametrize(("measured", "level"), [("all", 0), ("greedy", 1), ("sampled", 0)])
def test_only_the_measured_episodes_count(measured: str, level: int) -> None:
    mixed = [r for pair in zip(results("++++", greedy=True), results("----"), strict=True) for r in pair]
    assert after(replace(CONFIG, measured=measured), CurriculumState(), mixed).level == level


def test_the_last_level_is_kept() -> None:
    state = after(CONFIG, CurriculumState(2), results("+" * 30, level=2))
    assert (state.level, state.episodes, state.success) == (2, 30, 1.0)
    assert len(state.recent) == CONFIG.window


# what episodes get


def test_the_first_level_has_nothing_to_rehearse() -> None:
    assert {choose(CONFIG, 0, seed) for seed in range(200)} == {(0, "easy", "off")}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_rehearsal_has_its_share_and_is_spread_over_the_earlier_levels(share: float) -> None:
    drawn = [choose(replace(CONFIG, rehearsal=share), 2, seed) for seed in range(4000)]
    levels = Counter(choice.level for choice in drawn)
    assert levels[2] / 4000 == pytest.approx(1 - share, abs=0.025)
    for level in (0, 1):
        assert levels[level] / 4000 == pytest.approx(share / 2, abs=0.025)
    scenes = Counter(choice.scene for choice in drawn)
    assert scenes["middle"] == pytest.approx(scenes["hard"], abs=120)
    assert {choice.randomisation for choice in drawn if choice.level == 2} <= {"some"}
    assert {choice.randomisation for choice in drawn if choice.level < 2} <= {"off"}


def test_a_choice_follows_from_level_and_seed() -> None:
    assert [choose(CONFIG, 2, s) for s in range(50)] == [choose(CONFIG, 2, s) for s in range(50)]


def test_the_collector_asks_for_what_was_chosen() -> None:
    config = replace(tiny_config(), curriculum=CONFIG)
    worker = worker_configs(config, SPEC, [0, 0])[0]
    collector = Collector(worker, LevelFactory())
    for level in (0, 2):
        chunk, ended, _ = collector.collect(level, 60, None, level)
        began = chunk["first"] == 1.0
        shown = {tuple(row) for row in chunk["tilt_rad"][began].astype(int).tolist()}
        known = {(PRESETS.index(s), int(at == 2)) for at in range(level + 1) for s in LEVELS[at].scenes}
        assert shown <= known
        assert (3, 1) in shown or level == 0
        assert {r.level for r in ended} <= set(range(level + 1))


# the run


def run(config: TrainConfig, folder: Path, resume: bool = False, pool: object = InProcessPool) -> Trainer:
    return train(config, SPEC, LevelFactory(), folder, resume, pool)  # type: ignore[arg-type]


def config(updates: int) -> TrainConfig:
    return replace(tiny_config(updates), curriculum=replace(CONFIG, promote_at=0.5))


def assert_same(a: Trainer, b: Trainer) -> None:
    assert a.counters.curriculum == b.counters.curriculum
    ours, theirs = a.replay.state(), b.replay.state()
    assert all(np.array_equal(ours[k], theirs[k]) for k in ours)
    assert a.counters.env_steps == b.counters.env_steps
    for x, y in ((a.agent, b.agent), (a.average, b.average)):
        weights = y.state_dict()
        assert all(bool((v == weights[k]).all()) for k, v in x.state_dict().items())


def test_a_resumed_run_has_the_levels_of_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(config(24), tmp_path / "whole")
    run(config(8), tmp_path / "parts")
    resumed = run(config(24), tmp_path / "parts", resume=True)
    assert whole.counters.curriculum.level >= 1  # else nothing was shown
    assert_same(whole, resumed)


def test_worker_processes_give_what_the_single_process_gives_levels_included(tmp_path: Path) -> None:
    assert_same(run(config(12), tmp_path / "a"), run(config(12), tmp_path / "b", pool=CollectorPool))


def test_the_state_is_in_the_checkpoint_and_the_level_in_the_progress(tmp_path: Path) -> None:
    state = run(config(24), tmp_path).counters.curriculum
    _, about = load_tensors(tmp_path / RESUME_FILE)
    assert CurriculumState.of(about["counters"]["curriculum"]) == state
    rows = list(csv.DictReader((tmp_path / "progress.csv").read_text().splitlines()))
    assert int(rows[-1]["level"]) == state.level


def test_another_curriculum_is_refused_on_resume(tmp_path: Path) -> None:
    run(config(4), tmp_path)
    other = replace(config(8), curriculum=replace(CONFIG, window=5))
    with pytest.raises(CheckpointError, match="'curriculum' differs"):
        run(other, tmp_path, resume=True)


def test_state_survives_json_and_older_checkpoints_begin_at_the_start() -> None:
    state = CurriculumState(2, (True, False), 7, (30, 41))
    assert CurriculumState.of(json.loads(json.dumps(state.mapping()))) == state
    assert CurriculumState.of({}) == CurriculumState()
    counters = Counters(curriculum=state)
    data = json.loads(json.dumps(counters.mapping()))
    assert Counters.of(data).curriculum == state
    del data["curriculum"]
    assert Counters.of(data).curriculum == CurriculumState()


# as data


def test_the_preset_has_the_levels_that_it_promises_and_every_scene_exists() -> None:
    curriculum = load_config(TrainConfig, find_config("train", "curriculum")).curriculum
    expected = "empty, sparse, dense, barn-like, corridors and mazes, few movers, crowds, randomised"
    assert ", ".join(level.name for level in curriculum.levels) == expected
    for scene, randomisation in dict.fromkeys(curriculum.presets):
        made = load_scene(scene).scene(1)
        assert made.start[:2] != made.goal
        assert load_randomisation(randomisation).is_off is (randomisation == "off")
    kinds = {level.name: load_scene(level.scenes[0]).scene(1) for level in curriculum.levels}
    assert not len(kinds["empty"].boxes) + len(kinds["empty"].cylinders)
    assert not kinds["dense"].movers
    assert 0 < len(kinds["few movers"].movers) < len(kinds["crowds"].movers)


def test_without_levels_there_is_no_curriculum() -> None:
    assert not CurriculumConfig()
    assert not TrainConfig().curriculum


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": 0}, "window: expected at least 1"),
        ({"promote_at": 1.5}, "promote_at: expected at most 1"),
        ({"rehearsal": -0.1}, "rehearsal"),
        ({"measured": "some"}, "measured"),
        ({"levels": [{"name": "a", "scenes": []}]}, "level 'a': scenes: expected at least one"),
        ({"levels": [{"name": "a", "scenes": ["x"]}, {"name": "a", "scenes": ["x"]}]}, "names that differ"),
        ({"levels": [{"name": "a", "scene": ["x"]}]}, "did you mean 'scenes'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        from_mapping(TrainConfig, {"curriculum": changes}, "preset")
    assert "\n" not in str(error.value)
