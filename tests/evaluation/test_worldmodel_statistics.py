from __future__ import annotations

import numpy as np
import pytest

from robonav.evaluation.worldmodel import statistics
from robonav.evaluation.worldmodel.statistics import auc, kendall_tau, probe, r_squared, ridge


def test_auc_by_hand() -> None:
    """Of the six pairs (0.8, 0.4; 0.1, 0.4, 0.6): three and two wins, 0.4 with 0.4 a tie; 4.5 of 6."""
    found = auc([0.8, 0.4, 0.1, 0.4, 0.6], [1, 1, 0, 0, 0], [0, 1, 0, 1, 2])
    assert found is not None and found.mean == pytest.approx(4.5 / 6)


def test_auc_of_what_tells_nothing_or_all() -> None:
    positive, episode = np.arange(40) % 4 == 0, np.arange(40) // 4
    assert auc(np.zeros(40), positive, episode) == (0.5, 0.5, 0.5)
    assert auc(positive.astype(float), positive, episode) == (1.0, 1.0, 1.0)
    assert auc(np.zeros(4), np.zeros(4), np.arange(4)) is None


def brute_tau_b(x: np.ndarray, y: np.ndarray) -> float:
    concordant = ties_x = ties_y = pairs = 0
    for i in range(len(x)):
        for j in range(i):
            pairs += 1
            concordant += int(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]))
            ties_x += x[i] == x[j]
            ties_y += y[i] == y[j]
    return concordant / np.sqrt((pairs - ties_x) * (pairs - ties_y))


@pytest.mark.parametrize("levels", [3, 1000])
def test_kendall_tau_equals_brute_force(levels: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(levels, size=80).astype(float)
    y = np.round(0.5 * x + rng.normal(size=80) * levels / 3)
    found = kendall_tau(x, y, np.arange(80) // 7)
    assert found is not None and found.mean == pytest.approx(brute_tau_b(x, y), abs=1e-12)
    assert found.low < found.mean < found.high


def test_kendall_tau_of_order_and_of_nothing() -> None:
    x = np.arange(30.0)
    assert kendall_tau(x, x**3, np.arange(30) // 3) == pytest.approx((1, 1, 1))
    assert kendall_tau(x, -x, np.arange(30)) == pytest.approx((-1, -1, -1))
    assert kendall_tau(x, np.ones(30), np.arange(30)) is None
    assert kendall_tau([], [], []) is None


def test_resamples_are_those_of_whole_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quadratic forms of one draw equal the statistic of the episodes drawn, copies included."""
    rng = np.random.default_rng(2)
    episode = np.repeat([0, 1, 2], [4, 6, 5])
    x, y = rng.normal(size=15), rng.normal(size=15)
    positive = rng.random(15) < 0.4
    draw = np.array([0, 0, 1, 2, 2, 2])  # of six, so that all weights differ
    rows = np.concatenate([np.flatnonzero(episode == e) for e in draw])
    seen = []

    def keep(statistic, episodes: int, seed: int) -> None:
        seen.append(float(statistic(np.array([[2.0, 1.0, 3.0]]))[0]))

    monkeypatch.setattr(statistics, "_resampled", keep)
    kendall_tau(x, y, episode)
    auc(x, positive, episode)
    monkeypatch.undo()
    alone = np.arange(len(rows))
    tau, area = kendall_tau(x[rows], y[rows], alone), auc(x[rows], positive[rows], alone)
    assert tau is not None and area is not None
    assert seen == pytest.approx([tau.mean, area.mean])


def test_ridge_without_a_penalty_is_least_squares_and_with_much_of_it_the_mean() -> None:
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(50, 3)) * (1, 10, 0.1), np.array([[1.0, 0.0], [-2.0, 0.5], [3.0, 1.0]])
    y = x @ w + (4.0, -1.0)
    weights, bias = ridge(x, y, 1e-9)
    assert weights == pytest.approx(w, abs=1e-6) and bias == pytest.approx([4.0, -1.0])
    weights, bias = ridge(x, y, 1e12)
    assert np.abs(weights * x.std(0)[:, None]).max() < 1e-6 and bias == pytest.approx(y.mean(0), abs=1e-6)


def test_a_probe_generalises_to_other_episodes() -> None:
    rng = np.random.default_rng(4)
    episode = np.repeat(np.arange(20), 30)
    x = rng.normal(size=(600, 40))
    y = x[:, :2] @ np.array([[1.0, 2.0], [0.5, -1.0]]) + 0.1 * rng.normal(size=(600, 2))
    train = episode % 2 == 0
    said = probe(x, y, episode, train)
    found = r_squared(y[~train], said, episode[~train])
    assert found.mean > 0.97 and found.low > 0.95
    noise = probe(rng.normal(size=(600, 40)), y, episode, train)
    assert abs(r_squared(y[~train], noise, episode[~train]).mean) < 0.1
