"""`AnalyticVectorEnv`: each of its worlds is a `NavigateEnv`; resets, seeds, spaces, and what it refuses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import sim
from robonav.errors import ConfigError, RobonavError, SceneError, ShapeError
from sim.analytic.bench import measure_analytic
from sim.analytic.env import AnalyticVectorEnv

STEERED = ([0.2, -0.3, -1.0], [1.0, 0.3, 1.0])


def _actions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(*STEERED, (*shape, 3)).astype(np.float32)


def _run(env: AnalyticVectorEnv, steps: int, seed: int) -> list[tuple]:
    """Copies of all that comes out; world i gets the same actions in any batch."""
    rngs = [np.random.default_rng([seed, i]) for i in range(env.num_envs)]
    observation, infos = env.reset(seed=seed)
    out = [(observation, None, None, None, infos)]
    for _ in range(steps):
        out.append(env.step(np.stack([_actions(rng) for rng in rngs])))
    return out


def _assert_same_world(a: list[tuple], i: int, b: list[tuple], j: int) -> None:
    for left, right in zip(a, b, strict=True):
        for name in left[0]:
            np.testing.assert_array_equal(left[0][name][i], right[0][name][j], err_msg=name)
        for k in (1, 2, 3):
            assert left[k] is None or left[k][i] == right[k][j]
        for name in ("position_world_m", "shortest_m", "path_m", "velocity", "clearance_m"):
            np.testing.assert_array_equal(left[4][name][i], right[4][name][j])


@pytest.mark.parametrize(
    ("scene", "options"),
    [
        ("rooms", {}),
        ("crowd-few", {"policy_input": False}),
        ("clutter", {"sensors": "real", "randomisation": "sim2real"}),
        ("crowd-few", {"sensors": "real", "randomisation": "sim2real", "policy_input": False}),
        ("crowd-dense", {"sensors": "real", "randomisation": "sim2real", "sight": "learned"}),
        ("doors-moving", {"robot": "go2", "reward": "potential"}),
    ],
)
def test_a_world_gives_what_one_environment_gives(scene, options) -> None:
    batch = AnalyticVectorEnv(3, scene, autoreset_mode="disabled", **options)
    one = sim.make_env(scene, fidelity="analytic", **options)
    rng = np.random.default_rng(0)
    assert batch.single_observation_space == one.observation_space
    assert batch.single_action_space == one.action_space
    for seed in (4, 11):
        observations, infos = batch.reset(seed=seed)
        observation, info = one.reset(seed=seed + 1)
        over = np.zeros(3, np.bool_)
        for _ in range(40):
            for name, array in observation.items():
                assert observations[name].dtype == array.dtype
                np.testing.assert_array_equal(observations[name][1], array, err_msg=name)
            for name, value in info.items():
                assert infos[f"_{name}"][1]
                if name == "randomisation":
                    for knob, drawn in value.items():
                        assert infos[name][knob][1] == pytest.approx(drawn)
                else:
                    np.testing.assert_array_equal(infos[name][1], value, err_msg=name)
            if over.any():
                break
            actions = _actions(rng, 3)
            observations, rewards, terminated, truncated, infos = batch.step(actions)
            observation, reward, done, cut, info = one.step(actions[1])
            assert (rewards[1], terminated[1], truncated[1]) == (reward, done, cut)
            over = terminated | truncated
    batch.close()
    one.close()


def test_rewards_and_ends_are_those_of_the_kinematic_environment() -> None:
    """Same scenes, actions and lag; without contact all agrees to rounding, and contact may come a substep apart."""
    one, batch = sim.make_env("rooms"), AnalyticVectorEnv(1, "rooms", autoreset_mode="disabled")
    rng = np.random.default_rng(5)
    outcomes = []
    for seed in range(8):
        observation, _ = one.reset(seed=seed)
        observations, infos = batch.reset(seed=seed)
        over = False
        while not over:
            for name, array in observation.items():
                np.testing.assert_allclose(observations[name][0].astype(float), array, atol=1e-4, err_msg=name)
            action = _actions(rng)
            observation, reward, terminated, truncated, info = one.step(action)
            observations, rewards, ends, cuts, infos = batch.step(action[None])
            assert (ends[0], cuts[0]) == (terminated, truncated)
            over = terminated or truncated
            assert rewards[0] == pytest.approx(reward, abs=0.02 if over else 1e-3)
        assert infos["outcome"][0] == info["outcome"]
        outcomes.append(info["outcome"])
    assert "collision" in outcomes
    one.close()
    batch.close()


def test_the_size_of_the_batch_changes_nothing() -> None:
    large, small = AnalyticVectorEnv(5, "crowd-few"), AnalyticVectorEnv(1, "crowd-few")
    one = _run(small, 60, seed=2)
    _assert_same_world(_run(large, 60, seed=2), 0, one, 0)
    _assert_same_world(_run(small, 60, seed=2), 0, one, 0)  # once more, in an environment that ran before
    assert any(row[2] is not None and row[2][0] for row in one)  # an episode ended and another one began


def _plain(info: object) -> object:
    """Infos with arrays as lists, so that they can be compared."""
    if isinstance(info, dict):
        return {key: _plain(value) for key, value in info.items()}
    if isinstance(info, np.ndarray):
        return [_plain(value) for value in info] if info.dtype == object else info.tolist()
    return info


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_all_that_comes_out_is_what_gymnasiums_vector_environment_gives(mode) -> None:
    """Episode after episode: arrays, ends, infos and their masks, and the last observations."""
    ours, theirs = (
        sim.make_vec(3, workers, fidelity="analytic", scene=["rooms", "clutter"], autoreset_mode=mode)
        for workers in (None, 0)
    )
    assert isinstance(ours, AnalyticVectorEnv)
    assert isinstance(theirs, SyncVectorEnv)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    (observations, infos), (expected, expected_infos) = ours.reset(seed=3), theirs.reset(seed=3)
    ends = 0
    for _ in range(120):
        assert list(observations) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(observations[name], array, err_msg=name)
        assert _plain(infos) == _plain(expected_infos)
        actions = _actions(rng, 3)
        observations, *rest, infos = ours.step(actions)
        expected, *expected_rest, expected_infos = theirs.step(actions)
        for got, wanted in zip(rest, expected_rest, strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == wanted.dtype
        ends += int((rest[1] | rest[2]).sum())
    assert ends >= 3
    ours.close()
    theirs.close()


def test_scenes_are_dealt_out_in_turn() -> None:
    env = AnalyticVectorEnv(4, ["rooms", "maze"])
    _, infos = env.reset(seed=0)
    assert [name.split("-")[0] for name in infos["scene"]] == ["rooms", "maze", "rooms", "maze"]
    alone = AnalyticVectorEnv(1, "maze")
    alone.reset(seed=3)
    np.testing.assert_array_equal(env.worlds.state.pose[3], alone.worlds.state.pose[0])


@pytest.mark.parametrize("mode", ["next_step", "NextStep", AutoresetMode.NEXT_STEP])
def test_next_step_begins_anew_with_the_step_after_the_end(mode) -> None:
    env = AnalyticVectorEnv(3, autoreset_mode=mode)
    rows = _run(env, 120, seed=0)
    begun = 0
    for before, row in pairwise(rows[1:]):
        ended = before[2] | before[3]
        np.testing.assert_array_equal(row[1][ended], 0.0)
        assert not (row[2] | row[3])[ended].any()
        for b in np.flatnonzero(ended):
            assert before[4]["_outcome"][b]
            assert row[4]["_seed"][b]
            assert (row[0]["last_command"][b] == 0).all()
            assert row[4]["path_m"][b] == 0
            begun += 1
    assert begun


def test_same_step_gives_the_last_observation_in_the_info() -> None:
    following, same = AnalyticVectorEnv(3), AnalyticVectorEnv(3, autoreset_mode="same_step")
    rng = np.random.default_rng(0)
    following.reset(seed=0)
    same.reset(seed=0)
    for _ in range(200):
        actions = _actions(rng, 3)
        expected, got = following.step(actions), same.step(actions)
        ended = expected[2] | expected[3]
        np.testing.assert_array_equal(expected[1], got[1])
        if ended.any():
            break
    assert ended.any()
    for b in np.flatnonzero(ended):
        final, info = got[4]["final_obs"][b], got[4]["final_info"]
        for name, array in expected[0].items():
            np.testing.assert_array_equal(final[name], array[b])
        assert info["outcome"][b] == expected[4]["outcome"][b]
        assert (got[0]["last_command"][b] == 0).all()  # the next episode has begun
        assert got[4]["_seed"][b]


def test_disabled_waits_for_a_reset_of_that_world_alone() -> None:
    env = AnalyticVectorEnv(3, autoreset_mode="disabled")
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    over = np.zeros(3, np.bool_)
    while not over.any():
        before, _, terminated, truncated, _ = env.step(_actions(rng, 3))
        over = terminated | truncated
    with pytest.raises(ResetNeeded):
        env.step(_actions(rng, 3))
    after, infos = env.reset(options={"reset_mask": over})
    np.testing.assert_array_equal(infos["_seed"], over)
    for name, array in after.items():
        np.testing.assert_array_equal(array[~over], before[name][~over])
    assert (after["last_command"][over] == 0).all()
    env.step(_actions(rng, 3))


@pytest.mark.parametrize("options", [{}, {"policy_input": False}, {"sensors": "real", "policy_input": False}])
def test_observations_lie_in_their_space_and_are_copies(options) -> None:
    env = AnalyticVectorEnv(2, "crowd-few", **options)
    first, _ = env.reset(seed=1)
    kept = {name: array.copy() for name, array in first.items()}
    assert env.observation_space.contains(first)
    rng = np.random.default_rng(0)
    for _ in range(20):
        observation, reward, *_ = env.step(_actions(rng, 2))
        assert env.observation_space.contains(observation)
        assert reward.dtype == np.float64
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
    shared = AnalyticVectorEnv(2, copy=False)
    observation, _ = shared.reset(seed=1)
    assert shared.step(_actions(rng, 2))[0]["scan_m"] is observation["scan_m"]


def test_a_pool_and_a_thread_change_no_episode_within_them() -> None:
    plain = _run(AnalyticVectorEnv(2, "rooms"), 60, seed=1)
    ahead = AnalyticVectorEnv(2, "rooms", ahead=True)
    _assert_same_world(_run(ahead, 60, seed=1), 1, plain, 1)
    ahead.close()
    pooled = AnalyticVectorEnv(2, "rooms", pool=2)
    names = {name for row in _run(pooled, 150, seed=0) for name in row[4]["scene"]}
    assert len(names) == 2


def test_vector_entry_points_give_this_batch() -> None:
    for env in (sim.make_vec(2, fidelity="analytic", scene="maze"), sim.make_vec(2, fidelity="analytic", pool=4)):
        assert isinstance(env.unwrapped, AnalyticVectorEnv)
        env.close()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_envs": 0}, ShapeError, "num_envs: expected 1 or more, got 0"),
        ({"pool": -1}, ConfigError, r"pool: expected 0 \(without end\) or a number of scenes, got -1"),
        ({"scene": []}, ConfigError, "scene: expected a scene, or several, got none"),
        ({"scene": "roms"}, SceneError, "no scene 'roms'"),
        ({"robot": "a2"}, ConfigError, "a2"),
        ({"autoreset_mode": "never"}, ConfigError, "autoreset_mode: expected"),
        ({"reward": {"sucess": 1.0}}, ConfigError, "sucess"),
        ({"sensors": "perfct"}, ConfigError, "perfct"),
        ({"randomisation": "sim"}, ConfigError, "sim"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        AnalyticVectorEnv(**{"num_envs": 1, **options})
    assert isinstance(caught.value, RobonavError)
    assert "\n" not in str(caught.value)


def test_calls_that_do_not_fit_are_refused() -> None:
    env = AnalyticVectorEnv(2)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 3), np.float32))
    for call in (
        lambda: env.reset(seed=[1]),
        lambda: env.reset(options={"reset_mask": np.zeros(2, np.bool_)}),
        lambda: env.reset(options={"reset_mask": np.ones(3, np.bool_)}),
    ):
        with pytest.raises(ShapeError, match="2"):
            call()
    with pytest.raises(ConfigError, match="reset options: expected 'reset_mask' alone, got scene"):
        env.reset(options={"scene": None})
    env.reset(seed=[3, None])
    for actions in (np.zeros(3, np.float32), np.full((2, 3), np.nan, np.float32)):
        with pytest.raises(ShapeError, match=r"actions: expected \(2, 3\) finite numbers"):
            env.step(actions)


def test_the_benchmark_says_where_the_time_goes() -> None:
    result = measure_analytic(seconds=0.3, batch=8, pool=4)
    assert result["steps_per_s"] > 0
    assert result["lidar_per_s"] > result["steps_per_s"]
    assert set(result["share"]) == {"motion", "lidar", "map_and_route", "crop_and_waypoints", "rest"}
    assert sum(result["share"].values()) == pytest.approx(1.0)
    assert all(0 < share < 1 for share in result["share"].values())
