"""The local planner: what is known at a tick becomes prices of plans, and `robonav.planning.mppi` finds the best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.mapping.sight import SHIPPED, Memory, MotionSight, tracked
from robonav.planning.field import FAR_M, LocalField, field_half_m, local_field
from robonav.planning.mppi import Imagination, MPPIConfig, Plan, PlannerState, initial_planner_state, plan
from robonav.planning.progress import Pace, RouteAhead, change_m, progress_m, route_ahead
from robonav.planning.situation import Situation
from robonav.planning.surroundings import Surroundings, SurroundingsTracker
from robonav.planning.sweep import sweep
from robonav.planning.window import reachable_commands
from robonav.types import Observation, RobotSpec

Singles = NDArray[np.float32]
_SEED_STRIDE = 100_003  # between the noise of neighbouring episodes


class LocalPlanner:
    """Plans from observations. Holds constants only."""

    def __init__(self, spec: RobotSpec, config: MPPIConfig | None = None) -> None:
        self.spec, self.config = spec, config or MPPIConfig()

    def reset(self, seed: int) -> PlannerState:
        """No plan yet; the seed drives the noise."""
        return initial_planner_state(self.config, seed)

    def plan(
        self,
        state: PlannerState,
        observation: Observation,
        situation: Situation,
        surroundings: Surroundings | LocalField,
        imagine: Imagination | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Plan:
        """The best plan at a tick; without anybody who dreams, by its geometry and progress alone."""
        spec, c = self.spec, self.config
        if imagine is None or not c.imagination:
            seen = isinstance(surroundings, LocalField) or surroundings.points_m is not None
            missing = {"scan": not seen, "route": situation.route_odom_m is None}
            if any(missing.values()):
                stopped = self.reset(state.seed)._replace(tick=state.tick + 1)
                why = f"stop: no {next(name for name, absent in missing.items() if absent)}"
                return Plan(stopped.plan[0], stopped.plan, 0.0, 0, 0, why, stopped)
        route, pace, rates = self.route(observation, situation), Pace.of(spec), c.route
        if anybody_moves(surroundings):
            rates = replace(rates, turn_round_weight=0.0)

        def price(actions: Singles) -> Singles:
            swept = sweep(actions, observation, surroundings, spec, c.sweep)
            cost = swept.cost if c.geometry else np.zeros(len(actions), np.float32)
            if route is not None:
                free = swept.free if c.geometry else np.full(len(actions), len(swept.time_s))
                gain = progress_m(route, swept.positions, swept.yaw_rad, free, swept.time_s, pace, rates)
                cost = cost - gain + change_m(spec.action_to_velocity(actions[:, 0]), observation, rates)
            return cost

        return plan(imagine, state, c, price, clock, self.constants(observation))

    @property
    def seconds(self) -> float:
        """How long a plan is swept."""
        return self.config.horizon * self.spec.dt_s + self.config.sweep.tail_s

    def route(self, observation: Observation, situation: Situation) -> RouteAhead | None:
        """What is left of the route, as far as plans reach."""
        if not self.config.progress or situation.route_odom_m is None:
            return None
        length_m = self.spec.vx_max_mps * self.seconds + 1.0
        return route_ahead(situation.route_odom_m, situation.progress_m, observation, length_m)

    def constants(self, observation: Observation) -> Singles:
        """(M, 3) constant actions whose commands the robot can reach."""
        commands = reachable_commands(self.spec, observation.twist_base, self.config.samples)
        return self.spec.velocity_to_action(commands).astype(np.float32)


def anybody_moves(surroundings: Surroundings | LocalField) -> bool:
    """Whether somebody is known to move. Turning round waits until nobody does: on the spot a robot is in the way."""
    if isinstance(surroundings, LocalField):
        return bool((surroundings.movers[:, 0] < FAR_M).any())
    return bool(surroundings.velocity_mps.any())


class PilotState(NamedTuple):
    """What a pilot carries from tick to tick."""

    surroundings: Surroundings
    planner: PlannerState
    seen: Memory = Memory()  # of who looks for what moves


class Move(NamedTuple):
    """What a pilot does at a tick, and where that would lead."""

    state: PilotState
    plan: Plan
    path_odom_m: Singles  # (L + 1, 2)


class LocalPilot:
    """A local planner with the surroundings it plans in: what policies that plan share. Holds constants only.

    It sweeps the footprint through the points of the surroundings, or, `on_field`, through a field of them, as
    exported planners do.
    """

    def __init__(self, spec: RobotSpec, config: MPPIConfig | None = None, on_field: bool = False) -> None:
        self.spec, self.on_field = spec, on_field
        self.planner, self.tracker = LocalPlanner(spec, config), SurroundingsTracker(spec)
        self.sight = MotionSight.named(self.planner.config.sight, spec.lidar)
        self._shared = self.planner.config.sight == SHIPPED  # it is the one that a situation may have

    def reset(self, seed: int) -> PilotState:
        """State at an episode's start; the seed drives the planner's noise."""
        return PilotState(self.tracker.reset(), self.planner.reset(seed * _SEED_STRIDE))

    def move(
        self, state: PilotState, observation: Observation, situation: Situation, imagine: Imagination | None = None
    ) -> Move:
        """The best plan at a tick, among what the situation's tracks say moves."""
        surroundings, memory = self.surroundings(state, observation, situation)
        seen: Surroundings | LocalField = surroundings
        if self.on_field and surroundings.points_m is not None:
            seen = self.field(surroundings, observation)
        found = self.planner.plan(state.planner, observation, situation, seen, imagine)
        following = PilotState(surroundings, found.state, memory)
        return Move(following, found, imagined_path(observation, found.actions, self.spec))

    def surroundings(
        self, state: PilotState, observation: Observation, situation: Situation
    ) -> tuple[Surroundings, Memory]:
        """What stands and moves after this observation, and what the sight has seen.

        Of who moves the sight speaks, where there is one, in place of the situation's tracks.
        """
        memory, tracks, of_beam, movers = state.seen, situation.tracks, situation.of_beam, self.tracker.movers
        if self.sight is not None and movers is not None and of_beam is not None:
            moving = movers.moving(tracks)
            if self._shared and situation.seen.stamps_ns:  # the situation has looked already
                memory, flow = situation.seen, situation.flow
            else:
                memory, flow = self.sight.look(memory, observation, tracked(tracks, of_beam, moving))
            if flow is not None:  # else there is no scan, and the tracks are the filter's
                tracks, of_beam = self.sight.tracks(memory, flow, observation, tracks, moving)
        known = None if of_beam is None else (tracks, of_beam)
        return self.tracker.update(state.surroundings, observation, known), memory

    def field(self, surroundings: Surroundings, observation: Observation) -> LocalField:
        """The same as a grid and discs."""
        movers, tracks = self.tracker.movers, surroundings.tracks
        moving = np.zeros(len(tracks.seen), bool) if movers is None else movers.moving(tracks)
        beyond_m = 3 * self.planner.config.sweep.clearance_decay_m
        half_m = field_half_m(self.spec, self.planner.seconds, beyond_m)
        return local_field(surroundings, moving, observation.pose_odom_base, half_m)


def imagined_path(observation: Observation, actions: Singles, spec: RobotSpec) -> Singles:
    """Where a plan (L, 3) of normalised actions leads in odom, by dead reckoning: (L + 1, 2)."""
    x, y, yaw = (float(v) for v in observation.pose_odom_base)
    points = [(x, y)]
    for vx, vy, yaw_rate in spec.action_to_velocity(actions):
        yaw += yaw_rate * spec.dt_s / 2
        x += (vx * np.cos(yaw) - vy * np.sin(yaw)) * spec.dt_s
        y += (vx * np.sin(yaw) + vy * np.cos(yaw)) * spec.dt_s
        yaw += yaw_rate * spec.dt_s / 2
        points.append((x, y))
    return np.array(points, np.float32)
