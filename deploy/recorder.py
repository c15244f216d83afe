"""The recorder's process: takes what the others send and hands it to the log's thread, so that no one waits for a disk.

The log itself is written by `deploy.log_writer`.
"""

from __future__ import annotations

import json
import time
from typing import Any

from deploy import transport, wire
from deploy.log_file import LogFile
from deploy.log_messages import decode_record
from deploy.log_queue import LogQueue, event, lost_event
from deploy.log_writer import LIBRARY, PROFILE, REPORT_METADATA, RUN_METADATA, TOPICS, LogWriter
from deploy.station import Station
from deploy.timing import now_ns

__all__ = ["LIBRARY", "PROFILE", "REPORT_METADATA", "RUN_METADATA", "TOPICS", "LogFile", "LogWriter", "run_recorder"]

REPORT_EVENT = "report"
POLL_NS = 100_000_000
PARENT_NS = 1_000_000_000
DRAIN_NS = 100_000_000


def run_recorder(station: Station) -> None:
    """Writes what comes until the supervisor's report, or until the supervisor is gone.

    The file is claimed before the run begins and emptied when it does: a run that cannot start leaves an older log as
    it is. One that is started in place of another writes a file of its own, a part, which is a log as any other.

    Raises:
        LogError: another run writes this log, or it could not be written to its end.
    """
    order = station.order
    file = LogFile(order.log)
    source = station.open("record")
    station.counts.update(messages=0, lost=0)
    station.heard_nothing_yet()
    while (word := station.word()) == "wait":
        station.beat("ready")
        transport.wait([station.control], POLL_NS)
    if word == "stop" and not order.session:
        file.give_up()
        return
    config = order.config.recorder
    writer = LogWriter(file, config, order.metadata)
    with LogQueue(writer, int(config.queue_mb * 1e6), order.episode) as queue:
        if order.session:
            text = f"part {order.session} of {order.metadata.get('first_log', order.log)}; what the recorder before"
            queue.put(event(order.episode, "part", f"{text} had taken in and not yet written is lost"), 200)
        report = _record(station, source, queue)
    queue.check()
    station.counts["dropped"] += queue.dropped
    log = {key: str(value) for key, value in station.counts.items()}
    writer.write_metadata(REPORT_METADATA, {"report": report, **log})
    writer.close()
    station.beat("done", always=True)


def _record(station: Station, source: Any, queue: LogQueue) -> str:
    """Fills the queue until the run is over; the supervisor's report."""
    next_sequence: dict[str, int] = {}
    report: str | None = None
    while report is None:
        station.beat("ready")
        transport.wait([source], POLL_NS)
        report = _take_all(queue, source, next_sequence, station.counts, station.order.session)
        queue.check()
        if report is None and station.orphaned():
            told = station.terminated and not _parent_goes(station)
            report = json.dumps({"outcome": "recorder told to end" if told else "supervisor lost"})
    deadline = now_ns() + DRAIN_NS
    while now_ns() < deadline:
        transport.wait([source], deadline - now_ns())
        _take_all(queue, source, next_sequence, station.counts, station.order.session)
    return report


def _parent_goes(station: Station) -> bool:
    """Whether the supervisor ends within a moment: one that is killed sends SIGTERM before its last thread is gone."""
    deadline = now_ns() + PARENT_NS
    while not station.parentless():
        if now_ns() > deadline:
            return False
        time.sleep(0.02)
    return True


def _take_all(
    queue: LogQueue, source: Any, next_sequence: dict[str, int], counts: dict[str, int], part: int = 0
) -> str | None:
    """Queues the messages of the frames that are there; the supervisor's report if it is among them."""
    report = None
    for frame in transport.received(source):
        record = decode_record(frame)
        gap = record.sequence - next_sequence.get(record.source, record.sequence if part else 0)
        next_sequence[record.source] = record.sequence + 1
        counts["lost"] += max(0, gap)
        if gap > 0:
            text = f"{gap} records of the {record.source} were lost before its record {record.sequence}"
            queue.put(lost_event(0, text), len(text))
        for message in record.messages:
            if isinstance(message, wire.EventMsg) and message.kind == REPORT_EVENT:
                report = message.text
            else:
                counts["messages"] += 1
                queue.put(message, len(frame) // len(record.messages))
    return report
