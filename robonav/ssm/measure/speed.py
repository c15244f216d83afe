"""What ``robonav bench ssm`` measures: training speed, step latency, state and activation bytes, cost of a history.

Runs take turns (one round of every layer, then the next), so that a machine that slows down for a while slows all of
them; a figure is the median over the rounds, with the spread of its quartiles beside it.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from robonav.ssm.layers.attention import Attention
from robonav.ssm.measure.layers import D_MODEL, FACTORIES, HEADS, SSM_LAYERS, check_names, make
from robonav.ssm.state import SequenceLayer, named_tensors

BATCH, LENGTH = 16, 64
STEP_BATCHES = (1, 1024, 4096)
HISTORIES = (64, 256, 1024, 4096, 16384)
Figures = dict[str, Any]
Report = Callable[[str], None]


def measure_speed(
    layers: Iterable[str] = (),
    threads: int = 1,
    rounds: int = 15,
    histories: Sequence[int] = HISTORIES,
    report: Report = lambda _: None,
) -> Figures:
    """Measures the layers (all by default) on the processor, and the kernels where there is a CUDA device.

    Returns:
        ``layers.NAME`` with parameters, train_tokens_per_s (forward and backward, batch 16, T 64, d_model 256),
        train_tokens_per_s_bf16 (under autocast), train_ms with quartiles, times_gru and times_gru_bf16 (tokens/s over
        the GRU's), step_us by batch, state_bytes (of one sequence) and scan_bytes (kept for the backward pass);
        ``history_us.NAME.T``: one more step after T, batch 1; ``machine``, ``threads``, ``kernels``.

    Raises:
        ConfigError: an unknown layer.
    """
    names = check_names(layers, FACTORIES, "layers") or tuple(FACTORIES)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        modules = {name: make(name) for name in names}
        figures: Figures = {name: _sizes(module) for name, module in modules.items()}
        for key, bf16 in (("", False), ("_bf16", True)):
            report(f"training{' under bf16 autocast' if bf16 else ''}")
            runs = {name: _training_run(module, bf16) for name, module in modules.items()}
            for name, ms in _take_turns(runs, rounds if not bf16 else max(3, rounds // 5)).items():
                figures[name][f"train_tokens_per_s{key}"] = BATCH * LENGTH / (ms[1] / 1e3)
                figures[name][f"train_ms{key}"] = {"median": ms[1], "quartiles": [ms[0], ms[2]]}
            for name in names if "gru" in names else ():
                gru = figures["gru"][f"train_tokens_per_s{key}"]
                figures[name][f"times_gru{key}"] = figures[name][f"train_tokens_per_s{key}"] / gru
        for batch in STEP_BATCHES:
            report(f"step at batch {batch}")
            steps = {name: _step_run(module, batch) for name, module in modules.items()}
            for name, ms in _take_turns(steps, rounds).items():
                figures[name].setdefault("step_us", {})[str(batch)] = 1e3 * ms[1]
        report("histories")
        history = _histories([name for name in SSM_LAYERS if name in names], modules, histories)
        kernels = _kernels(report)
    finally:
        torch.set_num_threads(before)
    machine = f"{platform.machine()}, {platform.system()}, torch {torch.__version__}"
    return {"layers": figures, "history_us": history, "kernels": kernels, "machine": machine, "threads": threads}


def _take_turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float, float]]:
    """Quartiles in ms of each run over the rounds, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - begin))
    quartiles = {name: np.percentile(ms, [25, 50, 75]) for name, ms in times.items()}
    return {name: (float(q[0]), float(q[1]), float(q[2])) for name, q in quartiles.items()}


def _sizes(module: torch.nn.Module) -> Figures:
    layer = cast("SequenceLayer", module)
    state = sum(t.numel() * t.element_size() for _, t in named_tensors(layer.initial_state(1)))
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "state_bytes": state,
        "scan_bytes": _kept_bytes(module),
    }


def _kept_bytes(module: torch.nn.Module) -> int:
    """Bytes that one scan keeps for its backward pass, weights and input left out."""
    x = torch.randn(BATCH, LENGTH, D_MODEL)
    known = {p.untyped_storage().data_ptr() for p in module.parameters()} | {x.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    layer = cast("SequenceLayer", module)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y, _ = layer.scan(x, layer.initial_state(BATCH))
    del y
    return sum(kept.values())


def _training_run(module: torch.nn.Module, bf16: bool) -> Callable[[], object]:
    layer = cast("SequenceLayer", module)
    x = torch.randn(BATCH, LENGTH, D_MODEL, requires_grad=True)
    target = torch.randn(BATCH, LENGTH, D_MODEL)

    def run() -> None:
        module.zero_grad(set_to_none=True)
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            y, _ = layer.scan(x, layer.initial_state(BATCH))
        (y.float() * target).sum().backward()

    return run


def _step_run(module: torch.nn.Module, batch: int) -> Callable[[], object]:
    layer = cast("SequenceLayer", module)
    x, reset = torch.randn(batch, D_MODEL), torch.zeros(batch)
    states = [layer.initial_state(batch)]

    @torch.no_grad()
    def run() -> None:
        states[0] = layer.step(x, states[0], reset)[1]

    return run


def _histories(names: Sequence[str], modules: dict[str, torch.nn.Module], histories: Sequence[int]) -> Figures:
    """Microseconds of one more step; attention keeps a cache as long as the history."""
    figures: Figures = {name: {} for name in (*names, "attention_full_cache")}
    for length in histories:
        layers = {name: modules[name] for name in names}
        layers["attention_full_cache"] = Attention(D_MODEL, HEADS, window=length)
        runs = {name: _after(module, length) for name, module in layers.items()}
        for name, ms in _take_turns(runs, 30).items():
            figures[name][str(length)] = 1e3 * ms[1]
    return figures


@torch.no_grad()
def _after(module: torch.nn.Module, length: int) -> Callable[[], object]:
    layer = cast("SequenceLayer", module)
    state = layer.initial_state(1)
    for begin in range(0, length, 1024):
        state = layer.scan(torch.randn(1, min(1024, length - begin), D_MODEL), state)[1]
    x, reset = torch.randn(1, D_MODEL), torch.zeros(1)

    def run() -> None:
        with torch.no_grad():
            layer.step(x, state, reset)

    return run


def _kernels(report: Report) -> Figures:
    """The Triton kernels beside their limits, on a CUDA device; empty without one."""
    if not torch.cuda.is_available():
        return {}
    from robonav.ssm.kernels.timing import measure_kernels

    report("kernels")
    return measure_kernels()
