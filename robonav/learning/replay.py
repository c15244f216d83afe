"""Sequence replay: one ring a stream, where a stream is what one environment produced, step after step.

A step holds an observation, the reward and the ending that came with it, the action taken after it, and the events
that it brought. A sampled sequence is consecutive in one stream; episodes follow each other inside it, marked by
`first`. Maps are stored a bit a cell, ranges and flow in half precision: about 1.8 kB a step. The rings lie in memory,
or in memory-mapped files that outlive the process (`replay_store`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.config import require_at_least
from robonav.errors import CheckpointError, ConfigError, ShapeError, explain
from robonav.learning.replay_events import EVENTS, EventIndex
from robonav.learning.replay_store import DiskRings, Layout, kept_sizes
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

Arrays = dict[str, NDArray[Any]]
STEP_SCALARS = ("reward", "first", "terminal")
OPTIONAL = ("event", "label", "labelled")  # 0 where a chunk has none
EVENT = "event"
BITS = "local_map"  # stored a bit a cell
HALF = ("scan_m", "flow_mps")  # stored in half precision
CHECKED = ("action", *STEP_SCALARS, EVENT)  # what a checkpoint's checksum covers


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """The mix of sequences in a batch; what neither `recent` nor `rare` takes is uniform over what is held."""

    recent: float = 0.2
    """Share of sequences among the newest steps."""
    recent_share: float = 0.1
    """Share of the held steps that counts as newest."""
    rare: float = 0.2
    """Share of sequences that contain an event."""
    kind_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Weights of near misses, collisions, blocked routes and successes in the rare share, of those that are there."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"recent": 0, "rare": 0})
        if not self.recent + self.rare <= 1:
            raise ConfigError(explain("recent + rare", "at most 1", self.recent + self.rare))
        if not 0 < self.recent_share <= 1:
            raise ConfigError(explain("recent_share", "above 0 and at most 1", self.recent_share))
        if len(self.kind_weights) != len(EVENTS) or not all(0 <= w < np.inf for w in self.kind_weights):
            raise ConfigError(explain("kind_weights", f"{len(EVENTS)} numbers of 0 or more", self.kind_weights))


def step_shapes(spec: RobotSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one replayed step, without its events.

    `label` is what an expert would have done, where `labelled` is 1.
    """
    actions = {"action": (ACTION_SIZE,), "label": (ACTION_SIZE,), "labelled": ()}
    return {**policy_input_shapes(spec), **actions, **dict.fromkeys(STEP_SCALARS, ())}


