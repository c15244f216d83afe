from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robonav.evaluation.worldmodel import errors, outcomes
from robonav.evaluation.worldmodel.data import carried_scan, pooled, real_returns, trivial_forecasts, what_followed
from robonav.evaluation.worldmodel.dreams import (
    Starts,
    choose_starts,
    decode,
    dream_on,
    follow,
    recorded_actions,
)
from robonav.evaluation.worldmodel.measure import MeasureConfig, gates, measure, prepare
from robonav.evaluation.worldmodel.outcomes import carried_on
from robonav.imagination.agent import Agent, AgentConfig
from robonav.types import RobotSpec
from robonav.world_model.encoders import GOAL_SIZE, goal_vector, with_patches
from tests.evaluation.worldmodel_by_hand import DISCOUNT, SLOPE_M, episode_on_a_line, line_agent

HORIZON = 6


def episodes_of(spec: RobotSpec, count: int = 3):
    rng = np.random.default_rng(0)
    return [episode_on_a_line(spec, rng.uniform(0.2, 1.0, size=12 + 9 * i)) for i in range(count)]


def foresee(agent, episodes, horizon: int = HORIZON, samples: int = 2, return_steps: int = 4):
    starts = choose_starts(episodes, 3, 2, 0)
    followed = follow(agent, episodes, [e.inputs for e in episodes], starts)
    actions = recorded_actions(episodes, starts, horizon)
    return starts, followed, dream_on(agent, followed.states, actions, samples, return_steps, 0)


def test_memory_holds_the_action_before_each_tick(a1: RobotSpec) -> None:
    """h_{t-1} of the line is z_{t-1} + a_{t-1} = z_t, in episodes of different lengths followed together."""
    episodes = episodes_of(a1)
    _, followed, _ = foresee(line_agent(), episodes)
    for episode, features in zip(episodes, followed.features, strict=True):
        assert len(features) == episode.ticks
        assert features[0, 0] == 0.0
        assert features[1:, 0] == pytest.approx(features[1:, 1], rel=1e-5)
        assert features[:, 1] == pytest.approx(episode.inputs["goal_base_m"][:, 0])


def test_a_model_that_is_right_has_no_error_at_any_horizon(a1: RobotSpec) -> None:
    episodes = episodes_of(a1)
    starts, _, forecast = foresee(line_agent(), episodes)
    real = what_followed(episodes, starts, HORIZON, a1)
    found = errors.open_loop(forecast.quantities, real, a1.lidar.range_m)
    for name in ("lidar_m", "goal_m", "velocity_mps", "reward"):
        assert found[name] == pytest.approx([0.0] * HORIZON, abs=1e-5), name
    assert found["n"][0] == len(starts.tick) > found["n"][-1] > 0


def test_one_that_is_a_step_late_is_wrong_by_a_step_at_every_horizon(a1: RobotSpec) -> None:
    episodes = [episode_on_a_line(a1, np.ones(25))]
    starts, followed, forecast = foresee(line_agent(late=1.0), episodes)
    real = what_followed(episodes, starts, HORIZON, a1)
    found = errors.open_loop(forecast.quantities, real, a1.lidar.range_m)
    assert found["lidar_m"] == pytest.approx([SLOPE_M] * HORIZON, abs=1e-5)
    closed = errors.closed_loop(line_agent(late=1.0), episodes, followed.features, a1.lidar.range_m)
    assert closed["lidar_m"]["all"]["median"] == pytest.approx(SLOPE_M, abs=1e-5)
    assert closed["map"] is None and closed["flow_mps"] is None


