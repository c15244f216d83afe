from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.config import (
    KINDS,
    config_dir,
    find_config,
    from_mapping,
    load_config,
    load_robot,
    load_toml,
    override,
    to_mapping,
)
from robonav.errors import ConfigError


@dataclass(frozen=True)
class Part:
    width: int = 4
    rate_hz: float = 10.0


@dataclass(frozen=True)
class Whole:
    name: str
    seed: int = 0
    scale: float = 1.0
    video: bool = False
    kind: Literal["rooms", "map"] = "rooms"
    size_m: tuple[float, float] = (1.0, 2.0)
    layers: tuple[int, ...] = (8, 8)
    note: str | None = None
    part: Part = field(default_factory=Part)
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ConfigError("scale: expected a number of at least 0")


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
wholes = st.builds(
    Whole,
    name=st.text(max_size=8),
    seed=st.integers(-(2**31), 2**31),
    scale=numbers.map(abs),
    video=st.booleans(),
    kind=st.sampled_from(["rooms", "map"]),
    size_m=st.tuples(numbers, numbers),
    layers=st.lists(st.integers(0, 99), max_size=4).map(tuple),
    note=st.none() | st.text(max_size=8),
    part=st.builds(Part, width=st.integers(0, 99), rate_hz=numbers),
    weights=st.dictionaries(st.text(max_size=4), numbers, max_size=3),
)


@given(wholes)
def test_round_trip(config):
    assert from_mapping(Whole, to_mapping(config), "here") == config


def test_an_integer_stands_for_a_float_and_nothing_else_is_converted():
    config = from_mapping(Whole, {"name": "a", "scale": 2}, "here")
    assert config.scale == 2.0
    assert isinstance(config.scale, float)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "a", "sede": 1}, "here: unknown key 'sede'; did you mean 'seed'?"),
        ({"name": "a", "part": {"widht": 1}}, "here: part: unknown key 'widht'; did you mean 'width'?"),
        ({}, "here: key 'name' is missing"),
        ({"name": 3}, "here: name: expected a value of type str, got 3 (int)"),
        ({"name": "a", "seed": 1.0}, "here: seed: expected a value of type int, got 1.0 (float)"),
        ({"name": "a", "seed": True}, "here: seed: expected a value of type int, got True (bool)"),
        ({"name": "a", "scale": True}, "here: scale: expected a value of type float, got True (bool)"),
        ({"name": "a", "video": 1}, "here: video: expected a value of type bool, got 1 (int)"),
        ({"name": "a", "scale": "1"}, "here: scale: expected a value of type float, got '1' (str)"),
        ({"name": "a", "scale": math.nan}, "here: scale: expected a finite number, got nan"),
        ({"name": "a", "scale": math.inf}, "here: scale: expected a finite number, got inf"),
        ({"name": "a", "size_m": [1.0]}, "here: size_m: expected a list of 2, got 1 items"),
        ({"name": "a", "size_m": [1.0, math.nan]}, "here: size_m[1]: expected a finite number, got nan"),
        ({"name": "a", "layers": 3}, "here: layers: expected a list, got 3 (int)"),
        ({"name": "a", "layers": [1, "x"]}, "here: layers[1]: expected a value of type int, got 'x' (str)"),
        ({"name": "a", "kind": "room"}, "here: kind: unknown choice 'room'; did you mean 'rooms'?"),
        ({"name": "a", "part": 3}, "here: part: expected a table for Part, got 3 (int)"),
        ({"name": "a", "weights": {"w": "x"}}, "here: weights.w: expected a value of type float, got 'x' (str)"),
        ({"name": "a", "note": 3}, "here: note: expected a value of type str, got 3 (int)"),
        ({"name": "a", "scale": -1.0}, "here: scale: expected a number of at least 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(data, said):
    with pytest.raises(ConfigError) as caught:
        from_mapping(Whole, data, "here")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(min_size=1, max_size=12).filter(lambda key: key not in Whole.__dataclass_fields__))
def test_any_unknown_key_is_refused(key):
    with pytest.raises(ConfigError, match="unknown key"):
        from_mapping(Whole, {"name": "a", key: 1}, "here")


def test_override_replaces_nested_keys_and_leaves_the_original():
    config = Whole(name="a")
    changed = override(config, {"part.width": 9, "seed": 3})
    assert (changed.part, changed.seed, changed.name) == (Part(width=9), 3, "a")
    assert (config.part, config.seed) == (Part(), 0)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ({"part.widht": 9}, "did you mean 'width'?"),
        ({"seed.x": 9}, "'seed', which is no table"),
        ({"part": 9}, "expected a table"),
        ({"part.width": "9"}, "expected a value of type int"),
    ],
)
def test_override_is_checked_like_a_file(assignment, said):
    with pytest.raises(ConfigError) as caught:
        override(Whole(name="a"), assignment)
    assert said in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("a = \n")
    with pytest.raises(ConfigError, match=r"bad\.toml: no valid TOML"):
        load_toml(bad)
    bad.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"bad\.toml: no valid TOML"):
        load_toml(bad)
    with pytest.raises(ConfigError, match=r"none\.toml.*no such file"):
        load_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toml(tmp_path)


