"""A scene for tests of environments."""

from __future__ import annotations

import dataclasses

import numpy as np

from robonav.types import Scene


def hall(**changes: object) -> Scene:
    """A straight hall of 8 m along x."""
    walls = np.array([[-1, -1, 7, -1, 0.1], [-1, 1, 7, 1, 0.1], [-1, -1, -1, 1, 0.1], [7, -1, 7, 1, 0.1]], np.float32)
    return dataclasses.replace(
        Scene("hall", (-1.1, -1.1, 7.1, 1.1), (0.0, 0.0, 0.0), (5.0, 0.0), walls=walls), **changes
    )
