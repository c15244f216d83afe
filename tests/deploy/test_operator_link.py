"""The operator link itself on real sockets: cut, flooded, replayed, garbled; nothing is late or gets through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rig
import zmq
from operators import AHEAD, answer_to, connect, folder_of_keys, listening_robot, pair, while_running  # noqa: F401  fixtures
from ports import free_port

from deploy import authority, endpoint, keys, transport, wire
from deploy.config import DeployConfig, OperatorConfig
from deploy.drill.cable import Cable
from deploy.endpoint import RateBound
from deploy.log_reader import read_log
from deploy.remote import Remote
from deploy.supervisor import run
from deploy.timing import now_ns
from robonav.cli import run as run_command
from robonav.errors import LinkError

pytestmark = [pytest.mark.realtime, pytest.mark.xdist_group("operators")]


def put(robot: rig.Rig, remote: Remote, frame: bytes) -> None:
    """Sends a frame, whenever the link takes it; the robot runs on meanwhile."""
    assert robot.until(lambda: transport.try_send(remote._socket, frame)), "the link takes nothing"


def ask_ahead(number: int, episode: int = 1) -> bytes:
    return wire.encode(
        wire.CommandMsg(
            sequence=number,
            stamp_ns=now_ns(),
            episode=episode,
            observation=0,
            vx_mps=0.5,
            vy_mps=0.0,
            yaw_rate_radps=0.0,
        )
    )


def test_old_packets_that_are_replayed_are_refused_in_the_same_and_in_a_new_session(
    robot: rig.Rig, folder: Path
) -> None:
    frames: list[bytes] = []
    with connect(robot, folder, "alice") as alice:
        for number in range(20):
            frames.append(ask_ahead(number))
            put(robot, alice, frames[-1])
        assert robot.until(lambda: any(m.vx_mps > 0 for m in robot.governed))
        assert robot.until(lambda: robot.vx_mps == 0.0)
        count = len(robot.governed)
        for frame in frames:
            put(robot, alice, frame)
        assert robot.until(lambda: authority.OLD_SEQUENCE in robot.reasons())
        robot.run(0.2)
        assert {m.vx_mps for m in robot.governed[count:]} == {0.0}
    with connect(robot, folder, "alice") as again:
        assert again.state.heard == 19
        for frame in frames:
            put(robot, again, frame)
        put(robot, again, ask_ahead(99, episode=2))
        assert robot.until(lambda: authority.WRONG_EPISODE in robot.reasons())
        robot.run(0.2)
        assert {m.vx_mps for m in robot.governed[count:]} == {0.0}


@pytest.mark.parametrize("cut_s", [0.28, 1.0])
def test_a_link_that_is_cut_and_restored_delivers_nothing_late(robot: rig.Rig, folder: Path, cut_s: float) -> None:
    """Each command says when it left in its lateral speed; what is driven is never older than a command's life."""
    cable = Cable(int(robot.address.rsplit(":", 1)[1]))
    started = now_ns()
    remote = Remote(f"tcp://127.0.0.1:{cable.port}", pair(folder, "alice"))
    sent: dict[int, int] = {}

    def command() -> None:
        stamp = now_ns()
        number = remote.command(np.array([0.4, 0.0, 0.001 * (len(sent) % 1000)]))
        if number is not None:
            sent[number] = stamp

    robot.others.append(remote.poll)
    assert robot.until(lambda: remote.state is not None)
    robot.others.append(command)
    assert robot.until(lambda: robot.vx_mps == 0.4)
    cable.whole = False
    robot.run(cut_s)
    before = len(robot.governed)
    restored = now_ns()
    robot.others.remove(command)  # what comes now left before
    cable.whole = True
    robot.run(1.5)
    life_ns = 250_000_000
    for message in robot.governed[before:]:
        if message.asked in sent and message.vx_mps > 0 and "expired" not in message.reasons:
            assert message.stamp_ns - sent[message.asked] <= life_ns + 25_000_000
    assert robot.vx_mps == 0.0
    last = max((m.stamp_ns for m in robot.governed if m.vx_mps), default=started)
    assert last - restored < life_ns + 100_000_000
    robot.others.append(command)
    assert robot.until(lambda: robot.vx_mps == 0.4)  # and it comes back
    robot.others.clear()
    remote.close()
    cable.close()


def test_a_flood_is_bounded_by_key_and_the_estop_of_another_gets_through(folder: Path) -> None:
    operator = OperatorConfig(listen=f"tcp://127.0.0.1:{free_port()}", keys=str(folder), rate_hz=10.0)
    with rig.governor(operator) as robot:
        robot.address = operator.listen
        with connect(robot, folder, "alice") as alice:
            robot.others.append(lambda: [alice.command(AHEAD) for _ in range(50)])
            assert robot.until(lambda: endpoint.RATE in robot.reasons())
            with Remote(robot.address, pair(folder, "gate")) as gate:
                for _ in range(20):  # faster than its own rate, which the e-stop is exempt from
                    assert while_running(robot, lambda: gate.press("flood")) is None
            assert robot.until(lambda: robot.vx_mps == 0.0)
            assert robot.until(lambda: robot.governed[-1].estop == "gate: flood")


