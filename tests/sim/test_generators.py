"""Generators: every scene has a route for the footprint and free ends, equal numbers give equal scenes."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import sim
from robonav.config import config_dir, load_robot
from robonav.errors import SceneError
from robonav.types import Scene
from sim.barn import load_barn
from sim.generators.clutter import automaton, cleared
from sim.generators.knob_draws import CONFIGS
from sim.generators.plan import turned
from sim.generators.registry import KINDS
from sim.generators.statistics import SceneStatistics, statistics
from sim.geodesic import ObstacleGrid, footprint_clearance_m, obstacle_distance_m
from sim.route_proof import CIRCLE_GRID_M, RouteProof, circle_regions, footprint_regions, regions_at
from sim.scene_check import check_scene

SPEC = load_robot("a1")
PRESETS = sorted(p.stem for p in (config_dir() / "scenes").glob("*.toml") if p.stem not in ("office", "office-tasks"))
GENERATED = ("corridors", "doors-moving", "ramps", "offices", "warehouse", "maze", "clutter", "tmaze", "crowd-dense")
BARN = Path(os.environ.get("ROBONAV_BARN_DIR", Path(__file__).resolve().parents[3] / "shared" / "barn"))


def same(a: Scene, b: Scene) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Scene))


def check(scene: Scene) -> None:
    """Shapes and movers are sound, start and goal are free for any heading, and the ends lie in one region."""
    check_scene(scene, scene.name, SPEC)
    ends = np.array([scene.start[:2], scene.goal])
    assert obstacle_distance_m(scene, ends).min() > SPEC.radius_m, scene.name
    assert footprint_clearance_m(scene, scene.start, SPEC) > 0.0, scene.name
    assert disc_joins(scene), scene.name
    assert math.dist(scene.start[:2], scene.goal) > scene.goal_radius_m + 0.5, scene.name


def disc_joins(scene: Scene) -> bool:
    """A way for the disc inside the footprint, the least that a route needs, by connected components."""
    grid = ObstacleGrid.of(scene, 0.1)
    free = (grid.distance_m >= SPEC.inner_radius_m).astype(np.uint8)
    labels = cv2.connectedComponents(free, connectivity=8)[1]
    start, goal = (tuple(round((p[k] - grid.origin_m[k]) / 0.1) for k in (0, 1)) for p in (scene.start, scene.goal))
    return bool(labels[start] == labels[goal] != 0)


def erosion_joins(scene: Scene, resolution_m: float = 0.025, headings: int = 16) -> bool:
    """A way for the rectangle by another method: a fine raster, eroded by the turned footprint, labelled in 3-D."""
    from scipy import ndimage

    x_min, y_min, x_max, y_max = (*(v - 0.5 for v in scene.bounds_m[:2]), *(v + 0.5 for v in scene.bounds_m[2:]))
    xs, ys = np.arange(x_min, x_max, resolution_m), np.arange(y_min, y_max, resolution_m)
    grid = ObstacleGrid.of(dataclasses.replace(scene, bounds_m=(x_min, y_min, x_max, y_max)), resolution_m)
    free = (grid.distance_m > 0).astype(np.uint8)
    half = math.ceil(SPEC.radius_m / resolution_m)
    u, v = np.meshgrid(*(resolution_m * np.arange(-half, half + 1),) * 2, indexing="ij")
    layers = []
    for k in range(headings):
        c, s = math.cos(math.pi * k / headings), math.sin(math.pi * k / headings)
        inside = (np.abs(c * u + s * v) <= SPEC.length_m / 2) & (np.abs(c * v - s * u) <= SPEC.width_m / 2)
        layers.append(cv2.erode(free, inside.astype(np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1))
    labels, _ = ndimage.label(np.stack([*layers, *layers]))  # twice, so that the turn closes

    def at(place: tuple[float, ...]) -> set[int]:
        i, j = round((place[0] - xs[0]) / resolution_m), round((place[1] - ys[0]) / resolution_m)
        return set(labels[:, i, j].tolist()) - {0}

    return bool(at(scene.start) & at(scene.goal))


@pytest.mark.parametrize("name", PRESETS)
def test_scenes_of_every_preset_are_sound(name: str) -> None:
    source = sim.load_scene(name, SPEC)
    for seed in range(1000, 1011):
        check(source.scene(seed))


@pytest.mark.parametrize("name", GENERATED)
def test_equal_numbers_give_equal_scenes_and_others_do_not(name: str) -> None:
    source, again = sim.load_scene(name, SPEC), sim.load_scene(name, SPEC)
    assert same(source.scene(5), again.scene(5))
    assert not same(source.scene(5), source.scene(6))
    assert source.scene(5).name == f"{name}-5"


@pytest.mark.parametrize("name", ["corridors", "offices", "warehouse", "maze", "clutter-dense", "tmaze"])
def test_the_proof_agrees_with_another_method(name: str) -> None:
    pytest.importorskip("scipy")
    source = sim.load_scene(name, SPEC)
    for seed in range(2):
        assert erosion_joins(source.scene(seed)), seed


def gap_scene(gap_m: float) -> Scene:
    walls = [[0, 0, 6, 0, 0.1], [0, 4, 6, 4, 0.1], [0, 0, 0, 4, 0.1], [6, 0, 6, 4, 0.1]]
    walls += [[3, 0, 3, 2 - gap_m / 2, 0.4], [3, 2 + gap_m / 2, 3, 4, 0.4]]
    return Scene("gap", (0, 0, 6, 4), (1.0, 2.0, 0.0), (5.0, 2.0), walls=np.array(walls, np.float32))


@pytest.mark.parametrize(("gap_m", "passes"), [(0.30, False), (0.50, True), (0.60, True), (1.30, True)])
def test_a_gap_decides_about_the_proof(gap_m: float, passes: bool) -> None:
    scene = gap_scene(gap_m)
    assert RouteProof(scene, SPEC).joins((1.0, 2.0), (5.0, 2.0)) == passes
    grid = ObstacleGrid.of(scene, CIRCLE_GRID_M)
    circle = circle_regions(grid, SPEC.radius_m)
    assert bool(regions_at(grid, circle, (1, 2)) & regions_at(grid, circle, (5, 2))) == (gap_m > 1.2)


def test_a_footprint_that_fits_both_legs_of_a_bend_still_has_to_turn() -> None:
    """0.5 m wide legs at a right angle: the disc of the footprint's width passes, the footprint itself cannot turn."""
    boxes = [[1.25, 2.0, 2.5, 3.0, 0.0], [3.0, 0.0, 6.0, 0.02, 0.0], [3.0, 2.5, 0.02, 5.0, 0.0]]
    for length_m, turns in ((0.4, True), (2.0, False)):
        scene = Scene("bend", (0, 0, 3, 5), (0.3, 0.25, 0.0), (2.75, 4.0), boxes=np.array(boxes, np.float32))
        grid = ObstacleGrid.of(scene, 0.05)
        regions = footprint_regions(grid, length_m, 0.3)
        assert bool(regions_at(grid, regions, (1.2, 0.25)) & regions_at(grid, regions, (2.75, 3.5))) == turns


