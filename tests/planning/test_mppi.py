"""The search over plans: what is proposed, what is dreamt, what is chosen, and what is handed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robonav.errors import ConfigError
from robonav.planning.mppi import PRIMITIVES, MPPIConfig, draw_noise, imagined_gain, initial_planner_state, plan
from robonav.planning.progress import ProgressConfig
from robonav.types import Dreams

ALONE = {"imagination": False, "candidates": 64, "horizon": 6}


class Dreamer:
    """An imagination that turns the actor's jitter into its actions and scores plans by a function."""

    noise_shape = (2, 3)

    def __init__(self, score: Any = lambda actions: np.zeros(len(actions)), danger: Any = None) -> None:
        self.danger = danger or (lambda actions: np.zeros(len(actions)))
        self.score, self.wanted, self.gumbel, self.jitter = score, [], [], []

    def __call__(self, wanted: Any, jitter: Any, gumbel: Any) -> Dreams:
        self.wanted.append(wanted.copy())
        self.gumbel.append(gumbel.copy())
        self.jitter.append(jitter.copy())
        actions = np.concatenate([np.clip(jitter, -1, 1), wanted[len(jitter) :]])
        none = np.zeros(len(actions), np.float32)
        rewards, dangers = (np.asarray(of(actions), np.float32) for of in (self.score, self.danger))
        return Dreams(actions, rewards, none, none, dangers)


def test_between_two_ways_round_an_obstacle_one_is_taken() -> None:
    config = MPPIConfig(**ALONE, temperature=1.0)

    def price(actions: np.ndarray) -> np.ndarray:  # straight on is blocked, and both sides are as good
        turn = actions[..., 2].mean(axis=1)
        return np.where(np.abs(turn) < 0.3, 5.0, np.abs(np.abs(turn) - 0.5))

    state = initial_planner_state(config, 3)
    for _ in range(10):
        found = plan(None, state, config, price)
        assert abs(float(found.actions[:, 2].mean())) >= 0.3
        assert found.score == pytest.approx(-float(price(found.actions[None])[0]), abs=1e-5)
        state = found.state


def test_the_answer_is_never_worse_than_the_best_constant_command_nor_than_the_last_plan() -> None:
    config = MPPIConfig(**ALONE)
    rng = np.random.default_rng(0)
    constants = rng.uniform(-1, 1, (200, 3)).astype(np.float32)
    state = initial_planner_state(config, 0)
    for _ in range(5):
        aim = rng.uniform(-1, 1, (6, 3))

        def price(actions: np.ndarray, aim: np.ndarray = aim) -> np.ndarray:
            return np.square(actions - aim).sum(axis=(1, 2))

        kept_up = np.repeat(constants[:, None], 6, axis=1)
        moved_on = np.concatenate([state.plan[1:], state.plan[-1:]])
        found = plan(None, state, config, price, constants=constants)
        assert -found.score <= price(np.concatenate([kept_up, moved_on[None]])).min() + 1e-5
        state = found.state


def test_it_comes_close_to_the_best_plan_there_is_in_a_few_ticks() -> None:
    config = MPPIConfig(**ALONE, rounds=3)
    state = initial_planner_state(config, 0)
    aim = np.linspace(-0.5, 0.7, 6)[:, None] * np.array([1.0, 0.5, -1.0])
    for _ in range(6):
        found = plan(None, state, config, lambda actions: np.square(actions - aim).sum(axis=(1, 2)))
        state = found.state._replace(plan=found.actions)  # the same instant again
    assert np.abs(found.actions - aim).mean() < 0.2


def test_same_seed_and_tick_same_plan_and_the_warm_start_moves_on() -> None:
    config = MPPIConfig(**ALONE)

    def price(actions: np.ndarray) -> np.ndarray:
        return np.square(actions - 0.37).sum(axis=(1, 2))

    start = initial_planner_state(config, 5)
    first, second = plan(None, start, config, price), plan(None, start, config, price)
    assert np.array_equal(first.actions, second.actions)
    assert (first.state.seed, first.state.tick) == (5, 1)
    assert np.array_equal(first.state.plan, first.actions)
    for other in (start._replace(tick=1), start._replace(seed=6)):
        assert not np.array_equal(plan(None, other, config, price).actions, first.actions)


