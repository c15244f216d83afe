"""Which route: several distinct ones are compared, the present one is kept unless another is clearly better.

A candidate's score is what imagination says of it (`robonav.imagination.route_dreams`, handed in) less the price of its
rest: metres of way beyond the cheapest candidate's. Ways out of dead ends and past blocked doors are candidates like
all others, and no script:

- Where the robot did not get on for some seconds, or where something stands now on the way that it was on, there is a
  blockage: a route through it is dearer, at first by a fixed number of metres, which halve with time and add up when it
  happens again. So the robot looks for another opening, does not turn back as soon as the first one looks free, and
  comes back when the others were worse.
- Where nothing leads to the goal, routes may cross ground that was seen free once and is occupied now (someone came to
  stand there, a door closed): it may be free again.
- While the robot does not get on, waiting is a candidate too, with an imagined return of its own.

The chooser holds constants only; its memory goes in and comes out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.mapping import OccupancyGrid, build_costmap
from robonav.mapping.costmap import Costmap
from robonav.planning.alternatives import (
    Alternative,
    AlternativesConfig,
    Blockage,
    alternatives,
    enclosed_m2,
    lethal_at_m,
    measured,
    priced,
)
from robonav.planning.routes import points_at
from robonav.planning.situation import Situation, SituationTracker
from robonav.types import Observation, PolicyInput

Route = NDArray[np.float32]
_SURELY_FREE = -1.0  # log-odds: three passes more than hits
_BLOCKAGES = 8  # the newest are remembered


@dataclass(frozen=True, slots=True)
class RouteChoiceConfig:
    """Prices, patience and what is looked at. Scores are in units of return, of which a metre of progress is 0.1."""

    imagination: bool = True
    """Whether what is dreamt counts: rewards and value, as `robonav.imagination.route_dreams` is told."""
    rest: bool = True
    """Whether the rest of the route counts."""
    escape: bool = True
    """Whether blockages are remembered, and ground that changed may be crossed."""
    wait: bool = True
    """Whether waiting is a candidate."""
    price_per_m: float = 0.1
    """Return that a metre beyond the cheapest candidate costs."""
    margin: float = 0.2
    """How much better another route must be."""
    settle_s: float = 3.0
    """Least time between two switches, unless the present route is lost."""
    stuck_s: float = 4.0
    """Time without getting on after which the place ahead is a blockage."""
    stuck_radius_m: float = 0.4
    """Getting on is leaving a circle of this radius."""
    blockage_ahead_m: float = 0.7
    """How far ahead on the route the blockage lies."""
    blockage_price_m: float = 20.0
    """Metres of way that it is worth to avoid a new blockage."""
    blockage_half_life_s: float = 60.0
    """Time after which half of that is left."""
    changed_price_m: float = 10.0
    """Metres of way that it is worth not to count on ground being free again."""
    wait_after_s: float = 1.5
    """Time without getting on after which waiting is a candidate."""
    wait_price_per_s: float = 0.1
    """Return that a second without getting on takes off waiting."""
    alternatives: AlternativesConfig = field(default_factory=AlternativesConfig)

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        names = ("price_per_m", "margin", "settle_s", "blockage_ahead_m", "blockage_price_m", "changed_price_m")
        require_at_least(self, dict.fromkeys((*names, "wait_after_s", "wait_price_per_s"), 0))
        for name in ("stuck_s", "stuck_radius_m", "blockage_half_life_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(explain(f"routes: {name}", "above 0", getattr(self, name)))


class Dreams(Protocol):
    """Imagines candidates: see `robonav.imagination.route_dreams`."""

    def __call__(self, inputs: Sequence[PolicyInput], waits: Sequence[bool]) -> NDArray[np.float32]:
        """(K,) imagined returns of following the routes in these inputs, or of waiting."""


class RouteMemory(NamedTuple):
    """What the chooser remembers. Times are seconds of the observations' clock."""

    route_odom_m: Route | None = None  # that was chosen
    waits: bool = False  # whether the robot shall stay where it is until the next plan
    switched_s: float = -math.inf
    anchor: tuple[float, float, float] | None = None  # x, y in odom and when the robot came there
    blockages: tuple[tuple[float, float, float], ...] = ()  # x, y in odom, when
    freest: OccupancyGrid | None = None  # the lowest log-odds that each cell ever had at a plan


class Candidate(NamedTuple):
    """A route that may be taken."""

    way: Alternative
    kind: str  # "route", "present", "changed" or "wait"


