"""Which route is taken: kept, switched, escaped from; with dreams that are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from robonav.errors import ConfigError
from robonav.mapping import OccupancyGrid
from robonav.planning.route_choice import Choice, RouteChoiceConfig, RouteChooser, RouteMemory
from robonav.planning.situation import Situation, SituationTracker
from robonav.types import Observation, PolicyInput, RobotSpec

CELL = 0.1
GOAL = (7.0, 0.0)
NEAR, FAR = -1.0, 2.0  # y of the doors; the robot starts at (0, 0)


def ground(doors: Sequence[float], filled: Sequence[float] = ()) -> OccupancyGrid:
    """x from -1.5 to 8.5, y from -3 to 3, a wall at x = 3.5 with doors of 1.2 m; filled ones have something in them."""
    log_odds = np.full((60, 100), -2.0, np.float32)
    log_odds[[0, -1]] = log_odds[:, [0, -1]] = 3.0
    log_odds[:, 49:51] = 3.0
    for y in doors:
        rows = slice(round((y + 3 - 0.6) / CELL), round((y + 3 + 0.6) / CELL))
        log_odds[rows, 49:51] = 3.0 if y in filled else -2.0
    return OccupancyGrid(log_odds, np.array([-1.5, -3.0]), CELL)


def observation(t: int, x: float = 0.0, y: float = 0.0) -> Observation:
    still = np.zeros(3, np.float32)
    pose = np.array([x, y, 0.0], np.float32)
    return Observation(t * 100_000_000, pose, still, np.zeros(2, np.float32), np.array(GOAL, np.float32), still)


class Drive:
    """Calls the chooser tick by tick, each tick a planning one, on maps that are given."""

    def __init__(self, spec: RobotSpec, config: RouteChoiceConfig | None = None) -> None:
        self.chooser = RouteChooser(SituationTracker(spec), config)
        self.memory = self.chooser.reset()
        self.route: np.ndarray | None = None

    def __call__(self, t: int, grid: OccupancyGrid, x: float = 0.0, y: float = 0.0, dreams=None) -> Choice | None:
        before = Situation(grid, self.route, 0, 0.0, True, GOAL)
        self.memory, situation, choice = self.chooser.choose(self.memory, before, observation(t, x, y), dreams)
        self.route = situation.route_odom_m
        return choice

    @property
    def door(self) -> float | None:
        return None if self.route is None else round(float(np.interp(3.5, self.route[:, 0], self.route[:, 1])), 0)


class Told:
    """Dreams that say what they are told of each door, and what of waiting."""

    def __init__(self, near: float, far: float, wait: float = -9.0) -> None:
        self.returns, self.wait, self.asked = {NEAR: near, FAR: far}, wait, 0

    def __call__(self, inputs: Sequence[PolicyInput], waits: Sequence[bool]) -> np.ndarray:
        self.asked += 1
        # the goal lies at y = 0 and the robot looks along x, so this is the waypoints' y in odom
        sides = [FAR if (made.waypoints_base_m[:, 1] - made.goal_base_m[1]).max() > 0.3 else NEAR for made in inputs]
        return np.array([self.wait if w else self.returns[s] for s, w in zip(sides, waits, strict=True)], np.float32)


def test_without_dreams_the_shorter_route_is_taken_and_all_are_told(a1: RobotSpec) -> None:
    drive = Drive(a1)
    choice = drive(0, ground((NEAR, FAR)))
    assert choice is not None and drive.door == NEAR and len(choice.candidates) == 2 and not choice.switched
    details = choice.details()
    assert details["routes"] == 2 and details["route0_score"] == 0.0 and details["route1_score"] < 0.0
    assert all(isinstance(v, float) for v in details.values())


def test_the_present_route_is_kept_unless_another_is_better_by_the_margin(a1: RobotSpec) -> None:
    grid, config = ground((NEAR, FAR)), RouteChoiceConfig(settle_s=0.0, rest=False, margin=0.2)
    drive = Drive(a1, config)
    drive(0, grid, dreams=Told(0.3, 0.0))
    assert drive.door == NEAR
    choice = drive(5, grid, dreams=Told(0.0, 0.15))
    assert drive.door == NEAR and choice is not None and not choice.switched
    choice = drive(10, grid, dreams=Told(0.0, 0.25))
    assert drive.door == FAR and choice is not None and choice.switched


def test_two_switches_are_some_time_apart(a1: RobotSpec) -> None:
    grid, drive = ground((NEAR, FAR)), Drive(a1, RouteChoiceConfig(settle_s=3.0, rest=False, escape=False, wait=False))
    doors = []
    for t in range(0, 80, 5):
        drive(t, grid, dreams=Told(*((1.0, 0.0) if t % 10 == 0 else (0.0, 1.0))))
        doors.append(drive.door)
    times = [5 * k for k in range(1, len(doors)) if doors[k] != doors[k - 1]]
    assert len(times) >= 2 and min(np.diff(times)) >= 30


def test_each_term_can_be_switched_off(a1: RobotSpec) -> None:
    grid, told = ground((NEAR, FAR)), Told(0.0, 0.1)
    drive = Drive(a1, RouteChoiceConfig(imagination=False))
    drive(0, grid, dreams=told)
    assert drive.door == NEAR and told.asked == 0
    drive = Drive(a1, RouteChoiceConfig(rest=False))
    drive(0, grid, dreams=told)
    assert drive.door == FAR and told.asked == 1
    drive = Drive(a1, RouteChoiceConfig(price_per_m=1.0))
    drive(0, grid, dreams=told)
    assert drive.door == NEAR


def test_a_single_route_is_not_dreamt(a1: RobotSpec) -> None:
    told = Told(0.0, 0.0)
    Drive(a1)(0, ground((NEAR,)), dreams=told)
    assert told.asked == 0


def test_where_it_does_not_get_on_it_tries_the_other_door_and_comes_back_when_that_is_shut(a1: RobotSpec) -> None:
    grid, drive = ground((NEAR, FAR)), Drive(a1, RouteChoiceConfig(wait=False))
    doors = {}
    for t in range(0, 90, 5):  # the robot stands before the near door and something that no map shows holds it
        drive(t, grid, 2.8, NEAR)
        doors[t] = drive.door
    assert doors[30] == NEAR and doors[85] == FAR
    assert len(drive.memory.blockages) >= 1
    assert np.hypot(drive.memory.blockages[0][0] - 3.5, drive.memory.blockages[0][1] - NEAR) < 0.5
    shut = ground((NEAR, FAR), filled=(FAR,))
    drive(95, shut, 2.8, 1.0)
    assert drive.door == NEAR, "dearer than the far one was, and the only one"


def test_a_robot_that_gets_on_leaves_no_blockage(a1: RobotSpec) -> None:
    grid, drive = ground((NEAR, FAR)), Drive(a1)
    for t in range(0, 100, 5):
        drive(t, grid, 0.02 * t, NEAR * min(0.02 * t, 1.0))
    assert drive.memory.blockages == () and drive.door == NEAR


def test_ground_that_was_free_may_be_crossed_when_nothing_else_is_left(a1: RobotSpec) -> None:
    open_, shut = ground((NEAR,)), ground((NEAR,), filled=(NEAR,))
    drive = Drive(a1)
    drive(0, open_)
    choice = drive(5, shut)
    assert drive.door == NEAR and choice is not None and choice.candidates[choice.chosen].kind == "changed"
    drive = Drive(a1)
    assert drive(0, shut) is None and drive.route is None, "never seen free: a wall"
    drive = Drive(a1, RouteChoiceConfig(escape=False))
    drive(0, open_)
    assert drive(5, shut) is None and drive.route is None


def test_another_opening_comes_before_ground_that_changed(a1: RobotSpec) -> None:
    drive = Drive(a1)
    drive(0, ground((NEAR, FAR)))
    choice = drive(5, ground((NEAR, FAR), filled=(NEAR,)))
    assert drive.door == FAR and choice is not None and {c.kind for c in choice.candidates} == {"route"}
    assert choice.switched, "the present route is lost, so it need not settle"


def test_a_door_that_was_shut_on_the_way_is_not_gone_back_to_as_soon_as_it_opens(a1: RobotSpec) -> None:
    open_, shut, prices = ground((NEAR, FAR)), ground((NEAR, FAR), filled=(NEAR,)), {}
    for half_life_s in (1e-3, 60.0):
        drive = Drive(a1, RouteChoiceConfig(settle_s=0.0, margin=0.0, blockage_half_life_s=half_life_s))
        drive(0, open_)
        drive(5, shut)
        assert drive.door == FAR
        drive(10, open_)
        prices[half_life_s] = drive.door
    assert prices == {1e-3: NEAR, 60.0: FAR}, "it is remembered for as long as the half-life says"


def test_waiting_is_a_candidate_once_the_robot_stands_and_its_price_grows(a1: RobotSpec) -> None:
    config = RouteChoiceConfig(stuck_s=60.0, wait_after_s=1.5, wait_price_per_s=0.1)
    grid, drive, waits = ground((NEAR, FAR)), Drive(a1, config), {}
    for t in range(0, 60, 5):
        drive(t, grid, 2.8, NEAR, dreams=Told(0.0, -5.0, wait=0.35))
        waits[t] = drive.memory.waits
    assert not any(w for t, w in waits.items() if t < 15)
    assert all(w for t, w in waits.items() if 15 <= t < 35)
    assert not any(w for t, w in waits.items() if t > 35), "0.1 a second outweighs 0.35 after 3.5 s"
    assert drive.door == NEAR


def test_between_two_plans_nothing_changes(a1: RobotSpec) -> None:
    chooser, grid = RouteChooser(SituationTracker(a1)), ground((NEAR, FAR))
    between = Situation(grid, None, 3, 0.0, True, GOAL)
    memory, situation, choice = chooser.choose(RouteMemory(), between, observation(0))
    assert situation is between and choice is None and memory.route_odom_m is None


def test_equal_observations_give_equal_choices(a1: RobotSpec) -> None:
    runs = []
    for _ in range(2):
        drive = Drive(a1)
        choices = [drive(t, ground((NEAR, FAR)), 2.8, NEAR, dreams=Told(0.1, 0.0)) for t in range(0, 60, 5)]
        runs.append([c.details() if c else None for c in choices])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("knobs", [{"margin": -0.1}, {"stuck_s": 0.0}, {"blockage_half_life_s": 0.0}])
def test_knobs_out_of_range_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(knobs))):
        RouteChoiceConfig(**knobs)  # type: ignore[arg-type]
