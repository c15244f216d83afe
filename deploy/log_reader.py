"""Reading logs: everything that is whole, with a word about what is not. CRCs are always checked.

Our own messages come back as the structs that were written; the log's own schemas are read, so that a field that was
added since takes its default. Logs of before protobuf (msgpack messages with JSON schemas) are read as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Schema
from mcap.writer import CompressionType, Writer
from mcap_protobuf.decoder import DecoderFactory

from deploy import wire
from deploy.log_messages import MapMsg
from deploy.log_salvage import MAGIC, Whole, salvage
from deploy.log_writer import LIBRARY, OFFSET, PROFILE, RUN_METADATA, TOPICS, sealed
from deploy.schemas.structs import struct_schema
from deploy.schemas.views import DEPTH, MAP, read_depth, read_map
from robonav.errors import LogError, WireError, explain
from robonav.files import atomic_path

RECOVERED_METADATA = "robonav.recovered"
KINDS = {topic: kind for kind, topic in TOPICS.items()}
_ANOTHER = "read it with the version of robonav that wrote it"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a log."""

    topic: str
    log_time_ns: int
    sequence: int  # in its topic
    message: Any  # of `deploy.wire` or `deploy.log_messages`


@dataclass(frozen=True, slots=True)
class Log:
    """What is whole of a log. `damage` is empty for a file that ends as it should."""

    path: Path
    metadata: dict[str, dict[str, str]]  # by record name
    entries: tuple[Entry, ...]
    damage: str = ""
    lost: dict[str, int] = field(default_factory=dict)  # messages by topic that damage took, as far as it is known
    lost_s: float = 0.0

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


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `recover` saved, and what damage took."""

    messages: int
    topics: dict[str, int]  # messages saved
    lost: dict[str, int]  # messages lost by topic, as far as the counts in the file tell
    lost_s: float
    damage: str  # "" for a whole file


def read_log(path: str | Path) -> Log:
    """Reads a log of ours.

    Raises:
        LogError: missing, no MCAP file, or with messages that are not ours; one line.
    """
    path = Path(path)
    whole, damage = _read_whole(path)
    entries = _entries(path, whole)
    return Log(path, whole.metadata, tuple(entries), damage, whole.lost, whole.lost_s)


def recover(source: str | Path, target: str | Path) -> Recovery:
    """Writes what is whole of `source` to `target` as a finished file.

    Raises:
        LogError: the source is missing or no MCAP, or it is the target.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise LogError(explain(str(target), "another file than the damaged log", "the same", "choose another path"))
    whole, damage = _read_whole(source)
    with atomic_path(target) as aside, aside.open("wb") as stream:
        writer = Writer(stream, compression=CompressionType.ZSTD, enable_data_crcs=True)
        writer.start(PROFILE, LIBRARY)
        schemas = {0: 0} | {
            key: writer.register_schema(schema.name, schema.encoding, schema.data)
            for key, schema in sorted(whole.schemas.items())
        }
        channels = {
            key: writer.register_channel(c.topic, c.message_encoding, schemas.get(c.schema_id, 0), c.metadata)
            for key, c in sorted(whole.channels.items())
        }
        for name, values in whole.metadata.items():
            writer.add_metadata(name, sealed(name, values))
        for m in whole.messages:
            writer.add_message(channels[m.channel_id], m.log_time, m.data, m.publish_time, m.sequence)
        if damage:
            about = {"from": str(source), "damage": damage}
            writer.add_metadata(RECOVERED_METADATA, sealed(RECOVERED_METADATA, about))
        writer.finish()
    return Recovery(len(whole.messages), _by_topic(whole), whole.lost, whole.lost_s, damage)


