"""Robot descriptions (URDF) as data: links, joints and masses read from the XML, with one line for what is wrong.

PyBullet reads URDF as well, but says little about a bad one and hides frames behind inertial ones. Geometry of legs,
masses and limits come from here; shapes and meshes stay with PyBullet.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, SceneError, explain, nearest

Array = NDArray[np.float64]
PACKAGE = "package://"
MOVING = ("revolute", "continuous")


@dataclass(frozen=True, slots=True)
class Link:
    """A rigid body in its own frame."""

    name: str
    mass_kg: float = 0.0
    com_m: Array = field(default_factory=lambda: np.zeros(3))  # (3,)
    inertia_kgm2: Array = field(default_factory=lambda: np.zeros((3, 3)))  # (3, 3) about the centre of mass
    sphere: tuple[Array, float] | None = None  # (3,) centre and radius of its first spherical collision shape


@dataclass(frozen=True, slots=True)
class Joint:
    """A joint; its frame (and the child's) lies at `offset_m`, turned by `rotation`, in the parent's frame."""

    name: str
    kind: str
    parent: str
    child: str
    offset_m: Array  # (3,)
    rotation: Array  # (3, 3)
    axis: Array  # (3,) unit vector in the joint's frame
    lower_rad: float = -math.inf
    upper_rad: float = math.inf
    effort_nm: float = 0.0  # 0 where the file gives none
    velocity_radps: float = 0.0  # 0 where the file gives none


@dataclass(frozen=True, slots=True)
class Urdf:
    """A tree of links."""

    path: Path
    root: str
    links: dict[str, Link]
    joints: dict[str, Joint]

    def joint(self, name: str, where: str) -> Joint:
        """A joint that can turn.

        Raises:
            ConfigError: there is none of this name, or it is fixed or slides.
        """
        if name not in self.joints:
            raise ConfigError(f"{where}: {self.path.name} has no joint '{name}'; {nearest(name, self.joints)}")
        joint = self.joints[name]
        if joint.kind not in MOVING:
            raise ConfigError(explain(f"{where}: joint '{name}' of {self.path.name}", "revolute", joint.kind))
        return joint

    def frames(self) -> dict[str, tuple[Array, Array]]:
        """Rotation (3, 3) and origin (3,) of each link in the root's frame, all joints at zero."""
        placed: dict[str, tuple[Array, Array]] = {self.root: (np.eye(3), np.zeros(3))}
        waiting = list(self.joints.values())
        while waiting:
            later = []
            for joint in waiting:
                if joint.parent in placed:
                    turn, origin = placed[joint.parent]
                    placed[joint.child] = (turn @ joint.rotation, origin + turn @ joint.offset_m)
                else:
                    later.append(joint)
            if len(later) == len(waiting):
                raise ConfigError(explain(str(self.path), "links that form one tree", f"a ring at '{later[0].name}'"))
            waiting = later
        return placed


def find_urdf(name: str, where: str = "urdf") -> Path:
    """The file of a URDF: a path, a name inside pybullet_data, or ``package://PACKAGE/path``.

    Raises:
        SceneError: there is no such file.
    """
    expected = "a file, a name in pybullet_data, or package://NAME/path"
    if name.startswith(PACKAGE):
        package, _, rest = name[len(PACKAGE) :].partition("/")
        folder = find_package(package)
        if folder is not None and (folder / rest).is_file():
            return folder / rest
        do = f"install the package '{package}' or name its parent folder in ROS_PACKAGE_PATH"
        raise SceneError(explain(where, expected, f"'{name}'", do))
    path = Path(name)
    if not path.is_file():
        import pybullet_data

        path = Path(pybullet_data.getDataPath()) / name
    if not path.is_file():
        raise SceneError(explain(where, expected, f"'{name}'"))
    return path


def find_package(name: str, near: Path | None = None) -> Path | None:
    """Folder of a ROS package: above or beside the file `near`, in ROS_PACKAGE_PATH or AMENT_PREFIX_PATH, or in a pip
    package that ships it (``cmeel.prefix/share/NAME``, as example-robot-data does); None where it is not found.
    """
    above = [folder for parent in (near.parents if near else ()) for folder in (parent, parent / name)]
    listed = [Path(entry) for entry in os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep) if entry]
    listed = [folder for entry in listed for folder in (entry, entry / name)]
    prefixes = [Path(entry) for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    prefixes += [Path(entry) / "cmeel.prefix" for entry in sys.path if entry]
    shared = [prefix / "share" / name for prefix in prefixes]
    return next((folder for folder in (*above, *listed, *shared) if folder.name == name and folder.is_dir()), None)


@contextlib.contextmanager
def loadable(path: Path) -> Iterator[str]:
    """The name of a URDF that PyBullet can load: `path`, or while the context lasts a copy without ``package://``.

    Raises:
        SceneError: a package is not found, or the file cannot be read.
    """
    text = _read(path)
    if PACKAGE not in text:
        yield str(path)
        return

    def absolute(match: re.Match[str]) -> str:
        name = match[1]
        if not name.startswith(PACKAGE):
            return f'filename="{path.parent.resolve() / name}"'
        package, _, rest = name[len(PACKAGE) :].partition("/")
        folder = find_package(package, path.resolve())
        if folder is None:
            do = "name the folder that holds the package in ROS_PACKAGE_PATH"
            raise SceneError(explain(f"{path}: {name}", "an installed package", f"no package '{package}'", do))
        return f'filename="{folder.resolve() / rest}"'

    with tempfile.TemporaryDirectory(prefix="robonav-urdf-") as folder:
        copy = Path(folder) / path.name
        copy.write_text(re.sub(r'filename="([^"]*)"', absolute, text), encoding="utf-8")
        yield str(copy)


@functools.lru_cache(maxsize=32)
def read_urdf(path: Path) -> Urdf:
    """Reads a URDF.

    Raises:
        SceneError: the file cannot be read.
        ConfigError: no URDF, no tree, or a mass, inertia or limit that cannot be.
    """
    try:
        root = ET.fromstring(_read(path))
    except ET.ParseError as error:
        raise ConfigError(f"{path}: no valid XML: {error}") from None
    if root.tag != "robot":
        raise ConfigError(explain(str(path), "a URDF, <robot> at the top", f"<{root.tag}>"))
    links = {link.name: link for link in (_link(element, path) for element in root.findall("link"))}
    joints = {joint.name: joint for joint in (_joint(element, path) for element in root.findall("joint"))}
    for joint in joints.values():
        for end in (joint.parent, joint.child):
            if end not in links:
                raise ConfigError(f"{path}: joint '{joint.name}' has no link '{end}'; {nearest(end, links)}")
    children = [joint.child for joint in joints.values()]
    roots = sorted(set(links) - set(children))
    if len(roots) != 1 or len(set(children)) != len(children):
        got = "roots: " + (", ".join(roots) or "none") if len(roots) != 1 else "a link with two parents"
        raise ConfigError(explain(str(path), "links that form one tree", got))
    robot = Urdf(path, roots[0], links, joints)
    robot.frames()  # finds a ring of joints
    return robot


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'no text'}") from None


