"""Reading logs: everything that is whole, with a word about what is not. CRCs are always checked."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcap.exceptions import EndOfFile, InvalidMagic, McapError, RecordLengthLimitExceeded
from mcap.records import Channel, Footer, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader
from mcap.writer import CompressionType, Writer

from deploy import wire
from deploy.recorder import LIBRARY, PROFILE, RUN_METADATA, TOPICS
from robonav.errors import LogError, WireError, explain
from robonav.files import atomic_path

MAGIC = b"\x89MCAP0\r\n"
RECORD_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a log."""

    topic: str
    log_time_ns: int
    sequence: int
    message: Any  # of `deploy.wire`


@dataclass(frozen=True, slots=True)
class Log:
    """What is whole of a log. `damage` is empty for a file that ends as it should."""

    path: Path
    metadata: dict[str, dict[str, str]]  # by record name
    entries: tuple[Entry, ...]
    damage: str = ""

    def of(self, kind: type[Any]) -> list[Any]:
        """The messages of a type, in order."""
        return [entry.message for entry in self.entries if isinstance(entry.message, kind)]

    @property
    def run(self) -> dict[str, str]:
        """What the run was: bundle, robot, driver, scene, seed, versions.

        Raises:
            LogError: it was not written, so the log is of something else or ends before it.
        """
        if RUN_METADATA not in self.metadata:
            where = f"{self.path}: metadata '{RUN_METADATA}'"
            do = f"the log is {self.damage}" if self.damage else "check the path"
            raise LogError(explain(where, "a log of 'robonav run'", "none", do))
        return self.metadata[RUN_METADATA]


@dataclass
class _Whole:
    """The records that could be read."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    metadata: list[Metadata] = field(default_factory=list)
    finished: bool = False
    damage: str = ""


def read_log(path: str | Path) -> Log:
    """Reads a log of ours.

    Raises:
        LogError: missing, no MCAP file, or with messages that are not ours; one line.
    """
    path = Path(path)
    whole = _read_whole(path)
    known = set(TOPICS.values())
    entries = []
    for message in whole.messages:
        topic = whole.channels[message.channel_id].topic
        if topic not in known:
            continue
        try:
            decoded = wire.decode(message.data)
        except WireError as error:
            raise LogError(f"{path}: {topic}: {error}; read it with the version of robonav that wrote it") from None
        entries.append(Entry(topic, message.log_time, message.sequence, decoded))
    return Log(path, {m.name: dict(m.metadata) for m in whole.metadata}, tuple(entries), whole.damage)


def recover(source: str | Path, target: str | Path) -> tuple[int, str]:
    """Writes what is whole of `source` to `target` as a finished file.

    Returns:
        How many messages were saved, and what was wrong with the source ("" for nothing).

    Raises:
        LogError: the source is missing or no MCAP, or it is the target.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise LogError(explain(str(target), "another file than the damaged log", "the same", "choose another path"))
    whole = _read_whole(source)
    with atomic_path(target) as aside, aside.open("wb") as stream:
        writer = Writer(stream, compression=CompressionType.ZSTD)
        writer.start(PROFILE, LIBRARY)
        schemas = {0: 0} | {
            key: writer.register_schema(schema.name, schema.encoding, schema.data)
            for key, schema in whole.schemas.items()
        }
        channels = {
            key: writer.register_channel(c.topic, c.message_encoding, schemas.get(c.schema_id, 0), c.metadata)
            for key, c in whole.channels.items()
        }
        for record in whole.metadata:
            writer.add_metadata(record.name, record.metadata)
        for m in whole.messages:
            writer.add_message(channels[m.channel_id], m.log_time, m.data, m.publish_time, m.sequence)
        if whole.damage:
            writer.add_metadata("robonav.recovered", {"from": str(source), "damage": whole.damage})
        writer.finish()
    return len(whole.messages), whole.damage


def _read_whole(path: Path) -> _Whole:
    whole = _Whole()
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise LogError(explain(str(path), "an MCAP log", "another kind of file", "check the path"))
            stream.seek(0)
            size = path.stat().st_size
            try:
                for record in _records(stream):
                    _keep(whole, record)
            except _ENDS as error:
                whole.damage = _damage("truncated", whole, size, error)
            except _BROKEN as error:
                whole.damage = _damage("damaged", whole, size, error)
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    if not whole.finished and not whole.damage:
        whole.damage = _damage("truncated", whole, size, None)
    return whole


def _broken() -> tuple[type[Exception], ...]:
    """What broken bytes raise inside the MCAP reader and its decompressors."""
    errors: list[type[Exception]] = [CRCValidationError, RecordLengthLimitExceeded, McapError]
    errors += [ValueError, KeyError, RuntimeError, MemoryError, zlib.error]
    with contextlib.suppress(ImportError):
        import zstandard

        errors.append(zstandard.ZstdError)
    return tuple(errors)


# A file that ends early; InvalidMagic is raised by then only for the last eight bytes, after all records.
_ENDS: tuple[type[Exception], ...] = (EndOfFile, InvalidMagic, struct.error)
_BROKEN = _broken()


def _records(stream: Any) -> Iterator[Any]:
    yield from StreamReader(stream, validate_crcs=True, record_size_limit=RECORD_LIMIT).records


def _keep(whole: _Whole, record: Any) -> None:
    if isinstance(record, Schema):
        whole.schemas[record.id] = record
    elif isinstance(record, Channel):
        whole.channels[record.id] = record
    elif isinstance(record, Message):
        if record.channel_id not in whole.channels:
            raise ValueError(f"a message of the unknown channel {record.channel_id}")
        whole.messages.append(record)
    elif isinstance(record, Metadata):
        whole.metadata.append(record)
    elif isinstance(record, Footer):
        whole.finished = True


def _damage(how: str, whole: _Whole, size: int, error: Exception | None) -> str:
    why = (
        f" ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
        if error is not None and how == "damaged"
        else ""
    )
    span_s = 0.0
    if whole.messages:
        span_s = (whole.messages[-1].log_time - whole.messages[0].log_time) * 1e-9
    return f"{how}: {len(whole.messages)} messages whole, {span_s:.1f} s, of a file of {size} bytes{why}"