def test_the_trivial_forecasts_are_wrong_by_what_they_leave_out(a1: RobotSpec) -> None:
    episodes = [episode_on_a_line(a1, np.ones(25))]
    starts = choose_starts(episodes, 3, 2, 0)
    real = what_followed(episodes, starts, HORIZON, a1)
    trivial = trivial_forecasts(episodes, starts, HORIZON, a1)
    steps = np.arange(1, HORIZON + 1)
    held = errors.open_loop(trivial["held"], real, a1.lidar.range_m)
    assert held["lidar_m"] == pytest.approx(SLOPE_M * steps, rel=1e-4)
    assert held["reward"] == pytest.approx(0.1 * steps, rel=1e-4)
    moved = errors.open_loop(trivial["held_moved"], real, a1.lidar.range_m)
    assert moved["lidar_m"] == pytest.approx(SLOPE_M * steps, rel=1e-4)  # the pose never changed
    mean = trivial["mean"]["goal_m"][0, :, 0]
    assert mean == pytest.approx([12.0] * HORIZON)  # of places 0 to 24


def test_actions_beyond_the_end_hold_the_last_one_that_was_done(a1: RobotSpec) -> None:
    episode = episode_on_a_line(a1, np.arange(5.0))
    taken = recorded_actions([episode], Starts(np.array([0]), np.array([2])), 4)
    assert taken[0, :, 0].tolist() == [2.0, 3.0, 3.0, 3.0]  # the last tick's action, 4, was never done


def test_starts_leave_a_warm_up_and_a_tick_to_predict(a1: RobotSpec) -> None:
    episodes = episodes_of(a1)
    starts = choose_starts(episodes, 4, 5, 1)
    for i, episode in enumerate(episodes):
        ticks = starts.tick[starts.episode == i]
        assert 5 <= ticks[0] < 9 and ticks[-1] <= episode.ticks - 2
        assert (np.diff(ticks) == 4).all()


def test_collisions_and_returns_of_what_followed(a1: RobotSpec) -> None:
    episodes = [episode_on_a_line(a1, np.ones(8), outcome) for outcome in ("collision", "success")]
    starts = Starts(np.array([0, 0, 1]), np.array([3, 5, 5]))
    real = what_followed(episodes, starts, 5, a1)
    assert real.collision.tolist() == [
        [False, False, False, True, True],  # tick 7 is the last
        [False, True, True, True, True],
        [False] * 5,
    ]
    assert real.valid[0].tolist() == [True] * 4 + [False]
    assert real.nearest_m == pytest.approx(1.0 + SLOPE_M * starts.tick)
    assert real_returns(episodes, starts, DISCOUNT)[1] == pytest.approx(0.6 + DISCOUNT * 0.7)


def test_what_is_seen_carried_on_foresees_who_comes_and_where_one_drives(a1: RobotSpec) -> None:
    """Five starts, of which two end in a touch within half a second: driven into a wall, and run into by somebody."""
    episodes = [episode_on_a_line(a1, np.zeros(14), outcome) for outcome in ["collision"] * 2 + ["success"] * 3]
    for episode in episodes:
        episode.inputs["scan_m"][:], episode.inputs["twist_base"][:] = 5.0, 0.0
    wall, walker, away, beside = (episodes[i].inputs for i in (0, 1, 2, 3))
    ahead = int(np.argmin(np.abs(a1.lidar.angles_rad)))
    for inputs, forward in ((wall, 1.0), (away, -0.5)):
        inputs["scan_m"][:, ahead] = a1.length_m / 2 - a1.lidar.mount_x_m + 0.2
        inputs["twist_base"][:, 0] = forward * a1.vx_max_mps
    for inputs, mps in ((walker, -1.0), (beside, 1.0)):
        inputs["scan_m"][:, ahead] = a1.length_m / 2 - a1.lidar.mount_x_m + 0.3
        inputs["flow_mps"][:, ahead, 0] = mps
    starts = Starts(np.arange(5), np.full(5, 9))
    actions = np.zeros((5, 10, 3), np.float32)
    actions[0, :, 0], actions[2, :, 0] = 1.0, -1.0
    real = what_followed(episodes, starts, 10, a1)
    assert real.collision[:, 4].tolist() == [True, True, False, False, False]
    assert carried_on(episodes, starts, actions, real, a1)["0.5 s"]["auc"][0] == 1.0
    for inputs in (walker, beside):
        inputs["flow_mps"][:] = 0.0  # he is not seen to move
    assert carried_on(episodes, starts, actions, real, a1)["0.5 s"]["auc"][0] < 1.0


