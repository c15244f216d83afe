"""Who may move the robot: lease, e-stop, roles, and messages that are old, late or of another run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import authority as a
from deploy.authority import Authority, Peer, Request, Ruling, lapse, rule
from deploy.config import GovernorConfig
from deploy.wire import CommandMsg, EStopMsg, LeaseMsg

MS = 1_000_000
CONFIG = GovernorConfig(command_life_s=0.25, lease_s=1.0)
ALICE = Peer("key-a", "alice", "commander", b"1")
BOB = Peer("key-b", "bob", "commander", b"2")
GATE = Peer("key-g", "gate", "estop", b"3")
EYE = Peer("key-o", "eye", "observer", b"4")


def command(sequence: int, *, stamp_ms: float = 0.0, episode: int = 1, vx: float = 0.5, **axes: float) -> CommandMsg:
    velocity: Any = {"vx_mps": vx, "vy_mps": 0.0, "yaw_rate_radps": 0.0, **axes}
    return CommandMsg(sequence=sequence, stamp_ns=int(stamp_ms * MS), episode=episode, observation=0, **velocity)


def lease(action: Any, sequence: int, stamp_ms: float = 0.0) -> LeaseMsg:
    return LeaseMsg(sequence=sequence, stamp_ns=int(stamp_ms * MS), episode=1, action=action)


def estop(action: Any, sequence: int = 0, text: str = "", episode: int = 1, stamp_ms: float = 0.0) -> EStopMsg:
    return EStopMsg(sequence=sequence, stamp_ns=int(stamp_ms * MS), episode=episode, action=action, text=text)


def ask(authority: Authority, peer: Peer, message: Any, now_ms: float = 0.0, standing: bool = True) -> Ruling:
    return rule(authority, Request(peer, message), int(now_ms * MS), CONFIG, standing)


def test_the_first_command_takes_the_lease_and_each_renews_it() -> None:
    first = ask(Authority(1), ALICE, command(0, stamp_ms=100), 100)
    assert (first.refusal, first.note) == ("", "lease taken by alice")
    assert first.authority.holder == ALICE
    assert first.authority.held_until_ns == 1100 * MS
    second = ask(first.authority, ALICE, command(1, stamp_ms=300), 300)
    assert (second.refusal, second.note) == ("", "")
    assert second.authority.held_until_ns == 1300 * MS
    assert second.authority.tracks["key-a"].sequence == 1


def test_another_commander_waits_until_the_lease_lapses() -> None:
    held = ask(Authority(1), ALICE, command(0)).authority
    for message in (command(0, stamp_ms=500), lease("take", 1, 501)):
        refused = ask(held, BOB, message, 501)
        assert refused.refusal == a.LEASE
        assert (refused.authority.holder, refused.authority.held_until_ns) == (ALICE, held.held_until_ns)
    assert lapse(held, 1000 * MS) == Ruling(held)
    lapsed = lapse(held, 1000 * MS + 1)
    assert (lapsed.authority.holder, lapsed.note) == (None, "lease of alice lapsed")
    assert lapse(lapsed.authority, 9999 * MS) == Ruling(lapsed.authority)
    taken = ask(lapsed.authority, BOB, command(3, stamp_ms=1002), 1002)
    assert (taken.refusal, taken.note, taken.authority.holder) == ("", "lease taken by bob", BOB)


def test_a_lease_is_taken_renewed_and_released_by_its_holder_only() -> None:
    held = ask(Authority(1), ALICE, lease("take", 0), 0)
    assert (held.note, held.authority.held_until_ns) == ("lease taken by alice", 1000 * MS)
    renewed = ask(held.authority, ALICE, lease("take", 1, 400), 400)
    assert (renewed.refusal, renewed.note, renewed.authority.held_until_ns) == ("", "", 1400 * MS)
    assert ask(renewed.authority, BOB, lease("release", 0, 400), 400).refusal == a.LEASE
    released = ask(renewed.authority, ALICE, lease("release", 2, 500), 500)
    assert (released.refusal, released.note) == ("", "lease released by alice")
    assert released.authority.holder is None
    assert ask(released.authority, ALICE, lease("release", 3, 500), 500).refusal == a.LEASE
    assert ask(released.authority, BOB, command(0, stamp_ms=500), 500).authority.holder == BOB


def test_the_holder_is_known_by_key_not_by_name_or_session() -> None:
    held = ask(Authority(1), ALICE, command(0)).authority
    assert ask(held, replace(BOB, name="alice"), command(0)).refusal == a.LEASE
    again = replace(ALICE, name="renamed", session=b"9")
    assert ask(held, again, command(1)).refusal == ""


@pytest.mark.parametrize("peer", [GATE, EYE])
@pytest.mark.parametrize("message", [command(0), lease("take", 0), lease("release", 0)])
def test_only_commanders_drive(peer: Peer, message: Any) -> None:
    refused = ask(Authority(1), peer, message)
    assert (refused.refusal, refused.authority.holder) == (a.ROLE, None)


@pytest.mark.parametrize("peer", [ALICE, GATE, EYE])
def test_anyone_presses_the_estop_whatever_number_episode_or_time(peer: Peer) -> None:
    heard = replace(Authority(1), tracks={peer.key: a.Track(99, peer.session, 0, 0)})
    pressed = ask(heard, peer, estop("press", 0, "a child", episode=7), 10_000)
    assert pressed.refusal == ""
    assert pressed.authority.estop == f"{peer.name}: a child"
    assert pressed.note == f"e-stop pressed by {peer.name}: a child"
    again = ask(pressed.authority, BOB, estop("press"))
    assert (again.refusal, again.note) == ("", "")
    assert again.authority.estop == f"{peer.name}: a child"
    assert ask(Authority(1), BOB, estop("press")).authority.estop == "bob"


def test_a_latched_estop_refuses_commands_which_do_not_renew_the_lease() -> None:
    held = ask(Authority(1), ALICE, command(0)).authority
    latched = ask(held, GATE, estop("press"), 100).authority
    assert latched.holder == ALICE
    refused = ask(latched, ALICE, command(1, stamp_ms=200), 200)
    assert refused.refusal == a.LATCHED
    assert refused.authority.held_until_ns == 1000 * MS
    # So another may take the robot over while it stands.
    free = lapse(refused.authority, 1001 * MS).authority
    assert ask(free, BOB, lease("take", 0, 1001), 1001).authority.holder == BOB


def test_re_arming_takes_the_role_and_a_robot_that_stands() -> None:
    latched = ask(Authority(1), EYE, estop("press")).authority
    assert ask(latched, EYE, estop("rearm")).refusal == a.ROLE
    assert ask(latched, GATE, estop("rearm"), standing=False).refusal == a.MOVING
    assert ask(latched, EYE, estop("rearm")).authority.estop == "eye"
    assert ask(latched, GATE, estop("rearm"), standing=False).authority.estop == "eye"
    for peer in (ALICE, GATE):
        armed = ask(latched, peer, estop("rearm"))
        assert (armed.refusal, armed.authority.estop) == ("", "")
        assert armed.note == f"e-stop re-armed by {peer.name}"
        assert armed.authority.tracks[peer.key].sequence == 0
    assert ask(Authority(1), GATE, estop("rearm")).refusal == a.NOT_LATCHED


def test_a_re_arm_that_is_replayed_is_refused() -> None:
    armed = ask(ask(Authority(1), EYE, estop("press")).authority, GATE, estop("rearm", 5)).authority
    latched = ask(armed, EYE, estop("press")).authority
    assert ask(latched, GATE, estop("rearm", 5)).refusal == a.OLD_SEQUENCE
    assert ask(latched, GATE, estop("rearm", 6, episode=2)).refusal == a.WRONG_EPISODE


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("axis", ["vx", "vy_mps", "yaw_rate_radps"])
def test_a_velocity_that_is_not_finite_is_refused(axis: str, bad: float) -> None:
    before = Authority(1)
    assert ask(before, ALICE, command(0, **{axis: bad})) == Ruling(before, a.NOT_FINITE)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (command(9, episode=2), a.WRONG_EPISODE),
        (command(9, episode=0), a.WRONG_EPISODE),
        (command(4), a.OLD_SEQUENCE),
        (command(3), a.OLD_SEQUENCE),
        (lease("take", 4), a.OLD_SEQUENCE),
        (lease("release", 0), a.OLD_SEQUENCE),
    ],
)
def test_what_is_of_another_run_or_old_changes_nothing(message: Any, reason: str) -> None:
    held = ask(Authority(1), ALICE, command(4)).authority
    assert ask(held, ALICE, message, 1) == Ruling(held, reason)
    assert ask(held, ALICE, command(5), 1).refusal == ""


def test_numbers_are_counted_by_key_and_over_all_kinds_of_messages() -> None:
    state = ask(Authority(1), ALICE, command(7)).authority
    state = ask(state, BOB, lease("take", 2)).authority  # refused, and its number is used up all the same
    assert state.tracks["key-b"].sequence == 2
    assert state.tracks["key-a"].sequence == 7
    assert ask(state, BOB, lease("take", 2)).refusal == a.OLD_SEQUENCE
    assert ask(state, ALICE, lease("take", 8)).refusal == ""


def test_a_process_of_this_machine_is_late_by_the_robots_own_clock() -> None:
    fresh = ask(Authority(1), a.NAVIGATOR, command(0, stamp_ms=100), 350)
    assert (fresh.refusal, fresh.delay_ns) == ("", 250 * MS)
    assert ask(Authority(1), a.NAVIGATOR, command(0, stamp_ms=99.9), 350).refusal == a.LATE
    ahead = ask(Authority(1), a.NAVIGATOR, command(0, stamp_ms=500), 350)
    assert (ahead.refusal, ahead.delay_ns) == ("", 0)
    assert ask(fresh.authority, a.NAVIGATOR, command(1, stamp_ms=100), 351).refusal == a.LATE


def test_a_remote_message_is_late_by_the_quickest_of_its_session_whatever_its_clock_shows() -> None:
    """The sender's clock is 1000 s ahead; the first message came in 5 ms, the next in 25."""
    ahead = 1_000_000.0
    state = ask(Authority(1), ALICE, command(0, stamp_ms=ahead), 5)
    assert (state.refusal, state.delay_ns) == ("", 0)
    slower = ask(state.authority, ALICE, command(1, stamp_ms=ahead + 100), 125)
    assert slower.refusal == ""
    assert slower.delay_ns == pytest.approx(20 * MS, abs=0.13 * MS)  # less the drift that is allowed
    held_up = ask(slower.authority, ALICE, command(2, stamp_ms=ahead + 200), 456)
    assert (held_up.refusal, held_up.authority) == (a.LATE, slower.authority)
    assert ask(slower.authority, ALICE, command(3, stamp_ms=ahead + 400), 456).refusal == ""
    quicker = ask(slower.authority, ALICE, command(2, stamp_ms=ahead + 200), 202)
    assert quicker.delay_ns == 0
    assert quicker.authority.tracks["key-a"].least_ns == (202 - 200) * MS - int(ahead * MS)


