"""The exported planner: what numpy and torch plan from the same memory, with the same noise, over recorded ticks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from tiny import AGENT

from deploy.export import layout_of, read_by
from deploy.export_planner import planner_to_onnx
from deploy.export_precision import lowered
from deploy.export_pricing import Pricing
from deploy.export_record import record, record_plans, synthetic_drives
from deploy.graph import Graph
from deploy.plans import check_plans, plans_difference, recorded_feeds
from policies.bundle import PlansRecord
from policies.contract import make_contract
from policies.onnx_planner import OnnxPlanner
from policies.onnx_session import open_session
from policies.planner_layout import PlannerLayout
from robonav.config import load_robot
from robonav.errors import BundleError, ConfigError
from robonav.imagination.agent import Agent
from robonav.planning.field import LocalField, distance_grid, no_movers
from robonav.planning.local import anybody_moves
from robonav.planning.mppi import MPPIConfig
from robonav.planning.progress import Pace, RouteAhead, change_m, progress_m
from robonav.planning.situation import SituationConfig
from robonav.planning.sweep import SweepConfig, sweep
from robonav.types import Observation

SPEC = load_robot("a1")
SWEEP = SweepConfig(tail_s=0.4, swerve_weight=0.3)
DIALS = MPPIConfig(candidates=12, horizon=4, imagination_weight=1.0, samples=(2, 1, 3), sweep=SWEEP)
LOOPS = {"Loop", "Scan", "If"}

pytestmark = pytest.mark.xdist_group("planner-graph")  # one export for all


@pytest.fixture(scope="module")
def agent() -> Agent:
    """Untrained, with heads that say something."""
    torch.manual_seed(1)
    made = Agent(replace(AGENT, model=replace(AGENT.model, prior_heads=2, sampled_groups=2)), SPEC)
    for head in (made.behavior.critic, made.model.reward):
        torch.nn.init.normal_(head.net[-1].weight, std=0.3)
    torch.nn.init.normal_(made.behavior.actor.net[-1].weight, std=0.3)
    return made.eval()


class Torch:
    """Stands for the policy's graph: the states that torch had."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def initial_state(self) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in self.agent.initial_state(1).tensors()}

    @torch.no_grad()
    def step(self, state: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], None]:
        from robonav.imagination.agent import AgentState

        tensors = [torch.from_numpy(values) for values in state.values()]
        before = AgentState(self.agent.model.state_of(tensors[:-1]), tensors[-1])
        given = {name: torch.from_numpy(inputs[name]) for name in read_by(self.agent, SPEC)}
        arrays = (torch.from_numpy(inputs[name]) for name in ("action_prev", "reset"))
        after = self.agent.step(before, given, *arrays).state
        return {name: tensor.numpy() for name, tensor in after.tensors()}, None


@pytest.fixture(scope="module")
def exported(agent: Agent) -> tuple[bytes, PlannerLayout, object, object]:
    layout, ticks = layout_of(agent, SPEC, DIALS), synthetic_drives(SPEC, SituationConfig(), 24, episode=11)
    parity = record(agent, SPEC, ticks)
    plans = record_plans(agent, SPEC, layout, parity, ticks, SituationConfig())
    return planner_to_onnx(agent, layout), layout, parity, plans


@pytest.fixture(scope="module")
def planner(agent: Agent, exported) -> OnnxPlanner:
    return planner_of(agent, exported[0])


def planner_of(agent: Agent, model: bytes) -> OnnxPlanner:
    states = {name: tuple(tensor.shape) for name, tensor in agent.initial_state(1).tensors()}
    return OnnxPlanner(model, make_contract("tiny", SPEC, states, SituationConfig()))


def test_the_graph_plans_what_numpy_and_torch_plan(agent: Agent, exported, planner: OnnxPlanner) -> None:
    _, _, parity, plans = exported
    found = plans_difference(Torch(agent), planner, parity, plans, SPEC, (1e-3, 0.95))
    assert found.ticks == 24
    assert found.same_share >= 23 / 24  # where two candidates score the same, either may be taken
    assert found.max_abs_diff < 1e-4
    assert np.abs(plans.plan).max() > 0.1
    assert len(np.unique(plans.score)) == 24


