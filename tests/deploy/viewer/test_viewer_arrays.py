"""What a page is made of: packing comes back, the map's changes add up to the map, clearance and marks are right."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from deploy import wire
from deploy.log_reader import Entry, read_log
from deploy.points import clearance_m
from deploy.viewer.beliefs import LEVELS, Beliefs, OwnTracker, route_length_m
from deploy.viewer.build import view
from deploy.viewer.content import block_of
from deploy.viewer.episode import episode_of, logged_rollouts, observations_of
from deploy.viewer.events import events_of, marks_of
from deploy.viewer.extras import discounted
from deploy.viewer.imagined import paths_of
from deploy.viewer.pack import DTYPES, pack, unpack, whole
from robonav.config import load_robot
from robonav.errors import LogError
from robonav.mapping.tracks import NO_TRACKS
from robonav.planning.local import imagined_path
from robonav.planning.situation import SituationTracker

SPEC = load_robot("a1")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_packed_comes_back(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abcd"), unique=True))
    arrays = {}
    for name in names:
        dtype = np.dtype(data.draw(st.sampled_from(sorted(DTYPES))))
        shape = data.draw(arrays_of.array_shapes(min_dims=1, max_dims=3, max_side=5, min_side=0))
        arrays[name] = data.draw(arrays_of.arrays(dtype, shape))
    differences = frozenset(n for n in names if arrays[n].dtype.kind in "iu" and data.draw(st.booleans()))
    words = {"text": data.draw(st.text(max_size=5)), "number": 1.5}
    meta, found = unpack(pack(words, arrays, differences))
    assert meta == words
    assert list(found) == names
    for name in names:
        assert found[name].dtype == arrays[name].dtype
        np.testing.assert_array_equal(found[name], arrays[name])


def test_the_same_log_gives_the_same_bytes() -> None:
    arrays = {"a": np.arange(5, dtype=np.int32)}
    assert pack({"a": 1}, arrays) == pack({"a": 1}, arrays)


def test_an_array_of_another_type_is_refused_in_one_line() -> None:
    with pytest.raises(LogError, match="page: a: expected one of float32"):
        pack({}, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match="JSON"):
        pack({"a": math.nan}, {})


def test_whole_multiples_are_clipped_and_nan_is_zero() -> None:
    values = np.array([0.0011, -1.0, 70.0, np.nan])
    np.testing.assert_array_equal(whole(values, 1e-3, np.uint16), [1, 0, 65535, 0])


def test_the_maps_changes_add_up_to_the_map(make_log: Any) -> None:
    log = read_log(make_log("map.mcap", seconds=3.0, depth=False))
    episode = episode_of(log)
    tracker = OwnTracker(episode.robot)
    for t_s, observation in zip(episode.sensed.t_s.tolist(), observations_of(log), strict=True):
        tracker.add(t_s, observation)
    grid, beliefs = tracker._situation.grid, tracker.beliefs
    beliefs._add_map(99.0, grid)
    column, row = grid.origin_cell
    shown = np.zeros(grid.log_odds.shape, np.int8)
    for cells, levels in zip(beliefs.map_cells, beliefs.map_levels, strict=True):
        shown[cells[:, 1] - row, cells[:, 0] - column] = levels
    np.testing.assert_array_equal(shown, np.rint(grid.log_odds * LEVELS))
    assert np.count_nonzero(shown) > 500
    assert len(beliefs.remaining_m) == len(episode.sensed.t_s)


def test_movers_are_those_that_the_planner_went_by() -> None:
    tracker, seen = SituationTracker(SPEC), NO_TRACKS._replace(
        position_m=np.array([[1.0, 2.0], [3.0, 0.0]]),
        velocity_mps=np.array([[0.5, -1.0], [0.0, 0.0]]),
        variance=np.tile([0.01, 0.0, 0.01], (2, 1)),
        radius_m=np.array([0.25, 0.3]),
        seen=np.full(2, 50),
        unseen_s=np.zeros(2),
        evidence_m=np.ones(2),
    )  # fmt: skip
    beliefs = Beliefs(SPEC)
    beliefs.add(0.0, tracker.reset())
    beliefs.add(0.1, tracker.reset(), seen)
    assert beliefs.movers[0].shape == (0, 5)
    np.testing.assert_allclose(beliefs.movers[1], [[1.0, 2.0, 0.5, -1.0, 0.25]])  # the other one stands


def test_a_page_says_what_the_log_says(make_log: Any) -> None:
    viewed = view(make_log("content.mcap", seconds=6.0))
    words, arrays = unpack(block_of(viewed.episode, viewed.beliefs, viewed.extras))
    assert "not replayed" in viewed.warning  # the log names no bundle
    assert [kind for _, kind, _ in words["events"]] == ["stop", "late", "near"]
    assert words["reasons"] == [
        {"name": "speed", "seconds": pytest.approx(4.94, abs=0.05), "stops": False},
        {"name": "stopped: obstacle", "seconds": pytest.approx(0.98, abs=0.02), "stops": True},
    ]
    episode = viewed.episode
    np.testing.assert_allclose(arrays["scan"] * 1e-3, episode.sensed.scan_m, atol=6e-4)
    depth = episode.sensed.depth_m
    assert depth is not None
    np.testing.assert_allclose(arrays["depth"] * SPEC.depth.range_m / 255, depth, atol=SPEC.depth.range_m / 500)
    np.testing.assert_allclose(arrays["value"], np.sin(np.arange(60) / 10), atol=1e-6)
    assert len(arrays["route_t"]) == 60
    assert arrays["route_at"][-1] == len(arrays["route_xy"])
    json.dumps(words, allow_nan=False)


def test_clearance_of_a_wall_ahead_and_of_nothing() -> None:
    scan = np.full((3, SPEC.lidar.beams), SPEC.lidar.range_m, np.float32)
    ahead = int(np.argmin(np.abs(SPEC.lidar.angles_rad)))
    scan[0, ahead] = 1.0
    scan[1, ahead] = SPEC.length_m / 4
    found = clearance_m(scan, SPEC)
    assert found[0] == pytest.approx(1.0 + SPEC.lidar.mount_x_m - SPEC.length_m / 2, abs=1e-3)
    assert found[1] == 0.0
    assert math.isnan(found[2])
    assert np.isnan(clearance_m(scan[:, :7], SPEC)).all()


def test_reasons_become_spans_that_a_gap_parts(make_log: Any) -> None:
    episode = episode_of(read_log(make_log("marks.mcap", seconds=6.0)))
    spans = [(m.reason, round(m.start_s, 2), round(m.end_s, 2)) for m in marks_of(episode)]
    assert spans == [("speed", 0.0, 1.98), ("stopped: obstacle", 2.0, 2.98), ("speed", 3.0, 5.98)]


def test_a_large_model_error_is_an_event(make_log: Any) -> None:
    episode = episode_of(read_log(make_log("error.mcap", seconds=1.0, scan=False)))
    error = np.full(40, 0.1) + 0.001 * np.arange(40)
    error[25] = 3.0
    events = events_of(episode, None, (np.arange(40) / 10, error))
    assert [(e.t_s, e.kind) for e in events if e.kind == "error"] == [(2.5, "error")]
    assert [e for e in events_of(episode, None, (np.arange(40) / 10, error[:25][:0])) if e.kind == "error"] == []


def test_paths_are_those_of_the_planner(make_log: Any) -> None:
    observation = observations_of(read_log(make_log("paths.mcap", seconds=0.5)))[3]
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 12, 3)).astype(np.float32)
    found = paths_of(observation, actions, SPEC)
    for path, plan in zip(found, actions, strict=True):
        np.testing.assert_allclose(path, imagined_path(observation, plan, SPEC), atol=1e-5)


class RolloutsMsg:
    """As a log may hold them."""

    def __init__(self, stamp_ns: int, paths: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> None:
        self.stamp_ns = stamp_ns
        self.paths_odom_m, self.values = wire.pack_array(paths), wire.pack_array(values)


def test_rollouts_that_a_log_holds_are_read_by_name(make_log: Any) -> None:
    log = read_log(make_log("rollouts.mcap", seconds=0.5))
    assert logged_rollouts(log) is None
    rng = np.random.default_rng(0)
    paths, values = rng.normal(size=(3, 4, 6, 2)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    extra = [Entry("/x", 0, i, RolloutsMsg(10**9 + i * 10**8, paths[i], values[i])) for i in range(3)]
    found = logged_rollouts(replace(log, entries=(*log.entries, *extra)))
    assert found is not None
    assert found[0] == pytest.approx([0.0, 0.1, 0.2])
    np.testing.assert_array_equal(found[1], paths)
    np.testing.assert_array_equal(found[2], values)
    other = Entry("/x", 0, 9, RolloutsMsg(2 * 10**9, paths[0][:2], values[0][:2]))
    assert logged_rollouts(replace(log, entries=(*extra, other))) is None


def test_returns_and_lengths_by_hand() -> None:
    np.testing.assert_allclose(discounted(np.array([9.0, 1.0, 2.0, 4.0]), 0.5), [3.0, 4.0, 4.0, 0.0])
    assert route_length_m(np.array([[0, 0], [3, 4], [3, 5]])) == 6.0
