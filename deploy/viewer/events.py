"""What is worth a jump: stops, near misses, late ticks, large model errors, ends, and the log's own lines."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from deploy import governor
from deploy.viewer.episode import Episode, Floats

STOPS = (
    governor.STOPPED,
    governor.TILT,
    governor.STALE,
    governor.EXPIRED,
    governor.NO_OBSERVATION,
    governor.NO_COMMAND,
)
NEAR_M = 0.10  # from the footprint to the nearest hit
LATE_SHARE = 0.25  # of the period; what the driver counts as late
GAP_S = 0.25  # marks of one reason that are closer are one mark
APART_S = 1.0  # events of one kind that are closer are one event
ERROR_SIGMAS = 3.0  # robust ones, above the median, that make a model's error large


class Event(NamedTuple):
    """A moment that somebody may want to see."""

    t_s: float
    kind: str  # stop, near, late, error, collision, arrived, note
    text: str


class Mark(NamedTuple):
    """A time during which the governor gave a reason."""

    reason: str
    start_s: float
    end_s: float


def marks_of(episode: Episode) -> list[Mark]:
    """The governor's reasons as spans, each reason by itself."""
    times = episode.governed.t_s
    open_: dict[str, list[float]] = {}
    found: list[Mark] = []
    for t, reasons in zip(times.tolist(), episode.governed.reasons, strict=True):
        for reason in reasons:
            span = open_.get(reason)
            if span is not None and t - span[1] <= GAP_S:
                span[1] = t
                continue
            if span is not None:
                found.append(Mark(reason, span[0], span[1]))
            open_[reason] = [t, t]
    found += [Mark(reason, a, b) for reason, (a, b) in open_.items()]
    return sorted(found, key=lambda m: m.start_s)


def events_of(episode: Episode, clearance: Floats | None, error: tuple[Floats, Floats] | None = None) -> list[Event]:
    """All events in order.

    Args:
        episode: the log.
        clearance: (N,) of the observations.
        error: times and errors of the world model's forecasts.
    """
    found = [Event(m.start_s, "stop", f"governor: {m.reason}") for m in marks_of(episode) if m.reason in STOPS]
    found += [*_ends(episode), *_late(episode)]
    if clearance is not None:
        found += _near(episode.sensed.t_s, clearance)
    if error is not None:
        found += _large(*error)
    judged = any(e.kind in ("arrived", "collision") for e in found)
    found += [Event(n.t_s, "note", f"{n.kind}: {n.text}") for n in episode.notes if not (judged and n.kind == "end")]
    return _thinned(sorted(found, key=lambda e: e.t_s))


def _ends(episode: Episode) -> list[Event]:
    stated = episode.stated
    found = []
    for kind, flags, text in (
        ("collision", stated.collided, "the robot collided"),
        ("arrived", stated.arrived, "the robot arrived"),
    ):
        if flags.any():
            found.append(Event(float(stated.t_s[int(np.argmax(flags))]), kind, text))
    return found


def _late(episode: Episode) -> list[Event]:
    period_ms = episode.robot.dt_s * 1e3
    stated, decided = episode.stated, episode.decided
    late = np.flatnonzero(stated.lateness_ms > LATE_SHARE * period_ms)
    found = [
        Event(float(stated.t_s[i]), "late", f"tick {stated.lateness_ms[i]:.0f} ms after its deadline") for i in late
    ]
    over = np.flatnonzero(decided.total_ms > period_ms)
    return found + [
        Event(float(decided.t_s[i]), "late", f"decision took {decided.total_ms[i]:.0f} of {period_ms:.0f} ms")
        for i in over
    ]


def _near(t_s: Floats, clearance: Floats) -> list[Event]:
    """The closest moment of each stay below NEAR_M."""
    close = np.nan_to_num(clearance, nan=np.inf) < NEAR_M
    edges = np.flatnonzero(np.diff(np.concatenate([[False], close, [False]]).astype(np.int8)))
    found = []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        at = first + int(np.nanargmin(clearance[first:end]))
        found.append(Event(float(t_s[at]), "near", f"obstacle {clearance[at] * 100:.0f} cm from the body"))
    return found


def _large(t_s: Floats, error: Floats) -> list[Event]:
    known = error[np.isfinite(error)]
    if len(known) < 5:
        return []
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    limit = middle + ERROR_SIGMAS * max(spread, 1e-6)
    found = []
    for i in np.flatnonzero(np.nan_to_num(error, nan=-np.inf) > limit):
        found.append(Event(float(t_s[i]), "error", f"model error {error[i]:.2f} m, median {middle:.2f} m"))
    return found


def _thinned(events: list[Event]) -> list[Event]:
    """The first of each kind within APART_S, except for notes and ends."""
    last: dict[Any, float] = {}
    kept = []
    for event in events:
        key = (event.kind, event.text) if event.kind in ("note", "stop") else event.kind
        if event.t_s - last.get(key, -np.inf) >= APART_S:
            kept.append(event)
            last[key] = event.t_s
    return kept
