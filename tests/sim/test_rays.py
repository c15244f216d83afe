"""The compiled lidar of PyBullet worlds against PyBullet's own ray test."""

from __future__ import annotations

import numpy as np
import pytest

from robonav.config import load_robot
from sim.rays import CompiledRays
from sim.scenes import load_scene
from sim.sensors import Lidar
from sim.world import World

SPEC = load_robot("a1")


def compared(names: tuple[str, ...], scenes: int, poses: int) -> tuple[np.ndarray, int]:
    """Differences of all beams in metres, over random poses of which some have been driven to, and movers seen."""
    world, rng = World(SPEC), np.random.default_rng(0)
    compiled, pybullet = CompiledRays(SPEC), Lidar(SPEC.lidar)
    differences, movers = [], 0
    for name in names:
        source = load_scene(name, SPEC)
        for number in range(scenes):
            scene = source.scene(number)
            world.load(scene)
            movers += len(scene.movers)
            x_min, y_min, x_max, y_max = scene.bounds_m
            for _ in range(poses):
                world.place(rng.uniform(x_min, x_max), rng.uniform(y_min, y_max), rng.uniform(-np.pi, np.pi))
                world.collided = False
                world.advance((0.3, 0.0, 0.2), 0.1)  # movers go on
                differences.append(np.abs(compiled.scan(world, SPEC.lidar) - pybullet.scan(world)))
    world.close()
    return np.array(differences), movers


def test_beams_agree_with_pybullet_in_every_kind_of_scene() -> None:
    names = ("rooms", "clutter", "maze", "offices", "crowd-few", "doors-moving")
    differences, movers = compared(names, scenes=2, poses=25)
    assert movers > 0
    assert (differences < 0.01).mean() >= 0.999


@pytest.mark.slow
def test_beams_agree_with_pybullet_over_many_scenes() -> None:
    """The same over 6,000 poses; takes about 20 s."""
    names = ("rooms", "clutter", "maze", "offices", "crowd-few", "doors-moving")
    differences, _ = compared(names, scenes=10, poses=100)
    assert (differences < 0.01).mean() >= 0.999


def test_a_new_scene_replaces_the_old_one() -> None:
    world, rays = World(SPEC), CompiledRays(SPEC)
    scans = []
    for number in (1, 2, 1):
        world.load(load_scene("rooms", SPEC).scene(number))
        scans.append(rays.scan(world, SPEC.lidar).copy())
    world.close()
    assert np.array_equal(scans[0], scans[2])
    assert not np.array_equal(scans[0], scans[1])
