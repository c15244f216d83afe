"""Walking over what planar worlds do not have: ramps and steps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import sim
from robonav.config import load_robot
from robonav.types import RobotSpec, Scene
from sim.legged import LeggedWorld
from sim.terrain import floor_height_m

SHIPPED = ("a1", "aliengo", "laikago", "mini_cheetah", "spirit40", "vision60")
SPEC = load_robot("a1")
FREE = Scene("free", (-50.0, -50.0, 50.0, 50.0), (0.0, 0.0, 0.0), (40.0, 40.0))
Row = tuple[float, float, float, float, float, float]  # x, y, length, width, yaw, rise


def cross(world: LeggedWorld, scene: Scene, row: Row, seconds: float = 5.0) -> tuple[bool, float, float]:
    """Walks at 0.6 m/s along a ramp or step from before it; whether it stands, how far behind the middle it came, and
    how high the base rose.
    """
    x, y, length, _, yaw, _ = row
    c, s = math.cos(yaw), math.sin(yaw)
    before = length / 2 + 0.45 + world.spec.length_m / 2
    world.load(scene)
    world.place(x - before * c, y - before * s, yaw)
    start_m = top_m = world.base_height_m
    for _ in range(round(seconds * 10)):
        if world.advance((0.6, 0.0, 0.0), 0.1):
            break
        top_m = max(top_m, world.base_height_m)
    return not world.fallen, (world.x_m - x) * c + (world.y_m - y) * s, top_m - start_m


@pytest.fixture(scope="module")
def world():
    one = LeggedWorld(SPEC)
    yield one
    one.close()


def test_a_long_ramp_is_walked_up_and_the_base_follows_its_slope(world) -> None:
    ramp = (2.0, 0.0, 2.0, 2.0, 0.0, 0.3)  # 8.5 degrees
    top = (4.0, 0.0, 2.0, 2.0, 0.0, 0.3)
    scene = dataclasses.replace(FREE, ramps=np.array([ramp], np.float32), steps=np.array([top], np.float32))
    world.load(scene)
    pitches = []
    for _ in range(60):
        assert not world.advance((0.6, 0.0, 0.0), 0.1)
        if 1.5 < world.x_m < 2.5:
            pitches.append(world.tilt_rad[1])
    assert world.x_m > 2.9
    assert world.base_height_m == pytest.approx(0.3 + SPEC.legs.stance_height_m, abs=0.05)
    assert np.mean(pitches) == pytest.approx(-math.atan(0.15), abs=0.06)  # nose up
    assert abs(world.tilt_rad[1]) < 0.1  # level again on the top


def test_a_step_is_walked_over(world) -> None:
    row = (1.5, 0.0, 0.5, 2.0, 0.0, 0.04)
    stands, along_m, rose_m = cross(world, dataclasses.replace(FREE, steps=np.array([row], np.float32)), row)
    assert stands
    assert along_m > 0.5
    assert rose_m > 0.02


def test_a_start_on_a_step_stands_on_it(world) -> None:
    row = (0.0, 0.0, 2.0, 2.0, 0.0, 0.05)
    world.load(dataclasses.replace(FREE, steps=np.array([row], np.float32)))
    for _ in range(10):
        assert not world.advance((0.0, 0.0, 0.0), 0.1)
    assert world.base_height_m == pytest.approx(0.05 + SPEC.legs.stance_height_m, abs=0.02)
    assert world.feet_down == (True, True, True, True)


def test_a_wall_of_a_step_stops_it(world) -> None:
    """What is too high to be walked on is not gone through either."""
    row = (1.5, 0.0, 1.0, 4.0, 0.0, 0.5)
    _, along_m, _ = cross(world, dataclasses.replace(FREE, steps=np.array([row], np.float32)), row, seconds=3.0)
    assert along_m < -0.5


def crossings(spec: RobotSpec, seeds: range) -> list[tuple[Scene, Row]]:
    """The ramps (the way up, with its platform and the way down behind it) and thresholds of the preset `ramps`, with
    nothing else.
    """
    found = []
    for seed in seeds:
        scene = sim.load_scene("ramps", spec).scene(seed)
        bare = dataclasses.replace(scene, walls=scene.walls[:0], boxes=scene.boxes[:0], cylinders=scene.cylinders[:0])
        rows = [tuple(row) for row in scene.ramps[::2].tolist()]
        for step in scene.steps.tolist():
            if all(math.dist(step[:2], ramp[:2]) > 1.0 for ramp in scene.ramps.tolist()):
                rows.append(tuple(step))
        found += [(bare, row) for row in rows]
    return found


def test_what_the_preset_has_is_crossed(world) -> None:
    cases = crossings(SPEC, range(2))
    assert {float(floor_height_m(scene, np.array(row[:2]))) > 0 for scene, row in cases} == {True}
    results = [cross(world, scene, row) for scene, row in cases]
    assert sum(
        stands and along_m > row[2] / 2 for (stands, along_m, _), (_, row) in zip(results, cases, strict=True)
    ) >= (len(cases) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_robot_crosses_nearly_all_of_the_presets_ramps(name: str) -> None:
    """31 crossings of 5 s; about 10 s a robot on a quiet core."""
    spec = load_robot(name)
    cases = crossings(spec, range(12))
    assert len(cases) > 20
    robot = LeggedWorld(spec)
    try:
        failed = 0
        for scene, row in cases:
            stands, along_m, _ = cross(robot, scene, row)
            failed += not (stands and along_m > row[2] / 2)
    finally:
        robot.close()
    assert failed <= 0.1 * len(cases)
