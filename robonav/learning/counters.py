"""How far a training run is, and how well its episodes went lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from robonav.learning.collector import EpisodeResult
from robonav.learning.curriculum import CurriculumState

WINDOW = 100  # episodes over which success is averaged


@dataclass
class Counters:
    """Progress that belongs to the checkpoint."""

    iteration: int = 0
    updates: int = 0
    env_steps: int = 0
    elapsed_s: float = 0.0
    episodes: list[int] = field(default_factory=list)  # started so far, a stream
    sampled: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))  # success of exploring episodes
    greedy: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))  # success of the actor's mean
    by_scene: dict[str, deque[float]] = field(default_factory=dict)  # success of the agent's episodes, a preset
    rollbacks: int = 0  # how often a loss was not finite
    curriculum: CurriculumState = field(default_factory=CurriculumState)

    def count(self, results: Iterable[EpisodeResult]) -> None:
        """Takes in episodes that the agent played."""
        for result in results:
            won = float(result.outcome == "success")
            (self.greedy if result.greedy else self.sampled).append(won)
            self.by_scene.setdefault(result.scene, deque(maxlen=WINDOW)).append(won)

    def mapping(self) -> dict[str, Any]:
        """JSON-able."""
        windows = {"sampled": list(self.sampled), "greedy": list(self.greedy)}
        by_scene = {scene: list(window) for scene, window in self.by_scene.items()}
        return {**vars(self), **windows, "by_scene": by_scene, "curriculum": self.curriculum.mapping()}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Counters:
        """Inverse of `mapping`; what an older checkpoint lacks is at its default."""
        windows = {k: deque(data[k], maxlen=WINDOW) for k in ("sampled", "greedy")}
        by_scene = {scene: deque(values, maxlen=WINDOW) for scene, values in data.get("by_scene", {}).items()}
        curriculum = CurriculumState.of(data.get("curriculum", {}))
        return cls(**{**data, **windows, "by_scene": by_scene, "curriculum": curriculum})
