"""Loops on absolute deadlines, with a fake clock."""

from __future__ import annotations

from deploy.timing import Deadlines, Latency, summarise


def test_a_late_tick_does_not_shift_those_after_it() -> None:
    deadlines = Deadlines(100, 1000, late_after_ns=20)
    assert deadlines.remaining_ns(940) == 60
    assert deadlines.begin(1000) == 0
    assert deadlines.begin(1130) == 30
    assert deadlines.next_ns == 1200
    assert deadlines.begin(1210) == 10
    assert (deadlines.late, deadlines.skipped) == (1, 0)
    assert deadlines.next_ns == 1300


def test_deadlines_that_passed_whole_are_skipped_and_counted() -> None:
    deadlines = Deadlines(100, 0)
    deadlines.begin(0)
    assert deadlines.begin(450) == 350
    assert deadlines.skipped == 3  # 200, 300 and 400
    assert deadlines.next_ns == 500
    assert deadlines.late == 1


def test_the_default_lateness_is_a_quarter_of_the_period() -> None:
    deadlines = Deadlines(100, 0)
    deadlines.begin(25)
    assert deadlines.late == 0
    deadlines.begin(126)
    assert deadlines.late == 1


def test_summary_of_latencies() -> None:
    assert summarise([]) == Latency(0.0, 0.0, 0.0, 0)
    summary = summarise([float(i) for i in range(101)])
    assert summary == Latency(50.0, 99.0, 100.0, 101)
