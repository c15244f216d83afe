"""Sensors that fail in replayed sequences, as they may on a robot."""

from __future__ import annotations

import numpy as np

from robonav.learning.config import SensorLossConfig
from robonav.learning.streams import Arrays
from robonav.types import MODALITIES

_SCAN, _MAP, _BODY = MODALITIES.index("scan"), MODALITIES.index("local_map"), MODALITIES.index("body")
_BODY_NAMES = ("twist_base", "tilt_rad", "last_command", "robot")
SECTOR_SHARE = (0.1, 0.75)  # of the beams that a blind sector takes


def lose_sensors(batch: Arrays, rng: np.random.Generator, config: SensorLossConfig) -> None:
    """Switches off sensors in some of the sequences, in place.

    Args:
        batch: `PolicyInput` arrays (B, T, ...).
        rng: says where, what and when.
        config: shares.
    """
    count, length = batch["present"].shape[:2]
    for row in np.flatnonzero(rng.random(count) < config.share).tolist():
        which, at = rng.random(), int(rng.integers(length))
        if which < config.sector:
            _blind_sector(batch, row, rng)
        elif which < config.sector + config.scan:
            _lose(batch, row, at, _SCAN, ("scan_m", "flow_mps"))
        elif which < config.sector + config.scan + config.local_map:
            _lose(batch, row, at, _MAP, ("local_map",))
        else:
            _lose(batch, row, at, _BODY, _BODY_NAMES)


def _lose(batch: Arrays, row: int, at: int, modality: int, names: tuple[str, ...]) -> None:
    batch["present"][row, at:, modality] = 0.0
    for name in names:
        batch[name][row, at:] = 0


def _blind_sector(batch: Arrays, row: int, rng: np.random.Generator) -> None:
    beams = batch["scan_m"].shape[-1]
    blind = (int(rng.integers(beams)) + np.arange(int(rng.uniform(*SECTOR_SHARE) * beams))) % beams
    batch["scan_m"][row][:, blind] = 0.0
    batch["flow_mps"][row][:, blind] = 0.0
