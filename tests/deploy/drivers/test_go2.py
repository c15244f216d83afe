"""The Go2's driver: what it says and understands, and whole sessions with a stand-in on a real DDS domain."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deploy.drivers import go2_messages as go2
from deploy.drivers.go2 import Go2Driver
from deploy.drivers.go2_messages import Origin, SportState, move_parameter, twist_base
from robonav.errors import LinkError, MissingDependencyError, RobonavError
from robonav.types import VelocityCommand

STATE = SportState(
    received_ns=1,
    position_odom_m=(2.0, 1.0),
    yaw_rad=math.pi / 2,
    tilt_rad=(0.01, -0.02),
    velocity_mps=(0.0, 0.5),
    yaw_rate_radps=0.3,
    body_height_m=0.3,
    mode=go2.WALKS,
    error_code=0,
)


def test_move_is_json_of_three_numbers_within_what_move_takes() -> None:
    assert json.loads(move_parameter(np.array([0.5, -0.25, 1.0]))) == {"x": 0.5, "y": -0.25, "z": 1.0}
    assert json.loads(move_parameter(np.array([9.0, -9.0, 9.0]))) == {"x": 3.8, "y": -1.0, "z": 4.0}


def test_odometry_begins_at_the_origin() -> None:
    assert Origin(2.0, 1.0, math.pi / 2).pose(STATE) == pytest.approx([0, 0, 0], abs=1e-6)
    moved = replace(STATE, position_odom_m=(2.0, 4.0), yaw_rad=-math.pi / 2 - 0.1)  # three ahead, turned round
    assert Origin(2.0, 1.0, math.pi / 2).pose(moved) == pytest.approx([3, 0, math.pi - 0.1], abs=1e-6)


def test_velocity_of_the_odometry_frame_is_turned_into_the_base() -> None:
    assert twist_base(STATE, in_odom=True) == pytest.approx([0.5, 0, 0.3], abs=1e-6)
    assert twist_base(STATE, in_odom=False) == pytest.approx([0, 0.5, 0.3], abs=1e-6)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(LinkError, match="finite"):
        replace(STATE, yaw_rad=math.nan).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"robot": "no-such"}, "no-such"),
        ({"velocity_frame": "world"}, "velocity_frame"),
        ({"hard_stop": "flip"}, "damp or stand"),
        ({"stale_s": 2.0}, "stale_s"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RobonavError, match=message):
        Go2Driver(**options)


def test_without_cyclonedds_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deploy.drivers.go2_dds", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'robonav\[go2\]'"):
        Go2Driver().connect()


# -- with DDS ------------------------------------------------------------------------------------------------------


@contextmanager
def session(*options: str, **driver: Any) -> Iterator[tuple[Any, Go2Driver]]:
    """A stand-in and a driver that is connected to it."""
    pytest.importorskip("cyclonedds", reason="the extra go2 is not installed")
    from stand_in import stand_in

    with stand_in(*options) as peer:
        robot = Go2Driver(
            **{"interface": "lo", "domain": peer.domain, "connect_s": 20.0, "stale_s": 2.0, "lost_s": 4.0} | driver
        )
        try:
            robot.connect()
            yield peer, robot
        finally:
            peer.thaw()
            robot.disconnect()


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def ahead(vx: float, life_s: float) -> VelocityCommand:
    return VelocityCommand(vx, 0.0, 0.0, time.monotonic_ns() + round(life_s * 1e9))


def test_messages_have_the_robots_layout() -> None:
    """Bytes by hand, from the members' sizes and CDR's alignment, against what is sent."""
    pytest.importorskip("cyclonedds", reason="the extra go2 is not installed")
    from deploy.drivers import go2_idl as idl

    header = idl.RequestHeader(idl.RequestIdentity(7, 1008), idl.RequestLease(0), idl.RequestPolicy(0, True))
    sent = idl.Request(header, '{"x":1}', []).serialize()
    text = b'{"x":1}\x00'
    want = struct.pack("<qqqi?xxx", 7, 1008, 0, 0, True) + struct.pack("<I", len(text)) + text + struct.pack("<I", 0)
    assert sent[4:] == want
    assert sent[:2] == b"\x00\x01"  # plain CDR, little endian

    points = [idl.PathPoint(*(float(10 * i + k) for k in range(7))) for i in range(10)]
    imu = idl.IMUState([1, 0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9], 40)
    state = idl.SportModeState(
        *(idl.TimeSpec(11, 12), 13, imu, 3, 0.5, 1, 0.25, [1, 2, 3], 0.5, [4, 5, 6], 7.0),
        *([1, 2, 3, 4], [-1, -2, 3, 4], [float(i) for i in range(12)], [float(-i) for i in range(12)], points),
    )
    want = struct.pack("<iII", 11, 12, 13)
    want += struct.pack("<13fBB2x", 1, 0, 0, 0, *range(1, 10), 40, 3)
    want += struct.pack("<fB3xf3ff3ff4f", 0.5, 1, 0.25, 1, 2, 3, 0.5, 4, 5, 6, 7.0, 1, 2, 3, 4)
    want += struct.pack("<4h12f12f", -1, -2, 3, 4, *range(12), *(-i for i in range(12)))
    want += struct.pack("<70f", *(10 * i + k for i in range(10) for k in range(7)))
    assert state.serialize()[4:] == want
    names = [cls.__idl_typename__ for cls in (idl.Request, idl.SportModeState, idl.PointCloud2)]
    assert names == [
        *("unitree_api.msg.dds_.Request_", "unitree_go.msg.dds_.SportModeState_", "sensor_msgs.msg.dds_.PointCloud2_")
    ]


@pytest.mark.realtime
def test_a_session() -> None:
    """It stands up, drives, keeps a long command alive, and stops: at its end, when told, and when it leaves."""
    with session("mode=5") as (peer, robot):
        seen = robot.read()
        seen.check(robot.spec)
        assert seen.pose_odom_base == pytest.approx([0, 0, 0], abs=1e-3)  # though it started at (1, -2, 0.5)
        assert seen.tilt_rad == pytest.approx([0.02, -0.03])
        assert seen.scan_m is not None
        # beams to the walls of a 6 m room, turned by the start's heading: 3 m along its normals
        normal = robot.spec.lidar.angles_rad[np.argmin(seen.scan_m)] + 0.5
        assert abs((normal + np.pi / 4) % (np.pi / 2) - np.pi / 4) < 0.12
        assert float(seen.scan_m.min()) == pytest.approx(3.0, abs=0.02)
        robot.command(ahead(0.5, 1.0))
        assert not peer.said(go2.MOVE)  # unarmed
        robot.arm()
        peer.wait(go2.BALANCE_STAND)
        assert [r["api"] for r in peer.requests if not r["noreply"]] == [go2.RECOVERY_STAND, go2.BALANCE_STAND]

        mark = len(peer.requests)
        robot.command(ahead(0.5, 20.0))  # longer than the robot would remember it
        until(lambda: len(peer.said(go2.MOVE, mark)) >= 6)
        moves = peer.said(go2.MOVE, mark)
        assert {r["parameter"] for r in moves} == {'{"x": 0.5, "y": 0.0, "z": 0.0}'}
        assert all(r["noreply"] for r in moves)
        assert np.median(np.diff([r["at_ns"] for r in moves])) * 1e-9 < go2.HOLD_S / 3
        until(lambda: robot.read().twist_base[0] > 0.45)
        seen = robot.read()
        assert seen.pose_odom_base[0] > 0.2
        assert abs(float(seen.pose_odom_base[1])) < 0.01
        assert seen.last_command == pytest.approx([0.5, 0, 0])

        mark = len(peer.requests)
        robot.command(ahead(0.5, 0.2))
        peer.wait(go2.STOP_MOVE, mark)  # by itself, at the command's end
        assert robot.read().last_command == pytest.approx([0, 0, 0])
        until(lambda: not robot._moves())

        mark = len(peer.requests)
        robot.stop("hard")  # it stands: no more than a StopMove then
        peer.wait(go2.STOP_MOVE, mark)
        assert not peer.said(go2.DAMP)
        mark = len(peer.requests)
        robot.disconnect()
        peer.wait(go2.STOP_MOVE, mark)


@pytest.mark.realtime
def test_faults_of_the_robot() -> None:
    """A state that stops coming stops the robot, and then is an error; so is a robot that no longer stands."""
    with session(stale_s=1.0, lost_s=1.5) as (peer, robot):
        robot.arm()
        robot.command(ahead(0.5, 30.0))
        peer.wait(go2.MOVE)
        mark = len(peer.requests)
        peer.change(state=False)
        peer.wait(go2.STOP_MOVE, mark)
        assert not robot.command(ahead(0.5, 1.0)).velocity.any()
        until(lambda: robot._age_ns(time.monotonic_ns()) > 1.5e9)
        with pytest.raises(
            LinkError, match=r"sport mode state: expected one within 1\.5 s, got .* old; check the cable"
        ):
            robot.read()
        peer.change(state=True)
        until(lambda: robot._age_ns(time.monotonic_ns()) < 0.2e9)
        robot.command(ahead(0.5, 30.0))
        until(robot._moves)
        mark = len(peer.requests)
        robot.stop("hard")  # it moves: its legs let go
        peer.wait(go2.DAMP, mark)
        assert not robot.command(ahead(0.5, 1.0)).velocity.any()
        robot.arm()
        peer.change(mode=7)  # somebody damps it by the remote control
        with pytest.raises(LinkError, match=r"standing or walking, got mode 7 \(damping\)"):
            until(lambda: robot.read() is None)
        peer.change(mode=1, refuse=go2.BALANCE_STAND)
        until(lambda: robot._fresh().upright)
        with pytest.raises(LinkError, match="BalanceStand: expected code 0, got 4201"):
            robot.arm()


def _read_but_late(robot: Go2Driver) -> None:
    """Reads; a scan that is still too old is no error yet."""
    try:
        robot.read()
    except LinkError as error:
        if "expected one within" not in str(error):
            raise


@pytest.mark.realtime
@pytest.mark.slow
def test_a_lidar_that_stops_and_numbers_that_are_none() -> None:
    with session(stale_s=1.0, lost_s=1.5) as (peer, robot):
        robot.arm()
        peer.change(cloud=False)
        with pytest.raises(LinkError, match="scan: expected one within"):  # the stamp is the scan's
            until(lambda: robot.read() is None)
        peer.change(cloud=True, nan=True)
        with pytest.raises(LinkError, match="finite numbers"):
            until(lambda: _read_but_late(robot))


@pytest.mark.slow
def test_nobody_there() -> None:
    pytest.importorskip("cyclonedds", reason="the extra go2 is not installed")
    from stand_in import free_domain

    robot = Go2Driver(interface="lo", domain=free_domain(), connect_s=0.5)
    with pytest.raises(LinkError, match=r"a state on rt/sportmodestate: expected within 0\.5 s, got none"):
        robot.connect()
    with pytest.raises(LinkError, match="interface 'none0'"):
        Go2Driver(interface="none0").connect()
    with session("cloud=false", scan="none") as (_, blind):
        assert blind.read().scan_m is None
    with pytest.raises(LinkError, match="check the lidar"), session("cloud=false", connect_s=6.0):
        pass
