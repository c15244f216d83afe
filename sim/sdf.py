"""SDF worlds (``.world``, ``.sdf``) as scenes: boxes, cylinders and spheres of the collision geometry, seen from above.

Source of the format: sdformat.org, versions 1.4 to 1.9. Poses add up from model over link to collision; where a world
keeps a ``<state>``, its poses are the ones that hold, as in Gazebo. Planes are floor; so is what ends below the robot's
step or begins above its head. A world of BARN's cylinders has BARN's task; others need start and goal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from robonav.errors import SceneError, explain
from robonav.types import Scene
from sim import barn

SIZE_MAX_BYTES = 64_000_000
SPAN_MAX_M = 300.0
FLOOR_M, HEAD_M = 0.03, 1.0  # solid is what has a part between these heights
TILT_MAX_RAD = 0.02  # of a box or cylinder; the scene is planar
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SdfConfig:
    """The task in a world. A world of BARN's kind has BARN's unless both are given."""

    start: tuple[float, float, float] | None = None  # x m, y m, yaw rad
    goal: tuple[float, float] | None = None
    goal_radius_m: float = 0.5
    time_limit_s: float = 90.0
    margin_m: float = 1.0  # of the map's bounds round everything


def load_sdf(path: str | Path, config: SdfConfig | None = None) -> Scene:
    """Reads a world.

    Raises:
        SceneError: a missing file, no XML or no SDF world, a number that is none, a size that is not positive, a shape
            that is tilted or unknown (mesh, heightmap), nothing solid at all, or a task that is missing.
    """
    path, config = Path(path), config or SdfConfig()
    boxes, cylinders = _shapes(path)
    if (config.start is None) != (config.goal is None):
        raise SceneError(explain(str(path), "both start and goal, or none", "one of them", "give the other as well"))
    name = path.stem
    if config.start is None or config.goal is None:
        if len(boxes) or not _is_barn(cylinders):
            expected = "a start and a goal for a world that is not BARN's"
            raise SceneError(explain(str(path), expected, "none", "give both"))
        # The dataset's files hold the enclosure as cylinders too.
        return Scene(
            name=f"barn-{name.removeprefix('world_')}",
            bounds_m=barn.BOUNDS_M,
            start=barn.START,
            goal=barn.GOAL_M,
            cylinders=cylinders.astype(np.float32),
            goal_radius_m=barn.GOAL_RADIUS_M,
            time_limit_s=barn.TIME_LIMIT_S,
        )
    ends = np.array([config.start[:2], config.goal])
    reach = np.hypot(boxes[:, 2], boxes[:, 3])[:, None] / 2
    points = [ends, boxes[:, :2] - reach, boxes[:, :2] + reach]
    points += [cylinders[:, :2] - cylinders[:, 2:], cylinders[:, :2] + cylinders[:, 2:]]
    low = np.concatenate(points).min(axis=0) - config.margin_m
    high = np.concatenate(points).max(axis=0) + config.margin_m
    if (high - low).max() > SPAN_MAX_M:
        span = f"{high[0] - low[0]:.0f} x {high[1] - low[1]:.0f} m"
        raise SceneError(explain(str(path), f"a world of up to {SPAN_MAX_M:.0f} m a side", span))
    return Scene(
        name=name,
        bounds_m=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        start=config.start,
        goal=config.goal,
        boxes=boxes.astype(np.float32),
        cylinders=cylinders.astype(np.float32),
        goal_radius_m=config.goal_radius_m,
        time_limit_s=config.time_limit_s,
    )


def _is_barn(cylinders: Matrix) -> bool:
    """All of BARN's radius, and inside of its field and enclosure."""
    low, high = np.array(barn.BOUNDS_M).reshape(2, 2)
    inside = (low <= cylinders[:, :2]) & (cylinders[:, :2] <= high)
    return bool(np.isclose(cylinders[:, 2], barn.CYLINDER_RADIUS_M, atol=1e-4).all() and inside.all())


