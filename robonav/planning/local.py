"""The local planner: what is known at a tick becomes prices of plans, and `robonav.planning.mppi` finds the best."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.planning.mppi import Imagination, MPPIConfig, Plan, PlannerState, initial_planner_state, plan
from robonav.planning.progress import RouteAhead, change_m, progress_m, route_ahead
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
        surroundings: Surroundings,
        imagine: Imagination | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Plan:
        """The best plan at a tick; without anybody who dreams, by its geometry and progress alone."""
        spec, c = self.spec, self.config
        if imagine is None or not c.imagination:
            missing = {"scan": surroundings.points_m is None, "route": situation.route_odom_m is None}
            if any(missing.values()):
                stopped = self.reset(state.seed)._replace(tick=state.tick + 1)
                why = f"stop: no {next(name for name, absent in missing.items() if absent)}"
                return Plan(stopped.plan[0], stopped.plan, 0.0, 0, 0, why, stopped)
        route: RouteAhead | None = None
        if c.progress and situation.route_odom_m is not None:
            length_m = spec.vx_max_mps * (c.horizon * spec.dt_s + c.sweep.tail_s) + 1.0
            route = route_ahead(situation.route_odom_m, situation.progress_m, observation, length_m)

        def price(actions: Singles) -> Singles:
            swept = sweep(actions, observation, surroundings, spec, c.sweep)
            cost = swept.cost if c.geometry else np.zeros(len(actions), np.float32)
            if route is not None:
                free = swept.free if c.geometry else np.full(len(actions), len(swept.time_s))
                gain = progress_m(route, swept.positions, swept.yaw_rad, free, swept.time_s, spec.vx_max_mps, c.route)
                cost = cost - gain + change_m(spec.action_to_velocity(actions[:, 0]), observation, c.route)
            return cost

        commands = reachable_commands(spec, observation.twist_base, c.samples)
        constants = spec.velocity_to_action(commands).astype(np.float32)
        return plan(imagine, state, c, price, clock, constants)


class PilotState(NamedTuple):
    """What a pilot carries from tick to tick."""

    surroundings: Surroundings
    planner: PlannerState


class Move(NamedTuple):
    """What a pilot does at a tick, and where that would lead."""

    state: PilotState
    plan: Plan
    path_odom_m: Singles  # (L + 1, 2)


class LocalPilot:
    """A local planner with the surroundings it plans in: what policies that plan share. Holds constants only."""

    def __init__(self, spec: RobotSpec, config: MPPIConfig | None = None) -> None:
        self.spec = spec
        self.planner, self.tracker = LocalPlanner(spec, config), SurroundingsTracker(spec)

    def reset(self, seed: int) -> PilotState:
        """State at an episode's start; the seed drives the planner's noise."""
        return PilotState(self.tracker.reset(), self.planner.reset(seed * _SEED_STRIDE))

    def move(
        self, state: PilotState, observation: Observation, situation: Situation, imagine: Imagination | None = None
    ) -> Move:
        """The best plan at a tick, among what the situation's tracks say moves."""
        tracked = None if situation.of_beam is None else (situation.tracks, situation.of_beam)
        surroundings = self.tracker.update(state.surroundings, observation, tracked)
        found = self.planner.plan(state.planner, observation, situation, surroundings, imagine)
        return Move(PilotState(surroundings, found.state), found, imagined_path(observation, found.actions, self.spec))


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
