"""Loops on absolute deadlines, with a fake clock."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import wire
from deploy.log_reader import read_log
from deploy.report import RunReport, timing
from deploy.resources import SETTLE_S, Resources, Usage, _Track, usage
from deploy.timing import LINK, STAGES, Deadlines, Histogram, Latency, Stages, summarise
from deploy.watch import Watch


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


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=300))
def test_a_histogram_is_right_to_half_a_per_cent(durations_ms: list[float]) -> None:
    histogram = Histogram()
    for duration_ms in durations_ms:
        histogram.add(duration_ms)
    for percent in (1, 50, 90, 99, 100):
        exact = np.percentile(durations_ms, percent, method="inverted_cdf")
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.0051, abs=1.1e-3)
    assert histogram.count == len(durations_ms)
    assert histogram.max_ms == max(durations_ms)
    assert histogram.total_ms == pytest.approx(sum(durations_ms))


def test_a_histogram_takes_anything_in() -> None:
    histogram = Histogram()
    assert histogram.summary() == Latency(0.0, 0.0, 0.0, 0)
    for value in (-1.0, 0.0, 1e12):
        histogram.add(value)
    assert (histogram.count, histogram.max_ms, histogram.percentile(50)) == (3, 1e12, 0.0)


def test_a_stage_is_missed_when_the_next_observation_was_due_before_it_ended() -> None:
    stages = Stages(period_s=0.05)
    for age_ms in (10.0, 49.9, 50.0, 50.1, 80.0):
        stages.add("act", 1.0, age_ms)
    stages.add(LINK, 0.5, 1.0)
    stages.add("sense", 0.2, 0.2)
    report = stages.report()
    assert list(report) == ["sense", "act", LINK]  # in the loop's order
    assert report["act"].misses == 2
    assert stages.in_time("act") == 3
    assert stages.in_time("plan") == 0
    assert report["act"].work_ms.count == 5
    assert set(report) < {*STAGES, LINK}


def watched(ticks: int, period_ms: float, in_time: int) -> Watch:
    stages = Stages(0.05)
    for _ in range(in_time):
        stages.add("act", 1.0, 20.0)
    return Watch(stages, first_ns=10**9, last_ns=10**9 + round((ticks - 1) * period_ms * 1e6), seen=ticks)


def test_the_loops_figures_in_closed_form() -> None:
    exact = timing(watched(101, 50.0, 100), 0, 0.05)
    assert exact is not None
    assert (exact.rate_hz, exact.period_error_pct, exact.missed_pct) == (20.0, 0.0, 0.0)
    slow = timing(watched(100, 51.0, 90), 5, 0.05)  # 105 were due, the last of which is not over
    assert slow is not None
    assert slow.period_error_pct == pytest.approx(2.0)
    assert slow.missed_pct == pytest.approx(100 * 14 / 105, abs=1e-3)
    assert timing(watched(1, 50.0, 0), 0, 0.05) is None


def test_growth_is_told_from_the_start_of_a_process() -> None:
    track = _Track(1, 100.0)
    for second in range(61):
        loading = second < SETTLE_S
        memory_mb = 10.0 + (second if loading else 10 + 0.1 * second)
        track.add(100.0 + second, Usage(memory_mb, 7 if loading else 8, 0.25 * second))
    report = track.report()
    assert report is not None
    assert report.rss_start_mb == 19.0  # the last look before it had settled
    assert report.rss_end_mb == report.rss_max_mb == 26.0
    assert report.rss_mb_per_min == pytest.approx(6.0, abs=0.5)
    assert (report.fds_start, report.fds_end, report.fds_max, report.cpu_pct) == (7, 8, 8, 25.0)


def test_a_process_is_measured_as_it_is_and_a_gone_one_not_at_all() -> None:
    found = usage(os.getpid())
    if found is None:
        pytest.skip("no /proc here")
    with open(os.devnull) as _one, open(os.devnull) as _two:  # noqa: PTH123
        more = usage(os.getpid())
    assert more is not None
    assert more.fds == found.fds + 2
    assert more.cpu_s >= found.cpu_s > 0
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    assert usage(int(child.stdout)) is None
    resources = Resources()
    resources.look({"me": os.getpid(), "gone": int(child.stdout)}, 0.0)
    resources.look({"me": -1}, 0.5)  # not due
    assert set(resources.report()) == {"me"}
    assert resources.report()["me"].rss_end_mb > 10


def test_a_runs_log_and_report_tell_the_age_of_what_was_driven(arrival: RunReport) -> None:
    log = read_log(arrival.log)
    observed = {m.stamp_ns for m in log.of(wire.ObservationMsg)}
    governed = {m.sequence: m for m in log.of(wire.GovernedMsg)}
    aged = [m for m in log.of(wire.AppliedMsg) if m.age_ms]
    assert len(aged) > 10
    for applied in aged:
        cycle = governed[applied.governed]
        assert cycle.observed_ns in observed
        assert applied.stamp_ns - cycle.observed_ns == pytest.approx(applied.age_ms * 1e6, abs=1e3)
        assert 0 < cycle.age_ms < applied.age_ms
        assert applied.act_ms + applied.link_ms < applied.age_ms
    assert all(m.sense_ms > 0 for m in log.of(wire.StatusMsg) if not m.stopped and not m.arrived)
    assert arrival.timing is not None
    stages = arrival.timing.stages
    assert list(stages) == ["sense", "map", "route", "infer", "govern", "act", LINK]  # the actor plans nothing
    assert stages["infer"].work_ms.count == pytest.approx(arrival.decisions, abs=2)
    firsts = {governed[m.governed].observed_ns: m.age_ms for m in reversed(aged)}  # the governor repeats itself
    assert any(stages["act"].age_ms.max == pytest.approx(age_ms, abs=1e-3) for age_ms in firsts.values())
    assert arrival.timing.tick_ms.count > 0
    assert set(arrival.resources) == {"supervisor", "driver", "governor", "navigator", "recorder"}
