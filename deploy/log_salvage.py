"""What is whole of an MCAP file: a walk over its records that no damage stops, with a word about what is missing.

A chunk counts as whole when its lengths agree and its CRC is right; metadata, when theirs is. After damage the walk
goes on at the next whole chunk or metadata record behind the last whole one, whatever the lengths between them say.
Chunks are put back in the order of their times. Records inside chunks are read by the `mcap` package.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, DataEnd, Footer, Message, Metadata, Schema, Statistics
from mcap.stream_reader import breakup_chunk

from deploy.log_writer import COUNTED, unsealed

MAGIC = b"\x89MCAP0\r\n"
HEAD = struct.Struct("<BQ")  # opcode, length
FOOTER_BYTES = HEAD.size + 20 + len(MAGIC)
CHUNK_MAX = 1 << 30  # uncompressed; a flipped bit in a size must not ask for terabytes
# A chunk by its compression's name, a metadata record by the start of its own.
_SIGNS = re.compile(rb"\x06.{36}(?:\x04\0\0\0zstd|\x03\0\0\0lz4|\0\0\0\0)|\x0c.{12}robonav\.", re.DOTALL)


@dataclass
class Whole:
    """The records that are whole, in the order of their times, and what is missing."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    finished: bool = False  # whether the file's end is there and right
    faults: list[str] = field(default_factory=list)  # what is wrong, beside missing messages
    lost: dict[str, int] = field(default_factory=dict)  # messages by topic, as far as it is known
    lost_s: float = 0.0


@dataclass
class _Found:
    chunks: list[tuple[int, list[Message]]] = field(default_factory=list)  # first time, messages
    statistics: Statistics | None = None
    holes: list[tuple[int, int]] = field(default_factory=list)  # bytes [from, to) that could not be read
    seen: set[tuple[int, int, int]] = field(default_factory=set)
    twice: int = 0
    unsealed: set[str] = field(default_factory=set)  # metadata without a CRC
    unknown: int = 0  # messages of channels that are not described


def salvage(data: bytes) -> Whole:
    """Everything that is whole in the bytes of an MCAP file, which begin with MAGIC."""
    whole, found = Whole(), _Found()
    whole.finished = _read_summary(data, whole, found)
    data_end = _walk(data, whole, found)
    _drop_unsealed(whole, found)
    if whole.finished and not found.holes and data_end is False:
        whole.faults.append("bytes outside the messages")
    _order(whole, found)
    _miss(whole, found)
    return whole


def _walk(data: bytes, whole: Whole, found: _Found) -> bool | None:
    """Reads the data section; whether its CRC is right, None where there is none or the end was not reached."""
    at = good = len(MAGIC)
    while at < len(data):
        record = _record(data, at)
        if record is not None and record[0] == Opcode.DATA_END and record[2] - record[1] == 4:
            return _right_data_end(data, at, record)
        if record is None or not _keep(data, at, record, whole, found):
            at, good = _resume(data, good, at, whole, found)
            continue
        at = record[2]
        if record[0] in (Opcode.CHUNK, Opcode.METADATA):
            good = at
    return None


