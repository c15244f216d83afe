"""One step of a recurrent policy in onnxruntime: state in, state out, nothing hidden.

The settings are those that gave the steadiest latency: CPU provider, one thread, no spinning, fixed shapes. The next
state comes back in fresh buffers and is handed in at the next step, so input and output never share memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.contract import NEXT_PREFIX, STATE_PREFIX, BundleContract, TensorSpec
from robonav.errors import BundleError, MissingDependencyError, explain

Arrays = Mapping[str, NDArray[Any]]
_ONNX_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "int64": "tensor(int64)", "bool": "tensor(bool)"}


class OnnxStep:
    """The graph of a bundle as a pure function ``(state, inputs) -> (state, outputs)``.

    Args:
        model: bytes of the ONNX file.
        contract: names, dtypes and shapes that the graph must have.
        where: stands in front of error messages.

    Raises:
        BundleError: no ONNX graph, or another one than the contract says.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, model: bytes, contract: BundleContract, where: str = "policy.onnx") -> None:
        self.contract = contract
        self._session = open_session(model, where)
        graph_inputs = [*contract.inputs, *(_renamed(t, STATE_PREFIX) for t in contract.states)]
        graph_outputs = [*contract.outputs, *(_renamed(t, NEXT_PREFIX) for t in contract.states)]
        _check_tensors(self._session.get_inputs(), graph_inputs, f"{where}: inputs")
        _check_tensors(self._session.get_outputs(), graph_outputs, f"{where}: outputs")
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._output_names = [t.name for t in graph_outputs]
        self._state_names = [t.name for t in contract.states]
        self._count = len(contract.outputs)

    def initial_state(self) -> dict[str, NDArray[Any]]:
        """Zeros, by state name; the `reset` input makes the first step independent of them."""
        return {t.name: np.zeros(t.shape, t.dtype) for t in self.contract.states}

    def step(self, state: Arrays, inputs: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Runs the graph once.

        Args:
            state: by state name, from `initial_state` or the last step; not changed.
            inputs: by input name, with the batch of 1 and the contract's dtypes.

        Returns:
            The next state and the outputs by name.
        """
        feeds = dict(inputs)
        for name in self._state_names:
            feeds[STATE_PREFIX + name] = state[name]
        values = self._session.run(self._output_names, feeds)
        outputs = {t.name: value for t, value in zip(self.contract.outputs, values[: self._count], strict=True)}
        return dict(zip(self._state_names, values[self._count :], strict=True)), outputs


def _renamed(tensor: TensorSpec, prefix: str) -> TensorSpec:
    return TensorSpec(prefix + tensor.name, tensor.dtype, tensor.shape)


def open_session(model: bytes, where: str) -> Any:
    """A session on one thread of the CPU.

    Raises:
        BundleError: no ONNX graph that onnxruntime loads.
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        do = "pip install 'robonav[runtime-cpu]'"
        raise MissingDependencyError(explain("bundle", "onnxruntime installed", "no such package", do)) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  onnxruntime's errors share no other base class
        reason = str(error).splitlines()[0][:200]
        raise BundleError(explain(where, "an ONNX graph that onnxruntime loads", reason, "export it again")) from None


def _check_tensors(got: Sequence[Any], want: Sequence[TensorSpec], where: str) -> None:
    found = {t.name: (t.type, tuple(t.shape)) for t in got}
    expected = {t.name: (_ONNX_TYPES.get(t.dtype, t.dtype), tuple(t.shape)) for t in want}
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            do = "export the bundle again"
            raise BundleError(explain(f"{where}: {name}", expected.get(name, "none"), found.get(name, "none"), do))
