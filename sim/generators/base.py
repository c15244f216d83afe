"""What the scene generators share: knobs that are checked, a stream of numbers a seed, and tries until a draw fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robonav.errors import ConfigError, SceneError, explain
from robonav.types import RobotSpec, Scene

Rng = np.random.Generator
Draw = Callable[[Rng, Any, RobotSpec, str], Scene | None]


class SceneSource(Protocol):
    """A numbered family of scenes."""

    @property
    def name(self) -> str:
        """Short name, also the beginning of its scenes' names."""

    def scene(self, seed: int) -> Scene:
        """Scene number `seed`; equal numbers give equal scenes."""


@dataclass(frozen=True, slots=True)
class Generator:
    """A kind of scenes: its knobs, and a function that draws one, or None if the numbers did not fit together."""

    config: type[Any]
    draw: Draw
    salt: int  # keeps the streams of the kinds apart


@dataclass(frozen=True, slots=True)
class GeneratedSource:
    """Scene number `seed` of a generator: the same numbers give the same scene on every machine."""

    name: str
    generator: Generator
    config: Any
    spec: RobotSpec

    def scene(self, seed: int) -> Scene:
        """Draws from the seed's stream until a scene has a way for the robot's footprint.

        Raises:
            SceneError: the seed is negative, or the knobs leave no room for a task.
        """
        if seed < 0:
            raise SceneError(explain(f"scene '{self.name}': seed", "0 or more", seed))
        rng = np.random.default_rng([seed, self.generator.salt])
        for _ in range(self.config.attempts):
            scene = self.generator.draw(rng, self.config, self.spec, f"{self.name}-{seed}")
            if scene is not None:
                return scene
        raise SceneError(
            f"scene '{self.name}', seed {seed}: no way for robot '{self.spec.name}' in {self.config.attempts} draws; "
            "widen the passages or lower the number of obstacles"
        )


def check_knobs(
    config: Any,
    ranges: Iterable[str] = (),
    counts: Iterable[str] = (),
    shares: Iterable[str] = (),
    positive: Iterable[str] = ("goal_radius_m", "time_limit_s", "attempts"),
) -> None:
    """Checks a config: `ranges` are pairs above 0, `counts` pairs of 0 or more, `shares` numbers or pairs in [0, 1].

    Raises:
        ConfigError: the first knob that is out of range.
    """
    for key in (*ranges, *counts):
        low, high = getattr(config, key)
        floor = 0 if key in tuple(counts) else 1e-3
        if not floor <= low <= high:
            kind = "numbers of 0 or more" if floor == 0 else "positive numbers"
            raise ConfigError(explain(key, f"a range [low, high] of {kind}", [low, high]))
    for key in shares:
        low, high = np.broadcast_to(getattr(config, key), 2)
        if not 0 <= low <= high <= 1:
            raise ConfigError(explain(key, "within 0 to 1", getattr(config, key)))
    for key in positive:
        if getattr(config, key) <= 0:
            raise ConfigError(explain(key, "a number above 0", getattr(config, key)))


def count_of(rng: Rng, pair: tuple[int, int]) -> int:
    """A whole number of an inclusive range."""
    return int(rng.integers(pair[0], pair[1] + 1))


def length_of(rng: Rng, pair: tuple[float, float]) -> float:
    """A number of a range."""
    return float(rng.uniform(*pair))