def _layout(shapes: Mapping[str, tuple[int, ...]], streams: int, capacity: int, slack: int) -> Layout:
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for name, shape in shapes.items():
        if name == BITS:
            arrays[name] = ((int(np.prod(shape)) + 7) // 8,), np.dtype(np.uint8)
        else:
            arrays[name] = shape, np.dtype(np.float16 if name in HALF else np.float32)
    return Layout(streams, capacity, slack, {**arrays, EVENT: ((), np.dtype(np.uint8))})


class Replay:
    """Sampling of sequences from `streams` rings, of which the newest `capacity` steps each are sampled.

    In `folder` each ring has `slack` steps more. As long as no more than these are added after `commit` and `state`,
    `restore` gives back exactly what could be sampled then, whatever happened to the process. A folder that holds a
    replay already is continued where it was last committed; `clear` empties it.
    """

    def __init__(
        self,
        spec: RobotSpec,
        streams: int,
        capacity: int,
        folder: Path | None = None,
        config: ReplayConfig = ReplayConfig(),
        slack: int = 0,
        writing: bool = True,
    ) -> None:
        """Opens or makes the rings; without `writing` those in `folder` are read as they were committed last.

        Raises:
            CheckpointError: `folder` holds a replay of another layout, or a damaged one.
            RobonavError: `folder` cannot be written, or the disk is full.
        """
        if min(streams, capacity) < 1 or slack < 0:
            want = "streams and capacity from 1, slack from 0"
            raise ConfigError(explain("replay", want, f"{streams}, {capacity} and {slack}"))
        self.shapes, self.config = step_shapes(spec), config
        self.streams, self.capacity = streams, capacity
        self.written = 0  # steps ever written to each stream
        layout = _layout(self.shapes, streams, capacity, slack if folder else 0)
        self.ring = layout.ring
        self._disk = DiskRings(folder, layout, writing) if folder else None
        self._data: Arrays = self._disk.arrays if self._disk else layout.empty()
        self._events = EventIndex.empty(streams)
        if self._disk:
            self._continue_at(self._disk.committed)

    def __len__(self) -> int:
        """Steps that can be sampled."""
        return self.streams * self.held

    @property
    def oldest(self) -> int:
        """The first step of each stream that can be sampled."""
        gone = self._disk.reach - self.ring if self._disk else 0
        return min(self.written, max(0, self.written - self.capacity, gone))

    @property
    def held(self) -> int:
        """Steps of each stream that can be sampled."""
        return self.written - self.oldest

    def add(self, chunk: Mapping[str, NDArray[Any]]) -> None:
        """Appends a chunk of (streams, n, ...) arrays, n steps to every stream; those of OPTIONAL may be missing.

        Raises:
            ShapeError: a name is missing or an array does not fit; nothing is appended then.
        """
        first = chunk.get("first")
        n = first.shape[1] if first is not None and first.ndim == 2 else 0
        for name, shape in {**self.shapes, EVENT: ()}.items():
            want = (self.streams, n, *shape)
            if name in chunk and chunk[name].shape != want:
                raise ShapeError(explain(f"replay: {name}", want, chunk[name].shape))
            if name not in chunk and name not in OPTIONAL:
                raise ShapeError(explain(f"replay: {name}", want, "nothing"))
        none = {name: np.zeros((self.streams, n, *self.shapes.get(name, ())), np.float32) for name in OPTIONAL}
        chunk = {**none, **chunk}
        event = chunk[EVENT].astype(np.uint8)
        if self._disk:
            self._disk.announce(self.written + n)
        for to, part in self._parts(max(self.written, self.written + n - self.ring), self.written + n):
            taken = slice(part.start - self.written, part.stop - self.written)
            for name, data in self._data.items():
                values = event[:, taken] if name == EVENT else chunk[name][:, taken]
                if name == BITS:
                    values = np.packbits((values > 127).reshape(*values.shape[:2], -1), axis=-1)
                data[:, to] = values
        self._events = self._events.add(event, self.written)
        self.written += n
        self._events = self._events.since(self.oldest)

    def _parts(self, begin: int, end: int) -> list[tuple[slice, slice]]:
        """Where the steps of [begin, end), at most a ring, lie in the ring, beside the steps: one piece or two."""
        edge = begin - begin % self.ring + self.ring
        pieces = [(begin, min(end, edge)), (edge, end)]
        return [(slice(a % self.ring, a % self.ring + b - a), slice(a, b)) for a, b in pieces if b > a]

    # -- sampling ------------------------------------------------------------------------------------------------

    def can_sample(self, length: int) -> bool:
        """Whether a sequence of that length is there."""
        return self.held >= length

    def sample(self, rng: np.random.Generator, batch: int, length: int, with_events: bool = False) -> Arrays:
        """(batch, length, ...) arrays; maps come back as 0 or 255 in uint8, everything else as float32.

        With `with_events` there is also `event` (batch, length) in uint8. What is drawn depends on `rng` and on what
        is held alone.

        Raises:
            ShapeError: fewer steps are held than `length`.
        """
        if not self.can_sample(length):
            raise ShapeError(explain("replay: sequence length", f"at most {self.held} steps held", length))
        drawn = zip(*self._draw(rng.random((batch, 5)), length), strict=True)
        pieces = [
            (i, stream, at, slice(part.start - start, part.stop - start))
            for i, (stream, start) in enumerate(drawn)
            for at, part in self._parts(start, start + length)
        ]
        out: Arrays = {}
        for name, data in self._data.items():
            if name == EVENT and not with_events:
                continue
            kind = np.uint8 if data.dtype == np.uint8 else np.float32
            values = out[name] = np.empty((batch, length, *data.shape[2:]), kind)
            for i, stream, at, to in pieces:
                values[i, to] = data[stream, at]
        shape = self.shapes[BITS]
        cells = np.unpackbits(out[BITS], axis=-1, count=int(np.prod(shape)))
        cells *= np.uint8(255)
        out[BITS] = cells.reshape(batch, length, *shape)
        return out

    def _draw(self, u: NDArray[Any], length: int) -> tuple[list[int], list[int]]:
        """Stream and first step of each sequence, from (batch, 5) uniform numbers in [0, 1)."""
        c, oldest, newest = self.config, self.oldest, self.written
        stream = (u[:, 0] * self.streams).astype(np.int64)
        least = np.full(len(u), oldest)
        most = np.full(len(u), newest - length)
        recent = u[:, 1] < c.recent
        least[recent] = max(oldest, newest - max(length, round(c.recent_share * self.held)))
        rare = ~recent & (u[:, 1] < c.recent + c.rare)
        found = self._events.draw(u[rare, 2], u[rare, 3], c.kind_weights)
        if found is not None:
            stream[rare], step = found  # the sequence begins so that its event lies anywhere in it
            least[rare] = np.maximum(least[rare], step - length + 1)
            most[rare] = np.minimum(most[rare], step)
        start = least + (u[:, 4] * (most - least + 1)).astype(np.int64)
        return stream.tolist(), start.tolist()

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Makes what was added last on disk; call it before a checkpoint with `state` is written.

        Raises:
            RobonavError: the disk does not take it; what was committed before still stands.
        """
        if self._disk:
            self._disk.commit(self.written)

    def clear(self) -> None:
        """Empties the replay, for a run that starts anew in a folder."""
        if self._disk:
            self._disk.clear()
        self._continue_at(0)

    def state(self) -> Arrays:
        """Arrays that `restore` takes: counters and a checksum for files, else the steps held as well."""
        written = {"replay.written": np.array([self.written])}
        if self._disk:
            return {**written, "replay.oldest": np.array([self.oldest]), "replay.check": np.array([self._checksum()])}
        return {**{f"replay.{name}": data[:, : self.held] for name, data in self._data.items()}, **written}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of `state`.

        Raises:
            ShapeError: the state belongs to a replay of another layout.
            CheckpointError: the files do not hold what they held at the time of the state.
        """
        if "replay.written" not in state:
            raise ShapeError(explain("replay in the checkpoint", "replay.written", "nothing", "train again"))
        written = int(state["replay.written"][0])
        if self._disk:
            self._restore_files(self._disk, written, state)
            return
        held = min(written, self.capacity)
        fitting = {}
        for name, data in self._data.items():
            values = state.get(f"replay.{name}")
            want = (self.streams, held, *data.shape[2:])
            if values is None or values.shape != want:
                got = "nothing" if values is None else values.shape
                raise ShapeError(explain(f"replay in the checkpoint: {name}", want, got, "resume with the same config"))
            fitting[name] = values
        for name, values in fitting.items():
            self._data[name][:, :held] = values
        self._continue_at(written)

    def _restore_files(self, disk: DiskRings, written: int, state: Mapping[str, NDArray[Any]]) -> None:
        where, again = f"replay in {disk.folder}", "resume from the checkpoint that belongs to it, or train again"
        if "replay.oldest" not in state or "replay.check" not in state:
            want = "the counters of a replay on disk"
            raise ShapeError(explain("replay in the checkpoint", want, "steps", "resume with the same config"))
        if written > disk.reach:
            raise CheckpointError(explain(where, f"{written} steps a stream", disk.reach, again))
        gone = disk.reach - self.ring - int(state["replay.oldest"][0])
        if gone > 0:
            want = f"at most {disk.layout.slack} steps a stream after the checkpoint"
            got = f"{disk.reach - written}, which overwrote {gone} of its steps"
            raise CheckpointError(explain(where, want, got, "train again, with more slack or more checkpoints"))
        before = self.written
        self.written = written
        if self._checksum() != int(state["replay.check"][0]):
            self.written = before
            raise CheckpointError(explain(where, "the steps of the checkpoint", "others", again))
        disk.commit(written)
        self._continue_at(written)

    def _continue_at(self, written: int) -> None:
        """Puts the counter there and rebuilds the index."""
        self.written = written
        self._events = EventIndex.empty(self.streams)
        for at, part in self._parts(self.oldest, written):
            self._events = self._events.add(self._data[EVENT][:, at], part.start)

    def _checksum(self) -> int:
        """CRC-32 of the small arrays of all steps held, in their order."""
        value = 0
        for at, _ in self._parts(self.oldest, self.written):
            for name in CHECKED:
                for stream in range(self.streams):
                    value = zlib.crc32(self._data[name][stream, at].data, value)
        return value


def kept_replay(folder: Path, spec: RobotSpec, config: ReplayConfig = ReplayConfig()) -> Replay:
    """The replay that a run keeps on disk, to learn from; its files are only read.

    Raises:
        CheckpointError: the folder holds none, or one of another robot's sensors.
    """
    streams, capacity, slack = kept_sizes(folder)
    return Replay(spec, streams, capacity, folder, config, slack, writing=False)
