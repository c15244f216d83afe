"""Restarts: the robot stands first, what replaces a process begins afresh, and nothing of the old one is driven."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rig
from hypothesis import given
from hypothesis import strategies as st
from test_runs import FAR, POINT, Once, run_far, send, workers

from deploy import transport, wire
from deploy.authority import NAVIGATOR, Authority, Peer
from deploy.config import DeployConfig, OperatorConfig, SupervisorConfig
from deploy.governor_process import START_LATCHED
from deploy.latch import FREE_FILE, KEPT, LOST, Latch
from deploy.log_reader import Log, read_log
from deploy.remote import Remote
from deploy.replay import replay
from deploy.restarts import backoff_ns, part_path
from deploy.station import SESSION_NUMBERS
from deploy.supervisor import run
from robonav.errors import ConfigError

CONFIG = SupervisorConfig(restart_burst=3, restart_interval_s=60.0, restart_backoff_s=0.2, restart_backoff_max_s=0.5)
SECOND = 1_000_000_000
PERSON = Peer("key", "gate", "commander", b"1")


# -- when ------------------------------------------------------------------------------------------------------------


def test_the_wait_doubles_up_to_its_bound_and_then_it_is_over() -> None:
    starts = [10 * SECOND, 11 * SECOND, 12 * SECOND]
    waits = [backoff_ns(starts[:n], 13 * SECOND, CONFIG) for n in range(4)]
    assert waits == [SECOND // 5, 2 * SECOND // 5, SECOND // 2, None]


def test_restarts_of_before_the_interval_do_not_count() -> None:
    starts = [10 * SECOND, 11 * SECOND, 12 * SECOND]
    assert backoff_ns(starts, 70 * SECOND, CONFIG) == SECOND // 2  # the first is just 60 s old
    assert backoff_ns(starts, 73 * SECOND, CONFIG) == SECOND // 5
    assert backoff_ns([], 0, replace(CONFIG, restart_burst=0)) is None


@given(st.lists(st.integers(0, 100 * SECOND), max_size=200))
def test_no_interval_holds_more_restarts_than_the_burst(losses_ns: list[int]) -> None:
    starts: list[int] = []
    for loss_ns in sorted(losses_ns):
        if backoff_ns(starts, loss_ns, CONFIG) is not None:
            starts.append(loss_ns)
    for first, fourth in zip(starts, starts[CONFIG.restart_burst :]):  # noqa: B905  one is shorter
        assert fourth - first >= CONFIG.restart_interval_s * SECOND


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="restart_burst: expected 0 or more, got -1"):
        SupervisorConfig(restart_burst=-1)
    with pytest.raises(ConfigError, match="restart_backoff_max_s: expected at least restart_backoff_s = 2"):
        SupervisorConfig(restart_backoff_s=2.0, restart_backoff_max_s=1.0)


def test_a_part_stands_beside_its_log() -> None:
    assert part_path("/a/run.mcap", 0) == "/a/run.mcap"
    assert part_path("/a/run.mcap", 2) == "/a/run.part2.mcap"
    assert part_path("/a.b/run", 1) == "/a.b/run.part1"


# -- what a governor's successor knows ---------------------------------------------------------------------------------


def successor(folder: Path) -> str:
    """The e-stop that a governor begins with, that was started in place of another."""
    return Latch(folder, restarted=True).start(Authority(1)).estop


def test_a_latch_is_kept_until_it_is_re_armed(tmp_path: Path) -> None:
    latch = Latch(tmp_path, restarted=False)
    assert latch.start(Authority(1)).estop == ""
    assert successor(tmp_path) == ""
    latch.keep(Authority(1, estop="gate: a child"))
    assert successor(tmp_path) == "gate: a child" + KEPT
    second = Latch(tmp_path, restarted=True)
    latched = second.start(Authority(1))
    second.keep(latched)
    assert successor(tmp_path) == latched.estop  # and does not grow
    second.keep(replace(latched, estop=""))
    assert successor(tmp_path) == ""


def test_a_robot_that_a_person_drove_does_not_go_on_by_itself(tmp_path: Path) -> None:
    latch = Latch(tmp_path, restarted=False)
    latch.keep(Authority(1, holder=NAVIGATOR))
    assert successor(tmp_path) == ""
    latch.keep(Authority(1, holder=PERSON))
    assert successor(tmp_path) == "driven by gate" + KEPT
    latch.keep(Authority(1))
    assert successor(tmp_path) == ""


def test_every_doubt_means_latched(tmp_path: Path) -> None:
    assert successor(tmp_path) == LOST + KEPT  # nothing was written
    (tmp_path / "a").mkdir()
    latch = Latch(tmp_path / "a", restarted=False)
    (tmp_path / "a" / "governor.latched").mkdir()  # who it was cannot be written
    latch.keep(Authority(1, estop="gate"))
    assert successor(tmp_path / "a") == LOST + KEPT
    latch.keep(Authority(1))
    assert (tmp_path / "a" / FREE_FILE).exists()


# -- a governor's real process -----------------------------------------------------------------------------------------


@pytest.fixture
def robot() -> Iterator[rig.Rig]:
    with rig.governor() as robot:
        yield robot


@pytest.mark.realtime
@pytest.mark.xdist_group("operators")
def test_on_hold_and_behind_a_fence_nothing_is_driven(robot: rig.Rig) -> None:
    session = itertools.repeat(0)

    def navigate(number: int) -> None:
        fields = {"vx_mps": 0.6, "vy_mps": 0.0, "yaw_rate_radps": 0.0, "session": number}
        robot._send(robot._commands, wire.CommandMsg, observation=0, **fields)

    robot.others.append(lambda: navigate(next(session)))
    assert robot.until(lambda: robot.vx_mps == 0.6)
    robot.word = "hold"
    assert robot.until(lambda: robot.vx_mps == 0.0)
    robot.governed.clear()
    robot.run(0.3)
    assert robot.until(lambda: "refused: hold" in robot.reasons())
    assert not any(m.vx_mps for m in robot.governed)
    robot.word, robot.fences = "run", {"navigator": 1}
    robot.run(0.3)
    robot.governed.clear()
    robot.run(0.3)
    assert robot.until(lambda: robot.governed and "refused: session" in robot.reasons())
    assert not any(m.vx_mps for m in robot.governed)
    robot.fences = {}  # a word without it takes no fence away
    robot.run(0.3)
    assert not any(m.vx_mps for m in robot.governed)
    session = itertools.repeat(1)
    assert robot.until(lambda: robot.vx_mps == 0.6)


@pytest.mark.realtime
@pytest.mark.xdist_group("operators")
def test_a_robot_that_starts_latched_moves_when_it_is_re_armed(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/operator"
    with rig.governor(OperatorConfig(listen=address, start_latched=True)) as robot, Remote(address) as gate:
        robot.others += [lambda: robot.navigate(0.6), gate.poll]
        assert robot.until(lambda: "refused: e-stop" in robot.reasons() and gate.state is not None)
        assert robot.vx_mps == 0.0
        assert gate.state is not None
        assert gate.state.estop == START_LATCHED
        robot.others.append(rig.every(0.3, lambda: gate._send(wire.EStopMsg, action="rearm")))
        assert robot.until(lambda: robot.vx_mps == 0.6)  # when it is sure that it stands


def test_nobody_could_re_arm_a_robot_without_operators(tiny_bundle: Path, tmp_path: Path) -> None:
    config = DeployConfig(operator=OperatorConfig(start_latched=True))
    with pytest.raises(ConfigError, match=r"operator\.start_latched: expected false, or operator\.listen"):
        run(tiny_bundle, POINT, tmp_path / "a.mcap", config=config)


# -- whole runs --------------------------------------------------------------------------------------------------------


def order_of(log: Log, kinds: tuple[str, ...]) -> list[str]:
    return [e.kind for e in sorted(log.of(wire.EventMsg), key=lambda e: e.stamp_ns) if e.kind in kinds]


@pytest.mark.realtime
@pytest.mark.xdist_group("processes")
def test_a_killed_navigator_is_replaced_while_the_robot_stands(tiny_bundle: Path, tmp_path: Path) -> None:
    report, log = run_far(tiny_bundle, tmp_path / "a.mcap", send("navigator", signal.SIGKILL), restarts=3)
    assert report.success, report
    assert report.restarts == {"navigator": 1}
    assert report.losses == ("navigator: killed by SIGKILL",)
    order = order_of(log, ("lost", "held", "restarted", "resumed"))  # a busy machine may hold it once more
    assert list(dict.fromkeys(order[order.index("lost") :])) == ["lost", "held", "restarted", "resumed"]
    resumed_ns = next(e.stamp_ns for e in log.of(wire.EventMsg) if e.kind == "resumed")
    before = [s for s in log.of(wire.StatusMsg) if s.stamp_ns <= resumed_ns]
    assert before[-1].held and before[-1].standing
    first = next(m for m in log.of(wire.DecisionMsg) if m.sequence >= SESSION_NUMBERS)
    assert first.sequence == SESSION_NUMBERS
    assert first.reset  # nothing is remembered
    again = replay(log)
    assert again.report.identical  # the first navigator's ticks and the second's
    moved_ns = [m.stamp_ns for m in log.of(wire.AppliedMsg) if np.any(wire.velocity_of(m))]
    lost_ns = next(e.stamp_ns for e in log.of(wire.EventMsg) if e.kind == "lost")
    held_ns = next(e.stamp_ns for e in log.of(wire.EventMsg) if e.kind == "held" and e.stamp_ns >= lost_ns)
    assert not [t for t in moved_ns if held_ns < t < resumed_ns]


@pytest.mark.realtime
@pytest.mark.xdist_group("processes")
def test_an_e_stop_outlives_its_governor(tiny_bundle: Path, tmp_path: Path) -> None:
    """Pressed, then the governor is killed: its successor is latched, and the robot goes on when it is re-armed."""
    folder = transport.private_folder()
    address = f"ipc://{folder}/operator"
    pressed: list[str] = []

    def press() -> None:
        with Remote(address) as gate:
            gate.press("a person")
        os.kill(workers(os.getpid())["governor"], signal.SIGKILL)

    def watch(status: wire.StatusMsg) -> None:
        once(status)
        if once.done_speed_mps is not None and not pressed and not status.held and status.standing:
            with Remote(address) as gate:
                state = gate.connect(5.0)
                pressed.append(state.estop)
                gate.rearm(5.0)

    once = Once(press)
    config = DeployConfig(operator=OperatorConfig(listen=address))
    try:
        report = run(tiny_bundle, POINT, tmp_path / "a.mcap", driver_kwargs=FAR, config=config, on_status=watch)
    finally:
        transport.remove_folder(folder)
    assert pressed == ["local operator: a person" + KEPT]
    assert report.restarts == {"governor": 1}
    assert report.success, report
    log = read_log(report.log)
    driven = [m.session for m in log.of(wire.GovernedMsg) if wire.velocity_of(m).any()]
    assert set(driven) == {0, 1}


@pytest.mark.slow
@pytest.mark.realtime
@pytest.mark.xdist_group("processes")
def test_a_killed_recorder_goes_on_in_a_part_of_the_log(tiny_bundle: Path, tmp_path: Path) -> None:
    once = send("recorder", signal.SIGKILL)
    speed = {"goal_m": [4.6, 0.5], "speed_scale": 0.6}
    report = run(tiny_bundle, POINT, tmp_path / "a.mcap", driver_kwargs=speed, on_status=once)
    assert report.outcome == "success"
    assert not report.success  # a part of the log is missing
    assert report.log_error == "recorder: killed by SIGKILL"
    assert report.log_parts == (str(tmp_path / "a.mcap"), str(tmp_path / "a.part1.mcap"))
    second = read_log(report.log_parts[1])
    assert second.damage == ""
    assert second.run["first_log"] == report.log_parts[0]
    assert json.loads(second.metadata["robonav.report"]["report"])["restarts"] == {"recorder": 1}
    assert second.of(wire.DecisionMsg)


@pytest.mark.slow
@pytest.mark.realtime
@pytest.mark.xdist_group("processes")
def test_a_process_that_dies_again_and_again_ends_the_run_with_the_reason(tiny_bundle: Path, tmp_path: Path) -> None:
    killed: set[int] = set()

    def kill(status: wire.StatusMsg) -> None:
        number = workers(os.getpid()).get("navigator")
        if number is not None and number not in killed and not status.held and status.speed_mps > 0.3:
            killed.add(number)
            os.kill(number, signal.SIGKILL)

    config = DeployConfig(supervisor=replace(CONFIG, restart_burst=2))
    report = run(tiny_bundle, POINT, tmp_path / "a.mcap", driver_kwargs=FAR, config=config, on_status=kill)
    assert len(killed) == 3
    assert report.outcome == "navigator lost"
    assert report.detail == "navigator: killed by SIGKILL; restarted 2 times within 60 s"
    assert report.restarts == {"navigator": 2}
    assert report.stopped


@pytest.mark.slow
@pytest.mark.realtime
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("role", ["navigator", "governor"])
def test_a_frozen_process_is_replaced_and_cannot_come_back(role: str, tiny_bundle: Path, tmp_path: Path) -> None:
    report, log = run_far(tiny_bundle, tmp_path / "a.mcap", send(role, signal.SIGSTOP), restarts=3)
    assert report.success, report
    assert report.restarts == {role: 1}
    assert "silent" in report.losses[0]
    lost_ns = next(e.stamp_ns for e in log.of(wire.EventMsg) if e.kind == "lost")
    moved = [m for m in log.of(wire.GovernedMsg) if m.stamp_ns > lost_ns and wire.velocity_of(m).any()]
    assert moved
    assert role == "navigator" or {m.session for m in moved} == {1}
    assert role == "governor" or all(m.asked >= SESSION_NUMBERS for m in moved)
