"""The governor's core with a fake clock: its limits hold for every input, and each change has a reason."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import governor as g
from deploy.config import GovernorConfig, GovernorLimits
from deploy.corridor import scan_points
from deploy.drivers import PointDriver
from deploy.governor import GovernorInputs, GovernorState, Seen, govern
from deploy.wire import CommandMsg
from robonav.config import load_robot
from robonav.types import VelocityCommand

SPEC = load_robot("a1")
LIMITS = GovernorLimits.of(SPEC, GovernorConfig())
MS = 1_000_000
NOWHERE = np.zeros((0, 2))
FRONT_M = SPEC.length_m / 2


def ask(vx: float, vy: float = 0.0, yaw_rate: float = 0.0, *, sequence: int, episode: int = 1) -> CommandMsg:
    return CommandMsg(
        sequence=sequence, stamp_ns=0, episode=episode, observation=0, vx_mps=vx, vy_mps=vy, yaw_rate_radps=yaw_rate
    )


def clear(now_ns: int, points: np.ndarray = NOWHERE, tilt_rad: float = 0.0) -> Seen:
    return Seen(points, tilt_rad, now_ns)


def drive(state: GovernorState, vx: float, until_ms: int, start_ms: int = 0) -> tuple[GovernorState, np.ndarray]:
    """Asks for `vx` anew each 100 ms, governs each 20 ms."""
    velocity = np.zeros(3)
    for now in range(start_ms, until_ms, 20):
        command = ask(vx, sequence=state.sequence + 1) if now % 100 == 0 else None
        state, velocity, _ = govern(state, GovernorInputs(command, clear(now * MS)), now * MS, LIMITS)
    return state, velocity


def test_without_a_command_the_robot_stands_and_the_reason_says_so() -> None:
    state, velocity, reasons = govern(GovernorState(1), GovernorInputs(seen=clear(0)), 0, LIMITS)
    assert not velocity.any()
    assert reasons == (g.NO_COMMAND,)
    assert state.velocity_ns == 0


def test_speed_grows_by_the_acceleration_limit_then_passes_unchanged() -> None:
    state, velocity = drive(GovernorState(1), 0.6, 20)
    assert velocity[0] == pytest.approx(LIMITS.acceleration_mps2 * 0.02)  # a * period
    state, velocity = drive(state, 0.6, 40, 20)
    assert velocity[0] == pytest.approx(LIMITS.acceleration_mps2 * 0.04)
    state, velocity = drive(state, 0.6, 400, 40)
    _, velocity, reasons = govern(state, GovernorInputs(ask(0.6, sequence=99), clear(400 * MS)), 400 * MS, LIMITS)
    assert velocity[0] == 0.6
    assert reasons == ()


def test_a_command_lives_250_ms_then_the_robot_ramps_to_zero() -> None:
    state, _ = drive(GovernorState(1), 0.9, 420)  # last command at 400 ms
    seen = GovernorInputs(seen=clear(640 * MS))
    state, velocity, reasons = govern(state, seen, 650 * MS, LIMITS)
    assert velocity[0] == 0.9
    assert reasons == ()
    ramp = []
    for now in range(660, 1000, 20):
        state, velocity, reasons = govern(state, GovernorInputs(seen=clear(now * MS)), now * MS, LIMITS)
        assert reasons == (g.EXPIRED,)
        ramp.append(velocity[0])
    assert ramp[0] == pytest.approx(0.9 - 3.0 * 0.01)
    assert ramp[-1] == 0.0
    assert all(b <= a for a, b in pairwise(ramp))
    assert sum(v > 0 for v in ramp) == pytest.approx(0.9 / 3.0 / 0.02, abs=1)  # v / a seconds


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (ask(float("nan"), sequence=9), g.NOT_FINITE),
        (ask(0.1, yaw_rate=float("inf"), sequence=9), g.NOT_FINITE),
        (ask(0.1, sequence=9, episode=2), g.WRONG_EPISODE),
        (ask(0.1, sequence=3), g.OLD_SEQUENCE),
        (ask(0.1, sequence=4), g.OLD_SEQUENCE),
    ],
)
def test_a_refused_command_changes_nothing_and_does_not_prolong_the_last(command: CommandMsg, reason: str) -> None:
    state, _ = drive(GovernorState(1), 0.5, 420)
    state = replace(state, sequence=4)
    after, velocity, reasons = govern(state, GovernorInputs(command, clear(440 * MS)), 440 * MS, LIMITS)
    assert velocity[0] == 0.5
    assert reasons == (reason,)
    assert (after.sequence, after.asked_ns) == (4, state.asked_ns)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, g.NO_OBSERVATION),
        (clear(-500 * MS), g.STALE),
        (clear(0, tilt_rad=0.7), g.TILT),
        (clear(0, tilt_rad=float("nan")), g.TILT),
    ],
)
def test_sensors_that_are_missing_old_or_tilted_stop_the_robot(seen: Seen | None, reason: str) -> None:
    state = GovernorState(1, velocity=np.array([0.5, 0, 0]), velocity_ns=-20 * MS)
    _, velocity, reasons = govern(state, GovernorInputs(ask(0.5, sequence=0), seen), 0, LIMITS)
    assert reasons == (reason,)
    assert velocity[0] == pytest.approx(0.5 - 3.0 * 0.02)


def test_speeds_beyond_the_robot_are_clamped_with_a_reason() -> None:
    state = GovernorState(1, velocity=np.array([1.0, 0.4, 1.5]), velocity_ns=0)
    asked = ask(4.0, -4.0 + 8.0, 9.0, sequence=0)
    _, velocity, reasons = govern(state, GovernorInputs(asked, clear(0)), 20 * MS, LIMITS)
    np.testing.assert_allclose(velocity, [1.0, 0.4, 1.5])
    assert reasons == (g.SPEED,)


def test_an_obstacle_ahead_slows_with_a_reason_and_stops_at_the_margin() -> None:
    wall = np.stack([np.full(21, FRONT_M + 0.15), np.linspace(-0.5, 0.5, 21)], axis=1)
    inputs = GovernorInputs(ask(1.0, sequence=0), clear(0, wall))
    _, velocity, reasons = govern(GovernorState(1, velocity=np.zeros(3), velocity_ns=0), inputs, 100 * MS, LIMITS)
    assert 0 < velocity[0] < 0.5
    assert g.SLOWED in reasons
    touching = np.stack([np.full(21, FRONT_M + 0.02), np.linspace(-0.5, 0.5, 21)], axis=1)
    inputs = GovernorInputs(ask(1.0, sequence=0), clear(0, touching))
    _, velocity, reasons = govern(GovernorState(1), inputs, 0, LIMITS)
    assert not velocity.any()
    assert g.STOPPED in reasons


velocities = st.floats(-15, 15) | st.just(float("nan")) | st.just(float("inf"))
points = st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), max_size=12).map(
    lambda p: np.array(p, np.float64).reshape(-1, 2)
)
events = st.tuples(
    st.integers(1, 300),  # milliseconds since the last
    st.none() | st.tuples(velocities, velocities, velocities, st.integers(0, 40), st.integers(1, 2)),
    st.none() | points,
    st.floats(0, 0.7),
)


@given(st.lists(events, max_size=25))
@settings(max_examples=150, deadline=None)
def test_no_input_makes_it_exceed_a_limit(history: list[tuple[int, Any, Any, float]]) -> None:
    state, now, last = GovernorState(1), 0, np.zeros(3)
    low = np.array([SPEC.vx_min_mps, -SPEC.vy_max_mps, -SPEC.yaw_rate_max_radps]) - 1e-9
    high = np.array([SPEC.vx_max_mps, SPEC.vy_max_mps, SPEC.yaw_rate_max_radps]) + 1e-9
    linear = max(LIMITS.acceleration_mps2, LIMITS.config.braking_mps2)
    angular = max(LIMITS.yaw_acceleration_radps2, LIMITS.config.yaw_braking_radps2)
    for wait_ms, asked, seen_points, tilt in history:
        now += wait_ms * MS
        command = None if asked is None else ask(*asked[:3], sequence=asked[3], episode=asked[4])
        seen = None if seen_points is None else clear(now, seen_points, tilt)
        before = state.sequence
        state, velocity, reasons = govern(state, GovernorInputs(command, seen), now, LIMITS)
        assert np.isfinite(velocity).all()
        assert (velocity >= low).all()
        assert (velocity <= high).all()
        step_s = max(wait_ms / 1000, 0.02)
        assert np.hypot(*(velocity - last)[:2]) <= linear * step_s + 1e-9
        assert abs(velocity[2] - last[2]) <= angular * step_s + 1e-9
        speeding_s = min(step_s, g.MAX_STEP_S)
        assert np.hypot(*velocity[:2]) <= np.hypot(*last[:2]) + linear * speeding_s + 1e-9
        assert state.sequence >= before
        if not np.array_equal(velocity, state.asked):
            assert reasons
        last = velocity
    for _ in range(20):  # silence: 250 ms of life, then at most v / a of ramp
        now += 100 * MS
        state, velocity, _ = govern(state, GovernorInputs(), now, LIMITS)
    assert not velocity.any()


def test_a_governor_that_was_delayed_brakes_by_the_time_that_passed_but_does_not_jump_ahead() -> None:
    wall = np.stack([np.full(21, FRONT_M + 0.01), np.linspace(-0.5, 0.5, 21)], axis=1)
    state = GovernorState(1, velocity=np.array([0.9, 0, 0]), velocity_ns=0)
    inputs = GovernorInputs(ask(0.9, sequence=0), clear(250 * MS, wall))
    _, velocity, _ = govern(state, inputs, 250 * MS, LIMITS)
    assert velocity[0] == pytest.approx(0.9 - 3.0 * 0.25)
    state = GovernorState(1, velocity=np.array([-0.4, 0, 0]), velocity_ns=0)
    inputs = GovernorInputs(ask(0.9, sequence=0), clear(250 * MS))
    _, velocity, _ = govern(state, inputs, 250 * MS, LIMITS)
    assert velocity[0] == pytest.approx(-0.4 + LIMITS.acceleration_mps2 * g.MAX_STEP_S)


def test_a_share_of_the_speed_limits_bounds_every_axis() -> None:
    half = GovernorLimits.of(SPEC, GovernorConfig(speed_factor=0.5))
    state = GovernorState(1, velocity=np.array([0.5, 0.0, 0.0]), velocity_ns=0)
    inputs = GovernorInputs(ask(1.0, sequence=0), clear(20 * MS))
    _, velocity, reasons = govern(state, inputs, 20 * MS, half)
    assert velocity[0] == pytest.approx(0.5 * SPEC.vx_max_mps)
    assert reasons == (g.SPEED,)
    assert (half.vx_min_mps, half.vy_max_mps) == (0.5 * SPEC.vx_min_mps, 0.5 * SPEC.vy_max_mps)
    assert half.yaw_rate_max_radps == 0.5 * SPEC.yaw_rate_max_radps


@pytest.mark.parametrize("vx", [1.0, 0.5, -0.4])
def test_a_policy_that_drives_into_the_wall_never_touches_it(vx: float) -> None:
    """The disc's lag, a lidar at 10 Hz, and a governor at 50 Hz."""
    now = 0
    robot = PointDriver(goal_m=(9.0, 0.0), room_m=4.0, clock=lambda: now)
    state = GovernorState(1)
    for tick in range(500):
        seen = None
        if tick % 5 == 0:
            scan = robot.read()
            assert scan.scan_m is not None
            seen = g.observed(scan_points(scan.scan_m, SPEC.lidar), scan.twist_base, scan.tilt_rad, now)
        command = ask(vx, sequence=tick) if tick % 5 == 0 else None
        state, velocity, _ = govern(state, GovernorInputs(command, seen), now, LIMITS)
        robot.command(VelocityCommand.of(velocity, now + 250 * MS))
        now += 20 * MS
        assert abs(robot.read().pose_odom_base[0]) + SPEC.length_m / 2 < 2.0
    # It comes close all the same: the stop is no early one.
    assert abs(robot.read().pose_odom_base[0]) + SPEC.length_m / 2 > 1.9
    assert abs(robot.read().twist_base[0]) < 0.01
