"""Logs for tests: a short one that is quickly written, and every kind of damage to its bytes."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from deploy.config import RecorderConfig
from deploy.log_bench import ticks
from deploy.log_writer import REPORT_METADATA, LogWriter
from robonav.config import load_robot, to_mapping
from robonav.types import RobotSpec

TICKS_A_CHUNK = 5
HEAD = struct.Struct("<BQ")


def small_robot() -> RobotSpec:
    robot = load_robot("a1")
    return replace(robot, depth=replace(robot.depth, width=8, height=6))


def write_log(path: Path, count: int, finish: bool = True, compression: str = "zstd") -> None:
    """A log of so many ticks, in chunks of TICKS_A_CHUNK; `finish` writes report and index."""
    robot = small_robot()
    run = {"robot": json.dumps(to_mapping(robot)), "bundle": "b", "seed": "3"}
    writer = LogWriter(path, RecorderConfig(compression=compression), run)
    source = ticks(robot)
    for tick in range(count):
        for message in next(source):
            writer.write(message)
        if tick % TICKS_A_CHUNK == TICKS_A_CHUNK - 1:
            writer.flush()
    if finish:
        writer.write_metadata(REPORT_METADATA, {"report": json.dumps({"outcome": "success"}), "lost": "0"})
        writer.close()
    else:
        writer.flush()


def records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Opcode, begin and end of each record of a whole file."""
    at = 8
    while at + HEAD.size <= len(data):
        opcode, length = HEAD.unpack_from(data, at)
        yield opcode, at, at + HEAD.size + length
        at += HEAD.size + length


def flip_bits(data: bytes, chooser: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chooser.choice([1, 1, 1, 2, 5, 40])):
        changed[chooser.randrange(8, len(data))] ^= 1 << chooser.randrange(8)
    return bytes(changed)


def truncate(data: bytes, chooser: random.Random) -> bytes:
    return data[: chooser.randrange(len(data))]


def shuffle_chunks(data: bytes, chooser: random.Random) -> bytes:
    """The file's chunks, each with its indexes, in another order; sometimes one of them twice."""
    pieces: list[bytes] = []
    rest = [data[:8]]
    places = []  # of the pieces among the rest
    at = 8
    for opcode, begin, at in records(data):
        if opcode == 6:
            places.append(len(rest))
            rest.append(b"")
            pieces.append(data[begin:at])
        elif opcode == 7 and pieces:
            pieces[-1] += data[begin:at]
        else:
            rest.append(data[begin:at])
    if chooser.random() < 0.3:
        pieces[-1] += chooser.choice(pieces)
    for place, piece in zip(places, chooser.sample(pieces, len(pieces)), strict=True):
        rest[place] = piece
    return b"".join(rest) + data[at:]


def blank(data: bytes, chooser: random.Random) -> bytes:
    """A sector of zeros, as a lost write leaves it."""
    at = chooser.randrange(8, len(data))
    return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]


def insert(data: bytes, chooser: random.Random) -> bytes:
    at = chooser.randrange(8, len(data))
    return data[:at] + chooser.randbytes(chooser.randrange(1, 300)) + data[at:]


def several(data: bytes, chooser: random.Random) -> bytes:
    return truncate(flip_bits(shuffle_chunks(data, chooser), chooser), chooser)


KINDS = (flip_bits, truncate, shuffle_chunks, blank, insert, several)
