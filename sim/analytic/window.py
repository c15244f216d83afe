"""What the local planner's dynamic window would command in every world of a batch, compiled: labels for imitation.

The candidates are `robonav.planning.window.reachable_commands` kept up for the whole plan, and their price is that of
`robonav.planning.local` (`sweep`, `progress` and `change_m`), without the smooth variations that the planner tries
round the best of them. Movers that nobody sees at the moment are left out. A decision takes about a millisecond.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from robonav.planning.mppi import MPPIConfig
from robonav.planning.progress import ProgressConfig
from robonav.types import RobotSpec
from sim.analytic.bits import Array
from sim.analytic.jit import inner, kernel
from sim.analytic.situation import Routes

_STEP_M = 0.1  # of the route's points, as in `robonav.planning.progress`
_AIM_POINTS = 6
_MIN_RANGE_M = 0.05
_FAR_M = np.float32(1e9)
Arrays = dict[str, Array]
_njit: Any = njit  # its stubs do not know all of its options


TEACHER = MPPIConfig(samples=(7, 1, 13), route=ProgressConfig(heading_weight=0.3, change_weight=0.1))
"""Prices and samples of an expert that is easy to imitate. With the planner's own, which go fastest askew, left and
right are equally good wherever the robot starts from rest, and the mean of the two is neither."""


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
    route: Array  # beside, heading, arrival m, change, side


def window_numbers(spec: RobotSpec, config: MPPIConfig) -> WindowNumbers:
    """The numbers for a robot."""
    c = config
    s, p, tail = c.sweep, c.route, round(c.sweep.tail_s / c.sweep.tail_step_s)
    limits = (spec.acceleration_max_mps2, spec.acceleration_max_mps2, spec.yaw_acceleration_max_radps2)
    angles = spec.lidar.angles_rad
    prices = (s.collision_weight, s.clearance_weight, s.clearance_decay_m, s.margin_m, s.growth_mps)
    return WindowNumbers(
        low=np.array([spec.vx_min_mps, -spec.vy_max_mps, -spec.yaw_rate_max_radps]),
        high=np.array([spec.vx_max_mps, spec.vy_max_mps, spec.yaw_rate_max_radps]),
        reach=np.array(limits) * max(spec.lag_s + spec.dt_s, 2 * spec.dt_s),
        samples=np.array(c.samples, np.int64),
        half=np.array([spec.length_m / 2, spec.width_m / 2], np.float32),
        radius_m=spec.radius_m,
        lag_s=spec.lag_s,
        acceleration=np.array(limits[1:]),
        mount_x_m=spec.lidar.mount_x_m,
        range_m=spec.lidar.range_m,
        beams=np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32),
        dt_s=np.concatenate([np.full(c.horizon, spec.dt_s), np.full(tail, c.sweep.tail_step_s)]),
        sweep=np.array([*prices, s.stop_weight, s.turn_weight, s.doubt_s, s.forbidden]),
        route=np.array([p.route_weight, p.heading_weight, p.arrival_m, p.change_weight, p.side_weight]),
    )


class Window:
    """Chooses commands for B worlds. Holds constants only."""

    def __init__(self, spec: RobotSpec, config: MPPIConfig = TEACHER) -> None:
        self.numbers = window_numbers(spec, config)

    def commands(self, seen: Arrays, pose_odom_base: Array, routes: Routes, active: Array) -> tuple[Array, Array]:
        """(B, 3) float32 commands in m/s and rad/s, and (B,) where there is one: in active worlds with a route.

        Args:
            seen: scan_m (B, beams), flow_mps (B, beams, 2), twist_base (B, 3), last_command (B, 3).
            pose_odom_base: (B, 3).
            routes: of the worlds.
            active: (B,) worlds with a scan.
        """
        chosen, out = active & (routes.counts > 0), np.zeros((len(active), 3), np.float32)
        scan, flow, twist, last = (seen[name] for name in ("scan_m", "flow_mps", "twist_base", "last_command"))
        _commands(self.numbers, scan, flow, twist, last, pose_odom_base, routes, chosen, out)
        return out, chosen


class _Points(NamedTuple):
    """Hits in the base frame: those that stand, then those that move, with their velocities."""

    still: Array  # (2, n) float32
    moving: Array  # (2, m) float32
    velocity: Array  # (2, m) float32


class _Plans(NamedTuple):
    """Where N commands lead over T steps."""

    command: Array  # (N, 3)
    x: Array  # (N, T)
    y: Array  # (N, T)
    yaw: Array  # (N, T)


class _Route(NamedTuple):
    """What is left of a route, in the base frame; see `robonav.planning.progress.RouteAhead`."""

    x: Array  # (n,) every 0.1 m
    y: Array  # (n,)
    end_x: float
    end_y: float
    length_m: float


@kernel
def _commands(
    numbers: WindowNumbers,
    scan: Array,
    flow: Array,
    twist: Array,
    last: Array,
    pose: Array,
    routes: Routes,
    todo: Array,
    out: Array,
) -> None:
    for b in range(len(todo)):
        if todo[b]:
            plans = _rollouts(numbers, twist[b])
            points = _hits(numbers, scan[b], flow[b], plans)
            route = _ahead(numbers, routes.points[b], routes.counts[b], routes.progress_m[b], pose[b])
            best = _cheapest(numbers, plans, points, route, last[b])
            for k in range(3):
                out[b, k] = np.float32(plans.command[best, k])


@inner
def _axis(low: float, high: float, reach: float, samples: int, now: float, out: Array) -> int:
    """Evenly spread values that can be reached from `now`, in order, with 0 among them; how many. One is 0 alone."""
    if samples == 1:
        out[0] = 0.0
        return 1
    low = max(low, min(now - reach, high))
    high = min(high, max(now + reach, low))
    count, has_zero = 0, False
    for i in range(samples):
        value = low + (high - low) * i / (samples - 1)
        if not has_zero and value >= 0.0:
            if value > 0.0:
                out[count] = 0.0
                count += 1
            has_zero = True
        if count == 0 or value != out[count - 1]:
            out[count] = value
            count += 1
    if not has_zero:
        out[count] = 0.0
        count += 1
    return count


@inner
def _rollouts(numbers: WindowNumbers, twist: Array) -> _Plans:
    """The window's commands, each kept up: first-order lag within the accelerations."""
    most = numbers.samples.max() + 2
    axes, counts = np.empty((3, most)), np.empty(3, np.int64)
    for k in range(3):
        low, high, reach = numbers.low[k], numbers.high[k], numbers.reach[k]
        counts[k] = _axis(low, high, reach, numbers.samples[k], np.float64(twist[k]), axes[k])
    n, steps = counts[0] * counts[1] * counts[2], len(numbers.dt_s)
    plans = _Plans(np.empty((n, 3)), np.empty((n, steps)), np.empty((n, steps)), np.empty((n, steps)))
    for i in range(n):
        turn = i % counts[2]
        side = i // counts[2] % counts[1]
        ahead = i // (counts[2] * counts[1])
        vx, vy, rate = axes[0, ahead], axes[1, side], axes[2, turn]
        plans.command[i, 0], plans.command[i, 1], plans.command[i, 2] = vx, vy, rate
        u, v, w = np.float64(twist[0]), np.float64(twist[1]), np.float64(twist[2])
        x, y, yaw = 0.0, 0.0, 0.0
        for t in range(steps):
            dt = numbers.dt_s[t]
            blend = 1.0 - math.exp(-dt / numbers.lag_s) if numbers.lag_s > 0.0 else 1.0
            du, dv, dw = blend * (vx - u), blend * (vy - v), blend * (rate - w)
            cut = min(1.0, numbers.acceleration[0] * dt / max(math.hypot(du, dv), 1e-6))
            most_turn = numbers.acceleration[1] * dt
            u, v, w = u + cut * du, v + cut * dv, w + min(max(dw, -most_turn), most_turn)
            middle = yaw + 0.5 * w * dt
            x += (u * math.cos(middle) - v * math.sin(middle)) * dt
            y += (u * math.sin(middle) + v * math.cos(middle)) * dt
            yaw += w * dt
            plans.x[i, t], plans.y[i, t], plans.yaw[i, t] = x, y, yaw
    return plans


