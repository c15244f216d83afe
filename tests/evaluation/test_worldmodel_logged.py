"""Dreams against a log, by hand: a model that is right has no error, one that is late is wrong by what it is late."""

from __future__ import annotations

import numpy as np
import pytest

from robonav.evaluation.worldmodel.logged import dreams_of, recorded_of
from robonav.types import Observation, RobotSpec
from tests.evaluation.worldmodel_by_hand import DISCOUNT, SLOPE_M, episode_on_a_line, line_agent

HORIZON = 5


def drive(spec: RobotSpec, ticks: int = 20):
    """On the line, with places that follow from the velocities as odometry would say."""
    episode = episode_on_a_line(spec, np.full(ticks, 0.5))
    velocity = episode.truth.velocity[:, 0]
    episode.truth.pose_world[:, 0] = np.concatenate([[0.0], np.cumsum(velocity[1:])]) * spec.dt_s
    return episode


def test_a_model_that_is_right_has_no_error_and_nothing_beyond_the_end(a1: RobotSpec) -> None:
    found = dreams_of(line_agent(), drive(a1), a1, HORIZON)
    assert found.tick.tolist() == list(range(19))
    for errors in (found.lidar_m, found.pose_m, found.reward):
        known = np.isfinite(errors)
        assert errors[known] == pytest.approx(0.0, abs=1e-5)
        assert known.sum(axis=1).tolist() == [min(HORIZON, 19 - t) for t in range(19)]
    assert found.collision == pytest.approx(0.0, abs=1e-4)


def test_one_that_is_late_is_wrong_by_what_it_is_late(a1: RobotSpec) -> None:
    found = dreams_of(line_agent(late=2.0), drive(a1), a1, HORIZON)
    assert np.nanmean(found.lidar_m) == pytest.approx(2.0 * SLOPE_M, rel=1e-4)
    held = np.nanmean(found.held_m, axis=0)
    assert held == pytest.approx(SLOPE_M * 0.5 * np.arange(1, HORIZON + 1), rel=1e-3)


def test_the_imagined_return_is_the_discounted_rewards_of_what_was_done(a1: RobotSpec) -> None:
    episode = drive(a1)
    found = dreams_of(line_agent(value=3.0), episode, a1, HORIZON, every=2)
    for tick, got in zip(found.tick[:5].tolist(), found.imagined_return[:5].tolist(), strict=True):
        rewards = episode.reward[tick + 1 : tick + 1 + HORIZON]
        wanted = (rewards * DISCOUNT ** np.arange(HORIZON)).sum() + DISCOUNT**HORIZON * 3.0
        assert got == pytest.approx(wanted, rel=1e-4)


def test_a_log_of_one_tick_has_no_dream(a1: RobotSpec) -> None:
    found = dreams_of(line_agent(), drive(a1, ticks=1), a1, HORIZON)
    assert len(found.tick) == 0
    assert found.lidar_m.shape == (0, HORIZON)


def test_observations_become_an_episode(a1: RobotSpec) -> None:
    observations = [
        Observation(
            stamp_ns=10**8 * i,
            pose_odom_base=np.array([0.1 * i, 0.0, 0.0], np.float32),
            twist_base=np.array([1.0, 0.0, 0.0], np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.array([3.0, 0.0], np.float32),
            last_command=np.array([0.2 * i, 0.0, 0.0], np.float32),
            scan_m=None if i == 2 else np.full(a1.lidar.beams, 2.0, np.float32),
        )
        for i in range(4)
    ]
    episode = recorded_of(observations, a1, np.arange(4), collided=True)
    assert episode.ticks == 4
    assert episode.collided
    # What is done after a tick is what the next observation says was applied.
    assert episode.action[:, 0] == pytest.approx([0.2, 0.4, 0.6, 0.6])
    assert episode.inputs["goal_base_m"][:, 0] == pytest.approx([3.0, 2.9, 2.8, 2.7])
    assert (episode.truth.scan_m[2] == a1.lidar.range_m).all()
    assert (episode.inputs["scan_m"][2] == 0).all()
