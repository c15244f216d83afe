"""What crosses the boundaries between packages: frozen dataclasses of numpy arrays and scalars, and protocols.

Frames: ``world`` is the scene's, ``odom`` the robot's odometry (its origin is the start pose, x forward), ``base``
the robot's body (x forward, y left, yaw counter-clockwise). A pose ``pose_odom_base`` is (x, y, yaw) of the base in
odom. Units are SI and stand in the names. Times are nanoseconds of one machine's monotonic clock.
This module imports neither torch nor pybullet: it runs on the robot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, ShapeError, explain

Float = NDArray[np.float32]

ROBOT_SIZE = 9  # numbers of `RobotSpec.dynamics`
ACTION_SIZE = 3  # (vx, vy, yaw rate), normalised to [-1, 1] by RobotSpec
MODALITIES = ("scan", "local_map", "goal", "body")
WAYPOINT_LOOKAHEADS_M = (0.8, 1.6, 3.0)
LOCAL_MAP_CHANNELS = ("occupied", "free", "route")
COMMAND_LIFE_NS = 250_000_000  # how long a policy's command holds from its observation's stamp: 2.5 ticks at 10 Hz


@dataclass(frozen=True, slots=True)
class LidarSpec:
    """A planar lidar. Beam i points at ``angle_min_rad + i * increment_rad`` in the base frame."""

    beams: int = 128
    angle_min_rad: float = -np.pi
    fov_rad: float = 2 * np.pi
    range_m: float = 8.0
    mount_x_m: float = 0.0
    mount_z_m: float = 0.12

    @property
    def increment_rad(self) -> float:
        """Angle between neighbours; a full circle has no double beam."""
        full = self.fov_rad >= 2 * np.pi - 1e-6
        return self.fov_rad / (self.beams if full else self.beams - 1)

    @property
    def angles_rad(self) -> NDArray[np.float64]:
        """(beams,) directions in the base frame."""
        return np.asarray(self.angle_min_rad + self.increment_rad * np.arange(self.beams), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class DepthSpec:
    """A forward-looking pinhole depth camera."""

    width: int = 64
    height: int = 64
    fov_rad: float = 1.2
    range_m: float = 6.0
    mount_x_m: float = 0.25
    mount_z_m: float = 0.05
    mount_y_m: float = 0.0
    mount_pitch_rad: float = 0.0  # nose down
    mount_yaw_rad: float = 0.0  # to the left


@dataclass(frozen=True, slots=True)
class LocalMapSpec:
    """The egocentric crop of the occupancy grid; row 0 lies ahead of the robot, column 0 to its left."""

    cells: int = 48
    resolution_m: float = 0.1


@dataclass(frozen=True, slots=True)
class LegSpec:
    """One leg of three joints, by the names in the URDF. Axes, link lengths, signs and limits are read from there."""

    hip: str  # joint that swings the leg sideways; its axis lies along the robot's length
    thigh: str  # joint that swings the leg forward; its axis lies across
    knee: str  # joint with the thigh's axis
    foot: str  # link that touches the ground; a sphere in it gives its centre and radius
    foot_radius_m: float = 0.02  # where the foot link has no sphere
    knee_bends: Literal["backward", "forward"] = "backward"  # where the knee points, seen from hip and foot

    def __post_init__(self) -> None:
        """Checks the radius."""
        if not self.foot_radius_m > 0:
            raise ConfigError(explain("foot_radius_m", "a number above 0", self.foot_radius_m))


@dataclass(frozen=True, slots=True)
class LegsSpec:
    """Four legs and what their trot needs to know that the URDF does not say."""

    front_left: LegSpec
    front_right: LegSpec
    rear_left: LegSpec
    rear_right: LegSpec
    stance_height_m: float  # of the URDF's root link above the ground
    foot_shift_x_m: float = 0.0  # of the standing feet against the hips
    foot_shift_y_m: float = 0.0  # outwards, of the standing feet against the hips
    period_s: float | None = None  # of the trot; else from the stance height
    step_height_m: float | None = None  # else from the stance height
    max_torque_nm: tuple[float, float, float] | None = None  # hip, thigh, knee; else the URDF's efforts
    rotor_inertia_kgm2: float = 0.005  # of a motor, seen at its joint

    def __post_init__(self) -> None:
        """Checks that sizes, times and torques are positive."""
        positive: dict[str, float | None] = {
            "stance_height_m": self.stance_height_m,
            "period_s": self.period_s,
            "step_height_m": self.step_height_m,
            "max_torque_nm": None if self.max_torque_nm is None else min(self.max_torque_nm),
        }
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise ConfigError(explain(name, "above 0", getattr(self, name)))
        if not self.rotor_inertia_kgm2 >= 0:
            raise ConfigError(explain("rotor_inertia_kgm2", "0 or more", self.rotor_inertia_kgm2))

    @property
    def all(self) -> tuple[LegSpec, LegSpec, LegSpec, LegSpec]:
        """The legs in the order of every array about them: front left, front right, rear left, rear right."""
        return self.front_left, self.front_right, self.rear_left, self.rear_right


@dataclass(frozen=True, slots=True)
class RobotSpec:
    """A robot as data (``configs/robots/*.toml``): size, limits, sensors, rate."""

    name: str
    urdf: str
    length_m: float
    width_m: float
    height_m: float
    vx_min_mps: float
    vx_max_mps: float
    vy_max_mps: float
    yaw_rate_max_radps: float
    acceleration_max_mps2: float = 3.0
    yaw_acceleration_max_radps2: float = 6.0
    lag_s: float = 0.15
    rate_hz: float = 10.0
    lidar: LidarSpec = field(default_factory=LidarSpec)
    depth: DepthSpec = field(default_factory=DepthSpec)
    local_map: LocalMapSpec = field(default_factory=LocalMapSpec)
    legs: LegsSpec | None = None  # for the legged world; the other worlds do without

    @property
    def dt_s(self) -> float:
        """Control period."""
        return 1.0 / self.rate_hz

    @property
    def radius_m(self) -> float:
        """Radius of the circle round the footprint."""
        return float(np.hypot(self.length_m, self.width_m) / 2)

    @property
    def inner_radius_m(self) -> float:
        """Radius of the circle inside the footprint."""
        return min(self.length_m, self.width_m) / 2

    @property
    def dynamics(self) -> Float:
        """(9,) what a policy must know of the body it moves.

        Length and width, least and largest vx, largest vy and yaw rate, both accelerations, lag.
        """
        return np.array(
            [
                *(self.length_m, self.width_m, self.vx_min_mps, self.vx_max_mps, self.vy_max_mps),
                *(self.yaw_rate_max_radps, self.acceleration_max_mps2, self.yaw_acceleration_max_radps2, self.lag_s),
            ],
            np.float32,
        )

    def action_to_velocity(self, action: NDArray[Any]) -> NDArray[np.float64]:
        """(..., 3) action in [-1, 1] to (..., 3) velocity (vx, vy, yaw rate); 0 maps to standstill."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape == (ACTION_SIZE,):  # one action a tick: plain numbers take a fifth of the time
            ahead, left, turn = (min(max(a, -1.0), 1.0) for a in action.tolist())
            vx = ahead * self.vx_max_mps if ahead >= 0 else -ahead * self.vx_min_mps
            return np.array([vx, left * self.vy_max_mps, turn * self.yaw_rate_max_radps])
        action = np.clip(action, -1.0, 1.0)
        vx = np.where(action[..., 0] >= 0, action[..., 0] * self.vx_max_mps, -action[..., 0] * self.vx_min_mps)
        return np.stack([vx, action[..., 1] * self.vy_max_mps, action[..., 2] * self.yaw_rate_max_radps], axis=-1)

    def velocity_to_action(self, velocity: NDArray[Any]) -> NDArray[np.float64]:
        """Inverse of `action_to_velocity`, clipped to [-1, 1]."""
        v = np.asarray(velocity, dtype=np.float64)
        ax = np.where(v[..., 0] >= 0, v[..., 0] / self.vx_max_mps, -v[..., 0] / min(self.vx_min_mps, -1e-9))
        action = np.stack([ax, v[..., 1] / max(self.vy_max_mps, 1e-9), v[..., 2] / self.yaw_rate_max_radps], axis=-1)
        return np.clip(action, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the robot's sensors say at one tick; a missing sensor is None.

    scan_m holds the lidar's range where nothing was hit. last_command is what was applied over the last tick.
    """

    stamp_ns: int
    pose_odom_base: Float  # (3,) x m, y m, yaw rad
    twist_base: Float  # (3,) vx m/s, vy m/s, yaw rate rad/s
    tilt_rad: Float  # (2,) roll, pitch
    goal_odom_m: Float  # (2,)
    last_command: Float  # (3,) vx m/s, vy m/s, yaw rate rad/s
    scan_m: Float | None = None  # (beams,)
    depth_m: Float | None = None  # (height, width), 0 where a pixel has no reading
    contact: Float | None = None  # (5,) 1 where the body, or a foot (in the order of LegsSpec.all), touches something

    def check(self, spec: RobotSpec) -> None:
        """Raises ShapeError with the field's name when a shape or a value does not fit the robot."""
        shapes: dict[str, tuple[int, ...]] = {
            "pose_odom_base": (3,),
            "twist_base": (3,),
            "tilt_rad": (2,),
            "goal_odom_m": (2,),
            "last_command": (3,),
            "scan_m": (spec.lidar.beams,),
            "depth_m": (spec.depth.height, spec.depth.width),
            "contact": (5,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name in ("scan_m", "depth_m", "contact"):
                continue
            got = np.shape(value)
            if got != shape:
                where = f"{name} for robot '{spec.name}'"
                do = f"set the sensor's size in configs/robots/{spec.name}.toml"
                raise ShapeError(explain(where, shape, got, do))
            if not np.isfinite(value).all():
                raise ShapeError(explain(f"{name} for robot '{spec.name}'", "finite numbers", "NaN or Inf"))


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """What a learned policy reads, in physical units; made from an Observation, the map and the route.

    Arrays of absent modalities are zero, and `present` (in the order of MODALITIES) is 0 for them.
    """

    scan_m: Float  # (beams,), 0 where a beam has no reading
    flow_mps: Float  # (beams, 2) velocity over ground, in the base frame, of what a beam hit; 0 for what stands still
    local_map: NDArray[np.uint8]  # (3, cells, cells), channels LOCAL_MAP_CHANNELS, 0 or 255
    goal_base_m: Float  # (2,)
    waypoints_base_m: Float  # (3, 2) on the route, WAYPOINT_LOOKAHEADS_M ahead
    twist_base: Float  # (3,)
    tilt_rad: Float  # (2,)
    last_command: Float  # (3,)
    robot: Float  # (9,) `RobotSpec.dynamics`: size, limits, lag
    present: Float  # (4,) 1 where the modality is there

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name to array, in the order of the fields: the ONNX inputs and the environment's Dict space."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def policy_input_shapes(spec: RobotSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of `PolicyInput`'s arrays for a robot, in the order of its fields."""
    cells = spec.local_map.cells
    return {
        "scan_m": (spec.lidar.beams,),
        "flow_mps": (spec.lidar.beams, 2),
        "local_map": (len(LOCAL_MAP_CHANNELS), cells, cells),
        "goal_base_m": (2,),
        "waypoints_base_m": (len(WAYPOINT_LOOKAHEADS_M), 2),
        "twist_base": (3,),
        "tilt_rad": (2,),
        "last_command": (3,),
        "robot": (ROBOT_SIZE,),
        "present": (len(MODALITIES),),
    }


@dataclass(frozen=True, slots=True)
class VelocityCommand:
    """A velocity in the base frame that holds until `valid_until_ns`; after it the robot ramps to a stop."""

    vx_mps: float
    vy_mps: float
    yaw_rate_radps: float
    valid_until_ns: int

    @classmethod
    def of(cls, velocity: NDArray[Any], valid_until_ns: int) -> VelocityCommand:
        """From a (3,) velocity."""
        vx, vy, yaw_rate = (float(x) for x in velocity)
        return cls(vx, vy, yaw_rate, valid_until_ns)

    @property
    def velocity(self) -> NDArray[np.float64]:
        """(3,) vx, vy, yaw rate."""
        return np.array([self.vx_mps, self.vy_mps, self.yaw_rate_radps])


class Dreams(NamedTuple):
    """What K imagined plans of L steps brought."""

    actions: Float  # (K, L, A) that were taken
    rewards: Float  # (K,) discounted
    values: Float  # (K,) of the last state, discounted
    doubts: Float  # (K,) how far the priors disagree, 0 to 1
    dangers: Float  # (K,) chance of a collision, discounted


@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's answer at one tick: the command, and what explains it."""

    command: VelocityCommand
    value: float = 0.0  # expected discounted return, in reward units; 0 for policies that have none
    why: str = ""  # one short word or phrase: "actor", "mppi", "pursuit", "stop: no route", ...
    route_odom_m: Float | None = None  # (n, 2) route that was followed
    imagined_path_odom_m: Float | None = None  # (h, 2) path that the planner imagined
    details: dict[str, float] = field(default_factory=dict)  # further scalars worth logging


@dataclass(frozen=True, slots=True)
class Mover:
    """Something that moves in a scene, in the world frame; `sim.movers` says how each behaviour goes about it.

    Its shape is a circle of `radius_m`, or a box where `box_m` is given. A sliding door has the waypoints (centre when
    closed, centre when open), a hinged one (hinge, end when closed, end when open).
    """

    kind: Literal["pedestrian", "door", "robot"]
    behaviour: Literal["waypoint", "bouncing", "crossing", "reactive", "door"]
    waypoints_m: tuple[tuple[float, float], ...]  # a route whose last point is its first goes round, others turn back
    speed_mps: float = 1.0
    radius_m: float = 0.25
    box_m: tuple[float, float] | None = None  # length along its heading, width
    height_m: float = 1.7
    start_phase: float = 0.0  # the share of a round that lies behind it at the start, in [0, 1)
    period_s: float = 0.0  # a door's round; the longest wait of a crossing mover at either end
    ignores_robot: bool = False

    @property
    def circle_m(self) -> float:
        """Radius of the circle round its shape."""
        return self.radius_m if self.box_m is None else math.hypot(*self.box_m) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A world as data, in the world frame. Walls, boxes and cylinders are solid and `height_m` tall.

    Ramps rise along their length from 0 to `rise`; steps are level and `rise` tall. Both are low enough to be walked
    on, so to a planar world (map, route, kinematic robot) they are floor.
    """

    name: str
    bounds_m: tuple[float, float, float, float]  # x_min, y_min, x_max, y_max
    start: tuple[float, float, float]  # x m, y m, yaw rad
    goal: tuple[float, float]  # x m, y m
    walls: Float = field(default_factory=lambda: np.zeros((0, 5), np.float32))  # (n, 5) x0, y0, x1, y1, thickness
    boxes: Float = field(default_factory=lambda: np.zeros((0, 5), np.float32))  # (n, 5) x, y, length, width, yaw
    cylinders: Float = field(default_factory=lambda: np.zeros((0, 3), np.float32))  # (n, 3) x, y, radius
    goal_radius_m: float = 0.5
    time_limit_s: float = 60.0
    height_m: float = 1.0
    ramps: Float = field(default_factory=lambda: np.zeros((0, 6), np.float32))  # (n, 6) x, y, length, width, yaw, rise
    steps: Float = field(default_factory=lambda: np.zeros((0, 6), np.float32))  # (n, 6) x, y, length, width, yaw, rise
    movers: tuple[Mover, ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """The outcome of one episode."""

    scene: str
    seed: int
    outcome: str  # "success", "collision" or "timeout"
    time_s: float
    path_m: float  # length of the way that was driven
    shortest_m: float  # length of the shortest feasible way from start to goal
    reward: float
    steps: int
    decision_ms: Float  # (steps,) milliseconds a decision
    positions_world_m: Float  # (steps + 1, 2)
    clearance_min_m: float = 0.0  # smallest distance between body and obstacles
    clearance_mean_m: float = 0.0
    jerk_mps3: float = 0.0  # mean size of the planar velocity's second difference in time
    randomisation: dict[str, Any] = field(default_factory=dict)  # knob to what was drawn for this episode


@runtime_checkable
class Policy(Protocol):
    """Maps observations to commands. State is explicit: `reset` makes it, `act` returns the next one."""

    name: str

    def reset(self, seed: int) -> Any:
        """State at the start of an episode."""

    def act(self, state: Any, observation: Observation) -> tuple[Any, Decision]:
        """Next state and the decision for this tick."""


@runtime_checkable
class Driver(Protocol):
    """A robot, real or simulated."""

    spec: RobotSpec

    def connect(self) -> None:
        """Opens the link to the robot."""

    def arm(self) -> None:
        """Makes the robot ready to move (stands up)."""

    def read(self) -> Observation:
        """The newest observation; its stamp is of the local monotonic clock."""

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """Applies a command and returns what was applied after the driver's own limits."""

    def stop(self, level: str = "soft") -> None:
        """Stops: 'soft' ramps to standstill, 'hard' at once. Must be safe to call at any time, repeatedly."""

    def disconnect(self) -> None:
        """Stops and closes the link."""
