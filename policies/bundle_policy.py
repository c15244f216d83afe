"""A policy that runs a deployment bundle: map, route and planning in numpy, the network in onnxruntime, no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from policies.bundle import Bundle, load_bundle
from policies.contract import UINT8_INPUTS, check_robot
from policies.onnx_planner import GraphPilot
from policies.onnx_session import Runtime
from robonav.config import from_mapping
from robonav.errors import BundleError, ConfigError, PolicyError, explain
from robonav.planning.local import LocalPilot, Move, PilotState
from robonav.planning.mppi import MPPIConfig
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import COMMAND_LIFE_NS, Decision, Observation, PolicyInput, RobotSpec, VelocityCommand

Planner = Literal["actor", "mppi", "geometry"]
PLANNERS: tuple[Planner, ...] = get_args(Planner)


class Stepper(Protocol):
    """`policies.onnx_step.OnnxStep`, or the same in place."""

    def step(
        self, state: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """The next state and the outputs by name."""
        ...


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
        config: of the planner, where it is no graph with dials of its own.
        in_place: whether the network's memory is kept in two sets of buffers that are written in turn; a state then
            lives until the second tick after it, and nothing is allocated for it.
    """

    def __init__(
        self,
        bundle: Bundle,
        spec: RobotSpec,
        planner: Planner = "actor",
        config: MPPIConfig | None = None,
        in_place: bool = False,
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
        self._step: Stepper = bundle.step.in_place() if in_place else bundle.step
        graph = bundle.planner() if planner == "mppi" else None
        self._graph = None if graph is None else GraphPilot(spec, graph)
        self._dreams = bundle.dreams() if planner == "mppi" and graph is None else None
        config = replace(config or MPPIConfig(), imagination=planner == "mppi")
        if self._dreams is not None:  # the graph's sizes are fixed
            k, own, horizon = astuple(self._dreams.planned)
            most = max(k, config.candidates)
            config = replace(config, candidates=most, dreamt=k, from_actor=own / k, horizon=horizon)
        self._pilot = LocalPilot(spec, config)

    @property
    def runs_on(self) -> str:
        """What the network runs on."""
        return self.bundle.step.runs_on

    def reset(self, seed: int) -> BundleState:
        """State at the start of an episode; `seed` drives the planner's noise."""
        pilot = (self._graph or self._pilot).reset(seed)
        return BundleState(self._tracker.reset(), self.bundle.step.initial_state(), True, pilot)

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
        memory, outputs = self._step.step(state.memory, inputs)
        details = {
            "map_ms": (routing - started + mapped - routed) * 1e3,
            "route_ms": (routed - routing) * 1e3,
            "infer_ms": (time.perf_counter() - mapped) * 1e3,
        }
        action, value, why, path = outputs["action"][0], float(outputs["value"][0]), "actor", None
        pilot = state.pilot
        if self._planner != "actor":
            began = time.perf_counter()
            pilot, found, path = self._planned(pilot, observation, situation, memory)
            action, why = found.action, found.why
            details |= {"plan_ms": (time.perf_counter() - began) * 1e3, "score": found.score}
        if not (np.isfinite(action).all() and np.isfinite(value)):
            action, value, why = np.zeros(3), 0.0, "stop: action not finite"
        velocity = self.spec.action_to_velocity(action)
        command = VelocityCommand.of(velocity, observation.stamp_ns + COMMAND_LIFE_NS)
        decision = Decision(command, value, why, situation.route_odom_m, path, details)
        return BundleState(situation, memory, False, pilot), decision

    def _planned(
        self, pilot: PilotState, observation: Observation, situation: Situation, memory: dict[str, NDArray[Any]]
    ) -> Move:
        """The best plan: of the graph, of numpy with the graph of the dreams, or of numpy alone."""
        if self._graph is not None:
            return self._graph.move(pilot, observation, situation, memory)
        imagine = None if self._dreams is None else self._dreams.of(memory)
        return self._pilot.move(pilot, observation, situation, imagine)


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


def load(
    folder: str | Path,
    spec: RobotSpec | None = None,
    planner: Planner = "actor",
    runtime: Runtime | None = None,
    in_place: bool = False,
) -> BundlePolicy:
    """Loads a bundle as a policy for a robot; without `spec`, for the bundle's own robot.

    `runtime` says where its graphs run, by default what the environment says; `in_place` as in `BundlePolicy`.

    Raises:
        BundleError: the bundle is damaged, was exported for another robot, or without what the planner needs; or a GPU
            was asked for and there is none.
        PolicyError: an unknown planner.
    """
    bundle = load_bundle(folder, runtime)
    return BundlePolicy(bundle, spec or bundle.contract.robot, planner, in_place=in_place)
