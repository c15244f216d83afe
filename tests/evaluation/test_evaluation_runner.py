from __future__ import annotations

import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robonav.errors import ConfigError, PolicyError, RobonavError
from robonav.evaluation import barn, pictures, report, runner, suites, video

SEEDS = [3, 1, 4, 10, 5]


@pytest.fixture
def fakes(monkeypatch):
    # Spawned workers get this process's sys.path, so they find the module as well.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("fake_navigation")


@pytest.fixture
def recordings(fakes):
    trials = [runner.Trial(s, runner.EpisodeOptions(fakes.SPEC, keep_scans=True)) for s in SEEDS]
    return runner.run_trials(fakes.LineEnv, fakes.Forward, trials, workers=1)


def same(a, b):
    """Equal but for the time that decisions took."""
    a, b = (replace(e, decision_ms=np.zeros(0), positions_world_m=e.positions_world_m.tobytes()) for e in (a, b))
    return repr(a) == repr(b)


def test_workers_change_nothing(fakes):
    one = runner.evaluate(fakes.LineEnv, fakes.Forward, SEEDS, fakes.SPEC, workers=1)
    two = runner.evaluate(fakes.LineEnv, fakes.Forward, SEEDS, fakes.SPEC, workers=2)
    assert [e.seed for e in two] == SEEDS
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    # and an episode does not depend on those before it
    assert same(runner.evaluate(fakes.LineEnv, fakes.Forward, [4], fakes.SPEC, workers=1)[0], one[2])


def test_episode_says_what_happened(fakes, recordings):
    episodes = [r.episode for r in recordings]
    assert [e.outcome for e in episodes] == ["collision", "success", "success", "success", "success"]
    for one in episodes:
        assert one.decision_ms.shape == (one.steps,)
        assert (one.decision_ms > 0).all()
        assert one.positions_world_m.shape == (one.steps + 1, 2)
        assert one.time_s == pytest.approx(one.steps * fakes.SPEC.dt_s)
        assert one.reward == pytest.approx(-0.1 * one.steps)
        steps_m = np.linalg.norm(np.diff(one.positions_world_m, axis=0), axis=1)
        assert one.path_m == pytest.approx(steps_m.sum(), rel=1e-3)


