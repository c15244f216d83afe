from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = {".py", ".toml", ".md", ".sh", ".yaml", ".txt"}
FOLDERS = ("robonav", "sim", "policies", "deploy", "configs", "launch", "tests", "docs")


@pytest.fixture(scope="module")
def pyproject(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=120)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def requirement_name(line: str) -> str:
    return re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0].lower().replace("_", "-")


def test_the_wheel_holds_all_packages_configs_and_bundles(root, wheel):
    names = set(wheel.namelist())
    for package in ("robonav", "sim", "policies", "deploy"):
        sources = {str(p.relative_to(root)) for p in (root / package).rglob("*.py")}
        assert sources, package
        assert sources <= names
    configs = [p for p in (root / "configs").rglob("*") if p.is_file()]
    assert {f"robonav/_configs/{p.relative_to(root / 'configs')}" for p in configs} <= names
    pretrained = {str(p.relative_to(root)) for p in (root / "policies" / "pretrained").rglob("*") if p.is_file()}
    assert pretrained <= names
    assert any(name.endswith(".onnx") for name in pretrained), "no pretrained bundle"


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"robonav", "sim", "policies", "deploy"}
    assert not [name for name in wheel.namelist() if "__pycache__" in name]


def test_base_dependencies_are_light(pyproject):
    base = {requirement_name(line) for line in pyproject["project"]["dependencies"]}
    heavy = {
        "torch",
        "pybullet",
        "gymnasium",
        "onnx",
        "onnxruntime",
        "onnxruntime-gpu",
        "matplotlib",
        "triton",
        "scipy",
    }
    assert not base & heavy


def test_the_two_runtimes_are_never_asked_for_together(pyproject):
    for extra, lines in pyproject["project"]["optional-dependencies"].items():
        assert not {"onnxruntime", "onnxruntime-gpu"} <= {requirement_name(line) for line in lines}, extra


def test_every_requirement_has_a_tested_version(root, pyproject):
    lines = (root / "constraints.txt").read_text().splitlines()
    pinned = {requirement_name(line) for line in lines if line and not line.startswith("#")}
    assert all("==" in line for line in lines if line and not line.startswith("#"))
    wanted = {requirement_name(line) for line in pyproject["project"]["dependencies"]}
    for lines in pyproject["project"]["optional-dependencies"].values():
        wanted |= {requirement_name(line) for line in lines}
    built_or_no_gpu_here = {"hatchling", "onnxruntime-gpu"}
    assert wanted - built_or_no_gpu_here <= pinned


def test_every_optional_package_names_its_extra(pyproject):
    from robonav.startup import EXTRAS

    extras = pyproject["project"]["optional-dependencies"]
    for package, extra in EXTRAS.items():
        names = {requirement_name(line) for line in extras[extra]}
        assert {package.removesuffix("_data"), package.replace("_", "-")} & names, package


def test_import_rules_hold(root):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


@pytest.mark.parametrize("folder", ["launch", "configs", "tests"])
def test_folders_that_would_shadow_other_packages_are_none(root, folder):
    assert not list((root / folder).rglob("__init__.py"))


def test_test_files_have_unique_names(root):
    names = [path.name for path in (root / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_files_stay_readable(root):
    for folder in ("robonav", "sim", "policies", "deploy"):
        for path in (root / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 500, path


def test_no_machine_paths_and_no_stubs(root):
    bad = re.compile(r"/(?:home|root|work)/|\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b")
    files = [p for f in FOLDERS for p in (root / f).rglob("*") if p.suffix in TEXT] + [root / "README.md"]
    found = [f"{p.relative_to(root)}: {m.group()}" for p in files if (m := bad.search(p.read_text(errors="replace")))]
    assert not found


def test_documents_link_to_files_that_exist(root):
    for document in [root / "README.md", *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if not target.startswith(("http://", "https://")):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("script", ["launch/demo.sh", "launch/test.sh", "launch/setup.sh", ".ci/run", ".ci/wheel"])
def test_shell_scripts_are_valid_and_strict(root, script):
    subprocess.run(["bash", "-n", script], cwd=root, check=True, timeout=10)
    text = (root / script).read_text()
    assert script == "launch/setup.sh" or "set -euo pipefail" in text
    assert script == "launch/setup.sh" or (root / script).stat().st_mode & 0o100


def run_setup(root: Path, tmp_path: Path, extras: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """launch/setup.sh in a shell whose tools are stand-ins in `tmp_path / 'bin'`, before the system's own."""
    code = f"set -euo pipefail; source launch/setup.sh; robonav_setup {extras}; echo ready"
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    environment = {"PATH": path, "ROBONAV_VENV": str(tmp_path / "venv"), **environment}
    return subprocess.run(["bash", "-c", code], cwd=root, env=environment, capture_output=True, text=True, timeout=60)


def stand_in(tmp_path: Path, name: str, body: str) -> None:
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_setup_says_which_python_it_needs(root, tmp_path):
    for name in ("python3", "python3.10", "python3.11"):
        stand_in(tmp_path, name, 'case "$1" in --version) echo "Python 3.13.1";; *) exit 1;; esac')
    done = run_setup(root, tmp_path, "viz")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected 3.11 (3.10 will do), got Python 3.13.1" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_setup_says_where_pybullet_has_no_wheel(root, tmp_path):
    stand_in(tmp_path, "uname", 'case "$1" in -s) echo Linux;; *) echo aarch64;; esac')
    done = run_setup(root, tmp_path, "sim")
    assert done.returncode == 2
    assert "PyBullet: expected Linux x86_64, got Linux aarch64" in done.stderr


def test_setup_installs_once_and_again_only_for_more(root, tmp_path):
    log = tmp_path / "pip.log"
    stand_in(tmp_path, "nvidia-smi", "exit 0")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$2" != pip ] || echo "$@" >>"{log}"\n')
    python.chmod(0o755)

    def calls() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    for extras, installs in [("viz", 1), ("viz", 1), ("viz dev", 2), ("dev", 2), ("viz", 2)]:
        done = run_setup(root, tmp_path, extras)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "ready\n"
        assert calls() == installs, extras
    assert "[dev,viz]" in log.read_text().splitlines()[-1]


def test_a_failed_installation_is_not_taken_for_done(root, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$2" != pip ] || { echo "ERROR: no network"; exit 1; }\n')
    python.chmod(0o755)
    for _ in range(2):
        done = run_setup(root, tmp_path, "viz")
        assert done.returncode == 2
        assert "pip failed: ERROR: no network" in done.stderr
