"""What goes wrong in a sensor, as functions of its perfect reading and a stream of random numbers."""

from __future__ import annotations

import math

import cv2
import numpy as np

from robonav.types import Float
from sim.sensor_config import DepthErrors, LidarErrors, OdometryErrors

NO_READING_M = 0.0  # of a pixel that is lost, as depth cameras report it
Pose = tuple[float, float, float]
_CROSS = np.ones((3, 3), np.uint8)


def scan_with_errors(scan_m: Float, range_m: float, errors: LidarErrors, rng: np.random.Generator) -> Float:
    """(beams,) ranges with noise, and with beams that came back with nothing; those read the range's limit."""
    out = scan_m.astype(np.float32, copy=True)
    if errors.noise_m or errors.noise_share:
        deviation = np.hypot(errors.noise_m, errors.noise_share * scan_m)
        noisy = out + (rng.standard_normal(len(out)) * deviation).astype(np.float32)
        hit = scan_m < range_m - 1e-3  # where nothing stands there is nothing to mismeasure
        out[hit] = np.clip(noisy[hit], 0.0, range_m)
    if errors.dropout:
        out[rng.random(len(out)) < errors.dropout] = range_m
    return out


def depth_with_errors(depth_m: Float, range_m: float, errors: DepthErrors, rng: np.random.Generator) -> Float:
    """(height, width) depth with noise, artefacts at edges, and holes; a lost pixel is 0.

    Noise grows with the square of the range, as the disparity of a stereo pair does with its inverse. At a depth step
    the two surfaces mix: pixels are lost, or fly somewhere between them.
    """
    height, width = depth_m.shape
    out = depth_m.astype(np.float32, copy=True)
    if errors.noise_per_m:
        seen = depth_m < range_m - 1e-3
        noise = rng.standard_normal(depth_m.shape, np.float32) * (np.float32(errors.noise_per_m) * depth_m**2)
        out = np.where(seen, out + noise, out)
    if errors.edges:
        high, low = cv2.dilate(depth_m, _CROSS), cv2.erode(depth_m, _CROSS)
        at_step = high - low > errors.edge_step_m
        chance, share = rng.random((2, height, width), np.float32)
        out = np.where(at_step & (chance < errors.edges), low + share * (high - low), out)
        out[at_step & (chance < errors.edges / 2)] = NO_READING_M
    if errors.holes:
        largest = min(errors.hole_radius_px, min(height, width) / 2)
        # E[pi r^2] of a radius that is uniform in [1, largest]
        area = math.pi * (largest**2 + largest + 1) / 3
        # holes overlap, so that n of them leave exp(-n area / all) of the image
        count = rng.poisson(-math.log1p(-min(errors.holes, 0.99)) * height * width / area)
        for x, y, share in rng.random((count, 3)):
            centre, radius = (int(x * width), int(y * height)), round(1 + share * (largest - 1))
            cv2.circle(out, centre, radius, NO_READING_M, cv2.FILLED)
    return np.clip(out, 0.0, np.float32(range_m))


def tilt_with_errors(
    tilt_rad: tuple[float, float], noise_rad: float, bias_rad: tuple[float, float], rng: np.random.Generator
) -> Float:
    """(2,) roll and pitch with a bias and noise."""
    noise = noise_rad * rng.standard_normal(2) if noise_rad else np.zeros(2)
    return np.asarray(np.add(tilt_rad, bias_rad) + noise, np.float32)


def _wrapped(angle_rad: float) -> float:
    """As `robonav.geometry.wrap_angle`, for one number."""
    return (angle_rad + math.pi) % (2 * math.pi) - math.pi


class Odometry:
    """Dead reckoning: adds up how the base moved in its own frame, as far as that was measured rightly."""

    def __init__(self, errors: OdometryErrors, rng: np.random.Generator) -> None:
        self._errors = errors
        self._rng = rng
        self._true: Pose | None = None
        self._time_ns = 0
        self._x = self._y = self._yaw = 0.0

    def pose(self, now_ns: int, true: Pose) -> Float:
        """(3,) the measured pose at this time; `true` is the pose in the same frame without errors."""
        e = self._errors
        if not e.drifts:
            return np.array((true[0], true[1], _wrapped(true[2])), np.float32)
        if self._true is None:
            self._x, self._y, self._yaw = true
        else:
            x, y, yaw = self._true
            c, s = math.cos(yaw), math.sin(yaw)
            dx, dy, turn = true[0] - x, true[1] - y, true[2] - yaw
            ahead, left = (c * dx + s * dy) * (1 + e.scale[0]), (c * dy - s * dx) * (1 + e.scale[1])
            noise = self._rng.standard_normal(3)
            spread = e.noise_per_m * math.sqrt(math.hypot(ahead, left))
            ahead, left = ahead + spread * noise[0], left + spread * noise[1]
            measured = turn * (1 + e.scale[2]) + e.noise_per_rad * math.sqrt(abs(turn)) * noise[2]
            measured += e.yaw_drift_radps * (now_ns - self._time_ns) / 1e9
            c, s = math.cos(self._yaw), math.sin(self._yaw)
            self._x += c * ahead - s * left
            self._y += s * ahead + c * left
            self._yaw += measured
        self._true, self._time_ns = true, now_ns
        return np.array((self._x, self._y, _wrapped(self._yaw)), np.float32)

    def twist(self, velocity: tuple[float, float, float]) -> Float:
        """(3,) the measured velocity."""
        e = self._errors
        if not (e.velocity_noise_mps or e.yaw_rate_noise_radps):
            return np.array(velocity, np.float32)
        spread = np.array((e.velocity_noise_mps, e.velocity_noise_mps, e.yaw_rate_noise_radps))
        return np.asarray(np.array(velocity) + spread * self._rng.standard_normal(3), np.float32)
