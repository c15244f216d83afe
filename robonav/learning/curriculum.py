"""Curriculum: levels of scenes, and when a run has earned the next one. Pure functions on a plain state.

An episode is drawn from the current level, or with the share `rehearsal` from an earlier one, so that nothing is
forgotten. Once the success over the last `window` episodes of the current level is high enough, the next one begins.
Which scene an episode gets is a function of the level and the episode's seed, so a resumed run draws the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain

_SALT = 0x6C65766C  # keeps this stream of random numbers apart from the scene's


@dataclass(frozen=True, slots=True)
class LevelConfig:
    """A level."""

    name: str
    """Short name, for messages."""
    scenes: tuple[str, ...]
    """Scene presets; each is as likely as the others."""
    randomisation: str = "off"
    """Preset in configs/randomisation."""


@dataclass(frozen=True, slots=True)
class CurriculumConfig:
    """Levels, and how a run gets from one to the next. Without levels there is no curriculum."""

    levels: tuple[LevelConfig, ...] = ()
    """From the first to the last; in a preset as [[curriculum.levels]]."""
    window: int = 60
    """Episodes of a level over which success is averaged."""
    promote_at: float = 0.8
    """Success at which the next level begins."""
    rehearsal: float = 0.25
    """Share of the episodes that come from earlier levels."""
    measured: Literal["all", "greedy", "sampled"] = "all"
    """Which episodes count: all, those that act on the actor's mean, or those that explore."""

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"window": 1, "promote_at": 0, "rehearsal": 0})
        for key in ("promote_at", "rehearsal"):
            if getattr(self, key) > 1:
                raise ConfigError(explain(key, "at most 1", getattr(self, key)))
        names = [level.name for level in self.levels]
        if len(set(names)) < len(names):
            raise ConfigError(explain("levels", "names that differ", names))
        for level in self.levels:
            if not level.scenes:
                raise ConfigError(explain(f"level '{level.name}': scenes", "at least one scene preset", "none"))

    def __bool__(self) -> bool:
        """Whether there is a curriculum."""
        return bool(self.levels)

    @property
    def presets(self) -> tuple[tuple[str, str], ...]:
        """Each scene preset with its randomisation, for checks before anything starts."""
        return tuple((scene, level.randomisation) for level in self.levels for scene in level.scenes)


class CurriculumState(NamedTuple):
    """Where a run stands; numbers and tuples alone."""

    level: int = 0  # index of the current one
    recent: tuple[bool, ...] = ()  # successes of the last episodes of the current level, oldest first
    episodes: int = 0  # of the current level so far
    promotions: tuple[int, ...] = ()  # episodes that each earlier level took

    def mapping(self) -> dict[str, Any]:
        """JSON-able."""
        return {**self._asdict(), "recent": list(self.recent), "promotions": list(self.promotions)}

    @classmethod
    def of(cls, data: dict[str, Any]) -> CurriculumState:
        """Inverse of `mapping`; an empty mapping gives the beginning."""
        plain = {**cls()._asdict(), **data}
        return cls(**{**plain, "recent": tuple(plain["recent"]), "promotions": tuple(plain["promotions"])})

    @property
    def success(self) -> float:
        """Of the last episodes of the current level; 0 before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else 0.0


class Choice(NamedTuple):
    """What an episode gets."""

    level: int
    scene: str
    randomisation: str


class Result(NamedTuple):
    """How an episode ended."""

    level: int
    success: bool
    greedy: bool


def choose(config: CurriculumConfig, level: int, seed: int) -> Choice:
    """The scene of the episode with this seed while `level` is the current one."""
    rehearses, earlier, which = np.random.default_rng([seed, _SALT]).random(3)
    at = int(earlier * level) if level > 0 and rehearses < config.rehearsal else level
    chosen = config.levels[at]
    return Choice(at, chosen.scenes[int(which * len(chosen.scenes))], chosen.randomisation)


def after(config: CurriculumConfig, state: CurriculumState, results: Iterable[Result]) -> CurriculumState:
    """The state after further episodes, in their order; those of other levels do not count.

    At most one level is won at a time: what is left of the results was not played there.
    """
    begun = state.level
    for result in results:
        counts = config.measured == "all" or result.greedy == (config.measured == "greedy")
        if result.level != begun or state.level != begun or not counts:
            continue
        recent = (*state.recent, bool(result.success))[-config.window :]
        state = state._replace(recent=recent, episodes=state.episodes + 1)
        if len(recent) == config.window and state.success >= config.promote_at and begun + 1 < len(config.levels):
            state = CurriculumState(begun + 1, promotions=(*state.promotions, state.episodes))
    return state
