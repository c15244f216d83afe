"""The Gymnasium environment ``robonav/Navigate-v0``: drive a robot to its goal among obstacles, in any fidelity."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from robonav.config import load_robot
from robonav.errors import ConfigError, ShapeError, explain, nearest
from robonav.planning.situation import SituationConfig
from robonav.types import ACTION_SIZE, Observation, RobotSpec, Scene, policy_input_shapes
from sim.actuation import Actuation
from sim.fidelity import Fidelity, Varied, check_fidelity, make_world
from sim.policy_inputs import PolicyInputs, policy_inputs
from sim.randomisation import RandomisationConfig, draw, effective, load_randomisation
from sim.rewards import COLLISION, SUCCESS, TIMEOUT, RewardConfig, load_rewards
from sim.scene_check import check_scene
from sim.scenes import SceneSource, load_scene
from sim.sensor_config import SensorConfig, load_sensors
from sim.sensors import SensorSuite
from sim.task import Task, task_of
from sim.window import Window, can_show
from sim.world import WorldConfig

if TYPE_CHECKING:
    from sim.walker import LeggedConfig

FAR = 1e4  # bound of the observation spaces in metres and m/s: finite, and never reached
RESET_OPTIONS = ("scene", "preset", "randomisation")


class NavigateEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """Observation t, action t for one period, observation t + 1, with which its reward arrives.

    Action: (3,) in [-1, 1], turned into (vx, vy, yaw rate) by `RobotSpec.action_to_velocity`. Observation: the
    arrays of `PolicyInput`, or of the raw sensors with ``policy_input=False``; with ``depth=True`` also ``depth_m``.
    Readings that are missing are zero, and ``scan_present`` or ``depth_present`` (`PolicyInput` has its own) is 0.

    ``reset(options=...)`` takes a `Scene` as "scene", or the name of a scene preset as "preset" and one of
    randomisation as "randomisation", for this episode alone.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's name and form)

    def __init__(
        self,
        scene: str = "rooms",
        robot: str | RobotSpec = "a1",
        depth: bool = False,
        policy_input: bool = True,
        render_mode: str | None = None,
        view: str = "chase",
        reward: str | RewardConfig | dict[str, float] | None = None,
        world: WorldConfig | LeggedConfig | None = None,
        scene_options: dict[str, Any] | None = None,
        sensors: str | SensorConfig | None = None,
        randomisation: str | RandomisationConfig | None = None,
        fidelity: Fidelity = "kinematic",
        latency_s: float = 0.0,
        sight: str = "",
    ) -> None:
        """Makes the world; `scene`, `robot` and `scene_options` as in `sim.load_scene`, `view` is "chase" or "top".

        `reward`, `sensors` and `randomisation` are presets of configs/, .toml files, or the configs themselves.
        `fidelity` and `world` are those of `sim.fidelity.make_world`. `latency_s` is the time of whoever decides: an
        action takes effect so much after its observation, on top of the delays that are drawn. `sight` says who tells
        what moves in the policy's input: "" the tracker, "learned" `robonav.mapping.sight`.

        Raises:
            RobonavError: unknown scene, robot, view, fidelity, preset or reward key, no display to show a window on,
                depth in an analytic world, a negative latency, or what the fidelity needs is not installed.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ShapeError(explain("render_mode", "'human', 'rgb_array' or None", repr(render_mode)))
        if view not in ("chase", "top"):
            raise ShapeError(explain("view", "'chase' or 'top'", repr(view)))
        if not 0 <= latency_s < math.inf:
            raise ConfigError(explain("latency_s", "0 or more seconds", latency_s))
        check_fidelity(fidelity, depth)
        self.fidelity: Fidelity = fidelity
        self._latency_s = latency_s
        self.render_mode = render_mode
        self.robot: RobotSpec = load_robot(robot) if isinstance(robot, str) else robot
        self._window = Window(f"robonav: {scene}") if render_mode == "human" else None
        modes = [mode for mode in self.metadata["render_modes"] if mode != "human" or can_show()]
        self.metadata = {**self.metadata, "render_modes": modes, "render_fps": round(self.robot.rate_hz)}
        self.source: SceneSource = load_scene(scene, self.robot, **(scene_options or {}))
        self._sources: dict[str, SceneSource] = {}  # further presets that resets asked for
        self.rewards = load_rewards(reward)
        self.sensors = load_sensors(sensors)
        self.randomisation = load_randomisation(randomisation)
        self._view = view
        self._world = make_world(fidelity, self.robot, world)
        self._legs = self._world if isinstance(self._world, Varied) else None
        self._world.seen = depth
        self._depth = depth
        self._sensors = SensorSuite(self._world, depth, self.sensors)
        self._inputs: PolicyInputs | None = None
        if policy_input:
            self._inputs = policy_inputs(self.robot, SituationConfig(sight=sight))
        self._renderer: Any = None
        self._task: Task | None = None
        self._coming: int | None = None  # number of the next unseeded episode, once it is drawn
        self._ahead: tuple[int, Task] | None = None  # made by `prepare`
        self._running = False
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        space = observation_space(self.robot, policy_input, depth, not self.sensors.contact.missing)
        self.observation_space = cast("spaces.Space[dict[str, NDArray[Any]]]", space)

    @property
    def scene(self) -> Scene:
        """The scene of this episode.

        Raises:
            ResetNeeded: before the first reset.
        """
        return self._now.scene

    @property
    def position_world_m(self) -> NDArray[np.float64]:
        """(2,) the robot's place in the scene."""
        return np.array((self._world.x_m, self._world.y_m))

    @property
    def yaw_world_rad(self) -> float:
        """Which way the robot looks in the scene."""
        return float(self._world.yaw_rad)

    @property
    def movers_world(self) -> NDArray[np.float64]:
        """(movers, 3) where the scene's movers are: x m, y m, yaw rad of their middle."""
        state = self._world.mover_state
        return np.zeros((0, 3)) if state is None else np.stack([state["x"], state["y"], state["yaw"]], axis=-1)

    def observation(self) -> Observation:
        """The raw sensors of this tick, as any `Policy` reads them."""
        if self._task is None:
            raise ResetNeeded("call reset() first")
        return self._observation

    def prepare(self) -> None:
        """Makes the scene of the coming ``reset()`` now, so that it takes less time then; else nothing changes.

        Raises:
            SceneError: the scene cannot be made.
        """
        if self._coming is None:
            self._coming = int(self.np_random.integers(2**31))
        if self._ahead is None or self._ahead[0] != self._coming:
            self._ahead = self._coming, self._make_ready(None, self._coming)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Starts an episode in scene number `seed`, in ``options["scene"]``, or without both in one drawn at random.

        The seed, drawn or given, also decides about the errors of the sensors and the randomisation.

        Raises:
            SceneError: the scene cannot be made.
            ConfigError: an unknown option or preset.
        """
        options = _checked(options)
        super().reset(seed=seed)
        if seed is not None:
            number = seed
        else:
            number = int(self.np_random.integers(2**31)) if self._coming is None else self._coming
        given, preset = options.get("scene"), options.get("preset")
        if given is not None:
            if self._task is None or given is not self._task.scene:
                check_scene(given, f"scene '{given.name}'", self.robot)
            task = self._make_task(given)
        elif self._ahead is not None and self._ahead[0] == number and preset is None:
            task = self._ahead[1]
        else:
            task = self._make_ready(preset, number)
        self._task, self._ahead, self._coming = task, None, None
        chosen = options.get("randomisation")
        drawn = draw(self.randomisation if chosen is None else load_randomisation(chosen), self.sensors, number)
        late = dataclasses.replace(drawn.actuation, delay_s=drawn.actuation.delay_s + self._latency_s)
        self._actuation = Actuation(late, number)
        self._world.lag_s = self.robot.lag_s if drawn.actuation.lag_s is None else drawn.actuation.lag_s
        if self._legs is not None:
            self._legs.vary(drawn.legs, number)
        self._world.load(task.scene)
        self._sensors.start(number, drawn.sensors)
        self._steps = 0
        self._remaining_m = task.field.at(*task.scene.start[:2])
        self._observation = self._sensors.read(0, (0.0, 0.0, 0.0))
        if self._inputs is not None:
            self._inputs.reset()
        self._running = True
        recorded = effective(drawn.record, self._depth, self._legs is not None)
        if self._sensors.failure is not None:
            recorded |= self._sensors.failure.record()
        info = self._info(None) | {"seed": number, "randomisation": recorded}
        if self._depth:
            info["depth_renderer"] = self._sensors.renderer
        if self._window is not None:
            self.render()
        return self._arrays(), info

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Applies an action for one control period.

        Raises:
            ResetNeeded: the episode is over or has not begun.
            ShapeError: the action has another shape or is not finite.
        """
        if not self._running:
            raise ResetNeeded("call reset() first: the episode is over or has not begun")
        if np.shape(action) != (ACTION_SIZE,) or not np.isfinite(action).all():
            raise ShapeError(explain("action", "(3,) finite numbers in [-1, 1]", np.array2string(np.asarray(action))))
        vx, vy, yaw_rate = self.robot.action_to_velocity(action).tolist()
        self._actuation.advance(self._world, (vx, vy, yaw_rate), self.robot.dt_s)
        self._steps += 1
        stamp_ns = round(self._steps * self.robot.dt_s * 1e9)
        self._observation = self._sensors.read(stamp_ns, (vx, vy, yaw_rate))
        outcome = self._outcome()
        before, after = self._remaining_m, self._now.field.at(self._world.x_m, self._world.y_m)
        self._remaining_m = after
        reward = self.rewards.reward(before - after, self._world.clearance_m, outcome, after)
        self._running = outcome is None
        terminated, truncated = outcome in (SUCCESS, COLLISION), outcome == TIMEOUT
        if self._window is not None:
            self.render()
        return self._arrays(), reward, terminated, truncated, self._info(outcome)

    def render(self) -> NDArray[np.uint8] | None:
        """(height, width, 3) picture of the episode, in a PyBullet world of its own with the robot's meshes.

        With ``render_mode="human"`` it is shown in a window instead, which `reset` and `step` do by themselves.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            from sim.render_world import RenderWorld

            self._renderer = RenderWorld(self.robot)
        movers = self._world.mover_state
        posture = getattr(self._world, "posture", None)  # of a robot that walks
        image: NDArray[np.uint8] = self._renderer.frame(self.scene, self._world.pose_world, self._view, movers, posture)
        if self._window is None:
            return image
        self._window.show(image)
        return None

    def close(self) -> None:
        """Disconnects from PyBullet; safe to call again."""
        self._world.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        if self._window is not None:
            self._window.close()
        self._running = False

    def _outcome(self) -> str | None:
        scene, world = self.scene, self._world
        if world.collided or (self._legs is not None and self._legs.fallen):
            return COLLISION
        dx, dy = scene.goal[0] - world.x_m, scene.goal[1] - world.y_m
        if dx * dx + dy * dy <= scene.goal_radius_m**2:
            return SUCCESS
        return TIMEOUT if self._steps * self.robot.dt_s >= scene.time_limit_s - 1e-9 else None

    @property
    def _now(self) -> Task:
        if self._task is None:
            raise ResetNeeded("call reset() first")
        return self._task

    def _source(self, preset: str | None) -> SceneSource:
        if preset is None:
            return self.source
        if preset not in self._sources:
            self._sources[preset] = load_scene(preset, self.robot)
        return self._sources[preset]

    def _make_ready(self, preset: str | None, number: int) -> Task:
        return self._make_task(self._source(preset).scene(number))

    def _make_task(self, scene: Scene) -> Task:
        if self._task is not None and scene is self._task.scene:  # sources of one scene hand out the same object
            return self._task
        return task_of(scene, self.robot)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        observation = self._observation
        if self._inputs is not None:
            arrays = self._inputs.arrays(observation)
        else:
            arrays = {name: getattr(observation, name).copy() for name in _RAW}
            arrays |= _masked("scan", observation.scan_m, (self.robot.lidar.beams,))
        if self._depth:
            arrays |= _masked("depth", observation.depth_m, (self.robot.depth.height, self.robot.depth.width))
        if observation.contact is not None:
            arrays["contact"] = observation.contact.copy()
        return arrays

    def _info(self, outcome: str | None) -> dict[str, Any]:
        info: dict[str, Any] = {
            "scene": self.scene.name,
            "position_world_m": self.position_world_m,
            "shortest_m": self._now.shortest_m,
            "path_m": self._world.path_m,
            "velocity": np.array(self._world.velocity, np.float32),
            "clearance_m": self._world.clearance_m,
        }
        if self._legs is not None:
            info["fallen"] = self._legs.fallen
        if outcome is not None:
            info["outcome"] = outcome
        return info


_RAW = ("pose_odom_base", "twist_base", "tilt_rad", "goal_odom_m", "last_command")


def _masked(name: str, reading: NDArray[Any] | None, shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    """A sensor's array, and whether it is one; zeros where it is missing."""
    array = np.zeros(shape, np.float32) if reading is None else reading.copy()
    return {f"{name}_m": array, f"{name}_present": np.array([reading is not None], np.float32)}


