"""The check of scenes: exact distances equal PyBullet's, routes are shown on the true shapes, and faults are found."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

import sim
from robonav.config import load_robot
from robonav.errors import SceneError
from robonav.types import Mover, Scene
from sim.exact import Solids, footprint_gap_m, solids_of
from sim.generators.knob_draws import CONFIGS, RANGES, drawn_knobs
from sim.scene_audit import Auditor, audit, families, upper_bound_95
from sim.witness import certified_gap_m, find_route
from sim.world import World

SPEC = load_robot("a1")
KINDS = sorted(RANGES)


def gap_scene(gap_m: float, **changes: object) -> Scene:
    """Two halves of a room, joined by a gap in a wall 0.4 m thick."""
    walls = [[0, 0, 6, 0, 0.1], [0, 4, 6, 4, 0.1], [0, 0, 0, 4, 0.1], [6, 0, 6, 4, 0.1]]
    walls += [[3, 0, 3, 2 - gap_m / 2, 0.4], [3, 2 + gap_m / 2, 3, 4, 0.4]]
    scene = Scene("gap", (0, 0, 6, 4), (1.0, 2.0, 0.3), (5.0, 2.0), walls=np.array(walls, np.float32))
    return dataclasses.replace(scene, **changes)


@pytest.mark.parametrize("name", ["rooms", "offices", "clutter", "corridors"])
def test_exact_distances_are_pybullets(name: str) -> None:
    scene = dataclasses.replace(sim.load_scene(name, SPEC).scene(3), movers=())
    low, high = np.array(scene.bounds_m).reshape(2, 2)
    poses = np.random.default_rng(1).uniform([*low, -math.pi], [*high, math.pi], (300, 3))
    ours = footprint_gap_m(solids_of(scene), poses, SPEC, 1.0)
    world = World(SPEC)
    try:
        world.load(scene)
        theirs = []
        for pose in poses:
            world.place(*pose)
            theirs.append(world.clearance_m)
    finally:
        world.close()
    assert 0.05 < (ours == 0).mean() < 0.95
    assert np.abs(ours - theirs).max() < 2e-3
    assert ((ours > 0) == (np.array(theirs) > 0))[np.abs(ours) > 1e-3].all()


def test_rectangles_that_cross_without_a_corner_inside_touch() -> None:
    bar = Solids(np.array([[[2, 0.05], [-2, 0.05], [-2, -0.05], [2, -0.05]]], np.float64), np.zeros((0, 3)))
    poses = np.array([[0.0, 0.0, math.pi / 2], [0.0, 0.0, 0.7], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    assert footprint_gap_m(bar, poses, SPEC, 2.0) == pytest.approx(
        [0.0, 0.0, 0.95 - SPEC.width_m / 2, 1.0 - SPEC.length_m / 2]
    )


@pytest.mark.parametrize(("gap_m", "passes"), [(0.28, False), (0.31, False), (0.40, True), (0.6, True), (1.2, True)])
def test_a_gap_decides_about_the_route(gap_m: float, passes: bool) -> None:
    scene = gap_scene(gap_m)
    found = find_route(scene, SPEC)
    assert (found is not None) == passes
    if found is not None:
        route, least_m = found
        assert route[0] == pytest.approx(scene.start)
        assert route[-1, :2] == pytest.approx(scene.goal)
        assert 0.0 < least_m <= (gap_m - SPEC.width_m) / 2 + 1e-6
        fine = np.concatenate([np.linspace(a, b, 20) for a, b in itertools.pairwise(route)])
        assert footprint_gap_m(solids_of(scene), fine, SPEC).min() >= 0.5 * least_m


@pytest.mark.parametrize(("preset", "seed"), [("ramps", 7), ("doors-moving", 5)])
def test_large_robots_have_routes_too(preset: str, seed: int) -> None:
    """The discs that hold a long footprint stick out at its ends; at the start it turns all the same."""
    large = load_robot("vision60")
    found = find_route(sim.load_scene(preset, large).scene(seed), large)
    assert found is not None
    assert found[1] > 1e-3


def test_what_stands_between_two_poses_is_seen() -> None:
    post = Solids(np.zeros((0, 4, 2)), np.array([[0.0, 0.0, 0.01]]))
    ends = np.array([[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert footprint_gap_m(post, ends, SPEC).min() == 0.5
    assert certified_gap_m(post, ends, SPEC) == 0.0
    beside = ends + np.array([0.0, SPEC.width_m / 2 + 0.03, 0.0])
    assert certified_gap_m(post, beside, SPEC) == pytest.approx(0.02, abs=5e-3)
    turning = np.array([[0.0, 0.25, 0.0], [0.0, 0.25, math.pi]])  # free at both ends, not on the way round
    assert certified_gap_m(post, turning, SPEC) == 0.0


def test_a_hinged_door_stands_open_for_the_route() -> None:
    leaf = Mover("door", "door", ((3.0, 1.4), (3.0, 2.6), (4.2, 1.4)), 0.6, box_m=(1.2, 0.05), period_s=12.0)
    scene = gap_scene(1.2, movers=(leaf,))
    assert find_route(scene, SPEC) is not None
    across = dataclasses.replace(leaf, waypoints_m=((3.0, 2.6), (4.2, 2.6), (3.0, 1.4)))  # open, it bars the gap
    assert find_route(dataclasses.replace(scene, movers=(across,)), SPEC) is None


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (gap_scene(0.25), "no route found"),
        (gap_scene(1.0, start=(3.0, 0.5, 0.0)), "starts in collision"),
        (gap_scene(1.0, start=(2.6, 1.0, 0.0)), "starts in collision"),  # its front reaches into the wall
        (gap_scene(1.0, goal=(2.7, 1.0)), "ends in collision"),
        (gap_scene(1.0, cylinders=np.array([[2, 2, -0.1]], np.float32)), "radius"),
        (gap_scene(1.0, movers=(Mover("pedestrian", "waypoint", ((1, 2.2), (1, 3))),)), "starts on the robot"),
        (gap_scene(1.0, movers=(Mover("pedestrian", "waypoint", ((2, 3), (2, 30))),)), "leaves the map"),
    ],
)
def test_faulty_scenes_are_found(scene: Scene, words: str) -> None:
    auditor = Auditor(SPEC)
    try:
        with pytest.raises(SceneError, match=words):
            auditor.check(scene)
        assert auditor.check(gap_scene(1.0))[1] > 0.05
    finally:
        auditor.close()


def test_failures_crashes_and_refusals_are_counted() -> None:
    def crash(seed: int) -> Scene:
        raise ZeroDivisionError("no such luck")

    def refuse(seed: int) -> Scene:
        if seed % 2:
            raise SceneError("no room for it")
        return gap_scene(1.0)

    def never(seed: int) -> Scene:
        raise SceneError("never")

    def soon(seed: int) -> Scene:
        if seed > 4:
            raise SceneError("not any more")
        return gap_scene(1.0)

    steps: list[int] = []
    same = gap_scene(1.0)
    sources = [("good", lambda s: gap_scene(1.0)), ("bad", lambda s: gap_scene(0.2)), ("crash", crash)]
    sources += [("refuse", refuse), ("never", never), ("soon", soon), ("fixed", lambda s: same)]
    figures = audit(sources, SPEC, 40, 4, lambda: steps.append(1))
    rows = figures["families"]
    assert figures["scenes"] + figures["crashes"] == 40 == len(steps)
    assert rows["fixed"]["scenes"] == 1
    assert rows["good"]["failures"] == rows["refuse"]["failures"] == 0
    assert rows["bad"]["failures"] == rows["bad"]["scenes"] > 3
    assert rows["crash"]["failures"] == rows["crash"]["crashes"] > 3
    assert rows["never"]["failures"] == rows["never"]["scenes"] == 0
    assert figures["unfit"] == {"never": "never"}
    assert rows["soon"]["scenes"] == rows["soon"]["failures"] == 1
    assert rows["refuse"]["refused"] >= rows["refuse"]["scenes"] - 1 > 0
    assert any("ZeroDivisionError: no such luck" in line for line in figures["failed"])
    assert figures["failure_rate_upper_95"] > 0.3


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    assert upper_bound_95(0, 10_000) == pytest.approx(1 - 0.05 ** (1 / 10_000), rel=1e-9)
    assert upper_bound_95(1, 20) == pytest.approx(0.216106, abs=1e-5)
    assert upper_bound_95(5, 5) == upper_bound_95(0, 0) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_knobs_cover_their_ranges_and_are_the_same_again(kind: str) -> None:
    names = {f.name for f in dataclasses.fields(CONFIGS[kind])}
    assert set(RANGES[kind]) <= names
    draws = [drawn_knobs(kind, np.random.default_rng([seed, 1])) for seed in range(150)]
    assert draws[3] == drawn_knobs(kind, np.random.default_rng([3, 1]))
    for key, (low, high) in RANGES[kind].items():
        values = np.concatenate([np.ravel(d[key]).astype(float) for d in draws])
        assert low <= values.min()
        assert values.max() <= high
        assert values.max() - values.min() > 0.5 * (high - low), key


def test_two_scenes_of_every_preset_and_kind_pass() -> None:
    """The small twin of the ten thousand, with further numbers."""
    from robonav.config import config_dir

    names = sorted(p.stem for p in (config_dir() / "scenes").glob("*.toml"))
    sources, unfit = families(names, SPEC, drawn=True)
    assert unfit == {}
    figures = audit(sources, SPEC, 2 * len(sources), first_seed=50_000)
    assert figures["failed"] == []
    assert figures["scenes"] == 2 * len(sources)
    assert figures["crashes"] == 0


def test_what_a_large_robot_does_not_fit_into_is_left_out() -> None:
    large = load_robot("vision60")
    sources, unfit = families(["office-tasks", "empty"], large, drawn=True)
    assert [name for name, _ in sources[:1]] == ["empty"]
    assert "vision60" in unfit["office-tasks"]
    with pytest.raises(SceneError, match="vision60"):
        families(["office-tasks"], large, drawn=False)


@pytest.mark.slow
def test_ten_thousand_scenes_pass() -> None:
    """`robonav scenes check --n 10000` with other numbers than its own; 5 to 10 minutes on one core."""
    from robonav.config import config_dir

    names = sorted(p.stem for p in (config_dir() / "scenes").glob("*.toml"))
    figures = audit(families(names, SPEC, drawn=True)[0], SPEC, 10_000, first_seed=100_000)
    assert figures["failed"] == []
    assert figures["failure_rate_upper_95"] < 3.1e-4
