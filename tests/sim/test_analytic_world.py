"""One analytic world beside `sim.world.World`: the same motion, movers and tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.errors import SceneError, ShapeError
from robonav.types import Scene
from sim.analytic.batch import AnalyticBatch
from sim.analytic.fields import field_of
from sim.analytic.pool import ScenePool
from sim.analytic.shapes import solid_of
from sim.analytic.world import AnalyticWorld
from sim.scenes import load_scene
from sim.task import reward_field
from sim.world import World, WorldConfig

A1 = load_robot("a1")


@pytest.fixture
def bullet_world():
    world = World(A1)
    yield world
    world.close()


@pytest.mark.parametrize(("scene", "lag_s"), [("rooms", 0.15), ("crowd-dense", 0.15), ("doors-moving", 0.0)])
def test_motion_movers_and_contact_are_those_of_the_kinematic_world(bullet_world, scene, lag_s) -> None:
    source, ours = load_scene(scene, A1), AnalyticWorld(A1)
    rng = np.random.default_rng(0)
    touched = 0
    for number in range(6):
        task = source.scene(number)
        for world in (bullet_world, ours):
            world.load(task)
            world.lag_s = lag_s
        for _ in range(60):
            command = rng.uniform((-0.3, -0.4, -1.2), (1.0, 0.4, 1.2))
            duration_s = float(rng.choice([0.1, 0.04, 0.13]))
            over = bullet_world.advance(command, duration_s)
            assert ours.advance(command, duration_s) == over
            if over:  # PyBullet's distance to round shapes is up to a millimetre off, so a substep may lie between
                touched += 1
                np.testing.assert_allclose(ours.pose_world, bullet_world.pose_world, atol=0.05)
                break
            np.testing.assert_allclose(ours.pose_world, bullet_world.pose_world, atol=1e-12)
            np.testing.assert_allclose(ours.velocity, bullet_world.velocity, atol=1e-12)
            assert ours.path_m == pytest.approx(bullet_world.path_m)
            assert ours.clearance_m == pytest.approx(bullet_world.clearance_m, abs=2e-3)
            theirs, state = bullet_world.mover_state, ours.mover_state
            assert (theirs is None) == (state is None)
            if theirs is not None:
                np.testing.assert_array_equal(state, theirs)
    assert touched


def test_a_world_of_a_batch_is_that_world_alone() -> None:
    names, ticks = ("rooms", "crowd-few", "clutter", "doors-moving", "rooms"), 40
    scenes = [load_scene(name, A1).scene(k) for k, name in enumerate(names)]
    commands = np.random.default_rng(1).uniform((-0.3, -0.4, -1.2), (1.0, 0.4, 1.2), (ticks, len(names), 3))
    durations = np.random.default_rng(2).choice([0.1, 0.03, 0.06], (ticks, len(names)))
    batch = AnalyticBatch(A1, len(names))
    batch.lag_s[:] = np.linspace(0.0, 0.3, len(names))
    batch.reset(range(len(names)), scenes)
    alone = []
    for b, scene in enumerate(scenes):
        one = AnalyticWorld(A1)
        one.lag_s = batch.lag_s[b]
        one.load(scene)
        alone.append(one)
    for tick in range(ticks):
        state = batch.step(commands[tick], duration_s=durations[tick])
        scans = batch.scan()
        for b, one in enumerate(alone):
            one.advance(commands[tick, b], durations[tick, b])
            assert one.pose_world == tuple(state.pose[b].tolist())
            assert one.velocity == tuple(state.velocity[b].tolist())
            assert (one.collided, one.clearance_m, one.path_m) == (
                state.collided[b],
                state.clearance_m[b],
                state.path_m[b],
            )
            np.testing.assert_array_equal(one.scan(A1.lidar), scans[b])


def test_worlds_that_are_not_active_stand_still() -> None:
    scenes = [load_scene(name, A1).scene(3) for name in ("crowd-few", "rooms", "crowd-few")]
    batch = AnalyticBatch(A1, 3)
    batch.reset(range(3), scenes)
    assert batch.mover_state is not None
    before = [array.copy() for array in (*batch.state, batch.mover_state)]
    batch.step(np.full((3, 3), 0.3), np.array([True, False, False]))
    batch.reset([0], scenes[:1])
    for old, new in zip(before, (*batch.state, batch.mover_state), strict=True):
        np.testing.assert_array_equal(new[1:], old[1:])
    np.testing.assert_array_equal(batch.state.pose[0], scenes[0].start)


@pytest.mark.parametrize("name", ["rooms", "maze", "clutter-dense", "office", "crowd-dense"])
def test_reward_fields_are_those_of_the_plain_code(name) -> None:
    source = load_scene(name, A1)
    for number in range(2):
        scene = source.scene(number)
        (ours, our_m), (theirs, their_m) = field_of(scene, solid_of(scene), A1), reward_field(scene, A1)
        np.testing.assert_allclose(ours.length_m, theirs.length_m, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(ours.reached, theirs.reached)
        assert (ours.origin_m, ours.resolution_m) == (theirs.origin_m, theirs.resolution_m)
        assert our_m == pytest.approx(their_m)


def test_a_goal_behind_walls_is_refused() -> None:
    wall = np.array([(0.0, -3.0, 0.0, 3.0, 0.2)])
    scene = Scene("cut", (-3, -3, 3, 3), (-2.0, 0.0, 0.0), (2.0, 0.0), walls=wall)
    with pytest.raises(SceneError, match=r"scene 'cut': no way from start .* for robot 'a1'"):
        field_of(scene, solid_of(scene), A1)


def test_pools_hand_out_the_same_scenes_again() -> None:
    source = load_scene("rooms", A1)
    endless, three, ahead = ScenePool(source, A1), ScenePool(source, A1, 3), ScenePool(source, A1, ahead=True)
    try:
        assert three.get(4) is three.get(1)
        ahead.expect(7)
        for pool in (endless, ahead):
            assert pool.get(7).scene.name == source.scene(7).name
            np.testing.assert_array_equal(pool.get(7).field.length_m, endless.get(7).field.length_m)
        other = ScenePool(source, A1, 3)
        other.take_over(three)
        assert other.get(1) is three.get(1)
    finally:
        ahead.close()
    fixed = ScenePool(load_scene("empty", A1), A1)
    assert fixed.get(0).scene is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AnalyticBatch(A1, 0), "batch: expected 1 or more worlds, got 0"),
        (lambda: AnalyticWorld(A1, WorldConfig(body="links")), "body: expected 'footprint' in analytic worlds"),
        (lambda: AnalyticBatch(A1, 2).step(np.zeros((1, 3))), r"commands: expected \(2, 3\) vx, vy, yaw rate, got"),
        (lambda: AnalyticBatch(A1, 2).reset([0, 1], []), "scenes: expected one for each of 2 worlds, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_without_pybullet_everything_runs(tmp_path) -> None:
    """In a process in which it cannot be imported, as on machines without its wheel."""
    (tmp_path / "pybullet.py").write_text("raise ImportError('blocked')\n")
    (tmp_path / "pybullet_data.py").write_text("raise ImportError('blocked')\n")
    script = """
        import numpy as np
        import sim
        from robonav.errors import MissingDependencyError
        from sim.analytic.env import AnalyticVectorEnv

        for scene, options in (("rooms", {}), ("crowd-few", {"sensors": "real", "randomisation": "sim2real"})):
            batch = AnalyticVectorEnv(4, scene, **options)
            one = sim.make_env(scene, fidelity="analytic", **options)
            one.reset(seed=0)
            observation, _ = batch.reset(seed=0)
            for _ in range(30):
                observation, reward, *_ = batch.step(np.full((4, 3), 0.2, np.float32))
                if any(one.step(np.full(3, 0.2, np.float32))[2:4]):
                    one.reset()
            assert batch.observation_space.contains(observation)
            assert np.isfinite(reward).all()
            batch.close()
            one.close()
        assert sim.make_vec(2, fidelity="analytic").reset(seed=0)[0]["scan_m"].shape == (2, 128)
        try:
            sim.make_env("rooms")
        except MissingDependencyError as error:
            assert "pybullet: not installed" in str(error), error
        else:
            raise SystemExit("pybullet is not blocked")
        print("fine")
    """
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "fine", done.stderr
