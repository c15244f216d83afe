"""A policy that runs a deployment bundle: map, route and planning in numpy, the network in onnxruntime, no torch."""

from __future__ import annotations

import time
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from policies.bundle import Bundle, load_bundle
from policies.contract import UINT8_INPUTS, check_robot
from robonav.config import from_mapping
from robonav.errors import BundleError, ConfigError, PolicyError, explain
from robonav.planning.local import LocalPilot, PilotState
from robonav.planning.mppi import MPPIConfig
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import COMMAND_LIFE_NS, Decision, Observation, PolicyInput, RobotSpec, VelocityCommand

Planner = Literal["actor", "mppi", "geometry"]
PLANNERS: tuple[Planner, ...] = get_args(Planner)


class BundleState(NamedTuple):
    """What is carried from tick to tick: map and route, the network's memory, and whether the episode starts."""

    situation: Situation
    memory: dict[str, NDArray[Any]]  # by state name, batch of 1
    reset: bool
    pilot: PilotState


class BundlePolicy:
    """The `robonav.types.Policy` of a bundle. Deterministic: same observations and seed, same decisions, bit for bit.

    Args:
        bundle: to run.
        spec: the robot that it shall drive.
        planner: "actor" takes the actor's mean; "mppi" plans by imagination, "geometry" without.
        config: of the planner.
    """

    def __init__(
        self, bundle: Bundle, spec: RobotSpec, planner: Planner = "actor", config: MPPIConfig | None = None
    ) -> None:
        check_robot(bundle.contract, spec)
        where = f"{bundle.folder}: contract: situation"
        try:
            situation = from_mapping(SituationConfig, bundle.contract.situation, where)
        except ConfigError as error:
            raise BundleError(str(error)) from None
        if planner not in PLANNERS:
            raise PolicyError(explain("planner", f"one of {', '.join(PLANNERS)}", repr(planner)))
        self.bundle = bundle
        self.spec = spec
        self.name = bundle.contract.name if planner == "actor" else f"{bundle.contract.name}:{planner}"
        self._planner = planner
        self._tracker = SituationTracker(spec, situation)
        self._dreams = bundle.dreams() if planner == "mppi" else None
        config = replace(config or MPPIConfig(), imagination=planner == "mppi")
        if self._dreams is not None:  # the graph's sizes are fixed
            k, own, horizon = astuple(self._dreams.planned)
            config = replace(config, candidates=k, from_actor=own / k, horizon=horizon)
        self._pilot = LocalPilot(spec, config)

    def reset(self, seed: int) -> BundleState:
        """State at the start of an episode; `seed` drives the planner's noise."""
        return BundleState(self._tracker.reset(), self.bundle.step.initial_state(), True, self._pilot.reset(seed))

    def act(self, state: BundleState, observation: Observation) -> tuple[BundleState, Decision]:
        """Next state and decision.

        `details` has the milliseconds of the stages: ``map_ms`` (the crop that the network reads included),
        ``route_ms``, ``infer_ms`` and, where it plans, ``plan_ms``. An action that is not finite becomes a stop that
        says so.
        """
        started = time.perf_counter()
        situation = self._tracker.update_map(state.situation, observation)
        routing = time.perf_counter()
        situation = self._tracker.update_route(situation, observation)
        routed = time.perf_counter()
        policy_input = self._tracker.policy_input(situation, observation)
        mapped = time.perf_counter()
        inputs = graph_inputs(policy_input, observation, self.spec, state.reset)
        inputs = {tensor.name: inputs[tensor.name] for tensor in self.bundle.contract.inputs}
        memory, outputs = self.bundle.step.step(state.memory, inputs)
        details = {
            "map_ms": (routing - started + mapped - routed) * 1e3,
            "route_ms": (routed - routing) * 1e3,
            "infer_ms": (time.perf_counter() - mapped) * 1e3,
        }
        action, value, why, path = outputs["action"][0], float(outputs["value"][0]), "actor", None
        pilot = state.pilot
        if self._planner != "actor":
            began = time.perf_counter()
            imagine = None if self._dreams is None else self._dreams.of(memory)
            pilot, found, path = self._pilot.move(pilot, observation, situation, imagine)
            action, why = found.action, found.why
            details |= {"plan_ms": (time.perf_counter() - began) * 1e3, "score": found.score}
        if not (np.isfinite(action).all() and np.isfinite(value)):
            action, value, why = np.zeros(3), 0.0, "stop: action not finite"
        velocity = self.spec.action_to_velocity(action)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        decision = Decision(command, value, why, situation.route_odom_m, path, details)
        return BundleState(situation, memory, False, pilot), decision


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


def load(folder: str | Path, spec: RobotSpec | None = None, planner: Planner = "actor") -> BundlePolicy:
    """Loads a bundle as a policy for a robot; without `spec`, for the bundle's own robot.

    Raises:
        BundleError: the bundle is damaged, was exported for another robot, or without what the planner needs.
        PolicyError: an unknown planner.
    """
    bundle = load_bundle(folder)
    return BundlePolicy(bundle, spec or bundle.contract.robot, planner)
