"""The rings of replay on disk: one memory-mapped ``.npy`` file an array, and ``replay.json``, which describes them.

A process may be killed at any moment. `DiskRings.reach` is raised before data is written, so that a reader knows how
far the rings may have been overwritten; `DiskRings.commit` flushes the data and only then replaces the counter.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from robonav.errors import CheckpointError, RobonavError, explain
from robonav.files import write_json_atomic

FORMAT = "robonav-replay-1"
LAYOUT_FILE = "replay.json"
REACH = "reach"  # the file of the step up to which data may have been written
OTHER_LAYOUT = "resume with the same config, or choose another folder"
LOST = "restore that file, or remove the folder and train again"


@dataclass(frozen=True, slots=True)
class Layout:
    """What the rings look like; `arrays` gives the shape and the kind of one stored step by name."""

    streams: int
    capacity: int  # steps a stream that are sampled
    slack: int  # steps a stream beyond these
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]

    @property
    def ring(self) -> int:
        """Steps a stream in all."""
        return self.capacity + self.slack

    def full_shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and kind of every array, by name."""
        return {name: ((self.streams, self.ring, *shape), kind) for name, (shape, kind) in self.arrays.items()}

    def mapping(self) -> dict[str, Any]:
        """JSON-able; the keys are what an error names."""
        arrays = {f"array {name}": [kind.str, *shape] for name, (shape, kind) in self.arrays.items()}
        return {"streams": self.streams, "capacity": self.capacity, "slack": self.slack, **arrays}

    def empty(self) -> dict[str, NDArray[Any]]:
        """The rings in memory."""
        return {name: np.zeros(shape, kind) for name, (shape, kind) in self.full_shapes().items()}


