"""The compiled step of `sim.gait`: pure functions on records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sim.leg_kinematics import foot_to_joints, foot_torques, joints_to_foot

GRAVITY_MPS2 = 9.81
STILL_MPS, STILL_RADPS = 0.02, 0.03  # references below are standstill
PUSHED_MPS, PUSHED_RADPS = 0.15, 0.4  # a robot that is moved as fast as this takes steps
RAMP = 0.08  # share of the period in which a foot takes up and gives away its load
AIRBORNE = 0.1  # share of the period without touch after which a standing foot has lost the ground
SLOPE_MAX = 0.4  # that the base follows
SPEED_MAX_RADPS = 30.0  # of a joint's target

_F = np.float64
# Of a robot and its gains: the fields of TrotConfig without their dimension, and what has one.
CONSTANTS = np.dtype(
    [
        *((name, _F) for name in ("period_s", "duty", "lift_m", "spring_nm", "damping_s", "standing_share")),
        *((name, _F) for name in ("rough_lift", "bump", "wary", "early", "search_m", "search_mps")),
        *((name, _F) for name in ("raibert", "lean", "latch", "settle", "smooth", "filter", "swift", "slope")),
        *((name, _F) for name in ("trim_per_s", "trim_max_mps", "trim_max_radps", "speed_gain", "yaw_gain")),
        *((name, _F) for name in ("height_gain", "height_damping", "tilt_gain", "tilt_damping")),
        *((name, _F) for name in ("acceleration_max_mps2", "lift_max_mps2", "friction", "thrift")),
        *((name, _F) for name in ("planar_weight", "tilt_weight", "yaw_weight")),
        *((name, _F) for name in ("acceleration_limit_mps2", "yaw_acceleration_limit_radps2")),
        *((name, _F) for name in ("mass_kg", "height_m", "natural_s", "foot_radius_m")),
        ("com_m", _F, 3),
        ("inertia_kgm2", _F, (3, 3)),
        ("neutral_m", _F, (4, 3)),  # feet of the standing robot, in the root's frame
        ("balance_m", _F, 2),  # what brings the feet's middle under the centre of mass
    ]
)
STATE = np.dtype(
    [
        ("walking", np.int64),
        ("phase", _F),  # of the first and the last leg; the others are half a period behind
        ("ramp", _F, 3),  # the command within the acceleration limits
        ("reference", _F, 3),  # the ramp, smoothed
        ("acceleration", _F, 3),  # of the reference
        ("error", _F, 3),  # reference minus motion, smoothed
        ("motion", _F, 3),  # vx, vy, yaw rate, smoothed a little
        ("trim", _F, 3),
        ("feet_m", _F, (4, 3)),  # where they shall be, in the root's frame
        ("seen_m", _F, (4, 3)),  # where they are
        ("lifted_m", _F, (4, 3)),  # where the swing began, in the level frame
        ("landing_m", _F, (4, 2)),  # where it ends
        ("swings", np.int64, 4),
        ("loads", _F, 4),  # 1 for a foot that carries its part
        ("touching", np.int64, 4),  # 1 for a foot that touches the ground
        ("airborne_s", _F, 4),  # since each foot last touched it
        ("angles", _F, 12),  # of the joints, wanted
        ("bias", _F, 12),
        ("stiffness", _F, 12),
        ("damping", _F, 12),
        ("tilt_rad", _F, 2),  # roll, pitch
        ("slope", _F, 2),  # of the ground under the feet, along the level x and y
        ("rough", _F),  # above 0.5 for a while after feet stood at different heights
        ("yaw_rad", _F),
        ("velocity", _F, 4),  # vx, vy, vz in the level frame, yaw rate
        ("rates_radps", _F, 2),  # about the level x and y
        ("height_m", _F),  # of the root above the standing feet's soles
    ]
)
_compiled = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


@_compiled
def stand(legs: Any, c: Any, s: Any) -> None:
    """The state of a robot that stands on its four feet."""
    joints = np.zeros(12)
    for i in range(4):
        n = c.neutral_m[i]
        for k in range(3):
            s.feet_m[i, k] = s.lifted_m[i, k] = n[k]
        s.landing_m[i, 0], s.landing_m[i, 1] = n[0], n[1]
        joints[3 * i], joints[3 * i + 1], joints[3 * i + 2] = foot_to_joints(legs[i], n[0], n[1], n[2])
        s.loads[i] = 1.0
        s.touching[i] = 1
    s.angles[:] = joints
    root = np.zeros(13)
    root[6] = 1.0
    step(legs, c, s, np.zeros(3), root, joints, 0.008)


@_compiled
def step(legs: Any, c: Any, s: Any, command: Any, root: Any, joints: Any, dt_s: float) -> None:
    """Reads the robot's motion, moves the feet's targets on, and sets the joints' springs."""
    _sense(legs, s, root, joints)
    _feel_slope(c, s, dt_s)
    _follow(c, s, command, dt_s)
    _move_feet(c, s, command, dt_s)
    _spring(legs, c, s, dt_s)
    _carry(legs, c, s, joints)


