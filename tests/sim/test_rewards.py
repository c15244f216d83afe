"""Rewards as data: presets, the shaping potential against its closed form, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from robonav.errors import ConfigError
from sim.rewards import RewardConfig, load_rewards


@pytest.mark.parametrize("name", ["sparse", "shaped", "potential"])
def test_presets_load(name: str) -> None:
    assert load_rewards(name).success == 1.0


def test_nothing_is_the_preset_that_training_uses() -> None:
    assert load_rewards(None) == load_rewards("shaped") == RewardConfig()


def test_sparse_rewards_say_nothing_about_the_way() -> None:
    sparse = load_rewards("sparse")
    assert sparse.reward(0.5, 0.01, None, 3.0) == sparse.reward(-0.5, 5.0, None, 9.0) == pytest.approx(-0.005)
    assert sparse.reward(0.0, 1.0, "success") - sparse.reward(0.0, 0.0, "collision") == pytest.approx(2.0)
    assert sparse.reward(0.0, 1.0, "timeout") == pytest.approx(-0.005)


@pytest.mark.parametrize("discount", [0.9, 0.99, 1.0])
def test_the_discounted_sum_of_shaping_depends_on_the_ends_alone(discount: float) -> None:
    """sum gamma^t F_t = gamma^T phi_T - phi_0 (Ng, Harada and Russell 1999), whatever lies between."""
    terms = RewardConfig(step=0.0, near=0.0, progress_per_m=0.5, shaping_discount=discount)
    for seed in range(5):
        way = np.abs(np.random.default_rng(seed).normal(5.0, 2.0, 30))
        way[0], way[-1] = 6.0, 1.0
        total = sum(discount**t * terms.reward(way[t] - way[t + 1], 9.0, None, way[t + 1]) for t in range(len(way) - 1))
        assert total == pytest.approx(-0.5 * (discount**29 * 1.0 - 6.0))


def test_nearness_costs_linearly_below_its_range() -> None:
    terms = RewardConfig(step=0.0, near=-0.4, near_range_m=0.2)
    costs = [terms.reward(0.0, clearance, None) for clearance in (0.0, 0.05, 0.1, 0.2, 1.0)]
    assert costs == pytest.approx([-0.4, -0.3, -0.2, 0.0, 0.0])


def test_the_environment_pays_what_the_terms_say() -> None:
    """The same episode under several rewards: each term is what its definition gives from the infos."""
    totals = {}
    for name, reward in {"sparse": "sparse", "progress": {"step": 0.0, "near": 0.0, "progress_per_m": 1.0}}.items():
        env = sim.make_env("empty", policy_input=False, reward=reward)
        env.reset(seed=4)
        field = env._now.field
        ways = [field.at(*env.position_world_m)]
        rewards = []
        for _ in range(12):
            rewards.append(env.step(np.array([1.0, 0.0, 0.5], np.float32))[1])
            ways.append(field.at(*env.position_world_m))
        env.close()
        totals[name] = (rewards, ways)
    assert totals["sparse"][0] == pytest.approx([-0.005] * 12)
    assert totals["progress"][0] == pytest.approx(-np.diff(totals["progress"][1]))


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ({"sucess": 1.0}, "did you mean 'success'"),
        ({"near_range_m": 0.0}, "near_range_m: expected a number above 0"),
        ({"near_range_m": -1.0}, "near_range_m"),
        ({"shaping_discount": 0.0}, "shaping_discount"),
        ({"shaping_discount": 1.1}, "above 0 and at most 1"),
        ({"step": float("nan")}, "step"),
        ("shapd", "did you mean 'shaped'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(reward: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        load_rewards(reward)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
