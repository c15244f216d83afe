"""What plans cost by geometry and gain along the route, in a graph: `robonav.planning.sweep` and `progress`.

The footprint is swept through a `robonav.planning.field.LocalField`. Where numpy asks for a first index, the graph
keeps a mask of the steps before it: sums over the mask are what the index would have looked up.

Shape letters: K plans, L horizon, T steps of the sweep, A action size, M movers, N route points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.graph import Graph, Operand
from policies.planner_layout import BODY, PlannerLayout
from robonav.planning.field import CELLS, FAR_M, MOVERS
from robonav.planning.progress import AIM_POINTS, NEAR_M, SLOW, STEP_M
from robonav.planning.sweep import ESCAPE_M

Array = NDArray[np.float32]


class Poses(NamedTuple):
    """Names of (T, K) tensors."""

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
        self._until = np.tril(np.ones((self._steps, self._steps), np.float32))  # sums up to and with each step
        self._soon = int(np.searchsorted(self._time_s, sweep.doubt_s + 1e-6))
        self._body = dict(zip(BODY, g.split("body", [1] * len(BODY), axis=0), strict=True))
        b = self._body
        self._most = {
            kind: g.reshape(g.concat(b[f"{kind}_change"], b[f"{kind}_change"], b[f"{kind}_turn"], axis=0), 1, 3, 1)
            for kind in ("tick", "tail")
        }
        self._field = g.reshape("field", 1, 1, CELLS, CELLS)
        sx, sy, self._spot_radius = (g.reshape(part, -1) for part in g.split("spots", [1, 1, 1], axis=1))
        self._spots = self._spot_matrix(sx, sy)
        numbers = layout.mover_numbers
        parts = [g.reshape(part, 1, MOVERS, 1) for part in g.split("movers", [1] * numbers, axis=1)]
        self._movers, self._until_s = parts[:5], parts[5:]  # the last one only where walls count
        self._here_m = self._here()

    def price(self, actions: str, count: int) -> str:
        """(K,) prices of plans (K, L, A); less is better."""
        g, c, s = self.g, self.c, self.c.sweep
        commands = self._commands(actions, count)
        first = g.reshape(commands[0], 3, count)
        poses = self._poses(self._velocities(commands, count), count)
        to_field, to_movers = self._distances(poses, count)
        distance = g.op("Sub", g.op("Min", to_field, to_movers), s.margin_m)
        clear = self._before(g.op("GreaterOrEqual", distance, 0.0))  # (T, K) 1 before the first touch
        free_s = g.op("MatMul", self._dt_s[None], clear)  # (1, K)
        cost = g.op("Mul", g.op("Sub", 1.0, g.op("Mul", free_s, 1 / self._time_s[-1])), s.collision_weight)
        at_least = g.op("Max", clear, np.eye(self._steps, 1, dtype=np.float32))  # the first step counts always
        closeness = g.op("Exp", g.op("Mul", g.op("Relu", distance), -1 / s.clearance_decay_m))
        close = g.op("MatMul", self._dt_s[None], g.op("Mul", closeness, at_least))
        mean = g.op("Div", close, g.op("MatMul", self._dt_s[None], at_least))
        cost = g.op("Add", cost, g.op("Mul", mean, s.clearance_weight))
        if s.risk_weight:
            cost = g.op("Add", cost, self._risk(to_movers))
        for doubt in self._doubts(poses, count):
            cost = g.op("Add", cost, doubt)
        forbidden = self._forbidden(first, commands, distance, clear, free_s)
        cost = g.op("Add", cost, g.op("Mul", forbidden, s.forbidden))
        if not c.geometry:
            cost = g.op("Mul", cost, 0.0)
            clear = at_least = g.expand(np.ones((1, 1), np.float32), self._steps, count)
        if c.progress:
            gain = g.op("Sub", self._progress(poses, clear, at_least, count), self._change(first))
            cost = g.op("Sub", cost, g.op("Mul", gain, g.slice("route_length", 1, 2, 0)))
        return g.reshape(cost, count)

    # -- where plans lead ------------------------------------------------------------------------------------------

    def _commands(self, actions: str, count: int) -> list[str]:
        """For each tick the velocities (1, 3, K) that are commanded."""
        g, b = self.g, self._body
        clipped = g.op("Transpose", g.op("Clip", actions, -1.0, 1.0), perm=[1, 2, 0])
        x, rest = g.split(clipped, [1, 2], axis=1)
        ahead = g.op("Mul", g.op("Relu", x), b["ahead_mps"])
        vx = g.op("Add", ahead, g.op("Mul", g.op("Min", x, 0.0), b["back_mps"]))
        limits = g.reshape(g.concat(b["side_mps"], b["turn_radps"], axis=0), 1, 2, 1)
        both = g.concat(vx, g.op("Mul", rest, limits), axis=1)
        return list(g.split(both, [1] * self.c.horizon, axis=0))

    def _velocities(self, commands: list[str], count: int) -> str:
        """(T, 3, K) velocities of a robot that follows as a first-order lag within its acceleration limits.

        A change that is too large is scaled down: along the ground by its length, and the turn by its own size.
        """
        g, b = self.g, self._body
        together = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
        now, found = g.expand(g.reshape("twist", 1, 3, 1), 1, 3, count), []
        for t in range(self._steps):
            kind = "tick" if t < self.c.horizon else "tail"
            wanted = commands[min(t, self.c.horizon - 1)]
            change = g.op("Mul", g.op("Sub", wanted, now), b[f"{kind}_blend"])
            size = g.op("Sqrt", g.op("MatMul", together, g.op("Mul", change, change)))
            share = g.op("Min", g.op("Div", self._most[kind], size), 1.0)  # infinite, so 1, where nothing changes
            now = g.op("Add", now, g.op("Mul", change, share))
            found.append(now)
        return g.concat(*found, axis=0)

    def _poses(self, velocities: str, count: int) -> Poses:
        g = self.g
        scaled = g.op("Mul", velocities, self._dt_s[:, None, None])
        vx, vy, turned = (g.reshape(part, self._steps, count) for part in g.split(scaled, [1, 1, 1], axis=1))
        yaw = g.op("MatMul", self._until, turned)
        middle = g.op("Sub", yaw, g.op("Mul", turned, 0.5))
        cos, sin = g.op("Cos", middle), g.op("Sin", middle)
        dx = g.op("Sub", g.op("Mul", vx, cos), g.op("Mul", vy, sin))
        dy = g.op("Add", g.op("Mul", vx, sin), g.op("Mul", vy, cos))
        x, y = (g.op("MatMul", self._until, part) for part in (dx, dy))
        return Poses(x, y, yaw, g.op("Cos", yaw), g.op("Sin", yaw))

    # -- how near it comes to what stands and moves ----------------------------------------------------------------

    def _distances(self, poses: Poses, count: int) -> tuple[str, str]:
        """(T, K) from the footprint to what stands, and to the nearest mover, movers carried forward."""
        g = self.g
        x, y, vx, vy, radius = self._movers
        time = self._time_s.astype(np.float32)[:, None, None]
        carried: Operand = g.op("Min", time, *self._until_s) if self._until_s else time
        centre = (g.op("Add", x, g.op("Mul", vx, carried)), g.op("Add", y, g.op("Mul", vy, carried)))  # (T, M, 1)
        grown = g.op("Add", radius, self.c.sweep.growth_mps * time)
        near = self._to_movers(poses, centre, grown, count, self._steps, MOVERS)
        return self._to_field(poses, count, self._steps), near

    def _risk(self, to_movers: str) -> str:
        """(1, K) price of coming near to movers, by distances (T, K); see `SweepConfig.risk_weight`."""
        g, s, time = self.g, self.c.sweep, self._time_s.astype(np.float32)[:, None]
        apart = g.op("Relu", g.op("Sub", to_movers, s.margin_m))
        near = g.op("Exp", g.op("Mul", apart, -1.0 / (s.risk_m + s.risk_mps * time)))
        later = g.op("Mul", near, 1.0 - time / time[-1])
        return g.op("Mul", g.reduce("ReduceMax", later, 0, keep=True), s.risk_weight)

    def _spot_matrix(self, sx: str, sy: str) -> str:
        """(4, 14) from x, y, cos, sin of a pose to x, y of all spots, in halves of the field."""
        g, spots = self.g, 7
        one, none = np.ones(spots, np.float32), np.zeros(spots, np.float32)
        rows: list[tuple[Operand, Operand]] = [(one, none), (none, one), (sx, sy), (g.op("Neg", sy), sx)]
        columns = [g.concat(*(g.op("Reshape", v, np.array([spots, 1])) for v in row), axis=1) for row in rows]
        matrix = g.concat(*(g.reshape(column, 1, 2 * spots) for column in columns), axis=0)
        return g.op("Div", matrix, self._body["field_half_m"])

    def _to_field(self, poses: Poses, count: int, steps: int) -> str:
        g, rows = self.g, count * steps
        stacked = g.concat(*(g.reshape(p, rows, 1) for p in (poses.x, poses.y, poses.cos, poses.sin)), axis=1)
        at = g.reshape(g.op("MatMul", stacked, self._spots), 1, rows, 7, 2)
        found = g.op("GridSample", self._field, at, align_corners=1, mode="linear", padding_mode="border")
        found = g.op("Sub", g.reshape(found, steps, 7 * count), g.reshape(g.expand(self._spot_radius, count, 7), -1))
        return g.reshape(g.reduce("ReduceMin", g.reshape(found, rows, 7)), steps, count)

    def _to_movers(self, poses: Poses, centre: tuple[str, str], radius: str, count: int, steps: int, n: int) -> str:
        """(T, K) to discs with centres (T, n, 1); for several sets of discs one behind the other (T, sets, K)."""
        g, b = self.g, self._body
        cos, sin = (g.reshape(part, steps, 1, count) for part in (poses.cos, poses.sin))
        along = g.op("Add", g.op("Mul", poses.cos, poses.x), g.op("Mul", poses.sin, poses.y))
        across = g.op("Sub", g.op("Mul", poses.cos, poses.y), g.op("Mul", poses.sin, poses.x))
        minus = np.full((steps, n, 1), -1.0, np.float32)
        x, y = (g.expand(part, steps, n, 1) for part in centre)
        local = []
        for share, columns, half in (
            (along, (x, y, minus), b["half_length"]),
            (across, (y, g.op("Neg", x), minus), b["half_width"]),
        ):
            poses_of = g.concat(cos, sin, g.reshape(share, steps, 1, count), axis=1)
            at = g.op("MatMul", g.concat(*columns, axis=2), poses_of)  # (T, n, K) in the robot's frame
            local.append(g.op("Sub", g.op("Abs", at), half))
        over, past = (g.op("Relu", part) for part in local)
        outside = g.op("Sqrt", g.op("Add", g.op("Mul", over, over), g.op("Mul", past, past)))
        inside = g.op("Min", g.op("Max", *local), 0.0)
        apart = g.op("Sub", g.op("Add", outside, inside), radius)
        if n == MOVERS:
            return g.reduce("ReduceMin", apart, 1)
        return g.reduce("ReduceMin", g.reshape(apart, steps, n // MOVERS, MOVERS, count), 2)

    def _here(self) -> str:
        """(1, 1) distance of the footprint where it is to what stands and moves, less its margin."""
        g = self.g
        zero, one = g.constant(np.zeros((1, 1), np.float32)), g.constant(np.ones((1, 1), np.float32))
        poses = Poses(zero, zero, zero, one, zero)
        x, y, _, _, radius = self._movers
        moving = self._to_movers(poses, (x, y), radius, 1, 1, MOVERS)
        return g.op("Sub", g.op("Min", self._to_field(poses, 1, 1), moving), self.c.sweep.margin_m)

    def _doubts(self, poses: Poses, count: int) -> list[str]:
        """(1, K) price of touching soon somebody whose velocity changes now (`SweepConfig.doubts`)."""
        g, s, soon = self.g, self.c.sweep, self._soon
        doubts = s.doubts
        if not soon or not doubts:
            return []
        sets = len(doubts)
        poses = Poses(*(g.slice(part, 0, soon, 0) for part in poses))
        x, y, vx, vy, radius = self._movers
        time = self._time_s[:soon].astype(np.float32)[:, None, None]
        xs, ys = [], []
        for turn, _ in doubts:  # (x + iy) + turn (vx + i vy) t
            xs.append(self._carried(x, ((vx, turn.real), (vy, -turn.imag)), time))
            ys.append(self._carried(y, ((vx, turn.imag), (vy, turn.real)), time))
        at = g.concat(*xs, axis=1), g.concat(*ys, axis=1)
        apart = self._to_movers(poses, at, g.concat(*[radius] * sets, axis=1), count, soon, sets * MOVERS)
        clear = self._before(g.op("GreaterOrEqual", g.reshape(apart, soon, sets * count), s.margin_m))
        seconds = self._dt_s[:soon].copy()
        seconds[-1] += s.doubt_s - self._time_s[soon - 1]  # untouched is safe for all of it
        safe = g.op("MatMul", seconds[None] / s.doubt_s, clear)
        prices = g.reshape(g.op("Relu", g.op("Sub", 1.0, safe)), sets, count)
        return [g.op("MatMul", np.array([[weight for _, weight in doubts]], np.float32), prices)]

    def _carried(self, place: str, speeds: tuple[tuple[str, float], ...], time_s: Array) -> str:
        """(T, M, 1) where movers are at times (T, 1, 1) under a sum of velocities times factors."""
        g = self.g
        for speed, factor in speeds:
            if factor:
                place = g.op("Add", place, g.op("Mul", speed, np.float32(factor) * time_s))
        return g.expand(place, len(time_s), MOVERS, 1)

    def _before(self, holds: str) -> str:
        """(T, K) 1 as long as a condition (T, K) held at all steps so far."""
        g = self.g
        broken = g.op("CumSum", g.op("Cast", g.op("Not", holds), to=1), np.array(0, np.int64))
        return g.op("Cast", g.op("Less", broken, 0.5), to=1)

    def _forbidden(self, first: str, commands: list[str], distance: str, clear: str, free_s: str) -> str:
        """(1, K) 1 for plans that touch something before the robot can have braked."""
        g, b = self.g, self._body
        touches = g.op("Less", g.slice(clear, self._steps - 1, self._steps, 0), 0.5)
        planar, turn = g.split(first, [2, 1], axis=0)
        planar = g.op("Div", g.reduce("ReduceL2", planar, 0, keep=True), g.op("Mul", b["braking_mps2"], 2.0))
        turn = g.op("Div", g.op("Abs", turn), g.op("Mul", b["braking_radps2"], 2.0))
        braking = g.op("Add", g.op("Max", planar, turn), b["braking_s"])
        forbidden = g.op("And", touches, g.op("LessOrEqual", free_s, braking))
        at = min(1, self._steps - 1)
        leads_away = g.op("Greater", g.slice(distance, at, at + 1, 0), g.op("Add", self._here_m, ESCAPE_M))
        welcome = g.op("And", g.op("Less", self._here_m, 0.0), leads_away)
        size = g.op("Abs", g.reshape(g.concat(*commands, axis=0), 3 * self.c.horizon, -1))
        moves = g.op("Greater", g.reduce("ReduceMax", size, 0, keep=True), 0.0)
        forbidden = g.op("And", forbidden, g.op("And", g.op("Not", welcome), moves))
        return g.op("Cast", forbidden, to=1)

    # -- what it gains ---------------------------------------------------------------------------------------------

    def _progress(self, poses: Poses, clear: str, at_least: str, count: int) -> str:
        """(1, K) progress along the route at the last step before the first touch, less prices of being off it."""
        g, p, points = self.g, self.c.route, self.layout.route_points
        following = g.op("Pad", g.slice(at_least, 1, self._steps, 0), np.array([0, 0, 1, 0], np.int64))
        last = g.op("Sub", at_least, following)  # 1 at the last step that counts
        x, y, cos, sin = (
            g.reshape(g.reduce("ReduceSum", g.op("Mul", part, last), 0), count, 1)
            for part in (poses.x, poses.y, poses.cos, poses.sin)
        )
        lx, ly = (g.reshape(part, points) for part in g.split(g.slice("route", 0, points, 0), [1, 1], axis=1))
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
        along_m = g.op("Mul", g.op("Cast", nearest, to=1), STEP_M)
        gain = g.op("Sub", along_m, g.op("Mul", beside, p.route_weight))
        gain = g.op("Sub", gain, g.op("Mul", off, p.heading_weight))
        if p.turn_round_weight:
            rest = g.op("Sub", g.slice("route_length", 0, 1, 0), along_m)
            nobody = g.op("GreaterOrEqual", g.reduce("ReduceMin", self._movers[0], 1), FAR_M)
            weight = g.op("Mul", g.reshape(g.op("Cast", nobody, to=1), 1, 1), p.turn_round_weight)
            gain = g.op("Sub", gain, g.op("Mul", self._turning(off, rest), weight))
        gain = g.reshape(gain, 1, count)
        ex, ey = g.split(g.slice("route", points, points + 1, 0), [1, 1], axis=1)
        ex, ey = g.op("Sub", poses.x, ex), g.op("Sub", poses.y, ey)  # (T, K)
        near = g.op("Less", g.op("Add", g.op("Mul", ex, ex), g.op("Mul", ey, ey)), p.arrival_m**2)
        there = g.op("Mul", g.op("Cast", near, to=1), clear)
        left_s = (self._time_s[-1] - self._time_s).astype(np.float32)[:, None]
        left = g.reduce("ReduceMax", g.op("Mul", there, left_s), 0, keep=True)
        arrived = g.op("Greater", g.reduce("ReduceMax", there, 0, keep=True), 0.5)
        whole = g.op("Add", g.slice("route_length", 0, 1, 0), g.op("Mul", left, self._body["ahead_mps"]))
        return g.op("Where", arrived, whole, gain)

    def _turning(self, off: str, rest: str) -> str:
        """(K, 1) what looking away from the route costs; see `robonav.planning.progress.turning_m`."""
        g = self.g
        full, back, rate = (g.op("Max", self._body[name], SLOW) for name in ("ahead_mps", "back_mps", "turn_radps"))
        longer = g.op("Relu", g.op("Sub", g.op("Div", full, back), 1.0))
        turn = g.op("Mul", g.op("Relu", g.op("Sub", off, np.pi / 2)), g.op("Div", full, rate))
        return g.op("Min", turn, g.op("Mul", g.op("Relu", rest), longer))

    def _change(self, first: str) -> str:
        """(1, K) price of first commands (3, K) that differ from the last one or go sideways."""
        g, p = self.g, self.c.route
        planar, turn = g.split(g.op("Sub", first, g.reshape("last_command", 3, 1)), [2, 1], axis=0)
        apart = g.op("Add", g.reduce("ReduceL2", planar, 0, keep=True), g.op("Mul", g.op("Abs", turn), 1 / 3))
        price = g.op("Mul", apart, p.change_weight)
        if p.side_weight:
            price = g.op("Add", price, g.op("Mul", g.op("Abs", g.slice(first, 1, 2, 0)), p.side_weight))
        return price