class Choice(NamedTuple):
    """What was compared at a plan, for the log."""

    candidates: tuple[Candidate, ...]
    scores: tuple[float, ...]
    chosen: int
    switched: bool

    def details(self) -> dict[str, float]:
        """Scalars for `Decision.details`."""
        out = {"routes": float(len(self.candidates)), "route_switched": float(self.switched)}
        for k, (candidate, score) in enumerate(zip(self.candidates, self.scores, strict=True)):
            out[f"route{k}_score"], out[f"route{k}_length_m"] = score, candidate.way.length_m
        return out | {"route_chosen": float(self.chosen)}


class RouteChooser:
    """Chooses after each plan of a `SituationTracker`, in whose place it decides on the route."""

    def __init__(self, tracker: SituationTracker, config: RouteChoiceConfig | None = None) -> None:
        self.tracker, self.config = tracker, config or RouteChoiceConfig()

    def reset(self) -> RouteMemory:
        """Nothing remembered."""
        return RouteMemory()

    def choose(
        self, memory: RouteMemory, situation: Situation, observation: Observation, dreams: Dreams | None = None
    ) -> tuple[RouteMemory, Situation, Choice | None]:
        """Memory and situation with the chosen route, and what was compared; None between two plans.

        Args:
            memory: of the tick before.
            situation: after `SituationTracker.update`; the one that comes out must go into the next update.
            observation: of this tick.
            dreams: imagines; None: routes are compared by their length and surroundings alone.
        """
        memory = self._watched(memory, situation, observation)
        if situation.ticks_since_plan:
            return memory, situation, None
        candidates, kept, memory = self._candidates(memory, situation, observation)
        if not candidates:
            nowhere = memory._replace(route_odom_m=None, waits=False)  # what to do then is the local planner's matter
            return nowhere, self.tracker.with_route(situation, None, observation), None
        scores = self._scores(candidates, memory, situation, observation, dreams)
        now_s, c = observation.stamp_ns * 1e-9, self.config
        best = int(scores.argmax())
        if kept is not None and candidates[best].kind != "wait" and best != kept:
            early = now_s - memory.switched_s < c.settle_s
            best = kept if early or scores[best] < scores[kept] + c.margin else best
        waits = candidates[best].kind == "wait"
        switched = not waits and memory.route_odom_m is not None and best != kept
        route = candidates[best].way.route_odom_m
        if switched:
            memory = memory._replace(switched_s=now_s)
        memory = memory._replace(route_odom_m=route, waits=waits)
        choice = Choice(tuple(candidates), tuple(float(s) for s in scores), best, switched)
        return memory, self.tracker.with_route(situation, route, observation), choice

    def _watched(self, memory: RouteMemory, situation: Situation, observation: Observation) -> RouteMemory:
        """The memory after looking whether the robot gets on; where it does not, a blockage more."""
        c, now_s = self.config, observation.stamp_ns * 1e-9
        x, y = (float(v) for v in observation.pose_odom_base[:2])
        anchor = memory.anchor
        if anchor is None or math.hypot(x - anchor[0], y - anchor[1]) > c.stuck_radius_m:
            return memory._replace(anchor=(x, y, now_s))
        if now_s - anchor[2] < c.stuck_s or not c.escape or situation.route_odom_m is None:
            return memory
        ahead = points_at(situation.route_odom_m, [situation.progress_m + c.blockage_ahead_m])[0]
        return _with_blockage(memory, ahead, now_s)._replace(anchor=(x, y, now_s))

    def _candidates(
        self, memory: RouteMemory, situation: Situation, observation: Observation
    ) -> tuple[list[Candidate], int | None, RouteMemory]:
        """Candidates, which of them is the present route (None: it is lost), and the memory of this map."""
        c, config = self.config, self.tracker.config
        pose, goal, now_s = observation.pose_odom_base, observation.goal_odom_m, observation.stamp_ns * 1e-9
        freest = _lower(memory.freest, situation.grid)
        memory = memory._replace(freest=freest)
        ground = self.tracker.ground(situation.grid, observation)
        costmap = build_costmap(ground, self.tracker.spec, config.costmap)
        blockages = [
            Blockage(x, y, c.blockage_price_m * 0.5 ** ((now_s - when_s) / c.blockage_half_life_s))
            for x, y, when_s in memory.blockages
        ]
        found = alternatives(costmap, pose, goal, c.alternatives, config.route, blockages)
        candidates = [Candidate(way, "route") for way in found]
        costmap = priced(costmap, blockages, c.alternatives.blockage_radius_m)
        if not found and c.escape:
            again = build_costmap(_forgotten(ground, freest), self.tracker.spec, config.costmap)
            for way in alternatives(again, pose, goal, c.alternatives, config.route, blockages):
                candidates.append(Candidate(way._replace(cost_m=way.cost_m + c.changed_price_m), "changed"))
            costmap = priced(again, blockages, c.alternatives.blockage_radius_m)
        kept = None
        if memory.route_odom_m is not None and situation.goal_odom_m is not None:
            rest = _rest(memory.route_odom_m, observation)
            kept, lost_at = self._kept(candidates, costmap, rest)
            if lost_at is not None and c.escape:
                memory = _with_blockage(memory, lost_at, now_s)
        anchor = memory.anchor
        slow = anchor is not None and now_s - anchor[2] >= c.wait_after_s
        if c.wait and slow and candidates:
            candidates.append(candidates[kept or 0]._replace(kind="wait"))
        return candidates, kept, memory

    def _kept(
        self, candidates: list[Candidate], costmap: Costmap, rest: Route
    ) -> tuple[int | None, NDArray[np.float64] | None]:
        """Index of the candidate that leads the way that the robot is on, appended where none does.

        Where something stands on that way, None and the place.
        """
        if candidates and not np.allclose(rest[-1], candidates[0].way.route_odom_m[-1], atol=1.0):
            return None, None  # it led to another goal
        between = [enclosed_m2(costmap, candidate.way.route_odom_m, rest) for candidate in candidates]
        if between and min(between) < self.config.alternatives.enclosed_min_m2:
            return int(np.argmin(between)), None
        lethal_m = lethal_at_m(costmap, rest, self.tracker.spec.radius_m)
        if lethal_m is not None:
            return None, points_at(rest, [lethal_m])[0]
        candidates.append(Candidate(measured(costmap, rest), "present"))
        return len(candidates) - 1, None

    def _scores(
        self,
        candidates: Sequence[Candidate],
        memory: RouteMemory,
        situation: Situation,
        observation: Observation,
        dreams: Dreams | None,
    ) -> NDArray[np.float32]:
        """(K,) in units of return."""
        c, waits = self.config, [candidate.kind == "wait" for candidate in candidates]
        scores = np.zeros(len(candidates), np.float32)
        if dreams is not None and c.imagination and len(candidates) > 1:
            routes = [candidate.way.route_odom_m for candidate in candidates]
            situations = [self.tracker.with_route(situation, route, observation) for route in routes]
            scores += dreams([self.tracker.policy_input(s, observation) for s in situations], waits)
        if c.rest:
            cost_m = np.array([candidate.way.cost_m for candidate in candidates], np.float32)
            scores -= np.float32(c.price_per_m) * (cost_m - cost_m.min())
        if memory.anchor is not None:
            stands_s = observation.stamp_ns * 1e-9 - memory.anchor[2]
            scores -= np.float32(c.wait_price_per_s * stands_s) * np.array(waits, np.float32)
        return scores