@_compiled
def _sense(legs: Any, s: Any, root: Any, joints: Any) -> None:
    """Attitude and velocity of the root link, and where its feet are."""
    x, y, z, w = root[3], root[4], root[5], root[6]
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(min(max(2 * (w * y - z * x), -1.0), 1.0))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    cy, sy = math.cos(yaw), math.sin(yaw)
    s.tilt_rad[0], s.tilt_rad[1], s.yaw_rad = roll, pitch, yaw
    s.velocity[0] = cy * root[7] + sy * root[8]
    s.velocity[1] = cy * root[8] - sy * root[7]
    s.velocity[2], s.velocity[3] = root[9], root[12]
    s.rates_radps[0] = cy * root[10] + sy * root[11]
    s.rates_radps[1] = cy * root[11] - sy * root[10]
    for i in range(4):
        j = 3 * i
        s.seen_m[i, 0], s.seen_m[i, 1], s.seen_m[i, 2] = joints_to_foot(
            legs[i], joints[j], joints[j + 1], joints[j + 2]
        )


@_compiled
def _feel_slope(c: Any, s: Any, dt_s: float) -> None:
    """The ground's slope, from the heights of feet that stand at the same time: each pair corrects the estimate along
    the line between them.
    """
    cr, sr = math.cos(s.tilt_rad[0]), math.sin(s.tilt_rad[0])
    cp, sp = math.cos(s.tilt_rad[1]), math.sin(s.tilt_rad[1])
    places = np.empty((4, 3))
    for i in range(4):
        x, y, z = s.seen_m[i, 0], s.seen_m[i, 1], s.seen_m[i, 2]
        y, z = cr * y - sr * z, sr * y + cr * z
        places[i, 0], places[i, 1], places[i, 2] = cp * x + sp * z, y, cp * z - sp * x
    blend = 1.0 - math.exp(-dt_s / (c.slope * c.period_s))
    s.rough *= math.exp(-dt_s / (c.wary * c.period_s))
    for i in range(4):
        s.airborne_s[i] = 0.0 if s.touching[i] else s.airborne_s[i] + dt_s
    for i in range(3):
        for j in range(i + 1, 4):
            aloft_s = max(s.airborne_s[i], s.airborne_s[j])
            if s.loads[i] < 1.0 or s.loads[j] < 1.0 or aloft_s > AIRBORNE * c.period_s:
                continue
            dx, dy = places[i, 0] - places[j, 0], places[i, 1] - places[j, 1]
            rise = places[i, 2] - places[j, 2]
            if abs(rise) > c.bump * c.height_m:
                s.rough = 1.0
            miss = rise - s.slope[0] * dx - s.slope[1] * dy
            gain = blend * miss / (dx * dx + dy * dy)
            s.slope[0] = min(max(s.slope[0] + gain * dx, -SLOPE_MAX), SLOPE_MAX)
            s.slope[1] = min(max(s.slope[1] + gain * dy, -SLOPE_MAX), SLOPE_MAX)


@_compiled
def _follow(c: Any, s: Any, command: Any, dt_s: float) -> None:
    """The reference within the acceleration limits, and the trims that take away its steady error."""
    dx, dy = command[0] - s.ramp[0], command[1] - s.ramp[1]
    size, limit = math.sqrt(dx * dx + dy * dy), c.acceleration_limit_mps2 * dt_s
    share = limit / size if size > limit else 1.0
    turn = c.yaw_acceleration_limit_radps2 * dt_s
    s.ramp[0] += share * dx
    s.ramp[1] += share * dy
    s.ramp[2] += min(max(command[2] - s.ramp[2], -turn), turn)
    smooth = 1.0 - math.exp(-dt_s / (c.smooth * c.period_s))
    blend = 1.0 - math.exp(-dt_s / (c.filter * c.period_s))
    swift = 1.0 - math.exp(-dt_s / (c.swift * c.period_s))
    for k in range(3):
        change = smooth * (s.ramp[k] - s.reference[k])
        s.reference[k] += change
        s.acceleration[k] = change / dt_s
        now = s.velocity[3] if k == 2 else s.velocity[k]
        s.motion[k] += swift * (now - s.motion[k])
        s.error[k] += blend * (s.reference[k] - now - s.error[k])
        if s.walking:
            limit = c.trim_max_radps if k == 2 else c.trim_max_mps
            s.trim[k] = min(max(s.trim[k] + c.trim_per_s * dt_s * s.error[k], -limit), limit)


