"""The Gymnasium environment ``robonav/Navigate-v0``: drive a robot to its goal among obstacles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from robonav.config import from_mapping, load_robot
from robonav.errors import SceneError, ShapeError, explain
from robonav.types import ACTION_SIZE, Observation, PolicyInput, RobotSpec, Scene, policy_input_shapes
from sim.geodesic import GeodesicField, ObstacleGrid, safe_clearance_m, tight_clearance_m
from sim.scenes import SceneSource, load_scene
from sim.sensors import SensorSuite
from sim.world import World, WorldConfig

FAR = 1e4  # bound of the observation spaces in metres and m/s: finite, and never reached
FIELD_GRIDS_M = (0.125, 0.05)  # the fine one only where gaps are too narrow for the other
SUCCESS, COLLISION, TIMEOUT = "success", "collision", "timeout"


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Terms of the reward; each is added at the tick on which it arises."""

    success: float = 1.0
    collision: float = -1.0
    progress_per_m: float = 0.25  # of the geodesic distance to the goal
    step: float = -0.005
    near: float = -0.03  # at contact, falling linearly to 0 at `near_range_m`
    near_range_m: float = 0.2

    def reward(self, progress_m: float, clearance_m: float, outcome: str | None) -> float:
        """Reward of one tick that ended with `outcome` (None while the episode goes on)."""
        total = self.step + self.progress_per_m * progress_m
        if clearance_m < self.near_range_m:
            total += self.near * (1.0 - clearance_m / self.near_range_m)
        return total + {SUCCESS: self.success, COLLISION: self.collision}.get(outcome or "", 0.0)


class NavigateEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """Observation t, action t for one period, observation t + 1, with which its reward arrives.

    Action: (3,) in [-1, 1], turned into (vx, vy, yaw rate) by `RobotSpec.action_to_velocity`. Observation: the
    arrays of `PolicyInput`, or of the raw sensors with ``policy_input=False``; with ``depth=True`` also ``depth_m``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own name and form)

    def __init__(
        self,
        scene: str = "rooms",
        robot: str | RobotSpec = "a1",
        depth: bool = False,
        policy_input: bool = True,
        render_mode: str | None = None,
        view: str = "chase",
        reward: RewardConfig | dict[str, float] | None = None,
        world: WorldConfig | None = None,
        scene_options: dict[str, Any] | None = None,
    ) -> None:
        """Makes the world; `scene`, `robot` and `scene_options` as in `sim.load_scene`, `view` is "chase" or "top".

        Raises:
            RobonavError: unknown scene, robot, view or reward key, or PyBullet is not installed.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ShapeError(explain("render_mode", "'rgb_array' or None", repr(render_mode)))
        if view not in ("chase", "top"):
            raise ShapeError(explain("view", "'chase' or 'top'", repr(view)))
        self.render_mode = render_mode
        self.robot: RobotSpec = load_robot(robot) if isinstance(robot, str) else robot
        self.metadata = {**self.metadata, "render_fps": round(self.robot.rate_hz)}
        self.source: SceneSource = load_scene(scene, self.robot, **(scene_options or {}))
        self.rewards = (
            reward if isinstance(reward, RewardConfig) else from_mapping(RewardConfig, reward or {}, "reward")
        )
        self._view = view
        self._world = World(self.robot, world)
        self._sensors = SensorSuite(self._world, depth)
        self._tracker: Any = None
        if policy_input:
            from robonav.planning.situation import SituationConfig, SituationTracker

            self._tracker = SituationTracker(self.robot, SituationConfig())
        self._renderer: Any = None
        self._scene: Scene | None = None
        self._running = False
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        space = observation_space(self.robot, policy_input, depth)
        self.observation_space = cast("spaces.Space[dict[str, NDArray[Any]]]", space)

    @property
    def scene(self) -> Scene:
        """The scene of this episode.

        Raises:
            ResetNeeded: before the first reset.
        """
        if self._scene is None:
            raise ResetNeeded("call reset() first")
        return self._scene

    @property
    def position_world_m(self) -> NDArray[np.float64]:
        """(2,) the robot's place in the scene."""
        return np.array((self._world.x_m, self._world.y_m))

    def observation(self) -> Observation:
        """The raw sensors of this tick, as any `Policy` reads them."""
        if self._scene is None:
            raise ResetNeeded("call reset() first")
        return self._observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Starts an episode in scene number `seed`, in ``options["scene"]``, or without both in one drawn at random.

        Raises:
            SceneError: the scene cannot be made.
        """
        super().reset(seed=seed)
        given = (options or {}).get("scene")
        number = seed if seed is not None else int(self.np_random.integers(2**31))
        scene = given if given is not None else self.source.scene(number)
        if scene is not self._scene:  # sources of one scene hand out the same object each time
            self._field, self._shortest_m = reward_field(scene, self.robot)
        self._world.load(scene)
        self._scene = scene
        self._steps = 0
        self._remaining_m = self._field.at(*scene.start[:2])
        self._observation = self._sensors.read(0, (0.0, 0.0, 0.0))
        if self._tracker is not None:
            self._situation = self._tracker.reset()
        self._running = True
        return self._arrays(), self._info(None)

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
        command = self.robot.action_to_velocity(action)
        self._world.advance(command, self.robot.dt_s)
        self._steps += 1
        stamp_ns = round(self._steps * self.robot.dt_s * 1e9)
        self._observation = self._sensors.read(stamp_ns, (command[0], command[1], command[2]))
        outcome = self._outcome()
        before, self._remaining_m = self._remaining_m, self._field.at(self._world.x_m, self._world.y_m)
        reward = self.rewards.reward(before - self._remaining_m, self._world.clearance_m, outcome)
        self._running = outcome is None
        terminated, truncated = outcome in (SUCCESS, COLLISION), outcome == TIMEOUT
        return self._arrays(), reward, terminated, truncated, self._info(outcome)

    def render(self) -> NDArray[np.uint8] | None:
        """(height, width, 3) picture of the episode, in a PyBullet world of its own with the robot's meshes."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            from sim.render_world import RenderWorld

            self._renderer = RenderWorld(self.robot)
        image: NDArray[np.uint8] = self._renderer.frame(self.scene, self._world.pose_world, self._view)
        return image

    def close(self) -> None:
        """Disconnects from PyBullet; safe to call again."""
        self._world.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._running = False

    def _outcome(self) -> str | None:
        scene, world = self.scene, self._world
        if world.collided:
            return COLLISION
        dx, dy = scene.goal[0] - world.x_m, scene.goal[1] - world.y_m
        if dx * dx + dy * dy <= scene.goal_radius_m**2:
            return SUCCESS
        return TIMEOUT if self._steps * self.robot.dt_s >= scene.time_limit_s - 1e-9 else None

    def _arrays(self) -> dict[str, NDArray[Any]]:
        observation = self._observation
        if self._tracker is not None:
            self._situation = self._tracker.update(self._situation, observation)
            policy_input: PolicyInput = self._tracker.policy_input(self._situation, observation)
            # Copies, since the tracker may hand out arrays that it keeps.
            arrays = {name: np.array(value) for name, value in policy_input.arrays().items()}
        else:
            arrays = {name: np.array(getattr(observation, name)) for name in _RAW}
        if observation.depth_m is not None:
            arrays["depth_m"] = observation.depth_m.copy()
        return arrays

    def _info(self, outcome: str | None) -> dict[str, Any]:
        info: dict[str, Any] = {
            "scene": self.scene.name,
            "position_world_m": self.position_world_m,
            "shortest_m": self._shortest_m,
            "path_m": self._world.path_m,
            "velocity": np.array(self._world.velocity, np.float32),
            "clearance_m": self._world.clearance_m,
        }
        if outcome is not None:
            info["outcome"] = outcome
        return info


