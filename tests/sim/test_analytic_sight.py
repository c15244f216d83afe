"""`BatchSight`: in each world what `MotionSight` answers on the robot, at any rate, through resets and lost scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.mapping.sight import MotionSight, tracked
from robonav.mapping.tracks import MoverTracker
from robonav.planning.local import LocalPilot
from robonav.planning.situation import SituationConfig, SituationTracker
from robonav.types import Observation
from sim.analytic.sight import BatchSight
from sim.analytic.tracks import BatchMovers

A1 = load_robot("a1")


def walked(ticks: int, seed: int, dt_s: float) -> list[Observation]:
    """Scans of a round hall in which two things walk past a robot that turns; some are lost."""
    rng, angles = np.random.default_rng(seed), A1.lidar.angles_rad
    out = []
    for k in range(ticks):
        time = k * dt_s
        pose = np.array([0.2 * time, 0.0, 0.3 * time])
        scan = 4.0 + 0.3 * np.sin(3 * (angles + pose[2])) + rng.normal(0.0, 0.005, len(angles))
        for start, velocity in ((2 - 1j, 1j), (-1.5 + 0.5j, 0.5 - 0.4j)):
            away = (start + velocity * time - complex(*pose[:2])) * np.exp(-1j * pose[2])
            beside = np.abs(np.angle(np.exp(1j * (angles - np.angle(away)))))
            scan = np.where(beside < 0.25 / abs(away), np.minimum(scan, abs(away) - 0.2), scan)
        lost = rng.random() < 0.15
        out.append(
            Observation(
                stamp_ns=round(time * 1e9),
                pose_odom_base=pose.astype(np.float32),
                twist_base=np.zeros(3, np.float32),
                tilt_rad=np.zeros(2, np.float32),
                goal_odom_m=np.array([3.0, 0.0], np.float32),
                last_command=np.zeros(3, np.float32),
                scan_m=None if lost else np.clip(scan, 0.1, A1.lidar.range_m).astype(np.float32),
            )
        )
    return out


@pytest.mark.parametrize("rate_hz", [10.0, 20.0, 25.0, 5.0])
def test_each_world_sees_what_the_robot_sees(rate_hz: float) -> None:
    spec = replace(A1, rate_hz=rate_hz)
    sight = MotionSight.named("learned", spec.lidar)
    assert sight is not None
    tracker, config, moved = MoverTracker(spec), SituationConfig().movers, 0
    movers, batch = BatchMovers(spec, 2, config), BatchSight(sight, 2, spec.dt_s, config)
    out = np.zeros((2, spec.lidar.beams, 2), np.float32)
    for episode in range(2):
        drives = [walked(30, 2 * episode + b, spec.dt_s) for b in range(2)]
        movers.reset(np.arange(2))
        batch.reset(np.arange(2))
        alone = [(tracker.reset(), sight.reset()) for _ in range(2)]
        for now in zip(*drives, strict=True):
            has = np.array([o.scan_m is not None for o in now])
            scans = np.stack([np.zeros(spec.lidar.beams, np.float32) if o.scan_m is None else o.scan_m for o in now])
            poses, everyone = np.stack([o.pose_odom_base for o in now]), np.ones(2, np.bool_)
            movers.update(scans, poses, has, spec.dt_s)
            batch.update(scans, poses, has, everyone)
            batch.flow(movers.tracks, everyone, out)
            for b, observation in enumerate(now):
                tracks, of_beam = tracker.update(alone[b][0], observation)
                memory, flow = sight.look(alone[b][1], observation, tracked(tracks, of_beam, tracker.moving(tracks)))
                alone[b] = tracks, memory
                assert (flow is None) == (observation.scan_m is None)
                np.testing.assert_array_equal(out[b], np.zeros_like(out[b]) if flow is None else flow.base_mps)
                moved += bool(out[b].any())
    assert moved > 60


def test_worlds_that_are_not_active_are_left_alone() -> None:
    sight = MotionSight.named("learned", A1.lidar)
    assert sight is not None
    config = SituationConfig().movers
    movers, batch = BatchMovers(A1, 2, config), BatchSight(sight, 2, A1.dt_s, config)
    out, lone = np.zeros((2, A1.lidar.beams, 2), np.float32), np.array([True, False])
    for observation in (o for o in walked(12, 7, A1.dt_s) if o.scan_m is not None):
        scans, poses = np.stack([observation.scan_m] * 2), np.stack([observation.pose_odom_base] * 2)
        movers.update(scans, poses, np.ones(2, np.bool_), A1.dt_s, lone)
        batch.update(scans, poses, np.ones(2, np.bool_), lone)
        out[1] = 7.0
        batch.flow(movers.tracks, lone, out)
        assert (out[1] == 7.0).all()
    assert out[0].any()


def test_the_policys_input_is_the_sights_where_the_situation_says_so() -> None:
    plain, seeing = SituationTracker(A1), SituationTracker(A1, SituationConfig(sight="learned"))
    assert plain.sight is None and seeing.sight is not None
    one, other, differ = plain.reset(), seeing.reset(), 0
    for observation in walked(30, 5, A1.dt_s):
        one, other = plain.update(one, observation), seeing.update(other, observation)
        by_tracker, by_sight = plain.policy_input(one, observation), seeing.policy_input(other, observation)
        if observation.scan_m is None:
            assert not by_sight.flow_mps.any()
        else:
            assert other.flow is not None
            np.testing.assert_array_equal(by_sight.flow_mps, other.flow.base_mps)
            c, s = np.cos(observation.pose_odom_base[2]), np.sin(observation.pose_odom_base[2])
            in_odom = by_sight.flow_mps @ np.array([[c, s], [-s, c]], np.float32)
            np.testing.assert_allclose(in_odom, other.flow.velocity_mps, atol=1e-6)
        differ += not np.array_equal(by_tracker.flow_mps, by_sight.flow_mps)
        np.testing.assert_array_equal(by_tracker.local_map, by_sight.local_map)
    assert differ > 10


def test_where_the_lidar_is_another_one_the_tracker_speaks() -> None:
    other = replace(A1, lidar=replace(A1.lidar, beams=64))
    assert SituationTracker(other, SituationConfig(sight="learned")).sight is None


def test_an_unknown_sight_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"situation: sight: expected '' or 'learned', got 'mine\.npz'"):
        SituationConfig(sight="mine.npz")


def test_a_pilot_plans_alike_whether_the_situation_has_looked_or_not() -> None:
    pilot, states = LocalPilot(A1), []
    trackers = [SituationTracker(A1, SituationConfig(sight=sight)) for sight in ("", "learned")]
    for tracker in trackers:
        states.append((tracker.reset(), pilot.reset(3)))
    moved = 0
    for observation in walked(20, 5, A1.dt_s):
        plans = []
        for i, tracker in enumerate(trackers):
            situation = tracker.update(states[i][0], observation)
            move = pilot.move(states[i][1], observation, situation)
            states[i] = situation, move.state
            plans.append(move)
        assert states[0][1].seen.stamps_ns == states[1][1].seen.stamps_ns
        np.testing.assert_array_equal(plans[0].plan.actions, plans[1].plan.actions)
        velocity = plans[0].state.surroundings.velocity_mps
        moved += velocity is not None and bool(np.abs(velocity).max() > 0.3)
    assert moved > 8
