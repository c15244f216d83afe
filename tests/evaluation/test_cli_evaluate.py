from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from robonav.cli.main import main
from robonav.types import RobotSpec

BARN = Path(os.environ.get("ROBONAV_BARN_DIR") or Path(__file__).resolve().parents[3] / "shared" / "barn")
needs_barn = pytest.mark.skipif(not (BARN / "grid_files").is_dir(), reason="the BARN dataset is not here")


def refused(capsys, *argv):
    assert main(["evaluate", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("robonav: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--policy", "astar", "--suite", "roms"], "did you mean 'rooms'"),
        (["--policy", "astra"], "did you mean 'astar'"),
        (["--policy", "astar", "--episodes", "0"], "--episodes: expected a number from 1"),
        (["--policy", "astar", "--episodes", "-3"], "got -3"),
        (["--policy", "astar", "--episodes", "many"], "--episodes: expected a whole number, got 'many'"),
        (["--policy", "astar", "--seed", "-1"], "--seed"),
        (["--policy", "astar", "--workers", "0"], "--workers"),
        (["--policy", "astar", "--robot", "a11"], "did you mean 'a1'"),
        (["--policy", "astar", "--worlds", "1"], "only for BARN"),
        (["--policy", "astar", "--suite", "barn"], "--barn-dir"),
        (["--policy", "astar", "--suite", "barn", "--barn-dir", "nowhere"], "no folder"),
        (["--policy", "astar", "--suite", "barn", "--barn-dir", ".", "--episodes", "3"], "--worlds and --trials"),
        (["--policy", "astar", "--picture", "page.txt"], ".png"),
        (["--policy", "astar", "--video", "film.avi"], ".mp4 or .gif"),
        (["--episodes", "3"], "--policy"),
        (["--policy", "astar", "--suit", "rooms"], "'--suite'"),
    ],
)
def test_bad_input_is_one_line(capsys, monkeypatch, tmp_path, argv, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--json", "--picture", "--video"])
def test_outputs_are_checked_before_the_run(capsys, tmp_path, flag):
    name = {"--json": "x.json", "--picture": "x.png", "--video": "x.mp4"}[flag]
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert "cannot write" in refused(capsys, "--policy", "astar", flag, blocked / name)
    folder = tmp_path / name
    folder.mkdir()
    assert "expected a file" in refused(capsys, "--policy", "astar", flag, folder)


def test_the_folder_for_logs_is_checked_before_the_run(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert "expected a folder" in refused(capsys, "--policy", "astar", "--log-failures", blocked)
    assert "cannot write" in refused(capsys, "--policy", "astar", "--log-failures", blocked / "logs")


@needs_barn
@pytest.mark.parametrize(
    ("worlds", "says"),
    [("1,x", "'x'"), ("5-2", "5-2"), ("", "none"), ("1,1", "twice"), ("1,12", "held out"), ("400", "299")],
)
def test_bad_worlds_are_one_line(capsys, worlds, says):
    assert says in refused(capsys, "--policy", "astar", "--suite", "barn", "--barn-dir", BARN, f"--worlds={worlds}")


@needs_barn
def test_bad_trials(capsys):
    argv = ("--policy", "astar", "--suite", "barn", "--barn-dir", BARN, "--worlds", "1", "--trials", "0")
    assert "--trials" in refused(capsys, *argv)


def test_astar_in_rooms_writes_all_outputs(capsys, tmp_path):
    pytest.importorskip("pybullet", reason="the simulator needs PyBullet")
    files = {name: tmp_path / name for name in ("out.json", "page.png", "film.mp4")}
    argv = ["evaluate", "--policy", "astar", "--suite", "rooms", "--episodes", "2", "--seed", "7"]
    outputs = ["--json", files["out.json"], "--picture", files["page.png"], "--video", files["film.mp4"]]
    assert main([*argv, *map(str, outputs), "--workers", "2"]) == 0
    assert all(path.stat().st_size > 1000 or path.suffix == ".json" for path in files.values())
    two = json.loads(files["out.json"].read_text())
    assert (two["policy"], two["suite"], two["episodes"], two["seed"]) == ("astar", "rooms", 2, 7)
    assert sum(two[outcome]["rate"] for outcome in ("success", "collision", "timeout")) == pytest.approx(1.0)
    assert "policy astar, suite rooms, 2 episodes, seed 7" in capsys.readouterr().out
    one_file = tmp_path / "one.json"
    assert main([*argv, "--json", str(one_file), "--workers", "1"]) == 0
    one = json.loads(one_file.read_text())
    two.pop("decision_ms"), one.pop("decision_ms")
    assert one == two


@needs_barn
def test_barn_writes_the_public_report(tmp_path):
    pytest.importorskip("pybullet", reason="the simulator needs PyBullet")
    report, summary = tmp_path / "barn.txt", tmp_path / "barn.json"
    argv = ["--policy", "astar", "--suite", "barn", "--barn-dir", BARN, "--worlds", "2,1", "--trials", "1"]
    argv += ["--workers", "1"]
    assert main(["evaluate", *map(str, argv), "--barn-out", str(report), "--json", str(summary)]) == 0
    rows = [line.split(" ") for line in report.read_text().splitlines()]
    assert [row[0] for row in rows] == ["2", "1"]
    assert all(sum(map(int, row[1:4])) == 1 and len(row) == 6 for row in rows)
    figures = json.loads(summary.read_text())
    assert figures["worlds"] == [2, 1]
    assert figures["score"] == pytest.approx(sum(float(row[5]) for row in rows) / 2, abs=1e-4)


def test_logs_of_failures_name_a_shipped_bundle(a1: RobotSpec) -> None:
    from policies.registry import pretrained_dir
    from robonav.cli.failure_logs import _about

    about = _about("quick", None, a1)
    assert about["bundle"] == str(pretrained_dir() / "quick") and about["bundle_name"] == "quick"
    assert len(about["bundle_sha256"]) == 64
    assert "bundle" not in _about("astar", None, a1)
