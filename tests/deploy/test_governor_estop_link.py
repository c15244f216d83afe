"""A robot that needs a hand at its e-stop moves only while it is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_governor import ALICE, CONFIG, GATE, MS, ask, clear, cycle

from deploy import authority as a
from deploy import governor as g
from deploy.authority import Authority, Peer, Request, Ruling, rule, watch_link
from deploy.governor import Governed, GovernorState
from deploy.wire import EStopMsg

LINK_S = 1.0
EYE = Peer("eye", "eye", "observer", b"3")


def hold(sequence: int, at_ms: float, peer: Peer = GATE, stamp_ms: float | None = None, episode: int = 1) -> Request:
    stamp = at_ms if stamp_ms is None else stamp_ms
    message = EStopMsg(sequence=sequence, stamp_ns=int(stamp * MS), episode=episode, action="hold")
    return Request(peer, message)


def drive(until_ms: int, held_until_ms: int, link_s: float = LINK_S) -> list[Governed]:
    """A cycle each 20 ms, a command and a picture each 100 ms; the e-stop is held each 200 ms, up to a time."""
    state, found = GovernorState.start(1, link_s), []
    for now in range(0, until_ms, 20):
        requests = [ask(0.6, sequence=now, at_ms=now)] if now % 100 == 0 else []
        if now % 200 == 0 and now <= held_until_ms:
            requests.append(hold(now, now))
        found.append(cycle(state, now, *requests, seen=clear(now)))
        state = found[-1].state
    return found


def test_nobody_holds_it_and_the_robot_stands() -> None:
    cycles = drive(1000, -1)
    assert not any(c.velocity.any() for c in cycles)
    assert {c.reasons for c in cycles} == {(g.NO_LINK,)}
    assert cycles[-1].state.authority.estop == ""


def test_it_moves_while_it_is_held_and_its_loss_is_a_latched_e_stop() -> None:
    cycles = drive(3000, 1000)
    assert cycles[0].notes == ("lease taken by navigator", "e-stop link held by gate")
    last = max(i for i, c in enumerate(cycles) if c.velocity.any()) * 20
    assert 1000 + LINK_S * 1e3 <= last <= 1000 + LINK_S * 1e3 + 100
    lost = next(i for i, c in enumerate(cycles) if a.LINK_LOST in c.notes)
    assert lost * 20 == 2020
    assert cycles[100].reasons == ()  # at 2000 ms, to the nanosecond
    assert cycles[-1].state.authority.estop == a.LINK_LOST
    assert cycles[-1].reasons == (g.ESTOP,)


def test_after_its_loss_it_is_held_re_armed_and_goes_on() -> None:
    state = drive(2500, 1000)[-1].state
    rearm = Request(GATE, EStopMsg(sequence=5001, stamp_ns=2500 * MS, episode=1, action="rearm"))
    back = cycle(state, 2500, hold(5000, 2500), rearm, seen=clear(2500))
    assert back.answers == ("", "")
    assert back.notes[-2:] == ("e-stop link held by gate", "e-stop re-armed by gate")
    driven = cycle(back.state, 2520, ask(0.6, sequence=6000, at_ms=2520), seen=clear(2520))
    assert driven.velocity[0] > 0


def test_a_robot_that_needs_no_hand_does_not_miss_it() -> None:
    cycles = drive(3000, 1000, link_s=0.0)
    assert cycles[-1].velocity[0] == 0.6
    assert cycles[-1].state.authority.hand_ns is None
    assert not any("e-stop" in note for c in cycles for note in c.notes)


def ruled(authority: Authority, request: Request, now_ms: float) -> Ruling:
    return rule(authority, request, int(now_ms * MS), CONFIG, False)


def test_who_may_hold_it() -> None:
    start = Authority(1, link_s=LINK_S)
    for peer in (GATE, ALICE):
        held = ruled(start, hold(0, 7, peer), 7)
        assert (held.refusal, held.note) == ("", f"e-stop link held by {peer.name}")
        assert held.authority.hand_ns == 7 * MS
        assert held.authority.tracks[peer.key].sequence == 0
        again = ruled(held.authority, hold(1, 50, peer), 50)
        assert (again.note, again.authority.hand_ns) == ("", 50 * MS)
    refused = ruled(start, hold(0, 0, EYE), 0)
    assert refused.refusal == a.ROLE
    assert refused.authority.hand_ns is None
    unneeded = ruled(Authority(1), hold(0, 0), 0)
    assert (unneeded.refusal, unneeded.note, unneeded.authority.hand_ns) == ("", "", None)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (hold(3, 100), a.OLD_SEQUENCE),
        (hold(4, 100, episode=2), a.WRONG_EPISODE),
        (hold(4, 400, stamp_ms=100), a.LATE),
    ],
)
def test_what_is_old_late_or_of_another_run_holds_nothing(request_: Request, reason: str) -> None:
    first = ruled(Authority(1, link_s=LINK_S), hold(3, 0), 0).authority
    later = ruled(first, request_, 400)
    assert later.refusal == reason
    assert later.authority.hand_ns == 0


def test_a_hold_counts_from_when_it_left_and_never_backwards() -> None:
    first = ruled(Authority(1, link_s=LINK_S), hold(0, 0), 0).authority
    late = ruled(first, hold(1, 300, stamp_ms=100), 300).authority  # 200 ms on its way longer than the first
    assert late.hand_ns == (100 + 300 * a.DRIFT) * MS
    fresh = replace(late, hand_ns=280 * MS)
    assert ruled(fresh, hold(2, 320, stamp_ms=120), 320).authority.hand_ns == 280 * MS


def test_a_press_that_was_there_before_keeps_its_name() -> None:
    held = Authority(1, estop="gate: a person", link_s=LINK_S, hand_ns=0)
    assert watch_link(held, 1000 * MS) == Ruling(held)
    lost = watch_link(held, 1000 * MS + 1)
    assert (lost.authority.estop, lost.authority.hand_ns, lost.note) == ("gate: a person", None, a.LINK_LOST)
    assert watch_link(lost.authority, 5000 * MS) == Ruling(lost.authority)
