"""Closed-form kinematics of a leg with three joints, read from the URDF.

A leg has a hip joint along the robot's length and two parallel joints across it, thigh and knee. Its plane is turned
by the hip; in the plane thigh and shank are a two-link arm. Offsets along any axis and any zero position of the
joints are allowed. The formulas are compiled: four legs a control step would cost more than the physics in Python.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from robonav.errors import ConfigError, explain, nearest
from robonav.types import LegSpec, LegsSpec, RobotSpec
from sim.urdf import Array, Urdf, find_urdf, read_urdf

Vector = tuple[float, float, float]
AXIS_TOLERANCE = 0.1  # sine of the angle by which an axis may miss the robot's own
SQUARE_TOLERANCE = 1e-4  # and another axis of the leg: the closed form needs them square
REACH_MARGIN = 0.995  # of the stretched leg; beyond it the knee's angle changes without bound
LEG_NAMES = ("front_left", "front_right", "rear_left", "rear_right")


# A leg as the compiled functions see it; the fields are those of LegGeometry.
LEG = np.dtype(
    [
        ("hip_m", np.float64, 3),
        ("axes", np.float64, (3, 3)),
        ("signs", np.float64, 3),
        ("thigh_m", np.float64, 2),
        ("lateral_m", np.float64),
        ("lengths_m", np.float64, 2),
        ("zeros_rad", np.float64, 2),
        ("bend", np.float64),
        ("lower_rad", np.float64, 3),
        ("upper_rad", np.float64, 3),
    ]
)
_compiled = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


@_compiled
def foot_to_joints(leg: Any, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Joint angles that put the foot's centre at (x, y, z) in the root's frame; out of reach, the nearest in its
    direction; within the joint limits.
    """
    x, y, z = x - leg.hip_m[0], y - leg.hip_m[1], z - leg.hip_m[2]
    axes, l1, l2 = leg.axes, leg.lengths_m[0], leg.lengths_m[1]
    u1 = axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z
    u2 = axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z
    u3 = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
    d = leg.lateral_m
    w = -math.sqrt(max(u2 * u2 + u3 * u3 - d * d, 1e-12))  # depth of the foot in the leg's plane
    roll = math.atan2(u3, u2) - math.atan2(w, d)
    reach_x, reach_z = u1 - leg.thigh_m[0], w - leg.thigh_m[1]
    reach = math.sqrt(reach_x * reach_x + reach_z * reach_z)
    reach = min(max(reach, abs(l1 - l2) * (2.0 - REACH_MARGIN) + 1e-6), (l1 + l2) * REACH_MARGIN)
    cosine = (reach * reach - l1 * l1 - l2 * l2) / (2.0 * l1 * l2)
    bend = leg.bend * math.acos(min(max(cosine, -1.0), 1.0))
    thigh = math.atan2(-reach_x, -reach_z) - math.atan2(l2 * math.sin(bend), l1 + l2 * math.cos(bend))
    a1, a2 = leg.zeros_rad[0], leg.zeros_rad[1]
    return (
        _within(leg.signs[0] * roll, leg.lower_rad[0], leg.upper_rad[0]),
        _within(leg.signs[1] * (thigh - a1), leg.lower_rad[1], leg.upper_rad[1]),
        _within(leg.signs[2] * (bend - a2 + a1), leg.lower_rad[2], leg.upper_rad[2]),
    )


@_compiled
def joints_to_foot(leg: Any, q1: float, q2: float, q3: float) -> tuple[float, float, float]:
    """Position of the foot's centre in the root's frame."""
    u1, u2, u3, _, _, _, _ = _chain(leg, q1, q2, q3)
    axes, hip = leg.axes, leg.hip_m
    return (
        hip[0] + axes[0, 0] * u1 + axes[1, 0] * u2 + axes[2, 0] * u3,
        hip[1] + axes[0, 1] * u1 + axes[1, 1] * u2 + axes[2, 1] * u3,
        hip[2] + axes[0, 2] * u1 + axes[1, 2] * u2 + axes[2, 2] * u3,
    )


