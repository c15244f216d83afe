from __future__ import annotations

import numpy as np
import pytest

from robonav.evaluation.worldmodel.episodes import Truth, gather, plan_episodes
from robonav.learning.streams import Coming, Moved
from robonav.types import RobotSpec, policy_input_shapes


class CountingWorlds:
    """An episode with seed s lasts s % 5 + 2 steps; its step number is in the observation, the reward and the truth."""

    def __init__(self, spec: RobotSpec, count: int) -> None:
        self.spec, self.count = spec, count
        self.coming, self.step_of = [Coming(0)] * count, np.zeros(count, int)
        self.seed, self.ended = [0] * count, np.ones(count, np.bool_)
        self.done: list[list[float]] = [[] for _ in range(count)]

    def begin(self, world: int, coming: Coming) -> None:
        self.coming[world] = coming

    def restart(self) -> None:
        for world in range(self.count):
            self._start(world)

    def _start(self, world: int) -> None:
        self.seed[world], self.step_of[world], self.ended[world] = self.coming[world].seed, 0, False

    def robot(self, world: int) -> RobotSpec:
        return self.spec

    def observations(self):
        out = {n: np.zeros((self.count, *s), np.float32) for n, s in policy_input_shapes(self.spec).items()}
        out["goal_base_m"][:, 0], out["goal_base_m"][:, 1] = self.seed, self.step_of
        return out

    def truth(self) -> Truth:
        place = np.stack([self.step_of] * 3, -1).astype(np.float32)
        scan = np.ones((self.count, self.spec.lidar.beams), np.float32)
        return Truth(place, place, scan, np.zeros((self.count, int(self.step_of.max()), 5), np.float32))

    def step(self, actions):
        first = self.ended.copy()
        for world in range(self.count):
            if first[world]:
                self._start(world)
            else:
                assert actions[world, 1] == self.step_of[world]  # beside the observation that it was made from
                self.step_of[world] += 1
        reward = np.where(first, 0, self.step_of).astype(np.float32)
        self.ended = self.step_of >= np.array(self.seed) % 5 + 2
        outcomes = ["collision" if over else None for over in self.ended]
        return Moved(reward, first, self.ended, 0 & self.ended, np.zeros(self.count, np.uint8), outcomes)


class Counter:
    """Says who it is, how many steps it has seen, and a number of its own chance."""

    def __init__(self, number: float, count: int) -> None:
        self.number, self.seen, self.rngs = number, np.zeros(count), [np.random.default_rng(0)] * count

    def begin(self, world: int, rng: np.random.Generator) -> None:
        self.seen[world], self.rngs[world] = 0, rng

    def actions(self, streams, inputs, driven):
        out = np.zeros((len(driven), 3), np.float32)
        for world in np.flatnonzero(driven).tolist():
            out[world] = self.number, self.seen[world], self.rngs[world].random()
            self.seen[world] += 1
        return out


@pytest.mark.parametrize("count", [1, 3, 16])
def test_episodes_are_whole_and_the_same_in_any_number_of_worlds(a1: RobotSpec, count: int) -> None:
    plans = plan_episodes(range(11, 18), ["here", "there"], ["first", "second", "first"], "off")
    assert [p.seed for p in plans] == [*range(11, 18)] * 2 and plans[7].scene == "there"
    drivers = {"first": Counter(1.0, count), "second": Counter(2.0, count)}
    seen = []
    episodes = gather(CountingWorlds(a1, count), count, plans, drivers, lambda: seen.append(1))
    assert [e.plan for e in episodes] == plans and len(seen) == len(plans)
    for i, e in enumerate(episodes):
        steps = np.arange(e.plan.seed % 5 + 3)
        assert e.ticks == len(steps) and e.collided
        assert e.inputs["goal_base_m"][:, 1].tolist() == steps.tolist()
        assert (e.inputs["goal_base_m"][:, 0] == e.plan.seed).all()
        assert e.reward.tolist() == steps.tolist()
        assert e.action[:, 1].tolist() == steps.tolist()
        assert (e.action[:, 0] == (2.0 if i % 3 == 1 else 1.0)).all()
        assert e.truth.pose_world[:, 0].tolist() == steps.tolist()
        draws = np.random.default_rng([e.plan.seed, 0x776D6F64]).random(len(steps))
        assert e.action[:, 2] == pytest.approx(draws)
