"""A small bundle that drives to the goal, made of a hand-written ONNX graph: no torch is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from witness import WITNESS

from deploy.bundle import PARITY_TICKS, ParityRecording, make_contract, write_bundle
from deploy.report import RunReport
from deploy.supervisor import run
from policies.contract import BundleContract
from policies.onnx_step import OnnxStep
from robonav.config import load_robot
from robonav.planning.situation import SituationConfig
from robonav.types import policy_input_shapes

MEMORY = 4
_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


def build_contract(name: str = "tiny") -> BundleContract:
    """Of a policy that reads everything but the robot's size and limits."""
    spec, versions = load_robot("a1"), {"robonav": "0", "torch": "none"}
    reads = set(policy_input_shapes(spec)) - {"robot"}
    return make_contract(name, spec, {"h": (1, MEMORY)}, SituationConfig(), reads=reads, versions=versions)


def build_graph(contract: BundleContract, gain: float = 1.0) -> bytes:
    """action = clip(goal * gain) with the yaw rate from the goal's side; h = 0.5 * h * (1 - reset) + 0.1 * goal_x."""
    tensor = helper.make_tensor_value_info
    inputs = [tensor(t.name, _TYPES[t.dtype], t.shape) for t in contract.inputs]
    inputs.append(tensor("state.h", TensorProto.FLOAT, (1, MEMORY)))
    outputs = [tensor(t.name, _TYPES[t.dtype], t.shape) for t in contract.outputs]
    outputs.append(tensor("next.h", TensorProto.FLOAT, (1, MEMORY)))
    to_action = np.array([[gain, 0, 0], [0, 0.5, 0.8]], np.float32)
    to_memory = np.full((2, MEMORY), 0.1, np.float32)
    constants: dict[str, NDArray[Any]] = {
        "to_action": to_action,
        "to_memory": to_memory,
        "one": np.ones(1, np.float32),
        "minus_one": np.array(-1, np.float32),
        "plus_one": np.array(1, np.float32),
        "decay": np.array(0.5, np.float32),
        "axes": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["goal_base_m", "to_action"], ["raw"]),
        node("Sub", ["one", "reset"], ["keep"]),
        node("Mul", ["state.h", "keep"], ["kept"]),
        node("Mul", ["kept", "decay"], ["decayed"]),
        node("MatMul", ["goal_base_m", "to_memory"], ["drive"]),
        node("Add", ["decayed", "drive"], ["next.h"]),
        node("ReduceSum", ["next.h", "axes"], ["value"], keepdims=0),
        node("Clip", ["raw", "minus_one", "plus_one"], ["action"]),
    ]
    initial = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def record_parity(model: bytes, contract: BundleContract, ticks: int = PARITY_TICKS) -> ParityRecording:
    """Random inputs with a reset each 50 ticks, and the graph's own answers in place of torch's."""
    rng = np.random.default_rng(0)
    inputs = {}
    for t in contract.inputs:
        shape = (ticks, *t.shape)
        if t.dtype == "uint8":
            inputs[t.name] = (rng.random(shape) > 0.5).astype(np.uint8) * 255
        else:
            inputs[t.name] = rng.normal(size=shape).astype(np.float32)
    inputs["reset"] = (np.arange(ticks) % 50 == 0).astype(np.float32)[:, None]
    step = OnnxStep(model, contract)
    state, actions, values = step.initial_state(), [], []
    for i in range(ticks):
        state, outputs = step.step(state, {name: array[i] for name, array in inputs.items()})
        actions.append(outputs["action"])
        values.append(outputs["value"])
    return ParityRecording(inputs, {"action": np.stack(actions), "value": np.stack(values)})


def build_bundle(folder: Path, gain: float = 1.0) -> Path:
    contract = build_contract()
    model = build_graph(contract, gain)
    write_bundle(folder, model, contract, record_parity(model, contract), "# tiny\n\nDrives straight to the goal.\n")
    return folder


@pytest.fixture(scope="session")
def contract() -> BundleContract:
    return build_contract()


@pytest.fixture(scope="session")
def graph(contract: BundleContract) -> bytes:
    return build_graph(contract)


@pytest.fixture(scope="session")
def make_parity() -> Callable[..., ParityRecording]:
    return record_parity


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("bundles") / "other", gain=0.9)


@pytest.fixture(scope="session")
def arrival(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> RunReport:
    """A whole run on real processes: the disc drives 1.5 m to its goal."""

    def arrive() -> RunReport:
        log = tmp_path_factory.mktemp("runs") / "arrival.mcap"
        return run(tiny_bundle, "deploy.drivers:PointDriver", log, driver_kwargs={"goal_m": [1.5, 0.4]})

    return pytestconfig.stash[WITNESS].undisturbed(arrive)


@pytest.fixture
def log_copy(arrival: RunReport, tmp_path: Path) -> Iterator[Path]:
    """The arrival's log, to be damaged."""
    path = tmp_path / "copy.mcap"
    shutil.copy(arrival.log, path)
    yield path