def test_imagined_returns_and_collisions_by_their_definition(a1: RobotSpec) -> None:
    """From place 97, in steps of 1: an end at 100 that the reward calls a collision."""
    action = np.ones(12)
    action[0] = 96.0
    episodes = [episode_on_a_line(a1, action, "collision")]
    agent = line_agent(ends_at=100.0, value=7.0)
    starts = Starts(np.array([0, 0]), np.array([2, 1]))
    followed = follow(agent, episodes, [e.inputs for e in episodes], starts)
    forecast = dream_on(agent, followed.states, recorded_actions(episodes, starts, 5), 3, 2, 0)
    assert forecast.collision[0] == pytest.approx([0, 0, 1, 1, 1], abs=1e-5)
    assert forecast.collision[1] == pytest.approx([0, 0, 0, 1, 1], abs=1e-5)
    assert forecast.collision_by_reward[0] == pytest.approx([0, 0, 1, 1, 1], abs=1e-5)
    assert forecast.imagined_return[0] == pytest.approx(9.8 + DISCOUNT * 9.9 + DISCOUNT**2 * 7.0, rel=1e-5)
    # with the end within the two steps, neither what follows nor the critic counts
    end = dream_on(line_agent(ends_at=98.0, value=7.0), followed.states, np.ones((2, 5, 3), np.float32), 1, 2, 0)
    assert end.imagined_return[0] == pytest.approx(9.8, rel=1e-5)
    assert forecast.collision_by_clearance is None
    agent.model.clearance = SimpleNamespace(touch=lambda features: 0.5 * (features[..., 1] >= 99.0))
    near = dream_on(agent, followed.states, recorded_actions(episodes, starts, 5), 3, 2, 0).collision_by_clearance
    assert near is not None and near[0] == pytest.approx([0, 0.5, 0.75, 0.875, 0.9375])
    # an end that the reward calls neither counts half
    assert end.collision[0][:2] == pytest.approx([0.5, 0.5], abs=1e-4)


def test_a_scan_carried_through_a_turn_is_turned(a1: RobotSpec) -> None:
    scan = np.random.default_rng(0).uniform(1, 3, size=(1, a1.lidar.beams))
    turns = a1.lidar.increment_rad * np.array([0, 5, -17])
    after = np.stack([0 * turns, 0 * turns, turns], -1)[None]
    carried = carried_scan(scan, np.zeros((1, 3)), after, a1.lidar)
    for k, beams in enumerate((0, 5, -17)):
        assert carried[0, k] == pytest.approx(np.roll(scan[0], -beams), rel=1e-5)


def test_a_scan_carried_towards_a_wall_is_shorter(a1: RobotSpec) -> None:
    """A wall 3 m ahead, seen at an angle of 0.5 rad from a robot that then goes 1 m further and turns to it."""
    angles = a1.lidar.angles_rad
    distance = np.where(np.cos(angles - 0.5) > 0.3, 3.0 / np.maximum(np.cos(angles - 0.5), 0.3), 8.0)
    before = np.array([[2.0, 1.0, 0.3]])
    heading = 0.8
    after = np.array([[[2.0 + np.cos(heading), 1.0 + np.sin(heading), heading]]])
    carried = carried_scan(distance[None], before, after, a1.lidar)[0, 0]
    ahead = int(np.argmin(np.abs(angles)))
    assert carried[ahead] == pytest.approx(2.0, abs=0.01)


