"""Replays of a part, with another planner or other limits, over folders, and what they say of the differences."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy import wire
from deploy.config import GovernorConfig, RecorderConfig
from deploy.differences import differences
from deploy.log_reader import read_log
from deploy.recorder import LogWriter
from deploy.regovern import changed_limits, logged_limits, regovern
from deploy.replay import ReplayOptions, replay
from deploy.report import RunReport
from deploy.viewer.words import report_text
from robonav.cli import replay as command
from robonav.cli.args import UsageError
from robonav.errors import BundleError, ConfigError, LogError
from robonav.types import Decision, VelocityCommand


def altered(source: Path, target: Path, tick: int, **fields: object) -> Path:
    """A copy of a log with one decision changed."""
    log = read_log(source)
    writer = LogWriter(target, RecorderConfig(), log.run)
    for entry in log.entries:
        message = entry.message
        if isinstance(message, wire.DecisionMsg) and message.sequence == tick:
            message = msgspec.structs.replace(message, **fields)
        writer.write(message, entry.sequence)
    writer.close()
    return target


def test_a_span_is_compared_alone_with_the_memory_of_what_came_before(arrival: RunReport, tmp_path: Path) -> None:
    whole = replay(arrival.log).report
    part = replay(arrival.log, options=ReplayOptions(from_s=0.5, to_s=1.0)).report
    assert part.identical
    assert 4 <= part.ticks == part.replayed <= 6 < whole.ticks
    log = altered(Path(arrival.log), tmp_path / "a.mcap", 2, value=5.0)
    assert not replay(log).report.identical
    assert replay(log, options=ReplayOptions(from_s=0.5)).report.identical


@pytest.mark.parametrize("span", [(1.0, 1.0), (2.0, 1.0), (-1.0, 2.0), (math.nan, 2.0)])
def test_a_span_without_length_is_one_line(span: tuple[float, float]) -> None:
    with pytest.raises(LogError, match="from, to"):
        ReplayOptions(from_s=span[0], to_s=span[1])


def test_all_differences_are_counted_the_first_and_the_largest_named(arrival: RunReport, tmp_path: Path) -> None:
    once = altered(Path(arrival.log), tmp_path / "a.mcap", 3, vx_mps=0.5)
    value = read_log(once).of(wire.DecisionMsg)[7].value
    log = altered(once, tmp_path / "b.mcap", 7, vx_mps=-0.3, value=value + 1e-7)
    report = replay(log).report
    found = report.differences
    assert found.differing == 2
    assert found.ticks == report.replayed == report.ticks
    vx = found.fields["vx_mps"]
    assert vx.first is not None
    assert vx.largest is not None
    assert (vx.ticks, vx.first.tick, vx.largest.tick) == (2, 3, 7)
    assert vx.largest.size == pytest.approx(1.3, abs=0.01)
    assert found.replayed_m - found.logged_m == pytest.approx((0.5 + 0.7) * 0.1, abs=0.02)
    text = report_text(report)
    assert "vx_mps" in text
    assert "2 of" in text
    within = replay(log, options=ReplayOptions(tolerance=1e-6)).report
    assert set(within.differences.fields) == {"vx_mps"}
    assert replay(log, options=ReplayOptions(tolerance=2.0)).report.identical


def test_a_routes_difference_has_a_size(arrival: RunReport) -> None:
    logged = next(m for m in read_log(arrival.log).of(wire.DecisionMsg) if m.route_odom_m is not None)
    route = wire.unpack_array(logged.route_odom_m, "route")
    command_ = VelocityCommand(logged.vx_mps, logged.vy_mps, logged.yaw_rate_radps, 0)
    moved = route.copy()
    moved[-1] += np.array([0.3, 0.4], np.float32)
    (found,) = differences(0.0, logged, Decision(command_, logged.value, logged.why, moved))
    assert found.field == "route_odom_m"
    assert found.size == pytest.approx(0.5, abs=0.2)
    (found,) = differences(0.0, logged, Decision(command_, logged.value, logged.why, None))
    assert found.size is None


def test_what_if_it_planned(arrival: RunReport) -> None:
    report = replay(arrival.log, options=ReplayOptions(planner="geometry")).report
    assert report.planner == "geometry"
    assert report.replayed == report.ticks
    assert report.differences.fields["why"].ticks == report.ticks
    assert report.differences.apart_mps > 0
    with pytest.raises(BundleError, match=r"dreams\.onnx"):
        replay(arrival.log, options=ReplayOptions(planner="mppi"))


def test_what_if_the_governor_were_another(arrival: RunReport) -> None:
    log = read_log(arrival.log)
    limits = logged_limits(log)
    same = regovern(log, limits, {})
    assert same.first_s is None
    assert same.reasons_s == same.reasons_logged_s
    assert same.agreement > 0.7  # receive times are not in a log
    slow = regovern(log, changed_limits(limits, {"speed_factor": 0.3 * limits.speed_factor}), {})
    assert slow.first_s is not None
    assert slow.distance_m < 0.6 * slow.distance_logged_m
    assert slow.reasons_s["speed"] > same.reasons_s.get("speed", 0.0)
    standing = regovern(log, limits, {m.sequence: np.zeros(3) for m in log.of(wire.DecisionMsg)})
    assert standing.distance_m == 0.0


@pytest.mark.parametrize("change", [{"sped_factor": 1.0}, {"speed_factor": -1.0}])
def test_limits_that_cannot_be_are_one_line(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="speed_factor"):
        changed_limits(GovernorConfig(), change)


def test_the_command_tells_what_if(arrival: RunReport, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--planner", "geometry", "--governor", "speed_factor=0.2", "--from", "0.3", "--no-picture"]
    assert command.main([arrival.log, *words]) == 1
    out = capsys.readouterr().out
    assert "largest at" in out
    assert "let through" in out
    assert command.main([arrival.log, "--governor", "speed_factor=0.2", "--no-picture"]) == 0
    capsys.readouterr()
    assert command.main([arrival.log, "--governor", "speed_factor=0.2", "--json", "--no-picture"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["governed"]["distance_m"] < report["governed"]["distance_logged_m"]
    with pytest.raises(UsageError, match="NAME=NUMBER"):
        command.main([arrival.log, "--governor", "fast", "--no-picture"])


def test_a_folder_is_a_regression_test(arrival: RunReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(arrival.log, tmp_path / "a.mcap")
    shutil.copy(arrival.log, tmp_path / "b.mcap")
    assert command.main([str(tmp_path)]) == 0
    assert "2 of 2 logs identical" in capsys.readouterr().out
    altered(Path(arrival.log), tmp_path / "c.mcap", 4, value=0.1)
    (tmp_path / "d.mcap").write_bytes(b"no log")
    assert command.main([str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [entry["identical"] for entry in found["logs"]] == [True, True, False, False]
    assert "MCAP" in found["logs"][3]["error"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"\*\.mcap"):
        command.main([str(tmp_path / "empty")])
    with pytest.raises(UsageError, match="a log"):
        command.main([])


def test_a_page_is_written_and_too_many_logs_are_refused(
    arrival: RunReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "a.html"
    assert command.main([arrival.log, arrival.log, "--html", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    assert not Path(arrival.log).with_suffix(".png").exists()
    text = page.read_text()
    assert text.count('type="application/gzip"') == 2 + 1  # and once in the script
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    with pytest.raises(UsageError, match="at most 2"):
        command.main([arrival.log] * 3 + ["--html", str(page)])
    assert command.main([arrival.log, arrival.log, "--html", str(page), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)  # one document
    assert told["identical"] and [entry["page"] for entry in told["logs"]] == [str(page)] * 2
    assert command.main([arrival.log, "--html", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(page)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--picture", "a.xyz"], "--picture: expected a path that ends in .png"),
        (["--rrd", "a.rrd"], "at most 1 log"),
        (["--picture", "a.png"], "--picture: expected one log, got 2 logs"),
    ],
)
def test_what_cannot_be_shown_of_a_folder_is_refused(
    arrival: RunReport, tmp_path: Path, flags: list[str], said: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.mcap").write_bytes(Path(arrival.log).read_bytes())
    with pytest.raises(UsageError, match=said):
        command.main([str(tmp_path), flags[0], str(tmp_path / flags[1])])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mcap", "b.mcap"]


def test_a_recording_for_rerun(arrival: RunReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    assert command.main([arrival.log, "--rrd", str(tmp_path / "a.rrd")]) == 0
    capsys.readouterr()
    assert (tmp_path / "a.rrd").read_bytes()[:3] == b"RRF"
    assert (tmp_path / "a.rrd").stat().st_size > 10_000