def test_a_new_connection_is_timed_anew_and_old_packets_in_it_are_not() -> None:
    state = ask(Authority(1), ALICE, command(0, stamp_ms=0), 0).authority
    rebooted = replace(ALICE, session=b"8")
    assert ask(state, ALICE, command(1, stamp_ms=0), 60_000).refusal == a.LATE
    again = ask(state, rebooted, command(1, stamp_ms=0), 60_000)
    assert (again.refusal, again.delay_ns) == ("", 0)
    assert again.authority.tracks["key-a"] == a.Track(1, b"8", 60_000 * MS, 60_000 * MS)
    assert ask(state, rebooted, command(0, stamp_ms=0), 60_000).refusal == a.OLD_SEQUENCE


def test_clocks_may_drift_apart_for_hours() -> None:
    """A sender's clock that runs slow by 500 parts in a million looks ever later; at 10 Hz over four minutes."""
    state = Authority(1)
    for tick in range(2400):
        now_ms = tick * 100.0
        ruling = ask(state, ALICE, command(tick, stamp_ms=now_ms * (1 - 5e-4)), now_ms)
        assert ruling.refusal == ""
        assert ruling.delay_ns < 1 * MS
        state = ruling.authority
    assert a.DRIFT == 1e-3


def test_the_arguments_stay_as_they_were() -> None:
    before = ask(Authority(1), ALICE, command(0)).authority
    tracks = dict(before.tracks)
    ask(before, ALICE, command(1))
    ask(before, BOB, command(1))
    assert before.tracks == tracks


