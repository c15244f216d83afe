"""The governor's core and sensors that deliver new stamps with old or impossible pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_governor import CONFIG, LIMITS, MS, NOWHERE, ask, clear, cycle

from deploy import governor as g
from deploy.governor import Governed, GovernorInputs, GovernorState, Seen, govern, observed
from deploy.sensors import BLIND_SCAN, Picture

ROOM = Picture("a room", 1.0)
TICK_MS = 100


def looks(at_ms: float, digest: str, vx: float = 0.0) -> Seen:
    """An observation with a new stamp, whose scan has this digest."""
    return replace(clear(at_ms, vx=vx), pictures={"scan": Picture(digest, 1.0 if digest else 0.0)})


def drive(digests: list[str], vx: float = 0.6, twist: float | None = None) -> list[Governed]:
    """A cycle each 20 ms, a command and a picture each 100 ms; the body moves as it is told unless `twist` is given."""
    state, found = GovernorState.start(1), []
    for i in range(len(digests) * 5):
        requests = [ask(vx, sequence=i + 1, at_ms=i * 20)] if i % 5 == 0 else []
        measured = float(state.motion.velocity[0]) if twist is None else twist
        seen = looks(i * 20, digests[i // 5], measured) if i % 5 == 0 else None
        found.append(cycle(state, i * 20, *requests, seen=seen))
        state = found[-1].state
    return found


def stops_at_ms(cycles: list[Governed]) -> float:
    """When the first cycle stood again after it drove."""
    speeds = [float(c.velocity[0]) for c in cycles]
    driven = next(i for i, v in enumerate(speeds) if v > 0)
    return 20.0 * next(i for i in range(driven, len(speeds)) if speeds[i] == 0.0)


@pytest.mark.parametrize("twist", [None, 0.0])
def test_a_picture_that_stays_the_same_stops_a_robot_that_is_driven(twist: float | None) -> None:
    """Whether or not its odometry hangs as well. The picture at 500 ms is the last that is new."""
    cycles = drive([str(min(i, 5)) for i in range(20)], twist=twist)
    assert stops_at_ms(cycles) <= 500 + CONFIG.observation_life_s * 1e3 + TICK_MS
    assert not any(c.velocity.any() for c in cycles[55:])  # and it stays so, though it stands now
    assert cycles[-1].reasons == (g.FROZEN,)
    assert not any(g.FROZEN in c.reasons for c in cycles[:46])


def test_it_drives_on_when_the_picture_changes_again() -> None:
    cycles = drive([str(min(i, 5)) for i in range(15)] + [f"new {i}" for i in range(10)])
    assert cycles[74].reasons == (g.FROZEN,)
    assert cycles[-1].velocity[0] == 0.6
    assert cycles[-1].reasons == ()


def test_a_robot_that_stands_may_see_the_same_for_ever() -> None:
    cycles = drive(["still"] * 30, vx=0.0)
    assert {c.reasons for c in cycles} == {()}


def test_creeping_below_standstill_is_standing() -> None:
    slow = CONFIG.standing_mps
    assert {c.reasons[-1:] for c in drive(["still"] * 30, vx=slow)} <= {(), ("jerk",)}
    assert drive(["still"] * 30, vx=slow * 1.05)[-1].reasons == (g.FROZEN,)
    assert drive(["still"] * 30, vx=0.0, twist=slow * 1.05)[-1].reasons == (g.FROZEN,)
    assert drive(["still"] * 30, vx=0.0, twist=-slow * 1.05)[-1].reasons == (g.FROZEN,)


def test_a_robot_that_is_turned_without_being_asked_moves_too() -> None:
    state = GovernorState.start(1)
    for i in range(10):
        seen = replace(looks(i * 100, "same"), twist_base=np.array([0.0, 0.0, 0.5]))
        state = cycle(state, i * 100, ask(0.0, sequence=i + 1, at_ms=i * 100), seen=seen).state
    assert cycle(state, 1000, ask(0.6, sequence=20, at_ms=1000)).reasons == (g.FROZEN,)


def test_a_scan_that_loses_all_at_once_is_refused_and_goes_stale() -> None:
    cycles = drive([str(i) for i in range(6)] + [""] * 10)
    assert stops_at_ms(cycles) <= 500 + CONFIG.observation_life_s * 1e3 + TICK_MS
    assert cycles[30].reasons[0] == BLIND_SCAN
    assert cycles[-1].reasons == (g.STALE,)
    assert cycles[-5].reasons == (BLIND_SCAN, g.STALE)
    assert cycles[-1].state.seen is not None
    assert cycles[-1].state.seen.received_ns == 500 * MS  # what is refused is not looked at


def test_nothing_in_range_from_the_start_is_an_open_place() -> None:
    assert drive([""] * 20)[-1].velocity[0] == 0.6


def test_pictures_come_with_what_is_seen() -> None:
    assert observed(NOWHERE, np.zeros(3), np.zeros(2), 0).pictures == {}
    seen = observed(NOWHERE, np.zeros(3), np.zeros(2), 0, 1, {"scan": ROOM})
    assert seen.pictures == {"scan": ROOM}
    state = govern(GovernorState.start(1), GovernorInputs((), seen), 0, LIMITS).state
    assert state.watches["scan"].picture == ROOM
    assert state.watches["scan"].since_ns == 0
