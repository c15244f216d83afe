"""The three worlds behind one interface: analytic, kinematic and legged, on the same scenes and robots.

"analytic" is compiled and needs no PyBullet, "kinematic" is PyBullet with a robot that follows commands with its lag
(and the only one whose depth camera is fast), "legged" is PyBullet with a robot that trots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args, runtime_checkable

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec
from sim.world import World, WorldConfig

if TYPE_CHECKING:
    from sim.randomisation import LegsDraw
    from sim.walker import LeggedConfig

Fidelity = Literal["kinematic", "legged", "analytic"]


@runtime_checkable
class Varied(Protocol):
    """A world with legs: it can be given other ones, and can fall."""

    @property
    def fallen(self) -> bool:
        """True once the robot has fallen, which ends the episode as a collision does."""

    def vary(self, legs: LegsDraw, seed: int = 0) -> None:
        """Legs and pushes of the coming episode."""


def check_fidelity(fidelity: str, depth: bool) -> None:
    """Whether there is such a fidelity, and whether it has what is asked of it.

    Raises:
        ConfigError: there is none of that name, or it has no depth camera.
    """
    if fidelity not in get_args(Fidelity):
        raise ConfigError(explain("fidelity", "'kinematic', 'legged' or 'analytic'", f"'{fidelity}'"))
    if depth and fidelity == "analytic":
        raise ConfigError("depth: fidelity 'analytic' has no depth camera; take 'kinematic', or depth=False")


def make_world(fidelity: Fidelity, robot: RobotSpec, config: WorldConfig | LeggedConfig | None = None) -> World:
    """A world of one robot; `config` is a `WorldConfig`, or for "legged" a `LeggedConfig` (ground, the robot's state).

    Raises:
        ConfigError: a config of another fidelity, or a robot whose legs are not described, for "legged".
        MissingDependencyError: PyBullet, or for "analytic" numba, is not installed.
    """
    if fidelity == "legged":
        from sim.legged import LeggedWorld

        if isinstance(config, WorldConfig):
            return LeggedWorld(robot, clearance_range_m=config.clearance_range_m)
        return LeggedWorld(robot, config)
    if config is not None and not isinstance(config, WorldConfig):
        raise ConfigError(explain("world", f"a WorldConfig for fidelity '{fidelity}'", type(config).__name__))
    if fidelity == "analytic":
        from sim.analytic.world import AnalyticWorld

        return cast("World", AnalyticWorld(robot, config))
    return World(robot, config)