def test_turning_a_scene_keeps_its_distances() -> None:
    scene = sim.load_scene("doors-moving", SPEC).scene(2)
    points = np.random.default_rng(0).uniform(-4, 4, (50, 2))
    ends = [scene.start[:2], scene.goal, *(p for m in scene.movers for p in m.waypoints_m)]
    for quarters in range(4):
        for mirror in (False, True):
            other = turned(scene, quarters, mirror)
            c, s = round(math.cos(quarters * math.pi / 2)), round(math.sin(quarters * math.pi / 2))
            flipped = (points if not mirror else points * [-1, 1]) @ np.array([[c, s], [-s, c]])
            assert obstacle_distance_m(other, flipped) == pytest.approx(obstacle_distance_m(scene, points), abs=1e-5)
            moved = [other.start[:2], other.goal, *(p for m in other.movers for p in m.waypoints_m)]
            assert obstacle_distance_m(other, np.array(moved)) == pytest.approx(
                obstacle_distance_m(scene, np.array(ends)), abs=1e-5
            )


def test_the_cue_shows_the_arm_and_hides_in_the_stem() -> None:
    for name, opposite in (("tmaze", False), ("tmaze", True), ("tmaze-long", False)):
        source = sim.load_scene(name, SPEC, opposite=opposite)
        sides = []
        for seed in range(12):
            scene = source.scene(seed)
            x, y, yaw = scene.start
            turn = round(yaw / (math.pi / 2)) * math.pi / 2  # the stem's direction
            ahead, left = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
            cue, goal = scene.cylinders[0, :2] - [x, y], np.array(scene.goal) - [x, y]
            sides.append(bool(goal @ left > 0))
            assert ((cue @ left > 0) == sides[-1]) != opposite
            assert goal @ ahead > (3.0 if name == "tmaze" else 6.0)

            def sees(place: np.ndarray, scene: Scene = scene) -> bool:
                centre, radius = scene.cylinders[0, :2].astype(float), float(scene.cylinders[0, 2])
                across = np.array([-(centre - place)[1], (centre - place)[0]]) / np.linalg.norm(centre - place)
                bare = dataclasses.replace(scene, cylinders=np.zeros((0, 3), np.float32))
                lines = [np.linspace(place, centre + k * radius * across, 400) for k in (-0.9, 0.0, 0.9)]
                return any(obstacle_distance_m(bare, line).min() > 0 for line in lines)

            assert sees(np.array([x, y]))
            assert not sees(np.array([x, y]) + (3.2 - 0.6 + 1.0) * ahead)  # a metre inside the stem
        assert 2 <= sum(sides) <= 10


