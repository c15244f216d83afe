"""Knobs drawn at random over wide ranges, for checks that no preset covers: any kind of scene, sparse to crowded."""

from __future__ import annotations

import math
import typing
from typing import Any

from robonav.config import from_mapping
from robonav.errors import ConfigError, SceneError
from sim.generators.base import Rng
from sim.generators.crowds import CrowdConfig
from sim.generators.registry import GENERATORS

ATTEMPTS = 200  # draws until the knobs fit each other
CONFIGS: dict[str, type[Any]] = {
    **{kind: generator.config for kind, generator in GENERATORS.items()},
    "crowd": CrowdConfig,
}
# What a knob is drawn from: of a pair both ends, in order. Knobs that are not named keep their defaults.
DOORS: dict[str, tuple[float, float]] = {
    "moving_doors": (0.0, 1.0),
    "hinged": (0.0, 1.0),
    "door_period_s": (8.0, 25.0),
    "doors_ignore_robot": (0.0, 1.0),
}
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "rooms": {
        "size_m": (6.0, 14.0),
        "boxes": (0, 10),
        "cylinders": (0, 10),
        "box_side_m": (0.1, 1.2),
        "cylinder_radius_m": (0.03, 0.5),
        "partitions": (0, 3),
        "door_m": (0.9, 2.0),
        "goal_distance_min_m": (2.0, 6.0),
        "margin_m": (0.02, 0.2),
        "wall_thickness_m": (0.02, 0.4),
    },
    "corridors": {
        "segments": (2, 8),
        "segment_m": (2.0, 6.0),
        "width_m": (1.0, 2.5),
        "branches": (0, 5),
        "doors": (0, 5),
        "door_m": (0.7, 1.6),
        "cabinets": (0, 8),
        "ramps": (0, 3),
        "thresholds": (0, 3),
        "ramp_rise_m": (0.01, 0.10),
        "threshold_rise_m": (0.01, 0.10),
        **DOORS,
    },
    "offices": {
        "length_m": (9.0, 20.0),
        "corridors": (1, 2),
        "corridor_m": (1.1, 2.5),
        "room_depth_m": (2.0, 5.0),
        "room_m": (2.0, 6.0),
        "door_m": (0.7, 1.4),
        "links": (0.0, 1.0),
        "furniture": (0, 6),
        "goal_distance_min_m": (3.0, 7.0),
        **DOORS,
    },
    "warehouse": {
        "length_m": (9.0, 20.0),
        "rows": (1, 6),
        "aisle_m": (1.0, 2.5),
        "cross_aisle_m": (1.0, 2.5),
        "rack_depth_m": (0.5, 1.5),
        "rack_length_m": (1.5, 7.0),
        "missing": (0.0, 0.8),
        "pallets": (0, 15),
        "posts": (0, 8),
        "goal_distance_min_m": (3.0, 8.0),
    },
    "maze": {
        "cells": (2, 10),
        "cell_m": (1.05, 2.5),
        "loops": (0.0, 1.0),
        "way_min": (0.0, 1.0),
        "wall_m": (0.02, 0.15),
    },
    "clutter": {
        "fill": (0.0, 0.45),
        "rounds": (0, 6),
        "passage_m": (0.55, 1.5),
        "yaw_rad": (-math.pi, math.pi),
        "margin_m": (0.0, 0.2),
    },
    "tmaze": {"stem_m": (1.0, 15.0), "width_m": (0.9, 1.8), "arm_m": (1.2, 5.0), "opposite": (0, 1)},
    "blocked": {
        "length_m": (5.0, 10.0),
        "bend_m": (1.5, 3.0),
        "detour_m": (2.5, 6.0),
        "width_m": (0.9, 1.8),
        "person_radius_m": (0.15, 0.4),
        "speed_mps": (0.2, 1.5),
        "gap_m": (0.1, 0.6),
    },
    "crowd": {
        "pedestrians": (0, 8),
        "robots": (0, 2),
        "speed_mps": (0.2, 1.5),
        "radius_m": (0.1, 0.4),
        "ignores_robot": (0.0, 1.0),
        "waypoints": (2, 8),
        "leg_min_m": (0.5, 2.0),
        "start_gap_m": (0.0, 1.5),
    },
}
CROWD_BASES = ("rooms", "dense", "floors", "offices", "warehouse", "corridors", "doors-moving", "office-tasks")


def drawn_knobs(kind: str, rng: Rng) -> dict[str, Any]:
    """Knobs of a kind that fit each other, each drawn evenly over its range of `RANGES`.

    Raises:
        SceneError: no draw fitted, so the ranges themselves are at odds.
    """
    fields = typing.get_type_hints(CONFIGS[kind])
    for _ in range(ATTEMPTS):
        knobs: dict[str, Any] = {}
        for key, (low, high) in RANGES[kind].items():
            pair = typing.get_origin(fields[key]) is tuple
            whole = fields[key] in (int, bool) or typing.get_args(fields[key]) == (int, int)
            draws = rng.integers(int(low), int(high) + 1, 2) if whole else rng.uniform(low, high, 2)
            values = sorted(draws.tolist())
            knobs[key] = values if pair else bool(values[0]) if fields[key] is bool else values[0]
        if kind == "crowd":
            knobs["base"] = CROWD_BASES[int(rng.integers(len(CROWD_BASES)))]
            names = ("waypoint", "bouncing", "crossing", "reactive")
            knobs["behaviours"] = [name for name in names if rng.integers(2)] or ["reactive"]
        try:
            from_mapping(CONFIGS[kind], knobs, kind)
        except ConfigError:
            continue
        return knobs
    raise SceneError(f"kind '{kind}': no knobs that fit each other in {ATTEMPTS} draws")
