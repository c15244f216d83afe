"""The governor's core with a fake clock: its limits hold for every input, and each change has a reason."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import authority as a
from deploy import governor as g
from deploy.authority import NAVIGATOR, Peer, Request
from deploy.config import GovernorConfig, GovernorLimits
from deploy.drivers import PointDriver
from deploy.governor import Governed, GovernorInputs, GovernorState, Seen, govern, observed, stands
from deploy.motion import ACCELERATION, JERK, MAX_STEP_S, Motion
from deploy.points import scan_points
from deploy.wire import CommandMsg, EStopMsg, LeaseMsg
from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.types import VelocityCommand

SPEC = load_robot("a1")
CONFIG = GovernorConfig(speed_factor=1.0)
LIMITS = GovernorLimits.of(SPEC, CONFIG)
MS = 1_000_000
NOWHERE = np.zeros((0, 2))
FRONT_M = SPEC.length_m / 2
GATE = Peer("gate", "gate", "estop", b"1")
ALICE = Peer("alice", "alice", "commander", b"2")
STOP_MPS2 = 10.0


def ask(vx: float, vy: float = 0.0, yaw_rate: float = 0.0, *, sequence: int, at_ms: float = 0.0) -> Request:
    message = CommandMsg(
        sequence=sequence,
        stamp_ns=int(at_ms * MS),
        episode=1,
        observation=0,
        vx_mps=vx,
        vy_mps=vy,
        yaw_rate_radps=yaw_rate,
    )
    return Request(NAVIGATOR, message)


def press(peer: Peer = GATE) -> Request:
    return Request(peer, EStopMsg(sequence=0, stamp_ns=0, episode=1, action="press"))


def rearm(sequence: int, at_ms: float) -> Request:
    return Request(GATE, EStopMsg(sequence=sequence, stamp_ns=int(at_ms * MS), episode=1, action="rearm"))


def clear(at_ms: float, points: np.ndarray = NOWHERE, tilt_rad: float = 0.0, vx: float = 0.0) -> Seen:
    return Seen(points, tilt_rad, int(at_ms * MS), int(at_ms * MS) + 10**12, np.array([vx, 0.0, 0.0]))


def wall(gap_m: float) -> np.ndarray:
    return np.stack([np.full(21, FRONT_M + gap_m), np.linspace(-0.5, 0.5, 21)], axis=1)


def cycle(state: GovernorState, now_ms: float, *requests: Request, seen: Seen | None = None) -> Governed:
    return govern(state, GovernorInputs(requests, seen), int(now_ms * MS), LIMITS)


def moving(vx: float, at_ms: float = 0.0, **parts: Any) -> GovernorState:
    """Drives at `vx` by a command that came at `at_ms` with number 0, and sees nothing near."""
    state = replace(GovernorState.start(1), motion=Motion(np.array([vx, 0.0, 0.0])), governed_ns=int(at_ms * MS))
    return replace(cycle(state, at_ms, ask(vx, sequence=0, at_ms=at_ms), seen=clear(at_ms, vx=vx)).state, **parts)


def drive(state: GovernorState, vx: float, until_ms: int, start_ms: int = 0) -> tuple[GovernorState, np.ndarray]:
    """Asks for `vx` anew each 100 ms, governs each 20 ms."""
    velocity = np.zeros(3)
    for now in range(start_ms, until_ms, 20):
        requests = [ask(vx, sequence=now, at_ms=now)] if now % 100 == 0 else []
        state, velocity, *_ = cycle(state, now, *requests, seen=clear(now))
    return state, velocity


def test_without_a_command_the_robot_stands_and_the_reason_says_so() -> None:
    governed = cycle(GovernorState.start(1), 0, seen=clear(0))
    assert not governed.velocity.any()
    assert governed.reasons == (g.NO_COMMAND,)
    assert (governed.answers, governed.notes) == ((), ())
    assert governed.state.governed_ns == 0


def test_speed_grows_by_jerk_and_acceleration_then_passes_unchanged() -> None:
    state, velocity = drive(GovernorState.start(1), 0.6, 20)
    assert velocity[0] == pytest.approx(CONFIG.jerk_mps3 * 0.02**2)  # the first cycle counts as one period
    state, velocity = drive(state, 0.6, 40, 20)
    assert velocity[0] == pytest.approx(0.12 + LIMITS.acceleration_mps2 * 0.02)
    state, velocity = drive(state, 0.6, 400, 40)
    governed = cycle(state, 400, ask(0.6, sequence=400, at_ms=400), seen=clear(400))
    assert governed.velocity[0] == 0.6
    assert governed.reasons == ()
    assert governed.answers == ("",)


def test_what_limits_the_change_is_said() -> None:
    governed = cycle(GovernorState.start(1), 0, ask(0.6, sequence=0), seen=clear(0))
    assert governed.reasons == (ACCELERATION, JERK)
    assert governed.notes == ("lease taken by navigator",)


def test_a_command_lives_250_ms_then_the_robot_ramps_to_zero_within_a_tick() -> None:
    state, _ = drive(GovernorState.start(1), 0.9, 420)  # last command at 400 ms
    governed = cycle(state, 650, seen=clear(650))
    assert governed.velocity[0] == 0.9
    assert governed.reasons == ()
    ramp, state = [], governed.state
    for now in range(660, 1000, 20):
        state, velocity, reasons, *_ = cycle(state, now, seen=clear(now))
        assert reasons == (g.EXPIRED,)
        ramp.append(velocity[0])
    assert ramp[0] == pytest.approx(0.9 - STOP_MPS2 * 0.01)
    assert all(b <= a for a, b in pairwise(ramp))
    assert ramp.index(0.0) * 20 + 10 <= 100  # the robot's tick at 10 Hz
    assert sum(v > 0 for v in ramp) == pytest.approx(0.9 / STOP_MPS2 / 0.02, abs=1)  # v / a seconds


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ask(float("nan"), sequence=9, at_ms=20), a.NOT_FINITE),
        (ask(0.1, sequence=0, at_ms=20), a.OLD_SEQUENCE),
        (ask(0.1, sequence=9, at_ms=-231), a.LATE),
        (Request(ALICE, ask(0.1, sequence=9, at_ms=20).message), a.LEASE),
        (Request(GATE, ask(0.1, sequence=9, at_ms=20).message), a.ROLE),
    ],
)
def test_a_refused_command_does_not_prolong_the_last(request_: Request, reason: str) -> None:
    state = moving(0.5)
    governed = cycle(state, 20, request_, seen=clear(20, vx=0.5))
    assert governed.velocity[0] == 0.5
    assert governed.reasons == governed.answers == (reason,)
    assert (governed.state.asked, governed.state.asked_ns) == (state.asked, state.asked_ns)
    late = cycle(governed.state, 251)
    assert late.reasons == (g.EXPIRED,)


def test_the_newest_accepted_of_a_cycle_counts_and_each_refusal_is_said_once() -> None:
    old = ask(0.1, sequence=0, at_ms=20)
    requests = (old, ask(0.4, sequence=3, at_ms=20), ask(0.5, sequence=4, at_ms=20), old)
    governed = cycle(moving(0.5), 20, *requests, seen=clear(20))
    assert governed.answers == (a.OLD_SEQUENCE, "", "", a.OLD_SEQUENCE)
    assert governed.reasons == (a.OLD_SEQUENCE,)
    assert governed.velocity[0] == 0.5
    assert governed.state.asked is requests[2].message


def test_a_command_that_was_held_up_lives_shorter() -> None:
    governed = cycle(moving(0.5), 120, ask(0.5, sequence=1, at_ms=20), seen=clear(120))
    assert governed.state.asked_ns == 20 * MS
    assert cycle(governed.state, 270, seen=clear(270)).reasons == ()
    assert cycle(governed.state, 271, seen=clear(271)).reasons == (g.EXPIRED,)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [(None, g.NO_OBSERVATION), (clear(0, tilt_rad=0.601), g.TILT), (clear(0, tilt_rad=float("nan")), g.TILT)],
)
def test_sensors_that_are_missing_or_tilted_stop_the_robot(seen: Seen | None, reason: str) -> None:
    state = replace(GovernorState.start(1), motion=Motion(np.array([0.5, 0, 0])), governed_ns=-20 * MS)
    governed = cycle(state, 0, ask(0.5, sequence=0), seen=seen)
    assert governed.reasons == (reason,)
    assert governed.velocity[0] == pytest.approx(0.5 - STOP_MPS2 * 0.02)


def test_a_lean_up_to_the_limit_is_walked_with() -> None:
    assert cycle(moving(0.5), 20, seen=clear(20, tilt_rad=0.6)).reasons == ()


def test_sensors_are_stale_after_400_ms() -> None:
    state = moving(0.5)
    for now in (100, 200, 300, 400):
        state = cycle(state, now, ask(0.5, sequence=now, at_ms=now)).state
        assert state.motion.velocity[0] == 0.5
    assert cycle(state, 400.001).reasons == (g.STALE,)


def test_sensors_that_repeat_themselves_go_stale_too() -> None:
    frozen = replace(clear(0, vx=0.5))
    state = moving(0.5)
    for now in range(20, 401, 20):
        governed = cycle(state, now, ask(0.5, sequence=now, at_ms=now), seen=replace(frozen, received_ns=now * MS))
        assert governed.reasons == (g.OLD_OBSERVATION,)
        state = governed.state
    again = cycle(state, 420, ask(0.5, sequence=420, at_ms=420), seen=replace(frozen, received_ns=420 * MS))
    assert again.reasons == (g.OLD_OBSERVATION, g.STALE)
    fresh = replace(frozen, received_ns=440 * MS, stamp_ns=frozen.stamp_ns + 1)
    assert cycle(again.state, 440, seen=fresh).reasons == (ACCELERATION, JERK)


def test_the_first_reason_to_stop_is_the_one_that_is_said() -> None:
    state = moving(0.5)
    everything = cycle(state, 9000, press(), seen=clear(0, tilt_rad=2.0))
    assert everything.reasons == (g.OLD_OBSERVATION, g.ESTOP)
    assert cycle(state, 9000).reasons == (g.EXPIRED,)


def test_speeds_beyond_the_robot_are_clamped_with_a_reason() -> None:
    state = replace(GovernorState.start(1), motion=Motion(np.array([1.0, 0.4, 1.5])), governed_ns=0)
    governed = cycle(state, 20, ask(4.0, 4.0, 9.0, sequence=0, at_ms=20), seen=clear(0))
    np.testing.assert_allclose(governed.velocity, [1.0, 0.4, 1.5])
    assert governed.reasons == (g.SPEED,)
    rounded = cycle(state, 20, ask(1.0 + 9e-7, 0.4, 1.5, sequence=0, at_ms=20), seen=clear(0))
    assert rounded.reasons == ()
    assert rounded.velocity[0] == 1.0


def test_a_share_of_the_speed_limits_bounds_every_axis() -> None:
    half = GovernorLimits.of(SPEC, GovernorConfig(speed_factor=0.5))
    state = replace(GovernorState.start(1), motion=Motion(np.array([0.5, 0.0, 0.0])), governed_ns=0)
    inputs = GovernorInputs((ask(1.0, sequence=0, at_ms=20),), clear(20))
    governed = govern(state, inputs, 20 * MS, half)
    assert governed.velocity[0] == pytest.approx(0.5 * SPEC.vx_max_mps)
    assert governed.reasons == (g.SPEED,)
    assert (half.vx_min_mps, half.vy_max_mps) == (0.5 * SPEC.vx_min_mps, 0.5 * SPEC.vy_max_mps)
    assert half.yaw_rate_max_radps == 0.5 * SPEC.yaw_rate_max_radps


def test_an_obstacle_ahead_slows_with_a_reason_and_stops_at_the_margin() -> None:
    state = replace(GovernorState.start(1), governed_ns=0)
    governed = cycle(state, 100, ask(1.0, sequence=0, at_ms=100), seen=clear(100, wall(0.15)))
    assert 0 < governed.velocity[0] < 0.5
    assert governed.reasons == (g.SLOWED,)
    governed = cycle(state, 0, ask(1.0, sequence=0), seen=clear(0, wall(0.02)))
    assert not governed.velocity.any()
    assert governed.reasons == (g.STOPPED,)
    fast = cycle(state, 0, ask(4.0, sequence=0), seen=clear(0, wall(0.02)))
    assert fast.reasons == (g.SPEED, g.STOPPED)


def test_braking_for_an_obstacle_takes_the_stops_ramp_at_once() -> None:
    state = moving(0.9, motion=Motion(np.array([0.9, 0, 0]), np.array([9.0, 0, 0])))
    governed = cycle(state, 20, ask(0.9, sequence=1, at_ms=20), seen=clear(20, wall(0.01), vx=0.9))
    assert governed.velocity[0] == pytest.approx(0.9 - STOP_MPS2 * 0.02)
    assert not governed.state.motion.acceleration.any()


def test_an_older_scan_leaves_less_room() -> None:
    """0.5 m/s needs 0.5 * (0.2 + age) + 0.5^2 / 6 m; what is seen stands at 0.2 m and the margin."""
    seen = clear(0, wall(CONFIG.corridor_margin_m + 0.2))
    state = replace(GovernorState.start(1), motion=Motion(np.array([0.5, 0, 0])), governed_ns=0)
    fresh = cycle(state, 20, ask(0.5, sequence=0, at_ms=20), seen=seen)
    assert fresh.reasons == ()
    assert cycle(fresh.state, 116).reasons == ()  # 0.1166 s
    assert cycle(fresh.state, 117).reasons == (g.SLOWED,)
    ahead = replace(seen, received_ns=10 * MS)  # a stamp of the future counts as now
    assert cycle(state, 5, ask(0.5, sequence=0, at_ms=5), seen=ahead).reasons == ()


def test_a_target_that_is_clear_is_not_reached_through_what_is_not() -> None:
    """From 0.8 m/s ahead to turning on the spot before a wall: the blend of both would touch it."""
    state = moving(0.8)
    turn = ask(0.0, 0.0, 0.4, sequence=1, at_ms=20)
    free = cycle(state, 20, turn, seen=clear(20))
    near = cycle(state, 20, turn, seen=clear(20, wall(0.06)))
    assert JERK in free.reasons
    assert near.reasons == (g.SLOWED,)
    assert near.velocity[0] == pytest.approx(0.8 - STOP_MPS2 * 0.02)
    assert free.velocity[0] > near.velocity[0]
    limited = cycle(state, 20, ask(0.0, 0.0, 9.0, sequence=1, at_ms=20), seen=clear(20, wall(0.12)))
    assert limited.reasons == (g.SPEED, g.SLOWED)


def test_the_estop_ramps_down_latches_and_needs_a_re_arm_at_standstill() -> None:
    state = moving(0.9)
    governed = cycle(state, 20, press(), seen=clear(20, vx=0.9))
    assert governed.reasons == (g.ESTOP,)
    assert governed.notes == ("e-stop pressed by gate",)
    assert governed.velocity[0] == pytest.approx(0.9 - STOP_MPS2 * 0.02)
    state = governed.state
    assert cycle(state, 40, rearm(1, 40), seen=clear(40)).answers == (a.MOVING,)  # still let through
    for now in range(40, 140, 20):
        state = cycle(state, now, seen=clear(now, vx=0.5)).state
    assert not state.motion.velocity.any()
    assert cycle(state, 140, rearm(1, 140), seen=clear(140, vx=0.11)).answers == (a.MOVING,)  # still coasts
    refused = cycle(state, 140, ask(0.5, sequence=9, at_ms=140), seen=clear(140))
    assert refused.answers == (a.LATCHED,)
    assert refused.reasons == (a.LATCHED, g.ESTOP)
    armed = cycle(cycle(state, 140, seen=clear(140, vx=0.1)).state, 160, rearm(2, 160))
    assert armed.answers == ("",)
    assert armed.notes == ("e-stop re-armed by gate",)
    assert armed.reasons == (g.NO_COMMAND,)  # what was asked before is forgotten
    again = cycle(armed.state, 180, ask(0.5, sequence=10, at_ms=180), seen=clear(180))
    assert again.velocity[0] > 0


def test_a_command_before_the_press_does_not_come_back_with_the_re_arm() -> None:
    state = replace(GovernorState.start(1), governed_ns=0)
    state = cycle(state, 0, ask(0.0, sequence=0), press(), seen=clear(0)).state
    armed = cycle(state, 20, rearm(1, 20), seen=clear(20))
    assert armed.reasons == (g.NO_COMMAND,)


def test_standing_is_confirmed_by_fresh_sensors_only() -> None:
    state = replace(GovernorState.start(1), seen=clear(0, vx=0.1))
    assert stands(state, 400 * MS, CONFIG)
    assert not stands(state, 401 * MS, CONFIG)
    assert not stands(replace(state, seen=None), 0, CONFIG)
    assert not stands(replace(state, seen=clear(0, vx=-0.101)), 0, CONFIG)
    assert not stands(replace(state, motion=Motion(np.array([0, 0, 0.01]))), 0, CONFIG)
    unknown = replace(clear(0), twist_base=np.array([np.nan, 0, 0]))
    assert not stands(replace(state, seen=unknown), 0, CONFIG)


def test_who_takes_a_released_lease_does_not_inherit_its_command() -> None:
    state = moving(0.5)
    give = Request(NAVIGATOR, LeaseMsg(sequence=1, stamp_ns=20 * MS, episode=1, action="release"))
    take = Request(ALICE, LeaseMsg(sequence=0, stamp_ns=20 * MS, episode=1, action="take"))
    governed = cycle(state, 20, give, take, seen=clear(20))
    assert governed.reasons == (g.NO_COMMAND,)
    assert governed.notes == ("lease released by navigator", "lease taken by alice")
    assert cycle(state, 20, give, seen=clear(20)).reasons == (g.NO_COMMAND,)
    kept = cycle(state, 20, Request(NAVIGATOR, replace_action(give, "take")), seen=clear(20))
    assert kept.reasons == ()  # a renewal keeps the command


def replace_action(request: Request, action: Any) -> LeaseMsg:
    m = request.message
    return LeaseMsg(sequence=m.sequence, stamp_ns=m.stamp_ns, episode=m.episode, action=action)


def test_the_lease_lapses_with_a_note_and_then_another_is_heard() -> None:
    other = Request(ALICE, ask(0.3, sequence=0, at_ms=5).message)
    state = moving(0.5)
    assert cycle(state, 1000, other).answers == (a.LEASE,)
    governed = cycle(state, 1000.001, other, seen=clear(1000))
    assert governed.notes == ("lease of navigator lapsed", "lease taken by alice")
    assert governed.state.asked is other.message


def test_an_observation_with_a_nan_in_twist_or_tilt_counts_as_tilted() -> None:
    assert observed(NOWHERE, np.zeros(3, np.float32), np.zeros(2), 0).twist_base.dtype == np.float64
    fine = observed(NOWHERE, np.array([0.1, 0.2, 0.3]), np.array([0.1, -0.3]), 5, 6)
    assert (fine.tilt_rad, fine.received_ns, fine.stamp_ns) == (0.3, 5, 6)
    np.testing.assert_array_equal(fine.twist_base, [0.1, 0.2, 0.3])
    assert observed(NOWHERE, np.array([np.nan, 0, 0]), np.zeros(2), 0).tilt_rad == np.inf
    assert observed(NOWHERE, np.zeros(3), np.array([0, np.inf]), 0).tilt_rad == np.inf
    assert observed(NOWHERE, np.zeros(3), np.array([np.nan, 0]), 0).stamp_ns == 0
    np.testing.assert_array_equal(Seen(NOWHERE, 0.0, 0).twist_base, np.zeros(3))


velocities = st.floats(-15, 15) | st.just(float("nan")) | st.just(float("inf"))
points = st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), max_size=12).map(
    lambda p: np.array(p, np.float64).reshape(-1, 2)
)
events = st.tuples(
    st.integers(1, 300),  # milliseconds since the last
    st.none() | st.tuples(velocities, velocities, velocities, st.integers(0, 40)),
    st.sampled_from(["", "", "", "press", "rearm"]),
    st.none() | points,
    st.floats(0, 0.7),
)


@given(st.lists(events, max_size=25))
@settings(max_examples=150, deadline=None)
def test_no_input_makes_it_exceed_a_limit(history: list[tuple[int, Any, str, Any, float]]) -> None:
    state, now, last = GovernorState.start(1), 0, np.zeros(3)
    low = np.array([SPEC.vx_min_mps, -SPEC.vy_max_mps, -SPEC.yaw_rate_max_radps]) - 1e-9
    high = np.array([SPEC.vx_max_mps, SPEC.vy_max_mps, SPEC.yaw_rate_max_radps]) + 1e-9
    linear = max(LIMITS.acceleration_mps2, CONFIG.stop_mps2)
    angular = max(LIMITS.yaw_acceleration_radps2, CONFIG.stop_yaw_radps2)
    for number, (wait_ms, asked, stop, seen_points, tilt) in enumerate(history):
        now += wait_ms
        requests = [] if asked is None else [ask(*asked[:3], sequence=asked[3], at_ms=now)]
        requests += [press()] if stop == "press" else [rearm(number, now)] if stop == "rearm" else []
        seen = None if seen_points is None else clear(now, seen_points, tilt)
        state, velocity, reasons, *_ = cycle(state, now, *requests, seen=seen)
        assert np.isfinite(velocity).all()
        assert (velocity >= low).all()
        assert (velocity <= high).all()
        step_s = max(wait_ms / 1000, 0.02)
        assert np.hypot(*(velocity - last)[:2]) <= linear * step_s + 1e-9
        assert abs(velocity[2] - last[2]) <= angular * step_s + 1e-9
        speeding_s = min(step_s, MAX_STEP_S)
        assert np.hypot(*velocity[:2]) <= np.hypot(*last[:2]) + linear * speeding_s + 1e-9
        wanted = None if state.asked is None else [state.asked.vx_mps, state.asked.vy_mps, state.asked.yaw_rate_radps]
        if wanted is None or not np.allclose(velocity, wanted, atol=g.ROUNDING):
            assert reasons
        if state.authority.estop:
            assert g.ESTOP in reasons
            assert np.hypot(*velocity[:2]) <= max(0.0, np.hypot(*last[:2]) - 10.0 * wait_ms / 1000) + 1e-9
        last = velocity
    for _ in range(20):  # silence: 250 ms of life, then at most v / a of ramp
        now += 100
        state, velocity, *_ = cycle(state, now)
    assert not velocity.any()


def test_a_governor_that_was_delayed_brakes_by_the_time_that_passed_but_does_not_jump_ahead() -> None:
    state = replace(GovernorState.start(1), motion=Motion(np.array([0.9, 0, 0])), governed_ns=0)
    governed = cycle(state, 50, ask(0.9, sequence=0, at_ms=50), seen=clear(50, wall(0.01)))
    assert governed.velocity[0] == pytest.approx(0.9 - STOP_MPS2 * 0.05)
    state = replace(GovernorState.start(1), motion=Motion(np.array([-0.4, 0, 0])), governed_ns=0)
    governed = cycle(state, 250, ask(0.9, sequence=0, at_ms=250), seen=clear(250))
    assert governed.velocity[0] == pytest.approx(-0.4 + LIMITS.acceleration_mps2 * MAX_STEP_S)


@pytest.mark.parametrize("vx", [1.0, 0.5, -0.4])
def test_a_policy_that_drives_into_the_wall_never_touches_it(vx: float) -> None:
    """The disc's lag, a lidar at 10 Hz, and a governor at 50 Hz."""
    now = 0
    robot = PointDriver(goal_m=(9.0, 0.0), room_m=4.0, clock=lambda: now)
    robot.connect()
    robot.arm()
    state = GovernorState.start(1)
    for tick in range(500):
        seen = None
        if tick % 5 == 0:
            scan = robot.read()
            assert scan.scan_m is not None
            points = scan_points(scan.scan_m, SPEC.lidar)
            seen = observed(points, scan.twist_base, scan.tilt_rad, now, now + 1)
        requests = [ask(vx, sequence=tick, at_ms=now / MS)] if tick % 5 == 0 else []
        state, velocity, *_ = govern(state, GovernorInputs(tuple(requests), seen), now, LIMITS)
        robot.command(VelocityCommand.of(velocity, now + 250 * MS))
        now += 20 * MS
        assert abs(robot.read().pose_odom_base[0]) + SPEC.length_m / 2 < 2.0
    # It comes close all the same: the stop is no early one.
    assert abs(robot.read().pose_odom_base[0]) + SPEC.length_m / 2 > 1.9
    assert abs(robot.read().twist_base[0]) < 0.01


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"speed_factor": 1.01}, "governor.speed_factor: expected at most 1"),
        ({"stop_mps2": 2.9}, "governor.stop_mps2: expected at least braking_mps2 = 3"),
        ({"stop_yaw_radps2": 7.9}, "governor.stop_yaw_radps2: expected at least yaw_braking_radps2 = 8"),
        ({"lease_s": 0.2}, "governor.lease_s: expected at least command_life_s = 0.25"),
        ({"jerk_mps3": 0.0}, "governor.jerk_mps3: expected a number above 0"),
    ],
)
def test_settings_that_would_not_be_safe_are_refused(settings_: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GovernorConfig(**settings_)
