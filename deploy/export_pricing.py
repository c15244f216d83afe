"""What plans cost by geometry and gain along the route, in a graph: `robonav.planning.sweep` and `progress`.

The footprint is swept through a `robonav.planning.field.LocalField`. Where numpy asks for a first index, the graph
keeps a mask of the steps before it: sums over the mask are what the index would have looked up.

Shape letters: K plans, L horizon, T steps of the sweep, A action size, M movers, N route points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.graph import Graph
from policies.planner_layout import BODY, PlannerLayout
from robonav.planning.field import CELLS, MOVERS
from robonav.planning.progress import AIM_POINTS, NEAR_M, STEP_M
from robonav.planning.sweep import ESCAPE_M
from robonav.types import ACTION_SIZE

Array = NDArray[np.float32]


class Poses(NamedTuple):
    """Names of (K, T) tensors."""

    x: str
    y: str
    yaw: str
    cos: str
    sin: str


class Pricing:
    """Prices plans in metres of progress. Holds what the plans of a tick share.

    Args:
        g: the graph.
        layout: whose inputs the graph has.
    """

    def __init__(self, g: Graph, layout: PlannerLayout) -> None:
        self.g, self.layout, self.c = g, layout, layout.config
        horizon, sweep = self.c.horizon, self.c.sweep
        dt_s = np.concatenate([np.full(horizon, layout.dt_s), np.full(sweep.tail_steps, sweep.tail_step_s)])
        self._dt_s, self._time_s, self._steps = dt_s.astype(np.float32), np.cumsum(dt_s), len(dt_s)
        self._until = np.triu(np.ones((self._steps, self._steps), np.float32))  # sums up to and with each step
        self._soon = int(np.searchsorted(self._time_s, sweep.doubt_s + 1e-6))
        self._body = dict(zip(BODY, g.split("body", [1] * len(BODY), axis=0), strict=True))
        self._field = g.reshape("field", 1, 1, CELLS, CELLS)
        spots = g.split("spots", [1, 1, 1], axis=1)
        self._spots = [g.reshape(part, -1) for part in spots]
        self._movers = [g.reshape(part, 1, MOVERS) for part in g.split("movers", [1] * 5, axis=1)]
        self._still_m, self._moving_m = self._here()

    def price(self, actions: str, count: int) -> str:
        """(K,) prices of plans (K, L, A); less is better."""
        g, c, s = self.g, self.c, self.c.sweep
        commands = self._commands(actions, count)
        first = commands[0]
        poses = self._poses(self._velocities(commands, count), count)
        distance = g.op("Sub", self._distance(poses, count), s.margin_m)
        clear = self._before(g.op("GreaterOrEqual", distance, 0.0))  # (K, T) 1 before the first touch
        free_s = g.op("MatMul", clear, self._dt_s[:, None])  # (K, 1)
        cost = g.op("Mul", g.op("Sub", 1.0, g.op("Mul", free_s, 1 / self._time_s[-1])), s.collision_weight)
        at_least = g.op("Max", clear, np.eye(1, self._steps, dtype=np.float32))  # the first step counts always
        counted = g.op("Mul", at_least, self._dt_s)
        closeness = g.op("Exp", g.op("Mul", g.op("Relu", distance), -1 / s.clearance_decay_m))
        close = g.reduce("ReduceSum", g.op("Mul", closeness, counted), keep=True)
        mean = g.op("Div", close, g.reduce("ReduceSum", counted, keep=True))
        cost = g.op("Add", cost, g.op("Mul", mean, s.clearance_weight))
        for doubt in self._doubts(poses, count):
            cost = g.op("Add", cost, doubt)
        forbidden = self._forbidden(first, commands, distance, clear, free_s, count)
        cost = g.op("Add", cost, g.op("Mul", forbidden, s.forbidden))
        cost = cost if c.geometry else g.op("Mul", cost, 0.0)
        if c.progress:
            clear, at_least = (
                (clear, at_least) if c.geometry else (g.op("Add", g.op("Mul", x, 0.0), 1.0) for x in (clear, at_least))
            )
            gain = g.op("Sub", self._progress(poses, clear, at_least, count), self._change(first))
            has_route = g.slice("route_length", 1, 2, 0)
            cost = g.op("Sub", cost, g.op("Mul", gain, has_route))
        return g.reshape(cost, count)

    # -- where plans lead ------------------------------------------------------------------------------------------

    def _commands(self, actions: str, count: int) -> list[str]:
        """(K, 3) velocities that are commanded at each tick."""
        g, b = self.g, self._body
        x, y, turn = g.split(g.op("Clip", actions, -1.0, 1.0), [1, 1, 1], axis=2)
        ahead = g.op("Mul", g.op("Relu", x), b["ahead_mps"])
        vx = g.op("Add", ahead, g.op("Mul", g.op("Min", x, 0.0), b["back_mps"]))
        both = g.concat(vx, g.op("Mul", y, b["side_mps"]), g.op("Mul", turn, b["turn_radps"]), axis=2)
        return [g.reshape(part, count, ACTION_SIZE) for part in g.split(both, [1] * self.c.horizon, axis=1)]

    def _velocities(self, commands: list[str], count: int) -> str:
        """(K, T, 3) velocities of a robot that follows as a first-order lag within its acceleration limits."""
        g, b = self.g, self._body
        now, found = g.expand(g.reshape("twist", 1, 3), count, 3), []
        for t in range(self._steps):
            kind = "tick" if t < self.c.horizon else "tail"
            wanted = commands[min(t, self.c.horizon - 1)]
            change = g.op("Mul", g.op("Sub", wanted, now), b[f"{kind}_blend"])
            planar, turn = g.split(change, [2, 1])
            size = g.op("Max", g.reduce("ReduceL2", planar, keep=True), 1e-6)
            planar = g.op("Mul", planar, g.op("Min", g.op("Div", b[f"{kind}_change"], size), 1.0))
            most = b[f"{kind}_turn"]
            turn = g.op("Min", g.op("Max", turn, g.op("Neg", most)), most)
            now = g.op("Add", now, g.concat(planar, turn, axis=1))
            found.append(g.reshape(now, count, 1, 3))
        return g.concat(*found, axis=1)

    def _poses(self, velocities: str, count: int) -> Poses:
        g = self.g
        parts = (g.reshape(part, count, self._steps) for part in g.split(velocities, [1, 1, 1], axis=2))
        vx, vy, turned = (g.op("Mul", part, self._dt_s) for part in parts)
        yaw = g.op("MatMul", turned, self._until)
        middle = g.op("Sub", yaw, g.op("Mul", turned, 0.5))
        cos, sin = g.op("Cos", middle), g.op("Sin", middle)
        dx = g.op("Sub", g.op("Mul", vx, cos), g.op("Mul", vy, sin))
        dy = g.op("Add", g.op("Mul", vx, sin), g.op("Mul", vy, cos))
        x, y = (g.op("MatMul", part, self._until) for part in (dx, dy))
        return Poses(x, y, yaw, g.op("Cos", yaw), g.op("Sin", yaw))

    # -- how near it comes to what stands and moves ----------------------------------------------------------------

    def _distance(self, poses: Poses, count: int) -> str:
        """(K, T) from the footprint to the nearest of all, movers carried forward."""
        g = self.g
        x, y, vx, vy, radius = self._movers
        time = self._time_s.astype(np.float32)[:, None]
        centre = (g.op("Add", x, g.op("Mul", vx, time)), g.op("Add", y, g.op("Mul", vy, time)))  # (T, M)
        grown = g.op("Add", radius, self.c.sweep.growth_mps * time)
        still = self._to_field(poses, count, self._steps)
        return g.op("Min", still, self._to_movers(poses, centre, grown, count, self._steps))

    def _to_field(self, poses: Poses, count: int, steps: int) -> str:
        g = self.g
        x, y, _, cos, sin = (g.reshape(part, count, steps, 1) for part in poses)
        sx, sy, radius = self._spots
        at_x = g.op("Add", x, g.op("Sub", g.op("Mul", cos, sx), g.op("Mul", sin, sy)))
        at_y = g.op("Add", y, g.op("Add", g.op("Mul", sin, sx), g.op("Mul", cos, sy)))
        rows = count * steps
        at = g.concat(*(g.reshape(part, 1, rows, -1, 1) for part in (at_x, at_y)), axis=3)
        at = g.op("Div", at, self._body["field_half_m"])
        found = g.op("GridSample", self._field, at, align_corners=1, mode="linear", padding_mode="border")
        found = g.op("Sub", g.reshape(found, rows, -1), radius)
        return g.reshape(g.reduce("ReduceMin", found), count, steps)

    def _to_movers(self, poses: Poses, centre: tuple[str, str], radius: str, count: int, steps: int) -> str:
        g, b = self.g, self._body
        x, y, _, cos, sin = (g.reshape(part, count, steps, 1) for part in poses)
        dx, dy = g.op("Sub", centre[0], x), g.op("Sub", centre[1], y)  # (K, T, M)
        ahead = g.op("Add", g.op("Mul", dx, cos), g.op("Mul", dy, sin))
        beside = g.op("Sub", g.op("Mul", dy, cos), g.op("Mul", dx, sin))
        ahead = g.op("Sub", g.op("Abs", ahead), b["half_length"])
        beside = g.op("Sub", g.op("Abs", beside), b["half_width"])
        over, past = g.op("Relu", ahead), g.op("Relu", beside)
        outside = g.op("Sqrt", g.op("Add", g.op("Mul", over, over), g.op("Mul", past, past)))
        inside = g.op("Min", g.op("Max", ahead, beside), 0.0)
        return g.reduce("ReduceMin", g.op("Sub", g.op("Add", outside, inside), radius))

    def _here(self) -> tuple[str, str]:
        """(1, 1) distances of the footprint where it is to what stands, and to what moves."""
        g = self.g
        zero, one = g.constant(np.zeros((1, 1), np.float32)), g.constant(np.ones((1, 1), np.float32))
        poses = Poses(zero, zero, zero, one, zero)
        x, y, _, _, radius = self._movers
        return self._to_field(poses, 1, 1), self._to_movers(poses, (x, y), radius, 1, 1)

    def _doubts(self, poses: Poses, count: int) -> list[str]:
        """(K, 1) prices of touching soon somebody who stops now, and somebody who turns back now."""
        g, s, soon = self.g, self.c.sweep, self._soon
        if not soon or not (s.stop_weight or s.turn_weight):
            return []
        poses = Poses(*(g.slice(part, 0, soon, 1) for part in poses))
        x, y, vx, vy, radius = self._movers
        time = -self._time_s[:soon].astype(np.float32)[:, None]
        back = (g.op("Add", x, g.op("Mul", vx, time)), g.op("Add", y, g.op("Mul", vy, time)))
        seconds = self._dt_s[:soon].copy()
        seconds[-1] += s.doubt_s - self._time_s[soon - 1]  # untouched is safe for all of it
        found = []
        for weight, centre in ((s.stop_weight, (x, y)), (s.turn_weight, back)):
            apart = self._to_movers(poses, centre, radius, count, soon)
            clear = self._before(g.op("GreaterOrEqual", apart, s.margin_m))
            safe = g.op("MatMul", clear, seconds[:, None] / s.doubt_s)
            found.append(g.op("Mul", g.op("Relu", g.op("Sub", 1.0, safe)), weight))
        return found

    def _before(self, holds: str) -> str:
        """(K, T) 1 as long as a condition (K, T) held at all steps so far."""
        g = self.g
        broken = g.op("Cast", g.op("Not", holds), to=1)
        return g.op("Cast", g.op("Less", g.op("CumSum", broken, np.array(1, np.int64)), 0.5), to=1)

    def _forbidden(self, first: str, commands: list[str], distance: str, clear: str, free_s: str, count: int) -> str:
        """(K, 1) 1 for plans that touch something before the robot can have braked."""
        g, b = self.g, self._body
        touches = g.op("Less", g.slice(clear, self._steps - 1, self._steps, 1), 0.5)
        planar, turn = g.split(first, [2, 1])
        planar = g.op("Div", g.reduce("ReduceL2", planar, keep=True), g.op("Mul", b["braking_mps2"], 2.0))
        turn = g.op("Div", g.op("Abs", turn), g.op("Mul", b["braking_radps2"], 2.0))
        braking = g.op("Add", g.op("Max", planar, turn), b["braking_s"])
        forbidden = g.op("And", touches, g.op("LessOrEqual", free_s, braking))
        here = g.op("Sub", g.op("Min", self._still_m, self._moving_m), self.c.sweep.margin_m)
        at = min(1, self._steps - 1)
        leads_away = g.op("Greater", g.slice(distance, at, at + 1, 1), g.op("Add", here, ESCAPE_M))
        welcome = g.op("And", g.op("Less", here, 0.0), leads_away)
        fastest = g.reduce("ReduceMax", g.op("Abs", g.concat(*commands, axis=1)), keep=True)
        forbidden = g.op("And", forbidden, g.op("And", g.op("Not", welcome), g.op("Greater", fastest, 0.0)))
        return g.op("Cast", forbidden, to=1)

    # -- what it gains ---------------------------------------------------------------------------------------------

    def _progress(self, poses: Poses, clear: str, at_least: str, count: int) -> str:
        """(K, 1) progress along the route at the last step before the first touch, less prices of being off it."""
        g, p, points = self.g, self.c.route, self.layout.route_points
        following = g.op("Pad", g.slice(at_least, 1, self._steps, 1), np.array([0, 0, 0, 1], np.int64))
        last = g.op("Sub", at_least, following)  # 1 at the last step that counts
        x, y, cos, sin = (
            g.reduce("ReduceSum", g.op("Mul", part, last), keep=True)
            for part in (poses.x, poses.y, poses.cos, poses.sin)
        )
        line = g.slice("route", 0, points, 0)
        lx, ly = (g.reshape(part, points) for part in g.split(line, [1, 1], axis=1))
        dx, dy = g.op("Sub", lx, x), g.op("Sub", ly, y)  # (K, N)
        square = g.op("Add", g.op("Mul", dx, dx), g.op("Mul", dy, dy))
        nearest = g.op("ArgMin", square, axis=1, keepdims=1)
        beside = g.op("Sqrt", g.reduce("ReduceMin", square, 1, keep=True))
        ahead = g.op("Min", g.op("Add", nearest, np.array(AIM_POINTS, np.int64)), np.array(points - 1, np.int64))
        ax, ay = (g.op("Sub", g.op("Gather", part, ahead, axis=0), at) for part, at in ((lx, x), (ly, y)))
        length = g.op("Sqrt", g.op("Add", g.op("Mul", ax, ax), g.op("Mul", ay, ay)))
        along = g.op("Add", g.op("Mul", ax, cos), g.op("Mul", ay, sin))
        cosine = g.op("Clip", g.op("Div", along, g.op("Max", length, 1e-6)), -1.0, 1.0)
        off = g.op("Where", g.op("Less", length, NEAR_M), 0.0, g.op("Acos", cosine))
        gain = g.op("Mul", g.op("Cast", nearest, to=1), STEP_M)
        gain = g.op("Sub", gain, g.op("Mul", beside, p.route_weight))
        gain = g.op("Sub", gain, g.op("Mul", off, p.heading_weight))
        ex, ey = g.split(g.slice("route", points, points + 1, 0), [1, 1], axis=1)
        ex, ey = g.op("Sub", poses.x, ex), g.op("Sub", poses.y, ey)  # (K, T)
        near = g.op("Less", g.op("Add", g.op("Mul", ex, ex), g.op("Mul", ey, ey)), p.arrival_m**2)
        there = g.op("Mul", g.op("Cast", near, to=1), clear)
        left_s = (self._time_s[-1] - self._time_s).astype(np.float32)
        left = g.reduce("ReduceMax", g.op("Mul", there, left_s), 1, keep=True)
        arrived = g.op("Greater", g.reduce("ReduceMax", there, 1, keep=True), 0.5)
        whole = g.op("Add", g.slice("route_length", 0, 1, 0), g.op("Mul", left, self._body["ahead_mps"]))
        return g.op("Where", arrived, whole, gain)

    def _change(self, first: str) -> str:
        """(K, 1) price of first commands (K, 3) that differ from the last one or go sideways."""
        g, p = self.g, self.c.route
        planar, turn = g.split(g.op("Sub", first, "last_command"), [2, 1])
        apart = g.op("Add", g.reduce("ReduceL2", planar, keep=True), g.op("Mul", g.op("Abs", turn), 1 / 3))
        price = g.op("Mul", apart, p.change_weight)
        if p.side_weight:
            price = g.op("Add", price, g.op("Mul", g.op("Abs", g.slice(first, 1, 2, 1)), p.side_weight))
        return price
