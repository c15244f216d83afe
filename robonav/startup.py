"""What is checked before a command runs: that our packages are ours, and which extra brings a missing one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from robonav.errors import MissingDependencyError, RobonavError

PACKAGES = ("sim", "policies", "deploy")

# Import name of an optional third-party package to the extra that brings it (pyproject.toml).
EXTRAS = {
    "torch": "train",
    "tensorboard": "train",
    "h5py": "datasets",
    "minari": "datasets",
    "safetensors": "train",
    "pybullet": "sim",
    "pybullet_data": "sim",
    "gymnasium": "sim",
    "numba": "sim",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "runtime-cpu",
    "matplotlib": "viz",
    "stable_baselines3": "sb3",
}


def check_shadowing() -> None:
    """Makes sure that `sim`, `policies` and `deploy` are the ones beside this robonav. Imports none of them.

    Raises:
        RobonavError: another package of that name comes first on the path, or ours is not installed.
    """
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise RobonavError(f"package '{name}' is missing beside {home / 'robonav'}; install robonav again")
        origin = spec.origin or next(iter(spec.submodule_search_locations or ()), "unknown")
        if Path(origin).resolve() != home / name / "__init__.py":
            raise RobonavError(
                f"package '{name}': expected {home / name}, got {origin}, which shadows it; "
                "start from another folder, or take that one off PYTHONPATH"
            )


def missing_dependency(error: ModuleNotFoundError) -> MissingDependencyError | None:
    """The one-line error for an optional package that is not installed, or None when it is none that we know."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    return MissingDependencyError(f"this needs the package '{package}'; install it: pip install 'robonav[{extra}]'")
