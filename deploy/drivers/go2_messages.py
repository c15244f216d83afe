"""What is said to a Unitree Go2 in sport mode and what it says, as plain values. No DDS here.

Sources: unitree_sdk2_python `unitree_sdk2py/go2/sport/sport_api.py` and `sport_client.py` (API numbers, JSON
parameters, which of them take no reply), unitree_ros2 `README.md` (`SportModeState`: modes, fields; topics
`sportmodestate` and `lf/sportmodestate`) and its example `read_motion_state.cpp` (position and velocity in the
odometry frame), Unitree's "Sports Services Interface" (ranges of Move; its latest one holds for 1 s).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robonav.errors import LinkError, explain
from robonav.geometry import wrap_angle

REQUEST_TOPIC = "rt/api/sport/request"
RESPONSE_TOPIC = "rt/api/sport/response"
STATE_TOPIC = "rt/sportmodestate"

DAMP = 1001  # the legs let go
BALANCE_STAND = 1002
STOP_MOVE = 1003
RECOVERY_STAND = 1006  # stands up from wherever it lies
MOVE = 1008
HOLD_S = 1.0  # for which the robot keeps the latest Move
NAMES = {
    DAMP: "Damp",
    BALANCE_STAND: "BalanceStand",
    STOP_MOVE: "StopMove",
    RECOVERY_STAND: "RecoveryStand",
    MOVE: "Move",
}

# What Move takes: vx, vy in m/s, yaw rate in rad/s. Our own limits, of the robot's preset, lie within.
MOVE_LOW = np.array([-2.5, -1.0, -4.0])
MOVE_HIGH = np.array([3.8, 1.0, 4.0])

BALANCED, WALKS = 1, 3
MODES = {
    0: "idle, standing",
    BALANCED: "balance stand",
    2: "pose",
    WALKS: "locomotion",
    5: "lying",
    6: "joints locked",
    7: "damping",
    8: "recovery stand",
    10: "sitting",
    11: "front flip",
    12: "front jump",
    13: "front pounce",
}
UPRIGHT = (0, BALANCED, 2, WALKS)


def move_parameter(velocity: NDArray[np.float64]) -> str:
    """JSON of Move for a (3,) velocity, within what Move takes."""
    x, y, z = (round(float(v), 4) for v in np.clip(velocity, MOVE_LOW, MOVE_HIGH))
    return json.dumps({"x": x, "y": y, "z": z})


@dataclass(frozen=True, slots=True)
class SportState:
    """One `SportModeState_`: what of it is read here, and when it came."""

    received_ns: int  # of this computer's monotonic clock; the robot's own stamp is of another clock
    position_odom_m: tuple[float, float]  # in the robot's odometry, whose origin is where it was switched on
    yaw_rad: float
    tilt_rad: tuple[float, float]  # roll, pitch
    velocity_mps: tuple[float, float]  # planar, in the odometry or the base frame
    yaw_rate_radps: float
    body_height_m: float
    mode: int
    error_code: int

    @property
    def upright(self) -> bool:
        """It stands or walks."""
        return self.mode in UPRIGHT

    def check(self) -> None:
        """Raises LinkError where a number is not finite."""
        numbers = (*self.position_odom_m, self.yaw_rad, *self.tilt_rad, *self.velocity_mps, self.yaw_rate_radps)
        if not np.isfinite(numbers).all():
            raise LinkError(explain("Go2: sport mode state", "finite numbers", numbers, "switch the robot off and on"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where our odometry begins in the robot's own: the pose at which it was armed."""

    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float = 0.0

    def pose(self, state: SportState) -> NDArray[np.float32]:
        """(3,) x, y, yaw of the base, seen from here."""
        dx, dy = state.position_odom_m[0] - self.x_m, state.position_odom_m[1] - self.y_m
        c, s = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        yaw = wrap_angle(state.yaw_rad - self.yaw_rad)
        return np.array([c * dx + s * dy, -s * dx + c * dy, yaw], np.float32)


def twist_base(state: SportState, in_odom: bool) -> NDArray[np.float32]:
    """(3,) vx, vy, yaw rate in the base frame, from a velocity in the odometry frame or in the base's own."""
    vx, vy = state.velocity_mps
    if in_odom:
        c, s = np.cos(state.yaw_rad), np.sin(state.yaw_rad)
        vx, vy = c * vx + s * vy, -s * vx + c * vy
    return np.array([vx, vy, state.yaw_rate_radps], np.float32)