def assert_same_plans(agent: Agent, dials: MPPIConfig):
    """The graph's plans are numpy's and torch's over eight ticks; layout, ticks, parity record and plans."""
    layout, ticks = layout_of(agent, SPEC, dials), synthetic_drives(SPEC, SituationConfig(), 8)
    parity = record(agent, SPEC, ticks)
    plans = record_plans(agent, SPEC, layout, parity, ticks, SituationConfig())
    graph = planner_of(agent, planner_to_onnx(agent, layout))
    found = plans_difference(Torch(agent), graph, parity, plans, SPEC, (1e-3, 0.95))
    assert found.same_share >= 7 / 8
    assert found.max_abs_diff < 1e-4
    return layout, ticks, parity, plans


@pytest.mark.parametrize("dials", [{"dreaming_rounds": 2, "danger_floor": 0.1}, {"dreamt": 7, "rounds": 3}])
def test_so_it_does_with_other_dreams(agent: Agent, exported, dials: dict[str, float]) -> None:
    assert_same_plans(agent, replace(DIALS, **dials))


def test_so_it_does_where_a_head_for_clearances_says_what_is_dangerous() -> None:
    torch.manual_seed(2)
    model = replace(AGENT.model, prior_heads=2, sampled_groups=2, clearance=True)
    agent = Agent(replace(AGENT, model=model), SPEC).eval()
    assert agent.model.clearance is not None
    torch.nn.init.normal_(agent.model.clearance.net[-1].weight, std=1.5)
    plain = Agent(replace(AGENT, model=replace(model, clearance=False)), SPEC).eval()
    plain.load_state_dict({n: v for n, v in agent.state_dict().items() if not n.startswith("model.clearance.")})
    layout, ticks, parity, plans = assert_same_plans(agent, replace(DIALS, danger_weight=8.0))
    other = record_plans(plain, SPEC, layout, parity, ticks, SituationConfig())
    assert np.abs(plans.score - other.score).max() > 0.1  # it is asked, and says something else than the ends


def test_a_graph_that_does_not_say_what_it_dreams_dreams_all(agent: Agent) -> None:
    layout = layout_of(agent, SPEC, replace(DIALS, dreaming_rounds=DIALS.rounds))
    model = onnx.load_model_from_string(planner_to_onnx(agent, layout))
    (entry,) = model.metadata_props
    said = json.loads(entry.value)
    del said["config"]["dreamt"], said["config"]["dreaming_rounds"], said["config"]["danger_floor"]
    entry.value = json.dumps(said)
    config = planner_of(agent, model.SerializeToString()).layout.config
    assert (config.dreams, config.first_dreaming, config.danger_floor) == (DIALS.candidates, 0, 0.0)


def test_it_has_no_loops_and_static_shapes(exported) -> None:
    graph = onnx.load_model_from_string(exported[0]).graph
    assert not {node.op_type for node in graph.node} & LOOPS
    for tensor in (*graph.input, *graph.output):
        assert all(dim.dim_value > 0 for dim in tensor.type.tensor_type.shape.dim)


def test_the_same_inputs_give_the_same_plan_and_other_noise_another(
    agent: Agent, exported, planner: OnnxPlanner
) -> None:
    _, layout, _, plans = exported
    memory = Torch(agent).initial_state()
    before, feeds = list(recorded_feeds(plans, layout, SPEC))[5]
    first, again = (planner.run(memory, before, feeds) for _ in range(2))
    assert np.array_equal(first.plan, again.plan)
    assert first.score == again.score
    noisy = feeds | {"noise.plans": feeds["noise.plans"][::-1].copy(), "noise.actor": -feeds["noise.actor"]}
    assert not np.array_equal(planner.run(memory, before, noisy).plan, first.plan)


def test_it_stops_where_no_candidate_is_finite_and_counts_them(agent: Agent, exported, planner: OnnxPlanner) -> None:
    _, layout, _, plans = exported
    memory = {name: np.full_like(values, np.nan) for name, values in Torch(agent).initial_state().items()}
    before, feeds = next(recorded_feeds(plans, layout, SPEC))
    found = planner.run(memory, before, feeds)
    assert not found.found
    assert not found.plan.any()
    assert found.rejected == DIALS.dreams