def _with_blockage(memory: RouteMemory, place_odom_m: NDArray[np.float64], now_s: float) -> RouteMemory:
    """The memory with one blockage more; the oldest are forgotten."""
    x, y = (float(v) for v in place_odom_m)
    return memory._replace(blockages=(*memory.blockages, (x, y, now_s))[-_BLOCKAGES:])


def _rest(route_odom_m: Route, observation: Observation) -> Route:
    """A route from where the robot is: its nearest point and all that follows."""
    place = np.asarray(observation.pose_odom_base[:2], np.float64)
    nearest = int(np.hypot(*(np.asarray(route_odom_m, np.float64) - place).T).argmin())
    ahead = route_odom_m[min(nearest + 1, len(route_odom_m) - 1) :]
    return np.concatenate([place[None], ahead]).astype(np.float32)


def _lower(freest: OccupancyGrid | None, grid: OccupancyGrid) -> OccupancyGrid:
    """The lower log-odds of both, on the ground of the second."""
    if freest is None:
        return grid
    column, row = grid.origin_cell
    height, width = grid.log_odds.shape
    before = freest.reframed(column, row, column + width, row + height)
    return OccupancyGrid(np.minimum(before.log_odds, grid.log_odds), grid.origin_odom_m, grid.resolution_m)


def _forgotten(ground: OccupancyGrid, freest: OccupancyGrid) -> OccupancyGrid:
    """The ground, unknown wherever it is occupied now and was surely free before."""
    column, row = ground.origin_cell
    height, width = ground.log_odds.shape
    before = freest.reframed(column, row, column + width, row + height)
    changed = ground.occupied & (before.log_odds < _SURELY_FREE)
    return OccupancyGrid(np.where(changed, np.float32(0.0), ground.log_odds), ground.origin_odom_m, ground.resolution_m)
