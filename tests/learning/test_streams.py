"""Streams: analytic batches give what single environments give, episodes begin as announced, experts label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from counting_env import SPEC, CountingFactory
from tiny import AGENT, tiny_config

from policies.registry import make_policy
from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.learning.augment import lose_sensors
from robonav.learning.collector import Collector, WorkerConfig
from robonav.learning.config import CollectConfig, KickstartConfig, SensorLossConfig
from robonav.learning.experts import Experts
from robonav.learning.replay_events import BLOCKED_ROUTE, COLLISION, NEAR_MISS, SUCCESS
from robonav.learning.streams import Coming, GymStreams, WindowActions, events_of
from robonav.types import MODALITIES, policy_input_shapes
from sim.env import NavigateEnv
from sim.streams import StreamsOf, environment_of, groups_of

COLLECT = CollectConfig(
    envs=4, steps=6, greedy_envs=1, simulator="analytic", robots=("a1", "vision60"), imperfect=0.5, scenes=("rooms",)
)


def test_analytic_streams_give_what_single_environments_give() -> None:
    presets = ("rooms", "crowd-few")
    batch = StreamsOf(COLLECT, "a1", presets)(0, 4)
    envs: dict[int, NavigateEnv] = {}
    for (robot, imperfect), worlds in groups_of(COLLECT, "a1", 4).items():
        for world in worlds:
            envs[world] = NavigateEnv("rooms", robot, fidelity="analytic", **environment_of(COLLECT, imperfect))
    single = GymStreams([envs[world] for world in range(4)])
    for streams in (batch, single):
        for world in range(4):
            streams.begin(world, Coming(40 + world, presets[world // 2]))
        streams.restart()
    rng, ended = np.random.default_rng(0), []
    for step in range(40):
        ours, theirs = batch.observations(), single.observations()
        for name in theirs:
            assert np.array_equal(ours[name], theirs[name]), name
        for world in range(4):
            a, b = batch.observation(world), single.observation(world)
            assert a.stamp_ns == b.stamp_ns
            assert np.array_equal(a.pose_odom_base, b.pose_odom_base)
        action = rng.uniform(-1, 1, (4, 3)).astype(np.float32)
        action[:, 0] = 1.0
        for world in ended:
            for streams in (batch, single):
                streams.begin(world, Coming(80 + world + step, presets[world % 2]))
        a, b = batch.step(action), single.step(action)
        ended = np.flatnonzero(a.terminated | a.truncated).tolist()
        assert np.allclose(a.reward, b.reward, atol=1e-6)
        assert np.array_equal(a.terminated, b.terminated)
        assert a.outcomes == b.outcomes
        assert np.array_equal(a.events & (0xFF ^ BLOCKED_ROUTE), b.events)
    assert [batch.robot(i).name for i in range(4)] == ["a1", "vision60", "a1", "vision60"]
    batch.close()
    single.close()


def test_an_episode_that_ended_is_followed_by_the_announced_one() -> None:
    streams = CountingFactory()(0, 2)
    streams.begin(0, Coming(10))  # 3 steps long
    streams.begin(1, Coming(14))  # 7 steps long
    streams.restart()
    action = np.zeros((2, 3), np.float32)
    for _ in range(2):
        assert not streams.step(action).terminated.any()
    moved = streams.step(action)
    assert moved.terminated.tolist() == [True, False]
    assert moved.outcomes == ["success", None]
    assert moved.events.tolist() == [SUCCESS, 0]
    streams.begin(0, Coming(33))
    moved = streams.step(action)
    assert moved.first.tolist() == [True, False]
    assert moved.reward[0] == 0
    assert streams.observations()["goal_base_m"].tolist() == [[33, 0], [14, 4]]


def test_worlds_are_spread_over_robots_and_errors() -> None:
    collect = replace(COLLECT, robots=("a1", "go1", "aliengo", "vision60"), imperfect=0.5)
    groups = groups_of(collect, "a1", 32)
    assert sorted(world for worlds in groups.values() for world in worlds) == list(range(32))
    assert {key: len(worlds) for key, worlds in groups.items()} == {
        (robot, wrong): 4 for robot in collect.robots for wrong in (False, True)
    }
    last = {key for key, worlds in groups.items() for world in worlds if world >= 28}
    assert {wrong for _, wrong in last} == {False, True}  # the greedy ones, which measure, see both
    assert set(groups_of(replace(collect, imperfect=0.0, robots=()), "go1", 3)) == {("go1", False)}


def test_robots_with_other_sensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = replace(SPEC, lidar=replace(SPEC.lidar, beams=64))
    monkeypatch.setattr("sim.streams.load_robot", lambda name: fewer if name == "go1" else SPEC)
    with pytest.raises(ConfigError, match=r"collect\.robots: expected sensors as those of 'a1', got others of 'go1'"):
        groups_of(replace(COLLECT, robots=("a1", "go1")), "a1", 4)


def test_an_unknown_scene_or_randomisation_is_one_line() -> None:
    streams = StreamsOf(replace(COLLECT, imperfect=0.0), "a1", ("rooms",))(0, 2)
    with pytest.raises(ConfigError, match="scene: expected one of rooms, got maze"):
        streams.begin(0, Coming(1, "maze"))
    with pytest.raises(ConfigError, match="randomisation: expected 'off' in a batch made without errors"):
        streams.begin(0, Coming(1, "rooms", "sim2real"))


@pytest.mark.parametrize(
    ("outcome", "clearance_m", "blocked", "bits"),
    [
        (None, 0.5, False, 0),
        (None, 0.05, False, NEAR_MISS),
        ("collision", 0.0, True, NEAR_MISS | COLLISION | BLOCKED_ROUTE),
        ("success", 1.0, False, SUCCESS),
        ("timeout", 1.0, False, 0),
    ],
)
def test_events_of_a_step(outcome: str | None, clearance_m: float, blocked: bool, bits: int) -> None:
    assert events_of(outcome, clearance_m, blocked) == bits


def collected(drive: float, streams: int = 2) -> tuple[Collector, dict[str, Any]]:
    kickstart = KickstartConfig(streams=streams, policy="astar", drive=drive)
    worker = WorkerConfig(0, 5, COLLECT, AGENT, SPEC, (0,) * 4, kickstart=kickstart, expert=make_policy)
    collector = Collector(worker, StreamsOf(COLLECT, "a1", ("rooms",)))
    return collector, collector.collect(0, 6, None)[0]


def test_experts_label_their_streams_and_drive_their_share() -> None:
    _, dagger = collected(0.0)
    assert dagger["labelled"].tolist() == [[1.0] * 6, [1.0] * 6, [0.0] * 6, [0.0] * 6]
    assert not np.array_equal(dagger["action"][0], dagger["label"][0])
    assert not dagger["label"][2:].any()
    _, driven = collected(1.0)
    assert np.array_equal(driven["action"][:2], driven["label"][:2])
    assert np.array_equal(driven["action"][2:], dagger["action"][2:])  # the others do not notice
    assert driven["label"][0, :, 0].max() > 0.2


def test_a_label_is_what_the_expert_would_do_on_its_own() -> None:
    collector, chunk = collected(1.0, streams=1)
    env = NavigateEnv("rooms", "a1", fidelity="analytic")
    seed = 6 * 1_000_000
    env.reset(seed=seed, options={"preset": "rooms", "randomisation": "off"})
    policy = make_policy("astar", load_robot("a1"))
    state = policy.reset(seed)
    for t in range(6):
        state, decision = policy.act(state, env.observation())
        action = env.robot.velocity_to_action(decision.command.velocity).astype(np.float32)
        assert np.allclose(chunk["action"][0, t], action)
        env.step(action)
    assert collector.episodes == [1, 1, 1, 1]


def test_the_window_labels_all_its_streams_at_once() -> None:
    kickstart = KickstartConfig(streams=3, policy="window", drive=1.0)
    worker = WorkerConfig(0, 5, COLLECT, AGENT, SPEC, (0,) * 4, kickstart=kickstart, expert=make_policy)
    collector = Collector(worker, StreamsOf(COLLECT, "a1", ("rooms",)))
    chunk, _, _ = collector.collect(0, 6, None)
    assert chunk["labelled"][:3].all()
    assert not chunk["labelled"][3].any() and not chunk["label"][3].any()
    assert np.array_equal(chunk["action"][:3], chunk["label"][:3])
    now, known, _ = collector.streams.window_actions(3)  # type: ignore[attr-defined]
    assert known.tolist() == [True, True, True, False]
    assert np.abs(now[:3] - chunk["label"][:3, -1]).max() < 1.0  # that of one step before
    assert chunk["label"][:3, :, 0].max() > 0.2


class Regretful:
    """A window whose regrets are known."""

    def __init__(self, regret_m: list[float]) -> None:
        self.regret_m, self.asked, self.dials = np.array(regret_m, np.float32), None, (False, 0.0)

    def window_actions(
        self, count: int, asked: Any = None, sideways: bool = False, slack_m: float = 0.0
    ) -> WindowActions:
        self.asked, self.dials = asked, (sideways, slack_m)
        known = np.arange(len(self.regret_m)) < count
        return WindowActions(np.full((len(known), 3), 0.5, np.float32), known, self.regret_m)


def test_a_label_counts_by_the_regret_of_the_agents_own_choice() -> None:
    kickstart = KickstartConfig(streams=4, policy="window", regret_m=0.5, regret_floor=0.1)
    window = Regretful([0.0, 0.2, 3.0, 0.5, 9.0])
    experts = Experts(kickstart, make_policy, window, 5)  # type: ignore[arg-type]
    asked = np.full((5, 3), 0.25, np.float32)
    labels, weights = experts.actions(5, asked)
    assert window.asked is asked
    assert np.allclose(weights, [0.1, 0.4, 1.0, 1.0, 0.0])
    assert np.allclose(labels, [[0.5] * 3] * 4 + [[0.0] * 3])
    alike = Experts(replace(kickstart, regret_m=0.0), make_policy, window, 5)  # type: ignore[arg-type]
    assert alike.actions(5, asked)[1].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert window.asked is None  # a price that nobody needs is not computed


def test_the_window_is_told_the_slack_and_whether_to_go_askew() -> None:
    window, asked = Regretful([0.0, 0.2]), np.full((2, 3), 0.25, np.float32)
    Experts(KickstartConfig(streams=2, policy="window"), make_policy, window, 2).actions(2, asked)  # type: ignore[arg-type]
    assert window.dials == (False, 0.0)
    kickstart = KickstartConfig(streams=2, policy="window-sideways", slack_m=0.05)
    _, weights = Experts(kickstart, make_policy, window, 2).actions(2, asked)  # type: ignore[arg-type]
    assert window.dials == (True, 0.05) and window.asked is asked
    assert weights.tolist() == [1.0, 1.0]  # all labels count alike without `regret_m`


def test_with_slack_the_greedy_action_is_its_own_label_where_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    kickstart = KickstartConfig(streams=4, policy="window-sideways", drive=0.0, regret_m=0.5, slack_m=0.3)
    collect = replace(COLLECT, greedy_envs=4)
    worker = WorkerConfig(0, 5, collect, AGENT, SPEC, (0,) * 4, kickstart=kickstart, expert=make_policy)
    collector = Collector(worker, StreamsOf(collect, "a1", ("rooms",)))
    weights = {name: value.clone() for name, value in collector.agent.state_dict().items()}
    monkeypatch.setattr(collector.agent, "load_state_dict", lambda state: None)
    step = collector.agent.step

    def ahead(*args: Any) -> Any:
        found = step(*args)
        mean = torch.tensor([[0.9, 0.0, 0.0]]).expand(4, 3)  # straight on, which is good in half of the places
        return found._replace(mean=mean, action=mean)

    monkeypatch.setattr(collector.agent, "step", ahead)
    chunk, _, _ = collector.collect(0, 20, weights)
    own = np.isclose(chunk["label"], chunk["action"], atol=1e-5).all(axis=-1)
    good = chunk["labelled"] <= 0.3 / 0.5
    assert (own == good).all() and own.any() and not own.all()


def test_the_regret_asked_for_is_that_of_the_actors_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    collect = replace(COLLECT, greedy_envs=1)
    kickstart = KickstartConfig(streams=4, policy="window", drive=0.0, regret_m=3.0)
    worker = WorkerConfig(0, 5, collect, AGENT, SPEC, (0,) * 4, kickstart=kickstart, expert=make_policy)
    collector = Collector(worker, StreamsOf(collect, "a1", ("rooms",)))
    asked, experts = [], collector.experts
    assert experts is not None
    actions = experts.actions
    monkeypatch.setattr(experts, "actions", lambda n, mean: asked.append(mean) or actions(n, mean))
    weights = {name: value.clone() for name, value in collector.agent.state_dict().items()}
    chunk, _, _ = collector.collect(0, 6, weights)
    assert chunk["labelled"].min() >= 0.05 and chunk["labelled"].max() <= 1.0
    assert len(np.unique(chunk["labelled"])) > 6
    means = np.stack(asked, axis=1)
    assert np.allclose(means[3], chunk["action"][3])  # the greedy stream does what it means
    assert np.abs(means[:3] - chunk["action"][:3]).min() > 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"regret_m": 0.2}, r"kickstart\.regret_m: expected policy = 'window'"),
        ({"policy": "window", "regret_floor": 1.5}, r"kickstart\.regret_floor: expected a share"),
        ({"policy": "window", "regret_m": -1.0}, "regret_m"),
        ({"slack_m": 0.1}, r"kickstart\.slack_m: expected policy = 'window' or 'window-sideways' with it, got"),
        ({"policy": "window-sideways"}, r"kickstart\.slack_m: expected above 0 with policy = 'window-sideways', got 0"),
    ],
)
def test_mistakes_about_regret_are_one_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        KickstartConfig(streams=1, **wrong)
    assert "\n" not in str(error.value)


def test_a_window_needs_worlds_that_have_one() -> None:
    kickstart = KickstartConfig(streams=1, policy="window")
    worker = WorkerConfig(0, 5, COLLECT, AGENT, SPEC, (0,) * 4, kickstart=kickstart, expert=make_policy)
    with pytest.raises(ConfigError, match=r"kickstart\.policy: expected a preset.*'analytic'"):
        Collector(worker, CountingFactory())


def test_kickstart_fades_to_its_last_weight() -> None:
    config = KickstartConfig(weight=1.0, final=0.1, fade=100)
    assert [round(config.weight_at(n), 3) for n in (-5, 0, 50, 100, 900)] == [1.0, 1.0, 0.55, 0.1, 0.1]


def lossy(config: SensorLossConfig) -> dict[str, Any]:
    shapes = policy_input_shapes(SPEC)
    batch = {name: np.ones((200, 9, *shape), np.float32) for name, shape in shapes.items()}
    lose_sensors(batch, np.random.default_rng(3), config)
    return batch


def test_lost_sensors_stay_lost_and_are_silent() -> None:
    batch = lossy(SensorLossConfig(share=0.5))
    present = batch["present"]
    assert (np.diff(present, axis=1) <= 0).all()
    assert present[..., MODALITIES.index("goal")].all()
    names = {"scan": ("scan_m", "flow_mps"), "local_map": ("local_map",), "body": ("twist_base", "robot")}
    for modality, arrays in names.items():
        gone = present[..., MODALITIES.index(modality)] == 0
        assert 0.01 < gone[:, -1].mean() < 0.3
        for name in arrays:
            assert not batch[name][gone].any()
            if modality != "scan":
                assert batch[name][~gone].all()
    blind = (batch["scan_m"][:, 0] == 0) & (present[:, 0, :1] > 0)
    share = blind.mean(1)[blind.any(1)]
    assert 0.1 < blind.any(1).mean() < 0.3
    assert share.min() > 0.08
    assert share.max() < 0.76
    assert np.array_equal(batch["flow_mps"][:, 0, :, 0] == 0, batch["scan_m"][:, 0] == 0)
    whole = lossy(SensorLossConfig(share=0.0))
    assert all(values.all() for values in whole.values())


def test_shares_of_lost_sensors_are_checked() -> None:
    with pytest.raises(ConfigError, match="sensor_loss"):
        SensorLossConfig(share=0.5, sector=0.9, scan=0.9)
    with pytest.raises(ConfigError, match=r"kickstart\.drive"):
        KickstartConfig(drive=1.5)
    with pytest.raises(ConfigError, match="imperfect"):
        CollectConfig(imperfect=-0.1)
    assert tiny_config().kickstart.streams == 0