def test_decoded_maps_and_goals_are_in_the_places_they_were_trained_for(a1: RobotSpec) -> None:
    """A decoder that answers exactly what its losses ask for decodes to the map and the goal themselves."""
    agent = Agent(AgentConfig(), a1).eval()
    rng = np.random.default_rng(0)
    image = rng.integers(2, size=(1, 3, 48, 48)).astype(np.uint8) * 255
    arrays = {
        "local_map": image,
        "goal_base_m": rng.normal(size=(1, 2)),
        "waypoints_base_m": rng.normal(size=(1, 3, 2)),
    }
    inputs = {name: torch.as_tensor(a, dtype=torch.float32) for name, a in arrays.items()}
    wanted = with_patches(inputs, torch.float32)["map_patches"].mean(-1).flatten(-3) / 255
    decoder = agent.model.decoder
    assert decoder is not None
    with torch.no_grad():
        for net, bias in ((decoder.local_map, torch.logit(wanted[0], 1e-6)), (decoder.goal, goal_vector(inputs)[0])):
            net[-1].weight.zero_()
            net[-1].bias.copy_(bias)
        out = decode(agent.model, torch.zeros(1, agent.model.feature_size))
    assert out["local_map"][0].numpy() == pytest.approx(pooled(image)[0], abs=1e-3)
    assert out["goal_m"][0].numpy() == pytest.approx(arrays["goal_base_m"][0], abs=1e-3)
    assert out["waypoints_m"][0].numpy() == pytest.approx(arrays["waypoints_base_m"][0], abs=1e-5)
    assert decoder.goal[-1].out_features == GOAL_SIZE


def test_range_errors_by_bins() -> None:
    true = np.array([0.3, 0.5, 1.0, 3.0, 7.0, 8.0])
    found = errors.range_errors(true + np.array([0.02, -0.04, 0.1, 0.2, 0.3, 5.0]), true, 8.0)
    assert found["0.25 to 0.6"]["median"] == pytest.approx(0.03) and found["0.25 to 0.6"]["n"] == 2
    assert found["all"]["n"] == 5  # 8 m hit nothing
    assert found["0.6 to 1.5"]["median"] == pytest.approx(0.1)


def test_flow_and_map_errors_of_known_answers() -> None:
    real = np.zeros((1, 4, 2))
    real[0, 0] = 1.0, 0.0
    real[0, 1] = 0.0, 0.5
    still = errors.flow_errors(np.zeros_like(real), real)
    assert still["median"] == still["still"] == pytest.approx(0.75) and still["n"] == 2
    assert errors.flow_errors(real, real)["median"] == 0.0
    cells = np.zeros((1, 3, 2, 2))
    cells[0, 0, 0, 0] = 1.0
    same = errors.map_errors(cells, cells)
    assert same["nats"] == pytest.approx(-np.log(0.99), rel=1e-4) and same["iou_occupied"] == 1.0
    assert errors.map_errors(1 - cells, cells)["iou_occupied"] == 0.0


def test_paired_differences_are_of_episodes() -> None:
    first = np.array([[1.0, 1.0], [3.0, np.nan], [2.0, np.nan]])
    found = outcomes.paired_difference(first, first - [[0.5], [0.1], [0.1]], np.array([0, 1, 1]))
    assert found[0] is not None and found[0].mean == pytest.approx(-0.3)
    assert found[1] is not None and found[1].mean == pytest.approx(-0.5)


def test_all_figures_of_a_model_that_is_right(a1: RobotSpec) -> None:
    episodes = [*episodes_of(a1, 5), episode_on_a_line(a1, np.full(40, 3.0), "collision", "random")]
    config = MeasureConfig(horizon=15, samples=1)
    data = prepare(episodes, a1, config)
    figures = measure(line_agent(ends_at=100.0), data, config).figures
    assert figures["closed_loop"]["lidar_m"]["all"]["median"] == pytest.approx(0.0, abs=1e-6)
    assert figures["collision"]["0.5 s"]["positives"] > 0
    assert figures["returns"]["actor"]["n"] < figures["returns"]["all"]["n"] == data.figures["starts"]
    told = {gate["what"].split(",")[0]: gate for gate in gates(figures)}
    assert told["decoded range at 0.25 to 0.6 m"]["reached"] is None  # nothing came that near
    assert told["collision AUC at 0.5 s"]["reached"] in (True, False)
