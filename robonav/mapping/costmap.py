"""The inflated costmap: what it costs a route to cross each cell, from the distance to what stands nearest.

As in ROS navigation's inflation layer: lethal inside the inner radius of the footprint, decaying outside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.mapping.grid import FREE_BELOW, OCCUPIED_ABOVE, OccupancyGrid
from robonav.types import RobotSpec

BLOCKED = 0  # cost of a lethal cell, as tcod's path finding wants it
BASE_COST = 10  # cost of a known free cell far from everything; costs are whole numbers


@dataclass(frozen=True, slots=True)
class CostmapConfig:
    """How strongly routes keep away from obstacles and from the unknown. Weights are multiples of the free cost."""

    inflation_radius_m: float = 0.9  # no cost beyond it
    decay_m: float = 0.15  # the cost falls by e over this distance
    obstacle_weight: float = 8.0  # extra cost at the border of the lethal zone
    unknown_weight: float = 0.5  # extra cost of an unknown cell

    def __post_init__(self) -> None:
        """Checks signs.

        Raises:
            ConfigError: a length that is not positive or a negative weight.
        """
        if self.inflation_radius_m <= 0 or self.decay_m <= 0:
            got = (self.inflation_radius_m, self.decay_m)
            raise ConfigError(explain("costmap: inflation_radius_m, decay_m", "above 0", got))
        if self.obstacle_weight < 0 or self.unknown_weight < 0:
            got = (self.obstacle_weight, self.unknown_weight)
            raise ConfigError(explain("costmap: obstacle_weight, unknown_weight", "0 or more", got))


@dataclass(frozen=True, slots=True)
class Costmap:
    """Costs on the cells of a grid; BLOCKED is lethal, everything else at least BASE_COST."""

    cost: NDArray[np.int32]  # (H, W)
    clearance_m: NDArray[np.float32]  # (H, W) from the cell's centre to the nearest occupied cell's centre
    grid: OccupancyGrid

    @property
    def lethal(self) -> NDArray[np.bool_]:
        """(H, W) cells in which the robot's centre means a collision."""
        return self.cost == BLOCKED


def lethal_radius_m(spec: RobotSpec, resolution_m: float) -> float:
    """Distance of cell centres below which the robot touches the obstacle: inner radius and half a cell."""
    return spec.inner_radius_m + resolution_m / 2


def build_costmap(grid: OccupancyGrid, spec: RobotSpec, config: CostmapConfig | None = None) -> Costmap:
    """The costmap of a grid for a robot."""
    c = config or CostmapConfig()
    radius = lethal_radius_m(spec, grid.resolution_m)
    # (H, W); without any obstacle OpenCV gives a huge distance
    clear = (grid.log_odds <= OCCUPIED_ABOVE).view(np.uint8)
    clearance_m: NDArray[Any] = cv2.distanceTransform(clear, cv2.DIST_L2, cv2.DIST_MASK_5)
    clearance_m *= np.float32(grid.resolution_m)
    # the decay comes from a table over 255 steps of distance: exp of every cell took longer than the route
    steps = np.linspace(0.0, c.inflation_radius_m, 256)
    table = BASE_COST * (1.0 + c.obstacle_weight * np.exp(np.minimum((radius - steps) / c.decay_m, 0.0)))
    table[-1] = BASE_COST
    # bounded first: where nothing stands the distance is so huge that the conversion wraps round
    bounded = np.minimum(clearance_m, np.float32(c.inflation_radius_m))
    near = cv2.convertScaleAbs(bounded, alpha=255.0 / c.inflation_radius_m)
    cost: NDArray[Any] = cv2.LUT(near, table.astype(np.int32))
    cost += (grid.log_odds >= FREE_BELOW) * np.int32(c.unknown_weight * BASE_COST)
    cost[clearance_m < radius] = BLOCKED
    return Costmap(cost, clearance_m, grid)
