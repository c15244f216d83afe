"""The bundle as a policy: explicit state, the same answers to the same observations, and only for its robot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from deploy.bundle import load_bundle
from deploy.drivers import room_scan
from policies.bundle_policy import BundlePolicy, load
from policies.contract import BundleContract, check_robot, make_contract
from policies.onnx_step import OnnxStep
from robonav.config import load_robot
from robonav.errors import BundleError
from robonav.planning.situation import SituationConfig
from robonav.types import Decision, LidarSpec, Observation, Policy

SPEC = load_robot("a1")


def observation_at(x_m: float, stamp_ns: int = 0) -> Observation:
    return Observation(
        stamp_ns=stamp_ns,
        pose_odom_base=np.array([x_m, 0, 0], np.float32),
        twist_base=np.zeros(3, np.float32),
        tilt_rad=np.zeros(2, np.float32),
        goal_odom_m=np.array([3, 0.5], np.float32),
        last_command=np.array([0.2, 0, 0], np.float32),
        scan_m=room_scan(np.array([x_m, 0, 0]), 10.0, SPEC.lidar),
    )


def decide(policy: BundlePolicy, ticks: int) -> list[Decision]:
    state = policy.reset(0)
    decisions = []
    for tick in range(ticks):
        state, decision = policy.act(state, observation_at(0.1 * tick, tick * 100_000_000))
        decisions.append(decision)
    return decisions


def test_it_is_a_policy_and_deterministic(tiny_bundle: Path) -> None:
    policy = load(tiny_bundle)
    assert isinstance(policy, Policy)
    first, second = decide(policy, 8), decide(load(tiny_bundle), 8)
    assert [d.command for d in first] == [d.command for d in second]
    assert [d.value for d in first] == [d.value for d in second]
    assert len({d.value for d in first}) > 1
    assert all(d.why == "actor" and d.route_odom_m is not None for d in first)
    assert set(first[0].details) == {"map_ms", "route_ms", "infer_ms"}


def test_the_command_is_the_action_in_the_robots_units(tiny_bundle: Path) -> None:
    decision = decide(load(tiny_bundle), 1)[0]
    # goal (3, 0.5): action (1, 0.25, 0.4) of limits (1.0, 0.4, 1.5)
    np.testing.assert_allclose(decision.command.velocity, [1.0, 0.1, 0.6], atol=1e-6)
    assert decision.command.valid_until_ns == 250_000_000


def test_the_memory_is_carried_and_reset(contract: BundleContract, graph: bytes) -> None:
    step = OnnxStep(graph, contract)
    inputs = {t.name: np.zeros(t.shape, t.dtype) for t in contract.inputs}
    inputs["goal_base_m"] = np.array([[1.0, 0.0]], np.float32)
    state = step.initial_state()
    for expected in (0.1, 0.15, 0.175):  # h = 0.5 h + 0.1
        before = {name: array.copy() for name, array in state.items()}
        following, outputs = step.step(state, inputs)
        np.testing.assert_allclose(following["h"], expected, rtol=1e-6)
        np.testing.assert_allclose(outputs["value"], [4 * expected], rtol=1e-6)
        np.testing.assert_array_equal(state["h"], before["h"])
        assert not np.shares_memory(following["h"], state["h"])
        state = following
    reset, _ = step.step(state, {**inputs, "reset": np.ones(1, np.float32)})
    np.testing.assert_allclose(reset["h"], 0.1, rtol=1e-6)


def test_an_action_that_is_not_finite_is_a_stop(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load(tiny_bundle)
    answer = {"action": np.array([[np.nan, 0, 0]], np.float32), "value": np.zeros(1, np.float32)}
    monkeypatch.setattr(policy.bundle.step, "step", lambda state, inputs: (dict(state), answer))
    decision = decide(policy, 1)[0]
    assert not decision.command.velocity.any()
    assert decision.why == "stop: action not finite"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"lidar": LidarSpec(beams=64)}, "lidar"),
        ({"vx_max_mps": 2.0, "name": "fast"}, "vx_max_mps"),
        ({"rate_hz": 20.0}, "rate_hz"),
    ],
)
def test_another_robot_is_refused(tiny_bundle: Path, change: dict[str, object], word: str) -> None:
    with pytest.raises(BundleError, match=word) as error:
        load(tiny_bundle, dataclasses.replace(SPEC, **change))  # type: ignore[arg-type]
    assert "a1" in str(error.value)


def test_a_policy_that_is_told_of_the_body_drives_another_one(contract: BundleContract) -> None:
    told = make_contract("told", SPEC, {"h": (1, 4)}, SituationConfig())
    body = {"vx_max_mps": 2.0, "length_m": 1.1, "name": "big", "lidar": dataclasses.replace(SPEC.lidar, mount_z_m=0.4)}
    check_robot(told, dataclasses.replace(SPEC, **body))
    for other in ({"rate_hz": 20.0}, {"lidar": LidarSpec(beams=64)}, {"lidar": LidarSpec(range_m=30.0)}):
        with pytest.raises(BundleError, match=next(iter(other))):
            check_robot(told, dataclasses.replace(SPEC, **other))
    with pytest.raises(BundleError, match="length_m"):
        check_robot(contract, dataclasses.replace(SPEC, **body))


def test_what_the_policy_does_not_read_may_differ(tiny_bundle: Path) -> None:
    assert load(tiny_bundle, dataclasses.replace(SPEC, urdf="b1/b1.urdf", height_m=0.6)).spec.height_m == 0.6


def test_a_graph_that_is_none_is_one_line(contract: BundleContract) -> None:
    with pytest.raises(BundleError, match="ONNX graph"):
        OnnxStep(b"not a graph", contract)


def test_the_bundle_names_itself_by_hash(tiny_bundle: Path, other_bundle: Path) -> None:
    assert load_bundle(tiny_bundle).sha256 != load_bundle(other_bundle).sha256
