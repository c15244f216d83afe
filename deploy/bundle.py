"""Writing a deployment bundle: aside, checked as a reader would check it, then renamed into place.

Reading lives in `policies.bundle` (a policy reads its own bundle); the names are repeated here for callers in deploy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from deploy.plans import PlansRecording, check_plans, plans_difference
from deploy.recording import (
    PARITY_TICKS,
    PARITY_TOLERANCE,
    TOLERANCES,
    ParityRecording,
    check_parity_layout,
    load_parity,
    parity_bytes,
    parity_difference,
)
from policies import registry
from policies.bundle import (
    CARD,
    DREAMS,
    GRAPH,
    MANIFEST,
    PARITY,
    PLANNER,
    PLANS,
    WEIGHTS,
    Bundle,
    ParityRecord,
    encode_manifest,
    is_bundle,
    load_bundle,
)
from policies.contract import METADATA_KEY, BundleContract, TensorSpec, make_contract
from policies.onnx_dreams import OnnxDreams
from policies.onnx_planner import OnnxPlanner
from policies.onnx_step import OnnxStep
from robonav.config import to_mapping
from robonav.errors import BundleError, MissingDependencyError, explain, nearest

__all__ = [
    "DEFAULT_BUNDLE",
    "PARITY_TICKS",
    "PARITY_TOLERANCE",
    "PLAN_BOUNDS",
    "TOLERANCES",
    "Bundle",
    "BundleContract",
    "ParityRecording",
    "PlannerParts",
    "TensorSpec",
    "find_bundle",
    "load_bundle",
    "load_parity",
    "make_contract",
    "parity_difference",
    "write_bundle",
]

DEFAULT_BUNDLE = "quick"  # of those that are shipped
# Of the planner, by precision: largest difference of scores of the same plan, and least share of ticks with it.
PLAN_BOUNDS = {"fp32": (1e-3, 0.95), "fp16": (2e-2, 0.85), "int8": (0.15, 0.4)}


def shipped_bundles() -> list[str]:
    """Names of the bundles that come with the package."""
    shipped = registry.pretrained_dir()
    return sorted(p.name for p in shipped.iterdir() if is_bundle(p)) if shipped.is_dir() else []


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
    names = shipped_bundles()
    hint = nearest(str(path), names) if names else "check the path"
    raise BundleError(f"bundle '{path}': no such folder, nor the name of a shipped bundle; {hint}")


class PlannerParts(NamedTuple):
    """The planner's graph, and what it must reproduce."""

    model: bytes
    recording: PlansRecording


def write_bundle(
    folder: str | Path,
    onnx_bytes: bytes,
    contract: BundleContract,
    parity: ParityRecording,
    card: str,
    *,
    dreams: bytes | None = None,
    planner: PlannerParts | None = None,
    weights: bytes | None = None,
) -> Bundle:
    """Writes a bundle and reads it back. An older bundle at `folder` is replaced; anything else there is refused.

    `dreams` is the graph by which people look at the planner's dreams, `weights` the checkpoint's file. The contract is
    put into the graph's metadata, and the graphs are run against the recordings before anything is written under the
    final name.

    Raises:
        BundleError: graphs, recordings and contract do not fit, a difference exceeds what the contract's precision
            allows, or the disk is full.
    """
    target, tolerance = check_target(folder), TOLERANCES[contract.precision]
    model = _with_contract(onnx_bytes, contract)
    check_parity_layout(parity, contract, "parity recording")
    step = OnnxStep(model, contract)
    difference = parity_difference(step, parity)
    if not difference <= tolerance:
        what = f"{difference:.3g} (bundle '{contract.name}', {contract.precision})"
        raise BundleError(explain("onnxruntime against torch", f"a difference of at most {tolerance:g}", what))
    contents = {GRAPH: model, PARITY: parity_bytes(parity), CARD: card.encode()}
    plans = None
    if planner is not None:
        graph, bounds = OnnxPlanner(planner.model, contract), PLAN_BOUNDS[contract.precision]
        plans = plans_difference(step, graph, parity, planner.recording, contract.robot, bounds)
        check_plans(plans, f"bundle '{contract.name}', {contract.precision}")
        contents |= {PLANNER: planner.model, PLANS: planner.recording.to_bytes()}
    if dreams is not None:
        OnnxDreams(dreams, contract)  # whether it fits
        contents[DREAMS] = dreams
    if weights is not None:
        contents[WEIGHTS] = weights
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    record = to_mapping(ParityRecord(parity.ticks, float(f"{difference:.6g}"), tolerance, plans))
    contents[MANIFEST] = encode_manifest(to_mapping(contract), hashes, record)
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
