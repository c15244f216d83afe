"""The operator link on real sockets, against a real governor's process: who may do what, and nobody else."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import rig
from operators import AHEAD, commanded, connect, folder_of_keys, listening, listening_robot, pair, while_running  # noqa: F401  fixtures

from deploy import authority, keys, transport, wire
from deploy.config import OperatorConfig
from deploy.governor_process import _link_s
from deploy.remote import Remote
from deploy.timing import now_ns
from robonav.cli.main import main
from robonav.errors import ConfigError, LinkError

pytestmark = [pytest.mark.realtime, pytest.mark.xdist_group("operators")]


def test_a_commander_drives_and_the_state_says_so(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        assert (alice.state.name, alice.state.role, alice.state.heard) == ("alice", "commander", -1)
        robot.others.append(lambda: alice.command(AHEAD))
        assert robot.until(lambda: robot.vx_mps == 0.5)
        assert robot.until(lambda: alice.state.holder == "alice")
        assert robot.until(lambda: robot.governed[-1].holder == "alice")
        robot.others.clear()
        assert robot.run(1.0, lambda: robot.vx_mps == 0.0)  # its life and the ramp
    assert "lease taken by alice" in [e.text for e in robot.events]


def test_an_unlisted_key_gets_nothing_through(robot: rig.Rig, folder: Path, tmp_path: Path) -> None:
    stranger = keys.load_pair(keys.new_key(tmp_path / "other", "mallory", "commander"))
    stranger = replace(stranger, robot=keys.robot_pair(folder).public)
    with Remote(robot.address, stranger) as mallory:
        robot.others.append(mallory.poll)
        robot.others.append(lambda: mallory.command(AHEAD))
        robot.run(1.5)
        assert mallory.state is None
        assert mallory.command(AHEAD) is None  # there is no link
        robot.others.clear()
        with pytest.raises(LinkError, match="not allowed, or was revoked"):
            mallory.press(timeout_s=0.3)
    assert {m.vx_mps for m in robot.governed} == {0.0}
    assert robot.reasons() == {"no command"}
    assert robot.governed[-1].estop == ""


def test_a_key_of_another_robot_and_a_client_without_curve_get_nothing_through(robot: rig.Rig, folder: Path) -> None:
    impostor = replace(pair(folder, "alice"), robot=pair(folder, "bob").public)
    with Remote(robot.address, impostor) as remote, transport.Link() as link:
        plain = link.connect_operator(robot.address)
        press = wire.EStopMsg(sequence=0, stamp_ns=0, episode=1, action="press")
        robot.others += [remote.poll, lambda: transport.try_send(plain, wire.encode(press))]
        robot.run(1.0)
        assert remote.state is None
        assert transport.try_receive(plain) is None
    assert robot.reasons() == {"no command"}


def test_an_observer_watches_and_presses_but_neither_drives_nor_re_arms(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "eye") as eye:
        assert commanded(robot, eye, AHEAD).reason == authority.ROLE
        assert isinstance(while_running(robot, lambda: eye.lease("take")), LinkError)
        assert while_running(robot, lambda: eye.press("a child")) is None
        assert robot.until(lambda: eye.state.estop == "eye: a child")
        refused = while_running(robot, eye.rearm)
        assert "refused: role" in str(refused)
    assert {m.vx_mps for m in robot.governed} == {0.0}
    assert robot.until(lambda: robot.governed[-1].estop == "eye: a child")


def test_the_estop_stops_the_navigator_latches_and_is_re_armed_at_standstill(robot: rig.Rig, folder: Path) -> None:
    robot.others.append(lambda: robot.navigate(0.6))
    assert robot.until(lambda: robot.vx_mps == 0.6)
    gate = Remote(robot.address, pair(folder, "gate"))
    robot.speed_mps = 0.6  # the body coasts
    assert while_running(robot, lambda: gate.press("test")) is None
    assert robot.run(0.5, lambda: robot.vx_mps == 0.0)
    pressed = next(m for m in robot.governed if m.estop)
    assert next(m for m in robot.governed if m.estop and m.vx_mps == 0.0).stamp_ns - pressed.stamp_ns < 100_000_000
    count = len(robot.governed)
    robot.run(1.0)
    assert {m.vx_mps for m in robot.governed[count:]} == {0.0}
    assert "refused: moving" in str(while_running(robot, gate.rearm))
    robot.speed_mps = 0.0
    assert robot.until(lambda: while_running(robot, gate.rearm) is None)  # as soon as it is sure that it stands
    assert robot.until(lambda: robot.vx_mps == 0.6)
    gate.close()
    texts = [e.text for e in robot.events]
    assert texts.index("e-stop pressed by gate: test") < texts.index("e-stop re-armed by gate")


def test_the_estop_command(robot: rig.Rig, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--connect", robot.address, "--key", str(folder / "gate.key")]
    assert while_running(robot, lambda: main(["estop", "press", *there, "--reason", "smoke"])) == 0
    assert while_running(robot, lambda: main(["estop", "state", *there])) == 0
    shown = capsys.readouterr().out
    assert "e-stop    gate: smoke" in shown
    assert "you       gate, estop" in shown
    assert while_running(robot, lambda: main(["estop", "rearm", *there])) == 0
    assert robot.until(lambda: robot.governed[-1].estop == "")
    eye = ["--connect", robot.address, "--key", str(folder / "eye.key")]
    assert main(["estop", "press", "--connect", robot.address]) == 2
    assert "expected a key, got none" in capsys.readouterr().err
    assert while_running(robot, lambda: main(["estop", "rearm", *eye])) == 2
    assert "refused: role" in capsys.readouterr().err


def test_of_two_commanders_the_second_waits_for_the_lease_to_lapse(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice, connect(robot, folder, "bob") as bob:
        driven_ns = [0]

        def drives() -> None:
            asked_ns = now_ns()
            if alice.command(AHEAD) is not None:
                driven_ns[0] = asked_ns

        robot.others.append(drives)
        assert robot.until(lambda: robot.vx_mps == 0.5)
        refused = commanded(robot, bob, -AHEAD / 2)
        assert (refused.accepted, refused.reason) == (False, authority.LEASE)
        assert authority.LEASE in robot.reasons()
        robot.others.remove(drives)
        robot.others.append(lambda: bob.command(-AHEAD / 2))
        assert robot.until(lambda: robot.vx_mps == -0.25)
        free_s = (next(m.stamp_ns for m in robot.governed if m.vx_mps < 0) - driven_ns[0]) * 1e-9
        assert 0.9 < free_s < 2.0
    assert all(m.vx_mps >= 0 for m in robot.governed if m.holder != "bob")
    texts = [e.text for e in robot.events]
    assert texts.index("lease of alice lapsed") < texts.index("lease taken by bob")


def test_a_released_lease_is_free_at_once_and_an_held_one_keeps_the_navigator_out(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        assert while_running(robot, lambda: alice.lease("take")) is None
        robot.others.append(lambda: robot.navigate(0.6))
        assert robot.until(lambda: authority.LEASE in robot.reasons())
        assert robot.vx_mps == 0.0
        assert while_running(robot, lambda: alice.lease("release")) is None
        assert robot.until(lambda: robot.vx_mps > 0.0)


def test_a_revoked_key_is_cut_off_live_within_a_second_and_the_others_come_back(
    robot: rig.Rig, folder: Path, tmp_path: Path
) -> None:
    keys.new_key(folder, "leaver", "commander", tmp_path / "leaver.key")
    leaver = Remote(robot.address, keys.load_pair(tmp_path / "leaver.key"))
    robot.others.append(leaver.poll)
    assert robot.until(lambda: leaver.state is not None)
    with connect(robot, folder, "eye") as eye:
        robot.others.append(lambda: leaver.command(AHEAD))
        assert robot.until(lambda: robot.vx_mps == 0.5)
        keys.revoke(folder, "leaver")
        revoked = now_ns()
        robot.run(3.0)
        driven = [m.stamp_ns for m in robot.governed if m.vx_mps != 0.0]
        assert (max(driven) - revoked) * 1e-9 < 1.0
        assert leaver.command(AHEAD) is None  # its connection is gone, and it makes no other
        eye.state = None
        assert robot.until(lambda: eye.state is not None)
    robot.others.clear()
    leaver.close()
    assert "key of leaver revoked: cut off" in [e.text for e in robot.events]
    assert robot.process.poll() is None


def test_a_robot_that_needs_a_hand_at_the_estop_stops_and_latches_when_it_is_gone(folder: Path) -> None:
    with listening(folder, estop_link="required", estop_link_s=0.5) as robot:
        robot.others.append(lambda: robot.navigate(0.6))
        robot.run(0.4)
        assert robot.vx_mps == 0.0
        assert robot.governed[-1].reasons == ("no e-stop link",)
        with Remote(robot.address, pair(folder, "gate")) as gate:
            robot.others += [gate.poll, rig.every(0.1, gate.hold)]
            assert robot.until(lambda: robot.vx_mps == 0.6)
            robot.run(0.7)
            assert robot.vx_mps == 0.6
            del robot.others[1:]
        gone = now_ns()
        assert robot.until(lambda: robot.vx_mps == 0.0)
        driven = max(m.stamp_ns for m in robot.governed if m.vx_mps)
        assert 0.35 < (driven - gone) * 1e-9 < 0.5 + 0.1
        assert robot.governed[-1].estop == "e-stop link lost"
        with Remote(robot.address, pair(folder, "gate")) as gate:
            robot.others += [gate.poll, rig.every(0.1, gate.hold)]
            robot.run(0.5)
            assert robot.vx_mps == 0.0  # it is back, and still somebody has to say that all is well
            assert while_running(robot, gate.rearm) is None
            assert robot.until(lambda: robot.vx_mps == 0.6)
            robot.others.clear()


def test_the_command_that_holds_it_says_what_becomes_of_it(
    robot: rig.Rig, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    eye = ["--connect", robot.address, "--key", str(folder / "eye.key"), "--timeout-s", "2"]
    assert while_running(robot, lambda: main(["estop", "hold", *eye])) == 2
    assert "refused: role" in capsys.readouterr().err
    held: list[float] = []

    def let_go(remote: Remote) -> bool:
        held.append(time.monotonic())
        if len(held) == 4:
            raise KeyboardInterrupt
        return Remote.press(remote, "a dog") is None if len(held) == 2 else hold(remote)

    hold = Remote.hold
    monkeypatch.setattr(Remote, "hold", let_go)
    gate = ["--connect", robot.address, "--key", str(folder / "gate.key")]
    assert while_running(robot, lambda: main(["estop", "hold", *gate])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("holding the e-stop link of a1 as gate")
    assert lines[1:] == ["e-stop    gate: a dog", "let go: a robot that needs the link stops"]
    assert held[1] - held[0] >= 0.19


def test_a_link_that_is_required_needs_an_address() -> None:
    assert _link_s(OperatorConfig()) == 0.0
    assert _link_s(OperatorConfig(listen="ipc:///x", estop_link="required", estop_link_s=2.0)) == 2.0
    with pytest.raises(LinkError, match="estop_link = required: expected an address to listen on, got none"):
        _link_s(OperatorConfig(estop_link="required"))
    with pytest.raises(ConfigError, match="estop_link: expected optional or required, got 'yes'"):
        OperatorConfig(estop_link="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="estop_link_s"):
        OperatorConfig(estop_link_s=0.0)