def _shapes(path: Path) -> tuple[Matrix, Matrix]:
    """(n, 5) boxes x, y, length, width, yaw and (m, 3) cylinders x, y, radius of a world."""
    world = _world(path)
    states = {}
    for state in world.findall("state/model"):
        pose = state.find("pose")
        if pose is not None:
            states[state.get("name", "")] = _pose(pose, f"{path}: state of model '{state.get('name', '')}'")
    boxes: list[list[float]] = []
    cylinders: list[list[float]] = []
    if world.find("include") is not None:
        uri = world.findtext("include/uri", "?").strip()
        raise SceneError(explain(str(path), "a world with all of its models inside", f"<include> of '{uri}'"))
    for model in world.findall("model"):
        name = model.get("name", "?")
        where = f"{path}: model '{name}'"
        at = states.get(name)
        if at is None:
            at = _pose(model.find("pose"), where)
        for link in model.findall("link"):
            link_at = at @ _pose(link.find("pose"), where)
            for collision in link.findall("collision"):
                frame = link_at @ _pose(collision.find("pose"), where)
                _add(collision.find("geometry"), frame, where, boxes, cylinders)
    if not boxes and not cylinders:
        raise SceneError(explain(str(path), "a world with boxes, cylinders or spheres", "none of them"))
    return np.array(boxes, np.float64).reshape(-1, 5), np.array(cylinders, np.float64).reshape(-1, 3)


def _world(path: Path) -> ElementTree.Element:
    try:
        if path.stat().st_size > SIZE_MAX_BYTES:
            limit = f"at most {SIZE_MAX_BYTES // 1_000_000} MB"
            raise SceneError(explain(str(path), limit, f"{path.stat().st_size} bytes"))
        root = ElementTree.fromstring(path.read_bytes())  # expat refuses entities that grow without bound
    except FileNotFoundError:
        raise SceneError(explain(str(path), "an SDF world", "no such file", "check the path")) from None
    except ElementTree.ParseError as error:
        raise SceneError(f"{path}: no valid XML ({error})") from None
    except (OSError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise SceneError(f"{path}: cannot be read ({error})") from None
    world = root.find("world") if root.tag in ("sdf", "gazebo") else None
    if world is None:
        raise SceneError(explain(str(path), "<sdf> with a <world> in it", f"<{root.tag}>"))
    return world


def _numbers(text: str | None, count: int, where: str) -> list[float]:
    try:
        values = [float(word) for word in (text or "").split()]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise SceneError(explain(where, f"{count} finite numbers", repr((text or "").strip()[:60])))
    return values


def _pose(element: ElementTree.Element | None, where: str) -> Matrix:
    """(4, 4) transform of a <pose> x y z roll pitch yaw; none is the identity."""
    if element is None or not (element.text or "").strip():
        return np.eye(4)
    if element.get("relative_to") or element.get("rotation_format", "euler_rpy") != "euler_rpy":
        raise SceneError(explain(f"{where}: pose", "x y z roll pitch yaw in the parent's frame", str(element.attrib)))
    x, y, z, roll, pitch, yaw = _numbers(element.text, 6, f"{where}: pose")
    if element.get("degrees") in ("true", "1"):
        roll, pitch, yaw = (math.radians(a) for a in (roll, pitch, yaw))
    cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (math.cos, math.sin))
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, x],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr, y],
            [-sp, cp * sr, cp * cr, z],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def _add(
    geometry: ElementTree.Element | None,
    frame: Matrix,
    where: str,
    boxes: list[list[float]],
    cylinders: list[list[float]],
) -> None:
    """Adds a collision's shape as it stands on the floor."""
    shape = geometry[0] if geometry is not None and len(geometry) else None
    if shape is None or shape.tag in ("empty", "plane"):
        return
    if shape.tag not in ("box", "cylinder", "sphere"):
        known = "box, cylinder, sphere or plane"
        raise SceneError(explain(f"{where}: geometry", known, f"<{shape.tag}>", "replace it"))
    x, y, z = frame[:3, 3]
    if shape.tag == "box":
        size = _numbers(shape.findtext("size"), 3, f"{where}: box size")
    elif shape.tag == "cylinder":
        radius = _numbers(shape.findtext("radius"), 1, f"{where}: radius")[0]
        size = [radius, radius, _numbers(shape.findtext("length"), 1, f"{where}: length")[0]]
    else:
        radius = _numbers(shape.findtext("radius"), 1, f"{where}: radius")[0]
        size = [radius, radius, 2 * radius]
    if min(size) <= 0:
        raise SceneError(explain(f"{where}: {shape.tag}", "sizes above 0", size))
    if shape.tag != "sphere" and math.acos(min(abs(float(frame[2, 2])), 1.0)) > TILT_MAX_RAD:
        raise SceneError(explain(f"{where}: pose", "a shape that stands upright", f"a tilted {shape.tag}"))
    if z + size[2] / 2 <= FLOOR_M or z - size[2] / 2 >= HEAD_M:
        return
    if shape.tag == "box":
        boxes.append([x, y, size[0], size[1], math.atan2(frame[1, 0], frame[0, 0])])
    else:
        cylinders.append([x, y, size[0]])
