"""BARN grids and ROS maps become scenes; bad ones become one clear line."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sim
from robonav.errors import SceneError
from sim.barn import load_barn
from sim.geodesic import obstacle_distance_m
from sim.ros_map import load_ros_map, merge_cells

BARN = Path(os.environ.get("ROBONAV_BARN_DIR", Path(__file__).resolve().parents[3] / "shared" / "barn"))
needs_barn = pytest.mark.skipif(not BARN.is_dir(), reason=f"BARN worlds are not at {BARN}; set ROBONAV_BARN_DIR")


def write_map(folder: Path, picture: np.ndarray, suffix: str = ".pgm", **changes: object) -> Path:
    values: dict[str, object] = {
        "image": f"map{suffix}",
        "resolution": 0.1,
        "origin": "[-1.0, -2.0, 0.0]",
        "negate": 0,
        "occupied_thresh": 0.65,
        "free_thresh": 0.196,
    }
    values.update(changes)
    cv2.imwrite(str(folder / f"map{suffix}"), picture)
    path = folder / "map.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in values.items() if value is not None))
    return path


def room() -> np.ndarray:
    """8 x 6 m at 0.1 m, walls of one cell, a block in the picture's upper left quarter."""
    image = np.full((60, 80), 254, np.uint8)
    image[[0, -1]] = 0
    image[:, [0, -1]] = 0
    image[10:20, 5:25] = 0
    return image


@pytest.mark.parametrize("suffix", [".pgm", ".png"])
def test_ros_map_keeps_cells_where_they_are(tmp_path: Path, suffix: str) -> None:
    path = write_map(tmp_path, room(), suffix)
    scene = sim.load_scene(str(path), start=(0.0, 0.0, 0.5), goal=(6.0, 3.0)).scene(0)
    assert scene.bounds_m == pytest.approx((-1.0, -2.0, 7.0, 4.0))
    assert scene.start == (0.0, 0.0, 0.5)
    # The block: columns 5 to 25 and rows 10 to 20 from the top of 60.
    assert obstacle_distance_m(scene, np.array([-1.0 + 1.5, 4.0 - 1.5])) == 0.0
    assert obstacle_distance_m(scene, np.array([-1.0 + 1.5, 4.0 - 2.5])) == pytest.approx(0.5, abs=1e-5)
    assert obstacle_distance_m(scene, np.array([-1.0 + 3.5, 4.0 - 1.5])) == pytest.approx(1.0, abs=1e-5)
    assert len(scene.boxes) < 10


def test_negated_map_is_the_same_world(tmp_path: Path) -> None:
    plain = load_ros_map(write_map(tmp_path, room()))
    negated = load_ros_map(write_map(tmp_path, 255 - room(), negate=1))
    assert np.array_equal(plain.occupied, negated.occupied)
    assert np.array_equal(plain.free, negated.free)


def test_unknown_cells_close_the_map(tmp_path: Path) -> None:
    image = np.full((60, 80), 205, np.uint8)
    image[5:55, 5:75] = 254
    scene = sim.load_scene(str(write_map(tmp_path, image))).scene(0)
    assert obstacle_distance_m(scene, np.array([3.0, 3.55])) == 0.0  # the first unknown row
    assert obstacle_distance_m(scene, np.array([3.0, 3.25])) > 0.0


def test_rotated_origin_turns_the_boxes(tmp_path: Path) -> None:
    path = write_map(tmp_path, room(), origin=f"[1.0, 0.0, {math.pi / 2}]")
    scene = sim.load_scene(str(path)).scene(0)
    # In the map frame, 1.5 m along the picture's x is now 1.5 m along y, and its y points to -x.
    assert obstacle_distance_m(scene, np.array([1.0 - 4.5, 1.5])) == 0.0
    assert obstacle_distance_m(scene, np.array([1.0 - 3.5, 1.5])) == pytest.approx(0.5, abs=1e-5)


def test_block_style_and_comments_are_read(tmp_path: Path) -> None:
    path = write_map(tmp_path, room(), origin=None)
    path.write_text("---\n# a map\n" + path.read_text() + "origin:  # corner\n- -1.0\n- -2.0\n- 0\n")
    assert load_ros_map(path).origin == (-1.0, -2.0, 0.0)


