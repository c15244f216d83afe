"""``robonav run``, ``verify`` and ``replay`` as commands: which bundle, which time limit, which seed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.bundle import find_bundle
from deploy.report import RunReport
from policies import registry
from robonav.cli import replay, run, verify
from robonav.errors import BundleError, RobonavError


@pytest.fixture
def shipped(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny bundle in the place of the shipped one, and a working folder without bundles."""
    folder = tmp_path / "pretrained"
    shutil.copytree(tiny_bundle, folder / "quick")
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(registry, "pretrained_dir", lambda: folder)
    monkeypatch.chdir(tmp_path / "work")
    return folder / "quick"


def test_the_shipped_bundle_is_the_default_and_has_a_bare_name(shipped: Path) -> None:
    assert find_bundle() == find_bundle("quick") == shipped
    assert find_bundle("bundles/quick") == Path("bundles/quick")  # a path is a path, there or not


def test_a_folder_here_wins_over_a_shipped_name_but_not_over_the_default(shipped: Path) -> None:
    Path("quick").mkdir()
    assert find_bundle("quick") == Path("quick")
    assert find_bundle() == shipped


def test_an_unknown_bundle_is_one_line_with_the_nearest_name(shipped: Path) -> None:
    with pytest.raises(BundleError, match=r"'quikc': .* did you mean 'quick'"):
        find_bundle("quikc")
    with pytest.raises(BundleError, match="no such folder"):
        run.main(["--bundle", "bundles/quick", "--driver", "null"])


@pytest.mark.realtime
def test_run_drives_the_shipped_bundle_without_being_told(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--driver", "point", "--log", "a.mcap"]) == 0
    assert "outcome   success" in capsys.readouterr().out
    assert replay.main(["a.mcap", "--no-picture"]) == 0


@pytest.mark.realtime
def test_a_planner_drives_and_its_log_says_so(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--driver", "point", "--log", "a.mcap", "--planner", "geometry"]) == 0
    assert replay.main(["a.mcap", "--no-picture"]) == 0  # by the planner that drove
    assert replay.main(["a.mcap", "--no-picture", "--planner", "actor"]) == 1
    capsys.readouterr()
    with pytest.raises(RobonavError, match=r"got no dreams\.onnx; export it again with --planner"):
        run.main(["--driver", "point", "--log", "b.mcap", "--planner", "mppi"])


def test_verify_and_replay_take_a_shipped_name(
    shipped: Path, arrival: RunReport, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main(["quick"]) == 0
    assert "parity    ok" in capsys.readouterr().out
    assert replay.main([arrival.log, "--bundle", "quick", "--no-picture"]) == 0


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_a_seed_that_no_message_holds_is_refused_before_anything_starts(shipped: Path, seed: str) -> None:
    with pytest.raises(RobonavError, match=f"--seed: expected a whole number from 0 .*got {seed}"):
        run.main(["--driver", "null", "--seed", seed])
    assert not Path("run.mcap").exists()


@pytest.mark.parametrize("port", ["-5", "99999"])
def test_a_port_that_is_none_is_refused_before_anything_starts(shipped: Path, port: str) -> None:
    with pytest.raises(RobonavError, match=f"--view-port: expected a port from 0 to 65535, got {port}"):
        run.main(["--driver", "null", "--view", "--view-port", port])


@pytest.mark.parametrize(
    ("words", "driver_has_scene", "limit_s"),
    [
        ({"scene": "office"}, True, 90.0),
        ({"scene": "empty"}, True, 60.0),
        ({"scene": "office", "timeout_s": 5.0}, True, 5.0),
        ({"scene": "office"}, False, 60.0),
        ({"timeout_s": 5.0}, False, 5.0),
    ],
)
def test_the_time_limit_is_the_users_else_the_longer_of_scene_and_config(
    words: dict[str, object], driver_has_scene: bool, limit_s: float
) -> None:
    if driver_has_scene:
        pytest.importorskip("gymnasium")
    args = run.RunArgs(**words)  # type: ignore[arg-type]
    assert run._config(args, driver_has_scene).time_limit_s == limit_s


def test_a_time_limit_shorter_than_the_configs_does_not_come_from_a_scene(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    path = tmp_path / "patient.toml"
    path.write_text("time_limit_s = 300.0\n")
    assert run._config(run.RunArgs(scene="office", config=str(path)), True).time_limit_s == 300.0


@pytest.mark.parametrize("command", [run, replay, verify])
def test_the_examples_name_the_bundle_that_is_shipped(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])  # type: ignore[attr-defined]
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert "pretrained/quick" in shown
    assert "rooms" not in shown.split("examples:")[1]


def test_a_driver_gets_its_own_options(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, object] = {}

    def caught(_: object, factory: str, *__: object, driver_kwargs: dict[str, object], **___: object) -> None:
        made.update(driver_kwargs, factory=factory)
        raise RobonavError("caught")

    monkeypatch.setattr("deploy.supervisor.run", caught)
    with pytest.raises(RobonavError, match="caught"):
        run.main(["--driver", "go2", "--robot", "go2", "--driver-options", "goal_m=[3,0]", "interface=eth0"])
    want = {"factory": "deploy.drivers.go2:Go2Driver", "robot": "go2", "goal_m": [3, 0], "interface": "eth0"}
    assert made == want
    made.clear()
    with pytest.raises(RobonavError, match="caught"):
        run.main(["--scene", "empty", "--fidelity", "legged", "--driver-options", "depth=true"])
    assert (made["fidelity"], made["depth"], made["scene"]) == ("legged", True, "empty")
    with pytest.raises(RobonavError, match="KEY=VALUE"):
        run.main(["--driver", "point", "--driver-options", "nothing"])
    with pytest.raises(RobonavError, match="did you mean 'null'"):
        run.main(["--driver", "nul"])


def test_legs_are_given_time_to_be_compiled() -> None:
    args = run.RunArgs(fidelity="legged", timeout_s=5.0)
    assert run._config(args, True).supervisor.start_timeout_s == run.LEGGED_START_S
    assert run._config(run.RunArgs(timeout_s=5.0), True).supervisor.start_timeout_s < run.LEGGED_START_S
