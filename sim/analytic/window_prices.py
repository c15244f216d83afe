"""What plans cost a window, compiled: touching and being close, doubt about who moves, progress along the route.

The prices are those of `robonav.planning.sweep` and `robonav.planning.progress`, one plan after the other and left off
at its first touch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from robonav.planning.progress import SLOW
from sim.analytic.bits import Array
from sim.analytic.jit import inner

STEP_M = 0.1  # of the route's points, as in `robonav.planning.progress`
_AIM_POINTS = 6
_FAR_M = np.float32(1e9)
_njit: Any = njit  # its stubs do not know all of its options


class WindowNumbers(NamedTuple):
    """What the kernel knows of the robot and of the prices."""

    low: Array  # (3,) least command, m/s and rad/s
    high: Array  # (3,)
    reach: Array  # (3,) how far a command may be from the twist
    samples: Array  # (3,) int64
    half: Array  # (2,) m half length and width
    radius_m: float
    lag_s: float
    acceleration: Array  # (2,) m/s^2 and rad/s^2
    mount_x_m: float
    range_m: float
    beams: Array  # (n, 2) float32 directions
    dt_s: Array  # (T,) of the plan's steps and its tail
    sweep: Array  # collision, clearance, decay m, margin m, growth m/s, stop, turn, doubt s, forbidden
    route: Array  # beside, heading, arrival m, change, side, turning round


class Points(NamedTuple):
    """Hits in the base frame: those that stand, then those that move, with their velocities."""

    still: Array  # (2, n) float32
    moving: Array  # (2, m) float32
    velocity: Array  # (2, m) float32


class Plans(NamedTuple):
    """Where N commands lead over T steps."""

    command: Array  # (N, 3)
    x: Array  # (N, T)
    y: Array  # (N, T)
    yaw: Array  # (N, T)


class RouteAhead(NamedTuple):
    """What is left of a route, in the base frame; see `robonav.planning.progress.RouteAhead`."""

    x: Array  # (n,) every 0.1 m
    y: Array  # (n,)
    end_x: float
    end_y: float
    length_m: float


@_njit(nogil=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz"}, no_cpython_wrapper=True)
def _distance_m(x: float, y: float, yaw: float, half: Array, points: Array, drift: Array, s: float) -> float:
    """Signed distance from the footprint at a pose to the nearest of points (2, n) that drift for s seconds.

    These flags keep the order of sums: they let the search for the least one run on several points at a time.
    """
    c, d = np.float32(math.cos(yaw)), np.float32(math.sin(yaw))
    px, py, after = np.float32(x), np.float32(y), np.float32(s)
    outside, inside, zero = _FAR_M, _FAR_M, np.float32(0.0)
    moves = drift.shape[1] > 0
    for i in range(points.shape[1]):
        dx, dy = points[0, i] - px, points[1, i] - py
        if moves:
            dx, dy = dx + after * drift[0, i], dy + after * drift[1, i]
        ahead, beside = abs(c * dx + d * dy) - half[0], abs(c * dy - d * dx) - half[1]
        inside = min(inside, max(ahead, beside))
        ahead, beside = max(ahead, zero), max(beside, zero)
        outside = min(outside, ahead * ahead + beside * beside)
    return math.sqrt(outside) if inside > zero else np.float64(inside)


@inner
def clearance_m(numbers: WindowNumbers, points: Points) -> float:
    """Distance from the footprint where it is now to the nearest of the points."""
    nothing = np.empty((2, 0), np.float32)
    here = _distance_m(0.0, 0.0, 0.0, numbers.half, points.still, nothing, 0.0)
    return min(here, _distance_m(0.0, 0.0, 0.0, numbers.half, points.moving, nothing, 0.0))


@inner
def plan_price(
    numbers: WindowNumbers, plans: Plans, i: int, points: Points, route: RouteAhead, last: Array, here: float
) -> float:
    """The price of one plan, where the footprint is `here` from the nearest point now."""
    free, price = _touch_price(numbers, plans, i, points, here)
    return price + _route_price(numbers, plans, i, route, last, free) + _doubt_price(numbers, plans, i, points)


@inner
def plan_prices(
    numbers: WindowNumbers, plans: Plans, points: Points, route: RouteAhead, last: Array, here: float, slack: float
) -> Array:
    """(N,) prices of plans; of those that are dearer than the best by more than `slack` a part of it that says so."""
    prices, least = np.empty(len(plans.command)), math.inf
    for i in range(len(prices)):
        free, price = _touch_price(numbers, plans, i, points, here)
        price += _route_price(numbers, plans, i, route, last, free)
        if price <= least + slack:  # doubts only add to it
            price += _doubt_price(numbers, plans, i, points)
            least = min(least, price)
        prices[i] = price
    return prices


@inner
def _touch_price(numbers: WindowNumbers, plans: Plans, i: int, points: Points, here: float) -> tuple[int, float]:
    """Steps before a plan's first touch, and the price of touching and of being close; see `robonav.planning.sweep`."""
    collision, clearance, decay, margin, growth = numbers.sweep[:5]
    nothing = np.empty((2, 0), np.float32)
    steps, free = len(numbers.dt_s), len(numbers.dt_s)
    time, close, counted, free_s, second = 0.0, 0.0, 0.0, 0.0, 0.0
    for t in range(steps):
        x, y, yaw = plans.x[i, t], plans.y[i, t], plans.yaw[i, t]
        time += numbers.dt_s[t]
        away = _distance_m(x, y, yaw, numbers.half, points.still, nothing, 0.0)
        if points.moving.shape[1]:
            met = _distance_m(x, y, yaw, numbers.half, points.moving, points.velocity, time)
            away = min(away, met - growth * time)
        away -= margin
        if t == min(1, steps - 1):
            second = away
        if free == steps and (away >= 0.0 or t == 0):
            close += math.exp(-max(away, 0.0) / decay) * numbers.dt_s[t]
            counted += numbers.dt_s[t]
        if away < 0.0 and free == steps:
            free = t
            free_s = time - numbers.dt_s[t]
        if free < steps and t >= min(1, steps - 1):
            break
    if free == steps:
        free_s = time
    end_s = numbers.dt_s.sum()
    price = collision * (1.0 - free_s / end_s) + clearance * close / counted
    vx, vy, rate = plans.command[i]
    planar, turning = math.hypot(vx, vy) / (2 * numbers.acceleration[0]), abs(rate) / (2 * numbers.acceleration[1])
    forbidden = free < steps and free_s <= numbers.dt_s[0] + numbers.lag_s + max(planar, turning)
    if here < margin and second > here - margin + 1e-3:
        forbidden = False
    if forbidden and (vx != 0.0 or vy != 0.0 or rate != 0.0):
        price += numbers.sweep[8]
    return free, price


