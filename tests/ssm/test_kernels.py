"""The kernels' door: who is let in, what the interpreted tests say, and, where there is a GPU, results on it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from robonav.errors import ConfigError, MissingDependencyError, ShapeError
from robonav.ssm.kernels import (
    Backend,
    StepInput,
    StepState,
    StepWeights,
    available,
    dispatch,
    fused_step,
    ssd_scan_cuda,
    step_torch,
    use_kernels,
)
from robonav.ssm.kernels.tables import power_of_two, scan_blocks, step_blocks
from robonav.ssm.kernels.timing import measure_kernels, scan_error, step_error
from robonav.ssm.recurrences.ssd import SSDInput

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(not dispatch.has_triton(), reason="triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow  # 35 s; the layers' own tests hold the torch path to the references
@needs_triton
def test_kernels_under_the_interpreter() -> None:
    options = ["-x", "-p", "no:cacheprovider", "tests/ssm/kernels_interpreted.py"]
    done = run_python("-m", "pytest", *options, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_needs_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, robonav.ssm.kernels, robonav.ssm.kernels.timing\n"
        "assert not robonav.ssm.kernels.available(torch.zeros(1))\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_processor_tensors_go_to_torch() -> None:
    x = torch.zeros(2)
    assert not available(x)
    assert not use_kernels("auto", {"x": x})
    assert not use_kernels("torch", {"x": x})


@needs_triton
def test_asking_for_triton_on_a_processor_names_argument_expected_and_got(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    message = r"query: expected a CUDA tensor for backend='triton', got one on cpu; .*backend='torch'"
    with pytest.raises(ShapeError, match=message):
        use_kernels("triton", {"query": torch.zeros(2)})
    z = torch.zeros
    inputs = SSDInput(z(1, 2, 1, 1, 3), z(1, 2, 1, 1, 3), z(1, 2, 1, 1, 4), z(1, 2, 1))
    with pytest.raises(ShapeError, match=message):
        ssd_scan_cuda(inputs, z(1, 1, 4, 3), z(1, 2))
    step = StepInput(z(1, 1, 4), z(1, 1, 1, 3), z(1, 1, 1, 3), z(1, 1))
    with pytest.raises(ShapeError, match="value: expected a CUDA tensor"):
        fused_step(step, StepWeights(z(1), z(1), z(1)), StepState(z(1, 1, 4, 3)), z(1), backend="triton")


def test_unknown_backend_and_missing_triton_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = "cuda"
    with pytest.raises(ConfigError, match="backend: expected auto or torch or triton, got 'cuda'"):
        use_kernels(backend, {})
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    with pytest.raises(MissingDependencyError, match="pip install triton"):
        use_kernels("triton", {"x": torch.zeros(1)})
    assert get_args(Backend) == ("auto", "torch", "triton")


def test_step_on_a_processor_is_the_torch_form() -> None:
    r = torch.randn
    inputs = StepInput(r(3, 2, 4), r(3, 1, 1, 6), r(3, 1, 1, 6), r(3, 2))
    weights, state, reset = StepWeights(r(2), r(2), r(2)), StepState(r(3, 2, 4, 6)), torch.tensor([0.0, 1.0, 0.0])
    y, new = fused_step(inputs, weights, state, reset)
    want, its = step_torch(inputs, weights, state, reset)
    assert torch.equal(y, want) and torch.equal(new.hidden, its.hidden)


@pytest.mark.parametrize("arch", [80, 86, 87, 89, 90, 100])
def test_blocks_cover_every_size(arch: int) -> None:
    sizes = (1, 1), (5, 48), (64, 16), (64, 128), (256, 256)
    for rank, length, (p, n) in itertools.product((1, 2, 3, 5, 16), (1, 2, 17, 64, 4096), sizes):
        blocks = scan_blocks(arch, length, rank, p, n, precise=True)
        assert blocks.steps >= 1 and blocks.rows >= 16 and blocks.steps * rank <= blocks.rows
        assert blocks.rows == power_of_two(blocks.rows) and blocks.warps in (1, 2, 4)
        assert all(side >= 16 and side == power_of_two(side) for side in (blocks.p, blocks.n))
        step = step_blocks(arch, p, n)
        assert step.n >= n and step.latents * step.p * step.n <= 8192
        assert all(size == power_of_two(size) for size in step)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_there_is_nothing_to_time_without_a_gpu() -> None:
    assert measure_kernels() == {}


@needs_gpu
@needs_triton
@pytest.mark.parametrize(("length", "p", "n"), [(1, 64, 16), (17, 48, 5), (64, 64, 64), (150, 64, 128)])
def test_scan_on_the_gpu(length: int, p: int, n: int) -> None:
    assert scan_error(torch.device("cuda"), batch=3, length=length, heads=4, p=p, n=n) < 1e-4


@needs_gpu
@needs_triton
@pytest.mark.parametrize(("p", "n"), [(64, 16), (48, 5), (64, 128), (200, 64)])
def test_step_on_the_gpu(p: int, n: int) -> None:
    assert step_error(torch.device("cuda"), latents=100, heads=4, p=p, n=n) < 1e-4


@needs_gpu
@needs_triton
def test_scan_on_the_gpu_gives_the_same_bits_each_time() -> None:
    torch.manual_seed(0)
    r, found = torch.randn, []
    leaves = [r(4, 100, 1, 2, 16), r(4, 100, 1, 2, 16), r(4, 100, 1, 8, 64), -r(4, 100, 8).abs(), r(4, 8, 64, 16)]
    leaves = [x.cuda().requires_grad_() for x in leaves]
    for _ in range(3):
        y, states = ssd_scan_cuda(SSDInput(*leaves[:4]), leaves[4], torch.zeros(4, 100, device="cuda"))
        found.append((y, states, *torch.autograd.grad(y.square().sum() + states.sum(), leaves)))
    assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(found[0], again, strict=True))


@needs_gpu
@needs_triton
@pytest.mark.slow
def test_figures_of_the_gpu() -> None:
    found = measure_kernels()
    assert all(figures["error"] < 1e-4 for kind in ("scan", "step") for figures in found[kind].values())
