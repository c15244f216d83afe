"""The summary of a run, as a dict fit for JSON and as a small table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robonav.evaluation import barn, metrics
from robonav.types import Episode


def summarise(
    policy: str, suite: str, seed: int, episodes: Sequence[Episode], barn_trials: Sequence[barn.Trial] | None = None
) -> dict[str, Any]:
    """Figures of a run, with 95 % intervals: Wilson for rates, bootstrap for SPL.

    `time_s` and `path_m` are means over the successful episodes, and null without any. `decision_ms` is over all
    decisions of all episodes. `scenes` counts the different ones: the intervals hold for independent episodes, so with
    fewer scenes than episodes they are too narrow. `randomisation` holds what was drawn for each episode, where
    anything was. `barn_trials` adds BARN's `score`, `clip` (in optimal times) and `worlds`.
    """
    won = [e for e in episodes if e.outcome == "success"]
    spl = metrics.spl(episodes)
    decision_ms = np.concatenate([e.decision_ms for e in episodes]) if episodes else np.zeros(0)
    summary: dict[str, Any] = {"policy": policy, "suite": suite, "episodes": len(episodes), "seed": seed}
    for outcome in metrics.OUTCOMES:
        rate = metrics.wilson(sum(e.outcome == outcome for e in episodes), len(episodes))
        summary[outcome] = {"rate": rate.mean, "low": rate.low, "high": rate.high}
    summary |= {
        "spl": spl.mean,
        "spl_interval": {"low": spl.low, "high": spl.high},
        "time_s": metrics.mean([e.time_s for e in won]),
        "time_s_p50": metrics.percentile([e.time_s for e in won], 50),
        "path_m": metrics.mean([e.path_m for e in won]),
        "decision_ms": {f"p{p}": metrics.percentile(decision_ms, p) for p in (50, 99)},
        "scenes": len({e.scene for e in episodes}),
    }
    if any(e.randomisation for e in episodes):
        summary["randomisation"] = [e.randomisation for e in episodes]
    if barn_trials is not None:
        summary |= {
            "score": barn.mean_score(barn_trials),
            "clip": list(barn.CLIP_OPTIMAL_TIMES),
            "worlds": list(dict.fromkeys(t.world for t in barn_trials)),
        }
    return summary


def table(summary: dict[str, Any]) -> str:
    """The summary as aligned lines for a terminal."""
    rows: list[tuple[str, str, str]] = []
    for name in metrics.OUTCOMES:
        rate = summary[name]
        rows.append((name, f"{rate['rate']:.3f}", f"[{rate['low']:.3f}, {rate['high']:.3f}]"))
    interval = summary["spl_interval"]
    rows.append(("SPL", f"{summary['spl']:.3f}", f"[{interval['low']:.3f}, {interval['high']:.3f}]"))
    if "score" in summary:
        low, high = summary["clip"]
        note = f"BARN, {len(summary['worlds'])} worlds, clip {low:g}-{high:g}"
        rows.append(("score", f"{summary['score']:.4f}", note))
    rows.append(("time to goal", _shown(summary["time_s"], "s"), f"p50 {_shown(summary['time_s_p50'], 's')}"))
    rows.append(("path", _shown(summary["path_m"], "m"), ""))
    decision = summary["decision_ms"]
    rows.append(("decision", _shown(decision["p50"], "ms", 2), f"p99 {_shown(decision['p99'], 'ms', 2)}"))
    if summary["scenes"] < summary["episodes"]:
        rows.append(("scenes", str(summary["scenes"]), "fewer than episodes: the intervals are too narrow"))
    head = (
        f"policy {summary['policy']}, suite {summary['suite']}, {summary['episodes']} episodes, seed {summary['seed']}"
    )
    wide = max(len(value) for _, value, _ in rows)
    return "\n".join([head, *(f"  {name:<13} {value:>{wide}}  {note}".rstrip() for name, value, note in rows)])


def _shown(value: float | None, unit: str, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f} {unit}"
