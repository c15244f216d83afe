"""Domain randomisation: what differs between a simulated robot and a real one is drawn anew for each episode.

Each knob is a range [low, high] that is drawn from uniformly, and one that is not set leaves things as they are. A draw
is a function of the config and of the episode's seed, knob by knob: setting one more changes none of the others.
Ranges: ``configs/randomisation/sim2real.toml``, after legged_gym, Walk These Ways and Isaac Lab.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from robonav.config import find_config, load_config
from robonav.errors import ConfigError, explain
from sim.sensor_config import SensorConfig

Range = tuple[float, float]
_SALT = 0x72616E64  # keeps this stream of random numbers apart from the scene's and the sensors'
_SIGNED = {"odometry_scale", "odometry_yaw_drift_radps", "added_mass_kg"}  # knobs that may be below 0
_SHARES = {"slip", "dropped_frames", "lidar_dropout", "depth_holes", "depth_edges"}
_ABOVE_0 = {"motor_strength", "push_period_s", "tracking_gain"}
_MISSING = {"missing_lidar", "missing_depth", "missing_imu"}
CAMERA_KNOBS = {"depth_delay_s", "depth_noise_per_m", "depth_holes", "depth_edges", "camera_tilt_rad", "missing_depth"}
LEG_KNOBS = {"friction", "added_mass_kg", "centre_of_mass_m", "motor_strength", "push_mps", "push_period_s"}
LAG_KNOBS = {"lag_s"}  # legs have none to set
_DRAWS = 3  # numbers kept for each knob; some draw one an axis


@dataclass(frozen=True, slots=True)
class RandomisationConfig:
    """The knobs. Those of legs are drawn for worlds that have them."""

    # from command to motion
    command_delay_s: Range | None = None
    tracking_gain: Range | None = None  # of each of vx, vy and yaw rate
    lag_s: Range | None = None  # of the first-order response, instead of the robot's own
    slip: Range | None = None  # largest share of a tick's motion that is lost; the share itself differs each tick
    # odometry
    odometry_scale: Range | None = None  # of each of forward, left and turn
    odometry_yaw_drift_radps: Range | None = None
    odometry_noise_per_m: Range | None = None
    velocity_noise_mps: Range | None = None
    yaw_rate_noise_radps: Range | None = None
    # lidar and camera
    dropped_frames: Range | None = None  # share of the scans and images that never arrive
    lidar_delay_s: Range | None = None
    lidar_noise_m: Range | None = None
    lidar_dropout: Range | None = None
    depth_delay_s: Range | None = None
    depth_noise_per_m: Range | None = None
    depth_holes: Range | None = None
    depth_edges: Range | None = None
    camera_tilt_rad: float | None = None  # largest error of the camera's roll, pitch and yaw, either way
    # whole sensors
    missing_lidar: float | None = None  # chance that the robot has none in this episode
    missing_depth: float | None = None
    missing_imu: float | None = None
    # legs
    friction: Range | None = None
    added_mass_kg: Range | None = None
    centre_of_mass_m: float | None = None  # largest shift of it along each axis, either way
    motor_strength: Range | None = None
    push_mps: Range | None = None  # a sudden change of the base's velocity, in a direction of its own each time
    push_period_s: Range | None = None

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a range that is reversed, a share or chance outside [0, 1], or a number that is negative, or 0
                where something would have no strength at all.
        """
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if value is None:
                continue
            low, high = value if isinstance(value, tuple) else (0.0, value)
            least = -np.inf if name in _SIGNED else 0.0
            most = 1.0 if name in _SHARES | _MISSING else np.inf
            if name in _ABOVE_0 and not 0 < low <= high:
                raise ConfigError(explain(name, "above 0, in ascending order", list(value)))
            if name == "dropped_frames" and high >= 1:
                raise ConfigError(explain(name, "shares below 1", list(value), "use missing_lidar and missing_depth"))
            if not least <= low <= high <= most:
                where = "within 0 to 1" if most == 1 else "0 or more" if least == 0 else "in ascending order"
                raise ConfigError(explain(name, where, list(value) if isinstance(value, tuple) else value))

    @property
    def is_off(self) -> bool:
        """Whether nothing is randomised: no knob is set, or to a chance or a largest error of 0."""
        return all(getattr(self, field.name) in (None, 0.0) for field in fields(self))


@dataclass(frozen=True, slots=True)
class ActuationDraw:
    """From command to motion, in one episode."""

    delay_s: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of vx, vy and yaw rate
    slip: float = 0.0
    lag_s: float | None = None  # None is the robot's own


@dataclass(frozen=True, slots=True)
class LegsDraw:
    """What a world with legs is told before an episode."""

    friction: float | None = None
    added_mass_kg: float = 0.0
    centre_of_mass_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    motor_strength: float = 1.0
    push_mps: float = 0.0
    push_period_s: float = 15.0


