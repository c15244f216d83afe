"""Checks an installed robonav; run by .ci/wheel with the interpreter of a fresh environment, away from the checkout."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("robonav", "sim", "policies", "deploy")
# What a robot without torch and simulator has to be able to import.
ROBOT_SIDE = (
    "robonav.types",
    "robonav.config",
    "robonav.mapping",
    "robonav.planning.routes",
    "robonav.planning.situation",
    "policies",
)


def check() -> None:
    """Raises AssertionError with what is wrong."""
    import robonav

    home = Path(robonav.__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None, f"{name} is not in the wheel"
        assert Path(spec.origin).parents[1] == home, f"{name} lies in {spec.origin}, not in {home}"
    for name in ("torch", "pybullet", "gymnasium"):
        assert importlib.util.find_spec(name) is None, f"{name} came with the base dependencies"

    from robonav.config import KINDS, config_dir, load_robot

    assert config_dir() == home / "robonav" / "_configs", config_dir()
    for kind in KINDS:
        assert list((config_dir() / kind).glob("*.toml")), f"no {kind} configs in the wheel"
    assert load_robot("a1").lidar.beams == 128

    for name in ROBOT_SIDE:
        importlib.import_module(name)
    deploy = importlib.import_module("deploy")
    found = [module.name for module in pkgutil.iter_modules(deploy.__path__)]
    assert found, "deploy is empty"

    bundles = [path.parent for path in (home / "policies" / "pretrained").glob("*/*.onnx")]
    assert bundles, "no pretrained bundle in the wheel"

    def robonav_process(*argv: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            command = [str(Path(sys.executable).parent / "robonav"), *argv]
            return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    assert "evaluate" in robonav_process("--help").stdout
    missing = robonav_process("train", "--preset", "quick", "--out", "out")
    assert missing.returncode == 2 and "pip install 'robonav[" in missing.stderr, missing
    print(f"installed: {len(PACKAGES)} packages, {len(bundles)} bundle(s), configs, in {home}")


if __name__ == "__main__":
    check()
