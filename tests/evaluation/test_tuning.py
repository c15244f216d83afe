from __future__ import annotations

from typing import Any

import pytest

from robonav.config import from_mapping
from robonav.errors import ConfigError
from robonav.evaluation.tuning import TuningConfig, quickness, score, search
from tests.evaluation.fake_navigation import SPEC

CONFIG = TuningConfig("dwa", ("rooms",), {"a": [0.1, 10.0], "n": [2, 40]}, trials=40)
START = {"a": 5.0, "n": 30, "fixed": 7}


def measure(values) -> dict[str, Any]:
    return {"score": -abs(values["a"] - 0.5) - abs(values["n"] - 4) / 10}


def test_the_search_starts_at_the_preset_and_gets_better() -> None:
    trials = list(search(CONFIG, START, measure, 0))
    assert len(trials) == 40
    assert trials[0]["values"] == {"a": 5.0, "n": 30}
    best = max(trials, key=lambda t: t["score"])
    assert best["score"] > -0.5 > trials[0]["score"]
    for trial in trials:
        assert isinstance(trial["values"]["n"], int) and 2 <= trial["values"]["n"] <= 40
        assert 0.1 <= trial["values"]["a"] <= 10.0


def test_the_seed_decides() -> None:
    assert list(search(CONFIG, START, measure, 1)) == list(search(CONFIG, START, measure, 1))
    assert list(search(CONFIG, START, measure, 1)) != list(search(CONFIG, START, measure, 2))


def test_a_quick_success_scores_more(make_episode) -> None:
    quick, slow = make_episode("success", 2.0), make_episode("success", 4.0)
    hit = make_episode("collision", 1.0)
    assert quickness(quick, SPEC) == 1.0 and quickness(slow, SPEC) == 0.5 and quickness(hit, SPEC) == 0.0
    assert score([quick, hit], SPEC) == pytest.approx(0.5 + 0.2 * 0.5)


@pytest.mark.parametrize(
    ("ranges", "said"), [({"a": [1.0]}, r"ranges.a"), ({"a": [0.0, 1.0]}, r"above 0"), ({}, "at least one of each")]
)
def test_bad_searches_are_refused(ranges, said) -> None:
    with pytest.raises(ConfigError, match=said):
        from_mapping(TuningConfig, {"policy": "dwa", "suites": ["rooms"], "ranges": ranges}, "t.toml")


@pytest.fixture
def make_episode():
    import numpy as np

    from robonav.types import Episode

    def make(outcome: str, time_s: float) -> Episode:
        empty = np.zeros(0, np.float32)
        return Episode("s", 0, outcome, time_s, 2.0, 2.0 * SPEC.vx_max_mps, 0.0, 1, empty, np.zeros((1, 2), np.float32))

    return make
