"""How a run is governed, timed and logged, as data (``configs/deploy/*.toml``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec


@dataclass(frozen=True, slots=True)
class GovernorConfig:
    """Limits of the governor; speeds and accelerations come from the robot."""

    period_s: float = 0.02
    """Between two governed commands when none is asked for."""
    command_life_s: float = 0.25
    """From a command's receipt to the start of the ramp to zero."""
    observation_life_s: float = 0.4
    """A robot whose sensors are older than this is stopped."""
    latency_s: float = 0.2
    """The robot's lag and the way to it, for the braking distance v * (latency + age of the scan) + v^2 / (2 a)."""
    speed_factor: float = 1.0
    """Share of the robot's speed limits that is let through; below 1 for first outings and tight places."""
    acceleration_factor: float = 3.0
    """Times the robot's own acceleration limits. The robot ramps by itself; a second ramp at the same limit would only
    delay every command (a policy then weaves), so the governor stops jumps that are no command of a healthy policy."""
    jerk_mps3: float = 300.0
    """How fast the acceleration may change. Stops are exempt: it would lengthen them."""
    yaw_jerk_radps3: float = 800.0
    """The same for turning."""
    stop_mps2: float = 10.0
    """The ramp of a stop, from the first cycle on. The robot brakes as it can; this bounds what it is asked for."""
    stop_yaw_radps2: float = 25.0
    """The same for turning."""
    braking_mps2: float = 3.0
    """Deceleration that the robot keeps when it brakes, for the braking distance."""
    yaw_braking_radps2: float = 8.0
    """The same for turning."""
    corridor_margin_m: float = 0.04
    """Round the footprint, in which nothing may stand on the way of braking."""
    tilt_max_rad: float = 0.6
    """Roll or pitch at which the robot is stopped."""
    floor_clearance_m: float = 0.12
    """What the depth camera sees lower than this over the floor is none of an obstacle's."""
    standing_mps: float = 0.1
    """The robot stands when its measured velocity (m/s, rad/s) is at most this; for the e-stop's re-arm."""
    lease_s: float = 1.0
    """A commander that sends no command for this long loses its lease, and another may take it."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a setting that cannot be, or that contradicts another."""
        for key in self.__dataclass_fields__:
            if not getattr(self, key) > 0:
                raise ConfigError(explain(f"governor.{key}", "a number above 0", getattr(self, key)))
        if self.speed_factor > 1:
            raise ConfigError(explain("governor.speed_factor", "at most 1", self.speed_factor))
        for stop, braking in (("stop_mps2", "braking_mps2"), ("stop_yaw_radps2", "yaw_braking_radps2")):
            if getattr(self, stop) < getattr(self, braking):
                expected = f"at least {braking} = {getattr(self, braking):g}"
                do = "a slower ramp would leave the braking distance"
                raise ConfigError(explain(f"governor.{stop}", expected, getattr(self, stop), do))
        if self.lease_s < self.command_life_s:
            expected = f"at least command_life_s = {self.command_life_s:g}"
            raise ConfigError(explain("governor.lease_s", expected, self.lease_s))


@dataclass(frozen=True, slots=True)
class SupervisorConfig:
    """Times of starting, watching and ending the processes."""

    start_timeout_s: float = 60.0
    """For all processes to be ready."""
    heartbeat_timeout_s: float = 1.5
    """A process that is silent this long is lost."""
    control_period_s: float = 0.05
    """Between two repetitions of the supervisor's word."""
    word_life_s: float = 0.25
    """A supervisor that did not repeat its "run" for this long is not there to look after the robot, which stands until
    it does."""
    control_timeout_s: float = 2.0
    """A process that hears nothing from the supervisor for this long stops."""
    stop_timeout_s: float = 3.0
    """For a process to end by itself after "stop", before it is killed."""
    standstill_mps: float = 0.03
    """Below this speed the robot counts as standing."""
    restart_burst: int = 3
    """Restarts of one process within `restart_interval_s`; after one more loss the run ends (of the recorder's: its
    log). 0 restarts nothing. The driver is never restarted."""
    restart_interval_s: float = 60.0
    """In which restarts are counted."""
    restart_backoff_s: float = 0.2
    """Wait before the first restart; each further one within the interval waits twice as long."""
    restart_backoff_max_s: float = 5.0
    """The longest wait before a restart."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a number of restarts or waits that cannot be."""
        if self.restart_burst < 0:
            raise ConfigError(explain("supervisor.restart_burst", "0 or more", self.restart_burst))
        if self.restart_backoff_max_s < self.restart_backoff_s:
            expected = f"at least restart_backoff_s = {self.restart_backoff_s:g}"
            raise ConfigError(explain("supervisor.restart_backoff_max_s", expected, self.restart_backoff_max_s))


