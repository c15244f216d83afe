"""Dream starts: which steps count as shortly before a rare event, and how often they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.imagination.starts import LEAD_STEPS, before_rare, dream_starts

T = 40


def quiet(batch: int = 1) -> dict[str, np.ndarray]:
    return {k: np.zeros((batch, T), np.float32) for k in ("reward", "terminal", "first", "event")}


def steps(arrays: dict[str, np.ndarray]) -> list[int]:
    return list(np.flatnonzero(before_rare(**arrays)[0]))  # type: ignore[arg-type]


def test_five_to_fifteen_steps_before_a_collision_count() -> None:
    arrays = quiet()
    arrays["terminal"][0, 30], arrays["reward"][0, 30] = 1, -1
    assert steps(arrays) == list(range(15, 26))
    arrays["first"][0, 20] = 1
    assert steps(arrays) == list(range(20, 26)), "the episode before ended otherwise"
    arrays["reward"][0, 30] = 1
    assert steps(arrays) == [], "an arrival is no collision"


def test_near_misses_count_where_they_are_marked() -> None:
    arrays = quiet()
    arrays["event"][0, [8, 12]] = 1
    assert steps(arrays) == list(range(0, 8))
    assert not before_rare(arrays["reward"], arrays["terminal"], arrays["first"], None).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_every_counted_step_has_its_event_and_every_event_its_steps(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    first, event = (rng.random((2, 3, length)) < 0.1).astype(np.float32)
    zeros = np.zeros_like(first)
    got = before_rare(zeros, zeros, first, event)
    for b in range(3):
        for t in range(length):
            ahead = range(t + LEAD_STEPS[0], min(t + LEAD_STEPS[1], length - 1) + 1)
            assert got[b, t] == any(event[b, e] and not first[b, t + 1 : e + 1].any() for e in ahead)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_rare_starts_is_what_is_asked_for(share: float) -> None:
    arrays = quiet(2)
    arrays["event"][0, 30] = 1
    got = dream_starts(np.random.default_rng(0), count=20_000, rare_share=share, **arrays)  # type: ignore[arg-type]
    assert got.shape == (2, 20_000)
    rare = (got[0] >= 15) & (got[0] <= 25)
    assert rare.mean() == pytest.approx(share + (1 - share) * 11 / T, abs=0.015)
    counts = np.bincount(got[1], minlength=T) / 20_000
    assert np.abs(counts - 1 / T).max() < 0.01, "nothing happened in the other sequence"


def test_starts_are_reproducible_and_without_a_share_those_of_before() -> None:
    arrays = quiet(3)
    arrays["event"][:, 20] = 1
    draws = [
        dream_starts(np.random.default_rng(7), count=4, rare_share=0.5, **arrays)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert np.array_equal(*draws)
    plain = dream_starts(np.random.default_rng(7), count=4, rare_share=0.0, **arrays)  # type: ignore[arg-type]
    assert np.array_equal(plain, np.random.default_rng(7).integers(T, size=(3, 4)))
