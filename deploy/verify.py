"""Checks a bundle as the robot would use it: files, contract, graph, parity with torch, latency."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.bundle import PARITY_TICKS, PARITY_TOLERANCE, load_bundle, load_parity, parity_difference
from deploy.timing import Latency, summarise
from policies.bundle import Bundle
from robonav.errors import BundleError, explain

WARM_UP_TICKS = 20


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found; a bundle that fails a check raises instead."""

    bundle: str
    name: str
    robot: str
    sha256: str
    ticks: int
    max_abs_diff: float  # onnxruntime here against the recorded torch outputs
    tolerance: float
    exported_max_abs_diff: float
    step_ms: Latency  # one step of the graph
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return asdict(self)


def verify(folder: str | Path) -> Verification:
    """Checks a bundle over its recorded ticks. Needs onnxruntime, not torch.

    Raises:
        BundleError: one line that says which check failed.
    """
    bundle = load_bundle(folder)
    recording = load_parity(bundle)
    if recording.ticks < PARITY_TICKS:
        raise BundleError(explain(f"{folder}: parity", f"at least {PARITY_TICKS} recorded ticks", recording.ticks))
    # A manifest with a wide tolerance of its own must not pass.
    tolerance = min(bundle.parity.tolerance, PARITY_TOLERANCE)
    difference = parity_difference(bundle.step, recording)
    if not difference <= tolerance:
        where = f"{folder}: onnxruntime against recorded torch outputs over {recording.ticks} ticks"
        do = "export the bundle again on this machine, or use the onnxruntime version of its card"
        raise BundleError(explain(where, f"a difference of at most {tolerance:g}", f"{difference:.3g}", do))
    return Verification(
        bundle=str(folder),
        name=bundle.contract.name,
        robot=bundle.contract.robot.name,
        sha256=bundle.sha256,
        ticks=recording.ticks,
        max_abs_diff=difference,
        tolerance=tolerance,
        exported_max_abs_diff=bundle.parity.max_abs_diff,
        step_ms=_latency(bundle, recording.inputs, recording.ticks),
        versions=bundle.contract.versions,
    )


def _latency(bundle: Bundle, inputs: dict[str, Any], ticks: int) -> Latency:
    state = bundle.step.initial_state()
    milliseconds = []
    for t in range(-WARM_UP_TICKS, ticks):
        feeds = {name: values[max(t, 0)] for name, values in inputs.items()}
        started = time.perf_counter()
        state, _ = bundle.step.step(state, feeds)
        if t >= 0:
            milliseconds.append((time.perf_counter() - started) * 1e3)
    return summarise(milliseconds)
