"""ZeroMQ sockets with the settings that each kind of stream needs. One socket a stream, one frame a message.

Three kinds:
- *latest* (observations, control): PUB to SUB with CONFLATE, so that a slow reader sees the newest, never a queue.
- *command*: PUSH to PULL; nothing is queued while the link is down (IMMEDIATE), at most one is under way, and the
  reader conflates.
- *record* (logs, heartbeats): PUSH to PULL with a bounded queue; what does not fit is refused to the sender, who counts
  it.

CONFLATE must be set before bind or connect, and keeps only the last frame of a multipart message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket as unix
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from robonav.errors import LinkError, explain

IPC_PATH_BYTES = 107  # sun_path less its closing zero
HEARTBEAT_INTERVAL_MS = 100
HEARTBEAT_TIMEOUT_MS = 300
RECORD_QUEUE = 2000
STREAMS = ("observations", "commands", "governed", "control", "status", "record")


def private_folder() -> Path:
    """A new folder for sockets that only this user can enter, with a path that is short enough."""
    return Path(tempfile.mkdtemp(prefix="robonav-"))


def remove_folder(folder: Path) -> None:
    """Removes the sockets' folder."""
    shutil.rmtree(folder, ignore_errors=True)


def ipc_address(folder: str | Path, stream: str) -> str:
    """The address of a stream in a private folder.

    Raises:
        LinkError: the path is longer than a Unix socket's may be.
    """
    path = str(Path(folder).resolve() / stream)
    if len(os.fsencode(path)) > IPC_PATH_BYTES:
        do = "set TMPDIR to a shorter path"
        raise LinkError(explain(f"ipc://{path}", f"at most {IPC_PATH_BYTES} bytes", len(os.fsencode(path)), do))
    return f"ipc://{path}"


class Link:
    """A process's sockets. Use as a context manager: leaving closes all of them without waiting for readers."""

    def __init__(self) -> None:
        self._context = zmq.Context(io_threads=1)
        self._sockets: list[zmq.Socket[bytes]] = []

    def __enter__(self) -> Link:
        """Nothing is opened yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes all."""
        self.close()

    def close(self) -> None:
        """Closes all sockets; what was not sent within a record stream's linger is lost."""
        for socket in self._sockets:
            socket.close()
        self._sockets.clear()
        self._context.term()

    def publish_latest(self, address: str) -> zmq.Socket[bytes]:
        """The sender of a *latest* stream. It binds."""
        return self._open(zmq.PUB, address, bind=True, SNDHWM=2, LINGER=0)

    def subscribe_latest(self, address: str) -> zmq.Socket[bytes]:
        """A reader of a *latest* stream."""
        return self._open(zmq.SUB, address, bind=False, CONFLATE=1, LINGER=0, SUBSCRIBE=b"")

    def send_commands(self, address: str) -> zmq.Socket[bytes]:
        """The sender of a *command* stream: a command that cannot leave now is refused, not kept."""
        return self._open(zmq.PUSH, address, bind=False, IMMEDIATE=1, SNDHWM=1, SNDTIMEO=0, LINGER=0)

    def receive_commands(self, address: str) -> zmq.Socket[bytes]:
        """The reader of a *command* stream. It binds and sees the newest only."""
        return self._open(zmq.PULL, address, bind=True, CONFLATE=1, LINGER=0)

    def send_records(self, address: str, linger_ms: int = 1000) -> zmq.Socket[bytes]:
        """The sender of a *record* stream."""
        return self._open(zmq.PUSH, address, bind=False, SNDHWM=RECORD_QUEUE, SNDTIMEO=0, LINGER=linger_ms)

    def receive_records(self, address: str) -> zmq.Socket[bytes]:
        """The reader of a *record* stream. It binds."""
        return self._open(zmq.PULL, address, bind=True, RCVHWM=RECORD_QUEUE, LINGER=0)

    def _open(self, kind: int, address: str, *, bind: bool, **options: Any) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        self._sockets.append(socket)
        if address.startswith("tcp://"):
            options |= {"HEARTBEAT_IVL": HEARTBEAT_INTERVAL_MS, "HEARTBEAT_TIMEOUT": HEARTBEAT_TIMEOUT_MS}
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name), value)
        try:
            if bind:
                _refuse_taken(address)
                socket.bind(address)
            else:
                socket.connect(address)
        except zmq.ZMQError as error:
            raise LinkError(_explain(address, error)) from None
        return socket


def try_send(socket: zmq.Socket[bytes], frame: bytes) -> bool:
    """Sends without waiting; False when there is no link or the queue is full."""
    try:
        socket.send(frame, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


def try_receive(socket: zmq.Socket[bytes]) -> bytes | None:
    """The next frame, or None when there is none now."""
    try:
        return socket.recv(zmq.DONTWAIT)
    except zmq.Again:
        return None


def received(socket: zmq.Socket[bytes]) -> Iterator[bytes]:
    """All frames that are there now."""
    while (frame := try_receive(socket)) is not None:
        yield frame


def wait(sockets: list[zmq.Socket[bytes]], timeout_ns: int) -> None:
    """Returns when one of the sockets has a frame, or after the time."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    # Rounded up: rounded down, the last millisecond of a wait would be spent spinning.
    poller.poll(-(-max(0, timeout_ns) // 1_000_000))


def _refuse_taken(address: str) -> None:
    """libzmq takes over an ipc path silently; a path that somebody listens on is in use."""
    if not address.startswith("ipc://"):
        return
    path = address.removeprefix("ipc://")
    if not Path(path).exists():
        return
    with contextlib.closing(unix.socket(unix.AF_UNIX, unix.SOCK_STREAM)) as probe:
        try:
            probe.connect(path)
        except OSError:
            return  # left over from a process that is gone
    raise zmq.ZMQError(errno.EADDRINUSE)


def _explain(address: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address}: already in use; stop the other process or choose another address"
    return f"{address}: cannot open: {error.strerror or error}; check the address"
