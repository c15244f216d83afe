"""Writing a deployment bundle: aside, checked as a reader would check it, then renamed into place.

Reading lives in `policies.bundle` (a policy reads its own bundle); the names are repeated here for callers in deploy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from policies import registry
from policies.bundle import (
    CARD,
    DREAMS,
    GRAPH,
    MANIFEST,
    PARITY,
    Bundle,
    ParityRecord,
    encode_manifest,
    is_bundle,
    load_bundle,
)
from policies.contract import METADATA_KEY, NEXT_PREFIX, BundleContract, TensorSpec, make_contract
from policies.onnx_dreams import OnnxDreams
from policies.onnx_step import OnnxStep
from robonav.config import to_mapping
from robonav.errors import BundleError, MissingDependencyError, explain, nearest

__all__ = [
    "DEFAULT_BUNDLE",
    "PARITY_TICKS",
    "PARITY_TOLERANCE",
    "Bundle",
    "BundleContract",
    "ParityRecording",
    "TensorSpec",
    "find_bundle",
    "load_bundle",
    "load_parity",
    "make_contract",
    "parity_difference",
    "write_bundle",
]

DEFAULT_BUNDLE = "quick"  # of those that are shipped
PARITY_TICKS = 200
PARITY_TOLERANCE = 1e-4


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


def find_bundle(name_or_dir: str | Path | None = None) -> Path:
    """Folder of a bundle: a path, or a bare name under ``policies/pretrained``, `DEFAULT_BUNDLE` if None.

    Of a folder here and a shipped bundle of one name, the folder wins, as in `policies.registry`.

    Raises:
        BundleError: a bare name that is neither.
    """
    shipped = registry.pretrained_dir()
    if name_or_dir is None:
        return shipped / DEFAULT_BUNDLE
    path = Path(name_or_dir)
    if path.exists() or len(path.parts) != 1:
        return path
    if is_bundle(shipped / path):
        return shipped / path
    names = sorted(p.name for p in shipped.iterdir() if is_bundle(p)) if shipped.is_dir() else []
    hint = nearest(str(path), names) if names else "check the path"
    raise BundleError(f"bundle '{path}': no such folder, nor the name of a shipped bundle; {hint}")


def write_bundle(
    folder: str | Path,
    onnx_bytes: bytes,
    contract: BundleContract,
    parity: ParityRecording,
    card: str,
    *,
    dreams: bytes | None = None,
    tolerance: float = PARITY_TOLERANCE,
) -> Bundle:
    """Writes a bundle and reads it back. An older bundle at `folder` is replaced; anything else there is refused.

    `dreams` is the graph of the planner's dreams. The contract is put into the graph's metadata, and the graph is run
    against the recording before anything is
    written under the final name.

    Raises:
        BundleError: graph, recording and contract do not fit, the difference exceeds `tolerance`, or the disk is full.
    """
    target = check_target(folder)
    model = _with_contract(onnx_bytes, contract)
    check_parity_layout(parity, contract, "parity recording")
    difference = parity_difference(OnnxStep(model, contract), parity)
    if not difference <= tolerance:
        what = f"{difference:.3g} (bundle '{contract.name}')"
        raise BundleError(explain("onnxruntime against torch", f"a difference of at most {tolerance:g}", what))
    contents = {GRAPH: model, PARITY: _parity_bytes(parity), CARD: card.encode()}
    if dreams is not None:
        OnnxDreams(dreams, contract)  # whether it fits
        contents[DREAMS] = dreams
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    record = ParityRecord(parity.ticks, float(f"{difference:.6g}"), tolerance)
    contents[MANIFEST] = encode_manifest(to_mapping(contract), hashes, asdict(record))
    try:
        _write_folder(target, contents)
    except OSError as error:
        raise BundleError(
            f"{target}: cannot be written: {error.strerror}; free some space or choose another path"
        ) from error
    return load_bundle(target)


def check_target(folder: str | Path) -> Path:
    """The folder, if a bundle may be written there: it is new, empty, or an older bundle.

    Raises:
        BundleError: something else is there.
    """
    target = Path(folder)
    if target.exists() and not is_bundle(target) and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(
            explain(str(target), "a new folder or an older bundle", "something else", "choose another path")
        )
    return target


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


def _with_contract(onnx_bytes: bytes, contract: BundleContract) -> bytes:
    try:
        import onnx
    except ImportError:
        do = "pip install 'robonav[onnx]'"
        raise MissingDependencyError(explain("writing a bundle", "onnx installed", "no such package", do)) from None
    model = onnx.load_model_from_string(onnx_bytes)
    kept = [p for p in model.metadata_props if p.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, contract.to_json()
    return bytes(without_notes(model).SerializeToString(deterministic=True))


def without_notes(model: Any) -> Any:
    """An ONNX model less the exporter's notes at its parts: stack traces, with paths of the machine that it ran on."""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    return model


def _parity_bytes(parity: ParityRecording) -> bytes:
    arrays = {f"in/{k}": v for k, v in parity.inputs.items()} | {f"out/{k}": v for k, v in parity.outputs.items()}
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _write_folder(target: Path, contents: dict[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    old = aside.with_name(aside.name + "-old")
    try:
        for name, content in contents.items():
            with (aside / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        aside.chmod(0o755)
        if target.exists():
            target.rename(old)
        try:
            aside.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
