"""An actor that Stable-Baselines3 trained, as a `Policy`. Driving it needs torch alone; `policies.sb3` trains it.

It reads what the agent reads, through the agent's own observation encoder, and remembers nothing but map and route.
The file holds the actor's weights in safetensors, with its sizes and the robot as metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from policies.same_robot import check_same_robot
from policies.sb3_config import ActorConfig
from policies.world_model_policy import to_tensors
from robonav.config import from_mapping, to_mapping
from robonav.errors import CheckpointError, PolicyError, explain
from robonav.learning.checkpoint import load_tensors, load_weights, save_tensors
from robonav.planning.situation import Situation, SituationTracker
from robonav.types import ACTION_SIZE, COMMAND_LIFE_NS, Decision, Observation, RobotSpec, VelocityCommand
from robonav.world_model.encoders import ObservationEncoder

FILE = "sb3.safetensors"  # in a run's folder


class Actor(nn.Module):
    """The mean action of what Stable-Baselines3 trained."""

    def __init__(self, config: ActorConfig, spec: RobotSpec) -> None:
        super().__init__()
        self.config = config
        self.encoder = ObservationEncoder(config.encoder, spec)
        layers: list[nn.Module] = []
        for before, after in zip((config.encoder.hidden, *config.layers), config.layers, strict=False):
            layers += [nn.Linear(before, after), config.activation()]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(config.layers[-1], ACTION_SIZE)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """`PolicyInput` arrays with leading shape B -> actions (B, 3) in [-1, 1]."""
        action: Tensor = self.out(self.layers(self.encoder(inputs)))
        return action.clamp(-1.0, 1.0) if self.config.algorithm == "ppo" else torch.tanh(action)


class Sb3State(NamedTuple):
    """Map and route."""

    situation: Situation


class Sb3Policy:
    """Acts on the mean. Deterministic: same observations, same decisions."""

    def __init__(self, actor: Actor, spec: RobotSpec, name: str = "sb3") -> None:
        self.actor, self.spec, self.name = actor.eval().requires_grad_(False), spec, name
        self.tracker = SituationTracker(spec)

    def reset(self, seed: int) -> Sb3State:
        """Nothing known; the seed is not used."""
        return Sb3State(self.tracker.reset())

    def act(self, state: Sb3State, observation: Observation) -> tuple[Sb3State, Decision]:
        """Next state and the decision for this tick."""
        situation = self.tracker.update(state.situation, observation)
        action = self.actor(to_tensors(self.tracker.policy_input(situation, observation)))[0].numpy()
        velocity = self.spec.action_to_velocity(action)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        decision = Decision(command, 0.0, self.actor.config.algorithm, situation.route_odom_m)
        return Sb3State(situation), decision


def save(path: Path, actor: Actor, spec: RobotSpec, info: dict[str, Any]) -> None:
    """Writes an actor with what is needed to rebuild it; whole, or not at all."""
    metadata = {"sb3": to_mapping(actor.config), "robot": to_mapping(spec), "info": info}
    save_tensors(path, actor.state_dict(), metadata)


def load(path: str | Path, spec: RobotSpec) -> Sb3Policy:
    """The policy of a run's folder or of its file.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
        PolicyError: trained for a robot with other sensors or another rate, or, where it reads neither, another body.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    tensors, metadata = load_tensors(file)
    if "sb3" not in metadata or "robot" not in metadata:
        raise CheckpointError(explain(str(file), "an actor of Stable-Baselines3", "another kind of checkpoint"))
    trained = from_mapping(RobotSpec, metadata["robot"], f"{file}: robot")
    config = from_mapping(ActorConfig, metadata["sb3"], f"{file}: sb3")
    check_same_robot(trained, spec, f"checkpoint {path}", PolicyError, config.encoder.robot)
    actor = Actor(config, trained)
    load_weights(actor, tensors, str(file))
    return Sb3Policy(actor, spec, f"{Path(path).name}:{config.algorithm}")
