"""Sequence replay in memory: one ring a stream, where a stream is what one environment produced, step after step.

A step holds an observation, the reward and the ending that came with it, and the action taken after it. A sampled
sequence is consecutive in one stream; episodes follow each other inside it, marked by `first`. Maps are stored a bit
a cell, ranges in half precision: about 1.3 kB a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ShapeError, explain
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

Arrays = dict[str, NDArray[Any]]
STEP_SCALARS = ("reward", "first", "terminal")


def step_shapes(spec: RobotSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one replayed step."""
    return {**policy_input_shapes(spec), "action": (ACTION_SIZE,), **dict.fromkeys(STEP_SCALARS, ())}


class Replay:
    """Uniform sampling of sequences from `streams` rings of `capacity` steps each."""

    def __init__(self, spec: RobotSpec, streams: int, capacity: int) -> None:
        self.shapes = step_shapes(spec)
        self.streams, self.capacity = streams, capacity
        self.written = 0  # steps ever written to each stream
        cells = int(np.prod(self.shapes["local_map"]))
        self._data: Arrays = {}
        for name, shape in self.shapes.items():
            if name == "local_map":
                self._data[name] = np.zeros((streams, capacity, (cells + 7) // 8), np.uint8)
            else:
                kind = np.float16 if name == "scan_m" else np.float32
                self._data[name] = np.zeros((streams, capacity, *shape), kind)

    def __len__(self) -> int:
        """Steps held."""
        return self.streams * min(self.written, self.capacity)

    def add(self, chunk: Mapping[str, NDArray[Any]]) -> None:
        """Appends a chunk of (streams, n, ...) arrays, n steps to every stream.

        Raises:
            ShapeError: a name is missing or an array does not fit.
        """
        n = chunk["first"].shape[1]
        at = (self.written + np.arange(n)) % self.capacity
        for name, shape in self.shapes.items():
            want = (self.streams, n, *shape)
            if name not in chunk or chunk[name].shape != want:
                got = chunk[name].shape if name in chunk else "nothing"
                raise ShapeError(explain(f"replay: {name}", want, got))
            values = chunk[name]
            if name == "local_map":
                values = np.packbits((values > 127).reshape(self.streams, n, -1), axis=-1)
            self._data[name][:, at] = values
        self.written += n

    def can_sample(self, length: int) -> bool:
        """Whether a sequence of that length is there."""
        return min(self.written, self.capacity) >= length

    def sample(self, rng: np.random.Generator, batch: int, length: int) -> Arrays:
        """(batch, length, ...) arrays; maps come back as 0 or 255 in uint8, everything else as float32."""
        held = min(self.written, self.capacity)
        if held < length:
            raise ShapeError(explain("replay: sequence length", f"at most {held} steps held", length))
        stream = rng.integers(self.streams, size=batch)[:, None]
        start = self.written - held + rng.integers(held - length + 1, size=batch)
        at = (start[:, None] + np.arange(length)) % self.capacity
        out = {name: data[stream, at] for name, data in self._data.items()}
        shape = self.shapes["local_map"]
        bits = np.unpackbits(out["local_map"], axis=-1, count=int(np.prod(shape)))
        out["local_map"] = (bits * np.uint8(255)).reshape(batch, length, *shape)
        out["scan_m"] = out["scan_m"].astype(np.float32)
        return out

    def state(self) -> Arrays:
        """Arrays that `restore` takes; only what is held."""
        held = min(self.written, self.capacity)
        arrays = {f"replay.{name}": data[:, :held] for name, data in self._data.items()}
        return {**arrays, "replay.written": np.array([self.written])}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of `state`.

        Raises:
            ShapeError: the state belongs to a replay of another layout.
        """
        written = int(state["replay.written"][0])
        held = min(written, self.capacity)
        for name, data in self._data.items():
            values = state.get(f"replay.{name}")
            want = (self.streams, held, *data.shape[2:])
            if values is None or values.shape != want:
                got = "nothing" if values is None else values.shape
                raise ShapeError(explain(f"replay in the checkpoint: {name}", want, got, "resume with the same config"))
            data[:, :held] = values
        self.written = written