def test_a_given_scene_is_used(fakes):
    scene = fakes.Scene("mine", (-1, -1, 6, 1), (0, 0, 0), (1.0, 0.0))
    options = runner.EpisodeOptions(fakes.SPEC, scene)
    episode = runner.record_episode(fakes.LineEnv(), fakes.Forward(), 1, options).episode
    assert (episode.scene, episode.shortest_m) == ("mine", 1.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_policy_reach_the_caller(fakes, workers):
    with pytest.raises(PolicyError, match=r"command .*nan.* is not finite"):
        runner.evaluate(fakes.LineEnv, fakes.Broken, SEEDS, fakes.SPEC, workers=workers)
    with pytest.raises(PolicyError, match="refused to start"):
        runner.evaluate(fakes.LineEnv, fakes.Refusing, SEEDS, fakes.SPEC, workers=workers)


def test_a_dead_worker_is_told(fakes):
    with pytest.raises(RobonavError, match="worker process died"):
        runner.evaluate(fakes.LineEnv, fakes.Dying, SEEDS, fakes.SPEC, workers=2)


def test_threads_are_restored(fakes, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    runner.evaluate(fakes.LineEnv, fakes.Forward, [1], fakes.SPEC, workers=1)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_summary(fakes, recordings):
    episodes = [r.episode for r in recordings]
    summary = report.summarise("forward", "line", 7, episodes)
    json.dumps(summary, allow_nan=False)
    assert list(summary) == [
        *("policy", "suite", "episodes", "seed", "success", "collision", "timeout", "spl", "spl_interval"),
        *("time_s", "time_s_p50", "path_m", "decision_ms", "scenes"),
    ]
    assert summary["success"]["rate"] == 0.8
    assert summary["collision"]["rate"] == 0.2
    assert summary["success"]["low"] < 0.8 < summary["success"]["high"]
    assert summary["time_s"] == pytest.approx(np.mean([e.time_s for e in episodes[1:]]))
    assert 0 < summary["decision_ms"]["p50"] <= summary["decision_ms"]["p99"]
    assert "success" in report.table(summary)
    assert "narrow" not in report.table(summary)
    assert "narrow" in report.table(report.summarise("forward", "line", 7, episodes * 2))


def test_summary_without_success_has_null_times(recordings):
    failed = [r.episode for r in recordings if r.episode.outcome != "success"]
    summary = report.summarise("forward", "line", 7, failed)
    assert summary["time_s"] is None
    assert summary["spl"] == 0.0
    json.dumps(summary, allow_nan=False)
    assert "time to goal" in report.table(summary)


def test_summary_of_barn(recordings):
    trials = [barn.trial(w, r.episode, 10.0) for w, r in zip((1, 1, 2, 2, 5), recordings, strict=True)]
    summary = report.summarise("forward", "barn", 7, [r.episode for r in recordings], trials)
    assert summary["worlds"] == [1, 2, 5]
    assert summary["score"] == pytest.approx(barn.mean_score(trials))
    assert "clip 2-8" in report.table(summary)


def test_seeds_are_apart_from_training_and_between_runs():
    first, second = suites.episode_seeds(0, suites.SEEDS_PER_RUN), suites.episode_seeds(1, 5)
    assert first[0] == suites.EVALUATION_SEEDS_FROM
    assert not set(first) & set(second)
    assert suites.episode_seeds(suites.MAX_RUN_SEED, 100_000)[-1] < 2**32
    assert suites.trial_seeds(0, 3, 2) == suites.trial_seeds(0, 3, 5)[:2]
    assert not set(suites.trial_seeds(0, 3, 100)) & set(suites.trial_seeds(0, 4, 100))
    assert suites.trial_seeds(0, 299, 100)[-1] < suites.episode_seeds(1, 1)[0]


@pytest.mark.parametrize(("seed", "episodes"), [(0, 0), (0, -1), (0, 100_001), (-1, 5), (30_000, 5)])
def test_seeds_out_of_range(seed, episodes):
    with pytest.raises(ConfigError):
        suites.episode_seeds(seed, episodes)


def test_suites_that_ship_load(tmp_path):
    for name in ("rooms", "empty", "office", "barn"):
        assert suites.load_suite(name).description
    with pytest.raises(ConfigError, match="did you mean 'rooms'"):
        suites.load_suite("roms")
    mine = tmp_path / "mine.toml"
    mine.write_text('description = "x"\nscene = "maps/hall.yaml"\n')
    assert suites.load_suite(str(mine)).scene == str(tmp_path / "maps" / "hall.yaml")
    bad = tmp_path / "bad.toml"
    bad.write_text('description = "x"\nepisode = 3\n')
    with pytest.raises(ConfigError, match="did you mean 'episodes'"):
        suites.load_suite(str(bad))


def test_page_shows_failures_first(fakes, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PANELS", 7)
    assert pictures.failures_first(recordings)[0].episode.outcome == "collision"
    page = tmp_path / "page.png"
    assert pictures.draw_page(recordings * 2, fakes.SPEC, "forward", page) == 7
    import cv2

    image = cv2.imread(str(page))
    assert min(image.shape[:2]) > 300
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
    assert [p.name for p in tmp_path.iterdir()] == ["page.png"]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_video_plays(fakes, recordings, tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    count = video.write_video(recordings[:2], fakes.SPEC, path)
    frames = []
    if suffix == ".gif":
        from PIL import Image, ImageSequence

        with Image.open(path) as film:
            frames = [np.array(page.convert("RGB")) for page in ImageSequence.Iterator(film)]
        # Pillow merges pages that are equal, which are those that hold the end.
        assert len(frames) <= -(-count // 2)
    else:
        import cv2

        film = cv2.VideoCapture(str(path))
        while (read := film.read())[0]:
            frames.append(read[1])
        assert len(frames) == count
    assert (frames[0] != frames[len(frames) // 2]).any()


def test_what_was_drawn_for_an_episode_stands_in_it_and_in_the_summary(fakes, recordings):
    class Randomised(fakes.LineEnv):
        def reset(self, **given):
            observation, info = super().reset(**given)
            return observation, info | {"randomisation": {"lag_s": 0.01 * given["seed"]}}

    trials = [runner.Trial(seed, runner.EpisodeOptions(fakes.SPEC)) for seed in (4, 5)]
    episodes = [r.episode for r in runner.run_trials(Randomised, fakes.Forward, trials, workers=1)]
    drawn = [{"lag_s": 0.04}, {"lag_s": 0.05}]
    assert [e.randomisation for e in episodes] == drawn
    assert report.summarise("forward", "line", 0, episodes)["randomisation"] == drawn
    assert "randomisation" not in report.summarise("forward", "line", 0, [r.episode for r in recordings])


def test_what_was_seen_and_decided_is_kept_of_failures_alone(fakes):
    trials = [runner.Trial(s, runner.EpisodeOptions(fakes.SPEC, keep_failures=True)) for s in SEEDS]
    recordings = runner.run_trials(fakes.LineEnv, fakes.Forward, trials, workers=1)
    assert {r.episode.outcome for r in recordings} >= {"success", "collision"}
    for r in recordings:
        assert (r.ticks is None) == (r.episode.outcome == "success")
        if r.ticks is not None:
            assert len(r.ticks) == r.episode.steps + 1
            assert [decision is None for _, decision in r.ticks] == [False] * r.episode.steps + [True]
            assert [observation.stamp_ns for observation, _ in r.ticks] == list(range(r.episode.steps + 1))
