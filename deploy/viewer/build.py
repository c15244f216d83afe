"""From log files to pages: a log is replayed for what was believed and imagined, and the rest is worked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from deploy import wire
from deploy.log_reader import Log, read_log
from deploy.points import clearance_m
from deploy.replay import Replay, ReplayOptions, replay
from deploy.viewer.beliefs import Beliefs, OwnTracker
from deploy.viewer.content import block_of
from deploy.viewer.episode import Episode, Floats, episode_of, logged_rollouts, observations_of
from deploy.viewer.extras import Extras, Forecasts, Rollouts, discounted
from deploy.viewer.imagined import Imagined
from deploy.viewer.page import page
from policies.bundle_policy import BundleState
from robonav.errors import RobonavError
from robonav.files import write_text_atomic
from robonav.types import Decision, Observation

DISCOUNT = 0.99  # of a tick, as the training's default


class Reward(Protocol):
    """A tick's reward from progress, clearance and outcome; see `sim.rewards.RewardConfig.reward`."""

    def __call__(self, progress_m: float, clearance_m: float, outcome: str | None, /) -> float:
        """The reward."""


Forecaster = Callable[[Episode, Sequence[Observation], Floats], Forecasts]


@dataclass(frozen=True, slots=True)
class Viewed:
    """A log with all that could be worked out about it. `warning` says why it could not be replayed, if so."""

    episode: Episode
    beliefs: Beliefs
    extras: Extras
    replay: Replay | None
    warning: str = ""


def view(
    path: str | Path,
    options: ReplayOptions | None = None,
    reward: Reward | None = None,
    forecaster: Forecaster | None = None,
) -> Viewed:
    """Works out what a page shows of a log.

    Args:
        path: the log.
        options: of the replay.
        reward: estimates rewards; a log holds none.
        forecaster: dreams along the log, for somebody with a world model at hand.

    Raises:
        LogError: no log of ours.
    """
    log = read_log(path)
    episode = episode_of(log)
    beliefs = Beliefs(episode.robot)
    imagined = Imagined(episode.robot, episode.start_ns, len(episode.decided.t_s))

    def on_tick(message: wire.ObservationMsg, state: BundleState, decision: Decision) -> None:
        seen = state.pilot.surroundings
        planned = None if seen.points_m is None else seen.tracks
        beliefs.add((message.stamp_ns - episode.start_ns) * 1e-9, state.situation, planned)
        imagined.on_tick(message, state, decision)

    found, warning = None, ""
    try:
        found = replay(log, options=options, on_tick=on_tick, watch=imagined.watch)
    except RobonavError as error:
        warning = f"not replayed: {error}"
    if len(beliefs.movers_t_s) < len(episode.sensed.t_s) and (found is None or found.report.warnings):
        beliefs = _tracked(log, episode)
    absent = {"uncertainty": imagined.why_not, "rollouts": imagined.why_not} if imagined.why_not else {}
    rewards = None if reward is None else _rewards(episode, beliefs, reward)
    forecasts = None
    if forecaster is not None and len(episode.sensed.t_s) > 1:
        forecasts = forecaster(episode, observations_of(log), np.zeros(0) if rewards is None else rewards)
    real_return = None if rewards is None else discounted(rewards, DISCOUNT)
    extras = Extras(rewards, real_return, imagined.rollouts() or _logged(log), forecasts, absent)
    return Viewed(episode, beliefs, extras, found, warning)


def write_page(views: Sequence[Viewed], path: str | Path) -> int:
    """Writes a page of one log or two beside each other; gives its size in bytes."""
    title = " | ".join(v.episode.name for v in views)
    text = page(title, [block_of(v.episode, v.beliefs, v.extras) for v in views])
    write_text_atomic(path, text)
    return len(text.encode())


def _logged(log: Log) -> Rollouts | None:
    """What the log itself holds of what was imagined; of the priors' disagreement it says nothing."""
    found = logged_rollouts(log)
    return None if found is None else Rollouts(*found, doubt=np.full(len(found[0]), np.nan, np.float32))


def _tracked(log: Log, episode: Episode) -> Beliefs:
    tracker = OwnTracker(episode.robot)
    for t_s, observation in zip(episode.sensed.t_s.tolist(), observations_of(log), strict=True):
        tracker.add(t_s, observation)
    return tracker.beliefs


def _rewards(episode: Episode, beliefs: Beliefs, reward: Reward) -> Floats | None:
    """(N,) estimated: progress by the route that was left, clearance by the scan; 0 at the first observation."""
    times = episode.sensed.t_s
    if len(times) < 2 or not beliefs.remaining_m:
        return None
    at = np.clip(np.searchsorted(beliefs.movers_t_s, times + 1e-6) - 1, 0, None)
    remaining = np.array(beliefs.remaining_m)[at]
    # A new plan may find a longer way at once; that is no step of the robot.
    most_m = 2 * episode.robot.vx_max_mps * episode.robot.dt_s
    progress = np.clip(np.nan_to_num(-np.diff(remaining)), -most_m, most_m)
    clearance = np.full(len(times), np.inf)
    if episode.sensed.scan_m is not None:
        clearance = np.nan_to_num(clearance_m(episode.sensed.scan_m, episode.robot), nan=np.inf)
    out = np.zeros(len(times))
    for i in range(1, len(times)):
        last = i == len(times) - 1 and episode.outcome in ("success", "collision", "timeout")
        out[i] = reward(float(progress[i - 1]), float(clearance[i]), episode.outcome if last else None)
    return out
