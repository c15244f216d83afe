"""The classical baseline "mppi": model predictive path integral control on the costmap, after Nav2's controller.

Sampled command sequences round the last tick's solution are rolled out and scored by Nav2's critics, and their softmax
mean is driven (Williams et al. 2017). Critics, their parameters and defaults are those of `nav2_mppi_controller`
(docs.nav2.org), for its omnidirectional model; the goal here has no heading, so the goal-angle critic is left out. Two
things differ, in its favour: roll-outs know the robot's lag, and `consider_footprint` checks discs along its length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.geometry import inverse_transform_points
from robonav.mapping import build_costmap
from robonav.planning.rollouts import Singles, poses_under, velocities_under
from robonav.planning.routes import points_at
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import COMMAND_LIFE_NS, Decision, Observation, RobotSpec, VelocityCommand

_LETHAL, _INSCRIBED = 254.0, 253.0  # costs of Nav2's costmap
_PATH_STEP_M = 0.05
_SMOOTHING = np.array([-3, 12, 17, 12, -3], np.float32) / 35  # Savitzky and Golay 1964: quadratic over five points
Complexes = NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class CostmapMppiConfig:
    """Nav2's parameters by their names there, with units where it has none in the name."""

    batch_size: int = 1000
    time_steps: int = 56
    model_dt_s: float = 0.05
    temperature: float = 0.3
    gamma: float = 0.015
    vx_std_mps: float = 0.2
    vy_std_mps: float = 0.2
    wz_std_radps: float = 0.4
    inflation_radius_m: float = 0.7
    cost_scaling_factor_per_m: float = 3.0
    consider_footprint: bool = False
    cost_weight: float = 3.81
    critical_cost: float = 300.0
    collision_cost: float = 1e6
    goal_weight: float = 5.0
    goal_threshold_m: float = 1.4  # the goal critic works within, path align and path follow beyond
    path_align_weight: float = 14.0
    path_align_offset: int = 20  # path points that must be reached before it works
    path_follow_weight: float = 5.0
    path_follow_offset: int = 5
    path_angle_weight: float = 2.0
    path_angle_offset: int = 4
    path_angle_max_rad: float = 1.0
    prefer_forward_weight: float = 5.0
    situation: SituationConfig = field(default_factory=SituationConfig)

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a size, time or spread that is not positive, or a negative weight.
        """
        positive = ("batch_size", "time_steps", "model_dt_s", "temperature", "vx_std_mps", "wz_std_radps")
        for name in (*positive, "inflation_radius_m", "cost_scaling_factor_per_m"):
            if getattr(self, name) <= 0:
                raise ConfigError(explain(f"mppi: {name}", "above 0", getattr(self, name)))
        for name in ("gamma", "vy_std_mps", *(n for n in self.__dataclass_fields__ if n.endswith("_weight"))):
            if getattr(self, name) < 0:
                raise ConfigError(explain(f"mppi: {name}", "0 or more", getattr(self, name)))


class CostmapMppiState(NamedTuple):
    """Map and route, the last solution, and what the next draw depends on."""

    situation: Situation
    controls: Singles  # (time_steps, 3)
    seed: int
    tick: int


class Costs(NamedTuple):
    """Costs round the robot, in its own frame's orientation of odom."""

    values: Singles  # (H, W), 0 to 254
    origin: complex  # odom position of the lower left corner
    cell_m: float


