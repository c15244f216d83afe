"""What any driver has to do, as checks that any driver can be put through.

    python -m deploy.drivers.conformance point
    python -m deploy.drivers.conformance my_module:make_driver robot=my_robot.toml

The robot moves: up to `VX_SHARE` of its speed for some seconds, straight ahead. With a real one, see to some metres of
free floor, and keep a hand on its e-stop. In pytest, parametrise a test over `CHECKS` and call each with a `Subject`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.driver_process import make_driver
from deploy.drivers import find_driver, parse_options
from robonav.errors import RobonavError, explain
from robonav.types import Driver, Observation, RobotSpec, VelocityCommand

VX_SHARE = 0.4
LIFE_NS = 400_000_000
LONG_NS = 10_000_000_000  # of a command that only a stop can end
DRIVE_S = 1.0
STANDING = 0.08  # m/s, rad/s
MOVES_SHARE = 0.5  # of the speed that was asked for, which a moving robot reaches
AGE_MAX_NS = 500_000_000  # of an observation that is read
ROUNDING = 1e-6  # of float32


class ConformanceError(RobonavError):
    """What a driver does, and what it should."""


def _sleep(_: Driver, seconds: float) -> None:
    time.sleep(seconds)


def _clock(_: Driver) -> int:
    return time.monotonic_ns()


@dataclass(frozen=True)
class Subject:
    """A driver to be checked."""

    make: Callable[[], Driver]
    """A fresh one, which nobody connected yet."""
    advance: Callable[[Driver, float], None] = _sleep
    """Lets seconds pass for it."""
    clock: Callable[[Driver], int] = _clock
    """Its clock, in ns."""
    moves: bool = True
    """It goes where it is told; not so one that stands still or replays."""
    open_loop: bool = False
    """What it observes is none of its commands' doing: `last_command` is another's."""
    stop_s: float = 2.0
    """In which it comes to rest."""
    fail: Callable[[Driver], None] | None = None
    """Makes its reading fail from now on; None where that cannot be done."""


Check = Callable[[Subject], None]


def check_is_a_driver(subject: Subject) -> None:
    """It has the protocol's methods and a robot."""
    driver = subject.make()
    _expect(isinstance(driver, Driver), "a robonav.types.Driver", type(driver).__name__)
    _expect(isinstance(driver.spec, RobotSpec), "spec: a RobotSpec", type(driver.spec).__name__)


def check_before_connect(subject: Subject) -> None:
    """Unconnected, it refuses to read, arm and drive with one of our errors; stopping and disconnecting are safe."""
    driver = subject.make()
    driver.stop("soft")
    driver.stop("hard")
    driver.disconnect()
    for name, call in _uses(driver):
        _expect_error(name, call)


def check_connect_twice(subject: Subject) -> None:
    """Connecting again changes nothing."""
    with _Connected(subject, arm=False) as driver:
        driver.connect()
        driver.read().check(driver.spec)


def check_observations(subject: Subject) -> None:
    """Shapes fit the robot, numbers are finite float32, the stamp is of the clock and not old, ranges are ranges."""
    with _Connected(subject) as driver:
        seen = driver.read()
        now = subject.clock(driver)
        seen.check(driver.spec)
        for name in ("pose_odom_base", "twist_base", "tilt_rad", "goal_odom_m", "last_command", "scan_m", "depth_m"):
            value = getattr(seen, name)
            _expect(value is None or value.dtype == np.float32, f"{name}: float32", getattr(value, "dtype", None))
        _expect(isinstance(seen.stamp_ns, int), "stamp_ns: int", type(seen.stamp_ns).__name__)
        _expect(0 <= now - seen.stamp_ns <= AGE_MAX_NS, "a stamp of the last 0.5 s", f"{(now - seen.stamp_ns) / 1e9} s")
        if seen.scan_m is not None:
            low, high = float(seen.scan_m.min()), float(seen.scan_m.max())
            most = driver.spec.lidar.range_m + ROUNDING * 10
            _expect(low >= 0 and high <= most, f"scan_m within [0, {most:g}] m", (low, high))
        _expect(abs(float(seen.pose_odom_base[2])) <= np.pi + ROUNDING, "yaw within pi", seen.pose_odom_base[2])


def check_stamps_grow(subject: Subject) -> None:
    """From tick to tick the stamp grows, and never goes back between."""
    with _Connected(subject) as driver:
        before = driver.read().stamp_ns
        for _ in range(4):
            again = driver.read().stamp_ns
            _expect(again >= before, "stamps that do not go back", (before, again))
            subject.advance(driver, 2 * driver.spec.dt_s)
            after = driver.read().stamp_ns
            _expect(after > again, "a later stamp two ticks later", (again, after))
            before = after


