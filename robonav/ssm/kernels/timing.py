"""Times the kernels on the GPU at hand, beside what its memory and its tensor cores allow: `measure_kernels`.

Results are first compared with the PyTorch form. The limit is the larger of two times: the bytes that have to move
(each input read once, each output written once) at the rate of a large copy, and the products that the chunked form
needs at the rate of a large tf32 matrix product; both rates are measured on the same card. A call is captured in a
CUDA graph, so that launches from Python do not count, and the L2 cache is emptied before each run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robonav.ssm.kernels.dispatch import architecture, available, use_kernels
from robonav.ssm.kernels.scan import ssd_scan_cuda
from robonav.ssm.kernels.step import StepInput, StepState, StepWeights, converted, fused_step, step_torch
from robonav.ssm.kernels.tables import ScanBlocks, StepBlocks, scan_blocks, step_blocks
from robonav.ssm.recurrences.ssd import SSDInput, ssd_recurrence

TOLERANCE = 1e-4
REPEATS = 30
FLUSH_BYTES = 1 << 29
P = 64  # head size; d_model 512 with expand 1 makes 8 heads
HEADS = 8
SCAN_BATCH, SCAN_LENGTH = 64, 64
LATENTS = 4096
STATE_SIZES = (16, 64)


def measure_kernels(device: str | torch.device = "cuda") -> dict[str, Any]:
    """Figures of the scan (batch 64, T 64, width 512, forward and backward) and of the step (4,096 latents).

    Returns:
        Nothing without a GPU that the kernels run on. Else `device`, `copy_gb_per_s`, `tf32_tflop_per_s`, and by state
        size N `scan.nN` and `step.nN` with `error` (largest, relative to 1 + the largest entry), `us`, `limit_us`,
        `fraction` of the limit reached and `bound` by "memory" or "arithmetic"; no times where the error is over 1e-4.
    """
    if not torch.cuda.is_available() or not available(torch.empty(0, device=device)):
        return {}
    device = torch.device(device)
    with torch.cuda.device(device):
        copy, product = copy_rate(device), product_rate(device)
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name(device),
            "copy_gb_per_s": copy / 1e9,
            "tf32_tflop_per_s": product / 1e12,
            "scan": {},
            "step": {},
        }
        for n in STATE_SIZES:
            found["scan"][f"n{n}"] = _scan_figures(device, n, copy, product)
            found["step"][f"n{n}"] = _step_figures(device, n, copy)
    return found


def _scan_figures(device: torch.device, n: int, copy: float, product: float) -> dict[str, Any]:
    error = scan_error(device, batch=4, length=SCAN_LENGTH, heads=HEADS, p=P, n=n)
    figures: dict[str, Any] = {"error": error}
    if error > TOLERANCE:
        return figures
    for precision, passes in (("tf32x3", 3), ("tf32", 1)):
        for direction in ("forward", "both"):
            call = scan_call(device, n, direction == "both", precision=precision)
            steps = scan_blocks(architecture(torch.empty(0, device=device)), SCAN_LENGTH, 1, P, n, True).steps
            moved, flops = scan_work(SCAN_BATCH, SCAN_LENGTH, HEADS, P, n, steps, direction == "both")
            figures[f"{precision}.{direction}"] = _beside_limit(time_us(call), moved / copy, passes * flops / product)
    return figures


def _step_figures(device: torch.device, n: int, copy: float) -> dict[str, Any]:
    error = step_error(device, 64, HEADS, P, n)
    figures: dict[str, Any] = {"error": error}
    if error > TOLERANCE:
        return figures
    call, moved = step_call(device, n)
    return figures | _beside_limit(time_us(call), moved / copy, 0.0)


def _beside_limit(us: float, memory_s: float, arithmetic_s: float) -> dict[str, Any]:
    limit = 1e6 * max(memory_s, arithmetic_s)
    bound = "memory" if memory_s >= arithmetic_s else "arithmetic"
    return {"us": us, "limit_us": limit, "fraction": limit / us, "bound": bound}


def scan_error(device: torch.device, batch: int, length: int, heads: int, p: int, n: int) -> float:
    """Largest difference of the scan's outputs and gradients from the recurrence's in float64."""
    inputs, hidden, reset = _scan_inputs(device, batch, length, heads, p, n, seed=0)
    leaves = [x.requires_grad_() for x in (*inputs, hidden)]
    got = ssd_scan_cuda(SSDInput(*leaves[:4]), leaves[4], reset, precision="tf32x3")
    exact = [x.detach().double().requires_grad_() for x in leaves]
    y, hiddens = ssd_recurrence(SSDInput(*exact[:4]), exact[4], reset.double())
    wanted = y, hiddens[:, -1:]
    ahead = [torch.randn_like(x) for x in got]
    got_gradients = torch.autograd.grad(got, leaves, ahead)
    wanted_gradients = torch.autograd.grad(wanted, exact, [x.double() for x in ahead])
    return _error((*got, *got_gradients), (*wanted, *wanted_gradients))


def step_error(device: torch.device, latents: int, heads: int, p: int, n: int) -> float:
    """Largest difference of three steps from those of the PyTorch form in float64."""
    inputs, weights, state, reset = _step_inputs(device, latents, heads, p, n, seed=0)
    exact_inputs, exact_weights = converted(inputs, torch.Tensor.double), converted(weights, torch.Tensor.double)
    worst, exact_state = 0.0, converted(state, torch.Tensor.double)
    for _ in range(3):
        y, state = fused_step(inputs, weights, state, reset, backend="triton")
        exact_y, exact_state = step_torch(exact_inputs, exact_weights, exact_state, reset.double())
        pairs = [(y, exact_y), *((a, b) for a, b in zip(state, exact_state, strict=True) if a is not None)]
        worst = max(worst, _error(*zip(*pairs, strict=True)))
    return worst


def scan_call(
    device: torch.device, n: int, backward: bool, precision: Any = None, blocks: ScanBlocks | None = None
) -> Callable[[], object]:
    """A call of the scan at the size that is measured, with the backward pass or without."""
    inputs, hidden, reset = _scan_inputs(device, SCAN_BATCH, SCAN_LENGTH, HEADS, P, n, seed=1)
    leaves = [x.requires_grad_(backward) for x in (*inputs, hidden)]
    ahead = torch.randn_like(inputs.value)

    def call() -> object:
        y, _ = ssd_scan_cuda(SSDInput(*leaves[:4]), leaves[4], reset, precision=precision, blocks=blocks)
        return torch.autograd.grad(y, leaves, ahead) if backward else y

    return call


def step_call(device: torch.device, n: int, blocks: StepBlocks | None = None) -> tuple[Callable[[], object], float]:
    """A call of the step at the size that is measured, and the bytes that it has to move."""
    inputs, weights, state, reset = _step_inputs(device, LATENTS, HEADS, P, n, seed=1)
    moved = sum(t.nbytes for t in (*inputs, *weights, reset) if t is not None)
    moved += 2 * sum(t.nbytes for t in state if t is not None) + inputs.value.nbytes

    def call() -> object:
        with torch.no_grad():
            return fused_step(inputs, weights, state, reset, backend="triton", blocks=blocks)

    return call, float(moved)


def scan_work(batch: int, length: int, heads: int, p: int, n: int, steps: int, backward: bool) -> tuple[float, float]:
    """Bytes that the scan has to move in float32, and operations of the chunked form's products."""
    keys, values, decays, states = length * n, length * p, length, p * n
    moved = 2 * keys + 2 * values + decays + 2 * states
    square, state = 2.0 * length * steps, 4.0 * length * p * n
    flops = square * (n + p) + state
    if backward:
        moved += 4 * keys + 3 * values + 2 * decays + 2 * states
        flops += square * (3 * n + 2 * p) + 2 * state
    return 4.0 * moved * batch * heads, flops * batch * heads