@dataclass(frozen=True, slots=True)
class RecorderConfig:
    """How the log is written."""

    compression: str = "zstd"
    """Of chunks: "zstd", "lz4" or "none"."""
    chunk_s: float = 0.5
    """Longest time that a message waits before its chunk is closed and written; at most 1 s."""
    queue_mb: float = 32.0
    """What may wait for the disk; more is dropped and counted."""
    exact_depth: bool = False
    """Keeps every bit of the depth image, at three times the size of the log, instead of millimetres in 16 bit."""
    belief: bool = True
    """Records the world model's state at every tick."""
    map_period_s: float = 1.0
    """Between two maps in the log."""
    map_radius_m: float = 4.8
    """Round the robot that a map covers."""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """The link to people: e-stop, observers and remote commanders."""

    listen: str = ""
    """Where the governor listens: tcp://ADDRESS:PORT (keys needed), ipc://PATH (this user's processes), or nowhere."""
    keys: str = ""
    """Folder of the robot's keys; the user's own (~/.config/robonav/keys) if empty."""
    rate_hz: float = 100.0
    """Messages that a key may send; what comes faster is refused. Pressing the e-stop is never refused."""
    state_hz: float = 10.0
    """How often the robot's state is sent to those who said hello."""
    hello_life_s: float = 3.0
    """Who did not say hello for this long is sent nothing more."""
    estop_link: Literal["optional", "required"] = "optional"
    """Whether the robot moves only while somebody holds the e-stop (robonav estop hold); losing the link presses it."""
    estop_link_s: float = 1.0
    """For which a link that is required may be silent."""
    revoke_s: float = 0.25
    """Between two looks at the keys; a key that was revoked meanwhile is cut off."""
    start_latched: bool = False
    """Starts with the e-stop latched, so that the robot moves only when somebody re-arms it; for a service that starts
    by itself."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a rate or time that cannot be."""
        for key in ("rate_hz", "state_hz", "hello_life_s", "revoke_s", "estop_link_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(explain(f"operator.{key}", "a number above 0", getattr(self, key)))
        if self.estop_link not in ("optional", "required"):
            raise ConfigError(explain("operator.estop_link", "optional or required", f"'{self.estop_link}'"))


@dataclass(frozen=True, slots=True)
class DeployConfig:
    """All of a run's settings."""

    time_limit_s: float = 60.0
    """After which the run ends as a timeout."""
    goal_radius_m: float = 0.5
    """Arrival by odometry, for drivers that do not judge it themselves."""
    planner: Literal["actor", "mppi", "geometry"] = "actor"
    """Who decides: the bundle's actor alone, the planner with its dreams (dreams.onnx), or the planner without them."""
    governor: GovernorConfig = field(default_factory=GovernorConfig)
    supervisor: SupervisorConfig = field(default_factory=SupervisorConfig)
    recorder: RecorderConfig = field(default_factory=RecorderConfig)
    operator: OperatorConfig = field(default_factory=OperatorConfig)

    def __post_init__(self) -> None:
        """Raises ConfigError for a time or limit that cannot be."""
        for part in ("supervisor", "recorder"):
            config = getattr(self, part)
            for key in config.__dataclass_fields__:
                value = getattr(config, key)
                if isinstance(value, float) and value <= 0:
                    raise ConfigError(explain(f"{part}.{key}", "a number above 0", value))
        if self.recorder.compression not in ("zstd", "lz4", "none"):
            raise ConfigError(explain("recorder.compression", "zstd, lz4 or none", self.recorder.compression))
        if self.recorder.chunk_s > 1.0:
            raise ConfigError(explain("recorder.chunk_s", "at most 1", self.recorder.chunk_s))
        for key in ("time_limit_s", "goal_radius_m"):
            if getattr(self, key) <= 0:
                raise ConfigError(explain(key, "a number above 0", getattr(self, key)))


@dataclass(frozen=True, slots=True)
class GovernorLimits:
    """What `deploy.governor.govern` holds: the robot's limits and the run's settings, in SI units."""

    vx_min_mps: float
    vx_max_mps: float
    vy_max_mps: float
    yaw_rate_max_radps: float
    acceleration_mps2: float
    yaw_acceleration_radps2: float
    length_m: float
    width_m: float
    tick_s: float = 0.1
    config: GovernorConfig = field(default_factory=GovernorConfig)

    @classmethod
    def of(cls, spec: RobotSpec, config: GovernorConfig) -> GovernorLimits:
        """For a robot."""
        return cls(
            vx_min_mps=config.speed_factor * spec.vx_min_mps,
            vx_max_mps=config.speed_factor * spec.vx_max_mps,
            vy_max_mps=config.speed_factor * spec.vy_max_mps,
            yaw_rate_max_radps=config.speed_factor * spec.yaw_rate_max_radps,
            acceleration_mps2=config.acceleration_factor * spec.acceleration_max_mps2,
            yaw_acceleration_radps2=config.acceleration_factor * spec.yaw_acceleration_max_radps2,
            length_m=spec.length_m,
            width_m=spec.width_m,
            tick_s=spec.dt_s,
            config=config,
        )
