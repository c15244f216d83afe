"""The navigator's process: newest observation in, one command out, everything that it used and decided to the log.

One that is started in place of another begins as at an episode's start, with nothing remembered; its numbers go on
above those of the one before.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from deploy import transport, wire
from deploy.log_messages import pack_belief, pack_map, pack_rollout
from deploy.station import Order, Station
from deploy.timing import NAVIGATOR_STAGES, now_ns
from policies.bundle_policy import BundlePolicy, BundleState, load
from robonav.errors import BundleError, explain
from robonav.types import Decision, Observation, RobotSpec

POLL_NS = 100_000_000
WARM_UP_TICKS = 10
OLD, NOT_FINITE, OVERDUE = "old observation", "observation not finite", "overdue decision"


def run_navigator(station: Station) -> None:
    """Loads the bundle, warms it up, and answers observations until told to stop.

    Raises:
        BundleError: damaged, of another robot, or not the one that the run began with.
        ShapeError: an observation does not fit the robot.
    """
    order = station.order
    _one_thread()
    policy = load(order.bundle, order.robot, order.config.planner, in_place=True)
    _same_bundle(policy.bundle.sha256, order)
    _warm_up(policy, order.robot)
    observations = station.open("observations")
    commands = station.open("commands")
    station.counts.update({"ticks": 0, "refused_by_link": 0, OLD: 0, NOT_FINITE: 0, OVERDUE: 0})
    state, reset = policy.reset(order.seed), True
    station.heard_nothing_yet()
    station.beat("ready", always=True)
    while station.word() != "stop":
        station.beat("ready")
        transport.wait([observations, station.control], POLL_NS)
        frame = transport.try_receive(observations)
        if frame is None:
            continue
        started_ns, started = now_ns(), time.perf_counter()
        message = wire.decode_as(wire.ObservationMsg, frame)
        if message.episode != order.episode:
            continue
        observation = wire.unpack_observation(message)
        why = _unusable(observation, order, started_ns)
        if why:
            if not station.counts[why]:
                station.event("refused", f"observation {message.sequence}: {why}")
            station.counts[why] += 1
            continue
        state, decision = policy.act(state, observation)
        tick = order.first + station.counts["ticks"]
        command = wire.CommandMsg(
            sequence=tick,
            stamp_ns=now_ns(),
            episode=order.episode,
            observation=message.sequence,
            session=order.session,
            observed_ns=message.stamp_ns,
            **wire.velocity_fields(decision.command),
        )
        if now_ns() - message.stamp_ns > order.config.governor.observation_life_s * 1e9:
            station.counts[OVERDUE] += 1  # what it was decided on is no longer so
        elif not transport.try_send(commands, wire.encode(command)):
            station.counts["refused_by_link"] += 1
        total_ms = (time.perf_counter() - started) * 1e3
        answer = wire.pack_decision(
            decision,
            sequence=tick,
            stamp_ns=command.stamp_ns,
            episode=order.episode,
            observation=message.sequence,
            reset=reset,
            seed=order.seed,
            age_ms=(started_ns - message.stamp_ns) * 1e-6,
            total_ms=total_ms,
        )
        _note_stages(station, answer)
        # All in one record: an observation without its decision could not be replayed.
        station.record(message, answer, *insight(state, observation, decision, answer, order))
        station.counts["ticks"] += 1
        reset = False
        station.beat("running", total_ms, always=True)
    station.beat("done", always=True)


def _note_stages(station: Station, answer: wire.DecisionMsg) -> None:
    """Working time of each stage of a decision, and the observation's age at its end: they run one after the other."""
    age_ms = answer.age_ms
    for name in NAVIGATOR_STAGES:
        work_ms = answer.details.get(f"{name}_ms")
        if work_ms is not None:
            age_ms += work_ms
            station.stage(name, work_ms, age_ms)


def insight(
    state: BundleState, observation: Observation, decision: Decision, answer: wire.DecisionMsg, order: Order
) -> list[wire.Message]:
    """What else the log is told at a tick: belief, imagined path, and now and then the map."""
    config = order.config.recorder
    found: list[wire.Message] = [pack_belief(state.memory, answer)] if config.belief else []
    if decision.imagined_path_odom_m is not None:
        found.append(pack_rollout(decision.imagined_path_odom_m, answer))
    if answer.sequence % max(1, round(config.map_period_s * order.robot.rate_hz)) == 0:
        pose = observation.pose_odom_base
        found.append(pack_map(state.situation.grid, pose, config.map_radius_m, answer))
    return found


def _same_bundle(sha256: str, order: Order) -> None:
    """Raises BundleError where the folder holds another bundle by now: a run that was begun with one ends with it."""
    begun = order.metadata.get("bundle_sha256", sha256)
    if sha256 != begun:
        do = "end the run and start it with the bundle that is meant"
        raise BundleError(explain(order.bundle, f"the bundle {begun[:12]} of this run", sha256[:12], do))


def _unusable(observation: Observation, order: Order, now: int) -> str:
    """Why nothing is decided on an observation, or "": it lay on the way, or a sensor says NaN.

    Raises:
        ShapeError: its shapes are not this robot's; that passes by no waiting.
    """
    if now - observation.stamp_ns > order.config.governor.observation_life_s * 1e9:
        return OLD
    arrays = (getattr(observation, name) for name in ("pose_odom_base", "twist_base", "tilt_rad", "scan_m", "depth_m"))
    if not all(np.isfinite(array).all() for array in arrays if array is not None):
        return NOT_FINITE
    observation.check(order.robot)
    return ""


def _one_thread() -> None:
    """OpenCV starts threads for small images too, which costs more than it gives beside a control loop."""
    import cv2

    cv2.setNumThreads(1)


def _warm_up(policy: BundlePolicy, robot: RobotSpec) -> None:
    """Runs the policy on a made-up standstill, so that the first real decision is as quick as the others."""
    state: Any = policy.reset(0)
    for tick in range(WARM_UP_TICKS):
        observation = Observation(
            stamp_ns=tick,
            pose_odom_base=np.zeros(3, np.float32),
            twist_base=np.zeros(3, np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.array([3.0, 0.0], np.float32),
            last_command=np.zeros(3, np.float32),
            scan_m=np.full(robot.lidar.beams, min(4.0, robot.lidar.range_m), np.float32),
        )
        state, _ = policy.act(state, observation)