class CostmapMppiPolicy:
    """The draws are a function of seed and tick alone: same observations, same decisions."""

    name = "mppi"

    def __init__(self, spec: RobotSpec, config: CostmapMppiConfig | None = None) -> None:
        self.spec = spec
        self.config = c = config or CostmapMppiConfig()
        self.tracker = SituationTracker(spec, c.situation)
        self._std = np.array([c.vx_std_mps, c.vy_std_mps, c.wz_std_radps], np.float32)
        self._low = np.array([spec.vx_min_mps, -spec.vy_max_mps, -spec.yaw_rate_max_radps], np.float32)
        self._high = np.array([spec.vx_max_mps, spec.vy_max_mps, spec.yaw_rate_max_radps], np.float32)
        self._shift = max(1, round(spec.dt_s / c.model_dt_s))
        reach = max(spec.length_m - spec.width_m, 0.0) / 2
        self._discs = np.linspace(-reach, reach, math.ceil(spec.length_m / spec.width_m) + 1, dtype=np.complex64)

    def reset(self, seed: int) -> CostmapMppiState:
        """Nothing known, standing still."""
        controls = np.zeros((self.config.time_steps, 3), np.float32)
        return CostmapMppiState(self.tracker.reset(), controls, seed, 0)

    def act(self, state: CostmapMppiState, observation: Observation) -> tuple[CostmapMppiState, Decision]:
        """Next state and the decision for this tick."""
        situation = self.tracker.update(state.situation, observation)
        tick = state.tick + 1
        route = situation.route_odom_m
        if route is None or not situation.mapped:
            why = "stop: no scan" if not situation.mapped else "stop: no route"
            state = CostmapMppiState(situation, np.zeros_like(state.controls), state.seed, tick)
            return state, Decision(VelocityCommand.of(np.zeros(3), observation.stamp_ns + COMMAND_LIFE_NS), why=why)
        controls, path = self._optimise(state, situation, observation)
        command = VelocityCommand.of(controls[0].astype(np.float64), observation.stamp_ns + COMMAND_LIFE_NS)
        following = np.concatenate([controls[self._shift :], np.repeat(controls[-1:], self._shift, 0)])
        decision = Decision(command, why=self.name, route_odom_m=route, imagined_path_odom_m=path)
        return CostmapMppiState(situation, following, state.seed, tick), decision

    def _optimise(
        self, state: CostmapMppiState, situation: Situation, observation: Observation
    ) -> tuple[Singles, NDArray[np.float32]]:
        """(T, 3) controls, and the (T, 2) path in odom that they ought to give."""
        c, spec = self.config, self.spec
        rng = np.random.default_rng((state.seed % 2**63, state.tick))
        noise = rng.standard_normal((c.batch_size, c.time_steps, 3), np.float32) * self._std
        samples = np.clip(state.controls + noise, self._low, self._high)
        velocities = velocities_under(spec, observation.twist_base, samples, c.time_steps, c.model_dt_s)
        x, y, heading = (float(v) for v in observation.pose_odom_base)
        turn = complex(math.cos(heading), math.sin(heading))
        positions, yaw = poses_under(velocities, c.model_dt_s)
        cost = self._obstacle_cost(self._costs(situation, complex(x, y)), complex(x, y), turn, positions, yaw)
        cost += self._route_cost(situation, observation, positions, yaw, velocities)
        # the control cost of the path integral's importance sampling
        cost += (c.gamma / np.maximum(self._std, 1e-3) ** 2 * state.controls * (samples - state.controls)).sum((1, 2))
        weights = np.exp(-(cost - cost.min()) / c.temperature)
        controls = np.einsum("n,ntk->tk", weights / weights.sum(), samples)
        padded = np.concatenate([np.repeat(controls[:1], 2, 0), controls, np.repeat(controls[-1:], 2, 0)])
        smooth = sum(w * padded[k : k + len(controls)] for k, w in enumerate(_SMOOTHING))
        controls = np.clip(np.asarray(smooth, np.float32), self._low, self._high)
        driven = velocities_under(spec, observation.twist_base, controls[None], c.time_steps, c.model_dt_s)
        moved, _ = poses_under(driven, c.model_dt_s)
        path = complex(x, y) + moved[0] * turn
        return controls, np.stack([path.real, path.imag], -1).astype(np.float32)

    def _costs(self, situation: Situation, robot: complex) -> Costs:
        """Nav2's inflation layer over the reach of a roll-out."""
        c, spec = self.config, self.spec
        cell = situation.grid.resolution_m
        reach = spec.vx_max_mps * c.time_steps * c.model_dt_s + spec.radius_m + c.inflation_radius_m
        low, high = robot - complex(reach, reach), robot + complex(reach, reach)
        column, row = math.floor(low.real / cell), math.floor(low.imag / cell)
        window = situation.grid.cropped(column, row, math.ceil(high.real / cell), math.ceil(high.imag / cell))
        clearance: NDArray[Any] = build_costmap(window, spec).clearance_m
        inner = spec.inner_radius_m + cell / 2
        values = 252.0 * np.exp(-c.cost_scaling_factor_per_m * np.maximum(clearance - inner, 0.0))
        values[clearance > c.inflation_radius_m] = 0.0
        values[clearance < inner] = _INSCRIBED
        values[clearance < cell / 2] = _LETHAL
        x0, y0 = window.origin_odom_m.tolist()
        return Costs(values.astype(np.float32), complex(x0, y0), cell)

    def _obstacle_cost(
        self, costs: Costs, robot: complex, turn: complex, positions: Complexes, yaw: Singles
    ) -> NDArray[np.float32]:
        """(N,) Nav2's cost critic on every second point."""
        c = self.config
        points, headings = positions[:, 1::2], yaw[:, 1::2]
        odom = np.complex64(robot) + points * np.complex64(turn)
        cost = _look_up(costs, odom)
        if c.consider_footprint:  # discs as wide as the robot, along its length
            discs = odom[..., None] + self._discs * (np.exp(1j * headings) * turn).astype(np.complex64)[..., None]
            collides = (_look_up(costs, discs) >= _INSCRIBED).any(axis=(1, 2))
        else:
            collides = (cost >= _INSCRIBED).any(axis=1)
        critical = (cost >= _INSCRIBED) * np.float32(c.critical_cost)
        mean = (cost * np.float32(c.cost_weight / _LETHAL) * (cost < _INSCRIBED) + critical).mean(axis=1)
        return np.where(collides, np.float32(c.collision_cost), mean).astype(np.float32)

    def _route_cost(
        self,
        situation: Situation,
        observation: Observation,
        positions: Complexes,
        yaw: Singles,
        velocities: Singles,
    ) -> NDArray[np.float32]:
        """(N,) goal, path align, path follow, path angle and prefer forward."""
        c, route = self.config, situation.route_odom_m
        if route is None:
            raise RuntimeError("route cost without a route")
        goal = complex(*inverse_transform_points(observation.pose_odom_base, observation.goal_odom_m).tolist())
        if abs(goal) < c.goal_threshold_m:
            return (c.goal_weight * np.abs(positions - np.complex64(goal)).mean(axis=1)).astype(np.float32)
        ahead_m = self.spec.vx_max_mps * c.time_steps * c.model_dt_s + 0.5
        arc_m = np.arange(0.0, ahead_m, _PATH_STEP_M)
        line = inverse_transform_points(observation.pose_odom_base, points_at(route, situation.progress_m + arc_m))
        path = (line[:, 0] + 1j * line[:, 1]).astype(np.complex64)
        ends = positions[:, -1]
        furthest = int(np.abs(ends[:, None] - path[None]).argmin(axis=1).max())
        last = len(path) - 1
        cost = c.path_follow_weight * np.abs(ends - path[min(furthest + c.path_follow_offset, last)])
        if furthest >= c.path_align_offset:
            stride = positions[:, ::4]
            steps = np.abs(np.diff(stride, axis=1, prepend=np.zeros((len(stride), 1), np.complex64)))
            arc = np.minimum((np.cumsum(steps, axis=1) / _PATH_STEP_M).astype(np.intp), min(furthest, last))
            cost = cost + c.path_align_weight * np.abs(stride - path[arc]).mean(axis=1)
        aim = path[min(furthest + c.path_angle_offset, last)]
        if abs(np.angle(aim)) > c.path_angle_max_rad:
            off = np.abs(np.angle((aim - ends) * np.exp(-1j * yaw[:, -1])))
            cost = cost + c.path_angle_weight * off
        backward = np.maximum(-velocities[..., 0], 0.0).sum(axis=1) * c.model_dt_s
        return np.asarray(cost + c.prefer_forward_weight * backward, np.float32)


def _look_up(costs: Costs, odom: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Costs at points; outside the window nothing is known to stand."""
    cells = (odom - np.complex64(costs.origin)) * np.float32(1.0 / costs.cell_m)
    columns, rows = np.floor(cells.real).astype(np.int32), np.floor(cells.imag).astype(np.int32)
    height, width = costs.values.shape
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    flat = np.where(inside, rows * width + columns, 0)
    return np.where(inside, costs.values.ravel()[flat], np.float32(0.0))
