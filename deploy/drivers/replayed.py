"""A recorded robot once more: what a log's sensors saw, at the times at which they saw it.

Open loop: what is commanded changes nothing of what is seen. It is for looking at what a policy makes of a recording
(another bundle, another planner, another governor), not for measuring how well it would have driven.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from deploy import wire
from deploy.drivers.limits import permitted
from deploy.log_reader import Log, read_log
from deploy.timing import Clock, now_ns
from robonav.config import from_mapping, load_robot
from robonav.errors import LinkError, LogError, RobonavError, explain
from robonav.types import Observation, RobotSpec, VelocityCommand


class LogEndedError(RobonavError):
    """Everything that was recorded has been read."""


class ReplayedLogDriver:
    """Observations of a log, in order; see the module.

    Stamps are of now: the recorded ones, moved so that the first is the time of `arm`, and closer together by `speed`.
    `last_command` is the recorded one. `arrived` and `collided` are what the recorded robot was; where the log ends
    before either, reading raises `LogEndedError`, which ends the run.
    """

    open_loop = True

    def __init__(
        self,
        path: str | Path = "",
        robot: str | None = None,
        speed: float = 1.0,
        episode: int = 0,
        clock: Clock = now_ns,
    ) -> None:
        """Prepares to read.

        Args:
            path: of the log, whole or damaged.
            robot: preset's name or path, which must be the one of the log; the log's own if None.
            speed: times the recorded one; 0 hands out the next observation at each reading, however soon.
            episode: whose observations; 0 is the log's only one.
            clock: for tests.

        Raises:
            RobonavError: no such log or robot, or the log is of another robot.
        """
        if not str(path):
            raise LogError(explain("replayed log: path", "a log", "none", "--driver-options path=a.mcap"))
        if not speed >= 0:
            raise LogError(explain("speed", "a number from 0", speed))
        self.path = Path(path)
        self._speed, self._episode, self._clock = float(speed), int(episode), clock
        log = read_log(self.path)
        self.spec = _robot(log, robot)
        self._messages = _observations(log, self._episode)
        self._ends = {s.sequence: s for s in log.of(wire.StatusMsg) if s.arrived or s.collided}
        self._begin_ns: int | None = None  # now, at the first observation
        self._at = -1  # the observation that was read last
        self._connected = self._armed = False

    def connect(self) -> None:
        """Nothing to open: the log has been read."""
        self._connected = True

    def arm(self) -> None:
        """The recording begins, or begins again."""
        self._check_connected()
        self._armed, self._at, self._begin_ns = True, -1, self._clock()

    def read(self) -> Observation:
        """The observation whose time has come; the first one until `arm`.

        An observation that is due within half a control period of the recording counts as due, so that a loop at the
        recorded rate gets each of them once.

        Raises:
            LinkError: not connected.
            LogEndedError: half a second, or at speed 0 a reading, after the last observation.
        """
        self._check_connected()
        now = self._clock()
        if self._begin_ns is None:
            return self._observation(0, now)
        if self._speed == 0:
            if self.ended:
                self._end()
            self._at += 1
            return self._observation(self._at, now)
        first_ns = self._messages[0].stamp_ns
        ahead_ns = round(self.spec.dt_s * 0.5e9)
        elapsed_ns = (now - self._begin_ns) * self._speed
        if elapsed_ns > self._messages[-1].stamp_ns - first_ns + END_NS * self._speed:
            self._end()
        self._at = max(self._at, 0)
        while not self.ended and self._messages[self._at + 1].stamp_ns - first_ns <= elapsed_ns + ahead_ns:
            self._at += 1
        due_ns = self._begin_ns + round((self._messages[self._at].stamp_ns - first_ns) / self._speed)
        return self._observation(self._at, min(due_ns, now))

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """What a robot would have applied; the recording goes on as it was.

        Raises:
            LinkError: not connected.
        """
        self._check_connected()
        applied = permitted(self.spec, command, self._clock(), self._armed)
        return VelocityCommand.of(applied, command.valid_until_ns)

    def stop(self, level: str = "soft") -> None:
        """Nothing moves."""

    def disconnect(self) -> None:
        """Ends the recording; safe to call again."""
        self._connected = self._armed = False
        self._begin_ns, self._at = None, -1

    @property
    def ended(self) -> bool:
        """True once the last observation has been read."""
        return self._at == len(self._messages) - 1

    @property
    def arrived(self) -> bool:
        """True once the recorded robot had arrived."""
        return any(s.arrived for s in self._judged())

    @property
    def collided(self) -> bool:
        """True once the recorded robot had collided."""
        return any(s.collided for s in self._judged())

    def _judged(self) -> list[wire.StatusMsg]:
        if self._at < 0:
            return []
        stamp_ns = self._messages[self._at].stamp_ns
        last = self.ended
        return [s for s in self._ends.values() if last or s.stamp_ns <= stamp_ns]

    def _observation(self, at: int, stamp_ns: int) -> Observation:
        return dataclasses.replace(wire.unpack_observation(self._messages[at]), stamp_ns=stamp_ns)

    def _end(self) -> None:
        seconds = (self._messages[-1].stamp_ns - self._messages[0].stamp_ns) * 1e-9
        raise LogEndedError(
            f"{self.path}: the recording is over, {len(self._messages)} observations in {seconds:.1f} s"
        )

    def _check_connected(self) -> None:
        if not self._connected:
            raise LinkError("replayed log: not connected; call connect() first")


END_NS = 500_000_000


def _robot(log: Log, name: str | None) -> RobotSpec:
    recorded = from_mapping(RobotSpec, json.loads(log.run["robot"]), f"{log.path}: robot")
    if name is None:
        return recorded
    spec = load_robot(name)
    if (spec.name, spec.lidar) != (recorded.name, recorded.lidar):
        raise LogError(explain(f"{log.path}: robot", spec.name, recorded.name, f"use --robot {recorded.name}"))
    return spec


def _observations(log: Log, episode: int) -> list[wire.ObservationMsg]:
    found = log.of(wire.ObservationMsg)
    episodes = sorted({m.episode for m in found})
    if not found:
        raise LogError(explain(str(log.path), "observations", "none", "replay another log"))
    if episode == 0 and len(episodes) == 1:
        return found
    if episode not in episodes:
        raise LogError(explain(f"{log.path}: episode", f"one of {episodes}", episode, "choose one of them"))
    return [m for m in found if m.episode == episode]
