"""The simulator's benchmark reports what it says, without a claim about time."""

from __future__ import annotations

from sim.bench import measure


def test_measures_each_configuration() -> None:
    figures = measure("rooms", seconds=0.2)
    assert set(figures) == {"sensors", "local_map", "depth"}
    for values in figures.values():
        assert set(values) == {"steps_per_s", "total_per_s", "cpu_per_s", "reset_ms", "step_ms_p50", "step_ms_p99"}
        assert values["steps_per_s"] >= values["total_per_s"] > 0
        assert 0 < values["step_ms_p50"] <= values["step_ms_p99"]