def _checked(options: dict[str, Any] | None) -> dict[str, Any]:
    for key in options or {}:
        if key not in RESET_OPTIONS:
            raise ConfigError(f"reset options: unknown key '{key}'; {nearest(key, RESET_OPTIONS)}")
    return options or {}


def observation_space(robot: RobotSpec, policy_input: bool, depth: bool, contact: bool = False) -> spaces.Dict:
    """Space of the environment's observations."""
    raw: dict[str, tuple[int, ...]] = {"pose_odom_base": (3,), "twist_base": (3,), "tilt_rad": (2,)}
    raw |= {"goal_odom_m": (2,), "last_command": (3,), "scan_m": (robot.lidar.beams,), "scan_present": (1,)}
    shapes = policy_input_shapes(robot) if policy_input else raw
    boxes: dict[str, spaces.Space[Any]] = {}
    for name, shape in shapes.items():
        if name == "local_map":
            boxes[name] = spaces.Box(0, 255, shape, np.uint8)
        elif name == "scan_m":
            boxes[name] = spaces.Box(0.0, robot.lidar.range_m, shape, np.float32)
        elif name in ("present", "scan_present"):
            boxes[name] = spaces.Box(0.0, 1.0, shape, np.float32)
        else:
            boxes[name] = spaces.Box(-FAR, FAR, shape, np.float32)
    if depth:
        boxes["depth_m"] = spaces.Box(0.0, robot.depth.range_m, (robot.depth.height, robot.depth.width), np.float32)
        boxes["depth_present"] = spaces.Box(0.0, 1.0, (1,), np.float32)
    if contact:
        boxes["contact"] = spaces.Box(0.0, 1.0, (5,), np.float32)
    return spaces.Dict(boxes)
