"""ROS map_server maps (``.yaml`` + image) as scenes: occupied cells become boxes.

Source of the format: the documentation and source of map_server and nav2_map_server; modes trinary and scale, with
resolution, origin, thresholds and negate. What lies between the thresholds is unknown in a trinary map; in a map of
mode scale it is known to a percentage, and transparent pixels are what is unknown. Unknown cells are solid where they
border on free ones: the robot has no business behind the edge of a map.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, SceneError, explain, nearest
from robonav.geometry import transform_points
from robonav.types import RobotSpec, Scene
from sim.cells import merge_cells
from sim.generators.tasks import place_task
from sim.geodesic import check_task

AREA_MAX_M2 = 300.0 * 300.0  # the search for a way takes 9 kB a square metre and more: 0.8 GB
REQUIRED = ("image", "resolution", "origin", "occupied_thresh", "free_thresh", "negate")


@dataclass(frozen=True, slots=True)
class RosMapConfig:
    """A map and the task in it. Without start and goal, each seed draws its own."""

    file: str  # the map's .yaml; relative to the scene file that names it
    start: tuple[float, float, float] | None = None  # x m, y m, yaw rad in the map frame
    goal: tuple[float, float] | None = None
    goal_radius_m: float = 0.5
    time_limit_s: float = 90.0
    goal_distance_min_m: float = 4.0  # where start and goal are drawn
    solid_percent: int = 50  # in maps of mode scale: cells from this occupancy on are solid, those below are free

    def __post_init__(self) -> None:
        """Checks the knobs.

        Raises:
            ConfigError: one is out of range.
        """
        if not 1 <= self.solid_percent <= 100:
            raise ConfigError(explain("solid_percent", "1 to 100", self.solid_percent))
        for key in ("goal_radius_m", "time_limit_s"):
            if getattr(self, key) <= 0:
                raise ConfigError(explain(key, "a number above 0", getattr(self, key)))


@dataclass(frozen=True, slots=True)
class RosMap:
    """A map in the map frame; row 0 of the grids is the lowest y."""

    percent: NDArray[np.int8]  # (rows, columns) occupancy as in nav_msgs/OccupancyGrid: 0 free to 100, -1 unknown
    resolution_m: float
    origin: tuple[float, float, float]  # x m, y m, yaw rad of the lower left corner of cell (0, 0)
    solid_percent: int = 100

    @property
    def occupied(self) -> NDArray[np.bool_]:
        """(rows, columns) solid cells."""
        return np.asarray(self.percent >= self.solid_percent)

    @property
    def free(self) -> NDArray[np.bool_]:
        """(rows, columns) free cells; those that are neither are unknown."""
        return np.asarray((self.percent >= 0) & (self.percent < self.solid_percent))


@dataclass(frozen=True, slots=True)
class MapSource:
    """Scenes of one map: the given start and goal, or drawn ones."""

    name: str
    config: RosMapConfig
    spec: RobotSpec
    base: Scene  # without a task
    free_cells_m: NDArray[np.float64]  # (n, 2) centres, where a task may be drawn

    @classmethod
    def load(cls, name: str, config: RosMapConfig, folder: Path, spec: RobotSpec) -> MapSource:
        """Reads the map and checks the task.

        Raises:
            SceneError: a missing or damaged file, or a start or goal that is impossible.
        """
        path = folder / config.file
        grid = load_ros_map(path, config.solid_percent)
        if (config.start is None) != (config.goal is None):
            raise SceneError(
                explain(str(path), "both start and goal, or none", "one of them", "give the other as well")
            )
        base = map_scene(grid, name, config)
        source = cls(name, config, spec, base, _centres(grid, grid.free))
        if config.start is not None:
            check_task(base, spec, str(path))
        else:
            source.scene(0)
        return source

    def scene(self, seed: int) -> Scene:
        """The given task, or task number `seed` drawn on free cells with a way between them.

        Raises:
            SceneError: the seed is negative, or no pair of free places is joined by a way.
        """
        if self.config.start is not None:
            return self.base
        if seed < 0:
            raise SceneError(explain(f"scene '{self.name}': seed", "0 or more", seed))
        import dataclasses

        rng = np.random.default_rng([seed, 0x6D6170])
        blank = dataclasses.replace(
            self.base, name=f"{self.name}-{seed}", start=(0.0, 0.0, float(rng.uniform(-math.pi, math.pi)))
        )
        for _ in range(20 if len(self.free_cells_m) else 0):
            candidates = self.free_cells_m[rng.integers(len(self.free_cells_m), size=24)]
            scene = place_task(blank, candidates, self.spec, self.config.goal_distance_min_m, 0.05)
            if scene is not None:
                return scene
        raise SceneError(
            f"scene '{self.name}': no start and goal {self.config.goal_distance_min_m} m apart with a way between them "
            f"for robot '{self.spec.name}'; give start and goal, or a smaller goal_distance_min_m"
        )


def load_ros_map(path: str | Path, solid_percent: int = 50) -> RosMap:
    """Reads a map_server .yaml and its image; `solid_percent` matters to maps of mode scale.

    Raises:
        SceneError: missing file or key, an unknown key or mode, a value that is not finite, an image that is none, or a
            map so large that its resolution must be a slip.
    """
    path = Path(path)
    meta = _read_meta(path)
    resolution = _number(path, meta, "resolution")
    if not resolution > 0:
        raise SceneError(explain(f"{path}: resolution", "metres a cell, above 0", resolution))
    origin = meta["origin"]
    if not isinstance(origin, list) or len(origin) != 3 or not all(_finite(v) for v in origin):
        raise SceneError(explain(f"{path}: origin", "[x, y, yaw] of finite numbers", origin))
    high, low = _number(path, meta, "occupied_thresh"), _number(path, meta, "free_thresh")
    if not 0 <= low <= high <= 1:
        raise SceneError(
            explain(f"{path}: thresholds", "0 <= free_thresh <= occupied_thresh <= 1", f"{low} and {high}")
        )
    negate = meta["negate"]
    if negate not in (0, 1, False, True):
        raise SceneError(explain(f"{path}: negate", "0 or 1", negate))
    mode = meta.get("mode", "trinary")
    if mode not in ("trinary", "scale"):
        raise SceneError(f"{path}: mode '{mode}' cannot be read; {nearest(str(mode), ('trinary', 'scale'))}")
    grey, opaque = _read_image(path.parent / str(meta["image"]), path, mode)
    _check_size(path, grey.shape, resolution, float(origin[2]))
    percent = _occupancy(grey if negate else 1.0 - grey, opaque, low, high, mode)
    place = (float(origin[0]), float(origin[1]), float(origin[2]))
    return RosMap(percent[::-1], resolution, place, solid_percent)  # image row 0 is the highest y


def _occupancy(
    darkness: NDArray[np.float64], opaque: NDArray[np.bool_], low: float, high: float, mode: str
) -> NDArray[np.int8]:
    """(rows, columns) percent of nav_msgs/OccupancyGrid, as nav2_map_server computes it."""
    if mode == "trinary":
        between = np.full(darkness.shape, -1.0)
    else:
        between = np.where(opaque, np.rint((darkness - low) / max(high - low, 1e-12) * 100.0), -1.0)
    percent = np.where(darkness > high, 100.0, np.where(darkness < low, 0.0, between))
    if mode == "scale":
        percent = np.where(opaque, percent, -1.0)
    return percent.astype(np.int8)


def map_scene(grid: RosMap, name: str, config: RosMapConfig) -> Scene:
    """The map's solid cells as boxes, with the task of `config` (zeros where it has none)."""
    solid = grid.occupied | (~grid.free & ~grid.occupied & _dilate(grid.free))
    rectangles = merge_cells(solid)
    h, yaw = grid.resolution_m, grid.origin[2]
    row, column, rows, columns = rectangles.T.astype(np.float64)
    centres = transform_points(grid.origin, np.column_stack([(column + columns / 2) * h, (row + rows / 2) * h]))
    boxes = np.column_stack([centres, columns * h, rows * h, np.full(len(rectangles), yaw)])
    height, width = solid.shape
    corners = transform_points(grid.origin, np.array([[0, 0], [width, 0], [0, height], [width, height]]) * h)
    (x_min, y_min), (x_max, y_max) = corners.min(axis=0), corners.max(axis=0)
    return Scene(
        name=name,
        bounds_m=(float(x_min), float(y_min), float(x_max), float(y_max)),
        start=config.start or (0.0, 0.0, 0.0),
        goal=config.goal or (0.0, 0.0),
        boxes=boxes.astype(np.float32),
        goal_radius_m=config.goal_radius_m,
        time_limit_s=config.time_limit_s,
    )


