"""The robot as the legged world steps it: a base and twelve links with the URDF's masses, and four balls as feet.

Everything that is fixed to a link is merged into it, joints that belong to no leg are fixed at zero, and only the feet
can touch anything. A step of this body costs a third of one of the whole URDF, whose meshes all meet the ground's
infinite plane, and a fresh one is loaded in milliseconds, so that each episode begins in the same state.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec
from sim.leg_kinematics import LEG_NAMES, LegGeometry, leg_geometries
from sim.urdf import Array, Urdf, find_urdf, read_urdf

BASE = "base"


@dataclass(frozen=True, slots=True)
class WalkingBody:
    """A robot's legs and masses. Joints are in the order of LEG_NAMES, three a leg."""

    legs: tuple[LegGeometry, ...]
    mass_kg: float
    com_m: Array  # (3,) of the standing robot, in the root's frame
    inertia_kgm2: Array  # (3, 3) of the standing robot about its centre of mass
    base: tuple[float, Array, Array]  # mass, centre (3,) and inertia about it (3, 3) of the base alone
    text: str  # of the URDF, without the base
    moments_kgm2: tuple[tuple[float, float, float], ...]  # principal ones of each link

    @classmethod
    def of(cls, spec: RobotSpec) -> WalkingBody:
        """The body of a robot with [legs].

        Raises:
            ConfigError: no legs, legs that do not fit the URDF, or a link of a leg without mass.
            SceneError: there is no such URDF.
        """
        legs = leg_geometries(spec)
        urdf = read_urdf(find_urdf(spec.urdf))
        assert spec.legs is not None
        return _merge(urdf, spec, legs, spec.legs.rotor_inertia_kgm2)

    def load(
        self,
        bullet: Any,
        client: int,
        payload_kg: float = 0.0,
        com_shift_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> int:
        """Loads the body into a PyBullet client, the base heavier and its centre of mass elsewhere if wanted; returns
        its id. Joint i is link i.

        Raises:
            ConfigError: the payload leaves the base without mass.
        """
        mass, com, inertia = self.base
        if mass + payload_kg <= 0:
            raise ConfigError(explain("payload_kg", f"above {-mass:.1f}, the base's own mass", payload_kg))
        share = (mass + payload_kg) / mass
        text, moments = _link(BASE, share * mass, com + np.array(com_shift_m), share * inertia, np.zeros(3), "")
        with tempfile.TemporaryDirectory(prefix="robonav-body-") as folder:
            path = Path(folder) / "body.urdf"
            path.write_text(f'<robot name="walking">{text}{self.text}</robot>', encoding="utf-8")
            body = bullet.loadURDF(str(path), flags=bullet.URDF_USE_INERTIA_FROM_FILE, physicsClientId=client)
        for link, principal in enumerate((moments, *self.moments_kgm2), start=-1):
            # PyBullet's reader drops moments that no rigid body has, such as those of a link with its motor's rotor.
            bullet.changeDynamics(body, link, localInertiaDiagonal=principal, physicsClientId=client)
        return int(body)


def _merge(urdf: Urdf, spec: RobotSpec, legs: tuple[LegGeometry, ...], rotor_kgm2: float) -> WalkingBody:
    """Lumps the links of a URDF into the base and three links a leg, in frames along the root's."""
    frames = urdf.frames()
    moving = {urdf.joints[name].child: name for leg in legs for name in leg.joints}
    parents = {joint.child: joint.parent for joint in urdf.joints.values()}
    parts: dict[str, list[tuple[float, Array, Array]]] = {BASE: [], **{name: [] for name in moving.values()}}
    for link in urdf.links.values():
        if link.mass_kg == 0:
            continue
        above = link.name
        while above not in moving and above in parents:
            above = parents[above]
        turn, origin = frames[link.name]
        inertia = turn @ link.inertia_kgm2 @ turn.T
        parts[moving.get(above, BASE)].append((link.mass_kg, origin + turn @ link.com_m, inertia))
    merged = {}
    for name, bodies in parts.items():
        if sum(body[0] for body in bodies) <= 0:
            where = "its base" if name == BASE else f"what joint '{name}' carries"
            raise ConfigError(explain(f"robot '{spec.name}': {urdf.path.name}: {where}", "a mass above 0", "none"))
        merged[name] = _combine(bodies)
    lines, all_moments = [], []
    for leg_name, leg in zip(LEG_NAMES, legs, strict=True):
        parent, before = BASE, np.zeros(3)
        for i, joint_name in enumerate(leg.joints):
            turn, origin = frames[urdf.joints[joint_name].child]
            axis = turn @ urdf.joints[joint_name].axis
            mass, com, inertia = merged[joint_name]
            # Bullet knows no rotor inertia; on the link it acts on the joint, and a little on the base as well.
            inertia = inertia + rotor_kgm2 * np.outer(axis, axis)
            foot = np.array(leg.forward(0.0, 0.0, 0.0)) - origin
            ball = (
                f'<collision><origin xyz="{_numbers(foot)}"/><geometry><sphere radius="{leg.foot_radius_m!r}"/>'
                "</geometry></collision>"
            )
            name = f"{leg_name}_{i}"
            text, moments = _link(name, mass, com, inertia, origin, ball if i == 2 else "")
            lines.append(text)
            all_moments.append(moments)
            # Limits are kept by the leg's inverse kinematics; Bullet's limit constraints would cost time.
            lines.append(
                f'<joint name="{name}_joint" type="continuous"><parent link="{parent}"/><child link="{name}"/>'
                f'<origin xyz="{_numbers(origin - before)}"/><axis xyz="{_numbers(axis)}"/></joint>'
            )
            parent, before = name, origin
    mass, com, inertia = _standing(urdf, spec, legs, merged)
    return WalkingBody(legs, mass, com, inertia, merged[BASE], "\n".join(lines), tuple(all_moments))


def _combine(bodies: list[tuple[float, Array, Array]]) -> tuple[float, Array, Array]:
    """Mass, centre and inertia about it of bodies taken together."""
    mass = sum(body[0] for body in bodies)
    com = sum((m * c for m, c, _ in bodies), np.zeros(3)) / mass
    inertia = np.zeros((3, 3))
    for m, c, i in bodies:
        inertia += i + m * ((c - com) @ (c - com) * np.eye(3) - np.outer(c - com, c - com))
    return mass, com, inertia


def _standing(
    urdf: Urdf, spec: RobotSpec, legs: tuple[LegGeometry, ...], merged: dict[str, tuple[float, Array, Array]]
) -> tuple[float, Array, Array]:
    """Mass, centre and inertia of the robot in its standing pose, in the root's frame."""
    assert spec.legs is not None
    frames = urdf.frames()
    posed = [merged[BASE]]
    for leg in legs:
        turn, shift = np.eye(3), np.zeros(3)  # of what hangs on the joints so far, against joints at zero
        for name, angle in zip(leg.joints, leg.inverse(*leg.standing_foot_m(spec.legs)), strict=True):
            joint = urdf.joints[name]
            rotation, origin = frames[joint.child]
            x, y, z = rotation @ joint.axis
            cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            own = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
            turn, shift = turn @ own, shift + turn @ (origin - own @ origin)
            mass, com, inertia = merged[name]
            posed.append((mass, turn @ com + shift, turn @ inertia @ turn.T))
    return _combine(posed)


def _link(
    name: str, mass: float, com: Array, inertia: Array, origin: Array, shape: str
) -> tuple[str, tuple[float, float, float]]:
    """XML of a link whose inertial frame lies along its principal axes, and its moments about them."""
    moments, turn = np.linalg.eigh(inertia)
    turn = turn * np.linalg.det(turn)  # a rotation, not a reflection
    moments = np.maximum(moments, 1e-7)
    pitch = math.asin(min(max(-turn[2, 0], -1.0), 1.0))
    roll, yaw = math.atan2(turn[2, 1], turn[2, 2]), math.atan2(turn[1, 0], turn[0, 0])
    if abs(turn[2, 0]) > 1 - 1e-9:  # gimbal lock: roll and yaw turn about one axis
        roll, yaw = 0.0, math.atan2(-turn[0, 1], turn[1, 1])
    place = f'<origin xyz="{_numbers(com - origin)}" rpy="{roll!r} {pitch!r} {yaw!r}"/>'
    unit = f'ixx="{mass!r}" ixy="0" ixz="0" iyy="{mass!r}" iyz="0" izz="{mass!r}"'
    inertial = f'<inertial>{place}<mass value="{mass!r}"/><inertia {unit}/></inertial>'
    return f'<link name="{name}">{inertial}{shape}</link>', (float(moments[0]), float(moments[1]), float(moments[2]))


def _numbers(vector: Array) -> str:
    return " ".join(repr(float(value)) for value in vector)