def compare_blocks(n: int = 16, device: str | torch.device = "cuda") -> dict[str, list[tuple[Any, float]]]:
    """Microseconds of neighbours of the tables' rows, fastest first: what to look at before a row is changed."""
    device = torch.device(device)
    use_kernels("triton", {"device": torch.empty(0, device=device)})
    arch = architecture(torch.empty(0, device=device))
    table = scan_blocks(arch, SCAN_LENGTH, 1, P, n, True)
    scans = {table} | {
        ScanBlocks(rows, rows, side, min(side, max(16, n)), warps, stages)
        for rows, warps in ((16, 1), (32, 2), (32, 4), (64, 4), (64, 8))
        for side in (16, 32, 64)
        for stages in (1, 2)
    }
    block = step_blocks(arch, P, n)
    steps = {block} | {block._replace(latents=latents, warps=w) for latents in (1, 2, 4) for w in (1, 2, 4)}
    found: dict[str, list[tuple[Any, float]]] = {
        f"scan.{precision}": [(row, time_us(scan_call(device, n, True, precision, row))) for row in scans]
        for precision in ("tf32x3", "tf32")
    }
    found["step"] = [(row, time_us(step_call(device, n, row)[0])) for row in steps]
    return {name: sorted(rows, key=lambda row: row[1]) for name, rows in found.items()}


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.empty(1 << 28, device=device)  # 1 GiB
    target = torch.empty_like(source)
    return 2e6 * source.nbytes / time_us(lambda: target.copy_(source))


