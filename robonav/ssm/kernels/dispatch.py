"""Whether a kernel takes a call: CUDA tensors of a supported kind, triton at hand, and nobody asked for plain torch.

`backend` is "auto" (a kernel where one fits), "torch" (never) or "triton" (always, or a clear error). Under triton's
interpreter (TRITON_INTERPRET=1, set before triton is imported) "triton" takes CPU tensors as well; "auto" does not,
since the interpreter is for tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor

from robonav.errors import ConfigError, MissingDependencyError, ShapeError, explain

Backend = Literal["auto", "torch", "triton"]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)
MOST_RANK = 16


@functools.cache
def has_triton() -> bool:
    """Whether triton can be imported."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether kernels run under triton's interpreter, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET", "") in ("1", "true", "on") and has_triton()


def available(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors as they are."""
    return _misfit({str(i): t for i, t in enumerate(tensors)}) is None and has_triton()


def use_kernels(backend: Backend, tensors: Mapping[str, Tensor], rank: int = 1) -> bool:
    """Decides for one call; `tensors` by the names that an error should use.

    Raises:
        ConfigError: no such backend, or "triton" for a rank that the kernels do not take.
        ShapeError: "triton" for tensors on a CPU, or of a dtype that the kernels do not take.
        MissingDependencyError: "triton" where it is not installed.
    """
    if backend not in get_args(Backend):
        raise ConfigError(explain("backend", " or ".join(get_args(Backend)), repr(backend)))
    if backend == "torch":
        return False
    misfit = _misfit(tensors, any_device=backend == "triton" and interpreted())
    if backend == "auto":
        return misfit is None and rank <= MOST_RANK and has_triton()
    if not has_triton():
        do = "pip install triton, or backend='torch'"
        raise MissingDependencyError(explain("backend='triton'", "the package triton", "none", do))
    if misfit is not None:
        raise ShapeError(misfit)
    if rank > MOST_RANK:
        raise ConfigError(explain("rank", f"at most {MOST_RANK} for the kernels", rank, "take backend='torch'"))
    return True


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Makes the tensor's GPU the current one, which is where triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def architecture(tensor: Tensor) -> int:
    """80, 87, 90, ...; 80 where the interpreter runs."""
    if not tensor.is_cuda:
        return 80
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return 10 * major + minor


def _misfit(tensors: Mapping[str, Tensor], any_device: bool = False) -> str | None:
    """What keeps the kernels from these tensors, as an error's text."""
    do = "move it to the GPU, or take backend='torch'"
    for name, tensor in tensors.items():
        if not tensor.is_cuda and not any_device:
            return explain(name, "a CUDA tensor for backend='triton'", f"one on {tensor.device}", do)
        if tensor.dtype not in DTYPES:
            expected = "float32, bfloat16 or float16 for backend='triton'"
            return explain(name, expected, tensor.dtype, "convert it, or take backend='torch'")
        if tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) < LEAST_CAPABILITY:
            got = torch.cuda.get_device_name(tensor.device)
            return explain(name, "a GPU of compute capability 8.0 or later", got, "take backend='torch'")
    return None
