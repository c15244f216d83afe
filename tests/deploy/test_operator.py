"""The operator link on real sockets, against a real governor's process: nobody gets through who must not."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rig
import zmq

from deploy import authority, endpoint, keys, transport, wire
from deploy.config import DeployConfig, OperatorConfig
from deploy.endpoint import RateBound
from deploy.log_reader import read_log
from deploy.remote import Remote
from deploy.supervisor import run
from deploy.timing import now_ns
from robonav.cli import run as run_command
from robonav.cli.main import main
from robonav.errors import LinkError

pytestmark = pytest.mark.xdist_group("operators")
AHEAD = np.array([0.5, 0.0, 0.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, role in (("alice", "commander"), ("bob", "commander"), ("gate", "estop"), ("eye", "observer")):
        keys.new_key(folder, name, role)
    return folder


def pair(folder: Path, name: str) -> keys.Pair:
    return keys.load_pair(folder / f"{name}.key")


@pytest.fixture
def robot(folder: Path) -> Iterator[rig.Rig]:
    """A governor that listens to operators; `robot.address` says where."""
    address = f"tcp://127.0.0.1:{rig.free_port()}"
    with rig.governor(OperatorConfig(listen=address, keys=str(folder))) as robot:
        robot.address = address
        yield robot


@contextmanager
def connect(robot: rig.Rig, folder: Path, name: str) -> Iterator[Remote]:
    """A remote program that the robot knows; it is polled whenever the robot's rig runs."""
    with Remote(robot.address, pair(folder, name)) as remote:
        robot.others.append(remote.poll)
        assert robot.run(5.0, lambda: remote.state is not None), f"{name} was not let in"
        yield remote
        robot.others.clear()


def while_running(robot: rig.Rig, work: object) -> object:
    """What a blocking call returns or raises, made from another thread while the robot runs; none is polled here."""
    outcome: list[object] = []
    others, robot.others = robot.others, [o for o in robot.others if not isinstance(getattr(o, "__self__", 0), Remote)]

    def call() -> None:
        try:
            outcome.append(work())  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  handed on below
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    robot.run(20.0, lambda: not thread.is_alive())
    thread.join(1.0)
    robot.others = others
    return outcome[0]


def commanded(robot: rig.Rig, remote: Remote, velocity: np.ndarray) -> wire.AnswerMsg:
    """What came of one command."""
    sent: list[int] = []
    assert robot.run(3.0, lambda: [sent.append(n) for n in [remote.command(velocity)] if n is not None])
    return answer_to(robot, remote, sent[0])


def answer_to(robot: rig.Rig, remote: Remote, number: int) -> wire.AnswerMsg:
    """Of message `number`."""
    found: dict[int, wire.AnswerMsg] = {}

    def there() -> bool:
        found.update(remote.answers())
        return number in found

    assert robot.run(3.0, there), "no answer"
    return found[number]


