"""What the local planner's dynamic window would command in every world of a batch, compiled: labels for imitation.

The candidates are `robonav.planning.window.reachable_commands` kept up for the whole plan, and their price is that of
`robonav.planning.local` (`sweep`, `progress` and `change_m`), without the smooth variations that the planner tries
round the best of them. Movers that nobody sees at the moment are left out, and who moves is carried through walls and
does not swerve, and passing him near has no price of its own (`SweepConfig.walls`, `swerve_weight`, `risk_weight`). A
decision takes about a millisecond.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from robonav.planning.mppi import MPPIConfig
from robonav.planning.progress import ProgressConfig
from robonav.planning.sweep import SweepConfig
from robonav.types import RobotSpec
from sim.analytic.bits import Array
from sim.analytic.jit import inner, kernel
from sim.analytic.situation import Routes
from sim.analytic.window_prices import (
    STEP_M,
    Plans,
    Points,
    RouteAhead,
    WindowNumbers,
    clearance_m,
    plan_price,
    plan_prices,
)

_MIN_RANGE_M = 0.05
Arrays = dict[str, Array]

TEACHER = MPPIConfig(
    samples=(7, 1, 13),
    sweep=SweepConfig(risk_weight=0.0),
    route=ProgressConfig(heading_weight=0.3, change_weight=0.1, turn_round_weight=0.0),
)
"""Prices and samples of an expert that is easy to imitate. With the planner's own, which go fastest askew, left and
right are equally good wherever the robot starts from rest, and the mean of the two is neither; to turn round on the
spot as well."""
SIDEWAYS = replace(
    TEACHER,
    samples=(5, 3, 9),
    sweep=replace(TEACHER.sweep, stop_weight=1.0, turn_weight=1.0),
    route=ProgressConfig(turn_round_weight=0.0),
)
"""An expert that goes askew as well, and among people arrives far more often. To be imitated it is asked for the good
command that is nearest to what the learner would do (`Window.commands`, `slack_m`)."""


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
        route=np.array(
            [p.route_weight, p.heading_weight, p.arrival_m, p.change_weight, p.side_weight, p.turn_round_weight]
        ),
    )


class Chosen(NamedTuple):
    """What a window would command in B worlds."""

    commands: Array  # (B, 3) float32 m/s and rad/s
    known: Array  # (B,) where there is one
    regret_m: Array  # (B,) float32 by how much the command that was asked about is dearer; 0 where none was


class Window:
    """Chooses commands for B worlds. Holds constants only."""

    def __init__(self, spec: RobotSpec, config: MPPIConfig = TEACHER) -> None:
        self.numbers = window_numbers(spec, config)

    def commands(
        self,
        seen: Arrays,
        pose_odom_base: Array,
        routes: Routes,
        active: Array,
        asked: Array | None = None,
        slack_m: float = 0.0,
    ) -> Chosen:
        """The commands of active worlds with a route, and what others cost beside them.

        Args:
            seen: scan_m (B, beams), flow_mps (B, beams, 2), twist_base (B, 3), last_command (B, 3).
            pose_odom_base: (B, 3).
            routes: of the worlds.
            active: (B,) worlds with a scan.
            asked: (B, 3) commands whose regret is asked for: their price, kept up, less that of the window's best.
                One between the window's samples can be cheaper than all of them: its regret is 0 then.
            slack_m: with commands that are asked about: of all that are dearer than the best by this at most, the
                nearest to what was asked about is the answer, and that itself if it is among them. So who learns from
                the answers need not choose between equals, nor follow the window from one to the other.
        """
        chosen, out = active & (routes.counts > 0), np.zeros((len(active), 3), np.float32)
        scan, flow, twist, last = (seen[name] for name in ("scan_m", "flow_mps", "twist_base", "last_command"))
        wanted = np.zeros((0, 3)) if asked is None else np.ascontiguousarray(asked, np.float64)
        regret = np.zeros(len(active), np.float32)
        prices = self.numbers, scan, flow, twist, last, pose_odom_base, routes
        _commands(*prices, chosen, wanted, slack_m, out, regret)
        return Chosen(out, chosen, regret)


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
    asked: Array,
    slack_m: float,
    out: Array,
    regret: Array,
) -> None:
    for b in range(len(todo)):
        if todo[b]:
            plans = _rollouts(numbers, twist[b])
            points = _hits(numbers, scan[b], flow[b], plans)
            route = _ahead(numbers, routes.points[b], routes.counts[b], routes.progress_m[b], pose[b])
            here = clearance_m(numbers, points)
            prices = plan_prices(numbers, plans, points, route, last[b], here, slack_m)
            command = plans.command[np.argmin(prices)]
            if len(asked):
                other = _plans(1, len(numbers.dt_s))
                _roll(numbers, twist[b], asked[b, 0], asked[b, 1], asked[b, 2], other, 0)
                price = plan_price(numbers, other, 0, points, route, last[b], here)
                regret[b] = np.float32(max(price - prices.min(), 0.0))
                if slack_m > 0.0:
                    near = _nearest(numbers, plans.command, prices, slack_m, asked[b])
                    command = asked[b] if regret[b] <= slack_m else plans.command[near]
            for k in range(3):
                out[b, k] = np.float32(command[k])


@inner
def _nearest(numbers: WindowNumbers, commands: Array, prices: Array, slack_m: float, asked: Array) -> int:
    """The command nearest to another one, in shares of each axis's range, of those dearer than the best by a slack."""
    nearest, apart, most = 0, math.inf, prices.min() + slack_m
    for i in range(len(commands)):
        if prices[i] <= most:
            squared = 0.0
            for k in range(3):
                span = max(numbers.high[k] - numbers.low[k], 1e-6)
                squared += ((commands[i, k] - asked[k]) / span) ** 2
            if squared < apart:
                nearest, apart = i, squared
    return nearest


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
def _rollouts(numbers: WindowNumbers, twist: Array) -> Plans:
    """The window's commands, each kept up."""
    most = numbers.samples.max() + 2
    axes, counts = np.empty((3, most)), np.empty(3, np.int64)
    for k in range(3):
        low, high, reach = numbers.low[k], numbers.high[k], numbers.reach[k]
        counts[k] = _axis(low, high, reach, numbers.samples[k], np.float64(twist[k]), axes[k])
    n = counts[0] * counts[1] * counts[2]
    plans = _plans(n, len(numbers.dt_s))
    for i in range(n):
        turn = i % counts[2]
        side = i // counts[2] % counts[1]
        ahead = i // (counts[2] * counts[1])
        _roll(numbers, twist, axes[0, ahead], axes[1, side], axes[2, turn], plans, i)
    return plans


