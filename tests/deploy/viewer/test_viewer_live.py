"""The live page: a log that grows is served as far as it goes, to those who may look, by a process that only reads."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.viewer.live import LiveLog, LiveServer
from deploy.viewer.pack import unpack
from robonav.errors import LinkError

Serve = Callable[..., LiveServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[LiveServer] = []

    def start(log: Path, **options: Any) -> LiveServer:
        server = LiveServer(LiveLog(log), **options)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(server: LiveServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def part(log: Path, target: Path, share: float) -> None:
    data = log.read_bytes()
    target.write_bytes(data[: int(share * len(data))])


def test_a_growing_log_is_served_as_far_as_it_goes(make_log: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("deploy.viewer.live.LEAST_S", 0.0)
    monkeypatch.setattr("deploy.viewer.live.SHARE", 1e9)
    whole, log = make_log("grow.mcap", seconds=30.0, depth=True), tmp_path / "live.mcap"
    live = LiveLog(log)
    assert live.block(0) is None  # not there yet
    log.write_bytes(b"")
    assert live.block(0) is None
    ticks = []
    for share in (0.4, 0.7, 1.0):
        part(whole, log, share)
        block = live.block(ticks[-1] if ticks else 0)
        assert block is not None
        words, arrays = unpack(block)
        ticks.append(len(arrays["obs_t"]))
        assert live.ticks == ticks[-1] == len(arrays["mover_t"])
        assert words["outcome"] == "running"
        assert words["damage"] == ""
        assert live.block(live.ticks) is None
    assert ticks == sorted(set(ticks))
    assert ticks[-1] == 300


def test_a_log_of_an_older_run_is_not_served(make_log: Any) -> None:
    log = make_log("older.mcap", seconds=1.0)
    assert LiveLog(log, since_s=time.time() + 100).block(0) is None
    assert LiveLog(log, since_s=time.time() - 100).block(0) is not None


def test_only_looking_is_possible(make_log: Any, serve: Serve) -> None:
    server = serve(make_log("look.mcap", seconds=1.0))
    status, body, headers = ask(server, "/")
    assert status == 200
    assert b"<!doctype html>" in body
    assert "no-store" in headers["Cache-Control"]
    status, body, headers = ask(server, "/log?have=0")
    assert status == 200
    assert headers["X-Ticks"] == "10"
    assert len(unpack(body)[1]["obs_t"]) == 10
    assert ask(server, "/log?have=10")[0] == 204
    assert ask(server, "/log?have=" + "9" * 5000)[0] in (200, 414)
    for path in ("/../etc/passwd", "/static/data.js", "/log/x"):
        assert ask(server, path)[0] == 404
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/", method)[0] == 501


def test_a_foreign_page_may_not_look(make_log: Any, serve: Serve) -> None:
    server = serve(make_log("foreign.mcap", seconds=1.0))
    assert ask(server, "/log", Host="evil.example")[0] == 403
    assert ask(server, "/log", Host="localhost:1")[0] == 200


def test_elsewhere_a_key_is_wanted(make_log: Any, serve: Serve) -> None:
    server = serve(make_log("key.mcap", seconds=1.0), host="0.0.0.0")
    assert len(server.key) > 20
    assert server.url.endswith(f"?key={server.key}")
    for path in ("/", "/log", "/log?key=", f"/log?key={server.key[:-1]}", "/?key=%ff"):
        assert ask(server, path)[0] == 403
    assert ask(server, f"/log?key={server.key}")[0] == 200
    assert server.key in ask(server, f"/?key={server.key}")[1].decode()


def test_an_address_in_use_is_one_line(make_log: Any, serve: Serve) -> None:
    server = serve(make_log("use.mcap", seconds=1.0))
    with pytest.raises(LinkError, match="view: 127"):
        LiveServer(LiveLog(Path("x")), port=server.server_address[1])


def test_the_process_says_its_address_and_ends_with_its_input(make_log: Any) -> None:
    command = [sys.executable, "-m", "deploy.viewer.live", str(make_log("process.mcap", seconds=1.0))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert urlsplit(process.stdout.readline()).hostname == "127.0.0.1"
        process.stdin.close()
        assert process.wait(30) == 0  # nobody looked: at once


@pytest.mark.xdist_group("browser")
def test_the_page_follows_a_robot(
    make_log: Any, tmp_path: Path, serve: Serve, open_page: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("deploy.viewer.live.LEAST_S", 0.0)
    whole, log = make_log("follow.mcap", seconds=30.0), tmp_path / "follow.mcap"
    part(whole, log, 0.4)
    server = serve(log)
    tab = open_page(server.url)
    tab.page.wait_for_selector("#live-state:has-text('live')")
    tab.page.wait_for_selector("#facts .badge:has-text('running')")
    tab.settle()
    before = tab.at()
    assert 5 < before < 25
    part(whole, log, 1.0)
    tab.page.wait_for_selector("#time[max^='29.9']")
    tab.settle()
    assert tab.at() == pytest.approx(29.98, abs=0.01)  # it stayed at the end
    assert tab.press("Home") == 0.0


def test_readings_take_a_share_of_the_time(make_log: Any, monkeypatch: Any) -> None:
    for name in ("LEAST_S", "MOST_S"):
        monkeypatch.setattr(f"deploy.viewer.live.{name}", 60.0)  # however long a busy machine takes for this
    live = LiveLog(make_log("share.mcap", seconds=1.0))
    assert live.block(0) is not None
    monkeypatch.setattr(live, "_read", lambda: pytest.fail("read again at once"))
    for _ in range(20):
        live.block(0)
    monkeypatch.undo()
    live.hurry()
    live.ticks = 0
    assert live.block(0) is not None
    assert live.ticks == 10


@pytest.mark.realtime
def test_a_run_shows_itself(tiny_bundle: Path, tmp_path: Path) -> None:
    words = ["--bundle", str(tiny_bundle), "--driver", "point", "--log", str(tmp_path / "run.mcap"), "--view"]
    pipe = subprocess.PIPE
    seen = 0
    with subprocess.Popen(
        [sys.executable, "-m", "robonav", "run", *words], stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("robonav: view: http://127.0.0.1:"), line
        port = urlsplit(line.split()[-1]).port
        while process.poll() is None and not seen:
            time.sleep(0.2)
            connection = http.client.HTTPConnection("127.0.0.1", port or 0, timeout=20)
            connection.request("GET", "/log?have=0")
            answer = connection.getresponse()
            body = answer.read()
            seen = len(unpack(body)[1]["obs_t"]) if answer.status == 200 else 0
        assert process.wait(60) == 0
    assert seen > 0
