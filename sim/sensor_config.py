"""How good the simulated sensors are, as data (``configs/sensors/*.toml``); the defaults are perfect ones.

What a sensor is (beams, pixels, field of view, range, mount) stands in the robot's file; here stand its own rate, its
latency, and its errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from robonav.config import find_config, load_config, require_at_least
from robonav.errors import ConfigError, explain
from sim.egl import Renderer

Between = Literal["absent", "hold"]
Lost = Literal["lidar", "lidar-sector", "imu", "twist"]


@dataclass(frozen=True, slots=True)
class _Timing:
    """When a sensor measures, and when the robot hears of it."""

    rate_hz: float = 0.0  # of its own; 0 measures at every tick of the robot, and more than that never happens
    latency_s: float = 0.0  # rounded to the robot's ticks
    dropped: float = 0.0  # share of its frames that never arrive
    missing: bool = False  # the robot has no such sensor

    def _check(self) -> None:
        require_at_least(self, {"rate_hz": 0, "latency_s": 0, "dropped": 0})
        if self.dropped >= 1:
            raise ConfigError(explain("dropped", "below 1", self.dropped, "set missing = true instead"))


@dataclass(frozen=True, slots=True)
class LidarErrors(_Timing):
    """A lidar's timing and errors."""

    between: Between = "absent"  # at ticks without a new scan
    noise_m: float = 0.0  # standard deviation of a range
    noise_share: float = 0.0  # the same, as a share of the range; both add up
    dropout: float = 0.0  # share of the beams that come back with nothing, as if out of range

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a negative value, or a share above 1.
        """
        self._check()
        require_at_least(self, {"noise_m": 0, "noise_share": 0, "dropout": 0})
        _check_shares(self, ("dropout",))


@dataclass(frozen=True, slots=True)
class DepthErrors(_Timing):
    """A depth camera's timing and errors. A pixel without a reading is 0."""

    between: Between = "hold"  # at ticks without a new image
    noise_per_m: float = 0.0  # standard deviation at 1 m; it grows with the square of the range, as in stereo
    holes: float = 0.0  # share of the image lost in round patches
    hole_radius_px: float = 4.0  # largest radius of a patch
    edges: float = 0.0  # share of the pixels at depth steps that are wrong: half lost, half somewhere in between
    edge_step_m: float = 0.3  # a depth step is at least that high
    roll_rad: float = 0.0  # error of the mount about the optical axis
    pitch_rad: float = 0.0  # error of the mount, nose down
    yaw_rad: float = 0.0  # error of the mount, to the left
    renderer: Renderer = "auto"  # "egl" is the GPU's, "auto" takes it where it works; its edges differ by a pixel

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a negative value, or a share above 1.
        """
        self._check()
        require_at_least(self, {"noise_per_m": 0, "holes": 0, "hole_radius_px": 1, "edges": 0, "edge_step_m": 0})
        _check_shares(self, ("holes", "edges"))


@dataclass(frozen=True, slots=True)
class ImuErrors(_Timing):
    """Timing and errors of roll and pitch."""

    noise_rad: float = 0.0
    bias_rad: tuple[float, float] = (0.0, 0.0)  # of roll and pitch

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a negative value.
        """
        self._check()
        require_at_least(self, {"noise_rad": 0})


@dataclass(frozen=True, slots=True)
class OdometryErrors(_Timing):
    """Timing and errors of pose and velocity. The pose is the sum of what was measured, so its errors stay."""

    scale: tuple[float, float, float] = (0.0, 0.0, 0.0)  # forward, left, turn: 0.02 measures 2 % too much
    yaw_drift_radps: float = 0.0  # turn that is measured at rest
    noise_per_m: float = 0.0  # standard deviation of the place after a metre; it grows with the root of the way
    noise_per_rad: float = 0.0  # of the heading after a radian, likewise
    velocity_noise_mps: float = 0.0
    yaw_rate_noise_radps: float = 0.0

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a negative deviation, a scale of -1 or less, or a robot without odometry.
        """
        self._check()
        deviations = ("noise_per_m", "noise_per_rad", "velocity_noise_mps", "yaw_rate_noise_radps")
        require_at_least(self, dict.fromkeys(deviations, 0))
        if min(self.scale) <= -1:
            raise ConfigError(explain("scale", "above -1", self.scale))
        if self.missing:
            raise ConfigError(explain("missing", "odometry on every robot: a policy is lost without it", "true"))

    @property
    def drifts(self) -> bool:
        """Whether the pose differs from the true one."""
        return bool(any(self.scale) or self.yaw_drift_radps or self.noise_per_m or self.noise_per_rad)


@dataclass(frozen=True, slots=True)
class ContactErrors(_Timing):
    """Timing of the contact sensors, which most robots lack."""

    missing: bool = True

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a negative value.
        """
        self._check()


@dataclass(frozen=True, slots=True)
class FailureConfig:
    """One sensor that is lost in mid-run. Pairs are ranges that each episode draws from.

    A lost lidar gives no scan, a lost sector's beams read 0, a lost IMU reads level, and lost velocities of the
    odometry read 0 (its pose goes on: without one no policy knows where it is).
    """

    sensors: tuple[Lost, ...] = ()  # of which one is drawn for an episode; none: nothing fails
    fails_at_s: tuple[float, float] = (2.0, 8.0)  # after the episode's beginning
    fails_for_s: tuple[float, float] = (2.0, 6.0)
    to_the_end: float = 0.0  # share of the episodes in which it does not come back
    sector_rad: tuple[float, float] = (1.0, 2.5)  # width of a lost sector, whose bearing is drawn from all round

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a negative time, a reversed range, a share above 1, or a sector wider than the circle.
        """
        for name in ("fails_at_s", "fails_for_s", "sector_rad"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ConfigError(explain(f"failure: {name}", "a range [low, high] of 0 or more", [low, high]))
        if self.sector_rad[1] > 2 * math.pi:
            raise ConfigError(explain("failure: sector_rad", "at most 2 pi", self.sector_rad[1]))
        require_at_least(self, {"to_the_end": 0})
        _check_shares(self, ("to_the_end",))


@dataclass(frozen=True, slots=True)
class SensorConfig:
    """All sensors of a robot."""

    lidar: LidarErrors = field(default_factory=LidarErrors)
    depth: DepthErrors = field(default_factory=DepthErrors)
    imu: ImuErrors = field(default_factory=ImuErrors)
    odometry: OdometryErrors = field(default_factory=OdometryErrors)
    contact: ContactErrors = field(default_factory=ContactErrors)
    failure: FailureConfig = field(default_factory=FailureConfig)

    @property
    def scan_may_lack(self) -> bool:
        """Whether there can be ticks without a scan."""
        lidar = self.lidar
        return (
            "lidar" in self.failure.sensors
            or lidar.missing
            or (lidar.between == "absent" and (lidar.dropped > 0 or lidar.rate_hz > 0))
        )


def load_sensors(sensors: str | SensorConfig | None) -> SensorConfig:
    """Sensors by the name of a preset in configs/sensors or the path of a .toml; None gives perfect ones.

    Raises:
        ConfigError: unknown preset or key, or a value out of range.
    """
    if sensors is None or isinstance(sensors, SensorConfig):
        return sensors or SensorConfig()
    return load_config(SensorConfig, find_config("sensors", sensors))


def _check_shares(config: object, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) > 1:
            raise ConfigError(explain(name, "a share of at most 1", getattr(config, name)))