@_compiled
def foot_torques(
    leg: Any, q1: float, q2: float, q3: float, fx: float, fy: float, fz: float
) -> tuple[float, float, float]:
    """Joint torques J^T F (N m) of a force on the foot (N), given in the root's frame."""
    _, u2, u3, x, z, shank_x, shank_z = _chain(leg, q1, q2, q3)
    axes, signs = leg.axes, leg.signs
    f1 = axes[0, 0] * fx + axes[0, 1] * fy + axes[0, 2] * fz
    f2 = axes[1, 0] * fx + axes[1, 1] * fy + axes[1, 2] * fz
    f3 = axes[2, 0] * fx + axes[2, 1] * fy + axes[2, 2] * fz
    roll = signs[0] * q1
    f3_plane = -math.sin(roll) * f2 + math.cos(roll) * f3
    return (
        signs[0] * (u2 * f3 - u3 * f2),
        signs[1] * (z * f1 - x * f3_plane),
        signs[2] * (shank_z * f1 - shank_x * f3_plane),
    )


@_compiled
def _chain(leg: Any, q1: float, q2: float, q3: float) -> tuple[float, float, float, float, float, float, float]:
    """The foot from the hip along e1, e2, e3; in the leg's plane the foot from the thigh joint and from the knee."""
    thigh = leg.signs[1] * q2 + leg.zeros_rad[0]
    shank = leg.signs[1] * q2 + leg.signs[2] * q3 + leg.zeros_rad[1]
    shank_x, shank_z = -leg.lengths_m[1] * math.sin(shank), -leg.lengths_m[1] * math.cos(shank)
    x, z = shank_x - leg.lengths_m[0] * math.sin(thigh), shank_z - leg.lengths_m[0] * math.cos(thigh)
    roll, d, w = leg.signs[0] * q1, leg.lateral_m, z + leg.thigh_m[1]
    c, s = math.cos(roll), math.sin(roll)
    return x + leg.thigh_m[0], c * d - s * w, s * d + c * w, x, z, shank_x, shank_z


@_compiled
def _within(angle: float, lower: float, upper: float) -> float:
    """The angle by whole turns into [-pi, pi] or the limits, then clipped to the limits."""
    angle -= math.tau * math.floor(angle / math.tau + 0.5)
    if angle < lower - 1e-9 and angle + math.tau <= upper:
        angle += math.tau
    elif angle > upper + 1e-9 and angle - math.tau >= lower:
        angle -= math.tau
    return min(max(angle, lower), upper)


@dataclass(frozen=True, slots=True)
class LegGeometry:
    """A leg in the frame of the URDF's root link (x forward, y left, z up), all joints at zero.

    The leg's own axes are `axes`: e1 forward along the hip's axis, e2 to the left along the thigh's, e3 upwards. Angles
    inside are about these axes; `signs` and offsets lead to the URDF's joint angles.
    """

    joints: tuple[str, str, str]
    hip_m: Vector  # a point on the hip's axis, at the joint
    axes: tuple[Vector, Vector, Vector]  # rows e1, e2, e3
    signs: Vector  # of the three joints against e1, e2, e2
    thigh_m: tuple[float, float]  # the thigh joint against the hip, along e1 and e3
    lateral_m: float  # the foot against the hip, along e2
    lengths_m: tuple[float, float]  # thigh and shank
    zeros_rad: tuple[float, float]  # angle of thigh and shank at joint angles 0; 0 hangs down, positive swings back
    bend: float  # sign of the knee's angle: -1 where the knee points backward
    lower_rad: Vector
    upper_rad: Vector
    max_torque_nm: Vector
    foot_radius_m: float

    @property
    def record(self) -> Any:
        """One record of LEG."""
        values: Any = tuple(getattr(self, str(name)) for name in LEG.names or ())
        return np.array([values], LEG)[0]

    def inverse(self, x: float, y: float, z: float) -> Vector:
        """As `foot_to_joints`."""
        angles: Vector = foot_to_joints(self.record, float(x), float(y), float(z))
        return angles

    def forward(self, q1: float, q2: float, q3: float) -> Vector:
        """As `joints_to_foot`."""
        foot: Vector = joints_to_foot(self.record, float(q1), float(q2), float(q3))
        return foot

    def standing_foot_m(self, legs: LegsSpec) -> Vector:
        """Where the foot's centre is when the robot stands, in the root's frame."""
        outward = math.copysign(legs.foot_shift_y_m, self.hip_m[1])
        x = self.hip_m[0] + self.thigh_m[0] + legs.foot_shift_x_m
        return x, self.hip_m[1] + self.lateral_m + outward, self.foot_radius_m - legs.stance_height_m


