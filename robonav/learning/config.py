"""Everything that a training run is made of, as data (``configs/train/*.toml``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.imagination.agent import AgentConfig
from robonav.learning.curriculum import CurriculumConfig
from robonav.learning.replay import ReplayConfig

DEVELOPMENT_SEEDS_FROM = 900_000_000  # above those of training, below those of evaluation suites
DEVELOPMENT_EPISODES = 10_000
MAX_DEVELOPMENT_SEED = 1_000
WINDOWS = ("window", "window-sideways")  # the experts that are no presets


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """How experience is gathered."""

    workers: int = 1
    """Processes that simulate; 0 simulates in the learner's own process, which is slower and easy to debug. The result
    is that of one worker."""
    envs: int = 8
    """Environments a worker."""
    steps: int = 32
    """Steps of every environment an iteration."""
    scenes: tuple[str, ...] = ("rooms",)
    """Scene presets, one of which is drawn for each episode; a curriculum takes their place."""
    simulator: Literal["kinematic", "analytic"] = "kinematic"
    """PyBullet, or the compiled batch of worlds, which is many times faster."""
    robots: tuple[str, ...] = ()
    """Robots dealt out to the environments in turn; the run's own if empty. Their sensors must be the same."""
    imperfect: float = 0.0
    """Share of the environments whose sensors and actuation err as `sensors` and `randomisation` say."""
    sensors: str = "real"
    """Preset in configs/sensors of the imperfect environments."""
    randomisation: str = "sim2real"
    """Preset in configs/randomisation of the imperfect environments."""
    sight: Literal["", "learned"] = ""
    """Who says what moves in what the agent reads (`flow_mps`): "" the tracker, "learned" the network that comes with
    the package. Checkpoint and bundle keep it."""
    pool: int = 0
    """Scenes a preset and worker that come again and again in the analytic simulator; 0 draws new ones without end."""
    greedy_envs: int = 1
    """Environments a worker, the last ones, that act on the actor's mean; they measure success."""
    prefill: int = 4096
    """Steps of smooth random commands before learning starts."""

    def __post_init__(self) -> None:
        """Checks ranges and relations.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"workers": 0, "envs": 1, "steps": 1, "greedy_envs": 0, "prefill": 0})
        if not 0 <= self.imperfect <= 1:
            raise ConfigError(explain("imperfect", "a share from 0 to 1", self.imperfect))
        if not self.scenes:
            raise ConfigError(explain("scenes", "at least one scene preset", "none"))
        if self.greedy_envs > self.envs:
            raise ConfigError(explain("greedy_envs", f"at most envs = {self.envs}", self.greedy_envs))


@dataclass(frozen=True, slots=True)
class KickstartConfig:
    """A classical expert beside the agent, and how much of the learning is its own."""

    streams: int = 0
    """Environments a worker, the first ones, in which the expert says what it would do; 0 for none."""
    policy: str = "dwa-tracking"
    """Preset in configs/policies, or "window": the local planner's window of commands, compiled with the analytic
    simulator, which labels all streams in the time in which a preset labels a few. "window-sideways" has commands
    askew as well and needs `slack_m`, since left and right are often equally good."""
    drive: float = 0.5
    """Share of their episodes in which the expert drives; in the others the agent does (DAgger)."""
    weight: float = 1.0
    """Weight of the actor's pull towards the expert, at first."""
    final: float = 0.1
    """Weight at the end."""
    fade: int = 3000
    """Updates over which the weight fades, from the actor's first on."""
    shape: float = 0.0
    """Weight of the same pull on the world model: its memory then keeps what the expert's decision depends on."""
    regret_m: float = 0.0
    """With the window: a label counts in full from this regret of the agent's own choice on, in metres of progress, and
    below it in proportion; 0: all labels count alike."""
    regret_floor: float = 0.05
    """What a label counts at least then."""
    slack_m: float = 0.0
    """With the window: the label is, of all commands dearer than the best by this at most, in metres of progress, the
    nearest to what the agent would do, which is its own if that is among them; 0: the best."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        names = ("streams", "weight", "final", "drive", "shape", "regret_m", "regret_floor", "slack_m")
        require_at_least(self, dict.fromkeys(names, 0) | {"fade": 1})
        for name in ("drive", "regret_floor"):
            if getattr(self, name) > 1:
                raise ConfigError(explain(f"kickstart.{name}", "a share from 0 to 1", getattr(self, name)))
        for name in ("regret_m", "slack_m"):
            if getattr(self, name) and self.policy not in WINDOWS:
                want = f"policy = '{WINDOWS[0]}' or '{WINDOWS[1]}' with it"
                raise ConfigError(explain(f"kickstart.{name}", want, f"'{self.policy}'"))
        if self.streams and self.policy == WINDOWS[1] and not self.slack_m:
            raise ConfigError(explain("kickstart.slack_m", f"above 0 with policy = '{self.policy}'", 0))

    def weight_at(self, updates: int) -> float:
        """Weight after so many updates of the actor."""
        return self.final + (self.weight - self.final) * (1.0 - min(max(updates / self.fade, 0.0), 1.0))


@dataclass(frozen=True, slots=True)
class SensorLossConfig:
    """Sensors that fail in what is replayed, so that the agent learns to do without."""

    share: float = 0.0
    """Share of the replayed sequences in which something fails."""
    sector: float = 0.4
    """Of these, the share in which the lidar is blind in a sector from the first step on."""
    scan: float = 0.3
    """Of these, the share in which the whole lidar fails at some step."""
    local_map: float = 0.15
    """Of these, the share in which the local map fails at some step; in the rest it is the body's state."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, dict.fromkeys(("share", "sector", "scan", "local_map"), 0))
        if self.share > 1 or self.sector + self.scan + self.local_map > 1 + 1e-9:
            raise ConfigError(explain("sensor_loss", "shares that add up to at most 1", self))


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """Measuring the averaged weights on fixed development scenes while the run goes on."""

    every: int = 0
    """Updates from one evaluation to the next, at the first checkpoint after them; 0 never evaluates."""
    episodes: int = 64
    """Episodes of an evaluation, simulated together; they are dealt out over the run's scenes and robots."""
    seed: int = 0
    """Chooses the development scenes; training never sees them, and neither does a table of results."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"every": 0, "episodes": 1, "seed": 0})
        if self.seed >= MAX_DEVELOPMENT_SEED or self.episodes > DEVELOPMENT_EPISODES:
            want = f"a seed below {MAX_DEVELOPMENT_SEED} and at most {DEVELOPMENT_EPISODES} episodes"
            raise ConfigError(explain("evaluation", want, f"{self.seed} and {self.episodes}"))

    @property
    def seeds(self) -> list[int]:
        """Of the episodes."""
        start = DEVELOPMENT_SEEDS_FROM + self.seed * DEVELOPMENT_EPISODES
        return list(range(start, start + self.episodes))


ANNEALED = 0.1  # of the learning rates, at the end of an annealed run


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
    anneal: float = 0.0
    """Share of the run's updates, its last ones, over which the learning rates fall linearly to a tenth."""
    average: float = 0.99
    """Decay of the running average of the weights, which is what is evaluated and exported."""
    only: tuple[str, ...] = ()
    """Parts of the world model that learn, such as "clearance" or "decoder"; empty for all. With it actor and critic
    stay as they are, whatever `behavior_start` says, so that a part can be added to a trained model (`--init`)."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(
            self, dict.fromkeys(("model_lr", "behavior_lr", "weight_decay", "clip", "warmup", "anneal", "average"), 0)
        )
        if self.average >= 1:
            raise ConfigError(explain("average", "below 1", self.average))
        if self.anneal > 1:
            raise ConfigError(explain("anneal", "a share from 0 to 1", self.anneal))

    def rate_at(self, updates: int, begin: int, end: int) -> float:
        """Factor of a learning rate at an update of a part that learns from `begin` on, in a run of `end` updates."""
        rising = min(1.0, (updates - begin + 1) / max(self.warmup, 1))
        left = 1.0 if self.anneal == 0 else min(max((end - updates) / (self.anneal * end), 0.0), 1.0)
        return rising * (ANNEALED + (1 - ANNEALED) * left)


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
    kickstart: KickstartConfig = field(default_factory=KickstartConfig)
    sensor_loss: SensorLossConfig = field(default_factory=SensorLossConfig)
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
    replay_on_disk: bool = False
    """Keeps replay in the run's folder, memory-mapped, and not in memory and in every checkpoint."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    checkpoint_every: int = 300
    """Updates between checkpoints."""
    max_minutes: float = 0.0
    """Stops after that many minutes; 0 means no limit."""
    threads: int = 1
    """Threads of the learner."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where the learner computes; "auto" is CUDA where there is one. Collectors stay on the processor."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products; bfloat16 by autocast, with weights, states and what becomes a loss in float32."""
    compile: bool = False
    """Compiles for the batch's fixed shapes: encoder and loss on a processor (half a minute at the start), scan and
    dream as well on a GPU."""

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
    def replay_slack(self) -> int:
        """Steps of a stream that may be added between two checkpoints."""
        return (self.checkpoint_every // self.updates_per_iteration + 1) * self.collect.steps

    @property
    def streams(self) -> int:
        """Environments in all."""
        return max(self.collect.workers, 1) * self.collect.envs
