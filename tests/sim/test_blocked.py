"""Scenes whose shortest way is closed: that it is, that it cannot be seen, and that another one is free."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

import sim
from robonav.config import load_robot
from robonav.errors import SceneError
from robonav.types import Scene
from sim.geodesic import ObstacleGrid, obstacle_distance_m
from sim.movers import advance, initial_state, movers_of, no_robots, static_shapes_of
from sim.route_proof import RouteProof, footprint_regions
from sim.scene_check import check_scene
from sim.task import task_of

SPEC = load_robot("a1")
KINDS = ("dead-end", "shut", "standing", "meeting")
HARD = ("tunnel", "closing")


def scenes(kind: str, count: int = 6) -> list[Scene]:
    source = sim.load_scene("blocked", SPEC, kinds=(kind,))
    return [source.scene(seed) for seed in range(count)]


def plugged(scene: Scene) -> Scene:
    """The scene with what blocks it as a solid that no robot passes: a disc as wide as the corridor round its place."""
    at = np.mean(scene.movers[0].waypoints_m[:2], axis=0)  # of a person's way, or the shut leaf's ends
    disc = np.array([[*at, 0.7]], np.float32)
    return dataclasses.replace(scene, movers=(), cylinders=np.concatenate([scene.cylinders, disc]))


@pytest.mark.parametrize("kind", KINDS + HARD)
def test_scenes_are_sound_and_the_long_way_is_free(kind: str) -> None:
    for scene in scenes(kind):
        check_scene(scene, scene.name, SPEC)
        ends = kind in ("dead-end", "tunnel")
        assert len(scene.movers) == (0 if ends else 1)
        free = scene if ends else plugged(scene)
        assert RouteProof(free, SPEC).joins(scene.start[:2], scene.goal), scene.name
        if not ends:
            opened = dataclasses.replace(scene, movers=())
            assert task_of(free, SPEC).shortest_m > task_of(opened, SPEC).shortest_m + 1.0, "the blocked way is shorter"


def test_equal_numbers_give_equal_scenes_of_every_kind() -> None:
    source, again = sim.load_scene("blocked", SPEC), sim.load_scene("blocked", SPEC)
    for seed in range(3):
        a, b = source.scene(seed), again.scene(seed)
        assert all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Scene))
    assert len({_kind(source.scene(seed)) for seed in range(24)}) == len(KINDS)


def _kind(scene: Scene) -> tuple[str, bool]:
    """What closes the way, and whether it walks."""
    if not scene.movers:
        return "nothing", False
    way = scene.movers[0].waypoints_m
    return scene.movers[0].kind, scene.movers[0].kind == "pedestrian" and math.dist(way[0], way[1]) > 0.1


@pytest.mark.parametrize("kind", (*KINDS[1:], "closing"))
def test_what_blocks_cannot_be_seen_from_the_start(kind: str) -> None:
    for scene in scenes(kind):
        mover, start = scene.movers[0], np.array(scene.start[:2])
        ends = np.array(mover.waypoints_m[:2])
        for place in np.linspace(ends[0], ends[1], 9):
            ray = np.linspace(start, place, 200)[:-10]
            assert obstacle_distance_m(scene, ray).min() <= 0.0, scene.name


def test_a_shut_door_stays_shut_for_the_whole_episode() -> None:
    for scene in scenes("shut", 3):
        movers, shapes = movers_of([scene]), static_shapes_of([scene])
        state = first = initial_state(movers)
        for _ in range(round(scene.time_limit_s / 0.5)):
            state, _ = advance(state, movers, shapes, no_robots(1), 0.5)
        assert state["progress"][0, 0] == 0.0
        assert math.dist((state["x"][0, 0], state["y"][0, 0]), (first["x"][0, 0], first["y"][0, 0])) < 1e-9


def test_a_closing_door_stands_open_at_first_and_has_shut_when_the_fastest_robot_could_be_there() -> None:
    for scene in scenes("closing", 3):
        movers, shapes = movers_of([scene]), static_shapes_of([scene])
        state = initial_state(movers)
        assert state["progress"][0, 0] == 1.0
        at = scene.movers[0].waypoints_m[0]
        earliest_s = (
            abs(at[0] - scene.start[0]) + abs(at[1] - scene.start[1])
        ) / SPEC.vx_max_mps  # corridors are square
        told = []
        for _ in range(round(scene.time_limit_s / 0.1)):
            state, _ = advance(state, movers, shapes, no_robots(1), 0.1)
            told.append(float(state["progress"][0, 0]))
        assert 1.0 in told[: round(earliest_s / 0.1) - 5], "one sees it open"
        assert max(told[round(earliest_s / 0.1) + 1 :]) == 0.0


def far_from_turning_m(scene: Scene) -> float:
    """How far the robot can get, footprint and all, from the nearest place where it could turn round."""
    grid = ObstacleGrid.of(scene, 0.05)
    regions = footprint_regions(grid, SPEC.length_m, SPEC.width_m)
    cell = np.rint((np.array(scene.start[:2]) - grid.origin_m) / grid.resolution_m).astype(int)
    reached = (regions == regions[0, cell[0], cell[1]]).any(axis=0)
    turns = (grid.distance_m >= SPEC.radius_m).astype(np.uint8)
    return float(cv2.distanceTransform(1 - turns, cv2.DIST_L2, cv2.DIST_MASK_5)[reached].max()) * grid.resolution_m


@pytest.mark.parametrize("kind", HARD)
def test_a_tunnel_lets_the_robot_in_and_is_too_narrow_to_turn_in(kind: str) -> None:
    for scene in scenes(kind, 3):
        free = dataclasses.replace(scene, movers=())
        assert far_from_turning_m(free) > (0.8 if kind == "tunnel" else 0.3)  # one that is open at both ends is shorter
    assert far_from_turning_m(scenes("dead-end", 1)[0]) < 0.4


def test_people_who_stand_leave_the_gap_that_the_knob_says() -> None:
    for gap in (0.3, 0.5):
        source = sim.load_scene("blocked", SPEC, kinds=("standing",), gap_m=(gap, gap))
        for seed in range(4):
            scene = source.scene(seed)
            mover, cell = scene.movers[0], 0.01
            at = np.array(mover.waypoints_m[0])
            along = (np.array(mover.waypoints_m[1]) - at) / math.dist(*mover.waypoints_m)
            across = np.array([-along[1], along[0]])
            # free ground on the line across the corridor, beyond the people on either side
            room = []
            for side in (-1.0, 1.0):
                steps = at + side * across * np.arange(mover.radius_m, 2.0, cell)[:, None]
                room.append(cell * int(np.argmax(obstacle_distance_m(scene, steps) <= 0.0)))
            assert max(room) == pytest.approx(gap + 0.03, abs=0.03) and min(room) < 0.06


def test_a_narrow_gap_stops_the_footprint_and_the_empty_scene_does_not() -> None:
    source = sim.load_scene("blocked", SPEC, kinds=("standing",), gap_m=(0.25, 0.25))
    scene = source.scene(0)
    disc = np.array([[*scene.movers[0].waypoints_m[0], scene.movers[0].radius_m]], np.float32)
    stands = dataclasses.replace(scene, movers=(), cylinders=disc)
    assert ObstacleGrid.of(stands, 0.1).distance_m.shape == ObstacleGrid.of(scene, 0.1).distance_m.shape
    assert task_of(stands, SPEC).shortest_m > task_of(dataclasses.replace(scene, movers=()), SPEC).shortest_m + 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": ()}, "kinds: expected one or more"),
        ({"kinds": ("shutt",)}, "shutt"),
        ({"bend_m": (1.0, 2.0)}, "bend_m: expected at least"),
        ({"bend_m": (2.2, 2.2), "width_m": (1.8, 1.9), "length_m": (6.0, 6.0)}, "cannot see round the bend"),
        ({"detour_m": (2.0, 3.0)}, "detour_m: expected above bend_m"),
        ({"length_m": (3.0, 4.0)}, "length_m: expected at least"),
        ({"person_radius_m": (0.2, 0.9)}, "person_radius_m: expected at most"),
        ({"gap_m": (0.3, 1.0)}, "gap_m: expected at most"),
    ],
)
def test_knobs_out_of_range_are_one_clear_line(options: dict, words: str) -> None:
    with pytest.raises(SceneError, match=words) as error:
        sim.load_scene("blocked", SPEC, **options)
    assert "\n" not in str(error.value)
