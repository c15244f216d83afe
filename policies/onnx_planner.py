"""The imagination planner of a bundle in onnxruntime: map and route in numpy, everything else in one graph."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from policies.contract import NEXT_PREFIX, STATE_PREFIX, BundleContract
from policies.onnx_session import Runtime, open_session, statement
from policies.onnx_step import Arrays
from policies.planner_layout import PLAN, Feeds, PlannerLayout, Seen
from robonav.config import from_mapping
from robonav.errors import BundleError, ConfigError, explain
from robonav.planning.local import LocalPilot, Move, PilotState, imagined_path
from robonav.planning.mppi import Plan
from robonav.planning.situation import Situation
from robonav.types import Observation, RobotSpec

LAYOUT_KEY = "robonav.planner"
OUTPUTS = ("action", "score", "found", "rejected", NEXT_PREFIX + PLAN)


class Found(NamedTuple):
    """What the graph says at a tick."""

    plan: np.ndarray  # (L, A)
    score: float
    found: bool
    rejected: int


class OnnxPlanner:
    """The planner's graph as a pure function of the policy's state, the last plan and a tick's arrays.

    Args:
        model: bytes of the ONNX file.
        contract: of the bundle, whose states it reads.
        where: stands in front of error messages.

    Raises:
        BundleError: no ONNX graph, or one with other tensors.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self, model: bytes, contract: BundleContract, where: str = "planner.onnx", runtime: Runtime | None = None
    ) -> None:
        self._session = open_session(model, where, runtime)
        text = self._session.get_modelmeta().custom_metadata_map.get(LAYOUT_KEY)
        try:
            self.layout = from_mapping(PlannerLayout, _described(text), f"{where}: layout")
        except (ValueError, ConfigError) as error:
            raise BundleError(explain(where, "its layout in the metadata", str(error)[:200], "export again")) from None
        shapes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}
        states = {STATE_PREFIX + t.name: t.shape for t in contract.states}
        horizon = self.layout.config.horizon
        expected = states | {STATE_PREFIX + PLAN: (horizon, 3)} | self.layout.inputs()
        for name in [*expected, *shapes]:
            if expected.get(name) != shapes.get(name):
                wanted, got = expected.get(name, "none"), shapes.get(name, "none")
                raise BundleError(explain(f"{where}: {name}", wanted, got, "export the bundle again"))
        self._states = {STATE_PREFIX + t.name: t.name for t in contract.states}

    @property
    def runs_on(self) -> str:
        """What the graph runs on."""
        return statement(self._session)

    def run(self, memory: Arrays, plan: np.ndarray, feeds: Feeds) -> Found:
        """Plans once.

        Args:
            memory: the policy's state after this tick's step, by state name.
            plan: (L, A) the last one.
            feeds: of `PlannerLayout.feeds`.
        """
        state = {graph: memory[name] for graph, name in self._states.items()}
        _, score, found, rejected, after = self._session.run(
            list(OUTPUTS), {**state, STATE_PREFIX + PLAN: plan, **feeds}
        )
        return Found(after, float(score[0]), bool(found[0]), int(rejected[0]))


def _described(text: str | None) -> Any:
    """The mapping in a graph's metadata.

    Graphs that do not say what they dream dream all candidates of all rounds, and count every danger; those that do
    not say what turning round costs charge nothing for it, in those that know no walls people walk through them, those
    that know no risk charge none, and where nothing is said of who sees what moves, it is the tracker.
    """
    found = json.loads(text or "null")
    if isinstance(found, dict) and isinstance(found.get("config"), dict):
        config = found["config"]
        before = {
            "sight": "",
            "dreamt": config.get("candidates"),
            "dreaming_rounds": config.get("rounds"),
            "danger_floor": 0.0,
        }
        route = {"turn_round_weight": 0.0} | config.get("route", {})
        sweep = {"walls": False, "risk_weight": 0.0} | config.get("sweep", {})
        found["config"] = before | config | {"route": route, "sweep": sweep}
    return found


class GraphPilot:
    """`robonav.planning.local.LocalPilot` with the whole planner in a graph. Holds constants only."""

    def __init__(self, spec: RobotSpec, planner: OnnxPlanner) -> None:
        self.spec, self._planner, self.layout = spec, planner, planner.layout
        self._pilot = LocalPilot(spec, self.layout.config, on_field=True)

    def reset(self, seed: int) -> PilotState:
        """State at an episode's start; the seed drives the noise."""
        return self._pilot.reset(seed)

    def look(self, state: PilotState, observation: Observation, situation: Situation) -> tuple[PilotState, Seen]:
        """The state with what is seen now, and what the planner is told of it."""
        pilot = self._pilot
        surroundings, memory = pilot.surroundings(state, observation, situation)
        local = pilot.field(surroundings, observation)
        route = self.layout.route_arrays(pilot.planner.route(observation, situation))
        twist, last = (np.asarray(v, np.float32) for v in (observation.twist_base, observation.last_command))
        return PilotState(surroundings, state.planner, memory), Seen(twist, last, local, *route)

    def move(self, state: PilotState, observation: Observation, situation: Situation, memory: Arrays) -> Move:
        """The best plan at a tick, dreamt from the policy's memory."""
        state, seen = self.look(state, observation, situation)
        noise = self.layout.noise(state.planner, self.spec, seen.twist)
        found = self._planner.run(memory, state.planner.plan, self.layout.feeds(seen, noise, self.spec))
        planner = state.planner._replace(plan=found.plan, tick=state.planner.tick + 1)
        why = "mppi" if found.found else "stop: no finite candidate"
        rounds = self.layout.config.rounds
        plan = Plan(found.plan[0], found.plan, found.score, found.rejected, rounds, why, planner)
        path = imagined_path(observation, plan.actions, self.spec)
        return Move(state._replace(planner=planner), plan, path)
