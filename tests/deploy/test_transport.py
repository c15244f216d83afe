"""Streams: the newest observation, never a stale command, and one line for an address that cannot be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from deploy import transport
from robonav.errors import LinkError

SECOND_NS = 1_000_000_000
PATIENCE_S = 20.0  # with a busy machine


@pytest.fixture
def folder() -> Iterator[Path]:
    path = transport.private_folder()
    yield path
    transport.remove_folder(path)


def send_until_received(sender: zmq.Socket[bytes], reader: zmq.Socket[bytes], frame: bytes) -> None:
    """Waits for the link."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        transport.try_send(sender, frame)
        transport.wait([reader], SECOND_NS // 100)
        if transport.try_receive(reader) is not None:
            return
    pytest.fail("no link")


def send_when_linked(sender: zmq.Socket[bytes], frame: bytes) -> None:
    """Waits until the link takes it."""
    assert sender.poll(round(PATIENCE_S * 1e3), zmq.POLLOUT), "no link"
    assert transport.try_send(sender, frame)


def newest(reader: zmq.Socket[bytes], wanted: bytes) -> list[bytes]:
    """What the reader gets until `wanted` comes."""
    frames: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and wanted not in frames:
        transport.wait([reader], SECOND_NS // 10)
        frames += transport.received(reader)
    return frames


def test_a_slow_reader_of_a_latest_stream_sees_the_newest_only(folder: Path) -> None:
    """A queue would hand over a hundred frames; which of them a starved link drops is its own affair."""
    address = transport.ipc_address(folder, "observations")
    with transport.Link() as link:
        sender, reader = link.publish_latest(address), link.subscribe_latest(address)
        send_until_received(sender, reader, b"hello")
        for i in range(100):
            sender.send(b"%d" % i)
            time.sleep(0.001)
        time.sleep(0.2)
        sender.send(b"newest")
        frames = newest(reader, b"newest")
        assert frames[-1] == b"newest"
        assert len(frames) < 10


def test_no_command_of_before_the_link_is_delivered_after_it(folder: Path) -> None:
    address = transport.ipc_address(folder, "commands")
    with transport.Link() as robot_side, transport.Link() as navigator_side:
        sender = navigator_side.send_commands(address)
        assert not any(transport.try_send(sender, b"stale %d" % i) for i in range(100))
        reader = robot_side.receive_commands(address)
        send_when_linked(sender, b"fresh")
        assert newest(reader, b"fresh") == [b"fresh"]


def test_no_stale_command_comes_after_the_reader_was_gone(folder: Path) -> None:
    address = transport.ipc_address(folder, "commands")
    with transport.Link() as navigator_side:
        sender = navigator_side.send_commands(address)
        with transport.Link() as first:
            send_until_received(sender, first.receive_commands(address), b"first")
        deadline = time.monotonic() + PATIENCE_S
        while sender.poll(0, zmq.POLLOUT):  # until the sender learns that the reader is gone
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sent = [transport.try_send(sender, b"stale %d" % i) for i in range(50)]
        assert not any(sent)
        with transport.Link() as second:
            reader = second.receive_commands(address)
            send_when_linked(sender, b"fresh")
            assert newest(reader, b"fresh") == [b"fresh"]


def test_a_record_stream_keeps_order_and_refuses_what_it_has_no_room_for(folder: Path) -> None:
    address = transport.ipc_address(folder, "record")
    with transport.Link() as link:
        sender = link.send_records(address, linger_ms=0)
        sent = [transport.try_send(sender, b"%d" % i) for i in range(transport.RECORD_QUEUE + 100)]
        assert sent == [True] * transport.RECORD_QUEUE + [False] * 100
        reader = link.receive_records(address)
        last = b"%d" % (transport.RECORD_QUEUE - 1)
        assert newest(reader, last) == [b"%d" % i for i in range(transport.RECORD_QUEUE)]


def test_an_ipc_address_in_use_is_one_line(folder: Path) -> None:
    address = transport.ipc_address(folder, "commands")
    with transport.Link() as first, transport.Link() as second:
        first.receive_commands(address)
        with pytest.raises(LinkError, match="already in use"):
            second.receive_commands(address)


def test_a_tcp_port_in_use_is_one_line() -> None:
    with transport.Link() as first, transport.Link() as second:
        socket = first.receive_records("tcp://127.0.0.1:*")
        address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        with pytest.raises(LinkError, match="already in use"):
            second.receive_records(address)


def test_a_socket_left_over_by_a_dead_process_is_taken_over(folder: Path) -> None:
    address = transport.ipc_address(folder, "commands")
    Path(address.removeprefix("ipc://")).touch()
    with transport.Link() as link:
        reader, sender = link.receive_commands(address), link.send_commands(address)
        send_until_received(sender, reader, b"hello")


def test_a_path_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="at most 107 bytes"):
        transport.ipc_address(tmp_path / ("x" * 100), "commands")


@pytest.mark.parametrize("address", ["ipc:///no/such/folder/x", "nonsense", "tcp://256.1.1.1:5"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with transport.Link() as link, pytest.raises(LinkError) as error:
        link.receive_records(address)
    assert "\n" not in str(error.value)
