"""What a governor's successor must know: whether the robot may go on by itself.

A file says that it may, so that every doubt (no file, a full disk, a crash half-way) means that it may not. It is
taken away before an e-stop, or another commander's lease, is answered.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from deploy.authority import NAVIGATOR, Authority

FREE_FILE, WHO_FILE = "governor.free", "governor.latched"
KEPT = " (kept over the governor's restart)"
LOST = "state of the governor before the restart unknown"


class Latch:
    """The files of one run, kept by its governor.

    Args:
        folder: the run's private one.
        restarted: another governor was there before; without, the robot is free.
    """

    def __init__(self, folder: str | Path, restarted: bool) -> None:
        self._free_file, self._who_file = Path(folder) / FREE_FILE, Path(folder) / WHO_FILE
        self._was = ""
        if not restarted:
            self._free_file.touch()
        elif not self._free_file.exists():
            self._was = self._who() or LOST

    def start(self, authority: Authority) -> Authority:
        """The authority to begin with: latched, if the robot was not free when the last governor ended."""
        if not self._was:
            return authority
        self._was += KEPT  # what the file says stays as it is
        return replace(authority, estop=self._was)

    def keep(self, authority: Authority) -> None:
        """Writes down what has changed. Call it before anybody is told."""
        holder = authority.holder
        driven_by = "" if holder is None or holder == NAVIGATOR else f"driven by {holder.name}"
        now = authority.estop or driven_by
        if now == self._was:
            return
        if now:
            self._free_file.unlink(missing_ok=True)  # that never fails for want of room
            with contextlib.suppress(OSError):
                self._who_file.write_text(now)
        else:
            with contextlib.suppress(OSError):  # it then stays latched for a successor
                self._free_file.touch()
        self._was = now

    def _who(self) -> str:
        try:
            return self._who_file.read_text()
        except (OSError, ValueError):
            return ""
