"""``robonav/Navigate-v0`` over a batch of analytic worlds: one call steps all of them.

World i of a batch gives what a `sim.env.NavigateEnv` of fidelity "analytic" gives with the same seeds, bit for bit and
whatever the number of worlds, with sensor errors and randomisation as well; only the pool, which is there for speed,
makes scenes come again. Depth and pictures are left to PyBullet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robonav.config import load_robot
from robonav.errors import ConfigError, ShapeError, explain
from robonav.planning.situation import SituationConfig
from robonav.types import ACTION_SIZE, Observation, RobotSpec
from sim.analytic.batch import AnalyticBatch
from sim.analytic.imperfect import Imperfect
from sim.analytic.observe import observe
from sim.analytic.pool import ReadyScene, ScenePool
from sim.analytic.situation import BatchTracker, empty_policy_input
from sim.analytic.tasks import Tasks
from sim.analytic.window import SIDEWAYS, TEACHER, Chosen, Window
from sim.env import observation_space
from sim.randomisation import RandomisationConfig, load_randomisation
from sim.rewards import COLLISION, SUCCESS, TIMEOUT, RewardConfig, load_rewards
from sim.scenes import load_scene
from sim.sensor_config import SensorConfig, load_sensors
from sim.vector import autoreset_of
from sim.world import WorldConfig

Arrays = dict[str, NDArray[Any]]
_OUTCOMES = (None, SUCCESS, COLLISION, TIMEOUT)


class AnalyticVectorEnv(gymnasium.vector.VectorEnv[Arrays, NDArray[np.float32], NDArray[Any]]):
    """See `sim.env.NavigateEnv` for actions, observations, rewards and infos, and Gymnasium for the rest."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 (Gymnasium's name and form)
    render_mode = None

    def __init__(
        self,
        num_envs: int,
        scene: str | Sequence[str] = "rooms",
        robot: str | RobotSpec = "a1",
        policy_input: bool = True,
        reward: str | RewardConfig | dict[str, float] | None = None,
        world: WorldConfig | None = None,
        scene_options: dict[str, Any] | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        pool: int = 0,
        ahead: bool = False,
        copy: bool = True,
        sensors: str | SensorConfig | None = None,
        randomisation: str | RandomisationConfig | None = None,
        sight: str = "",
    ) -> None:
        """Makes the worlds.

        Args:
            num_envs: how many.
            scene: preset or file as in `sim.load_scene`, or several, which the worlds take turn by turn.
            robot: name or data.
            policy_input: the arrays of `PolicyInput`; otherwise the raw sensors, without map and route.
            reward: see `sim.rewards.load_rewards`.
            world: substeps and range of the clearance.
            scene_options: as in `sim.load_scene`.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as Gymnasium has them.
            pool: number of scenes a preset that come again and again; 0 draws without end.
            ahead: make coming scenes in a thread.
            copy: observations are copies, and not arrays that the next step overwrites.
            sensors: errors of the sensors, as in `sim.env.NavigateEnv`; a step then takes two to three times as long.
            randomisation: as there.
            sight: as there.

        Raises:
            RobonavError: unknown scene, robot, reward, preset or mode, or a number that cannot be.
        """
        super().__init__()
        if num_envs < 1:
            raise ShapeError(explain("num_envs", "1 or more", num_envs))
        self.num_envs, self._copy = num_envs, copy
        self.robot = load_robot(robot) if isinstance(robot, str) else robot
        self.autoreset_mode = autoreset_of(autoreset_mode)
        self.metadata = {"render_modes": [], "render_fps": round(self.robot.rate_hz)}
        self.metadata["autoreset_mode"] = self.autoreset_mode
        names = [scene] if isinstance(scene, str) else list(scene)
        if not names:
            raise ConfigError(explain("scene", "a scene, or several", "none"))
        sources = [load_scene(name, self.robot, **(scene_options or {})) for name in names]
        self.pools = [ScenePool(source, self.robot, pool, ahead) for source in sources]
        self._pool_names = {name: index for index, name in enumerate(names)}
        self._pool_of = [b % len(names) for b in range(num_envs)]
        self.rewards = load_rewards(reward)
        self.worlds = AnalyticBatch(self.robot, num_envs, world)
        situation = SituationConfig(sight=sight)
        self.tracker = BatchTracker(self.robot, num_envs, situation) if policy_input else None
        self._windows = Window(self.robot, TEACHER), Window(self.robot, SIDEWAYS)
        self._tasks = Tasks(num_envs)
        errors, randomised = load_sensors(sensors), load_randomisation(randomisation)
        perfect = errors == SensorConfig() and randomised.is_off
        self._imperfect = None if perfect else Imperfect(self.worlds, errors, randomised)
        space = observation_space(self.robot, policy_input, False, not errors.contact.missing)
        self.single_observation_space = space
        self.single_action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._raw = {
            "scan_m": np.zeros((num_envs, self.robot.lidar.beams), np.float32),
            "pose_odom_base": np.zeros((num_envs, 3), np.float32),
            "twist_base": np.zeros((num_envs, 3), np.float32),
            "goal_odom_m": np.zeros((num_envs, 2), np.float32),
            "last_command": np.zeros((num_envs, 3), np.float32),
            "tilt_rad": np.zeros((num_envs, 2), np.float32),
            "contact": np.zeros((num_envs, 5), np.float32),
        }
        self._observations = self._shared_arrays()
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._numbers: list[int | None] = [None] * num_envs  # of each world's next scene, once it was drawn
        self._running = np.zeros(num_envs, np.bool_)
        self._ended = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Starts an episode in every world, or in those of ``options["reset_mask"]`` (B,) bool.

        World i starts in scene number `seed` + i, or in one that is drawn from its own stream.

        Raises:
            SceneError: a scene cannot be made.
            ShapeError: a mask or seeds of another length.
            ConfigError: an unknown option.
        """
        unknown = set(options or {}) - {"reset_mask"}
        if unknown:
            raise ConfigError(explain("reset options", "'reset_mask' alone", ", ".join(sorted(unknown))))
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), np.bool_)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        seeds = [None] * self.num_envs if seeds is None else list(seeds)
        if mask.shape != (self.num_envs,) or not mask.any() or len(seeds) != self.num_envs:
            raise ShapeError(explain("reset_mask, seed", f"{self.num_envs} values, one of them true", mask.shape))
        for b in np.flatnonzero(mask).tolist():
            number, seed_b = self._numbers[b], seeds[b]
            if seed_b is not None:
                if number is not None:
                    self.pools[self._pool_of[b]].dismiss(number)
                self._generators[b], self._numbers[b] = np.random.default_rng(seed_b), seed_b
        infos = self._restart(mask)
        return self._arrays(), self._infos(infos, mask)

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Arrays, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Applies actions (B, 3) for one control period.

        Raises:
            ResetNeeded: before the first reset, or in a world whose episode is over, unless worlds reset themselves.
            ShapeError: actions of another shape, or not finite.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs, ACTION_SIZE) or not np.isfinite(actions).all():
            raise ShapeError(explain("actions", f"({self.num_envs}, 3) finite numbers in [-1, 1]", actions.shape))
        waiting = self._ended.copy()
        if not (self._running | waiting).all() or (waiting.any() and self.autoreset_mode == AutoresetMode.DISABLED):
            raise ResetNeeded("call reset() first: an episode is over or has not begun")
        infos: dict[str, Any] = self._restart(waiting) if waiting.any() else {}
        moving = ~waiting
        commands = self.robot.action_to_velocity(actions)
        state = (self._imperfect or self.worlds).step(commands, moving)
        progress, remaining, ended = self._tasks.judge(state, self.robot.dt_s, moving)
        self._raw["last_command"][moving] = commands[moving]
        self._observe(moving)
        rewards = np.zeros(self.num_envs)
        for b in np.flatnonzero(moving).tolist():
            outcome = _OUTCOMES[ended[b]]
            rewards[b] = self.rewards.reward(progress[b], state.clearance_m[b], outcome, remaining[b])
        terminated, truncated = (ended == 1) | (ended == 2), ended == 3
        over = np.flatnonzero(ended)
        self._ended, self._running = ended > 0, ended == 0
        if len(over) and self.autoreset_mode == AutoresetMode.SAME_STEP:
            for b in over.tolist():
                final = {name: array[b].copy() for name, array in self._observations.items()}
                info = {"final_obs": final, "final_info": self._info(b) | {"outcome": _OUTCOMES[ended[b]]}}
                infos = self._add_info(infos, info, b)
            infos |= self._restart(self._ended.copy())
        else:
            for b in over.tolist():
                infos = self._add_info(infos, {"outcome": _OUTCOMES[ended[b]]}, b)
        everyone = np.ones(self.num_envs, np.bool_)
        return self._arrays(), rewards, terminated, truncated, self._infos(infos, everyone)

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the threads that make scenes."""
        for pool in self.pools:
            pool.close()

    def _restart(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """New episodes in some worlds; returns what only the first infos of an episode hold."""
        worlds = np.flatnonzero(mask)
        infos: dict[str, Any] = {}
        scenes: list[ReadyScene] = []
        for b in worlds.tolist():
            number = self._numbers[b]
            number = self._draw(b) if number is None else number
            pool = self.pools[self._pool_of[b]]
            scenes.append(pool.get(number))
            drawn = {} if self._imperfect is None else self._imperfect.start(b, number)
            infos = self._add_info(infos, {"seed": number, "randomisation": drawn}, b)
            self._numbers[b] = None
        self.worlds.reset(worlds, [s.scene for s in scenes], [s.solid for s in scenes])
        self._tasks.start_in(worlds, scenes)
        if self.tracker is not None:
            self.tracker.reset(worlds)
        self._raw["last_command"][mask] = 0.0
        self._running[mask], self._ended[mask] = True, False
        self._observe(mask)
        for b in worlds.tolist():
            pool = self.pools[self._pool_of[b]]
            if pool.ahead:
                coming = self._numbers[b] = self._draw(b)
                pool.expect(coming)
        return infos

    def announce(self, b: int, number: int, scene: str = "", randomisation: str = "") -> None:
        """Says what the next episode of world b is: scene `number`, and its presets where they are to change.

        Raises:
            ConfigError: a scene that the environment was not made with, or an unknown randomisation.
        """
        if self._numbers[b] is not None:
            self.pools[self._pool_of[b]].dismiss(int(self._numbers[b] or 0))
        if scene:
            if scene not in self._pool_names:
                raise ConfigError(explain("scene", f"one of {', '.join(self._pool_names)}", scene))
            self._pool_of[b] = self._pool_names[scene]
        if randomisation and self._imperfect is not None:
            self._imperfect.randomise(b, load_randomisation(randomisation))
        elif randomisation and not load_randomisation(randomisation).is_off:
            raise ConfigError(explain("randomisation", "'off' in a batch made without errors", randomisation))
        self._numbers[b] = number
        if self.pools[self._pool_of[b]].ahead:
            self.pools[self._pool_of[b]].expect(number)

    def blocked(self, b: int) -> bool:
        """Whether no route is known that leads world b's robot to its goal."""
        return self.tracker is not None and int(self.tracker.routes.counts[b]) == 0

    def observation(self, b: int) -> Observation:
        """What a policy that is no network reads in world b."""
        raw = self._raw
        present = self._observations["scan_present" if self.tracker is None else "present"]
        return Observation(
            stamp_ns=round(int(self._tasks.steps[b]) * self.robot.dt_s * 1e9),
            pose_odom_base=raw["pose_odom_base"][b].copy(),
            twist_base=raw["twist_base"][b].copy(),
            tilt_rad=raw["tilt_rad"][b].copy(),
            goal_odom_m=raw["goal_odom_m"][b].copy(),
            last_command=raw["last_command"][b].copy(),
            scan_m=raw["scan_m"][b].copy() if present[b, 0] else None,
        )

    def window_commands(
        self,
        wanted: NDArray[np.bool_] | None = None,
        asked: NDArray[np.floating] | None = None,
        sideways: bool = False,
        slack_m: float = 0.0,
        window: Window | None = None,
    ) -> Chosen:
        """What a window would command now, by default the one that teaches.

        Args:
            wanted: (B,) the worlds, if not all.
            asked: (B, 3) commands whose regret is asked for, see `Window.commands`.
            sideways: whether the window that teaches has commands askew (`SIDEWAYS`) or none (`TEACHER`).
            slack_m: see `Window.commands`.
            window: another one.

        Raises:
            ConfigError: worlds that were made without map and route.
        """
        if self.tracker is None:
            raise ConfigError(explain("window_commands", "worlds with policy_input=True", "raw sensors"))
        window = window or self._windows[sideways]
        seen = self.readings()
        known = seen["present"][:, 0] > 0
        if wanted is not None:
            known &= wanted
        return window.commands(seen, self._raw["pose_odom_base"], self.tracker.routes, known, asked, slack_m)

    def readings(self) -> Arrays:
        """What was observed last, without a copy: the arrays of the observation and the sensors' readings."""
        return self._raw | self._observations

    def _draw(self, b: int) -> int:
        """The number of a world's next scene."""
        generator = self._generators[b]
        if generator is None:
            generator = self._generators[b] = np.random.default_rng()
        return int(generator.integers(2**31))

    def _observe(self, mask: NDArray[np.bool_]) -> None:
        """Brings the observations of some worlds up to now."""
        raw, made, errors = self._raw, self._observations, self._imperfect
        if errors is None:
            self.worlds.scan(out=raw["scan_m"], active=mask)
            observe(self.worlds.state, self._tasks, mask, raw["pose_odom_base"], raw["goal_odom_m"], raw["twist_base"])
        else:
            self.worlds.scan(out=errors.clean_m, active=mask)
            has_scan = made["scan_present" if self.tracker is None else "present"][:, 0]
            errors.read(np.flatnonzero(mask), self._tasks.steps, raw["last_command"], raw, has_scan)
        if self.tracker is not None:
            has = None if errors is None else made["present"][:, 0] > 0
            self.tracker.update(raw["scan_m"], raw["pose_odom_base"], raw["goal_odom_m"], mask, has)
            self.tracker.policy_input(raw["pose_odom_base"], raw["goal_odom_m"], made, mask)
            if errors is not None:
                made["present"][mask, 1] = errors.mapped[mask]
                made["local_map"][mask & ~errors.mapped] = 0  # as without a map: the route is not drawn either

    def _shared_arrays(self) -> Arrays:
        """The arrays of the observation, of which those that are sensors' readings are the raw ones."""
        if self.tracker is None:
            arrays = {**self._raw, "scan_present": np.ones((self.num_envs, 1), np.float32)}
        else:
            arrays = {**empty_policy_input(self.robot, self.num_envs), **self._raw}
            arrays["present"][:] = 1.0
            arrays["robot"][:] = self.robot.dynamics
        return {name: arrays[name] for name in cast("spaces.Dict", self.single_observation_space)}

    def _arrays(self) -> Arrays:
        if not self._copy:
            return dict(self._observations)
        return {name: array.copy() for name, array in self._observations.items()}

    def _info(self, b: int) -> dict[str, Any]:
        """One world's info."""
        return {name: array[b] for name, array in self._measured().items()}

    def _measured(self) -> Arrays:
        state = self.worlds.state
        return {
            "scene": self._tasks.names,
            "position_world_m": state.pose[:, :2],
            "shortest_m": self._tasks.shortest_m,
            "path_m": state.path_m,
            "velocity": state.velocity.astype(np.float32),
            "clearance_m": state.clearance_m,
        }

    def _infos(self, infos: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
        """The batched infos of the worlds in `mask`, and the further ones."""
        for name, array in self._measured().items():
            out = np.full(self.num_envs, None, object) if array.dtype == object else np.zeros_like(array)
            out[mask] = array[mask]
            infos[name], infos[f"_{name}"] = out, mask.copy()
        return infos
