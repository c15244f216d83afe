"""Pictures of walking robots: the posture that is drawn, the films, and the command that makes them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from policies.registry import make_policy
from robonav.cli import walk as command
from robonav.cli.args import UsageError
from robonav.config import load_robot
from robonav.errors import ConfigError, RobonavError
from robonav.types import Scene
from sim.legged import LeggedWorld
from sim.render_world import RenderWorld
from sim.robot import Posture, standing_height_m
from sim.walk_film import FRAME_S, Film, film_walk, save_film

SPEC = load_robot("a1")
HALL = Scene("hall", (-4.0, -4.0, 4.0, 4.0), (0.0, 0.0, 0.0), (3.0, 0.0))


@pytest.fixture(scope="module")
def renderer():
    one = RenderWorld(SPEC, 96, 72)
    yield one
    one.close()


def test_a_posture_puts_the_root_link_where_it_says(renderer) -> None:
    p, client, robot = renderer._p, renderer._client, renderer._robot
    turn = (0.0, 0.0, math.sin(0.4), math.cos(0.4))
    Posture((1.0, 2.0, 0.5), turn, {"FL_upper_joint": 0.7}).take(p, client, robot)
    inertial = p.getDynamicsInfo(robot, -1, physicsClientId=client)[3:5]
    at = p.getBasePositionAndOrientation(robot, physicsClientId=client)
    root = p.multiplyTransforms(*at, *p.invertTransform(*inertial))
    assert root[0] == pytest.approx((1.0, 2.0, 0.5))
    assert root[1] == pytest.approx(turn)
    names = [p.getJointInfo(robot, j, physicsClientId=client)[1].decode() for j in range(p.getNumJoints(robot, client))]
    angle = p.getJointState(robot, names.index("FL_upper_joint"), physicsClientId=client)[0]
    assert angle == pytest.approx(0.7)


def test_a_walking_robot_looks_different_from_a_standing_one(renderer) -> None:
    world = LeggedWorld(SPEC)
    try:
        world.load(HALL)
        still = renderer.frame(HALL, world.pose_world, "close", None, world.posture)
        upright = renderer.frame(HALL, world.pose_world, "close")
        assert np.abs(still.astype(int) - upright).mean() < 1.0  # it stands as it is drawn without a posture
        world.advance((0.6, 0.0, 0.0), 0.45)
        posture = world.posture
        assert posture.position_m[2] == pytest.approx(standing_height_m(SPEC), abs=0.03)
        assert len(posture.joints_rad) == 12
        stepping = renderer.frame(HALL, (0.0, 0.0, 0.0), "close", None, posture)
        assert np.abs(stepping.astype(int) - still).max() > 50
    finally:
        world.close()


def test_a_film_has_the_walk_and_its_end() -> None:
    near = dataclasses.replace(HALL, goal=(1.0, 0.0))
    film = film_walk(near, SPEC, make_policy("astar", SPEC), seconds=3.0, size=(64, 48))
    assert film.outcome == "success"
    assert film.frames[0].shape == (48, 64, 3)
    assert len(film.frames) == round(film.time_s / FRAME_S) + 1
    assert 0.4 < film.path_m < 1.0
    assert any(not np.array_equal(a, b) for a, b in zip(film.frames, film.frames[1:], strict=False))


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_films_are_written_and_read_back(tmp_path, suffix: str) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [np.full((24, 32, 3), shade, np.uint8) for shade in (0, 100, 200)]
    save_film(tmp_path / f"film.{suffix}", Film(frames, "walking", 0.1, 0.0))
    with image.open(tmp_path / f"film.{suffix}") as film:
        assert film.n_frames == 3
        assert film.size == (32, 24)


def test_films_that_cannot_be_are_refused(tmp_path) -> None:
    with pytest.raises(RobonavError, match=r"expected a film \(.gif, .webp\), got '.mp4'"):
        save_film(tmp_path / "film.mp4", Film([np.zeros((8, 8, 3), np.uint8)], "walking", 0.0, 0.0))
    with pytest.raises(RobonavError, match="expected at least one frame"):
        save_film(tmp_path / "film.gif", Film([], "fall", 0.3, 0.0))


def test_the_command_writes_a_film(tmp_path, capsys) -> None:
    pytest.importorskip("PIL.Image")
    out = tmp_path / "a1.gif"
    assert command.main(["empty", "--seconds", "0.3", "--width", "64", "--out", str(out)]) == 0
    assert out.stat().st_size > 500
    assert "walking after 0.3 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seconds", "0"], "--seconds: expected above 0"),
        (["--skip", "-1"], "--skip: expected 0 or more"),
        (["--width", "8"], "--width: expected 32 to 1920"),
        (["--seed", "-1"], "--seed: expected at least 0"),
        (["--out", "walk.mp4"], "--out: expected a film"),
        (["--robot", "a2"], "robots: no preset 'a2'"),
    ],
)
def test_arguments_that_cannot_be_are_one_line(argv: list[str], said: str) -> None:
    with pytest.raises((UsageError, ConfigError)) as caught:
        command.main(argv)
    assert said in str(caught.value)
