"""Replay equals a plain list of steps, in memory and on disk, and mixes its batches as it says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_reference import SMALL, Reference, chunk

from robonav.config import from_mapping, to_mapping
from robonav.errors import ConfigError, ShapeError
from robonav.learning.replay import OPTIONAL, Replay, ReplayConfig
from robonav.learning.replay_events import BLOCKED_ROUTE, COLLISION, NEAR_MISS, SUCCESS

UNIFORM = ReplayConfig(recent=0, rare=0)


def quiet(streams: int, start: int, steps: int) -> dict[str, np.ndarray]:
    """A chunk without events."""
    return {**chunk(streams, start, steps), "event": np.zeros((streams, steps), np.uint8)}


def starts(batch: dict[str, np.ndarray]) -> np.ndarray:
    return batch["reward"][:, 0].astype(int) % 100_000


def within(count: int, of: int, share: float) -> None:
    """A count fits a share: five standard deviations of the binomial distribution."""
    assert abs(count - of * share) <= 5 * np.sqrt(of * share * (1 - share)) + 1e-9, (count / of, share)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    streams=st.integers(1, 3),
    capacity=st.integers(1, 30),
    slack=st.integers(0, 9),
    on_disk=st.booleans(),
    seed=st.integers(0, 99),
)
def test_samples_are_pieces_of_the_plain_list(
    sizes: list[int], streams: int, capacity: int, slack: int, on_disk: bool, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) if on_disk else None
        replay, reference = Replay(SMALL, streams, capacity, where, slack=slack), Reference(streams)
        written, rng = 0, np.random.default_rng(seed)
        for size in sizes:
            replay.add(chunk(streams, written, size))
            reference.add(chunk(streams, written, size))
            written += size
            held = min(written, capacity)
            assert len(replay) == streams * held
            length = int(rng.integers(1, held + 2))
            assert replay.can_sample(length) == (length <= held)
            if length <= held:
                batch = replay.sample(rng, 12, length, with_events=True)
                reference.check(batch, written - held, written)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_what_is_sampled_depends_on_contents_and_generator_alone(cuts: list[int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Replay(SMALL, 2, 25), Replay(SMALL, 2, 25, Path(folder), slack=4)
        whole.add(chunk(2, 0, sum(cuts)))
        for cut in cuts:
            parts.add(chunk(2, parts.written, cut))
        length = min(5, sum(cuts))
        a, b = (r.sample(np.random.default_rng(seed), 9, length, with_events=True) for r in (whole, parts))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_names_and_kinds_are_those_of_a_step() -> None:
    replay = Replay(SMALL, 2, 20)
    replay.add(chunk(2, 0, 20))
    batch = replay.sample(np.random.default_rng(0), 3, 4)
    assert set(batch) == set(replay.shapes)
    kinds = {name: np.uint8 if name == "local_map" else np.float32 for name in batch}
    assert {name: values.dtype for name, values in batch.items()} == kinds
    assert {name: values.shape[2:] for name, values in batch.items()} == replay.shapes
    assert replay.sample(np.random.default_rng(0), 3, 4, with_events=True)["event"].dtype == np.uint8


def test_a_chunk_without_events_has_none_and_nothing_rare_is_drawn() -> None:
    with_them, without = Replay(SMALL, 2, 40), Replay(SMALL, 2, 40, config=ReplayConfig(rare=1, recent=0))
    arrays = quiet(2, 0, 40)
    with_them.add(arrays)
    del arrays["event"]
    without.add(arrays)
    batch = without.sample(np.random.default_rng(0), 2000, 4, with_events=True)
    assert not batch["event"].any()
    for start in range(37):  # as good as uniform
        within(int((starts(batch) == start).sum()), 2000, 1 / 37)


def test_the_newest_share_gets_its_part() -> None:
    replay = Replay(SMALL, 1, 200, config=ReplayConfig(recent=0.5, recent_share=0.2, rare=0))
    replay.add(quiet(1, 0, 333))
    batch = replay.sample(np.random.default_rng(1), 4000, 10)
    newest = starts(batch) >= 333 - 40
    within(int(newest.sum()), 4000, 0.5 + 0.5 * 31 / 191)
    among = starts(batch)[newest]
    assert (among.min(), among.max()) == (293, 323)
    for start in range(293, 324):
        within(int((among == start).sum()), len(among), 1 / 31)
    tight = Replay(SMALL, 1, 200, config=ReplayConfig(recent=1, recent_share=0.01, rare=0))
    tight.add(quiet(1, 0, 200))
    assert set(starts(tight.sample(np.random.default_rng(1), 20, 10))) == {190}, "a share shorter than a sequence"


def test_events_get_their_part_and_lie_anywhere_in_the_sequence() -> None:
    arrays = quiet(2, 0, 1000)
    arrays["event"][:, 100::200] = COLLISION  # far apart: at most one in a sequence
    replay = Replay(SMALL, 2, 1000, config=ReplayConfig(recent=0, rare=0.3))
    replay.add(arrays)
    batch = replay.sample(np.random.default_rng(2), 6000, 16, with_events=True)
    has = (batch["event"] > 0).any(axis=1)
    uniform = 5 * 16 / (1000 - 16 + 1)
    within(int(has.sum()), 6000, 0.3 + 0.7 * uniform)
    depth = np.argmax(batch["event"][has] > 0, axis=1)
    for place in range(16):
        within(int((depth == place).sum()), len(depth), 1 / 16)


def test_kinds_of_events_are_weighed_whatever_their_number() -> None:
    arrays = quiet(1, 0, 3000)
    arrays["event"][0, 500:1500] = NEAR_MISS
    arrays["event"][0, 2000] = SUCCESS
    arrays["event"][0, 2500] = BLOCKED_ROUTE
    weights = (1.0, 5.0, 2.0, 1.0)  # there is no collision, so its weight goes to the others
    replay = Replay(SMALL, 1, 3000, config=ReplayConfig(recent=0, rare=1, kind_weights=weights))
    replay.add(arrays)
    events = replay.sample(np.random.default_rng(3), 4000, 8, with_events=True)["event"]
    for kind, share in ((NEAR_MISS, 0.25), (BLOCKED_ROUTE, 0.5), (SUCCESS, 0.25)):
        within(int((events & kind).any(axis=1).sum()), 4000, share)


def test_an_event_that_left_the_ring_is_not_drawn() -> None:
    replay = Replay(SMALL, 1, 50, config=ReplayConfig(recent=0, rare=1))
    arrays = quiet(1, 0, 90)
    arrays["event"][0, [10, 39, 40, 89]] = COLLISION
    replay.add(arrays)
    batch = replay.sample(np.random.default_rng(4), 500, 5, with_events=True)
    has_oldest, has_newest = (starts(batch) == 40), (starts(batch) == 85)
    assert (has_oldest | has_newest).all(), "the only sequences with an event"
    within(int(has_oldest.sum()), 500, 0.5)
    replay.add(quiet(1, 90, 50))
    assert len(set(starts(replay.sample(np.random.default_rng(4), 500, 5)))) > 40, "uniform again"


def test_state_in_memory_carries_the_steps_and_their_events() -> None:
    replay, other = (Replay(SMALL, 2, 30, config=ReplayConfig(rare=1, recent=0)) for _ in range(2))
    replay.add(chunk(2, 0, 47))
    other.restore({name: values.copy() for name, values in replay.state().items()})
    for r in (replay, other):
        r.add(chunk(2, 47, 5))
    a, b = (r.sample(np.random.default_rng(5), 20, 6, with_events=True) for r in (replay, other))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert (a["event"] > 0).any(axis=1).all()


def test_a_refused_chunk_or_state_changes_nothing() -> None:
    replay = Replay(SMALL, 2, 30, config=UNIFORM)
    replay.add(chunk(2, 0, 20))
    before = {name: values.copy() for name, values in replay.state().items()}
    good = chunk(2, 20, 5)
    for name in set(replay.shapes) - set(OPTIONAL):
        with pytest.raises(ShapeError, match=f"replay: .*, got {'' if name == 'first' else 'nothing'}"):
            replay.add({key: values for key, values in good.items() if key != name})
        with pytest.raises(ShapeError, match="replay: "):
            replay.add({**good, name: good[name][:1]})
    with pytest.raises(ShapeError, match=r"event: expected \(2, 5\), got \(2, 4\)"):
        replay.add({**good, "event": good["event"][:, :4]})
    other = Replay(SMALL, 2, 30)
    other.add(chunk(2, 0, 25, life=1))
    state = other.state()
    del state["replay.event"]
    with pytest.raises(ShapeError, match=r"event: expected \(2, 25\), got nothing"):
        replay.restore(state)
    with pytest.raises(ShapeError, match=r"replay\.written"):
        replay.restore({})
    after = replay.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"recent": -0.1}, "recent: expected at least 0"),
        ({"rare": -1}, "rare: expected at least 0"),
        ({"recent": 0.6, "rare": 0.6}, r"recent \+ rare: expected at most 1"),
        ({"recent": float("nan")}, "recent: expected a finite number"),
        ({"recent_share": 0.0}, "recent_share"),
        ({"kind_weights": [1, 1, 1, -1]}, "kind_weights"),
        ({"kind_weights": [1, 1]}, "kind_weights"),
    ],
)
def test_a_mix_that_does_not_add_up_is_named(change: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        from_mapping(ReplayConfig, change, "replay")
    assert from_mapping(ReplayConfig, to_mapping(UNIFORM), "replay") == UNIFORM


def test_sizes_below_the_least_are_refused() -> None:
    for streams, capacity, slack in ((0, 5, 0), (1, 0, 0), (1, 5, -1)):
        with pytest.raises(ConfigError, match="slack from 0"):
            Replay(SMALL, streams, capacity, slack=slack)
