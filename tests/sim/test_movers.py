"""Movers: closed forms of their motion, walls that hold, doors that wait, equal bits alone and in a batch."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import sim
from robonav.config import config_dir, load_robot
from robonav.errors import SceneError
from robonav.types import Mover, Scene
from sim.geodesic import box_distance_m, obstacle_distance_m
from sim.mover_kernels import stage_target, turned_back
from sim.movers import advance, initial_state, movers_of, no_robots, robots_of, static_shapes_of
from sim.scene_check import check_movers, check_scene, start_m

SPEC = load_robot("a1")
BOUNDS = (0.0, 0.0, 10.0, 6.0)


def hall(*movers: Mover, **changes: object) -> Scene:
    return dataclasses.replace(Scene("hall", BOUNDS, (9.0, 5.0, 0.0), (1.0, 5.0), movers=movers), **changes)


def simulate(scene: Scene, seconds: float, robot: np.ndarray | None = None, dt_s: float = 0.1) -> np.ndarray:
    """(steps + 1, M) states of a scene's movers."""
    movers, shapes = movers_of([scene]), static_shapes_of([scene])
    states = [initial_state(movers)]
    for _ in range(round(seconds / dt_s)):
        states.append(advance(states[-1], movers, shapes, no_robots(1) if robot is None else robot, dt_s)[0])
    return np.concatenate(states)


def standing(x: float, y: float, yaw: float = 0.0) -> np.ndarray:
    return robots_of((x, y, yaw), (0.0, 0.0, 0.0), SPEC)


def walker(*way: tuple[float, float], behaviour: str = "waypoint", **changes: object) -> Mover:
    return Mover("pedestrian", behaviour, way, **changes)


def test_a_route_is_walked_at_constant_speed_there_and_back() -> None:
    states = simulate(hall(walker((1, 1), (4, 1), (4, 3), speed_mps=0.7)), 20.0)
    along = np.abs((0.7 * 0.1 * np.arange(len(states)) + 5.0) % 10.0 - 5.0)  # a triangle wave over 5 m
    assert states["x"][:, 0] == pytest.approx(1 + np.minimum(along, 3.0), abs=1e-6)
    assert states["y"][:, 0] == pytest.approx(1 + np.maximum(along - 3.0, 0.0), abs=1e-6)


def test_a_closed_route_goes_round_and_a_phase_begins_within_it() -> None:
    square = ((1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0), (1.0, 1.0))
    mover = walker(*square, speed_mps=1.0, start_phase=0.25)
    states = simulate(hall(mover), 8.0)
    assert (states["x"][0, 0], states["y"][0, 0]) == pytest.approx((3.0, 1.0))
    assert (states["x"][40, 0], states["y"][40, 0]) == pytest.approx((1.0, 3.0))
    assert (states["x"][80, 0], states["y"][80, 0]) == pytest.approx((3.0, 1.0))


@pytest.mark.parametrize("phase", [0.0, 0.1, 0.5, 0.77])
@pytest.mark.parametrize("behaviour", ["waypoint", "crossing", "reactive", "bouncing"])
def test_the_start_is_where_the_checks_and_pictures_say(behaviour: str, phase: float) -> None:
    way = ((1, 1), (4, 2)) if behaviour in ("crossing", "bouncing") else ((1, 1), (4, 1), (4, 3), (2, 3))
    mover = walker(*way, behaviour=behaviour, start_phase=phase)
    state = initial_state(movers_of([hall(mover)]))[0, 0]
    assert (state["x"], state["y"]) == pytest.approx(start_m(mover))


def test_turning_back_keeps_to_the_leg() -> None:
    count = 5
    for stage in range(2 * count - 2):
        came_from = stage_target((stage - 1) % (2 * count - 2), count)
        assert stage_target(turned_back(stage, count), count) == came_from


