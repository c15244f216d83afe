"""Scenes as ROS maps and back: occupancy is equal within a cell; scale maps, transparency and 16 bits load."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from robonav.errors import SceneError
from robonav.types import Scene
from sim.export_map import export_map, occupancy
from sim.geodesic import obstacle_distance_m
from sim.ros_map import RosMapConfig, load_ros_map, map_scene


def round_trip(scene: Scene, folder: Path, resolution_m: float) -> Scene:
    path = folder / "map.yaml"
    export_map(scene, path, resolution_m)
    return map_scene(load_ros_map(path), scene.name, RosMapConfig(str(path), scene.start, scene.goal))


def assert_equal_within_a_cell(scene: Scene, again: Scene, resolution_m: float) -> None:
    x_min, y_min, x_max, y_max = scene.bounds_m
    points = np.random.default_rng(0).uniform((x_min, y_min), (x_max, y_max), (3000, 2))
    before, after = obstacle_distance_m(scene, points), obstacle_distance_m(again, points)
    far = np.abs(np.minimum(before, 5.0) - np.minimum(after, 5.0))
    assert far.max() <= math.sqrt(2) * resolution_m + 1e-4
    assert again.bounds_m == pytest.approx(scene.bounds_m, abs=1.01 * resolution_m)


@pytest.mark.parametrize("name", ["rooms", "corridors", "offices", "warehouse", "maze", "clutter", "tmaze", "office"])
def test_scenes_come_back_within_a_cell(name: str, tmp_path: Path) -> None:
    scene = sim.load_scene(name).scene(1)
    again = round_trip(scene, tmp_path, 0.05)
    assert_equal_within_a_cell(scene, again, 0.05)
    task = {"start": tuple(scene.start), "goal": tuple(scene.goal)}
    assert sim.load_scene(str(tmp_path / "map.yaml"), **task).scene(0).goal == scene.goal  # still with a way


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0.3, 7.7)] * 4, st.floats(0.01, 0.4)), max_size=4),
    st.lists(st.tuples(*[st.floats(1, 7)] * 2, st.floats(0.05, 2), st.floats(0.05, 2), st.floats(-3, 3)), max_size=4),
    st.lists(st.tuples(*[st.floats(1, 7)] * 2, st.floats(0.03, 0.9)), max_size=4),
    st.sampled_from([0.03, 0.05, 0.1, 0.17]),
    st.floats(-20, 20),
)
def test_any_shapes_come_back_within_a_cell(walls: list, boxes: list, cylinders: list, h: float, shift: float) -> None:
    import tempfile

    shapes = {
        "walls": np.array(walls, np.float32).reshape(-1, 5) + np.float32([shift, 0, shift, 0, 0]),
        "boxes": np.array(boxes, np.float32).reshape(-1, 5) + np.float32([shift, 0, 0, 0, 0]),
        "cylinders": np.array(cylinders, np.float32).reshape(-1, 3) + np.float32([shift, 0, 0]),
    }
    scene = Scene("any", (shift, 0.0, shift + 8.0, 8.0), (shift + 1, 1.0, 0.0), (shift + 2.0, 2.0), **shapes)
    with tempfile.TemporaryDirectory() as folder:
        again = round_trip(scene, Path(folder), h)
    inside = obstacle_distance_m(scene, np.array([[shift + 4.0, 4.0]]))  # shapes that stick out of the map are cut
    if np.isfinite(inside).all():
        solid = occupancy(scene, h)
        rows, columns = np.nonzero(~solid)
        centres = np.column_stack([shift + (columns + 0.5) * h, (rows + 0.5) * h])
        assert (obstacle_distance_m(scene, centres) > 0).all()  # nothing solid was lost
        rows, columns = np.nonzero(solid)
        centres = np.column_stack([shift + (columns + 0.5) * h, (rows + 0.5) * h])
        assert (obstacle_distance_m(scene, centres) <= h / 2 + 1e-5).all()  # and nothing grew by more than half a cell
        assert len(again.boxes) > 0 or not solid.any()


def test_a_map_that_is_exported_again_stays_as_it_is(tmp_path: Path) -> None:
    once = round_trip(sim.load_scene("offices").scene(4), tmp_path, 0.05)
    before = load_ros_map(tmp_path / "map.yaml").occupied
    round_trip(once, tmp_path, 0.05)
    assert np.array_equal(load_ros_map(tmp_path / "map.yaml").occupied, before)


def test_thin_walls_do_not_get_lost(tmp_path: Path) -> None:
    wall = np.array([[0.513, 0.2, 7.3, 5.1, 0.004]], np.float32)
    scene = Scene("thin", (0, 0, 8, 6), (1, 5, 0), (7, 1), walls=wall)
    again = round_trip(scene, tmp_path, 0.1)
    along = np.linspace([0.513, 0.2], [7.3, 5.1], 500)
    assert obstacle_distance_m(again, along).max() <= 0.1


def test_bad_exports_are_one_clear_line(tmp_path: Path) -> None:
    scene = sim.load_scene("empty").scene(0)
    for path, resolution_m, words in (
        (tmp_path / "map.png", 0.05, "ends in .yaml"),
        (tmp_path / "map.yaml", 0.0, "above 0"),
        (tmp_path / "map.yaml", math.nan, "above 0"),
        (tmp_path / "map.yaml", 1e-5, "at most 100000000 cells"),
    ):
        with pytest.raises(SceneError, match=words):
            export_map(scene, path, resolution_m)
    assert not list(tmp_path.iterdir())


def write_map(folder: Path, picture: np.ndarray, mode: str, suffix: str = ".png", negate: int = 0) -> Path:
    cv2.imwrite(str(folder / f"map{suffix}"), picture)
    path = folder / "map.yaml"
    path.write_text(
        f"image: map{suffix}\nmode: {mode}\nresolution: 0.1\norigin: [0, 0, 0]\nnegate: {negate}\n"
        "occupied_thresh: 0.65\nfree_thresh: 0.25\n"
    )
    return path


def test_scale_maps_hold_percentages(tmp_path: Path) -> None:
    """Greys of 255 (1 - p): below 0.25 free, above 0.65 occupied, between them in proportion (nav2_map_server)."""
    darkness = np.array([[0.0, 0.2, 0.3, 0.45, 0.5, 0.6, 0.7, 1.0]])
    picture = np.round(255 * (1 - darkness)).astype(np.uint8)
    expected = [0, 0, 13, 50, 63, 88, 100, 100]
    scale = load_ros_map(write_map(tmp_path, picture, "scale"))
    assert np.abs(scale.percent[0] - expected).max() <= 1
    assert scale.occupied[0].tolist() == [p >= 50 for p in scale.percent[0]]
    assert not (scale.occupied & scale.free).any()
    strict = load_ros_map(tmp_path / "map.yaml", solid_percent=80)
    assert strict.occupied[0].tolist() == [p >= 80 for p in scale.percent[0]]
    negated = load_ros_map(write_map(tmp_path, 255 - picture, "scale", negate=1))
    assert np.array_equal(negated.percent, scale.percent)
    trinary = load_ros_map(write_map(tmp_path, picture, "trinary"))
    assert trinary.percent[0].tolist() == [0, 0, -1, -1, -1, -1, 100, 100]


def test_transparent_pixels_are_unknown_in_scale_maps(tmp_path: Path) -> None:
    picture = np.zeros((1, 4, 4), np.uint8)
    picture[0, :, :3] = np.array([255, 255, 0, 0])[:, None]
    picture[0, :, 3] = [255, 0, 255, 128]
    assert load_ros_map(write_map(tmp_path, picture, "scale")).percent[0].tolist() == [0, -1, 100, -1]
    # A trinary map averages the opacity in, as map_server always did.
    assert load_ros_map(write_map(tmp_path, picture, "trinary")).percent[0].tolist() == [0, -1, 100, 100]


def test_colour_and_16_bit_pictures(tmp_path: Path) -> None:
    colour = np.zeros((1, 2, 3), np.uint8)
    colour[0, 0] = 255, 0, 255  # the mean counts, not the luminance: 2/3 bright, unknown
    assert load_ros_map(write_map(tmp_path, colour, "trinary")).percent[0].tolist() == [-1, 100]
    deep = np.array([[65535, 32768, 0]], np.uint16)
    assert load_ros_map(write_map(tmp_path, deep, "trinary")).percent[0].tolist() == [0, -1, 100]
    assert load_ros_map(write_map(tmp_path, deep, "trinary", ".pgm")).percent[0].tolist() == [0, -1, 100]


def test_knobs_of_maps_are_checked(tmp_path: Path) -> None:
    path = write_map(tmp_path, np.full((50, 60), 254, np.uint8), "scale")
    for options, words in (
        ({"solid_percent": 0}, "1 to 100"),
        ({"goal_radius_m": -1.0}, "goal_radius_m"),
        ({"time_limit_s": 0.0}, "time_limit_s"),
    ):
        with pytest.raises(SceneError, match=words):
            sim.load_scene(str(path), **options)
