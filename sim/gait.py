"""A trot: where each foot goes and what each leg carries, from the commanded velocity and the motion of the base.

Diagonal legs step together. A swinging foot goes to where it will stand symmetrically under its hip, further out when
the base is faster than wanted (Raibert, Legged Robots That Balance, 1986, ch. 2), further back when it speeds up. The
standing feet share the force and moment that the base needs, by weighted least squares under friction (as the balance
controller of Bledt et al., MIT Cheetah 3, IROS 2018, without its inequalities), on top of soft joint springs. Slow
integrals take away what velocity and yaw rate still lack. Without a command the robot stands on all four.

The base follows the slope of the ground that the standing feet feel. Where the ground is uneven, felt or seen ahead,
feet are lifted higher, stand where they touch something, and carry nothing before they touch.

Frames: `root` is the URDF's root link; `level` has the same origin, x along its heading and z up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robonav.types import RobotSpec
from sim.gait_kernel import CONSTANTS, STATE, stand, step
from sim.leg_kinematics import LEG
from sim.urdf import Array
from sim.walking_body import WalkingBody

GRAVITY_MPS2 = 9.81


@dataclass(frozen=True, slots=True)
class TrotConfig:
    """Gains of the trot, made without dimension by the robot's mass, its stance height h, and the time sqrt(h / g)."""

    period: float = 1.5  # of a step with both diagonals, in sqrt(h / g)
    duty: float = 0.55  # share of the period that a foot stands
    step_height: float = 0.2  # in h
    rough_lift: float = 1.5  # times as high where the ground is uneven
    bump: float = 0.04  # difference in height of standing feet that makes it so, in h
    wary: float = 6.0  # time constant in which that is forgotten, in periods
    early: float = 0.6  # share of the swing after which a foot that touches something stands there
    search: float = 0.3  # how far below its place a standing foot reaches for the ground, in h
    search_speed: float = 0.5  # how fast, in sqrt(g h)
    stiffness: float = 4.0  # of the joint springs, in weight times h a rad
    damping_s: float = 0.02  # of the joint springs, in their stiffness
    standing_share: float = 0.2  # of the springs that is left in legs that carry the trotting robot
    raibert: float = 1.0  # metres further out for each m/s too fast, in sqrt(h / g)
    lean: float = 0.7  # metres further back for each m/s^2 of acceleration, in h / g
    latch: float = 0.75  # share of the swing after which a foot's target stays
    settle: float = 0.05  # time constant in which a foot that landed takes its height, in periods
    smooth: float = 0.5  # time constant of the reference behind the command, in periods
    filter: float = 0.3  # time constant of the error that the trims see, in periods
    swift: float = 0.1  # time constant of the velocity that places feet, in periods
    slope: float = 1.0  # time constant in which the base follows the ground's slope, in periods
    trim_per_s: float = 0.8
    trim_max_mps: float = 0.3
    trim_max_radps: float = 0.6
    speed_gain: float = 3.0  # acceleration for each m/s that is missing, in 1 / sqrt(h / g)
    yaw_gain: float = 2.0  # the same of the yaw rate
    height_gain: float = 3.0  # acceleration for each metre too low, in g / h
    height_damping: float = 2.0  # for each m/s, in sqrt(g / h)
    tilt_gain: float = 3.0  # angular acceleration for each rad of roll or pitch, in g / h
    tilt_damping: float = 2.5  # for each rad/s, in sqrt(g / h)
    acceleration_max_mps2: float = 3.0  # that the feet are asked for
    lift_max_mps2: float = 5.0  # the same upwards or downwards
    friction: float = 0.7  # of the feet, at most used
    thrift: float = 0.1  # weight of small forces against a wrench that is met
    planar_weight: float = 1.0  # of the horizontal forces that are met, against the vertical one's 10
    tilt_weight: float = 10.0  # of the moments about x and y that are met
    yaw_weight: float = 1.0  # of the moment about z


class Trot:
    """The gait of one robot, in compiled code. Arrays have three numbers a leg, in the order of `LegsSpec.all`."""

    def __init__(self, body: WalkingBody, spec: RobotSpec, config: TrotConfig | None = None) -> None:
        """A robot that stands."""
        assert spec.legs is not None
        self.config = config or TrotConfig()
        self.legs = np.zeros(4, LEG)
        self.constants = np.zeros(1, CONSTANTS)
        self._state = np.zeros(1, STATE)
        for i, leg in enumerate(body.legs):
            self.legs[i] = leg.record
        height = spec.legs.stance_height_m
        natural_s = math.sqrt(height / GRAVITY_MPS2)
        neutral = [leg.standing_foot_m(spec.legs) for leg in body.legs]
        c, config = self.constants[0], self.config
        given = asdict(config) | {
            "acceleration_limit_mps2": spec.acceleration_max_mps2,
            "yaw_acceleration_limit_radps2": spec.yaw_acceleration_max_radps2,
            "mass_kg": body.mass_kg,
            "com_m": body.com_m,
            "inertia_kgm2": body.inertia_kgm2,
            "neutral_m": neutral,
            "foot_radius_m": float(np.mean([leg.foot_radius_m for leg in body.legs])),
            "balance_m": body.com_m[:2] - np.mean(neutral, axis=0)[:2],
            "height_m": height,
            "natural_s": natural_s,
            "period_s": spec.legs.period_s or config.period * natural_s,
            "search_m": config.search * height,
            "search_mps": config.search_speed * math.sqrt(GRAVITY_MPS2 * height),
            "lift_m": spec.legs.step_height_m or config.step_height * height,
            "spring_nm": config.stiffness * body.mass_kg * GRAVITY_MPS2 * height,
        }
        for name in CONSTANTS.names or ():
            c[name] = given[name]
        self.reset()

    def reset(self) -> None:
        """Stands still, feet at their places."""
        self._state[:] = np.zeros(1, STATE)
        stand(self.legs, self.constants[0], self._state[0])

    def step(self, command: Array, root: Array, joints: Array, touching: Sequence[bool], dt_s: float) -> None:
        """Moves the gait on by `dt_s`.

        Args:
            command: (3,) vx, vy in m/s and yaw rate in rad/s.
            root: (13,) the root link's position, quaternion (x, y, z, w), velocity and angular velocity in the world.
            joints: (12,) joint angles.
            touching: (4,) which feet touch the ground.
            dt_s: time since the last step.
        """
        self._state[0]["touching"][:] = touching
        step(self.legs, self.constants[0], self._state[0], command, root, joints, dt_s)

    def warn(self) -> None:
        """Tells that the ground ahead is uneven: for a while feet are lifted higher and feel for it."""
        self._state[0]["rough"] = 1.0

    @property
    def period_s(self) -> float:
        """Time of a step with both diagonals."""
        return float(self.constants[0]["period_s"])

    @property
    def state(self) -> Any:
        """A record of sim.gait_kernel.STATE, as it is now."""
        return self._state[0]

    @property
    def springs(self) -> tuple[list[float], list[float], list[float]]:
        """Bias (N m), stiffness (N m/rad) and damping (N m s/rad) of the joints until the next step: the torque is
        bias - stiffness * angle - damping * velocity.
        """
        s = self._state[0]
        return s["bias"].tolist(), s["stiffness"].tolist(), s["damping"].tolist()
