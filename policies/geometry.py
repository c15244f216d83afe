"""The classical baseline "geometry": the navigator's local planner without its imagination, so without a trained agent.

It scores plans by the robot's footprint, swept among what stands and what moves at constant velocity, and by progress
along the route (`robonav.planning.local`); what the agent adds to that is what ``RUN@mppi`` shows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from robonav.planning.local import LocalPilot, PilotState
from robonav.planning.mppi import MPPIConfig
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import COMMAND_LIFE_NS, Decision, Observation, RobotSpec, VelocityCommand


@dataclass(frozen=True, slots=True)
class GeometryConfig:
    """Map and route, and the planner's dials; those of imagination do not count."""

    situation: SituationConfig = field(default_factory=SituationConfig)
    planner: MPPIConfig = field(default_factory=MPPIConfig)


class GeometryState(NamedTuple):
    """Map and route, what stands and moves round the robot, and the last plan."""

    situation: Situation
    pilot: PilotState


class GeometryPolicy:
    """Deterministic: same observations and seed, same decisions."""

    name = "geometry"

    def __init__(self, spec: RobotSpec, config: GeometryConfig | None = None) -> None:
        self.spec = spec
        self.config = config or GeometryConfig()
        self.tracker = SituationTracker(spec, self.config.situation)
        self.pilot = LocalPilot(spec, replace(self.config.planner, imagination=False))

    def reset(self, seed: int) -> GeometryState:
        """Nothing known; the seed drives the planner's noise."""
        return GeometryState(self.tracker.reset(), self.pilot.reset(seed))

    def act(self, state: GeometryState, observation: Observation) -> tuple[GeometryState, Decision]:
        """Next state and the decision for this tick."""
        situation = self.tracker.update(state.situation, observation)
        pilot, found, path = self.pilot.move(state.pilot, observation, situation)
        velocity = self.spec.action_to_velocity(found.action)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        details = {"score": found.score, "rejected": float(found.rejected), "rounds": float(found.rounds)}
        decision = Decision(command, 0.0, found.why, situation.route_odom_m, path, details)
        return GeometryState(situation, pilot), decision
