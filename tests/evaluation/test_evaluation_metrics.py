from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.evaluation import metrics
from robonav.types import Episode


def episode(outcome="success", path_m=2.0, shortest_m=2.0):
    return Episode(
        "s", 0, outcome, 1.0, path_m, shortest_m, 0.0, 1, np.ones(1, np.float32), np.zeros((2, 2), np.float32)
    )


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_values(hits, trials, low, high):
    interval = metrics.wilson(hits, trials)
    assert interval == pytest.approx((hits / trials, low, high), abs=6e-5)


def test_wilson_closed_forms_at_the_ends():
    z2 = metrics.Z_95**2
    assert metrics.wilson(0, 50) == pytest.approx((0, 0, z2 / (50 + z2)))
    assert metrics.wilson(50, 50) == pytest.approx((1, 50 / (50 + z2), 1))
    assert metrics.wilson(0, 0) == (0, 0, 1)
    with pytest.raises(ValueError, match="hits"):
        metrics.wilson(3, 2)


@given(st.integers(1, 2000), st.data())
def test_wilson_holds_the_rate_and_mirrors(trials, data):
    hits = data.draw(st.integers(0, trials))
    rate, low, high = metrics.wilson(hits, trials)
    assert 0 <= low <= rate <= high <= 1
    other = metrics.wilson(trials - hits, trials)
    assert (1 - other.high, 1 - other.low) == pytest.approx((low, high))


def test_spl_weights_success_by_path():
    episodes = [
        episode(path_m=2.0),  # shortest way
        episode(path_m=4.0),  # twice as long
        episode(path_m=1.0),  # stopped at the goal's rim: no more than 1
        episode("collision"),
        episode("timeout"),
        episode(path_m=0.0, shortest_m=0.0),  # began at the goal
    ]
    assert metrics.spl_terms(episodes).tolist() == [1, 0.5, 1, 0, 0, 1]
    assert metrics.spl(episodes).mean == pytest.approx(3.5 / 6)


def test_bootstrap_agrees_with_the_normal_interval_and_repeats():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    interval = metrics.bootstrap_mean(values)
    half = metrics.Z_95 * values.std() / 20
    assert interval == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=0.03)
    assert interval == metrics.bootstrap_mean(values)
    assert metrics.bootstrap_mean([0.5]) == (0.5, 0.5, 0.5)


def test_percentile_and_mean_of_nothing_are_none():
    assert metrics.percentile([], 50) is None
    assert metrics.mean([]) is None
    assert metrics.percentile([1, 2, 3, 4], 50) == 2.5
