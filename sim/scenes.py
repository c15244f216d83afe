"""Where scenes come from: generators, presets, scene files, ROS maps, SDF worlds and BARN grids, behind `SceneSource`.

A scene file is a .toml with a ``kind``, a table of that name with its knobs, and, if wanted, ``[[movers]]``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robonav.config import config_dir, from_mapping, load_robot, load_toml
from robonav.errors import ConfigError, SceneError, explain, nearest
from robonav.types import Mover, RobotSpec, Scene
from sim.barn import load_barn
from sim.generators.base import GeneratedSource, SceneSource
from sim.generators.crowds import CrowdConfig, CrowdSource
from sim.generators.registry import generator_of
from sim.geodesic import check_task
from sim.ros_map import MapSource, RosMapConfig
from sim.scene_check import check_movers
from sim.sdf import SdfConfig, load_sdf

__all__ = ["FixedSource", "MoverSource", "SceneSource", "load_scene"]


@dataclass(frozen=True, slots=True)
class FixedSource:
    """One scene, whatever the number."""

    name: str
    fixed: Scene

    def scene(self, seed: int) -> Scene:
        """The scene."""
        return self.fixed


@dataclass(frozen=True, slots=True)
class MoverSource:
    """The scenes of another source, with movers that a scene file gives."""

    name: str
    base: SceneSource
    movers: tuple[Mover, ...]
    spec: RobotSpec

    def scene(self, seed: int) -> Scene:
        """The scene with its movers.

        Raises:
            SceneError: a mover does not fit into it.
        """
        scene = self.base.scene(seed)
        scene = dataclasses.replace(scene, movers=(*scene.movers, *self.movers))
        check_movers(scene, f"scene '{scene.name}'", self.spec)
        return scene


def load_scene(name_or_path: str, robot: str | RobotSpec = "a1", **options: Any) -> SceneSource:
    """Loads a preset's name, a scene .toml, a ROS map .yaml, an SDF .world or .sdf, or a BARN grid .npy.

    `options` are the fields of `RosMapConfig` for a .yaml and of `SdfConfig` for a .world (such as start and goal), or
    the knobs of a preset's kind. Every scene is checked for a way that the robot fits through.

    Raises:
        SceneError: unknown name (with the nearest one), a missing or damaged file, or a task that is impossible.
    """
    spec = load_robot(robot) if isinstance(robot, str) else robot
    return _load(name_or_path, spec, options, ())


def _load(name_or_path: str, spec: RobotSpec, options: dict[str, Any], within: tuple[str, ...]) -> SceneSource:
    path = Path(name_or_path)
    try:
        if path.suffix in (".yaml", ".yml"):
            config = from_mapping(RosMapConfig, {"file": str(path), **options}, "map options")
            return MapSource.load(path.stem, config, Path(), spec)
        if path.suffix in (".world", ".sdf"):
            scene = load_sdf(path, from_mapping(SdfConfig, options, "world options"))
        elif path.suffix == ".npy":
            if options:
                raise SceneError(explain(str(path), "no options for a BARN grid", ", ".join(options)))
            scene = load_barn(path)
        else:
            return _load_file(name_or_path, spec, options, within)
        check_task(scene, spec, str(path))
        return FixedSource(scene.name, scene)
    except ConfigError as error:
        raise SceneError(str(error)) from None


def _load_file(name: str, spec: RobotSpec, options: dict[str, Any], within: tuple[str, ...]) -> SceneSource:
    folder = config_dir() / "scenes"
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise SceneError(explain(name, "a scene file", "no such file", "check the path"))
        known = [p.stem for p in folder.glob("*.toml")]
        kinds = "a preset, a .toml, a map .yaml, an SDF .world or a .npy grid"
        raise SceneError(f"no scene '{name}'; {nearest(name, known)}; a scene is {kinds}")
    if name in within:
        raise SceneError(explain(f"{path}: base", "another scene", f"'{name}', which is itself", "name 'rooms'"))
    data = load_toml(path)
    kind = data.pop("kind", None)
    if not isinstance(kind, str):
        raise SceneError(explain(str(path), "a line kind = '...'", "none", "say what kind of scene it is"))
    movers = data.pop("movers", [])
    table = data.pop(kind, None)
    if data:
        raise SceneError(f"{path}: unknown key '{next(iter(data))}'; {nearest(next(iter(data)), (kind, 'movers'))}")
    source = _of_kind(kind, table, path, spec, options, (*within, name))
    if not isinstance(movers, list):
        raise SceneError(explain(f"{path}: movers", "tables [[movers]]", f"{movers!r}"))
    given = tuple(from_mapping(Mover, m, f"{path}: movers[{i}]") for i, m in enumerate(movers))
    if not given:
        return source
    moving = MoverSource(source.name, source, given, spec)
    first = moving.scene(0)  # says at once what does not fit
    fixed = source.scene(0) is source.scene(1)  # then the same object each time, so that nothing is computed again
    return FixedSource(source.name, first) if fixed else moving


def _of_kind(
    kind: str, table: Any, path: Path, spec: RobotSpec, options: dict[str, Any], within: tuple[str, ...]
) -> SceneSource:
    """The source of a scene file's kind, with its knobs and the caller's options over them."""
    where = str(path)
    if kind == "map":
        if table is None:
            raise SceneError(explain(where, "a table [map] for kind = 'map'", "none"))
        return MapSource.load(path.stem, from_mapping(RosMapConfig, {**table, **options}, where), path.parent, spec)
    knobs = {**(table if table is not None else {}), **options} if isinstance(table, (dict, type(None))) else table
    if kind == "crowd":
        config = from_mapping(CrowdConfig, knobs, where)
        near = path.parent / config.base  # a base that is a file lies beside the scene file
        base = str(near) if near.suffix and near.is_file() else config.base
        return CrowdSource(path.stem, config, spec, _load(base, spec, {}, within))
    generator = generator_of(kind, where)
    return GeneratedSource(path.stem, generator, from_mapping(generator.config, knobs, where), spec)
