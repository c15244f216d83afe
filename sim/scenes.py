"""Where scenes come from: presets, scene files, ROS maps and BARN grids, behind one `SceneSource`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from robonav.config import config_dir, from_mapping, load_config, load_robot
from robonav.errors import ConfigError, SceneError, explain, nearest
from robonav.types import RobotSpec, Scene
from sim.barn import load_barn
from sim.geodesic import check_task
from sim.rooms import RoomsConfig, RoomsSource
from sim.ros_map import MapSource, RosMapConfig


class SceneSource(Protocol):
    """A numbered family of scenes."""

    @property
    def name(self) -> str:
        """Short name, also the beginning of its scenes' names."""

    def scene(self, seed: int) -> Scene:
        """Scene number `seed`; equal numbers give equal scenes."""


@dataclass(frozen=True, slots=True)
class SceneFile:
    """What a scene .toml holds: a kind and its knobs."""

    kind: Literal["rooms", "map"]
    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    map: RosMapConfig | None = None


@dataclass(frozen=True, slots=True)
class FixedSource:
    """One scene, whatever the number."""

    name: str
    fixed: Scene

    def scene(self, seed: int) -> Scene:
        """The scene."""
        return self.fixed


def load_scene(name_or_path: str, robot: str | RobotSpec = "a1", **options: Any) -> SceneSource:
    """Loads a preset's name, a scene .toml, a ROS map .yaml, or a BARN grid .npy.

    `options` are the fields of `RosMapConfig` for a .yaml (such as start and goal), or of `RoomsConfig` for a preset
    of rooms. Every scene is checked for a way that the robot fits through.

    Raises:
        SceneError: unknown name (with the nearest one), a missing or damaged file, or a task that is impossible.
    """
    spec = load_robot(robot) if isinstance(robot, str) else robot
    path = Path(name_or_path)
    try:
        if path.suffix in (".yaml", ".yml"):
            config = from_mapping(RosMapConfig, {"file": str(path), **options}, "map options")
            return MapSource.load(path.stem, config, Path(), spec)
        if path.suffix == ".npy":
            if options:
                raise SceneError(explain(str(path), "no options for a BARN grid", ", ".join(options)))
            scene = load_barn(path)
            check_task(scene, spec, str(path))
            return FixedSource(scene.name, scene)
        return _load_file(name_or_path, spec, options)
    except ConfigError as error:
        raise SceneError(str(error)) from None


def _load_file(name: str, spec: RobotSpec, options: dict[str, Any]) -> SceneSource:
    folder = config_dir() / "scenes"
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise SceneError(explain(name, "a scene file", "no such file", "check the path"))
        known = [p.stem for p in folder.glob("*.toml")]
        raise SceneError(
            f"no scene '{name}'; {nearest(name, known)}; a scene is a preset, a .toml, a map .yaml or a .npy grid"
        )
    file = load_config(SceneFile, path)
    if file.kind == "map":
        if file.map is None:
            raise SceneError(explain(str(path), "a table [map] for kind = 'map'", "none"))
        config = from_mapping(RosMapConfig, {**_given(file.map), **options}, str(path)) if options else file.map
        return MapSource.load(path.stem, config, path.parent, spec)
    rooms = from_mapping(RoomsConfig, {**_given(file.rooms), **options}, str(path)) if options else file.rooms
    return RoomsSource(path.stem, rooms, spec)


def _given(config: Any) -> dict[str, Any]:
    return {key: value for key in config.__dataclass_fields__ if (value := getattr(config, key)) is not None}
