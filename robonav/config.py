"""Configuration: frozen dataclasses filled from TOML, strictly.

An unknown key is refused with the nearest known one, a value of another type or a NaN with its place. Nothing is
converted silently, except an integer where a float is expected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import subprocess
import sys
import types
import typing
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from robonav.errors import ConfigError, explain, nearest
from robonav.types import RobotSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_POSITIVE_OF_ROBOT = (
    *("length_m", "width_m", "height_m", "vx_max_mps", "yaw_rate_max_radps", "rate_hz"),
    *("acceleration_max_mps2", "yaw_acceleration_max_radps2"),
)
KINDS = (
    *("train", "backbones", "robots", "scenes", "sensors", "randomisation", "rewards"),
    *("policies", "tuning", "suites", "deploy"),
)


def config_dir() -> Path:
    """The folder of presets: ``configs/`` of a checkout, or the copy inside the installed package."""
    packaged = Path(__file__).parent / "_configs"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[1] / "configs"


def find_config(kind: str, name: str) -> Path:
    """Path of preset `name` of a kind (one of KINDS), or of a TOML file that the user names by its path.

    Raises:
        ConfigError: there is none; the message names the nearest or lists what there is.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(explain(f"{kind} config", "an existing .toml file", f"'{name}'", "check the path"))
        return path
    folder = config_dir() / kind
    path = folder / f"{name}.toml"
    if "/" in name or not path.is_file():
        known = [p.stem for p in folder.glob("*.toml")]
        raise ConfigError(f"{kind}: no preset '{name}'; {nearest(name, known)}")
    return path


def load_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        ConfigError: missing, unreadable, or no TOML; the message names the place.
    """
    try:
        with Path(path).open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(explain(str(path), "a TOML file", "no such file", "check the path")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def load_config(cls: type[T], path: str | Path) -> T:
    """Reads a TOML file into the dataclass `cls`.

    A file with ``extends = "other"`` sets only what differs from ``other.toml`` in the same folder.

    Raises:
        ConfigError: see `load_toml` and `from_mapping`; or files that extend each other.
    """
    return from_mapping(cls, _extended(Path(path), ()), str(path))


def _extended(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """Contents of a file over those of the file that it extends."""
    data = load_toml(path)
    if "extends" not in data:
        return data
    name = data.pop("extends")
    known = [p.stem for p in path.parent.glob("*.toml") if p != path]
    if name not in known or path in extending:
        raise ConfigError(f"{path}: extends {name!r}: no such file beside it, or a circle; {nearest(str(name), known)}")
    return _merged(_extended(path.parent / f"{name}.toml", (*extending, path)), data)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of both, key by key; where both have one, the value is that of `above`."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def load_robot(name: str) -> RobotSpec:
    """A robot by the name of its preset or the path of its TOML file.

    Raises:
        ConfigError: unknown robot, unknown key, or a size, limit or rate that is not positive.
    """
    path = find_config("robots", name)
    spec = load_config(RobotSpec, path)
    lidar, depth = spec.lidar, spec.depth
    positive = {key: getattr(spec, key) for key in _POSITIVE_OF_ROBOT}
    positive |= {"lidar.range_m": lidar.range_m, "lidar.fov_rad": lidar.fov_rad, "depth.fov_rad": depth.fov_rad}
    positive |= {"depth.range_m": depth.range_m, "local_map.resolution_m": spec.local_map.resolution_m}
    counts = {"lidar.beams": lidar.beams, "local_map.cells": spec.local_map.cells}
    counts |= {"depth.width": depth.width, "depth.height": depth.height}
    checks = [(key, value, "a number above 0", value > 0) for key, value in positive.items()]
    checks += [(key, count, "at least 1", count >= 1) for key, count in counts.items()]
    checks += [(key, getattr(spec, key), "0 or more", getattr(spec, key) >= 0) for key in ("lag_s", "vy_max_mps")]
    checks.append(("vx_min_mps", spec.vx_min_mps, "0 or less", spec.vx_min_mps <= 0))
    for key, value, expected, fits in checks:
        if not fits:
            raise ConfigError(explain(f"{path}: {key}", expected, value))
    return spec


def from_mapping(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """Builds the dataclass `cls` from a mapping, recursively; `where` stands in front of every error.

    Raises:
        ConfigError: unknown or missing key, wrong type, NaN.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(explain(where, f"a table for {cls.__name__}", _shown(data)))
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            raise ConfigError(f"{where}: unknown key '{key}'; {nearest(key, fields)}")
        values[key] = _convert(hints[key], value, f"{where}: {key}")
    for name, field in fields.items():
        absent = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in values and absent:
            raise ConfigError(f"{where}: key '{name}' is missing; add it")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain dict of a config dataclass, fit for JSON and msgpack; tuples become lists and None is left out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(v) for f in dataclasses.fields(value) if (v := getattr(value, f.name)) is not None}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return {k: plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value

    mapping = plain(config)
    return typing.cast("dict[str, Any]", mapping)


def override(config: T, assignments: Mapping[str, Any], where: str = "override") -> T:
    """A copy with dotted keys replaced, as in ``{"model.d_model": 128}``; checked like a file."""
    data = to_mapping(config)
    for dotted, value in assignments.items():
        *parents, last = dotted.split(".")
        table = data
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{where}: '{dotted}' goes into '{parent}', which is no table")
        table[last] = value
    return from_mapping(type(config), data, where)


def package_versions() -> dict[str, str]:
    """Versions of the packages on which a trained model or its graph depends, of those that are installed."""
    found = {}
    for package in ("robonav", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pybullet"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def source_revision() -> str:
    """Git revision of the checkout that this code runs from, with a + if it is changed; "" for an installed package."""
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 and not (folder / "_configs").is_dir() else ""


def require_at_least(config: Any, least: Mapping[str, float]) -> None:
    """Checks fields of a config against their least values; for use in `__post_init__`.

    Raises:
        ConfigError: the first field that is below, with its name.
    """
    for key, bound in least.items():
        if getattr(config, key) < bound:
            raise ConfigError(explain(key, f"at least {bound}", getattr(config, key)))


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast("type[Any]", kind), value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where}: unknown choice {value!r}; {nearest(str(value), map(str, args))}")
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is tuple:
        return _convert_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(explain(where, "a table", _shown(value)))
        return {str(k): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(explain(where, f"a value of type {kind.__name__}", _shown(value)))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(explain(where, "a finite number", value))
    return value


def _convert_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    last: ConfigError | None = None
    for option in args:
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except ConfigError as error:
            last = error
    raise last or ConfigError(explain(where, str(args), _shown(value)))


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(explain(where, "a list", _shown(value)))
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(explain(where, f"a list of {len(args)}", f"{len(value)} items"))
    return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