peers = st.sampled_from([ALICE, BOB, GATE, EYE, a.NAVIGATOR])
messages = st.one_of(
    st.builds(command, st.integers(0, 30), stamp_ms=st.integers(0, 4000), episode=st.integers(1, 2)),
    st.builds(lease, st.sampled_from(["take", "release"]), st.integers(0, 30), st.integers(0, 4000)),
    st.builds(estop, st.sampled_from(["press", "rearm"]), st.integers(0, 30), stamp_ms=st.integers(0, 4000)),
)


@given(st.lists(st.tuples(peers, messages, st.integers(0, 700), st.booleans()), max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_is_asked_in_whatever_order(history: list[tuple[Peer, Any, int, bool]]) -> None:
    state, now_ms = Authority(1), 0
    for peer, message, wait_ms, standing in history:
        now_ms += wait_ms
        state = lapse(state, now_ms * MS).authority
        before = state
        ruling = ask(before, peer, message, now_ms, standing)
        state = ruling.authority
        if before.estop and not state.estop:
            assert message.action == "rearm"
            assert standing
            assert peer.role in ("commander", "estop")
            assert not ruling.refusal
        if isinstance(message, EStopMsg) and message.action == "press":
            assert state.estop
        if isinstance(message, CommandMsg) and not ruling.refusal:
            assert not before.estop
            assert peer.role == "commander"
            assert before.holder is None or before.holder.key == peer.key
            assert message.sequence > (before.tracks[peer.key].sequence if peer.key in before.tracks else -1)
        if before.holder is not None and state.holder != before.holder:
            released = isinstance(message, LeaseMsg) and message.action == "release"
            assert released and peer.key == before.holder.key
        assert all(state.tracks[k].sequence >= t.sequence for k, t in before.tracks.items())
