"""What an exported planner reads and gives: names, shapes, and how a tick's knowledge becomes its arrays.

Limits, size and speeds of the robot are inputs, so that one graph plans for every robot its policy may drive; the
dials of `robonav.planning.mppi` are constants of the graph. Noise comes in as well: the same inputs give the same plan.

Shape letters: K candidates, P of them the actor's, L horizon, A action size, R rounds, S sampled groups, C classes,
M constant commands, N route points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.mapping.sight import SHIPPED
from robonav.planning.field import CELLS, MOVERS, LocalField, footprint_spots
from robonav.planning.mppi import MPPIConfig, Noise, PlannerState, draw_noise
from robonav.planning.progress import STEP_M, RouteAhead
from robonav.planning.window import reachable_commands
from robonav.types import ACTION_SIZE, RobotSpec

Singles = NDArray[np.float32]
Feeds = dict[str, Singles]
PLAN = "plan"  # the state that the planner adds to the policy's
ROUTE_SPEED_MPS = 2.0  # the fastest robot whose whole way is seen on the route
BODY = (
    *("half_length", "half_width", "ahead_mps", "back_mps", "side_mps", "turn_radps"),
    *("tick_blend", "tick_change", "tick_turn", "tail_blend", "tail_change", "tail_turn"),
    *("braking_s", "braking_mps2", "braking_radps2", "field_half_m"),
)


@dataclass(frozen=True, slots=True)
class PlannerLayout:
    """Sizes that a planner's graph was exported with; its contract."""

    config: MPPIConfig = field(default_factory=MPPIConfig)
    """The dials."""
    dt_s: float = 0.1
    """Length of a tick."""
    noise_shape: tuple[int, int] = (4, 16)
    """S, C."""
    doubt_every: int = 4
    """The priors' disagreement is looked at every so many steps of a dream."""

    def __post_init__(self) -> None:
        """Checks what a graph cannot do.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"doubt_every": 1})
        if self.config.deadline_ms is not None:
            raise ConfigError(explain("planner: deadline_ms", "none in a graph, whose rounds are fixed", "one"))
        if self.config.sight not in ("", SHIPPED):
            want = f"'{SHIPPED}', which comes with the package, or ''"
            raise ConfigError(
                explain("planner: sight", want, repr(self.config.sight), "bundles carry none of their own")
            )
        if not 0 < self.own < self.config.dreams:
            raise ConfigError(explain("planner: from_actor", "some dreams of each kind", self.config.from_actor))

    @property
    def own(self) -> int:
        """P."""
        return self.config.own

    @property
    def constants(self) -> int:
        """M: standstill may come on top of each axis' samples."""
        return int(np.prod([n + (n > 1) for n in self.config.samples])) if self.config.primitives else 0

    @property
    def route_points(self) -> int:
        """N."""
        c = self.config
        seconds = c.horizon * self.dt_s + c.sweep.tail_s
        return round((ROUTE_SPEED_MPS * seconds + 1.0) / STEP_M)

    @property
    def seconds(self) -> float:
        """How long a plan is swept."""
        return self.config.horizon * self.dt_s + self.config.sweep.tail_s

    @property
    def mover_numbers(self) -> int:
        """Numbers of a mover: how long nothing stands in his way is the last one, where that counts."""
        return 6 if self.config.sweep.walls else 5

    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes besides the policy's state and the last plan."""
        c = self.config
        known = {"constants": (self.constants, ACTION_SIZE), "known": (self.constants,)} if self.constants else {}
        return {
            "twist": (3,),
            "last_command": (3,),
            "body": (len(BODY),),
            "spots": (7, 3),
            "field": (CELLS, CELLS),
            "movers": (MOVERS, self.mover_numbers),
            "route": (self.route_points + 1, 2),
            "route_length": (2,),
            **known,
            "noise.actor": (self.own, c.horizon, ACTION_SIZE),
            "noise.plans": (c.rounds, c.candidates, max(c.knots, 2), ACTION_SIZE),
            "noise.latent": (c.horizon, 1, *self.noise_shape),
            "noise.choice": (c.rounds - c.first_dreaming, c.pool(c.first_dreaming, self.constants)),
        }

    def route_arrays(self, route: RouteAhead | None) -> tuple[Singles, Singles]:
        """(N + 1, 2) points of a route, its end last, and (2,) its length and whether there is one."""
        line = np.zeros((self.route_points + 1, 2), np.float32)
        if route is None:
            return line, np.zeros(2, np.float32)
        points = np.append(route.line[: self.route_points], route.end).astype(np.complex64)
        line[: len(points)] = np.stack([points.real, points.imag], 1)
        line[len(points) :] = line[len(points) - 1]
        return line, np.array([route.length_m, 1.0], np.float32)

    def feeds(self, seen: Seen, noise: Noise, spec: RobotSpec) -> Feeds:
        """A tick's arrays for `inputs`."""
        constants = constants_of(self.config, spec, seen.twist)[: self.constants]
        filled = np.zeros((self.constants, ACTION_SIZE), np.float32)
        filled[: len(constants)] = constants
        known = {"constants": filled, "known": (np.arange(self.constants) < len(constants)).astype(np.float32)}
        choice = np.zeros(self.inputs()["noise.choice"], np.float32)
        for row, drawn in zip(choice, noise.choice, strict=True):
            row[: len(drawn)] = drawn
        return {
            "twist": seen.twist,
            "last_command": seen.last_command,
            "body": body_of(spec, self.config, seen.local.half_m),
            "spots": footprint_spots(spec),
            "field": seen.local.distance_m,
            "movers": seen.local.movers[:, : self.mover_numbers],
            "route": seen.route,
            "route_length": seen.route_length,
            **(known if self.constants else {}),
            "noise.actor": noise.actor,
            "noise.plans": noise.plans,
            "noise.latent": noise.latent,
            "noise.choice": choice,
        }

    def noise(self, planner: PlannerState, spec: RobotSpec, twist: Singles) -> Noise:
        """The noise of a tick."""
        return draw_noise(planner, self.config, self.noise_shape, len(constants_of(self.config, spec, twist)))


