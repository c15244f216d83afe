from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from policies.pursuit import PursuitPolicy
from policies.random_policy import RandomPolicy
from policies.registry import find_policy, fingerprint, known_policies, make_policy, pretrained_dir
from robonav.errors import PolicyError
from robonav.types import COMMAND_LIFE_NS, RobotSpec
from tests.mapping.raycast import observe


def test_baselines_by_name(a1: RobotSpec) -> None:
    assert isinstance(make_policy("random", a1), RandomPolicy)
    assert isinstance(make_policy("astar", a1), PursuitPolicy)
    assert isinstance(make_policy("astar", a1, planner=None), PursuitPolicy)
    assert {"random", "astar"} <= set(known_policies())


def test_an_unknown_name_is_refused_with_the_nearest(a1: RobotSpec) -> None:
    with pytest.raises(PolicyError, match=r"'astr'.*did you mean 'astar'"):
        make_policy("astr", a1)
    with pytest.raises(PolicyError, match=r"known: .*astar.*random"):
        make_policy("zzzzzzzz", a1)


def test_a_name_is_found_where_it_lies() -> None:
    assert find_policy("astar")[0] == "baseline"
    assert find_policy("general") == ("bundle", pretrained_dir() / "general")


def test_a_fingerprint_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    own, other = tmp_path / "own.toml", tmp_path / "other.toml"
    own.write_text('method = "dwa"\n[dwa]\nhorizon_s = 1.5\n')
    other.write_text('# the same\nmethod = "dwa"\n[dwa]\nhorizon_s = 1.5\n')
    before = fingerprint(own)
    assert fingerprint(other) == before
    own.write_text('method = "dwa"\n[dwa]\nhorizon_s = 1.6\n')
    assert fingerprint(own) != before
    weights = tmp_path / "checkpoint.safetensors"
    weights.write_bytes(b"one")
    assert fingerprint(tmp_path) == fingerprint(weights) != before
    one = fingerprint(weights)
    weights.write_bytes(b"two")
    assert fingerprint(tmp_path) != one


def test_a_folder_without_a_policy_is_refused(a1: RobotSpec, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"expected a bundle"):
        make_policy(tmp_path, a1)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(PolicyError, match=r"expected a bundle"):
        make_policy(tmp_path / "notes.txt", a1)
    (tmp_path / "checkpoints").mkdir()  # says nothing: a run keeps its checkpoint in the folder itself
    with pytest.raises(PolicyError, match=r"expected a bundle"):
        make_policy(tmp_path, a1)


def test_baselines_take_no_planner(a1: RobotSpec) -> None:
    with pytest.raises(PolicyError, match="planner"):
        make_policy("astar", a1, planner="mppi")


@pytest.mark.parametrize("name", ["random", "astar", "geometry"])
def test_commands_hold_for_the_one_command_life(a1: RobotSpec, name: str) -> None:
    policy = make_policy(name, a1)
    _, decision = policy.act(policy.reset(0), observe((0, 0, 0), (3, 0), None, stamp_ns=7))
    assert decision.command.valid_until_ns == 7 + COMMAND_LIFE_NS


def test_baselines_load_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys; from policies.registry import baseline_names, make_policy; from robonav.config import load_robot\n"
        "for name in baseline_names(): make_policy(name, load_robot('a1'))\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'onnxruntime', 'pybullet')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