@inner
def _hits(numbers: WindowNumbers, scan: Array, flow: Array, plans: _Plans) -> _Points:
    """Hits that can come near any of the plans."""
    far, end_s = 0.0, numbers.dt_s.sum()
    for i in range(len(plans.command)):
        for t in range(len(numbers.dt_s)):
            far = max(far, plans.x[i, t] ** 2 + plans.y[i, t] ** 2)
    reach = math.sqrt(far) + numbers.radius_m + 3 * numbers.sweep[2]
    points = _Points(
        np.empty((2, len(scan)), np.float32),
        np.empty((2, len(scan)), np.float32),
        np.empty((2, len(scan)), np.float32),
    )
    still, moving = 0, 0
    for i in range(len(scan)):
        if scan[i] >= numbers.range_m - 1e-3 or scan[i] < _MIN_RANGE_M:
            continue
        x, y = numbers.mount_x_m + scan[i] * numbers.beams[i, 0], scan[i] * numbers.beams[i, 1]
        moves = flow[i, 0] != 0.0 or flow[i, 1] != 0.0
        drift = math.hypot(flow[i, 0], flow[i, 1]) * end_s if moves else 0.0
        if math.hypot(x, y) >= reach + numbers.sweep[4] * end_s + drift:
            continue
        if moves:
            points.moving[0, moving], points.moving[1, moving] = x, y
            points.velocity[0, moving], points.velocity[1, moving] = flow[i, 0], flow[i, 1]
            moving += 1
        else:
            points.still[0, still], points.still[1, still] = x, y
            still += 1
    return _Points(points.still[:, :still], points.moving[:, :moving], points.velocity[:, :moving])


