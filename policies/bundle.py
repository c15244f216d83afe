"""Reading a deployment bundle: a folder that is used whole and unchanged, or refused.

``bundle.json`` holds the contract, the SHA-256 of every other file and of itself, and the parity record;
``policy.onnx`` the graph, ``parity.npz`` the torch outputs that it must reproduce, ``README.md`` the model card.
A bundle that can plan by imagination holds ``planner.onnx`` and ``plans.npz`` (what numpy and torch planned) too, and
``dreams.onnx``, by which people can look at what it imagines. ``weights.safetensors``, where there is one, is what the
bundle was exported from: training can begin with it, and it can be exported again; what drives a robot does not use it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.contract import METADATA_KEY, BundleContract, contract_from_mapping
from policies.onnx_dreams import OnnxDreams
from policies.onnx_planner import OnnxPlanner
from policies.onnx_session import CPU, Runtime
from policies.onnx_step import OnnxStep
from robonav.config import from_mapping
from robonav.errors import BundleError, ConfigError, explain

MANIFEST = "bundle.json"
GRAPH = "policy.onnx"
PARITY = "parity.npz"
CARD = "README.md"
FILES = (GRAPH, PARITY, CARD)
PLANNER = "planner.onnx"
PLANS = "plans.npz"
DREAMS = "dreams.onnx"
WEIGHTS = "weights.safetensors"
EXTRAS = (PLANNER, PLANS, DREAMS, WEIGHTS)  # not in every bundle


@dataclass(frozen=True, slots=True)
class PlansRecord:
    """How far the planner's graph was from numpy and torch. Choosing among candidates, and sampling what may happen,
    are steps where the last digit can decide: such a tick has another plan, of nearly the same score.
    """

    ticks: int
    same_share: float  # ticks with the same plan
    max_abs_diff: float  # of these, between scores
    max_regret: float  # of the others, how much less the graph's score was
    tolerance: float  # on the differences between scores of the same plan
    same_share_min: float


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """How far onnxruntime was from torch when the bundle was written."""

    ticks: int
    max_abs_diff: float
    tolerance: float
    plans: PlansRecord | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that passed every check that needs no inference."""

    folder: Path
    contract: BundleContract
    files: dict[str, str]  # name to SHA-256
    parity: ParityRecord
    sha256: str  # of the manifest; it covers all files, so it names the bundle
    step: OnnxStep = field(repr=False)
    dreams_model: bytes | None = field(default=None, repr=False)
    planner_model: bytes | None = field(default=None, repr=False)
    runtime: Runtime = CPU

    def dreams(self) -> OnnxDreams:
        """What the planner asks of the world model.

        Raises:
            BundleError: the bundle was exported without, or the graph does not fit its states.
        """
        if self.dreams_model is None:
            do = "export it again with --planner"
            raise BundleError(explain(str(self.folder), "a bundle that can imagine", f"no {DREAMS}", do))
        return OnnxDreams(self.dreams_model, self.contract, str(self.folder / DREAMS))

    def planner(self) -> OnnxPlanner | None:
        """The whole planner in a graph; None in a bundle without.

        Raises:
            BundleError: it does not fit the bundle.
        """
        if self.planner_model is None:
            return None
        return OnnxPlanner(self.planner_model, self.contract, str(self.folder / PLANNER), self.runtime)


def is_bundle(folder: str | Path) -> bool:
    """Whether a folder claims to be a bundle."""
    return (Path(folder) / MANIFEST).is_file()


def load_bundle(folder: str | Path, runtime: Runtime | None = None) -> Bundle:
    """Reads and checks a bundle: files, hashes, contract, and the graph against it.

    `runtime` says where its graphs run; the environment decides if None.

    Raises:
        BundleError: one line that names the file and what is wrong with it.
        MissingDependencyError: onnxruntime is not installed.
    """
    folder, runtime = Path(folder), runtime or Runtime.of_environment()
    manifest, digest = _read_manifest(folder)
    where = str(folder / MANIFEST)
    files = manifest["files"]
    if not isinstance(files, dict) or set(files) - set(EXTRAS) != set(FILES):
        raise BundleError(explain(f"{where}: files", ", ".join(FILES), files))
    contents = {name: _read(folder / name) for name in sorted(files)}
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != files[name]:
            do = "copy or export the bundle again"
            raise BundleError(explain(str(folder / name), f"SHA-256 {files[name][:12]}...", f"{found[:12]}...", do))
    contract = contract_from_mapping(manifest["contract"], f"{where}: contract")
    try:
        parity = from_mapping(ParityRecord, manifest["parity"], f"{where}: parity")
    except ConfigError as error:
        raise BundleError(str(error)) from None
    step = OnnxStep(contents[GRAPH], contract, str(folder / GRAPH), runtime)
    inside = step.metadata.get(METADATA_KEY)
    if _contract_in(inside, f"{folder / GRAPH}: contract") != contract:
        what = "none" if inside is None else "another one"
        raise BundleError(
            explain(str(folder / GRAPH), "the contract of bundle.json in its metadata", what, "export again")
        )
    extras = contents.get(DREAMS), contents.get(PLANNER)
    return Bundle(folder, contract, dict(files), parity, digest, step, *extras, runtime)


def _contract_in(metadata: str | None, where: str) -> BundleContract | None:
    """The contract in a graph's metadata, None without one. Read, not compared as text: keys that are newer than the
    bundle have their defaults on both sides.
    """
    if metadata is None:
        return None
    try:
        return contract_from_mapping(json.loads(metadata), where)
    except ValueError:
        return None


def encode_manifest(contract: dict[str, Any], files: dict[str, str], parity: dict[str, Any]) -> bytes:
    """The bytes of ``bundle.json``, its own hash included."""
    body: dict[str, Any] = {"contract": contract, "files": files, "parity": parity}
    return _dump({**body, "sha256": hashlib.sha256(_dump(body)).hexdigest()})


def _dump(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(explain(str(folder), "a bundle folder", "no such folder", "check the path"))
    raw = _read(path)
    try:
        data = json.loads(raw)
        if not isinstance(data, dict) or set(data) != {"contract", "files", "parity", "sha256"}:
            raise ValueError("other keys than contract, files, parity and sha256")
        body = {key: data[key] for key in ("contract", "files", "parity")}
        # The file must be byte for byte what encode_manifest gives, so that no byte of it can change unnoticed.
        if encode_manifest(**body) != raw:
            raise ValueError("its SHA-256 does not fit")
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{path}: changed or damaged ({reason}); copy or export the bundle again") from None
    return data, hashlib.sha256(raw).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            explain(str(path), "a file of the bundle", "no such file", "copy or export it again")
        ) from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