@_compiled
def _wants_to_walk(s: Any, command: Any) -> bool:
    asked = command[0] ** 2 + command[1] ** 2 >= STILL_MPS**2 or abs(command[2]) >= STILL_RADPS
    moving = s.reference[0] ** 2 + s.reference[1] ** 2 >= STILL_MPS**2 or abs(s.reference[2]) >= STILL_RADPS
    pushed = s.motion[0] ** 2 + s.motion[1] ** 2 >= PUSHED_MPS**2 or abs(s.motion[2]) >= PUSHED_RADPS
    return asked or moving or pushed


@_compiled
def _move_feet(c: Any, s: Any, command: Any, dt_s: float) -> None:
    """Phase, loads and the feet's targets."""
    wanted = _wants_to_walk(s, command)
    if wanted and not s.walking:
        s.walking, s.phase = 1, c.duty - 0.5 - dt_s / c.period_s  # the second diagonal is about to lift
    if s.walking:
        before = s.phase
        s.phase = (before + dt_s / c.period_s) % 1.0
        # All feet are down at the beginning of each half.
        if not wanted and (s.phase < before or (before < 0.5 and s.phase >= 0.5)):
            s.walking = 0
            for k in range(3):
                s.trim[k] = 0.0
            for i in range(4):
                s.feet_m[i, 0], s.feet_m[i, 1] = s.seen_m[i, 0], s.seen_m[i, 1]
    vx, vy, turn = s.reference[0] + s.trim[0], s.reference[1] + s.trim[1], s.reference[2] + s.trim[2]
    cr, sr = math.cos(s.tilt_rad[0]), math.sin(s.tilt_rad[0])
    cp, sp = math.cos(s.tilt_rad[1]), math.sin(s.tilt_rad[1])
    settle = 1.0 - math.exp(-dt_s / (c.settle * c.period_s))
    for i in range(4):
        foot, n = s.feet_m[i], c.neutral_m[i]
        phase = (s.phase + (0.0 if i == 0 or i == 3 else 0.5)) % 1.0
        if not s.walking or phase < c.duty:
            s.swings[i] = 0
            s.loads[i] = 1.0
            if s.walking:
                x, y = foot[0], foot[1]
                foot[0] -= (vx - turn * y) * dt_s
                foot[1] -= (vy + turn * x) * dt_s
                s.loads[i] = min(1.0, min(phase, c.duty - phase) / RAMP)
            if s.walking and s.rough > 0.5 and s.airborne_s[i] > AIRBORNE * c.period_s and phase < c.duty - RAMP:
                # The ground is lower than thought: the foot reaches down for it and carries nothing yet.
                s.loads[i] = 0.0
                foot[2] = max(foot[2] - c.search_mps * dt_s, n[2] - c.search_m)
            else:
                foot[2] += settle * (n[2] - foot[2])
            continue
        if not s.swings[i]:
            s.swings[i] = 1
            x, y, z = s.seen_m[i, 0], s.seen_m[i, 1], s.seen_m[i, 2]
            y, z = cr * y - sr * z, sr * y + cr * z
            s.lifted_m[i, 0], s.lifted_m[i, 1], s.lifted_m[i, 2] = cp * x + sp * z, y, cp * z - sp * x
        s.loads[i] = 0.0
        part = (phase - c.duty) / (1.0 - c.duty)
        if part > c.early and s.rough > 0.5 and s.touching[i]:
            # The ground is higher than thought: the foot stands where it is and begins to carry.
            foot[0] -= (vx - turn * foot[1]) * dt_s
            foot[1] -= (vy + turn * foot[0]) * dt_s
            s.loads[i] = 1.0
            continue
        if part < c.latch:
            half_s, out_s, lean_s2 = c.duty * c.period_s / 2, c.raibert * c.natural_s, c.lean * c.natural_s**2
            x = n[0] + (vx - turn * n[1]) * half_s + out_s * (s.motion[0] - s.reference[0])
            y = n[1] + (vy + turn * n[0]) * half_s + out_s * (s.motion[1] - s.reference[1])
            s.landing_m[i, 0] = x + c.balance_m[0] - lean_s2 * (s.acceleration[0] - turn * vy)
            s.landing_m[i, 1] = y + c.balance_m[1] - lean_s2 * (s.acceleration[1] + turn * vx)
        blend = part * part * (3.0 - 2.0 * part)
        x = s.lifted_m[i, 0] + (s.landing_m[i, 0] - s.lifted_m[i, 0]) * blend
        y = s.lifted_m[i, 1] + (s.landing_m[i, 1] - s.lifted_m[i, 1]) * blend
        ground = n[2] + s.slope[0] * s.landing_m[i, 0] + s.slope[1] * s.landing_m[i, 1]
        z = s.lifted_m[i, 2] + (ground - s.lifted_m[i, 2]) * blend
        lift_m = c.lift_m * (c.rough_lift if s.rough > 0.5 else 1.0)
        z += lift_m * 16.0 * part * part * (1.0 - part) * (1.0 - part)
        # The way is level above the ground, the joints are not: undo the base's pitch and roll.
        x, z = cp * x - sp * z, sp * x + cp * z
        foot[0], foot[1], foot[2] = x, cr * y + sr * z, cr * z - sr * y


