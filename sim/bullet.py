"""PyBullet, imported lazily, with one line of advice where its wheel is missing."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from robonav.errors import MissingDependencyError

STATIC_GROUP = 2  # Bullet's broad-phase group of bodies without mass
CHILDREN_PER_BODY = 16  # PyBullet's limit of shapes in one createCollisionShapeArray call


@functools.cache
def import_pybullet() -> Any:
    """The pybullet module; the build banner that it writes to standard error is dropped, since errors are one line.

    Raises:
        MissingDependencyError: it is not installed.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # standard error is closed, so the banner goes nowhere
        saved = -1
    if saved >= 0:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        os.close(sink)
    try:
        import pybullet
    except ImportError as error:
        raise MissingDependencyError(
            "pybullet: not installed; with Python 3.10 or 3.11 on Linux x86_64: pip install 'robonav[sim]'"
        ) from error
    finally:
        if saved >= 0:
            os.dup2(saved, 2)
            os.close(saved)
    return pybullet
