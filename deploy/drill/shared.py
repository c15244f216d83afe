"""Memory that the drill's processes share: the body's state, the switch of faults, and the tape of what was applied.

All three are files that outlive whoever wrote them, so that a killed process leaves what it did.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATE = np.dtype([("stamp_ns", "<i8"), ("pose", "<f8", 3), ("twist", "<f8", 3), ("applied", "<f8", 3)])
# `clock_ns` is read by clock.c too, by its place.
SWITCH = np.dtype([("clock_ns", "<i8"), ("began_ns", "<i8"), ("slow_ms", "<i4"), ("sensor", "<i4")])
RECORD = np.dtype([("stamp_ns", "<i8"), ("velocity", "<f8", 3)])

BODY_SOCKET, BODY_FILE, SWITCH_FILE, TAPE_FILE = "body", "state", "switch", "tape"


def shared(folder: str | Path, name: str, kind: np.dtype[Any], create: bool = False) -> Any:
    """A record in a file, mapped; what one process writes into its fields the others read."""
    path = Path(folder) / name
    if create:
        path.write_bytes(bytes(kind.itemsize))
    return np.memmap(path, dtype=kind, mode="r+", shape=(1,))[0:1]


class TapeWriter:
    """Appends what the body is driven by, one record a change or command; it is there even if the next step kills."""

    def __init__(self, folder: str | Path) -> None:
        self._handle = os.open(Path(folder) / TAPE_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, stamp_ns: int, velocity: NDArray[np.float64]) -> None:
        """One record."""
        record = np.zeros(1, RECORD)
        record["stamp_ns"], record["velocity"] = stamp_ns, velocity
        os.write(self._handle, record.tobytes())


def read_tape(folder: str | Path) -> NDArray[Any]:
    """All records so far: (n,) of RECORD. Each velocity holds until the next record."""
    data = (Path(folder) / TAPE_FILE).read_bytes()
    return np.frombuffer(data[: len(data) // RECORD.itemsize * RECORD.itemsize], RECORD)


def zero_after_ms(tape: NDArray[Any], fault_ns: int, until_ns: int) -> float:
    """Milliseconds from the fault to the command's zero that lasts to the window's end; inf if it does not.

    Args:
        tape: of `read_tape`.
        fault_ns: when the fault began.
        until_ns: end of the window, when the fault is taken back.
    """
    moving = np.abs(tape["velocity"]).max(axis=1) > 0
    before = np.flatnonzero(tape["stamp_ns"] <= until_ns)
    if not len(before) or moving[before[-1]]:
        return float("inf")
    last_moving = np.flatnonzero(moving[before])
    if not len(last_moving):
        return 0.0
    stopped_ns = int(tape["stamp_ns"][before[last_moving[-1] + 1]])
    return max(0.0, (stopped_ns - fault_ns) * 1e-6)


def zero_time_ms(tape: NDArray[Any], from_ns: int, until_ns: int) -> float:
    """Milliseconds of the window in which the command was zero."""
    stamps = np.concatenate([tape["stamp_ns"], [until_ns]]).clip(from_ns, until_ns)
    still = np.abs(tape["velocity"]).max(axis=1) == 0
    return float(np.diff(stamps)[still].sum() * 1e-6)