@inner
def _doubt_price(numbers: WindowNumbers, plans: Plans, i: int, points: Points) -> float:
    """Price of touching somebody soon if he stops now, or turns back."""
    margin, doubt_s, price = numbers.sweep[3], numbers.sweep[7], 0.0
    if not points.moving.shape[1]:
        return price
    nothing = np.empty((2, 0), np.float32)
    back = -points.velocity
    for case in range(2):
        weight, before = numbers.sweep[5 + case], 0.0
        for t in range(len(numbers.dt_s)):
            time = before + numbers.dt_s[t]
            if weight == 0.0 or time > doubt_s + 1e-6:
                break
            x, y, yaw = plans.x[i, t], plans.y[i, t], plans.yaw[i, t]
            drift = back if case else nothing
            if _distance_m(x, y, yaw, numbers.half, points.moving, drift, time) < margin:
                price += weight * max(1.0 - before / doubt_s, 0.0)
                break
            before = time
    return price


@inner
def _route_price(numbers: WindowNumbers, plans: Plans, i: int, route: RouteAhead, last: Array, free: int) -> float:
    """Less progress along the route, and the price of a change of command; see `robonav.planning.progress`."""
    beside_weight, heading_weight, arrival_m, change_weight, side_weight, round_weight = numbers.route
    vx, vy, rate = plans.command[i]
    change = math.hypot(vx - np.float64(last[0]), vy - np.float64(last[1])) + abs(rate - np.float64(last[2])) / 3
    price = change_weight * change + side_weight * abs(vy)
    time, end_s = 0.0, numbers.dt_s.sum()
    for t in range(free):
        time += numbers.dt_s[t]
        if math.hypot(plans.x[i, t] - route.end_x, plans.y[i, t] - route.end_y) < arrival_m:
            return price - route.length_m - numbers.high[0] * (end_s - time)
    at = max(free - 1, 0)
    x, y, yaw = plans.x[i, at], plans.y[i, at], plans.yaw[i, at]
    nearest, beside = 0, math.inf
    for k in range(len(route.x)):
        away = (x - route.x[k]) ** 2 + (y - route.y[k]) ** 2
        if away < beside:
            nearest, beside = k, away
    aim = min(nearest + _AIM_POINTS, len(route.x) - 1)
    dx, dy = route.x[aim] - x, route.y[aim] - y
    off = 0.0
    if math.hypot(dx, dy) >= 0.05:
        off = _turn(math.atan2(dy, dx) - yaw)
    gain = STEP_M * nearest - beside_weight * math.sqrt(beside) - heading_weight * off
    if round_weight > 0.0:
        full, back, rate = max(numbers.high[0], SLOW), max(-numbers.low[0], SLOW), max(numbers.high[2], SLOW)
        rest = max(route.length_m - STEP_M * nearest, 0.0)
        longer = max(full / back - 1.0, 0.0) * rest
        gain -= round_weight * min(full * max(off - math.pi / 2, 0.0) / rate, longer)
    return price - gain


@inner
def _turn(angle: float) -> float:
    """Size of an angle, from 0 to pi."""
    return abs((angle + math.pi) % (2 * math.pi) - math.pi)