def test_clutter_keeps_a_passage_and_its_walls() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        cells = automaton(rng, 0.34, 3)
        passage = cleared(cells, 0.7)
        assert passage[[0, -1]].all()
        assert (passage <= cells).all()
        scene = sim.load_scene("clutter", SPEC)
    assert scene.scene(0).goal == (-2.25, 13.0)


FIELD = (-4.5, 5.1, 0.0, 9.6)  # BARN's 30 x 30 cells
FIGURES = ("free_share", "way_m", "nearest_m", "width_m", "tortuosity")
# Mean and standard deviation over the 250 worlds that are for development, and what the means may differ by.
BARN_FIGURES = np.array([[0.801, 0.071], [10.153, 0.162], [0.442, 0.148], [0.997, 0.318], [1.018, 0.015]])
ALLOWED = np.array([0.02, 0.1, 0.03, 0.05, 0.012])


def clutter_figures(scenes: list[Scene]) -> np.ndarray:
    """(n, 5) FIGURES of scenes."""
    return np.array([dataclasses.astuple(statistics(scene, SPEC, FIELD)) for scene in scenes])


def test_clutter_has_the_statistics_of_barn() -> None:
    """25 worlds against the dataset's figures: the differences allowed, and three standard errors of so few worlds."""
    assert tuple(f.name for f in dataclasses.fields(SceneStatistics)) == FIGURES
    source = sim.load_scene("clutter", SPEC)
    ours = clutter_figures([source.scene(seed) for seed in range(25)])
    error = 3 * np.hypot(BARN_FIGURES[:, 1] / math.sqrt(250), ours.std(axis=0) / math.sqrt(25))
    assert (np.abs(ours.mean(axis=0) - BARN_FIGURES[:, 0]) < ALLOWED + error).all()
    spread = ours.std(axis=0) / BARN_FIGURES[:, 1]
    assert ((spread > 0.5) & (spread < 2.0)).all()


@pytest.mark.skipif(not BARN.is_dir(), reason=f"BARN worlds are not at {BARN}; set ROBONAV_BARN_DIR")
def test_the_figures_of_barn_are_those_of_its_files() -> None:
    files = sorted((BARN / "grid_files").glob("grid_*.npy"))[::16]
    barn = clutter_figures([load_barn(path) for path in files])
    error = 3 * BARN_FIGURES[:, 1] / math.sqrt(len(files))
    assert (np.abs(barn.mean(axis=0) - BARN_FIGURES[:, 0]) < error).all()


