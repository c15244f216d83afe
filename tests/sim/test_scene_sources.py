"""Scene presets and the generator: equal numbers give equal scenes, and every scene has a way to its goal."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

import sim
from robonav.config import load_robot
from robonav.errors import RobonavError, SceneError
from robonav.types import Scene
from sim.generators.base import GeneratedSource
from sim.generators.registry import generator_of
from sim.generators.rooms import RoomsConfig
from sim.geodesic import GeodesicField, ObstacleGrid, check_task, obstacle_distance_m

SPEC = load_robot("a1")
ROOMS = generator_of("rooms", "tests")


def same(a: Scene, b: Scene) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Scene))


def joined(scene: Scene, clearance_m: float, resolution_m: float = 0.04) -> bool:
    """Start and goal lie in one free region: connected components instead of the generator's own search."""
    x_min, y_min, x_max, y_max = scene.bounds_m
    xs, ys = np.arange(x_min, x_max, resolution_m), np.arange(y_min, y_max, resolution_m)
    points = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
    free = (obstacle_distance_m(scene, points) >= clearance_m).astype(np.uint8)
    _, labels = cv2.connectedComponents(free, connectivity=4)

    def label(place: tuple[float, ...]) -> int:
        return int(labels[round((place[0] - x_min) / resolution_m), round((place[1] - y_min) / resolution_m)])

    return label(scene.start) == label(scene.goal) != 0


def test_equal_numbers_give_equal_scenes_and_others_do_not() -> None:
    source, again = sim.load_scene("rooms"), sim.load_scene("rooms")
    for seed in range(20):
        assert same(source.scene(seed), again.scene(seed))
        assert not same(source.scene(seed), source.scene(seed + 1))


def test_every_room_has_a_way_for_the_turning_robot() -> None:
    source = sim.load_scene("rooms", SPEC)
    yaws = []
    for seed in range(80):
        scene = source.scene(seed)
        assert joined(scene, SPEC.radius_m), seed
        assert math.dist(scene.start[:2], scene.goal) >= 4.0
        assert obstacle_distance_m(scene, np.array([scene.start[:2], scene.goal])).min() > SPEC.radius_m + 0.1
        assert 4 <= len(scene.boxes) + len(scene.cylinders) <= 10
        assert len(scene.walls) == 4
        yaws.append(scene.start[2])
    assert np.histogram(yaws, bins=4, range=(-math.pi, math.pi))[0].min() > 8


def test_crowded_rooms_have_ways_too() -> None:
    config = RoomsConfig(boxes=(8, 10), cylinders=(8, 10))
    source = GeneratedSource("crowded", ROOMS, config, SPEC)
    for seed in range(30):
        assert joined(source.scene(seed), SPEC.radius_m), seed


def test_a_room_without_space_is_refused() -> None:
    config = RoomsConfig(boxes=(60, 60), box_side_m=(2.0, 2.0), attempts=5)
    with pytest.raises(SceneError, match="no way for robot 'a1' in 5 draws"):
        GeneratedSource("full", ROOMS, config, SPEC).scene(0)


def test_empty_has_no_obstacles() -> None:
    scene = sim.load_scene("empty").scene(3)
    assert len(scene.boxes) == len(scene.cylinders) == 0


def test_office_goes_through_the_corridor() -> None:
    source = sim.load_scene("office")
    scene = source.scene(0)
    assert source.scene(99) is scene
    assert joined(scene, SPEC.radius_m)
    field = GeodesicField.of(ObstacleGrid.of(scene, 0.05), scene.goal, SPEC.inner_radius_m)
    length = field.at(*scene.start[:2])
    assert 12.0 < length < 16.0
    assert length > math.dist(scene.start[:2], scene.goal) + 1.0  # walls stand in between


def test_office_map_is_what_the_script_draws(tmp_path) -> None:
    from robonav.config import config_dir
    from sim.draw_office import main

    assert main([str(tmp_path)]) == 0
    folder = config_dir() / "scenes" / "office"
    assert (tmp_path / "office.yaml").read_text() == (folder / "office.yaml").read_text()
    drawn, shipped = (cv2.imread(str(f / "office.png"), cv2.IMREAD_GRAYSCALE) for f in (tmp_path, folder))
    assert np.array_equal(drawn, shipped)


