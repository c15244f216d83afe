"""BARN grid, scene, ROS map, SDF world and back; every pixel of a map as map_server's documents say."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sim
from sim.barn import CELL_M, CYLINDER_RADIUS_M, GRID_ORIGIN_M, SHAPE, barn_scene, load_barn
from sim.export_map import export_map
from sim.geodesic import obstacle_distance_m
from sim.ros_map import RosMapConfig, load_ros_map, map_scene
from sim.sdf import load_sdf

BARN = Path(os.environ.get("ROBONAV_BARN_DIR", Path(__file__).resolve().parents[3] / "shared" / "barn"))
needs_barn = pytest.mark.skipif(not BARN.is_dir(), reason=f"BARN worlds are not at {BARN}; set ROBONAV_BARN_DIR")
CENTRES = np.array(GRID_ORIGIN_M) + CELL_M * np.stack(np.indices(SHAPE), axis=-1)


def grids(draw_shape: tuple[int, int] = SHAPE) -> st.SearchStrategy[np.ndarray]:
    seeds = st.tuples(st.integers(0, 2**31), st.floats(0.0, 1.0))
    return seeds.map(lambda s: (np.random.default_rng(s[0]).random(draw_shape) < s[1]).astype(np.int64))


def through_a_map(grid: np.ndarray, folder: Path, resolution_m: float) -> np.ndarray:
    """The grid that a scene shows at its cells' centres after export and import."""
    scene = barn_scene(grid, "barn-1")
    path = folder / "map.yaml"
    export_map(scene, path, resolution_m)
    again = map_scene(load_ros_map(path), scene.name, RosMapConfig(str(path), scene.start, scene.goal))
    assert (again.start, again.goal) == (scene.start, scene.goal)
    return (obstacle_distance_m(again, CENTRES) == 0).astype(np.int64)