class Seen(NamedTuple):
    """What a planner is told of a tick, in the base frame."""

    twist: Singles  # (3,)
    last_command: Singles  # (3,)
    local: LocalField
    route: Singles  # (N + 1, 2)
    route_length: Singles  # (2,)


def constants_of(config: MPPIConfig, spec: RobotSpec, twist: NDArray[np.floating]) -> Singles:
    """(m, 3) constant actions that the robot can reach, m at most M."""
    if not config.primitives:
        return np.zeros((0, ACTION_SIZE), np.float32)
    return spec.velocity_to_action(reachable_commands(spec, twist, config.samples)).astype(np.float32)


def body_of(spec: RobotSpec, config: MPPIConfig, half_m: float) -> Singles:
    """(16,) size and limits in the order of `BODY`; see `robonav.planning.rollouts` for the lag."""

    def step(seconds: float) -> tuple[float, float, float]:
        blend = 1.0 - float(np.exp(-seconds / spec.lag_s)) if spec.lag_s > 0 else 1.0
        return blend, spec.acceleration_max_mps2 * seconds, spec.yaw_acceleration_max_radps2 * seconds

    numbers = (
        *(spec.length_m / 2, spec.width_m / 2, spec.vx_max_mps, -spec.vx_min_mps, spec.vy_max_mps),
        *(spec.yaw_rate_max_radps, *step(spec.dt_s), *step(config.sweep.tail_step_s)),
        *(spec.dt_s + spec.lag_s, spec.acceleration_max_mps2, spec.yaw_acceleration_max_radps2, half_m),
    )
    return np.array(numbers, np.float32)