def test_options_change_the_knobs() -> None:
    scene = sim.load_scene("rooms", boxes=(0, 0), cylinders=(7, 7)).scene(1)
    assert len(scene.boxes) == 0
    assert len(scene.cylinders) == 7


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("romms", {}, "did you mean 'rooms'"),
        ("../rooms", {}, "no scene"),
        ("nowhere.toml", {}, "no such file"),
        ("rooms", {"boxs": (1, 2)}, "did you mean 'boxes'"),
        ("rooms", {"boxes": (3, 1)}, "boxes"),
        ("rooms", {"size_m": (float("nan"), 5.0)}, "finite"),
        ("rooms", {"goal_distance_min_m": 30.0}, "goal_distance_min_m"),
        ("rooms", {"time_limit_s": 0.0}, "time_limit_s"),
    ],
)
def test_bad_names_and_knobs_are_one_clear_line(name: str, options: dict, words: str) -> None:
    with pytest.raises(SceneError, match=words) as error:
        sim.load_scene(name, **options)
    assert "\n" not in str(error.value)


def test_a_scene_file_with_an_unknown_key_is_refused(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('kind = "rooms"\n[rooms]\nsize = [8.0, 9.0]\n')
    with pytest.raises(SceneError, match="unknown key 'size'"):
        sim.load_scene(str(path))
    path.write_text('kind = "map"\n')
    with pytest.raises(SceneError, match=r"\[map\]"):
        sim.load_scene(str(path))


def test_negative_seed_is_refused() -> None:
    with pytest.raises(SceneError, match="0 or more"):
        sim.load_scene("rooms").scene(-1)


def test_unknown_robot_is_refused() -> None:
    with pytest.raises(RobonavError, match="a1"):
        sim.load_scene("rooms", "a2")


def corridor(gap_m: float) -> Scene:
    """Two rooms of 4 x 4 m joined by a gap in the wall between them."""
    wall = [[4, 0, 4, 2 - gap_m / 2, 0.2], [4, 2 + gap_m / 2, 4, 4, 0.2]]
    return Scene("gap", (0, 0, 8, 4), (1.0, 1.0, 0.0), (7.0, 1.0), walls=np.array(wall, np.float32))


def test_gap_decides_about_the_task() -> None:
    check_task(corridor(0.5), SPEC, "gap")
    with pytest.raises(SceneError, match="no way"):
        check_task(corridor(0.25), SPEC, "gap")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": (4.0, 0.5, 0.0)}, "inside a wall"),
        ({"start": (3.7, 0.5, 0.0)}, "inside a wall"),  # the footprint's front reaches into the wall
        ({"goal": (4.0, 0.5)}, "goal .* inside a wall"),
        ({"goal": (9.0, 0.5)}, "outside the map"),
        ({"goal": (float("nan"), 0.5)}, "finite"),
    ],
)
def test_impossible_tasks_are_refused(change: dict, words: str) -> None:
    with pytest.raises(SceneError, match=words):
        check_task(dataclasses.replace(corridor(1.0), **change), SPEC, "gap")


def test_geodesic_length_goes_round_the_wall() -> None:
    scene = Scene("wall", (0, 0, 8, 6), (2.0, 1.0, 0.0), (6.0, 1.0), walls=np.array([[4, 0, 4, 4, 0.2]], np.float32))
    clearance = 0.3
    field = GeodesicField.of(ObstacleGrid.of(scene, 0.05), scene.goal, clearance)
    # Taut string round the wall's end: two tangents to a circle of the clearance at each of its two corners.
    corner = np.array([3.9, 4.0])
    to_corner = math.dist(scene.start[:2], corner)
    straight = math.sqrt(to_corner**2 - clearance**2)
    bearing = math.atan2(corner[1] - 1.0, corner[0] - 2.0) + math.asin(clearance / to_corner)
    exact = 2 * straight + 2 * clearance * (bearing - 0.0) + 0.2
    assert field.at(2.0, 1.0) == pytest.approx(exact, rel=0.03)
    assert field.at(6.0, 1.0) == pytest.approx(0.0, abs=0.05)
    assert field.at(5.0, 1.0) == pytest.approx(1.0, abs=0.05)


def test_grid_distances_equal_the_exact_ones_within_reach() -> None:
    scene = sim.load_scene("rooms").scene(4)
    grid = ObstacleGrid.of(scene, 0.2)
    xs = grid.origin_m[0] + 0.2 * np.arange(grid.distance_m.shape[0])
    ys = grid.origin_m[1] + 0.2 * np.arange(grid.distance_m.shape[1])
    exact = obstacle_distance_m(scene, np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1))
    assert np.allclose(grid.distance_m, np.minimum(exact, 1.0))