def test_bouncing_is_mirrored_at_walls() -> None:
    states = simulate(hall(walker((2, 3), (3, 3), behaviour="bouncing", speed_mps=1.0, radius_m=0.3)), 30.0)
    x = states["x"][:, 0]
    assert 0.3 <= x.min() < 0.41  # it turns at most a step of 5 cm before the wall, and is looked at each 10 cm
    assert 9.59 < x.max() <= 9.7
    turns = np.flatnonzero(np.diff(np.sign(states["vx"][:, 0])))
    assert len(turns) == 3
    assert np.diff(turns).tolist() == pytest.approx([94, 94], abs=2)  # 9.4 m from wall to wall
    assert np.abs(states["y"][:, 0] - 3.0).max() < 1e-9
    slanted = simulate(hall(walker((2, 3), (3, 4), behaviour="bouncing", speed_mps=1.0)), 30.0)
    assert np.hypot(slanted["vx"], slanted["vy"]) == pytest.approx(1.0)
    assert np.abs(np.abs(slanted["vx"]) - math.sqrt(0.5)).max() < 1e-9


def test_crossing_waits_for_the_robot() -> None:
    mover = walker((5, 1), (5, 5), behaviour="crossing", period_s=100.0, speed_mps=1.0)
    assert simulate(hall(mover), 5.0)["y"].max() == 1.0
    near = simulate(hall(mover), 7.0, standing(7.0, 3.0))
    assert near["y"][:10].max() == 1.0  # a moment of rest
    assert near["y"].max() == pytest.approx(5.0)
    soon = simulate(hall(dataclasses.replace(mover, period_s=2.0)), 3.0)
    assert soon["y"][-1, 0] == pytest.approx(2.0, abs=0.11)


@pytest.mark.parametrize("behaviour", ["waypoint", "bouncing", "crossing", "reactive"])
def test_movers_stop_for_the_robot_unless_they_ignore_it(behaviour: str) -> None:
    mover = walker((1, 3), (9, 3), behaviour=behaviour, speed_mps=1.2)
    robot, box = standing(5.0, 3.0, 0.4), np.array([5.0, 3.0, SPEC.length_m, SPEC.width_m, 0.4])
    gaps = []
    for ignores in (False, True):
        states = simulate(hall(dataclasses.replace(mover, ignores_robot=ignores)), 12.0, robot)
        gaps.append(float(box_distance_m(box, states["x"], states["y"]).min()) - mover.radius_m)
    assert gaps[0] > 0.1
    assert gaps[1] < 0.0


def test_reactive_movers_pass_each_other_and_a_post() -> None:
    a, b = walker((1, 3), (9, 3), behaviour="reactive"), walker((9, 3), (1, 3), behaviour="reactive")
    states = simulate(hall(a, b, cylinders=np.array([[3.0, 1.5, 0.2]], np.float32)), 9.0)
    apart = np.hypot(*(states[name][:, 0] - states[name][:, 1] for name in ("x", "y")))
    assert apart.min() > 0.45
    assert states["x"][:, 0].max() > 8.5
    assert states["x"][:, 1].min() < 1.5
    speed = np.hypot(states["vx"], states["vy"])
    assert speed.max() <= 1.3 + 1e-9
    assert np.median(speed) == pytest.approx(1.0, abs=0.1)


def door(way: tuple[tuple[float, float], ...], **changes: object) -> Mover:
    values = {"speed_mps": 0.5, "box_m": (1.0, 0.05), "period_s": 10.0, "height_m": 1.0, **changes}
    return Mover("door", "door", way, **values)


SLIDING, HINGED = ((5.0, 3.0), (5.0, 4.0)), ((5.0, 2.5), (5.0, 3.5), (6.0, 2.5))
WALL = np.array([[5, 0, 5, 2.5, 0.1], [5, 3.5, 5, 6, 0.1]], np.float32)


@pytest.mark.parametrize(("way", "travel_s"), [(SLIDING, 2.0), (HINGED, math.pi)])
def test_a_door_keeps_its_period(way: tuple[tuple[float, float], ...], travel_s: float) -> None:
    states = simulate(hall(door(way)), 40.0, dt_s=0.05)
    progress = states["progress"][:, 0]
    assert progress[:2].tolist() == [1.0, 1.0]
    assert (progress == 1.0).mean() == pytest.approx((10.0 - 2 * travel_s) / 20.0, abs=0.03)
    assert (progress == 0.0).mean() == pytest.approx((10.0 - 2 * travel_s) / 20.0, abs=0.03)
    assert np.abs(progress[200:600] - progress[400:800]).max() < 0.25  # a few steps of rounding a round
    leaf = states[progress == 0.0][0, 0]
    assert (leaf["x"], leaf["y"]) == pytest.approx((5.0, 3.0))


