"""A policy that runs a deployment bundle: map and route in numpy, the network in onnxruntime, no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from policies.bundle import Bundle, load_bundle
from policies.contract import UINT8_INPUTS, check_robot
from robonav.config import from_mapping
from robonav.errors import BundleError, ConfigError
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import COMMAND_LIFE_NS, Decision, Observation, PolicyInput, RobotSpec, VelocityCommand


class BundleState(NamedTuple):
    """What is carried from tick to tick: map and route, the network's memory, and whether the episode starts."""

    situation: Situation
    memory: dict[str, NDArray[Any]]  # by state name, batch of 1
    reset: bool


class BundlePolicy:
    """The `robonav.types.Policy` of a bundle. Deterministic: same observations, same decisions, bit for bit."""

    def __init__(self, bundle: Bundle, spec: RobotSpec) -> None:
        check_robot(bundle.contract, spec)
        where = f"{bundle.folder}: contract: situation"
        try:
            config = from_mapping(SituationConfig, bundle.contract.situation, where)
        except ConfigError as error:
            raise BundleError(str(error)) from None
        self.bundle = bundle
        self.spec = spec
        self.name = bundle.contract.name
        self._tracker = SituationTracker(spec, config)

    def reset(self, seed: int) -> BundleState:
        """State at the start of an episode; `seed` is not used, since nothing here is random."""
        del seed
        return BundleState(self._tracker.reset(), self.bundle.step.initial_state(), True)

    def act(self, state: BundleState, observation: Observation) -> tuple[BundleState, Decision]:
        """Next state and decision. `details` has the milliseconds of the stages: ``map_ms`` and ``infer_ms``.

        An action that is not finite becomes a stop that says so.
        """
        started = time.perf_counter()
        situation = self._tracker.update(state.situation, observation)
        policy_input = self._tracker.policy_input(situation, observation)
        mapped = time.perf_counter()
        inputs = graph_inputs(policy_input, observation, self.spec, state.reset)
        inputs = {tensor.name: inputs[tensor.name] for tensor in self.bundle.contract.inputs}
        memory, outputs = self.bundle.step.step(state.memory, inputs)
        inferred = time.perf_counter()
        action, value = outputs["action"][0], float(outputs["value"][0])
        why = "actor"
        if not (np.isfinite(action).all() and np.isfinite(value)):
            action, value, why = np.zeros(3), 0.0, "stop: action not finite"
        decision = Decision(
            command=VelocityCommand.of(self.spec.action_to_velocity(action), observation.stamp_ns + COMMAND_LIFE_NS),
            value=value,
            why=why,
            route_odom_m=situation.route_odom_m,
            details={"map_ms": (mapped - started) * 1e3, "infer_ms": (inferred - mapped) * 1e3},
        )
        return BundleState(situation, memory, False), decision


def graph_inputs(
    policy_input: PolicyInput, observation: Observation, spec: RobotSpec, reset: bool
) -> dict[str, NDArray[Any]]:
    """The graph's inputs by name, with a batch of 1, from one tick's policy input."""
    inputs: dict[str, NDArray[Any]] = {}
    for name, values in policy_input.arrays().items():
        dtype = np.uint8 if name in UINT8_INPUTS else np.float32
        inputs[name] = np.ascontiguousarray(values, dtype=dtype)[None]
    inputs["action_prev"] = spec.velocity_to_action(observation.last_command).astype(np.float32)[None]
    inputs["reset"] = np.array([1.0 if reset else 0.0], np.float32)
    return inputs


def load(folder: str | Path, spec: RobotSpec | None = None) -> BundlePolicy:
    """Loads a bundle as a policy for a robot; without `spec`, for the bundle's own robot.

    Raises:
        BundleError: the bundle is damaged, or was exported for another robot.
    """
    bundle = load_bundle(folder)
    return BundlePolicy(bundle, spec or bundle.contract.robot)