@inner
def _ahead(numbers: WindowNumbers, route: Array, count: int, progress: float, pose: Array) -> _Route:
    """The route from where the robot is on it, as far as a plan can lead."""
    reach_m = numbers.high[0] * numbers.dt_s.sum() + 1.0
    n = math.ceil(reach_m / _STEP_M)
    out = _Route(np.empty(n), np.empty(n), 0.0, 0.0, 0.0)
    yaw = np.float64(pose[2])
    c, s = math.cos(yaw), math.sin(yaw)
    begin, i, whole = 0.0, 0, 0.0
    for j in range(count - 1):
        dx = np.float64(route[j + 1, 0]) - np.float64(route[j, 0])
        whole += math.hypot(dx, np.float64(route[j + 1, 1]) - np.float64(route[j, 1]))
    for k in range(n + 1):  # the last one is the route's end
        at = min(progress + k * _STEP_M, whole) if k < n else whole
        span = 0.0
        while i < count - 1:
            dx = np.float64(route[i + 1, 0]) - np.float64(route[i, 0])
            span = math.hypot(dx, np.float64(route[i + 1, 1]) - np.float64(route[i, 1]))
            if at <= begin + span or i == count - 2:
                break
            begin += span
            i += 1
        share = min(max((at - begin) / span, 0.0), 1.0) if span > 0.0 else 0.0
        ax, ay = np.float64(route[i, 0]), np.float64(route[i, 1])
        following = min(i + 1, count - 1)
        dx = ax + share * (np.float64(route[following, 0]) - ax) - np.float64(pose[0])
        dy = ay + share * (np.float64(route[following, 1]) - ay) - np.float64(pose[1])
        x, y = c * dx + s * dy, c * dy - s * dx
        if k < n:
            out.x[k], out.y[k] = x, y
    return _Route(out.x, out.y, x, y, max(whole - progress, 0.0))


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
def _cheapest(numbers: WindowNumbers, plans: _Plans, points: _Points, route: _Route, last: Array) -> int:
    """The plan of the least price."""
    nothing = np.empty((2, 0), np.float32)
    here = _distance_m(0.0, 0.0, 0.0, numbers.half, points.still, nothing, 0.0)
    here = min(here, _distance_m(0.0, 0.0, 0.0, numbers.half, points.moving, nothing, 0.0))
    best, least = 0, math.inf
    for i in range(len(plans.command)):
        free, price = _touch_price(numbers, plans, i, points, here)
        price += _doubt_price(numbers, plans, i, points) + _route_price(numbers, plans, i, route, last, free)
        if price < least:
            best, least = i, price
    return best


@inner
def _touch_price(numbers: WindowNumbers, plans: _Plans, i: int, points: _Points, here: float) -> tuple[int, float]:
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
def _doubt_price(numbers: WindowNumbers, plans: _Plans, i: int, points: _Points) -> float:
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
def _route_price(numbers: WindowNumbers, plans: _Plans, i: int, route: _Route, last: Array, free: int) -> float:
    """Less progress along the route, and the price of a change of command; see `robonav.planning.progress`."""
    beside_weight, heading_weight, arrival_m, change_weight, side_weight = numbers.route
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
    gain = _STEP_M * nearest - beside_weight * math.sqrt(beside) - heading_weight * off
    return price - gain


@inner
def _turn(angle: float) -> float:
    """Size of an angle, from 0 to pi."""
    return abs((angle + math.pi) % (2 * math.pi) - math.pi)