@pytest.mark.parametrize("way", [SLIDING, HINGED])
def test_a_door_waits_for_the_robot_in_it(way: tuple[tuple[float, float], ...]) -> None:
    assert simulate(hall(door(way)), 20.0, standing(5.2, 3.0))["progress"].min() == 1.0
    assert simulate(hall(door(way, ignores_robot=True)), 20.0, standing(5.2, 3.0))["progress"].min() == 0.0
    assert simulate(hall(door(way)), 20.0, standing(7.5, 3.0))["progress"].min() == 0.0


@pytest.mark.parametrize("behaviour", ["waypoint", "reactive", "bouncing"])
@pytest.mark.parametrize("way", [SLIDING, HINGED])
def test_nobody_walks_through_a_closed_door(way: tuple[tuple[float, float], ...], behaviour: str) -> None:
    mover = walker((2, 3), (8, 3), behaviour=behaviour)
    scene = hall(mover, door(way, start_phase=0.5, period_s=20.0), walls=WALL)  # closes for 8 s at first
    states = simulate(scene, 30.0)
    shut = states["progress"][:, 1] == 0.0
    through = np.flatnonzero(np.diff(states["x"][:, 0] > 5.0))
    assert shut.any()
    assert not shut[through].any()
    assert len(through) >= 1  # it did get through once the door was open
    leaf = np.stack([states[name][:, 1] for name in ("x", "y", "yaw")], axis=-1)
    for (x, y, yaw), state in zip(leaf, states[:, 0], strict=True):
        gap = float(box_distance_m(np.array([x, y, 1.0, 0.05, yaw]), np.array(state["x"]), np.array(state["y"])))
        assert gap > mover.radius_m - 0.06


@pytest.mark.parametrize("name", ["crowd-dense", "crowd-office", "doors-moving"])
def test_nobody_enters_walls_or_leaves_the_map(name: str) -> None:
    source = sim.load_scene(name, SPEC)
    scenes = [source.scene(seed) for seed in range(6)]
    movers, shapes = movers_of(scenes), static_shapes_of(scenes)
    state, rng = initial_state(movers), np.random.default_rng(0)
    poses = np.array([scene.start for scene in scenes])
    for step in range(200):
        poses = poses + rng.normal(0.0, [0.1, 0.1, 0.1], poses.shape)  # a robot that strays, through walls too
        robots = robots_of(poses, rng.normal(0.0, 0.5, poses.shape), SPEC)
        new, moved_m = advance(state, movers, shapes, robots, 0.1)
        assert (np.hypot(new["x"] - state["x"], new["y"] - state["y"]) <= moved_m[:, None] + 1e-9).all()
        state = new
        for b, scene in enumerate(scenes if step % 10 == 0 else ()):
            walks = np.isin(movers.table["behaviour"][b], (1, 2, 3, 4))
            at = np.stack([state["x"][b, walks], state["y"][b, walks]], axis=-1)
            radius = movers.table["radius_m"][b, walks]
            low, high = np.array(scene.bounds_m).reshape(2, 2)
            assert (obstacle_distance_m(scene, at) >= radius - 1e-3).all()
            assert (np.minimum(at - low, high - at).min(axis=1) >= radius - 1e-3).all()


def test_equal_bits_alone_and_in_a_padded_batch() -> None:
    scenes = [sim.load_scene(name, SPEC).scene(3) for name in ("crowd-few", "crowd-dense", "doors-moving", "clutter")]
    robots = np.concatenate([robots_of(s.start, (0.5, 0.0, 0.3), SPEC) for s in scenes])
    movers, shapes = movers_of(scenes, count=20, waypoints=9), static_shapes_of(scenes, boxes=99, cylinders=400)
    state = before = initial_state(movers)
    kept = before.copy()
    for _ in range(60):
        state, _ = advance(state, movers, shapes, robots, 0.1)
    assert (before == kept).all()  # arguments are left alone
    for b, scene in enumerate(scenes):
        one, still = movers_of([scene]), static_shapes_of([scene])
        alone = initial_state(one)
        for _ in range(60):
            alone, _ = advance(alone, one, still, robots[b : b + 1], 0.1)
        count = len(scene.movers)
        assert alone.tobytes() == np.ascontiguousarray(state[b : b + 1, :count]).tobytes()
        assert not state[b, count:].view(np.uint8).any()


