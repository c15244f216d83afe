"""Scene files that are broken or impossible: exit status 2 and one clear line, whatever the command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from robonav.cli.main import main

pytest.importorskip("gymnasium")
pytest.importorskip("matplotlib")

MAP = {
    "image": "room.pgm",
    "resolution": "0.1",
    "origin": "[0.0, 0.0, 0.0]",
    "negate": "0",
    "occupied_thresh": "0.65",
    "free_thresh": "0.196",
}
BOX = "<sdf version='1.6'><world name='w'><model name='m'><pose>{pose}</pose><link name='l'><collision name='c'>"
BOX += "<geometry><box><size>{size}</size></box></geometry></collision></link></model></world></sdf>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A room of 8 x 6 m whose right third is cut off, as a map."""
    room = np.full((60, 80), 254, np.uint8)
    room[[0, -1]] = 0
    room[:, [0, 55, -1]] = 0
    cv2.imwrite(str(tmp_path / "room.pgm"), room)
    return tmp_path


def write_map(folder: Path, **changes: str) -> str:
    path = folder / "room.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in {**MAP, **changes}.items()))
    return str(path)


def write_scene(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr, with exit status 2 and no picture."""
    assert main(["scenes", *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("robonav: error: ")
    return err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "other.pgm"}, "no such file"),
        ({"image": "room.yaml"}, "no picture that can be read"),
        ({"resolution": ".nan"}, "resolution: expected a finite number"),
        ({"resolution": "-0.1"}, "metres a cell, above 0"),
        ({"resolution": "100"}, "up to 300 x 300 m"),
        ({"origin": "[0, 0]"}, "origin: expected [x, y, yaw]"),
        ({"negate": "yes"}, "negate: expected 0 or 1"),
        ({"mode": "scales"}, "did you mean 'scale'"),
        ({"free_thresh": "0.9"}, "free_thresh <= occupied_thresh"),
    ],
)
def test_broken_maps(changes, words, folder, capsys):
    assert words in said(["render", write_map(folder, **changes), "--out", str(folder / "x.png")], capsys)
    assert not (folder / "x.png").exists()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("start = [0.1, 3.0, 0.0]\ngoal = [4.0, 3.0]", "inside a wall"),
        ("start = [1.0, 3.0, 0.0]\ngoal = [5.52, 3.0]", "goal (5.52, 3.00): inside a wall"),
        ("start = [1.0, 3.0, 0.0]\ngoal = [7.0, 3.0]", "no way from start (1.00, 3.00) to goal (7.00, 3.00)"),
        ("start = [1.0, 3.0, 0.0]\ngoal = [70.0, 3.0]", "outside the map"),
        ("start = [1.0, nan, 0.0]\ngoal = [4.0, 3.0]", "finite"),
        ("start = [1.0, 3.0, 0.0]", "both start and goal"),
        ("solid_percent = 0", "1 to 100"),
    ],
)
def test_impossible_tasks(task, words, folder, capsys):
    write_map(folder)
    path = write_scene(folder, f'kind = "map"\n[map]\nfile = "room.yaml"\n{task}\n')
    for argv in (["render", path], ["export", path, "--out", str(folder / "out.yaml")], ["check", path, "--n", "2"]):
        assert words in said(argv, capsys)
    assert not (folder / "out.yaml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<sdf><world>", "no valid XML"),
        ("<robot name='a'/>", "<sdf> with a <world> in it"),
        (BOX.format(pose="0 0 0.5 0 0 0", size="1 -2 1"), "sizes above 0"),
        (BOX.format(pose="0 0 zero 0 0 0", size="1 2 1"), "pose: expected 6 finite numbers"),
        (BOX.format(pose="0 0 0.5 0 0 0", size="1 2 1"), "a start and a goal"),
    ],
)
def test_broken_worlds(text, words, folder, capsys):
    path = folder / "bad.world"
    path.write_text(text)
    assert words in said(["render", str(path)], capsys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('kind = "labyrinth"\n', "unknown kind 'labyrinth'; known: "),
        ('kind = "mazes"\n', "did you mean 'maze'"),
        ('kind = "maze"\n[maze]\ncells = [3, 99]\n', "cells: expected 2 to 20 a side"),
        ('kind = "maze"\n[maze]\nwall_m = -0.1\n', "wall_m: expected a number above 0"),
        ('kind = "rooms"\n[rooms]\nsize_m = [-8.0, 9.0]\n', "size_m: expected a range"),
        ('kind = "warehouse"\n[warehouse]\nmissing = 1.5\n', "missing: expected within 0 to 1"),
        ('kind = "corridors"\n[corridors]\nmoving_doors = 1.0\ndoor_period_s = [6.0, 7.0]\n', "opening and closing"),
        ('kind = "clutter"\n[clutter]\nfil = [0.1, 0.2]\n', "did you mean 'fill'"),
        ('kind = "maze\n', "mine.toml"),
        (
            'kind = "rooms"\n[[movers]]\nkind = "robot"\nbehaviour = "waypoint"\nwaypoints_m = [[0, 0], [90, 0]]\n',
            "waypoint 1 (90.00, 0.00) leaves the map",
        ),
        (
            'kind = "rooms"\n[[movers]]\nkind = "pedestrian"\nbehaviour = "waypoint"\nradius_m = -1.0\n'
            "waypoints_m = [[-1, 0], [1, 0]]\n",
            "radius_m: expected at least 0.1",
        ),
    ],
)
def test_broken_scene_files(text, words, folder, capsys):
    path = write_scene(folder, text)
    for argv in (["render", path], ["check", path, "--n", "2"]):
        assert words in said(argv, capsys)


def test_broken_barn_grids(folder, capsys):
    np.save(folder / "grid_1.npy", np.zeros((30, 29), np.int64))
    assert "shape (30, 30)" in said(["render", str(folder / "grid_1.npy")], capsys)
    (folder / "grid_1.npy").write_bytes(b"\x93NUMPY nothing")
    assert "no valid .npy" in said(["render", str(folder / "grid_1.npy")], capsys)
    assert "no such file" in said(["render", str(folder / "grid_2.npy")], capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["check", "--n", "0"], "--n: expected at least 1"),
        (["check", "--first-seed", "-1"], "--first-seed: expected at least 0"),
        (["check", "rooms", "--robot", "a2"], "no preset 'a2'"),
        (["check", "roms"], "did you mean 'rooms'"),
        (["check", "rooms", "--n", "many"], "expected a whole number"),
    ],
)
def test_mistakes_of_check(argv, words, capsys):
    assert words in said(argv, capsys)


def test_check_counts_and_writes_figures(folder, capsys):
    import json

    path = folder / "figures.json"
    assert main(["scenes", "check", "--n", "31", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("31 scenes for a1 checked by exact geometry and PyBullet")
    assert "0 failures, 0 crashes" in out
    figures = json.loads(path.read_text())
    assert figures["scenes"] == 31
    assert figures["failures"] == 0
    assert len(figures["families"]) == 31


def test_check_says_what_fails_and_exits_with_1(folder, capsys, monkeypatch):
    from robonav.types import Scene
    from sim import scene_audit

    wall = np.array([[4, 0, 4, 6, 0.2]], np.float32)
    blocked = Scene("blocked", (0, 0, 8, 6), (2.0, 3.0, 0.0), (6.0, 3.0), walls=wall)
    monkeypatch.setattr(scene_audit, "families", lambda *a, **k: ([("blocked", lambda seed: blocked)], {}))
    assert main(["scenes", "check", "rooms", "--n", "3"]) == 1
    said = capsys.readouterr()
    assert "1 failures" in said.out
    assert "blocked, 0: blocked: no route found from (2.00, 3.00) to (6.00, 3.00)" in said.err
