"""SDF worlds become scenes: BARN's, boxes in nested frames; broken ones become one clear line."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from robonav.errors import SceneError
from sim.barn import load_barn, load_barn_path
from sim.geodesic import obstacle_distance_m
from sim.sdf import SdfConfig, load_sdf

BARN = Path(os.environ.get("ROBONAV_BARN_DIR", Path(__file__).resolve().parents[3] / "shared" / "barn"))
needs_barn = pytest.mark.skipif(not BARN.is_dir(), reason=f"BARN worlds are not at {BARN}; set ROBONAV_BARN_DIR")
TASK = {"start": (0.0, 0.0, 0.0), "goal": (5.0, 0.0)}
BOX = "<geometry><box><size>2 1 1</size></box></geometry>"
POST = "<geometry><cylinder><radius>0.3</radius><length>1</length></cylinder></geometry>"


def model(geometry: str, pose: str = "", link: str = "", collision: str = "", name: str = "m") -> str:
    poses = [f"<pose>{p}</pose>" if p else "" for p in (pose, link, collision)]
    inner = f"<link name='l'>{poses[1]}<collision name='c'>{poses[2]}{geometry}</collision></link>"
    return f"<model name='{name}'>{poses[0]}{inner}</model>"


def write(folder: Path, body: str, name: str = "hall.world") -> Path:
    path = folder / name
    path.write_text(f"<?xml version='1.0'?><sdf version='1.6'><world name='default'>{body}</world></sdf>")
    return path


def world_numbers() -> list[int]:
    found = (re.fullmatch(r"world_(\d+)\.world", p.name) for p in (BARN / "world_files").glob("*.world"))
    return sorted(int(m.group(1)) for m in found if m)


@needs_barn
def test_barn_worlds_are_their_grids() -> None:
    """Every cylinder of the field stands in the grid, and what the file leaves out is enclosed on all sides."""
    for number in world_numbers():
        path = BARN / "world_files" / f"world_{number}.world"
        scene, grid = load_sdf(path), load_barn(BARN / "grid_files" / f"grid_{number}.npy")
        assert (scene.name, scene.start, scene.goal) == (grid.name, grid.start, grid.goal)
        assert (scene.goal_radius_m, scene.time_limit_s, scene.bounds_m) == (1.0, 100.0, grid.bounds_m)
        field = scene.cylinders[scene.cylinders[:, 1] > 5.1]
        cells = {tuple(c) for c in np.round(np.array(grid.cylinders)[:, :2], 3).tolist()}
        assert {tuple(c) for c in np.round(field[:, :2], 3).tolist()} <= cells
        places = np.random.default_rng(number).uniform([-4.4, -0.5], [-0.1, 11.0], (4000, 2))
        seen = obstacle_distance_m(scene, places), obstacle_distance_m(grid, places)
        outside = (seen[0] > 0) & (seen[1] > 0)
        # The grid has the enclosure as walls; seen from outside of the solids it is the same world to 2 cm.
        assert (np.abs(seen[0] - seen[1])[outside] < 0.03).mean() > 0.98


@needs_barn
def test_a_barn_world_loads_by_its_path() -> None:
    scene = sim.load_scene(str(BARN / "world_files" / "world_47.world")).scene(3)
    assert scene.name == "barn-47"


@needs_barn
def test_reference_paths_are_free_and_lead_through_the_field() -> None:
    for number in (1, 2, 47, 199, 299):
        way = load_barn_path(BARN / "path_files" / f"path_{number}.npy")
        scene = load_barn(BARN / "grid_files" / f"grid_{number}.npy")
        assert tuple(way[0]) == scene.start[:2]
        assert tuple(way[-1]) == scene.goal
        assert obstacle_distance_m(scene, way[1:-1]).min() > 0.37  # the dataset's robot takes 2 cells to each side
        assert np.abs(np.diff(way[1:-1], axis=0)).max() < 0.1501


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (np.zeros((3, 3), int), r"\(n, 2\)"),
        (np.zeros((3, 2)), "integers"),
        (np.array([[0, 0], [0, 30]]), "column 0 to 29"),
        (np.zeros((0, 2), int), "column 0 to 29"),
    ],
)
def test_bad_reference_paths_are_refused(cells: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "path_1.npy", cells)
    with pytest.raises(SceneError, match=words):
        load_barn_path(tmp_path / "path_1.npy")


def test_frames_add_up(tmp_path: Path) -> None:
    quarter = f"0 0 0 0 0 {math.pi / 2}"
    body = model(BOX, "3 1 0.5 0 0 0", f"1 0 0 0 0 {math.pi / 2}", "0.5 0 0 0 0 0")
    body += model(POST, quarter, "2 0 0.5 0 0 0")
    body += model("<geometry><plane><normal>0 0 1</normal></plane></geometry>")
    body += model("<geometry><box><size>9 9 0.01</size></box></geometry>")  # lies on the floor
    body += model(BOX, "0 0 5 0 0 0", name="lamp")  # hangs above the robot
    body += model("<geometry><sphere><radius>0.4</radius></sphere></geometry>", "5 2 0.4 0 0 0")
    scene = load_sdf(write(tmp_path, body), SdfConfig(**TASK))
    assert scene.boxes.tolist() == [pytest.approx([4.0, 1.5, 2.0, 1.0, math.pi / 2], abs=1e-6)]
    assert scene.cylinders.tolist() == [
        pytest.approx([0.0, 2.0, 0.3], abs=1e-6),
        pytest.approx([5.0, 2.0, 0.4], abs=1e-6),
    ]
    assert scene.bounds_m[0] < -0.9
    assert scene.bounds_m[2] > 5.9


def test_the_state_is_where_models_are(tmp_path: Path) -> None:
    state = "<state world_name='default'><model name='m'><pose>3 2 0.5 0 0 0</pose></model></state>"
    scene = load_sdf(write(tmp_path, model(POST, "9 9 0.5 0 0 0") + state), SdfConfig(**TASK))
    assert scene.cylinders[0].tolist() == pytest.approx([3.0, 2.0, 0.3])


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(-3.1, 3.1)),
    st.tuples(st.floats(0.05, 5), st.floats(0.05, 5)),
)
def test_any_upright_box_keeps_its_place(pose: tuple[float, ...], size: tuple[float, ...]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text = f"<geometry><box><size>{size[0]} {size[1]} 1</size></box></geometry>"
        body = model(text, f"{pose[0]} {pose[1]} 0.5 0 0 {pose[2]}")
        scene = load_sdf(write(Path(folder), body), SdfConfig(start=(0.0, 0.0, 0.0), goal=(1.0, 0.0)))
    assert scene.boxes[0].tolist() == pytest.approx([*pose[:2], *size, pose[2]], abs=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no valid XML"),
        ("<sdf><world></sdf>", "no valid XML"),
        ("<robot name='a'/>", "<sdf> with a <world> in it, got <robot>"),
        ("<sdf version='1.6'></sdf>", "<world>"),
        ("<sdf><world name='w'></world></sdf>", "boxes, cylinders or spheres"),
        ("<?xml version='1.0' encoding='klingon'?><sdf/>", "cannot be read|no valid XML"),
        ("<sdf><world><include><uri>model://sun</uri></include></world></sdf>", "<include> of 'model://sun'"),
    ],
)
def test_broken_files_are_one_clear_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.world"
    path.write_text(text)
    with pytest.raises(SceneError, match=words) as error:
        sim.load_scene(str(path), **TASK)
    assert "\n" not in str(error.value)
    assert "bad.world" in str(error.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (model("<geometry><box><size>1 -2 1</size></box></geometry>"), r"sizes above 0, got \[1.0, -2.0, 1.0\]"),
        (model("<geometry><box><size>1 2</size></box></geometry>"), "3 finite numbers, got '1 2'"),
        (model("<geometry><cylinder><radius>nan</radius><length>1</length></cylinder></geometry>"), "radius"),
        (model("<geometry><cylinder><length>1</length></cylinder></geometry>"), "radius: expected 1 finite"),
        (model("<geometry><mesh><uri>a.dae</uri></mesh></geometry>"), "box, cylinder, sphere or plane, got <mesh>"),
        (model(BOX, "1 2 three 0 0 0"), "pose: expected 6 finite numbers"),
        (model(BOX, "1 2 0.5 0.7 0 0"), "a tilted box"),
        (model(POST, "2 0 0.5 0 0 0") + model(POST, "4000 0 0.5 0 0 0"), "up to 300 m a side"),
        (model(BOX, "0 0 0.5 0 0 0"), "start .* inside a wall"),
        (model("<geometry><box><size>0.2 30 1</size></box></geometry>", "2.5 0 0.5 0 0 0"), None),
    ],
)
def test_bad_models_are_one_clear_line(body: str, words: str | None, tmp_path: Path) -> None:
    path = write(tmp_path, body)
    if words is None:  # a long wall: the robot goes round it
        sim.load_scene(str(path), **TASK)
        return
    with pytest.raises(SceneError, match=words) as error:
        sim.load_scene(str(path), **TASK)
    assert "\n" not in str(error.value)


def test_missing_files_and_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no such file"):
        sim.load_scene(str(tmp_path / "none.world"))
    path = write(tmp_path, model(POST, "2 1 0.5 0 0 0"))
    with pytest.raises(SceneError, match="not BARN's"):
        sim.load_scene(str(path))
    with pytest.raises(SceneError, match="both start and goal"):
        sim.load_scene(str(path), start=(0.0, 0.0, 0.0))
    with pytest.raises(SceneError, match="did you mean 'start'"):
        sim.load_scene(str(path), strat=(0.0, 0.0, 0.0))