def check_arrays_are_fresh(subject: Subject) -> None:
    """Who writes into an observation spoils no other."""
    with _Connected(subject) as driver:
        first = driver.read()
        kept = {name: np.copy(getattr(first, name)) for name in ("pose_odom_base", "goal_odom_m", "tilt_rad")}
        for name in (*kept, "last_command", "twist_base", "scan_m"):
            value = getattr(first, name)
            if value is not None and value.flags.writeable:
                value += 1e3
        driver.read().check(driver.spec)
        second = driver.read()
        _expect(float(np.abs(second.goal_odom_m - kept["goal_odom_m"]).max()) < 10, "arrays of its own", "shared ones")
        _expect(float(np.abs(second.pose_odom_base).max()) < 900, "arrays of its own", "shared ones")


def check_unarmed(subject: Subject) -> None:
    """Commands before `arm` are standstill."""
    with _Connected(subject, arm=False) as driver:
        applied = _ahead(subject, driver)
        _expect(not applied.velocity.any(), "standstill before arm", applied.velocity)


def check_limits(subject: Subject) -> None:
    """It applies nothing beyond the robot's limits, finite, and no longer than was asked."""
    with _Connected(subject) as driver:
        spec = driver.spec
        low = np.array([spec.vx_min_mps, -spec.vy_max_mps, -spec.yaw_rate_max_radps]) - ROUNDING
        high = np.array([spec.vx_max_mps, spec.vy_max_mps, spec.yaw_rate_max_radps]) + ROUNDING
        for signs in np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])).reshape(3, -1).T:
            until = subject.clock(driver) + LIFE_NS
            applied = driver.command(VelocityCommand.of(signs * 1e3, until))
            v = applied.velocity
            _expect(bool(np.isfinite(v).all() and (v >= low).all() and (v <= high).all()), "within limits", v)
            _expect(applied.valid_until_ns <= until, f"valid until {until} at most", applied.valid_until_ns)
            _expect(not v[signs == 0].any(), "0 where 0 was asked", v)
        driver.stop("hard")


def check_returns_what_it_applied(subject: Subject) -> None:
    """What `command` returns is what the next observation says of the last command."""
    with _Connected(subject) as driver:
        applied = _ahead(subject, driver)
        if subject.moves:
            _expect(applied.vx_mps > 0, "a command that is applied", applied.vx_mps)
        seen = driver.read().last_command
        if not subject.open_loop:
            _expect(np.allclose(seen, applied.velocity, atol=1e-5), f"last_command {applied.velocity}", seen)


def check_bad_commands(subject: Subject) -> None:
    """One that is not finite, or whose time is over, is standstill."""
    with _Connected(subject) as driver:
        for bad in (np.nan, np.inf, -np.inf):
            for place in range(3):
                velocity = np.zeros(3)
                velocity[place] = bad
                applied = driver.command(VelocityCommand.of(velocity, subject.clock(driver) + LIFE_NS))
                _expect(not applied.velocity.any(), f"standstill for {velocity}", applied.velocity)
        late = driver.command(VelocityCommand(0.3, 0.0, 0.0, subject.clock(driver) - 1))
        _expect(not late.velocity.any(), "standstill for a late command", late.velocity)


def check_drives_and_expires(subject: Subject) -> None:
    """It goes where it is told, and stands some time after the last command's end."""
    with _Connected(subject) as driver:
        _drive(subject, driver)
        _comes_to_rest(subject, driver, "after the last command's end", LIFE_NS * 1e-9 + subject.stop_s)


def check_stop_soft(subject: Subject) -> None:
    """A soft stop brings it to rest, again and again, and it drives again after."""
    with _Connected(subject) as driver:
        for _ in range(2):
            _drive(subject, driver, LONG_NS)
            driver.stop()
            driver.stop("soft")
            _comes_to_rest(subject, driver, "after a soft stop", subject.stop_s)


def check_stop_hard(subject: Subject) -> None:
    """A hard stop brings it to rest; armed again, it drives again."""
    with _Connected(subject) as driver:
        _drive(subject, driver, LONG_NS)
        driver.stop("hard")
        driver.stop("hard")
        driver.stop("soft")
        _comes_to_rest(subject, driver, "after a hard stop", subject.stop_s)
        driver.arm()
        _drive(subject, driver)


def check_disconnect(subject: Subject) -> None:
    """Disconnecting is safe again and again; connected again, it reads again and is not armed."""
    with _Connected(subject) as driver:
        _ahead(subject, driver)
        driver.disconnect()
        driver.disconnect()
        driver.stop("hard")
        for name, call in _uses(driver):
            _expect_error(name, call)
        driver.connect()
        driver.read().check(driver.spec)
        applied = _ahead(subject, driver)
        _expect(not applied.velocity.any(), "unarmed after disconnecting", applied.velocity)


