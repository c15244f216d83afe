"""Environments in worker processes: Gymnasium's own semantics, the same episodes however they are shared out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from stub_env import LENGTH, StubFactory

import sim
from robonav.errors import RobonavError
from sim.analytic.env import AnalyticVectorEnv
from sim.vector import WorkerVectorEnv, make_vec

MODES = list(AutoresetMode)
Log = list[Any]


@pytest.fixture
def closing() -> Iterator[Any]:
    made: list[VectorEnv[Any, Any, Any]] = []

    def keep(env: VectorEnv[Any, Any, Any]) -> Any:
        made.append(env)
        return env

    yield keep
    for one in made:
        one.close()


def stubs(workers: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP, count: int = 3) -> WorkerVectorEnv:
    return WorkerVectorEnv([StubFactory(i) for i in range(count)], workers, mode)


def assert_same(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (tuple, list)) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert np.array_equal(a, b), where
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None), where


def episodes(env: VectorEnv[Any, Any, Any], steps: int, seed: int = 5) -> Log:
    rng = np.random.default_rng(1)
    log: Log = [env.reset(seed=seed)]
    for _ in range(steps):
        log.append(env.step(rng.uniform([0.3, -0.5, -1], [1, 0.5, 1], (env.num_envs, 3)).astype(np.float32)))
    return log


def test_episodes_are_the_same_with_0_1_and_2_workers(closing: Any) -> None:
    options = {"scene": ["rooms", "crowd-few"], "depth": True, "sensors": "real", "randomisation": "sim2real"}
    logs = [episodes(closing(make_vec(3, workers, **options)), 60) for workers in (0, 1, 2)]
    assert sum(int((part[2] | part[3]).sum()) for part in logs[0][1:]) >= 2  # some ended, and others began
    assert_same(logs[0], logs[1])
    assert_same(logs[0], logs[2])


def test_episodes_are_those_of_single_environments(closing: Any) -> None:
    many = episodes(closing(make_vec(2, 1, policy_input=False, autoreset_mode="disabled")), 8)
    rng = np.random.default_rng(1)
    actions = [rng.uniform([0.3, -0.5, -1], [1, 0.5, 1], (2, 3)).astype(np.float32) for _ in range(8)]
    for i in range(2):
        one = sim.make_env(policy_input=False)
        first, info = one.reset(seed=5 + i)
        assert_same(first, {name: array[i] for name, array in many[0][0].items()})
        assert many[0][1]["seed"][i] == info["seed"] == 5 + i
        for action, step in zip(actions, many[1:], strict=True):
            observation, reward, *_, info = one.step(action[i])
            assert_same(observation, {name: array[i] for name, array in step[0].items()})
            assert (reward, info["path_m"]) == (step[1][i], step[4]["path_m"][i])
        one.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_autoreset_is_gymnasiums(closing: Any, mode: AutoresetMode) -> None:
    logs = []
    for env in (stubs(2, mode), SyncVectorEnv([StubFactory(i) for i in range(3)], autoreset_mode=mode)):
        closing(env)
        log: Log = [env.reset(seed=[4, None, 9])]
        for k in range(3 * LENGTH):
            log.append(env.step(np.array([[0], [3 * (k == 1)], [0]], np.float32)))
        logs.append(log)
    for a, b in zip(*logs, strict=True):
        for infos in (a[-1], b[-1]):  # which has no seed
            for part in (infos, infos.get("final_info", {})):
                if "seed" in part:
                    part["seed"][1] = 0
        assert_same(a, b)


def test_next_step_shows_the_last_observation_and_then_the_first(closing: Any) -> None:
    env = closing(stubs(2))
    env.reset(seed=0)
    shown, rewards, ended = [], [], []
    for _ in range(LENGTH + 2):
        observations, reward, terminated, _, _ = env.step(np.zeros((3, 1), np.float32))
        shown.append(observations["where"][2].tolist())
        rewards.append(reward[2])
        ended.append(bool(terminated[2]))
    assert shown == [[1, 1], [1, 2], [1, 3], [2, 0], [2, 1]]
    assert rewards == [1, 2, 3, 0, 1]
    assert ended == [False, False, True, False, False]


def test_same_step_shows_the_first_observation_and_keeps_the_last(closing: Any) -> None:
    env = closing(stubs(2, AutoresetMode.SAME_STEP))
    env.reset(seed=0)
    for _ in range(LENGTH):
        observations, reward, terminated, _, infos = env.step(np.zeros((3, 1), np.float32))
    assert terminated.all()
    assert reward.tolist() == [3, 3, 3]
    assert observations["where"].tolist() == [[2, 0]] * 3
    assert [final["where"].tolist() for final in infos["final_obs"]] == [[1, 3]] * 3
    assert infos["final_info"]["outcome"].tolist() == ["success"] * 3
    assert "outcome" not in infos
    assert infos["_seed"].all()


def test_disabled_leaves_resets_to_the_caller_and_its_mask(closing: Any) -> None:
    env = closing(stubs(2, AutoresetMode.DISABLED))
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.zeros((3, 1), np.float32))
    observations, infos = env.reset(options={"reset_mask": np.array([True, False, True]), "say": 1})
    assert observations["where"].tolist() == [[2, 0], [1, 2], [2, 0]]
    assert infos["_seed"].tolist() == [True, False, True]
    assert infos["options"]["say"].tolist() == [1, 0, 1]
    assert env.step(np.zeros((3, 1), np.float32))[2].tolist() == [False, True, False]


def test_an_episode_that_is_over_needs_a_reset_when_autoreset_is_disabled(closing: Any) -> None:
    env = closing(make_vec(2, 1, policy_input=False, scene="empty", autoreset_mode="disabled"))
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 3), np.float32))


def test_spaces_and_attributes(closing: Any) -> None:
    env = closing(stubs(2))
    assert env.observation_space == batch_space(env.single_observation_space, 3)
    assert env.action_space == batch_space(env.single_action_space, 3)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert env.get_attr("name") == (0, 1, 2)
    env.set_attr("speed", 2.0)
    assert env.get_attr("speed") == (2.0, 2.0, 2.0)
    env.set_attr("speed", [1.0, 2.0, 3.0])
    assert env.get_attr("speed") == (1.0, 2.0, 3.0)
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_pictures_come_from_every_environment(closing: Any) -> None:
    env = closing(make_vec(2, 1, policy_input=False, scene="empty", render_mode="rgb_array"))
    env.reset(seed=0)
    pictures = env.render()
    assert len(pictures) == 2
    assert pictures[0].shape[2] == 3


def test_observations_are_copies_unless_asked_otherwise(closing: Any) -> None:
    for copy, same in ((True, False), (False, True)):
        env = closing(WorkerVectorEnv([StubFactory(0)], 1, copy=copy))
        first, _ = env.reset(seed=0)
        env.step(np.zeros((1, 1), np.float32))
        assert (first["where"].tolist() == [[1, 1]]) is same


def test_it_waits_for_the_step_under_way(closing: Any) -> None:
    env = closing(stubs(2))
    with pytest.raises(RobonavError, match="no step is under way"):
        env.step_wait()
    env.reset(seed=0)
    env.step_async(np.zeros((3, 1), np.float32))
    for ask in (env.reset, lambda: env.step(np.zeros((3, 1), np.float32)), lambda: env.get_attr("name")):
        with pytest.raises(RobonavError, match="'step' is under way"):
            ask()
    assert env.step_wait()[1].tolist() == [1, 1, 1]


def test_closing_twice_is_fine_and_nothing_works_after_it() -> None:
    env = stubs(2)
    processes = list(env._processes)
    env.reset(seed=0)
    env.close()
    env.close()
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(RobonavError, match="closed"):
        env.step(np.zeros((3, 1), np.float32))


def test_it_closes_while_a_step_is_under_way() -> None:
    env = stubs(1)
    env.reset(seed=0)
    env.step_async(np.zeros((3, 1), np.float32))
    env.close()
    assert not any(process.is_alive() for process in env._processes)


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_environment_that_raises_is_one_line(closing: Any) -> None:
    env = closing(stubs(2))
    env.reset(seed=0)
    with pytest.raises(RobonavError) as error:
        env.step(np.array([[0], [0], [1]], np.float32))
    line = one_line(error)
    assert "ValueError: broken on purpose (stub_env.py:" in line


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_worker_that_dies_is_one_line(closing: Any, how: str) -> None:
    env = closing(stubs(2))
    env.reset(seed=0)
    if how == "kill":
        os.kill(env._processes[1].pid, 9)
        env._processes[1].join(30)
    with pytest.raises(RobonavError, match=r"worker 1 died \(exit code (7|-9)\)") as error:
        env.step(np.array([[0], [0], [2]], np.float32))
    one_line(error)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_envs": 0}, "num_envs: expected 1 or more"),
        ({"num_envs": -2}, "num_envs"),
        ({"num_envs": 2, "workers": -1}, "workers: expected 0 or more"),
        ({"num_envs": 2, "autoreset_mode": "later"}, "'next_step', 'same_step' or 'disabled'"),
        ({"num_envs": 2, "scene": []}, "a scene, or several"),
        ({"num_envs": 2, "scene": "rom"}, "did you mean 'rooms'"),
        ({"num_envs": 2, "workers": 1, "robot": "a2"}, "no preset 'a2'"),
        ({"num_envs": 2, "fidelity": "analytic", "depth": True}, "no depth camera"),
        ({"num_envs": 2, "fidelity": "analytic", "pool": -1}, "pool"),
        ({"num_envs": 2, "fidelity": "real"}, "fidelity"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(RobonavError, match=words) as error:
        make_vec(**arguments)
    one_line(error)


def test_environments_of_different_spaces_are_refused() -> None:
    with pytest.raises(RobonavError, match="same spaces"):
        WorkerVectorEnv([StubFactory(0), StubFactory(1, size=3)], 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": [1, 2]}, "3 seeds"),
        ({"options": {"reset_mask": np.ones(2, np.bool_)}}, "3 bools"),
        ({"options": {"reset_mask": np.zeros(3, np.bool_)}}, "one true"),
        ({"options": {"reset_mask": np.ones(3)}}, "float64"),
    ],
)
def test_bad_seeds_and_masks_are_one_clear_line(closing: Any, arguments: dict[str, Any], words: str) -> None:
    env = closing(stubs(1))
    with pytest.raises(RobonavError, match=words) as error:
        env.reset(**arguments)
    one_line(error)
    with pytest.raises(RobonavError, match="actions"):
        env.step(np.zeros((2, 1), np.float32))
    env.reset(seed=0)


@pytest.mark.parametrize("mode", MODES)
def test_the_analytic_batch_gives_the_episodes_of_its_single_worlds(closing: Any, mode: AutoresetMode) -> None:
    options: dict[str, Any] = {"fidelity": "analytic", "autoreset_mode": mode}
    if mode == AutoresetMode.SAME_STEP:
        options |= {"sensors": "real", "randomisation": "sim2real", "scene": ["rooms", "crowd-few"]}
    batch = closing(make_vec(2, view="top", **options))
    assert isinstance(batch, AnalyticVectorEnv)
    single = closing(make_vec(2, 0, **options))
    assert isinstance(single, SyncVectorEnv)
    steps = 60 if mode != AutoresetMode.DISABLED else 5
    for a, b in zip(episodes(batch, steps), episodes(single, steps), strict=True):
        assert_same(a[0], b[0])
        for x, y in zip(a[1:-1], b[1:-1], strict=True):
            assert np.allclose(x, y, atol=1e-12)
        assert a[-1]["scene"].tolist() == b[-1]["scene"].tolist()
        assert a[-1].get("seed", np.zeros(0)).tolist() == b[-1].get("seed", np.zeros(0)).tolist()
        assert_same(a[-1].get("randomisation"), b[-1].get("randomisation"))


def test_pictures_of_analytic_worlds_come_one_by_one(closing: Any) -> None:
    env = closing(make_vec(1, 0, fidelity="analytic", render_mode="rgb_array", scene="empty"))
    env.reset(seed=0)
    assert env.render()[0].shape[2] == 3


def test_gymnasium_makes_them_by_id(closing: Any) -> None:
    batch = closing(gymnasium.make_vec("robonav/NavigateAnalytic-v0", num_envs=2, pool=2))
    assert isinstance(batch, AnalyticVectorEnv)
    batch.reset(seed=0)
    env = closing(gymnasium.make_vec("robonav/NavigateMemory-v0", num_envs=2, workers=1, autoreset_mode="same_step"))
    assert isinstance(env, WorkerVectorEnv)
    _, infos = env.reset(seed=0)
    assert all(name.startswith("tmaze") for name in infos["scene"])