@_compiled
def _spring(legs: Any, c: Any, s: Any, dt_s: float) -> None:
    """Springs that pull the joints to where the feet shall be; soft in legs that carry a trotting robot."""
    for i in range(4):
        q1, q2, q3 = foot_to_joints(legs[i], s.feet_m[i, 0], s.feet_m[i, 1], s.feet_m[i, 2])
        share = c.standing_share if s.walking and s.loads[i] > 0.0 else 1.0
        stiffness = share * c.spring_nm
        damping = stiffness * c.damping_s
        for k in range(3):
            j = 3 * i + k
            angle = q1 if k == 0 else (q2 if k == 1 else q3)
            speed = min(max((angle - s.angles[j]) / dt_s, -SPEED_MAX_RADPS), SPEED_MAX_RADPS)
            s.angles[j] = angle
            s.stiffness[j], s.damping[j] = stiffness, damping
            s.bias[j] = stiffness * angle + damping * speed


@_compiled
def _carry(legs: Any, c: Any, s: Any, joints: Any) -> None:
    """Adds the torques with which the loaded feet give the base the force and moment that it needs."""
    cr, sr = math.cos(s.tilt_rad[0]), math.sin(s.tilt_rad[0])
    cp, sp = math.cos(s.tilt_rad[1]), math.sin(s.tilt_rad[1])
    turn = np.empty((3, 3))  # from the root's frame to the level one
    turn[0, 0], turn[0, 1], turn[0, 2] = cp, sp * sr, sp * cr
    turn[1, 0], turn[1, 1], turn[1, 2] = 0.0, cr, -sr
    turn[2, 0], turn[2, 1], turn[2, 2] = -sp, cp * sr, cp * cr
    arms = np.empty((4, 3))  # feet from the centre of mass, level
    total = height = 0.0
    for i in range(4):
        below = 0.0
        for k in range(3):
            arms[i, k] = below = 0.0
            for m in range(3):
                below += turn[k, m] * s.seen_m[i, m]
                arms[i, k] += turn[k, m] * (s.seen_m[i, m] - c.com_m[m])
        total += s.loads[i]
        height -= s.loads[i] * below
    if total > 1e-9:  # else the robot is in the air
        s.height_m = height / total + c.foot_radius_m
    wrench = _wanted_wrench(c, s)
    forces = _share(c, s, arms, wrench)
    for i in range(4):
        fz = forces[i, 2]
        if fz <= 0.0:
            continue
        planar, limit = math.sqrt(forces[i, 0] ** 2 + forces[i, 1] ** 2), c.friction * fz
        scale = limit / planar if planar > limit else 1.0
        fx, fy = scale * forces[i, 0], scale * forces[i, 1]
        x = turn[0, 0] * fx + turn[1, 0] * fy + turn[2, 0] * fz
        y = turn[0, 1] * fx + turn[1, 1] * fy + turn[2, 1] * fz
        z = turn[0, 2] * fx + turn[1, 2] * fy + turn[2, 2] * fz
        j = 3 * i
        t1, t2, t3 = foot_torques(legs[i], joints[j], joints[j + 1], joints[j + 2], -x, -y, -z)
        s.bias[j] += t1
        s.bias[j + 1] += t2
        s.bias[j + 2] += t3


