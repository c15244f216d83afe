"""The contract of a deployment bundle: what the graph reads and gives, for which robot, at which rate.

It lies in ``bundle.json`` and, the same, in the graph's metadata under METADATA_KEY, so that a graph that was moved
into another bundle is noticed. Every tensor has a batch of 1 and a fixed shape.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.same_robot import check_same_robot
from robonav.config import from_mapping, to_mapping
from robonav.errors import BundleError, ConfigError, explain
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

FORMAT = 1
METADATA_KEY = "robonav.contract"
STATE_PREFIX = "state."
NEXT_PREFIX = "next."
UINT8_INPUTS = ("local_map",)
DTYPES = ("float32", "uint8", "int64", "bool")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype (one of DTYPES) and shape (with the batch of 1) of one of the graph's tensors."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BundleContract:
    """What a bundle promises. `states` are named without prefix: the graph has ``state.X`` in and ``next.X`` out."""

    name: str
    robot: RobotSpec
    inputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rate_hz: float
    situation: dict[str, Any] = field(default_factory=dict)  # SituationConfig that the policy was trained with
    normalisation: str = ""  # a sentence: physical units go in, the graph normalises inside
    versions: dict[str, str] = field(default_factory=dict)  # robonav, torch, onnxruntime, ...
    precision: str = "fp32"  # of the weights: fp32, fp16 or int8
    format: int = FORMAT

    def to_json(self) -> str:
        """Canonical JSON: the same contract gives the same text."""
        return json.dumps(to_mapping(self), sort_keys=True, allow_nan=False)


def make_contract(
    name: str,
    robot: RobotSpec,
    states: Mapping[str, tuple[int, ...]],
    situation: Any,
    *,
    reads: Collection[str] | None = None,
    normalisation: str = "physical units go in; the graph normalises inside",
    versions: Mapping[str, str] | None = None,
    precision: str = "fp32",
) -> BundleContract:
    """The contract of a graph with the standard inputs and outputs.

    Args:
        name: of the bundle.
        robot: that the policy was trained for.
        states: name (without prefix) to shape (with batch 1) of the float32 state tensors.
        situation: the SituationConfig dataclass (or its mapping) that makes the inputs.
        reads: arrays of `PolicyInput` that the graph reads; all if None.
        normalisation: note for the reader.
        versions: of the packages that made the graph.
        precision: of the weights.
    """
    return BundleContract(
        name=name,
        robot=robot,
        inputs=standard_inputs(robot, reads),
        states=tuple(TensorSpec(key, "float32", tuple(shape)) for key, shape in states.items()),
        outputs=standard_outputs(),
        rate_hz=robot.rate_hz,
        situation=dict(situation) if isinstance(situation, Mapping) else to_mapping(situation),
        normalisation=normalisation,
        versions=dict(versions or {}),
        precision=precision,
    )


def standard_inputs(robot: RobotSpec, reads: Collection[str] | None = None) -> tuple[TensorSpec, ...]:
    """PolicyInput's arrays by field name, all or those of `reads`, then ``action_prev`` (1, 3) and ``reset`` (1,)."""
    inputs = [
        TensorSpec(name, "uint8" if name in UINT8_INPUTS else "float32", (1, *shape))
        for name, shape in policy_input_shapes(robot).items()
        if reads is None or name in reads
    ]
    inputs += [TensorSpec("action_prev", "float32", (1, ACTION_SIZE)), TensorSpec("reset", "float32", (1,))]
    return tuple(inputs)


def standard_outputs() -> tuple[TensorSpec, ...]:
    """``action`` (1, 3) in [-1, 1] and ``value`` (1,)."""
    return (TensorSpec("action", "float32", (1, ACTION_SIZE)), TensorSpec("value", "float32", (1,)))


def contract_from_mapping(data: Any, where: str) -> BundleContract:
    """Reads a contract strictly.

    Raises:
        BundleError: another format version, an unknown or missing key, a wrong type, or a layout that this version
            of robonav does not feed.
    """
    version = data.get("format") if isinstance(data, Mapping) else None
    if version != FORMAT:
        do = "export the bundle again with this version of robonav"
        raise BundleError(explain(f"{where}: format", FORMAT, version, do))
    try:
        contract = from_mapping(BundleContract, data, where)
    except ConfigError as error:
        raise BundleError(str(error)) from None
    reads = {tensor.name for tensor in contract.inputs}
    for kind, got, want in (
        ("inputs", contract.inputs, standard_inputs(contract.robot, reads)),
        ("outputs", contract.outputs, standard_outputs()),
    ):
        if got != want:
            wrong = sorted(set(got) ^ set(want), key=lambda t: t.name) or list(got)
            raise BundleError(
                explain(f"{where}: {kind}", _shown(want), f"a difference at {_shown(wrong)}", "export again")
            )
    bad = [t.name for t in contract.states if t.dtype not in DTYPES or not t.shape or min(t.shape) < 1]
    if bad:
        raise BundleError(explain(f"{where}: states", f"dtypes {DTYPES} and positive shapes", bad))
    return contract


def check_robot(contract: BundleContract, spec: RobotSpec) -> None:
    """Raises BundleError when `spec` differs from the bundle's robot in what the policy cannot be told of."""
    told = any(tensor.name == "robot" for tensor in contract.inputs)
    check_same_robot(contract.robot, spec, f"bundle '{contract.name}'", BundleError, told)


def _shown(tensors: Any) -> str:
    return ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in tensors)
