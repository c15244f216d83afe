"""The driver's process: hosts a robot, real or simulated, at the robot's rate, and stops it whatever happens.

A governed command holds for its life from when it was governed (both processes read the same clock); what lay longer on
the way is refused. When none follows the robot is told to stop. On the supervisor's "hold", and when it falls silent,
it is told to stop at once and every command is refused until "run". Every way out of this process goes through the
stop command. It is never restarted: nobody else knows how the robot is.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from deploy import transport, wire
from deploy.station import Station
from deploy.timing import LINK, Deadlines, now_ns
from robonav.errors import LinkError, RobonavError, WireError, explain
from robonav.types import Driver, Observation, Scene, VelocityCommand

WAIT_NS = 50_000_000
STANDSTILL_TICKS = 20


def make_driver(factory: str, kwargs: Mapping[str, Any]) -> Driver:
    """Makes a driver from "module:function" and keyword arguments.

    Raises:
        LinkError: there is no such module or function, or what it made is no driver.
    """
    module_name, _, name = factory.partition(":")
    try:
        maker = getattr(importlib.import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise LinkError(explain(f"driver '{factory}'", "module:function that can be imported", str(error))) from None
    try:
        driver = maker(**kwargs)
    except TypeError as error:  # another number or other names of arguments
        raise LinkError(explain(f"driver '{factory}'", f"arguments {sorted(kwargs)} to fit", str(error))) from None
    if not isinstance(driver, Driver):
        raise LinkError(explain(f"driver '{factory}'", "a robonav.types.Driver", type(driver).__name__))
    return driver


def run_driver(station: Station) -> None:
    """Connects, waits for "run", drives until "stop", then brings the robot to a standstill.

    Raises:
        RobonavError: the driver could not be made or connected, or failed while driving.
    """
    driver = make_driver(station.order.driver, station.order.driver_kwargs)
    try:
        driver.connect()
        _DriverLoop(station, driver).run()
    finally:
        driver.disconnect()  # stops and closes


class _DriverLoop:
    def __init__(self, station: Station, driver: Driver) -> None:
        order = station.order
        self.station = station
        self.driver = driver
        self.episode = order.episode
        self.goal_radius_m = order.config.goal_radius_m
        self.standstill_mps = order.config.supervisor.standstill_mps
        self.standing_mps = order.config.governor.standing_mps
        self.period_ns = int(driver.spec.dt_s * 1e9)
        self.observations = station.open("observations")
        self.governed = station.open("governed")
        self.sequence = 0
        self.last_governed = -1
        self.acted_on_ns = 0  # stamp of the newest observation that led to a command
        self.held = False
        self.refused: set[str] = set()  # kinds that were told; one line each
        self.valid_until_ns: int | None = None
        self.deadlines = Deadlines(self.period_ns, now_ns())
        station.counts.update(ticks=0, late=0, skipped=0, expired=0, refused=0)
        if driver.spec.name != order.robot.name:
            raise RobonavError(explain("driver's robot", order.robot.name, driver.spec.name, "use the same --robot"))

    def run(self) -> None:
        """The life of the process after the robot is connected."""
        station, driver = self.station, self.driver
        station.heard_nothing_yet()
        station.event("driver", describe(driver))
        while (word := station.word()) == "wait":
            station.beat("ready")
            transport.wait([station.control], WAIT_NS)
        try:
            if word != "stop":
                driver.arm()
                self.drive()
        finally:
            driver.stop("soft")
            self.stand_still()
        station.beat("done", always=True)

    def drive(self) -> None:
        """Ticks on absolute deadlines until "stop"."""
        self.deadlines = Deadlines(self.period_ns, now_ns())
        while (word := self.station.word()) != "stop":
            self.hold(word == "hold")
            if self.deadlines.remaining_ns(now_ns()) == 0:
                self.tick()
            self.wait_for_command()

    def hold(self, wanted: bool) -> None:
        """Stops the robot while another process is being replaced, and lets it go after."""
        if wanted and not self.held:
            self.driver.stop("soft")
            self.valid_until_ns = None
            kind = "silent" if self.station.silent else "held"
            self.station.event(kind, "soft stop; commands are refused until the supervisor says run")
        self.held = wanted

    def tick(self) -> Observation:
        """Reads and publishes one observation, and says how the robot is."""
        lateness_ms = self.deadlines.begin(now_ns()) * 1e-6
        started = now_ns()
        observation = self.driver.read()
        read = now_ns()
        sense_ms = (read - started) * 1e-6
        self.station.stage("sense", sense_ms, (read - observation.stamp_ns) * 1e-6)
        message = wire.pack_observation(observation, self.sequence, self.episode)
        transport.try_send(self.observations, wire.encode(message))
        self.sequence += 1
        counts = self.station.counts
        counts.update(ticks=self.sequence, late=self.deadlines.late, skipped=self.deadlines.skipped)
        arrived, collided = judge(self.driver, observation, self.goal_radius_m)
        self.say(observation, arrived, collided, lateness_ms, stopped=False, sense_ms=sense_ms)
        self.station.beat("running", (now_ns() - started) * 1e-6, always=True)
        return observation

    def wait_for_command(self) -> None:
        """Waits for a command until the next deadline or the expiry of the last, and applies it."""
        now = now_ns()
        timeout_ns = self.deadlines.remaining_ns(now)
        if self.valid_until_ns is not None:
            timeout_ns = min(timeout_ns, max(0, self.valid_until_ns - now))
        transport.wait([self.governed, self.station.control], min(timeout_ns, WAIT_NS))
        for frame in transport.received(self.governed):
            self.apply(frame)
        if self.valid_until_ns is not None and now_ns() > self.valid_until_ns:
            self.valid_until_ns = None
            self.station.counts["expired"] += 1
            self.station.event("expired", "no governed command in time: soft stop")
            self.driver.stop("soft")

    def apply(self, frame: bytes) -> None:
        """Hands a governed command of this episode to the robot; anything else lets the last one expire."""
        try:
            message = wire.decode_as(wire.GovernedMsg, frame)
        except WireError as error:
            self.refuse("malformed", str(error))
            return
        fenced = self.station.fenced("governor", message.session)
        if fenced or message.episode != self.episode or message.sequence <= self.last_governed:
            text = f"governed command {message.sequence} of session {message.session}, episode {message.episode}"
            self.refuse("session" if fenced else "old", text)
            return
        if self.held:
            self.station.counts["refused"] += 1
            return
        self.last_governed = message.sequence
        began = now_ns()
        valid_until_ns = min(message.stamp_ns, began) + int(message.life_ms * 1e6)
        if valid_until_ns <= began:  # this process, or the link to it, stood still for a while
            self.refuse("late", f"governed command {message.sequence}")
            return
        self.valid_until_ns = valid_until_ns
        applied = self.driver.command(VelocityCommand.of(wire.velocity_of(message), self.valid_until_ns))
        ended = now_ns()
        act_ms, link_ms = (ended - began) * 1e-6, max(0.0, (began - message.stamp_ns) * 1e-6)
        age_ms = max(0.0, (ended - message.observed_ns) * 1e-6) if message.observed_ns else 0.0
        if message.observed_ns > self.acted_on_ns:  # the governor repeats itself; the first counts
            self.acted_on_ns = message.observed_ns
            self.station.stage("act", act_ms, age_ms)
            self.station.stage(LINK, link_ms, age_ms)
        self.station.record(
            wire.AppliedMsg(
                sequence=message.sequence,
                stamp_ns=ended,
                episode=self.episode,
                governed=message.sequence,
                act_ms=act_ms,
                link_ms=link_ms,
                age_ms=age_ms,
                **wire.velocity_fields(applied),
            )
        )

    def refuse(self, kind: str, text: str) -> None:
        """Counts a command that is not driven; the first of its kind gets a line in the log."""
        self.station.counts["refused"] += 1
        if kind not in self.refused:
            self.refused.add(kind)
            self.station.event("refused", text)

    def stand_still(self) -> None:
        """Reads on until the robot stands, then stops it hard; reports the last speed."""
        deadlines = Deadlines(self.period_ns, now_ns())
        for _ in range(STANDSTILL_TICKS):
            time.sleep(deadlines.remaining_ns(now_ns()) * 1e-9)
            deadlines.begin(now_ns())
            observation = self.driver.read()
            arrived, collided = judge(self.driver, observation, self.goal_radius_m)
            standing = bool(np.abs(observation.twist_base).max() <= self.standstill_mps)
            if standing:
                self.driver.stop("hard")
            self.say(observation, arrived, collided, 0.0, stopped=standing)
            if standing:
                return
        self.driver.stop("hard")

    def say(
        self,
        observation: Observation,
        arrived: bool,
        collided: bool,
        lateness_ms: float,
        stopped: bool,
        sense_ms: float = 0.0,
    ) -> None:
        """The robot's status to the supervisor and the log."""
        twist, pose = observation.twist_base, observation.pose_odom_base
        message = self.station.send_status(
            wire.StatusMsg,
            arrived=arrived,
            collided=collided,
            speed_mps=float(np.hypot(twist[0], twist[1])),
            position_odom_m=(float(pose[0]), float(pose[1])),
            late_ticks=self.deadlines.late,
            lateness_ms=lateness_ms,
            stopped=stopped,
            held=self.held,
            sense_ms=sense_ms,
            standing=bool(np.abs(twist).max() <= self.standing_mps),
        )
        self.station.record(message)


def judge(driver: Driver, observation: Observation, goal_radius_m: float) -> tuple[bool, bool]:
    """(arrived, collided): the driver's own judgement where it has attributes of these names, else by odometry."""
    away_m = float(np.linalg.norm(np.asarray(observation.goal_odom_m) - np.asarray(observation.pose_odom_base)[:2]))
    arrived = getattr(driver, "arrived", None)
    collided = getattr(driver, "collided", False)
    return (away_m <= goal_radius_m if arrived is None else bool(arrived)), bool(collided)


def describe(driver: Driver) -> str:
    """JSON about the robot's world for the log: where odom's origin lies in it, for a driver that has a `scene`."""
    about: dict[str, Any] = {"driver": type(driver).__name__, "robot": driver.spec.name}
    scene = getattr(driver, "scene", None)
    if isinstance(scene, Scene):
        about |= {"scene": scene.name, "start_world": list(scene.start), "goal_world_m": list(scene.goal)}
    return json.dumps(about, default=float)
