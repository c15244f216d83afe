"""Checks a bundle as the robot would use it: files, contract, graphs, parity with torch, latency on each provider.

With TensorRT this is also where its engines are built and cached, so that no first command waits for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deploy.bundle import PARITY_TICKS, PLAN_BOUNDS, TOLERANCES, load_bundle, load_parity, parity_difference
from deploy.plans import PlansRecording, check_plans, plans_difference, read_plans, recorded_feeds
from deploy.recording import ParityRecording
from deploy.timing import Latency, summarise
from policies.bundle import PLANS, Bundle, PlansRecord
from policies.onnx_planner import OnnxPlanner
from policies.onnx_session import PROVIDERS, Runtime, import_onnxruntime
from robonav.errors import BundleError, explain

WARM_UP_TICKS = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """Latency of one step and one plan on a provider, in milliseconds of the clock and of the processor.

    On a machine that has other work the clock also counts what others did meanwhile.
    """

    provider: str
    step_ms: Latency
    step_cpu_ms: Latency
    plan_ms: Latency | None = None
    plan_cpu_ms: Latency | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found; a bundle that fails a check raises instead."""

    bundle: str
    name: str
    robot: str
    sha256: str
    precision: str
    runs_on: str
    ticks: int
    max_abs_diff: float  # onnxruntime here against the recorded torch outputs
    tolerance: float
    exported_max_abs_diff: float
    plans: PlansRecord | None  # the planner here against the recorded plans
    step_ms: Latency  # one step of the graph, in place, on the provider of `runs_on`
    plan_ms: Latency | None
    providers: tuple[Figures, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return asdict(self)


def verify(folder: str | Path, runtime: Runtime | None = None) -> Verification:
    """Checks a bundle over its recorded ticks. Needs onnxruntime, not torch.

    Args:
        folder: of the bundle.
        runtime: where its graphs run; by default what the environment says. Latency is measured on it and, where it
            is "auto", on all other providers as well.

    Raises:
        BundleError: one line that says which check failed.
    """
    runtime = runtime or Runtime.of_environment()
    bundle = load_bundle(folder, runtime)
    recording = load_parity(bundle)
    if recording.ticks < PARITY_TICKS:
        raise BundleError(explain(f"{folder}: parity", f"at least {PARITY_TICKS} recorded ticks", recording.ticks))
    # A manifest with a wide tolerance of its own must not pass.
    tolerance = min(bundle.parity.tolerance, TOLERANCES[bundle.contract.precision])
    difference = parity_difference(bundle.step, recording)
    if not difference <= tolerance:
        where = f"{folder}: onnxruntime against recorded torch outputs over {recording.ticks} ticks"
        do = "export the bundle again on this machine, or use the onnxruntime version of its card"
        raise BundleError(explain(where, f"a difference of at most {tolerance:g}", f"{difference:.3g}", do))
    planner, plans = bundle.planner(), None
    planned = None if planner is None else read_plans(bundle.folder / PLANS)
    if planner is not None and planned is not None:
        plans = _same_plans(bundle, planner, recording, planned)
    figures = [_figures(bundle, recording, planned)]
    figures += [_figures(other, recording, planned) for other in _others(folder, runtime, figures[0].provider)]
    return Verification(
        bundle=str(folder),
        name=bundle.contract.name,
        robot=bundle.contract.robot.name,
        sha256=bundle.sha256,
        precision=bundle.contract.precision,
        runs_on=bundle.step.runs_on,
        ticks=recording.ticks,
        max_abs_diff=difference,
        tolerance=tolerance,
        exported_max_abs_diff=bundle.parity.max_abs_diff,
        plans=plans,
        step_ms=figures[0].step_ms,
        plan_ms=figures[0].plan_ms,
        providers=tuple(figures),
        versions=bundle.contract.versions,
    )


def _same_plans(
    bundle: Bundle, planner: OnnxPlanner, recording: ParityRecording, planned: PlansRecording
) -> PlansRecord:
    where = str(bundle.folder)
    if len(planned.score) < PARITY_TICKS:
        raise BundleError(explain(f"{where}: plans", f"at least {PARITY_TICKS} recorded ticks", len(planned.score)))
    bounds = PLAN_BOUNDS[bundle.contract.precision]
    found = plans_difference(bundle.step, planner, recording, planned, bundle.contract.robot, bounds)
    check_plans(found, where)
    return found


def _others(folder: str | Path, runtime: Runtime, used: str) -> Iterable[Bundle]:
    """The bundle on each further provider of this machine."""
    if runtime.provider != "auto":
        return
    here = import_onnxruntime().get_available_providers()
    for name, provider in PROVIDERS.items():
        if provider in here and provider != used:
            yield load_bundle(folder, Runtime(name, True, runtime.cache, runtime.half))  # type: ignore[arg-type]


def _figures(bundle: Bundle, recording: ParityRecording, planned: PlansRecording | None) -> Figures:
    """Latency of a bundle on its provider."""
    step, state = bundle.step.in_place(), bundle.step.initial_state()
    ticks = [{name: values[t] for name, values in recording.inputs.items()} for t in range(recording.ticks)]
    memories = []
    for tick in ticks:
        state, _ = step.step(state, tick)
        memories.append({name: values.copy() for name, values in state.items()})
    timed = _timed([partial(step.step, m, tick) for tick, m in zip(ticks, memories, strict=True)])
    planner, name = bundle.planner(), bundle.step.runs_on.split(",")[0]
    if planner is None or planned is None:
        return Figures(name, *timed)
    spec = bundle.contract.robot
    feeds = zip(memories, recorded_feeds(planned, planner.layout, spec), strict=True)
    calls = [partial(planner.run, memory, before, fed) for memory, (before, fed) in feeds]
    return Figures(name, *timed, *_timed(calls))


def _timed(calls: Sequence[Callable[[], Any]]) -> tuple[Latency, Latency]:
    """Milliseconds of the clock and of the processor that calls took, after some that warm up."""
    wall, cpu = [], []
    for call in [*calls[:WARM_UP_TICKS], *calls]:
        cpu_began, began = time.process_time(), time.perf_counter()
        call()
        wall.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - cpu_began) * 1e3)
    warm = min(WARM_UP_TICKS, len(calls))
    return summarise(wall[warm:]), summarise(cpu[warm:])
