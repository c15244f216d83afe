"""Writing a log: MCAP that is readable up to its last whole chunk, whatever happens to the run.

Every message of ours is protobuf by its struct's schema (`deploy.schemas.structs`), with Foxglove's views beside it
(`deploy.schemas.views`). Chunks are compressed, carry a CRC, and are closed and synced by time. `log_time` is the
recorder's wall clock, made to grow strictly; `publish_time` is the message's own monotonic stamp on that clock; a
channel's sequence counts its messages, so that a gap tells what is lost. Metadata carry a CRC of their own.
"""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from mcap.writer import CompressionType, Writer
from mcap_protobuf.schema import register_schema

from deploy import wire
from deploy.config import RecorderConfig
from deploy.log_file import LogFile
from deploy.log_messages import BeliefMsg, RolloutsMsg
from deploy.schemas.structs import struct_schema
from deploy.schemas.views import VIEWS, Views
from deploy.timing import now_ns
from robonav.config import from_mapping
from robonav.errors import LogError, RobonavError
from robonav.types import RobotSpec

PROFILE = "robonav"
LIBRARY = "robonav.deploy"
RUN_METADATA = "robonav.run"
REPORT_METADATA = "robonav.report"
CRC_KEY = "crc32"  # of a metadata record
COUNTED, OFFSET = "counted", "clock_offset_ns"  # of a channel: its sequence counts; wall less monotonic clock
CHUNK_BYTES = 4 << 20
TOPICS: dict[type[Any], str] = {
    wire.ObservationMsg: "/observation",
    wire.DecisionMsg: "/decision",
    wire.GovernedMsg: "/command_governed",
    wire.AppliedMsg: "/applied",
    wire.StatusMsg: "/status",
    wire.EventMsg: "/event",
    BeliefMsg: "/belief",
    RolloutsMsg: "/rollouts",
}
_COMPRESSION = {"zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4, "none": CompressionType.NONE}


class LogWriter:
    """Writes a log, over what the file held. After an error it ends with its last whole chunk and `broken` says why.

    Args:
        file: path of the log, or the file that was claimed before.
        config: compression, chunks, depth.
        metadata: of the run; its `robot` places the sensors for viewers.
        simulated: stamps are simulated time, which the log's own times follow then, from now on.

    Raises:
        LogError: the file cannot be written, or another run writes it; one line.
    """

    def __init__(
        self, file: str | Path | LogFile, config: RecorderConfig, metadata: Mapping[str, str], simulated: bool = False
    ) -> None:
        self._sink = file if isinstance(file, LogFile) else LogFile(file)
        self.path = self._sink.path
        self.broken: str | None = None
        self._chunk_ns = int(config.chunk_s * 1e9)
        self._flushed_ns = now_ns()
        self._last_ns = 0
        self._simulated = simulated
        self._offset_ns = time.time_ns() - (0 if simulated else now_ns())
        self._views = Views(_robot(metadata), self._offset_ns, config.exact_depth)
        self._next: dict[str, int] = {}  # sequence by topic
        with self._guarded():
            self._sink.begin()
        self._writer = Writer(
            self._sink,  # type: ignore[arg-type]
            chunk_size=CHUNK_BYTES,
            compression=_COMPRESSION[config.compression],
            enable_data_crcs=True,
        )
        self._writer.start(PROFILE, LIBRARY)
        self._channels = {topic: self._register(topic, struct_schema(kind)) for kind, topic in TOPICS.items()}
        self._channels |= {topic: self._register(topic, view) for topic, view in VIEWS.items()}
        self.write_metadata(RUN_METADATA, metadata)

    def write(self, message: Any, sequence: int | None = None) -> None:
        """Adds a message to the topic of its type, and its views; types without a topic or a view are left out.

        `sequence` in the message's own channel is one more than the last by default.
        """
        views = self._views.of(message)
        topic = TOPICS.get(type(message))
        stamp_ns = message.stamp_ns + self._offset_ns
        if topic is not None:
            whole = message
            if isinstance(message, wire.ObservationMsg) and message.depth_m is not None:
                whole = msgspec.structs.replace(message, depth_m=None)  # its view holds it
            self._add(topic, struct_schema(type(message)).encode(whole), stamp_ns, sequence)
        for place, view in views:
            self._add(place, view.SerializeToString(), stamp_ns, None)
        self.flush_if_due()

    def _add(self, topic: str, data: bytes, stamp_ns: int, sequence: int | None) -> None:
        number = self._next.get(topic, 0) if sequence is None else sequence
        self._next[topic] = number + 1
        self._last_ns = max(self._last_ns + 1, stamp_ns if self._simulated else time.time_ns())
        self._writer.add_message(
            channel_id=self._channels[topic],
            log_time=self._last_ns,
            publish_time=max(0, stamp_ns),
            data=data,
            sequence=number % 2**32,
        )

    def write_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Adds a metadata record and writes it out at once."""
        self._writer.add_metadata(name, sealed(name, values))
        self.flush()

    def flush_if_due(self) -> None:
        """Closes the chunk when the oldest message in it is `chunk_s` old."""
        if now_ns() - self._flushed_ns >= self._chunk_ns:
            self.flush()

    def close(self) -> None:
        """Finishes the file: index and footer."""
        if self.broken is not None:
            return
        with self._guarded():
            self._writer.finish()
            self._sink.flush()
            self._sink.close()

    def flush(self) -> None:
        """Closes the chunk and syncs it."""
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

    def _register(self, topic: str, schema: Any) -> int:
        if hasattr(schema, "DESCRIPTOR"):
            schema_id = register_schema(self._writer, schema)
        else:
            schema_id = self._writer.register_schema(schema.name, "protobuf", schema.data)
        about = {COUNTED: "1", OFFSET: str(self._offset_ns)}
        return self._writer.register_channel(topic, "protobuf", schema_id, about)


def sealed(name: str, values: Mapping[str, str]) -> dict[str, str]:
    """Metadata with their CRC."""
    return {**values, CRC_KEY: _crc(name, values)}


def unsealed(name: str, values: Mapping[str, str]) -> tuple[dict[str, str], bool | None]:
    """Metadata without their CRC, and whether it was right; None where there is none."""
    plain = {key: value for key, value in values.items() if key != CRC_KEY}
    return plain, None if CRC_KEY not in values else values[CRC_KEY] == _crc(name, plain)


def _crc(name: str, values: Mapping[str, str]) -> str:
    return f"{zlib.crc32(json.dumps([name, sorted(values.items())]).encode()):08x}"


def _robot(metadata: Mapping[str, str]) -> RobotSpec | None:
    """The robot that the metadata describe; None without one that can be read."""
    try:
        return from_mapping(RobotSpec, json.loads(metadata["robot"]), "robot")
    except (KeyError, ValueError, RobonavError):
        return None
