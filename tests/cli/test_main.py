from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import robonav
from robonav.cli import main as cli
from robonav.errors import RobonavError


def robonav_process(*argv: str, root: Path, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robonav", *argv]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, **options)


def one_line(stderr: str) -> str:
    """The error's only line, without its beginning; fails when there is more."""
    assert stderr.startswith("robonav: error: ")
    assert stderr.count("\n") == 1
    return stderr.removeprefix("robonav: error: ").rstrip("\n")


@pytest.fixture
def command(monkeypatch):
    """Puts a command `train` in place that does what the test says."""

    def put(body):
        module = types.ModuleType("robonav.cli.train")
        module.main = body
        monkeypatch.setitem(sys.modules, "robonav.cli.train", module)
        return lambda *argv: cli.main(["train", *argv])

    return put


def raises(error):
    def body(argv):
        raise error

    return body


def test_help_lists_every_command_and_imports_nothing_heavy(root):
    code = (
        "import sys\n"
        "from robonav.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = 'torch pybullet tyro numpy gymnasium onnxruntime cv2 sim policies deploy'\n"
        "print('HEAVY', sorted(set(heavy.split()) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    for name, summary in cli.COMMANDS.items():
        assert f"{name} " in done.stdout
        assert summary in done.stdout


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help_with_examples(name, capsys):
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: robonav {name}" in out
    assert f"examples:\n  robonav {name}" in out


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_refuses_an_unknown_option(name, capsys):
    assert cli.main([name, "--no-such-option", "3"]) == 2
    line = one_line(capsys.readouterr().err)
    assert "--no-such-option" in line or "missing" in line


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"robonav {robonav.__version__}\n"


def test_without_a_command_the_help_is_shown_but_nothing_succeeded(capsys):
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["--verison"], "unknown option '--verison'"),
        (["scenes", "render", "offfice"], "offfice"),
        (["evaluate", "--polcy", "astar"], "unknown option '--polcy'; did you mean '--policy'?"),
        (["train", "--preset", "quik"], "quick"),
    ],
)
def test_a_mistake_ends_a_process_with_one_line_and_status_2(root, argv, said):
    done = robonav_process(*argv, root=root)
    assert done.returncode == 2
    assert said in one_line(done.stderr)
    assert done.stdout == ""


def test_the_commands_status_is_the_process_status(command):
    assert command(lambda argv: 0)() == 0
    assert command(lambda argv: 1)() == 1
    assert command(lambda argv: len(argv))("a", "b", "c") == 3


def test_an_error_of_ours_is_one_line(command, capsys):
    assert command(raises(RobonavError("map: two\nlines")))() == 2
    assert one_line(capsys.readouterr().err) == "map: two lines"


def test_a_traceback_is_there_for_who_asks(command, monkeypatch):
    monkeypatch.setenv("ROBONAV_TRACEBACK", "1")
    with pytest.raises(RobonavError):
        command(raises(RobonavError("x")))()


def test_our_own_mistakes_keep_their_traceback(command):
    with pytest.raises(ZeroDivisionError):
        command(raises(ZeroDivisionError()))()
    with pytest.raises(ModuleNotFoundError):
        command(raises(ModuleNotFoundError("x", name="robonav.no_such_module")))()


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("torch.nn", "train"),
        ("pybullet", "sim"),
        ("onnxruntime", "runtime-cpu"),
        ("matplotlib", "viz"),
        ("onnx", "onnx"),
    ],
)
def test_a_missing_package_names_its_extra(command, capsys, package, extra):
    assert command(raises(ModuleNotFoundError("no", name=package)))() == 2
    assert f"pip install 'robonav[{extra}]'" in one_line(capsys.readouterr().err)


def test_a_file_that_the_system_refuses_is_one_line(command, capsys, tmp_path):
    assert command(lambda argv: len((tmp_path / "none").read_bytes()))() == 2
    assert "none: No such file or directory" in one_line(capsys.readouterr().err)


def test_an_interrupt_is_quiet_and_has_its_own_status(command, capsys):
    assert command(raises(KeyboardInterrupt()))() == 130
    assert capsys.readouterr().err == "robonav: interrupted\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(root, unbuffered):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stdout:
        command = [sys.executable, "-m", "robonav", "--help"]
        done = subprocess.run(
            command, cwd=root, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


def test_a_broken_pipe_of_our_own_is_not_hidden(command, capfd):
    with pytest.raises(BrokenPipeError):
        command(raises(BrokenPipeError()))()


@pytest.mark.parametrize("name", ["sim", "policies", "deploy"])
def test_a_package_that_shadows_ours_is_named(root, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('never imported')")
    path = f"{tmp_path}{os.pathsep}{root}"
    done = subprocess.run(
        [sys.executable, "-m", "robonav", "scenes", "list"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert f"package '{name}': expected {root / name}, got {tmp_path / name}" in line
    assert "shadows" in line