def test_the_geometry_chooses_what_is_dreamt_and_the_dreams_choose_among_it() -> None:
    config = MPPIConfig(imagination_weight=1.0, candidates=32, horizon=4, rounds=1, from_actor=0.25, temperature=0.01)
    constants = np.linspace(-1, 1, 201, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    dreams = Dreamer(lambda actions: actions[:, 0, 0])
    found = plan(
        dreams,
        initial_planner_state(config, 0),
        config,
        lambda actions: 10.0 * (actions[:, 0, 0] > 0.505),
        constants=constants,
    )
    (wanted,) = dreams.wanted
    assert wanted.shape == (32, 4, 3)
    assert (wanted[8:, 0, 0] <= 0.505).all()  # of the dear ones none was dreamt
    assert found.action[0] == pytest.approx(wanted[8:, 0, 0].max())
    assert 0.2 < found.action[0] <= 0.505


def test_all_candidates_and_rounds_are_dreamt_with_the_same_luck() -> None:
    config = MPPIConfig(candidates=8, dreaming_rounds=2, horizon=3, rounds=2, from_actor=0.5)
    dreams = Dreamer()
    plan(dreams, initial_planner_state(config, 0), config)
    first, second = dreams.gumbel
    assert first.shape == (3, 8, 2, 3)
    assert second.shape == (3, 4, 2, 3)  # the actor's own dreams would be the same again
    assert np.array_equal(first[:, :4], second)
    assert (first == first[:, :1]).all()
    assert not dreams.jitter[0][0].any()  # the actor's own mean is among its proposals
    assert dreams.jitter[0][1:].any()
    assert len(dreams.jitter[1]) == 0


def test_rounds_before_the_dreams_are_refined_by_geometry_and_offer_what_they_priced() -> None:
    config = MPPIConfig(candidates=20, dreamt=10, horizon=3, rounds=3, from_actor=0.2, temperature=1e-3)
    constants = np.linspace(-1, 1, 41, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    priced: list[np.ndarray] = []

    def price(actions: np.ndarray) -> np.ndarray:
        priced.append(actions.copy())
        return np.abs(actions[:, :, 0].mean(axis=1) - 0.37)

    dreams = Dreamer()
    plan(dreams, initial_planner_state(config, 0), config, price, constants=constants)
    assert [len(actions) for actions in priced] == [20 + 41, 20, 20, 2]
    (wanted,) = dreams.wanted
    assert wanted.shape == (10, 3, 3)
    pool = np.concatenate(priced[:3])
    costs = np.abs(pool[:, :, 0].mean(axis=1) - 0.37)
    assert any(np.array_equal(wanted[2], actions) for actions in pool[costs == costs.min()])  # the best one always
    dreamt = np.abs(wanted[2:, :, 0].mean(axis=1) - 0.37)
    assert dreamt.max() < np.sort(costs)[20]
    assert len(np.unique(wanted[2:].reshape(8, -1), axis=0)) == 8  # nobody twice


def test_a_veto_by_dreams_falls_back_on_what_was_priced_in_an_earlier_round() -> None:
    config = MPPIConfig(candidates=32, horizon=3, from_actor=0.1, danger_weight=50.0, temperature=1.0)
    constants = np.array([[1.0, 0, 0], [-1.0, 0, 0]], np.float32)
    dreams = Dreamer(danger=lambda actions: (actions[:, 0, 0] > -0.5).astype(float))
    found = plan(dreams, initial_planner_state(config, 0), config, lambda a: -0.1 * a[:, 0, 0], constants=constants)
    assert found.action[0] == -1.0


def test_switched_off_imagination_is_never_asked() -> None:
    config = MPPIConfig(imagination=False, candidates=16, horizon=3)
    dreams = Dreamer()
    found = plan(dreams, initial_planner_state(config, 0), config, lambda actions: actions[:, 0, 0])
    assert not dreams.wanted
    assert found.action[0] < -0.9


def test_the_weight_of_the_dreams_settles_what_they_are_worth_against_the_geometry() -> None:
    chosen = []
    for weight in (0.0, 0.5, 4.0):
        config = MPPIConfig(candidates=64, dreaming_rounds=2, horizon=3, from_actor=0.0, imagination_weight=weight)
        dreams = Dreamer(lambda actions: actions[:, 0, 0])
        chosen.append(plan(dreams, initial_planner_state(config, 0), config, lambda a: a[:, 0, 0]).action[0])
    assert chosen[0] < -0.5 and chosen[1] < -0.5 and chosen[2] > 0.5


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_prices_that_are_not_finite_are_counted_and_never_chosen(share: float) -> None:
    config = MPPIConfig(imagination=False, candidates=16, horizon=3, rounds=1, primitives=False)

    def price(actions: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(actions)) < share * len(actions), np.nan, 1.0)

    found = plan(None, initial_planner_state(config, 0), config, price)
    assert found.rejected == int(share * 16)
    assert np.isfinite(found.actions).all()
    assert found.why.startswith("stop") == (share == 1.0)
    if share == 1.0:
        assert not found.actions.any()
        assert not found.state.plan.any()


@pytest.mark.parametrize(("deadline_ms", "rounds"), [(5.0, 1), (11.0, 1), (13.0, 2), (None, 5)])
def test_a_deadline_leaves_the_best_so_far(deadline_ms: float | None, rounds: int) -> None:
    config = MPPIConfig(imagination=False, candidates=8, horizon=3, rounds=5, deadline_ms=deadline_ms)
    now_s = 0.0

    def price(actions: np.ndarray) -> np.ndarray:  # a round takes 6 ms
        nonlocal now_s
        now_s += 6e-3
        return np.zeros(len(actions))

    assert plan(None, initial_planner_state(config, 0), config, price, clock=lambda: now_s).rounds == rounds


def test_dreams_do_not_change_the_noise_of_the_plans() -> None:
    """What an ablation of the dreams compares is the dreams, not another throw of the dice."""
    config = MPPIConfig(candidates=9, dreamt=5, rounds=3, dreaming_rounds=2)
    state = initial_planner_state(config, 4)._replace(tick=7)
    without, with_dreams = draw_noise(state, config, (0, 0), 30), draw_noise(state, config, (4, 16), 30)
    assert np.array_equal(without.plans, with_dreams.plans)
    assert np.std(without.plans) == pytest.approx(1.0, abs=0.2)
    assert without.plans.shape == (3, 9, 3, 3) and without.choice == ()
    assert len(with_dreams.choice) == 2 and with_dreams.actor.shape == (config.own, config.horizon, 3)
    other = draw_noise(state._replace(tick=8), config, (0, 0), 30)
    assert not np.array_equal(without.plans, other.plans)


def test_noise_is_smooth_and_constants_are_optional() -> None:
    seen: list[np.ndarray] = []

    def look(actions: np.ndarray) -> np.ndarray:
        seen.append(actions)
        return np.zeros(len(actions))

    for knots in (1, 2, 4):
        config = MPPIConfig(imagination=False, candidates=12, horizon=10, rounds=1, knots=knots, primitives=False)
        plan(None, initial_planner_state(config, 0), config, look)
        bends = np.abs(np.diff(seen[-1][2:], 2, axis=1)).max(axis=(0, 2)) > 1e-6
        assert bends.sum() <= 2 * max(knots - 2, 0)
        assert len(seen[-1]) == 12
    config = MPPIConfig(imagination=False, candidates=12, horizon=10, rounds=1)
    plan(None, initial_planner_state(config, 0), config, look)
    for primitive in PRIMITIVES:
        assert (np.abs(seen[-1] - primitive).max(axis=(1, 2)) == 0).any()


@pytest.mark.parametrize(
    "values",
    [
        {"candidates": 0},
        {"dreamt": 0},
        {"dreaming_rounds": 0},
        {"knots": 0},
        {"from_actor": 1.5},
        {"temperature": 0.0},
        {"samples": (0, 1, 1)},
        {"imagination_weight": -1.0},
        {"danger_floor": 1.0},
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        MPPIConfig(**values)
    with pytest.raises(ConfigError, match="switch one on"):
        MPPIConfig(imagination=False, geometry=False, progress=False)
    with pytest.raises(ConfigError, match="route_weight"):
        ProgressConfig(route_weight=-1.0)


def test_a_chance_below_the_floor_costs_nothing_and_what_is_no_number_stays_none() -> None:
    none, dangers = np.zeros(4, np.float32), np.array([0.0, 0.2, 0.6, np.nan], np.float32)
    config = MPPIConfig(danger_weight=2.0, danger_floor=0.25)
    gain = imagined_gain(Dreams(np.zeros((4, 1, 3), np.float32), none, none, none, dangers), config)
    assert gain[:3] == pytest.approx([0.0, 0.0, -0.7])
    assert np.isnan(gain[3])


def test_a_plan_that_is_dreamt_to_collide_is_left_for_one_that_is_not() -> None:
    """Whatever geometry says for it, as long as that is less than what a collision costs."""

    def hits(actions: np.ndarray) -> np.ndarray:
        return (actions[..., 0].mean(axis=1) > 0.2).astype(float)

    def price(actions: np.ndarray) -> np.ndarray:
        return -actions[..., 0].mean(axis=1)

    for weight, floor, ahead in ((4.0, 0.0, False), (0.0, 0.0, True), (4.0, 0.5, False), (4.0, 0.99, True)):
        config = MPPIConfig(candidates=64, horizon=6, danger_weight=weight, danger_floor=floor, temperature=1.0)
        found = plan(Dreamer(danger=hits), initial_planner_state(config, 0), config, price)
        assert (found.actions[:, 0].mean() > 0.2) == ahead
        paid = weight * max(float(hits(found.actions[None])[0]) - floor, 0.0)
        assert found.score == pytest.approx(float(found.actions[:, 0].mean()) - paid, abs=1e-5)