@pytest.mark.slow
@pytest.mark.skipif(not BARN.is_dir(), reason=f"BARN worlds are not at {BARN}; set ROBONAV_BARN_DIR")
def test_clutter_and_barn_world_by_world() -> None:
    """All worlds at hand and 500 generated ones, as in docs/simulation.md; about a minute."""
    from scipy import stats

    source = sim.load_scene("clutter", SPEC)
    barn = clutter_figures([load_barn(path) for path in sorted((BARN / "grid_files").glob("grid_*.npy"))])
    ours = clutter_figures([source.scene(seed) for seed in range(500)])
    assert np.abs(barn.mean(axis=0) - BARN_FIGURES[:, 0]).max() < 0.002
    assert np.abs(barn.std(axis=0) - BARN_FIGURES[:, 1]).max() < 0.002
    assert (np.abs(ours.mean(axis=0) - barn.mean(axis=0)) < ALLOWED).all()
    apart = [stats.ks_2samp(barn[:, k], ours[:, k]).statistic for k in range(len(FIGURES))]
    assert max(apart) < 0.17  # Kolmogorov and Smirnov's distance of the distributions
    assert apart[0] < 0.1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("corridors", {"widht_m": (1, 2)}, "did you mean 'width_m'"),
        ("corridors", {"width_m": (2.0, 1.0)}, "width_m: expected a range"),
        ("corridors", {"width_m": (-1.0, 1.0)}, "width_m: expected a range"),
        ("corridors", {"segment_m": (1.0, 2.0)}, "segment_m"),
        ("corridors", {"door_m": (1.0, 3.0)}, "door_m"),
        ("corridors", {"moving_doors": 1.5}, "moving_doors: expected within 0 to 1"),
        ("corridors", {"doors": (-1, 2)}, "doors"),
        ("corridors", {"threshold_rise_m": (0.02, 0.5)}, "threshold_rise_m: expected at most 0.1"),
        ("doors-moving", {"door_period_s": (1.0, 2.0)}, "door_period_s"),
        ("offices", {"corridors": (1, 3)}, "corridors: expected 1 or 2"),
        ("offices", {"length_m": (3.0, 4.0)}, "length_m"),
        ("offices", {"time_limit_s": -1.0}, "time_limit_s"),
        ("warehouse", {"length_m": (2.0, 3.0)}, "length_m"),
        ("warehouse", {"missing": -0.1}, "missing"),
        ("maze", {"cells": (5, 40)}, "2 to 20"),
        ("maze", {"cell_m": (0.3, 0.4)}, "cell_m"),
        ("clutter", {"fill": (0.2, 1.2)}, "fill: expected within 0 to 1"),
        ("clutter", {"passage_m": (0.7, 9.0)}, "passage_m"),
        ("tmaze", {"width_m": (1.2, 3.0)}, "width_m: expected at most 1.8"),
        ("crowd-few", {"speed_mps": (0.3, 3.0)}, "within 0.2 to 1.5"),
        ("crowd-few", {"base": "romms"}, "did you mean 'rooms'"),
        ("crowd-few", {"base": "crowd-few"}, "which is itself"),
        ("crowd-few", {"behaviours": ("flying",)}, "unknown choice 'flying'"),
        ("crowd-few", {"pedestrians": (5, 2)}, "pedestrians"),
    ],
)
def test_knobs_out_of_range_are_one_clear_line(name: str, options: dict, words: str) -> None:
    with pytest.raises(SceneError, match=words) as error:
        sim.load_scene(name, SPEC, **options)
    assert "\n" not in str(error.value)


def test_fast_crowds_have_robots_too() -> None:
    """Robots stay at 1 m/s where the pedestrians' slowest is faster."""
    source = sim.load_scene("crowd-few", SPEC, speed_mps=(1.2, 1.5), pedestrians=(2, 2), robots=(2, 2))
    scene = source.scene(1)
    assert [m.speed_mps for m in scene.movers if m.kind == "robot"] == [1.0, 1.0]
    assert all(1.2 <= m.speed_mps <= 1.5 for m in scene.movers if m.kind == "pedestrian")


def test_the_document_names_every_preset_and_knob() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
    named = {p.stem for p in (config_dir() / "scenes").glob("*.toml")} | set(KINDS)
    named |= {f.name for config in CONFIGS.values() for f in dataclasses.fields(config)}
    assert sorted(word for word in named if f"`{word}`" not in text) == []


