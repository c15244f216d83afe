"""Drivers by name, and their options on the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.driver_process import make_driver
from deploy.drivers import DRIVERS, find_driver, parse_options
from robonav.errors import ConfigError, LinkError


def test_names_and_factories_of_your_own() -> None:
    assert set(DRIVERS) >= {"sim", "point", "null", "log", "go2"}
    assert find_driver("my_module:make").factory == "my_module:make"
    assert not find_driver("my_module:make").in_scene
    with pytest.raises(LinkError, match="did you mean 'go2'"):
        find_driver("go")
    for name in ("point", "null", "go2"):
        assert make_driver(DRIVERS[name].factory, {"robot": "go2"}).spec.name == "go2"


def test_options_are_words_with_json_values() -> None:
    words = ["goal_m=[3, 1]", "interface=eth0", "speed=0.5", "stand_up=false", "path=a=b.mcap", "empty="]
    assert parse_options(words) == {
        **{"goal_m": [3, 1], "interface": "eth0", "speed": 0.5, "stand_up": False, "path": "a=b.mcap", "empty": ""}
    }
    for bad in (["x"], ["=1"], ["a b=1"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError, match="driver option"):
            parse_options(bad)


def test_a_driver_needs_only_its_own_packages() -> None:
    code = (
        "import sys\nfrom deploy.drivers import PointDriver\nfrom deploy.drivers.go2 import Go2Driver\nGo2Driver()\n"
        "sys.exit(bool({'cyclonedds', 'torch', 'pybullet', 'mcap', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
