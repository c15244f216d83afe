"""Policies against each other on the same episodes of several suites: rows that a file keeps, and tables of them.

An episode is a row of plain numbers. Rows are saved as they come, so that a run that was cut off goes on where it was:
what a file holds for the same suite, policy, seed and delay is not run again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.evaluation import metrics
from robonav.types import Episode, RobotSpec

Row = dict[str, Any]
VERSION = 1  # of the file


def row_of(episode: Episode, spec: RobotSpec) -> Row:
    """An episode as plain numbers."""
    taken = np.asarray(episode.decision_ms, np.float64)
    return {
        "seed": episode.seed,
        "scene": episode.scene,
        "outcome": episode.outcome,
        "time_s": round(episode.time_s, 3),
        "path_m": round(episode.path_m, 3),
        "shortest_m": round(episode.shortest_m, 3),
        "clearance_min_m": round(episode.clearance_min_m, 4),
        "clearance_mean_m": round(episode.clearance_mean_m, 4),
        "jerk_mps3": round(episode.jerk_mps3, 3),
        "reward": round(episode.reward, 4),
        "decision_ms_p50": round(float(np.percentile(taken, 50)), 3) if taken.size else 0.0,
        "decision_ms_p99": round(float(np.percentile(taken, 99)), 3) if taken.size else 0.0,
    }


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of one policy on one suite: Wilson intervals for rates, bootstrap for means (95 %)."""
    n = len(rows)
    won = [row for row in rows if row["outcome"] == "success"]
    figures: dict[str, Any] = {"n": n, "scenes": len({row["scene"] for row in rows})}
    for outcome in metrics.OUTCOMES:
        figures[outcome] = list(metrics.wilson(sum(row["outcome"] == outcome for row in rows), n))
    spl = metrics.spl_of(
        [row["outcome"] == "success" for row in rows],
        [row["shortest_m"] for row in rows],
        [row["path_m"] for row in rows],
    )
    figures["spl"] = list(metrics.bootstrap_mean(spl))
    figures["time_s"] = list(metrics.bootstrap_mean([row["time_s"] for row in won])) if won else None
    for key in ("path_m", "clearance_min_m", "clearance_mean_m", "jerk_mps3"):
        figures[key] = metrics.mean([row[key] for row in won])
    figures["decision_ms_p50"] = metrics.percentile([row["decision_ms_p50"] for row in rows], 50)
    figures["decision_ms_p99"] = max((row["decision_ms_p99"] for row in rows), default=None)
    return figures


def paired(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Any]:
    """How the first policy's successes differ from the second's on the episodes that both ran.

    Returns:
        n; wins and losses (episodes that only one of them solved); the difference of the rates with its 95 % interval
        (Wald's, for paired proportions); p of the exact sign test (McNemar); and the geometric mean of the ratio of
        times over episodes that both solved, None without any.
    """
    other = {row["seed"]: row for row in second}
    pairs = [(row, other[row["seed"]]) for row in first if row["seed"] in other]
    solved = [(a["outcome"] == "success", b["outcome"] == "success") for a, b in pairs]
    wins, losses = sum(a and not b for a, b in solved), sum(b and not a for a, b in solved)
    n = len(pairs)
    difference = (wins - losses) / n if n else 0.0
    spread = math.sqrt(max(wins + losses - (wins - losses) ** 2 / n, 0.0)) / n if n else 1.0
    both = [(a["time_s"], b["time_s"]) for (a, b), (x, y) in zip(pairs, solved, strict=True) if x and y]
    ratio = float(np.exp(np.mean([math.log(a / b) for a, b in both]))) if both else None
    half = metrics.Z_95 * spread
    return {
        "n": n,
        "wins": wins,
        "losses": losses,
        "difference": [difference, max(difference - half, -1.0), min(difference + half, 1.0)],
        "p": _sign_test(wins, losses),
        "time_ratio": ratio,
    }


