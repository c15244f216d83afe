"""What a page shows of one log: words, and arrays as small as they can be without being seen to be so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.points import clearance_m
from deploy.viewer.beliefs import LEVELS, Beliefs
from deploy.viewer.episode import Episode, Floats
from deploy.viewer.events import STOPS, Mark, events_of, marks_of
from deploy.viewer.extras import Extras
from deploy.viewer.pack import pack, whole

Arrays = dict[str, NDArray[Any]]
Words = dict[str, Any]
DEPTH_STEPS = 255  # of the camera's range; 0 is no reading
SHOWN_ROLLOUTS = 32  # candidates a tick, the best and an even choice of the others
DIFFERENCES = frozenset({"scan", "depth", "map_cell"})
ERROR_STEPS = (5, 10, 15)  # of a dream, whose errors are curves; the second one makes events


def block_of(episode: Episode, beliefs: Beliefs, extras: Extras, running: bool = False) -> bytes:
    """A log as one packed block."""
    arrays = {**_sensed(episode), **_decided(episode), **_governed(episode), **_stated(episode), **_beliefs(beliefs)}
    arrays |= {**_rollouts(extras), **_forecasts(extras)}
    for name, values in (("reward", extras.reward), ("real_return", extras.real_return)):
        if values is not None:
            arrays[name] = values.astype(np.float32)
    words = _words(episode, beliefs, extras, arrays, running)
    return pack(words, {name: values for name, values in arrays.items() if values.size}, DIFFERENCES)


def _sensed(episode: Episode) -> Arrays:
    sensed = episode.sensed
    arrays: Arrays = {
        "obs_t": _f4(sensed.t_s),
        "pose": _f4(sensed.pose_odom),
        "twist": _f4(sensed.twist),
        "goal": _f4(sensed.goal_odom_m),
    }
    if sensed.scan_m is not None:
        arrays["scan"] = whole(sensed.scan_m, 1e-3, np.uint16)
        arrays["clearance"] = _f4(clearance_m(sensed.scan_m, episode.robot))
    if sensed.depth_m is not None:
        step = episode.robot.depth.range_m / DEPTH_STEPS
        arrays["depth"] = whole(sensed.depth_m, step, np.uint8)
        arrays["depth_t"] = _f4(sensed.depth_t_s)
    return arrays


def _decided(episode: Episode) -> Arrays:
    decided = episode.decided
    whys = _names(decided.why)
    routes = [points for _, points in decided.routes]
    arrays: Arrays = {
        "dec_t": _f4(decided.t_s),
        "dec_n": decided.sequence.astype(np.int32),
        "command": _f4(decided.command),
        "value": _f4(decided.value),
        "why": np.array([whys.index(why) for why in decided.why], np.uint16),
        "total_ms": _f4(decided.total_ms),
        "age_ms": _f4(decided.age_ms),
        "route_t": np.array([t for t, _ in decided.routes], np.float32),
        "route_at": _offsets(routes),
        "route_xy": np.concatenate(routes) if routes else np.zeros((0, 2), np.float32),
    }
    return arrays | {f"detail.{name}": _f4(values) for name, values in decided.details.items()}


def _governed(episode: Episode) -> Arrays:
    marks = marks_of(episode)
    names = _names([mark.reason for mark in marks])
    return {
        "gov_t": _f4(episode.governed.t_s),
        "gov": _f4(episode.governed.velocity),
        "mark_reason": np.array([names.index(mark.reason) for mark in marks], np.uint8),
        "mark_t": np.array([[mark.start_s, mark.end_s] for mark in marks], np.float32).reshape(-1, 2),
    }


def _stated(episode: Episode) -> Arrays:
    return {"stat_t": _f4(episode.stated.t_s), "late_ms": _f4(episode.stated.lateness_ms)}


def _beliefs(beliefs: Beliefs) -> Arrays:
    box = _box(beliefs)
    cells = [(c[:, 1] - box[1]) * (box[2] - box[0]) + c[:, 0] - box[0] for c in beliefs.map_cells]
    return {
        "map_t": np.array(beliefs.map_t_s, np.float32),
        "map_at": _offsets(cells),
        "map_cell": np.concatenate(cells).astype(np.uint32) if cells else np.zeros(0, np.uint32),
        "map_level": np.concatenate(beliefs.map_levels) if cells else np.zeros(0, np.int8),
        "mover_t": np.array(beliefs.movers_t_s, np.float32),
        "mover_at": _offsets(beliefs.movers),
        "mover": np.concatenate(beliefs.movers) if beliefs.movers else np.zeros((0, 5), np.float32),
    }


def _rollouts(extras: Extras) -> Arrays:
    rollouts = extras.rollouts
    if rollouts is None or not len(rollouts.t_s):
        return {}
    ranked = np.argsort(-np.nan_to_num(rollouts.score, nan=-np.inf), axis=1)
    places = np.unique(np.linspace(0, ranked.shape[1] - 1, SHOWN_ROLLOUTS).astype(int))
    chosen = ranked[:, places]
    paths = np.take_along_axis(rollouts.paths_odom_m, chosen[:, :, None, None], axis=1)
    origin = paths[:, :1, :1]
    doubt = {"roll_doubt": _f4(rollouts.doubt)} if np.isfinite(rollouts.doubt).any() else {}
    return doubt | {
        "roll_t": _f4(rollouts.t_s),
        "roll_origin": _f4(origin.reshape(-1, 2)),
        "roll_xy": whole(paths - origin, 1e-3, np.int16),
        "roll_score": _f4(np.take_along_axis(rollouts.score, chosen, axis=1)),
        "roll_best": np.take_along_axis(rollouts.score, chosen[:, :1], axis=1)[:, 0].astype(np.float32),
    }


def _forecasts(extras: Extras) -> Arrays:
    found = extras.forecasts
    if found is None or not len(found.t_s):
        return {}
    return {
        "dream_t": _f4(found.t_s),
        "dream_lidar": _f4(found.lidar_m),
        "dream_held": _f4(found.held_m),
        "dream_pose": _f4(found.pose_m),
        "dream_collision": _f4(found.collision),
        "dream_return": _f4(found.imagined_return),
        "dream_xy": _f4(found.path_odom_m),
    }


def _words(episode: Episode, beliefs: Beliefs, extras: Extras, arrays: Arrays, running: bool) -> Words:
    error = None
    steps: list[int] = []
    if extras.forecasts is not None and len(extras.forecasts.t_s):
        horizon = extras.forecasts.lidar_m.shape[1]
        steps = [k for k in ERROR_STEPS if k <= horizon] or [horizon]
        looked = steps[min(1, len(steps) - 1)]
        error = (extras.forecasts.t_s, extras.forecasts.lidar_m[:, looked - 1].astype(np.float64))
    clearance = arrays.get("clearance")
    events = events_of(episode, None if clearance is None else clearance.astype(np.float64), error)
    robot = episode.robot
    return {
        "name": episode.name,
        "outcome": "running" if running else episode.outcome,
        "damage": "" if running else episode.damage,
        "duration_s": round(episode.duration_s, 6),
        "goal_radius_m": _goal_radius_m(episode.run),
        "robot": {
            "length_m": robot.length_m,
            "width_m": robot.width_m,
            "period_ms": 1e3 * robot.dt_s,
            "depth_range_m": robot.depth.range_m,
            "lidar": {
                "range_m": robot.lidar.range_m,
                "mount_x_m": robot.lidar.mount_x_m,
                "angle_min_rad": robot.lidar.angle_min_rad,
                "increment_rad": robot.lidar.increment_rad,
            },
        },
        "facts": _facts(episode),
        "whys": _names(episode.decided.why),
        "details": list(episode.decided.details),
        "reasons": _reasons(marks_of(episode)),
        "events": [[round(e.t_s, 4), e.kind, e.text] for e in events],
        "dream_steps": steps,
        "map": _map_words(beliefs),
        "absent": _absent(arrays) | extras.absent,
    }


def _facts(episode: Episode) -> list[list[str]]:
    run = episode.run
    facts = [("scene", run.get("scene", "")), ("robot", run.get("robot_preset") or episode.robot.name)]
    facts += [("bundle", run.get("bundle_name", "")), ("seed", run.get("seed", ""))]
    facts.append(("time", f"{episode.duration_s:.1f} s"))
    return [[name, value] for name, value in facts if value]


def _goal_radius_m(run: dict[str, str]) -> float:
    try:
        return float(json.loads(run["config"])["goal_radius_m"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _reasons(marks: Sequence[Mark]) -> list[Words]:
    seconds: dict[str, float] = dict.fromkeys(_names([m.reason for m in marks]), 0.0)
    for mark in marks:
        seconds[mark.reason] += mark.end_s - mark.start_s
    return [{"name": name, "seconds": round(s, 3), "stops": name in STOPS} for name, s in seconds.items()]


def _map_words(beliefs: Beliefs) -> Words | None:
    if not beliefs.map_t_s:
        return None
    box, cell = _box(beliefs), beliefs.resolution_m
    seen = np.concatenate(beliefs.map_cells)
    shown = [0.0] * 4 if not len(seen) else [*(seen.min(axis=0) * cell), *((seen.max(axis=0) + 1) * cell)]
    return {
        "width": box[2] - box[0],
        "height": box[3] - box[1],
        "x_m": box[0] * cell,
        "y_m": box[1] * cell,
        "resolution_m": cell,
        "levels": LEVELS,
        "shown": [round(float(v), 3) for v in shown],
    }


def _absent(arrays: Arrays) -> dict[str, str]:
    """Why a channel is not there, by the name that the page gives it."""
    found: dict[str, str] = {}
    if "reward" not in arrays:
        found["reward"] = "A log holds no rewards, and none could be estimated from it."
    if "roll_doubt" not in arrays:
        found["uncertainty"] = "Nothing was imagined: name a bundle with dreams.onnx (robonav export --planner)."
    if "roll_t" not in arrays:
        found["rollouts"] = "nothing was imagined; name a bundle with dreams.onnx"
    if "dream_t" not in arrays:
        found["error"] = "No dreams: add --dreams RUN, the checkpoint whose world model is looked at."
        found["dreams"] = "add --dreams RUN, the checkpoint whose world model is looked at"
    if not len(arrays["obs_t"]):
        found["clearance"] = "The log holds no observation."
    elif "scan" not in arrays:
        found["clearance"] = found["scan"] = "No observation has a scan: the robot had no lidar, or it was silent."
    if "depth" not in arrays:
        found["depth"] = "No observation has a depth image: driven without a camera."
    if not len(arrays["dec_t"]):
        found["value"] = found["latency"] = found["route"] = "The log holds no decision."
    return found


def _box(beliefs: Beliefs) -> tuple[int, int, int, int]:
    """Lattice box (column, row, column_end, row_end) of all cells that ever changed."""
    cells = np.concatenate(beliefs.map_cells) if beliefs.map_cells else np.zeros((0, 2), np.int32)
    if not len(cells):
        return 0, 0, 1, 1
    (c0, r0), (c1, r1) = cells.min(axis=0).tolist(), (cells.max(axis=0) + 1).tolist()
    return int(c0), int(r0), int(c1), int(r1)


def _names(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _offsets(rows: Sequence[NDArray[Any]]) -> NDArray[np.uint32]:
    return np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.uint32)


def _f4(values: NDArray[Any] | Floats) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
