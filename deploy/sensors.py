"""Whether lidar and depth camera can be believed: pictures that cannot be, and pictures that do not change. Pure.

A driver gives each observation a new stamp, whatever the sensor behind it does. So a sensor that hangs shows in its
picture alone: a body that moves cannot see the same twice, to the last bit. Only obstacles are compared: where nothing
is in range, or a camera sees floor alone, nothing need change. While the body stands a picture may stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.types import LidarSpec, Observation, RobotSpec

BAD_OBSERVATION = "refused: bad observation"
BAD_SCAN = "refused: bad scan"
BLIND_SCAN = "refused: blind scan"
BLIND_DEPTH = "refused: blind depth"

NEGATIVE_SHARE = 0.1  # of the beams
ROUGH_SHARE = 0.15  # of the lidar's range: by which neighbouring beams differ in the median; random ones by 0.29
ROUGH_BEAMS = 16  # fewer say nothing about roughness
SEEN_SHARE = 0.25  # of the beams that hit something: as many do not lose it all from one picture to the next


@dataclass(frozen=True, slots=True)
class Picture:
    """What is kept of one sensor's picture: a digest of it ("" where nothing is in range), and the share that hit."""

    digest: str
    hit_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Watch:
    """A sensor's picture, since when it is the same, and whether the body has moved meanwhile."""

    picture: Picture
    since_ns: int
    moved: bool = False


def picture_of(points_base_m: NDArray[np.float64], most: int) -> Picture:
    """Of the (n, 2) points that a sensor hit, of `most` that it can hit."""
    if not len(points_base_m):
        return Picture("")
    return Picture(hashlib.blake2b(points_base_m.tobytes(), digest_size=16).hexdigest(), len(points_base_m) / most)


def pictures_of(points: Mapping[str, NDArray[np.float64]], robot: RobotSpec) -> dict[str, Picture]:
    """Of the sensors whose points are given, as `deploy.points.points_of` does."""
    most = {"scan": robot.lidar.beams, "depth": robot.depth.width}
    return {name: picture_of(found, most[name]) for name, found in points.items()}


def unbelievable(observation: Observation, robot: RobotSpec) -> str:
    """Why the pictures of an observation cannot be, or ""."""
    if observation.scan_m is not None:
        why = _scan(observation.scan_m, robot.lidar)
        if why:
            return why
    if observation.depth_m is not None and not np.any(observation.depth_m):
        return BLIND_DEPTH
    return ""


def _scan(ranges: NDArray[Any], lidar: LidarSpec) -> str:
    if (ranges < 0).mean() > NEGATIVE_SHARE:
        return BAD_SCAN
    if not ranges.any():
        return BLIND_SCAN
    read = ranges > 0
    pairs = read[1:] & read[:-1]
    steps = np.abs(np.diff(np.minimum(ranges, lidar.range_m)))[pairs]
    rough = len(steps) >= ROUGH_BEAMS and float(np.median(steps)) > ROUGH_SHARE * lidar.range_m
    return BAD_SCAN if rough else ""


def went_blind(before: Mapping[str, Watch], now: Mapping[str, Picture]) -> bool:
    """Whether a scan shows nothing where the one before it was full of hits."""
    scan, last = now.get("scan"), before.get("scan")
    return scan is not None and last is not None and not scan.digest and last.picture.hit_share >= SEEN_SHARE


def watch(before: Mapping[str, Watch], now: Mapping[str, Picture], now_ns: int, moves: bool) -> dict[str, Watch]:
    """Takes pictures in; the time of one that stays the same counts from when it came, or the body last stood.

    Args:
        before: from the last call.
        now: by sensor.
        now_ns: when they came.
        moves: whether the body moves, or is told to.
    """
    found = {}
    for name, picture in now.items():
        last = before.get(name)
        if last is None or picture.digest != last.picture.digest or not picture.digest:
            found[name] = Watch(picture, now_ns)
        elif moves or last.moved:
            found[name] = replace(last, moved=True)
        else:
            found[name] = replace(last, since_ns=now_ns)
    return found


def frozen(watches: Mapping[str, Watch], now_ns: int, life_s: float) -> bool:
    """Whether a picture has been the same for too long while the body moved."""
    return any(w.moved and now_ns - w.since_ns > life_s * 1e9 for w in watches.values())
