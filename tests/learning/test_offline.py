"""Learning from recorded episodes: what is replayed is what was recorded, resuming changes nothing, Minari and back."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_env import SPEC, CountingFactory
from tiny import tiny_config

from robonav.errors import CheckpointError, ConfigError, RobonavError, ShapeError
from robonav.learning.checkpoint import WEIGHTS_FILE, load_agent
from robonav.learning.collector import InProcessPool
from robonav.learning.offline import fill, joined, offline_config, replay_folder, train_offline, train_on_replay
from robonav.learning.replay import Replay
from robonav.learning.streams import Arrays
from robonav.learning.trainer import Trainer, train, worker_configs
from robonav.planning.situation import SituationConfig


@pytest.fixture(scope="module")
def episodes() -> list[Arrays]:
    """Whole episodes of the counting environment, with events."""
    pool = InProcessPool(worker_configs(tiny_config(), SPEC, [0, 0]), CountingFactory())
    pool.request(0, 80, None)
    chunk = pool.receive()[0]
    names = set(chunk) - {"label", "labelled"}
    found = []
    for stream in range(2):
        starts = np.flatnonzero(chunk["first"][stream]).tolist()
        found += [{n: chunk[n][stream, a:b] for n in names} for a, b in pairwise(starts)]
    assert len(found) > 10
    return found


def test_the_replay_holds_the_episodes_one_after_the_other(episodes: list[Arrays]) -> None:
    steps = sum(len(e["first"]) for e in episodes)
    replay = Replay(SPEC, 1, steps)
    assert fill(replay, episodes, SPEC) == len(replay) == steps
    batch = replay.sample(np.random.default_rng(0), 64, 9)
    count, first = batch["goal_base_m"][..., 1], batch["first"] > 0
    np.testing.assert_array_equal(count[:, 1:], np.where(first[:, 1:], 0, count[:, :-1] + 1))
    # reward t + 1 is the first action of step t, and 0 where an episode begins
    led = np.where(first[:, 1:], 0, batch["action"][:, :-1, 0])
    np.testing.assert_allclose(batch["reward"][:, 1:], led, atol=1e-6)


def test_training_learns_and_a_resumed_run_equals_the_whole_one(episodes: list[Arrays], tmp_path: Path) -> None:
    whole = train_offline(tiny_config(updates=8), SPEC, episodes, tmp_path / "whole")
    train_offline(tiny_config(updates=4), SPEC, episodes, tmp_path / "parts")
    with pytest.raises(CheckpointError, match="holds a run already"):
        train_offline(tiny_config(updates=4), SPEC, episodes, tmp_path / "parts")
    parts = train_offline(tiny_config(updates=8), SPEC, episodes, tmp_path / "parts", resume=True)
    theirs = parts.agent.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in whole.agent.state_dict().items())
    assert whole.counters.updates == 8
    assert whole.counters.env_steps == sum(len(e["first"]) for e in episodes)
    assert load_agent(tmp_path / "whole" / WEIGHTS_FILE).spec == SPEC
    rows = (tmp_path / "whole" / "progress.csv").read_text().splitlines()
    assert len(rows) >= 2


def test_the_model_learns_what_was_recorded(episodes: list[Arrays]) -> None:
    steps = sum(len(e["first"]) for e in episodes)
    trainer = Trainer(offline_config(tiny_config(), steps), SPEC)
    fill(trainer.replay, episodes, SPEC)
    losses = [trainer.update()["model"] for _ in range(40)]
    assert np.mean(losses[-8:]) < 0.92 * np.mean(losses[:4])


def test_episodes_of_another_layout_are_one_line(episodes: list[Arrays], tmp_path: Path) -> None:
    other = {**episodes[0], "scan_m": episodes[0]["scan_m"][:, :64]}
    with pytest.raises(ShapeError, match=r"episode 1: scan_m for robot 'a1': expected \(\d+, 128\), got \(\d+, 64\)"):
        joined([episodes[0], other], SPEC)
    with pytest.raises(ShapeError, match=r"reward for robot 'a1': .* got nothing"):
        joined([{k: v for k, v in episodes[0].items() if k != "reward"}], SPEC)
    with pytest.raises(ShapeError, match="recorded steps: expected at least 7"):
        train_offline(tiny_config(), SPEC, [{k: v[:3] for k, v in episodes[0].items()}], tmp_path)


def test_minari_and_back_is_what_it_was(
    episodes: list[Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    from robonav.learning.minari_data import PATH_VARIABLE, export_minari, import_minari, is_minari

    folder = export_minari(episodes, SPEC, tmp_path, "robonav/counting-v0", "counts")
    assert is_minari(folder)
    back = import_minari(folder)
    assert len(back) == len(episodes)
    for was, now in zip(episodes, back, strict=True):
        assert set(now) == set(was) - {"label", "labelled"}
        for name, values in now.items():
            expected = was[name].copy()
            if name == "action":  # that of the last step led nowhere
                expected[-1] = 0
            assert values.dtype == expected.dtype, name
            np.testing.assert_array_equal(values, expected, err_msg=name)
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path))  # Minari's own tool finds it by its name
    dataset = minari.load_dataset("robonav/counting-v0")
    assert dataset.total_steps == sum(len(e["first"]) - 1 for e in episodes)


def test_minari_mistakes_are_one_line(episodes: list[Arrays], tmp_path: Path) -> None:
    pytest.importorskip("minari")
    from robonav.learning.minari_data import export_minari, import_minari

    folder = export_minari(episodes[:1], SPEC, tmp_path, "one-v0")
    with pytest.raises(RobonavError, match="expected a new dataset"):
        export_minari(episodes[:1], SPEC, tmp_path, "one-v0")
    with pytest.raises(RobonavError, match=r"no data/metadata\.json"):
        import_minari(tmp_path)
    with pytest.raises(RobonavError, match="episodes: expected at least one"):
        export_minari([], SPEC, tmp_path, "none-v0")
    for name in ("bogus", "../outside-v0", "/outside-v0"):
        with pytest.raises(RobonavError, match="expected a name as in office-v0"):
            export_minari(episodes[:1], SPEC, tmp_path / "out", name)
    assert not (tmp_path / "out").exists() and not (tmp_path / "outside-v0").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["one-v0"]  # nothing is left beside it
    data = folder / "data" / "main_data.hdf5"
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(RobonavError, match="a whole Minari dataset"):
        import_minari(folder)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps its replay on disk."""
    folder = tmp_path_factory.mktemp("kept")
    train(replace(tiny_config(workers=0), replay_on_disk=True), SPEC, CountingFactory(), folder)
    return folder