def check_stops_after_errors(subject: Subject) -> None:
    """Once reading fails, stopping and disconnecting still work."""
    if subject.fail is None:
        return
    with _Connected(subject) as driver:
        _ahead(subject, driver)
        subject.fail(driver)
        deadline = subject.clock(driver) + 5_000_000_000
        while subject.clock(driver) < deadline:
            try:
                driver.read()
            except RobonavError:
                break
            subject.advance(driver, 0.05)
        else:
            raise ConformanceError("expected an error of reading, got none in 5 s")
        driver.stop("soft")
        driver.stop("hard")
        driver.disconnect()


CHECKS: tuple[Check, ...] = (
    *(check_is_a_driver, check_before_connect, check_connect_twice, check_observations, check_stamps_grow),
    *(check_arrays_are_fresh, check_unarmed, check_limits, check_returns_what_it_applied, check_bad_commands),
    *(check_drives_and_expires, check_stop_soft, check_stop_hard, check_disconnect, check_stops_after_errors),
)


def examine(subject: Subject, checks: Sequence[Check] | None = None) -> Iterator[tuple[str, str]]:
    """Each check's name, and "" or why it failed; those that the subject does not allow are left out."""
    for check in CHECKS if checks is None else checks:
        if check is check_stops_after_errors and subject.fail is None:
            continue
        try:
            check(subject)
            found = ""
        except RobonavError as error:
            found = str(error)
        yield check.__name__.removeprefix("check_"), found


def main(argv: Sequence[str]) -> int:
    """Exit status 0 if a driver passes all checks, 1 if not, 2 if there is none."""
    try:
        factory = find_driver(argv[0]).factory if argv else ""
        options = parse_options(argv[1:])
        if not factory:
            raise RobonavError("say which driver: python -m deploy.drivers.conformance NAME [KEY=VALUE ...]")
        still = argv[0] in ("null", "log")
        subject = Subject(lambda: make_driver(factory, options), moves=not still, open_loop=argv[0] == "log")
        subject.make()
    except RobonavError as error:
        print(f"robonav: error: {error}", file=sys.stderr)
        return 2
    failures = 0
    for name, why in examine(subject):
        failures += bool(why)
        print(f"{'FAILED' if why else 'ok':<7} {name.replace('_', ' ')}" + (f": {why}" if why else ""), flush=True)
    return 1 if failures else 0


class _Connected:
    """A driver that is connected, and armed if asked; at the end it is stopped and disconnected whatever happened."""

    def __init__(self, subject: Subject, arm: bool = True) -> None:
        self.driver, self.armed = subject.make(), arm

    def __enter__(self) -> Driver:
        try:
            self.driver.connect()
            if self.armed:
                self.driver.arm()
        except BaseException:
            self.driver.disconnect()
            raise
        return self.driver

    def __exit__(self, *_: object) -> None:
        self.driver.stop("soft")
        self.driver.disconnect()


def _uses(driver: Driver) -> list[tuple[str, Callable[[], object]]]:
    command = VelocityCommand(0.1, 0.0, 0.0, 2**62)
    return [("read", driver.read), ("arm", driver.arm), ("command", lambda: driver.command(command))]


def _ahead(subject: Subject, driver: Driver, life_ns: int = LIFE_NS) -> VelocityCommand:
    vx = VX_SHARE * driver.spec.vx_max_mps
    return driver.command(VelocityCommand(vx, 0.0, 0.0, subject.clock(driver) + life_ns))


def _drive(subject: Subject, driver: Driver, life_ns: int = LIFE_NS) -> Observation:
    """Ahead for a while; the robot moves at its end, if it moves at all."""
    dt_s = driver.spec.dt_s
    for _ in range(round(DRIVE_S / dt_s)):
        _ahead(subject, driver, life_ns)
        subject.advance(driver, dt_s)
        seen = driver.read()
    if subject.moves:
        wanted = MOVES_SHARE * VX_SHARE * driver.spec.vx_max_mps
        _expect(float(seen.twist_base[0]) > wanted, f"more than {wanted:.2f} m/s ahead", float(seen.twist_base[0]))
    return seen


def _comes_to_rest(subject: Subject, driver: Driver, when: str, within_s: float) -> None:
    if subject.open_loop:
        return
    subject.advance(driver, within_s)
    seen = driver.read()
    _expect(not seen.last_command.any(), f"last_command 0 {when}", seen.last_command)
    fastest = float(np.abs(seen.twist_base).max())
    _expect(fastest < STANDING, f"standstill {when}", f"{fastest:.2f} m/s or rad/s")
    place = seen.pose_odom_base
    subject.advance(driver, 0.3)
    moved_m = float(np.linalg.norm(driver.read().pose_odom_base[:2] - place[:2]))
    _expect(moved_m < STANDING * 0.5, f"no way {when}", f"{moved_m:.3f} m in 0.3 s")


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConformanceError(explain("driver", expected, got))


def _expect_error(name: str, call: Callable[[], object]) -> None:
    try:
        call()
    except RobonavError:
        return
    raise ConformanceError(explain(f"{name} without connection", "a RobonavError", "none"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