@settings(max_examples=15, deadline=None)
@given(grids(), st.sampled_from([0.03, 0.05]))
def test_any_barn_grid_comes_back_from_a_ros_map(grid: np.ndarray, resolution_m: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert np.array_equal(through_a_map(grid, Path(folder), resolution_m), grid)


@needs_barn
def test_real_barn_grids_come_back_from_a_ros_map(tmp_path: Path) -> None:
    for path in sorted((BARN / "grid_files").glob("grid_*.npy"))[::25]:
        grid = np.load(path)
        assert np.array_equal(through_a_map(grid, tmp_path, 0.05), grid)
        scene = load_barn(path)
        task = {"start": tuple(scene.start), "goal": tuple(scene.goal)}
        assert sim.load_scene(str(tmp_path / "map.yaml"), **task).scene(0).goal == scene.goal  # still with a way


@settings(max_examples=15, deadline=None)
@given(grids().filter(lambda g: g.any()))
def test_any_barn_grid_comes_back_from_an_sdf_world(grid: np.ndarray) -> None:
    shape = f"<cylinder><radius>{CYLINDER_RADIUS_M}</radius><length>1</length></cylinder>"
    models = [
        f"<model name='c{k}'><pose>{x:.6f} {y:.6f} 0.5 0 0 0</pose><link name='l'>"
        f"<collision name='c'><geometry>{shape}</geometry></collision></link></model>"
        for k, (x, y) in enumerate(CENTRES[grid == 1])
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world_7.world"
        path.write_text(f"<sdf version='1.6'><world name='default'>{''.join(models)}</world></sdf>")
        scene = load_sdf(path)
    of_grid = barn_scene(grid, "barn-7")
    assert np.abs(scene.cylinders - of_grid.cylinders).max() < 1e-5
    assert (scene.name, scene.start, scene.goal, scene.bounds_m) == (
        of_grid.name,
        of_grid.start,
        of_grid.goal,
        of_grid.bounds_m,
    )


def published(x: np.ndarray, opaque: np.ndarray, negate: bool, high: float, low: float, mode: str) -> np.ndarray:
    """Occupancy of pixels of brightness x in 0..255, written anew from the documents.

    wiki.ros.org/map_server ("Value Interpretation") and nav2_map_server's MapMode: p = (255 - x) / 255, or x / 255
    with negate; above occupied_thresh 100, below free_thresh 0; between them -1 (trinary) or in proportion (scale), to
    which transparent pixels are -1. The wiki's scale has 99 steps, nav2's has 100, which is taken here.
    """
    out = np.empty(x.shape, int)
    for index in np.ndindex(x.shape):
        p = x[index] / 255.0 if negate else (255.0 - x[index]) / 255.0
        if mode == "scale" and not opaque[index]:
            out[index] = -1
        elif p > high:
            out[index] = 100
        elif p < low:
            out[index] = 0
        else:
            out[index] = -1 if mode == "trinary" else round(100 * (p - low) / (high - low))
    return out


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))),
    st.data(),
    st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)).map(sorted).filter(lambda t: t[1] - t[0] > 0.01),
    st.booleans(),
    st.sampled_from(["trinary", "scale", None]),
)
def test_pixels_mean_what_map_server_says(
    grey: np.ndarray, data: st.DataObject, thresholds: list[float], negate: bool, mode: str | None
) -> None:
    low, high = thresholds
    alpha = data.draw(st.none() | hnp.arrays(np.uint8, grey.shape, elements=st.sampled_from([0, 128, 255])))
    if mode != "scale":
        alpha = None  # trinary maps average transparency in, see test_map_export
    picture = grey if alpha is None else np.dstack([grey, grey, grey, alpha])
    opaque = np.ones(grey.shape, bool) if alpha is None else alpha == 255
    with tempfile.TemporaryDirectory() as folder:
        cv2.imwrite(f"{folder}/m.png", picture)
        path = Path(folder) / "m.yaml"
        lines = [f"image: {folder}/m.png", "resolution: 0.1", "origin: [0, 0, 0]", f"negate: {int(negate)}"]
        lines += [f"occupied_thresh: {high!r}", f"free_thresh: {low!r}", *([f"mode: {mode}"] if mode else [])]
        path.write_text("\n".join(lines) + "\n")
        got = load_ros_map(path).percent[::-1]
    expected = published(grey, opaque, negate, high, low, mode or "trinary")
    if mode == "scale":
        assert np.abs(got - expected).max() <= 1  # halves round to even or up
        assert np.array_equal(got < 0, expected < 0)
    else:
        assert np.array_equal(got, expected)


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.floats(-30, 30), st.floats(-30, 30), st.floats(-math.pi, math.pi)),
    st.sampled_from([0.02, 0.05, 0.25]),
    st.integers(0, 2**31),
)
def test_every_cell_lies_where_resolution_and_origin_say(
    origin: tuple[float, float, float], h: float, seed: int
) -> None:
    grey = np.where(np.random.default_rng(seed).random((12, 17)) < 0.3, 0, 254).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        cv2.imwrite(f"{folder}/m.pgm", grey)
        path = Path(folder) / "m.yaml"
        path.write_text(
            f"image: m.pgm\nresolution: {h}\norigin: {list(origin)!r}\nnegate: 0\n"
            "occupied_thresh: 0.65\nfree_thresh: 0.196\nmode: trinary\n"
        )
        scene = map_scene(load_ros_map(path), "m", RosMapConfig(str(path)))
    x0, y0, yaw = origin
    rows, columns = np.indices(grey.shape)
    u, v = (columns + 0.5) * h, (grey.shape[0] - rows - 0.5) * h  # the picture's lower left corner is the origin
    centres = np.stack(
        [x0 + math.cos(yaw) * u - math.sin(yaw) * v, y0 + math.sin(yaw) * u + math.cos(yaw) * v], axis=-1
    )
    assert np.array_equal(obstacle_distance_m(scene, centres) == 0, grey == 0)
    low, high = np.array(scene.bounds_m).reshape(2, 2)
    assert (centres >= low).all()
    assert (centres <= high).all()