@inner
def _plans(n: int, steps: int) -> Plans:
    """Room for n plans."""
    return Plans(np.empty((n, 3)), np.empty((n, steps)), np.empty((n, steps)), np.empty((n, steps)))


@inner
def _roll(numbers: WindowNumbers, twist: Array, vx: float, vy: float, rate: float, plans: Plans, i: int) -> None:
    """Plan i: a command that is kept up, with first-order lag within the accelerations."""
    plans.command[i, 0], plans.command[i, 1], plans.command[i, 2] = vx, vy, rate
    u, v, w = np.float64(twist[0]), np.float64(twist[1]), np.float64(twist[2])
    x, y, yaw = 0.0, 0.0, 0.0
    for t in range(len(numbers.dt_s)):
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


@inner
def _hits(numbers: WindowNumbers, scan: Array, flow: Array, plans: Plans) -> Points:
    """Hits that can come near any of the plans."""
    far, end_s = 0.0, numbers.dt_s.sum()
    for i in range(len(plans.command)):
        for t in range(len(numbers.dt_s)):
            far = max(far, plans.x[i, t] ** 2 + plans.y[i, t] ** 2)
    reach = math.sqrt(far) + numbers.radius_m + 3 * numbers.sweep[2]
    points = Points(
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
    return Points(points.still[:, :still], points.moving[:, :moving], points.velocity[:, :moving])


@inner
def _ahead(numbers: WindowNumbers, route: Array, count: int, progress: float, pose: Array) -> RouteAhead:
    """The route from where the robot is on it, as far as a plan can lead."""
    reach_m = numbers.high[0] * numbers.dt_s.sum() + 1.0
    n = math.ceil(reach_m / STEP_M)
    out = RouteAhead(np.empty(n), np.empty(n), 0.0, 0.0, 0.0)
    yaw = np.float64(pose[2])
    c, s = math.cos(yaw), math.sin(yaw)
    begin, i, whole = 0.0, 0, 0.0
    for j in range(count - 1):
        dx = np.float64(route[j + 1, 0]) - np.float64(route[j, 0])
        whole += math.hypot(dx, np.float64(route[j + 1, 1]) - np.float64(route[j, 1]))
    for k in range(n + 1):  # the last one is the route's end
        at = min(progress + k * STEP_M, whole) if k < n else whole
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
    return RouteAhead(out.x, out.y, x, y, max(whole - progress, 0.0))