def product_rate(device: torch.device, size: int = 8192) -> float:
    """Operations a second of a large product of float32 numbers at tf32."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        return 2e6 * size**3 / time_us(lambda: a @ b)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def time_us(call: Callable[[], object]) -> float:
    """Median microseconds of a call on the current GPU, without launches, the L2 cache cold."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and fills the allocator's pool
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPEATS)]
    for begin, end in events:
        flush.zero_()
        begin.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return 1e3 * statistics.median(begin.elapsed_time(end) for begin, end in events)


def _error(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    pairs = zip(got, wanted, strict=True)
    return max(float(((a.double() - b).abs().max() / (1 + b.abs().max())).detach()) for a, b in pairs)


def _scan_inputs(
    device: torch.device, batch: int, length: int, heads: int, p: int, n: int, seed: int
) -> tuple[SSDInput, Tensor, Tensor]:
    """As Mamba-3 makes them: keys and queries a head, step sizes about 0.1, a reset in fifty steps."""
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made).to(device)

    inputs = SSDInput(
        normal(batch, length, 1, heads, n),
        normal(batch, length, 1, heads, n),
        0.1 * normal(batch, length, 1, heads, p),
        -0.1 * normal(batch, length, heads).abs(),
    )
    reset = (torch.rand((batch, length), generator=made) < 0.02).float().to(device)
    return inputs, normal(batch, heads, p, n), reset


def _step_inputs(
    device: torch.device, latents: int, heads: int, p: int, n: int, seed: int
) -> tuple[StepInput, StepWeights, StepState, Tensor]:
    """A Mamba-3 step, its inputs as columns of one projection."""
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made).to(device)

    pairs = n // 4
    widths = [heads * p, heads * p, n, n, heads, heads, heads, pairs]
    z, x, b, c, dt, rate, trap, angle = normal(latents, sum(widths)).split(widths, dim=-1)
    z, x = (t.unflatten(-1, (heads, p)) for t in (z, x))
    b, c = (t.unflatten(-1, (1, 1, n)) for t in (b, c))
    inputs = StepInput(x, b, c, dt - 2, z, rate, trap, angle)
    bias, norm = (normal(heads, 1, n), normal(heads, 1, n)), (normal(n), normal(n))
    weights = StepWeights(normal(heads), normal(heads), None, *bias, *norm)
    state = StepState(
        normal(latents, heads, p, n),
        normal(latents, heads, pairs).clamp(-3, 3),
        normal(latents, 1, heads, n),
        normal(latents, heads, p),
    )
    return inputs, weights, state, (torch.rand(latents, generator=made) < 0.02).float().to(device)
