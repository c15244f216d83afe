"""Everything that a training run is made of, as data (``configs/train/*.toml``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.imagination.agent import AgentConfig
from robonav.learning.curriculum import CurriculumConfig


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """How experience is gathered."""

    workers: int = 1
    """Processes that simulate."""
    envs: int = 8
    """Environments a worker."""
    steps: int = 32
    """Steps of every environment an iteration."""
    scenes: tuple[str, ...] = ("rooms",)
    """Scene presets, dealt out to the environments in turn; a curriculum takes their place."""
    greedy_envs: int = 1
    """Environments a worker, the last ones, that act on the actor's mean; they measure success."""
    prefill: int = 4096
    """Steps of smooth random commands before learning starts."""

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"workers": 1, "envs": 1, "steps": 1, "greedy_envs": 0, "prefill": 0})
        if not self.scenes:
            raise ConfigError(explain("scenes", "at least one scene preset", "none"))
        if self.greedy_envs > self.envs:
            raise ConfigError(explain("greedy_envs", f"at most envs = {self.envs}", self.greedy_envs))


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """AdamW with clipping of the gradient's norm."""

    model_lr: float = 6e-4
    """Learning rate of the world model."""
    behavior_lr: float = 3e-4
    """Learning rate of actor and critic."""
    weight_decay: float = 1e-3
    """Decoupled weight decay."""
    clip: float = 100.0
    """Largest gradient norm."""
    warmup: int = 100
    """Updates over which the learning rates rise."""
    average: float = 0.99
    """Decay of the running average of the weights, which is what is evaluated and exported."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(
            self, dict.fromkeys(("model_lr", "behavior_lr", "weight_decay", "clip", "warmup", "average"), 0)
        )
        if self.average >= 1:
            raise ConfigError(explain("average", "below 1", self.average))


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A training run."""

    robot: str = "a1"
    """Preset in configs/robots."""
    seed: int = 0
    """Seeds weights, scenes, exploration and sampling."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    batch: int = 16
    """Sequences an update."""
    length: int = 64
    """Steps of a sequence."""
    updates: int = 1500
    """Updates in all."""
    behavior_start: int = 200
    """Updates of the world model alone, on random commands, before actor and critic learn: dreams of an untrained model
    drive the actor into a corner that takes long to leave."""
    updates_per_iteration: int = 3
    """Updates while the workers gather one chunk."""
    replay_steps: int = 200_000
    """Steps that replay holds."""
    checkpoint_every: int = 300
    """Updates between checkpoints."""
    max_minutes: float = 0.0
    """Stops after that many minutes; 0 means no limit."""
    threads: int = 1
    """Threads of the learner."""

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        ones = ("batch", "updates", "updates_per_iteration", "replay_steps", "checkpoint_every", "threads")
        require_at_least(
            self, {**dict.fromkeys(ones, 1), "length": 2, "seed": 0, "behavior_start": 0, "max_minutes": 0}
        )
        if self.checkpoint_every % self.updates_per_iteration:
            multiple = f"a multiple of updates_per_iteration = {self.updates_per_iteration}"
            raise ConfigError(explain("checkpoint_every", multiple, self.checkpoint_every))

    @property
    def streams(self) -> int:
        """Environments in all."""
        return self.collect.workers * self.collect.envs
