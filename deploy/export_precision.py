"""Weights in fewer bits: half precision, or eight bits with a scale for each output.

Only what is stored gets smaller. A session turns constants back into single precision when it is made, so that on a
processor a step takes the same time; integer products were tried and did not pay (docs/log.md). With TensorRT, see
`policies.onnx_session.Runtime.half`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from robonav.errors import BundleError, explain

Precision = Literal["fp32", "fp16", "int8"]
SMALLEST = 4096
"""Entries; smaller constants stay as they are: they save little, and what reads raw ranges suffers most by rounding."""


def lowered(model: bytes, precision: str) -> bytes:
    """A graph with its large weights in fewer bits.

    Raises:
        BundleError: an unknown precision.
    """
    if precision not in get_args(Precision):
        raise BundleError(explain("precision", f"one of {', '.join(get_args(Precision))}", repr(precision)))
    if precision == "fp32":
        return model
    import onnx

    proto = onnx.load_model_from_string(model)
    outputs_last = _outputs_last(proto)
    kept, nodes = [], []
    for constant in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.ndim < 2 or values.size < SMALLEST:
            kept.append(constant)
            continue
        arrays, more = _stored(onnx, constant.name, values, precision, outputs_last.get(constant.name, True))
        kept += [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
        nodes += more
    nodes += list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend(kept)
    proto.graph.node.extend(nodes)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _stored(
    onnx: Any, name: str, values: NDArray[np.float32], precision: str, outputs_last: bool
) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """What stands for a constant, and the nodes that make it of that."""
    make = onnx.helper.make_node
    small, scale = f"{name}.small", f"{name}.scale"
    if precision == "fp16":
        return {small: values.astype(np.float16)}, [make("Cast", [small], [name], to=onnx.TensorProto.FLOAT)]
    axis = values.ndim - 1 if outputs_last else 0
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    stored = {small: np.rint(values / scales).astype(np.int8), scale: scales}
    wide = f"{name}.wide"
    return stored, [make("Cast", [small], [wide], to=onnx.TensorProto.FLOAT), make("Mul", [wide, scale], [name])]


def _outputs_last(proto: Any) -> dict[str, bool]:
    """For each tensor whether the outputs of the product that reads it are along its last axis, else its first."""
    found: dict[str, bool] = {}
    for node in proto.graph.node:
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        for name in node.input[1:]:
            found[name] = node.op_type != "Conv" and not turned
    return found