def _link(element: ET.Element, path: Path) -> Link:
    name = element.get("name", "")
    where = f"{path}: link '{name}'"
    sphere = None
    for shape in element.findall("collision"):
        ball = shape.find("geometry/sphere")
        if ball is not None and sphere is None:
            radius = _number(ball.get("radius"), f"{where}: sphere radius")
            if radius <= 0:
                raise ConfigError(explain(f"{where}: sphere radius", "a number above 0", radius))
            sphere = (_origin(shape, where)[0], radius)
    inertial = element.find("inertial")
    if inertial is None:
        return Link(name, sphere=sphere)
    mass_element, tensor = inertial.find("mass"), inertial.find("inertia")
    mass = _number(mass_element.get("value") if mass_element is not None else None, f"{where}: mass")
    if mass < 0:
        raise ConfigError(explain(f"{where}: mass", "0 kg or more", mass))
    com, turn = _origin(inertial, where)
    i = {key: _number(tensor.get(key, "0") if tensor is not None else "0", f"{where}: {key}") for key in _TENSOR}
    matrix = np.array([[i["ixx"], i["ixy"], i["ixz"]], [i["ixy"], i["iyy"], i["iyz"]], [i["ixz"], i["iyz"], i["izz"]]])
    if min(i["ixx"], i["iyy"], i["izz"]) < 0:
        raise ConfigError(explain(f"{where}: inertia", "moments of 0 or more", f"{i['ixx']}, {i['iyy']}, {i['izz']}"))
    return Link(name, mass, com, turn @ matrix @ turn.T, sphere)


def _joint(element: ET.Element, path: Path) -> Joint:
    name, kind = element.get("name", ""), element.get("type", "")
    where = f"{path}: joint '{name}'"
    ends: list[str] = []
    for tag in ("parent", "child"):
        end = element.find(tag)
        if end is None or not end.get("link"):
            raise ConfigError(explain(where, f"a <{tag} link=...>", "none"))
        ends.append(str(end.get("link")))
    offset, turn = _origin(element, where)
    axis_element = element.find("axis")
    axis = _vector(axis_element.get("xyz", "1 0 0") if axis_element is not None else "1 0 0", f"{where}: axis")
    length = float(np.linalg.norm(axis))
    if kind in MOVING and length < 1e-9:
        raise ConfigError(explain(f"{where}: axis", "a direction", "0 0 0"))
    limit = element.find("limit")
    values: dict[str, float] = {}
    for key in ("lower", "upper", "effort", "velocity"):
        text = limit.get(key) if limit is not None else None
        if text is not None:
            values[key] = _number(text, f"{where}: {key}")
    for key in ("effort", "velocity"):
        if values.get(key, 0.0) < 0:
            raise ConfigError(explain(f"{where}: {key} limit", "0 or more", values[key]))
    lower, upper = -math.inf, math.inf
    if kind == "revolute" and ("lower" in values or "upper" in values):
        lower, upper = values.get("lower", 0.0), values.get("upper", 0.0)
        if lower > upper:
            raise ConfigError(explain(f"{where}: limits", "lower below upper", f"{lower} and {upper}"))
    return Joint(
        *(name, kind, ends[0], ends[1], offset, turn, axis / max(length, 1e-9), lower, upper),
        effort_nm=values.get("effort", 0.0),
        velocity_radps=values.get("velocity", 0.0),
    )


_TENSOR = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")


def _origin(element: ET.Element, where: str) -> tuple[Array, Array]:
    origin = element.find("origin")
    get: Any = origin.get if origin is not None else lambda _key, default: default
    return _vector(get("xyz", "0 0 0"), f"{where}: xyz"), rotation(_vector(get("rpy", "0 0 0"), f"{where}: rpy"))


def rotation(rpy: Array) -> Array:
    """(3, 3) rotation of roll, pitch and yaw about fixed axes, as URDF means them."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def _vector(text: str, where: str) -> Array:
    parts = text.split()
    if len(parts) != 3:
        raise ConfigError(explain(where, "three numbers", f"'{text}'"))
    return np.array([_number(part, where) for part in parts])


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text if text is not None else "")
    except ValueError:
        raise ConfigError(explain(where, "a number", "nothing" if text is None else f"'{text}'")) from None
    if not math.isfinite(value):
        raise ConfigError(explain(where, "a finite number", f"'{text}'"))
    return value
