"""ZeroMQ sockets with the settings that each kind of stream needs. One socket a stream, one frame a message.

Three kinds:
- *latest* (observations, control): PUB to SUB with CONFLATE, so that a slow reader sees the newest, never a queue.
- *command*: PUSH to PULL; nothing is queued while the link is down (IMMEDIATE), at most one is under way, and the
  reader conflates.
- *record* (logs, heartbeats): PUSH to PULL with a bounded queue; what does not fit is refused to the sender, who counts
  it.

CONFLATE must be set before bind or connect, and keeps only the last frame of a multipart message.

And one for people: *operator* (ROUTER to DEALER), over TCP with CURVE only: both ends prove their keys, and the
robot asks its authenticator about each before a byte gets through. Nothing else leaves this machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket as unix
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from robonav.errors import LinkError, explain

IPC_PATH_BYTES = 107  # sun_path less its closing zero
HEARTBEAT_INTERVAL_MS = 100
HEARTBEAT_TIMEOUT_MS = 300
RECORD_QUEUE = 2000
SMALL_BYTES = 4096  # of a command, a status, a word; a longer message ends its sender's connection
LARGE_BYTES = 1 << 24  # of what carries images
HANDSHAKE_MS = 2000
OPERATOR_QUEUE = 100
ZAP_DOMAIN = "robonav"
LOOPBACK = ("127.", "localhost:", "[::1]:")


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


# A command that waits for its link to come back would be driven late.
_NEVER_LATE = {"IMMEDIATE": 1, "SNDHWM": 1, "SNDTIMEO": 0, "LINGER": 0}


class _Provider:
    """What the authenticator asks about a client's key."""

    def __init__(self, admits: Callable[[str], bool]) -> None:
        self._admits = admits

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether this public key, as z85, may connect."""
        return self._admits(key.decode())


class Link:
    """A process's sockets. Use as a context manager: leaving closes all of them without waiting for readers."""

    def __init__(self) -> None:
        self._context = zmq.Context(io_threads=1)
        self._sockets: list[zmq.Socket[bytes]] = []
        self._authenticator: ThreadAuthenticator | None = None

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
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        self._context.term()

    def drop(self, socket: zmq.Socket[bytes]) -> None:
        """Closes one socket, and with it all connections to it."""
        self._sockets.remove(socket)
        socket.close()

    def admit(self, admits: Callable[[str], bool]) -> None:
        """Asks `admits` about the public key of every client of a CURVE socket, from another thread."""
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(ZAP_DOMAIN, credentials_provider=_Provider(admits))

    def publish_latest(self, address: str, queue: int = 2) -> zmq.Socket[bytes]:
        """The sender of a *latest* stream. It binds."""
        return self._open(zmq.PUB, address, bind=True, SNDHWM=queue, LINGER=0)

    def subscribe_latest(self, address: str, max_bytes: int = LARGE_BYTES) -> zmq.Socket[bytes]:
        """A reader of a *latest* stream."""
        return self._open(zmq.SUB, address, bind=False, CONFLATE=1, LINGER=0, SUBSCRIBE=b"", MAXMSGSIZE=max_bytes)

    def send_commands(self, address: str) -> zmq.Socket[bytes]:
        """The sender of a *command* stream: a command that cannot leave now is refused, not kept."""
        return self._open(zmq.PUSH, address, bind=False, **_NEVER_LATE)

    def receive_commands(self, address: str, max_bytes: int = SMALL_BYTES) -> zmq.Socket[bytes]:
        """The reader of a *command* stream. It binds and sees the newest only."""
        return self._open(zmq.PULL, address, bind=True, CONFLATE=1, LINGER=0, MAXMSGSIZE=max_bytes)

    def send_records(self, address: str, linger_ms: int = 1000, queue: int = RECORD_QUEUE) -> zmq.Socket[bytes]:
        """The sender of a *record* stream."""
        return self._open(zmq.PUSH, address, bind=False, SNDHWM=queue, SNDTIMEO=0, LINGER=linger_ms)

    def receive_records(
        self, address: str, queue: int = RECORD_QUEUE, max_bytes: int = LARGE_BYTES
    ) -> zmq.Socket[bytes]:
        """The reader of a *record* stream. It binds."""
        return self._open(zmq.PULL, address, bind=True, RCVHWM=queue, LINGER=0, MAXMSGSIZE=max_bytes)

    def serve_operators(self, address: str, secret: str = "") -> zmq.Socket[bytes]:
        """The robot's end of an *operator* stream; `admit` must have been called before it is opened over TCP."""
        options: dict[str, Any] = {"LINGER": 0, "SNDHWM": OPERATOR_QUEUE, "RCVHWM": OPERATOR_QUEUE}
        options |= {"MAXMSGSIZE": SMALL_BYTES, "HANDSHAKE_IVL": HANDSHAKE_MS}
        if secret:
            options |= {"CURVE_SERVER": 1, "CURVE_SECRETKEY": secret.encode()}
            options |= {"ZAP_DOMAIN": ZAP_DOMAIN.encode(), "ZAP_ENFORCE_DOMAIN": 1}
        return self._open(zmq.ROUTER, address, bind=True, **options)

    def connect_operator(self, address: str, public: str = "", secret: str = "", robot: str = "") -> zmq.Socket[bytes]:
        """A remote program's end of an *operator* stream: what cannot leave now is refused, not kept."""
        options: dict[str, Any] = {**_NEVER_LATE, "MAXMSGSIZE": SMALL_BYTES, "HANDSHAKE_IVL": HANDSHAKE_MS}
        options |= {"RECONNECT_IVL": 50, "RECONNECT_IVL_MAX": 200}
        if secret:
            options |= {"CURVE_PUBLICKEY": public.encode(), "CURVE_SECRETKEY": secret.encode()}
            options["CURVE_SERVERKEY"] = robot.encode()
        return self._open(zmq.DEALER, address, bind=False, **options)

    def _open(self, kind: int, address: str, *, bind: bool, **options: Any) -> zmq.Socket[bytes]:
        if address.startswith("tcp://") and "CURVE_SECRETKEY" not in options:
            _refuse_routable(address)
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        self._sockets.append(socket)
        if address.startswith("tcp://"):
            options |= {"HEARTBEAT_IVL": HEARTBEAT_INTERVAL_MS, "HEARTBEAT_TIMEOUT": HEARTBEAT_TIMEOUT_MS}
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name), value)
        try:
            if bind:
                _refuse_taken(address)
                with _own_only():
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


@contextlib.contextmanager
def _own_only() -> Iterator[None]:
    """What is made meanwhile, a Unix socket, can be opened by this user only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _refuse_routable(address: str) -> None:
    """Without keys, TCP stays on this machine."""
    if not address.removeprefix("tcp://").startswith(LOOPBACK):
        do = "use 127.0.0.1 or ipc://, or an operator link with keys"
        raise LinkError(explain(address, "an address of this machine", "one that others can reach, without keys", do))


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
