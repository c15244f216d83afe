"""Replay: a log's decisions come out again bit for bit, and one that was altered is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy import wire
from deploy.config import RecorderConfig
from deploy.log_reader import read_log
from deploy.picture import draw
from deploy.recorder import LogWriter
from deploy.replay import replay
from deploy.report import RunReport
from robonav.cli import replay as command
from robonav.errors import BundleError, LogError


def rewrite(source: Path, target: Path, change: Any) -> None:
    """Copies a log, with each message through `change`, which gives None to leave it out."""
    log = read_log(source)
    writer = LogWriter(target, RecorderConfig(), log.run)
    for entry in log.entries:
        message = change(entry.message)
        if message is not None:
            writer.write(message, entry.sequence)
    writer.close()


def altered(tick: int, **fields: Any) -> Any:
    def change(message: Any) -> Any:
        if isinstance(message, wire.DecisionMsg) and message.sequence == tick:
            return msgspec.structs.replace(message, **fields)
        return message

    return change


def test_no_tick_of_a_run_differs(arrival: RunReport) -> None:
    report = replay(arrival.log).report
    assert report.identical
    assert report.bundle_matches
    assert report.difference is None
    assert report.replayed == report.ticks == arrival.decisions > 10
    assert report.warnings == ()
    assert report.outcome == "success"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"value": 0.123}, "value"),
        ({"yaw_rate_radps": 0.5}, "yaw_rate_radps"),
        ({"why": "mppi"}, "why"),
        ({"route_odom_m": None}, "route_odom_m"),
    ],
)
def test_an_altered_decision_is_found(arrival: RunReport, tmp_path: Path, fields: dict[str, Any], name: str) -> None:
    path = tmp_path / "altered.mcap"
    rewrite(Path(arrival.log), path, altered(5, **fields))
    report = replay(path).report
    assert not report.identical
    assert report.difference is not None
    assert (report.difference.tick, report.difference.field) == (5, name)
    assert command.main([str(path), "--no-picture"]) == 1


def test_the_smallest_change_of_a_double_is_found(arrival: RunReport, tmp_path: Path) -> None:
    import math

    value = read_log(arrival.log).of(wire.DecisionMsg)[7].value
    path = tmp_path / "altered.mcap"
    rewrite(Path(arrival.log), path, altered(7, value=math.nextafter(value, 99)))
    difference = replay(path).report.difference
    assert difference is not None
    assert difference.tick == 7


def test_an_altered_observation_is_found(arrival: RunReport, tmp_path: Path) -> None:
    def change(message: Any) -> Any:
        if isinstance(message, wire.ObservationMsg) and message.sequence == 4:
            return msgspec.structs.replace(message, goal_odom_m=wire.pack_array([0.2, 0.4]))
        return message

    path = tmp_path / "altered.mcap"
    rewrite(Path(arrival.log), path, change)
    assert replay(path).report.difference is not None


def test_a_gap_ends_the_comparison_and_is_told(arrival: RunReport, tmp_path: Path) -> None:
    def change(message: Any) -> Any:
        lost = isinstance(message, wire.DecisionMsg) and message.sequence == 6
        return None if lost else message

    path = tmp_path / "gap.mcap"
    rewrite(Path(arrival.log), path, change)
    report = replay(path).report
    assert report.replayed == 6
    assert not report.identical
    assert "gap before tick 7" in report.warnings[0]


def test_a_log_without_a_decision_is_not_called_identical(
    arrival: RunReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.mcap"
    rewrite(Path(arrival.log), path, lambda m: None if isinstance(m, wire.DecisionMsg) else m)
    report = replay(path).report
    assert (report.ticks, report.replayed, report.difference) == (0, 0, None)
    assert not report.identical
    assert command.main([str(path), "--no-picture"]) == 1
    assert "holds no decision" in capsys.readouterr().out


def test_another_bundle_is_warned_of_and_differs(arrival: RunReport, other_bundle: Path) -> None:
    report = replay(arrival.log, other_bundle).report
    assert not report.bundle_matches
    assert "another bundle" in report.warnings[0]
    assert report.difference is not None
    # At the start both actions are clipped at full speed; they part near the goal.
    assert report.difference.tick > 0 or report.difference.field == "vy_mps"


def test_a_truncated_log_is_replayed_as_far_as_it_goes(log_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = log_copy.read_bytes()
    log_copy.write_bytes(data[: len(data) // 2])
    report = replay(log_copy).report
    assert report.damage.startswith("truncated")
    assert 0 < report.replayed == report.ticks
    assert "unknown" in report.outcome
    assert command.main([str(log_copy), "--no-picture"]) == 0
    assert "truncated" in capsys.readouterr().err


def test_a_bundle_that_is_gone_or_changed_is_one_line(arrival: RunReport, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="--bundle"):
        replay(arrival.log, tmp_path)
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(BundleError):
        replay(arrival.log, tmp_path)


def test_a_log_of_something_else_is_one_line(tmp_path: Path) -> None:
    from mcap.writer import Writer

    with (tmp_path / "b.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        writer.finish()
    with pytest.raises(LogError, match="robonav run"):
        replay(tmp_path / "b.mcap")


def test_the_picture_is_drawn_of_a_whole_and_of_an_empty_log(arrival: RunReport, tmp_path: Path) -> None:
    draw(replay(arrival.log), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    rewrite(Path(arrival.log), tmp_path / "empty.mcap", lambda message: None)
    draw(replay(tmp_path / "empty.mcap"), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 5000
