"""The simulated robot behind the same `Driver` protocol as a real one."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from robonav.config import load_robot
from robonav.errors import LinkError, RobonavError
from robonav.types import Observation, RobotSpec, Scene, VelocityCommand
from sim.actuation import Actuation
from sim.fidelity import Fidelity, Varied, check_fidelity, make_world
from sim.randomisation import RandomisationConfig, draw, effective, load_randomisation
from sim.scenes import load_scene
from sim.sensor_config import SensorConfig, load_sensors
from sim.sensors import SensorSuite
from sim.world import World, WorldConfig

STEP_S = 0.05  # longest stretch between two looks at the goal
CATCH_UP_MAX_S = 2.0  # a process that was suspended for longer finds the world where it left it
Velocity = tuple[float, float, float]
_STILL: Velocity = (0.0, 0.0, 0.0)


def make_driver(robot: str, scene: str, seed: int, **options: Any) -> SimDriver:
    """A simulated robot from names alone, so that another process can make it; options as `SimDriver`.

    ``scene_options`` go to `sim.load_scene` (such as start and goal of a map).

    Raises:
        RobonavError: unknown robot or scene, or a scene that cannot be made.
    """
    spec = load_robot(robot)
    source = load_scene(scene, spec, **options.pop("scene_options", {}))
    return SimDriver(spec, source.scene(seed), seed=seed, **options)


class SimDriver:
    """A robot in a simulated world that follows the wall clock, or ticks by hand with ``realtime=False``.

    The world has no thread: each call first brings it up to now under the command that held until then. A command ends
    at its `valid_until_ns`, after which the robot ramps to standstill. Contact, or a fall on its own legs, stops it for
    good.
    """

    def __init__(
        self,
        spec: RobotSpec,
        scene: Scene,
        depth: bool = False,
        realtime: bool = True,
        world: WorldConfig | None = None,
        sensors: str | SensorConfig | None = None,
        randomisation: str | RandomisationConfig | None = None,
        seed: int = 0,
        fidelity: Fidelity = "kinematic",
    ) -> None:
        """Prepares the robot; the world is made by `connect`.

        `fidelity` is that of `sim.fidelity.make_world`: "legged" walks on its legs. `sensors` and `randomisation` are
        those of `sim.env.NavigateEnv`, drawn for `seed` at each connection.

        Raises:
            ConfigError: an unknown preset or fidelity, or depth in an analytic world.
        """
        check_fidelity(fidelity, depth)
        self.spec = spec
        self.scene = scene
        self.fidelity: Fidelity = fidelity
        self._depth = depth
        self._realtime = realtime
        self._config = world
        self._seed = seed
        self._drawn = draw(load_randomisation(randomisation), load_sensors(sensors), seed)
        self._actuation = Actuation(self._drawn.actuation, seed)
        self._world: World | None = None
        self._sensors: SensorSuite | None = None
        self._manual_ns = 0
        self._time_ns = 0  # the world's state belongs to this time
        self._target: Velocity = _STILL
        self._until_ns = 0
        self._armed = False
        self._arrived = False

    def connect(self) -> None:
        """Makes the world and puts the robot at the scene's start; again while connected, it does nothing."""
        if self._world is not None:
            return
        self._world = make_world(self.fidelity, self.spec, self._config)
        self._world.seen = self._depth
        lag_s = self._drawn.actuation.lag_s
        self._world.lag_s = self.spec.lag_s if lag_s is None else lag_s
        if isinstance(self._world, Varied):
            self._world.vary(self._drawn.legs, self._seed)
        self._actuation = Actuation(self._drawn.actuation, self._seed)
        # on a fresh machine the compiled beams take half a minute to compile, in which nobody would drive
        self._sensors = SensorSuite(self._world, self._depth, self._drawn.sensors, compiled=False)
        self._sensors.start(self._seed, self._drawn.sensors)
        self._world.load(self.scene)
        self._time_ns = self.now_ns
        self._target, self._until_ns, self._armed, self._arrived = _STILL, 0, False, False

    def arm(self) -> None:
        """The robot is ready to move; commands before this have no effect."""
        self._connected()
        self._armed = True

    def read(self) -> Observation:
        """The sensors now.

        Raises:
            LinkError: not connected.
        """
        self._connected()
        self._catch_up()
        if self._sensors is None:
            raise LinkError("simulated robot: not connected; call connect() first")
        return self._sensors.read(self._time_ns, self._holding(self._time_ns))

    def command(self, command: VelocityCommand) -> VelocityCommand:
        """Takes a command and returns it as limited by the robot; it is standstill if unarmed, late or not finite.

        Raises:
            LinkError: not connected.
        """
        self._connected()
        self._catch_up()
        usable = self._armed and np.isfinite(command.velocity).all() and command.valid_until_ns > self._time_ns
        limited = (
            self.spec.action_to_velocity(self.spec.velocity_to_action(command.velocity)) if usable else np.zeros(3)
        )
        self._target = (float(limited[0]), float(limited[1]), float(limited[2]))
        self._until_ns = command.valid_until_ns
        return VelocityCommand.of(limited, command.valid_until_ns)

    def stop(self, level: str = "soft") -> None:
        """Drops the command: "soft" ramps to standstill, "hard" stands at once, on legs as soon as they can.

        Safe at any time.
        """
        if self._world is None:
            return
        self._catch_up()
        self._target, self._until_ns = _STILL, 0
        if level == "hard":
            self._actuation.drop()
            if self.fidelity != "legged":
                self._world.velocity = _STILL

    def disconnect(self) -> None:
        """Stops and closes the world; safe to call again."""
        if self._world is None:
            return
        self.stop("hard")
        self._armed = False
        self._world.close()
        self._world = self._sensors = None

    def tick(self, dt_s: float) -> None:
        """Moves time on by `dt_s`, in a driver made with ``realtime=False``.

        Raises:
            RobonavError: this driver follows the wall clock.
        """
        if self._realtime:
            raise RobonavError("simulated robot: tick() needs realtime=False; this one follows the wall clock")
        self._connected()
        self._manual_ns += round(dt_s * 1e9)
        self._advance(self._manual_ns)

    @property
    def now_ns(self) -> int:
        """The clock that stamps and deadlines refer to: the machine's monotonic one, or the one that `tick` moves."""
        return time.monotonic_ns() if self._realtime else self._manual_ns

    @property
    def randomisation(self) -> dict[str, Any]:
        """What was drawn: knob to value."""
        return effective(self._drawn.record, self._depth, legs=self.fidelity == "legged")

    @property
    def collided(self) -> bool:
        """True once the robot has touched an obstacle, or fallen."""
        world = self._connected()
        return world.collided or bool(getattr(world, "fallen", False))

    @property
    def arrived(self) -> bool:
        """True once the robot has been within the goal's radius."""
        return self._arrived

    @property
    def velocity(self) -> Velocity:
        """(vx, vy, yaw rate) of the base, in its own frame."""
        return self._connected().velocity

    @property
    def path_m(self) -> float:
        """Length of the way driven so far."""
        return self._connected().path_m

    def _connected(self) -> World:
        if self._world is None:
            raise LinkError("simulated robot: not connected; call connect() first")
        return self._world

    def _holding(self, at_ns: int) -> Velocity:
        return self._target if at_ns < self._until_ns else _STILL

    def _catch_up(self) -> None:
        now = self.now_ns
        if now - self._time_ns > CATCH_UP_MAX_S * 1e9:
            skipped = now - self._time_ns - round(CATCH_UP_MAX_S * 1e9)
            self._time_ns += skipped
        self._advance(now)

    def _advance(self, until_ns: int) -> None:
        """Steps the world to a time, in stretches that end where the command does."""
        world = self._connected()
        gx, gy = self.scene.goal
        while self._time_ns < until_ns:
            end = min(until_ns, self._time_ns + round(STEP_S * 1e9))
            if self._time_ns < self._until_ns < end:
                end = self._until_ns
            self._actuation.advance(world, self._holding(self._time_ns), (end - self._time_ns) / 1e9)
            self._time_ns = end
            near = math.hypot(gx - world.x_m, gy - world.y_m) <= self.scene.goal_radius_m
            self._arrived = self._arrived or (near and not self.collided)
