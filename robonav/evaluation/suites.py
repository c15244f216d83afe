"""Suites: named sets of evaluation scenes as data (``configs/suites/*.toml``).

Scenes are numbered by seeds. Training draws its scenes below `EVALUATION_SEEDS_FROM`; every evaluation seed lies
above, so that no policy is measured on a scene that it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from robonav.config import find_config, load_config
from robonav.errors import ConfigError, explain

EVALUATION_SEEDS_FROM = 1_000_000_000
SEEDS_PER_RUN = 100_000
MAX_RUN_SEED = 29_999  # keeps every episode's seed below 2^32
MAX_TRIALS = 100  # of a BARN world


@dataclass(frozen=True, slots=True)
class SuiteConfig:
    """A suite: the scenes number `seed` of one source, or the worlds of a BARN folder."""

    description: str
    kind: Literal["scenes", "barn"] = "scenes"
    scene: str = "rooms"  # a preset of configs/scenes; or a scene or map file, relative to the suite's own
    episodes: int = 100  # unless the command line says otherwise
    env: dict[str, Any] = field(default_factory=dict)  # further options of the environment


def load_suite(name: str) -> SuiteConfig:
    """The suite of a preset's name or of a path that ends in ``.toml``.

    Raises:
        ConfigError: unknown suite, with the nearest name; or a bad file.
    """
    path = find_config("suites", name)
    suite = load_config(SuiteConfig, path)
    if suite.episodes < 1:
        raise ConfigError(explain(f"{path}: episodes", "at least 1", suite.episodes))
    if Path(suite.scene).suffix:
        return replace(suite, scene=str(path.parent / suite.scene))
    return suite


def episode_seeds(run_seed: int, episodes: int) -> list[int]:
    """Seeds of the episodes of a run: the same for every policy, so that methods are compared on paired scenes.

    Raises:
        ConfigError: a seed or a number of episodes that is out of range.
    """
    if not 1 <= episodes <= SEEDS_PER_RUN:
        raise ConfigError(explain("--episodes", f"a number from 1 to {SEEDS_PER_RUN}", episodes))
    first = _first_seed(run_seed)
    return list(range(first, first + episodes))


def trial_seeds(run_seed: int, world: int, trials: int) -> list[int]:
    """Seeds of the trials of a BARN world; they do not depend on which other worlds are run.

    Raises:
        ConfigError: a seed or a number of trials that is out of range.
    """
    if not 1 <= trials <= MAX_TRIALS:
        raise ConfigError(explain("--trials", f"a number from 1 to {MAX_TRIALS}", trials))
    first = _first_seed(run_seed) + world * MAX_TRIALS
    return list(range(first, first + trials))


def _first_seed(run_seed: int) -> int:
    if not 0 <= run_seed <= MAX_RUN_SEED:
        raise ConfigError(explain("--seed", f"a number from 0 to {MAX_RUN_SEED}", run_seed))
    return EVALUATION_SEEDS_FROM + run_seed * SEEDS_PER_RUN
