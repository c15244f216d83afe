from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robonav.errors import ConfigError
from robonav.evaluation import navbench, navpage
from robonav.evaluation.runner import EpisodeOptions, record_episode
from tests.evaluation.fake_navigation import SPEC, Forward, LineEnv


def row(seed: int, outcome: str = "success", time_s: float = 5.0, path_m: float = 4.0) -> navbench.Row:
    return {
        "seed": seed,
        "scene": f"scene-{seed}",
        "outcome": outcome,
        "time_s": time_s,
        "path_m": path_m,
        "shortest_m": 4.0,
        "clearance_min_m": 0.3,
        "clearance_mean_m": 0.8,
        "jerk_mps3": 2.0,
        "reward": 1.0,
        "decision_ms_p50": 1.0,
        "decision_ms_p99": 2.0 + seed,
    }


def test_summary_counts_and_averages_over_successes() -> None:
    rows = [row(0), row(1, time_s=7.0, path_m=8.0), row(2, "collision", 1.0), row(3, "timeout", 60.0)]
    figures = navbench.summary_of(rows)
    assert figures["n"] == 4 and figures["scenes"] == 4
    assert figures["success"][0] == 0.5 and figures["collision"][0] == 0.25 and figures["timeout"][0] == 0.25
    assert figures["success"][1] < 0.5 < figures["success"][2]
    assert figures["spl"][0] == pytest.approx((1.0 + 0.5) / 4)
    assert figures["time_s"][0] == pytest.approx(6.0)
    assert figures["decision_ms_p99"] == 5.0
    assert navbench.summary_of([row(0, "collision")])["time_s"] is None


def test_pairs_are_by_seed() -> None:
    first = [row(0), row(1), row(2), row(3, "collision"), row(9)]
    second = [row(3), row(2, "collision"), row(1, "timeout"), row(0, time_s=10.0), row(8)]
    found = navbench.paired(first, second)
    assert (found["n"], found["wins"], found["losses"]) == (4, 2, 1)
    difference, low, high = found["difference"]
    assert difference == 0.25 and low < 0.25 < high
    assert found["p"] == pytest.approx(1.0)  # 2 of 3 heads
    assert found["time_ratio"] == pytest.approx(0.5)
    assert navbench.paired(first, [])["time_ratio"] is None


def test_the_sign_test_is_exact() -> None:
    first, second = [row(k) for k in range(6)], [row(k, "collision") for k in range(6)]
    assert navbench.paired(first, second)["p"] == pytest.approx(2 / 2**6)
    assert navbench.paired(first, first)["p"] == 1.0


def test_rows_go_on_where_a_file_ends() -> None:
    data = navbench.new_file(3, "a1")
    rows = navbench.rows_in(data, "rooms", "astar", {"scene": "rooms"}, 2.0, "abc")
    rows.append(row(0))
    again = navbench.check_file(data, 3, "a1", "f.json")
    assert navbench.rows_in(again, "rooms", "astar", {"scene": "rooms"}, 9.0, "abc") == [row(0)]
    assert data["suites"]["rooms"]["astar"]["delay_ms"] == 2.0


@pytest.mark.parametrize(
    ("scene", "delay_ms", "content", "said"),
    [
        ("other", 2.0, "abc", "the suite's settings: expected {'scene': 'other'}"),
        ("rooms", 9.0, "abc", "--delay-ms: expected 9.0, got 2.0"),
        ("rooms", 2.0, "abd", "the policy's content: expected abd, got abc"),
    ],
)
def test_rows_of_something_else_are_refused_and_stay(scene: str, delay_ms: float, content: str, said: str) -> None:
    data = navbench.new_file(3, "a1")
    navbench.rows_in(data, "rooms", "astar", {"scene": "rooms"}, 2.0, "abc", charged=True).append(row(0))
    with pytest.raises(ConfigError, match=f"rows of astar on rooms: {said}.*use another --json file"):
        navbench.rows_in(data, "rooms", "astar", {"scene": scene}, delay_ms, content, charged=True)
    assert data["suites"]["rooms"]["astar"]["rows"] == [row(0)]


def test_rows_of_a_version_that_kept_no_content_go_on() -> None:
    data = navbench.new_file(3, "a1")
    data["suites"] = {"rooms": {"astar": {"settings": {}, "delay_ms": 2.0, "rows": [row(0)]}}}
    assert navbench.rows_in(data, "rooms", "astar", {}, 2.0, "abc") == [row(0)]
    with pytest.raises(ConfigError, match="content"):
        navbench.rows_in(data, "rooms", "astar", {}, 2.0, "abd")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1], "something else"),
        (navbench.new_file(4, "a1"), "seed: expected 3"),
        ({**navbench.new_file(3, "a1"), "suites": {"rooms": []}}, "something else"),
        ({**navbench.new_file(3, "a1"), "suites": {"rooms": {"astar": {"rows": []}}}}, "something else"),
    ],
)
def test_a_file_of_something_else_is_refused(data, said) -> None:
    with pytest.raises(ConfigError, match=said):
        navbench.check_file(data, 3, "a1", "f.json")


def test_a_row_has_what_an_episode_had() -> None:
    recording = record_episode(LineEnv(), Forward(), 1, EpisodeOptions(SPEC))
    made = navbench.row_of(recording.episode, SPEC)
    assert made["outcome"] == recording.episode.outcome and made["seed"] == 1
    assert made["time_s"] == pytest.approx(recording.episode.time_s)
    assert all(math.isfinite(v) for v in made.values() if isinstance(v, float))


def test_clearance_and_jerk_come_from_the_environment() -> None:
    class Moving(LineEnv):
        def _info(self):
            clearance = 0.5 if self.ticks == 2 else 1.0
            velocity = np.array([0.01 * self.ticks**2, 0.0, 0.0])  # second difference 0.02
            return super()._info() | {"clearance_m": clearance, "velocity": velocity}

    episode = record_episode(Moving(), Forward(), 1, EpisodeOptions(SPEC)).episode
    assert episode.clearance_min_m == 0.5
    assert episode.jerk_mps3 == pytest.approx(0.02 / SPEC.dt_s**2)


def test_table_and_page_show_the_figures() -> None:
    rows = [row(0), row(1, "collision")]
    results = {"rooms": {"a <b>": navbench.summary_of(rows), "other": navbench.summary_of([row(0), row(1)])}}
    compared = {"rooms": {"other": navbench.paired(rows, [row(0), row(1)])}}
    table = navbench.table_of(results)
    assert "0.500 [0.095, 0.905]" in table
    html = navpage.page(results, compared, {("rooms", "other"): b"png"}, "a page")
    assert "a &lt;b&gt;" in html and "<b>" not in html
    assert "0.500" in html and "data:image/png;base64,cG5n" in html and "-50.0 points" in html
    assert "http" not in html


def test_a_picture_is_a_png() -> None:
    recording = record_episode(LineEnv(), Forward(), 1, EpisodeOptions(SPEC))
    recording = dataclasses.replace(recording, episode=recording.episode)
    assert navpage.picture_of([recording], SPEC, "t").startswith(b"\x89PNG")
