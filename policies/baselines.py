"""Classical baselines as data: a preset of ``configs/policies`` names the method and sets its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from policies.costmap_mppi import CostmapMppiConfig, CostmapMppiPolicy
from policies.dwa import DwaConfig, DwaPolicy
from policies.geometry import GeometryConfig, GeometryPolicy
from policies.pursuit import PursuitConfig, PursuitPolicy
from policies.random_policy import RandomConfig, RandomPolicy
from robonav.config import find_config, load_config
from robonav.types import Policy, RobotSpec

KIND = "policies"  # of configs
_METHODS: dict[str, Callable[..., Policy]] = {
    "random": RandomPolicy,
    "pursuit": PursuitPolicy,
    "dwa": DwaPolicy,
    "mppi": CostmapMppiPolicy,
    "geometry": GeometryPolicy,
}


@dataclass(frozen=True, slots=True)
class BaselineConfig:
    """A baseline; of the tables only the method's own counts."""

    method: Literal["random", "pursuit", "dwa", "mppi", "geometry"]
    description: str = ""
    random: RandomConfig = field(default_factory=RandomConfig)
    pursuit: PursuitConfig = field(default_factory=PursuitConfig)
    dwa: DwaConfig = field(default_factory=DwaConfig)
    mppi: CostmapMppiConfig = field(default_factory=CostmapMppiConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)

    def policy(self, spec: RobotSpec, name: str) -> Policy:
        """The policy for a robot, under this name."""
        made: Any = _METHODS[self.method](spec, getattr(self, self.method))
        made.name = name
        policy: Policy = made
        return policy


def load_baseline(name: str) -> BaselineConfig:
    """A preset by its name, or a .toml file by its path.

    Raises:
        ConfigError: there is none, or it does not hold what it should.
    """
    return load_config(BaselineConfig, find_config(KIND, name))


def make_baseline(name: str, spec: RobotSpec) -> Policy:
    """The policy of a preset or a .toml file.

    Raises:
        ConfigError: see `load_baseline`.
    """
    return load_baseline(name).policy(spec, Path(name).stem)
