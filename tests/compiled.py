"""Kernels that many tests need, compiled before them: each of two test processes takes a half, and finds the other's
where numba keeps it. On a fresh checkout each would else compile all of them, for half a minute or more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

WHOLE = 1000
"""Tests in a process from which on its run is taken for that of the whole suite."""


def layers_and_legs() -> None:
    """The memory's loops, with gradients and without, in both precisions; and the legged robot's gait."""
    import numba  # noqa: F401  there would be nothing to compile without
    import torch

    from robonav.ssm.backbone import Backbone, BackboneConfig

    for dtype in (torch.float32, torch.float64):
        backbone = Backbone(BackboneConfig(pattern="MR2", d_model=16, d_state=4, headdim=8)).to(dtype)
        x, reset = torch.zeros(2, 7, 16, dtype=dtype), torch.zeros(2, 7, dtype=dtype)
        start = backbone.initial_state(2)
        backbone.scan(x.requires_grad_(), start, reset)[0].sum().backward()
        backbone.scan(x, start, reset, torch.zeros(2, 3, dtype=torch.long))[0].sum().backward()
        with torch.no_grad():
            backbone.scan(x, start, reset)
            backbone.step(x[:, 0], start, reset[:, 0])

    import sim

    walks = sim.make_env(scene="empty", fidelity="legged")
    walks.reset(seed=0)
    walks.step(walks.action_space.sample())
    walks.close()


def worlds() -> None:
    """The analytic simulator's."""
    import numpy as np

    from sim.analytic.env import AnalyticVectorEnv
    from sim.analytic.window import TEACHER, Window

    for options in ({}, {"sensors": "real", "randomisation": "sim2real"}):
        batch = AnalyticVectorEnv(2, ["rooms", "crowd-few"], **options)
        batch.reset(seed=0)
        for _ in range(3):
            batch.step(np.tile(np.array([1.0, 0.0, 0.5], np.float32), (2, 1)))
        batch.window_commands(window=Window(batch.robot, TEACHER))
        batch.close()


SHARES: tuple[Callable[[], None], ...] = (layers_and_legs, worlds)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Compiles this process's share, if it is one of several that run the whole suite."""
    worker = getattr(session.config, "workerinput", {"workercount": 1, "workerid": ""})
    number = int(worker["workerid"].removeprefix("gw") or 0)
    if worker["workercount"] > 1 and len(session.items) > WHOLE and number < len(SHARES):
        with contextlib.suppress(ImportError):  # an extra that is not installed
            SHARES[number]()
