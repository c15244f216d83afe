"""The table of topics: it is what the processes open, what the log holds, and what the document says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import zmq

from deploy import transport, wire
from deploy.config import DeployConfig
from deploy.log_writer import TOPICS as CHANNELS
from deploy.processes import ROLES
from deploy.station import open_topic
from deploy.topics import SUPERVISOR, TOPICS, WORKERS, markdown_table, rows
from deploy.transport import ipc_address
from robonav.cli import run
from robonav.config import find_config, load_config, load_robot
from robonav.errors import LinkError

ROOT = Path(__file__).parents[2]
INTERNAL = [topic for topic in TOPICS if topic.kind != "operator"]
ENDS = {"latest": (zmq.PUB, zmq.SUB), "command": (zmq.PUSH, zmq.PULL), "record": (zmq.PUSH, zmq.PULL)}


def test_the_document_holds_the_table_as_it_is() -> None:
    config = load_config(DeployConfig, find_config("deploy", "default"))
    assert markdown_table(rows(config, load_robot("a1"))) in (ROOT / "docs" / "deployment.md").read_text()


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--topics"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split()[0] == "topic"
    assert all(re.search(rf"^{topic.name} ", shown, re.MULTILINE) for topic in TOPICS)
    assert run.main(["--topics", "--json"]) == 0
    assert [row["topic"] for row in json.loads(capsys.readouterr().out)] == [topic.name for topic in TOPICS]


@pytest.mark.parametrize("topic", INTERNAL, ids=lambda t: t.name)
def test_both_ends_open_with_the_tables_settings_and_meet(topic: object) -> None:
    """A socket's type, queue and bound on size; and a message gets from each sender to each receiver."""
    t = next(x for x in TOPICS if x is topic)
    folder = transport.private_folder()
    with transport.Link() as link:
        receivers = [open_topic(link, folder, t.name, role) for role in t.receivers]
        senders = [open_topic(link, folder, t.name, role) for role in t.senders]
        send, receive = ENDS[t.kind]
        assert {s.getsockopt(zmq.TYPE) for s in senders} == {send}
        assert {s.getsockopt(zmq.SNDHWM) for s in senders} == {t.queue}
        assert {s.getsockopt(zmq.TYPE) for s in receivers} == {receive}
        assert {s.getsockopt(zmq.MAXMSGSIZE) for s in receivers} == {t.max_bytes}
        bound = senders if t.binds in t.senders else receivers
        assert len(bound) == 1  # one process is the stream's fixed end
        assert bound[0].getsockopt_string(zmq.LAST_ENDPOINT) == ipc_address(folder, t.name)
        for number, sender in enumerate(senders):
            waiting, frame = list(receivers), b"%d" % number
            for _ in range(200):
                transport.try_send(sender, frame)
                transport.wait(waiting, 10_000_000)
                waiting = [r for r in waiting if frame not in list(transport.received(r))]
                if not waiting:
                    break
            assert not waiting
    transport.remove_folder(folder)


def test_nobody_opens_what_the_table_does_not_give_them() -> None:
    folder = transport.private_folder()
    with transport.Link() as link:
        with pytest.raises(LinkError, match="topic 'governed': expected one of governor, driver, got navigator"):
            open_topic(link, folder, "governed", "navigator")
        with pytest.raises(LinkError, match="did you mean 'commands'"):
            open_topic(link, folder, "comands", "navigator")
        with pytest.raises(LinkError, match="a stream between processes"):
            open_topic(link, folder, "operators", "governor")
    assert list(folder.iterdir()) == []
    transport.remove_folder(folder)


def test_no_process_opens_a_socket_past_the_table() -> None:
    """But the operators' link, which has keys of its own, and the tools that stand in a process's place."""
    direct = re.compile(r"\.(publish_latest|subscribe_latest|send_commands|receive_commands|\w+_records)\(")
    past = {p.name for p in (ROOT / "deploy").glob("*.py") if direct.search(p.read_text())}
    assert past <= {"transport.py", "station.py", "log_bench.py", "drill.py"}


def test_every_channel_of_the_log_belongs_to_a_topic_and_each_worker_is_a_process() -> None:
    assert {channel for topic in TOPICS for channel in topic.logged} == set(CHANNELS.values())
    assert set(WORKERS) == set(ROLES)
    assert {topic.binds for topic in TOPICS} <= {*ROLES, SUPERVISOR}
    sent = {kind for topic in TOPICS for kind in topic.messages}
    inside = {wire.AppliedMsg, wire.DecisionMsg, wire.EventMsg}  # of a Record only
    assert sent | inside == {*wire.Any_.__args__, wire.RecordMsg}
