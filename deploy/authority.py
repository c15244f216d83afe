"""Who may move the robot: lease, e-stop, and whether a message is fresh. Pure, with explicit state and time.

A message is heard when its episode is the run's, its sequence number grows by key, and it did not lie on the way for
longer than a command lives. Pressing the e-stop is exempt from all three: it is heard from everybody, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Union

import numpy as np

from deploy.config import GovernorConfig
from deploy.wire import CommandMsg, EStopMsg, LeaseMsg

Role = Literal["observer", "estop", "commander"]
Command = Union[CommandMsg, EStopMsg, LeaseMsg]  # noqa: UP007  Python 3.10

NOT_FINITE = "refused: not finite"
WRONG_EPISODE = "refused: episode"
OLD_SEQUENCE = "refused: sequence"
LATE = "refused: late"
ROLE = "refused: role"
LEASE = "refused: lease"
LATCHED = "refused: e-stop"
NOT_LATCHED = "refused: nothing to re-arm"
MOVING = "refused: moving"

LINK_LOST = "e-stop link lost"

DRIFT = 1e-3  # how fast two clocks may part; quartz keeps 1e-4


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sends: the identity that the link has checked. A new connection is a new session."""

    key: str  # public key, or a word for this machine's own processes
    name: str
    role: Role
    session: bytes = b""  # empty for a process of this machine, whose clock is the robot's


NAVIGATOR = Peer("local", "navigator", "commander")


@dataclass(frozen=True, slots=True)
class Request:
    """A message and who sent it."""

    peer: Peer
    message: Command


@dataclass(frozen=True, slots=True)
class Track:
    """What is remembered of a key: its last number, and the shortest way of its messages, in the clocks' difference."""

    sequence: int
    session: bytes
    least_ns: int  # of receipt less the sender's stamp
    heard_ns: int


@dataclass(frozen=True, slots=True)
class Authority:
    """Who holds the lease, whether the e-stop is latched, and what was heard of each key."""

    episode: int
    estop: str = ""  # who pressed it and why; empty when it is not latched
    link_s: float = 0.0  # for which the e-stop's link may be silent; 0 where nobody has to hold it
    hand_ns: int | None = None  # when it was last held; None before, and after its loss
    holder: Peer | None = None
    held_until_ns: int = 0
    tracks: Mapping[str, Track] = field(default_factory=dict)  # by key


@dataclass(frozen=True, slots=True)
class Ruling:
    """What came of a request: "" or the reason why it was refused, and what changed, for the log."""

    authority: Authority
    refusal: str = ""
    note: str = ""
    delay_ns: int = 0  # for which an accepted message was on its way longer than the quickest


def lapse(authority: Authority, now_ns: int) -> Ruling:
    """Ends a lease that nobody renewed."""
    holder = authority.holder
    if holder is None or now_ns <= authority.held_until_ns:
        return Ruling(authority)
    return Ruling(replace(authority, holder=None), note=f"lease of {holder.name} lapsed")


def watch_link(authority: Authority, now_ns: int) -> Ruling:
    """Presses the e-stop when whoever held its link falls silent."""
    if authority.hand_ns is None or now_ns - authority.hand_ns <= authority.link_s * 1e9:
        return Ruling(authority)
    authority = replace(authority, hand_ns=None)
    return Ruling(replace(authority, estop=authority.estop or LINK_LOST), note=LINK_LOST)


def rule(authority: Authority, request: Request, now_ns: int, config: GovernorConfig, standing: bool) -> Ruling:
    """Hears a request.

    Args:
        authority: before it.
        request: from a peer whose identity has been checked.
        now_ns: the robot's monotonic clock.
        config: how long commands and leases live.
        standing: whether the robot stands, of which a re-arm needs to be sure.
    """
    peer, message = request.peer, request.message
    if isinstance(message, EStopMsg) and message.action == "press":
        return _press(authority, peer, message)
    heard = _hear(authority, peer, message, now_ns, config)
    if heard.refusal:
        return heard
    if isinstance(message, EStopMsg) and message.action == "hold":
        return _hold(heard.authority, peer, now_ns - heard.delay_ns)
    if isinstance(message, EStopMsg):
        return _rearm(heard.authority, peer, standing)
    if peer.role != "commander":
        return replace(heard, refusal=ROLE)
    if isinstance(message, LeaseMsg):
        return _lease(heard.authority, peer, message, now_ns, config)
    if authority.estop:
        return replace(heard, refusal=LATCHED)
    return replace(_take(heard.authority, peer, now_ns, config), delay_ns=heard.delay_ns)


