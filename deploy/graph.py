"""ONNX graphs written by hand: operators of the standard set, numpy arrays as constants, everything unrolled.

What a planner runs a thousand times in a tick is worth writing out: weights that read the same tensor become one
product, constant parts are computed once, and there is neither Loop nor Scan nor If for a runtime to stumble over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import MissingDependencyError, explain

OPSET = 20  # read by onnxruntime 1.23, the newest that JetPack 6 runs
IR_VERSION = 9
TINY = 1e-30  # a probability that counts as none
Operand = str | NDArray[Any] | float | int


class Graph:
    """Collects nodes and constants. Tensors are names; arrays and numbers given as operands become constants."""

    def __init__(self, name: str) -> None:
        self._onnx = _onnx()
        self.name = name
        self._nodes: list[Any] = []
        self._constants: dict[bytes, str] = {}
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0
        self._imports: dict[str, int] = {"": OPSET}
        self._functions: list[Any] = []

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32") -> str:
        """Declares an input; returns its name."""
        self._inputs.append(self._described(name, shape, dtype))
        return name

    def output(self, tensor: str, name: str, shape: Sequence[int], dtype: str = "float32") -> None:
        """Gives a tensor out under a name."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [tensor], [name]))
        self._outputs.append(self._described(name, shape, dtype))

    def constant(self, array: NDArray[Any]) -> str:
        """The name of a constant; equal ones are kept once."""
        array = np.ascontiguousarray(array)
        key = repr((array.dtype.str, array.shape)).encode() + array.tobytes()
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._initializers.append(self._onnx.numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def softmax(self, logits: str) -> str:
        """Over the last axis, with 0 for what is next to impossible: products of numbers below the least normal one
        take a hundred times as long, and to flush them to zero in the whole thread would change what others compute.
        """
        return self.op("ThresholdedRelu", self.op("Softmax", logits, axis=-1), alpha=TINY)

    def op(self, kind: str, *operands: Operand, **attributes: Any) -> str:
        """One operator with one output."""
        return self.ops(kind, *operands, outputs=1, **attributes)[0]

    def ops(self, kind: str, *operands: Operand, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """One operator with several outputs."""
        names = tuple(f"t{self._count + i}" for i in range(outputs))
        self._count += outputs
        inputs = [self._operand(operand) for operand in operands]
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, list(names), **attributes))
        return names

    def reshape(self, x: str, *shape: int) -> str:
        """x in another shape; -1 is what is left, 0 what it was."""
        return self.op("Reshape", x, np.array(shape, np.int64))

    def expand(self, x: Operand, *shape: int) -> str:
        """x repeated along its axes of size 1."""
        return self.op("Expand", x, np.array(shape, np.int64))

    def concat(self, *parts: Operand, axis: int) -> str:
        """Parts one behind the other."""
        return self.op("Concat", *parts, axis=axis) if len(parts) > 1 else self._operand(parts[0])

    def split(self, x: str, sizes: Sequence[int], axis: int = -1) -> tuple[str, ...]:
        """x in pieces of these sizes."""
        if len(sizes) == 1:
            return (x,)
        return self.ops("Split", x, np.array(sizes, np.int64), outputs=len(sizes), axis=axis)

    def slice(self, x: str, start: int, end: int, axis: int) -> str:
        """x[start:end] along an axis."""
        return self.op("Slice", x, *(np.array([n], np.int64) for n in (start, end, axis)))

    def reduce(self, kind: str, x: str, axis: int = -1, keep: bool = False) -> str:
        """ReduceSum, ReduceMax, ... along one axis."""
        return self.op(kind, x, np.array([axis], np.int64), keepdims=int(keep))

    def linear(self, x: str, weight: Operand, bias: Operand | None = None) -> str:
        """x (K, I) times weight (I, O), plus a bias (O,) or a matrix (K, O)."""
        return self.op("Gemm", x, weight, *(() if bias is None else (bias,)))

    def normed(self, x: str, scale: NDArray[Any] | float, eps: float) -> str:
        """RMSNorm over the last axis, in the form that onnxruntime makes one operator of."""
        mean = self.op("ReduceMean", self.op("Pow", x, 2.0), np.array([-1], np.int64), keepdims=1)
        return self.op("Mul", self.op("Div", x, self.op("Sqrt", self.op("Add", mean, eps))), scale)

    def silu(self, x: str) -> str:
        """x sigmoid(x)."""
        return self.op("Mul", x, self.op("Sigmoid", x))

    def inline(self, model: Any, inputs: dict[str, str]) -> dict[str, str]:
        """Copies another model's nodes in; returns its outputs by their names there."""
        graph = model.graph
        self._imports |= {opset.domain: opset.version for opset in model.opset_import if opset.domain}
        known = {function.name for function in self._functions}
        self._functions += [function for function in model.functions if function.name not in known]
        names = dict(inputs) | {c.name: self.constant(self._onnx.numpy_helper.to_array(c)) for c in graph.initializer}
        for node in graph.node:
            copy = self._onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.input[:], copy.output[:]
            copy.input.extend(names[name] if name else "" for name in node.input)
            for name in node.output:
                names[name] = f"t{self._count}" if name else ""
                self._count += bool(name)
                copy.output.append(names[name])
            copy.name = ""
            self._nodes.append(copy)
        return {output.name: names[output.name] for output in graph.output}

    def to_bytes(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """The checked, serialised model, without what no output needs: a runtime would compute it all the same."""
        helper = self._onnx.helper
        needed = {output.name for output in self._outputs}
        nodes = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        constants = [constant for constant in self._initializers if constant.name in needed]
        graph = helper.make_graph(nodes[::-1], self.name, self._inputs, self._outputs, constants)
        imports = [helper.make_opsetid(domain, version) for domain, version in self._imports.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, functions=self._functions)
        helper.set_model_props(model, dict(metadata or {}))
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _operand(self, operand: Operand) -> str:
        if isinstance(operand, str):
            return operand
        if isinstance(operand, np.ndarray):
            narrow = operand.astype(np.float32) if operand.dtype == np.float64 else operand
            return self.constant(narrow)
        return self.constant(np.array(operand, np.float32))

    def _described(self, name: str, shape: Sequence[int], dtype: str) -> Any:
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, kind, tuple(shape))


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        do = "pip install 'robonav[onnx]'"
        raise MissingDependencyError(explain("writing a bundle", "onnx installed", "no such package", do)) from None
    return onnx
