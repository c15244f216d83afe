"""Batches of noise in the layout of replay."""

from __future__ import annotations

import numpy as np
import torch
from counting_env import SPEC

from robonav.learning.config import TrainConfig
from robonav.learning.replay import step_shapes


def batch_of(config: TrainConfig, seed: int, rows: int | None = None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A batch of noise in which an episode starts in every sequence, and starts of dreams."""
    rng = np.random.default_rng(seed)
    shape = (rows or config.batch, config.length)
    arrays = {name: rng.random((*shape, *size), np.float32) for name, size in step_shapes(SPEC).items()}
    arrays["local_map"] = (rng.random(arrays["local_map"].shape) < 0.3).astype(np.uint8) * 255
    for name in ("first", "terminal", "labelled"):
        arrays[name] = np.zeros(shape, np.float32)
    arrays["first"][:, 3] = 1.0
    arrays["present"][:] = 1.0
    dreams = torch.from_numpy(rng.integers(config.length, size=(shape[0], config.agent.behavior.dreams)))
    return {name: torch.from_numpy(values) for name, values in arrays.items()}, dreams
