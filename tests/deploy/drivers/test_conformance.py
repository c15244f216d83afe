"""Every driver that comes with robonav does what a driver has to do; and the checks notice one that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recordings import write_recording

from deploy.drivers import NullDriver, PointDriver
from deploy.drivers.conformance import CHECKS, Check, Subject, examine, main
from deploy.drivers.replayed import ReplayedLogDriver
from robonav.errors import RobonavError
from robonav.types import Driver, Observation, VelocityCommand

SECOND = 1_000_000_000


def by_hand(make: Callable[[Callable[[], int]], Driver], **about: Any) -> Subject:
    """A subject whose time the test moves."""
    time = SimpleNamespace(ns=SECOND)

    def advance(_: Driver, seconds: float) -> None:
        time.ns += round(seconds * 1e9)

    return Subject(lambda: make(lambda: time.ns), advance, lambda _: time.ns, **about)


def break_point(driver: Any) -> None:
    driver._fail_after_s = 0.01


def simulated(fidelity: str) -> Subject:
    """A simulated robot in an empty place, by hand."""
    from sim.driver import SimDriver, make_driver

    def advance(driver: Driver, seconds: float) -> None:
        assert isinstance(driver, SimDriver)
        driver.tick(seconds)

    def clock(driver: Driver) -> int:
        assert isinstance(driver, SimDriver)
        return driver.now_ns

    def make() -> Driver:
        return make_driver("a1", "empty", 4, realtime=False, fidelity=fidelity)

    return Subject(make, advance, clock)


def names(checks: tuple[Check, ...] | list[Check]) -> list[str]:
    return [check.__name__ for check in checks]


@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_point_and_null(check: Check) -> None:
    check(by_hand(lambda clock: PointDriver(clock=clock), fail=break_point))
    check(by_hand(lambda clock: NullDriver(clock=clock), moves=False))


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "long.mcap"
    write_recording(path, ticks=120)
    return path


@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_replayed_log(check: Check, long_log: Path) -> None:
    check(by_hand(lambda clock: ReplayedLogDriver(long_log, clock=clock), moves=False, open_loop=True))


@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_simulated(check: Check) -> None:
    check(simulated("kinematic"))


MOVING = [c for c in CHECKS if c.__name__ in ("check_limits", "check_stop_hard", "check_disconnect")]


@pytest.mark.parametrize("check", MOVING, ids=names(MOVING))
def test_simulated_on_legs(check: Check) -> None:
    check(simulated("legged"))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_simulated_on_legs_whole(check: Check) -> None:
    check(simulated("legged"))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_go2_against_its_stand_in(check: Check) -> None:
    pytest.importorskip("cyclonedds", reason="the extra go2 is not installed")
    from stand_in import stand_in

    from deploy.drivers.go2 import Go2Driver

    with stand_in() as peer:

        def make() -> Driver:
            return Go2Driver(interface="lo", domain=peer.domain, connect_s=20.0)

        check(Subject(make, stop_s=0.8, fail=lambda _: peer.freeze()))


# -- drivers that are wrong ----------------------------------------------------------------------------------------


class Unlimited(PointDriver):
    def command(self, command: VelocityCommand) -> VelocityCommand:
        super().command(command)
        return command


class Runaway(PointDriver):
    """Its commands never end."""

    def command(self, command: VelocityCommand) -> VelocityCommand:
        return super().command(dataclasses.replace(command, valid_until_ns=command.valid_until_ns + 10**12))


class Unstoppable(PointDriver):
    def stop(self, level: str = "soft") -> None:
        pass


class Eager(PointDriver):
    def connect(self) -> None:
        super().connect()
        self.arm()


class Frozen(PointDriver):
    def read(self) -> Observation:
        return dataclasses.replace(super().read(), stamp_ns=SECOND)


class Doubles(PointDriver):
    def read(self) -> Observation:
        seen = super().read()
        return dataclasses.replace(seen, pose_odom_base=seen.pose_odom_base.astype(np.float64))  # type: ignore[arg-type]


class Lies(PointDriver):
    def command(self, command: VelocityCommand) -> VelocityCommand:
        applied = super().command(command)
        return dataclasses.replace(applied, vx_mps=applied.vx_mps / 2)


class Fragile(PointDriver):
    def disconnect(self) -> None:
        self._check_connected()
        super().disconnect()


class Careless(PointDriver):
    def read(self) -> Observation:
        return dataclasses.replace(super().read(), goal_odom_m=self._goal)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (Unlimited, {"unarmed", "limits", "bad_commands", "disconnect"}),
        (Runaway, {"limits", "bad_commands", "drives_and_expires"}),
        (Unstoppable, {"stop_soft", "stop_hard"}),
        (Eager, {"unarmed", "disconnect"}),
        (Frozen, {"stamps_grow"}),
        (Doubles, {"observations"}),
        (Lies, {"returns_what_it_applied"}),
        (Fragile, {"before_connect", "disconnect"}),
        (Careless, {"arrays_are_fresh"}),
    ],
)
def test_a_driver_that_is_wrong_is_found(wrong: type[PointDriver], found: set[str]) -> None:
    subject = by_hand(lambda clock: wrong(clock=clock))
    assert {name for name, why in examine(subject) if why} >= found


def test_one_whose_stop_fails_after_an_error_is_found() -> None:
    class Stuck(PointDriver):
        def stop(self, level: str = "soft") -> None:
            if self._fail_after_s and self._connected:
                raise RobonavError("stuck")
            super().stop(level)

    subject = by_hand(lambda clock: Stuck(clock=clock), fail=break_point)
    with pytest.raises(RobonavError, match="stuck"):
        CHECKS[-1](subject)


def test_the_program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["pont"]) == 2
    assert "did you mean 'point'" in capsys.readouterr().err
    assert main([]) == 2
    monkeypatch.setattr("deploy.drivers.conformance.CHECKS", CHECKS[:4])
    assert main(["null", "robot=a1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *("ok      is a driver", "ok      before connect", "ok      connect twice", "ok      observations")
    ]
    monkeypatch.setattr("deploy.drivers.conformance.AGE_MAX_NS", -1)
    assert main(["null"]) == 1
    assert "FAILED  observations: driver: expected a stamp" in capsys.readouterr().out
