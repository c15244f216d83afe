"""The BARN benchmark: reference length, clock, score and report of its public challenge.

Sources: Perille et al., "Benchmarking Metric Ground Navigation" (SSRR 2020), and the challenge's public scoring
script. Scores here use the rule since 2024, which clips the time to [2, 8] optimal times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, SceneError, explain
from robonav.geometry import path_length
from robonav.types import Episode

START_M = (-2.25, 3.0)
GOAL_M = (-2.25, 13.0)
CELL_M = 0.15
PATH_ORIGIN_M = (-4.575, 5.075)  # the public script's own shift, kept so that scores compare
OPTIMAL_SPEED_MPS = 2.0
CLIP_OPTIMAL_TIMES = (2.0, 8.0)
CLOCK_STARTS_AFTER_M = 0.1
TIME_LIMIT_S = 100.0
WORLDS = range(300)
HELD_OUT_EVERY = 6  # worlds divisible by it are the challenge's own and are never used for development


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of the public report."""

    world: int
    succeeded: bool
    collided: bool
    timeout: bool
    time_s: float  # on BARN's clock
    score: float


def reference_length(path_cells: NDArray[np.int64]) -> float:
    """L_ref in m of (n, 2) path cells (r, c): start -> cells -> goal, as the public script measures it."""
    cells_m = np.asarray(PATH_ORIGIN_M) + CELL_M * np.asarray(path_cells, dtype=np.float64)
    return path_length(np.vstack([START_M, cells_m, GOAL_M]))


def score(succeeded: bool, time_s: float, reference_m: float) -> float:
    """Score of a trial: OT / clip(AT, 2 OT, 8 OT) on success, else 0, with OT = L_ref / 2 m/s. At most 0.5.

    >>> score(True, 5.0, 10.0), score(True, 20.0, 10.0), score(True, 90.0, 10.0), score(False, 20.0, 10.0)
    (0.5, 0.25, 0.125, 0.0)
    """
    optimal_s = reference_m / OPTIMAL_SPEED_MPS
    low, high = CLIP_OPTIMAL_TIMES
    return float(succeeded) * optimal_s / float(np.clip(time_s, low * optimal_s, high * optimal_s))


def clock_time(episode: Episode) -> float:
    """Seconds from the first tick at which the robot had moved 0.1 m from its start to the end of the episode.

    A robot that never moved that far is timed from the start of the episode.
    """
    if episode.steps == 0:
        return 0.0
    moved_m = np.linalg.norm(episode.positions_world_m - episode.positions_world_m[0], axis=1)
    away = np.flatnonzero(moved_m >= CLOCK_STARTS_AFTER_M)
    first = int(away[0]) if away.size else 0
    return (episode.steps - first) * episode.time_s / episode.steps


def judge(episode: Episode) -> Episode:
    """The episode by BARN's clock: `time_s` starts once the robot has moved, and what ends after 100 s is a timeout."""
    time_s = clock_time(episode)
    late = time_s > TIME_LIMIT_S + 1e-6
    return replace(episode, time_s=min(time_s, TIME_LIMIT_S), outcome="timeout" if late else episode.outcome)


def trial(world: int, judged: Episode, reference_m: float) -> Trial:
    """The report's line for an episode that `judge` has timed."""
    won = judged.outcome == "success"
    return Trial(
        world=world,
        succeeded=won,
        collided=judged.outcome == "collision",
        timeout=judged.outcome == "timeout",
        time_s=judged.time_s,
        score=score(won, judged.time_s, reference_m),
    )


def mean_score(trials: Sequence[Trial]) -> float:
    """Mean over the worlds of the mean over each world's trials; 0 without trials."""
    by_world: dict[int, list[float]] = {}
    for one in trials:
        by_world.setdefault(one.world, []).append(one.score)
    return float(np.mean([np.mean(scores) for scores in by_world.values()])) if by_world else 0.0


def report_lines(trials: Sequence[Trial]) -> str:
    """The public report: ``world_idx succeeded collided timeout time score``, a line a trial."""
    return "".join(
        f"{t.world} {t.succeeded:d} {t.collided:d} {t.timeout:d} {t.time_s:.4f} {t.score:.4f}\n" for t in trials
    )


def grid_path(barn_dir: Path, world: int) -> Path:
    """Where the dataset keeps the grid of a world."""
    return barn_dir / "grid_files" / f"grid_{world}.npy"


def load_reference_length(barn_dir: Path, world: int) -> float:
    """L_ref in m from the dataset's path file of a world.

    Raises:
        SceneError: the file is missing or holds no (n, 2) cells.
    """
    path = barn_dir / "path_files" / f"path_{world}.npy"
    try:
        cells = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SceneError(f"{path}: no readable path file of BARN world {world} ({error})") from None
    if cells.ndim != 2 or cells.shape[1] != 2 or len(cells) == 0:
        raise SceneError(explain(str(path), "path cells of shape (n, 2)", cells.shape))
    return reference_length(cells)


def available_worlds(barn_dir: str | Path) -> list[int]:
    """Indices of the worlds in a BARN folder, sorted.

    Raises:
        ConfigError: there is no such folder, or no `grid_files/grid_I.npy` in it.
    """
    folder = Path(barn_dir)
    if not folder.is_dir():
        raise ConfigError(explain("--barn-dir", "the folder of the BARN dataset", f"'{folder}', which is no folder"))
    names = (re.fullmatch(r"grid_(\d+)\.npy", p.name) for p in (folder / "grid_files").glob("grid_*.npy"))
    worlds = sorted(int(m.group(1)) for m in names if m)
    if not worlds:
        raise ConfigError(explain("--barn-dir", f"grid_files/grid_I.npy in '{folder}'", "none"))
    return worlds


def choose_worlds(barn_dir: str | Path, wanted: Sequence[int] | None) -> list[int]:
    """The worlds to run, in the order wanted, or all that are in the folder.

    Raises:
        ConfigError: a bad folder; no world, one outside 0 to 299, one that comes twice; or worlds that are not in the
            folder, of which the message names all.
    """
    there = available_worlds(barn_dir)
    if wanted is None:
        return there
    outside = [w for w in wanted if w not in WORLDS]
    if outside or not wanted:
        got = _listed(outside) if outside else "none"
        raise ConfigError(explain("--worlds", f"indices from 0 to {WORLDS[-1]}", got, "write them as 1,2,5-7"))
    doubles = sorted({w for w in wanted if list(wanted).count(w) > 1})
    if doubles:
        raise ConfigError(explain("--worlds", "every world once", f"{_listed(doubles)} twice", "use --trials"))
    missing = [w for w in wanted if w not in there]
    if missing:
        held_out = [w for w in missing if w % HELD_OUT_EVERY == 0]
        why = f" (held out, being divisible by {HELD_OUT_EVERY}: {_listed(held_out)})" if held_out else ""
        raise ConfigError(f"--worlds: not in '{barn_dir}': {_listed(missing)}{why}; choose from the {len(there)} there")
    return list(wanted)


def _listed(worlds: Sequence[int], most: int = 12) -> str:
    more = f" and {len(worlds) - most} more" if len(worlds) > most else ""
    return ", ".join(map(str, worlds[:most])) + more
