"""Movers in PyBullet: lidar, camera, clearance and contact see them; ramps and steps have the height that is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sim
from robonav.config import load_robot
from robonav.errors import SceneError
from robonav.types import Mover, Scene
from sim.bullet import import_pybullet
from sim.movers import advance, initial_state, movers_of, robots_of, static_shapes_of
from sim.sensors import SensorSuite
from sim.terrain import add_terrain, floor_height_m
from sim.world import SCENES_PER_RESET, World

SPEC = load_robot("a1")
BOUNDS = (-5.0, -5.0, 5.0, 5.0)


def hall(*movers: Mover, **changes: object) -> Scene:
    return dataclasses.replace(Scene("hall", BOUNDS, (0.0, 0.0, 0.0), (4.0, 4.0), movers=movers), **changes)


def walker(*way: tuple[float, float], **changes: object) -> Mover:
    return Mover("pedestrian", changes.pop("behaviour", "waypoint"), way, **changes)


@pytest.fixture
def world():
    one = World(SPEC)
    yield one
    one.close()


def test_a_mover_runs_into_the_standing_robot(world) -> None:
    world.load(hall(walker((3, 0), (-3, 0), speed_mps=1.0, ignores_robot=True)))
    ticks = 0
    while not world.advance((0.0, 0.0, 0.0), 0.1):
        ticks += 1
        assert world.clearance_m == pytest.approx(min(3.0 - 0.1 * ticks - 0.25 - SPEC.length_m / 2, 1.0), abs=0.01)
    assert ticks == pytest.approx((3.0 - 0.25 - SPEC.length_m / 2) / 0.1, abs=1)
    assert world.collided
    world.load(hall(walker((3, 0), (-3, 0), speed_mps=1.0)))  # this one heeds the robot
    assert not any(world.advance((0.0, 0.0, 0.0), 0.1) for _ in range(60))


def test_lidar_and_camera_see_movers(world) -> None:
    sensors = SensorSuite(world, depth=True)
    world.load(
        hall(
            walker((2, 0), (2, 4), speed_mps=1.0),
            Mover("robot", "waypoint", ((-3, 0), (-4, 0)), box_m=(0.6, 0.4), height_m=0.8),
        )
    )
    first = sensors.read(0, (0.0, 0.0, 0.0))
    assert first.scan_m[SPEC.lidar.beams // 2] == pytest.approx(1.75, abs=0.01)  # ahead
    assert first.scan_m[0] == pytest.approx(2.7, abs=0.01)  # behind: the other robot's side
    assert first.depth_m[32, 32] == pytest.approx(1.75 - SPEC.depth.mount_x_m, abs=0.05)
    for _ in range(20):
        world.advance((0.0, 0.0, 0.0), 0.1)
    later = sensors.read(1, (0.0, 0.0, 0.0))
    assert later.scan_m[SPEC.lidar.beams // 2] == SPEC.lidar.range_m
    left = later.scan_m[np.argmin(np.abs(SPEC.lidar.angles_rad - np.arctan2(2.0, 2.0)))]
    assert left == pytest.approx(np.hypot(2, 2) - 0.25, abs=0.02)


def test_bodies_move_as_the_arrays_do(world) -> None:
    scene = sim.load_scene("crowd-dense", SPEC).scene(2)
    world.load(scene)
    movers, shapes = movers_of([scene]), static_shapes_of([scene])
    state = initial_state(movers)
    assert world.movers.state.tobytes() == state[0].tobytes()
    for _ in range(30):
        world.advance((0.0, 0.0, 0.0), 0.1)
        for _ in range(4):  # the world's substeps
            state, _ = advance(state, movers, shapes, robots_of(scene.start, (0.0, 0.0, 0.0), SPEC), 0.025)
        if world.collided:
            break
    at = [world.bullet.getBasePositionAndOrientation(i, physicsClientId=world.client)[0] for i in world.movers.ids]
    assert np.array(at)[:, :2] == pytest.approx(np.stack([state["x"][0], state["y"][0]], axis=-1), abs=0.06)
    if not world.collided:
        assert world.movers.state.tobytes() == state[0].tobytes()


def test_movers_leave_with_their_scene(world) -> None:
    crowded, empty = hall(walker((0.9, 0), (0.9, 3))), hall()
    world.load(empty)
    bodies = world.bullet.getNumBodies(physicsClientId=world.client)
    for _ in range(SCENES_PER_RESET + 3):
        world.load(crowded)
        assert world.clearance_m == pytest.approx(0.9 - 0.25 - SPEC.length_m / 2, abs=1e-3)
    world.load(empty)
    assert world.movers is None
    assert world.clearance_m == 1.0
    assert world.bullet.getNumBodies(physicsClientId=world.client) == bodies


def test_an_episode_ends_when_a_mover_hits_the_robot() -> None:
    env = sim.make_env("empty", policy_input=False, render_mode="rgb_array", view="top")
    try:
        scene = hall(walker((3, 0), (-3, 0), speed_mps=1.5, ignores_robot=True))
        env.reset(seed=0, options={"scene": scene})
        before = env.render()
        outcome = None
        for _ in range(30):
            _, _, terminated, _, info = env.step(np.zeros(3, np.float32))
            outcome = info.get("outcome")
            if terminated:
                break
        assert outcome == "collision"
        assert (env.render() != before).any()  # the picture's pedestrian moved too
        far = dataclasses.replace(scene, movers=(walker((3, 0), (30, 0)),))
        with pytest.raises(SceneError, match="leaves the map"):
            env.reset(options={"scene": far})
    finally:
        env.close()


def test_equal_seeds_give_equal_episodes_with_movers() -> None:
    runs = []
    for _ in range(2):
        env = sim.make_env("crowd-few", policy_input=False)
        rng, rows = np.random.default_rng(0), []
        env.reset(seed=7)
        for _ in range(40):
            observation, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 3).astype(np.float32))
            rows.append(observation["scan_m"].tobytes() + np.float64(reward).tobytes())
            if terminated or truncated:
                break
        runs.append(rows)
        env.close()
    assert runs[0] == runs[1]


def test_ramps_and_steps_have_the_height_that_is_said() -> None:
    bullet = import_pybullet()
    client = bullet.connect(bullet.DIRECT)
    try:
        scene = sim.load_scene("ramps", SPEC).scene(1)
        assert len(scene.ramps) >= 2
        bodies = add_terrain(bullet, client, scene)
        assert len(bodies) == len(scene.ramps) + len(scene.steps)
        places = np.concatenate([scene.ramps, scene.steps])[:, None, :2] + np.random.default_rng(0).uniform(
            -0.6, 0.6, (1, 30, 2)
        )
        points = places.reshape(-1, 2)
        up, down = (
            np.column_stack([points, np.full(len(points), 2.0)]),
            np.column_stack([points, np.zeros(len(points))]),
        )
        hits = bullet.rayTestBatch(up, down, physicsClientId=client)
        height = np.array([hit[3][2] if hit[0] >= 0 else 0.0 for hit in hits])
        wrong = np.abs(height - floor_height_m(scene, points)) > 0.005
        assert wrong.mean() < 0.03  # at the very edges the collision margin counts
        assert height.max() > 0.03
    finally:
        bullet.disconnect(client)