def leg_geometries(spec: RobotSpec) -> tuple[LegGeometry, ...]:
    """The four legs of a robot, in the order of LEG_NAMES.

    Raises:
        ConfigError: the robot has no [legs], or they do not fit its URDF; one line that says where.
        SceneError: there is no such URDF.
    """
    if spec.legs is None:
        do = f"describe its legs in configs/robots/{spec.name}.toml (docs/simulation.md, 'A robot of your own')"
        raise ConfigError(explain(f"robot '{spec.name}'", "a table [legs]", "none", do))
    urdf = read_urdf(find_urdf(spec.urdf, f"robot '{spec.name}': urdf"))
    legs = tuple(
        leg_geometry(urdf, leg, spec.legs, f"robot '{spec.name}': legs.{name}")
        for name, leg in zip(LEG_NAMES, spec.legs.all, strict=True)
    )
    for name, leg in zip(LEG_NAMES, legs, strict=True):
        where = f"robot '{spec.name}': legs.{name}"
        if (leg.hip_m[0] > 0) != name.startswith("front") or (leg.hip_m[1] > 0) != name.endswith("left"):
            got = f"its hip at x = {leg.hip_m[0]:.3f} m, y = {leg.hip_m[1]:.3f} m"
            raise ConfigError(explain(where, "x forward and y to the left in the root's frame", got, "swap the legs"))
        foot = leg.standing_foot_m(spec.legs)
        if math.dist(foot, leg.forward(*leg.inverse(*foot))) > 1e-6:
            low, high = _heights(leg)
            got = f"{spec.legs.stance_height_m} m, which it cannot take within its joint limits"
            do = f"try {low:.2f} to {high:.2f} m and see knee_bends"
            raise ConfigError(explain(where, "a stance_height_m within reach", got, do))
    return legs


