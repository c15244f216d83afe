"""The kernels compiled ahead of time for A100 (sm_80), Jetson Orin (sm_87) and H100 (sm_90); no GPU is needed."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET", "") not in ("", "0"), reason="interpreter is on")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from robonav.ssm.kernels import scan_kernels, step_kernels  # noqa: E402
from robonav.ssm.kernels.scan import Plan  # noqa: E402
from robonav.ssm.kernels.tables import scan_blocks, step_blocks  # noqa: E402

SHARED_BYTES = {80: 163 << 10, 87: 163 << 10, 90: 227 << 10}
MOST_STACK_BYTES = 512  # a thread; spills that the first-level cache takes
INTEGERS = {"T", "chunks", "K", "B"}
PROJECTED = {"query", "key", "value", "gate", "dt", "rate", "trap", "angle", "d_y"}


def compiled(kernel: Any, arch: int, constants: dict[str, Any], dtype: str = "fp32") -> dict[str, int]:
    """Registers a thread, stack bytes a thread, shared memory a block of the machine code."""
    options = {name: constants[name] for name in ("num_warps", "num_stages")}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature: dict[str, str] = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in INTEGERS or name.endswith("_b"):
            signature[name] = "i32"
        else:
            signature[name] = "*i64" if name == "wanted" else f"*{dtype if name in PROJECTED else 'fp32'}"
    aligned: dict[tuple[int], list[list[Any]]] = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if signature[name][0] == "*"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    result = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    assert result.asm["cubin"][:4] == b"\x7fELF"
    assert result.metadata.shared <= SHARED_BYTES[arch]
    return {"shared": result.metadata.shared, **resources(result.asm["cubin"])}


def resources(cubin: bytes) -> dict[str, int]:
    """What the tool of triton's wheel says of the machine code; nothing where the tool is not there."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return {}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True)
    found = {key: re.search(rf"{key}:(\d+)", report.stdout + report.stderr) for key in ("REG", "STACK")}
    return {key.lower(): int(match[1]) for key, match in found.items() if match}


def scan_constants(arch: int, p: int, n: int, rank: int = 1, tf32: bool = False, length: int = 64) -> dict[str, Any]:
    blocks = scan_blocks(arch, length, rank, p, n, precise=not tf32)
    return Plan(blocks, "tf32" if tf32 else "tf32x3", rank, 8, 8, p, n).constants()


def step_constants(arch: int, p: int, n: int, rank: int = 1, **changes: Any) -> dict[str, Any]:
    blocks = step_blocks(arch, p, n)
    constants = {
        "R": rank, "H": 8, "G": 1, "P": p, "N": n, "S": n // 4, "MAMBA3": True, "MIMO": rank > 1, "HALVES": rank > 1,
        "RATIONAL": True, "GATED": True, "WIDE_SKIP": False, "LIMITED": False, "DT_LEAST": 0.0,
        "DT_MOST": float("inf"), "EPS": 1e-5, "LEAST_RATE": 1e-4,
        "LATENTS": blocks.latents, "BLOCK_P": blocks.p, "BLOCK_N": blocks.n,
        "num_warps": blocks.warps, "num_stages": 1,
    }  # fmt: skip
    return constants | changes


@pytest.mark.parametrize("arch", SHARED_BYTES)
def test_every_kernel_compiles(arch: int) -> None:
    scan = scan_constants(arch, 32, 16)
    used = {
        "forward": compiled(scan_kernels.scan_forward, arch, scan),
        "states": compiled(scan_kernels.scan_states, arch, scan),
        "backward": compiled(scan_kernels.scan_backward, arch, scan | {"CARRY": True, "WANTED": False}),
        "step": compiled(step_kernels.fused_step, arch, step_constants(arch, 64, 16)),
    }
    for name, figures in used.items():
        assert figures.get("stack", 0) <= MOST_STACK_BYTES, (name, figures)


@pytest.mark.slow
@pytest.mark.parametrize("arch", SHARED_BYTES)
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(
    ("p", "n", "rank"), [(64, 16, 1), (64, 32, 1), (64, 64, 1), (64, 128, 1), (48, 5, 1), (64, 32, 4)]
)
def test_scan_of_real_sizes_compiles(arch: int, tf32: bool, p: int, n: int, rank: int) -> None:
    constants = scan_constants(arch, p, n, rank, tf32)
    dtype = "bf16" if tf32 else "fp32"
    for kernel, more in (
        (scan_kernels.scan_forward, {}),
        (scan_kernels.scan_states, {}),
        (scan_kernels.scan_backward, {"CARRY": True, "WANTED": False}),
        (scan_kernels.scan_backward, {"CARRY": False, "WANTED": False}),
        (scan_kernels.scan_backward, {"CARRY": True, "WANTED": True}),
    ):
        figures = compiled(kernel, arch, constants | more, dtype)
        print(kernel.__name__, arch, dtype, p, n, rank, more, figures)
        assert figures.get("stack", 0) <= MOST_STACK_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("arch", SHARED_BYTES)
@pytest.mark.parametrize(
    ("p", "n", "rank"), [(64, 16, 1), (64, 64, 1), (64, 128, 1), (48, 5, 1), (64, 16, 4), (200, 256, 1)]
)
def test_step_of_real_sizes_compiles(arch: int, p: int, n: int, rank: int) -> None:
    mamba2 = {"MAMBA3": False, "LIMITED": True, "WIDE_SKIP": True}
    for more in ({}, {"GATED": False, "RATIONAL": False}, mamba2 if rank == 1 else {}):
        figures = compiled(step_kernels.fused_step, arch, step_constants(arch, p, n, rank, **more), "bf16")
        print("fused_step", arch, p, n, rank, more, figures)
        assert figures.get("stack", 0) <= MOST_STACK_BYTES