@_compiled
def _wanted_wrench(c: Any, s: Any) -> Any:
    """(6,) force and moment about the centre of mass that the feet shall give, in the level frame."""
    rate = 1.0 / c.natural_s
    wanted = np.zeros(6)
    if s.walking:
        vx, vy, turn = s.reference[0] + s.trim[0], s.reference[1] + s.trim[1], s.reference[2] + s.trim[2]
        ax = c.speed_gain * rate * (vx - s.velocity[0]) + s.acceleration[0] - turn * vy
        ay = c.speed_gain * rate * (vy - s.velocity[1]) + s.acceleration[1] + turn * vx
        wanted[0] = min(max(ax, -c.acceleration_max_mps2), c.acceleration_max_mps2)
        wanted[1] = min(max(ay, -c.acceleration_max_mps2), c.acceleration_max_mps2)
        wanted[5] = c.yaw_gain * rate * (turn - s.velocity[3]) + s.acceleration[2]
    else:
        wanted[5] = -c.yaw_gain * rate * s.velocity[3]
    az = c.height_gain * rate**2 * (c.height_m - s.height_m) - c.height_damping * rate * s.velocity[2]
    wanted[2] = GRAVITY_MPS2 + min(max(az, -c.lift_max_mps2), c.lift_max_mps2)
    for k in range(2):
        lean = s.tilt_rad[k] - (math.atan(s.slope[1]) if k == 0 else -math.atan(s.slope[0]))
        wanted[3 + k] = -c.tilt_gain * rate**2 * lean - c.tilt_damping * rate * s.rates_radps[k]
    wrench = np.zeros(6)
    for k in range(3):
        wrench[k] = c.mass_kg * wanted[k]
        for m in range(3):
            wrench[3 + k] += c.inertia_kgm2[k, m] * wanted[3 + m]
    return wrench


@_compiled
def _share(c: Any, s: Any, arms: Any, wrench: Any) -> Any:
    """(4, 3) forces f = W A^T (A W A^T + D)^-1 w: the least, weighted by the loads W, that give the wrench w = A f as
    far as the weights D ask for it.
    """
    a = np.zeros((6, 6))
    for i in range(4):
        load, x, y, z = s.loads[i], arms[i, 0], arms[i, 1], arms[i, 2]
        a[0, 0] += load
        a[3, 1] -= load * z
        a[3, 2] += load * y
        a[4, 2] -= load * x
        a[3, 3] += load * (y * y + z * z)
        a[4, 4] += load * (x * x + z * z)
        a[5, 5] += load * (x * x + y * y)
        a[4, 3] -= load * x * y
        a[5, 3] -= load * x * z
        a[5, 4] -= load * y * z
    a[1, 1] = a[2, 2] = a[0, 0]
    a[4, 0], a[5, 0], a[5, 1] = -a[3, 1], -a[3, 2], -a[4, 2]
    h2 = c.height_m**2
    a[0, 0] += c.thrift / c.planar_weight
    a[1, 1] += c.thrift / c.planar_weight
    a[2, 2] += c.thrift * 0.1
    a[3, 3] += c.thrift * h2 / c.tilt_weight
    a[4, 4] += c.thrift * h2 / c.tilt_weight
    a[5, 5] += c.thrift * h2 / c.yaw_weight
    _solve(a, wrench)
    forces = np.zeros((4, 3))
    for i in range(4):
        load, x, y, z = s.loads[i], arms[i, 0], arms[i, 1], arms[i, 2]
        forces[i, 0] = load * (wrench[0] + z * wrench[4] - y * wrench[5])
        forces[i, 1] = load * (wrench[1] - z * wrench[3] + x * wrench[5])
        forces[i, 2] = load * (wrench[2] + y * wrench[3] - x * wrench[4])
    return forces


@_compiled
def _solve(a: Any, b: Any) -> None:
    """Solves a x = b in place by Cholesky's method; `a` is symmetric, positive, and given by its lower half."""
    n = b.shape[0]
    for i in range(n):
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            a[i, j] = math.sqrt(max(total, 1e-12)) if i == j else total / a[j, j]
    for i in range(n):
        for k in range(i):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= a[k, i] * b[k]
        b[i] /= a[i, i]
