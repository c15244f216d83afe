"""Who moves is recorded with an episode and drawn beside the robot's way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from robonav.evaluation import pictures, video
from robonav.evaluation.runner import EpisodeOptions, Recording, record_episode
from robonav.evaluation.shapes import mover_outline
from robonav.types import Mover
from sim.env import NavigateEnv
from tests.evaluation.fake_navigation import SPEC, Forward, LineEnv

WALKER = Mover("pedestrian", "waypoint", ((3.0, 0.8), (0.0, 0.8)), radius_m=0.2)
LEAF = Mover("door", "door", ((4.5, -0.9), (4.5, -0.1), (5.3, -0.9)), box_m=(9.0, 0.05))


class WithMovers(LineEnv):
    """Somebody walks by at 1 m/s while a door stands as it is."""

    def reset(self, seed=None, options=None):
        result = super().reset(seed, options)
        self.scene = dataclasses.replace(self.scene, movers=(WALKER, LEAF))
        return result

    @property
    def movers_world(self):
        return np.array([[3.0 - self.ticks * SPEC.dt_s, 0.8, np.pi], [4.5, -0.5, np.pi / 2]])


@pytest.fixture
def recording() -> Recording:
    return record_episode(WithMovers(), Forward(), 1, EpisodeOptions(SPEC))


def test_an_episode_keeps_where_movers_were_at_every_tick(recording: Recording) -> None:
    ways = recording.movers_world
    assert ways is not None and ways.shape == (recording.episode.steps + 1, 2, 3)
    assert np.allclose(ways[:, 0, 0], 3.0 - SPEC.dt_s * np.arange(len(ways)))
    assert record_episode(LineEnv(), Forward(), 1, EpisodeOptions(SPEC)).movers_world is None


def test_outlines() -> None:
    disc = mover_outline(WALKER, np.array([1.0, 2.0, 0.3]))
    assert np.allclose(np.hypot(*(disc - (1.0, 2.0)).T), 0.2)
    leaf = mover_outline(LEAF, np.array([4.5, -0.5, np.pi / 2]))  # as long as from its hinge to its end
    assert np.allclose(np.sort(leaf[:, 1]), [-0.9, -0.9, -0.1, -0.1]) and np.allclose(np.ptp(leaf[:, 0]), 0.05)
    box = mover_outline(dataclasses.replace(WALKER, box_m=(0.6, 0.4)), np.array([0.0, 0.0, np.pi / 2]))
    assert np.allclose(np.ptp(box, axis=0), [0.4, 0.6])


def test_the_page_shows_them(recording: Recording, tmp_path: Path) -> None:
    violet = {}
    for name, shown in {"with": recording, "without": dataclasses.replace(recording, movers_world=None)}.items():
        pictures.draw_page([shown], SPEC, name, tmp_path / "page.png")
        blue, green, red = np.moveaxis(cv2.imread(str(tmp_path / "page.png")).astype(int), -1, 0)
        violet[name] = int(((red - green > 20) & (blue - red > 20)).sum())
    assert violet["without"] == 0 and violet["with"] > 200


def test_the_film_shows_them_where_they_are(recording: Recording, tmp_path: Path) -> None:
    frames: list[np.ndarray] = []

    def keep(shown, aside: Path, rate_hz: float) -> None:
        frames.extend(shown)
        aside.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "write_gif", keep)
        video.write_video([recording], SPEC, tmp_path / "film.gif")
    columns = [np.nonzero((frame == video._MOVER).all(axis=-1))[1].min() for frame in frames[:20]]
    assert columns[0] > columns[10] > columns[19]


def test_the_environment_says_where_its_movers_are() -> None:
    env = NavigateEnv("crowd-few", "a1", fidelity="analytic", policy_input=False)
    env.reset(seed=3)
    before = env.movers_world
    assert before.shape == (len(env.scene.movers), 3) and len(before) > 0
    env.step(np.zeros(3, np.float32))
    moved_m = np.linalg.norm(env.movers_world[:, :2] - before[:, :2], axis=1)
    assert 0 < moved_m.max() < 1.5 * env.robot.dt_s + 1e-9
    env.reset(seed=3)
    assert np.array_equal(env.movers_world, before)
    empty = NavigateEnv("empty", "a1", fidelity="analytic", policy_input=False)
    empty.reset(seed=3)
    assert empty.movers_world.shape == (0, 3)
