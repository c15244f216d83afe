"""The trained agent as a `Policy`: from a checkpoint, by torch, on the actor's mean or planning by imagination.

For comparison the planner also runs on parts of its score: "geometry" never asks the agent (swept footprint and route
alone), "imagination" never looks at geometry. "navigator" is "mppi" along a route that is chosen among several by
dreaming them (`robonav.planning.route_choice`); "actor-routes" and "geometry-routes" choose routes likewise, the latter
without dreams.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from policies.same_robot import check_same_robot
from robonav.errors import PolicyError, explain
from robonav.imagination.agent import Agent, AgentState
from robonav.imagination.candidates import TorchImagination
from robonav.imagination.route_dreams import RouteDreams, RouteDreamsConfig
from robonav.learning.checkpoint import load_agent
from robonav.planning.local import LocalPilot, PilotState
from robonav.planning.mppi import MPPIConfig
from robonav.planning.route_choice import RouteChoiceConfig, RouteChooser, RouteMemory
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import (
    ACTION_SIZE,
    COMMAND_LIFE_NS,
    Decision,
    Observation,
    PolicyInput,
    RobotSpec,
    VelocityCommand,
)

Planner = Literal["actor", "mppi", "geometry", "imagination", "navigator", "actor-routes", "geometry-routes"]
PLANNERS: dict[Planner, MPPIConfig] = {
    **{name: MPPIConfig() for name in get_args(Planner)},
    "geometry": MPPIConfig(imagination=False),
    "geometry-routes": MPPIConfig(imagination=False),
    "imagination": MPPIConfig(geometry=False, progress=False, imagination_weight=1.0),
}
ACTORS = ("actor", "actor-routes")  # plan nothing
ROUTED = ("navigator", "actor-routes", "geometry-routes")  # choose their route


class WorldModelPolicyState(NamedTuple):
    """Everything that is carried between ticks."""

    situation: Situation
    agent: AgentState
    pilot: PilotState
    routes: RouteMemory
    first: bool


class WorldModelPolicy:
    """Acts with a trained agent."""

    def __init__(
        self,
        agent: Agent,
        spec: RobotSpec,
        planner: Planner = "actor",
        config: MPPIConfig | None = None,
        name: str = "",
        situation: SituationConfig | None = None,
        routes: RouteChoiceConfig | None = None,
        dreams: RouteDreamsConfig | None = None,
    ) -> None:
        self.agent, self.spec, self.planner = agent, spec, planner
        self.config = config or PLANNERS[planner]
        self.pilot = LocalPilot(spec, self.config)
        self.name = name or planner
        self.tracker = SituationTracker(spec, situation)
        self.chooser = RouteChooser(self.tracker, routes)
        self.dreams = dreams or RouteDreamsConfig()

    def reset(self, seed: int) -> WorldModelPolicyState:
        """State at an episode's start; the seed drives the planner's noise."""
        agent, routes = self.agent.initial_state(1), self.chooser.reset()
        return WorldModelPolicyState(self.tracker.reset(), agent, self.pilot.reset(seed), routes, True)

    @torch.no_grad()
    def act(self, state: WorldModelPolicyState, observation: Observation) -> tuple[WorldModelPolicyState, Decision]:
        """One tick: latent = encode(observation), memory advanced, then the actor or the planner decides."""
        situation = self.tracker.update(state.situation, observation)
        thinks = self.planner in ACTORS or self.config.imagination
        previous = torch.from_numpy(self.spec.velocity_to_action(observation.last_command)).float()[None]
        first, routes, choice = torch.tensor([float(state.first)]), state.routes, None
        if self.planner in ROUTED:
            seed = state.pilot.planner.seed + observation.stamp_ns
            dreams = RouteDreams(self.agent, state.agent, previous, first, self.dreams, seed) if thinks else None
            routes, situation, choice = self.chooser.choose(routes, situation, observation, dreams)
        agent, value, imagine = state.agent, 0.0, None
        action, why = np.zeros(ACTION_SIZE, np.float32), "actor"
        if thinks:
            inputs = to_tensors(self.tracker.policy_input(situation, observation))
            step = self.agent.step(state.agent, inputs, previous, first)
            agent, value, action = step.state, float(step.value[0]), step.action[0].numpy()
            imagine = TorchImagination(self.agent, agent)
        pilot, details = state.pilot, {}
        path: NDArray[np.float32] | None = None
        if self.planner not in ACTORS:
            pilot, found, path = self.pilot.move(pilot, observation, situation, imagine)
            action, why = found.action, found.why
            details = {"score": found.score, "rejected": float(found.rejected), "rounds": float(found.rounds)}
        if routes.waits:
            action, why, path = np.zeros(ACTION_SIZE, np.float32), "wait", None
        details |= {} if choice is None else choice.details()
        command = VelocityCommand.of(self.spec.action_to_velocity(action), observation.stamp_ns + COMMAND_LIFE_NS)
        decision = Decision(command, value, why, situation.route_odom_m, path, details)
        return WorldModelPolicyState(situation, agent, pilot, routes, False), decision


def to_tensors(policy_input: PolicyInput) -> dict[str, torch.Tensor]:
    """`PolicyInput` arrays as tensors with a batch of one."""
    return {name: torch.from_numpy(np.ascontiguousarray(array))[None] for name, array in policy_input.arrays().items()}


def load(path: str | Path, spec: RobotSpec, planner: Planner = "actor") -> WorldModelPolicy:
    """The policy of a run folder or a checkpoint file.

    Raises:
        CheckpointError: missing or damaged.
        PolicyError: trained for a robot that differs in rate or sensors, or, where it reads neither, in size or limits;
            or an unknown planner.
    """
    if planner not in PLANNERS:
        raise PolicyError(explain("planner", " or ".join(f"'{name}'" for name in PLANNERS), repr(planner)))
    checkpoint = load_agent(path)
    told = checkpoint.agent.config.model.encoder.robot
    check_same_robot(checkpoint.spec, spec, f"checkpoint {path}", PolicyError, told)
    name = f"{Path(path).name}:{planner}"
    return WorldModelPolicy(checkpoint.agent, spec, planner, None, name, checkpoint.situation)