def _read_whole(path: Path) -> tuple[Whole, str]:
    """The file's whole records, and its damage in a line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    if not data.startswith(MAGIC):
        raise LogError(explain(str(path), "an MCAP log", "another kind of file", "check the path"))
    whole = salvage(data)
    return whole, _damage(whole, len(data))


def _damage(whole: Whole, size: int) -> str:
    if whole.finished and not whole.faults and not whole.lost:
        return ""
    inside = [fault for fault in whole.faults if whole.finished or "unreadable" not in fault]
    how = "damaged" if whole.finished or inside or whole.lost else "truncated"
    span_s = 0.0
    if whole.messages:
        span_s = (whole.messages[-1].log_time - whole.messages[0].log_time) * 1e-9
    parts = [f"{how}: {len(whole.messages)} messages whole, {span_s:.1f} s, of a file of {size} bytes"]
    if whole.lost:
        lost = ", ".join(f"{topic} {count}" for topic, count in sorted(whole.lost.items()))
        parts.append(f"lost {whole.lost_s:.1f} s: {lost}")
    return "; ".join([*parts, *whole.faults])


def _by_topic(whole: Whole) -> dict[str, int]:
    counts: dict[str, int] = {}
    for message in whole.messages:
        topic = whole.channels[message.channel_id].topic
        counts[topic] = counts.get(topic, 0) + 1
    return counts


# -- messages ----------------------------------------------------------------------------------------------------


def _entries(path: Path, whole: Whole) -> list[Entry]:
    """Our messages in order; an observation gets its depth back from the view that was written after it."""
    readers: dict[int, Callable[[Message], Any] | None] = {}
    entries: list[Entry] = []
    newest: dict[str, int] = {}  # place of the last entry by topic
    for message in whole.messages:
        key = message.channel_id
        channel = whole.channels[key]
        try:
            if key not in readers:
                readers[key] = _reader(channel, whole.schemas.get(channel.schema_id))
            read = readers[key]
            if read is None:
                continue
            decoded = read(message)
        except (WireError, McapError, DecodeError, TypeError, ValueError, KeyError) as error:
            raise LogError(f"{path}: {channel.topic}: {' '.join(str(error).split())[:200]}; {_ANOTHER}") from None
        if channel.topic == DEPTH:
            _give_depth(entries, newest.get(TOPICS[wire.ObservationMsg]), message, decoded)
            continue
        newest[channel.topic] = len(entries)
        entries.append(Entry(channel.topic, message.log_time, message.sequence, decoded))
    return [Entry(e.topic, e.log_time_ns, e.sequence, _plain(e.message)) for e in entries]


@dataclass(frozen=True, slots=True)
class _Published:
    """An observation beside the time by which its depth is known."""

    publish_time: int
    message: wire.ObservationMsg


def _plain(message: Any) -> Any:
    return message.message if isinstance(message, _Published) else message


def _give_depth(entries: list[Entry], place: int | None, message: Message, depth_m: wire.Array) -> None:
    if place is None or entries[place].message.publish_time != message.publish_time:
        return  # its observation is lost
    entry = entries[place]
    whole = msgspec.structs.replace(entry.message.message, depth_m=depth_m)
    entries[place] = Entry(entry.topic, entry.log_time_ns, entry.sequence, _Published(message.publish_time, whole))


def _reader(channel: Channel, schema: Schema | None) -> Callable[[Message], Any] | None:
    """How a channel's messages are read; None for those that only viewers want."""
    if channel.topic not in (*KINDS, DEPTH, MAP):
        return None
    if channel.message_encoding == "msgpack":
        return lambda m: wire.decode(m.data)
    parse = DecoderFactory().decoder_for(channel.message_encoding, schema)
    if parse is None:
        raise LogError(explain("encoding", "protobuf", f"'{channel.message_encoding}'"))
    if channel.topic == DEPTH:
        return lambda m: read_depth(parse(m.data))
    if channel.topic == MAP:
        offset_ns = int(channel.metadata.get(OFFSET, "0"))
        return lambda m: _read_map(parse(m.data), m, offset_ns)
    codec = struct_schema(KINDS[channel.topic])
    if codec.kind is wire.ObservationMsg:
        return lambda m: _Published(m.publish_time, codec.decode(parse(m.data)))
    return lambda m: codec.decode(parse(m.data))


def _read_map(grid: Any, message: Message, offset_ns: int) -> MapMsg:
    return read_map(grid, sequence=message.sequence, stamp_ns=max(0, message.publish_time - offset_ns), episode=0)
