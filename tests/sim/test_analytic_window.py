"""The compiled window of commands against the planner's own prices, and what it does in closed loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from robonav.planning.mppi import MPPIConfig
from robonav.planning.progress import Pace, change_m, progress_m, route_ahead
from robonav.planning.surroundings import Surroundings
from robonav.planning.sweep import SweepConfig, sweep
from robonav.planning.window import reachable_commands
from robonav.types import Observation, RobotSpec

pytest.importorskip("numba")
from sim.analytic.env import AnalyticVectorEnv
from sim.analytic.window import SIDEWAYS, TEACHER, Window


def surroundings_of(observation: Observation, flow_mps: NDArray[np.float32], spec: RobotSpec) -> Surroundings:
    """Points of a scan with the velocities that the flow says."""
    scan = np.asarray(observation.scan_m, np.float64)
    hit = (scan < spec.lidar.range_m - 1e-3) & (scan >= 0.05)
    x, y, yaw = (float(v) for v in observation.pose_odom_base)
    beams, turn = np.exp(1j * spec.lidar.angles_rad[hit]), np.exp(1j * yaw)
    points = complex(x, y) + (spec.lidar.mount_x_m + scan[hit] * beams) * turn
    return Surroundings(points, (flow_mps[hit, 0] + 1j * flow_mps[hit, 1]).astype(np.complex128) * turn)


def prices(env: AnalyticVectorEnv, b: int, commands: NDArray[np.floating], config: MPPIConfig) -> NDArray[np.float64]:
    """What the planner would pay for commands (N, 3) that are kept up."""
    spec, observation, tracker = env.robot, env.observation(b), env.tracker
    assert tracker is not None
    actions = spec.velocity_to_action(commands).astype(np.float32)
    plans = np.repeat(actions[:, None], config.horizon, axis=1)
    around = surroundings_of(observation, env.readings()["flow_mps"][b], spec)
    swept = sweep(plans, observation, around, spec, replace(config.sweep, walls=False))  # the window knows none
    length_m = spec.vx_max_mps * (config.horizon * spec.dt_s + config.sweep.tail_s) + 1.0
    route = route_ahead(tracker.route(b), float(tracker.routes.progress_m[b]), observation, length_m)
    gain = progress_m(route, swept.positions, swept.yaw_rad, swept.free, swept.time_s, Pace.of(spec), config.route)
    return swept.cost - gain + change_m(spec.action_to_velocity(actions), observation, config.route)


@pytest.mark.parametrize(
    ("robot", "config"), [("a1", MPPIConfig(sweep=SweepConfig(risk_weight=0.0))), ("spirit40", TEACHER)]
)
def test_the_chosen_command_is_the_planners_cheapest(robot: str, config: MPPIConfig) -> None:
    scenes = ["clutter", "crowd-dense", "corridors", "crowd-few"]
    env = AnalyticVectorEnv(8, scene=scenes, robot=robot)
    env.reset(seed=11)
    window, checked, moved = Window(env.robot, config), 0, 0
    for step in range(40):
        commands, there, _ = env.window_commands(window=window)
        if step % 3 == 0:
            for b in np.flatnonzero(there).tolist():
                observation = env.observation(b)
                reachable = reachable_commands(env.robot, observation.twist_base, config.samples)
                price = prices(env, b, np.concatenate([reachable, commands[b : b + 1]]), config)
                assert price[-1] <= price[:-1].min() + 2e-3
                checked += 1
                moved += bool(env.readings()["flow_mps"][b].any())
        env.step(env.robot.velocity_to_action(commands).astype(np.float32))
    assert checked > 80 and moved > 10


def test_regret_is_the_price_of_what_was_asked_less_that_of_the_best() -> None:
    config, rng = replace(TEACHER, route=replace(TEACHER.route, turn_round_weight=1.0)), np.random.default_rng(8)
    env = AnalyticVectorEnv(8, scene=["clutter", "crowd-dense"], robot="a1")
    env.reset(seed=12)
    window, regrets = Window(env.robot, config), []
    for step in range(30):
        asked = env.robot.action_to_velocity(rng.uniform([-0.2, -0.3, -1], [1, 0.3, 1], (8, 3)))
        found = env.window_commands(window=window, asked=asked)
        plain = env.window_commands(window=window)
        assert np.array_equal(found.commands, plain.commands) and not plain.regret_m.any()
        if step % 3 == 0:
            for b in np.flatnonzero(found.known).tolist():
                price = prices(env, b, np.stack([asked[b], found.commands[b]]), config)
                assert found.regret_m[b] == pytest.approx(max(price[0] - price[1], 0.0), abs=5e-3)
                regrets.append(found.regret_m[b])
        best = env.window_commands(window=window, asked=found.commands)
        assert best.regret_m[best.known].max(initial=0) < 1e-3
        env.step(env.robot.velocity_to_action(found.commands).astype(np.float32))
    assert len(regrets) > 60 and max(regrets) > 1.0 and min(regrets) < 0.1


@pytest.mark.parametrize("slack_m", [0.02, 0.3])
def test_with_slack_the_answer_is_the_nearest_of_the_good_commands(slack_m: float) -> None:
    rng, env = np.random.default_rng(9), AnalyticVectorEnv(8, scene=["clutter", "crowd-dense"], robot="a1")
    env.reset(seed=13)
    own, others = 0, 0
    low, high = (env.robot.action_to_velocity(np.full(3, side, np.float32)) for side in (-1.0, 1.0))
    low[0] = env.robot.vx_min_mps
    span = high - low
    for step in range(24):
        plain = env.window_commands(sideways=True)
        asked = plain.commands + rng.normal(0.0, 0.1, (8, 3))
        found = env.window_commands(asked=asked, sideways=True, slack_m=slack_m)
        for b in np.flatnonzero(found.known).tolist() if step % 3 == 0 else ():
            if found.regret_m[b] <= slack_m:
                assert np.allclose(found.commands[b], asked[b], atol=1e-6)
                own += 1
                continue
            there = reachable_commands(env.robot, env.observation(b).twist_base, SIDEWAYS.samples)
            price = prices(env, b, np.concatenate([there, found.commands[b : b + 1]]), SIDEWAYS)
            assert price[-1] <= price[:-1].min() + slack_m + 4e-3
            nearer = np.linalg.norm((there - asked[b]) / span, axis=1)
            nearer = nearer < np.linalg.norm((found.commands[b] - asked[b]) / span) - 1e-4
            assert (price[:-1][nearer] > price[:-1].min() + slack_m - 4e-3).all()
            others += 1
        env.step(env.robot.velocity_to_action(plain.commands).astype(np.float32))
    assert own > 3 and others > 10


def test_without_a_scan_or_a_route_there_is_no_command() -> None:
    env = AnalyticVectorEnv(3, scene="rooms", robot="a1")
    env.reset(seed=0)
    assert env.tracker is not None
    env.readings()["present"][1, 0] = 0.0
    env.tracker.routes.counts[2] = 0
    commands, there, _ = env.window_commands()
    assert there.tolist() == [True, False, False]
    assert commands[0].any() and not commands[1:].any()


def test_worlds_do_not_depend_on_each_other() -> None:
    """A world's command is the same alone and in a batch, bit for bit."""
    spec, rng = None, np.random.default_rng(3)
    env = AnalyticVectorEnv(5, scene=["crowd-dense", "clutter"], robot="a1")
    env.reset(seed=5)
    for _ in range(12):
        env.step(rng.uniform(-0.2, 1.0, (5, 3)).astype(np.float32))
    spec, tracker, seen = env.robot, env.tracker, env.readings()
    assert tracker is not None
    together, there, _ = env.window_commands()
    assert there.all()
    for b in range(5):
        one = {name: values[b : b + 1] for name, values in seen.items()}
        routes = type(tracker.routes)(*(array[b : b + 1] for array in tracker.routes))
        alone, _, _ = Window(spec).commands(one, seen["pose_odom_base"][b : b + 1], routes, np.ones(1, np.bool_))
        assert (alone[0] == together[b]).all()


@pytest.mark.parametrize("scene", ["rooms", "corridors"])
def test_it_drives_to_the_goal(scene: str) -> None:
    env = AnalyticVectorEnv(16, scene=scene, robot="a1", autoreset_mode="NextStep")
    env.reset(seed=21)
    outcomes: dict[int, str] = {}
    for _ in range(450):
        commands, _, _ = env.window_commands()
        *_, infos = env.step(env.robot.velocity_to_action(commands).astype(np.float32))
        for b in np.flatnonzero(infos.get("_outcome", np.zeros(16, np.bool_))).tolist():
            outcomes.setdefault(b, infos["outcome"][b])
        if len(outcomes) == 16:
            break
    assert sum(outcome == "success" for outcome in outcomes.values()) >= 15
