from __future__ import annotations

import numpy as np
import pytest

from sim.env import NavigateEnv
from sim.labelled_scans import _motion, labelled_episode


class Still:
    """A policy that stands."""

    name = "still"

    def reset(self, seed: int) -> int:
        return seed

    def act(self, state, observation):
        from robonav.types import COMMAND_LIFE_NS, Decision, VelocityCommand

        command = VelocityCommand.of(np.zeros(3), observation.stamp_ns + COMMAND_LIFE_NS)
        return state, Decision(command, 0.0, "still", None, None, {})


@pytest.fixture
def env():
    made = NavigateEnv("crowd-few", "a1", fidelity="analytic")
    yield made
    made.close()


def test_beams_that_move_are_those_on_the_movers(env: NavigateEnv) -> None:
    data = labelled_episode(env, Still(), "crowd-few", 7, 30, 3, 1)
    assert set(data.episode.tolist()) == {3} and data.scan_m.shape == (len(data.episode), 128)
    assert data.moves.any() and not data.moves[data.scan_m == 0].any()
    speed = np.hypot(*data.velocity_mps.transpose(2, 0, 1))
    fastest = max(mover.speed_mps for mover in env.scene.movers)
    assert speed.max() <= 1.3 * fastest + 1e-6 and (speed[~data.moves] < 0.11).all()
    # somebody's beams end on his disc: seen from the robot, which stands
    x, y = env.position_world_m
    yaw = env.yaw_world_rad + env.robot.lidar.angles_rad
    last = data.scan_m[-1]
    place = np.stack([x + last * np.cos(yaw), y + last * np.sin(yaw)], -1)[data.moves[-1]]
    if len(place):
        away = np.linalg.norm(place[:, None] - env.movers_world[None, :, :2], axis=-1).min(axis=1)
        assert away.max() < max(m.radius_m for m in env.scene.movers) + 0.35


def test_a_scene_without_movers_has_none(env: NavigateEnv) -> None:
    data = labelled_episode(env, Still(), "rooms", 2, 5, 0, 1)
    assert not data.moves.any() and not data.velocity_mps.any()
    assert np.array_equal(data.told, data.scan_m > 0)


def test_the_velocity_ahead_knows_of_turns() -> None:  # he turns back after 2 ticks
    places = np.array(
        [[[0.0, 0.0]], [[0.1, 0.0]], [[0.2, 0.0]], [[0.1, 0.0]], [[0.0, 0.0]]]
    )  # turns back after 2 ticks
    hit, turns = np.zeros((4, 1), int), np.array([0.0, 0.0, 0.0, np.pi / 2])
    velocity, moves = _motion(places, hit, turns, 0.1, 2)
    assert np.allclose(velocity[:, 0], [[1.0, 0], [0.0, 0], [-1.0, 0], [0, -1.0]], atol=1e-6)
    assert moves[1:].all()
    assert not _motion(places, np.full((4, 1), -1), turns, 0.1, 2)[0].any()