def test_what_another_run_keeps_is_learnt_from_and_not_touched(kept: Path, tmp_path: Path) -> None:
    source = replay_folder(kept)
    assert source == kept / "replay"
    assert replay_folder(tmp_path) is None
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    whole = train_on_replay(tiny_config(updates=8), SPEC, source, tmp_path / "whole")
    train_on_replay(tiny_config(updates=4), SPEC, source, tmp_path / "parts")
    parts = train_on_replay(tiny_config(updates=8), SPEC, source, tmp_path / "parts", resume=True)
    theirs = parts.agent.state_dict()
    for name in ("scenes", "randomisation"):
        assert load_agent(tmp_path / "whole").info[name] == load_agent(kept).info[name]
    assert all(torch.equal(value, theirs[name]) for name, value in whole.agent.state_dict().items())
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    steps = whole.replay.sample(np.random.default_rng(0), 64, 9)
    count, first = steps["goal_base_m"][..., 1], steps["first"] > 0
    np.testing.assert_array_equal(count[:, 1:], np.where(first[:, 1:], 0, count[:, :-1] + 1))
    with pytest.raises(ValueError, match="read-only"):
        whole.replay.add(
            {n: np.zeros((whole.replay.streams, 1, *s), np.float32) for n, s in whole.replay.shapes.items()}
        )


def test_a_checkpoint_says_whose_velocities_it_reads_and_so_does_what_learns_from_its_replay(tmp_path: Path) -> None:
    seeing = tiny_config(workers=0)
    seeing = replace(seeing, replay_on_disk=True, collect=replace(seeing.collect, sight="learned"))
    train(seeing, SPEC, CountingFactory(), tmp_path / "run")
    checkpoint = load_agent(tmp_path / "run")
    assert checkpoint.situation == SituationConfig(sight="learned")
    assert replace(checkpoint, info={}).situation == SituationConfig(sight="")  # one that is older than the sight
    train_on_replay(tiny_config(updates=4), SPEC, tmp_path / "run" / "replay", tmp_path / "other")
    assert load_agent(tmp_path / "other").situation.sight == "learned"
    with pytest.raises(ConfigError, match=r"situation in the checkpoint: situation: sight: expected '' or 'learned'"):
        _ = replace(checkpoint, info={"situation": {"sight": "mine"}}).situation


def test_a_replay_that_is_not_there_or_of_other_sensors_is_one_line(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"replay\.json: expected the layout of a replay on disk, got none"):
        train_on_replay(tiny_config(), SPEC, tmp_path, tmp_path / "run")
    other = replace(SPEC, lidar=replace(SPEC.lidar, beams=64))
    with pytest.raises(CheckpointError, match=r"array scan_m: expected .*64"):
        train_on_replay(tiny_config(), other, kept / "replay", tmp_path / "run")
    with pytest.raises(ShapeError, match="steps of a stream: expected at least 4000"):
        train_on_replay(replace(tiny_config(), length=4000), SPEC, kept / "replay", tmp_path / "run")
    assert not (tmp_path / "run").exists()
