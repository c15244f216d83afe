"""Faults of the link to people, with remote commanders that drive the robot, or try to."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from deploy import keys
from deploy.authority import LEASE, OLD_SEQUENCE
from deploy.drill.cable import Cable
from deploy.drill.faults import HOUR_NS, Fault, Window
from deploy.drill.pilot import AWAY, PERIOD_S, STILL, Pilot
from deploy.drill.session import Session, wait_until
from deploy.drill.shared import zero_time_ms
from deploy.remote import Remote
from deploy.timing import now_ns

WARM_S = 0.8
CUT_S = 1.0


def away_ms(tape: NDArray[Any], from_ns: int, until_ns: int) -> float:
    """Milliseconds in which the robot was driven backwards, as only those ask who must not drive."""
    stamps = np.concatenate([tape["stamp_ns"], [until_ns]]).clip(from_ns, until_ns)
    return float(np.diff(stamps)[np.isclose(tape["velocity"][:, 0], AWAY[0])].sum() * 1e-6)


def moving_ms(tape: NDArray[Any], from_ns: int, until_ns: int) -> float:
    """Milliseconds in which the robot was driven."""
    return (until_ns - from_ns) * 1e-6 - zero_time_ms(tape, from_ns, until_ns)


def cut(session: Session) -> Window:
    """The link of the commander who drives is cut for a while; what leaves meanwhile must not arrive after."""
    cable = Cable(int(session.address.rsplit(":", 1)[1]))
    try:
        with Pilot(session, session.pair("alice"), cable.port) as pilot:
            pilot.take_over()
            pilot.drive(WARM_S)
            began_ns, cable.whole = now_ns(), False
            pilot.drive(CUT_S)
            cable.whole = True
            for _ in range(8):  # less than the lease: then the navigator takes over
                pilot.poll()
                time.sleep(PERIOD_S)
            ended_ns = now_ns()
            pilot.drive(1.5)
            moves = moving_ms(session.tape(), ended_ns, now_ns()) > 0
        return Window(began_ns, ended_ns, "" if moves else "the commander did not come back after the cut")
    finally:
        cable.close()


def two_commanders(session: Session) -> Window:
    """A second commander asks for the opposite while the first one drives."""
    with Pilot(session, session.pair("alice")) as first, Pilot(session, session.pair("bob")) as second:
        first.take_over()
        second.remote.connect(5.0)
        first.drive(WARM_S)
        began_ns = now_ns()
        for _ in range(20):
            first.drive(PERIOD_S)
            second.command(AWAY)
            second.poll()
        ended_ns = now_ns()
        tape = session.tape()
        wrong = "" if second.refusals() == {LEASE} else f"answered with {sorted(second.refusals())}"
        if second.accepted:
            wrong = f"{second.accepted} commands of the second were accepted"
        if (stood := zero_time_ms(tape, began_ns, ended_ns)) > session.spec.dt_s * 1e3:
            wrong = f"the first one's robot stood for {stood:.0f} ms"
        return Window(began_ns, ended_ns, wrong, away_ms(tape, began_ns, ended_ns))


def replayed(session: Session) -> Window:
    """What a commander sent before is sent again, over the same and over a new connection."""
    pair = session.pair("alice")
    with Pilot(session, pair) as pilot:
        pilot.take_over()
        pilot.drive(WARM_S)
        frames, numbers = list(pilot.frames), set(pilot.sent)
        pilot.drive(0.6, STILL)
        pilot.answers.clear()
        began_ns = now_ns()
        _send_all(pilot, frames, pilot)
        with Pilot(session, pair) as again:
            while again.remote.state is None and now_ns() - began_ns < 10_000_000_000:
                pilot.keep_still()
                again.poll_until(lambda: True, PERIOD_S)
            _send_all(again, frames, pilot)
            ended_ns = now_ns()
            answers = [answer for answer in (*pilot.answers, *again.answers) if answer.to in numbers]
        said = {answer.reason for answer in answers}
        wrong = "" if said == {OLD_SEQUENCE} else f"answered with {sorted(said)}"
        return Window(began_ns, ended_ns, wrong, moving_ms(session.tape(), began_ns, ended_ns))


def _send_all(pilot: Pilot, frames: list[bytes], holder: Pilot) -> None:
    """Sends old frames; the holder of the lease meanwhile keeps it by asking for a standstill."""
    for frame in frames:
        pilot.remote.send_frame(frame)
        holder.keep_still()
        pilot.poll()
        holder.poll()
        time.sleep(PERIOD_S)


def unlisted(session: Session) -> Window:
    """Somebody who knows the robot's public key, but whose own is not listed."""
    public, secret = zmq.curve_keypair()
    pair = keys.Pair("mallory", public.decode(), secret.decode(), session.pair("alice").robot)
    began_ns = now_ns()
    with Pilot(session, pair) as pilot:
        pilot.drive(1.0, AWAY)
        wrong = "" if pilot.remote.state is None and not pilot.answers else "the robot answered"
    return _still_driving(session, began_ns, wrong)


