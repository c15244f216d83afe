"""Depth by EGL on a machine with a GPU, by PyBullet's plug-in ``eglRenderer``.

Where the plug-in cannot open a display it ends the whole process, so it is tried in one of its own first. What came out
is kept in the variable `VARIABLE`, for worker processes; a user who sets it to 0 never gets EGL.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from robonav.errors import MissingDependencyError

Renderer = Literal["auto", "software", "egl"]
VARIABLE = "ROBONAV_EGL"
_MODULE, _SUFFIX = "eglRenderer", "_eglRendererPlugin"
_TRIAL_S = 60.0
_AGREE_M = 0.02


def wanted(renderer: Renderer) -> bool:
    """Whether depth is rendered by EGL: never, where it works, or always.

    Raises:
        MissingDependencyError: it must be, and does not work here.
    """
    if renderer == "software":
        return False
    reason = _why_not()
    if renderer == "egl" and reason is not None:
        raise MissingDependencyError(f"depth renderer 'egl': {reason}; take 'auto' or 'software'")
    return reason is None


def load(bullet: Any, client: int) -> None:
    """Gives a client the plug-in, which draws only the shapes that are made from now on.

    Raises:
        MissingDependencyError: PyBullet refuses it.
    """
    spec = find_spec(_MODULE)
    if spec is None or bullet.loadPlugin(str(spec.origin), _SUFFIX, physicsClientId=client) < 0:
        raise MissingDependencyError(f"depth renderer 'egl': PyBullet cannot load the plug-in {_MODULE}")


def trial() -> None:
    """Renders one scene by EGL and by software; ends with an error, or the whole process, where they differ."""
    import numpy as np

    from robonav.config import load_robot
    from robonav.types import Scene
    from sim.sensors import DepthCamera
    from sim.world import SCENES_PER_RESET, World

    spec = load_robot("a1")
    scene = Scene(
        "trial", (-5.0, -5.0, 5.0, 5.0), (0.0, 0.0, 0.0), (4.0, 4.0), boxes=np.array([[2, 0, 1, 1, 0]], np.float32)
    )
    images = []
    for egl in (False, True):
        world = World(spec)
        camera = DepthCamera(spec.depth, world.base_height_m, egl)
        if egl:
            load(world.bullet, world.client)
        for _ in range(SCENES_PER_RESET + 2):  # past the point at which the client starts afresh, robot and all
            world.load(scene)
        images.append(camera.image(world))
        world.close()
    if np.median(np.abs(images[0] - images[1])) > _AGREE_M or images[1].min() > 1.5:
        raise SystemExit("EGL and software disagree")


def _why_not() -> str | None:
    """Why EGL is not used here; None where it works."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = "1" if _has_gpu() and find_spec(_MODULE) is not None and _works() else "0"
    if os.environ[VARIABLE] == "1":
        return None
    return f"no GPU that PyBullet's plug-in {_MODULE} can use, or {VARIABLE} is set to 0"


def _has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or any(Path("/dev").glob("dri/renderD*"))


def _works() -> bool:
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)  # noqa: PTH109 (as sys.path has it)
    command = [sys.executable, "-c", "from sim.egl import trial; trial()"]
    try:
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=_TRIAL_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