def test_the_documents_scene_files_work(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
    block = text.split("```toml\n", 1)[1].split("```", 1)[0]
    whole = [line.removeprefix("# ") for line in block.splitlines()]
    path = tmp_path / "mine.toml"
    path.write_text(block)
    assert len(sim.load_scene(str(path), SPEC).scene(0).walls) > 10
    crowd = [line for line in whole if line.startswith(("[crowd]", "base", "pedestrians"))]
    path.write_text('kind = "crowd"\n' + "\n".join(crowd))
    assert 4 <= len(sim.load_scene(str(path), SPEC).scene(0).movers) <= 9
    of_map = [line for line in whole if line.startswith(("[map]", "file", "start", "goal"))]
    office = "\n".join(of_map).replace("office/", f"{config_dir()}/scenes/office/")
    movers = [line for line in whole if line.startswith(("[[movers]]", "behaviour", "waypoints_m", "speed_mps"))]
    path.write_text(f'kind = "map"\n{office}\n' + "\n".join(movers) + '\nkind = "pedestrian"\n')
    assert sim.load_scene(str(path), SPEC).scene(0).movers[0].behaviour == "reactive"


def test_knobs_that_leave_no_room_are_refused() -> None:
    with pytest.raises(SceneError, match="no way for robot 'a1' in 3 draws"):
        sim.load_scene("maze", SPEC, cell_m=(0.55, 0.6), attempts=3).scene(0)
    with pytest.raises(SceneError, match="room for 90 pedestrians"):
        sim.load_scene("crowd-few", SPEC, pedestrians=(90, 90), attempts=1).scene(0)
    with pytest.raises(SceneError, match="0 or more"):
        sim.load_scene("maze", SPEC).scene(-1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('kind = "mazes"\n', "unknown kind 'mazes'; did you mean 'maze'"),
        ("cells = 3\n", "kind = '...'"),
        ('kind = "maze"\n[rooms]\nboxes = [1, 2]\n', "unknown key 'rooms'"),
        ('kind = "maze"\nmaze = 3\n', "a table for MazeConfig"),
        ('kind = "maze"\nmovers = 3\n', r"tables \[\[movers\]\]"),
        (
            'kind = "rooms"\n[[movers]]\nkind = "cat"\nbehaviour = "waypoint"\nwaypoints_m = []\n',
            "unknown choice 'cat'",
        ),
        (
            'kind = "rooms"\n[[movers]]\nkind = "robot"\nbehaviour = "waypoint"\nwaypoints_m = [[0, 0], [90, 0]]\n',
            r"mover 0 \(robot, waypoint\): waypoint 1 \(90.00, 0.00\) leaves the map",
        ),
    ],
)
def test_bad_scene_files_are_one_clear_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SceneError, match=words) as error:
        sim.load_scene(str(path), SPEC)
    assert "\n" not in str(error.value)


def test_a_scene_file_may_bring_its_own_movers(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    way = "waypoints_m = [[-1.0, 0.0], [1.0, 0.0]]"
    path.write_text(
        'kind = "rooms"\n[rooms]\nboxes = [0, 0]\ncylinders = [0, 0]\n'
        f'[[movers]]\nkind = "robot"\nbehaviour = "waypoint"\nbox_m = [0.6, 0.3]\nspeed_mps = 0.4\n{way}\n'
    )
    source = sim.load_scene(str(path), SPEC)
    fits = [seed for seed in range(8) if _loads(source, seed)]
    assert fits
    scene = source.scene(fits[0])
    assert scene.movers[0].waypoints_m == ((-1.0, 0.0), (1.0, 0.0))


def test_movers_in_a_fixed_scene_leave_it_fixed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    task = f'file = "{config_dir()}/scenes/office/office.yaml"\nstart = [1.8, 1.6, 0.6]\ngoal = [12.0, 7.2]\n'
    way = "waypoints_m = [[3.6, 5.0], [9.0, 5.0]]"
    path.write_text(f'kind = "map"\n[map]\n{task}[[movers]]\nkind = "pedestrian"\nbehaviour = "waypoint"\n{way}\n')
    source = sim.load_scene(str(path), SPEC)
    assert source.scene(0) is source.scene(1)
    assert len(source.scene(0).movers) == 1


def _loads(source: sim.scenes.SceneSource, seed: int) -> bool:
    try:
        source.scene(seed)
    except SceneError as error:
        assert "starts on the robot" in str(error)
        return False
    return True
