"""The log: an MCAP file that is readable up to its last whole chunk, whatever happens to the run.

Messages are the wire's msgpack, a topic a type, with their JSON schema beside them. Chunks are compressed, carry a
CRC, and are closed and synced by time. `log_time` is the recorder's wall clock; stamps inside are monotonic.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
from mcap.writer import CompressionType, Writer

from deploy import transport, wire
from deploy.config import RecorderConfig
from deploy.station import Station
from deploy.timing import now_ns
from robonav.errors import LogError

PROFILE = "robonav"
LIBRARY = "robonav.deploy"
RUN_METADATA = "robonav.run"
REPORT_METADATA = "robonav.report"
REPORT_EVENT = "report"
TOPICS: dict[type[Any], str] = {
    wire.ObservationMsg: "/observation",
    wire.DecisionMsg: "/decision",
    wire.GovernedMsg: "/command_governed",
    wire.AppliedMsg: "/applied",
    wire.StatusMsg: "/status",
    wire.EventMsg: "/event",
}
_COMPRESSION = {"zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4, "none": CompressionType.NONE}
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system without locks; the run goes on
POLL_NS = 100_000_000
DRAIN_NS = 100_000_000


class LogWriter:
    """Writes a log, over what the file held. After an error it ends with its last whole chunk and `broken` says why.

    Args:
        file: path of the log, or the file that was claimed before.
        config: compression and chunks.
        metadata: of the run.

    Raises:
        LogError: the file cannot be written, or another run writes it; one line.
    """

    def __init__(self, file: str | Path | LogFile, config: RecorderConfig, metadata: dict[str, str]) -> None:
        self._sink = file if isinstance(file, LogFile) else LogFile(file)
        self.path = self._sink.path
        self.broken: str | None = None
        self._config = config
        self._chunk_ns = int(config.chunk_s * 1e9)
        self._flushed_ns = now_ns()
        with self._guarded():
            self._sink.begin()
        self._writer = Writer(self._sink, compression=_COMPRESSION[config.compression])  # type: ignore[arg-type]
        self._writer.start(PROFILE, LIBRARY)
        self._channels = {kind: self._register(kind, topic) for kind, topic in TOPICS.items()}
        self.write_metadata(RUN_METADATA, metadata)

    def write(self, message: Any, sequence: int) -> None:
        """Adds a message to the topic of its type; types without a topic are left out."""
        channel = self._channels.get(type(message))
        if channel is None:
            return
        self._writer.add_message(
            channel_id=channel,
            log_time=time.time_ns(),
            publish_time=time.time_ns(),
            data=wire.encode(message),
            sequence=sequence % 2**32,
        )
        self.flush_if_due()

    def write_metadata(self, name: str, values: dict[str, str]) -> None:
        """Adds a metadata record and writes it out at once."""
        self._writer.add_metadata(name, values)
        self._flush()

    def flush_if_due(self) -> None:
        """Closes the chunk when the oldest message in it is `chunk_s` old."""
        if now_ns() - self._flushed_ns >= self._chunk_ns:
            self._flush()

    def close(self) -> None:
        """Finishes the file: index and footer."""
        if self.broken is not None:
            return
        with self._guarded():
            self._writer.finish()
            self._sink.flush()
            self._sink.close()

    def _flush(self) -> None:
        with self._guarded():
            self._writer.flush()
        self._flushed_ns = now_ns()

    @contextlib.contextmanager
    def _guarded(self) -> Any:
        try:
            yield
        except OSError as error:
            self._sink.abandon()
            self.broken = f"{self.path}: log cut short: {error.strerror}; what was written before is readable"
            raise LogError(self.broken) from None

    def _register(self, kind: type[Any], topic: str) -> int:
        schema = json.dumps(msgspec.json.schema(kind)).encode()
        schema_id = self._writer.register_schema(f"robonav.{kind.__name__}", "jsonschema", schema)
        return self._writer.register_channel(topic, "msgpack", schema_id)


class LogFile:
    """A log's file, locked against other runs; an older log in it stays as it is until `begin`.

    The MCAP writer's stream: it is written whole chunks at a time and cut back to the last whole one. The lock goes
    with the process, however that ends.

    Raises:
        LogError: the file cannot be written, or another run writes it; one line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._target = self.path.resolve()
        self._pending = bytearray()
        self._written = 0
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._handle: int | None = self._claim()
        except BlockingIOError:
            raise LogError(f"{path}: in use by another run; choose another path") from None
        except OSError as error:
            raise LogError(f"{path}: cannot write a log here: {error.strerror}; choose another path") from None

    def _claim(self) -> int:
        while True:
            self._new = not self._target.exists()
            handle = os.open(self._target, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(handle)
                    raise
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)  # another run gave it up, and removed it, between opening and locking

    def begin(self) -> None:
        """Empties the file."""
        if self._handle is not None and stat.S_ISREG(os.fstat(self._handle).st_mode):  # a device has no length
            os.ftruncate(self._handle, 0)

    def give_up(self) -> None:
        """Leaves everything as it was found: an older log whole, a new file removed."""
        if self._handle is not None and self._new:
            with contextlib.suppress(OSError):
                self._target.unlink()
        self.close()

    def write(self, data: bytes) -> int:
        """Keeps bytes until `flush`."""
        self._pending += data
        return len(data)

    def tell(self) -> int:
        """Bytes so far, those that wait included."""
        return self._written + len(self._pending)

    def flush(self) -> None:
        """Writes out and syncs what waits; OSError if the disk does not take it."""
        if self._handle is None:
            return
        view = memoryview(bytes(self._pending))
        while len(view):
            view = view[os.write(self._handle, view) :]
        with contextlib.suppress(OSError):  # a pipe or a device cannot be synced
            os.fdatasync(self._handle)
        self._written += len(self._pending)
        self._pending.clear()

    def abandon(self) -> None:
        """Cuts the file back to what was flushed whole, and closes it."""
        self._pending.clear()
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._written)
        self.close()

    def close(self) -> None:
        """Closes the file and frees it for other runs; safe to call again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def run_recorder(station: Station) -> None:
    """The recorder's process: writes what comes until the supervisor's report, or until the supervisor is gone.

    The file is claimed before the run begins and emptied when it does: a run that cannot start leaves an older log as
    it is.

    Raises:
        LogError: another run writes this log, or it could not be written to its end.
    """
    order = station.order
    file = LogFile(order.log)
    source = station.link.receive_records(station.address("record"))
    station.counts.update(messages=0, lost=0)
    station.heard_nothing_yet()
    while (word := station.word()) == "wait":
        station.beat("ready")
        transport.wait([station.control], POLL_NS)
    if word == "stop":
        file.give_up()
        return
    writer = LogWriter(file, order.config.recorder, order.metadata)
    next_sequence: dict[str, int] = {}
    report: str | None = None
    while report is None:
        station.beat("ready")
        transport.wait([source], POLL_NS)
        report = _write_all(writer, source, next_sequence, station.counts)
        writer.flush_if_due()
        if report is None and station.orphaned():
            report = json.dumps({"outcome": "supervisor lost"})
    deadline = now_ns() + DRAIN_NS
    while now_ns() < deadline:
        transport.wait([source], deadline - now_ns())
        _write_all(writer, source, next_sequence, station.counts)
    log = {key: str(value) for key, value in station.counts.items()}
    writer.write_metadata(REPORT_METADATA, {"report": report, **log})
    writer.close()
    station.beat("done", always=True)


def _write_all(writer: LogWriter, source: Any, next_sequence: dict[str, int], counts: dict[str, int]) -> str | None:
    """Writes the frames that are there; the text of the supervisor's report if it is among them."""
    report = None
    for frame in transport.received(source):
        record = wire.decode_as(wire.RecordMsg, frame)
        gap = record.sequence - next_sequence.get(record.source, 0)
        next_sequence[record.source] = record.sequence + 1
        counts["lost"] += max(0, gap)
        if gap > 0:
            text = f"{gap} records of the {record.source} were lost before its record {record.sequence}"
            writer.write(wire.EventMsg(sequence=0, stamp_ns=now_ns(), episode=0, kind="lost", text=text), 0)
        for message in record.messages:
            if isinstance(message, wire.EventMsg) and message.kind == REPORT_EVENT:
                report = message.text
            else:
                counts["messages"] += 1
                writer.write(message, record.sequence)
    return report