def table_of(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Lines for a terminal; `results` maps a suite to policies to what `summary_of` gives."""
    lines = []
    for suite, policies in results.items():
        lines.append(f"{suite}")
        lines.append(
            f"  {'policy':<18} {'n':>5}  {'success':<22} {'collision':>9} {'timeout':>7} {'SPL':>6} "
            f"{'time s':>7} {'clear m':>8} {'jerk':>6} {'ms p50':>7} {'p99':>7}"
        )
        for name, figures in policies.items():
            rate, low, high = figures["success"]
            time_s = None if figures["time_s"] is None else figures["time_s"][0]
            lines.append(
                f"  {name[:18]:<18} {figures['n']:>5}  {rate:.3f} [{low:.3f}, {high:.3f}]   "
                f"{figures['collision'][0]:>9.3f} {figures['timeout'][0]:>7.3f} {figures['spl'][0]:>6.3f} "
                f"{_shown(time_s, 1):>7} {_shown(figures['clearance_min_m'], 2):>8} "
                f"{_shown(figures['jerk_mps3'], 1):>6} {_shown(figures['decision_ms_p50'], 1):>7} "
                f"{_shown(figures['decision_ms_p99'], 1):>7}"
            )
    return "\n".join(lines)


def new_file(seed: int, robot: str) -> dict[str, Any]:
    """A file without any rows."""
    return {"version": VERSION, "seed": seed, "robot": robot, "suites": {}}


def check_file(data: Any, seed: int, robot: str, where: str) -> dict[str, Any]:
    """The contents of an earlier file that this run may go on with.

    Raises:
        ConfigError: it belongs to another seed or robot, or is no such file.
    """
    if not isinstance(data, dict) or data.get("version") != VERSION or not _are_suites(data.get("suites")):
        raise ConfigError(explain(where, "a file of robonav bench nav, or none yet", "something else", "remove it"))
    for key, wanted in (("seed", seed), ("robot", robot)):
        if data.get(key) != wanted:
            raise ConfigError(explain(f"{where}: {key}", wanted, data.get(key), "use another file"))
    return data


def _are_suites(suites: Any) -> bool:
    """Whether they are what `rows_in` makes."""
    if not isinstance(suites, dict) or not all(isinstance(of, dict) for of in suites.values()):
        return False
    entries = [entry for of in suites.values() for entry in of.values()]
    return all(isinstance(entry, dict) and {"settings", "delay_ms", "rows"} <= set(entry) for entry in entries)


def rows_in(
    data: dict[str, Any],
    suite: str,
    policy: str,
    settings: Mapping[str, Any],
    delay_ms: float,
    content: str = "",
    charged: bool = False,
) -> list[Row]:
    """The rows of a policy on a suite, a list to be extended.

    Args:
        data: of the file.
        suite: its name.
        policy: its name.
        settings: what decides the suite's episodes.
        delay_ms: how late commands come. Rows that are there keep the delay that they were run with.
        content: hash of what the policy is made of; rows of a version that kept none count as its own.
        charged: whether the delay was asked for, so that rows with another one do not count.

    Raises:
        ConfigError: the rows that are there are of another suite, policy or delay.
    """
    of_suite = data["suites"].setdefault(suite, {})
    entry = of_suite.get(policy)
    if entry is None or not entry["rows"]:
        entry = {"settings": dict(settings), "delay_ms": delay_ms, "content": content, "rows": []}
        of_suite[policy] = entry
    checks: list[tuple[str, Any, Any]] = [("the suite's settings", entry["settings"], dict(settings))]
    checks += [("the policy's content", entry.setdefault("content", content), content)]
    checks += [("--delay-ms", entry["delay_ms"], delay_ms)] if charged else []
    for what, found, wanted in checks:
        if found != wanted:
            where = f"rows of {policy} on {suite}: {what}"
            raise ConfigError(explain(where, wanted, found, "use another --json file, or remove it"))
    rows: list[Row] = entry["rows"]
    return rows


def _sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p that wins and losses are equally likely."""
    n = wins + losses
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    return min(1.0, 2 * tail)


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
