"""A log's file: locked against other runs, written whole chunks at a time, cut back to the last whole one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from robonav.errors import LogError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system without locks; the run goes on


class LogFile:
    """A log's file, locked against other runs; an older log in it stays as it is until `begin`.

    The MCAP writer's stream: it is written whole chunks at a time and cut back to the last whole one. The lock goes
    with the process, however that ends.

    Raises:
        LogError: the file cannot be written, or another run writes it; one line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._target = self.path.resolve()
        self._pending = bytearray()
        self._written = 0
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._handle: int | None = self._claim()
        except BlockingIOError:
            raise LogError(f"{path}: in use by another run; choose another path") from None
        except OSError as error:
            raise LogError(f"{path}: cannot write a log here: {error.strerror}; choose another path") from None

    def _claim(self) -> int:
        while True:
            self._new = not self._target.exists()
            handle = os.open(self._target, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(handle)
                    raise
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)  # another run gave it up, and removed it, between opening and locking

    def begin(self) -> None:
        """Empties the file."""
        if self._handle is not None and stat.S_ISREG(os.fstat(self._handle).st_mode):  # a device has no length
            os.ftruncate(self._handle, 0)

    def give_up(self) -> None:
        """Leaves everything as it was found: an older log whole, a new file removed."""
        if self._handle is not None and self._new:
            with contextlib.suppress(OSError):
                self._target.unlink()
        self.close()

    def write(self, data: bytes) -> int:
        """Keeps bytes until `flush`."""
        self._pending += data
        return len(data)

    def tell(self) -> int:
        """Bytes so far, those that wait included."""
        return self._written + len(self._pending)

    def flush(self) -> None:
        """Writes out and syncs what waits; OSError if the disk does not take it."""
        if self._handle is None:
            return
        view = memoryview(bytes(self._pending))
        while len(view):
            view = view[os.write(self._handle, view) :]
        with contextlib.suppress(OSError):  # a pipe or a device cannot be synced
            os.fdatasync(self._handle)
        self._written += len(self._pending)
        self._pending.clear()

    def abandon(self) -> None:
        """Cuts the file back to what was flushed whole, and closes it."""
        self._pending.clear()
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._written)
        self.close()

    def close(self) -> None:
        """Closes the file and frees it for other runs; safe to call again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
