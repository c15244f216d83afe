"""Shared by all tests: one thread a process, property tests without a clock, where things lie."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy, torch or onnxruntime start their threads

import pytest
from compiled import pytest_runtestloop  # noqa: F401  hook
from hypothesis import settings
from witness import pytest_configure, pytest_runtest_protocol  # noqa: F401  hooks

from robonav.config import load_robot
from robonav.types import RobotSpec

ROOT = Path(__file__).resolve().parents[1]

# The cores are shared: a slow example says nothing about the code. Equal examples in each run.
settings.register_profile("robonav", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("robonav")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def a1() -> RobotSpec:
    """The robot that the presets are for."""
    return load_robot("a1")


@pytest.fixture(scope="session")
def barn_dir() -> Path:
    """The BARN data beside the checkout, or where ROBONAV_BARN_DIR says; skips where there is none."""
    path = Path(os.environ.get("ROBONAV_BARN_DIR", ROOT.parent / "shared" / "barn"))
    if not path.is_dir():
        pytest.skip(f"no BARN data at {path}; set ROBONAV_BARN_DIR")
    return path
