from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robonav.errors import ConfigError
from robonav.learning.sight import SightNet, _batch, _mirrored, report, save_sight, train_sight
from robonav.learning.sight_data import SightConfig, SightData, samples
from robonav.mapping.sight import CHANNELS, LAGS, MotionSight, channels, tracked
from robonav.mapping.tracks import MoverTracker
from robonav.types import RobotSpec
from tests.mapping.raycast import cast, observe, room

WALLS = room(-2.6, -2.6, 2.6, 2.6)
SMALL = SightConfig(width=16, steps=500, batch=16)


def episode(spec: RobotSpec, number: int, ticks: int = 14) -> SightData:
    """Somebody walks straight through a room in which a robot stands."""
    rng = np.random.default_rng(number)
    velocity, start = rng.uniform(-1, 1, 2), rng.uniform(1.0, 2.0, 2) * rng.choice([-1, 1], 2)
    tracker = MoverTracker(spec)
    tracks, rows = tracker.reset(), []
    for tick in range(ticks):
        at = start + 0.1 * tick * velocity
        pose = np.array([0.0, 0.0, 0.05 * tick])
        scan = cast(pose, spec.lidar, WALLS, np.array([[*at, 0.25]]))
        tracks, of_beam = tracker.update(tracks, observe(pose, (3, 0), scan, tick * 10**8))
        word = tracked(tracks, of_beam, tracker.moving(tracks))
        angle = spec.lidar.angles_rad + pose[2]
        hit = np.hypot(scan * np.cos(angle) - at[0], scan * np.sin(angle) - at[1]) < 0.3
        told = np.concatenate([word.velocity_mps[0].T, np.concatenate(word[1:])])
        rows.append((scan, pose, told, np.where(hit[:, None], velocity, 0.0), hit))
    scan, pose, told, true, hit = (np.array(part) for part in zip(*rows, strict=True))
    known = np.ones_like(hit)
    return SightData(np.full(ticks, number), scan, pose, told.astype(np.float32), true.astype(np.float32), hit, known)


@pytest.fixture(scope="module")
def walks() -> SightData:
    from robonav.config import load_robot

    return SightData.joined([episode(load_robot("a1"), number) for number in range(40)])


def test_the_robots_network_says_what_torchs_says(a1: RobotSpec, tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = SightNet(16)
    save_sight(tmp_path / "s.npz", net, a1.lidar)
    x = torch.randn(1, CHANNELS, a1.lidar.beams)
    with torch.no_grad():
        wanted = net.double()(x.double())[0].numpy()
    assert np.allclose(MotionSight.load(tmp_path / "s.npz", a1.lidar).answers(x[0].numpy()), wanted, atol=1e-4)


def test_scans_of_the_episode_before_are_not_seen(a1: RobotSpec, walks: SightData) -> None:
    made = samples(walks, a1.lidar)
    first = np.flatnonzero(np.diff(walks.episode, prepend=-1))
    valid = [2 + 4 + 2 * i + 1 for i in range(len(LAGS))]
    assert not made.channels[first][:, valid].any()
    fifth = made.channels[first + 4][:, valid].max(axis=2)
    assert (fifth[:, :4] == 1).all() and not fifth[:, 4].any()  # four ticks back there is one, six there is none


def test_samples_are_what_the_robot_makes_of_the_same_scans(a1: RobotSpec, walks: SightData) -> None:
    made, row = samples(walks, a1.lidar), 12
    earlier = [(walks.scan_m[[row - lag]].astype(float), walks.pose[[row - lag]]) for lag in LAGS]
    told = walks.tracked[[row]].astype(float)
    of = (told[:, :2].transpose(0, 2, 1), *(told[:, k] for k in range(2, 7)))
    from robonav.mapping.sight import Tracked

    alone = channels(a1.lidar, walks.scan_m[[row]].astype(float), walks.pose[[row]], earlier, Tracked(*of))
    assert np.allclose(made.channels[row].astype(float), alone[0], atol=2e-3)


def test_the_true_velocity_is_turned_into_the_beams_frame(a1: RobotSpec, walks: SightData) -> None:
    made = samples(walks, a1.lidar)
    speed = np.hypot(*made.velocity_mps.transpose(1, 0, 2))
    assert np.allclose(speed, np.hypot(*walks.velocity_mps.transpose(2, 0, 1)), atol=1e-5)
    row, beam = 5, int(np.flatnonzero(walks.moves[5])[0])
    angle = walks.pose[row, 2] + a1.lidar.angles_rad[beam]
    along = walks.velocity_mps[row, beam] @ [np.cos(angle), np.sin(angle)]
    assert made.velocity_mps[row, 0, beam] == pytest.approx(along, abs=1e-5)


def test_mirroring_twice_changes_nothing_and_mirrors_a_scene(a1: RobotSpec, walks: SightData) -> None:
    made = samples(walks, a1.lidar)
    batch = _batch(made, np.arange(8))
    for once, twice in zip(batch, _mirrored(_mirrored(batch)), strict=True):
        assert torch.equal(once, twice)


def test_it_learns_who_moves(a1: RobotSpec, walks: SightData) -> None:
    made = samples(walks, a1.lidar)
    untrained = report(SightNet(16), made)
    net, found = train_sight(made, SMALL)
    assert found.recall > 0.8 and found.false < 0.02
    assert found.error_mps < min(untrained.error_mps, 0.45)
    again, same = train_sight(made, SMALL)
    assert same == found and all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_numbers_out_of_range_are_refused() -> None:
    for bad in ({"steps": 0}, {"lr": 0.0}, {"huber_mps": 0.0}, {"width": 0}):
        with pytest.raises(ConfigError):
            replace(SMALL, **bad)