def test_a_message_that_is_too_long_ends_its_senders_connection_only(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice, connect(robot, folder, "eye") as eye:
        put(robot, alice, b"x" * (transport.SMALL_BYTES + 1))
        robot.run(0.5)
        eye.state = None
        assert robot.until(lambda: eye.state is not None)
    assert robot.process.poll() is None
    assert {m.vx_mps for m in robot.governed} == {0.0}


def test_other_messages_and_garbage_are_refused_with_a_reason(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        put(robot, alice, wire.encode(wire.ControlMsg(sequence=5, stamp_ns=0, episode=1, state="stop")))
        assert answer_to(robot, alice, 5).reason == endpoint.KIND
        put(robot, alice, b"garbage")
        assert "no message of protocol" in answer_to(robot, alice, 0).reason
        alice._socket.send_multipart([b"one", b"more"])
        assert robot.until(lambda: {endpoint.KIND, endpoint.MALFORMED} <= robot.reasons())


def test_another_version_is_one_line_on_both_sides(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        newer = wire.HelloMsg(protocol=wire.PROTOCOL + 1, sequence=3, stamp_ns=0, episode=0, version="99")
        put(robot, alice, wire.encode(newer))
        line = answer_to(robot, alice, 0).reason
    assert line == "link: expected protocol 1, got protocol 2; install the same version of robonav on both sides"


def test_nobody_there_is_one_line(folder: Path) -> None:
    with Remote(f"tcp://127.0.0.1:{free_port()}", pair(folder, "eye")) as remote:
        with pytest.raises(LinkError, match="nobody answers there") as error:
            remote.connect(0.2)
        assert "\n" not in str(error.value)


def test_local_programs_use_a_socket_that_only_this_user_opens(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/robot.sock"
    with rig.governor(OperatorConfig(listen=address)) as robot:
        assert (tmp_path / "robot.sock").stat().st_mode & 0o077 == 0
        with Remote(address) as remote:
            robot.others.append(remote.poll)
            assert while_running(robot, lambda: remote.press("by hand")) is None
            robot.others.clear()
        assert robot.until(lambda: robot.governed[-1].estop == "local operator: by hand")


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("tcp://127.0.0.1:1", "the robot's pair robot.key, got none; make a key with 'robonav keys new"),
        ("udp://1.2.3.4:5", "expected tcp://ADDRESS:PORT or ipc://PATH"),
    ],
)
def test_an_endpoint_that_cannot_listen_is_one_line(listen: str, words: str, tmp_path: Path) -> None:
    with transport.Link() as link, pytest.raises(LinkError, match=words):
        endpoint.Endpoint(link, OperatorConfig(listen=listen, keys=str(tmp_path)), 1)


def test_an_address_that_others_reach_takes_keys() -> None:
    with transport.Link() as link:
        for opens in (link.publish_latest, link.receive_records, link.serve_operators, link.connect_operator):
            with pytest.raises(LinkError, match="others can reach, without keys"):
                opens("tcp://0.0.0.0:5600")


def test_without_an_authenticator_nobody_gets_in(folder: Path) -> None:
    """The domain is enforced: a socket whose handler is missing refuses everybody, where libzmq's default lets in."""
    address = f"tcp://127.0.0.1:{free_port()}"
    alice = pair(folder, "alice")
    with transport.Link() as robot, transport.Link() as client:
        server = robot.serve_operators(address, keys.robot_pair(folder).secret)
        dealer = client.connect_operator(address, alice.public, alice.secret, alice.robot)
        for _ in range(50):
            transport.try_send(dealer, b"hello")
            transport.wait([server], 10_000_000)
        with pytest.raises(zmq.Again):
            server.recv_multipart(zmq.DONTWAIT)


def test_a_bucket_fills_with_time_and_holds_a_second() -> None:
    bound, second = RateBound(10.0), 1_000_000_000
    assert [bound.take(0) for _ in range(11)] == [True] * 10 + [False]
    assert [bound.take(second // 5) for _ in range(3)] == [True, True, False]
    assert [bound.take(100 * second) for _ in range(11)] == [True] * 10 + [False]
    assert not bound.take(50 * second)  # a clock that steps back fills nothing


def test_a_whole_run_is_stopped_over_the_link_and_its_log_says_by_whom(tiny_bundle: Path, tmp_path: Path) -> None:
    address, pressed = f"ipc://{tmp_path}/robot.sock", []

    def press(status: wire.StatusMsg) -> None:
        if not pressed and status.speed_mps > 0.5:
            pressed.append(now_ns())
            with Remote(address) as remote:
                remote.press("drill")

    config = DeployConfig(time_limit_s=3.0, operator=OperatorConfig(listen=address))
    goal = {"goal_m": [4.0, 0.5]}
    report = run(
        tiny_bundle,
        "deploy.drivers:PointDriver",
        tmp_path / "a.mcap",
        driver_kwargs=goal,
        config=config,
        on_status=press,
    )
    assert report.outcome == "timeout"
    assert report.stopped
    assert report.reasons["e-stop"] > 0
    assert report.reasons["refused: e-stop"] > 0
    log = read_log(report.log)
    assert "e-stop pressed by local operator: drill" in [e.text for e in log.of(wire.EventMsg)]
    latched = [m for m in log.of(wire.GovernedMsg) if m.estop]
    assert {m.vx_mps for m in latched if m.stamp_ns - latched[0].stamp_ns > 120_000_000} == {0.0}
    assert latched[-1].stamp_ns - latched[0].stamp_ns > 1_000_000_000


def test_the_flag_of_the_command_line_wins_over_the_config(tmp_path: Path) -> None:
    path = tmp_path / "listening.toml"
    path.write_text('[operator]\nlisten = "ipc:///tmp/one"\nrate_hz = 7.0\n')
    config = run_command._config(run_command.RunArgs(config=str(path)), False)
    assert (config.operator.listen, config.operator.rate_hz) == ("ipc:///tmp/one", 7.0)
    config = run_command._config(run_command.RunArgs(config=str(path), listen="tcp://127.0.0.1:5600"), False)
    assert (config.operator.listen, config.operator.rate_hz) == ("tcp://127.0.0.1:5600", 7.0)
    assert run_command._config(run_command.RunArgs(), False).operator.listen == ""
