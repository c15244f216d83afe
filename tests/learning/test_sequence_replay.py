"""Replay holds what was lived: consecutive, aligned, across the ring's edge, and through a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
from counting_env import SPEC, CountingFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import AGENT, tiny_config

from robonav.errors import ShapeError
from robonav.learning.collector import Collector, WorkerConfig
from robonav.learning.config import CollectConfig
from robonav.learning.replay import Replay, step_shapes


def chunk(streams: int, start: int, steps: int) -> dict[str, np.ndarray]:
    """Reward counts steps; a map's cells and the other arrays are functions of that count."""
    count = np.arange(start, start + steps, dtype=np.float32) + 1000 * np.arange(streams, dtype=np.float32)[:, None]
    out = {k: np.zeros((streams, steps, *s), np.float32) for k, s in step_shapes(SPEC).items()}
    out["reward"] = count
    out["scan_m"] += (count % 8)[..., None]
    out["local_map"] = np.zeros((streams, steps, 3, 48, 48), np.uint8)
    out["local_map"][..., 0, 0] = np.where(count % 2, 255, 0)[..., None]
    return out


@settings(max_examples=25, deadline=None)
@given(total=st.integers(10, 90), seed=st.integers(0, 99))
def test_samples_are_consecutive_in_one_stream_and_recent(total: int, seed: int) -> None:
    replay = Replay(SPEC, streams=2, capacity=40)
    for start in range(0, total, 7):
        replay.add(chunk(2, start, min(7, total - start)))
    batch = replay.sample(np.random.default_rng(seed), batch=6, length=10)
    count = batch["reward"]
    assert (np.diff(count, axis=1) == 1).all()
    assert (count % 1000 >= total - min(total, 40)).all()
    assert (count % 1000 < total).all()
    assert (batch["scan_m"] == (count % 8)[..., None]).all()
    assert (batch["local_map"][..., 0, 0, 0] == np.where(count % 2, 255, 0)).all()


def test_both_ends_of_what_is_held_are_sampled() -> None:
    replay = Replay(SPEC, streams=1, capacity=12)
    replay.add(chunk(1, 0, 20))
    count = replay.sample(np.random.default_rng(0), batch=400, length=10)["reward"]
    assert set(count[:, 0]) == {8.0, 9.0, 10.0}


def test_state_round_trip_samples_the_same() -> None:
    replay, other = Replay(SPEC, 2, 16), Replay(SPEC, 2, 16)
    replay.add(chunk(2, 0, 25))
    other.restore(replay.state())
    a, b = (r.sample(np.random.default_rng(5), 4, 8) for r in (replay, other))
    assert all(np.array_equal(a[k], b[k]) for k in a)
    replay.add(chunk(2, 25, 3))
    other.add(chunk(2, 25, 3))
    a, b = (r.sample(np.random.default_rng(6), 4, 8) for r in (replay, other))
    assert np.array_equal(a["reward"], b["reward"])


def test_wrong_arrays_are_named() -> None:
    replay = Replay(SPEC, 2, 16)
    bad = chunk(2, 0, 4)
    bad["scan_m"] = bad["scan_m"][..., :100]
    with pytest.raises(ShapeError, match=r"scan_m: expected \(2, 4, 128\), got \(2, 4, 100\)"):
        replay.add(bad)
    with pytest.raises(ShapeError, match="at most 0 steps held"):
        replay.sample(np.random.default_rng(0), 1, 2)
    with pytest.raises(ShapeError, match="checkpoint"):
        replay.restore(Replay(SPEC, 3, 16).state())


@pytest.mark.parametrize("steps", [5, 40])
def test_collected_streams_are_whole_episodes_with_actions_before_their_effects(steps: int) -> None:
    config = WorkerConfig(0, 7, CollectConfig(envs=3, greedy_envs=1, scenes=("a",)), AGENT, SPEC, (0, 0, 0))
    collector = Collector(config, CountingFactory())
    chunks = [collector.collect(i, steps, None)[0] for i in range(3)]
    lived = {k: np.concatenate([c[k] for c in chunks], axis=1) for k in chunks[0]}
    number, count = lived["goal_base_m"][..., 0], lived["goal_base_m"][..., 1]
    terminals = 0
    for s in range(3):
        assert lived["first"][s, 0] == 1
        for t in range(1, number.shape[1]):
            if lived["first"][s, t]:
                length = 3 + number[s, t - 1] % 5
                assert count[s, t] == 0
                assert count[s, t - 1] == length, "the last observation of an episode is kept"
                assert number[s, t] == number[s, t - 1] + 1, "every episode has a new seed"
                assert lived["terminal"][s, t - 1] == float(number[s, t - 1] % 2 == 0)
                terminals += int(lived["terminal"][s, t - 1])
            else:
                assert count[s, t] == count[s, t - 1] + 1
                assert lived["reward"][s, t] == pytest.approx(lived["action"][s, t - 1, 0], abs=1e-6)
    if steps == 40:
        assert terminals > 5


def test_collection_depends_on_seed_and_iteration_alone() -> None:
    config = WorkerConfig(0, 7, CollectConfig(envs=2, scenes=("a",)), AGENT, SPEC, (0, 0))
    runs = [Collector(config, CountingFactory()) for _ in range(2)]
    weights = runs[0].agent.state_dict()
    first, second = (r.collect(4, 12, weights)[0] for r in runs)
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert not np.array_equal(first["action"], runs[0].collect(5, 12, weights)[0]["action"])


def test_tiny_config_fits_the_counting_environment() -> None:
    assert tiny_config().streams == 2
