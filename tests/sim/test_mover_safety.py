"""Movers and the robot: doors that heed it never touch it, the others end the episode, reactive walkers give way."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import sim
from robonav.config import load_robot
from robonav.types import Mover, Scene
from sim.exact import Solids, corners_at, footprint_gap_m, solids_of
from sim.mover_kernels import SPEED_MAX_MPS
from sim.movers import advance, initial_state, movers_of, no_robots, robots_of, static_shapes_of
from sim.scene_check import SPEEDS_MPS
from sim.world import World

SPEC = load_robot("a1")
SLIDING, HINGED = ((5.0, 3.0), (5.0, 4.0)), ((5.0, 2.5), (5.0, 3.5), (6.0, 2.5))
WALL = np.array([[5, 0, 5, 2.5, 0.1], [5, 3.5, 5, 6, 0.1]], np.float32)


def hall(*movers: Mover, **changes: object) -> Scene:
    return dataclasses.replace(Scene("hall", (0, 0, 10, 6), (9.0, 5.0, 0.0), (1.0, 5.0), movers=movers), **changes)


def door(way: tuple[tuple[float, float], ...], **changes: object) -> Mover:
    values = {"speed_mps": 0.6, "box_m": (1.0, 0.05), "period_s": 9.0, "height_m": 1.0, **changes}
    return Mover("door", "door", way, **values)


def walker(*way: tuple[float, float], behaviour: str, **changes: object) -> Mover:
    return Mover("pedestrian", behaviour, way, **changes)


def leaf_gap_m(leaf: np.void, pose: np.ndarray) -> float:
    """Exact distance of the footprint at a pose from a leaf 1 m long."""
    corners = corners_at(np.array([[leaf["x"], leaf["y"], leaf["yaw"]]]), 1.0, 0.05)
    return float(footprint_gap_m(Solids(corners, np.zeros((0, 3))), pose, SPEC)[0])


@pytest.mark.parametrize("way", [SLIDING, HINGED])
@pytest.mark.parametrize("phase", [0.0, 0.35, 0.6])
def test_a_door_that_heeds_the_robot_never_touches_it(way: tuple[tuple[float, float], ...], phase: float) -> None:
    """Robots that stand at 40 places round the doorway, for three rounds of the door."""
    scene = hall(door(way, start_phase=phase), walls=WALL)
    movers, shapes = movers_of([scene] * 40), static_shapes_of([scene] * 40)
    poses = np.random.default_rng(0).uniform((3.9, 2.0, -math.pi), (6.6, 4.0, math.pi), (40, 3))
    robots, state = robots_of(poses, np.zeros((40, 3)), SPEC), initial_state(movers)
    apart = np.array([leaf_gap_m(leaf, pose) > 0 for leaf, pose in zip(state[:, 0], poses, strict=True)])
    apart &= footprint_gap_m(solids_of(scene, doors="none"), poses, SPEC) > 0
    assert apart.sum() > 15
    least, moved = np.full(40, np.inf), np.zeros(40)
    for step in range(270):
        before = state
        state, _ = advance(state, movers, shapes, robots, 0.1)
        moved += np.abs(state["progress"] - before["progress"])[:, 0]
        if step % 3 == 0:
            gaps = [leaf_gap_m(leaf, pose) for leaf, pose in zip(state[:, 0], poses, strict=True)]
            least = np.minimum(least, gaps)
    assert least[apart].min() > 0.0
    assert (moved > 3.9).sum() >= 3  # those far enough away let it work


@pytest.mark.parametrize("way", [SLIDING, HINGED])
def test_a_closing_door_gives_way_and_goes_on_once_the_robot_has_left(way: tuple[tuple[float, float], ...]) -> None:
    scene = hall(door(way, period_s=12.0))
    movers, shapes = movers_of([scene]), static_shapes_of([scene])
    here, away = (robots_of((x, 3.0, 0.0), (0.0, 0.0, 0.0), SPEC) for x in (5.1, 8.5))
    state, progress, came = initial_state(movers), [1.0], 0
    for step in range(1, 400):
        came = came or (step if progress[-1] < 0.9 else 0)  # the robot enters once the door has begun to close
        state, _ = advance(state, movers, shapes, here if came and step < 200 else away, 0.1)
        progress.append(float(state["progress"][0, 0]))
    inside = progress[came + 1 : 200]
    assert 0 < came < 100
    assert np.diff(inside).min() >= 0.0  # no further towards the robot
    assert inside[-1] == (1.0 if way == SLIDING else inside[0])  # a hinged leaf stays where it is
    assert 0.5 < inside[0] < 1.0
    assert min(progress[200:]) == 0.0  # and works again
    assert max(progress[200:]) == 1.0


@pytest.mark.parametrize("way", [SLIDING, HINGED])
@pytest.mark.parametrize("ignores", [False, True])
def test_a_door_that_ignores_the_robot_ends_the_episode(way: tuple[tuple[float, float], ...], ignores: bool) -> None:
    world = World(SPEC)
    try:
        world.load(hall(door(way, ignores_robot=ignores), walls=WALL, start=(5.1, 3.0, 0.0)))
        touched = [world.advance((0.0, 0.0, 0.0), 0.1) for _ in range(120)]
        assert any(touched) == ignores
        assert world.collided == ignores
    finally:
        world.close()


def test_reactive_movers_go_round_a_robot_where_others_wait() -> None:
    robot = robots_of((5.0, 3.05, 0.3), (0.0, 0.0, 0.0), SPEC)
    furthest, least = {}, {}
    for behaviour in ("reactive", "waypoint"):
        scene = hall(walker((1, 3), (9, 3), behaviour=behaviour))
        movers, shapes = movers_of([scene]), static_shapes_of([scene])
        states = [initial_state(movers)]
        for _ in range(120):
            states.append(advance(states[-1], movers, shapes, robot, 0.1)[0])
        at = np.array([(s["x"][0, 0], s["y"][0, 0], 0.0) for s in states])
        discs = [np.array([[x, y, 0.25]]) for x, y, _ in at]
        pose = np.array([[5.0, 3.05, 0.3]])
        least[behaviour] = min(footprint_gap_m(Solids(np.zeros((0, 4, 2)), disc), pose, SPEC)[0] for disc in discs)
        furthest[behaviour] = at[:, 0].max()
    assert furthest["reactive"] > 8.5
    assert furthest["waypoint"] < 4.8
    assert min(least.values()) > 0.1


def test_nobody_is_faster_or_slower_than_allowed() -> None:
    fast = [
        walker((1, k), (9, k), behaviour=b, speed_mps=1.5)
        for k, b in ((1, "reactive"), (2, "bouncing"), (3, "waypoint"))
    ]
    scenes = [hall(*fast, walker((1, 1.4), (9, 1.4), behaviour="reactive", speed_mps=1.5))]
    scenes += [sim.load_scene(name, SPEC).scene(seed) for name in ("crowd-dense", "crowd-office") for seed in range(4)]
    assert all(SPEEDS_MPS[0] <= m.speed_mps <= SPEEDS_MPS[1] for s in scenes for m in s.movers if m.kind != "door")
    movers, shapes = movers_of(scenes), static_shapes_of(scenes)
    state = initial_state(movers)
    walks = np.isin(movers.table["behaviour"], (1, 2, 3, 4))
    for _ in range(200):
        new, _ = advance(state, movers, shapes, no_robots(len(scenes)), 0.05)
        speed = np.hypot(new["x"] - state["x"], new["y"] - state["y"])[walks] / 0.05
        assert speed.max() <= SPEED_MAX_MPS + 1e-6
        state = new


def test_nobody_jumps_over_a_thin_wall() -> None:
    thin = np.array([[5, 0, 5, 6, 0.001]], np.float32)
    scene = hall(
        walker((4.5, 1), (5.5, 1), behaviour="bouncing", speed_mps=1.5, radius_m=0.1),
        walker((4.5, 2), (9, 2), behaviour="reactive", speed_mps=1.5, radius_m=0.1),
        walker((4.5, 3), (9, 3), behaviour="waypoint", speed_mps=1.5, radius_m=0.1),
        walker((4.5, 4), (9, 4), behaviour="crossing", speed_mps=1.5, radius_m=0.1, period_s=1.0),
        walls=thin,
    )  # two of the routes are such that the checks of a scene refuse them; the motion itself must hold as well
    movers, shapes = movers_of([scene]), static_shapes_of([scene])
    state = initial_state(movers)
    for _ in range(150):
        state, _ = advance(state, movers, shapes, no_robots(1), 0.2)
        assert state["x"].max() <= 5.0 - 0.0005 - 0.1 + 1e-5


def test_the_presets_hold_every_kind_of_mover() -> None:
    kinds = set()
    for name in ("crowd-dense", "crowd-office", "doors-moving"):
        source = sim.load_scene(name, SPEC)
        for seed in range(12):
            for m in source.scene(seed).movers:
                kinds.add((m.kind, m.behaviour, len(m.waypoints_m) if m.kind == "door" else 0))
                kinds.add((m.kind, "ignores" if m.ignores_robot else "heeds"))
    walks = {("pedestrian", b, 0) for b in ("waypoint", "bouncing", "crossing", "reactive")}
    assert walks | {("robot", "waypoint", 0), ("door", "door", 2), ("door", "door", 3)} <= kinds
    assert {("pedestrian", "ignores"), ("pedestrian", "heeds"), ("robot", "heeds"), ("door", "heeds")} <= kinds