def _centres(grid: RosMap, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = np.nonzero(cells)
    h = grid.resolution_m
    return transform_points(grid.origin, np.column_stack([(columns + 0.5) * h, (rows + 0.5) * h]))


def _dilate(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(cells, 1)
    height, width = cells.shape
    out = np.zeros_like(cells)
    for dr in range(3):
        for dc in range(3):
            out |= padded[dr : dr + height, dc : dc + width]
    return out


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SceneError(explain(str(path), "a map .yaml", "no such file", "check the path")) from None
    except UnicodeDecodeError:
        raise SceneError(explain(str(path), "a map .yaml of text", "other bytes")) from None
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror})") from None
    meta: dict[str, Any] = {}
    key = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#")[0].strip()
        if not line or line == "---":
            continue
        if line.startswith("- ") and key:  # a list in block form belongs to the key above it
            meta[key] = [*(meta[key] if isinstance(meta[key], list) else []), _value(line[2:].strip())]
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise SceneError(explain(f"{path}, line {number}", "'key: value'", repr(raw.strip())))
        key = name.strip()
        meta[key] = _value(value.strip())
    for key in REQUIRED:
        if key not in meta:
            raise SceneError(
                explain(str(path), f"a key '{key}'", f"only {', '.join(sorted(meta)) or 'none'}", "add it")
            )
    return meta