def digest() -> str:
    """Hash of a scene of every preset, and of two episodes' movers, robot moves included."""
    whole = hashlib.sha256()
    for path in sorted((config_dir() / "scenes").glob("*.toml")):
        scene = sim.load_scene(path.stem, SPEC).scene(3)
        for array in (scene.walls, scene.boxes, scene.cylinders, scene.ramps, scene.steps):
            whole.update(array.tobytes())
        whole.update(repr((scene.name, scene.bounds_m, scene.start, scene.goal, scene.movers)).encode())
    for name, seed in (("crowd-dense", 11), ("doors-moving", 4)):
        scene = sim.load_scene(name, SPEC).scene(seed)
        whole.update(scene.walls.tobytes() + scene.boxes.tobytes() + repr((scene.start, scene.goal)).encode())
        whole.update(simulate(scene, 5.0, standing(*scene.start)).tobytes())
    return whole.hexdigest()


def test_the_same_seed_gives_the_same_scenes_and_movers_in_another_process() -> None:
    code = (
        "import importlib.util as u; s = u.spec_from_file_location('t', r'%s'); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.digest())"
    )
    other = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", code % __file__], capture_output=True, text=True, check=True, env=other
    )
    assert done.stdout.strip() == digest()


@pytest.mark.parametrize(
    ("mover", "words"),
    [
        (walker((1, 1), (12, 1)), r"mover 0 \(pedestrian, waypoint\): waypoint 1 \(12.00, 1.00\) leaves the map"),
        (walker((0.1, 1), (3, 1)), "waypoint 0 .* leaves the map"),
        (walker((1, 1), (9, 1)), r"on the way from waypoint 0 to 1, runs into a wall .* at \(4.80"),
        (walker((5, 1), (6, 1), behaviour="bouncing"), "starts into a wall"),
        (walker((1, 1), (1, 1)), "all at one place"),
        (walker((1, 1)), "waypoints_m: expected 2 to"),
        (walker((1, 1), (2, 1), (3, 1), behaviour="crossing"), "2 points"),
        (walker((1, 1), (2, math.nan)), "finite"),
        (walker((1, 1), (2, 1), speed_mps=2.0), "speed_mps: expected 0.2 to 1.5"),
        (walker((1, 1), (2, 1), radius_m=-0.2), "radius_m: expected at least 0.1"),
        (walker((1, 1), (2, 1), box_m=(0.5, -0.1)), "above 0"),
        (walker((1, 1), (2, 1), start_phase=1.0), "start_phase"),
        (walker((1, 1), (2, 1), behaviour="door"), "waypoint or bouncing or crossing or reactive for a pedestrian"),
        (door(SLIDING, period_s=3.0), r"more than 4.00 \(opening and closing\)"),
        (door(SLIDING, box_m=None), "leaf"),
        (walker((9, 5), (9, 4)), "starts on the robot"),
        (door(((9.0, 5.0), (9.0, 4.0))), "starts on the robot"),
    ],
)
def test_bad_movers_are_one_clear_line(mover: Mover, words: str) -> None:
    with pytest.raises(SceneError, match=words) as error:
        check_movers(hall(mover, walls=WALL), "hall", SPEC)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"boxes": np.array([[1, 1, -0.5, 0.5, 0]], np.float32)},
            r"boxes\[0\]: length: expected metres above 0, got -0.5",
        ),
        ({"cylinders": np.array([[1, 1, 0.2], [2, 2, 0]], np.float32)}, r"cylinders\[1\]: radius"),
        ({"walls": np.array([[1, 1, 2, math.inf, 0.1]], np.float32)}, r"walls\[0\]: expected finite"),
        ({"boxes": np.zeros((1, 4), np.float32)}, r"rows of \(x, y, length, width, yaw\)"),
        ({"bounds_m": (0.0, 0.0, -1.0, 5.0)}, "bounds_m"),
        ({"ramps": np.array([[1, 1, 0.2, 1.0, 0, 0.3]], np.float32)}, "0.3 of its length"),
        ({"steps": np.array([[1, 1, 0.2, 1.0, 0, 0.3]], np.float32)}, "at most 0.1 m"),
        ({"height_m": 0.0}, "height_m"),
    ],
)
def test_bad_shapes_are_one_clear_line(changes: dict, words: str) -> None:
    with pytest.raises(SceneError, match=words):
        check_scene(hall(**changes), "hall", SPEC)
    check_scene(hall(walls=WALL), "hall", SPEC)
