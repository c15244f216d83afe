"""The trained agent as a `Policy`: from a checkpoint, by torch, on the actor's mean or planning by imagination."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from policies.same_robot import check_same_robot
from robonav.config import from_mapping
from robonav.errors import PolicyError, explain
from robonav.imagination.agent import Agent, AgentState
from robonav.imagination.candidates import TorchImagination
from robonav.learning.checkpoint import load_agent
from robonav.planning.mppi import MPPIConfig, PlannerState, initial_planner_state, plan
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.planning.surroundings import Surroundings, SurroundingsTracker
from robonav.planning.sweep import sweep_cost
from robonav.types import COMMAND_LIFE_NS, Decision, Float, Observation, PolicyInput, RobotSpec, VelocityCommand

Planner = Literal["actor", "mppi"]


class WorldModelPolicyState(NamedTuple):
    """Everything that is carried between ticks."""

    situation: Situation
    surroundings: Surroundings
    agent: AgentState
    planner: PlannerState
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
    ) -> None:
        self.agent, self.spec, self.planner = agent, spec, planner
        self.config = config or MPPIConfig()
        self.name = name or planner
        self.tracker = SituationTracker(spec, situation)
        self.surroundings = SurroundingsTracker(spec)

    def reset(self, seed: int) -> WorldModelPolicyState:
        """State at an episode's start; the seed drives the planner's noise."""
        planner = initial_planner_state(self.config, seed * 100_003)
        return WorldModelPolicyState(
            self.tracker.reset(), self.surroundings.reset(), self.agent.initial_state(1), planner, True
        )

    @torch.no_grad()
    def act(self, state: WorldModelPolicyState, observation: Observation) -> tuple[WorldModelPolicyState, Decision]:
        """One tick: latent = encode(observation), memory advanced, then the actor or the planner decides."""
        situation = self.tracker.update(state.situation, observation)
        inputs = to_tensors(self.tracker.policy_input(situation, observation))
        previous = torch.from_numpy(self.spec.velocity_to_action(observation.last_command)).float()[None]
        step = self.agent.step(state.agent, inputs, previous, torch.tensor([float(state.first)]))
        action, planner, why, path, details = step.action[0].numpy(), state.planner, "actor", None, {}
        surroundings = state.surroundings
        if self.planner == "mppi":
            surroundings = self.surroundings.update(surroundings, observation)
            geometry = partial(
                sweep_cost,
                observation=observation,
                surroundings=surroundings,
                spec=self.spec,
                config=self.config.sweep,
            )
            found = plan(TorchImagination(self.agent, step.state), state.planner, self.config, geometry)
            action, planner, why = found.action, found.state, found.why
            path = imagined_path(observation, found.actions, self.spec)
            details = {"score": found.score, "rejected": float(found.rejected), "rounds": float(found.rounds)}
        velocity = self.spec.action_to_velocity(action)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        decision = Decision(command, float(step.value[0]), why, situation.route_odom_m, path, details)
        return WorldModelPolicyState(situation, surroundings, step.state, planner, False), decision


def to_tensors(policy_input: PolicyInput) -> dict[str, torch.Tensor]:
    """`PolicyInput` arrays as tensors with a batch of one."""
    return {name: torch.from_numpy(np.ascontiguousarray(array))[None] for name, array in policy_input.arrays().items()}


def imagined_path(observation: Observation, actions: Float, spec: RobotSpec) -> Float:
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


def load(path: str | Path, spec: RobotSpec, planner: Planner = "actor") -> WorldModelPolicy:
    """The policy of a run folder or a checkpoint file.

    Raises:
        CheckpointError: missing or damaged.
        PolicyError: trained for a robot that differs in size, limits, rate or sensors, or an unknown planner.
    """
    if planner not in ("actor", "mppi"):
        raise PolicyError(explain("planner", "'actor' or 'mppi'", repr(planner)))
    checkpoint = load_agent(path)
    check_same_robot(checkpoint.spec, spec, f"checkpoint {path}", PolicyError)
    situation = from_mapping(SituationConfig, checkpoint.info.get("situation", {}), f"checkpoint {path}: situation")
    return WorldModelPolicy(checkpoint.agent, spec, planner, None, f"{Path(path).name}:{planner}", situation)