def _value(text: str) -> Any:
    """A scalar or a flat list of them, as far as map_server files need YAML."""
    if text.startswith("[") and text.endswith("]"):
        return [_value(item.strip()) for item in text[1:-1].split(",")]
    if text.lower() in (".nan", "nan", ".inf", "-.inf", "inf", "-inf"):
        return float(text.lower().replace(".", ""))
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(path: Path, meta: dict[str, Any], key: str) -> float:
    if not _finite(meta[key]):
        raise SceneError(explain(f"{path}: {key}", "a finite number", meta[key]))
    return float(meta[key])


def _check_size(path: Path, shape: tuple[int, ...], resolution_m: float, yaw_rad: float) -> None:
    """Refuses a map whose upright bounds are beyond AREA_MAX_M2; a turned long one covers far more than its cells."""
    height_m, width_m = (cells * resolution_m for cells in shape)
    c, s = abs(math.cos(yaw_rad)), abs(math.sin(yaw_rad))
    if not (c * width_m + s * height_m) * (s * width_m + c * height_m) <= AREA_MAX_M2:
        size = f"{width_m:.4g} x {height_m:.4g} m, turned by {yaw_rad:.4g} rad"
        where, limit = f"{path}: resolution", math.sqrt(AREA_MAX_M2)
        expected = f"metres a cell, for a map of up to {limit:.0f} x {limit:.0f} m"
        raise SceneError(explain(where, expected, f"{resolution_m} (a map of {size})", "correct the unit"))


def _read_image(path: Path, named_by: Path, mode: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(rows, columns) brightness 0 to 1, the mean of the colours, and which pixels are opaque.

    As in nav2_map_server, a trinary map with transparency averages that in as a further channel.
    """
    import cv2

    if not path.is_file():
        raise SceneError(explain(f"{named_by}: image", f"the file '{path}'", "no such file", "check the name"))
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if image is None or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise SceneError(explain(f"{named_by}: image '{path}'", "a PGM or PNG picture", "no picture that can be read"))
    brightest = 255.0 if image.dtype == np.uint8 else 65535.0
    pixels = image.astype(np.float64).reshape(*image.shape[:2], -1) / brightest
    has_alpha = pixels.shape[2] in (2, 4)
    opaque = pixels[..., -1] >= 1.0 if has_alpha else np.ones(image.shape[:2], np.bool_)
    colours = pixels[..., :-1] if has_alpha and mode == "scale" else pixels
    return colours.mean(axis=2), np.asarray(opaque)
