"""The Gymnasium environment: its contract, its bookkeeping of reward and outcome, its determinism."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from one_hall import hall

import sim
from robonav.config import load_robot
from robonav.errors import RobonavError, SceneError
from robonav.types import LidarSpec, Observation, policy_input_shapes
from sim.env import NavigateEnv, RewardConfig


@pytest.mark.parametrize("options", [{"policy_input": False}, {"policy_input": True, "depth": True}])
def test_passes_gymnasiums_checker_without_a_warning(env, options: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env(**options), skip_render_check=True)


def test_checker_accepts_the_render_modes() -> None:
    made = gymnasium.make(sim.ENV_ID, policy_input=False, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped)
    made.close()


def test_takes_a_robot_that_is_no_preset_and_stays_picklable(env) -> None:
    spec = dataclasses.replace(load_robot("a1"), name="mine", vx_max_mps=0.5, lidar=LidarSpec(beams=32))
    factory = pickle.loads(pickle.dumps(functools.partial(sim.make_env, "empty", spec, policy_input=False)))
    made = factory()
    assert made.robot == spec
    assert made.reset(seed=0)[0]["scan_m"].shape == (32,)
    for _ in range(8):
        info = made.step(np.array([1, 0, 0], np.float32))[4]
    assert 0.4 < info["velocity"][0] <= 0.5
    made.close()
    assert env(scene="empty").robot == load_robot("a1")


def test_registered_id_makes_the_environment() -> None:
    made = gymnasium.make(sim.ENV_ID, scene="empty", policy_input=False)
    observation, info = made.reset(seed=3)
    assert made.observation_space.contains(observation)
    assert isinstance(made.unwrapped, NavigateEnv)
    assert isinstance(made.unwrapped.observation(), Observation)
    assert info["scene"] == made.unwrapped.scene.name == "empty-3"
    made.close()


def test_equal_seeds_give_equal_episodes_bit_for_bit(env) -> None:
    options = {"policy_input": True, "depth": True}
    first, second = env(**options), env(**options)
    second.reset(seed=11)  # a past must not matter
    actions = np.random.default_rng(0).uniform(-1, 1, (25, 3)).astype(np.float32)
    runs = []
    for one in (first, second):
        observation, info = one.reset(seed=5)
        log = [*observation.values(), info["shortest_m"]]
        for action in actions:
            observation, reward, terminated, truncated, info = one.step(action)
            log += [*observation.values(), reward, terminated, truncated, info["position_world_m"], info["clearance_m"]]
            if terminated or truncated:
                break
        runs.append(log)
    assert len(runs[0]) == len(runs[1])
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_unseeded_resets_follow_from_the_last_seed(env) -> None:
    one = env()
    names = []
    for _ in range(2):
        one.reset(seed=1)
        names.append([one.reset()[1]["scene"] for _ in range(3)])
    assert names[0] == names[1]
    assert len(set(names[0])) == 3


def test_policy_input_has_the_contracts_shapes(env) -> None:
    one = env(policy_input=True)
    observation, _ = one.reset(seed=0)
    assert {name: value.shape for name, value in observation.items()} == policy_input_shapes(one.robot)
    assert observation["local_map"].dtype == np.uint8
    assert observation["local_map"].any()


def test_success_reward_and_bookkeeping(env) -> None:
    one = env()
    _, info = one.reset(options={"scene": hall()})
    assert info["shortest_m"] == pytest.approx(4.5, abs=0.15)
    assert "outcome" not in info
    total, positions, steps, last = 0.0, [info["position_world_m"]], 0, False
    while not last:
        before = one.observation()
        _, reward, terminated, truncated, info = one.step(np.array([1.0, 0.0, 0.0], np.float32))
        assert one.observation().stamp_ns - before.stamp_ns == 100_000_000
        assert one.observation().last_command == pytest.approx([1.0, 0.0, 0.0])
        assert not truncated
        total, steps, last = total + reward, steps + 1, terminated
        positions.append(info["position_world_m"])
        assert steps < 80
    assert info["outcome"] == "success"
    assert math.dist(info["position_world_m"], (5.0, 0.0)) <= 0.5
    moved = positions[-1][0]
    assert info["path_m"] == pytest.approx(moved, abs=1e-6)
    assert total == pytest.approx(1.0 + 0.25 * moved - 0.005 * steps, abs=0.05)
    with pytest.raises(ResetNeeded):
        one.step(np.zeros(3, np.float32))


def test_collision_ends_the_episode(env) -> None:
    one = env(reward={"collision": -2.0, "step": 0.0, "progress_per_m": 0.0})
    one.reset(options={"scene": hall(goal=(-0.5, 0.6))})
    rewards = []
    for _ in range(100):
        _, reward, terminated, truncated, info = one.step(np.array([1.0, 0.0, 0.0], np.float32))
        rewards.append(reward)
        if terminated:
            break
    assert (info["outcome"], truncated) == ("collision", False)
    assert info["clearance_m"] == 0.0
    assert np.array_equal(info["velocity"], np.zeros(3))
    assert rewards[-1] == pytest.approx(-2.0 - 0.03)
    assert rewards[0] == 0.0
    assert min(rewards[:-1]) < 0.0  # nearing the wall costs before contact


def test_time_limit_truncates(env) -> None:
    one = env()
    one.reset(options={"scene": hall(time_limit_s=0.5)})
    results = [one.step(np.zeros(3, np.float32)) for _ in range(5)]
    assert [r[3] for r in results] == [False] * 4 + [True]
    assert not any(r[2] for r in results)
    assert results[-1][4]["outcome"] == "timeout"


def test_reward_terms() -> None:
    terms = RewardConfig()
    assert terms.reward(0.5, 1.0, None) == pytest.approx(0.25 * 0.5 - 0.005)
    assert terms.reward(0.0, 0.1, None) == pytest.approx(-0.005 - 0.015)
    assert terms.reward(0.0, 0.0, "collision") == pytest.approx(-1.0 - 0.005 - 0.03)
    assert terms.reward(0.0, 1.0, "success") == pytest.approx(1.0 - 0.005)
    assert terms.reward(0.0, 1.0, "timeout") == pytest.approx(-0.005)


def test_an_impossible_scene_is_refused_at_reset(env) -> None:
    shut = np.concatenate([hall().walls, np.array([[3, -1, 3, 1, 0.1]], np.float32)])
    with pytest.raises(SceneError, match="no way"):
        env().reset(options={"scene": hall(walls=shut)})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scene": "rom"}, "did you mean 'rooms'"),
        ({"robot": "a2"}, "a1"),
        ({"render_mode": "human"}, "rgb_array"),
        ({"view": "side"}, "chase"),
        ({"reward": {"sucess": 1.0}}, "did you mean 'success'"),
    ],
)
def test_bad_options_are_one_clear_line(options: dict, words: str) -> None:
    with pytest.raises(RobonavError, match=words) as error:
        sim.make_env(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("action", [np.zeros(2), np.array([0.0, np.nan, 0.0]), np.zeros((1, 3))])
def test_bad_actions_are_refused(env, action: np.ndarray) -> None:
    one = env()
    one.reset(seed=0)
    with pytest.raises(RobonavError, match="action"):
        one.step(action)


def test_factories_are_picklable() -> None:
    factory = pickle.loads(pickle.dumps(functools.partial(sim.make_env, "empty", policy_input=False)))
    made = factory()
    made.reset(seed=0)
    made.close()
    made.close()


@pytest.mark.parametrize("view", ["chase", "top"])
def test_renders_pictures_that_change(env, view: str) -> None:
    one = env(render_mode="rgb_array", view=view)
    one.reset(seed=2)
    first = one.render()
    assert first is not None
    assert (first.dtype, first.ndim, first.shape[2]) == (np.uint8, 3, 3)
    for _ in range(5):
        one.step(np.array([1.0, 0.0, 1.0], np.float32))
    second = one.render()
    assert (first != second).mean() > 1e-4
    assert env().render() is None
