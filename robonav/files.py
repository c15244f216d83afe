"""Files that are whole or absent: written aside, flushed to disk, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robonav.errors import RobonavError, explain


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it is synced and renamed to `path`, else removed.

    The temporary keeps the suffix of `path`, since some writers choose the format by it. A link is followed.

    Raises:
        RobonavError: the folder cannot be written, the disk is full, or `path` is a device or a folder.
    """
    target, aside = _begun(path)
    try:
        yield aside
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.chmod(0o644)
        aside.replace(target)
    except OSError as error:
        raise RobonavError(
            f"{target}: cannot write ({error.strerror}); free some space or choose another path"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def require_writable(*paths: str | Path | None) -> None:
    """Refuses at once what a long run could not be written to at its end; None stands for no file.

    Raises:
        RobonavError: a folder cannot be written, or a path is a device or a folder.
    """
    for path in paths:
        if path is not None:
            _begun(path)[1].unlink()


def _begun(path: str | Path) -> tuple[Path, Path]:
    """Where a file shall lie, and an empty one that was made aside."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise RobonavError(
            explain(str(path), "a regular file or a new one", "a folder or device", "choose another path")
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise RobonavError(f"{target}: cannot write here ({error.strerror}); choose another path") from error
    os.close(handle)
    return target, Path(name)


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Writes `data` so that a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as aside:
        aside.write_bytes(data)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: str | Path, data: Any) -> None:
    """Writes indented JSON atomically; NaN is refused, since it is no JSON."""
    write_text_atomic(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
