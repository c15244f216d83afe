"""Block sizes, warps and stages of the kernels: fixed, so that a robot never tunes at its first step.

Chosen from the compiler's report (registers, spills, shared memory) for sm_80, sm_87 and sm_90; `kernels.timing` times
the rows beside their neighbours on a card. A warp has one 16-row tile of the chunk, or triton computes it twice.
"""

from __future__ import annotations

from typing import NamedTuple

SMALL_SHARED = (86, 89, 120)  # architectures with about 100 KB of shared memory a block; the others have 163 or more
FEW_BLOCKS = (86, 87, 89)  # at most 16 or 24 blocks a multiprocessor: one warp a block would leave it half empty
WARP_TILE = 1024  # entries of the step's state a warp, 32 a thread


class ScanBlocks(NamedTuple):
    """How the scan is cut up."""

    steps: int  # time steps of a chunk
    rows: int  # steps * rank, padded to a power of two of at least 16
    p: int  # columns of the values taken at once
    n: int  # columns of queries and keys taken at once
    warps: int
    stages: int


class StepBlocks(NamedTuple):
    """How the step is cut up."""

    latents: int
    p: int
    n: int
    warps: int


def power_of_two(x: int, least: int = 1) -> int:
    """The next power of two from x up, and from `least` up.

    >>> power_of_two(48, 16), power_of_two(5, 16)
    (64, 16)
    """
    return max(least, 1 << (x - 1).bit_length())


def scan_blocks(arch: int, length: int, rank: int, p: int, n: int, precise: bool) -> ScanBlocks:
    """Blocks of the scan for values of P, states of N, and float32 products that are `precise` or plain tf32."""
    # Rank R needs longer chunks in rows, or it would store a state every few steps.
    most = 32 if rank == 1 else 64
    rows = min(most, power_of_two(length * rank, 16))
    side = 16 if rows == 64 and (precise or arch in SMALL_SHARED) else 32
    blocks = min(side, power_of_two(p, 16)), min(side, power_of_two(n, 16))
    return ScanBlocks(rows // rank, rows, *blocks, warps=rows // 16, stages=1)


def step_blocks(arch: int, p: int, n: int) -> StepBlocks:
    """Blocks of the step: a warp holds WARP_TILE entries of the state, so that few lanes do the same rotation."""
    block_n = power_of_two(n)
    block_p = min(power_of_two(p), max(1, 8 * WARP_TILE // block_n))
    least = WARP_TILE * (2 if arch in FEW_BLOCKS else 1)
    latents = max(1, least // (block_p * block_n))
    return StepBlocks(latents, block_p, block_n, warps=min(8, max(1, latents * block_p * block_n // WARP_TILE)))
