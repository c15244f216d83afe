"""Recorded episodes for commands that learn from them or pass them on: logs, folders of logs, Minari datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robonav.errors import RobonavError, explain
from robonav.types import RobotSpec

if TYPE_CHECKING:
    from robonav.learning.streams import Arrays
    from robonav.planning.situation import SituationConfig


def load_episodes(
    paths: Sequence[Path], spec: RobotSpec, say: Any, situation: SituationConfig | None = None
) -> list[Arrays]:
    """The episodes of all paths.

    Args:
        paths: logs, folders of them, or folders of Minari datasets.
        spec: robot whose sensors they must be of.
        say: is told of damage.
        situation: makes what a policy reads from the observations of logs.

    Raises:
        RobonavError: a path holds none, or a log is of another layout; one line.
    """
    from robonav.learning.minari_data import import_minari, is_minari

    if not paths:
        raise RobonavError(explain("recorded episodes", "a log, a folder of logs or a Minari dataset", "no path"))
    episodes: list[Arrays] = []
    for path in paths:
        if is_minari(path):
            episodes += import_minari(path)
            continue
        for log in _logs(path):
            episodes += _of_log(log, spec, say, situation)
    if not episodes:
        raise RobonavError(explain(", ".join(map(str, paths)), "episodes of two steps or more", "none"))
    return episodes


def _logs(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.mcap"))
    if not found:
        raise RobonavError(explain(str(path), "logs (*.mcap) or a Minari dataset", "neither", "check the path"))
    return found


def _of_log(path: Path, spec: RobotSpec, say: Any, situation: SituationConfig | None) -> list[Arrays]:
    from deploy.log_episodes import episodes_of
    from deploy.log_reader import read_log
    from robonav.learning.streams import events_of
    from sim.rewards import load_rewards

    rewards = load_rewards(None)

    def judge(progress_m: float, clearance_m: float, outcome: str | None) -> tuple[float, int]:
        return rewards.reward(progress_m, clearance_m, outcome), events_of(outcome, clearance_m, False)

    log = read_log(path)
    if log.damage:
        say(f"{path}: {log.damage}")
    return episodes_of(log, spec, judge, situation)