class DiskRings:
    """Opens the rings in a folder, or makes them there; `arrays` are written in place, or only read."""

    def __init__(self, folder: Path, layout: Layout, writing: bool = True) -> None:
        """Maps the files.

        Raises:
            CheckpointError: the folder holds rings of another layout, or a file is missing, short or damaged, or
                there are none and nothing may be written.
            RobonavError: the files cannot be made or mapped, say on a full disk.
        """
        self.folder, self.layout, self.writing = folder, layout, writing
        self._files = {**layout.full_shapes(), REACH: ((1,), np.dtype(np.int64))}
        self.committed = 0
        found = self._read_layout()
        if found is not None and found["complete"]:
            self.committed = self._check(found)
        elif writing:
            self._make()
        else:
            raise CheckpointError(explain(str(folder), "a replay on disk", "none", "choose another folder"))
        self._maps = {name: self._map(name) for name in self._files}
        self.arrays = {name: np.asarray(self._maps[name]) for name in layout.arrays}
        self._reach = np.asarray(self._maps[REACH]) if writing else np.array(self._maps[REACH])
        self.announce(self.committed)

    @property
    def reach(self) -> int:
        """The step up to which a stream may have been written; steps before ``reach - ring`` are gone."""
        return int(self._reach[0])

    def announce(self, until: int) -> None:
        """Says that steps before `until` are about to be written."""
        self._reach[0] = max(self.reach, until)

    def commit(self, written: int) -> None:
        """Flushes the data, then replaces the counter; nothing where it is only read.

        Raises:
            RobonavError: the disk does not take it; the counter on disk is then still the old one.
        """
        if not self.writing:
            return
        with _disk_errors(self.folder):
            for mapped in self._maps.values():
                mapped.flush()
        self._write_layout(complete=True, written=written)
        self.committed = written

    def clear(self) -> None:
        """Forgets what was written, for a run that starts anew."""
        self.commit(0)
        self._reach[0] = 0

    # -- files ---------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _write_layout(self, complete: bool, written: int) -> None:
        layout = {"format": FORMAT, "complete": complete, "written": written, **self.layout.mapping()}
        write_json_atomic(self.folder / LAYOUT_FILE, layout)

    def _read_layout(self) -> dict[str, Any] | None:
        path = self.folder / LAYOUT_FILE
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            left = sorted(name for name in self._files if self._path(name).exists())
            if left:
                raise CheckpointError(explain(str(path), f"a file beside {left[0]}.npy", "none", LOST)) from None
            return None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot read ({error.strerror}); choose another folder") from None
        except ValueError:
            raise CheckpointError(explain(str(path), "JSON", "something else", LOST)) from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            got = found.get("format") if isinstance(found, dict) else "no mapping"
            raise CheckpointError(explain(str(path), f"format {FORMAT}", got, "choose another folder"))
        if not isinstance(found.get("complete"), bool):
            raise CheckpointError(explain(f"{path}: complete", "true or false", found.get("complete"), LOST))
        return found

    def _check(self, found: dict[str, Any]) -> int:
        """Compares layout and files with what is wanted; returns the counter."""
        path, wanted = self.folder / LAYOUT_FILE, self.layout.mapping()
        theirs = {key: value for key, value in found.items() if key not in ("format", "complete", "written")}
        for key in (*wanted, *theirs):
            if wanted.get(key) != theirs.get(key):
                want, got = wanted.get(key, "nothing"), theirs.get(key, "nothing")
                raise CheckpointError(explain(f"{path}: {key}", want, got, OTHER_LAYOUT))
        written = found.get("written")
        if not isinstance(written, int) or written < 0:
            raise CheckpointError(explain(f"{path}: written", "a number of steps", written, LOST))
        for name, (shape, kind) in self._files.items():
            file = self._path(name)
            if not file.is_file():
                raise CheckpointError(explain(str(file), "a file", "none", LOST))
            with _disk_errors(self.folder):
                try:
                    there = open_memmap(file, mode="r")
                except ValueError:
                    raise CheckpointError(explain(str(file), "an array", "a damaged or short file", LOST)) from None
            if there.shape != shape or there.dtype != kind:
                want, got = f"{kind} {shape}", f"{there.dtype} {there.shape}"
                raise CheckpointError(explain(str(file), want, got, OTHER_LAYOUT))
        return written

    def _make(self) -> None:
        """Makes every file with all its blocks: a mapped write that finds the disk full would end the process."""
        self._write_layout(complete=False, written=0)
        try:
            with _disk_errors(self.folder):
                for name, (shape, kind) in self._files.items():
                    made = open_memmap(self._path(name), mode="w+", dtype=kind, shape=shape)
                    del made
                    _allocate(self._path(name))
        except RobonavError:
            for name in self._files:
                self._path(name).unlink(missing_ok=True)
            (self.folder / LAYOUT_FILE).unlink(missing_ok=True)
            raise
        self._write_layout(complete=True, written=0)

    def _map(self, name: str) -> np.memmap[Any, Any]:
        path = self._path(name)
        with _disk_errors(self.folder):
            if not self.writing:
                return open_memmap(path, mode="r")
            if path.stat().st_blocks * 512 < path.stat().st_size:
                _allocate(path)  # a copy may have left out what is zero
            return open_memmap(path, mode="r+")


def kept_sizes(folder: Path) -> tuple[int, int, int]:
    """Streams, capacity and slack of the rings in a folder.

    Raises:
        CheckpointError: there are none.
    """
    path = folder / LAYOUT_FILE
    try:
        found = json.loads(path.read_bytes())
        streams, capacity, slack = (int(found[key]) for key in ("streams", "capacity", "slack"))
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(explain(str(path), "the layout of a replay on disk", "none", "check the path")) from None
    return streams, capacity, slack


def _allocate(path: Path) -> None:
    """Gives a file all its blocks, without a change to its bytes."""
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        os.fsync(stream.fileno())


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        do = (
            "free some space or lower replay_steps" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another"
        )
        raise RobonavError(f"{folder}: replay cannot be kept here ({error.strerror}); {do}") from error