def test_load_config_names_the_file(tmp_path):
    path = tmp_path / "whole.toml"
    path.write_text('name = "a"\n[part]\nwidth = 7\n')
    assert load_config(Whole, path) == Whole(name="a", part=Part(width=7))
    path.write_text('name = "a"\nsede = 7\n')
    with pytest.raises(ConfigError, match=r"whole\.toml: unknown key 'sede'"):
        load_config(Whole, path)


def test_presets_are_found_by_name_and_by_path(tmp_path):
    assert find_config("robots", "a1") == config_dir() / "robots" / "a1.toml"
    own = tmp_path / "own.toml"
    own.write_text("")
    assert find_config("robots", str(own)) == own


@pytest.mark.parametrize("name", ["a2", "../robots/a1", "", "nothing-like-it"])
def test_unknown_presets_are_refused(name):
    with pytest.raises(ConfigError, match=r"'a1'|known: .*a1"):
        find_config("robots", name)


def test_a_missing_preset_file_is_refused():
    with pytest.raises(ConfigError, match=r"existing \.toml file"):
        find_config("robots", "nowhere/a1.toml")


@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_is_toml(kind):
    for path in sorted((config_dir() / kind).glob("*.toml")):
        assert load_toml(path), path


def test_every_robot_loads():
    names = [path.stem for path in (config_dir() / "robots").glob("*.toml")]
    assert "a1" in names
    for name in names:
        assert load_robot(name).name == name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rate_hz = 0.0", "rate_hz: expected a number above 0"),
        ("length_m = -1.0", "length_m: expected a number above 0"),
        ("rate_hz = nan", "rate_hz: expected a finite number"),
        ("wheels = 4", "unknown key 'wheels'"),
    ],
)
def test_a_robot_that_cannot_be_is_refused(tmp_path, line, said):
    key = line.split(" =")[0]
    kept = [old for old in find_config("robots", "a1").read_text().splitlines() if not old.startswith(f"{key} =")]
    path = tmp_path / "odd.toml"
    path.write_text("\n".join([line, *kept]))
    with pytest.raises(ConfigError) as caught:
        load_robot(str(path))
    assert said in str(caught.value)
    assert "odd.toml" in str(caught.value)


def test_a_lidar_without_beams_is_refused(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(find_config("robots", "a1").read_text().replace("beams = 128", "beams = 0"))
    with pytest.raises(ConfigError, match=r"lidar\.beams: expected at least 1, got 0"):
        load_robot(str(path))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("vx_min_mps = -0.4", "vx_min_mps = 0.5", "vx_min_mps: expected 0 or less"),
        (
            "acceleration_max_mps2 = 3.0",
            "acceleration_max_mps2 = -3.0",
            "acceleration_max_mps2: expected a number above 0",
        ),
        ("range_m = 8.0", "range_m = -8.0", "lidar.range_m"),
        ("lag_s = 0.16", "lag_s = -0.1", "lag_s"),
        ("beams = 128", "beams = 0", "lidar.beams: expected at least 1"),
        ("height = 64", "height = 0", "depth.height"),
    ],
)
def test_a_robot_with_impossible_limits_or_sensors_is_refused(tmp_path, old, new, line):
    text = find_config("robots", "a1").read_text()
    assert old in text
    path = tmp_path / "robot.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=line):
        load_robot(str(path))


def test_a_file_that_extends_another_changes_only_what_it_sets(tmp_path) -> None:
    (tmp_path / "one.toml").write_text('name = "one"\nlayers = [1, 2]\n[part]\nwidth = 7\nrate_hz = 5.0\n')
    (tmp_path / "two.toml").write_text('extends = "one"\nlayers = [3]\n[part]\nwidth = 8\n')
    (tmp_path / "three.toml").write_text('extends = "two"\nname = "three"\n')
    assert load_config(Whole, tmp_path / "two.toml") == Whole("one", layers=(3,), part=Part(8, 5.0))
    assert load_config(Whole, tmp_path / "three.toml") == Whole("three", layers=(3,), part=Part(8, 5.0))


@pytest.mark.parametrize("name", ["ones", "../one", "loop", 3])
def test_a_file_that_cannot_be_extended_is_one_line(tmp_path, name) -> None:
    (tmp_path / "one.toml").write_text('name = "one"\n')
    (tmp_path / "back.toml").write_text('extends = "loop"\n')
    (tmp_path / "loop.toml").write_text(f"extends = {json.dumps('back' if name == 'loop' else name)}\n")
    with pytest.raises(ConfigError, match="extends") as error:
        load_config(Whole, tmp_path / "loop.toml")
    assert "\n" not in str(error.value)