def _record(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Opcode, begin and end of the content of the record at `at`, if it can be one."""
    if at + HEAD.size > len(data):
        return None
    opcode, length = HEAD.unpack_from(data, at)
    begin = at + HEAD.size
    return (opcode, begin, begin + length) if 1 <= opcode <= 15 and begin + length <= len(data) else None


def _keep(data: bytes, at: int, record: tuple[int, int, int], whole: Whole, found: _Found) -> bool:
    """Takes a record in; False for one that is damaged."""
    opcode, begin, end = record
    if opcode == Opcode.CHUNK:
        return _keep_chunk(data[begin:end], whole, found)
    if opcode == Opcode.METADATA:
        return _keep_metadata(data[begin:end], whole, found)
    return opcode != Opcode.DATA_END  # else header, indexes: nothing that is wanted


def _keep_chunk(content: bytes, whole: Whole, found: _Found) -> bool:
    try:
        chunk = Chunk.read(_stream(content))
        if not _agrees(chunk, len(content)):
            return False
        records = breakup_chunk(chunk, validate_crc=True)
    except _BROKEN:
        return False
    identity = (chunk.uncompressed_crc, chunk.uncompressed_size, zlib.crc32(chunk.data))
    if identity in found.seen:
        found.twice += 1
        return True
    found.seen.add(identity)
    messages = [r for r in records if isinstance(r, Message)]
    for r in records:
        if isinstance(r, Schema):
            whole.schemas[r.id] = r
        elif isinstance(r, Channel):
            whole.channels[r.id] = r
    if messages:
        found.chunks.append((messages[0].log_time, messages))
    return True


def _agrees(chunk: Chunk, length: int) -> bool:
    """Whether a chunk's lengths fit each other and its compression is one that the CRC was taken of."""
    known = chunk.compression in ("zstd", "lz4", "")
    head = 8 + 8 + 8 + 4 + 4 + len(chunk.compression.encode()) + 8
    size = chunk.uncompressed_size
    plain = chunk.compression != "" or size == len(chunk.data)
    return (
        known and plain and head + len(chunk.data) == length and 0 < size <= CHUNK_MAX and chunk.uncompressed_crc != 0
    )


def _keep_metadata(content: bytes, whole: Whole, found: _Found) -> bool:
    stream = _stream(content)
    try:
        record = Metadata.read(stream)
    except _BROKEN:
        return False
    if stream.count != len(content):
        return False
    values, right = unsealed(record.name, record.metadata)
    if right is False:
        return False
    whole.metadata[record.name] = values
    if right is None:
        found.unsealed.add(record.name)
    return True


def _resume(data: bytes, good: int, at: int, whole: Whole, found: _Found) -> tuple[int, int]:
    """Goes on behind damage at the next whole record after `good`: where it ends, twice."""
    for sign in _signs(data, good):
        record = _record(data, sign)
        if record is not None and _keep(data, sign, record, whole, found):
            found.holes.append((min(at, sign), sign))
            return record[2], record[2]
    found.holes.append((at, len(data)))
    return len(data), good


def _signs(data: bytes, start: int) -> Iterator[int]:
    while (match := _SIGNS.search(data, start)) is not None:
        yield match.start()
        start = match.start() + 1


def _read_summary(data: bytes, whole: Whole, found: _Found) -> bool:
    """Reads the summary, if the file ends with a whole one: schemas, channels, and how many messages there were."""
    if len(data) < FOOTER_BYTES + len(MAGIC) or not data.endswith(MAGIC):
        return False
    record = _record(data, len(data) - FOOTER_BYTES)
    if record is None or record[0] != Opcode.FOOTER or record[2] != len(data) - len(MAGIC):
        return False
    footer = Footer.read(_stream(data[record[1] : record[2]]))
    start = footer.summary_start
    if not 0 < start < record[1] or zlib.crc32(data[start : record[2] - 4]) != footer.summary_crc:
        return False
    at = start
    while (record := _record(data, at)) is not None and record[0] != Opcode.FOOTER:
        content = _stream(data[record[1] : record[2]])
        if record[0] == Opcode.SCHEMA:
            schema = Schema.read(content)
            whole.schemas[schema.id] = schema
        elif record[0] == Opcode.CHANNEL:
            channel = Channel.read(content)
            whole.channels[channel.id] = channel
        elif record[0] == Opcode.STATISTICS:
            found.statistics = Statistics.read(content)
        at = record[2]
    return True


def _drop_unsealed(whole: Whole, found: _Found) -> None:
    """All our metadata have a CRC, but for logs of before protobuf; those that lost it do not count."""
    channels = whole.channels.values()
    if channels and not any(COUNTED in channel.metadata for channel in channels):
        return
    for name in sorted(found.unsealed):
        del whole.metadata[name]
    if found.unsealed:
        whole.faults.append(f"{len(found.unsealed)} metadata records unreadable")


def _right_data_end(data: bytes, at: int, record: tuple[int, int, int]) -> bool | None:
    try:
        end = DataEnd.read(_stream(data[record[1] : record[2]]))
    except _BROKEN:
        return False
    return None if end.data_section_crc == 0 else end.data_section_crc == zlib.crc32(data[:at])


def _order(whole: Whole, found: _Found) -> None:
    """Puts the messages in the order of their chunks' times; those of unknown channels cannot be read."""
    times = [time for time, _ in found.chunks]
    if times != sorted(times):
        whole.faults.append("chunks out of order, put back in order")
    if found.twice:
        whole.faults.append(f"{found.twice} chunks twice, taken once")
    for _, messages in sorted(found.chunks, key=lambda chunk: chunk[0]):
        whole.messages += [m for m in messages if m.channel_id in whole.channels]
        found.unknown += sum(m.channel_id not in whole.channels for m in messages)
    if found.unknown:
        whole.faults.append(f"{found.unknown} messages of channels whose description is lost")


def _miss(whole: Whole, found: _Found) -> None:
    """Counts what is missing, by the summary's counts or by the gaps in the channels' sequences, and its seconds."""
    here: dict[int, list[int]] = {key: [] for key in whole.channels}
    for message in whole.messages:
        here[message.channel_id].append(message.sequence)
    for key, channel in whole.channels.items():
        if found.statistics is not None:
            missing = found.statistics.channel_message_counts.get(key, 0) - len(here[key])
        elif channel.metadata.get(COUNTED) and here[key]:
            missing = max(here[key]) + 1 - len(here[key])
        else:
            missing = 0
        if missing > 0:
            whole.lost[channel.topic] = whole.lost.get(channel.topic, 0) + missing
    damaged = bool(found.holes) or bool(found.unknown)
    if found.statistics is None and not damaged:
        whole.lost.clear()  # gaps in the sequences of a file without damage were there when it was written
    if whole.lost or damaged:
        whole.lost_s = _lost_s(whole, found.statistics)
    if found.holes:
        whole.faults.append(f"{sum(end - begin for begin, end in found.holes)} bytes unreadable")


def _lost_s(whole: Whole, statistics: Statistics | None) -> float:
    """Seconds of the pauses in which the channels' sequences jump, and of what is missing at either end."""
    last: dict[int, int] = {}
    lost_ns, before = 0, None
    for message in whole.messages:
        counted = whole.channels[message.channel_id].metadata.get(COUNTED)
        expected = last.get(message.channel_id, -1) + 1
        if counted and before is not None and message.sequence > expected:
            lost_ns += message.log_time - before
        last[message.channel_id] = message.sequence
        before = message.log_time
    if statistics is not None and whole.messages:
        lost_ns += max(0, whole.messages[0].log_time - statistics.message_start_time)
        lost_ns += max(0, statistics.message_end_time - whole.messages[-1].log_time)
    elif statistics is not None:
        lost_ns = statistics.message_end_time - statistics.message_start_time
    return lost_ns * 1e-9


def _stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(content))


def _broken() -> tuple[type[Exception], ...]:
    """What broken bytes raise inside the MCAP reader and its decompressors."""
    errors: list[type[Exception]] = [McapError, ValueError, KeyError, RuntimeError, MemoryError, OverflowError]
    errors += [zlib.error, struct.error, EOFError]
    with contextlib.suppress(ImportError):
        import zstandard

        errors.append(zstandard.ZstdError)
    return tuple(errors)


_BROKEN = _broken()
