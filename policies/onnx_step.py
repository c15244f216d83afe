"""One step of a recurrent policy in onnxruntime: state in, state out, nothing hidden.

`OnnxStep.step` gives the next state in fresh buffers. A control loop that must not allocate takes `OnnxStep.in_place`:
inputs, outputs and two sets of state buffers are bound once, and each step reads one set and writes the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.contract import NEXT_PREFIX, STATE_PREFIX, BundleContract, TensorSpec
from policies.onnx_session import Runtime, open_session, statement
from robonav.errors import BundleError, explain

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

    def __init__(
        self, model: bytes, contract: BundleContract, where: str = "policy.onnx", runtime: Runtime | None = None
    ) -> None:
        self.contract = contract
        self._session = open_session(model, where, runtime)
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

    @property
    def runs_on(self) -> str:
        """What the graph runs on."""
        return statement(self._session)

    def in_place(self) -> InPlaceStep:
        """The same graph with buffers that are bound once."""
        return InPlaceStep(self._session, self.contract)


class InPlaceStep:
    """`OnnxStep.step` without allocation: outputs live until the next step, a state until the second one after it.

    A state from elsewhere (the initial one, a copy) is copied in.
    """

    def __init__(self, session: Any, contract: BundleContract) -> None:
        self._session = session
        self._inputs = {t.name: np.zeros(t.shape, t.dtype) for t in contract.inputs}
        self._outputs = {t.name: np.zeros(t.shape, t.dtype) for t in contract.outputs}
        self._sets = [{t.name: np.zeros(t.shape, t.dtype) for t in contract.states} for _ in range(2)]
        self._bindings = [self._bound(read, write) for read, write in (self._sets, self._sets[::-1])]

    def step(self, state: Arrays, inputs: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """See `OnnxStep.step`."""
        read = next((i for i, own in enumerate(self._sets) if own is state), None)
        if read is None:
            read = 0
            for name, values in self._sets[0].items():
                np.copyto(values, state[name])
        for name, values in self._inputs.items():
            np.copyto(values, inputs[name])
        self._session.run_with_iobinding(self._bindings[read])
        return self._sets[1 - read], self._outputs

    def _bound(self, read: Arrays, write: Arrays) -> Any:
        binding = self._session.io_binding()
        given = self._inputs | {STATE_PREFIX + name: values for name, values in read.items()}
        for name, values in given.items():
            binding.bind_input(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        found = self._outputs | {NEXT_PREFIX + name: values for name, values in write.items()}
        for name, values in found.items():
            binding.bind_output(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        return binding


def _renamed(tensor: TensorSpec, prefix: str) -> TensorSpec:
    return TensorSpec(prefix + tensor.name, tensor.dtype, tensor.shape)


def _check_tensors(got: Sequence[Any], want: Sequence[TensorSpec], where: str) -> None:
    found = {t.name: (t.type, tuple(t.shape)) for t in got}
    expected = {t.name: (_ONNX_TYPES.get(t.dtype, t.dtype), tuple(t.shape)) for t in want}
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            do = "export the bundle again"
            raise BundleError(explain(f"{where}: {name}", expected.get(name, "none"), found.get(name, "none"), do))
