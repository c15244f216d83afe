"""A window for ``render_mode="human"``, by OpenCV."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.errors import MissingDependencyError


def can_show() -> bool:
    """Whether this machine has a display, and this OpenCV a way to draw on it."""
    return _why_not() is None


class Window:
    """A picture on the screen."""

    def __init__(self, title: str) -> None:
        """Opens no window yet; the first picture does.

        Raises:
            MissingDependencyError: there is no display, or this OpenCV has no windows.
        """
        reason = _why_not()
        if reason is not None:
            raise MissingDependencyError(f"render_mode 'human': {reason}")
        self._title = title
        self._open = False

    def show(self, image: NDArray[np.uint8], wait_ms: int = 1) -> None:
        """Shows an RGB picture (height, width, 3)."""
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.waitKey(wait_ms)  # lets the window draw itself
        self._open = True

    def close(self) -> None:
        """Closes the window; safe to call again."""
        if self._open:
            cv2.destroyWindow(self._title)
            self._open = False


def _why_not() -> str | None:
    """Why no window can be shown here, with what to do about it; None where one can."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "no display (DISPLAY is not set); use render_mode 'rgb_array', or run it on a desktop"
    if "GUI:                           NONE" in cv2.getBuildInformation():
        return "this OpenCV has no windows; pip install opencv-python in place of opencv-python-headless"
    return None