def test_a_commander_drives_and_the_state_says_so(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        assert (alice.state.name, alice.state.role, alice.state.heard) == ("alice", "commander", -1)
        robot.others.append(lambda: alice.command(AHEAD))
        assert robot.run(3.0, lambda: robot.vx_mps == 0.5)
        assert robot.run(1.0, lambda: alice.state.holder == "alice")
        assert robot.run(1.0, lambda: robot.governed[-1].holder == "alice")
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
        assert robot.run(1.0, lambda: eye.state.estop == "eye: a child")
        refused = while_running(robot, eye.rearm)
        assert "refused: role" in str(refused)
    assert {m.vx_mps for m in robot.governed} == {0.0}
    assert robot.run(2.0, lambda: robot.governed[-1].estop == "eye: a child")


def test_the_estop_stops_the_navigator_latches_and_is_re_armed_at_standstill(robot: rig.Rig, folder: Path) -> None:
    robot.others.append(lambda: robot.navigate(0.6))
    assert robot.run(3.0, lambda: robot.vx_mps == 0.6)
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
    robot.run(0.3)
    assert while_running(robot, gate.rearm) is None
    assert robot.run(2.0, lambda: robot.vx_mps == 0.6)
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
    assert robot.run(1.0, lambda: robot.governed[-1].estop == "")
    eye = ["--connect", robot.address, "--key", str(folder / "eye.key")]
    assert main(["estop", "press", "--connect", robot.address]) == 2
    assert "expected a key, got none" in capsys.readouterr().err
    assert while_running(robot, lambda: main(["estop", "rearm", *eye])) == 2
    assert "refused: role" in capsys.readouterr().err


def test_of_two_commanders_the_second_waits_for_the_lease_to_lapse(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice, connect(robot, folder, "bob") as bob:
        drives = lambda: alice.command(AHEAD)  # noqa: E731
        robot.others.append(drives)
        assert robot.run(3.0, lambda: robot.vx_mps == 0.5)
        refused = commanded(robot, bob, -AHEAD / 2)
        assert (refused.accepted, refused.reason) == (False, authority.LEASE)
        assert authority.LEASE in robot.reasons()
        robot.others.remove(drives)
        silent = time.monotonic()
        robot.others.append(lambda: bob.command(-AHEAD / 2))
        assert robot.run(4.0, lambda: robot.vx_mps == -0.25)
        assert 0.9 < time.monotonic() - silent < 2.0
    assert all(m.vx_mps >= 0 for m in robot.governed if m.holder != "bob")
    texts = [e.text for e in robot.events]
    assert texts.index("lease of alice lapsed") < texts.index("lease taken by bob")


def test_a_released_lease_is_free_at_once_and_an_held_one_keeps_the_navigator_out(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        assert while_running(robot, lambda: alice.lease("take")) is None
        robot.others.append(lambda: robot.navigate(0.6))
        robot.run(0.5)
        assert robot.vx_mps == 0.0
        assert authority.LEASE in robot.reasons()
        assert while_running(robot, lambda: alice.lease("release")) is None
        assert robot.run(1.0, lambda: robot.vx_mps > 0.0)


def test_a_revoked_key_is_cut_off_live_within_a_second_and_the_others_come_back(
    robot: rig.Rig, folder: Path, tmp_path: Path
) -> None:
    keys.new_key(folder, "leaver", "commander", tmp_path / "leaver.key")
    leaver = Remote(robot.address, keys.load_pair(tmp_path / "leaver.key"))
    robot.others.append(leaver.poll)
    assert robot.run(5.0, lambda: leaver.state is not None)
    with connect(robot, folder, "eye") as eye:
        robot.others.append(lambda: leaver.command(AHEAD))
        assert robot.run(3.0, lambda: robot.vx_mps == 0.5)
        keys.revoke(folder, "leaver")
        revoked = now_ns()
        robot.run(3.0)
        driven = [m.stamp_ns for m in robot.governed if m.vx_mps != 0.0]
        assert (max(driven) - revoked) * 1e-9 < 1.0
        assert leaver.command(AHEAD) is None  # its connection is gone, and it makes no other
        eye.state = None
        assert robot.run(3.0, lambda: eye.state is not None)
    robot.others.clear()
    leaver.close()
    assert "key of leaver revoked: cut off" in [e.text for e in robot.events]
    assert robot.process.poll() is None


def put(robot: rig.Rig, remote: Remote, frame: bytes) -> None:
    """Sends a frame, whenever the link takes it; the robot runs on meanwhile."""
    assert robot.run(3.0, lambda: transport.try_send(remote._socket, frame)), "the link takes nothing"


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
        assert robot.run(2.0, lambda: robot.vx_mps > 0)
        assert robot.run(2.0, lambda: robot.vx_mps == 0.0)
        count = len(robot.governed)
        for frame in frames:
            put(robot, alice, frame)
        assert robot.run(2.0, lambda: authority.OLD_SEQUENCE in robot.reasons())
        robot.run(0.2)
        assert {m.vx_mps for m in robot.governed[count:]} == {0.0}
    with connect(robot, folder, "alice") as again:
        assert again.state.heard == 19
        for frame in frames:
            put(robot, again, frame)
        put(robot, again, ask_ahead(99, episode=2))
        assert robot.run(2.0, lambda: authority.WRONG_EPISODE in robot.reasons())
        robot.run(0.2)
        assert {m.vx_mps for m in robot.governed[count:]} == {0.0}


class Cable:
    """A relay between a client and the robot that can be cut (all that comes is kept) and put back."""

    def __init__(self, port: int) -> None:
        self.whole = True
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: dict[socket.socket, socket.socket] = {}
        self._running = True
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def _relay(self) -> None:
        while self._running:
            if not self.whole:
                time.sleep(0.005)  # bytes wait in the sockets, as on a link that stalls
                continue
            for end in select.select([self._listener, *self._ends], [], [], 0.01)[0]:
                if end is self._listener:
                    near, far = end.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                    self._ends |= {near: far, far: near}
                elif end in self._ends:
                    self._pass(end)

    def _pass(self, end: socket.socket) -> None:
        other = self._ends[end]
        try:
            data = end.recv(65536)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for gone in (end, other):
            self._ends.pop(gone, None)
            gone.close()

    def close(self) -> None:
        self._running = False
        self._thread.join()
        for end in (self._listener, *self._ends):
            end.close()


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
    assert robot.run(5.0, lambda: remote.state is not None)
    robot.others.append(command)
    assert robot.run(2.0, lambda: robot.vx_mps == 0.4)
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
    assert robot.run(5.0, lambda: robot.vx_mps == 0.4)  # and it comes back
    robot.others.clear()
    remote.close()
    cable.close()


def test_a_flood_is_bounded_by_key_and_the_estop_of_another_gets_through(folder: Path) -> None:
    operator = OperatorConfig(listen=f"tcp://127.0.0.1:{rig.free_port()}", keys=str(folder), rate_hz=10.0)
    with rig.governor(operator) as robot:
        robot.address = operator.listen
        with connect(robot, folder, "alice") as alice:
            robot.others.append(lambda: [alice.command(AHEAD) for _ in range(50)])
            assert robot.run(5.0, lambda: endpoint.RATE in robot.reasons())
            with Remote(robot.address, pair(folder, "gate")) as gate:
                for _ in range(20):  # faster than its own rate, which the e-stop is exempt from
                    assert while_running(robot, lambda: gate.press("flood")) is None
            assert robot.run(2.0, lambda: robot.vx_mps == 0.0)
            assert robot.run(2.0, lambda: robot.governed[-1].estop == "gate: flood")


def test_a_message_that_is_too_long_ends_its_senders_connection_only(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice, connect(robot, folder, "eye") as eye:
        put(robot, alice, b"x" * (transport.SMALL_BYTES + 1))
        robot.run(0.5)
        eye.state = None
        assert robot.run(2.0, lambda: eye.state is not None)
    assert robot.process.poll() is None
    assert {m.vx_mps for m in robot.governed} == {0.0}


def test_other_messages_and_garbage_are_refused_with_a_reason(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        put(robot, alice, wire.encode(wire.ControlMsg(sequence=5, stamp_ns=0, episode=1, state="stop")))
        assert answer_to(robot, alice, 5).reason == endpoint.KIND
        put(robot, alice, b"garbage")
        assert "no message of protocol" in answer_to(robot, alice, 0).reason
        alice._socket.send_multipart([b"one", b"more"])
        assert robot.run(2.0, lambda: {endpoint.KIND, endpoint.MALFORMED} <= robot.reasons())


def test_another_version_is_one_line_on_both_sides(robot: rig.Rig, folder: Path) -> None:
    with connect(robot, folder, "alice") as alice:
        newer = wire.HelloMsg(protocol=wire.PROTOCOL + 1, sequence=3, stamp_ns=0, episode=0, version="99")
        put(robot, alice, wire.encode(newer))
        line = answer_to(robot, alice, 0).reason
    assert line == "link: expected protocol 1, got protocol 2; install the same version of robonav on both sides"


def test_nobody_there_is_one_line(folder: Path) -> None:
    with Remote(f"tcp://127.0.0.1:{rig.free_port()}", pair(folder, "eye")) as remote:
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
        assert robot.run(2.0, lambda: robot.governed[-1].estop == "local operator: by hand")


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
    address = f"tcp://127.0.0.1:{rig.free_port()}"
    alice = pair(folder, "alice")
    with transport.Link() as robot, transport.Link() as client:
        server = robot.serve_operators(address, keys.robot_pair(folder).secret)
        dealer = client.connect_operator(address, alice.public, alice.secret, alice.robot)
        for _ in range(50):
            transport.try_send(dealer, b"hello")
            time.sleep(0.01)
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