def garbage(session: Session) -> Window:
    """Bytes that are no message, from a commander's key."""
    rng, began_ns = random.Random(0), now_ns()
    with Pilot(session, session.pair("bob")) as pilot:
        pilot.remote.connect(5.0)
        for _ in range(1000):
            pilot.remote.send_frame(rng.randbytes(rng.randrange(200)))
            pilot.poll()
            time.sleep(0.001)
        wrong = f"{pilot.accepted} messages were accepted" if pilot.accepted else ""
    return _still_driving(session, began_ns, wrong)


def _still_driving(session: Session, began_ns: int, wrong: str) -> Window:
    ended_ns = now_ns()
    tape = session.tape()
    if (stood := zero_time_ms(tape, began_ns, ended_ns)) > session.spec.dt_s * 1e3:
        wrong = f"the robot stood for {stood:.0f} ms"
    return Window(began_ns, ended_ns, wrong, away_ms(tape, began_ns, ended_ns))


def revoked(session: Session) -> Window:
    """The key of the commander who drives is revoked."""
    with Pilot(session, session.pair("leaver")) as pilot:
        pilot.take_over()
        pilot.drive(WARM_S)
        began_ns = now_ns()
        keys.revoke(session.folder / "keys", "leaver")
        pilot.drive(1.5)
        return Window(began_ns, now_ns())


def odd_clock(session: Session) -> Window:
    """A commander whose clock is a day off."""
    with Pilot(session, session.pair("alice"), clock_ns=lambda: 24 * HOUR_NS) as pilot:
        pilot.take_over()
        pilot.drive(WARM_S)
        began_ns = now_ns()
        pilot.drive(1.0)
        return Window(began_ns, now_ns())


def clock_jumps(session: Session) -> Window:
    """A commander whose clock jumps back by an hour while it drives: its messages look an hour late."""
    jump_ns = [2 * HOUR_NS]
    with Pilot(session, session.pair("alice"), clock_ns=lambda: jump_ns[0]) as pilot:
        pilot.take_over()
        pilot.drive(WARM_S)
        began_ns, jump_ns[0] = now_ns(), HOUR_NS
        pilot.drive(1.0)
        return Window(began_ns, now_ns())


def pressed(session: Session) -> Window:
    """The e-stop, by a key that may not drive; it is re-armed after."""
    with Remote(session.address, session.pair("gate")) as gate:
        gate.connect(5.0)
        began_ns = now_ns()
        gate.press("drill")
        time.sleep(WARM_S)
        ended_ns = now_ns()
        gate.rearm()
        return Window(began_ns, ended_ns)


def killed_while_pressed(session: Session) -> Window:
    """The governor is killed while its e-stop is latched; the one in its place must not let the robot go."""
    with Remote(session.address, session.pair("gate")) as gate:
        gate.connect(5.0)
        began_ns = now_ns()
        gate.press("drill")
        time.sleep(0.5)
        before = session.pids()["governor"]
        session.send("governor", signal.SIGKILL)
        back = wait_until(lambda: session.pids().get("governor", before) != before, 30.0)
        gate.state = None
        gate.connect(60.0)
        time.sleep(3.0)
        gate.poll()
        ended_ns = now_ns()
        latched = gate.state.estop if gate.state is not None else ""
        gate.rearm(10.0)
        wrong = "" if back and "gate: drill" in latched else f"the e-stop of the new governor says '{latched}'"
        return Window(began_ns, ended_ns, wrong)


def let_go(session: Session) -> Window:
    """The program that holds the e-stop's link is killed; the e-stop is re-armed by another one that holds it."""
    assert session.hand is not None
    began_ns = now_ns()
    session.hand.kill()
    time.sleep(session.config.operator.estop_link_s + 0.8)
    ended_ns = now_ns()
    session.take_hand()
    with Remote(session.address, session.pair("gate")) as gate:
        gate.rearm(5.0)
    return Window(began_ns, ended_ns)


def links() -> tuple[Fault, ...]:
    """All of them."""
    return (
        Fault("e-stop", "pressed over the link, re-armed after", "stops", pressed, reason="e-stop"),
        Fault("governor killed, e-stop latched", "another takes its place", "stops", killed_while_pressed),
        Fault("link cut", f"cut for {CUT_S:g} s under a remote commander", "stops", cut, reason="expired"),
        Fault("commander's clock off", "by a day", "drives on", odd_clock),
        Fault("commander's clock jumps", "back by an hour", "stops", clock_jumps, reason="refused: late"),
        Fault("key revoked", "while it drives", "stops", revoked, life="revoke"),
        Fault("two commanders", "the second asks for the opposite", "refused", two_commanders, "none"),
        Fault("replayed packets", "same and new connection", "refused", replayed, "none"),
        Fault("unlisted key", "a key that nobody allowed", "refused", unlisted, "none"),
        Fault("garbage messages", "1000, from a commander's key", "refused", garbage, "none"),
    )


def hands() -> tuple[Fault, ...]:
    """Those of a run that needs somebody at the e-stop."""
    about = "who holds it is killed, where one is required"
    return (Fault("e-stop link lost", about, "stops", let_go, "estop link", reason="e-stop", hand=True),)
