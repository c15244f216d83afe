from __future__ import annotations

import cv2
import pytest

from robonav.cli.main import main

pytest.importorskip("gymnasium")
pytest.importorskip("matplotlib")


def test_list_names_every_preset_with_its_comment(capsys, root):
    assert main(["scenes", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert {row.split()[0] for row in rows} == {p.stem for p in (root / "configs" / "scenes").glob("*.toml")}
    assert len(rows) == len(set(rows))
    assert all(len(row.split()) > 2 for row in rows)


def test_render_draws_a_page(tmp_path, capsys):
    one, four = tmp_path / "one.png", tmp_path / "four.png"
    assert main(["scenes", "render", "rooms", "--seeds", "1", "--out", str(one)]) == 0
    assert main(["scenes", "render", "rooms", "--seeds", "4", "--out", str(four)]) == 0
    assert "rooms, 4 drawn" in capsys.readouterr().out
    small, large = cv2.imread(str(one)), cv2.imread(str(four))
    assert large.shape[1] > 3 * small.shape[1]
    assert small.std() > 5  # there is something on it


def test_a_fixed_scene_is_drawn_once(tmp_path, capsys):
    assert main(["scenes", "render", "office", "--out", str(tmp_path / "office.png")]) == 0
    assert "office, 1 drawn" in capsys.readouterr().out


def test_without_a_name_there_is_a_sheet_of_all_presets(tmp_path, capsys, root):
    sheet = tmp_path / "sheet.png"
    assert main(["scenes", "render", "--seeds", "1", "--out", str(sheet)]) == 0
    presets = list((root / "configs" / "scenes").glob("*.toml"))
    assert f"{len(presets)} presets, {len(presets)} scenes drawn" in capsys.readouterr().out
    image = cv2.imread(str(sheet))
    assert image.shape[0] > 75 * len(presets)  # two strips side by side
    assert image.std() > 5


def test_export_writes_a_map_that_loads_again(tmp_path, capsys):
    from sim import load_scene

    path = tmp_path / "office-7.yaml"
    assert main(["scenes", "export", "crowd-office", "--seed", "7", "--out", str(path)]) == 0
    said = capsys.readouterr().out
    assert "crowd-office-7" in said
    assert "left out" in said
    assert {p.name for p in tmp_path.iterdir()} == {"office-7.yaml", "office-7.pgm"}
    assert len(load_scene(str(path)).scene(0).boxes) > 20


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["export"], "name is missing"),
        (["export", "rooms", "--out", "map.png"], "--out: expected a map's name that ends in .yaml"),
        (["export", "rooms", "--seed", "-1"], "--seed: expected at least 0"),
        (["export", "rooms", "--resolution", "0"], "resolution: expected metres a cell, above 0"),
        (["render", "roms"], "did you mean 'rooms'?"),
        (["render", "rooms", "--seeds", "0"], "--seeds: expected 1 to 100, got 0"),
        (["render", "rooms", "--first-seed", "-1"], "--first-seed: expected at least 0"),
        (["render", "rooms", "--robot", "a2"], "no preset 'a2'"),
        (["render", "rooms", "--out", "x.mcap"], "--out: expected an image"),
        (["draw"], "invalid choice 'draw'"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["scenes", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
