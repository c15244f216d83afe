"""Rank statistics and linear probes with intervals from resampled episodes, since ticks of one episode are alike.

AUC and Kendall's tau are ratios of sums over pairs of ticks. Summed once by pairs of episodes, they are ratios of
quadratic forms in how often each episode was drawn, so that a bootstrap costs a few matrix products.

Shape letters: n ticks, E episodes, F features, K targets, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robonav.evaluation.metrics import Interval

Floats = NDArray[np.float64]
RESAMPLES = 1000
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
_ROWS = 512  # of a matrix of pairs at a time


def auc(score: ArrayLike, positive: ArrayLike, episode: ArrayLike, seed: int = 0) -> Interval | None:
    """Chance that a positive scores above a negative, a tie counting half (Hanley and McNeil 1982).

    Args:
        score: (n,); positive: (n,) whether it happened; episode: (n,) number of the episode.
        seed: of the bootstrap over episodes, 95 %.

    Returns:
        None without a positive or a negative.
    """
    values, hit = np.asarray(score, np.float64), np.asarray(positive, np.bool_)
    if hit.all() or not hit.any():
        return None
    member = _membership(episode)
    above = np.zeros((member.shape[1],) * 2)
    negative, of_negative = values[~hit], member[~hit]
    for rows in _chunks(np.flatnonzero(hit)):
        mine = values[rows, None]
        wins = (mine > negative) + 0.5 * (mine == negative)  # (rows, negatives)
        above += member[rows].T @ (wins @ of_negative)
    counts = member[hit].sum(0), member[~hit].sum(0)
    return _resampled(lambda w: _form(w, above) / ((w @ counts[0]) * (w @ counts[1])), len(above), seed)


def kendall_tau(x: ArrayLike, y: ArrayLike, episode: ArrayLike, seed: int = 0) -> Interval | None:
    """Kendall's tau-b of (n,) and (n,) with a bootstrap interval over episodes; None where one of them is constant."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    order = np.argsort(np.asarray(episode), kind="stable")
    a, b, member = a[order], b[order], _membership(np.asarray(episode)[order])
    edges = member.argmax(0)  # where each episode begins
    both, of_a, of_b = (np.zeros((len(edges),) * 2) for _ in range(3))
    for rows in _chunks(np.arange(len(a))):
        sign_a, sign_b = np.sign(a[rows, None] - a), np.sign(b[rows, None] - b)
        for total, signs in ((both, sign_a * sign_b), (of_a, np.abs(sign_a)), (of_b, np.abs(sign_b))):
            total += member[rows].T @ np.add.reduceat(signs, edges, axis=1)
    return _resampled(lambda w: _form(w, both) / np.sqrt(_form(w, of_a) * _form(w, of_b)), len(both), seed)


def r_squared(target: Floats, predicted: Floats, episode: ArrayLike, seed: int = 0) -> Interval:
    """Share of the variance of (n, K) targets, summed over K, that is predicted; interval over episodes."""
    member = _membership(episode)
    error = member.T @ np.square(target - predicted).sum(-1)
    spread = member.T @ np.square(target - target.mean(0)).sum(-1)
    return _resampled(lambda w: 1 - (w @ error) / (w @ spread), len(error), seed)


def ridge(x: Floats, y: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Weights (F, K) and bias (K,) that minimise |y - x w - b|^2 + penalty |w s|^2, s the features' spreads (F,).

    A feature that only varies by the rounding of single precision counts as constant.
    """
    mean, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-5 * max(1.0, float(np.abs(x).max())), spread, np.inf)
    scaled = (x - mean) / spread
    gram = scaled.T @ scaled + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (y - y.mean(0))) / spread[:, None]
    return weights, y.mean(0) - mean @ weights


def probe(x: Floats, y: Floats, episode: NDArray[np.int64], train: NDArray[np.bool_]) -> Floats:
    """(m, K) what a ridge regression says of the ticks that are not in `train`.

    The penalty is the one of PENALTIES that does best on a quarter of the training episodes when fitted on the rest.

    Args:
        x: (n, F); y: (n, K).
        episode: (n,) number of each tick's episode.
        train: (n,) whether the tick belongs to a training episode.
    """
    held = train & np.isin(episode, np.unique(episode[train])[::4])
    fit = train & ~held
    losses = []
    for penalty in PENALTIES if held.any() and fit.any() else PENALTIES[2:3]:
        weights, bias = ridge(x[fit] if fit.any() else x[train], y[fit] if fit.any() else y[train], penalty)
        losses.append(float(np.square(y[held] - x[held] @ weights - bias).sum()))
    best = PENALTIES[int(np.argmin(losses))] if len(losses) == len(PENALTIES) else PENALTIES[2]
    weights, bias = ridge(x[train], y[train], best)
    said: Floats = x[~train] @ weights + bias
    return said


def _membership(episode: ArrayLike) -> Floats:
    """(n, E) 1 where a tick belongs to an episode."""
    _, index = np.unique(np.asarray(episode), return_inverse=True)
    return np.eye(int(index.max()) + 1)[index]


def _chunks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)]


def _form(w: Floats, matrix: Floats) -> Floats:
    """(R,) w' matrix w of each of (R, E) rows."""
    return np.einsum("re,re->r", w @ matrix, w)


def _resampled(statistic: Callable[[Floats], Floats], episodes: int, seed: int) -> Interval:
    """The statistic of all episodes once, and its 2.5 and 97.5 percentiles over resamples where it is defined."""
    estimate = float(statistic(np.ones((1, episodes)))[0])
    draws = np.random.default_rng(seed).multinomial(episodes, np.full(episodes, 1 / episodes), RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(draws.astype(np.float64))
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(estimate, estimate, estimate)
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval(estimate, float(low), float(high))