def graph_prices(layout: PlannerLayout, actions: np.ndarray, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """(K,) what a graph of the prices alone says of plans (K, L, 3)."""
    g = Graph("price")
    for name, shape in layout.inputs().items():
        g.input(name, shape)
    g.input("actions", actions.shape)
    g.output(Pricing(g, layout).price("actions", len(actions)), "price", (len(actions),))
    session, given = open_session(g.to_bytes(), "price.onnx"), {**given, "actions": actions}
    (prices,) = session.run(["price"], {i.name: np.asarray(given[i.name], np.float32) for i in session.get_inputs()})
    return np.asarray(prices)


@pytest.mark.parametrize("who", ["nobody", "far", "comes", "here", "stops"])
def test_prices_in_the_graph_are_those_of_the_sweep(agent: Agent, exported, who: str) -> None:
    _, layout, _, plans = exported
    rng, count = np.random.default_rng(3), 40
    actions = rng.uniform(-1, 1, (count, DIALS.horizon, 3)).astype(np.float32)
    actions[0] = 0.0
    _, feeds = next(recorded_feeds(plans, layout, SPEC))
    movers = no_movers()
    if who != "nobody":
        x, speed, until = {
            "far": (3.0, 0.2, 1e3),
            "comes": (1.0, -1.2, 1e3),
            "here": (0.55, -0.5, 1e3),
            "stops": (1.5, -1.2, 0.4),
        }[who]
        movers[0] = x, 0.05, speed, 0.0, 0.25, until
    twist, half_m = np.array([0.6, 0.0, 0.1], np.float32), float(feeds["body"][-1])
    wall = (1.6 + 1j * np.linspace(-2, 2, 60)).astype(np.complex64)
    local = LocalField(distance_grid(wall, half_m), half_m, movers, wall)
    observation = replace_twist(synthetic_drives(SPEC, SituationConfig(), 1)[0]["observation"], twist)
    expected = sweep(actions, observation, local, SPEC, DIALS.sweep).cost
    alone = replace(layout, config=replace(DIALS, progress=False))
    got = graph_prices(alone, actions, feeds | {"movers": movers, "field": local.distance_m, "twist": twist})
    assert np.allclose(got, expected, atol=2e-3)
    assert (expected > DIALS.sweep.forbidden).any() == (who in ("comes", "here"))
    through = sweep(actions, observation, local, SPEC, replace(DIALS.sweep, walls=False)).cost
    assert np.allclose(through, expected) == (who != "stops")


@pytest.mark.parametrize("moving", [False, True])
def test_looking_backwards_costs_in_the_graph_what_it_costs_in_numpy(agent: Agent, exported, moving: bool) -> None:
    _, layout, _, plans = exported
    count, spec = 30, SPEC
    actions = np.random.default_rng(4).uniform(-1, 1, (count, DIALS.horizon, 3)).astype(np.float32)
    _, feeds = next(recorded_feeds(plans, layout, spec))
    movers, half_m = no_movers(), float(feeds["body"][-1])
    if moving:
        movers[0] = 3.0, 2.0, 0.3, 0.0, 0.25, 1e3
    local = LocalField(distance_grid(np.zeros(0, np.complex64), half_m), half_m, movers, np.zeros(0, np.complex64))
    line = (-np.linspace(0.0, 4.0, layout.route_points)).astype(np.complex64)  # behind the robot
    route = RouteAhead(line, -9.0 + 0j, 9.0)
    observation = synthetic_drives(spec, SituationConfig(), 1)[0]["observation"]
    swept = sweep(actions, observation, local, spec, DIALS.sweep)
    assert anybody_moves(local) == moving
    rates = replace(DIALS.route, turn_round_weight=0.0 if moving else DIALS.route.turn_round_weight)
    ways = swept.positions, swept.yaw_rad, swept.free, swept.time_s
    expected = swept.cost - progress_m(route, *ways, Pace.of(spec), rates)
    expected = expected + change_m(spec.action_to_velocity(actions[:, 0]), observation, rates)
    points, length = layout.route_arrays(route)
    given = feeds | {"movers": movers, "field": local.distance_m, "route": points, "route_length": length}
    known = {"twist": observation.twist_base, "last_command": observation.last_command}
    got = graph_prices(layout, actions, given | known)
    assert np.allclose(got, expected, atol=2e-3)
    away = progress_m(route, *ways, Pace.of(spec), replace(rates, turn_round_weight=0.0))
    assert np.allclose(progress_m(route, *ways, Pace.of(spec), rates), away) == moving


@pytest.mark.parametrize("wall_m", [0.4, 0.6, 0.9])
def test_a_wall_ahead_is_never_driven_into(agent: Agent, exported, planner: OnnxPlanner, wall_m: float) -> None:
    _, layout, _, plans = exported
    before, feeds = next(recorded_feeds(plans, layout, SPEC))
    wall, half_m = (wall_m + 1j * np.linspace(-2, 2, 60)).astype(np.complex64), float(feeds["body"][-1])
    line = np.stack([np.linspace(0.0, 4.0, layout.route_points + 1), np.zeros(layout.route_points + 1)], 1)
    fast = np.array([0.5, 0.0, 0.0], np.float32)
    movers = no_movers()
    road = {"route": line.astype(np.float32), "route_length": np.array([4.0, 1.0], np.float32), "twist": fast}
    road |= {"field": distance_grid(wall, half_m), "movers": movers, "constants": feeds["constants"] * 0}
    found = planner.run(Torch(agent).initial_state(), 0 * before, feeds | road)
    seen = replace_twist(synthetic_drives(SPEC, SituationConfig(), 1)[0]["observation"], fast)
    local = LocalField(road["field"], half_m, movers, wall)
    assert sweep(found.plan[None], seen, local, SPEC, DIALS.sweep).cost[0] < DIALS.sweep.forbidden


def replace_twist(observation: Observation, twist: np.ndarray) -> Observation:
    return replace(observation, twist_base=twist)


@pytest.mark.slow
def test_fewer_bits_move_it_further_but_not_far(agent: Agent, exported) -> None:
    model, _, parity, plans = exported
    sizes, differences = [], []
    for precision in ("fp32", "fp16", "int8"):
        small = lowered(model, precision)
        found = plans_difference(Torch(agent), planner_of(agent, small), parity, plans, SPEC, (1.0, 0.0))
        sizes.append(len(small))
        differences.append(max(found.max_abs_diff, 1.0 - found.same_share))
    assert sizes[0] > sizes[1] > sizes[2]
    assert differences[0] <= differences[1] <= differences[2] < 1.0
    with pytest.raises(BundleError, match="precision: expected one of fp32, fp16, int8, got 'int4'"):
        lowered(model, "int4")


def test_a_planner_outside_its_bounds_is_refused_in_one_line() -> None:
    good = PlansRecord(200, 0.97, 1e-5, 0.01, 1e-3, 0.95)
    check_plans(good, "b")
    with pytest.raises(
        BundleError, match=r"b: planner: expected the same plan at 95% of the ticks or more, got 80\.0%"
    ):
        check_plans(replace(good, same_share=0.8), "b")
    with pytest.raises(BundleError, match=r"scores within 0\.001, got 0\.02"):
        check_plans(replace(good, max_abs_diff=0.02), "b")
    with pytest.raises(BundleError, match="got nan"):
        check_plans(replace(good, max_abs_diff=float("nan")), "b")


def test_what_a_graph_cannot_do_is_refused(agent: Agent) -> None:
    with pytest.raises(ConfigError, match="deadline_ms"):
        PlannerLayout(MPPIConfig(deadline_ms=20.0))
    with pytest.raises(ConfigError, match="from_actor"):
        PlannerLayout(MPPIConfig(from_actor=0.0))
    gru = Agent(replace(AGENT, model=replace(AGENT.model, backbone=replace(AGENT.model.backbone, pattern="G"))), SPEC)
    with pytest.raises(BundleError, match="a memory of Mamba-3 layers"):
        planner_to_onnx(gru, layout_of(gru, SPEC, DIALS))


def test_a_damaged_planner_is_one_line(agent: Agent, exported) -> None:
    with pytest.raises(BundleError, match="ONNX graph"):
        planner_of(agent, b"nothing")
    model = onnx.load_model_from_string(exported[0])
    del model.metadata_props[:]
    with pytest.raises(BundleError, match="its layout in the metadata"):
        planner_of(agent, model.SerializeToString())


def test_what_no_output_needs_is_left_out() -> None:
    g = Graph("small")
    x = g.input("x", (2,))
    used, unused = g.op("Add", x, np.array([1.0, 2.0])), g.op("Mul", x, np.array([7.0, 7.0]))
    g.op("Neg", unused)
    g.output(used, "y", (2,))
    graph = onnx.load_model_from_string(g.to_bytes()).graph
    assert [node.op_type for node in graph.node] == ["Add", "Identity"]
    assert len(graph.initializer) == 1
