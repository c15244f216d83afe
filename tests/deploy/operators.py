"""Operators in tests: keys, a governor's real process that listens to them, and remote programs that talk to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rig
from ports import free_port

from deploy import keys, wire
from deploy.config import OperatorConfig
from deploy.remote import Remote

KEYS = (("alice", "commander"), ("bob", "commander"), ("gate", "estop"), ("eye", "observer"))
AHEAD = np.array([0.5, 0.0, 0.0])


def make_keys(folder: Path) -> Path:
    """A key of each role, and a second commander's."""
    for name, role in KEYS:
        keys.new_key(folder, name, role)
    return folder


@contextmanager
def listening(folder: Path, **options: object) -> Iterator[rig.Rig]:
    """A governor that listens to operators; `address` says where."""
    operator = OperatorConfig(listen=f"tcp://127.0.0.1:{free_port()}", keys=str(folder))
    with rig.governor(replace(operator, **options)) as robot:
        robot.address = operator.listen
        yield robot


@pytest.fixture(name="folder", scope="module")
def folder_of_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of every role."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(name="robot")
def listening_robot(folder: Path) -> Iterator[rig.Rig]:
    """A governor that knows them."""
    with listening(folder) as robot:
        yield robot


def pair(folder: Path, name: str) -> keys.Pair:
    return keys.load_pair(folder / f"{name}.key")


@contextmanager
def connect(robot: rig.Rig, folder: Path, name: str) -> Iterator[Remote]:
    """A remote program that the robot knows; it is polled whenever the robot's rig runs."""
    with Remote(robot.address, pair(folder, name)) as remote:
        robot.others.append(remote.poll)
        assert robot.until(lambda: remote.state is not None), f"{name} was not let in"
        yield remote
        robot.others.clear()


def while_running(robot: rig.Rig, work: object) -> object:
    """What a blocking call returns or raises, made from another thread while the robot runs; none is polled here."""
    outcome: list[object] = []
    others, robot.others = robot.others, [o for o in robot.others if not isinstance(getattr(o, "__self__", 0), Remote)]

    def call() -> None:
        try:
            outcome.append(work())  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  handed on below
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    robot.until(lambda: not thread.is_alive())
    thread.join(1.0)
    robot.others = others
    return outcome[0]


def commanded(robot: rig.Rig, remote: Remote, velocity: np.ndarray) -> wire.AnswerMsg:
    """What came of one command."""
    sent: list[int] = []
    assert robot.until(lambda: [sent.append(n) for n in [remote.command(velocity)] if n is not None])
    return answer_to(robot, remote, sent[0])


def answer_to(robot: rig.Rig, remote: Remote, number: int) -> wire.AnswerMsg:
    """Of message `number`."""
    found: dict[int, wire.AnswerMsg] = {}

    def there() -> bool:
        found.update(remote.answers())
        return number in found

    assert robot.until(there), "no answer"
    return found[number]