@dataclass(frozen=True, slots=True)
class RandomisationDraw:
    """One episode's numbers."""

    actuation: ActuationDraw
    sensors: SensorConfig
    legs: LegsDraw
    record: dict[str, Any]  # knob to what was drawn: numbers, lists of three, or true for a missing sensor


def draw(config: RandomisationConfig, sensors: SensorConfig, seed: int) -> RandomisationDraw:
    """The episode's numbers; `sensors` are the ones that the knobs change.

    Returns:
        The same for the same arguments, on every machine.
    """
    if config.is_off:
        return RandomisationDraw(ActuationDraw(), sensors, LegsDraw(), {})
    names = [field.name for field in fields(config)]
    chance = dict(zip(names, np.random.default_rng([seed, _SALT]).random((len(names), _DRAWS)).tolist(), strict=True))
    record: dict[str, Any] = {}

    def one(name: str, otherwise: Any) -> Any:
        knob = getattr(config, name)
        if knob is None:
            return otherwise
        record[name] = knob[0] + chance[name][0] * (knob[1] - knob[0])
        return record[name]

    def three(name: str, otherwise: tuple[float, ...]) -> tuple[float, float, float]:
        knob = getattr(config, name)
        if knob is not None:
            low, high = knob if isinstance(knob, tuple) else (-knob, knob)
            record[name] = [low + u * (high - low) for u in chance[name]]
        a, b, c = record.get(name, otherwise)
        return a, b, c

    def missing(name: str, otherwise: bool) -> bool:
        knob = getattr(config, name)
        if knob is None:
            return otherwise
        record[name] = bool(chance[name][0] < knob)
        return otherwise or record[name]

    lidar, depth, imu, odometry = sensors.lidar, sensors.depth, sensors.imu, sensors.odometry
    dropped = one("dropped_frames", None)
    roll, pitch, yaw = three("camera_tilt_rad", (depth.roll_rad, depth.pitch_rad, depth.yaw_rad))
    changed = dataclasses.replace(
        sensors,
        lidar=dataclasses.replace(
            lidar,
            dropped=lidar.dropped if dropped is None else dropped,
            latency_s=one("lidar_delay_s", lidar.latency_s),
            noise_m=one("lidar_noise_m", lidar.noise_m),
            dropout=one("lidar_dropout", lidar.dropout),
            missing=missing("missing_lidar", lidar.missing),
        ),
        depth=dataclasses.replace(
            depth,
            dropped=depth.dropped if dropped is None else dropped,
            latency_s=one("depth_delay_s", depth.latency_s),
            noise_per_m=one("depth_noise_per_m", depth.noise_per_m),
            holes=one("depth_holes", depth.holes),
            edges=one("depth_edges", depth.edges),
            roll_rad=roll,
            pitch_rad=pitch,
            yaw_rad=yaw,
            missing=missing("missing_depth", depth.missing),
        ),
        imu=dataclasses.replace(imu, missing=missing("missing_imu", imu.missing)),
        odometry=dataclasses.replace(
            odometry,
            scale=three("odometry_scale", odometry.scale),
            yaw_drift_radps=one("odometry_yaw_drift_radps", odometry.yaw_drift_radps),
            noise_per_m=one("odometry_noise_per_m", odometry.noise_per_m),
            velocity_noise_mps=one("velocity_noise_mps", odometry.velocity_noise_mps),
            yaw_rate_noise_radps=one("yaw_rate_noise_radps", odometry.yaw_rate_noise_radps),
        ),
    )
    actuation = ActuationDraw(
        delay_s=one("command_delay_s", 0.0),
        gain=three("tracking_gain", (1.0, 1.0, 1.0)),
        slip=one("slip", 0.0),
        lag_s=one("lag_s", None),
    )
    legs = LegsDraw(
        friction=one("friction", None),
        added_mass_kg=one("added_mass_kg", 0.0),
        centre_of_mass_m=three("centre_of_mass_m", (0.0, 0.0, 0.0)),
        motor_strength=one("motor_strength", 1.0),
        push_mps=one("push_mps", 0.0),
        push_period_s=one("push_period_s", 15.0),
    )
    return RandomisationDraw(actuation, changed, legs, record)


def effective(record: dict[str, Any], depth: bool, legs: bool) -> dict[str, Any]:
    """What was drawn, as far as it has an effect on a robot with a depth camera, or in a world with legs."""
    idle = (set() if depth else CAMERA_KNOBS) | (LAG_KNOBS if legs else LEG_KNOBS)
    return {knob: value for knob, value in record.items() if knob not in idle}


def load_randomisation(randomisation: str | RandomisationConfig | None) -> RandomisationConfig:
    """Randomisation by the name of a preset in configs/randomisation or the path of a .toml; None is off.

    Raises:
        ConfigError: unknown preset or knob, or a range that cannot be.
    """
    if randomisation is None or isinstance(randomisation, RandomisationConfig):
        return randomisation or RandomisationConfig()
    return load_config(RandomisationConfig, find_config("randomisation", randomisation))