def _press(authority: Authority, peer: Peer, message: EStopMsg) -> Ruling:
    said = f"{peer.name}: {message.text}" if message.text else peer.name
    if authority.estop:
        return Ruling(authority)  # who pressed it first is kept
    return Ruling(replace(authority, estop=said), note=f"e-stop pressed by {said}")


def _hold(authority: Authority, peer: Peer, then_ns: int) -> Ruling:
    """A hand is at the e-stop; where none is needed nothing is kept of it."""
    if peer.role == "observer":
        return Ruling(authority, ROLE)
    if not authority.link_s:
        return Ruling(authority)
    note = f"e-stop link held by {peer.name}" if authority.hand_ns is None else ""
    return Ruling(replace(authority, hand_ns=max(then_ns, authority.hand_ns or then_ns)), note=note)


def _rearm(authority: Authority, peer: Peer, standing: bool) -> Ruling:
    if peer.role == "observer":
        return Ruling(authority, ROLE)
    if not authority.estop:
        return Ruling(authority, NOT_LATCHED)
    if not standing:
        return Ruling(authority, MOVING)
    return Ruling(replace(authority, estop=""), note=f"e-stop re-armed by {peer.name}")


def _lease(authority: Authority, peer: Peer, message: LeaseMsg, now_ns: int, config: GovernorConfig) -> Ruling:
    if message.action == "take":
        return _take(authority, peer, now_ns, config)
    if authority.holder is None or authority.holder.key != peer.key:
        return Ruling(authority, LEASE)
    return Ruling(replace(authority, holder=None), note=f"lease released by {peer.name}")


def _take(authority: Authority, peer: Peer, now_ns: int, config: GovernorConfig) -> Ruling:
    """Takes the lease if it is free, or renews it; an accepted command does so too."""
    holder = authority.holder
    if holder is not None and holder.key != peer.key:
        return Ruling(authority, LEASE)
    held = replace(authority, holder=peer, held_until_ns=now_ns + int(config.lease_s * 1e9))
    return Ruling(held, note=f"lease taken by {peer.name}" if holder is None else "")


def _hear(authority: Authority, peer: Peer, message: Command, now_ns: int, config: GovernorConfig) -> Ruling:
    """Checks numbers, episode, sequence and the time on the way, and remembers what was heard."""
    if isinstance(message, CommandMsg):
        asked = (message.vx_mps, message.vy_mps, message.yaw_rate_radps)
        if not np.isfinite(asked).all():
            return Ruling(authority, NOT_FINITE)
    if message.episode != authority.episode:
        return Ruling(authority, WRONG_EPISODE)
    track = authority.tracks.get(peer.key)
    if track is not None and message.sequence <= track.sequence:
        return Ruling(authority, OLD_SEQUENCE)
    least_ns = _least_ns(track, peer, message.stamp_ns, now_ns)
    delay_ns = max(0, now_ns - message.stamp_ns - least_ns)
    if delay_ns > config.command_life_s * 1e9:
        return Ruling(authority, LATE)
    heard = Track(message.sequence, peer.session, least_ns, now_ns)
    return Ruling(replace(authority, tracks={**authority.tracks, peer.key: heard}), delay_ns=delay_ns)


def _least_ns(track: Track | None, peer: Peer, stamp_ns: int, now_ns: int) -> int:
    """The shortest way so far, as receipt less stamp: it holds the unknown difference of the clocks as well.

    Only differences to it are used, so the sender's clock may show anything; it is allowed to drift slowly.
    """
    if not peer.session:
        return 0
    way_ns = now_ns - stamp_ns
    if track is None or track.session != peer.session:
        return way_ns
    return min(way_ns, track.least_ns + int(DRIFT * (now_ns - track.heard_ns)))
