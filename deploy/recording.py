"""The policy's parity: inputs of recorded ticks, what torch answered, and how far a graph is from it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from policies.bundle import PARITY, Bundle
from policies.contract import NEXT_PREFIX, BundleContract
from policies.onnx_step import OnnxStep
from robonav.errors import BundleError, explain

PARITY_TICKS = 200
# Largest difference of any output from torch's over the recorded ticks, by the precision of the weights.
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.1}
PARITY_TOLERANCE = TOLERANCES["fp32"]


@dataclass(frozen=True, slots=True)
class ParityRecording:
    """What torch answered over T ticks, its state carried from tick to tick and reset where `reset` is 1.

    inputs: every input of the contract by name, (T, *shape) with the shape's batch of 1 kept, resets included.
    outputs: ``action`` (T, 1, 3) and ``value`` (T, 1); ``next.<state>`` as well where a state shall be compared.
    """

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]

    @property
    def ticks(self) -> int:
        """T."""
        return len(next(iter(self.inputs.values()), np.zeros(0)))


def load_parity(bundle: Bundle) -> ParityRecording:
    """Reads a bundle's ``parity.npz`` (numpy arrays, never pickle).

    Raises:
        BundleError: it is no such file, or its arrays do not fit the contract.
    """
    path = bundle.folder / PARITY
    inputs: dict[str, NDArray[Any]] = {}
    outputs: dict[str, NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                kind, _, name = key.partition("/")
                {"in": inputs, "out": outputs}[kind][name] = archive[key]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise BundleError(explain(str(path), "arrays in/NAME and out/NAME", str(error)[:120])) from None
    recording = ParityRecording(inputs, outputs)
    check_parity_layout(recording, bundle.contract, str(path))
    if recording.ticks != bundle.parity.ticks:
        raise BundleError(explain(str(path), f"{bundle.parity.ticks} ticks", recording.ticks))
    return recording


def parity_difference(step: OnnxStep, parity: ParityRecording) -> float:
    """Largest absolute difference between the graph's outputs and the recorded ones over all ticks; NaN if one is."""
    state = step.initial_state()
    worst = 0.0
    for t in range(parity.ticks):
        state, outputs = step.step(state, {name: values[t] for name, values in parity.inputs.items()})
        answer = {**outputs, **{NEXT_PREFIX + name: value for name, value in state.items()}}
        for name, values in parity.outputs.items():
            difference = np.abs(answer[name].astype(np.float64) - values[t].astype(np.float64))
            worst = max(worst, float(difference.max())) if np.isfinite(difference).all() else float("nan")
        if np.isnan(worst):
            return worst
    return worst


def check_parity_layout(parity: ParityRecording, contract: BundleContract, where: str) -> None:
    """Raises BundleError when arrays are missing, or have other shapes or dtypes than the contract says."""
    allowed = {t.name: t for t in contract.outputs} | {NEXT_PREFIX + t.name: t for t in contract.states}
    missing = [t.name for t in contract.inputs if t.name not in parity.inputs]
    missing += [t.name for t in contract.outputs if t.name not in parity.outputs]
    unknown = sorted(set(parity.inputs) - {t.name for t in contract.inputs} | set(parity.outputs) - set(allowed))
    if missing or unknown or parity.ticks < 1:
        raise BundleError(explain(where, "the contract's arrays", f"missing {missing}, unknown {unknown}"))
    wanted = [(parity.inputs[t.name], t) for t in contract.inputs]
    wanted += [(values, allowed[name]) for name, values in parity.outputs.items()]
    for values, tensor in wanted:
        shape = (parity.ticks, *tensor.shape)
        if values.shape != shape or values.dtype.name != tensor.dtype:
            raise BundleError(
                explain(f"{where}: {tensor.name}", f"{tensor.dtype}{shape}", f"{values.dtype}{values.shape}")
            )


def parity_bytes(parity: ParityRecording) -> bytes:
    """As an npz archive."""
    arrays = {f"in/{k}": v for k, v in parity.inputs.items()} | {f"out/{k}": v for k, v in parity.outputs.items()}
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