_RAW = ("scan_m", "pose_odom_base", "twist_base", "tilt_rad", "goal_odom_m", "last_command")


def observation_space(robot: RobotSpec, policy_input: bool, depth: bool) -> spaces.Dict:
    """Space of the environment's observations."""
    raw = {"scan_m": (robot.lidar.beams,), "pose_odom_base": (3,), "twist_base": (3,), "tilt_rad": (2,)}
    raw |= {"goal_odom_m": (2,), "last_command": (3,)}
    shapes = policy_input_shapes(robot) if policy_input else raw
    boxes: dict[str, spaces.Space[Any]] = {}
    for name, shape in shapes.items():
        if name == "local_map":
            boxes[name] = spaces.Box(0, 255, shape, np.uint8)
        elif name == "scan_m":
            boxes[name] = spaces.Box(0.0, robot.lidar.range_m, shape, np.float32)
        elif name == "present":
            boxes[name] = spaces.Box(0.0, 1.0, shape, np.float32)
        else:
            boxes[name] = spaces.Box(-FAR, FAR, shape, np.float32)
    if depth:
        boxes["depth_m"] = spaces.Box(0.0, robot.depth.range_m, (robot.depth.height, robot.depth.width), np.float32)
    return spaces.Dict(boxes)


def reward_field(scene: Scene, robot: RobotSpec) -> tuple[GeodesicField, float]:
    """The field whose fall is progress, and the length of the shortest way into the goal's circle.

    Progress follows the way that is free for any heading where there is one, else the tight one. The shortest way is
    the tight one, close to a lower bound for the footprint, so that SPL is not flattered.

    Raises:
        SceneError: no way leads to the goal.
    """
    start = scene.start[:2]
    for resolution_m in FIELD_GRIDS_M:
        grid = ObstacleGrid.of(scene, resolution_m)
        tight = GeodesicField.of(grid, scene.goal, tight_clearance_m(robot))
        if tight.reaches(*start):
            safe = GeodesicField.of(grid, scene.goal, safe_clearance_m(robot))
            field = safe if safe.reaches(*start) else tight
            return field, max(tight.at(*start) - scene.goal_radius_m, 0.0)
    raise SceneError(f"scene '{scene.name}': no way from start {start} to goal {scene.goal} for robot '{robot.name}'")
