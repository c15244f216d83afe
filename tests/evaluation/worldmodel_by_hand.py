"""Episodes on a line, and an agent that knows them exactly: what the robot did adds up to where it is.

At tick t the place p_t is the sum of the actions before it. Everything that is observed follows from p_t.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robonav.evaluation.worldmodel.episodes import Plan, Recorded, Truth
from robonav.imagination.agent import AgentState
from robonav.types import RobotSpec, policy_input_shapes
from robonav.world_model.model import WorldModelState
from robonav.world_model.nets import symlog

SLOPE_M = 0.05  # a metre of range a unit of the place
DISCOUNT = 0.9


def episode_on_a_line(spec: RobotSpec, action: np.ndarray, outcome: str = "timeout", driver: str = "actor") -> Recorded:
    """An episode of len(action) ticks; action (T,)."""
    ticks = len(action)
    place = np.concatenate([[0.0], np.cumsum(action[:-1])]).astype(np.float32)
    inputs = {name: np.zeros((ticks, *shape), np.float32) for name, shape in policy_input_shapes(spec).items()}
    inputs["local_map"] = inputs["local_map"].astype(np.uint8)
    inputs["scan_m"] = 1.0 + SLOPE_M * place[:, None] + np.zeros((ticks, spec.lidar.beams), np.float32)
    inputs["goal_base_m"][:, 0] = place
    inputs["twist_base"][:, 0] = place
    inputs["present"][:] = 1.0
    velocity = np.stack([place, 0 * place, 0 * place], -1)
    pose = np.zeros((ticks, 3), np.float32)
    truth = Truth(pose, velocity, inputs["scan_m"].copy(), np.zeros((ticks, 0, 5), np.float32))
    taken = np.stack([action, 0 * action, 0 * action], -1).astype(np.float32)
    plan = Plan(0, "line", driver, "off")
    return Recorded(plan, outcome, inputs, 0.1 * place, taken, truth)


class LineModel:
    """Dynamics of the line: the memory after (z, a) is z + a, and so is the next latent."""

    bins = torch.linspace(-3.0, 3.0, 7)

    def __init__(self, late: float = 0.0, ends_at: float = np.inf) -> None:
        self.reward = RewardOfPlace(self.bins)
        self.decoder = LineDecoder(late)
        self.ends_at = ends_at
        self.clearance: Any = None

    def advance(self, state: WorldModelState, latent: Tensor, action: Tensor) -> WorldModelState:
        return WorldModelState(latent + action[:, :1], ())

    def prior(self, memory: Tensor, latent: Tensor, action: Tensor) -> Tensor:
        return memory

    def sample(self, log_p: Tensor, generator: torch.Generator) -> Tensor:
        return log_p

    def proceed(self, features: Tensor) -> Tensor:
        return torch.where(features[..., 1:] >= self.ends_at, -50.0, 50.0)

    @staticmethod
    def features(memory: Tensor, latent: Tensor) -> Tensor:
        return torch.cat([memory, latent], -1)


class RewardOfPlace:
    """A tenth of the place; its distribution says collision from place 100 on."""

    def __init__(self, bins: Tensor) -> None:
        self.bins = bins

    def __call__(self, features: Tensor) -> Tensor:
        crash = features[..., 1] >= 100.0
        low, middle = torch.zeros(7), torch.zeros(7)
        low[1], middle[3] = 50.0, 50.0
        return torch.where(crash[..., None], low, middle)

    def mean(self, features: Tensor) -> Tensor:
        return 0.1 * features[..., 1]


class LineDecoder:
    """Exact, or `late` units of the place behind."""

    modalities, flow = ("scan", "goal", "body"), False

    def __init__(self, late: float) -> None:
        self.late = late

    def scan_m(self, features: Tensor) -> Tensor:
        return 1.0 + SLOPE_M * (features[..., 1:] - self.late) + torch.zeros(128)

    def goal(self, features: Tensor) -> Tensor:
        place = features[..., 1:]
        zero = torch.zeros_like(place)
        return torch.cat([symlog(place), zero, torch.ones_like(place), zero, *[zero] * 6], -1)

    def body(self, features: Tensor) -> Tensor:
        place = features[..., 1:]
        return torch.cat([place, torch.zeros(*place.shape[:-1], 7)], -1)


def line_agent(late: float = 0.0, ends_at: float = np.inf, value: float = 0.0) -> Any:
    """An agent whose latent is the place that it is shown, and whose critic says `value` everywhere."""
    model = LineModel(late, ends_at)

    def initial_state(batch: int) -> AgentState:
        return AgentState(WorldModelState(torch.zeros(batch, 1), ()), torch.zeros(batch, 1))

    def observe(
        state: AgentState, inputs: dict[str, Tensor], action_prev: Tensor, reset: Tensor
    ) -> tuple[Tensor, AgentState]:
        memory = model.advance(state.world, state.latent, action_prev).memory * (1 - reset)[:, None]
        latent = inputs["goal_base_m"][:, :1]
        return model.features(memory, latent), AgentState(WorldModelState(memory, ()), latent)

    critic = SimpleNamespace(mean=lambda features: value + 0 * features[..., 0])
    behavior = SimpleNamespace(config=SimpleNamespace(discount=DISCOUNT), critic=critic)
    return SimpleNamespace(model=model, behavior=behavior, initial_state=initial_state, observe=observe)
