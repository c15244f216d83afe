from __future__ import annotations

import numpy as np

from policies.random_policy import RandomPolicy
from robonav.types import Policy, RobotSpec
from tests.mapping.raycast import observe


def commands(policy: RandomPolicy, seed: int, ticks: int) -> np.ndarray:
    state, made = policy.reset(seed), []
    for tick in range(ticks):
        state, decision = policy.act(state, observe((0, 0, 0), (3, 0), None, stamp_ns=tick * 10**8))
        assert decision.command.valid_until_ns > tick * 10**8
        made.append(decision.command.velocity)
    return np.array(made)


def test_the_same_seed_gives_the_same_commands(a1: RobotSpec) -> None:
    policy = RandomPolicy(a1)
    assert isinstance(policy, Policy)
    assert np.array_equal(commands(policy, 5, 40), commands(RandomPolicy(a1), 5, 40))
    assert not np.array_equal(commands(policy, 5, 40), commands(policy, 6, 40))


def test_commands_are_within_the_limits_smooth_and_of_both_signs(a1: RobotSpec) -> None:
    made = commands(RandomPolicy(a1), 1, 400)
    low = np.array([a1.vx_min_mps, -a1.vy_max_mps, -a1.yaw_rate_max_radps])
    high = np.array([a1.vx_max_mps, a1.vy_max_mps, a1.yaw_rate_max_radps])
    assert (made >= low).all() and (made <= high).all()
    assert (np.abs(np.diff(made, axis=0)) <= 0.15 * (high - low)).all()
    assert (made.min(axis=0) < 0.4 * low).all() and (made.max(axis=0) > 0.4 * high).all()