def test_tasks_without_start_are_drawn_by_seed(tmp_path: Path) -> None:
    source = sim.load_scene(str(write_map(tmp_path, room())))
    first, again, other = source.scene(1), source.scene(1), source.scene(2)
    assert first.start == again.start
    assert first.goal == again.goal
    assert first.start != other.start
    assert math.dist(first.start[:2], first.goal) >= 4.0


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_merged_rectangles_cover_each_cell_once(solid: np.ndarray) -> None:
    count = np.zeros(solid.shape, int)
    for row, column, rows, columns in merge_cells(solid):
        count[row : row + rows, column : column + columns] += 1
    assert np.array_equal(count, solid.astype(int))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": "nan"}, "resolution: expected a finite number"),
        ({"resolution": ".nan"}, "resolution: expected a finite number"),
        ({"resolution": 0}, "above 0"),
        ({"resolution": -0.1}, "above 0"),
        ({"resolution": "fine"}, "finite number"),
        ({"resolution": None}, "'resolution'"),
        ({"resolution": 50.0}, r"up to 300 x 300 m, got 50\.0 \(a map of 4000 x 3000 m"),
        ({"resolution": 1e300}, r"got 1e\+300"),
        ({"resolution": "1.0e308"}, r"a map of inf x inf m"),
        ({"image": "other.pgm"}, "no such file"),
        ({"origin": "[0, 0]"}, "origin"),
        ({"origin": "[0, .nan, 0]"}, "origin"),
        ({"negate": 2}, "negate"),
        ({"mode": "raw"}, "mode 'raw'"),
        ({"occupied_thresh": 0.1, "free_thresh": 0.5}, "thresholds"),
    ],
)
def test_bad_map_files_are_one_clear_line(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(SceneError, match=words) as error:
        sim.load_scene(str(write_map(tmp_path, room(), **changes)))
    assert "\n" not in str(error.value)
    assert "map.yaml" in str(error.value)


def test_a_long_map_that_is_turned_covers_more_than_its_cells(tmp_path: Path) -> None:
    corridor = np.full((10, 3000), 254, np.uint8)  # 900 x 3 m
    path = write_map(tmp_path, corridor, resolution=0.3)
    assert load_ros_map(path).free.all()
    with pytest.raises(SceneError, match=r"turned by 0\.78"):
        load_ros_map(write_map(tmp_path, corridor, resolution=0.3, origin=f"[0, 0, {math.pi / 4}]"))


@pytest.mark.parametrize("content", [b"", b"not a picture at all", b"P5\n80 60\n255\n\x00"])
def test_an_image_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write_map(tmp_path, room())
    (tmp_path / "map.pgm").write_bytes(content)
    with pytest.raises(SceneError, match="no picture"):
        sim.load_scene(str(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": (0.0, 3.0, 0.0), "goal": (6.0, 3.0)}, "start .* inside a wall"),
        ({"start": (0.0, 0.0, 0.0), "goal": (0.5, 2.5)}, "goal .* inside a wall"),
        ({"start": (0.0, 0.0, 0.0), "goal": (16.0, 2.5)}, "outside the map"),
        ({"start": (0.0, 0.0, 0.0)}, "both start and goal"),
        ({"start": (0.0, 0.0)}, "list of 3"),
        ({"strat": (0.0, 0.0, 0.0)}, "did you mean 'start'"),
        ({"goal_distance_min_m": 50.0}, "no start and goal"),
    ],
)
def test_bad_tasks_on_a_map_are_refused(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(SceneError, match=words):
        sim.load_scene(str(write_map(tmp_path, room())), **options)


def test_a_goal_behind_a_wall_is_refused(tmp_path: Path) -> None:
    image = room()
    image[:, 40:42] = 0
    task = {"start": (0.0, 0.0, 0.0), "goal": (5.0, 0.0)}
    with pytest.raises(SceneError, match="no way from start"):
        sim.load_scene(str(write_map(tmp_path, image)), **task)
    image[40:46, 40:42] = 254  # a door of 0.6 m
    sim.load_scene(str(write_map(tmp_path, image)), **task)


def test_missing_and_binary_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no such file"):
        sim.load_scene(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SceneError, match="text"):
        sim.load_scene(str(tmp_path / "bad.yaml"))
    (tmp_path / "bad.yaml").write_text("just words\n")
    with pytest.raises(SceneError, match="line 1"):
        sim.load_scene(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((30, 29), np.int64), r"shape \(30, 30\)"),
        (np.full((30, 30), 2), "0 .* and 1"),
        (np.zeros((30, 30)), "integers"),
        (np.array([{"a": 1}], dtype=object), "no valid"),
    ],
)
def test_bad_barn_grids_are_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "grid_7.npy", array)
    with pytest.raises(SceneError, match=words):
        sim.load_scene(str(tmp_path / "grid_7.npy"))


def test_barn_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no such file"):
        sim.load_scene(str(tmp_path / "grid_0.npy"))
    (tmp_path / "grid_0.npy").write_bytes(b"\x93NUMPY rubbish")
    with pytest.raises(SceneError, match="no valid"):
        sim.load_scene(str(tmp_path / "grid_0.npy"))


def test_barn_geometry_and_a_closed_world(tmp_path: Path) -> None:
    grid = np.zeros((30, 30), np.int64)
    grid[0] = grid[29] = 1
    grid[3, 7] = 1
    np.save(tmp_path / "grid_5.npy", grid)
    scene = load_barn(tmp_path / "grid_5.npy")
    assert scene.name == "barn-5"
    assert len(scene.cylinders) == 61
    assert np.isclose(scene.cylinders, [-4.425 + 0.45, 5.175 + 1.05, 0.075]).all(axis=1).any()
    assert scene.start == pytest.approx((-2.25, 3.0, math.pi / 2))
    assert (scene.goal, scene.goal_radius_m, scene.time_limit_s) == ((-2.25, 13.0), 1.0, 100.0)
    grid[:, 15] = 1  # a wall across
    np.save(tmp_path / "grid_5.npy", grid)
    with pytest.raises(SceneError, match="no way"):
        sim.load_scene(str(tmp_path / "grid_5.npy"))


@needs_barn
@pytest.mark.parametrize("world", [1, 2, 5, 47, 299])
def test_real_barn_worlds_load(world: int) -> None:
    path = BARN / "grid_files" / f"grid_{world}.npy"
    scene = sim.load_scene(str(path)).scene(0)
    assert len(scene.cylinders) == np.load(path).sum()


@needs_barn
def test_barn_map_and_grid_agree() -> None:
    """The same world as a ROS map and as a grid: each cylinder stands on an occupied cell, within the map's raster."""
    grid = sim.load_scene(str(BARN / "grid_files" / "grid_1.npy")).scene(0)
    options = {"start": (-2.25, 3.0, 1.57), "goal": (-2.25, 9.8)}
    ros = sim.load_scene(str(BARN / "map_files" / "yaml_1.yaml"), **options).scene(0)
    inside = grid.cylinders[grid.cylinders[:, 1] < 9.8, :2]
    assert (obstacle_distance_m(ros, inside) <= 0.16).mean() > 0.99
