"""A Unitree Go2 in sport mode, over its DDS interface.

    robonav run --driver go2 --robot go2 --driver-options interface=eth0 goal_m=[3,0]

Needs cyclonedds (extra `go2`; docs/deployment.md says how on a Jetson). Velocities go out as Move requests, which the
robot does not filter and whose latest it keeps for 1 s: limits and end of a command are ours. A thread sends the
command again well before the robot would forget it, and StopMove when its time is over or the robot's state no longer
comes. Tested against a stand-in that speaks the same messages on a real DDS domain, never yet on the robot.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from deploy.drivers import go2_messages as go2
from deploy.drivers.go2_scan import CLOUD_TOPIC, POSE_TOPIC, ScanSource, UtLidar, make_source
from deploy.drivers.limits import STILL, permitted
from deploy.timing import now_ns
from robonav.config import load_robot
from robonav.errors import ConfigError, LinkError, MissingDependencyError, RobonavError, explain
from robonav.types import Float, Observation, VelocityCommand

if TYPE_CHECKING:
    from deploy.drivers.go2_dds import Go2Link

RESEND_S = 0.2  # a Move that still holds is sent again; the robot forgets it after go2.HOLD_S
KEEP_PERIOD_S = 0.02
POLL_S = 0.01
STANDING = 0.1  # m/s and rad/s under which the robot stands


class Go2Driver:
    """See the module. Odometry begins where the robot was connected."""

    def __init__(
        self,
        robot: str = "go2",
        goal_m: tuple[float, float] = (2.0, 0.0),
        interface: str = "",
        domain: int = 0,
        scan: str = "utlidar",
        state_topic: str = go2.STATE_TOPIC,
        cloud_topic: str = CLOUD_TOPIC,
        pose_topic: str = POSE_TOPIC,
        velocity_frame: Literal["odom", "base"] = "odom",
        stand_up: bool = True,
        hard_stop: Literal["damp", "stand"] = "damp",
        stale_s: float = 0.2,
        lost_s: float = 1.0,
        connect_s: float = 5.0,
        arm_s: float = 10.0,
    ) -> None:
        """Prepares; nothing is sent before `connect`.

        Args:
            robot: preset's name or path; its limits are the ones that hold.
            goal_m: (x, y) from where the robot stands when it is connected, x ahead.
            interface: network interface of the robot's network, or "lo"; CYCLONEDDS_URI's if empty.
            domain: DDS domain; the robot's is 0.
            scan: "utlidar" (the robot's own lidar), "none" (blind: no braking before obstacles), or "module:function"
                that makes a `deploy.drivers.go2_scan.ScanSource`.
            state_topic: "rt/lf/sportmodestate" is the slower one, which some firmware offers alone.
            cloud_topic: of the robot's lidar, in the frame of its odometry.
            pose_topic: of the base in that odometry.
            velocity_frame: in which the state's velocity is given; see `go2_messages`.
            stand_up: `arm` stands up a robot that lies; else that is an error.
            hard_stop: what a hard stop does with a robot that still moves: "damp" lets its legs go, it sinks; "stand"
                leaves it at StopMove.
            stale_s: a robot whose state is older is not driven.
            lost_s: reading a state or scan that is older is an error, which ends the run.
            connect_s: for state and scan to come.
            arm_s: for standing up.

        Raises:
            RobonavError: no such robot, or options that cannot be.
        """
        self.spec = load_robot(robot)
        _check_limits(self.spec.vx_min_mps, self.spec.vx_max_mps, self.spec.vy_max_mps, self.spec.yaw_rate_max_radps)
        for name, value, choices in (
            ("velocity_frame", velocity_frame, ("odom", "base")),
            ("hard_stop", hard_stop, ("damp", "stand")),
        ):
            if value not in choices:
                raise ConfigError(explain(f"Go2: {name}", " or ".join(choices), f"'{value}'"))
        if not 0 < stale_s <= lost_s:
            raise ConfigError(explain("Go2: stale_s", f"above 0 and at most lost_s = {lost_s:g}", stale_s))
        self._goal = np.asarray(goal_m, np.float32).reshape(2)
        self._interface, self._domain = interface, int(domain)
        self._scan, self._cloud_topic, self._pose_topic, self._state_topic = scan, cloud_topic, pose_topic, state_topic
        self._in_odom, self._stand_up, self._damps = velocity_frame == "odom", stand_up, hard_stop == "damp"
        self._stale_ns, self._lost_ns = round(stale_s * 1e9), round(lost_s * 1e9)
        self._connect_s, self._arm_s = connect_s, arm_s
        self._link: Go2Link | None = None
        self._source: ScanSource | None = None
        self._state: go2.SportState | None = None
        self._origin = go2.Origin()
        self._armed = False
        self._lock = threading.RLock()  # of the four below
        self._target = STILL
        self._until_ns = 0
        self._holds = False  # a Move was sent that was not stopped since
        self._sent_ns = 0
        self._fault: RobonavError | None = None  # of the thread
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    # -- the protocol ------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Joins the robot's domain and waits for its state and scan; again while connected, it does nothing.

        Raises:
            MissingDependencyError: cyclonedds is not installed.
            LinkError: no such interface, or state, scan or sport service do not come.
        """
        if self._link is not None:
            return
        try:
            from deploy.drivers import go2_idl as idl
            from deploy.drivers.go2_dds import Go2Link, sport_state
        except ModuleNotFoundError as error:
            do = "pip install 'robonav[go2]' (on a Jetson: docs/deployment.md)"
            raise MissingDependencyError(f"driver go2 needs cyclonedds: {error}; {do}") from None
        self._state, self._fault = None, None
        link = Go2Link(self._domain, self._interface)
        try:
            link.hear(self._state_topic, idl.SportModeState, lambda sample, came: self._hear(sport_state(sample, came)))
            self._source = self._make_source(link)
            link.start()
            self._link = link
            self._await_robot(link)
        except BaseException:
            self._link = link
            self.disconnect()
            raise
        self._closing.clear()
        self._keeper = threading.Thread(target=self._keep, name="go2-keeper", daemon=True)
        self._keeper.start()

    def arm(self) -> None:
        """Stands the robot up if it lies, and puts it into balance stand.

        Raises:
            LinkError: not connected, its state is old, it refuses, or it does not get up in time.
        """
        link, state = self._connected(), self._fresh()
        if not state.upright:
            if not self._stand_up:
                do = "stand it up with the remote control, or allow stand_up=true"
                raise LinkError(explain("Go2", "a robot that stands", _mode(state), do))
            link.call(go2.RECOVERY_STAND, self._arm_s)
            self._await(lambda: self._fresh().upright, self._arm_s, "Go2: to stand up")
        link.call(go2.BALANCE_STAND, self._arm_s)
        self._armed = True

    def read(self) -> Observation:
        """The newest state and scan. The stamp is of the older of the two, so that either's silence shows.

        Raises:
            LinkError: not connected; state or scan older than `lost_s`; the armed robot no longer stands.
        """
        self._connected()
        if self._fault is not None:
            raise self._fault
        state, scan = self._newest_state(), None
        stamp_ns = state.received_ns
        if self._source is not None:
            found = self._source.read()
            if found is None:
                raise LinkError(explain("Go2: lidar", "a scan", "none so far"))
            scan, scanned_ns = found
            stamp_ns = min(stamp_ns, scanned_ns)
        now = now_ns()
        for what, at_ns in (("sport mode state", state.received_ns), ("scan", stamp_ns)):
            if now - at_ns > self._lost_ns:
                do = "check the cable, the network interface and that the robot is on"
                raise LinkError(explain(f"Go2: {what}", f"one within {self._lost_ns / 1e9:g} s", _age(now, at_ns), do))
        if self._armed and not state.upright:
            self._armed = False
            raise LinkError(explain("Go2", "standing or walking", _mode(state), "see to the robot, then start again"))
        return self._observation(state, stamp_ns, scan)

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """Sends a velocity within the robot's limits and returns it.

        Standstill, sent as StopMove, if unarmed, late, not finite, or while the robot's state is stale.

        Raises:
            LinkError: not connected, or DDS could not send.
        """
        link, now = self._connected(), now_ns()
        usable = self._armed and self._age_ns(now) <= self._stale_ns
        velocity = permitted(self.spec, command, now, usable)
        accepted = usable and np.isfinite(command.velocity).all() and command.valid_until_ns > now
        with self._lock:
            if accepted:
                self._target, self._until_ns = velocity, command.valid_until_ns
                self._send_move(link, now)
            elif self._holds or now - self._sent_ns > RESEND_S * 1e9:
                self._sent_ns = now
                self._send_stop(link)
        return VelocityCommand.of(velocity, command.valid_until_ns)

    def stop(self, level: str = "soft") -> None:
        """StopMove: the robot stops and keeps its balance; then "hard" damps one that moves all the same.

        A robot that stands already, by its own account within `stale_s`, is not damped by a hard stop. After damping,
        it has to be armed again. Safe at any time.
        """
        if self._link is None:
            return
        with contextlib.suppress(RobonavError), self._lock:
            self._send_stop(self._link)
            if level == "hard" and self._damps and self._moves():
                self._armed = False
                self._link.send(go2.DAMP)

    def disconnect(self) -> None:
        """Stops, sees that the stop arrived, and leaves the domain; safe to call again."""
        if self._link is None:
            return
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        self._armed = False
        self.stop("soft")
        self._link.flush()
        if self._source is not None:
            self._source.close()
            self._source = None
        self._link.close()
        self._link = None

    # -- inside ------------------------------------------------------------------------------------------------------

    def _make_source(self, link: Go2Link) -> ScanSource | None:
        if self._scan == "none":
            return None
        source: ScanSource
        if self._scan == "utlidar":
            source = UtLidar(link, self._cloud_topic, self._pose_topic)
        else:
            source = make_source(self._scan)
        source.connect(self.spec)
        return source

    def _await_robot(self, link: Go2Link) -> None:
        """Until everything speaks; odometry begins there."""
        do = "check the cable, interface=NAME, and that sport mode is on"
        self._await(lambda: self._state is not None, self._connect_s, f"Go2: a state on {self._state_topic}", do)
        self._await(lambda: link.heard, self._connect_s, f"Go2: a service that hears {go2.REQUEST_TOPIC}", do)
        source = self._source
        if source is not None:
            what = f"Go2: a scan ({self._scan})"
            self._await(lambda: source.read() is not None, self._connect_s, what, "check the lidar, or scan=none")
        state = self._fresh()
        state.check()
        self._origin = go2.Origin(*state.position_odom_m, state.yaw_rad)

    def _hear(self, state: go2.SportState) -> None:
        self._state = state

    def _observation(self, state: go2.SportState, stamp_ns: int, scan: Float | None) -> Observation:
        state.check()
        now = now_ns()
        with self._lock:
            applied = self._target if self._holds and now < self._until_ns else STILL
        return Observation(
            stamp_ns=stamp_ns,
            pose_odom_base=self._origin.pose(state),
            twist_base=go2.twist_base(state, self._in_odom),
            tilt_rad=np.array(state.tilt_rad, np.float32),
            goal_odom_m=self._goal.copy(),
            last_command=applied.astype(np.float32),
            scan_m=scan,
        )

    def _send_move(self, link: Go2Link, now: int) -> None:
        self._holds, self._sent_ns = True, now  # before sending: whatever happens then, a stop follows
        link.send(go2.MOVE, go2.move_parameter(self._target))

    def _send_stop(self, link: Go2Link) -> None:
        self._target = STILL
        link.send(go2.STOP_MOVE)
        self._holds = False

    def _keep(self) -> None:
        """The thread: a command that holds is sent again, one that is over is stopped."""
        while not self._closing.wait(KEEP_PERIOD_S):
            link, now = self._link, now_ns()
            with self._lock:
                if link is None or not self._holds:
                    continue
                try:
                    if now >= self._until_ns or self._age_ns(now) > self._stale_ns:
                        self._send_stop(link)
                    elif now - self._sent_ns > RESEND_S * 1e9:
                        self._send_move(link, now)
                except RobonavError as error:
                    self._fault = error

    def _connected(self) -> Go2Link:
        if self._link is None:
            raise LinkError("Go2: not connected; call connect() first")
        return self._link

    def _newest_state(self) -> go2.SportState:
        if self._state is None:
            raise LinkError(explain("Go2: sport mode state", "one", "none so far"))
        return self._state

    def _fresh(self) -> go2.SportState:
        """The newest state, if it is not stale."""
        state, now = self._newest_state(), now_ns()
        if self._age_ns(now) > self._stale_ns:
            expected = f"one within {self._stale_ns / 1e9:g} s"
            raise LinkError(explain("Go2: sport mode state", expected, _age(now, state.received_ns)))
        return state

    def _age_ns(self, now: int) -> int:
        return now if self._state is None else now - self._state.received_ns

    def _moves(self) -> bool:
        state = self._state
        if state is None or self._age_ns(now_ns()) > self._stale_ns:
            return True  # for all that is known
        return bool(np.abs([*state.velocity_mps, state.yaw_rate_radps]).max() > STANDING)

    @staticmethod
    def _await(done: Callable[[], object], timeout_s: float, what: str, do: str = "") -> None:
        deadline_s = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline_s:
                raise LinkError(explain(what, f"within {timeout_s:g} s", "none", do))
            time.sleep(POLL_S)


def _check_limits(vx_min: float, vx_max: float, vy_max: float, yaw_rate_max: float) -> None:
    low, high = np.array([vx_min, -vy_max, -yaw_rate_max]), np.array([vx_max, vy_max, yaw_rate_max])
    if (low < go2.MOVE_LOW).any() or (high > go2.MOVE_HIGH).any():
        expected = f"within {go2.MOVE_LOW.tolist()} and {go2.MOVE_HIGH.tolist()}, what Move takes"
        raise ConfigError(explain("Go2: limits of the robot", expected, f"{low.tolist()} to {high.tolist()}"))


def _mode(state: go2.SportState) -> str:
    return f"mode {state.mode} ({go2.MODES.get(state.mode, 'unknown')})"


def _age(now: int, at_ns: int) -> str:
    return f"{(now - at_ns) / 1e9:.2f} s old"