def leg_geometry(urdf: Urdf, spec: LegSpec, legs: LegsSpec, where: str) -> LegGeometry:
    """One leg, measured in the URDF.

    Raises:
        ConfigError: a joint or the foot is not there, or they do not form such a leg.
    """
    names = (spec.hip, spec.thigh, spec.knee)
    hip, thigh, knee = (urdf.joint(name, where) for name in names)
    if spec.foot not in urdf.links:
        raise ConfigError(f"{where}: {urdf.path.name} has no link '{spec.foot}'; {nearest(spec.foot, urdf.links)}")
    parents = {joint.child: joint for joint in urdf.joints.values()}
    chain = []
    link = spec.foot
    while link in parents:
        chain.append(parents[link].name)
        link = parents[link].parent
    turning = tuple(name for name in reversed(chain) if urdf.joints[name].kind != "fixed")
    if turning != names:
        got = ", ".join(turning) or "none"
        raise ConfigError(explain(where, f"joints {', '.join(names)} between base and '{spec.foot}'", got))
    frames = urdf.frames()
    axes = [frames[joint.child][0] @ joint.axis for joint in (hip, thigh, knee)]
    for joint, axis, own, sense in zip((hip, thigh, knee), axes, (0, 1, 1), ("x", "y", "y"), strict=True):
        if abs(axis[own]) < math.sqrt(1 - AXIS_TOLERANCE**2):
            got = ", ".join(f"{value:.2f}" for value in axis)
            raise ConfigError(explain(f"{where}: axis of '{joint.name}'", f"along the root link's {sense}", got))
    signs = (_sign(axes[0][0]), _sign(axes[1][1]), _sign(axes[2][1]))
    e1, e2 = signs[0] * axes[0], signs[1] * axes[1]
    if abs(e1 @ e2) > SQUARE_TOLERANCE or np.linalg.norm(e2 - signs[2] * axes[2]) > SQUARE_TOLERANCE:
        raise ConfigError(explain(where, "a hip axis square to thigh and knee axes that are parallel", "other angles"))
    rows = np.stack([e1, e2, np.cross(e1, e2)])
    origins = [frames[joint.child][1] for joint in (hip, thigh, knee)]
    turn, foot = frames[spec.foot]
    sphere = urdf.links[spec.foot].sphere
    if sphere is not None:
        foot = foot + turn @ sphere[0]
    to_thigh, to_knee, to_foot = (
        rows @ step for step in (origins[1] - origins[0], origins[2] - origins[1], foot - origins[2])
    )
    lengths = (math.hypot(to_knee[0], to_knee[2]), math.hypot(to_foot[0], to_foot[2]))
    if min(lengths) < 0.01:
        got = f"{lengths[0]:.3f} and {lengths[1]:.3f} m"
        raise ConfigError(explain(where, "thigh and shank of at least 0.01 m", got))
    efforts = legs.max_torque_nm or (hip.effort_nm, thigh.effort_nm, knee.effort_nm)
    if min(efforts) <= 0:
        got = ", ".join(f"{value:g}" for value in efforts)
        do = "set legs.max_torque_nm = [hip, thigh, knee]"
        raise ConfigError(explain(f"{where}: torque limits", "numbers above 0, from the URDF or the robot", got, do))
    return LegGeometry(
        joints=names,
        hip_m=_vector(origins[0]),
        axes=(_vector(rows[0]), _vector(rows[1]), _vector(rows[2])),
        signs=signs,
        thigh_m=(float(to_thigh[0]), float(to_thigh[2])),
        lateral_m=float(to_thigh[1] + to_knee[1] + to_foot[1]),
        lengths_m=lengths,
        zeros_rad=(math.atan2(-to_knee[0], -to_knee[2]), math.atan2(-to_foot[0], -to_foot[2])),
        bend=-1.0 if spec.knee_bends == "backward" else 1.0,
        lower_rad=(hip.lower_rad, thigh.lower_rad, knee.lower_rad),
        upper_rad=(hip.upper_rad, thigh.upper_rad, knee.upper_rad),
        max_torque_nm=(float(efforts[0]), float(efforts[1]), float(efforts[2])),
        foot_radius_m=sphere[1] if sphere is not None else spec.foot_radius_m,
    )


def _heights(leg: LegGeometry) -> tuple[float, float]:
    """Stance heights that the joint limits allow with the foot below the hip; (0, 0) if there are none."""
    l1, l2 = leg.lengths_m
    x, y = leg.hip_m[0] + leg.thigh_m[0], leg.hip_m[1] + leg.lateral_m
    fits = []
    for drop in np.arange(abs(l1 - l2), l1 + l2, 0.005):
        foot = (x, y, leg.hip_m[2] + leg.thigh_m[1] - float(drop))
        if math.dist(foot, leg.forward(*leg.inverse(*foot))) < 1e-6:
            fits.append(leg.foot_radius_m - foot[2])
    return (min(fits), max(fits)) if fits else (0.0, 0.0)


def _sign(value: float) -> float:
    return 1.0 if value >= 0 else -1.0


def _vector(values: Array) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
