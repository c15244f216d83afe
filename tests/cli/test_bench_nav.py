from __future__ import annotations

import json
from pathlib import Path

import pytest

from robonav.cli import bench
from robonav.cli.args import UsageError
from robonav.errors import ConfigError, PolicyError, RobonavError

pytest.importorskip("pybullet")
RUN = ["nav", "--policies", "astar,random", "--suite", "empty", "--episodes", "3", "--workers", "1", "--seed", "5"]


def test_policies_run_on_the_same_scenes_and_a_file_goes_on(tmp_path: Path, capsys) -> None:
    file, page = tmp_path / "nav.json", tmp_path / "nav.html"
    assert bench.main([*RUN, "--json", str(file), "--html", str(page), "--delay-ms", "20"]) == 0
    assert "astar" in capsys.readouterr().out
    data = json.loads(file.read_text())
    rows = {name: entry["rows"] for name, entry in data["suites"]["empty"].items()}
    assert [row["seed"] for row in rows["astar"]] == [row["seed"] for row in rows["random"]]
    assert [row["scene"] for row in rows["astar"]] == [row["scene"] for row in rows["random"]]
    assert data["suites"]["empty"]["astar"]["delay_ms"] == 20.0
    assert data["results"]["empty"]["astar"]["n"] == 3
    assert data["compared_with_the_first"]["empty"]["random"]["n"] == 3
    assert page.read_text().count("data:image/png") == 2

    data["suites"]["empty"]["astar"]["rows"][0]["path_m"] = 123.0  # a row that is there is not run again
    file.write_text(json.dumps(data))
    assert bench.main([*RUN, "--json", str(file), "--delay-ms", "20", "--episodes", "4"]) == 0
    again = json.loads(file.read_text())["suites"]["empty"]["astar"]["rows"]
    assert len(again) == 4 and again[0]["path_m"] == 123.0 and again[1:3] == rows["astar"][1:]


def test_a_delay_costs(tmp_path: Path) -> None:
    """A command that comes late makes another episode of it."""
    paths = []
    for delay in ("0", "90"):
        file = tmp_path / f"{delay}.json"
        bench.main(["nav", "--policies", "astar", "--suite", "rooms", "--episodes", "2", "--workers", "1",
                    "--delay-ms", delay, "--json", str(file)])  # fmt: skip
        paths.append([row["path_m"] for row in json.loads(file.read_text())["suites"]["rooms"]["astar"]["rows"]])
    assert paths[0] != paths[1]


def test_the_delay_is_measured_unless_it_is_given(tmp_path: Path) -> None:
    file = tmp_path / "nav.json"
    bench.main(["nav", "--policies", "random", "--suite", "empty", "--episodes", "1", "--workers", "1",
                "--json", str(file)])  # fmt: skip
    delay_ms = json.loads(file.read_text())["suites"]["empty"]["random"]["delay_ms"]
    assert 0 <= delay_ms < 50


@pytest.mark.parametrize(
    ("argv", "error", "said"),
    [
        (["--policies", "astar,astar"], UsageError, "--policies: expected different names"),
        (["--policies", "astr"], PolicyError, "did you mean 'astar'"),
        (["--suite", "roms"], ConfigError, "did you mean 'rooms'"),
        (["--suite"], UsageError, "--suite: expected one suite or more"),
        (["--suite", "rooms", "rooms"], UsageError, "--suite: expected one suite or more of different names"),
        (["--html", "/proc/page.html"], RobonavError, "/proc"),
        (["--suite", "barn"], UsageError, "robonav evaluate"),
        (["--episodes", "0"], ConfigError, "--episodes"),
        (["--delay-ms", "-1"], UsageError, "--delay-ms"),
        (["--workers", "0"], UsageError, "--workers"),
        (["--robot", "a2"], ConfigError, "no preset 'a2'"),
    ],
)
def test_bad_arguments_are_told_before_anything_runs(argv, error, said) -> None:
    with pytest.raises(error, match=said):
        bench.main(["nav", *argv])


def test_rows_of_a_policy_that_has_changed_are_refused(tmp_path: Path) -> None:
    file, preset = tmp_path / "nav.json", tmp_path / "own.toml"
    argv = ["nav", "--policies", str(preset), "--suite", "empty", "--episodes", "1", "--workers", "1", "--delay-ms",
            "0", "--json", str(file)]  # fmt: skip
    preset.write_text('method = "random"\n')
    assert bench.main(argv) == 0
    before = file.read_text()
    preset.write_text('method = "pursuit"\n')
    with pytest.raises(ConfigError, match="the policy's content"):
        bench.main(argv)
    preset.write_text('method = "random"\n# the same values\n')
    with pytest.raises(ConfigError, match=r"--delay-ms: expected 5\.0, got 0\.0"):
        bench.main([*argv, "--delay-ms", "5"])
    assert file.read_text() == before
    assert bench.main(argv) == 0


def test_a_file_of_another_run_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "nav.json"
    file.write_text('{"version": 1, "seed": 7, "robot": "a1", "suites": {}}')
    with pytest.raises(ConfigError, match="seed: expected 5, got 7"):
        bench.main([*RUN, "--json", str(file)])
    assert "7" in file.read_text()
