"""How the functions of this package are compiled.

No fast-math: a sum whose order depended on the batch would end the equality of batch and single world. Only kernels are
called from Python; what they call has no wrappers of its own and no cache, which halves the time that compiling takes.

Numba holds a kernel's cached code to be good as long as the kernel's own file is as it was, and does not look at the
files of what it calls. Here the cache goes by all files that kernels are made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

_njit: Any = njit  # its stubs do not know all of its options
F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_ROOT = Path(__file__).resolve().parents[2]
# where functions and constants may stand that are compiled into kernels
_SOURCES = ("sim/analytic/*.py", "sim/mover_*.py", "robonav/mapping/grid.py", "robonav/mapping/costmap.py")
_NOT_COMPILED = {
    "__init__.py",
    "agreement.py",
    "bench.py",
    "env.py",
    "imperfect.py",
    "mover_bodies.py",
    "pool.py",
    "world.py",
}


def kernel(function: F) -> F:
    """Compiles a function that Python calls; the machine keeps the code for the next process."""
    compiled: Any = _njit(cache=True, **_OPTIONS)(function)
    entry = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if entry is not None:  # numba's own, and not promised to stay: without it the cache goes by the kernel's file
        entry._source_stamp = (entry._source_stamp, sources_stamp())
    return compiled


def inner(function: F) -> F:
    """Compiles a function that only kernels call."""
    compiled: Any = _njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)
    return compiled


@cache
def sources_stamp() -> str:
    """Hash of all files that kernels are made of."""
    paths = [path for pattern in _SOURCES for path in sorted(_ROOT.glob(pattern)) if path.name not in _NOT_COMPILED]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()
